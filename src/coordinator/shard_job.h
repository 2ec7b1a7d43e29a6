/* SPDX-License-Identifier: Apache-2.0
 *
 * The shard job: corpus -> documents -> tokens -> shards, over all ranks and their threads.
 *
 *     rank 0, main thread: gidd_corpus_deal ── parts ──┬─> its own threads (shard_pool.h)
 *                                                      └─> ranks 1 ..: order, bytes -> their threads
 *     threads: decompress, parse, tokenize, lay the shard out, write, prove; reports go back to rank 0: index.json
 *
 * So the outer archive is read while parts are decompressed and tokenized and finished shards are written. A part
 * becomes a shard, whoever takes it: the output has the same bytes for any number of ranks and threads. With 8 ranks
 * or more one thread of rank 0 does nothing but deal.
 *
 * Memory of a rank does not depend on the size of the input. With parts of W bytes of text (64 MiB at most, or
 * shard_bytes) and n threads a rank holds n + 3 parts at most (W each, a third of it where the input is compressed),
 * and each thread its shard (about W / 2), its encoder (5 MiB) and one document several times over: below 0.9 GB for
 * 6 threads and ordinary documents. A document of 64 MiB, the most that is taken, costs its thread 0.5 GB more.
 *
 * Killed and started again, the job goes through the corpus again but keeps every shard whose
 * record (done/) still fits: same options and tokenizer, same stored bytes of its part, same bytes
 * of the shard's file. index.json goes before the first shard is replaced and comes back last, by
 * rename, so a folder with an index is always whole.
 */
#ifndef GIDD_COORDINATOR_SHARD_JOB_H
#define GIDD_COORDINATOR_SHARD_JOB_H

#include "base/config.h"
#include "base/status.h"
#include "comm/comm.h"
#include "io/corpus.h"
#include "tokenizer/bpe.h"

#include <stdint.h>

typedef struct gidd_shard_progress {
    double seconds;           /* since the start                                          */
    int64_t disk_bytes;       /* of the inputs, done                                      */
    int64_t disk_bytes_total; /* of the inputs                                            */
    int64_t token_count;
    int64_t shard_count;       /* finished                                                 */
    int64_t reused_count;      /* of these, kept from an earlier run                       */
    int64_t fresh_text_bytes;  /* text tokenized by this run, as its speed is measured     */
    int64_t peak_bytes;        /* at the end: resident memory of the rank that had most    */
    gidd_corpus_counts counts; /* documents, text bytes, what was skipped                  */
} gidd_shard_progress;

/* Called on rank 0 whenever a shard is finished there or reported; it decides itself what to print.
 */
typedef void (*gidd_shard_progress_show)(void *context, const gidd_shard_progress *progress);

typedef struct gidd_shard_job_args {
    gidd_comm *comm;           /* all its ranks take part                               */
    const char *const *inputs; /* [input_count]; read on rank 0, but files are opened by
                                  every rank: one file system, one set of paths         */
    int64_t input_count;
    const char *output;  /* folder of the data set; made if it is not there       */
    const gidd_bpe *bpe; /* the same on every rank                                */
    gidd_corpus_options corpus;
    int threads;             /* of this rank besides its main thread; 0 counts as 1, at most 6 are used */
    int64_t valid_documents;       /* 0 <= this < number of documents                       */
    int64_t document_limit;        /* stop after so many documents; 0: take all. One part at
                                      a time then                                           */
    gidd_shard_progress_show show; /* may be NULL                                           */
    void *show_context;
} gidd_shard_job_args;

/* Runs the job and returns the same status on every rank. *total_p is written on rank 0 (may be
 * NULL): the final state. Errors: MISSING (input, or a folder that a rank does not see), CORRUPT
 * (damaged input, no documents, valid_documents too large: with the numbers), OUTPUT (cannot
 * create, or another job holds the folder), IO, NOMEM, COMM. On failure no index.json says that the
 * data are whole, and finished shards stay for the next run. Collective. */
gidd_status gidd_shard_job_run(const gidd_shard_job_args *args, gidd_shard_progress *total_p);

/* The same with what the configuration says: data.source to data.dir with data.tokenizer,
 * data.suffixes, data.json_key, data.valid_documents, with device.threads threads (0: the share of a node of
 * `node_ranks` ranks). Loads the tokenizer on every rank. Collective. */
gidd_status gidd_shard_job_run_config(gidd_comm *comm, const gidd_config *config, int node_ranks,
                                      gidd_shard_progress_show show, void *show_context);

#endif
