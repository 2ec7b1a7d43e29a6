/* SPDX-License-Identifier: Apache-2.0
 *
 * A micro-batch's sums over positions, in double: one block, thread t adds positions t, t + 512,
 * ...
 */
#include "kernels/launch.cuh"

enum {
    THREADS = 512,
    WARPS = THREADS / WARP,
};

GIDD_WORKSPACE(loss_sums)(const gidd_device_limits *)
{
    return 0;
}

static __device__ __forceinline__ void add_position(gidd_loss_sums &sums,
                                                    const gidd_loss_sums_args &args,
                                                    const gidd_seq_coef &coef, int64_t p)
{
    int32_t x = args.x[p], z = args.z[p];
    bool kept = z == x, masked = !kept && z == args.mask_id; // z = x wins over z = mask
    double a = args.attention_mask[p] != 0 ? 1.0 : 0.0;
    double w = static_cast<double>(kept ? coef.w_keep : masked ? coef.w_mask : coef.w_other);
    double omega = static_cast<double>(kept     ? coef.omega_keep
                                       : masked ? coef.omega_mask
                                                : coef.omega_other);
    sums.positions += 1.0;
    sums.tokens += a;
    sums.w += w * a;
    sums.noised_tokens += kept ? 0.0 : a;
    if (kept && args.skip_clean) {
        return;
    }
    gidd_loss_row row = args.terms[p];
    double kl = static_cast<double>(row.kl), is = static_cast<double>(row.is);
    sums.loss += w * (kl + is);
    sums.elbo += omega * (kl + is) * a;
    sums.w_kl += w * kl * a;
    sums.w_is += w * is * a;
    if (kept) {
        double log_px = static_cast<double>(row.log_px);
        sums.clean_loss += w * (kl + is);
        sums.clean_elbo += omega * (kl + is) * a;
        sums.min_log_px = log_px < sums.min_log_px ? log_px : sums.min_log_px;
    }
    sums.nonfinite += isfinite(kl) && isfinite(is) ? 0.0 : 1.0;
}

static __device__ __forceinline__ void add_field(double *target, double value, double *scratch)
{
    double sum = block_sum<WARPS>(value, scratch);
    if (threadIdx.x == 0) {
        *target += sum;
    }
    __syncthreads(); // scratch is free again
}

static __global__ void __launch_bounds__(THREADS) sums_kernel(gidd_loss_sums_args args)
{
    __shared__ double scratch[WARPS];
    gidd_loss_sums own = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
    gidd_loss_sums *sums = args.sums;
    double none = static_cast<double>(INFINITY);
    own.min_log_px = none;
    for (int64_t p = threadIdx.x; p < args.B * args.T; p += THREADS) {
        const gidd_seq_coef &coef = args.coef[p / args.T];
        if (coef.row_weight != 0.0f) { // else: pads an evaluation's last batch
            add_position(own, args, coef, p);
        }
    }
    add_field(&sums->loss, own.loss, scratch);
    add_field(&sums->positions, own.positions, scratch);
    add_field(&sums->elbo, own.elbo, scratch);
    add_field(&sums->tokens, own.tokens, scratch);
    add_field(&sums->w_kl, own.w_kl, scratch);
    add_field(&sums->w_is, own.w_is, scratch);
    add_field(&sums->w, own.w, scratch);
    add_field(&sums->clean_loss, own.clean_loss, scratch);
    add_field(&sums->clean_elbo, own.clean_elbo, scratch);
    add_field(&sums->noised_tokens, own.noised_tokens, scratch);
    add_field(&sums->nonfinite, own.nonfinite, scratch);
    double smallest = -block_max<WARPS>(-own.min_log_px, scratch);
    if (threadIdx.x == 0 && smallest < sums->min_log_px) {
        sums->min_log_px = smallest;
    }
}

GIDD_LAUNCHER(loss_sums)(gidd_device *device, const gidd_loss_sums_args *args)
{
    if (args->sums == NULL || args->terms == NULL || args->x == NULL || args->z == NULL ||
        args->attention_mask == NULL || args->coef == NULL || args->B < 1 || args->T < 1) {
        return gidd_fail(GIDD_ERR_ARG, "loss_sums: B %lld, T %lld, or a buffer is missing",
                         static_cast<long long>(args->B), static_cast<long long>(args->T));
    }
    return launch(device, "loss_sums", sums_kernel, 1, THREADS, 0, *args);
}
