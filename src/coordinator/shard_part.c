/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/shard_part.h"

#include "base/fault.h"
#include "base/json.h"
#include "io/shard_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_BYTES_MAX = 1 << 16, RECORD_VERSION = 1 };

gidd_status gidd_shard_part_maker_init(gidd_shard_part_maker *maker, const char *output,
                                       const gidd_bpe *bpe, const gidd_corpus_options *options,
                                       int64_t document_limit)
{
    char line[256];
    *maker = (gidd_shard_part_maker){.output = output, .bpe = bpe, .options = options};
    gidd_digest *digest = gidd_digest_create();
    if (digest == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a digest");
    }
    int used =
        snprintf(line, sizeof line, "gidd-shard-job %d %d\n%s\n%zu %zu %d %lld\n", RECORD_VERSION,
                 GIDD_SHARD_VERSION, gidd_bpe_digest(bpe), options->document_bytes_max,
                 options->shard_bytes, (int)options->rule, (long long)document_limit);
    gidd_digest_update(digest, line, (size_t)used);
    gidd_digest_update(digest, options->suffixes, strlen(options->suffixes) + 1);
    gidd_digest_update(digest, options->json_key, strlen(options->json_key) + 1);
    gidd_digest_text(digest, maker->job);
    gidd_digest_destroy(digest);
    return gidd_bpe_encoder_create(bpe, &maker->encoder);
}

void gidd_shard_part_maker_release(gidd_shard_part_maker *maker)
{
    gidd_bpe_encoder_destroy(maker->encoder);
    free(maker->ids);
    *maker = (gidd_shard_part_maker){0};
}

/* ------------------------------------------------------------------ records */

static char *record_path(const gidd_shard_part_maker *maker, int64_t shard)
{
    char name[64];
    (void)snprintf(name, sizeof name, "done/shard-%05lld.json", (long long)shard);
    return gidd_path_join(maker->output, name);
}

static char *shard_path(const gidd_shard_part_maker *maker, int64_t shard)
{
    char name[24];
    gidd_shard_name(shard, name);
    return gidd_path_join(maker->output, name);
}

static int take_digest(const json_t *root, const char *key, char text[GIDD_DIGEST_SIZE])
{
    const char *value = json_string_value(json_object_get(root, key));
    if (value == NULL || !gidd_digest_valid(value)) {
        return 0;
    }
    memcpy(text, value, GIDD_DIGEST_SIZE);
    return 1;
}

// Records are hints: a shard is kept only if its bytes and its input still are what the record
// says. A record that cannot be understood is no record: the shard is made again.
static int parse_record(const json_t *root, const char *job, char input[GIDD_DIGEST_SIZE],
                        gidd_shard_part_result *result)
{
    const json_t *counts = json_object_get(root, "counts");
    char made_by[GIDD_DIGEST_SIZE] = "";
    *result = (gidd_shard_part_result){.reused = 1};
    result->entry.document_count = json_integer_value(json_object_get(root, "documents"));
    result->entry.token_count = json_integer_value(json_object_get(root, "tokens"));
    result->entry.file_bytes = json_integer_value(json_object_get(root, "bytes"));
    for (int i = 0; i < GIDD_CORPUS_COUNTERS; i++) {
        const json_t *count =
            json_object_get(counts, gidd_corpus_counter_name((gidd_corpus_counter)i));
        if (!json_is_integer(count)) {
            return 0;
        }
        result->counts.of[i] = json_integer_value(count);
    }
    return take_digest(root, "job", made_by) && strcmp(made_by, job) == 0 &&
           take_digest(root, "input", input) && take_digest(root, "digest", result->entry.digest) &&
           take_digest(root, "file_digest", result->entry.file_digest);
}

static gidd_status read_record(const gidd_shard_part_maker *maker, int64_t shard,
                               char input[GIDD_DIGEST_SIZE], gidd_shard_part_result *result,
                               int *found_p)
{
    gidd_status status = GIDD_OK;
    char *bytes = NULL;
    size_t size = 0;
    json_t *root = NULL;
    char *path = record_path(maker, shard);
    *found_p = 0;
    if (path != NULL && gidd_file_read(path, RECORD_BYTES_MAX, &bytes, &size) == GIDD_OK) {
        status = gidd_json_parse(bytes, size, JSON_REJECT_DUPLICATES, NULL, &root);
        *found_p = root != NULL && parse_record(root, maker->job, input, result);
        json_decref(root);
    }
    free(bytes);
    free(path);
    return status;
}

static gidd_status write_record(const gidd_shard_part_maker *maker, int64_t shard,
                                const char *input, const gidd_shard_part_result *result)
{
    const gidd_shard_entry *entry = &result->entry;
    json_t *counts = json_object();
    for (int i = 0; i < GIDD_CORPUS_COUNTERS; i++) {
        const char *name = gidd_corpus_counter_name((gidd_corpus_counter)i);
        if (json_object_set_new(counts, name, json_integer(result->counts.of[i])) != 0) {
            json_decref(counts);
            counts = NULL;
            break;
        }
    }
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:o}", "job", maker->job, "input", input,
                  "documents", (json_int_t)entry->document_count, "tokens",
                  (json_int_t)entry->token_count, "bytes", (json_int_t)entry->file_bytes, "digest",
                  entry->digest, "file_digest", entry->file_digest, "counts", counts);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    char *path = record_path(maker, shard);
    gidd_status status = text != NULL && path != NULL
                             ? gidd_file_publish(path, text, strlen(text))
                             : gidd_fail(GIDD_ERR_NOMEM, "no memory for the record of a shard");
    free(path);
    free(text);
    json_decref(root);
    return status;
}

/* ------------------------------------------------------------------ keeping */

// Whether the shard and its part are what the record says. Errors of the input are errors.
static gidd_status find_finished(const gidd_shard_part_maker *maker, const gidd_corpus_part *part,
                                 gidd_shard_part_result *result, int *found_p)
{
    char recorded[GIDD_DIGEST_SIZE] = "", present[GIDD_DIGEST_SIZE] = "",
         file[GIDD_DIGEST_SIZE] = "";
    size_t size = 0;
    int is_recorded = 0;
    *found_p = 0;
    GIDD_TRY(read_record(maker, part->index, recorded, result, &is_recorded));
    if (!is_recorded) {
        return GIDD_OK;
    }
    char *path = shard_path(maker, part->index);
    int intact = path != NULL && gidd_digest_file(path, file, &size) == GIDD_OK &&
                 (int64_t)size == result->entry.file_bytes &&
                 strcmp(file, result->entry.file_digest) == 0;
    free(path);
    if (!intact) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_corpus_part_digest(part, maker->options, present));
    *found_p = strcmp(recorded, present) == 0;
    return GIDD_OK;
}

/* ------------------------------------------------------------------ making */

struct making {
    gidd_shard_part_maker *maker;
    gidd_shard_writer *writer;
    int64_t document_max;
    int64_t document_count;
    int64_t text_bytes;
};

static gidd_status tokenize(void *context, const uint8_t *text, size_t bytes)
{
    struct making *making = context;
    gidd_shard_part_maker *maker = making->maker;
    size_t count = 0;
    if (making->document_count == making->document_max) {
        return GIDD_OK;
    }
    if (maker->room < bytes) {
        size_t room = bytes + bytes / 2;
        uint16_t *grown = realloc(maker->ids, room * sizeof *grown);
        if (grown == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for a document of %zu bytes", bytes);
        }
        maker->ids = grown;
        maker->room = room;
    }
    GIDD_TRY(gidd_bpe_encode(maker->encoder, text, bytes, maker->ids, maker->room, &count));
    making->document_count++;
    making->text_bytes += (int64_t)bytes;
    return gidd_shard_writer_append(making->writer, maker->ids, (int64_t)count);
}

static gidd_status remove_named(const gidd_shard_part_maker *maker, char *path)
{
    gidd_status status =
        path != NULL ? gidd_file_remove(path)
                     : gidd_fail(GIDD_ERR_NOMEM, "no memory for a path in %s", maker->output);
    free(path);
    return status;
}

// From here on neither the index nor the record may vouch for what is about to change.
static gidd_status withdraw(const gidd_shard_part_maker *maker, int64_t shard)
{
    GIDD_TRY(remove_named(maker, gidd_path_join(maker->output, "index.json")));
    return remove_named(maker, record_path(maker, shard));
}

gidd_status gidd_shard_part_make(gidd_shard_part_maker *maker, const gidd_corpus_part *part,
                                 int64_t document_max, gidd_shard_part_result *result_p)
{
    gidd_shard_part_result result = {0};
    gidd_status status = GIDD_OK;
    struct making making = {.maker = maker, .document_max = document_max};
    char input[GIDD_DIGEST_SIZE] = "";
    char *path = NULL;
    int found = 0;
    GIDD_TRY(find_finished(maker, part, &result, &found));
    if (found) {
        *result_p = result;
        return GIDD_OK;
    }
    result = (gidd_shard_part_result){0};
    GIDD_TRY(withdraw(maker, part->index));
    path = shard_path(maker, part->index);
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a path in %s", maker->output);
    }
    GIDD_TRY_GOTO(gidd_shard_writer_create(path, gidd_bpe_digest(maker->bpe),
                                           gidd_bpe_size(maker->bpe), &making.writer));
    GIDD_TRY_GOTO(
        gidd_corpus_part_read(part, maker->options, tokenize, &making, &result.counts, input));
    result.counts.of[GIDD_CORPUS_DOCUMENTS] = making.document_count;
    result.counts.of[GIDD_CORPUS_TEXT_BYTES] = making.text_bytes;
    gidd_fault_point("shard_before_commit");
    GIDD_TRY_GOTO(gidd_shard_writer_commit(making.writer, &result.entry));
    gidd_fault_point("shard_after_commit");
    GIDD_TRY_GOTO(write_record(maker, part->index, input, &result));
    gidd_fault_point("shard_after_record");
    *result_p = result;
out:
    gidd_shard_writer_destroy(making.writer);
    free(path);
    return status;
}
