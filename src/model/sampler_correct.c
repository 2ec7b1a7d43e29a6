/* SPDX-License-Identifier: Apache-2.0 */
#include "model/sampler_internal.h"

#include <string.h>

static gidd_status propose_rows(gidd_sampler *sampler, double temperature, int64_t first,
                                int64_t rows)
{
    gidd_model *model = sampler->args.model;
    const gidd_model_shape *s = &model->params->shape;
    void *logits = NULL;
    GIDD_TRY(gidd_model_logits(model, first, rows, &logits));
    const gidd_correct_step_args args = {
        .proposal = sampler->device.proposal + first,
        .score = sampler->device.score + first,
        .best = sampler->device.best + first,
        .logits = logits,
        .z = model->batch.z + first,
        .uniform = sampler->device.uniform + first,
        .rows = rows,
        .width = sampler->args.width,
        .stride = s->Vr,
        .mask_id = s->mask_id,
        .temperature = temperature,
    };
    return model->device->kernels->correct_step(model->device, &args);
}

/* Proposals, scores and best tokens of the batch, on the host. */
static gidd_status propose(gidd_sampler *sampler, double temperature)
{
    gidd_model *model = sampler->args.model;
    const sampler_arrays *to = &sampler->host, *from = &sampler->device;
    const int64_t rows = sampler->batch.B * sampler->batch.T;
    GIDD_TRY(gidd_sampler_run_trunk(sampler, sampler->host.uniform));
    for (int64_t first = 0; first < rows; first += model->head_rows) {
        const int64_t left = rows - first,
                      chunk = left < model->head_rows ? left : model->head_rows;
        GIDD_TRY(propose_rows(sampler, temperature, first, chunk));
    }
    const size_t ids_bytes = (size_t)rows * sizeof(*to->best);
    GIDD_TRY(gidd_device_copy_out(model->device, to->proposal, from->proposal, ids_bytes));
    GIDD_TRY(gidd_device_copy_out(model->device, to->best, from->best, ids_bytes));
    return gidd_device_copy_out(model->device, to->score, from->score,
                                (size_t)rows * sizeof(*to->score));
}

static double share_equal(const int32_t *a, const int32_t *b, int64_t count)
{
    int64_t equal = 0;
    for (int64_t i = 0; i < count; i++) {
        equal += a[i] == b[i];
    }
    return (double)equal / (double)count;
}

/* Ends a step of one sequence, whose proposals are row `row` of the batch. */
static gidd_correct_verdict finish_step(gidd_sampler *sampler, const gidd_correct_args *args,
                                        int64_t row, gidd_correct_patience *patience, int32_t *z,
                                        gidd_correct_result *result)
{
    const int64_t T = sampler->args.T;
    const size_t bytes = (size_t)T * sizeof(*z);
    const int32_t *best = sampler->host.best + row * T;
    if (result->steps == 0) {
        result->initial_accuracy = result->final_accuracy = share_equal(z, best, T);
    }
    memcpy(sampler->next, z, bytes);
    const int64_t chosen =
        gidd_correct_select(sampler->host.score + row * T, sampler->host.proposal + row * T, T,
                            args->tokens_per_step, sampler->next, NULL);
    const double accuracy = share_equal(sampler->next, best, T);
    result->steps++;
    result->verdict = gidd_correct_judge(patience, accuracy, chosen);
    if (result->verdict != GIDD_CORRECT_STALLED) {
        memcpy(z, sampler->next, bytes);
        result->final_accuracy = accuracy;
    }
    return result->verdict;
}

/* Given tokens are never exchanged: their proposals count for nothing. */
static void keep_given(const int32_t *given, int64_t T, double *score)
{
    for (int64_t i = 0; i < T; i++) {
        score[i] = given[i] >= 0 ? 0.0 : score[i];
    }
}

/* One step of all sequences of the batch that still run; returns how many go on in *running_p. */
static gidd_status correct_once(gidd_sampler *sampler, const gidd_correct_args *args, int64_t step,
                                const gidd_sample_span *span, int32_t *z,
                                gidd_correct_result *results, int64_t *running_p)
{
    const int64_t T = sampler->args.T, running = *running_p;
    int64_t left = 0;
    gidd_sampler_open_batch(sampler, running, args->t);
    for (int64_t r = 0; r < running; r++) {
        const int64_t b = sampler->running[r];
        memcpy(sampler->batch.z + r * T, z + b * T, (size_t)T * sizeof(*z));
        gidd_sampler_draw_uniforms(sampler, GIDD_STREAM_CORRECT, span->first_sample + b, step,
                                   sampler->host.uniform + r * T);
    }
    GIDD_TRY(propose(sampler, args->temperature));
    for (int64_t r = 0; r < running; r++) {
        const int64_t b = sampler->running[r];
        if (span->given != NULL) {
            keep_given(span->given + b * T, T, sampler->host.score + r * T);
        }
        if (finish_step(sampler, args, r, &sampler->patience[b], z + b * T, &results[b]) ==
            GIDD_CORRECT_ADOPT) {
            sampler->running[left++] = b;
        }
    }
    *running_p = left;
    return GIDD_OK;
}

static gidd_status correct_batch(gidd_sampler *sampler, const gidd_correct_args *args,
                                 const gidd_sample_span *span, int32_t *z,
                                 gidd_correct_result *results)
{
    const int64_t T = sampler->args.T, B = span->count;
    int64_t running = B;
    memcpy(sampler->before, z, (size_t)(B * T) * sizeof(*z));
    for (int64_t b = 0; b < B; b++) {
        sampler->running[b] = b;
        sampler->patience[b] = (gidd_correct_patience){.max_patience = args->max_patience};
        results[b] = (gidd_correct_result){.verdict = GIDD_CORRECT_ADOPT};
    }
    for (int64_t step = 0; step < args->max_steps && running > 0; step++) {
        GIDD_TRY(correct_once(sampler, args, step, span, z, results, &running));
        if (sampler->args.progress != NULL) {
            sampler->args.progress(sampler->args.context, step + 1, args->max_steps, z, B);
        }
    }
    for (int64_t i = 0; i < B * T; i++) {
        results[i / T].changed += z[i] != sampler->before[i];
    }
    return GIDD_OK;
}

gidd_status gidd_sampler_correct(gidd_sampler *sampler, const gidd_correct_args *args,
                                 const gidd_sample_span *span, int32_t *ids,
                                 gidd_correct_result *results)
{
    GIDD_TRY(gidd_sampler_need_diffusion(sampler, "self-correction"));
    GIDD_TRY(gidd_sampler_check_span(span));
    if (args->max_steps < 0 || args->max_steps >= (int64_t)1 << GIDD_SAMPLER_STEP_BITS ||
        args->tokens_per_step < 1 || !(args->temperature > 0.0) ||
        !(args->t > 0.0 && args->t < 1.0)) {
        return gidd_fail(
            GIDD_ERR_ARG,
            "self-correction at time %g, temperature %g, %lld tokens in each of %lld steps",
            args->t, args->temperature, (long long)args->tokens_per_step,
            (long long)args->max_steps);
    }
    for (int64_t done = 0; done < span->count;) {
        const gidd_sample_span batch = gidd_sampler_next_batch(sampler, span, done);
        GIDD_TRY(
            correct_batch(sampler, args, &batch, ids + done * sampler->args.T, results + done));
        done += batch.count;
    }
    return GIDD_OK;
}
