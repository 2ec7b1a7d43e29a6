/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy of the next token: one row of logits by one block, which reads the row twice (largest and
 * sum on the way; then the gradient, in place).
 */
#include "kernels/launch.cuh"

#include <cfloat>

enum { THREADS = 512, WARPS = THREADS / WARP, PACK = 8 };

// Rows begin at 16 bytes and end with a pack: every row of a real model. Other rows go by element.
template <typename E, bool BY_PACK>
static __device__ __forceinline__ void load_logits(float (&v)[PACK], const E *row, int first, int columns)
{
    if (BY_PACK) {
        load8(v, row + first); // reads behind V, but inside the row
    } else {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            v[k] = first + k < columns ? to_float(row[first + k]) : 0.0f;
        }
    }
#pragma unroll
    for (int k = 0; k < PACK; k++) {
        v[k] = first + k < columns ? v[k] : -INFINITY;
    }
}

// Softmax of a row: e^(l_j - largest) / total. NaN and infinity pass into `total`.
struct softmax {
    float largest, total;
};

template <typename E, bool BY_PACK>
static __device__ softmax read_row(const E *row, int columns, float *tops, float *totals)
{
    float largest = -FLT_MAX, total = 0.0f; // not -inf, which less itself is NaN
    for (int first = static_cast<int>(threadIdx.x) * PACK; first < columns; first += THREADS * PACK) {
        float v[PACK], top = largest, sum = 0.0f;
        load_logits<E, BY_PACK>(v, row, first, columns);
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            top = fmaxf(top, v[k]);
        }
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            sum += expf(v[k] - top);
        }
        total = total * expf(largest - top) + sum;
        largest = top;
    }
    softmax all;
    all.largest = block_max<WARPS>(largest, tops);
    all.total = block_sum<WARPS>(total * expf(largest - all.largest), totals);
    return all;
}

template <typename E, bool BY_PACK>
static __device__ __forceinline__ void write_gradient(E *row, int columns, int stride, softmax soft,
                                                      float factor)
{
    for (int first = static_cast<int>(threadIdx.x) * PACK; first < stride; first += THREADS * PACK) {
        float v[PACK] = {};
        if (factor != 0.0f) {
            load_logits<E, BY_PACK>(v, row, first, columns);
#pragma unroll
            for (int k = 0; k < PACK; k++) {
                v[k] = factor * expf(v[k] - soft.largest);
            }
        }
        if (BY_PACK) {
            store8(row + first, v);
        } else {
            for (int k = 0; k < PACK && first + k < stride; k++) {
                row[first + k] = from_float<E>(v[k]);
            }
        }
    }
}

template <typename E, bool BY_PACK>
static __global__ void __launch_bounds__(THREADS) next_kernel(gidd_loss_args args)
{
    __shared__ float tops[WARPS], totals[WARPS];
    int64_t r = blockIdx.x;
    int64_t position = args.row_list != NULL ? args.row_list[r] : args.first_position + r;
    if (position == GIDD_NO_POSITION) {
        if (args.mode == GIDD_LOSS_TRAIN) {
            E *none = static_cast<E *>(args.logits) + r * args.Vr;
            write_gradient<E, BY_PACK>(none, static_cast<int>(args.V), static_cast<int>(args.Vr), softmax(), 0.0f);
        }
        return; // the whole block
    }
    bool counts = (position + 1) % args.T != 0 && args.attention_mask[position] != 0;
    int32_t target = counts ? args.x[position + 1] : 0;
    E *row = static_cast<E *>(args.logits) + r * args.Vr;
    float logit = to_float(row[target]);
    softmax soft = read_row<E, BY_PACK>(row, static_cast<int>(args.V), tops, totals);
    double log_px = 0.0;
    if (threadIdx.x == 0 && counts) {
        log_px = static_cast<double>(logit) - static_cast<double>(soft.largest) -
                 log(static_cast<double>(soft.total));
    }
    if (threadIdx.x == 0) {
        gidd_loss_row terms = {0.0f, static_cast<float>(-log_px), 0.0f, static_cast<float>(log_px)};
        args.terms[position] = terms;
    }
    if (args.mode == GIDD_LOSS_TRAIN) {
        const gidd_seq_coef *coef = &args.coef[position / args.T];
        float g = counts ? args.scale * coef->w_keep * coef->row_weight : 0.0f;
        __syncthreads(); // every thread has read the logit of the target
        write_gradient<E, BY_PACK>(row, static_cast<int>(args.V), static_cast<int>(args.Vr), soft,
                                   g / soft.total);
        __syncthreads(); // the target's column has been written as an ordinary one
        if (threadIdx.x == 0 && g != 0.0f) {
            row[target] = from_float<E>(static_cast<float>(static_cast<double>(g) * expm1(log_px)));
        }
    }
}

template <typename E> static gidd_status run(gidd_device *device, const gidd_loss_args *args)
{
    bool by_pack = args->Vr % PACK == 0 && is_aligned(args->logits, 16);
    return launch(device, "loss_next", by_pack ? next_kernel<E, true> : next_kernel<E, false>,
                  dim3(static_cast<unsigned>(args->rows)), dim3(THREADS), 0, *args);
}

GIDD_LAUNCHER(loss_next)(gidd_device *device, const gidd_loss_args *args)
{
    if (args->rows < 0 || args->rows > INT32_MAX || args->T < 1 || args->V < 1 || args->Vr < args->V ||
        args->Vr > INT32_MAX / 2 || args->terms == NULL || args->x == NULL ||
        args->attention_mask == NULL || args->coef == NULL ||
        (args->logits == NULL && args->rows > 0)) {
        return gidd_fail(GIDD_ERR_ARG, "loss_next: %lld rows, V %lld, Vr %lld, or a buffer is missing",
                         static_cast<long long>(args->rows), static_cast<long long>(args->V),
                         static_cast<long long>(args->Vr));
    }
    if (args->rows == 0) {
        return GIDD_OK;
    }
    return device->dtype == GIDD_BF16 ? run<bf16>(device, args) : run<float>(device, args);
}
