/* SPDX-License-Identifier: Apache-2.0
 *
 * One position by one block, probabilities in double.
 *
 * An ordinary column's probability is A e_j + C with e_j = exp((l_j - largest) / temperature); only
 * the columns of z and of the mask have others. So one sweep of exponentials suffices: it leaves
 * sums of e_j by chunk of columns in shared memory, from which the sums of probabilities follow.
 * min_p must see every probability and asks for a second sweep, as does a caller that wants the
 * posterior.
 *
 * The draw. The CPU adds the probabilities one by one and takes the first j at which the sum
 * exceeds u. Here a chunk's columns are added one by one, RUN chunks make a run, RUN runs a
 * stretch, each added in order; the draw goes down the same tree: past the stretches, runs, chunks
 * and columns whose end does not exceed u. That is the CPU's rule with other parentheses: sums
 * differ by rounding, less than 1e-12, so the ids are the CPU's unless u lies that close to the
 * border of a column (the vectors keep 1e-5 away). The order depends on the width alone.
 */
#include "kernels/launch.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    READ = 8,       // columns read at once
    RUN = 16,       // children of a node of the tree
    STRETCHES = 16, // children of its root
    MAX_CHUNKS = STRETCHES * RUN * RUN,
};

// ---- a row of logits ---------------------------------------------------------------------------

template <typename E> struct row_view {
    const E *logits;
    int width, mask;
    bool vectors;      // READ columns can be read at any multiple of READ
    int chunk, chunks; // columns of a chunk, a multiple of READ; their number
};

template <typename E>
static __device__ __forceinline__ row_view<E> view_of(const void *logits, int64_t r, int64_t width,
                                                      int64_t stride, int32_t mask, int chunk)
{
    row_view<E> row;
    row.logits = static_cast<const E *>(logits) + r * stride;
    row.width = static_cast<int>(width);
    row.mask = mask;
    row.vectors = stride % READ == 0 && reinterpret_cast<uintptr_t>(logits) % 16 == 0;
    row.chunk = chunk;
    row.chunks = (row.width + chunk - 1) / chunk;
    return row;
}

// Columns first..first+READ-1; of those behind the row any value.
template <typename E>
static __device__ __forceinline__ void read_columns(float (&v)[READ], const row_view<E> &row,
                                                    int first)
{
    if (row.vectors) {
        load8(v, row.logits + first);
    } else {
#pragma unroll
        for (int i = 0; i < READ; i++) {
            v[i] = first + i < row.width ? to_float(row.logits[first + i]) : 0.0f;
        }
    }
}

// ---- the most probable column ------------------------------------------------------------------

struct candidate {
    float logit;
    int column;
};

// The larger; of equals the first.
static __device__ __forceinline__ candidate better(candidate a, candidate b)
{
    return b.logit > a.logit || (b.logit == a.logit && b.column < a.column) ? b : a;
}

// Of the whole row but the mask; every thread gets it. `scratch`: WARPS of this call alone.
template <typename E>
static __device__ candidate most_probable(const row_view<E> &row, candidate *scratch)
{
    candidate best = {-INFINITY, row.mask == 0 && row.width > 1 ? 1 : 0};
    for (int first = static_cast<int>(threadIdx.x) * READ; first < row.width;
         first += THREADS * READ) {
        float v[READ];
        read_columns(v, row, first);
#pragma unroll
        for (int i = 0; i < READ; i++) {
            if (first + i < row.width && first + i != row.mask) {
                best = better(best, {v[i], first + i});
            }
        }
    }
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        candidate other = {__shfl_xor_sync(0xffffffffu, best.logit, distance),
                           __shfl_xor_sync(0xffffffffu, best.column, distance)};
        best = better(best, other);
    }
    if (lane_number() == 0) {
        scratch[warp_number()] = best;
    }
    __syncthreads();
    best = scratch[0];
    for (int w = 1; w < WARPS; w++) {
        best = better(best, scratch[w]);
    }
    return best;
}

// ---- probabilities -----------------------------------------------------------------------------

// e_j = exp((l_j - largest) factor)
struct tempered {
    double largest, factor;
};

static __device__ __forceinline__ double weight_of(float logit, const tempered &row)
{
    return exp((static_cast<double>(logit) - row.largest) * row.factor);
}

// p_j = slope e_j + offset, but at the column of z (-1: nowhere) and at the mask's.
struct law {
    double slope, offset, at_z, at_mask, min_p;
    int z, mask;
};

static __device__ __forceinline__ double kept(double p, double min_p)
{
    return p < min_p ? 0.0 : p;
}

static __device__ __forceinline__ double probability(const law &p, int column, float logit,
                                                     const tempered &row)
{
    if (column == p.mask || column == p.z) {
        return kept(column == p.z ? p.at_z : p.at_mask, p.min_p);
    }
    return kept(p.slope * weight_of(logit, row) + p.offset, p.min_p);
}

// Sums of a chunk's e_j, one column after the other, without the columns of z and of the mask.
template <typename E>
static __device__ void sum_weights(double *sums, const row_view<E> &row, const tempered &t, int z)
{
    for (int c = static_cast<int>(threadIdx.x); c < row.chunks; c += THREADS) {
        int end = min((c + 1) * row.chunk, row.width);
        double sum = 0.0;
        for (int first = c * row.chunk; first < end; first += READ) {
            float v[READ];
            read_columns(v, row, first);
#pragma unroll
            for (int i = 0; i < READ; i++) {
                if (first + i < end && first + i != row.mask && first + i != z) {
                    sum += weight_of(v[i], t);
                }
            }
        }
        sums[c] = sum;
    }
}

/* Entropy of e_j / total over all columns but the mask's: with a_j = log e_j it is
 * log(total) - sum(e_j a_j) / total. `scratch`: WARPS of this call alone. */
template <typename E>
static __device__ double entropy_of(const row_view<E> &row, const tempered &t, double total,
                                    double *scratch)
{
    double sum = 0.0;
    for (int first = static_cast<int>(threadIdx.x) * READ; first < row.width;
         first += THREADS * READ) {
        float v[READ];
        read_columns(v, row, first);
#pragma unroll
        for (int i = 0; i < READ; i++) {
            double e = first + i < row.width && first + i != row.mask ? weight_of(v[i], t) : 0.0;
            // a weight of 0 adds nothing, whatever its logit is
            sum += e > 0.0 ? e * ((static_cast<double>(v[i]) - t.largest) * t.factor) : 0.0;
        }
    }
    return log(total) - block_sum<WARPS>(sum, scratch) / total;
}

// From sums of e_j to sums of p_j, min_p aside; each thread its own chunks.
template <typename E>
static __device__ void weights_to_probabilities(double *sums, const row_view<E> &row, const law &p)
{
    for (int c = static_cast<int>(threadIdx.x); c < row.chunks; c += THREADS) {
        int first = c * row.chunk, end = min(first + row.chunk, row.width), count = end - first;
        bool has_z = p.z >= first && p.z < end;
        bool has_mask = p.mask >= first && p.mask < end && p.mask != p.z;
        double sum = has_z ? p.at_z : 0.0;
        count -= (has_z ? 1 : 0) + (has_mask ? 1 : 0);
        sum += has_mask ? p.at_mask : 0.0;
        sums[c] = sum + p.slope * sums[c] + p.offset * static_cast<double>(count);
    }
}

// Probabilities themselves: into `posterior` where there is one; their sums by chunk likewise.
template <typename E>
static __device__ void write_probabilities(double *posterior, double *sums, const row_view<E> &row,
                                           const law &p, const tempered &t)
{
    for (int c = static_cast<int>(threadIdx.x); c < row.chunks; c += THREADS) {
        int end = min((c + 1) * row.chunk, row.width);
        double sum = 0.0;
        for (int first = c * row.chunk; first < end; first += READ) {
            float v[READ];
            read_columns(v, row, first);
#pragma unroll
            for (int i = 0; i < READ; i++) {
                if (first + i < end) {
                    double here = probability(p, first + i, v[i], t);
                    sum += here;
                    if (posterior != nullptr) {
                        posterior[first + i] = here;
                    }
                }
            }
        }
        if (sums != nullptr) {
            sums[c] = sum;
        }
    }
}

// ---- the tree of sums --------------------------------------------------------------------------

struct tree {
    double stretches[STRETCHES], runs[STRETCHES * RUN];
};

static __device__ __forceinline__ double sum_in_order(const double *values, int count)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++) {
        sum += values[i];
    }
    return sum;
}

// Children of a node whose level below has `count` nodes in all, RUN for each parent.
static __device__ __forceinline__ int children(int node, int count)
{
    return max(0, min(static_cast<int>(RUN), count - node * RUN));
}

// Fills the tree from the sums of its chunks, which barriers surround; returns the sum of all.
static __device__ double grow(tree *all, const double *chunks, int count)
{
    static_assert(THREADS == STRETCHES * RUN, "a thread adds up a run");
    int thread = static_cast<int>(threadIdx.x);
    __syncthreads();
    all->runs[thread] = sum_in_order(chunks + thread * RUN, children(thread, count));
    __syncthreads();
    if (thread < STRETCHES) {
        all->stretches[thread] = sum_in_order(all->runs + thread * RUN, RUN);
    }
    __syncthreads();
    return sum_in_order(all->stretches, STRETCHES);
}

/* The first child at whose end the sum exceeds u; *before becomes the sum before it. If there is
 * none, which only rounding can cause, the last that weighs anything. */
static __device__ int descend(const double *sums, int count, double *before, double u)
{
    double sum = *before;
    int last = 0;
    for (int i = 0; i < count; i++) {
        double next = sum + sums[i];
        if (next > u) {
            *before = sum;
            return i;
        }
        if (sums[i] > 0.0) {
            *before = sum;
            last = i;
        }
        sum = next;
    }
    return last;
}

// The chunk in which the sum first exceeds u, or -1; *before becomes the sum before it.
static __device__ int find_chunk(const tree *all, const double *chunks, int count, double *before,
                                 double u)
{
    if (!(sum_in_order(all->stretches, STRETCHES) > u)) {
        return -1;
    }
    *before = 0.0;
    int stretch = descend(all->stretches, STRETCHES, before, u);
    int run = stretch * RUN + descend(all->runs + stretch * RUN, RUN, before, u);
    return run * RUN + descend(chunks + run * RUN, children(run, count), before, u);
}

/* SPEC section 8: the first column at which the sum exceeds u. By one warp, all lanes alike: a lane
 * computes its column's probability, every lane adds them up in order. */
template <typename E>
static __device__ int draw(const tree *all, const double *chunks, const row_view<E> &row,
                           const law &p, const tempered &t, double u)
{
    double before = 0.0;
    int c = find_chunk(all, chunks, row.chunks, &before, u);
    if (c < 0) {
        return row.width - 1; // takes what rounding leaves
    }
    int end = min((c + 1) * row.chunk, row.width), last = end - 1;
    for (int first = c * row.chunk; first < end; first += WARP) {
        int own = first + lane_number();
        double here = own < end ? probability(p, own, to_float(row.logits[own]), t) : 0.0;
        for (int i = 0; i < WARP; i++) {
            double p_i = __shfl_sync(0xffffffffu, here, i);
            before += p_i;
            if (before > u) {
                return first + i;
            }
            last = p_i > 0.0 ? first + i : last;
        }
    }
    return last;
}

// ---- a step of generation ----------------------------------------------------------------------

/* SPEC section 9, from e_z and Z = sum_j e_j.
 * GIDD: post_j = (alpha_ts [j = z] + beta_ts[z]) q_s[j] / q_t[z]. MDLM: the mask keeps its share.
 */
static __device__ law posterior_of(const gidd_sample_step_args &args, int32_t z, double e_z,
                                   double total)
{
    law p;
    p.mask = args.mask_id;
    p.min_p = args.min_p;
    if (args.kind == GIDD_SAMPLE_MDLM) {
        p.z = -1;
        p.slope = (args.move_t - args.move_s) / args.move_t / total;
        p.offset = p.at_z = 0.0;
        p.at_mask = args.move_s / args.move_t;
        return p;
    }
    bool masked = z == args.mask_id;
    double alpha_ts = args.alpha_t / args.alpha_s, xhat = e_z / total;
    double beta_s = masked ? args.beta_mask_s : args.beta_other_s;
    double beta_t = masked ? args.beta_mask_t : args.beta_other_t;
    double beta_ts = beta_t - alpha_ts * beta_s, q_t = args.alpha_t * xhat + beta_t;
    double factor = beta_ts / q_t;
    p.z = z;
    p.slope = factor * args.alpha_s / total;
    p.offset = factor * args.beta_other_s;
    p.at_mask = factor * args.beta_mask_s;
    p.at_z = (alpha_ts + beta_ts) * (args.alpha_s * xhat + beta_s) / q_t;
    return p;
}

/* Sums of probabilities by chunk, in the tree, and the posterior where wanted; returns the sum of
 * all where they are yet to be divided by it (min_p), else 1. */
template <typename E>
static __device__ double spread(tree *all, double *chunks, double *posterior,
                                const row_view<E> &row, const law &p, const tempered &t)
{
    if (!(p.min_p > 0.0)) {
        weights_to_probabilities(chunks, row, p);
        (void)grow(all, chunks, row.chunks);
        if (posterior != nullptr) {
            write_probabilities<E>(posterior, nullptr, row, p, t);
        }
        return 1.0;
    }
    write_probabilities(posterior, chunks, row, p, t);
    double whole = grow(all, chunks, row.chunks);
    for (int c = static_cast<int>(threadIdx.x); posterior != nullptr && c < row.chunks;
         c += THREADS) {
        int end = min((c + 1) * row.chunk, row.width);
        for (int j = c * row.chunk; j < end; j++) {
            posterior[j] /= whole;
        }
    }
    return whole;
}

template <typename E>
static __global__ void __launch_bounds__(THREADS, 4)
    sample_step_kernel(gidd_sample_step_args args, int chunk)
{
    GIDD_DYNAMIC_SHARED(double, chunks);
    __shared__ candidate candidates[WARPS];
    __shared__ double partial[WARPS];
    __shared__ tree all;
    int64_t r = blockIdx.x;
    int32_t z = args.z[r];
    bool gidd = args.kind == GIDD_SAMPLE_GIDD;
    bool may_change = (args.fixed == nullptr || args.fixed[r] == 0) && (gidd || z == args.mask_id);
    double *posterior = args.posterior != nullptr && args.kind != GIDD_SAMPLE_ARGMAX
                            ? args.posterior + r * args.width
                            : nullptr;
    bool wants_entropy = args.entropy != nullptr && may_change;
    double entropy = 0.0;
    int drawn = z;
    if (may_change || posterior != nullptr) {
        row_view<E> row = view_of<E>(args.logits, r, args.width, args.stride, args.mask_id, chunk);
        candidate best = most_probable(row, candidates);
        tempered t = {static_cast<double>(best.logit), 1.0 / args.temperature};
        bool draws = args.kind != GIDD_SAMPLE_ARGMAX;
        double e_z = 0.0, total = 0.0;
        if (draws || wants_entropy) {
            e_z = gidd && z != args.mask_id ? weight_of(to_float(row.logits[z]), t) : 0.0;
            sum_weights(chunks, row, t, gidd ? z : -1);
            total = grow(&all, chunks, row.chunks) + e_z;
        }
        if (wants_entropy) {
            entropy = entropy_of(row, t, total, partial);
        }
        drawn = best.column;
        if (draws) {
            law p = posterior_of(args, z, e_z, total);
            double whole = spread(&all, chunks, posterior, row, p, t);
            if (warp_number() == 0) {
                drawn = draw(&all, chunks, row, p, t, args.uniform[r] * whole);
            }
        }
    }
    if (threadIdx.x == 0) {
        args.z_out[r] = may_change ? drawn : z;
        if (args.entropy != nullptr) {
            args.entropy[r] = entropy;
        }
    }
}

// ---- a step of self-correction -----------------------------------------------------------------

template <typename E>
static __global__ void __launch_bounds__(THREADS, 4)
    correct_step_kernel(gidd_correct_step_args args, int chunk)
{
    GIDD_DYNAMIC_SHARED(double, chunks);
    __shared__ candidate candidates[WARPS];
    __shared__ tree all;
    int64_t r = blockIdx.x;
    row_view<E> row = view_of<E>(args.logits, r, args.width, args.stride, args.mask_id, chunk);
    candidate best = most_probable(row, candidates);
    tempered t = {static_cast<double>(best.logit), 1.0 / args.temperature};
    sum_weights(chunks, row, t, -1);
    law p = {0.0, 0.0, 0.0, 0.0, 0.0, -1, args.mask_id};
    p.slope = 1.0 / grow(&all, chunks, row.chunks);
    weights_to_probabilities(chunks, row, p);
    (void)grow(&all, chunks, row.chunks);
    if (warp_number() == 0) {
        int proposal = draw(&all, chunks, row, p, t, args.uniform[r]);
        if (threadIdx.x == 0) {
            args.proposal[r] = proposal;
            args.score[r] = proposal == args.z[r]
                                ? 0.0
                                : probability(p, proposal, to_float(row.logits[proposal]), t);
            args.best[r] = best.column;
        }
    }
}

// ---- launchers ---------------------------------------------------------------------------------

static gidd_status check_rows(const char *slot, int64_t rows, int64_t width, int64_t stride,
                              int32_t mask_id, double temperature, bool has_buffers)
{
    if (rows < 0 || rows > INT32_MAX || width < 1 || width > INT32_MAX / 2 || stride < width ||
        mask_id < 0 || mask_id >= width || !(temperature > 0.0) || (!has_buffers && rows > 0)) {
        return gidd_fail(
            GIDD_ERR_ARG,
            "%s: %lld rows of %lld columns, stride %lld, temperature %g, or a buffer is missing",
            slot, static_cast<long long>(rows), static_cast<long long>(width),
            static_cast<long long>(stride), temperature);
    }
    return GIDD_OK;
}

// Columns of a chunk: as few as keep the tree within its size.
static int64_t chunk_of(int64_t width)
{
    int64_t whole = static_cast<int64_t>(MAX_CHUNKS) * READ;
    return (width + whole - 1) / whole * READ;
}

template <typename Args>
static gidd_status run_rows(gidd_device *device, const Args *args, const char *slot,
                            void (*kernel)(Args, int))
{
    int64_t chunk = chunk_of(args->width), chunks = (args->width + chunk - 1) / chunk;
    if (args->rows == 0) {
        return GIDD_OK;
    }
    return launch(device, slot, kernel, dim3(static_cast<unsigned>(args->rows)), dim3(THREADS),
                  static_cast<size_t>(chunks) * sizeof(double), *args, static_cast<int>(chunk));
}

GIDD_LAUNCHER(sample_step)(gidd_device *device, const gidd_sample_step_args *args)
{
    bool has_buffers = args->z_out != nullptr && args->logits != nullptr && args->z != nullptr &&
                       (args->uniform != nullptr || args->kind == GIDD_SAMPLE_ARGMAX);
    GIDD_TRY(check_rows("sample_step", args->rows, args->width, args->stride, args->mask_id,
                        args->temperature, has_buffers));
    return run_rows(device, args, "sample_step",
                    device->dtype == GIDD_BF16 ? sample_step_kernel<bf16>
                                               : sample_step_kernel<float>);
}

GIDD_LAUNCHER(correct_step)(gidd_device *device, const gidd_correct_step_args *args)
{
    bool has_buffers = args->proposal != nullptr && args->score != nullptr &&
                       args->best != nullptr && args->logits != nullptr && args->z != nullptr &&
                       args->uniform != nullptr;
    GIDD_TRY(check_rows("correct_step", args->rows, args->width, args->stride, args->mask_id,
                        args->temperature, has_buffers));
    return run_rows(device, args, "correct_step",
                    device->dtype == GIDD_BF16 ? correct_step_kernel<bf16>
                                               : correct_step_kernel<float>);
}

GIDD_WORKSPACE(sample)(const gidd_device_limits *limits)
{
    (void)limits;
    return 0;
}
