/* SPDX-License-Identifier: Apache-2.0
 *
 * One part of the corpus to one shard, with the record by which a later run recognises it.
 */
#ifndef GIDD_COORDINATOR_SHARD_PART_H
#define GIDD_COORDINATOR_SHARD_PART_H

#include "base/status.h"
#include "io/corpus.h"
#include "io/shard.h"
#include "tokenizer/bpe.h"

/* What a rank needs for any part. */
typedef struct gidd_shard_part_maker {
    const char *output; /* folder of the data set                                     */
    const gidd_bpe *bpe;
    gidd_bpe_encoder *encoder;
    const gidd_corpus_options *options;
    char job[GIDD_DIGEST_SIZE]; /* of everything but the input that decides the bytes */
    uint16_t *ids;              /* scratch [room]                              */
    size_t room;
} gidd_shard_part_maker;

typedef struct gidd_shard_part_result {
    gidd_shard_entry entry;
    gidd_corpus_counts counts;
    int32_t reused; /* 1: the shard of an earlier run was kept */
} gidd_shard_part_result;

/* Fills `maker` (all zero) for options and tokenizer, which are borrowed; `document_limit` is part
 * of the job's digest. Errors: NOMEM. Release in every case. Local. */
gidd_status gidd_shard_part_maker_init(gidd_shard_part_maker *maker, const char *output,
                                       const gidd_bpe *bpe, const gidd_corpus_options *options,
                                       int64_t document_limit);
void gidd_shard_part_maker_release(gidd_shard_part_maker *maker);

/* Makes shard part->index, or keeps it. At most `document_max` documents (the rest of the part is
 * ignored). Errors: as gidd_corpus_part_read and the shard writer. Local. */
gidd_status gidd_shard_part_make(gidd_shard_part_maker *maker, const gidd_corpus_part *part,
                                 int64_t document_max, gidd_shard_part_result *result_p);

#endif
