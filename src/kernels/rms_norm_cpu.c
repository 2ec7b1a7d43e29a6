/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu.h"

#include <math.h>

enum {
    CHUNK_ROWS = 64,     // rows whose column sums form one partial
    ROWS_OF_SCRATCH = 4, // of D floats, a thread
    SUM_COLUMNS = 256,
};

static const float epsilon = 1e-6f;

static size_t scratch_floats(int64_t D)
{
    return (size_t)gidd_scratch_floats(ROWS_OF_SCRATCH * D);
}

size_t gidd_rms_norm_workspace_cpu(int64_t rows, int64_t D, int threads)
{
    size_t partials = (size_t)((rows + CHUNK_ROWS - 1) / CHUNK_ROWS * D);
    return (partials + scratch_floats(D) * (size_t)threads) * sizeof(float);
}

static float *thread_scratch(const gidd_device *device, int64_t D)
{
    return (float *)device->workspace + scratch_floats(D) * (size_t)omp_get_thread_num();
}

static gidd_status check(const gidd_device *device, const char *slot, int64_t rows, int64_t cols,
                         size_t workspace_bytes, int has_buffers)
{
    if (rows < 1 || cols < 1 || !has_buffers) {
        return gidd_fail(GIDD_ERR_ARG, "%s: %lld rows of %lld, or a missing buffer", slot,
                         (long long)rows, (long long)cols);
    }
    return gidd_workspace_check(device, workspace_bytes, slot);
}

// x' of one row, as it is stored (rounded to E), as floats.
static const float *residual_row(const gidd_rms_norm_fwd_args *args, gidd_dtype dtype, int64_t row,
                                 float *scratch)
{
    int64_t      cols = args->cols, first = row * cols;
    const float *x = gidd_elements_in(args->x, first, cols, dtype, scratch);
    if (args->y == NULL) {
        return x;
    }
    const float *y = gidd_elements_in(args->y, first, cols, dtype, scratch + cols);
    float       *out = gidd_elements_out(args->x_out, first, dtype, scratch + 2 * cols);
    for (int64_t j = 0; j < cols; j++) {
        out[j] = x[j] + y[j];
    }
    gidd_elements_round(out, cols, dtype);
    gidd_elements_store(args->x_out, first, cols, dtype, out);
    return out;
}

static void row_fwd(const gidd_rms_norm_fwd_args *args, gidd_dtype dtype, int64_t row, float *scratch)
{
    int64_t      cols = args->cols;
    const float *x = residual_row(args, dtype, row, scratch), *gain = args->gain;
    float       *u = gidd_elements_out(args->u, row * cols, dtype, scratch + 3 * cols), squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < cols; j++) {
        squares += x[j] * x[j];
    }
    float rstd = 1.0f / sqrtf(squares / (float)cols + epsilon);
    args->rstd[row] = rstd;
#pragma omp simd
    for (int64_t j = 0; j < cols; j++) {
        u[j] = x[j] * rstd * gain[j];
    }
    gidd_elements_store(args->u, row * cols, cols, dtype, u);
}

gidd_status gidd_rms_norm_fwd_cpu(gidd_device *device, const gidd_rms_norm_fwd_args *args)
{
    GIDD_TRY(check(device, "rms_norm_fwd", args->rows, args->cols,
                   gidd_rms_norm_workspace_cpu(0, args->cols, device->threads),
                   args->u != NULL && args->rstd != NULL && args->x != NULL && args->gain != NULL &&
                       (args->y == NULL) == (args->x_out == NULL)));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t row = 0; row < args->rows; row++) {
        row_fwd(args, device->dtype, row, thread_scratch(device, args->cols));
    }
    return GIDD_OK;
}

// dx of one row, and its share of the partial sum.
static void row_bwd(const gidd_rms_norm_bwd_args *args, gidd_dtype dtype, int64_t row, float *partial,
                    float *scratch)
{
    int64_t      cols = args->cols, first = row * cols;
    const float *du = gidd_elements_in(args->du, first, cols, dtype, scratch);
    const float *x = gidd_elements_in(args->x_out, first, cols, dtype, scratch + cols);
    const float *above = NULL, *gain = args->gain;
    float       *dx = gidd_elements_out(args->dx, first, dtype, scratch + 3 * cols);
    float        rstd = args->rstd[row], along = 0.0f;
    if (args->dx_out != NULL) {
        above = gidd_elements_in(args->dx_out, first, cols, dtype, scratch + 2 * cols);
    }
#pragma omp simd reduction(+ : along)
    for (int64_t j = 0; j < cols; j++) {
        float xhat = x[j] * rstd;
        along += du[j] * gain[j] * xhat;
        partial[j] += du[j] * xhat;
    }
    along /= (float)cols;
    for (int64_t j = 0; j < cols; j++) {
        float back = rstd * (du[j] * gain[j] - x[j] * rstd * along);
        dx[j] = above != NULL ? above[j] + back : back;
    }
    gidd_elements_store(args->dx, first, cols, dtype, dx);
}

// Second stage: columns [first, end) of dgain, the partials in order.
static void sum_partials(const gidd_rms_norm_bwd_args *args, const float *partials, int64_t chunks,
                         int64_t first, int64_t end)
{
    for (int64_t j = first; j < end; j++) {
        float sum = 0.0f;
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            sum += partials[chunk * args->cols + j];
        }
        args->dgain[j] = (args->accumulate ? args->dgain[j] : 0.0f) + sum;
    }
}

gidd_status gidd_rms_norm_bwd_cpu(gidd_device *device, const gidd_rms_norm_bwd_args *args)
{
    int64_t rows = args->rows, cols = args->cols, chunks = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
    GIDD_TRY(check(device, "rms_norm_bwd", rows, cols,
                   gidd_rms_norm_workspace_cpu(rows, cols, device->threads),
                   args->dx != NULL && args->dgain != NULL && args->du != NULL &&
                       args->x_out != NULL && args->rstd != NULL && args->gain != NULL));
    float *partials = (float *)device->workspace + scratch_floats(cols) * (size_t)device->threads;
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        int64_t end = (chunk + 1) * CHUNK_ROWS < rows ? (chunk + 1) * CHUNK_ROWS : rows;
        float  *partial = partials + chunk * cols;
        memset(partial, 0, (size_t)cols * sizeof *partial);
        for (int64_t row = chunk * CHUNK_ROWS; row < end; row++) {
            row_bwd(args, device->dtype, row, partial, thread_scratch(device, cols));
        }
    }
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t first = 0; first < cols; first += SUM_COLUMNS) {
        sum_partials(args, partials, chunks, first,
                     first + SUM_COLUMNS < cols ? first + SUM_COLUMNS : cols);
    }
    return GIDD_OK;
}
