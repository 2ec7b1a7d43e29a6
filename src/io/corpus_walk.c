/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_walk.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gidd_status skip(const gidd_corpus_walk *walk, gidd_corpus_counter why,
                        const gidd_corpus_stream *stream, const char *name)
{
    return gidd_corpus_skip(walk->options, walk->counts, why, gidd_corpus_stream_name(stream),
                            name);
}

gidd_corpus_stream_format gidd_corpus_format_of(gidd_corpus_kind kind)
{
    switch (kind) {
    case GIDD_CORPUS_ARCHIVE:
        return GIDD_CORPUS_STREAM_ARCHIVE;
    case GIDD_CORPUS_PACKED:
        return GIDD_CORPUS_STREAM_EITHER;
    default:
        return GIDD_CORPUS_STREAM_RAW;
    }
}

gidd_status gidd_corpus_forgive(const gidd_corpus_options *options, gidd_corpus_counts *counts,
                                const gidd_corpus_stream *stream, gidd_status status)
{
    gidd_corpus_stream_fault fault = gidd_corpus_stream_fault_of(stream);
    if (status != GIDD_ERR_CORRUPT || fault == GIDD_CORPUS_STREAM_SOUND || options->rule == GIDD_CORPUS_STRICT) {
        return status;
    }
    gidd_log(GIDD_LOG_WARN, "corpus", "%s; the rest of it is skipped", gidd_error_last()->text);
    counts->of[fault == GIDD_CORPUS_STREAM_BOMB ? GIDD_CORPUS_SKIPPED_BOMB : GIDD_CORPUS_SKIPPED_DAMAGED]++;
    return GIDD_OK;
}

// Reads the present member whole, or finds that it has more than `limit` bytes (*size_p = limit +
// 1).
static gidd_status read_member(gidd_corpus_stream *stream, int64_t announced, size_t limit,
                               uint8_t **bytes_p, size_t *size_p)
{
    size_t room =
        announced >= 0 && (uint64_t)announced <= limit ? (size_t)announced + 1 : (size_t)1 << 16;
    size_t used = 0;
    uint8_t *bytes = malloc(room);
    while (bytes != NULL) {
        size_t got = 0;
        gidd_status status = gidd_corpus_stream_read(stream, bytes + used, room - used, &got);
        if (status != GIDD_OK) {
            free(bytes);
            return status;
        }
        used += got;
        if (used < room || used > limit) {
            *bytes_p = bytes;
            *size_p = used;
            return GIDD_OK;
        }
        size_t grown_room = room * 2 < limit + 1 ? room * 2 : limit + 1;
        uint8_t *grown = realloc(bytes, grown_room);
        if (grown == NULL) {
            free(bytes);
        }
        bytes = grown;
        room = grown_room;
    }
    return gidd_fail(GIDD_ERR_NOMEM, "no memory for a member of %s",
                     gidd_corpus_stream_name(stream));
}

static gidd_status walk_text(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                             const char *name, int64_t announced)
{
    size_t limit = gidd_corpus_document_limit(walk->options);
    size_t size = 0;
    uint8_t *bytes = NULL;
    if (announced > 0 && (uint64_t)announced > limit) {
        return skip(walk, GIDD_CORPUS_SKIPPED_TOO_LARGE, stream, name);
    }
    GIDD_TRY(read_member(stream, announced, limit, &bytes, &size));
    gidd_status status = size > limit ? skip(walk, GIDD_CORPUS_SKIPPED_TOO_LARGE, stream, name)
                                      : walk->text(walk->context, name, bytes, size);
    free(bytes);
    return status;
}

/* ------------------------------------------------------------------ lines */

// A window over the stream that always begins at a line, or inside one that is being dropped.
struct line_window {
    uint8_t *bytes;
    size_t used;
    size_t room;
    int dropping; // inside a line above the limit
    int at_end;
};

static gidd_status fill_window(struct line_window *window, gidd_corpus_stream *stream)
{
    size_t got = 0;
    if (window->room - window->used < GIDD_CORPUS_UNIT_BYTES) {
        size_t room = window->used + 2 * GIDD_CORPUS_UNIT_BYTES;
        uint8_t *grown = realloc(window->bytes, room);
        if (grown == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for the lines of %s",
                             gidd_corpus_stream_name(stream));
        }
        window->bytes = grown;
        window->room = room;
    }
    GIDD_TRY(gidd_corpus_stream_read(stream, window->bytes + window->used, GIDD_CORPUS_UNIT_BYTES,
                                     &got));
    window->used += got;
    window->at_end = got < GIDD_CORPUS_UNIT_BYTES;
    return GIDD_OK;
}

static void drop_front(struct line_window *window, size_t count)
{
    window->used -= count;
    memmove(window->bytes, window->bytes + count, window->used);
}

// Ends a dropped line at its newline, if that has come.
static void leave_dropped_line(struct line_window *window)
{
    const uint8_t *newline = window->used > 0 ? memchr(window->bytes, '\n', window->used) : NULL;
    window->dropping = newline == NULL;
    drop_front(window, newline != NULL ? (size_t)(newline - window->bytes) + 1 : window->used);
}

static gidd_status walk_lines(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                              const char *name)
{
    struct line_window window = {0};
    gidd_status status = GIDD_OK;
    size_t limit = gidd_corpus_document_limit(walk->options);
    while (!window.at_end) {
        GIDD_TRY_GOTO(fill_window(&window, stream));
        if (window.dropping) {
            leave_dropped_line(&window);
        }
        const uint8_t *last = window.used > 0 ? memrchr(window.bytes, '\n', window.used) : NULL;
        size_t whole = window.at_end  ? window.used
                       : last != NULL ? (size_t)(last - window.bytes) + 1
                                      : 0;
        if (whole > 0) {
            GIDD_TRY_GOTO(walk->lines(walk->context, name, window.bytes, whole));
            drop_front(&window, whole);
        } else if (window.used > limit) {
            GIDD_TRY_GOTO(skip(walk, GIDD_CORPUS_SKIPPED_TOO_LARGE, stream, name));
            window.dropping = 1;
            window.used = 0;
        }
    }
out:
    free(window.bytes);
    return status;
}

/* ------------------------------------------------------------------ archives */

static gidd_status walk_archive(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                                int depth);

// "archive/member", for messages about what is inside the member.
static char *member_name(const gidd_corpus_stream *stream, const char *name)
{
    size_t size = strlen(gidd_corpus_stream_name(stream)) + strlen(name) + 3;
    char *joined = malloc(size);
    if (joined != NULL) {
        (void)snprintf(joined, size, "%s: %s", gidd_corpus_stream_name(stream), name);
    }
    return joined;
}

static gidd_status open_nested(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                               const char *name, gidd_corpus_kind kind, int depth)
{
    gidd_corpus_stream *nested = NULL;
    char *path = member_name(stream, name);
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", name);
    }
    gidd_status status =
        gidd_corpus_stream_open_member(stream, path, gidd_corpus_format_of(kind), &nested);
    if (status == GIDD_OK) {
        status = gidd_corpus_walk_stream(walk, nested, kind, GIDD_CORPUS_OTHER, depth + 1);
        status = gidd_corpus_forgive(walk->options, walk->counts, nested, status);
    }
    gidd_corpus_stream_close(nested);
    free(path);
    return status;
}

// A member that is compressed, or an archive: passed on whole where it fits, else opened here.
static gidd_status walk_packed(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                               const gidd_corpus_stream_entry *entry, gidd_corpus_kind kind,
                               int depth)
{
    if (kind == GIDD_CORPUS_ARCHIVE && depth >= GIDD_CORPUS_DEPTH_MAX) {
        return skip(walk, GIDD_CORPUS_SKIPPED_NESTED, stream, entry->name);
    }
    if (walk->packed == NULL || entry->size < 0 || (uint64_t)entry->size > GIDD_CORPUS_MEMBER_MAX) {
        return open_nested(walk, stream, entry->name, kind, depth);
    }
    size_t size = 0;
    uint8_t *bytes = NULL;
    GIDD_TRY(read_member(stream, entry->size, GIDD_CORPUS_MEMBER_MAX, &bytes, &size));
    gidd_status status = GIDD_OK;
    char *path = member_name(stream, entry->name);
    if (path == NULL || size > GIDD_CORPUS_MEMBER_MAX) {
        status = gidd_fail(path == NULL ? GIDD_ERR_NOMEM : GIDD_ERR_CORRUPT,
                           "%s: %s is longer than it says, or memory is out",
                           gidd_corpus_stream_name(stream), entry->name);
    } else {
        status = walk->packed(walk->context, path, kind, depth, bytes, size);
    }
    free(path);
    free(bytes);
    return status;
}

static int path_leaves(const char *name)
{
    if (name[0] == '/') {
        return 1;
    }
    for (const char *part = name; *part != '\0';) {
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.') {
            return 1;
        }
        part += length;
        part += *part == '/' ? 1 : 0;
    }
    return 0;
}

static gidd_status walk_entry(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                              const gidd_corpus_stream_entry *entry, int depth)
{
    gidd_corpus_type type = gidd_corpus_type_of(entry->name, walk->options->suffixes);
    if (entry->type == GIDD_CORPUS_STREAM_FOLDER) {
        return GIDD_OK;
    }
    if (entry->type == GIDD_CORPUS_STREAM_SPECIAL) {
        return skip(walk, GIDD_CORPUS_SKIPPED_LINK, stream, entry->name);
    }
    if (path_leaves(entry->name)) {
        return skip(walk, GIDD_CORPUS_SKIPPED_PATH, stream, entry->name);
    }
    if (type.kind == GIDD_CORPUS_OTHER) {
        return skip(walk, GIDD_CORPUS_SKIPPED_SUFFIX, stream, entry->name);
    }
    if (type.compressed || type.kind == GIDD_CORPUS_ARCHIVE) {
        return walk_packed(walk, stream, entry, type.kind, depth);
    }
    return type.kind == GIDD_CORPUS_TEXT ? walk_text(walk, stream, entry->name, entry->size)
                                         : walk_lines(walk, stream, entry->name);
}

static gidd_status walk_archive(const gidd_corpus_walk *walk, gidd_corpus_stream *stream, int depth)
{
    for (;;) {
        gidd_corpus_stream_entry entry = {0};
        int end = 0;
        GIDD_TRY(gidd_corpus_stream_next(stream, &entry, &end));
        if (end) {
            return GIDD_OK;
        }
        GIDD_TRY(walk_entry(walk, stream, &entry, depth));
    }
}

static gidd_status walk_bare(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                             gidd_corpus_kind kind)
{
    switch (kind) {
    case GIDD_CORPUS_TEXT:
        return walk_text(walk, stream, gidd_corpus_stream_name(stream), -1);
    case GIDD_CORPUS_JSONL:
        return walk_lines(walk, stream, gidd_corpus_stream_name(stream));
    default:
        return skip(walk, GIDD_CORPUS_SKIPPED_SUFFIX, stream, "");
    }
}

gidd_status gidd_corpus_walk_stream(const gidd_corpus_walk *walk, gidd_corpus_stream *stream,
                                    gidd_corpus_kind kind, gidd_corpus_kind bare, int depth)
{
    gidd_corpus_stream_entry entry = {0};
    int end = 0;
    GIDD_TRY(gidd_corpus_stream_next(stream, &entry, &end));
    if (gidd_corpus_stream_is_raw(stream)) {
        return walk_bare(walk, stream, kind == GIDD_CORPUS_PACKED ? bare : kind);
    }
    if (depth > GIDD_CORPUS_DEPTH_MAX) {
        return skip(walk, GIDD_CORPUS_SKIPPED_NESTED, stream, "");
    }
    if (end) {
        return GIDD_OK;
    }
    GIDD_TRY(walk_entry(walk, stream, &entry, depth));
    return walk_archive(walk, stream, depth);
}
