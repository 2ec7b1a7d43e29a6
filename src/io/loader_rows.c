/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader_rows.h"

#include <stdlib.h>

enum {
    READ_IDS = 1024,         // ids read at a time
    PACKED_DOCUMENTS = 1024, // documents concatenated for PACKED (SPEC section 12: a map batch)
};

/* ------------------------------------------------------------------ ids of a document */

// A document with the specials around it: [BOS] ids [EOS], `total` in all.
typedef struct dressed {
    const gidd_source *source;
    int64_t document;
    int64_t length; // of the bare document
    int64_t bos;    // 0 or 1: added in front
    int64_t total;
} dressed;

static gidd_status read_length(const gidd_source *source, int64_t document, int64_t *length_p)
{
    GIDD_TRY(source->length(source->context, document, length_p));
    if (*length_p < 1) {
        return gidd_fail(GIDD_ERR_CORRUPT, "document %lld is empty", (long long)document);
    }
    return GIDD_OK;
}

// SPEC section 12, steps 2 and 3.
static gidd_status dress(const gidd_row_shape *shape, const gidd_source *source, int64_t document, dressed *doc)
{
    *doc = (dressed){.source = source, .document = document, .bos = 1};
    GIDD_TRY(read_length(source, document, &doc->length));
    int64_t eos = 1;
    if (source->has_specials) {
        uint16_t first, last;
        GIDD_TRY(source->read(source->context, document, 0, 1, &first));
        GIDD_TRY(source->read(source->context, document, doc->length - 1, 1, &last));
        doc->bos = first != shape->vocab.bos;
        eos = last != shape->vocab.eos;
    }
    doc->total = doc->bos + doc->length + eos;
    return GIDD_OK;
}

static gidd_status read_ids(const gidd_source *source, int64_t document, int64_t first,
                            int64_t count, int32_t *x)
{
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
static gidd_status copy_dressed(const gidd_row_shape *shape, const dressed *doc, int64_t start,
                                int64_t count, int32_t *x)
{
    int64_t end = start + count;
    if (doc->bos == 1 && start == 0 && count > 0) {
        *x++ = shape->vocab.bos;
        start++;
    }
    int64_t bare_end = end < doc->bos + doc->length ? end : doc->bos + doc->length;
    if (start < bare_end) {
        GIDD_TRY(read_ids(doc->source, doc->document, start - doc->bos, bare_end - start, x));
        x += bare_end - start;
        start = bare_end;
    }
    if (start < end) {
        *x = shape->vocab.eos;
    }
    return GIDD_OK;
}

void gidd_row_pad(const gidd_row_shape *shape, int64_t filled, int32_t *x, int32_t *attention_mask)
{
    for (int64_t i = 0; i < shape->T; i++) {
        attention_mask[i] = i < filled;
        if (i >= filled) {
            x[i] = shape->vocab.pad;
        }
    }
}

/* ------------------------------------------------------------------ the three kinds of row */

// SPEC section 12, steps 4 and 5. The exclusive bound means that without added padding the last
// window, the one with EOS, is never drawn.
static gidd_status choose_start(const gidd_row_shape *shape, int64_t total, gidd_row_key key, gidd_row *out)
{
    if (total <= shape->T) {
        out->start = -1;
        return GIDD_OK;
    }
    out->bound = total - shape->T + shape->max_add_padding;
    if (out->start < 0) {
        out->start =
            (int64_t)gidd_uniform_below(key.seed, key.crop, key.index, 0, (uint64_t)out->bound);
    } else if (out->start >= out->bound) {
        return gidd_fail(GIDD_ERR_ARG, "window start %lld is not below %lld", (long long)out->start,
                         (long long)out->bound);
    }
    return GIDD_OK;
}

// Where a row's ids lie in a document.
typedef struct placement {
    dressed doc;
    int64_t from, filled; // ids of the dressed document
} placement;

static gidd_status place_window(const gidd_row_shape *shape, const gidd_split *of, int64_t example, gidd_row_key key,
                                gidd_row *out, placement *at)
{
    GIDD_TRY(dress(shape, of->source, of->first_document + example, &at->doc));
    GIDD_TRY(choose_start(shape, at->doc.total, key, out));
    at->from = out->start < 0 ? 0 : out->start;
    int64_t left = at->from < at->doc.total ? at->doc.total - at->from : 0; // much padding may pass the end
    at->filled = left < shape->T ? left : shape->T;
    return GIDD_OK;
}

// The unit that holds row `row`: rows_before[unit] <= row < rows_before[unit + 1].
static int64_t find_unit(const gidd_split *of, int64_t row)
{
    int64_t low = 0, high = of->units;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (of->rows_before[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static gidd_status place_padded(const gidd_row_shape *shape, const gidd_split *of, int64_t row, placement *at)
{
    int64_t T = shape->T;
    int64_t unit = find_unit(of, row);
    at->doc = (dressed){.source = of->source, .document = of->first_document + unit, .bos = 1};
    GIDD_TRY(read_length(of->source, at->doc.document, &at->doc.length));
    at->doc.total = at->doc.length + 2; // BOS and EOS even where they are already there
    at->from = (row - of->rows_before[unit]) * T;
    at->filled = at->doc.total - at->from < T ? at->doc.total - at->from : T;
    return GIDD_OK;
}

static gidd_status fill_packed(const gidd_row_shape *shape, const gidd_split *of, int64_t row,
                               const gidd_row *out)
{
    int64_t T = shape->T, filled = 0;
    int64_t unit = find_unit(of, row);
    int64_t document = of->first_document + unit * PACKED_DOCUMENTS;
    int64_t skip = (row - of->rows_before[unit]) * T; // ids of the group before the row
    for (; filled < T; document++) {
        dressed doc = {.source = of->source, .document = document, .bos = 1};
        GIDD_TRY(read_length(of->source, document, &doc.length));
        doc.total = doc.length + 1; // BOS always, no EOS
        if (skip >= doc.total) {
            skip -= doc.total;
            continue;
        }
        int64_t count = doc.total - skip < T - filled ? doc.total - skip : T - filled;
        GIDD_TRY(copy_dressed(shape, &doc, skip, count, out->x + filled));
        filled += count;
        skip = 0;
    }
    gidd_row_pad(shape, filled, out->x, out->attention_mask);
    return GIDD_OK;
}

static gidd_status place(const gidd_row_shape *shape, const gidd_split *of, int64_t example, gidd_row_key key,
                         gidd_row *out, placement *at)
{
    return shape->window == GIDD_WINDOW_PADDED ? place_padded(shape, of, example, at)
                                               : place_window(shape, of, example, key, out, at);
}

gidd_status gidd_row_fill(const gidd_row_shape *shape, const gidd_split *of, int64_t example,
                                gidd_row_key key, gidd_row *out)
{
    placement at;
    if (shape->window == GIDD_WINDOW_PACKED) {
        return fill_packed(shape, of, example, out);
    }
    GIDD_TRY(place(shape, of, example, key, out, &at));
    GIDD_TRY(copy_dressed(shape, &at.doc, at.from, at.filled, out->x));
    gidd_row_pad(shape, at.filled, out->x, out->attention_mask);
    return GIDD_OK;
}

gidd_status gidd_row_count(const gidd_row_shape *shape, const gidd_split *of, int64_t example, gidd_row_key key,
                           int64_t *ids_p)
{
    gidd_row out = {.start = -1};
    placement at = {.filled = shape->T}; // PACKED: every row is full
    if (shape->window != GIDD_WINDOW_PACKED) {
        GIDD_TRY(place(shape, of, example, key, &out, &at));
    }
    *ids_p = at.filled;
    return GIDD_OK;
}

/* ------------------------------------------------------------------ splits */

// Examples in unit `unit` of a split.
static gidd_status count_rows(const gidd_row_shape *shape, const gidd_split *of, int64_t unit,
                              int64_t *rows_p)
{
    int64_t per_unit = shape->window == GIDD_WINDOW_PACKED ? PACKED_DOCUMENTS : 1;
    int64_t first = unit * per_unit, ids = 0, length = 0;
    for (int64_t d = first; d < first + per_unit && d < of->documents; d++) {
        GIDD_TRY(read_length(of->source, of->first_document + d, &length));
        ids += length + 1;
    }
    *rows_p = shape->window == GIDD_WINDOW_PACKED
                  ? ids / shape->T
                  : (length + 2) / shape->T + 1; // a full multiple gets a row of PAD
    return GIDD_OK;
}

// Rows of one group of concatenated documents that hold ids of its documents [first, end).
static gidd_status leave_out_packed(const gidd_row_shape *shape, gidd_split *of, int64_t unit, int64_t first, int64_t end)
{
    int64_t ids = 0, from = 0, length = 0;
    for (int64_t d = unit * PACKED_DOCUMENTS; d < end; d++) {
        from = d == first ? ids : from;
        GIDD_TRY(read_length(of->source, of->first_document + d, &length));
        ids += length + 1;
    }
    int64_t rows = of->rows_before[unit + 1] - of->rows_before[unit], last = (ids + shape->T - 1) / shape->T;
    return gidd_ranges_add(&of->left_out, of->rows_before[unit] + from / shape->T,
                           of->rows_before[unit] + (last < rows ? last : rows));
}

// Examples with ids of the split's documents [first, end).
static gidd_status leave_out(const gidd_row_shape *shape, gidd_split *of, int64_t first, int64_t end)
{
    if (shape->window == GIDD_WINDOW_DOCUMENT) {
        return gidd_ranges_add(&of->left_out, first, end);
    }
    if (shape->window == GIDD_WINDOW_PADDED) {
        return gidd_ranges_add(&of->left_out, of->rows_before[first], of->rows_before[end]);
    }
    for (int64_t unit = first / PACKED_DOCUMENTS; unit * PACKED_DOCUMENTS < end; unit++) {
        int64_t start = unit * PACKED_DOCUMENTS, next = start + PACKED_DOCUMENTS;
        GIDD_TRY(leave_out_packed(shape, of, unit, first > start ? first : start, end < next ? end : next));
    }
    return GIDD_OK;
}

static gidd_status find_left_out(const gidd_row_shape *shape, gidd_split *of)
{
    const gidd_ranges *documents = of->source->left_out;
    for (int64_t i = 0; documents != NULL && i < documents->count; i++) {
        int64_t first = documents->at[i].first - of->first_document, end = documents->at[i].end - of->first_document;
        first = first > 0 ? first : 0;
        end = end < of->documents ? end : of->documents;
        if (first < end) {
            GIDD_TRY(leave_out(shape, of, first, end));
        }
    }
    gidd_ranges_settle(&of->left_out);
    if (of->examples > 0 && gidd_ranges_total(&of->left_out, 0, of->examples) == of->examples) {
        return gidd_fail(GIDD_ERR_CORRUPT, "documents %lld to %lld are all left out as damaged",
                         (long long)of->first_document, (long long)(of->first_document + of->documents - 1));
    }
    return GIDD_OK;
}

// Going on from range to range cannot come back to where it began: that would take as many steps as there are
// examples for every time around, and the ranges, each met at most once a time, are fewer together.
int64_t gidd_split_whole(const gidd_split *of, int64_t example)
{
    const gidd_range *hole;
    while ((hole = gidd_ranges_find(&of->left_out, example)) != NULL) {
        example = (example + hole->end - hole->first) % of->examples;
    }
    return example;
}

void gidd_split_release(gidd_split *of)
{
    free(of->rows_before);
    gidd_ranges_release(&of->left_out);
}

gidd_status gidd_split_open(const gidd_row_shape *shape, const gidd_source *source, int64_t first, int64_t documents,
                              gidd_split *of)
{
    *of = (gidd_split){.source = source, .first_document = first, .documents = documents, .examples = documents};
    if (shape->window == GIDD_WINDOW_DOCUMENT) {
        return find_left_out(shape, of);
    }
    of->units = shape->window == GIDD_WINDOW_PACKED
                    ? (documents + PACKED_DOCUMENTS - 1) / PACKED_DOCUMENTS
                    : documents;
    of->rows_before = calloc((size_t)of->units + 1, sizeof *of->rows_before);
    if (of->rows_before == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the rows of %lld documents",
                         (long long)documents);
    }
    for (int64_t unit = 0; unit < of->units; unit++) {
        int64_t rows;
        GIDD_TRY(count_rows(shape, of, unit, &rows));
        of->rows_before[unit + 1] = of->rows_before[unit] + rows;
    }
    of->examples = of->rows_before[of->units];
    return find_left_out(shape, of);
}
