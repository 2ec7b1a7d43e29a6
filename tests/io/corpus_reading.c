/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_reading.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char folder[256];
const gidd_corpus_options plain = {.suffixes = "txt,md,rst", .json_key = "text"};
const gidd_corpus_options strict = {.suffixes = "txt,md,rst", .json_key = "text", .rule = GIDD_CORPUS_STRICT};

void make_folder(void)
{
    fixture_folder(folder);
}

void remove_folder(void)
{
    fixture_remove(folder);
}

static gidd_status keep_document(void *context, const uint8_t *text, size_t bytes)
{
    struct found *found = context;
    cr_assert_lt(found->count, KEPT_MAX);
    found->documents[found->count] = malloc(bytes + 1);
    memcpy(found->documents[found->count], text, bytes);
    found->sizes[found->count++] = bytes;
    return GIDD_OK;
}

static gidd_status read_part(void *context, const gidd_corpus_part *part, int *stop_p)
{
    struct found *found = context;
    gidd_corpus_counts counts;
    char digest[GIDD_DIGEST_SIZE], again[GIDD_DIGEST_SIZE];
    cr_assert_eq(part->index, found->part_count);
    GIDD_TRY(gidd_corpus_part_read(part, found->options, keep_document, found, &counts, digest));
    GIDD_TRY(gidd_corpus_part_digest(part, found->options, again));
    cr_assert_str_eq(digest, again);
    gidd_corpus_counts_add(&found->counts, &counts);
    memcpy(found->digests[found->part_count++ % 64], digest, sizeof digest);
    *stop_p = found->part_count == found->stop_after;
    return GIDD_OK;
}


gidd_status read_inputs(const char *const *inputs, int64_t count,
                               const gidd_corpus_options *options, struct found *found)
{
    gidd_corpus *corpus = NULL;
    gidd_corpus_counts counts = {0};
    found->options = options;
    gidd_status status = gidd_corpus_open(inputs, count, options, &corpus);
    if (status == GIDD_OK) {
        status = gidd_corpus_deal(corpus, read_part, found, &counts);
        gidd_corpus_counts_add(&found->counts, &counts);
    }
    gidd_corpus_close(corpus);
    return status;
}

struct found *read_input(const char *input, const gidd_corpus_options *options)
{
    struct found *found = calloc(1, sizeof *found);
    cr_assert_eq(read_inputs(&input, 1, options, found), GIDD_OK, "%s: %s", input,
                 gidd_error_last()->text);
    cr_assert_eq(found->count, found->counts.of[GIDD_CORPUS_DOCUMENTS]);
    return found;
}

void release(struct found *found)
{
    for (int i = 0; i < found->count; i++) {
        free(found->documents[i]);
    }
    free(found);
}

void check_document(const struct found *found, int index, const void *text, size_t size)
{
    cr_assert_lt(index, found->count, "document %d of %d", index, found->count);
    cr_assert_eq(found->sizes[index], size, "document %d has %zu bytes, not %zu", index,
                 found->sizes[index], size);
    cr_assert_eq(memcmp(found->documents[index], text, size), 0, "document %d", index);
}

void check_texts(const struct found *found, int count)
{
    cr_assert_eq(found->count, count);
    for (int i = 0; i < count; i++) {
        size_t size = 0;
        char *text = fixture_text(i, &size);
        check_document(found, i, text, size);
        free(text);
    }
}

gidd_status read_failing(const char *input, const gidd_corpus_options *options)
{
    struct found *found = calloc(1, sizeof *found);
    gidd_status status = read_inputs(&input, 1, options, found);
    release(found);
    return status;
}

const char *write_file(const char *name, const void *bytes, size_t size)
{
    const char *path = fixture_path(folder, name);
    fixture_write(path, bytes, size);
    return path;
}

const char *write_string(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

char *pack_texts(const char *format, const char *filter, int first, int count, size_t *size_p)
{
    fixture_archive *archive = fixture_archive_new(format, filter);
    fixture_archive_add(archive, "texts/", 'd', NULL, 0);
    for (int i = first; i < first + count; i++) {
        char name[64];
        size_t size = 0;
        char *text = fixture_text(i, &size);
        (void)snprintf(name, sizeof name, "texts/%07d.txt", i);
        fixture_archive_add(archive, name, 'f', text, size);
        free(text);
    }
    return fixture_archive_end(archive, size_p);
}
