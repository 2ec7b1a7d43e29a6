/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shard.h"

#include "io/shard_hdf5.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_IDS = 16 * GIDD_SHARD_CHUNK_IDS };

static gidd_status check_ids(const char *name, int64_t first, int64_t count, const uint16_t *ids,
                             int32_t vocab_size)
{
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] >= vocab_size) {
            return gidd_fail(GIDD_ERR_CORRUPT,
                             "%s: dataset tokens has id %u at token %lld, the vocabulary has %d",
                             name, ids[i], (long long)(first + i), vocab_size);
        }
    }
    return GIDD_OK;
}

static gidd_status digest_tokens(const gidd_shard_file *file, const char *name, int32_t vocab_size,
                                 gidd_digest *digest)
{
    gidd_status status = GIDD_OK;
    uint16_t *ids = malloc(BLOCK_IDS * sizeof *ids);
    if (ids == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to verify %s", name);
    }
    for (int64_t first = 0; status == GIDD_OK && first < file->token_count; first += BLOCK_IDS) {
        int64_t left = file->token_count - first;
        int64_t count = left < BLOCK_IDS ? left : BLOCK_IDS;
        GIDD_TRY_GOTO(gidd_shard_file_tokens(file, name, first, count, ids));
        GIDD_TRY_GOTO(check_ids(name, first, count, ids, vocab_size));
        gidd_digest_update(digest, ids, (size_t)count * sizeof *ids);
    }
out:
    free(ids);
    return status;
}

static gidd_status digest_offsets(const gidd_shard_file *file, const char *name,
                                  gidd_digest *digest)
{
    size_t count = (size_t)file->document_count + 1;
    uint64_t *offsets = malloc(count * sizeof *offsets);
    if (offsets == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to verify %s", name);
    }
    gidd_status status = gidd_shard_file_offsets(file, name, offsets);
    if (status == GIDD_OK) {
        gidd_digest_update(digest, offsets, count * sizeof *offsets);
    }
    free(offsets);
    return status;
}

static gidd_status verify_contents(const gidd_shard_file *file, const char *name,
                                   const gidd_shard_entry *entry, int32_t vocab_size)
{
    char text[GIDD_DIGEST_SIZE];
    if (file->document_count != entry->document_count || file->token_count != entry->token_count) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "%s holds %lld documents and %lld tokens, the index says %lld and %lld",
                         name, (long long)file->document_count, (long long)file->token_count,
                         (long long)entry->document_count, (long long)entry->token_count);
    }
    gidd_digest *digest = gidd_digest_create();
    if (digest == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to verify %s", name);
    }
    gidd_status status = digest_tokens(file, name, vocab_size, digest);
    if (status == GIDD_OK) {
        status = digest_offsets(file, name, digest);
    }
    gidd_digest_text(digest, text);
    gidd_digest_destroy(digest);
    if (status == GIDD_OK && strcmp(text, entry->digest) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: the contents' digest is %s, the index says %s",
                         name, text, entry->digest);
    }
    return status;
}

gidd_status gidd_shard_file_verify(const char *path, const gidd_shard_entry *entry,
                                   const char *tokenizer_digest, int32_t vocab_size)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    gidd_shard_file file = GIDD_SHARD_FILE_CLOSED;
    char text[GIDD_DIGEST_SIZE];
    size_t size = 0;
    // The datasets first: they say where the damage is; the bytes of the file prove the rest.
    gidd_hdf5_lock();
    gidd_status status = gidd_shard_file_open(path, name, tokenizer_digest, vocab_size, &file);
    if (status == GIDD_OK) {
        status = verify_contents(&file, name, entry, vocab_size);
    }
    gidd_shard_file_close(&file);
    gidd_hdf5_unlock();
    GIDD_TRY(status);
    GIDD_TRY(gidd_digest_file(path, text, &size));
    if ((int64_t)size != entry->file_bytes || strcmp(text, entry->file_digest) != 0) {
        return gidd_fail(
            GIDD_ERR_CORRUPT,
            "%s: the file (%zu bytes, digest %s) is not the one of the index (%lld, %s)", name,
            size, text, (long long)entry->file_bytes, entry->file_digest);
    }
    return GIDD_OK;
}
