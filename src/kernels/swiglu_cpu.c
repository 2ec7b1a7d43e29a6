/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu.h"

#include "base/vmath.h"

enum { PIECE = 512 }; // columns handled at once

// Far below 0 the exponential is infinite and the result 0.
static inline float sigmoid(float v)
{
    return 1.0f / (1.0f + gidd_expf(-v));
}

static gidd_status check(const char *slot, int64_t rows, int64_t cols, int has_buffers)
{
    if (rows < 0 || cols < 1 || !has_buffers) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld rows of %lld, or a missing buffer", slot,
                         (long long)rows, (long long)cols);
    }
    return GIDD_OK;
}

// Pieces of a row; pieces of all rows are numbered through.
static int64_t pieces_of(int64_t cols)
{
    return (cols + PIECE - 1) / PIECE;
}

gidd_status gidd_swiglu_fwd_cpu(gidd_device *device, const gidd_swiglu_fwd_args *args)
{
    int64_t    cols = args->cols, pieces = pieces_of(cols);
    gidd_dtype dtype = device->dtype;
    GIDD_TRY(check("swiglu_fwd", args->rows, cols, args->y != NULL && args->pre != NULL));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t piece = 0; piece < args->rows * pieces; piece++) {
        float        gate_scratch[PIECE], value_scratch[PIECE], out_scratch[PIECE];
        int64_t      row = piece / pieces, first = piece % pieces * PIECE;
        int64_t      count = cols - first < PIECE ? cols - first : PIECE, at = row * 2 * cols + first;
        const float *gate = gidd_elements_in(args->pre, at, count, dtype, gate_scratch);
        const float *value = gidd_elements_in(args->pre, at + cols, count, dtype, value_scratch);
        float       *y = gidd_elements_out(args->y, row * cols + first, dtype, out_scratch);
#pragma omp simd
        for (int64_t j = 0; j < count; j++) {
            y[j] = gate[j] * sigmoid(gate[j]) * value[j];
        }
        gidd_elements_store(args->y, row * cols + first, count, dtype, y);
    }
    return GIDD_OK;
}

gidd_status gidd_swiglu_bwd_cpu(gidd_device *device, const gidd_swiglu_bwd_args *args)
{
    int64_t    cols = args->cols, pieces = pieces_of(cols);
    gidd_dtype dtype = device->dtype;
    GIDD_TRY(check("swiglu_bwd", args->rows, cols,
                   args->dpre != NULL && args->dy != NULL && args->pre != NULL));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t piece = 0; piece < args->rows * pieces; piece++) {
        float        gate_scratch[PIECE], value_scratch[PIECE], dy_scratch[PIECE];
        float        dgate_scratch[PIECE], dvalue_scratch[PIECE];
        int64_t      row = piece / pieces, first = piece % pieces * PIECE;
        int64_t      count = cols - first < PIECE ? cols - first : PIECE, at = row * 2 * cols + first;
        const float *gate = gidd_elements_in(args->pre, at, count, dtype, gate_scratch);
        const float *value = gidd_elements_in(args->pre, at + cols, count, dtype, value_scratch);
        const float *dy = gidd_elements_in(args->dy, row * cols + first, count, dtype, dy_scratch);
        float       *dgate = gidd_elements_out(args->dpre, at, dtype, dgate_scratch);
        float       *dvalue = gidd_elements_out(args->dpre, at + cols, dtype, dvalue_scratch);
        for (int64_t j = 0; j < count; j++) {
            float g = gate[j], v = value[j];
            float e = gidd_expf(g < 0.0f ? g : -g); // in (0, 1]: nothing overflows
            float major = 1.0f / (1.0f + e);        // the larger of s and 1 - s, each without cancellation
            float minor = e * major;
            float s = g < 0.0f ? minor : major, rest = g < 0.0f ? major : minor;
            dgate[j] = dy[j] * v * s * (1.0f + g * rest); // dpre may be pre
            dvalue[j] = dy[j] * g * s;
        }
        gidd_elements_store(args->dpre, at, count, dtype, dgate);
        gidd_elements_store(args->dpre, at + cols, count, dtype, dvalue);
    }
    return GIDD_OK;
}
