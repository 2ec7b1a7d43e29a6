/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cases.h"
#include "kernels/harness.h"
#include "kernels/reference.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static double *zeros(int64_t count)
{
    double *made = calloc((size_t)count + 1, sizeof *made);
    cr_assert(made != NULL);
    return made;
}

// ---- what tensor cores round -----------------------------------------------------------------
// They multiply bf16: rotated q and k, probabilities and dS are rounded before they are multiplied.
// The reference gets q and k already rotated (in fp32, as the kernels do) and rounded; the rounding
// of P and dS moves each result by at most u times the sum of its terms' sizes, which is added to
// the tolerance.

static int rounds_operands(const gidd_device *device, const ref_attention_shape *s)
{
    return device->dtype == GIDD_BF16 && strcmp(device->kernels->device, "cpu") != 0 &&
           s->d % 32 == 0;
}

// q or k (part 0 or 1) of a position, in packed arrays.
static double *part_row(double *packed, const ref_attention_shape *s, int64_t b, int64_t p,
                        int64_t part, int64_t h)
{
    return packed + (((b * s->T + p) * 3 + part) * s->H + h) * s->d;
}

typedef void (*turn_row)(double *row, const double *turns, int64_t half);

static void each_rotated_row(double *packed, const double *rope, const ref_attention_shape *s,
                             turn_row turn)
{
    for (int64_t i = 0; i < s->B * s->T * 2 * s->H; i++) {
        int64_t h = i % s->H, part = i / s->H % 2, p = i / s->H / 2 % s->T;
        turn(part_row(packed, s, i / s->H / 2 / s->T, p, part, h), rope + p * s->d, s->d / 2);
    }
}

static void rotate_rounded(double *row, const double *turns, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float a = (float)row[i], b = (float)row[i + half];
        float cosine = (float)turns[2 * i], sine = (float)turns[2 * i + 1];
        row[i] = round_to((double)fmaf(a, cosine, -b * sine), GIDD_BF16);
        row[i + half] = round_to((double)fmaf(b, cosine, a * sine), GIDD_BF16);
    }
}

static void rotate_back(double *row, const double *turns, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        double a = row[i], b = row[i + half], cosine = turns[2 * i], sine = turns[2 * i + 1];
        row[i] = a * cosine + b * sine;
        row[i + half] = b * cosine - a * sine;
    }
}

static void rotate_bound_back(double *row, const double *turns, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        double a = row[i], b = row[i + half];
        double cosine = fabs(turns[2 * i]), sine = fabs(turns[2 * i + 1]);
        row[i] = a * cosine + b * sine;
        row[i + half] = b * cosine + a * sine;
    }
}

static double dot(const double *a, const double *b, int64_t d)
{
    double sum = 0.0;
    for (int64_t i = 0; i < d; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void add_sizes(double *bound, const double *row, double weight, int64_t d)
{
    for (int64_t i = 0; i < d; i++) {
        bound[i] += fabs(weight * row[i]) * gidd_unit_roundoff(GIDD_BF16);
    }
}

typedef struct attention_values {
    ref_attention_shape shape;
    double *qkv, *rope, *out, *lse, *dout; // as the reference is given and gives them
    double *out_bound, *dqkv_bound;        // w.r.t. rotated q and k
} attention_values;

static void bound_pair(const attention_values *v, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const ref_attention_shape *s = &v->shape;
    double *q = part_row(v->qkv, s, b, i, 0, h), *k = part_row(v->qkv, s, b, j, 1, h);
    double *value = part_row(v->qkv, s, b, j, 2, h), scale = 1.0 / sqrt((double)s->d);
    int64_t plain = ((b * s->T + i) * s->H + h) * s->d;
    double p = exp(dot(q, k, s->d) * scale - v->lse[(b * s->H + h) * s->T + i]);
    double delta = dot(v->dout + plain, v->out + plain, s->d);
    double ds = p * (dot(v->dout + plain, value, s->d) - delta) * scale;
    add_sizes(v->out_bound + plain, value, p, s->d);
    add_sizes(part_row(v->dqkv_bound, s, b, i, 0, h), k, ds, s->d);
    add_sizes(part_row(v->dqkv_bound, s, b, j, 1, h), q, ds, s->d);
    add_sizes(part_row(v->dqkv_bound, s, b, j, 2, h), v->dout + plain, p, s->d);
}

static void bound_rounding(const attention_values *v)
{
    const ref_attention_shape *s = &v->shape;
    for (int64_t head = 0; head < s->B * s->H; head++) {
        for (int64_t i = 0; i < s->T; i++) {
            for (int64_t j = 0; j < (s->causal ? i + 1 : s->T); j++) {
                bound_pair(v, head / s->H, head % s->H, i, j);
            }
        }
    }
}

static void check_bounded(const char *what, const buffer *computed, const double *exact,
                          const double *bound, gidd_tolerance tolerance)
{
    double *values = buffer_values(computed);
    for (int64_t i = 0; i < computed->count; i++) {
        double allowed = gidd_allowed(&tolerance, exact[i]) + bound[i];
        cr_assert(fabs(values[i] - exact[i]) <= allowed,
                  "%s[%lld] of %lld is %.9g, should be %.9g within %.3g", what, (long long)i,
                  (long long)computed->count, values[i], exact[i], allowed);
    }
    free(values);
}

// ---- cases -----------------------------------------------------------------------------------

static attention_values random_case(attention_case c, gidd_attention_kind kind, gidd_dtype dtype)
{
    int64_t plain = c.B * c.T * c.H * c.d;
    attention_values v = {.shape = {c.B, c.T, c.H, c.d, kind == GIDD_ATTENTION_CAUSAL}};
    v.qkv = random_values(41, 3 * plain, 2.0, dtype);
    v.dout = random_values(42, plain, 1.0, dtype);
    v.rope = zeros(c.T * c.d);
    v.out = zeros(plain);
    v.lse = zeros(c.B * c.T * c.H);
    v.out_bound = zeros(plain);
    v.dqkv_bound = zeros(3 * plain);
    ref_rope(v.rope, c.T, c.d);
    for (int64_t i = 0; i < c.T * c.d; i++) {
        v.rope[i] = round_to(v.rope[i], GIDD_F32);
    }
    return v;
}

static void values_release(attention_values *v)
{
    double *owned[] = {v->qkv, v->rope, v->out, v->lse, v->dout, v->out_bound, v->dqkv_bound};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
}

typedef struct attention_buffers {
    buffer qkv, rope, out, lse, dout, dqkv;
} attention_buffers;

static attention_buffers run_case(gidd_device *device, const attention_values *v,
                                  gidd_attention_kind kind)
{
    const ref_attention_shape *s = &v->shape;
    int64_t plain = s->B * s->T * s->H * s->d;
    gidd_dtype dtype = device->dtype;
    attention_buffers at = {buffer_of(device, dtype, v->qkv, 3 * plain),
                            buffer_of(device, GIDD_F32, v->rope, s->T * s->d),
                            buffer_of(device, dtype, NULL, plain),
                            buffer_of(device, GIDD_F32, NULL, s->B * s->T * s->H),
                            buffer_of(device, dtype, v->dout, plain),
                            buffer_of(device, dtype, NULL, 3 * plain)};
    gidd_attention_fwd_args fwd = {.out = at.out.memory,
                                   .lse = at.lse.memory,
                                   .qkv = at.qkv.memory,
                                   .rope = at.rope.memory,
                                   .B = s->B,
                                   .T = s->T,
                                   .H = s->H,
                                   .d = s->d,
                                   .kind = kind};
    CHECK_OK(device->kernels->attention_fwd(device, &fwd));
    gidd_attention_bwd_args bwd = {.dqkv = at.dqkv.memory,
                                   .dout = at.dout.memory,
                                   .out = at.out.memory,
                                   .lse = at.lse.memory,
                                   .qkv = at.qkv.memory,
                                   .rope = at.rope.memory,
                                   .B = s->B,
                                   .T = s->T,
                                   .H = s->H,
                                   .d = s->d,
                                   .kind = kind};
    CHECK_OK(device->kernels->attention_bwd(device, &bwd));
    return at;
}

static void buffers_release(attention_buffers *at)
{
    buffer *all[] = {&at->qkv, &at->rope, &at->out, &at->lse, &at->dout, &at->dqkv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
}

static void check_case(gidd_device *device, attention_case c, gidd_attention_kind kind)
{
    attention_values v = random_case(c, kind, device->dtype);
    attention_buffers at = run_case(device, &v, kind);
    ref_attention_shape s = v.shape;
    int64_t packed = 3 * s.B * s.T * s.H * s.d;
    double *rope = zeros(s.T * s.d), *dqkv = zeros(packed);
    memcpy(rope, v.rope, (size_t)(s.T * s.d) * sizeof *rope);
    if (rounds_operands(device, &s)) {
        each_rotated_row(v.qkv, rope, &s, rotate_rounded);
        for (int64_t i = 0; i < s.T * s.d; i++) {
            v.rope[i] = i % 2 == 0 ? 1.0 : 0.0; // nothing is left to rotate
        }
    }
    ref_attention(v.out, v.lse, v.qkv, v.rope, s);
    double *exact_out = v.out, *exact_lse = v.lse;
    v.out = buffer_values(&at.out); // backward is compared on what forward kept
    v.lse = buffer_values(&at.lse);
    ref_attention_bwd(dqkv, v.dout, v.out, v.lse, v.qkv, v.rope, s);
    if (rounds_operands(device, &s)) {
        bound_rounding(&v);
        each_rotated_row(dqkv, rope, &s, rotate_back);
        each_rotated_row(v.dqkv_bound, rope, &s, rotate_bound_back);
    }
    // an error of a score (d terms, |score| <= 4 d/sqrt(d)) is a relative error of its probability
    double score = 4.0 * sqrt((double)c.d) + 1.0;
    gidd_tolerance tolerance = {device->dtype, (double)(c.T + c.d), 2.0 * score};
    check_bounded("out", &at.out, exact_out, v.out_bound, tolerance);
    check_buffer("lse", &at.lse, exact_lse,
                 (gidd_tolerance){GIDD_F32, (double)(c.T + c.d), score + 8.0});
    tolerance.largest = score * (1.0 + largest_of(dqkv, packed));
    check_bounded("dqkv", &at.dqkv, dqkv, v.dqkv_bound, tolerance);
    buffers_release(&at);
    values_release(&v);
    free(exact_out);
    free(exact_lse);
    free(rope);
    free(dqkv);
}

static void check_all(gidd_dtype dtype, gidd_attention_kind kind)
{
    gidd_device *device = open_test_device(dtype, 2);
    for (int i = 0; i < COUNT_OF(attention_cases); i++) {
        check_case(device, attention_cases[i], kind);
    }
    gidd_device_close(device);
}

Test(attention, full_fp32)
{
    check_all(GIDD_F32, GIDD_ATTENTION_FULL);
}

Test(attention, full_bf16)
{
    check_all(GIDD_BF16, GIDD_ATTENTION_FULL);
}

Test(attention, causal_fp32)
{
    check_all(GIDD_F32, GIDD_ATTENTION_CAUSAL);
}

Test(attention, causal_bf16)
{
    check_all(GIDD_BF16, GIDD_ATTENTION_CAUSAL);
}

// Scores of +-100 must not overflow: softmax subtracts the largest.
Test(attention, large_scores)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    double qkv[2 * 3 * 2] = {100, 0, 100, 0, 1, 2, -100, 0, -100, 0, 3, 4}; // T 2, d 2
    double rope[2 * 2] = {1, 0, 1, 0};
    double exact_out[4] = {1, 2, 3, 4}, score = 10000.0 / sqrt(2.0), exact_lse[2] = {score, score};
    buffer dev_qkv = buffer_of(device, GIDD_F32, qkv, 12),
           dev_rope = buffer_of(device, GIDD_F32, rope, 4);
    buffer out = buffer_of(device, GIDD_F32, NULL, 4), lse = buffer_of(device, GIDD_F32, NULL, 2);
    CHECK_OK(
        device->kernels->attention_fwd(device, &(gidd_attention_fwd_args){.out = out.memory,
                                                                          .lse = lse.memory,
                                                                          .qkv = dev_qkv.memory,
                                                                          .rope = dev_rope.memory,
                                                                          .B = 1,
                                                                          .T = 2,
                                                                          .H = 1,
                                                                          .d = 2}));
    check_buffer("out", &out, exact_out, (gidd_tolerance){GIDD_F32, 4, 4.0});
    check_buffer("lse", &lse, exact_lse, (gidd_tolerance){GIDD_F32, 4, score});
    buffer_release(&dev_qkv);
    buffer_release(&dev_rope);
    buffer_release(&out);
    buffer_release(&lse);
    gidd_device_close(device);
}
