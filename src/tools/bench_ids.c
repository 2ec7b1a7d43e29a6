/* SPDX-License-Identifier: Apache-2.0
 *
 * Synthetic documents of random ids: in memory, and as shards.
 */
#include "base/rng.h"
#include "tokenizer/bpe.h"
#include "tools/bench.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Ids ------------------------------------------------------------------------------------- */

enum { SOURCE_DOCUMENTS = 1 << 20, SOURCE_VALID = 1024 };

static gidd_status source_length(void *context, int64_t document, int64_t *tokens_p)
{
    const int64_t *length = context;
    *tokens_p = *length + document % GIDD_BENCH_LENGTH_SPREAD;
    return GIDD_OK;
}

static gidd_status source_read(void *context, int64_t document, int64_t first, int64_t count,
                               uint16_t *ids)
{
    (void)context;
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t word[4];
        gidd_philox(GIDD_BENCH_SEED, GIDD_STREAM_TOKEN, (uint64_t)document, (uint32_t)(first + i),
                    word);
        for (int64_t j = 0; j < 4 && i + j < count; j++) {
            ids[i + j] = (uint16_t)((uint64_t)word[j] * GIDD_BPE_GPT2_EOS >> 32);
        }
    }
    return GIDD_OK;
}

gidd_source gidd_bench_source(const int64_t *length)
{
    return (gidd_source){.context = (void *)(uintptr_t)length, // only ever read
                         .document_count = SOURCE_DOCUMENTS,
                         .valid_documents = SOURCE_VALID,
                         .vocab_size = GIDD_BPE_GPT2_SIZE,
                         .length = source_length,
                         .read = source_read};
}

/* ---- Synthetic shards ------------------------------------------------------------------------ */

enum { SHARDS = 4, SHARD_DOCUMENTS = 2000, SHARD_VALID = 64 };

static const char no_tokenizer[] = "00000000000000000000000000000000"; // a digest that no file has

static gidd_status fill_shard(gidd_shard_writer *writer, const gidd_source *source, int64_t first,
                              uint16_t *ids)
{
    for (int64_t i = first; i < first + SHARD_DOCUMENTS; i++) {
        int64_t length = 0;
        GIDD_TRY(source->length(source->context, i, &length));
        GIDD_TRY(source->read(source->context, i, 0, length, ids));
        GIDD_TRY(gidd_shard_writer_append(writer, ids, length));
    }
    return GIDD_OK;
}

static gidd_status write_shard(const char *folder, int64_t index, const gidd_source *source,
                               uint16_t *ids, gidd_shard_entry *entry)
{
    gidd_shard_writer *writer = NULL;
    char name[24], path[GIDD_BENCH_FOLDER_SIZE + 32];
    gidd_shard_name(index, name);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    GIDD_TRY(gidd_shard_writer_create(path, no_tokenizer, source->vocab_size, &writer));
    gidd_status status = fill_shard(writer, source, index * SHARD_DOCUMENTS, ids);
    if (status == GIDD_OK) {
        status = gidd_shard_writer_commit(writer, entry);
    }
    gidd_shard_writer_destroy(writer);
    return status;
}

gidd_status gidd_bench_shards_make(const char *folder, int64_t length)
{
    const gidd_source source = gidd_bench_source(&length);
    gidd_shard_entry entries[SHARDS];
    uint16_t *ids = malloc((size_t)(length + GIDD_BENCH_LENGTH_SPREAD) * sizeof *ids);
    gidd_status status = GIDD_OK;
    if (ids == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a document");
    }
    for (int64_t i = 0; status == GIDD_OK && i < SHARDS; i++) {
        status = write_shard(folder, i, &source, ids, &entries[i]);
    }
    free(ids);
    GIDD_TRY(status);
    return gidd_shard_index_write(folder, &(gidd_shard_index){.shard_count = SHARDS,
                                                              .entries = entries,
                                                              .valid_documents = SHARD_VALID,
                                                              .vocab_size = source.vocab_size,
                                                              .tokenizer_digest = no_tokenizer});
}
