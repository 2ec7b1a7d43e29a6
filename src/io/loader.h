/* SPDX-License-Identifier: Apache-2.0
 *
 * The loader: documents in, batch records (diffusion/batch.h) out.
 *
 * Batches are a pure function of (seed, step, row), whatever the ranks, threads, micro-batches or
 * restarts. Row i of step s, 0 <= i < G, is the global sample n = s G + i; with E examples in the
 * training split
 *
 *     epoch = n div E,   example = permutation(seed, epoch)(n mod E),
 *     crop, noise <- Philox(seed, stream, n),   t <- diffusion/time.h (seed, s, i)
 *
 * A step may straddle epochs and nothing is dropped. Evaluation goes through the validation split
 * in order; its crop and noise are keyed by (eval seed, document, draw) and its times are a grid
 * over the split, so it uses no training randomness and does not depend on batch size or ranks
 * either.
 *
 * A mix of sources is drawn by quota, not by dice (mix_order.h): of every 1024 samples in a row each source has
 * exactly its share, rounded to 1/1024 of them, in an order keyed by (seed, block). The m-th sample of a source takes
 * that source's example permutation(seed, source, m div E)(m mod E), so a source goes through all it has before it
 * repeats anything, however small its share. The validation split of a mix is drawn from the sources' own
 * by the same rule with the evaluation seed, each in order, and ends before the first of them would: any beginning of
 * it has the mix's proportions too.
 *
 * Documents that are left out (damaged ones) cost no other sample its place: where an example of theirs is due, the
 * example as many places on as the damaged stretch is long stands in for it, until it is a whole one. Which one that
 * is follows from the list of documents alone, and every sample that would not have met the damage stays what it was.
 *
 * Windows (SPEC section 12): BOS and EOS around the document unless already there; longer than T: a
 * random window of T ids, never the last one unless max_add_padding > 0; shorter: PAD on the right,
 * attention mask 0 there. Only the ids of the window are read.
 */
#ifndef GIDD_IO_LOADER_H
#define GIDD_IO_LOADER_H

#include "base/status.h"
#include "diffusion/batch.h"
#include "diffusion/schedule.h"
#include "diffusion/vocab.h"
#include "io/shard.h"

#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------ where documents come from */

/* Documents 0 .. document_count-1 of at least one id each. The functions must be thread-safe. */
typedef struct gidd_source {
    void *context; /* borrowed: outlives every loader over it */
    int64_t document_count;
    int64_t valid_documents; /* the last ones are the validation split */
    int32_t vocab_size;      /* the tokenizer's base ids */
    int has_specials;        /* 0: no document holds BOS or EOS, as in shards: saves two reads */
    const gidd_ranges *left_out; /* documents that are never read, only asked for their length; settled, borrowed
                                    as the context is; NULL: none */
    gidd_status (*length)(void *context, int64_t document, int64_t *tokens_p);
    /* ids[0..count) = document[first .. first+count), first + count <= length */
    gidd_status (*read)(void *context, int64_t document, int64_t first, int64_t count,
                        uint16_t *ids);
} gidd_source;

/* The source over an open set of shards, which is borrowed. Local. */
gidd_source gidd_source_of_shards(gidd_shard_set *set);

/* ------------------------------------------------------------------ the loader */

/* A source of a mix and its weight; weights are relative to their sum. */
typedef struct gidd_loader_part {
    gidd_source source; /* its context is borrowed */
    double weight;      /* > 0 */
} gidd_loader_part;

enum { GIDD_LOADER_PARTS_MAX = 64 };

typedef enum gidd_window_mode {
    GIDD_WINDOW_DOCUMENT = 0, /* one window a document and epoch (the reference's default) */
    GIDD_WINDOW_PADDED,       /* all rows of T of [BOS doc EOS], padded up to the next multiple */
    GIDD_WINDOW_PACKED,       /* rows of T of [BOS doc]... over 1024 documents, the tail dropped */
} gidd_window_mode;

typedef struct gidd_loader_args {
    gidd_source source;            /* the only one, unless there is a mix; its context is borrowed */
    const gidd_loader_part *mix;   /* [mix_count] copied; NULL: no mix */
    int64_t mix_count;             /* 0 .. GIDD_LOADER_PARTS_MAX, all of one vocabulary */
    const gidd_schedule *schedule; /* copied */
    gidd_vocab vocab;              /* V == 0: gidd_vocab_of(source.vocab_size) */
    uint64_t seed;                 /* training: order, crops, times, noise */
    uint64_t eval_seed;            /* evaluation: crops, times, noise */
    int64_t global_batch;          /* G >= 1 */
    int64_t T;                     /* ids a row, >= 1 */
    int64_t max_add_padding;       /* >= 0; DOCUMENT only */
    gidd_window_mode window;
} gidd_loader_args;

/* Immutable after open: any number of threads may build from it. */
typedef struct gidd_loader gidd_loader;

/* Checks the arguments and, in the modes PADDED and PACKED, reads all lengths to count the rows.
 * Errors: CONFIG (no training document, a schedule over another vocabulary, a value out of range, sources of
 * different vocabularies, a weight below 1/1024 of the sum), CORRUPT (every document of a split is left out),
 * what the source returns, NOMEM. *loader_p is owned by the caller. Local. */
gidd_status gidd_loader_open(const gidd_loader_args *args, gidd_loader **loader_p);
void gidd_loader_close(gidd_loader *loader);

/* The vocabulary, the ids of a row (T), and the number of examples (windows or rows) of an epoch
 * and of the validation split; in mode DOCUMENT they are documents. With a mix, train_examples is the sum over its
 * sources, which are gone through at different speeds. Local. */
const gidd_vocab *gidd_loader_vocab(const gidd_loader *loader);
int64_t gidd_loader_row_length(const gidd_loader *loader);
int64_t gidd_loader_train_examples(const gidd_loader *loader);
int64_t gidd_loader_valid_examples(const gidd_loader *loader);

/* Fills all rows of `batch` (laid out by the caller for B rows and the loader's T) with rows first
 * .. first+B-1 of a step, 0 <= first, first + B <= G: ids, masks, coefficients, index. Under a schedule
 * without noise (autoregressive models) w_keep makes the mean over all positions the mean over the step's
 * predictions. Local. */
gidd_status gidd_loader_build(const gidd_loader *loader, int64_t step, int64_t first,
                              gidd_batch *batch);

/* Fills rows 0 .. count-1 with examples first .. first+count-1 of the validation split, all below
 * gidd_loader_valid_examples(), and the rows from count to B with PAD and row_weight 0;
 * 1 <= count <= B. `draw` 0, 1, ... below 2^24 numbers independent draws of noise and time for the
 * same documents. first_sample becomes `first`. Local. */
gidd_status gidd_loader_build_eval(const gidd_loader *loader, int64_t first, int64_t count,
                                   int64_t draw, gidd_batch *batch);

/* The ids of one training example, apart from any batch (parity and tools). In mode DOCUMENT, where
 * the document is longer than T, `start` is the first position of its window, 0 <= start <
 * *bound_p, or -1 to have it drawn as for global sample `sample`. *start_p and *bound_p tell the
 * start and its exclusive bound; -1 and 0 where nothing is cut. ERR_ARG: start is beyond the bound.
 * Local. */
typedef struct gidd_window_args {
    int64_t example; /* 0 <= example < gidd_loader_train_examples(); of a mix: of its first source */
    int64_t start;
    uint64_t sample;
    int32_t *x;              /* [T] written */
    int32_t *attention_mask; /* [T] written */
    int64_t *start_p;        /* or NULL */
    int64_t *bound_p;        /* or NULL */
} gidd_window_args;

gidd_status gidd_loader_window(const gidd_loader *loader, const gidd_window_args *args);

/* ------------------------------------------------------------------ building ahead */

/* A thread that builds a rank's micro-batches in order, into a ring of records:
 * step first_step: rows row_first .. row_first+row_count-1 in slices of micro_batch rows (the last
 * one may be smaller), then step first_step+1, ... up to end_step - 1. */
typedef struct gidd_prefetch_args {
    const gidd_loader *loader; /* borrowed until destroy */
    int64_t first_step, end_step;
    int64_t row_first, row_count; /* this rank's share of a step (gidd_loader_slice) */
    int64_t micro_batch;          /* rows a record, >= 1 */
    int64_t depth;                /* records in the ring, >= 2 */
    void *memory;                 /* gidd_prefetch_bytes() bytes, 64-byte aligned, for
                                     example pinned; borrowed. NULL: allocated */
} gidd_prefetch_args;

typedef struct gidd_prefetch gidd_prefetch;

/* The rows of rank `rank` of `ranks`: [rank G/ranks, (rank+1) G/ranks). G is divisible by ranks
 * (the configuration's check). Local. */
void gidd_loader_slice(int64_t global_batch, int64_t rank, int64_t ranks, int64_t *row_first_p,
                       int64_t *row_count_p);

/* Bytes of the ring's records. Local. */
size_t gidd_prefetch_bytes(const gidd_prefetch_args *args);

/* Starts the thread (all signals blocked in it). Errors: ARG, NOMEM. Local. */
gidd_status gidd_prefetch_create(const gidd_prefetch_args *args, gidd_prefetch **prefetch_p);

/* Stops the thread, at the latest after the record it is building, and frees; NULL is ignored.
 * Local. */
void gidd_prefetch_destroy(gidd_prefetch *prefetch);

/* The next record in order; waits until it is built. It stays valid until its release. A failure of
 * the thread is returned here, after the records built before it, with its error record restored.
 * Asking beyond the last record, or with all of the ring held, is GIDD_ERR_ARG. One consumer
 * thread. Local. */
gidd_status gidd_prefetch_next(gidd_prefetch *prefetch, const gidd_batch **batch_p);

/* Gives back the oldest record held. Local. */
void gidd_prefetch_release(gidd_prefetch *prefetch);

/* Nanoseconds that gidd_prefetch_next has waited so far, in all. Consumer thread only. Local. */
int64_t gidd_prefetch_waited_ns(const gidd_prefetch *prefetch);

#endif
