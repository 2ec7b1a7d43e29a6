/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shard_index.h"

#include "base/json.h"

#include "io/shard_files.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_NAME "index.json"
#define FORMAT_NAME "gidd-shards"

enum { INDEX_BYTES_MAX = 64 << 20 };

static const int64_t COUNT_MAX = (int64_t)1 << 50;

void gidd_shard_name(int64_t shard, char name[24])
{
    GIDD_ASSERT(shard >= 0 && shard < 100000000);
    (void)snprintf(name, 24, "shard-%05d.h5", (int)shard);
}

// Identity of the data: the contents of the shards in their order.
static gidd_status digest_data(const gidd_shard_entry *entries, int64_t count,
                               const char *tokenizer, int32_t vocab_size,
                               char text[GIDD_DIGEST_SIZE])
{
    char line[128];
    gidd_digest *digest = gidd_digest_create();
    if (digest == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a digest");
    }
    int used = snprintf(line, sizeof line, "gidd-data 1\n%s\n%d\n", tokenizer, vocab_size);
    gidd_digest_update(digest, line, (size_t)used);
    for (int64_t s = 0; s < count; s++) {
        used = snprintf(line, sizeof line, "%s %lld %lld\n", entries[s].digest,
                        (long long)entries[s].document_count, (long long)entries[s].token_count);
        gidd_digest_update(digest, line, (size_t)used);
    }
    gidd_digest_text(digest, text);
    gidd_digest_destroy(digest);
    return GIDD_OK;
}

/* ------------------------------------------------------------------ reading */

struct index_reader {
    const char *path;
    const char *where; // "shard 3" or "the index", for messages
};

static gidd_status take_number(const struct index_reader *reader, const json_t *object,
                               const char *key, int64_t low, int64_t high, int64_t *value_p)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < low ||
        json_integer_value(value) > high) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s of %s is no whole number from %lld to %lld",
                         reader->path, key, reader->where, (long long)low, (long long)high);
    }
    *value_p = json_integer_value(value);
    return GIDD_OK;
}

static gidd_status take_digest(const struct index_reader *reader, const json_t *object,
                               const char *key, char text[GIDD_DIGEST_SIZE])
{
    const char *value = json_string_value(json_object_get(object, key));
    if (value == NULL || !gidd_digest_valid(value)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s of %s is no digest", reader->path, key,
                         reader->where);
    }
    memcpy(text, value, GIDD_DIGEST_SIZE);
    return GIDD_OK;
}

static gidd_status take_text(const struct index_reader *reader, const json_t *object,
                             const char *key, const char *expected)
{
    const char *value = json_string_value(json_object_get(object, key));
    if (value == NULL || strcmp(value, expected) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s of %s is %s%s, expected %s", reader->path, key,
                         reader->where, value != NULL ? "" : "not a string",
                         value != NULL ? value : "", expected);
    }
    return GIDD_OK;
}

static gidd_status read_entry(const char *path, const json_t *object, int64_t shard,
                              gidd_shard_entry *entry)
{
    char where[40], name[24];
    struct index_reader reader = {.path = path, .where = where};
    (void)snprintf(where, sizeof where, "shard %lld", (long long)shard);
    gidd_shard_name(shard, name);
    if (!json_is_object(object) || json_object_size(object) != 6) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s has other keys than version %d knows", path,
                         where, GIDD_SHARD_VERSION);
    }
    GIDD_TRY(take_text(&reader, object, "file", name));
    GIDD_TRY(take_number(&reader, object, "documents", 0, COUNT_MAX, &entry->document_count));
    GIDD_TRY(take_number(&reader, object, "tokens", 0, COUNT_MAX, &entry->token_count));
    GIDD_TRY(take_number(&reader, object, "bytes", 1, COUNT_MAX, &entry->file_bytes));
    GIDD_TRY(take_digest(&reader, object, "digest", entry->digest));
    GIDD_TRY(take_digest(&reader, object, "file_digest", entry->file_digest));
    // Nothing is compressed, so the file bounds what may be allocated for its contents.
    if (entry->document_count > entry->token_count ||
        entry->token_count * 2 + entry->document_count * 8 > entry->file_bytes) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "%s: %lld documents and %lld tokens do not fit the %lld bytes of %s", path,
                         (long long)entry->document_count, (long long)entry->token_count,
                         (long long)entry->file_bytes, where);
    }
    return GIDD_OK;
}

static gidd_status read_entries(const char *path, const json_t *list, gidd_shard_info *info,
                                gidd_shard_entry **entries_p)
{
    size_t count = json_array_size(list); // 0 when it is no array
    if (count < 1 || count > 10000000) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: no list of shards", path);
    }
    gidd_shard_entry *entries = calloc(count, sizeof *entries);
    if (entries == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu shards", count);
    }
    int64_t documents = 0, tokens = 0;
    for (size_t s = 0; s < count; s++) {
        gidd_status status = read_entry(path, json_array_get(list, s), (int64_t)s, &entries[s]);
        if (status != GIDD_OK) {
            free(entries);
            return status;
        }
        documents += entries[s].document_count;
        tokens += entries[s].token_count;
    }
    if (documents != info->document_count || tokens != info->token_count) {
        free(entries);
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: the shards' documents or tokens do not add up",
                         path);
    }
    info->shard_count = (int64_t)count;
    *entries_p = entries;
    return GIDD_OK;
}

static gidd_status read_root(const char *path, const json_t *root, gidd_shard_info *info,
                             gidd_shard_entry **entries_p)
{
    struct index_reader reader = {.path = path, .where = "the index"};
    gidd_shard_entry *entries = NULL;
    char digest[GIDD_DIGEST_SIZE] = "";
    int64_t number = 0;
    size_t keys = 9 + (json_object_get(root, "source") != NULL ? 1 : 0);
    GIDD_TRY(take_text(&reader, root, "format", FORMAT_NAME));
    GIDD_TRY(
        take_number(&reader, root, "version", GIDD_SHARD_VERSION, GIDD_SHARD_VERSION, &number));
    if (json_object_size(root) != keys) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has other keys than version %d knows", path,
                         GIDD_SHARD_VERSION);
    }
    GIDD_TRY(take_digest(&reader, root, "tokenizer_digest", info->tokenizer_digest));
    GIDD_TRY(take_digest(&reader, root, "data_digest", info->data_digest));
    GIDD_TRY(take_number(&reader, root, "vocab_size", 1, 65536, &number));
    info->vocab_size = (int32_t)number;
    GIDD_TRY(take_number(&reader, root, "document_count", 1, COUNT_MAX, &info->document_count));
    GIDD_TRY(take_number(&reader, root, "token_count", 1, COUNT_MAX, &info->token_count));
    GIDD_TRY(take_number(&reader, root, "valid_documents", 0, info->document_count - 1,
                         &info->valid_documents));
    GIDD_TRY(read_entries(path, json_object_get(root, "shards"), info, &entries));
    gidd_status status =
        digest_data(entries, info->shard_count, info->tokenizer_digest, info->vocab_size, digest);
    if (status == GIDD_OK && strcmp(digest, info->data_digest) != 0) {
        status =
            gidd_fail(GIDD_ERR_CORRUPT, "%s: data_digest is not the digest of its shards", path);
    }
    if (status != GIDD_OK) {
        free(entries);
        return status;
    }
    *entries_p = entries;
    return GIDD_OK;
}

gidd_status gidd_shard_index_read(const char *dir, gidd_shard_info *info,
                                  gidd_shard_entry **entries_p)
{
    gidd_status status = GIDD_OK;
    gidd_shard_info found = {0};
    json_error_t error;
    char *bytes = NULL;
    size_t size = 0;
    json_t *root = NULL;
    char *path = gidd_path_join(dir, INDEX_NAME);
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", dir);
    }
    GIDD_TRY_GOTO(gidd_file_read(path, INDEX_BYTES_MAX, &bytes, &size));
    GIDD_TRY_GOTO(gidd_json_parse(bytes, size, JSON_REJECT_DUPLICATES, &error, &root));
    if (!json_is_object(root)) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s:%d:%d: %s", path, error.line, error.column,
                           root == NULL ? error.text : "no JSON object");
        goto out;
    }
    GIDD_TRY_GOTO(read_root(path, root, &found, entries_p));
    *info = found;
out:
    json_decref(root);
    free(bytes);
    free(path);
    return status;
}

/* ------------------------------------------------------------------ writing */

static json_t *pack_entry(const gidd_shard_entry *entry, int64_t shard)
{
    char name[24];
    gidd_shard_name(shard, name);
    return json_pack("{s:s, s:I, s:I, s:I, s:s, s:s}", "file", name, "documents",
                     (json_int_t)entry->document_count, "tokens", (json_int_t)entry->token_count,
                     "bytes", (json_int_t)entry->file_bytes, "digest", entry->digest, "file_digest",
                     entry->file_digest);
}

static gidd_status parse_source(const char *text, json_t **source_p)
{
    json_error_t error;
    GIDD_TRY(gidd_json_parse(text, strlen(text), 0, &error, source_p));
    if (*source_p == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "what an index tells of its build is no JSON: %s", error.text);
    }
    return GIDD_OK;
}

// Takes `source` over.
static json_t *pack_index(const gidd_shard_index *index, int64_t documents, int64_t tokens,
                          const char *data_digest, json_t *source)
{
    json_t *list = json_array();
    for (int64_t s = 0; list != NULL && s < index->shard_count; s++) {
        if (json_array_append_new(list, pack_entry(&index->entries[s], s)) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    // json_pack takes `source` and `list` over, also when it fails.
    return json_pack("{s:s, s:i, s:s, s:i, s:s, s:I, s:I, s:I, s:o, s:o}", "format", FORMAT_NAME,
                     "version", GIDD_SHARD_VERSION, "tokenizer_digest", index->tokenizer_digest,
                     "vocab_size", (int)index->vocab_size, "data_digest", data_digest,
                     "document_count", (json_int_t)documents, "token_count", (json_int_t)tokens,
                     "valid_documents", (json_int_t)index->valid_documents, "source", source,
                     "shards", list);
}

static gidd_status check_split(const gidd_shard_index *index, int64_t documents)
{
    if (documents < 1) {
        return gidd_fail(GIDD_ERR_CORRUPT, "the corpus holds no documents");
    }
    if (index->valid_documents < 0 || index->valid_documents >= documents) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "the corpus has %lld documents, which leaves none for training with "
                         "data.valid_documents = %lld",
                         (long long)documents, (long long)index->valid_documents);
    }
    return GIDD_OK;
}

gidd_status gidd_shard_index_write(const char *dir, const gidd_shard_index *index)
{
    char digest[GIDD_DIGEST_SIZE];
    int64_t documents = 0, tokens = 0;
    if (index->shard_count < 1) {
        return gidd_fail(GIDD_ERR_CORRUPT, "the corpus holds no documents");
    }
    for (int64_t s = 0; s < index->shard_count; s++) {
        documents += index->entries[s].document_count;
        tokens += index->entries[s].token_count;
    }
    GIDD_TRY(check_split(index, documents));
    GIDD_TRY(digest_data(index->entries, index->shard_count, index->tokenizer_digest,
                         index->vocab_size, digest));
    json_t *source = NULL;
    GIDD_TRY(parse_source(index->source_json != NULL ? index->source_json : "{}", &source));
    gidd_status status = GIDD_OK;
    json_t *root = pack_index(index, documents, tokens, digest, source);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    char *path = gidd_path_join(dir, INDEX_NAME);
    if (text == NULL || path == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the index of %s", dir);
        goto out;
    }
    status = gidd_file_replace(path, text, strlen(text));
out:
    free(path);
    free(text);
    json_decref(root);
    return status;
}
