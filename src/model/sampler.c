/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/posterior.h"
#include "model/sampler_internal.h"

#include <stdlib.h>
#include <string.h>

enum { HOST_ALIGN = 64 };

/* ---- Memory ---------------------------------------------------------------------------------- */

static size_t rounded(size_t bytes)
{
    return (bytes + HOST_ALIGN - 1) / HOST_ALIGN * HOST_ALIGN;
}

static size_t arrays_bytes(int64_t rows)
{
    const size_t n = (size_t)rows;
    return 2 * rounded(n * sizeof(double)) + 3 * rounded(n * sizeof(int32_t)) + rounded(n);
}

static void point_arrays(sampler_arrays *arrays, void *memory, int64_t rows)
{
    const size_t doubles = rounded((size_t)rows * sizeof(double));
    const size_t ints = rounded((size_t)rows * sizeof(int32_t));
    char *at = memory;
    *arrays = (sampler_arrays){
        .uniform = (void *)at,
        .score = (void *)(at + doubles),
        .z = (void *)(at + 2 * doubles),
        .proposal = (void *)(at + 2 * doubles + ints),
        .best = (void *)(at + 2 * doubles + 2 * ints),
        .fixed = (void *)(at + 2 * doubles + 3 * ints),
    };
}

static gidd_status check_args(const gidd_sampler_args *args)
{
    const gidd_model_shape *s = &args->model->params->shape;
    if (args->T < 1 || args->T > args->model->max_T) {
        return gidd_fail(GIDD_ERR_ARG, "samples of %lld tokens with a model of at most %lld",
                         (long long)args->T, (long long)args->model->max_T);
    }
    if (args->steps < 1 || args->steps >= (int64_t)1 << GIDD_SAMPLER_STEP_BITS) {
        return gidd_fail(GIDD_ERR_ARG, "%lld steps of generation", (long long)args->steps);
    }
    if (args->width != 0 && args->width != s->V && args->width != s->Vr) {
        return gidd_fail(GIDD_ERR_ARG, "sampling from %lld columns, the logits have %lld or %lld",
                         (long long)args->width, (long long)s->V, (long long)s->Vr);
    }
    if (!(args->temperature >= 0.0) || !(args->min_p >= 0.0 && args->min_p < 1.0)) {
        return gidd_fail(GIDD_ERR_ARG, "sampling at temperature %g with min_p %g",
                         args->temperature, args->min_p);
    }
    return GIDD_OK;
}

static gidd_status allocate(gidd_sampler *sampler)
{
    if (sampler->args.schedule->args.process == GIDD_PROCESS_NONE) {
        return gidd_ancestral_create(&(gidd_ancestral_args){.model = sampler->args.model,
                                                            .T = sampler->args.T,
                                                            .temperature = sampler->args.temperature,
                                                            .min_p = sampler->args.min_p,
                                                            .seed = sampler->args.seed,
                                                            .progress = sampler->args.progress,
                                                            .context = sampler->args.context},
                                     &sampler->ancestral);
    }
    const int64_t B = sampler->args.model->max_B, T = sampler->args.T, rows = B * T;
    const size_t batch_bytes = rounded(gidd_batch_bytes(B, T));
    sampler->host_memory = aligned_alloc(HOST_ALIGN, arrays_bytes(rows));
    sampler->batch_memory = aligned_alloc(HOST_ALIGN, batch_bytes);
    sampler->running = calloc((size_t)B, sizeof(*sampler->running));
    sampler->before = calloc((size_t)rows, sizeof(*sampler->before));
    sampler->next = calloc((size_t)T, sizeof(*sampler->next));
    sampler->patience = calloc((size_t)B, sizeof(*sampler->patience));
    if (sampler->host_memory == NULL || sampler->batch_memory == NULL || sampler->running == NULL ||
        sampler->before == NULL || sampler->next == NULL || sampler->patience == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to sample %lld x %lld tokens", (long long)B,
                         (long long)T);
    }
    memset(sampler->batch_memory, 0, batch_bytes);
    memset(sampler->host_memory, 0, arrays_bytes(rows));
    point_arrays(&sampler->host, sampler->host_memory, rows);
    GIDD_TRY(gidd_device_alloc(sampler->args.model->device, arrays_bytes(rows), "sampler",
                               &sampler->device_memory));
    point_arrays(&sampler->device, sampler->device_memory, rows);
    return GIDD_OK;
}

gidd_status gidd_sampler_create(const gidd_sampler_args *args, gidd_sampler **sampler_p)
{
    GIDD_TRY(check_args(args));
    gidd_sampler *sampler = calloc(1, sizeof(*sampler));
    if (sampler == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a sampler");
    }
    sampler->args = *args;
    sampler->args.width = args->width != 0 ? args->width : args->model->params->shape.V;
    sampler->args.temperature = args->temperature > 0.0 ? args->temperature : 1.0;
    gidd_status status = allocate(sampler);
    if (status != GIDD_OK) {
        gidd_sampler_destroy(sampler);
        return status;
    }
    *sampler_p = sampler;
    return GIDD_OK;
}

void gidd_sampler_destroy(gidd_sampler *sampler)
{
    if (sampler == NULL) {
        return;
    }
    const gidd_model *model = sampler->args.model;
    gidd_ancestral_destroy(sampler->ancestral);
    if (sampler->device_memory != NULL) {
        gidd_device_free(model->device, sampler->device_memory,
                         arrays_bytes(model->max_B * sampler->args.T));
    }
    free(sampler->host_memory);
    free(sampler->batch_memory);
    free(sampler->running);
    free(sampler->before);
    free(sampler->next);
    free(sampler->patience);
    free(sampler);
}

gidd_status gidd_sampler_need_diffusion(const gidd_sampler *sampler, const char *what)
{
    if (sampler->ancestral != NULL) {
        return gidd_fail(GIDD_ERR_USAGE, "%s is for diffusion models: this one is autoregressive", what);
    }
    return GIDD_OK;
}

/* ---- What both loops do ---------------------------------------------------------------------- */

void gidd_sampler_draw_uniforms(const gidd_sampler *sampler, gidd_rng_stream stream, int64_t sample,
                                int64_t step, double *uniforms)
{
    const uint64_t index = (uint64_t)sample << GIDD_SAMPLER_STEP_BITS | (uint64_t)step;
    uint32_t word[4];
    for (int64_t i = 0; i < sampler->args.T; i += 2) {
        gidd_philox(sampler->args.seed, stream, index, (uint32_t)(i / 2), word);
        uniforms[i] = gidd_uniform53(word[0], word[1]);
        if (i + 1 < sampler->args.T) {
            uniforms[i + 1] = gidd_uniform53(word[2], word[3]);
        }
    }
}

void gidd_sampler_open_batch(gidd_sampler *sampler, int64_t B, double t)
{
    gidd_batch_layout(&sampler->batch, B, sampler->args.T, sampler->batch_memory);
    for (int64_t b = 0; b < B; b++) {
        sampler->batch.coef[b] = (gidd_seq_coef){.t = (float)t};
    }
}

gidd_status gidd_sampler_run_trunk(gidd_sampler *sampler, const double *uniforms)
{
    gidd_model *model = sampler->args.model;
    const int64_t rows = sampler->batch.B * sampler->batch.T;
    GIDD_TRY(gidd_model_load(model, &sampler->batch));
    if (uniforms != NULL) {
        GIDD_TRY(gidd_device_copy_in(model->device, sampler->device.uniform, uniforms,
                                     (size_t)rows * sizeof(*uniforms)));
    }
    return gidd_model_forward(model);
}

/* ---- Generation ------------------------------------------------------------------------------ */

static gidd_sample_kind kind_of_step(const gidd_sampler *sampler, int64_t i)
{
    if (sampler->args.schedule->args.process == GIDD_PROCESS_GIDD) {
        return GIDD_SAMPLE_GIDD;
    }
    return i == 0 ? GIDD_SAMPLE_ARGMAX : GIDD_SAMPLE_MDLM;
}

/* What is wanted of a step: its number, and whether tokens are fixed and entropies asked for. */
typedef struct step_want {
    int64_t i;
    gidd_sample_kind kind;
    int fixed, entropy;
} step_want;

static gidd_status sample_rows(gidd_sampler *sampler, const step_want *want,
                               const gidd_posterior *p, int64_t first, int64_t rows)
{
    gidd_model *model = sampler->args.model;
    const gidd_model_shape *s = &model->params->shape;
    void *logits = NULL;
    GIDD_TRY(gidd_model_logits(model, first, rows, &logits));
    const gidd_sample_step_args args = {
        .z_out = sampler->device.z + first,
        .entropy = want->entropy ? sampler->device.score + first : NULL,
        .logits = logits,
        .z = model->batch.z + first,
        .fixed = want->fixed ? sampler->device.fixed + first : NULL,
        .uniform = sampler->device.uniform + first,
        .rows = rows,
        .width = sampler->args.width,
        .stride = s->Vr,
        .mask_id = s->mask_id,
        .kind = want->kind,
        .temperature = sampler->args.temperature,
        .min_p = sampler->args.min_p,
        .alpha_s = p->alpha_s,
        .alpha_t = p->alpha_t,
        .beta_other_s = p->beta_other_s,
        .beta_other_t = p->beta_other_t,
        .beta_mask_s = p->beta_mask_s,
        .beta_mask_t = p->beta_mask_t,
        .move_s = p->move_s,
        .move_t = p->move_t,
    };
    return model->device->kernels->sample_step(model->device, &args);
}

/* One step of the B sequences of z; entropies, where wanted, to host.score. */
static gidd_status run_step(gidd_sampler *sampler, const step_want *want, int64_t B,
                            const double *uniforms, int32_t *z)
{
    gidd_model *model = sampler->args.model;
    const gidd_posterior p =
        gidd_posterior_step(sampler->args.schedule, sampler->args.steps, want->i);
    const int64_t rows = B * sampler->args.T;
    gidd_sampler_open_batch(sampler, B, p.t);
    memcpy(sampler->batch.z, z, (size_t)rows * sizeof(*z));
    GIDD_TRY(gidd_sampler_run_trunk(sampler, want->kind == GIDD_SAMPLE_ARGMAX ? NULL : uniforms));
    for (int64_t first = 0; first < rows; first += model->head_rows) {
        const int64_t left = rows - first,
                      chunk = left < model->head_rows ? left : model->head_rows;
        GIDD_TRY(sample_rows(sampler, want, &p, first, chunk));
    }
    if (want->entropy) {
        GIDD_TRY(gidd_device_copy_out(model->device, sampler->host.score, sampler->device.score,
                                      (size_t)rows * sizeof(double)));
    }
    return gidd_device_copy_out(model->device, z, sampler->device.z, (size_t)rows * sizeof(*z));
}

static gidd_status load_fixed(gidd_sampler *sampler, const uint8_t *fixed, int64_t rows)
{
    if (fixed == NULL) {
        return GIDD_OK;
    }
    return gidd_device_copy_in(sampler->args.model->device, sampler->device.fixed, fixed,
                               (size_t)rows);
}

gidd_status gidd_sampler_step(gidd_sampler *sampler, int64_t i, int64_t B, const double *uniforms,
                              const uint8_t *fixed, int32_t *z)
{
    GIDD_TRY(gidd_sampler_need_diffusion(sampler, "a denoising step"));
    const int64_t most = sampler->args.model->max_B;
    if (B < 1 || B > most || i < 0 || i >= sampler->args.steps) {
        return gidd_fail(GIDD_ERR_ARG, "step %lld of %lld with %lld sequences, at most %lld",
                         (long long)i, (long long)sampler->args.steps, (long long)B,
                         (long long)most);
    }
    const step_want want = {.i = i, .kind = kind_of_step(sampler, i), .fixed = fixed != NULL};
    GIDD_TRY(load_fixed(sampler, fixed, B * sampler->args.T));
    return run_step(sampler, &want, B, uniforms, z);
}

/* Start of a generation: what is given, and masks. */
static void start_sequences(gidd_sampler *sampler, int64_t rows, const int32_t *given, int32_t *z)
{
    const int32_t mask = sampler->args.model->params->shape.mask_id;
    for (int64_t i = 0; i < rows; i++) {
        const int is_given = given != NULL && given[i] >= 0;
        sampler->host.fixed[i] = (uint8_t)is_given;
        z[i] = is_given ? given[i] : mask;
    }
}

int64_t gidd_sampler_computed_steps(const gidd_sampler *sampler)
{
    const int is_gidd = sampler->args.schedule->args.process == GIDD_PROCESS_GIDD;
    if (sampler->ancestral != NULL) {
        return sampler->args.T - 1;
    }
    return sampler->args.steps - (is_gidd ? 1 : 0);
}

/* Mean entropy of a sequence's prediction where it may change: of the positions that are not given,
 * and in MDLM of those still masked. z is what the step started from. */
static double mean_entropy(const gidd_sampler *sampler, const int32_t *z, const uint8_t *fixed,
                           const double *entropy)
{
    const int32_t mask = sampler->args.model->params->shape.mask_id;
    const int is_gidd = sampler->args.schedule->args.process == GIDD_PROCESS_GIDD;
    int64_t free_positions = 0;
    double sum = 0.0;
    for (int64_t i = 0; i < sampler->args.T; i++) {
        free_positions += !fixed[i] && (is_gidd || z[i] == mask);
        sum += entropy[i]; /* 0 where nothing may change */
    }
    return free_positions > 0 ? sum / (double)free_positions : 0.0;
}

static gidd_status generate_batch(gidd_sampler *sampler, const gidd_sample_span *span, int32_t *z,
                                  double *entropy)
{
    const gidd_sampler_args *args = &sampler->args;
    const int64_t computed = gidd_sampler_computed_steps(sampler), B = span->count, T = args->T;
    start_sequences(sampler, B * T, span->given, z);
    GIDD_TRY(load_fixed(sampler, span->given != NULL ? sampler->host.fixed : NULL, B * T));
    for (int64_t done = 0; done < computed; done++) {
        const int64_t i = args->steps - 1 - done;
        const step_want want = {.i = i,
                                .kind = kind_of_step(sampler, i),
                                .fixed = span->given != NULL,
                                .entropy = entropy != NULL};
        for (int64_t b = 0; b < B; b++) {
            gidd_sampler_draw_uniforms(sampler, GIDD_STREAM_SAMPLE, span->first_sample + b, i,
                                       sampler->host.uniform + b * T);
        }
        GIDD_TRY(run_step(sampler, &want, B, sampler->host.uniform, z));
        for (int64_t b = 0; entropy != NULL && b < B; b++) {
            entropy[b * computed + done] =
                mean_entropy(sampler, sampler->batch.z + b * T, sampler->host.fixed + b * T,
                             sampler->host.score + b * T);
        }
        if (args->progress != NULL) {
            args->progress(args->context, done + 1, computed, z, B);
        }
    }
    return GIDD_OK;
}

gidd_status gidd_sampler_check_span(const gidd_sample_span *span)
{
    const int64_t most = (int64_t)1 << (63 - GIDD_SAMPLER_STEP_BITS);
    if (span->first_sample < 0 || span->count < 0 || span->first_sample >= most ||
        span->count >= most - span->first_sample) {
        return gidd_fail(GIDD_ERR_ARG, "samples %lld + %lld", (long long)span->first_sample,
                         (long long)span->count);
    }
    return GIDD_OK;
}

gidd_sample_span gidd_sampler_next_batch(const gidd_sampler *sampler, const gidd_sample_span *span,
                                         int64_t done)
{
    const int64_t left = span->count - done, most = sampler->args.model->max_B;
    return (gidd_sample_span){
        .first_sample = span->first_sample + done,
        .count = left < most ? left : most,
        .given = span->given != NULL ? span->given + done * sampler->args.T : NULL,
    };
}

gidd_status gidd_sampler_generate(gidd_sampler *sampler, const gidd_sample_span *span, int32_t *ids,
                                  double *entropy)
{
    const int64_t computed = gidd_sampler_computed_steps(sampler);
    GIDD_TRY(gidd_sampler_check_span(span));
    if (sampler->ancestral != NULL) {
        return gidd_ancestral_generate(sampler->ancestral, span->first_sample, span->count, span->given, ids, entropy);
    }
    for (int64_t done = 0; done < span->count;) {
        const gidd_sample_span batch = gidd_sampler_next_batch(sampler, span, done);
        GIDD_TRY(generate_batch(sampler, &batch, ids + done * sampler->args.T,
                                entropy != NULL ? entropy + done * computed : NULL));
        done += batch.count;
    }
    return GIDD_OK;
}
