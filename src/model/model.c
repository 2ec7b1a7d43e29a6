/* SPDX-License-Identifier: Apache-2.0
 *
 * A model's life: planned, allocated, filled with parameters, given batches.
 */
#include "model/model.h"

#include "model/activations.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW_TILE = 128,       /* rows of logits at once: a multiple of this    */
    FILL_CHUNK = 1 << 20, /* elements initialised at once                  */
};

static const size_t logits_bytes_max = (size_t)512 << 20; /* of the default chunk of logits */

/* ---- Plan ------------------------------------------------------------------------------------ */

/* The fewest equal chunks of rows whose logits stay below logits_bytes_max: few, because each chunk
 * reads and writes the gradient of the whole output matrix again. */
static int64_t choose_head_rows(const gidd_model *model)
{
    const size_t row = (size_t)model->params->shape.Vr * gidd_dtype_bytes(model->device->dtype);
    const int64_t all = model->max_B * model->max_T;
    int64_t most = (int64_t)(logits_bytes_max / row);
    most = most < ROW_TILE ? ROW_TILE : most;
    const int64_t chunks = (all + most - 1) / most;
    const int64_t rows = (all + chunks - 1) / chunks;
    const int64_t tiled = (rows + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    return tiled < all ? tiled : all;
}

static gidd_status set_sizes(gidd_model *model, const gidd_model_args *args)
{
    const gidd_model_shape *s = &args->params->shape;
    if (args->max_B < 1 || args->max_T < 1 || args->max_T > s->T || args->head_rows < 0) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "micro-batches of %lld sequences of %lld tokens, %lld rows of logits at "
                         "once, in a model of at most %lld tokens",
                         (long long)args->max_B, (long long)args->max_T, (long long)args->head_rows,
                         (long long)s->T);
    }
    if ((s->type == GIDD_MODEL_AUTOREGRESSIVE) != (args->loss == GIDD_LOSS_NEXT)) {
        return gidd_fail(GIDD_ERR_ARG, "the loss of another type of model");
    }
    if (s->type == GIDD_MODEL_AUTOREGRESSIVE && args->recompute != GIDD_RECOMPUTE_NONE) {
        return gidd_fail(GIDD_ERR_UNSUPPORTED, "an autoregressive model recomputes no activations");
    }
    *model = (gidd_model){
        .device = args->device,
        .params = args->params,
        .slice = args->slice,
        .mode = args->mode,
        .loss = args->loss,
        .recompute = args->recompute,
        .max_B = args->max_B,
        .max_T = args->max_T,
        .head_rows = args->head_rows,
    };
    const int64_t all = model->max_B * model->max_T;
    if (model->head_rows == 0) {
        model->head_rows = choose_head_rows(model);
    } else if (model->head_rows > all) {
        model->head_rows = all;
    }
    return GIDD_OK;
}

static size_t terms_bytes(const gidd_model *model)
{
    return (size_t)(model->max_B * model->max_T) * sizeof(*model->terms);
}

/* fp32 values of all parameters. */
static size_t whole_bytes(const gidd_model *model)
{
    return (size_t)model->params->memory_count * sizeof(*model->master);
}

/* Where E is fp32 the masters are what the network reads, so every rank needs all of them. */
static int keeps_slice(const gidd_model *model)
{
    return model->slice != NULL && !model->slice->is_whole && model->device->dtype != GIDD_F32;
}

static size_t master_bytes(const gidd_model *model)
{
    return keeps_slice(model) ? (size_t)model->slice->own_count * sizeof(*model->master)
                              : whole_bytes(model);
}

static size_t exact_bytes(const gidd_model *model)
{
    return keeps_slice(model) ? (size_t)model->params->exact_count * sizeof(*model->exact) : 0;
}

/* Zero where the masters themselves are of type E. */
static size_t copy_bytes(const gidd_model *model)
{
    const gidd_dtype E = model->device->dtype;
    return E == GIDD_F32 ? 0 : (size_t)model->params->memory_count * gidd_dtype_bytes(E);
}

typedef struct plan_writer {
    gidd_plan_line *lines;
    int64_t capacity, count;
} plan_writer;

static void write_line(plan_writer *writer, const char *name, size_t bytes)
{
    if (bytes > 0 && writer->count < writer->capacity) {
        gidd_plan_line *line = &writer->lines[writer->count++];
        (void)snprintf(line->name, sizeof(line->name), "%s", name);
        line->bytes = bytes;
    }
}

gidd_status gidd_model_plan(const gidd_model_args *args, gidd_plan_line *lines, int64_t capacity,
                            int64_t *count_p)
{
    static const char *const area_names[GIDD_AREA_COUNT] = {
        [GIDD_AREA_BLOCKS] = "activations of the blocks",
        [GIDD_AREA_CONDITIONING] = "time conditioning",
        [GIDD_AREA_HEAD] = "final norm and logits",
        [GIDD_AREA_BACKWARD] = "backward",
    };
    gidd_model model;
    GIDD_TRY(set_sizes(&model, args));
    gidd_activations *a = NULL;
    GIDD_TRY(gidd_activations_plan(&model, &a));
    size_t area[GIDD_AREA_COUNT] = {0};
    for (int64_t i = 0; i < a->table_count; i++) {
        area[a->table[i].area] += a->table[i].bytes;
    }
    gidd_activations_destroy(a, model.device);

    const int train = model.mode == GIDD_MODEL_TRAIN;
    plan_writer writer = {.lines = lines, .capacity = capacity};
    write_line(&writer, "parameters", master_bytes(&model));
    write_line(&writer, "parameters, bf16 copy", copy_bytes(&model));
    write_line(&writer, "parameters read in fp32", exact_bytes(&model));
    write_line(&writer, "gradients", train ? whole_bytes(&model) : 0);
    write_line(&writer, "batch and loss terms",
               gidd_batch_bytes(model.max_B, model.max_T) + terms_bytes(&model));
    for (int i = 0; i < GIDD_AREA_COUNT; i++) {
        write_line(&writer, area_names[i], area[i]);
    }
    *count_p = writer.count;
    return GIDD_OK;
}

/* Of a block for T tokens, forward. */
static double recomputed_flops(gidd_recompute recompute, double D, double T)
{
    switch (recompute) {
    case GIDD_RECOMPUTE_NONE:
        return 0.0;
    case GIDD_RECOMPUTE_MLP:
        return 2.0 * 4.0 * D * D * T;
    case GIDD_RECOMPUTE_BLOCK: /* qkv, out, fc1; scores and values */
        return 2.0 * 8.0 * D * D * T + 4.0 * T * T * D;
    }
    return 0.0;
}

gidd_model_flops gidd_model_flops_of(const gidd_model_shape *shape, int64_t T, gidd_recompute recompute)
{
    const int is_causal = shape->type == GIDD_MODEL_AUTOREGRESSIVE;
    const double D = (double)shape->D, L = (double)shape->L, tokens = (double)T;
    const double of_mlp = (is_causal ? 3.0 : 2.0) * (double)gidd_model_mlp_width(shape) * D;
    const double matrices = L * (4.0 * D * D + of_mlp) + (double)shape->Vr * D;
    const double attention = (is_causal ? 6.0 : 12.0) * L * tokens * tokens * D;
    return (gidd_model_flops){
        .sequence = 6.0 * matrices * tokens + attention,
        .head_row = 6.0 * (double)shape->Vr * D,
        .recompute = (L - 1.0) * recomputed_flops(recompute, D, tokens),
    };
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* Padding stays at the zero it gets here. */
static gidd_status allocate_params(gidd_model *model)
{
    const size_t bytes = whole_bytes(model);
    void *memory = NULL;
    GIDD_TRY(gidd_device_alloc(model->device, master_bytes(model), "parameters", &memory));
    model->master = memory;
    GIDD_TRY(gidd_device_zero(model->device, memory, master_bytes(model)));
    model->weights = model->master;
    if (copy_bytes(model) > 0) {
        model->weights = NULL;
        GIDD_TRY(gidd_device_alloc(model->device, copy_bytes(model), "bf16 parameters",
                                   &model->weights));
        GIDD_TRY(gidd_device_zero(model->device, model->weights, copy_bytes(model)));
    }
    if (exact_bytes(model) > 0) {
        GIDD_TRY(gidd_device_alloc(model->device, exact_bytes(model), "fp32 parameters", &memory));
        model->exact = memory;
    }
    if (model->mode == GIDD_MODEL_TRAIN) {
        GIDD_TRY(gidd_device_alloc(model->device, bytes, "gradients", &memory));
        model->grads = memory;
        GIDD_TRY(gidd_device_zero(model->device, memory, bytes));
    }
    return GIDD_OK;
}

static gidd_status allocate_batch(gidd_model *model)
{
    static const gidd_loss_sums nothing = {.min_log_px = HUGE_VAL};
    gidd_activations *a = model->activations;
    void *memory = NULL;
    a->batch_bytes = gidd_batch_bytes(model->max_B, model->max_T);
    GIDD_TRY(gidd_device_alloc(model->device, a->batch_bytes, "batch", &a->batch_memory));
    GIDD_TRY(gidd_device_alloc(model->device, terms_bytes(model), "loss terms", &memory));
    model->terms = memory;
    GIDD_TRY(gidd_device_alloc(model->device, 2 * sizeof(*model->sums), "loss sums", &memory));
    model->sums = memory;
    GIDD_TRY(gidd_device_copy_in(model->device, model->sums + 1, &nothing, sizeof(nothing)));
    return gidd_model_zero_sums(model);
}

static gidd_status reserve_workspace(gidd_model *model)
{
    const gidd_model_shape *s = &model->params->shape;
    return gidd_device_reserve(model->device, &(gidd_device_limits){
                                                  .B = model->max_B,
                                                  .T = model->max_T,
                                                  .D = s->D,
                                                  .H = s->H,
                                                  .L = s->L,
                                                  .C = s->C,
                                                  .Vr = s->Vr,
                                                  .head_rows = model->head_rows,
                                              });
}

gidd_status gidd_model_create(const gidd_model_args *args, gidd_model **model_p)
{
    gidd_status status = GIDD_OK;
    gidd_model *model = calloc(1, sizeof(*model));
    if (model == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a model");
    }
    GIDD_TRY_GOTO(set_sizes(model, args));
    GIDD_TRY_GOTO(gidd_activations_plan(model, &model->activations));
    GIDD_TRY_GOTO(allocate_params(model));
    GIDD_TRY_GOTO(allocate_batch(model));
    GIDD_TRY_GOTO(gidd_activations_allocate(model->activations, model));
    GIDD_TRY_GOTO(reserve_workspace(model));
    *model_p = model;
    return GIDD_OK;
out:
    gidd_model_destroy(model);
    return status;
}

void gidd_model_destroy(gidd_model *model)
{
    if (model == NULL) {
        return;
    }
    gidd_device *device = model->device;
    gidd_activations *a = model->activations;
    if (a != NULL) {
        gidd_device_free(device, a->batch_memory, a->batch_bytes);
    }
    gidd_activations_destroy(a, device);
    gidd_device_free(device, model->sums, 2 * sizeof(*model->sums));
    gidd_device_free(device, model->terms, terms_bytes(model));
    gidd_device_free(device, model->grads, whole_bytes(model));
    gidd_device_free(device, model->exact, exact_bytes(model));
    if (model->weights != model->master) {
        gidd_device_free(device, model->weights, copy_bytes(model));
    }
    gidd_device_free(device, model->master, master_bytes(model));
    free(model);
}

/* ---- Parameters ------------------------------------------------------------------------------ */

float *gidd_model_own_master(const gidd_model *model, const gidd_slice_part *part)
{
    return part == NULL ? model->master : model->master + (keeps_slice(model) ? part->own : part->at);
}

/* The elements that a part of the slice and a tensor have in common. */
static gidd_status copy_exact(gidd_model *model, const gidd_slice_part *part, const gidd_tensor *t)
{
    const int64_t part_end = part->at + part->count, end = t->at + t->count;
    const int64_t from = t->at > part->at ? t->at : part->at;
    const int64_t to = end < part_end ? end : part_end;
    if (t->exact_at < 0 || from >= to) {
        return GIDD_OK;
    }
    return gidd_device_copy(model->device, model->exact + t->exact_at + (from - t->at),
                            gidd_model_own_master(model, part) + (from - part->at),
                            (size_t)(to - from) * sizeof(*model->exact));
}

gidd_status gidd_model_refresh_exact(gidd_model *model)
{
    if (model->exact == NULL) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_device_zero(model->device, model->exact, exact_bytes(model)));
    for (int64_t i = 0; i < model->slice->part_count; i++) {
        for (int64_t k = 0; k < model->params->tensor_count; k++) {
            GIDD_TRY(copy_exact(model, &model->slice->parts[i], &model->params->tensors[k]));
        }
    }
    return GIDD_OK;
}

static gidd_status cast_range(gidd_model *model, const float *source, int64_t at, int64_t count)
{
    const gidd_cast_args args = {
        .target = (char *)model->weights + (size_t)at * gidd_dtype_bytes(model->device->dtype),
        .source = source,
        .count = count,
    };
    return model->device->kernels->cast(model->device, &args);
}

gidd_status gidd_model_refresh(gidd_model *model)
{
    if (model->weights == model->master) {
        return GIDD_OK;
    }
    if (!keeps_slice(model)) {
        return cast_range(model, model->master, 0, model->params->memory_count);
    }
    for (int64_t i = 0; i < model->slice->part_count; i++) {
        const gidd_slice_part *part = &model->slice->parts[i];
        GIDD_TRY(cast_range(model, gidd_model_own_master(model, part), part->at, part->count));
    }
    return gidd_model_refresh_exact(model);
}

gidd_status gidd_model_set_params(gidd_model *model, const float *values)
{
    GIDD_ASSERT(!keeps_slice(model));
    GIDD_TRY(gidd_device_copy_in(model->device, model->master, values, whole_bytes(model)));
    GIDD_TRY(gidd_model_refresh(model));
    return gidd_device_synchronize(model->device); // `values` may go away now
}

/* Initial values of memory elements [first, first + count) to `master`. */
static gidd_status fill_range(gidd_model *model, uint64_t seed, float *master, int64_t first,
                              int64_t count, float *chunk)
{
    for (int64_t done = 0; done < count; done += FILL_CHUNK) {
        const int64_t n = count - done < FILL_CHUNK ? count - done : FILL_CHUNK;
        gidd_params_fill(model->params, seed, first + done, n, chunk);
        GIDD_TRY(gidd_device_copy_in(model->device, master + done, chunk,
                                     (size_t)n * sizeof(*chunk)));
        GIDD_TRY(gidd_device_synchronize(model->device)); // before `chunk` is written again
    }
    return GIDD_OK;
}

static gidd_status fill_masters(gidd_model *model, uint64_t seed, float *chunk)
{
    if (!keeps_slice(model)) {
        return fill_range(model, seed, model->master, 0, model->params->memory_count, chunk);
    }
    for (int64_t i = 0; i < model->slice->part_count; i++) {
        const gidd_slice_part *part = &model->slice->parts[i];
        GIDD_TRY(fill_range(model, seed, gidd_model_own_master(model, part), part->at, part->count,
                            chunk));
    }
    return GIDD_OK;
}

gidd_status gidd_model_init_params(gidd_model *model, uint64_t seed)
{
    float *chunk = malloc(FILL_CHUNK * sizeof(*chunk));
    if (chunk == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to initialise parameters");
    }
    gidd_status status = fill_masters(model, seed, chunk);
    free(chunk);
    return status == GIDD_OK ? gidd_model_refresh(model) : status;
}

/* ---- Batches and sums ------------------------------------------------------------------------ */

static gidd_status adopt_batch(gidd_model *model, const gidd_batch *batch)
{
    gidd_activations *a = model->activations;
    if (batch->B < 1 || batch->B > model->max_B || batch->T < 1 || batch->T > model->max_T ||
        batch->bytes != gidd_batch_bytes(batch->B, batch->T)) {
        return gidd_fail(GIDD_ERR_ARG,
                         "a batch of %lld x %lld in %zu bytes for a model of at most %lld x %lld",
                         (long long)batch->B, (long long)batch->T, batch->bytes,
                         (long long)model->max_B, (long long)model->max_T);
    }
    gidd_batch_layout(&model->batch, batch->B, batch->T, a->batch_memory);
    model->batch.row_count = batch->row_count;
    model->batch.chunk_count = batch->chunk_count;
    model->batch.first_sample = batch->first_sample;
    model->listed_rows = gidd_model_bucket(batch->row_count, batch->B * batch->T);
    a->stage = GIDD_STAGE_NONE;
    return GIDD_OK;
}

gidd_status gidd_model_load(gidd_model *model, const gidd_batch *batch)
{
    GIDD_TRY(adopt_batch(model, batch));
    return gidd_device_copy_in(model->device, model->batch.memory, batch->memory, batch->bytes);
}

gidd_status gidd_model_load_from(gidd_model *model, const gidd_batch *batch, const void *source)
{
    GIDD_TRY(adopt_batch(model, batch));
    return gidd_device_copy(model->device, model->batch.memory, source, batch->bytes);
}

int64_t gidd_model_bucket(int64_t row_count, int64_t all)
{
    const int64_t unit = (all + GIDD_ROW_BUCKETS - 1) / GIDD_ROW_BUCKETS;
    const int64_t rows = (row_count + unit - 1) / unit * unit;
    return rows < all ? rows : all;
}

void gidd_model_pretend(gidd_model *model, const gidd_pretence *pretence)
{
    gidd_activations *a = model->activations;
    const gidd_stage head = pretence->skip_clean ? GIDD_STAGE_DU_LISTED : GIDD_STAGE_DU;
    const gidd_stage stages[] = {GIDD_STAGE_NONE, GIDD_STAGE_TRUNK, head};
    gidd_batch_layout(&model->batch, pretence->B, pretence->T, a->batch_memory);
    model->listed_rows = pretence->listed_rows;
    a->stage = stages[pretence->progress];
}

gidd_status gidd_model_zero_sums(gidd_model *model)
{
    return gidd_device_copy(model->device, model->sums, model->sums + 1, sizeof(*model->sums));
}

gidd_status gidd_model_read_sums(gidd_model *model, gidd_loss_sums *sums)
{
    return gidd_device_copy_out(model->device, sums, model->sums, sizeof(*sums));
}
