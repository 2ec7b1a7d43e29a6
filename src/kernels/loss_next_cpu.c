/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy of the next token: one row of logits by one thread, its exponentials in the thread's
 * scratch.
 */
#include "kernels/cpu.h"

#include <math.h>

// The position's successor, or -1 where it has none that counts.
static int32_t target_of(const gidd_loss_args *args, int64_t position)
{
    int counts = (position + 1) % args->T != 0 && args->attention_mask[position] != 0;
    return counts ? args->x[position + 1] : -1;
}

// dlogit_j = g (p_j - [j = target]), 0 behind V. `exps` may be where the gradient goes.
static void write_gradient(const gidd_loss_args *args, gidd_dtype dtype, int64_t r, int32_t target,
                           float *exps, double total, double log_px, double g)
{
    float *grad = gidd_elements_out(args->logits, r * args->Vr, dtype, exps);
    float  factor = (float)(g / total);
#pragma omp simd
    for (int64_t j = 0; j < args->V; j++) {
        grad[j] = factor * exps[j];
    }
    memset(grad + args->V, 0, (size_t)(args->Vr - args->V) * sizeof *grad);
    grad[target] = (float)(g * expm1(log_px));
    gidd_elements_store(args->logits, r * args->Vr, args->Vr, dtype, grad);
}

static void write_zeros(const gidd_loss_args *args, gidd_dtype dtype, int64_t r)
{
    size_t bytes = (size_t)args->Vr * gidd_dtype_bytes(dtype);
    if (args->mode == GIDD_LOSS_TRAIN) {
        memset((char *)args->logits + (size_t)r * bytes, 0, bytes);
    }
}

static void row_next(const gidd_loss_args *args, gidd_dtype dtype, int64_t r, float *scratch)
{
    int64_t position = args->row_list != NULL ? args->row_list[r] : args->first_position + r;
    if (position == GIDD_NO_POSITION) {
        write_zeros(args, dtype, r);
        return;
    }
    const gidd_seq_coef *coef = &args->coef[position / args->T];
    int32_t              target = target_of(args, position);
    double               g = (double)args->scale * (double)coef->w_keep * (double)coef->row_weight;
    args->terms[position] = (gidd_loss_row){0};
    if (target < 0) {
        write_zeros(args, dtype, r);
        return;
    }
    const float *logits = gidd_elements_in(args->logits, r * args->Vr, args->Vr, dtype, scratch);
    float        largest = gidd_largest(logits, args->V, -INFINITY);
    double       at_target = (double)logits[target];
    double       total = gidd_exp_sum(scratch, logits, args->V, largest);
    double       log_px = at_target - (double)largest - log(total);
    args->terms[position] = (gidd_loss_row){.is = (float)-log_px, .log_px = (float)log_px};
    if (args->mode == GIDD_LOSS_TRAIN) {
        write_gradient(args, dtype, r, target, scratch, total, log_px, g);
    }
}

gidd_status gidd_loss_next_cpu(gidd_device *device, const gidd_loss_args *args)
{
    if (args->rows < 0 || args->T < 1 || args->V < 1 || args->Vr < args->V || args->terms == NULL ||
        args->x == NULL || args->attention_mask == NULL || args->coef == NULL ||
        (args->logits == NULL && args->rows > 0)) {
        return gidd_fail(GIDD_ERR_ARG, "loss_next: %lld rows, V %lld, Vr %lld, or a buffer is missing",
                         (long long)args->rows, (long long)args->V, (long long)args->Vr);
    }
    GIDD_TRY(gidd_workspace_check(device, gidd_loss_workspace_cpu(args->Vr, device->threads),
                                  "loss_next"));
    int64_t stride = gidd_scratch_floats(args->Vr);
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t r = 0; r < args->rows; r++) {
        row_next(args, device->dtype, r, (float *)device->workspace + stride * omp_get_thread_num());
    }
    return GIDD_OK;
}
