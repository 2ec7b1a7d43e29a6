/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader.h"

#include "diffusion/corrupt.h"
#include "diffusion/permutation.h"
#include "diffusion/time.h"
#include "io/loader_rows.h"
#include "io/mix_order.h"

#include <stdlib.h>

enum {
    EVAL_DRAW_SHIFT = 40,    // key of evaluation: draw above, document below
    EPOCH_SOURCE_SHIFT = 48, // key of an epoch's order: source of the mix above, epoch below
};

// One source of the mix; without a mix there is one.
typedef struct part {
    gidd_source source;
    gidd_split train, valid;
} part;

struct gidd_loader {
    gidd_loader_args args; // without source and mix
    gidd_schedule schedule;
    gidd_row_shape shape;
    int64_t part_count;
    int64_t train_examples, valid_examples;
    gidd_mix_order train_order, valid_order;
    part parts[];
};

/* ------------------------------------------------------------------ documents from shards */

static gidd_status shard_length(void *context, int64_t document, int64_t *tokens_p)
{
    return gidd_shard_set_length(context, document, tokens_p);
}

static gidd_status shard_read(void *context, int64_t document, int64_t first, int64_t count,
                              uint16_t *ids)
{
    return gidd_shard_set_read(context, document, first, count, ids);
}

gidd_source gidd_source_of_shards(gidd_shard_set *set)
{
    const gidd_shard_info *info = gidd_shard_set_info(set);
    return (gidd_source){.context = set,
                         .document_count = info->document_count,
                         .valid_documents = info->valid_documents,
                         .vocab_size = info->vocab_size,
                         .has_specials = 0,
                         .length = shard_length,
                         .read = shard_read};
}

/* ------------------------------------------------------------------ open and close */

static gidd_status check_source(const gidd_source *source, const gidd_source *first)
{
    if (source->vocab_size < 1 || source->vocab_size > 65536) {
        return gidd_fail(GIDD_ERR_CONFIG, "a tokenizer of %d ids does not fit 16-bit shards",
                         source->vocab_size);
    }
    if (source->vocab_size != first->vocab_size) {
        return gidd_fail(GIDD_ERR_CONFIG, "the sources of the mix have vocabularies of %d and %d ids",
                         first->vocab_size, source->vocab_size);
    }
    if (source->valid_documents < 0 || source->valid_documents >= source->document_count) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "%lld of %lld documents for validation leave none to train",
                         (long long)source->valid_documents, (long long)source->document_count);
    }
    return GIDD_OK;
}

static gidd_status check_args(const gidd_loader_args *args, const gidd_vocab *vocab)
{
    if (args->schedule->args.vocab_size != vocab->V) {
        return gidd_fail(GIDD_ERR_CONFIG, "the noise schedule is over %lld ids, the data have %lld",
                         (long long)args->schedule->args.vocab_size, (long long)vocab->V);
    }
    if (args->global_batch < 1 || args->T < 1 || args->max_add_padding < 0 || args->mix_count < 0 ||
        args->mix_count > GIDD_LOADER_PARTS_MAX) {
        return gidd_fail(
            GIDD_ERR_CONFIG,
            "global batch %lld, sequence length %lld, added padding %lld or a mix of %lld is out of range",
            (long long)args->global_batch, (long long)args->T, (long long)args->max_add_padding,
            (long long)args->mix_count);
    }
    return GIDD_OK;
}

static gidd_status open_part(gidd_loader *loader, const gidd_source *source)
{
    part *opened = &loader->parts[loader->part_count++];
    opened->source = *source;
    GIDD_TRY(check_source(source, &loader->parts[0].source));
    int64_t valid = source->valid_documents, train = source->document_count - valid;
    GIDD_TRY(gidd_split_open(&loader->shape, &opened->source, 0, train, &opened->train));
    GIDD_TRY(gidd_split_open(&loader->shape, &opened->source, train, valid, &opened->valid));
    if (opened->train.examples < 1) {
        return gidd_fail(GIDD_ERR_CONFIG, "%lld documents do not fill one row of %lld ids",
                         (long long)train, (long long)loader->args.T);
    }
    loader->train_examples += opened->train.examples;
    return GIDD_OK;
}

static gidd_status open_parts(gidd_loader *loader, const gidd_loader_args *args)
{
    double weights[GIDD_LOADER_PARTS_MAX] = {1.0};
    int64_t valid[GIDD_LOADER_PARTS_MAX];
    if (args->mix_count == 0) {
        GIDD_TRY(open_part(loader, &args->source));
    }
    for (int64_t i = 0; i < args->mix_count; i++) {
        GIDD_TRY(open_part(loader, &args->mix[i].source));
        weights[i] = args->mix[i].weight;
    }
    for (int64_t i = 0; i < loader->part_count; i++) {
        valid[i] = loader->parts[i].valid.examples;
    }
    GIDD_TRY(gidd_mix_order_init(&loader->train_order, args->seed, weights, loader->part_count));
    GIDD_TRY(gidd_mix_order_init(&loader->valid_order, args->eval_seed, weights, loader->part_count));
    loader->valid_examples = gidd_mix_order_fitting(&loader->valid_order, valid);
    return GIDD_OK;
}

gidd_status gidd_loader_open(const gidd_loader_args *args, gidd_loader **loader_p)
{
    const gidd_source *first = args->mix_count > 0 ? &args->mix[0].source : &args->source;
    gidd_vocab vocab = args->vocab.V > 0 ? args->vocab : gidd_vocab_of(first->vocab_size);
    GIDD_TRY(check_source(first, first));
    GIDD_TRY(check_args(args, &vocab));
    size_t count = args->mix_count > 0 ? (size_t)args->mix_count : 1;
    gidd_loader *loader = calloc(1, sizeof *loader + count * sizeof loader->parts[0]);
    if (loader == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a loader");
    }
    loader->args = *args;
    loader->args.mix = NULL;
    loader->schedule = *args->schedule;
    loader->args.schedule = &loader->schedule;
    loader->shape = (gidd_row_shape){
        .vocab = vocab, .T = args->T, .max_add_padding = args->max_add_padding, .window = args->window};
    gidd_status status = open_parts(loader, args);
    if (status != GIDD_OK) {
        gidd_loader_close(loader);
        return status;
    }
    *loader_p = loader;
    return GIDD_OK;
}

void gidd_loader_close(gidd_loader *loader)
{
    for (int64_t i = 0; loader != NULL && i < loader->part_count; i++) {
        gidd_split_release(&loader->parts[i].train);
        gidd_split_release(&loader->parts[i].valid);
    }
    free(loader);
}

const gidd_vocab *gidd_loader_vocab(const gidd_loader *loader)
{
    return &loader->shape.vocab;
}

int64_t gidd_loader_row_length(const gidd_loader *loader)
{
    return loader->args.T;
}

int64_t gidd_loader_train_examples(const gidd_loader *loader)
{
    return loader->train_examples;
}

int64_t gidd_loader_valid_examples(const gidd_loader *loader)
{
    return loader->valid_examples;
}

/* ------------------------------------------------------------------ batches */

// The shuffled order that was used last; mostly it is used again.
typedef struct epoch_order {
    int64_t source, epoch;
    gidd_permutation shuffle;
} epoch_order;

static int predicts_next(const gidd_loader *loader)
{
    return loader->schedule.args.process == GIDD_PROCESS_NONE;
}

// Row `b` of a batch: ids, coefficients at time t, noise.
static gidd_status build_row(const gidd_loader *loader, const gidd_split *of, int64_t example,
                             gidd_row_key key, float t, gidd_batch *batch, int64_t b)
{
    int64_t T = loader->args.T;
    gidd_row out = {batch->x + b * T, batch->attention_mask + b * T, -1, 0};
    gidd_corruption corruption;
    GIDD_TRY(gidd_row_fill(&loader->shape, of, example, key, &out));
    gidd_schedule_coef(&loader->schedule, t, &batch->coef[b]);
    gidd_corruption_init(&corruption, &loader->schedule, (double)t);
    gidd_corrupt_row(&corruption, key.seed, key.noise, key.index, out.x, T, batch->z + b * T);
    if (predicts_next(loader)) {
        out.attention_mask[T - 1] = 0; // nothing follows it
    }
    return GIDD_OK;
}

// A row that counts nowhere: all PAD, not noised.
static void build_filler(const gidd_loader *loader, gidd_batch *batch, int64_t b)
{
    int64_t T = loader->args.T;
    gidd_row_pad(&loader->shape, 0, batch->x + b * T, batch->attention_mask + b * T);
    for (int64_t i = 0; i < T; i++) {
        batch->z[b * T + i] = loader->shape.vocab.pad;
    }
    gidd_schedule_coef(&loader->schedule, 0.5f, &batch->coef[b]);
    batch->coef[b].row_weight = 0.0f;
}

// The example that a sample of a source takes, in the order of its epoch.
static int64_t shuffled(const gidd_loader *loader, gidd_mix_place place, epoch_order *order)
{
    const gidd_split *train = &loader->parts[place.source].train;
    int64_t examples = train->examples;
    int64_t epoch = place.index / examples;
    if (order->source != place.source || order->epoch != epoch) {
        *order = (epoch_order){.source = place.source, .epoch = epoch};
        gidd_permutation_init(&order->shuffle, loader->args.seed,
                              (uint64_t)place.source << EPOCH_SOURCE_SHIFT | (uint64_t)epoch, examples);
    }
    return gidd_split_whole(train, gidd_permutation_at(&order->shuffle, place.index % examples));
}

static gidd_row_key train_key(const gidd_loader *loader, int64_t sample)
{
    return (gidd_row_key){loader->args.seed, GIDD_STREAM_CROP, GIDD_STREAM_NOISE, (uint64_t)sample};
}

// The loss without noise is a mean over the positions of a whole step that predict a token, and not over all: the
// weight that makes one of the other. Every rank finds the same, from the lengths of the step's documents.
static gidd_status weigh_predictions(const gidd_loader *loader, int64_t step, gidd_batch *batch)
{
    int64_t G = loader->args.global_batch, T = loader->args.T, predictions = 0, ids = 0;
    epoch_order order = {.source = -1};
    gidd_mix_block block = {.number = -1};
    for (int64_t sample = step * G; sample < (step + 1) * G; sample++) {
        gidd_mix_place place = gidd_mix_order_at(&loader->train_order, sample, &block);
        int64_t example = shuffled(loader, place, &order);
        GIDD_TRY(gidd_row_count(&loader->shape, &loader->parts[place.source].train, example, train_key(loader, sample),
                                &ids));
        predictions += ids < T ? ids : T - 1;
    }
    for (int64_t b = 0; predictions > 0 && b < batch->B; b++) {
        batch->coef[b].w_keep = (float)((double)(G * T) / (double)predictions);
    }
    return GIDD_OK;
}

gidd_status gidd_loader_build(const gidd_loader *loader, int64_t step, int64_t first,
                              gidd_batch *batch)
{
    const gidd_loader_args *args = &loader->args;
    int64_t G = args->global_batch;
    double r = gidd_time_offset(args->seed, step);
    epoch_order order = {.source = -1};
    gidd_mix_block block = {.number = -1};
    GIDD_ASSERT(batch->T == args->T && step >= 0 && first >= 0 && first + batch->B <= G);
    batch->first_sample = step * G + first;
    for (int64_t b = 0; b < batch->B; b++) {
        int64_t sample = batch->first_sample + b;
        gidd_mix_place place = gidd_mix_order_at(&loader->train_order, sample, &block);
        int64_t example = shuffled(loader, place, &order);
        float t =
            gidd_time_on_grid(gidd_time_rank(first + b, G), G, r, loader->schedule.args.t_eps);
        GIDD_TRY(build_row(loader, &loader->parts[place.source].train, example, train_key(loader, sample), t, batch, b));
    }
    if (predicts_next(loader)) {
        GIDD_TRY(weigh_predictions(loader, step, batch));
    }
    gidd_batch_index(batch, loader->shape.vocab.V, batch->rows);
    return GIDD_OK;
}

gidd_status gidd_loader_build_eval(const gidd_loader *loader, int64_t first, int64_t count,
                                   int64_t draw, gidd_batch *batch)
{
    int64_t examples = loader->valid_examples;
    gidd_mix_block block = {.number = -1};
    uint64_t seed = loader->args.eval_seed;
    double r = gidd_time_eval_offset(seed, draw);
    GIDD_ASSERT(batch->T == loader->args.T && count >= 1 && count <= batch->B);
    GIDD_ASSERT(first >= 0 && first + count <= examples);
    GIDD_ASSERT(draw >= 0 && draw < (int64_t)1 << (64 - EVAL_DRAW_SHIFT));
    batch->first_sample = first;
    for (int64_t b = 0; b < batch->B; b++) {
        if (b >= count) {
            build_filler(loader, batch, b);
            continue;
        }
        int64_t k = gidd_time_rank(first + b, examples);
        float t = gidd_time_on_grid(k, examples, r, loader->schedule.args.t_eps);
        gidd_mix_place place = gidd_mix_order_at(&loader->valid_order, first + b, &block);
        const gidd_split *of = &loader->parts[place.source].valid;
        // Of a mix: the place in it, since documents of two sources may have one number.
        uint64_t number = (uint64_t)(loader->part_count > 1 ? first + b : of->first_document + place.index);
        gidd_row_key key = {seed, GIDD_STREAM_EVAL_CROP, GIDD_STREAM_EVAL_NOISE,
                       (uint64_t)draw << EVAL_DRAW_SHIFT | number};
        GIDD_TRY(build_row(loader, of, gidd_split_whole(of, place.index), key, t, batch, b));
    }
    gidd_batch_index(batch, loader->shape.vocab.V, batch->rows);
    return GIDD_OK;
}

gidd_status gidd_loader_window(const gidd_loader *loader, const gidd_window_args *args)
{
    gidd_row out = {args->x, args->attention_mask, args->start, 0};
    gidd_row_key key = {.seed = loader->args.seed, .crop = GIDD_STREAM_CROP, .index = args->sample};
    const gidd_split *of = &loader->parts[0].train;
    GIDD_ASSERT(args->example >= 0 && args->example < of->examples);
    GIDD_TRY(gidd_row_fill(&loader->shape, of, args->example, key, &out));
    if (args->start_p != NULL) {
        *args->start_p = out.bound > 0 ? out.start : -1;
    }
    if (args->bound_p != NULL) {
        *args->bound_p = out.bound;
    }
    return GIDD_OK;
}
