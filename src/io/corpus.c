/* SPDX-License-Identifier: Apache-2.0
 *
 * Listing the inputs, and dealing them out in parts.
 */
#include "io/corpus.h"

#include "io/corpus_kind.h"
#include "io/corpus_list.h"
#include "io/corpus_piece.h"
#include "io/corpus_stream.h"
#include "io/corpus_walk.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS_WANTED = 64, COMPRESSION_GUESS = 3 };

static const size_t PART_BYTES_MIN = (size_t)4 << 20;
static const size_t PART_BYTES_MAX = (size_t)64 << 20;

struct gidd_corpus {
    const gidd_corpus_options *options;
    gidd_corpus_list list;
};

gidd_status gidd_corpus_open(const char *const *inputs, int64_t input_count,
                             const gidd_corpus_options *options, gidd_corpus **corpus_p)
{
    gidd_corpus *corpus = calloc(1, sizeof *corpus);
    if (corpus == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a corpus");
    }
    corpus->options = options;
    gidd_status status = gidd_corpus_list_build(&corpus->list, inputs, input_count, options);
    if (status != GIDD_OK) {
        gidd_corpus_close(corpus);
        return status;
    }
    *corpus_p = corpus;
    return GIDD_OK;
}

void gidd_corpus_close(gidd_corpus *corpus)
{
    if (corpus != NULL) {
        gidd_corpus_list_release(&corpus->list);
        free(corpus);
    }
}

int64_t gidd_corpus_file_bytes(const gidd_corpus *corpus)
{
    return corpus->list.total_bytes;
}

int64_t gidd_corpus_file_count(const gidd_corpus *corpus)
{
    return corpus->list.count;
}

/* ------------------------------------------------------------------ filling parts */

struct dealer {
    const gidd_corpus *corpus;
    gidd_corpus_deliver deliver;
    void *context;
    gidd_corpus_part part;
    uint8_t *bytes; // the part under construction
    size_t used;
    size_t room;
    size_t weight;              // bytes of text it stands for, guessed where compressed
    size_t weight_full;         // at which it is delivered
    int64_t disk_before;        // bytes of the files before the present one
    gidd_corpus_stream *stream; // the archive being read, or NULL
    int stopped;                // the taker wants no more
};

static size_t weight_of(uint64_t bytes, int compressed)
{
    return (size_t)bytes * (compressed ? COMPRESSION_GUESS : 1);
}

// Depends on the listed files alone: parts may never follow the number of ranks.
static size_t choose_part_bytes(const gidd_corpus *corpus)
{
    size_t total = 0, bytes = PART_BYTES_MIN;
    if (corpus->options->shard_bytes != 0) {
        return corpus->options->shard_bytes;
    }
    for (int64_t i = 0; i < corpus->list.count; i++) {
        const gidd_corpus_file *file = &corpus->list.files[i];
        total += weight_of((uint64_t)file->size, file->type.compressed);
    }
    while (bytes < PART_BYTES_MAX && total / PARTS_WANTED >= bytes * 2) {
        bytes *= 2;
    }
    return bytes;
}

static gidd_status flush_part(struct dealer *dealer)
{
    if (dealer->used == 0) {
        return GIDD_OK;
    }
    int64_t consumed = dealer->stream != NULL ? gidd_corpus_stream_consumed(dealer->stream) : 0;
    dealer->part.bytes = dealer->bytes;
    dealer->part.size = dealer->used;
    dealer->part.disk_bytes = dealer->disk_before + consumed;
    GIDD_TRY(dealer->deliver(dealer->context, &dealer->part, &dealer->stopped));
    dealer->part.index++;
    dealer->used = 0;
    dealer->weight = 0;
    // A status of its own unwinds the walk; gidd_corpus_deal turns it back.
    return dealer->stopped ? GIDD_ERR_ARG : GIDD_OK;
}

static gidd_status reserve(struct dealer *dealer, size_t more)
{
    if (dealer->room - dealer->used >= more) {
        return GIDD_OK;
    }
    size_t larger = dealer->room + dealer->room / 4; // memory of a part counts: it is not doubled
    size_t room = larger > dealer->used + more ? larger : dealer->used + more;
    uint8_t *grown = realloc(dealer->bytes, room);
    if (grown == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a part of %zu bytes", room);
    }
    dealer->bytes = grown;
    dealer->room = room;
    return GIDD_OK;
}

static gidd_status add_piece(struct dealer *dealer, gidd_corpus_piece piece, const char *name,
                             const uint8_t *payload)
{
    size_t carried = payload != NULL ? (size_t)piece.size : 0;
    piece.name_size = strlen(name) + 1;
    size_t content = sizeof piece + (size_t)piece.name_size + carried;
    size_t padding = (8 - content % 8) % 8;
    GIDD_TRY(reserve(dealer, content + padding));
    uint8_t *at = dealer->bytes + dealer->used;
    memcpy(at, &piece, sizeof piece);
    memcpy(at + sizeof piece, name, (size_t)piece.name_size);
    if (carried > 0) {
        memcpy(at + sizeof piece + piece.name_size, payload, carried);
    }
    memset(at + content, 0, padding);
    dealer->used += content + padding;
    dealer->weight +=
        weight_of(piece.size, piece.type == GIDD_CORPUS_PIECE_PACKED || piece.compressed);
    return dealer->weight >= dealer->weight_full ? flush_part(dealer) : GIDD_OK;
}

/* ------------------------------------------------------------------ sinks of the walk */

static gidd_status take_text(void *context, const char *name, const uint8_t *bytes, size_t size)
{
    gidd_corpus_piece piece = {
        .type = GIDD_CORPUS_PIECE_DOCUMENT, .kind = GIDD_CORPUS_TEXT, .size = size};
    return add_piece(context, piece, name, bytes);
}

static gidd_status take_lines(void *context, const char *name, const uint8_t *bytes, size_t size)
{
    gidd_corpus_piece piece = {
        .type = GIDD_CORPUS_PIECE_LINES, .kind = GIDD_CORPUS_JSONL, .size = size};
    return add_piece(context, piece, name, bytes);
}

static gidd_status take_packed(void *context, const char *name, gidd_corpus_kind kind, int depth,
                               const uint8_t *bytes, size_t size)
{
    gidd_corpus_piece piece = {.type = GIDD_CORPUS_PIECE_PACKED,
                               .kind = (uint32_t)kind,
                               .depth = (uint32_t)depth,
                               .size = size};
    return add_piece(context, piece, name, bytes);
}

/* ------------------------------------------------------------------ files */

static gidd_status deal_stream(struct dealer *dealer, const gidd_corpus_file *file,
                               const char *path, gidd_corpus_counts *counts)
{
    const gidd_corpus_walk walk = {.options = dealer->corpus->options,
                                   .counts = counts,
                                   .context = dealer,
                                   .text = take_text,
                                   .lines = take_lines,
                                   .packed = take_packed};
    GIDD_TRY(gidd_corpus_stream_open_file(path, path, gidd_corpus_format_of(file->type.kind),
                                          &dealer->stream));
    gidd_status status =
        gidd_corpus_walk_stream(&walk, dealer->stream, file->type.kind, file->bare, 1);
    status = gidd_corpus_forgive(dealer->corpus->options, counts, dealer->stream, status);
    gidd_corpus_stream_close(dealer->stream);
    dealer->stream = NULL;
    return status;
}

static gidd_status deal_ranges(struct dealer *dealer, const gidd_corpus_file *file,
                               const char *path)
{
    uint64_t size = (uint64_t)file->size;
    uint64_t unit =
        dealer->weight_full < GIDD_CORPUS_UNIT_BYTES ? dealer->weight_full : GIDD_CORPUS_UNIT_BYTES;
    for (uint64_t first = 0; first < size; first += unit) {
        uint64_t left = size - first;
        gidd_corpus_piece piece = {.type = GIDD_CORPUS_PIECE_RANGE,
                                   .kind = GIDD_CORPUS_JSONL,
                                   .first = first,
                                   .size = left < unit ? left : unit};
        GIDD_TRY(add_piece(dealer, piece, path, NULL));
    }
    return GIDD_OK;
}

static gidd_status deal_file(struct dealer *dealer, const gidd_corpus_file *file, const char *path,
                             gidd_corpus_counts *counts)
{
    const gidd_corpus_options *options = dealer->corpus->options;
    if (file->type.kind == GIDD_CORPUS_TEXT) {
        if ((uint64_t)file->size > gidd_corpus_document_limit(options)) {
            return gidd_corpus_skip(options, counts, GIDD_CORPUS_SKIPPED_TOO_LARGE, path, "");
        }
        gidd_corpus_piece piece = {.type = GIDD_CORPUS_PIECE_FILE,
                                   .kind = GIDD_CORPUS_TEXT,
                                   .compressed = (uint32_t)file->type.compressed,
                                   .size = (uint64_t)file->size};
        return add_piece(dealer, piece, path, NULL);
    }
    if (file->type.kind == GIDD_CORPUS_JSONL && !file->type.compressed) {
        return deal_ranges(dealer, file, path);
    }
    return deal_stream(dealer, file, path, counts);
}

gidd_status gidd_corpus_deal(gidd_corpus *corpus, gidd_corpus_deliver deliver, void *context,
                             gidd_corpus_counts *counts_p)
{
    gidd_corpus_counts counts = corpus->list.counts;
    gidd_status status = GIDD_OK;
    struct dealer dealer = {.corpus = corpus,
                            .deliver = deliver,
                            .context = context,
                            .weight_full = choose_part_bytes(corpus)};
    for (int64_t i = 0; status == GIDD_OK && i < corpus->list.count; i++) {
        const gidd_corpus_file *file = &corpus->list.files[i];
        char *path = gidd_corpus_list_path(&corpus->list, i);
        if (path == NULL) {
            status = gidd_fail(GIDD_ERR_NOMEM, "no memory for a path");
            break;
        }
        status = deal_file(&dealer, file, path, &counts);
        dealer.disk_before += file->size;
        free(path);
    }
    if (status == GIDD_OK) {
        status = flush_part(&dealer);
    }
    free(dealer.bytes);
    if (dealer.stopped) {
        status = GIDD_OK;
    }
    if (status == GIDD_OK) {
        *counts_p = counts;
    }
    return status;
}
