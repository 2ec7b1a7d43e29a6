/* SPDX-License-Identifier: Apache-2.0 */
#include "model/sampler.h"

#include "base/rng.h"
#include "diffusion/posterior.h"

#include <stdlib.h>
#include <string.h>

enum { HOST_ALIGN = 64, STEP_BITS = 20 };

/* What a position needs in a step, once on the host and once on the device. */
typedef struct sample_arrays {
    double *uniform;
    double *score;
    int32_t *z; /* result of a generation step  */
    int32_t *proposal;
    int32_t *best;
    uint8_t *fixed;
} sample_arrays;

struct gidd_sampler {
    gidd_sampler_args args; /* width and temperature resolved */
    gidd_batch batch;
    sample_arrays host, device;
    void *host_memory, *device_memory, *batch_memory;
    int64_t *running;                /* [max_B] self-correction: sequences that have not stopped */
    int32_t *before;                 /* [max_B][T] self-correction: the sequences as given       */
    int32_t *next;                   /* [T]                                                      */
    gidd_correct_patience *patience; /* [max_B] */
};

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

static void point_arrays(sample_arrays *arrays, void *memory, int64_t rows)
{
    const size_t doubles = rounded((size_t)rows * sizeof(double));
    const size_t ints = rounded((size_t)rows * sizeof(int32_t));
    char *at = memory;
    *arrays = (sample_arrays){
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
    if (args->steps < 1 || args->steps >= (int64_t)1 << STEP_BITS) {
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
    gidd_device_free(model->device, sampler->device_memory,
                     arrays_bytes(model->max_B * sampler->args.T));
    free(sampler->host_memory);
    free(sampler->batch_memory);
    free(sampler->running);
    free(sampler->before);
    free(sampler->next);
    free(sampler->patience);
    free(sampler);
}

/* ---- What both loops do ---------------------------------------------------------------------- */

/* The [T] uniforms of one sequence in one step: positions 2k and 2k+1 share a draw. */
static void draw_uniforms(const gidd_sampler *sampler, gidd_rng_stream stream, int64_t sample,
                          int64_t step, double *uniforms)
{
    const uint64_t index = (uint64_t)sample << STEP_BITS | (uint64_t)step;
    uint32_t word[4];
    for (int64_t i = 0; i < sampler->args.T; i += 2) {
        gidd_philox(sampler->args.seed, stream, index, (uint32_t)(i / 2), word);
        uniforms[i] = gidd_uniform53(word[0], word[1]);
        if (i + 1 < sampler->args.T) {
            uniforms[i + 1] = gidd_uniform53(word[2], word[3]);
        }
    }
}

/* Opens the batch record for B sequences: their z is the caller's to fill. */
static void open_batch(gidd_sampler *sampler, int64_t B, double t)
{
    gidd_batch_layout(&sampler->batch, B, sampler->args.T, sampler->batch_memory);
    for (int64_t b = 0; b < B; b++) {
        sampler->batch.coef[b] = (gidd_seq_coef){.t = (float)t};
    }
}

/* The batch and its uniforms to the device, and through the trunk. */
static gidd_status run_trunk(gidd_sampler *sampler, const double *uniforms)
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

static gidd_status sample_rows(gidd_sampler *sampler, gidd_sample_kind kind,
                               const gidd_posterior *p, int with_fixed, int64_t first, int64_t rows)
{
    gidd_model *model = sampler->args.model;
    const gidd_model_shape *s = &model->params->shape;
    void *logits = NULL;
    GIDD_TRY(gidd_model_logits(model, first, rows, &logits));
    const gidd_sample_step_args args = {
        .z_out = sampler->device.z + first,
        .logits = logits,
        .z = model->batch.z + first,
        .fixed = with_fixed ? sampler->device.fixed + first : NULL,
        .uniform = sampler->device.uniform + first,
        .rows = rows,
        .width = sampler->args.width,
        .stride = s->Vr,
        .mask_id = s->mask_id,
        .kind = kind,
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

gidd_status gidd_sampler_step(gidd_sampler *sampler, int64_t i, int64_t B, const double *uniforms,
                              const uint8_t *fixed, int32_t *z)
{
    gidd_model *model = sampler->args.model;
    const gidd_sample_kind kind = kind_of_step(sampler, i);
    const gidd_posterior p = gidd_posterior_step(sampler->args.schedule, sampler->args.steps, i);
    const int64_t rows = B * sampler->args.T;
    if (B < 1 || B > model->max_B || i < 0 || i >= sampler->args.steps) {
        return gidd_fail(GIDD_ERR_ARG, "step %lld of %lld with %lld sequences, at most %lld",
                         (long long)i, (long long)sampler->args.steps, (long long)B,
                         (long long)model->max_B);
    }
    open_batch(sampler, B, p.t);
    memcpy(sampler->batch.z, z, (size_t)rows * sizeof(*z));
    if (fixed != NULL) {
        GIDD_TRY(gidd_device_copy_in(model->device, sampler->device.fixed, fixed, (size_t)rows));
    }
    GIDD_TRY(run_trunk(sampler, kind == GIDD_SAMPLE_ARGMAX ? NULL : uniforms));
    for (int64_t first = 0; first < rows; first += model->head_rows) {
        const int64_t left = rows - first,
                      chunk = left < model->head_rows ? left : model->head_rows;
        GIDD_TRY(sample_rows(sampler, kind, &p, fixed != NULL, first, chunk));
    }
    return gidd_device_copy_out(model->device, z, sampler->device.z, (size_t)rows * sizeof(*z));
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

static gidd_status generate_batch(gidd_sampler *sampler, int64_t first_sample, int64_t B,
                                  const int32_t *given, int32_t *z)
{
    const gidd_sampler_args *args = &sampler->args;
    const uint8_t *fixed = given != NULL ? sampler->host.fixed : NULL;
    const int64_t last = args->schedule->args.process == GIDD_PROCESS_GIDD ? 1 : 0;
    start_sequences(sampler, B * args->T, given, z);
    for (int64_t i = args->steps - 1; i >= last; i--) {
        for (int64_t b = 0; b < B; b++) {
            draw_uniforms(sampler, GIDD_STREAM_SAMPLE, first_sample + b, i,
                          sampler->host.uniform + b * args->T);
        }
        GIDD_TRY(gidd_sampler_step(sampler, i, B, sampler->host.uniform, fixed, z));
        if (args->progress != NULL) {
            args->progress(args->context, args->steps - i, args->steps - last, z, B);
        }
    }
    return GIDD_OK;
}

static gidd_status check_samples(int64_t first_sample, int64_t count)
{
    if (first_sample < 0 || count < 0 || first_sample + count >= (int64_t)1 << (63 - STEP_BITS)) {
        return gidd_fail(GIDD_ERR_ARG, "samples %lld + %lld", (long long)first_sample,
                         (long long)count);
    }
    return GIDD_OK;
}

gidd_status gidd_sampler_generate(gidd_sampler *sampler, int64_t first_sample, int64_t count,
                                  const int32_t *given, int32_t *ids)
{
    const int64_t most = sampler->args.model->max_B, T = sampler->args.T;
    GIDD_TRY(check_samples(first_sample, count));
    for (int64_t done = 0; done < count; done += most) {
        const int64_t B = count - done < most ? count - done : most;
        GIDD_TRY(generate_batch(sampler, first_sample + done, B,
                                given != NULL ? given + done * T : NULL, ids + done * T));
    }
    return GIDD_OK;
}

/* ---- Self-correction ------------------------------------------------------------------------- */

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
    const sample_arrays *to = &sampler->host, *from = &sampler->device;
    const int64_t rows = sampler->batch.B * sampler->batch.T;
    GIDD_TRY(run_trunk(sampler, sampler->host.uniform));
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

/* One step of all sequences of the batch that still run; returns how many go on in *running_p. */
static gidd_status correct_once(gidd_sampler *sampler, const gidd_correct_args *args, int64_t step,
                                int64_t first_sample, int32_t *z, gidd_correct_result *results,
                                int64_t *running_p)
{
    const int64_t T = sampler->args.T, running = *running_p;
    int64_t left = 0;
    open_batch(sampler, running, args->t);
    for (int64_t r = 0; r < running; r++) {
        const int64_t b = sampler->running[r];
        memcpy(sampler->batch.z + r * T, z + b * T, (size_t)T * sizeof(*z));
        draw_uniforms(sampler, GIDD_STREAM_CORRECT, first_sample + b, step,
                      sampler->host.uniform + r * T);
    }
    GIDD_TRY(propose(sampler, args->temperature));
    for (int64_t r = 0; r < running; r++) {
        const int64_t b = sampler->running[r];
        if (finish_step(sampler, args, r, &sampler->patience[b], z + b * T, &results[b]) ==
            GIDD_CORRECT_ADOPT) {
            sampler->running[left++] = b;
        }
    }
    *running_p = left;
    return GIDD_OK;
}

static gidd_status correct_batch(gidd_sampler *sampler, const gidd_correct_args *args,
                                 int64_t first_sample, int64_t B, int32_t *z,
                                 gidd_correct_result *results)
{
    const int64_t T = sampler->args.T;
    int64_t running = B;
    memcpy(sampler->before, z, (size_t)(B * T) * sizeof(*z));
    for (int64_t b = 0; b < B; b++) {
        sampler->running[b] = b;
        sampler->patience[b] = (gidd_correct_patience){.max_patience = args->max_patience};
        results[b] = (gidd_correct_result){.verdict = GIDD_CORRECT_ADOPT};
    }
    for (int64_t step = 0; step < args->max_steps && running > 0; step++) {
        GIDD_TRY(correct_once(sampler, args, step, first_sample, z, results, &running));
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
                                 int64_t first_sample, int64_t count, int32_t *ids,
                                 gidd_correct_result *results)
{
    const int64_t most = sampler->args.model->max_B, T = sampler->args.T;
    GIDD_TRY(check_samples(first_sample, count));
    if (args->max_steps < 0 || args->max_steps >= (int64_t)1 << STEP_BITS ||
        args->tokens_per_step < 1 || !(args->temperature > 0.0) ||
        !(args->t > 0.0 && args->t < 1.0)) {
        return gidd_fail(
            GIDD_ERR_ARG,
            "self-correction at time %g, temperature %g, %lld tokens in each of %lld steps",
            args->t, args->temperature, (long long)args->tokens_per_step,
            (long long)args->max_steps);
    }
    for (int64_t done = 0; done < count; done += most) {
        const int64_t B = count - done < most ? count - done : most;
        GIDD_TRY(
            correct_batch(sampler, args, first_sample + done, B, ids + done * T, results + done));
    }
    return GIDD_OK;
}
