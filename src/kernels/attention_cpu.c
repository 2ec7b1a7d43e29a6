/* SPDX-License-Identifier: Apache-2.0
 *
 * One head of one sequence at a time, by one thread: its q, k, v are unpacked, rotated and widened
 * to fp32 in the thread's scratch; scores exist for QUERY_ROWS queries at a time. Sums run in a
 * fixed order that does not depend on the number of threads.
 */
#include "kernels/cpu.h"

#include "base/vmath.h"
#include "kernels/tile.h"

#include <math.h>

enum {
    QUERY_ROWS = 48, // a multiple of every GIDD_TILE_ROWS
    PADDING = 96,    // a multiple of every GIDD_TILE_ROWS and GIDD_TILE_COLS
    MAX_HEAD = 128,
    SKEW = 16, // floats added to a row of scores, so that rows do not fall into one cache set
};

typedef struct shape {
    int64_t B, T, H, d;
    int64_t rows;  // T padded
    int64_t wide;  // d padded
    int64_t score; // floats from one row of scores to the next
} shape;

static shape shape_of(int64_t B, int64_t T, int64_t H, int64_t d)
{
    int64_t rows = gidd_round_up(T, PADDING);
    return (shape){B, T, H, d, rows, gidd_round_up(d, 32), rows + SKEW};
}

// Parts of a thread's scratch, all of floats. Matrices of positions are [rows][wide], transposed
// ones [wide][score].
typedef struct head_scratch {
    float *q, *k, *v, *dout, *dk, *dv; // [rows][wide]
    float *k_turned, *v_turned;        // [wide][score]
    float *scores, *dscores;           // [QUERY_ROWS][score]
    float *out;                        // [QUERY_ROWS][wide]
    float *delta;                      // [rows]
} head_scratch;

static int64_t scratch_floats(const shape *s)
{
    int64_t positions = s->rows * s->wide, turned = s->wide * s->score;
    return gidd_scratch_floats(6 * positions + 2 * turned + 2 * QUERY_ROWS * s->score +
                               QUERY_ROWS * s->wide + s->rows);
}

static head_scratch scratch_of(const gidd_device *device, const shape *s, int thread)
{
    float       *next = (float *)device->workspace + scratch_floats(s) * thread;
    head_scratch parts;
    float **position_parts[] = {&parts.q, &parts.k, &parts.v, &parts.dout, &parts.dk, &parts.dv};
    for (int i = 0; i < 6; i++) {
        *position_parts[i] = next;
        next += s->rows * s->wide;
    }
    parts.k_turned = next;
    parts.v_turned = parts.k_turned + s->wide * s->score;
    parts.scores = parts.v_turned + s->wide * s->score;
    parts.dscores = parts.scores + QUERY_ROWS * s->score;
    parts.out = parts.dscores + QUERY_ROWS * s->score;
    parts.delta = parts.out + QUERY_ROWS * s->wide;
    return parts;
}

size_t gidd_attention_workspace_cpu(int64_t T, int64_t d, int threads)
{
    shape s = shape_of(1, T, 1, d);
    return (size_t)(scratch_floats(&s) * threads) * sizeof(float);
}

static gidd_status check_shape(const gidd_device *device, const char *slot, const shape *s,
                               int has_buffers)
{
    if (s->B < 1 || s->T < 1 || s->H < 1 || s->d < 2 || s->d > MAX_HEAD || s->d % 2 != 0 ||
        !has_buffers) {
        return gidd_fail(GIDD_ERR_ARG,
                         "%s: B %lld, T %lld, H %lld, head size %lld, or a buffer is missing", slot,
                         (long long)s->B, (long long)s->T, (long long)s->H, (long long)s->d);
    }
    return gidd_workspace_check(device, gidd_attention_workspace_cpu(s->T, s->d, device->threads),
                                slot);
}

// Half-split pairing (SPEC section 2): element i turns with element i + d/2.
static void rotate(float *row, const float *rope, int64_t d)
{
    int64_t half = d / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = row[i], b = row[i + half];
        float cosine = rope[2 * i], sine = rope[2 * i + 1];
        row[i] = a * cosine - b * sine;
        row[i + half] = b * cosine + a * sine;
    }
}

static void rotate_back(float *row, const float *rope, int64_t d)
{
    int64_t half = d / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = row[i], b = row[i + half];
        float cosine = rope[2 * i], sine = rope[2 * i + 1];
        row[i] = a * cosine + b * sine;
        row[i + half] = b * cosine - a * sine;
    }
}

// All positions of one head into [rows][wide]; padding becomes 0. `first` is the element of
// position 0, `stride` leads to the next position.
static void unpack(float *target, const shape *s, const void *source, int64_t first, int64_t stride,
                   gidd_dtype dtype, const float *rope, float factor)
{
    for (int64_t p = 0; p < s->T; p++) {
        float       *row = target + p * s->wide;
        const float *in = gidd_elements_in(source, first + p * stride, s->d, dtype, row);
        if (in != row) {
            memcpy(row, in, (size_t)s->d * sizeof *row);
        }
        if (rope != NULL) {
            rotate(row, rope + p * s->d, s->d);
        }
        for (int64_t i = 0; i < s->d; i++) {
            row[i] *= factor;
        }
        for (int64_t i = s->d; i < s->wide; i++) {
            row[i] = 0.0f;
        }
    }
    memset(target + s->T * s->wide, 0, (size_t)((s->rows - s->T) * s->wide) * sizeof *target);
}

// [rows][wide] -> [wide][score]
static void turn(float *target, const float *source, const shape *s)
{
    enum { BLOCK = 16 };
    for (int64_t p0 = 0; p0 < s->rows; p0 += BLOCK) {
        for (int64_t i0 = 0; i0 < s->wide; i0 += BLOCK) {
            for (int64_t i = i0; i < i0 + BLOCK; i++) {
                for (int64_t p = p0; p < p0 + BLOCK; p++) {
                    target[i * s->score + p] = source[p * s->wide + i];
                }
            }
        }
    }
}

// Keys that the queries [first, first + count) may see at all.
static int64_t visible_keys(gidd_attention_kind kind, const shape *s, int64_t first, int64_t count)
{
    return kind == GIDD_ATTENTION_CAUSAL ? first + count : s->T;
}

static int64_t row_keys(gidd_attention_kind kind, const shape *s, int64_t query)
{
    return kind == GIDD_ATTENTION_CAUSAL ? query + 1 : s->T;
}

// Scores of a row become probabilities times their sum; returns log sum exp, the sum in *sum_p.
static float softmax_row(float *scores, int64_t keys, int64_t all_keys, float *sum_p)
{
    float largest = gidd_largest(scores, keys, -INFINITY), sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < keys; j++) {
        scores[j] = gidd_expf(scores[j] - largest);
        sum += scores[j];
    }
    for (int64_t j = keys; j < all_keys; j++) {
        scores[j] = 0.0f;
    }
    *sum_p = sum;
    return largest + logf(sum);
}

static void head_fwd(const gidd_attention_fwd_args *args, const shape *s, gidd_dtype dtype,
                     int64_t b, int64_t h, const head_scratch *at)
{
    int64_t D = s->H * s->d, start = b * s->T * 3 * D + h * s->d;
    unpack(at->q, s, args->qkv, start, 3 * D, dtype, args->rope, 1.0f / sqrtf((float)s->d));
    unpack(at->k, s, args->qkv, start + D, 3 * D, dtype, args->rope, 1.0f);
    unpack(at->v, s, args->qkv, start + 2 * D, 3 * D, dtype, NULL, 1.0f);
    turn(at->k_turned, at->k, s);
    for (int64_t first = 0; first < s->T; first += QUERY_ROWS) {
        int64_t count = s->T - first < QUERY_ROWS ? s->T - first : QUERY_ROWS;
        int64_t keys = visible_keys(args->kind, s, first, count);
        gidd_tiles(at->scores, s->score, (gidd_view){at->q + first * s->wide, s->wide, 1},
                   at->k_turned, s->score, count, keys, s->d, 0);
        float sums[QUERY_ROWS];
        for (int64_t i = 0; i < count; i++) {
            args->lse[(b * s->H + h) * s->T + first + i] = softmax_row(
                at->scores + i * s->score, row_keys(args->kind, s, first + i), keys, &sums[i]);
        }
        gidd_tiles(at->out, s->wide, (gidd_view){at->scores, s->score, 1}, at->v, s->wide, count,
                   s->wide, keys, 0);
        for (int64_t i = 0; i < count; i++) {
            int64_t element = (b * s->T + first + i) * D + h * s->d;
            float  *row = at->out + i * s->wide;
            float  *out = gidd_elements_out(args->out, element, dtype, row);
            float   factor = 1.0f / sums[i];
            for (int64_t j = 0; j < s->d; j++) {
                out[j] = row[j] * factor;
            }
            gidd_elements_store(args->out, element, s->d, dtype, out);
        }
    }
}

gidd_status gidd_attention_fwd_cpu(gidd_device *device, const gidd_attention_fwd_args *args)
{
    shape s = shape_of(args->B, args->T, args->H, args->d);
    GIDD_TRY(check_shape(device, "attention_fwd", &s,
                         args->out != NULL && args->lse != NULL && args->qkv != NULL &&
                             args->rope != NULL));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t head = 0; head < s.B * s.H; head++) {
        head_scratch at = scratch_of(device, &s, omp_get_thread_num());
        head_fwd(args, &s, device->dtype, head / s.H, head % s.H, &at);
    }
    return GIDD_OK;
}

// delta_i = dout_i . out_i, the sum that the softmax's gradient subtracts.
static void unpack_delta(float *delta, const float *dout, const void *out, const shape *s,
                         int64_t first, gidd_dtype dtype)
{
    float scratch[MAX_HEAD];
    for (int64_t p = 0; p < s->T; p++) {
        const float *row = gidd_elements_in(out, first + p * s->H * s->d, s->d, dtype, scratch);
        float        sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < s->d; i++) {
            sum += row[i] * dout[p * s->wide + i];
        }
        delta[p] = sum;
    }
}

// P and dS of one query, in place of the scores and of dout . v.
static void scores_back(float *scores, float *dscores, float lse, float delta, int64_t keys,
                        int64_t all_keys)
{
#pragma omp simd
    for (int64_t j = 0; j < keys; j++) {
        scores[j] = gidd_expf(scores[j] - lse);
        dscores[j] = scores[j] * (dscores[j] - delta);
    }
    for (int64_t j = keys; j < all_keys; j++) {
        scores[j] = 0.0f;
        dscores[j] = 0.0f;
    }
}

// Rounds rows of a gradient into dqkv, turned back where the forward rotated.
static void pack(void *target, const float *source, const shape *s, int64_t first, int64_t stride,
                 int64_t position, int64_t count, gidd_dtype dtype, const float *rope, float factor)
{
    float row[MAX_HEAD];
    for (int64_t i = 0; i < count; i++) {
        int64_t element = first + (position + i) * stride;
        for (int64_t j = 0; j < s->d; j++) {
            row[j] = source[i * s->wide + j] * factor;
        }
        if (rope != NULL) {
            rotate_back(row, rope + (position + i) * s->d, s->d);
        }
        if (dtype == GIDD_F32) {
            memcpy((float *)target + element, row, (size_t)s->d * sizeof *row);
        } else {
            gidd_bf16_write((uint16_t *)target + element, row, s->d);
        }
    }
}

static void head_bwd(const gidd_attention_bwd_args *args, const shape *s, gidd_dtype dtype,
                     int64_t b, int64_t h, const head_scratch *at)
{
    int64_t D = s->H * s->d, start = b * s->T * 3 * D + h * s->d;
    float   scale = 1.0f / sqrtf((float)s->d);
    unpack(at->q, s, args->qkv, start, 3 * D, dtype, args->rope, scale);
    unpack(at->k, s, args->qkv, start + D, 3 * D, dtype, args->rope, 1.0f);
    unpack(at->v, s, args->qkv, start + 2 * D, 3 * D, dtype, NULL, 1.0f);
    unpack(at->dout, s, args->dout, b * s->T * D + h * s->d, D, dtype, NULL, 1.0f);
    unpack_delta(at->delta, at->dout, args->out, s, b * s->T * D + h * s->d, dtype);
    turn(at->k_turned, at->k, s);
    turn(at->v_turned, at->v, s);
    memset(at->dk, 0, (size_t)(s->rows * s->wide) * sizeof(float));
    memset(at->dv, 0, (size_t)(s->rows * s->wide) * sizeof(float));
    for (int64_t first = 0; first < s->T; first += QUERY_ROWS) {
        int64_t      count = s->T - first < QUERY_ROWS ? s->T - first : QUERY_ROWS;
        int64_t      keys = visible_keys(args->kind, s, first, count);
        const float *q = at->q + first * s->wide, *dout = at->dout + first * s->wide;
        gidd_tiles(at->scores, s->score, (gidd_view){q, s->wide, 1}, at->k_turned, s->score, count,
                   keys, s->d, 0);
        gidd_tiles(at->dscores, s->score, (gidd_view){dout, s->wide, 1}, at->v_turned, s->score,
                   count, keys, s->d, 0);
        for (int64_t i = 0; i < count; i++) {
            scores_back(at->scores + i * s->score, at->dscores + i * s->score,
                        args->lse[(b * s->H + h) * s->T + first + i], at->delta[first + i],
                        row_keys(args->kind, s, first + i), gidd_round_up(keys, PADDING));
        }
        gidd_tiles(at->out, s->wide, (gidd_view){at->dscores, s->score, 1}, at->k, s->wide, count,
                   s->wide, keys, 0);
        pack(args->dqkv, at->out, s, start, 3 * D, first, count, dtype, args->rope, scale);
        gidd_tiles(at->dv, s->wide, (gidd_view){at->scores, 1, s->score}, dout, s->wide, keys,
                   s->wide, count, 1);
        gidd_tiles(at->dk, s->wide, (gidd_view){at->dscores, 1, s->score}, q, s->wide, keys,
                   s->wide, count, 1);
    }
    pack(args->dqkv, at->dk, s, start + D, 3 * D, 0, s->T, dtype, args->rope, 1.0f);
    pack(args->dqkv, at->dv, s, start + 2 * D, 3 * D, 0, s->T, dtype, NULL, 1.0f);
}

gidd_status gidd_attention_bwd_cpu(gidd_device *device, const gidd_attention_bwd_args *args)
{
    shape s = shape_of(args->B, args->T, args->H, args->d);
    GIDD_TRY(check_shape(device, "attention_bwd", &s,
                         args->dqkv != NULL && args->dout != NULL && args->out != NULL &&
                             args->lse != NULL && args->qkv != NULL && args->rope != NULL));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t head = 0; head < s.B * s.H; head++) {
        head_scratch at = scratch_of(device, &s, omp_get_thread_num());
        head_bwd(args, &s, device->dtype, head / s.H, head % s.H, &at);
    }
    return GIDD_OK;
}
