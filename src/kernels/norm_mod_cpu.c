/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu.h"

#include <math.h>

enum {
    CHUNK_ROWS = 64,     // rows of one sequence whose column sums form one partial
    ROWS_OF_SCRATCH = 8, // of D floats, a thread
    PARTIALS = 3,        // sums of du, of du * xhat, of g * y
    SUM_COLUMNS = 256,
};

static const float epsilon = 1e-5f;

// Vectors of row r's sequence.
typedef struct modulation {
    const float *shift, *scale, *gate;
} modulation;

static modulation modulation_of(const float *mods, const gidd_mod_offsets *at, int64_t stride,
                                int64_t sequence)
{
    const float *row = mods + sequence * stride;
    return (modulation){row + at->shift, row + at->scale, row + at->gate};
}

static void row_statistics(const float *x, int64_t cols, float *mean_p, float *rstd_p)
{
    float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < cols; j++) {
        sum += x[j];
    }
    float mean = sum / (float)cols;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < cols; j++) {
        float centred = x[j] - mean;
        squares += centred * centred;
    }
    *mean_p = mean;
    *rstd_p = 1.0f / sqrtf(squares / (float)cols + epsilon);
}

// x' of one row, as it is stored (rounded to E); returns it as floats.
static const float *residual_row(const gidd_norm_mod_fwd_args *args, gidd_dtype dtype, int64_t row,
                                 float *scratch)
{
    int64_t      cols = args->cols, first = row * cols;
    const float *x = gidd_elements_in(args->x, first, cols, dtype, scratch);
    if (args->y == NULL) {
        if (args->x_out != NULL && args->x_out != args->x) {
            float *out = gidd_elements_out(args->x_out, first, dtype, scratch);
            memmove(out, x, (size_t)cols * sizeof *out);
            gidd_elements_store(args->x_out, first, cols, dtype, out);
        }
        return x;
    }
    const float *y = gidd_elements_in(args->y, first, cols, dtype, scratch + cols);
    const float *gate = modulation_of(args->mods, &args->at, args->stride, row / args->T).gate;
    float       *out = gidd_elements_out(args->x_out, first, dtype, scratch + 2 * cols);
    for (int64_t j = 0; j < cols; j++) {
        out[j] = x[j] + gate[j] * y[j];
    }
    gidd_elements_round(out, cols, dtype);
    gidd_elements_store(args->x_out, first, cols, dtype, out);
    return out;
}

static void modulate_row(const gidd_norm_mod_fwd_args *args, gidd_dtype dtype, int64_t u_row,
                         int64_t row, const float *x, float *scratch)
{
    int64_t      cols = args->cols;
    modulation   mod = modulation_of(args->mods, &args->at, args->stride, row / args->T);
    const float *gain = args->gain;
    float        mean = args->mean[row], rstd = args->rstd[row];
    float       *u = gidd_elements_out(args->u, u_row * cols, dtype, scratch);
#pragma omp simd
    for (int64_t j = 0; j < cols; j++) {
        u[j] = (x[j] - mean) * rstd * gain[j] * (1.0f + mod.scale[j]) + mod.shift[j];
    }
    gidd_elements_store(args->u, u_row * cols, cols, dtype, u);
}

static int64_t chunks_of_sequence(int64_t T)
{
    return (T + CHUNK_ROWS - 1) / CHUNK_ROWS;
}

static size_t scratch_floats(int64_t D)
{
    return (size_t)gidd_scratch_floats(ROWS_OF_SCRATCH * D);
}

size_t gidd_norm_mod_workspace_cpu(int64_t B, int64_t T, int64_t D, int threads)
{
    size_t partials = (size_t)(B * chunks_of_sequence(T) * PARTIALS * D);
    return (partials + scratch_floats(D) * (size_t)threads) * sizeof(float);
}

static float *thread_scratch(const gidd_device *device, int64_t D, int thread)
{
    return (float *)device->workspace + scratch_floats(D) * (size_t)thread;
}

static gidd_status check_sizes(const char *slot, int64_t rows, int64_t T, int64_t cols, int buffers)
{
    if (rows < 1 || T < 1 || rows % T != 0 || cols < 1 || !buffers) {
        return gidd_fail(GIDD_ERR_ARG,
                         "%s: %lld rows of %lld, sequences of %lld, or a missing buffer", slot,
                         (long long)rows, (long long)cols, (long long)T);
    }
    return GIDD_OK;
}

gidd_status gidd_norm_mod_fwd_cpu(gidd_device *device, const gidd_norm_mod_fwd_args *args)
{
    gidd_dtype dtype = device->dtype;
    int64_t    cols = args->cols;
    int        has_buffers = args->x != NULL && args->mean != NULL && args->rstd != NULL &&
                      args->gain != NULL && args->mods != NULL &&
                      (args->u != NULL || args->u_rows == 0) &&
                      (args->y == NULL || args->x_out != NULL);
    GIDD_TRY(check_sizes("norm_mod_fwd", args->rows, args->T, cols, has_buffers));
    GIDD_TRY(gidd_workspace_check(device, gidd_norm_mod_workspace_cpu(0, 0, cols, device->threads),
                                  "norm_mod_fwd"));
    int compacted = args->row_list != NULL;
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t row = 0; row < args->rows; row++) {
        float       *scratch = thread_scratch(device, cols, omp_get_thread_num());
        const float *x = residual_row(args, dtype, row, scratch);
        row_statistics(x, cols, &args->mean[row], &args->rstd[row]);
        if (!compacted) {
            modulate_row(args, dtype, row, row, x, scratch + 3 * cols);
        }
    }
    if (!compacted) {
        return GIDD_OK;
    }
    const void *residual = args->x_out != NULL ? args->x_out : args->x;
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t u_row = 0; u_row < args->u_rows; u_row++) {
        float       *scratch = thread_scratch(device, cols, omp_get_thread_num());
        int64_t      row = args->row_list[u_row];
        if (row == GIDD_NO_POSITION) {
            continue;
        }
        const float *x = gidd_elements_in(residual, row * cols, cols, dtype, scratch);
        modulate_row(args, dtype, u_row, row, x, scratch + cols);
    }
    return GIDD_OK;
}

// Adds to g what comes back through LN and modulation; adds du and du * xhat to the partial sums.
static void norm_back(float *g, float *sum_du, float *sum_du_xhat, const float *du, const float *x,
                      const float *gain, const float *scale, float mean, float rstd, int64_t cols)
{
    float along_one = 0.0f, along_xhat = 0.0f;
#pragma omp simd reduction(+ : along_one, along_xhat)
    for (int64_t j = 0; j < cols; j++) {
        float xhat = (x[j] - mean) * rstd;
        float dxhat = du[j] * (1.0f + scale[j]) * gain[j];
        along_one += dxhat;
        along_xhat += dxhat * xhat;
        sum_du[j] += du[j];
        sum_du_xhat[j] += du[j] * xhat;
    }
    along_one /= (float)cols;
    along_xhat /= (float)cols;
#pragma omp simd
    for (int64_t j = 0; j < cols; j++) {
        float xhat = (x[j] - mean) * rstd;
        float dxhat = du[j] * (1.0f + scale[j]) * gain[j];
        g[j] += rstd * (dxhat - along_one - xhat * along_xhat);
    }
}

static void gate_back(const gidd_norm_mod_bwd_args *args, gidd_dtype dtype, int64_t row,
                      const float *g, const float *gate, float *sum_gy, float *scratch)
{
    int64_t      cols = args->cols, first = row * cols;
    const float *y = gidd_elements_in(args->y, first, cols, dtype, scratch);
    float       *dy = gidd_elements_out(args->dy, first, dtype, scratch + cols);
#pragma omp simd
    for (int64_t j = 0; j < cols; j++) {
        sum_gy[j] += g[j] * y[j];
        dy[j] = gate[j] * g[j];
    }
    gidd_elements_store(args->dy, first, cols, dtype, dy);
}

// One row: dx, dy and its share of the partial sums. u_row < 0: the row had no u.
static void row_back(const gidd_norm_mod_bwd_args *args, gidd_dtype dtype, int64_t row,
                     int64_t u_row, float *partial, float *scratch)
{
    int64_t    cols = args->cols, first = row * cols;
    modulation mod = modulation_of(args->mods, &args->at, args->stride, row / args->T);
    float     *g = scratch;
    if (args->dx_out != NULL) {
        const float *from_above = gidd_elements_in(args->dx_out, first, cols, dtype, g);
        memmove(g, from_above, (size_t)cols * sizeof *g);
    } else {
        memset(g, 0, (size_t)cols * sizeof *g);
    }
    if (u_row >= 0) {
        const float *du = gidd_elements_in(args->du, u_row * cols, cols, dtype, scratch + cols);
        const float *x = gidd_elements_in(args->x_out, first, cols, dtype, scratch + 2 * cols);
        norm_back(g, partial, partial + cols, du, x, args->gain, mod.scale, args->mean[row],
                  args->rstd[row], cols);
    }
    if (args->y != NULL) {
        gate_back(args, dtype, row, g, mod.gate, partial + 2 * cols, scratch + cols);
    }
    float *dx = gidd_elements_out(args->dx, first, dtype, g);
    memmove(dx, g, (size_t)cols * sizeof *dx);
    gidd_elements_store(args->dx, first, cols, dtype, dx);
}

// First index of the ascending list whose row is >= row.
static int64_t lower_bound(const int32_t *list, int64_t count, int64_t row)
{
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (list[middle] < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void chunk_back(const gidd_norm_mod_bwd_args *args, gidd_dtype dtype, int64_t first,
                       int64_t end, float *partial, float *scratch)
{
    int64_t next = args->row_list != NULL ? lower_bound(args->row_list, args->u_rows, first) : 0;
    memset(partial, 0, (size_t)(PARTIALS * args->cols) * sizeof *partial);
    for (int64_t row = first; row < end; row++) {
        int64_t u_row = row;
        if (args->row_list != NULL) {
            int listed = next < args->u_rows && args->row_list[next] == row;
            u_row = listed ? next : -1;
            next += listed;
        }
        row_back(args, dtype, row, u_row, partial, scratch);
    }
}

// Second stage: columns [first, end) of all sums, chunks and sequences in order.
static void sum_partials(const gidd_norm_mod_bwd_args *args, const float *partials, int64_t first,
                         int64_t end)
{
    int64_t cols = args->cols, chunks = chunks_of_sequence(args->T);
    float   dgain[SUM_COLUMNS] = {0};
    for (int64_t b = 0; b < args->rows / args->T; b++) {
        float       *dmods = args->dmods + b * args->stride;
        const float *scale = args->mods + b * args->stride + args->at.scale;
        for (int64_t j = first; j < end; j++) {
            float sum[PARTIALS] = {0};
            for (int64_t chunk = b * chunks; chunk < (b + 1) * chunks; chunk++) {
                for (int i = 0; i < PARTIALS; i++) {
                    sum[i] += partials[(chunk * PARTIALS + i) * cols + j];
                }
            }
            dmods[args->at.shift + j] = sum[0];
            dmods[args->at.scale + j] = sum[1] * args->gain[j];
            dgain[j - first] += sum[1] * (1.0f + scale[j]);
            if (args->y != NULL) {
                dmods[args->at.gate + j] = sum[2];
            }
        }
    }
    for (int64_t j = first; j < end; j++) {
        args->dgain[j] = (args->accumulate ? args->dgain[j] : 0.0f) + dgain[j - first];
    }
}

gidd_status gidd_norm_mod_bwd_cpu(gidd_device *device, const gidd_norm_mod_bwd_args *args)
{
    int64_t cols = args->cols;
    int     has_buffers = args->dx != NULL && args->dgain != NULL && args->dmods != NULL &&
                      (args->du != NULL || args->u_rows == 0) && args->x_out != NULL &&
                      args->mean != NULL && args->rstd != NULL && args->gain != NULL &&
                      args->mods != NULL && (args->y == NULL || args->dy != NULL);
    GIDD_TRY(check_sizes("norm_mod_bwd", args->rows, args->T, cols, has_buffers));
    int64_t B = args->rows / args->T, chunks = chunks_of_sequence(args->T);
    GIDD_TRY(gidd_workspace_check(
        device, gidd_norm_mod_workspace_cpu(B, args->T, cols, device->threads), "norm_mod_bwd"));
    float *partials = (float *)device->workspace + scratch_floats(cols) * (size_t)device->threads;
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t chunk = 0; chunk < B * chunks; chunk++) {
        int64_t first = chunk / chunks * args->T + chunk % chunks * CHUNK_ROWS;
        int64_t last_end = (chunk / chunks + 1) * args->T;
        int64_t end = first + CHUNK_ROWS < last_end ? first + CHUNK_ROWS : last_end;
        chunk_back(args, device->dtype, first, end, partials + chunk * PARTIALS * cols,
                   thread_scratch(device, cols, omp_get_thread_num()));
    }
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t first = 0; first < cols; first += SUM_COLUMNS) {
        sum_partials(args, partials, first,
                     first + SUM_COLUMNS < cols ? first + SUM_COLUMNS : cols);
    }
    return GIDD_OK;
}
