/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu.h"

gidd_status gidd_embed_fwd_cpu(gidd_device *device, const gidd_embed_fwd_args *args)
{
    if (args->out == NULL || args->table == NULL || args->ids == NULL || args->rows < 0 ||
        args->cols < 1) {
        return gidd_fail(GIDD_ERR_ARG, "embed_fwd: %lld rows of %lld, or a buffer is missing",
                         (long long)args->rows, (long long)args->cols);
    }
    size_t      row_bytes = (size_t)args->cols * gidd_dtype_bytes(device->dtype);
    char       *out = args->out;
    const char *table = args->table;
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t row = 0; row < args->rows; row++) {
        memcpy(out + (size_t)row * row_bytes, table + (size_t)args->ids[row] * row_bytes,
               row_bytes);
    }
    return GIDD_OK;
}

enum { ROWS_OF_SCRATCH = 3 }; // of D floats, a thread: an id's sum, a chunk's sum, a converted row

size_t gidd_embed_workspace_cpu(int64_t D, int threads)
{
    return (size_t)(gidd_scratch_floats(ROWS_OF_SCRATCH * D) * threads) * sizeof(float);
}

static void add_row(float *sum, const float *row, int64_t cols)
{
    for (int64_t j = 0; j < cols; j++) {
        sum[j] += row[j];
    }
}

// All chunks of one id, beginning at chunk `head`; returns the chunk after them.
static int64_t id_back(const gidd_embed_bwd_args *args, gidd_dtype dtype, int64_t head,
                       float *scratch)
{
    int64_t cols = args->cols, chunk = head;
    float  *total = scratch, *sum = scratch + cols;
    memset(total, 0, (size_t)cols * sizeof *total);
    do {
        const gidd_embed_chunk *rows = &args->chunks[chunk];
        memset(sum, 0, (size_t)cols * sizeof *sum);
        for (int32_t i = 0; i < rows->count; i++) {
            int64_t position = args->sorted[rows->first + i];
            add_row(sum,
                    gidd_elements_in(args->dout, position * cols, cols, dtype, scratch + 2 * cols),
                    cols);
        }
        add_row(total, sum, cols);
        chunk++;
    } while (chunk < args->chunk_count && !args->chunks[chunk].head);
    float *target = args->dtable + args->chunks[head].id * cols;
    if (args->accumulate) {
        add_row(target, total, cols);
    } else {
        memcpy(target, total, (size_t)cols * sizeof *total);
    }
    return chunk;
}

static void zero_table(const gidd_embed_bwd_args *args, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < args->table_rows; row++) {
        memset(args->dtable + row * args->cols, 0, (size_t)args->cols * sizeof *args->dtable);
    }
}

gidd_status gidd_embed_bwd_cpu(gidd_device *device, const gidd_embed_bwd_args *args)
{
    if (args->dtable == NULL || args->dout == NULL || args->sorted == NULL ||
        args->chunks == NULL || args->chunk_count < 0 || args->table_rows < 1 || args->cols < 1) {
        return gidd_fail(GIDD_ERR_ARG, "embed_bwd: %lld chunks of %lld, or a buffer is missing",
                         (long long)args->chunk_count, (long long)args->cols);
    }
    int threads = device->threads;
    gidd_embed_bwd_args exact = *args;
    exact.chunk_count = args->counts != NULL ? args->counts[1] : args->chunk_count;
    GIDD_TRY(
        gidd_workspace_check(device, gidd_embed_workspace_cpu(args->cols, threads), "embed_bwd"));
    if (!args->accumulate) {
        zero_table(args, threads);
    }
    // an id belongs to the thread in whose share its first chunk lies
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        float *scratch =
            (float *)device->workspace + gidd_scratch_floats(ROWS_OF_SCRATCH * args->cols) * thread;
        int64_t chunk = exact.chunk_count * thread / threads;
        int64_t end = exact.chunk_count * (thread + 1) / threads;
        while (chunk < end && !args->chunks[chunk].head) {
            chunk++;
        }
        while (chunk < end) {
            chunk = id_back(&exact, device->dtype, chunk, scratch);
        }
    }
    return GIDD_OK;
}
