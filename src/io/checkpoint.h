/* SPDX-License-Identifier: Apache-2.0
 *
 * Checkpoints: the state of a run on disk, whole or not at all. FORMAT.md, "Checkpoint", has the
 * bytes.
 *
 *     RUN/checkpoints/step-000012000/state.bin        the numbers
 *                                    manifest.json    what they are, and their checksums
 *                     step-000014000.tmp-TOKEN-1/     being written; removed at the next start
 *                     step-000010000.damaged-1/       found damaged at a restore; never used again
 *
 * state.bin holds whole flat vectors ("sections": masters, Adam's moments ...) one after another,
 * in the unpadded flat order of the tensor table, each from a 4 MiB boundary, the rest zero:
 *
 *     | master, elements * 4 bytes | 0 | adam_m            | 0 | adam_v            | 0 |
 *     0                            4 MiB boundary          ...                         state_bytes
 *
 * with one XXH3-128 per block of 4 MiB. Its bytes depend on the state alone, not on how many ranks
 * wrote it or which part each of them held.
 *
 * Life of a writer, once per run:  create -> { begin -> advance ... advance }* -> destroy.
 * Life at start:                   restore -> read, read ... -> close.
 */
#ifndef GIDD_IO_CHECKPOINT_H
#define GIDD_IO_CHECKPOINT_H

#include "comm/comm.h"
#include "io/digest.h"
#include "io/lock.h"

#include <stdint.h>

#define GIDD_CHECKPOINT_VERSION 1
#define GIDD_CHECKPOINT_BLOCK ((int64_t)4 << 20) /* bytes under one checksum */

enum {
    GIDD_CHECKPOINT_NAME_SIZE = 96, /* of a tensor, section or text, with its NUL */
    GIDD_CHECKPOINT_SECTIONS_MAX = 8,
};

/* ---- what is in one ---------------------------------------------------------------------------
 */

typedef struct gidd_checkpoint_tensor {
    char name[GIDD_CHECKPOINT_NAME_SIZE];
    int dims;         /* 1 or 2 */
    int64_t shape[2]; /* shape[1] == 1 for dims == 1 */
    int64_t offset;   /* first element in the flat order */
} gidd_checkpoint_tensor;

/* Tensors lie back to back in the flat order; every section is one vector of all of them, fp32. */
typedef struct gidd_checkpoint_layout {
    gidd_checkpoint_tensor *tensors; /* [tensor_count] */
    int64_t tensor_count;
    int64_t elements; /* of the flat order = of one section */
    int section_count;
    char sections[GIDD_CHECKPOINT_SECTIONS_MAX][GIDD_CHECKPOINT_NAME_SIZE];
} gidd_checkpoint_layout;

/* Where section `section` starts in state.bin; the length of state.bin; its blocks. Local. */
int64_t gidd_checkpoint_section_offset(const gidd_checkpoint_layout *layout, int section);
int64_t gidd_checkpoint_state_bytes(const gidd_checkpoint_layout *layout);
int64_t gidd_checkpoint_block_count(const gidd_checkpoint_layout *layout);

/* Index of the section called `name`, -1 if there is none. Local. */
int gidd_checkpoint_section(const gidd_checkpoint_layout *layout, const char *name);

/* GIDD_ERR_CONFIG, naming the first tensor that differs, unless both tables list the same tensors
 * of the same shapes in the same order. Sections may differ. Local. */
gidd_status gidd_checkpoint_layout_compare(const gidd_checkpoint_layout *stored,
                                           const gidd_checkpoint_layout *wanted);

/* A named string. Both UTF-8; names of 1 to 95 bytes. */
typedef struct gidd_checkpoint_text {
    const char *name;
    const char *value;
} gidd_checkpoint_text;

/* Everything besides the vectors. Times, hosts and paths are not among it: equal runs give equal
 * bytes. Runs that differ in the number of ranks alone may differ in world_size and fingerprint. */
typedef struct gidd_checkpoint_fields {
    int64_t step;           /* steps completed; names the directory */
    int64_t sample_cursor;  /* global samples consumed */
    int64_t adam_step;      /* Adam's count of updates, skipped ones included */
    int64_t skipped_in_row; /* non-finite steps since the last good one */
    int64_t skipped_total;
    int64_t tokens_seen;
    int64_t seed;
    int64_t metrics_bytes; /* length of metrics.jsonl at this step */
    int64_t world_size;    /* workers */
    const char *build_id;
    const gidd_checkpoint_text *texts; /* "config", "data_digest", "gemm" ...; no name twice */
    int64_t text_count;
    const gidd_checkpoint_text *fingerprint; /* the numerics fingerprint, field by field */
    int64_t fingerprint_count;
} gidd_checkpoint_fields;

/* Value of the text called `name`, NULL if there is none. Local. */
const char *gidd_checkpoint_text_find(const gidd_checkpoint_text *texts, int64_t count,
                                      const char *name);

/* ---- writing ----------------------------------------------------------------------------------
 */

/* A range of a section that this rank holds. */
typedef struct gidd_checkpoint_extent {
    int section;
    int64_t first; /* flat element */
    int64_t count; /* >= 1 */
    const float *source;
} gidd_checkpoint_extent;

/* When every rank holds everything: the part of state.bin that rank `rank` of `size` should write,
 * cut at block boundaries, as at most one extent per section with `source` NULL. Returns how many
 * of extents[GIDD_CHECKPOINT_SECTIONS_MAX] it filled, possibly 0. Local. */
int gidd_checkpoint_share(const gidd_checkpoint_layout *layout, int rank, int size,
                          gidd_checkpoint_extent *extents);

typedef struct gidd_checkpoint_writer gidd_checkpoint_writer; /* opaque */

typedef struct gidd_checkpoint_writer_args {
    gidd_comm *comm; /* all ranks that take part; the writer keeps a copy */
    int coordinator; /* rank in comm that commits and prunes */
    const char *run_dir;
    gidd_run_lock *lock; /* coordinator's, borrowed until destroy; NULL elsewhere */
    const gidd_checkpoint_layout *layout; /* the same everywhere; copied */
    int64_t keep_last;                    /* newest checkpoints kept, >= 1 */
    int64_t keep_every;                   /* steps divisible by this are kept for ever; 0: none */
    int verify_after_write;               /* 1: read back and compare */
    int background; /* 1: by a thread (needs thread_multiple); 0: begin and advance do the work */
    /* Copies to host memory; NULL: memcpy. For state that lives on a device. */
    gidd_status (*copy)(void *context, void *destination, const void *source, size_t bytes);
    void *copy_context;
    /* Bytes that begin will copy on this rank: its memory is then made ready behind the first steps
     * (touching fresh pages costs ten times the copy). 0: by the first begin. */
    int64_t staging_bytes;
} gidd_checkpoint_writer_args;

/* Makes RUN/checkpoints. Collective. */
gidd_status gidd_checkpoint_writer_create(const gidd_checkpoint_writer_args *args,
                                          gidd_checkpoint_writer **out_p);

/* NULL-safe. A write in flight is abandoned: its directory stays without a final name. Collective.
 */
void gidd_checkpoint_writer_destroy(gidd_checkpoint_writer *writer);

typedef enum gidd_checkpoint_state {
    GIDD_CHECKPOINT_IDLE = 0, /* nothing in flight */
    GIDD_CHECKPOINT_WRITING,  /* this rank is busy */
    GIDD_CHECKPOINT_DONE,     /* this rank waits for advance */
    GIDD_CHECKPOINT_FAILED,   /* this rank waits for advance, which will give up on all ranks */
} gidd_checkpoint_state;

/* Starts writing: copies the extents (the only stall), then returns. The extents of all ranks
 * together hold every element of every section once; blocks held by one rank are hashed as they are
 * written, blocks shared by several are read back for it. `step` is fields->step, on all ranks;
 * `fields` counts on the coordinator alone (NULL elsewhere) and is copied. Staging memory is
 * allocated by create or by the first call, and kept. The state must be IDLE: finish first when it
 * is not. A failure becomes the state FAILED, so that all ranks learn of it in the same way. Local,
 * at the same step on all ranks. */
void gidd_checkpoint_begin(gidd_checkpoint_writer *writer, int64_t step,
                           const gidd_checkpoint_fields *fields,
                           const gidd_checkpoint_extent *extents, int64_t extent_count);

/* What is known only after begin: the journal takes note of a step one step later. */
typedef struct gidd_checkpoint_amendment {
    int64_t metrics_bytes, tokens_seen, skipped_total, skipped_in_row;
    const gidd_checkpoint_text *texts; /* each added to the texts, or put in place of the one of its name */
    int64_t                     text_count;
} gidd_checkpoint_amendment;

/* Corrects the fields of the attempt in flight, at any time before the advance that commits it;
 * nothing when none is, or when it has failed already. GIDD_ERR_ARG: a text that is not UTF-8.
 * Local (coordinator). */
gidd_status gidd_checkpoint_amend(gidd_checkpoint_writer *writer,
                                  const gidd_checkpoint_amendment *amendment);

/* This rank's state; never blocks. Travels in the report. Local. */
gidd_checkpoint_state gidd_checkpoint_writer_state(gidd_checkpoint_writer *writer);

/* The next stage, for all ranks at once: called when no rank is WRITING, again and again until the
 * state is IDLE (the same on all ranks). Stages: written -> (shared blocks hashed) -> checksums
 * gathered, manifest, rename and pruning by the coordinator -> committed. Blocks only if this rank
 * still is WRITING. Returns the agreed status: a failure is the lowest failing rank's, ends the
 * attempt, removes what it left and leaves older checkpoints as they are; the next begin may try
 * again, also at the same step. (If all that failed is syncing the final name, the checkpoint stays:
 * it is whole, but does not count as committed.) GIDD_ERR_OUTPUT: the run lock is lost, leave; GIDD_ERR_COMM: leave. Collective. */
gidd_status gidd_checkpoint_advance(gidd_checkpoint_writer *writer);

/* Advances until IDLE, waiting for this rank's work: the final checkpoint, or a second one that
 * finds the first still in flight. GIDD_OK when IDLE already. Collective. */
gidd_status gidd_checkpoint_finish(gidd_checkpoint_writer *writer);

/* Step of the last checkpoint this writer committed, -1 if none yet; the same on all ranks. Local.
 */
int64_t gidd_checkpoint_committed_step(const gidd_checkpoint_writer *writer);

/* ---- reading ----------------------------------------------------------------------------------
 */

typedef struct gidd_checkpoint gidd_checkpoint; /* one opened for reading; opaque */

typedef struct gidd_checkpoint_restore_args {
    gidd_comm *comm;
    int coordinator;
    const char *run_dir;
    gidd_run_lock *lock; /* coordinator's; NULL elsewhere */
} gidd_checkpoint_restore_args;

/* Opens the newest intact checkpoint. The coordinator removes what dead writers left and proposes,
 * newest first; every rank verifies its share of the blocks; all agree; a damaged one is renamed
 * step-N.damaged-K and the next older one is tried. *out_p is NULL when there was none at all:
 * start afresh. GIDD_ERR_CORRUPT: there were some, none intact. GIDD_ERR_IO: one could not be read,
 * which is no proof of damage: nothing is renamed. Collective. */
gidd_status gidd_checkpoint_restore(const gidd_checkpoint_restore_args *args,
                                    gidd_checkpoint **out_p);

/* Opens for tools, without touching anything: `path` is a step directory, or a run directory, of
 * which the newest is taken. The manifest is checked now, blocks when they are read.
 * GIDD_ERR_MISSING: none there. Local. */
gidd_status gidd_checkpoint_open(const char *path, gidd_checkpoint **out_p);

/* NULL-safe. Local. */
void gidd_checkpoint_close(gidd_checkpoint *checkpoint);

/* What it holds. Borrowed until close. Local. */
const gidd_checkpoint_layout *gidd_checkpoint_layout_of(const gidd_checkpoint *checkpoint);
const gidd_checkpoint_fields *gidd_checkpoint_fields_of(const gidd_checkpoint *checkpoint);
const char *gidd_checkpoint_path_of(const gidd_checkpoint *checkpoint);

/* Copies flat elements [first, first + count) of a section into `values` (host memory). Every block
 * on the way is verified: GIDD_ERR_CORRUPT names block and tensor. Local. */
gidd_status gidd_checkpoint_read(gidd_checkpoint *checkpoint, int section, int64_t first,
                                 int64_t count, float *values);

/* Verifies blocks [first, first + count), without stopping at damage: damaged[i] = 1 for each bad
 * block first + i, 0 for good ones. GIDD_ERR_IO when the file cannot be read. Local. */
gidd_status gidd_checkpoint_verify(gidd_checkpoint *checkpoint, int64_t first, int64_t count,
                                   unsigned char *damaged);

/* Writes "block B (bytes X to Y): section S, elements F to L, tensors A to C" into `text`; the ends
 * of ranges are exclusive, of the tensors inclusive. Local. */
void gidd_checkpoint_describe_block(const gidd_checkpoint *checkpoint, int64_t block, char *text,
                                    size_t capacity);

/* ---- the directory ----------------------------------------------------------------------------
 */

typedef enum gidd_checkpoint_kind {
    GIDD_CHECKPOINT_COMPLETE = 0, /* has its final name */
    GIDD_CHECKPOINT_UNFINISHED,   /* step-N.tmp-* */
    GIDD_CHECKPOINT_DAMAGED,      /* step-N.damaged-K */
} gidd_checkpoint_kind;

typedef struct gidd_checkpoint_entry {
    gidd_checkpoint_kind kind;
    int64_t step;
    char name[128]; /* in RUN/checkpoints */
} gidd_checkpoint_entry;

/* Everything in RUN/checkpoints, newest step first; other names are not listed. *entries_p is to be
 * freed with free(). No such directory: zero entries. Local. */
gidd_status gidd_checkpoint_list(const char *run_dir, gidd_checkpoint_entry **entries_p,
                                 int64_t *count_p);

/* Deletes RUN/checkpoints/NAME; one with a final name loses that first, for good, so that nothing that
 * looks whole is left by a crash in the middle. Not there: fine. Holds `lock`. Local. */
gidd_status gidd_checkpoint_remove(const char *run_dir, gidd_run_lock *lock, const char *name);

/* Which of a list's entries the rules do not keep: doomed[i] = 1 for complete ones that are neither
 * among the newest `keep_last` nor at a step divisible by `keep_every`, and for unfinished ones.
 * Damaged ones are evidence and stay. Local. */
void gidd_checkpoint_doom(const gidd_checkpoint_entry *entries, int64_t count, int64_t keep_last,
                          int64_t keep_every, unsigned char *doomed);

/* Deletes complete checkpoints that neither rule keeps (see gidd_checkpoint_writer_args), and
 * unfinished ones; *deleted_p counts them, NULL: not wanted. Holds `lock`. Local. */
gidd_status gidd_checkpoint_prune(const char *run_dir, gidd_run_lock *lock, int64_t keep_last,
                                  int64_t keep_every, int64_t *deleted_p);

#endif
