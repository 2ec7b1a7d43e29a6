/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- linear
// --------------------------------------------------------------------------------------

void ref_linear(double *y, const double *x, const double *w, const double *bias, int64_t M,
                int64_t N, int64_t K)
{
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) {
            double sum = bias != NULL ? bias[n] : 0.0;
            for (int64_t k = 0; k < K; k++) {
                sum += x[m * K + k] * w[n * K + k];
            }
            y[m * N + n] = sum;
        }
    }
}

double ref_gelu(double v)
{
    return 0.5 * v * (1.0 + tanh(sqrt(2.0 / M_PI) * (v + 0.044715 * v * v * v)));
}

double ref_gelu_slope(double v)
{
    double t = tanh(sqrt(2.0 / M_PI) * (v + 0.044715 * v * v * v));
    double inner = sqrt(2.0 / M_PI) * (1.0 + 3.0 * 0.044715 * v * v);
    return 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * inner;
}

void ref_linear_bwd_data(double *dx, const double *dy, const double *w, int64_t M, int64_t N,
                         int64_t K)
{
    memset(dx, 0, (size_t)(M * K) * sizeof *dx);
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) {
            for (int64_t k = 0; k < K; k++) {
                dx[m * K + k] += dy[m * N + n] * w[n * K + k];
            }
        }
    }
}

void ref_linear_bwd_weight(double *dw, double *dbias, const double *dy, const double *x, int64_t M,
                           int64_t N, int64_t K)
{
    memset(dw, 0, (size_t)(N * K) * sizeof *dw);
    memset(dbias, 0, (size_t)N * sizeof *dbias);
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) {
            dbias[n] += dy[m * N + n];
            for (int64_t k = 0; k < K; k++) {
                dw[n * K + k] += dy[m * N + n] * x[m * K + k];
            }
        }
    }
}

// ---- norm
// ----------------------------------------------------------------------------------------

void ref_norm(double *u, double *mean, double *rstd, const double *x, const double *gain,
              const double *scale, const double *shift, int64_t D)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t j = 0; j < D; j++) {
        sum += x[j];
    }
    *mean = sum / (double)D;
    for (int64_t j = 0; j < D; j++) {
        squares += (x[j] - *mean) * (x[j] - *mean);
    }
    *rstd = 1.0 / sqrt(squares / (double)D + 1e-5);
    for (int64_t j = 0; j < D; j++) {
        u[j] = (x[j] - *mean) * *rstd * gain[j] * (1.0 + scale[j]) + shift[j];
    }
}

void ref_norm_bwd(double *dx, const double *du, const double *x, double mean, double rstd,
                  const double *gain, const double *scale, int64_t D)
{
    double a = 0.0, b = 0.0;
    for (int64_t j = 0; j < D; j++) {
        double d = du[j] * gain[j] * (1.0 + scale[j]);
        a += d / (double)D;
        b += d * (x[j] - mean) * rstd / (double)D;
    }
    for (int64_t j = 0; j < D; j++) {
        double d = du[j] * gain[j] * (1.0 + scale[j]);
        dx[j] = rstd * (d - a - (x[j] - mean) * rstd * b);
    }
}

// ---- attention
// -----------------------------------------------------------------------------------

void ref_rope(double *rope, int64_t T, int64_t d)
{
    for (int64_t p = 0; p < T; p++) {
        for (int64_t i = 0; i < d / 2; i++) {
            double angle = (double)p * pow(10000.0, -2.0 * (double)i / (double)d);
            rope[(p * (d / 2) + i) * 2] = cos(angle);
            rope[(p * (d / 2) + i) * 2 + 1] = sin(angle);
        }
    }
}

// Element i of the rotated q (which = 0), k (1) or of v (2) at position p.
static double rotated(const double *qkv, const double *rope, const ref_attention_shape *s,
                      int64_t b, int64_t p, int64_t which, int64_t h, int64_t i)
{
    const double *row = qkv + ((b * s->T + p) * 3 + which) * s->H * s->d + h * s->d;
    int64_t       half = s->d / 2;
    if (which == 2) {
        return row[i];
    }
    const double *turn = rope + (p * half + i % half) * 2;
    return i < half ? row[i] * turn[0] - row[i + half] * turn[1]
                    : row[i] * turn[0] + row[i - half] * turn[1];
}

// Rotated q, k and v of one head, [3][T][d].
static double *head_of(const double *qkv, const double *rope, const ref_attention_shape *s,
                       int64_t b, int64_t h)
{
    double *head = malloc((size_t)(3 * s->T * s->d) * sizeof *head);
    for (int64_t which = 0; which < 3; which++) {
        for (int64_t p = 0; p < s->T; p++) {
            for (int64_t i = 0; i < s->d; i++) {
                head[(which * s->T + p) * s->d + i] = rotated(qkv, rope, s, b, p, which, h, i);
            }
        }
    }
    return head;
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

void ref_attention(double *out, double *lse, const double *qkv, const double *rope,
                   ref_attention_shape s)
{
    int64_t D = s.H * s.d;
    for (int64_t b = 0; b < s.B; b++) {
        for (int64_t h = 0; h < s.H; h++) {
            double *q = head_of(qkv, rope, &s, b, h), *k = q + s.T * s.d, *v = k + s.T * s.d;
            for (int64_t i = 0; i < s.T; i++) {
                int64_t keys = s.causal ? i + 1 : s.T;
                double *o = out + (b * s.T + i) * D + h * s.d, sum = 0.0;
                memset(o, 0, (size_t)s.d * sizeof *o);
                for (int64_t j = 0; j < keys; j++) {
                    double p = exp(dot(q + i * s.d, k + j * s.d, s.d) / sqrt((double)s.d));
                    sum += p;
                    for (int64_t e = 0; e < s.d; e++) {
                        o[e] += p * v[j * s.d + e];
                    }
                }
                for (int64_t e = 0; e < s.d; e++) {
                    o[e] /= sum;
                }
                lse[(b * s.H + h) * s.T + i] = log(sum);
            }
            free(q);
        }
    }
}

// Adds the gradient `value` of rotated element i to the un-rotated ones.
static void rotated_bwd(double *dqkv, const double *rope, const ref_attention_shape *s, int64_t b,
                        int64_t p, int64_t which, int64_t h, int64_t i, double value)
{
    double *row = dqkv + ((b * s->T + p) * 3 + which) * s->H * s->d + h * s->d;
    int64_t half = s->d / 2;
    if (which == 2) {
        row[i] += value;
        return;
    }
    const double *turn = rope + (p * half + i % half) * 2;
    row[i] += value * turn[0];
    if (i < half) {
        row[i + half] -= value * turn[1];
    } else {
        row[i - half] += value * turn[1];
    }
}

void ref_attention_bwd(double *dqkv, const double *dout, const double *out, const double *lse,
                       const double *qkv, const double *rope, ref_attention_shape s)
{
    int64_t D = s.H * s.d;
    double  scale = 1.0 / sqrt((double)s.d);
    memset(dqkv, 0, (size_t)(s.B * s.T * 3 * D) * sizeof *dqkv);
    for (int64_t b = 0; b < s.B; b++) {
        for (int64_t h = 0; h < s.H; h++) {
            double *q = head_of(qkv, rope, &s, b, h), *k = q + s.T * s.d, *v = k + s.T * s.d;
            for (int64_t i = 0; i < s.T; i++) {
                const double *g = dout + (b * s.T + i) * D + h * s.d;
                double        delta = dot(g, out + (b * s.T + i) * D + h * s.d, s.d);
                for (int64_t j = 0; j < (s.causal ? i + 1 : s.T); j++) {
                    double score = dot(q + i * s.d, k + j * s.d, s.d) * scale;
                    double p = exp(score - lse[(b * s.H + h) * s.T + i]);
                    double ds = p * (dot(g, v + j * s.d, s.d) - delta) * scale;
                    for (int64_t e = 0; e < s.d; e++) {
                        rotated_bwd(dqkv, rope, &s, b, i, 0, h, e, ds * k[j * s.d + e]);
                        rotated_bwd(dqkv, rope, &s, b, j, 1, h, e, ds * q[i * s.d + e]);
                        rotated_bwd(dqkv, rope, &s, b, j, 2, h, e, p * g[e]);
                    }
                }
            }
            free(q);
        }
    }
}

// ---- time conditioning
// ---------------------------------------------------------------------------

static double ref_silu(double v)
{
    return v / (1.0 + exp(-v));
}

void ref_time_cond(double *features, double *hidden, double *embedding, double *c, double t,
                   const double *w0, const double *b0, const double *w2, const double *b2,
                   int64_t C)
{
    double *inner = calloc((size_t)C, sizeof *inner);
    for (int64_t i = 0; i < 128; i++) {
        double f = exp(-log(10000.0) * (double)i / 128.0);
        features[i] = cos(t * f);
        features[128 + i] = sin(t * f);
    }
    ref_linear(hidden, features, w0, b0, 1, C, 256);
    for (int64_t i = 0; i < C; i++) {
        inner[i] = ref_silu(hidden[i]);
    }
    ref_linear(embedding, inner, w2, b2, 1, C, C);
    for (int64_t i = 0; i < C; i++) {
        c[i] = ref_silu(embedding[i]);
    }
    free(inner);
}

// ---- loss
// ----------------------------------------------------------------------------------------

gidd_seq_coef ref_coef_gidd(double t, double p_uniform, int64_t V)
{
    double p = fmax(exp(-20.0), p_uniform), N = (double)(V - 1);
    double B = 2.0 * p / (1.0 - p);
    double c = sqrt(t) * sqrt(1.0 - t) * B, Ct = 1.0 + c;
    double s = 1.0 / (1.0 + exp(t));
    double together = c / (2.0 * t); // c + (1-t) c'
    return (gidd_seq_coef){
        .t = (float)t,
        .alpha = (float)((1.0 - t) / Ct),
        .beta_other = (float)(c / (N * Ct)),
        .beta_mask = (float)(t / Ct),
        .w_keep = (float)fmin(B / (double)V * exp(0.5 * s), 2.0),
        .w_mask = 2.0f,
        .w_other = 1.0f,
        .omega_keep = (float)(together / N / ((1.0 - t) * (1.0 - t + c / N))),
        .omega_mask = (float)(1.0 / (t * (1.0 - t))),
        .omega_other = (float)(1.0 / (2.0 * t * (1.0 - t))),
        .row_weight = 1.0f,
    };
}

gidd_seq_coef ref_coef_mdlm(double t)
{
    return (gidd_seq_coef){.t = (float)t,
                           .w_mask = (float)(1.0 / fmax(t, 1e-4)),
                           .omega_mask = (float)(1.0 / fmax(t, 1e-4)),
                           .row_weight = 1.0f};
}

void ref_softmax(double *p, const double *logits, int64_t width, int64_t mask_id,
                 double temperature)
{
    double largest = -HUGE_VAL, sum = 0.0;
    for (int64_t j = 0; j < width; j++) {
        if (j != mask_id) {
            largest = fmax(largest, logits[j] / temperature);
        }
    }
    for (int64_t j = 0; j < width; j++) {
        p[j] = j == mask_id ? 0.0 : exp(logits[j] / temperature - largest);
        sum += p[j];
    }
    for (int64_t j = 0; j < width; j++) {
        p[j] /= sum;
    }
}

// q_j of SPEC section 5, step 2; r_j is the same with xhat_j in place of the one-hot.
static double mixed(double clean, int64_t j, const gidd_seq_coef *coef, ref_loss_shape s)
{
    double beta = j >= s.V ? 0.0 : (double)(j == s.mask_id ? coef->beta_mask : coef->beta_other);
    return (double)coef->alpha * clean + beta;
}

ref_loss_row ref_loss_gidd(double *dlogits, const double *logits, int64_t x, int64_t z,
                           const gidd_seq_coef *coef, double g, ref_loss_shape s)
{
    double      *xhat = malloc((size_t)s.Vr * sizeof *xhat);
    ref_loss_row row = {0};
    ref_softmax(xhat, logits, s.Vr, s.mask_id, 1.0);
    for (int64_t j = 0; j < s.Vr; j++) {
        double q = mixed(j == x, j, coef, s), r = mixed(xhat[j], j, coef, s);
        row.kl += q > 0.0 ? q * (log(q) - fmax(log(r), -1e6)) : 0.0;
    }
    double q_z = mixed(z == x, z, coef, s), r_z = mixed(xhat[z], z, coef, s);
    double rho = q_z / r_z;
    row.log_ratio = log(q_z) - log(r_z);
    row.is = rho - row.log_ratio - 1.0;
    row.log_px = log(xhat[x]);
    if (dlogits != NULL) {
        double inner = 0.0;
        for (int64_t j = 0; j < s.Vr; j++) {
            double q = mixed(j == x, j, coef, s), r = mixed(xhat[j], j, coef, s);
            double dr = q > 0.0 ? -q / r : 0.0;
            dr += j == z ? (1.0 - rho) / r_z : 0.0;
            dlogits[j] = g * (double)coef->alpha * dr;
            inner += xhat[j] * dlogits[j];
        }
        for (int64_t j = 0; j < s.Vr; j++) {
            dlogits[j] = xhat[j] * (dlogits[j] - inner);
        }
    }
    free(xhat);
    return row;
}

ref_loss_row ref_loss_mdlm(double *dlogits, const double *logits, int64_t x, int64_t z, double g,
                           ref_loss_shape s)
{
    double *xhat = malloc((size_t)s.Vr * sizeof *xhat);
    ref_softmax(xhat, logits, s.Vr, s.mask_id, 1.0);
    ref_loss_row row = {.log_px = log(xhat[x])};
    row.is = z == s.mask_id ? -row.log_px : 0.0;
    for (int64_t j = 0; dlogits != NULL && j < s.Vr; j++) {
        dlogits[j] = z == s.mask_id ? g * (xhat[j] - (j == x ? 1.0 : 0.0)) : 0.0;
    }
    free(xhat);
    return row;
}

// ---- autoregressive network
// ----------------------------------------------------------------------

void ref_rms_norm(double *u, double *rstd, const double *x, const double *gain, int64_t D)
{
    double squares = 0.0;
    for (int64_t j = 0; j < D; j++) {
        squares += x[j] * x[j];
    }
    *rstd = 1.0 / sqrt(squares / (double)D + 1e-6);
    for (int64_t j = 0; j < D; j++) {
        u[j] = x[j] * *rstd * gain[j];
    }
}

void ref_rms_norm_bwd(double *dx, double *dgain, const double *du, const double *x, double rstd,
                      const double *gain, int64_t D)
{
    double along = 0.0;
    for (int64_t j = 0; j < D; j++) {
        along += du[j] * gain[j] * x[j];
        dgain[j] += du[j] * x[j] * rstd;
    }
    for (int64_t j = 0; j < D; j++) {
        dx[j] = rstd * du[j] * gain[j] - x[j] * rstd * rstd * rstd * along / (double)D;
    }
}

void ref_swiglu(double *y, const double *pre, int64_t F)
{
    for (int64_t j = 0; j < F; j++) {
        y[j] = ref_silu(pre[j]) * pre[F + j];
    }
}

void ref_swiglu_bwd(double *dpre, const double *dy, const double *pre, int64_t F)
{
    for (int64_t j = 0; j < F; j++) {
        double s = 1.0 / (1.0 + exp(-pre[j]));
        dpre[j] = dy[j] * pre[F + j] * (s + pre[j] * s * (1.0 - s));
        dpre[F + j] = dy[j] * ref_silu(pre[j]);
    }
}

double ref_loss_next(double *dlogits, const double *logits, int64_t target, double g, int64_t V, int64_t Vr)
{
    double largest = -HUGE_VAL, sum = 0.0;
    for (int64_t j = 0; j < V; j++) {
        largest = fmax(largest, logits[j]);
    }
    for (int64_t j = 0; j < V; j++) {
        sum += exp(logits[j] - largest);
    }
    for (int64_t j = 0; dlogits != NULL && j < Vr; j++) {
        double p = j < V ? exp(logits[j] - largest) / sum : 0.0;
        dlogits[j] = target >= 0 ? g * (p - (j == target ? 1.0 : 0.0)) : 0.0;
    }
    return target >= 0 ? largest + log(sum) - logits[target] : 0.0;
}
