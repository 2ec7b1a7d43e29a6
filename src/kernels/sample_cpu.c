/* SPDX-License-Identifier: Apache-2.0
 *
 * One position by one thread, probabilities in double.
 */
#include "kernels/cpu.h"

#include "base/vmath.h"

#include <math.h>

size_t gidd_sample_workspace_cpu(int64_t Vr, int threads)
{
    return (size_t)(gidd_scratch_floats(3 * Vr) * threads) * sizeof(float);
}

// A thread's row of probabilities [width] and, behind it, of widened logits.
static double *thread_probabilities(const gidd_device *device, int64_t width, int thread)
{
    return (double *)(void *)((float *)device->workspace + gidd_scratch_floats(3 * width) * thread);
}

static gidd_status check_rows(const gidd_device *device, const char *slot, int64_t rows,
                              int64_t width, int64_t stride, int32_t mask_id, double temperature,
                              int has_buffers)
{
    if (rows < 0 || width < 1 || stride < width || mask_id < 0 || mask_id >= width ||
        !(temperature > 0.0) || (!has_buffers && rows > 0)) {
        return gidd_fail(
            GIDD_ERR_ARG,
            "%s: %lld rows of %lld columns, stride %lld, temperature %g, or a buffer is "
            "missing",
            slot, (long long)rows, (long long)width, (long long)stride, temperature);
    }
    return gidd_workspace_check(device, gidd_sample_workspace_cpu(width, device->threads), slot);
}

// First of the largest logits, the mask excluded.
static int32_t most_probable(const float *logits, int64_t width, int32_t mask_id)
{
    int32_t best = mask_id == 0 && width > 1 ? 1 : 0;
    for (int64_t j = 0; j < width; j++) {
        if (j != mask_id && logits[j] > logits[best]) {
            best = (int32_t)j;
        }
    }
    return best;
}

static double exp_sum(double *p, const float *logits, int64_t count, double largest, double factor)
{
    double total = 0.0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < count; j++) {
        p[j] = gidd_exp(((double)logits[j] - largest) * factor);
        total += p[j];
    }
    return total;
}

// With a_j = (l_j - largest) factor and p_j = e^a_j: sum of p_j a_j. A weight of 0 adds nothing,
// whatever its logit is.
static double exponent_sum(const double *p, const float *logits, int64_t count, double largest,
                           double factor)
{
    double total = 0.0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < count; j++) {
        total += p[j] > 0.0 ? p[j] * (((double)logits[j] - largest) * factor) : 0.0;
    }
    return total;
}

// p = softmax(logits / temperature) without the mask, whose probability becomes 0. The mask's logit
// is not even read: nothing was ever trained to keep it small. *entropy_p, where wanted, becomes
// -sum p log p = log(total) - sum(e^a a) / total.
static void softmax_row(double *p, const float *logits, int64_t width, int32_t mask_id,
                        double temperature, double *entropy_p)
{
    int64_t after = mask_id + 1, behind = width - after;
    float   before = gidd_largest(logits, mask_id, -INFINITY);
    double  largest = (double)gidd_largest(logits + after, behind, before);
    double  total = exp_sum(p, logits, mask_id, largest, 1.0 / temperature);
    total += exp_sum(p + after, logits + after, behind, largest, 1.0 / temperature);
    if (entropy_p != NULL) {
        double sum = exponent_sum(p, logits, mask_id, largest, 1.0 / temperature);
        sum += exponent_sum(p + after, logits + after, behind, largest, 1.0 / temperature);
        *entropy_p = log(total) - sum / total;
    }
    p[mask_id] = 0.0;
    for (int64_t j = 0; j < width; j++) {
        p[j] /= total;
    }
}

// SPEC section 9: post_j = (alpha_ts [j = z] + beta_ts[z]) q_s[j] / q_t[z].
static void posterior_gidd(double *p, const gidd_sample_step_args *args, int32_t z)
{
    double alpha_ts = args->alpha_t / args->alpha_s;
    int    masked = z == args->mask_id;
    double beta_s = masked ? args->beta_mask_s : args->beta_other_s;
    double beta_t = masked ? args->beta_mask_t : args->beta_other_t;
    double beta_ts = beta_t - alpha_ts * beta_s;
    double q_t = args->alpha_t * p[z] + beta_t;
    double stay = alpha_ts + beta_ts;
    double z_s = args->alpha_s * p[z] + beta_s, factor = beta_ts / q_t;
    for (int64_t j = 0; j < args->width; j++) {
        p[j] = factor * (args->alpha_s * p[j] + args->beta_other_s);
    }
    p[args->mask_id] = factor * args->beta_mask_s;
    p[z] = stay * z_s / q_t;
}

static void posterior_mdlm(double *p, const gidd_sample_step_args *args)
{
    double unmask = (args->move_t - args->move_s) / args->move_t;
    for (int64_t j = 0; j < args->width; j++) {
        p[j] *= unmask;
    }
    p[args->mask_id] = args->move_s / args->move_t;
}

static void drop_small(double *p, int64_t width, double min_p)
{
    double total = 0.0;
    for (int64_t j = 0; j < width; j++) {
        p[j] = p[j] < min_p ? 0.0 : p[j];
        total += p[j];
    }
    for (int64_t j = 0; j < width; j++) {
        p[j] /= total;
    }
}

// SPEC section 8: the first j whose running sum exceeds u; the last column takes the rest.
static int32_t draw(const double *p, int64_t width, double u)
{
    double sum = 0.0;
    for (int64_t j = 0; j < width - 1; j++) {
        sum += p[j];
        if (sum > u) {
            return (int32_t)j;
        }
    }
    return (int32_t)(width - 1);
}

static int may_change(const gidd_sample_step_args *args, int64_t row)
{
    int is_free = args->fixed == NULL || !args->fixed[row];
    return is_free && (args->kind == GIDD_SAMPLE_GIDD || args->z[row] == args->mask_id);
}

static void step_row(const gidd_sample_step_args *args, gidd_dtype dtype, int64_t row,
                     double *scratch)
{
    int64_t      width = args->width;
    int32_t      z = args->z[row];
    int          changes = may_change(args, row), draws = args->kind != GIDD_SAMPLE_ARGMAX;
    const float *logits = gidd_elements_in(args->logits, row * args->stride, width, dtype,
                                           (float *)(void *)(scratch + width));
    double *posterior = draws && args->posterior != NULL ? args->posterior + row * width : NULL;
    double *p = posterior != NULL ? posterior : scratch, entropy = 0.0;
    args->z_out[row] = z;
    if (posterior != NULL || (changes && (draws || args->entropy != NULL))) {
        softmax_row(p, logits, width, args->mask_id, args->temperature,
                    changes && args->entropy != NULL ? &entropy : NULL);
    }
    if (args->entropy != NULL) {
        args->entropy[row] = entropy;
    }
    if (!draws && changes) {
        args->z_out[row] = most_probable(logits, width, args->mask_id);
    }
    if (!draws || (!changes && posterior == NULL)) {
        return;
    }
    if (args->kind == GIDD_SAMPLE_GIDD) {
        posterior_gidd(p, args, z);
    } else {
        posterior_mdlm(p, args);
    }
    if (args->min_p > 0.0) {
        drop_small(p, width, args->min_p);
    }
    if (changes) {
        args->z_out[row] = draw(p, width, args->uniform[row]);
    }
}

gidd_status gidd_sample_step_cpu(gidd_device *device, const gidd_sample_step_args *args)
{
    int has_buffers = args->z_out != NULL && args->logits != NULL && args->z != NULL &&
                      (args->uniform != NULL || args->kind == GIDD_SAMPLE_ARGMAX);
    GIDD_TRY(check_rows(device, "sample_step", args->rows, args->width, args->stride, args->mask_id,
                        args->temperature, has_buffers));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t row = 0; row < args->rows; row++) {
        step_row(args, device->dtype, row,
                 thread_probabilities(device, args->width, omp_get_thread_num()));
    }
    return GIDD_OK;
}

gidd_status gidd_correct_step_cpu(gidd_device *device, const gidd_correct_step_args *args)
{
    int has_buffers = args->proposal != NULL && args->score != NULL && args->best != NULL &&
                      args->logits != NULL && args->z != NULL && args->uniform != NULL;
    GIDD_TRY(check_rows(device, "correct_step", args->rows, args->width, args->stride,
                        args->mask_id, args->temperature, has_buffers));
#pragma omp parallel for num_threads(device->threads) schedule(static)
    for (int64_t row = 0; row < args->rows; row++) {
        double      *p = thread_probabilities(device, args->width, omp_get_thread_num());
        const float *logits = gidd_elements_in(args->logits, row * args->stride, args->width,
                                               device->dtype, (float *)(void *)(p + args->width));
        softmax_row(p, logits, args->width, args->mask_id, args->temperature, NULL);
        int32_t proposal = draw(p, args->width, args->uniform[row]);
        args->proposal[row] = proposal;
        args->score[row] = proposal != args->z[row] ? p[proposal] : 0.0;
        args->best[row] = most_probable(logits, args->width, args->mask_id);
    }
    return GIDD_OK;
}
