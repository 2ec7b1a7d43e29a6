/* SPDX-License-Identifier: Apache-2.0
 *
 * The threads of a rank that turn parts into shards, while its main thread deals parts out or receives them.
 *
 *     put ──> parts waiting (at most one) ──> threads, each with an encoder of its own ──> reports ──> take
 *
 * A pool holds at most `threads` + 1 parts. Which thread makes a shard decides nothing about its bytes.
 */
#ifndef GIDD_COORDINATOR_SHARD_POOL_H
#define GIDD_COORDINATOR_SHARD_POOL_H

#include "coordinator/shard_part.h"

enum {
    GIDD_SHARD_THREADS_MAX = 6, /* of a rank: more would take more than 1 GB, and wait for HDF5's one lock */
};

/* What became of a part. Plain bytes: ranks send it. */
typedef struct gidd_shard_report {
    int64_t index;
    gidd_status status;
    gidd_shard_part_result result;
    char text[1024]; /* of the failure */
} gidd_shard_report;

typedef struct gidd_shard_pool_args {
    const char *output; /* as gidd_shard_part_maker_init; all borrowed until destroy */
    const gidd_bpe *bpe;
    const gidd_corpus_options *options;
    int64_t document_limit;
    int threads; /* 1 .. GIDD_SHARD_THREADS_MAX */
} gidd_shard_pool_args;

typedef struct gidd_shard_pool gidd_shard_pool;

/* Starts the threads (all signals blocked in them). Errors: ARG, NOMEM. Local. */
gidd_status gidd_shard_pool_create(const gidd_shard_pool_args *args, gidd_shard_pool **pool_p);

/* Waits for the parts being made, forgets the one that waits, frees; NULL is ignored. Local. */
void gidd_shard_pool_destroy(gidd_shard_pool *pool);

/* Parts that the pool can hold, and parts put whose reports were not taken yet. One thread puts and takes. Local. */
int gidd_shard_pool_room(const gidd_shard_pool *pool);
int gidd_shard_pool_held(const gidd_shard_pool *pool);

/* Gives part `index` to the pool, which must hold fewer than `room` (ARG). bytes[size], the encoded pieces, were
 * allocated by malloc and are the pool's from here on, also after a failure. Local. */
gidd_status gidd_shard_pool_put(gidd_shard_pool *pool, int64_t index, uint8_t *bytes, size_t size,
                                int64_t document_max);

/* Takes one report; 1: *report is set. 0: none came within wait_ms (0: without waiting). Local. */
int gidd_shard_pool_take(gidd_shard_pool *pool, int wait_ms, gidd_shard_report *report);

#endif
