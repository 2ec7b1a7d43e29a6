/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the loader share: documents in memory whose ids follow from their number, a loader over them, and
 * batches to fill.
 */
#ifndef GIDD_TESTS_LOADER_LIBRARY_H
#define GIDD_TESTS_LOADER_LIBRARY_H

#include "io/loader.h"

#include <stdatomic.h>

enum { WORDS = 95, BOS = WORDS - 1, PAD = WORDS, MASK = WORDS + 1, V = WORDS + 2, T = 16 };

// Document d has lengths[d] ids; id i of it is (31 d + 7 i) mod BOS, unless a special is put in
// place.
typedef struct library {
    int64_t count;
    int64_t lengths[64];
    int starts_with_bos[64], ends_with_eos[64];
    int64_t failing;  // document whose reading fails; -1: none
    int64_t slow_ns;  // per read
    int32_t wrong_id; // put into document 0; 0: none
    int shown[64];    // reads of each document
    atomic_long ids_read, reads;
} library;

/* Id i of document d. Local. */
int32_t id_of(const library *lib, int64_t d, int64_t i);

/* `count` documents of 1, 4, 7 ... ids, so that there are short and long ones. Local. */
void fill_library(library *lib, int64_t count);

/* p_u 0.2 over this vocabulary. Local. */
gidd_schedule some_schedule(void);

/* A loader over it: G = 12, seeds 17 and 99; the last `valid` documents for validation. Local. */
gidd_loader_args loader_args(library *lib, int64_t valid);
gidd_loader *open_loader(gidd_loader_args args);

/* A batch of B rows full of rubbish; the caller frees its memory. Local. */
gidd_batch make_batch(int64_t B);

void assert_same_row(const gidd_batch *a, int64_t row_a, const gidd_batch *b, int64_t row_b);

#endif
