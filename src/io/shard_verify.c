/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shard.h"

#include "base/log.h"
#include "io/shard_hdf5.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_IDS = 16 * GIDD_SHARD_CHUNK_IDS };

// One shard under examination.
typedef struct shard_proof {
    const gidd_shard_file *file;
    const char *path;
    int32_t vocab_size;
    gidd_digest *digest;  // of the contents
    uint64_t *offsets;    // [document_count + 1]
    gidd_ranges *damaged; // NULL: a damaged chunk of ids is a failure
    int64_t bad_chunks;
} shard_proof;

static gidd_status read_ids(const shard_proof *proof, int64_t first, int64_t count, uint16_t *ids)
{
    GIDD_TRY(gidd_shard_file_tokens(proof->file, proof->path, first, count, ids));
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] >= proof->vocab_size) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: dataset tokens has id %u at token %lld, the vocabulary has %d",
                             proof->path, ids[i], (long long)(first + i), proof->vocab_size);
        }
    }
    return GIDD_OK;
}

// The first document that ends after token `token`.
static int64_t document_at(const shard_proof *proof, int64_t token)
{
    int64_t low = 0, high = proof->file->document_count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (proof->offsets[middle] <= (uint64_t)token) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// After read_ids has said CORRUPT of one chunk.
static gidd_status judge_chunk(shard_proof *proof, int64_t first, int64_t count)
{
    gidd_error cause = *gidd_error_last();
    int64_t from = document_at(proof, first), to = document_at(proof, first + count - 1) + 1;
    proof->bad_chunks++;
    gidd_status status = gidd_fail(GIDD_ERR_CORRUPT, "%.800s: chunk %lld of dataset tokens, with ids of documents %lld to %lld "
                                   "of this shard", cause.text, (long long)(first / GIDD_SHARD_CHUNK_IDS), (long long)from,
                                   (long long)(to - 1));
    if (proof->damaged == NULL) {
        return status;
    }
    gidd_log(GIDD_LOG_WARN, "shard", "%s", gidd_error_last()->text);
    return gidd_ranges_add(proof->damaged, from, to);
}

// A block in which something is wrong, chunk by chunk.
static gidd_status read_chunks(shard_proof *proof, int64_t first, int64_t count, uint16_t *ids)
{
    for (int64_t done = 0; done < count; done += GIDD_SHARD_CHUNK_IDS) {
        int64_t now = count - done < GIDD_SHARD_CHUNK_IDS ? count - done : GIDD_SHARD_CHUNK_IDS;
        gidd_status status = read_ids(proof, first + done, now, ids + done);
        GIDD_TRY(status == GIDD_ERR_CORRUPT ? judge_chunk(proof, first + done, now) : status);
    }
    return GIDD_OK;
}

static gidd_status digest_tokens(shard_proof *proof)
{
    gidd_status status = GIDD_OK;
    uint16_t *ids = calloc(BLOCK_IDS, sizeof *ids); // a chunk that cannot be read leaves it as it is
    if (ids == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to verify %s", proof->path);
    }
    for (int64_t first = 0; status == GIDD_OK && first < proof->file->token_count; first += BLOCK_IDS) {
        int64_t left = proof->file->token_count - first;
        int64_t count = left < BLOCK_IDS ? left : BLOCK_IDS;
        status = read_ids(proof, first, count, ids);
        if (status == GIDD_ERR_CORRUPT) {
            status = read_chunks(proof, first, count, ids);
        }
        gidd_digest_update(proof->digest, ids, (size_t)count * sizeof *ids);
    }
    free(ids);
    return status;
}

static gidd_status verify_contents(shard_proof *proof, const gidd_shard_entry *entry)
{
    const gidd_shard_file *file = proof->file;
    char text[GIDD_DIGEST_SIZE];
    GIDD_TRY(gidd_shard_file_offsets(file, proof->path, proof->offsets));
    GIDD_TRY(digest_tokens(proof));
    gidd_digest_update(proof->digest, proof->offsets, ((size_t)file->document_count + 1) * sizeof *proof->offsets);
    gidd_digest_text(proof->digest, text);
    if (proof->bad_chunks == 0 && strcmp(text, entry->digest) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: the contents' digest is %s, the index says %s",
                         proof->path, text, entry->digest);
    }
    return GIDD_OK;
}

static gidd_status compare_counts(const shard_proof *proof, const gidd_shard_entry *entry)
{
    const gidd_shard_file *file = proof->file;
    if (file->document_count != entry->document_count || file->token_count != entry->token_count) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "%s holds %lld documents and %lld tokens, the index says %lld and %lld",
                         proof->path, (long long)file->document_count, (long long)file->token_count,
                         (long long)entry->document_count, (long long)entry->token_count);
    }
    return GIDD_OK;
}

static gidd_status verify_opened(shard_proof *proof, const gidd_shard_entry *entry)
{
    gidd_status status = GIDD_OK;
    GIDD_TRY(compare_counts(proof, entry));
    proof->digest = gidd_digest_create();
    proof->offsets = malloc(((size_t)proof->file->document_count + 1) * sizeof *proof->offsets);
    if (proof->digest == NULL || proof->offsets == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory to verify %s", proof->path);
    } else {
        status = verify_contents(proof, entry);
    }
    free(proof->offsets);
    gidd_digest_destroy(proof->digest);
    return status;
}

gidd_status gidd_shard_file_verify(const char *path, const gidd_shard_entry *entry, const char *tokenizer_digest,
                                   int32_t vocab_size, gidd_ranges *damaged)
{
    gidd_shard_file file = GIDD_SHARD_FILE_CLOSED;
    shard_proof proof = {.file = &file, .path = path, .vocab_size = vocab_size, .damaged = damaged};
    char text[GIDD_DIGEST_SIZE];
    size_t size = 0;
    // The datasets first: they say where the damage is; the bytes of the file prove the rest.
    gidd_hdf5_lock();
    gidd_status status = gidd_shard_file_open(path, path, tokenizer_digest, vocab_size, &file);
    if (status == GIDD_OK) {
        status = verify_opened(&proof, entry);
    }
    gidd_shard_file_close(&file);
    gidd_hdf5_unlock();
    GIDD_TRY(status);
    if (proof.bad_chunks > 0) { // a file that is known to differ
        return GIDD_OK;
    }
    GIDD_TRY(gidd_digest_file(path, text, &size));
    if ((int64_t)size != entry->file_bytes || strcmp(text, entry->file_digest) != 0) {
        return gidd_fail(
            GIDD_ERR_CORRUPT,
            "%s: the file (%zu bytes, digest %s) is not the one of the index (%lld, %s)", path,
            size, text, (long long)entry->file_bytes, entry->file_digest);
    }
    return GIDD_OK;
}
