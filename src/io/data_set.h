/* SPDX-License-Identifier: Apache-2.0
 *
 * The data of a run: one folder of shards, or a mix of several with weights.
 */
#ifndef GIDD_IO_DATA_SET_H
#define GIDD_IO_DATA_SET_H

#include "io/loader.h"

typedef struct gidd_data_set gidd_data_set;

typedef struct gidd_data_info {
    int64_t source_count;                    /* 1 without a mix                                         */
    int64_t document_count, token_count;     /* over all sources                                        */
    int64_t shard_count;                     /* over all sources                                        */
    int64_t valid_documents;                 /* of a mix: the sum; its validation split is drawn from it
                                                 in the mix's proportions (io/loader.h)                 */
    int32_t vocab_size;                      /* of all sources                                          */
    char tokenizer_digest[GIDD_DIGEST_SIZE]; /* of all sources                                          */
    char data_digest[GIDD_DIGEST_SIZE];      /* identity. One folder: that of its shards, without the
                                                 split. A mix: the digest of the lines "gidd-mix 1" and,
                                                 for each source in order, "data_digest valid_documents
                                                 quota" (io/mix_order.h), each with its newline         */
} gidd_data_info;

/* Opens `mix`, a comma separated list of FOLDER:WEIGHT, or `dir` alone where that is "". No shard is read yet.
 * Errors: CONFIG (an item without a weight, sources of different tokenizers, and as gidd_mix_order_init), and those of
 * gidd_shard_set_open. *data_p is owned by the caller. Local. */
gidd_status gidd_data_set_open(const char *dir, const char *mix, gidd_data_set **data_p);

/* NULL is ignored. Nothing may still be reading. Local. */
void gidd_data_set_close(gidd_data_set *data);

/* Borrowed until close. Local. */
const gidd_data_info *gidd_data_set_info(const gidd_data_set *data);

/* Proves shard `shard` of all shards of all sources in order, as gidd_shard_set_verify. `damaged` is [source_count],
 * or NULL. Local; thread-safe. */
gidd_status gidd_data_set_verify(gidd_data_set *data, int64_t shard, gidd_ranges *damaged);

/* Digest of size, times and inode of every file, and of the data's identity (gidd_shard_set_stamp). Local. */
gidd_status gidd_data_set_stamp(const gidd_data_set *data, char stamp[GIDD_DIGEST_SIZE]);

/* Documents of source `source` that no loader opened from now on is to read: other examples take the places of theirs
 * (io/loader.h). Takes the ranges over, settles them, and leaves {0}. Local. */
void gidd_data_set_leave_out(gidd_data_set *data, int64_t source, gidd_ranges *documents);

/* [source_count], for gidd_loader_args.mix; borrowed until close. Local. */
const gidd_loader_part *gidd_data_set_parts(const gidd_data_set *data);

#endif
