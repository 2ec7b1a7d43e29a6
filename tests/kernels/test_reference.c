/* SPDX-License-Identifier: Apache-2.0
 *
 * The lowest rung: the reference's gradients against 4-point finite differences of its own forward,
 * both in float64. Their error is about h^4 (times a fifth derivative) plus 1e-16 / h.
 */
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

// sum of dy . f(x): what is differentiated.
typedef double (*objective)(const double *x, void *context);

static void check_gradient(const char *what, objective f, double *x, const double *gradient,
                           int64_t count, void *context)
{
    static const double moves[] = {-2.0, -1.0, 1.0, 2.0};
    const double        h = 1e-3;
    for (int64_t i = 0; i < count; i++) {
        double values[4], kept = x[i];
        for (int k = 0; k < 4; k++) {
            x[i] = kept + moves[k] * h;
            values[k] = f(x, context);
        }
        x[i] = kept;
        double exact = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * h);
        cr_assert(fabs(gradient[i] - exact) <= 1e-9 * (1.0 + fabs(exact)),
                  "%s[%lld] is %.12g, should be %.12g", what, (long long)i, gradient[i], exact);
    }
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

enum { M = 3, N = 5, K = 4 };

typedef struct linear_context {
    double x[M * K], w[N * K], dy[M * N];
} linear_context;

static double linear_of_x(const double *x, void *context)
{
    linear_context *c = context;
    double          y[M * N];
    ref_linear(y, x, c->w, NULL, M, N, K);
    return dot(y, c->dy, M * N);
}

static double linear_of_w(const double *w, void *context)
{
    linear_context *c = context;
    double          y[M * N];
    ref_linear(y, c->x, w, NULL, M, N, K);
    return dot(y, c->dy, M * N);
}

static double linear_of_bias(const double *bias, void *context)
{
    linear_context *c = context;
    double          y[M * N];
    ref_linear(y, c->x, c->w, bias, M, N, K);
    return dot(y, c->dy, M * N);
}

static void fill(double *target, uint64_t seed, int64_t count)
{
    double *values = random_values(seed, count, 1.0, GIDD_F32);
    memcpy(target, values, (size_t)count * sizeof *values);
    free(values);
}

Test(reference, linear)
{
    linear_context c;
    double         dx[M * K], dw[N * K], db[N], bias[N] = {0};
    fill(c.x, 1, M * K);
    fill(c.w, 2, N * K);
    fill(c.dy, 3, M * N);
    ref_linear_bwd_data(dx, c.dy, c.w, M, N, K);
    ref_linear_bwd_weight(dw, db, c.dy, c.x, M, N, K);
    double x[M * K], w[N * K];
    memcpy(x, c.x, sizeof x);
    memcpy(w, c.w, sizeof w);
    check_gradient("dx", linear_of_x, x, dx, M * K, &c);
    check_gradient("dw", linear_of_w, w, dw, N * K, &c);
    check_gradient("dbias", linear_of_bias, bias, db, N, &c);
}

static double gelu_of(const double *v, void *context)
{
    (void)context;
    return ref_gelu(*v);
}

Test(reference, gelu)
{
    cr_assert(fabs(ref_gelu(1.0) - 0.84119199) < 1e-8 && ref_gelu(0.0) == 0.0);
    for (double v = -6.0; v < 6.0; v += 0.37) {
        double slope = ref_gelu_slope(v), at = v;
        check_gradient("gelu'", gelu_of, &at, &slope, 1, NULL);
    }
}

enum { D = 8 };

typedef struct norm_context {
    double gain[D], scale[D], shift[D], du[D];
} norm_context;

static double norm_of_x(const double *x, void *context)
{
    norm_context *c = context;
    double        u[D], mean, rstd;
    ref_norm(u, &mean, &rstd, x, c->gain, c->scale, c->shift, D);
    return dot(u, c->du, D);
}

Test(reference, norm)
{
    norm_context c;
    double       x[D], dx[D], u[D], mean, rstd;
    fill(x, 4, D);
    fill(c.gain, 5, D);
    fill(c.scale, 6, D);
    fill(c.shift, 7, D);
    fill(c.du, 8, D);
    ref_norm(u, &mean, &rstd, x, c.gain, c.scale, c.shift, D);
    ref_norm_bwd(dx, c.du, x, mean, rstd, c.gain, c.scale, D);
    check_gradient("dx", norm_of_x, x, dx, D, &c);
}

typedef struct attention_context {
    ref_attention_shape shape;
    double             *rope, *dout, *out, *lse;
} attention_context;

static double attention_of_qkv(const double *qkv, void *context)
{
    attention_context *c = context;
    ref_attention(c->out, c->lse, qkv, c->rope, c->shape);
    return dot(c->out, c->dout, c->shape.B * c->shape.T * c->shape.H * c->shape.d);
}

Test(reference, attention)
{
    for (int causal = 0; causal < 2; causal++) {
        ref_attention_shape s = {2, 4, 2, 6, causal};
        int64_t             count = s.B * s.T * s.H * s.d;
        double              out[96], lse[16], rope[24], dqkv[288];
        double             *qkv = random_values(9, 3 * count, 1.0, GIDD_F32),
               *dout = random_values(10, count, 1.0, GIDD_F32);
        attention_context c = {s, rope, dout, out, lse};
        ref_rope(rope, s.T, s.d);
        (void)attention_of_qkv(qkv, &c);
        ref_attention_bwd(dqkv, dout, out, lse, qkv, rope, s);
        check_gradient("dqkv", attention_of_qkv, qkv, dqkv, 3 * count, &c);
        free(qkv);
        free(dout);
    }
}

typedef struct loss_context {
    int64_t        x, z;
    gidd_seq_coef  coef;
    ref_loss_shape shape;
    int            mdlm;
} loss_context;

static double loss_of_logits(const double *logits, void *context)
{
    loss_context *c = context;
    ref_loss_row  row = c->mdlm ? ref_loss_mdlm(NULL, logits, c->x, c->z, 1.0, c->shape)
                                : ref_loss_gidd(NULL, logits, c->x, c->z, &c->coef, 1.0, c->shape);
    return 0.3 * (row.kl + row.is);
}

Test(reference, losses)
{
    enum { V = 11, VR = 14 };
    int64_t zs[] = {4, V - 1, 7}; // kept, masked, replaced
    for (int i = 0; i < 6; i++) {
        double      *logits = random_values(60 + (uint64_t)i, VR, 1.5, GIDD_F32), dlogits[VR];
        loss_context c = {4, zs[i % 3], ref_coef_gidd(0.35, 0.2, V), {V, VR, V - 1}, i >= 3};
        if (c.mdlm) {
            (void)ref_loss_mdlm(dlogits, logits, c.x, c.z, 0.3, c.shape);
        } else {
            (void)ref_loss_gidd(dlogits, logits, c.x, c.z, &c.coef, 0.3, c.shape);
        }
        check_gradient("dlogits", loss_of_logits, logits, dlogits, VR, &c);
        free(logits);
    }
}

// q and r are distributions, and the weights are those of SPEC section 4 and 5 at t = 1/2.
Test(reference, coefficients)
{
    gidd_seq_coef c = ref_coef_gidd(0.5, 0.2, 101);
    cr_assert(fabs((double)c.alpha + (double)c.beta_mask + 100.0 * (double)c.beta_other - 1.0) <
              1e-6);
    cr_assert(fabs(100.0 * (double)c.beta_other - 0.2) < 1e-6); // the uniform share at 1/2 is p_u
    cr_assert(fabs((double)c.omega_mask - 4.0) < 1e-6 && fabs((double)c.omega_other - 2.0) < 1e-6);
}

typedef struct rms_context {
    double x[D], gain[D], du[D];
} rms_context;

static double rms_of_x(const double *x, void *context)
{
    rms_context *c = context;
    double       u[D], rstd;
    ref_rms_norm(u, &rstd, x, c->gain, D);
    return dot(u, c->du, D);
}

static double rms_of_gain(const double *gain, void *context)
{
    rms_context *c = context;
    double       u[D], rstd;
    ref_rms_norm(u, &rstd, c->x, gain, D);
    return dot(u, c->du, D);
}

Test(reference, rms_norm)
{
    rms_context c;
    double      x[D], gain[D], u[D], rstd, dx[D], dgain[D] = {0};
    fill(c.x, 61, D);
    fill(c.gain, 62, D);
    fill(c.du, 63, D);
    memcpy(x, c.x, sizeof x);
    memcpy(gain, c.gain, sizeof gain);
    ref_rms_norm(u, &rstd, x, gain, D);
    ref_rms_norm_bwd(dx, dgain, c.du, x, rstd, gain, D);
    check_gradient("dx", rms_of_x, x, dx, D, &c);
    check_gradient("dgain", rms_of_gain, gain, dgain, D, &c);
}

static double swiglu_of(const double *pre, void *context)
{
    double y[D];
    ref_swiglu(y, pre, D);
    return dot(y, context, D);
}

Test(reference, swiglu)
{
    double pre[2 * D], dy[D], dpre[2 * D];
    fill(pre, 64, 2 * D);
    fill(dy, 65, D);
    ref_swiglu_bwd(dpre, dy, pre, D);
    check_gradient("dpre", swiglu_of, pre, dpre, 2 * D, dy);
}

static double next_of(const double *logits, void *context)
{
    (void)context;
    return 0.5 * ref_loss_next(NULL, logits, 3, 1.0, D - 2, D);
}

Test(reference, loss_next)
{
    double logits[D], dlogits[D];
    fill(logits, 66, D);
    (void)ref_loss_next(dlogits, logits, 3, 0.5, D - 2, D);
    check_gradient("dlogits", next_of, logits, dlogits, D, NULL);
}
