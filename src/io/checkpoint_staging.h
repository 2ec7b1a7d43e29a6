/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the checkpoint: a rank's part of state.bin in memory, as it stood when the step ended.
 */
#ifndef GIDD_IO_CHECKPOINT_STAGING_H
#define GIDD_IO_CHECKPOINT_STAGING_H

#include "io/checkpoint.h"

/* Consecutive bytes of state.bin. */
typedef struct gidd_staging_run {
    int64_t offset; /* in state.bin */
    int64_t bytes;
    char *data; /* in the staging memory */
} gidd_staging_run;

typedef struct gidd_staging {
    char *memory;
    size_t capacity;
    gidd_staging_run *runs; /* ascending offsets, none touching */
    int64_t run_count, run_capacity;
    int64_t elements; /* copied by the last fill */
} gidd_staging;

typedef gidd_status (*gidd_staging_copy)(void *context, void *destination, const void *source,
                                         size_t bytes);

/* Makes `bytes` of memory ready before the first fill: allocated and touched. Local. */
gidd_status gidd_staging_prepare(gidd_staging *staging, size_t bytes);

/* Copies the extents into runs, neighbours joined; the owner of a section's last element also gets
 * the zeros up to the next block. Memory grows when needed and is kept. GIDD_ERR_ARG: an extent
 * outside its section, or two that overlap. Local. */
gidd_status gidd_staging_fill(gidd_staging *staging, const gidd_checkpoint_layout *layout,
                              const gidd_checkpoint_extent *extents, int64_t extent_count,
                              gidd_staging_copy copy, void *copy_context);
void gidd_staging_release(gidd_staging *staging);

/* The piece of `run` from `at` (bytes behind its start) to its end or to the next block boundary of
 * state.bin, whichever comes first: its length. Local. */
int64_t gidd_staging_piece(const gidd_staging_run *run, int64_t at);

#endif
