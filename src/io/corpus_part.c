/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the pieces of a part: loads each, digests its stored bytes, and gives its documents.
 */
#include "io/corpus.h"

#include "base/json.h"

#include "io/corpus_kind.h"
#include "io/corpus_piece.h"
#include "io/corpus_stream.h"
#include "io/corpus_walk.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct part_reader {
    const gidd_corpus_options *options;
    gidd_corpus_document document; // NULL: digest only
    void *context;
    gidd_corpus_counts counts;
    gidd_digest *digest;
    const char *unpacking; // the compressed piece being read, or NULL
    int overflow;          // it makes the part too large
};

// The stored bytes of a piece: of the part itself, or loaded.
struct piece_bytes {
    const uint8_t *bytes;
    size_t size;
    uint8_t *owned; // to free, or NULL
};

/* ------------------------------------------------------------------ loading */

static gidd_status read_at(int fd, const char *path, uint64_t offset, uint8_t *bytes, size_t size,
                           size_t *got_p)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, bytes + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *got_p = done;
    return GIDD_OK;
}

static gidd_status fail_changed(const char *path)
{
    return gidd_fail(GIDD_ERR_CORRUPT, "%s changed after it was listed", path);
}

static gidd_status load_file(int fd, const char *path, uint64_t size, struct piece_bytes *loaded)
{
    struct stat facts;
    size_t got = 0;
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode) || (uint64_t)facts.st_size != size) {
        return fail_changed(path);
    }
    loaded->owned = malloc((size_t)size + 1);
    if (loaded->owned == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the %llu bytes of %s",
                         (unsigned long long)size, path);
    }
    GIDD_TRY(read_at(fd, path, 0, loaded->owned, (size_t)size, &got));
    if (got != size) {
        return fail_changed(path);
    }
    loaded->bytes = loaded->owned;
    loaded->size = got;
    return GIDD_OK;
}

// Appends to the range what is missing of its last line, up to its newline or above `limit`.
static gidd_status load_tail(int fd, const char *path, uint64_t offset, size_t limit,
                             struct piece_bytes *loaded)
{
    enum { STEP = 1 << 18 };
    size_t before = loaded->size;
    while (loaded->size - before <= limit) {
        size_t got = 0;
        uint8_t *grown = realloc(loaded->owned, loaded->size + STEP);
        if (grown == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for a line of %s", path);
        }
        loaded->owned = grown;
        GIDD_TRY(
            read_at(fd, path, offset + (loaded->size - before), grown + loaded->size, STEP, &got));
        const uint8_t *newline = got > 0 ? memchr(grown + loaded->size, '\n', got) : NULL;
        loaded->size += newline != NULL ? (size_t)(newline - (grown + loaded->size)) + 1 : got;
        if (newline != NULL || got < STEP) {
            break;
        }
    }
    return GIDD_OK;
}

// The lines that begin in [first, first + size): from the first line start in it to the end of its
// last.
static gidd_status load_range(int fd, const char *path, const gidd_corpus_piece *piece,
                              size_t limit, struct piece_bytes *loaded)
{
    uint64_t start =
        piece->first > 0 ? piece->first - 1 : 0; // one byte more shows whether a line begins
    size_t size = (size_t)(piece->first + piece->size - start), got = 0, skipped = 0;
    struct stat facts;
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode) ||
        piece->first + piece->size > (uint64_t)facts.st_size) {
        return fail_changed(path);
    }
    loaded->owned = malloc(size);
    if (loaded->owned == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu bytes of %s", size, path);
    }
    GIDD_TRY(read_at(fd, path, start, loaded->owned, size, &got));
    if (got != size) {
        return fail_changed(path);
    }
    if (piece->first > 0 && size > 1) {
        const uint8_t *newline = memchr(loaded->owned, '\n', size - 1);
        skipped = newline != NULL ? (size_t)(newline - loaded->owned) + 1 : size;
    }
    loaded->size = size;
    if (skipped < size && loaded->owned[size - 1] != '\n') {
        GIDD_TRY(load_tail(fd, path, piece->first + piece->size, limit, loaded));
    }
    loaded->bytes = loaded->owned + skipped;
    loaded->size -= skipped;
    return GIDD_OK;
}

static gidd_status load_piece(const gidd_corpus_piece *piece, const char *name,
                              const uint8_t *payload, size_t limit, struct piece_bytes *loaded)
{
    if (gidd_corpus_piece_carries(piece)) {
        loaded->bytes = payload;
        loaded->size = (size_t)piece->size;
        return GIDD_OK;
    }
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s",
                         name, strerror(errno));
    }
    gidd_status status = piece->type == GIDD_CORPUS_PIECE_FILE
                             ? load_file(fd, name, piece->size, loaded)
                             : load_range(fd, name, piece, limit, loaded);
    (void)close(fd); // read-only: nothing to lose
    return status;
}

/* ------------------------------------------------------------------ documents */

static gidd_status give_text(void *context, const char *name, const uint8_t *bytes, size_t size)
{
    struct part_reader *reader = context;
    if (size == 0) {
        reader->counts.of[GIDD_CORPUS_SKIPPED_EMPTY]++;
        return GIDD_OK;
    }
    if (reader->unpacking != NULL &&
        (size_t)reader->counts.of[GIDD_CORPUS_TEXT_BYTES] + size > GIDD_CORPUS_PART_TEXT_MAX) {
        reader->overflow = 1;
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s makes its part expand to more than %zu MiB", reader->unpacking, name,
                         GIDD_CORPUS_PART_TEXT_MAX >> 20);
    }
    reader->counts.of[GIDD_CORPUS_DOCUMENTS]++;
    reader->counts.of[GIDD_CORPUS_TEXT_BYTES] += (int64_t)size;
    return reader->document(reader->context, bytes, size);
}

static int is_blank(const uint8_t *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
            return 0;
        }
    }
    return 1;
}

static gidd_status give_line(struct part_reader *reader, const char *name, const uint8_t *line,
                             size_t size)
{
    if (size > gidd_corpus_document_limit(reader->options)) {
        return gidd_corpus_skip(reader->options, &reader->counts, GIDD_CORPUS_SKIPPED_TOO_LARGE,
                                name, "");
    }
    if (size >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
        line += 3; // a byte order mark is no JSON, but files begin with one
        size -= 3;
    }
    if (is_blank(line, size)) {
        reader->counts.of[GIDD_CORPUS_SKIPPED_EMPTY]++;
        return GIDD_OK;
    }
    json_error_t error;
    json_t *object = NULL;
    GIDD_TRY(gidd_json_parse((const char *)line, size, JSON_ALLOW_NUL, &error, &object));
    if (!json_is_object(object)) {
        json_decref(object);
        return gidd_corpus_skip(reader->options, &reader->counts, GIDD_CORPUS_SKIPPED_JSON, name,
                                "");
    }
    const json_t *text = json_object_get(object, reader->options->json_key);
    gidd_status status =
        json_is_string(text)
            ? give_text(reader, name, (const uint8_t *)json_string_value(text),
                        json_string_length(text))
            : gidd_corpus_skip(reader->options, &reader->counts, GIDD_CORPUS_SKIPPED_KEY, name, "");
    json_decref(object);
    return status;
}

static gidd_status give_lines(void *context, const char *name, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        const uint8_t *newline = memchr(bytes, '\n', size);
        size_t length = newline != NULL ? (size_t)(newline - bytes) : size;
        GIDD_TRY(give_line(context, name, bytes, length));
        length += newline != NULL ? 1 : 0;
        bytes += length;
        size -= length;
    }
    return GIDD_OK;
}

static gidd_status give_compressed(struct part_reader *reader, const gidd_corpus_piece *piece,
                                   const char *name, const struct piece_bytes *stored)
{
    const gidd_corpus_walk walk = {.options = reader->options,
                                   .counts = &reader->counts,
                                   .context = reader,
                                   .text = give_text,
                                   .lines = give_lines};
    gidd_corpus_kind kind = (gidd_corpus_kind)piece->kind;
    gidd_corpus_stream *stream = NULL;
    GIDD_TRY(gidd_corpus_stream_open_memory(stored->bytes, stored->size, name,
                                            gidd_corpus_format_of(kind), &stream));
    reader->unpacking = name;
    gidd_status status =
        gidd_corpus_walk_stream(&walk, stream, kind, GIDD_CORPUS_OTHER, (int)piece->depth + 1);
    if (reader->overflow) {
        gidd_corpus_stream_blame(stream, GIDD_CORPUS_STREAM_BOMB);
    }
    status = gidd_corpus_forgive(reader->options, &reader->counts, stream, status);
    gidd_corpus_stream_close(stream);
    reader->unpacking = NULL;
    reader->overflow = 0;
    return status;
}

static gidd_status give_piece(struct part_reader *reader, const gidd_corpus_piece *piece,
                              const char *name, const struct piece_bytes *stored)
{
    switch ((gidd_corpus_piece_type)piece->type) {
    case GIDD_CORPUS_PIECE_FILE:
        return piece->compressed ? give_compressed(reader, piece, name, stored)
                                 : give_text(reader, name, stored->bytes, stored->size);
    case GIDD_CORPUS_PIECE_DOCUMENT:
        return give_text(reader, name, stored->bytes, stored->size);
    case GIDD_CORPUS_PIECE_RANGE:
    case GIDD_CORPUS_PIECE_LINES:
        return give_lines(reader, name, stored->bytes, stored->size);
    case GIDD_CORPUS_PIECE_PACKED:
        return give_compressed(reader, piece, name, stored);
    }
    return gidd_fail(GIDD_ERR_ARG, "a piece of type %u", piece->type);
}

static gidd_status read_piece(struct part_reader *reader, const gidd_corpus_piece *piece,
                              const char *name, const uint8_t *payload)
{
    struct piece_bytes stored = {0};
    gidd_status status =
        load_piece(piece, name, payload, gidd_corpus_document_limit(reader->options), &stored);
    if (status == GIDD_OK) {
        const uint64_t shape[] = {piece->type, piece->kind, piece->compressed, stored.size};
        gidd_digest_update(reader->digest, shape, sizeof shape);
        gidd_digest_update(reader->digest, stored.bytes, stored.size);
        if (reader->document != NULL) {
            status = give_piece(reader, piece, name, &stored);
        }
    }
    free(stored.owned);
    return status;
}

// What another rank sent is held against its own words before it is used.
static int is_piece(const gidd_corpus_piece *piece, const char *name)
{
    return name[piece->name_size - 1] == '\0' && piece->type <= GIDD_CORPUS_PIECE_PACKED &&
           piece->kind <= GIDD_CORPUS_PACKED && piece->depth <= GIDD_CORPUS_DEPTH_MAX &&
           piece->first <= INT64_MAX / 2 && piece->size <= INT64_MAX / 2;
}

static gidd_status read_pieces(struct part_reader *reader, const gidd_corpus_part *part)
{
    for (size_t at = 0; at < part->size;) {
        gidd_corpus_piece piece;
        if (part->size - at < sizeof piece) {
            return gidd_fail(GIDD_ERR_ARG, "part %lld ends inside a piece", (long long)part->index);
        }
        memcpy(&piece, part->bytes + at, sizeof piece);
        size_t carried = gidd_corpus_piece_carries(&piece) ? (size_t)piece.size : 0;
        size_t left = part->size - at - sizeof piece;
        if (piece.name_size < 1 || piece.name_size > left || carried > left - piece.name_size) {
            return gidd_fail(GIDD_ERR_ARG, "part %lld ends inside a piece", (long long)part->index);
        }
        const char *name = (const char *)part->bytes + at + sizeof piece;
        if (!is_piece(&piece, name)) {
            return gidd_fail(GIDD_ERR_ARG, "part %lld holds something that is no piece",
                             (long long)part->index);
        }
        GIDD_TRY(read_piece(reader, &piece, name, (const uint8_t *)name + piece.name_size));
        at += (sizeof piece + (size_t)piece.name_size + carried + 7) / 8 * 8;
    }
    return GIDD_OK;
}

static gidd_status read_part(const gidd_corpus_part *part, struct part_reader *reader,
                             char digest[GIDD_DIGEST_SIZE])
{
    reader->digest = gidd_digest_create();
    if (reader->digest == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a digest");
    }
    gidd_status status = read_pieces(reader, part);
    if (status == GIDD_OK) {
        gidd_digest_text(reader->digest, digest);
    }
    gidd_digest_destroy(reader->digest);
    return status;
}

gidd_status gidd_corpus_part_read(const gidd_corpus_part *part, const gidd_corpus_options *options,
                                  gidd_corpus_document document, void *context,
                                  gidd_corpus_counts *counts_p, char digest[GIDD_DIGEST_SIZE])
{
    struct part_reader reader = {.options = options, .document = document, .context = context};
    GIDD_TRY(read_part(part, &reader, digest));
    *counts_p = reader.counts;
    return GIDD_OK;
}

gidd_status gidd_corpus_part_digest(const gidd_corpus_part *part,
                                    const gidd_corpus_options *options,
                                    char digest[GIDD_DIGEST_SIZE])
{
    struct part_reader reader = {.options = options};
    return read_part(part, &reader, digest);
}
