/* SPDX-License-Identifier: Apache-2.0
 *
 * Token embedding. Backward sums the rows of an id in the order of the CPU: within chunks of at
 * most 64, then chunk by chunk. One block has one chunk: those that are not the first of their id
 * leave their sums in the workspace, then the first of each id adds them up. (The mask's id alone
 * may have hundreds of chunks: one block for all its rows would be the whole time.)
 */
#include "kernels/launch.cuh"

enum {
    COPY_THREADS = 256,
    SUM_THREADS = 128,
    SUM_COLUMNS = 2, // neighbouring columns of a thread
};

// ---- forward ---------------------------------------------------------------------------------

// Rows of `units` pieces of type U; any type of that size will do.
template <typename U>
static __global__ void __launch_bounds__(COPY_THREADS)
    gather_kernel(U *out, const U *table, const int32_t *ids, int64_t rows, int64_t units)
{
    int64_t stride = static_cast<int64_t>(gridDim.x) * COPY_THREADS;
    int64_t first = static_cast<int64_t>(blockIdx.x) * COPY_THREADS + threadIdx.x;
    for (int64_t i = first; i < rows * units; i += stride) {
        int64_t row = i / units;
        out[i] = table[ids[row] * units + (i - row * units)];
    }
}

template <typename U>
static gidd_status gather(gidd_device *device, const gidd_embed_fwd_args *args, size_t row_bytes)
{
    int64_t units = static_cast<int64_t>(row_bytes / sizeof(U)), most = 1 << 20;
    int64_t blocks = (args->rows * units + COPY_THREADS - 1) / COPY_THREADS;
    return launch(device, "embed_fwd", gather_kernel<U>,
                  static_cast<unsigned>(blocks < most ? blocks : most), COPY_THREADS, 0, args->out,
                  args->table, args->ids, args->rows, units);
}

GIDD_LAUNCHER(embed_fwd)(gidd_device *device, const gidd_embed_fwd_args *args)
{
    if (args->out == NULL || args->table == NULL || args->ids == NULL || args->rows < 0 ||
        args->cols < 1) {
        return gidd_fail(GIDD_ERR_ARG, "embed_fwd: %lld rows of %lld, or a buffer is missing",
                         static_cast<long long>(args->rows), static_cast<long long>(args->cols));
    }
    if (args->rows == 0) {
        return GIDD_OK;
    }
    size_t row_bytes = static_cast<size_t>(args->cols) * gidd_dtype_bytes(device->dtype);
    bool by_16 = row_bytes % 16 == 0 && is_aligned(args->out, 16) && is_aligned(args->table, 16);
    if (by_16) {
        return gather<uint4>(device, args, row_bytes);
    }
    return device->dtype == GIDD_BF16 ? gather<uint16_t>(device, args, row_bytes)
                                      : gather<uint32_t>(device, args, row_bytes);
}

// ---- backward --------------------------------------------------------------------------------

/* Chunks that are not the first of their id begin at least 64 positions apart in `sorted`: so
 * first / 64 numbers them without a count. */
static __device__ __forceinline__ int64_t slot_of(const gidd_embed_chunk *chunk)
{
    return chunk->first / GIDD_EMBED_CHUNK_ROWS;
}

GIDD_WORKSPACE(embed)(const gidd_device_limits *limits)
{
    int64_t slots = (limits->B * limits->T + GIDD_EMBED_CHUNK_ROWS - 1) / GIDD_EMBED_CHUNK_ROWS;
    return static_cast<size_t>(slots * limits->D) * sizeof(float);
}

template <typename E>
static __device__ __forceinline__ void load_columns(float (&v)[SUM_COLUMNS], const E *row,
                                                    int64_t column, int64_t cols)
{
#pragma unroll
    for (int k = 0; k < SUM_COLUMNS; k++) {
        v[k] = column + k < cols ? to_float(row[column + k]) : 0.0f;
    }
}

// Adds the rows of one chunk, ascending.
template <typename E>
static __device__ __forceinline__ void chunk_sum(float (&sum)[SUM_COLUMNS],
                                                 const gidd_embed_bwd_args &args,
                                                 const gidd_embed_chunk *chunk, int64_t column)
{
    const E *dout = static_cast<const E *>(args.dout);
#pragma unroll
    for (int k = 0; k < SUM_COLUMNS; k++) {
        sum[k] = 0.0f;
    }
#pragma unroll 8
    for (int i = 0; i < chunk->count; i++) {
        float row[SUM_COLUMNS];
        int64_t position = args.sorted[chunk->first + i];
        load_columns(row, dout + position * args.cols, column, args.cols);
#pragma unroll
        for (int k = 0; k < SUM_COLUMNS; k++) {
            sum[k] += row[k];
        }
    }
}

static __device__ __forceinline__ int64_t first_column()
{
    return (static_cast<int64_t>(blockIdx.y) * SUM_THREADS + threadIdx.x) * SUM_COLUMNS;
}

// Chunks that there are: the grid may have more blocks.
static __device__ __forceinline__ int64_t chunks_there(const gidd_embed_bwd_args &args)
{
    return args.counts != NULL ? args.counts[1] : args.chunk_count;
}

template <typename E>
static __global__ void __launch_bounds__(SUM_THREADS)
    later_chunks_kernel(gidd_embed_bwd_args args, float *sums, int64_t slots)
{
    const gidd_embed_chunk *chunk = &args.chunks[blockIdx.x];
    int64_t column = first_column();
    if (blockIdx.x >= chunks_there(args) || chunk->head || slot_of(chunk) >= slots ||
        column >= args.cols) {
        return;
    }
    float sum[SUM_COLUMNS];
    chunk_sum<E>(sum, args, chunk, column);
    float *target = sums + slot_of(chunk) * args.cols + column;
#pragma unroll
    for (int k = 0; k < SUM_COLUMNS; k++) {
        if (column + k < args.cols) {
            target[k] = sum[k];
        }
    }
}

// How many chunks after `head` have its id; each warp looks at 32 at a time.
static __device__ __forceinline__ int64_t count_later_chunks(const gidd_embed_bwd_args &args,
                                                             int64_t head)
{
    int64_t there = chunks_there(args);
    for (int64_t first = head + 1;; first += WARP) {
        int64_t i = first + lane_number();
        bool is_other = i >= there || args.chunks[i].head;
        unsigned others = __ballot_sync(0xffffffffu, is_other);
        if (others != 0) {
            return first - (head + 1) + __ffs(static_cast<int>(others)) - 1;
        }
    }
}

template <typename E>
static __global__ void __launch_bounds__(SUM_THREADS)
    first_chunks_kernel(gidd_embed_bwd_args args, const float *sums, int64_t slots)
{
    const gidd_embed_chunk *chunk = &args.chunks[blockIdx.x];
    int64_t column = first_column();
    if (blockIdx.x >= chunks_there(args) || !chunk->head) {
        return;
    }
    int64_t later = count_later_chunks(args, blockIdx.x);
    if (column >= args.cols) {
        return;
    }
    float total[SUM_COLUMNS], sum[SUM_COLUMNS];
    chunk_sum<E>(total, args, chunk, column);
    // the chunks of one id are full but the last: their slots follow each other
    int64_t slot = slot_of(chunk) + 1;
    int64_t ready = slot >= slots ? 0 : slot + later <= slots ? later : slots - slot;
#pragma unroll 8
    for (int64_t i = 0; i < ready; i++) {
        load_columns(sum, sums + (slot + i) * args.cols, column, args.cols);
#pragma unroll
        for (int k = 0; k < SUM_COLUMNS; k++) {
            total[k] += sum[k];
        }
    }
    for (int64_t i = ready; i < later; i++) { // no workspace for them: slower, and the same bits
        chunk_sum<E>(sum, args, chunk + 1 + i, column);
#pragma unroll
        for (int k = 0; k < SUM_COLUMNS; k++) {
            total[k] += sum[k];
        }
    }
    float *target = args.dtable + chunk->id * args.cols + column;
#pragma unroll
    for (int k = 0; k < SUM_COLUMNS; k++) {
        if (column + k < args.cols) {
            target[k] = args.accumulate ? target[k] + total[k] : total[k];
        }
    }
}

template <typename E>
static gidd_status sum_chunks(gidd_device *device, const gidd_embed_bwd_args *args)
{
    dim3 grid(static_cast<unsigned>(args->chunk_count),
              blocks_for(args->cols, SUM_THREADS * SUM_COLUMNS));
    size_t row_bytes = static_cast<size_t>(args->cols) * sizeof(float);
    int64_t slots = static_cast<int64_t>(device->workspace_bytes / row_bytes);
    GIDD_TRY(launch(device, "embed_bwd", later_chunks_kernel<E>, grid, SUM_THREADS, 0, *args,
                    device->workspace, slots));
    return launch(device, "embed_bwd", first_chunks_kernel<E>, grid, SUM_THREADS, 0, *args,
                  device->workspace, slots);
}

GIDD_LAUNCHER(embed_bwd)(gidd_device *device, const gidd_embed_bwd_args *args)
{
    if (args->dtable == NULL || args->dout == NULL || args->sorted == NULL ||
        args->chunks == NULL || args->chunk_count < 0 || args->table_rows < 1 || args->cols < 1) {
        return gidd_fail(GIDD_ERR_ARG, "embed_bwd: %lld chunks of %lld, or a buffer is missing",
                         static_cast<long long>(args->chunk_count),
                         static_cast<long long>(args->cols));
    }
    if (!args->accumulate) {
        GIDD_TRY(
            gidd_device_zero(device, args->dtable,
                             static_cast<size_t>(args->table_rows * args->cols) * sizeof(float)));
    }
    if (args->chunk_count == 0) {
        return GIDD_OK;
    }
    return device->dtype == GIDD_BF16 ? sum_chunks<bf16>(device, args)
                                      : sum_chunks<float>(device, args);
}
