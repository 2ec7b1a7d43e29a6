/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader.h"

#include "base/rng.h"
#include "diffusion/corrupt.h"
#include "diffusion/permutation.h"
#include "diffusion/time.h"

#include <stdlib.h>

enum {
    READ_IDS = 1024,         // ids read at a time
    PACKED_DOCUMENTS = 1024, // documents concatenated for PACKED (SPEC section 12: a map batch)
    EVAL_DRAW_SHIFT = 40,    // key of evaluation: draw above, document below
};

// A contiguous range of documents and the examples that they make.
typedef struct split {
    int64_t first_document;
    int64_t documents;
    int64_t examples;
    int64_t *rows_before; // [units + 1] examples before a unit; NULL in mode DOCUMENT
    int64_t units;        // PADDED: documents; PACKED: groups of PACKED_DOCUMENTS
} split;

struct gidd_loader {
    gidd_loader_args args;
    gidd_schedule schedule;
    gidd_vocab vocab;
    split train, valid;
};

// Where a row's random numbers come from.
typedef struct row_key {
    uint64_t seed;
    gidd_rng_stream crop, noise;
    uint64_t index;
} row_key;

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

/* ------------------------------------------------------------------ ids of a document */

// A document with the specials around it: [BOS] ids [EOS], `total` in all.
typedef struct dressed {
    int64_t document;
    int64_t length; // of the bare document
    int64_t bos;    // 0 or 1: added in front
    int64_t total;
} dressed;

static gidd_status read_length(const gidd_loader *loader, int64_t document, int64_t *length_p)
{
    const gidd_source *source = &loader->args.source;
    GIDD_TRY(source->length(source->context, document, length_p));
    if (*length_p < 1) {
        return gidd_fail(GIDD_ERR_CORRUPT, "document %lld is empty", (long long)document);
    }
    return GIDD_OK;
}

// SPEC section 12, steps 2 and 3.
static gidd_status dress(const gidd_loader *loader, int64_t document, dressed *doc)
{
    const gidd_source *source = &loader->args.source;
    *doc = (dressed){.document = document, .bos = 1};
    GIDD_TRY(read_length(loader, document, &doc->length));
    int64_t eos = 1;
    if (source->has_specials) {
        uint16_t first, last;
        GIDD_TRY(source->read(source->context, document, 0, 1, &first));
        GIDD_TRY(source->read(source->context, document, doc->length - 1, 1, &last));
        doc->bos = first != loader->vocab.bos;
        eos = last != loader->vocab.eos;
    }
    doc->total = doc->bos + doc->length + eos;
    return GIDD_OK;
}

static gidd_status read_ids(const gidd_loader *loader, int64_t document, int64_t first,
                            int64_t count, int32_t *x)
{
    const gidd_source *source = &loader->args.source;
    uint16_t ids[READ_IDS];
    for (int64_t done = 0; done < count; done += READ_IDS) {
        int64_t now = count - done < READ_IDS ? count - done : READ_IDS;
        uint16_t highest = 0;
        GIDD_TRY(source->read(source->context, document, first + done, now, ids));
        for (int64_t i = 0; i < now; i++) {
            highest = ids[i] > highest ? ids[i] : highest;
            x[done + i] = ids[i];
        }
        if (highest >= source->vocab_size) {
            return gidd_fail(GIDD_ERR_CORRUPT, "document %lld holds id %d of a vocabulary of %d",
                             (long long)document, highest, source->vocab_size);
        }
    }
    return GIDD_OK;
}

// x[0..count) = ids [start, start + count) of the dressed document, all inside it.
static gidd_status copy_dressed(const gidd_loader *loader, const dressed *doc, int64_t start,
                                int64_t count, int32_t *x)
{
    int64_t end = start + count;
    if (doc->bos == 1 && start == 0 && count > 0) {
        *x++ = loader->vocab.bos;
        start++;
    }
    int64_t bare_end = end < doc->bos + doc->length ? end : doc->bos + doc->length;
    if (start < bare_end) {
        GIDD_TRY(read_ids(loader, doc->document, start - doc->bos, bare_end - start, x));
        x += bare_end - start;
        start = bare_end;
    }
    if (start < end) {
        *x = loader->vocab.eos;
    }
    return GIDD_OK;
}

static void pad_row(const gidd_loader *loader, int64_t filled, int32_t *x, int32_t *attention_mask)
{
    for (int64_t i = 0; i < loader->args.T; i++) {
        attention_mask[i] = i < filled;
        if (i >= filled) {
            x[i] = loader->vocab.pad;
        }
    }
}

/* ------------------------------------------------------------------ the three kinds of row */

// Where a row goes, and where it was cut.
typedef struct window {
    int32_t *x;              // [T]
    int32_t *attention_mask; // [T]
    int64_t start;           // asked for and used; -1: drawn, or nothing was cut
    int64_t bound;           // of start, exclusive; 0: nothing was cut
} window;

// SPEC section 12, steps 4 and 5. The exclusive bound means that without added padding the last
// window, the one with EOS, is never drawn.
static gidd_status choose_start(const gidd_loader *loader, int64_t total, row_key key, window *out)
{
    if (total <= loader->args.T) {
        out->start = -1;
        return GIDD_OK;
    }
    out->bound = total - loader->args.T + loader->args.max_add_padding;
    if (out->start < 0) {
        out->start =
            (int64_t)gidd_uniform_below(key.seed, key.crop, key.index, 0, (uint64_t)out->bound);
    } else if (out->start >= out->bound) {
        return gidd_fail(GIDD_ERR_ARG, "window start %lld is not below %lld", (long long)out->start,
                         (long long)out->bound);
    }
    return GIDD_OK;
}

static gidd_status fill_window(const gidd_loader *loader, int64_t document, row_key key,
                               window *out)
{
    int64_t T = loader->args.T;
    dressed doc;
    GIDD_TRY(dress(loader, document, &doc));
    GIDD_TRY(choose_start(loader, doc.total, key, out));
    int64_t from = out->start < 0 ? 0 : out->start;
    int64_t left = from < doc.total ? doc.total - from : 0; // much padding may pass the end
    int64_t filled = left < T ? left : T;
    GIDD_TRY(copy_dressed(loader, &doc, from, filled, out->x));
    pad_row(loader, filled, out->x, out->attention_mask);
    return GIDD_OK;
}

// The unit that holds row `row`: rows_before[unit] <= row < rows_before[unit + 1].
static int64_t find_unit(const split *part, int64_t row)
{
    int64_t low = 0, high = part->units;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (part->rows_before[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static gidd_status fill_padded(const gidd_loader *loader, const split *part, int64_t row,
                               const window *out)
{
    int64_t T = loader->args.T;
    int64_t unit = find_unit(part, row);
    dressed doc = {.document = part->first_document + unit, .bos = 1};
    GIDD_TRY(read_length(loader, doc.document, &doc.length));
    doc.total = doc.length + 2; // BOS and EOS even where they are already there
    int64_t start = (row - part->rows_before[unit]) * T;
    int64_t filled = doc.total - start < T ? doc.total - start : T;
    GIDD_TRY(copy_dressed(loader, &doc, start, filled, out->x));
    pad_row(loader, filled, out->x, out->attention_mask);
    return GIDD_OK;
}

static gidd_status fill_packed(const gidd_loader *loader, const split *part, int64_t row,
                               const window *out)
{
    int64_t T = loader->args.T, filled = 0;
    int64_t unit = find_unit(part, row);
    int64_t document = part->first_document + unit * PACKED_DOCUMENTS;
    int64_t skip = (row - part->rows_before[unit]) * T; // ids of the group before the row
    for (; filled < T; document++) {
        dressed doc = {.document = document, .bos = 1};
        GIDD_TRY(read_length(loader, document, &doc.length));
        doc.total = doc.length + 1; // BOS always, no EOS
        if (skip >= doc.total) {
            skip -= doc.total;
            continue;
        }
        int64_t count = doc.total - skip < T - filled ? doc.total - skip : T - filled;
        GIDD_TRY(copy_dressed(loader, &doc, skip, count, out->x + filled));
        filled += count;
        skip = 0;
    }
    pad_row(loader, filled, out->x, out->attention_mask);
    return GIDD_OK;
}

static gidd_status fill_example(const gidd_loader *loader, const split *part, int64_t example,
                                row_key key, window *out)
{
    switch (loader->args.window) {
    case GIDD_WINDOW_PADDED:
        return fill_padded(loader, part, example, out);
    case GIDD_WINDOW_PACKED:
        return fill_packed(loader, part, example, out);
    case GIDD_WINDOW_DOCUMENT:
        break;
    }
    return fill_window(loader, part->first_document + example, key, out);
}

/* ------------------------------------------------------------------ open and close */

static gidd_status check_args(const gidd_loader_args *args, const gidd_vocab *vocab)
{
    const gidd_source *source = &args->source;
    if (source->vocab_size < 1 || source->vocab_size > 65536) {
        return gidd_fail(GIDD_ERR_CONFIG, "a tokenizer of %d ids does not fit 16-bit shards",
                         source->vocab_size);
    }
    if (args->schedule->args.vocab_size != vocab->V) {
        return gidd_fail(GIDD_ERR_CONFIG, "the noise schedule is over %lld ids, the data have %lld",
                         (long long)args->schedule->args.vocab_size, (long long)vocab->V);
    }
    if (source->valid_documents < 0 || source->valid_documents >= source->document_count) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "%lld of %lld documents for validation leave none to train",
                         (long long)source->valid_documents, (long long)source->document_count);
    }
    if (args->global_batch < 1 || args->T < 1 || args->max_add_padding < 0) {
        return gidd_fail(
            GIDD_ERR_CONFIG,
            "global batch %lld, sequence length %lld or added padding %lld is out of range",
            (long long)args->global_batch, (long long)args->T, (long long)args->max_add_padding);
    }
    return GIDD_OK;
}

// Examples in unit `unit` of a split.
static gidd_status count_rows(const gidd_loader *loader, const split *part, int64_t unit,
                              int64_t *rows_p)
{
    int64_t per_unit = loader->args.window == GIDD_WINDOW_PACKED ? PACKED_DOCUMENTS : 1;
    int64_t first = unit * per_unit, ids = 0, length = 0;
    for (int64_t d = first; d < first + per_unit && d < part->documents; d++) {
        GIDD_TRY(read_length(loader, part->first_document + d, &length));
        ids += length + 1;
    }
    *rows_p = loader->args.window == GIDD_WINDOW_PACKED
                  ? ids / loader->args.T
                  : (length + 2) / loader->args.T + 1; // a full multiple gets a row of PAD
    return GIDD_OK;
}

static gidd_status open_split(const gidd_loader *loader, int64_t first, int64_t documents,
                              split *part)
{
    *part = (split){.first_document = first, .documents = documents, .examples = documents};
    if (loader->args.window == GIDD_WINDOW_DOCUMENT) {
        return GIDD_OK;
    }
    part->units = loader->args.window == GIDD_WINDOW_PACKED
                      ? (documents + PACKED_DOCUMENTS - 1) / PACKED_DOCUMENTS
                      : documents;
    part->rows_before = calloc((size_t)part->units + 1, sizeof *part->rows_before);
    if (part->rows_before == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the rows of %lld documents",
                         (long long)documents);
    }
    for (int64_t unit = 0; unit < part->units; unit++) {
        int64_t rows;
        GIDD_TRY(count_rows(loader, part, unit, &rows));
        part->rows_before[unit + 1] = part->rows_before[unit] + rows;
    }
    part->examples = part->rows_before[part->units];
    return GIDD_OK;
}

gidd_status gidd_loader_open(const gidd_loader_args *args, gidd_loader **loader_p)
{
    gidd_status status = GIDD_OK;
    gidd_vocab vocab = args->vocab.V > 0 ? args->vocab : gidd_vocab_of(args->source.vocab_size);
    GIDD_TRY(check_args(args, &vocab));
    gidd_loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a loader");
    }
    loader->args = *args;
    loader->schedule = *args->schedule;
    loader->args.schedule = &loader->schedule;
    loader->vocab = vocab;
    int64_t valid = args->source.valid_documents, train = args->source.document_count - valid;
    GIDD_TRY_GOTO(open_split(loader, 0, train, &loader->train));
    GIDD_TRY_GOTO(open_split(loader, train, valid, &loader->valid));
    if (loader->train.examples < 1) {
        status = gidd_fail(GIDD_ERR_CONFIG, "%lld documents do not fill one row of %lld ids",
                           (long long)train, (long long)args->T);
        goto out;
    }
    *loader_p = loader;
    return GIDD_OK;
out:
    gidd_loader_close(loader);
    return status;
}

void gidd_loader_close(gidd_loader *loader)
{
    if (loader != NULL) {
        free(loader->train.rows_before);
        free(loader->valid.rows_before);
        free(loader);
    }
}

const gidd_vocab *gidd_loader_vocab(const gidd_loader *loader)
{
    return &loader->vocab;
}

int64_t gidd_loader_row_length(const gidd_loader *loader)
{
    return loader->args.T;
}

int64_t gidd_loader_train_examples(const gidd_loader *loader)
{
    return loader->train.examples;
}

int64_t gidd_loader_valid_examples(const gidd_loader *loader)
{
    return loader->valid.examples;
}

/* ------------------------------------------------------------------ batches */

// Row `b` of a batch: ids, coefficients at time t, noise.
static gidd_status build_row(const gidd_loader *loader, const split *part, int64_t example,
                             row_key key, float t, gidd_batch *batch, int64_t b)
{
    int64_t T = loader->args.T;
    window out = {batch->x + b * T, batch->attention_mask + b * T, -1, 0};
    gidd_corruption corruption;
    GIDD_TRY(fill_example(loader, part, example, key, &out));
    gidd_schedule_coef(&loader->schedule, t, &batch->coef[b]);
    gidd_corruption_init(&corruption, &loader->schedule, (double)t);
    gidd_corrupt_row(&corruption, key.seed, key.noise, key.index, out.x, T, batch->z + b * T);
    return GIDD_OK;
}

// A row that counts nowhere: all PAD, not noised.
static void build_filler(const gidd_loader *loader, gidd_batch *batch, int64_t b)
{
    int64_t T = loader->args.T;
    pad_row(loader, 0, batch->x + b * T, batch->attention_mask + b * T);
    for (int64_t i = 0; i < T; i++) {
        batch->z[b * T + i] = loader->vocab.pad;
    }
    gidd_schedule_coef(&loader->schedule, 0.5f, &batch->coef[b]);
    batch->coef[b].row_weight = 0.0f;
}

gidd_status gidd_loader_build(const gidd_loader *loader, int64_t step, int64_t first,
                              gidd_batch *batch)
{
    const gidd_loader_args *args = &loader->args;
    int64_t G = args->global_batch;
    double r = gidd_time_offset(args->seed, step);
    int64_t shuffled_epoch = -1;
    gidd_permutation shuffle;
    GIDD_ASSERT(batch->T == args->T && step >= 0 && first >= 0 && first + batch->B <= G);
    batch->first_sample = step * G + first;
    for (int64_t b = 0; b < batch->B; b++) {
        int64_t sample = batch->first_sample + b;
        int64_t epoch = sample / loader->train.examples;
        if (epoch != shuffled_epoch) {
            gidd_permutation_init(&shuffle, args->seed, (uint64_t)epoch, loader->train.examples);
            shuffled_epoch = epoch;
        }
        int64_t example = gidd_permutation_at(&shuffle, sample % loader->train.examples);
        float t =
            gidd_time_on_grid(gidd_time_rank(first + b, G), G, r, loader->schedule.args.t_eps);
        row_key key = {args->seed, GIDD_STREAM_CROP, GIDD_STREAM_NOISE, (uint64_t)sample};
        GIDD_TRY(build_row(loader, &loader->train, example, key, t, batch, b));
    }
    gidd_batch_index(batch, loader->vocab.V, batch->rows);
    return GIDD_OK;
}

gidd_status gidd_loader_build_eval(const gidd_loader *loader, int64_t first, int64_t count,
                                   int64_t draw, gidd_batch *batch)
{
    const split *part = &loader->valid;
    uint64_t seed = loader->args.eval_seed;
    double r = gidd_time_eval_offset(seed, draw);
    GIDD_ASSERT(batch->T == loader->args.T && count >= 1 && count <= batch->B);
    GIDD_ASSERT(first >= 0 && first + count <= part->examples);
    GIDD_ASSERT(draw >= 0 && draw < (int64_t)1 << (64 - EVAL_DRAW_SHIFT));
    batch->first_sample = first;
    for (int64_t b = 0; b < batch->B; b++) {
        if (b >= count) {
            build_filler(loader, batch, b);
            continue;
        }
        int64_t k = gidd_time_rank(first + b, part->examples);
        float t = gidd_time_on_grid(k, part->examples, r, loader->schedule.args.t_eps);
        uint64_t number = (uint64_t)(part->first_document + first + b);
        row_key key = {seed, GIDD_STREAM_EVAL_CROP, GIDD_STREAM_EVAL_NOISE,
                       (uint64_t)draw << EVAL_DRAW_SHIFT | number};
        GIDD_TRY(build_row(loader, part, first + b, key, t, batch, b));
    }
    gidd_batch_index(batch, loader->vocab.V, batch->rows);
    return GIDD_OK;
}

gidd_status gidd_loader_window(const gidd_loader *loader, const gidd_window_args *args)
{
    window out = {args->x, args->attention_mask, args->start, 0};
    row_key key = {.seed = loader->args.seed, .crop = GIDD_STREAM_CROP, .index = args->sample};
    GIDD_ASSERT(args->example >= 0 && args->example < loader->train.examples);
    GIDD_TRY(fill_example(loader, &loader->train, args->example, key, &out));
    if (args->start_p != NULL) {
        *args->start_p = out.bound > 0 ? out.start : -1;
    }
    if (args->bound_p != NULL) {
        *args->bound_p = out.bound;
    }
    return GIDD_OK;
}
