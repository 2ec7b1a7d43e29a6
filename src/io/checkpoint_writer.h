/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the checkpoint: the writer's state. checkpoint_writer.c holds the life of an attempt
 * and everything collective; checkpoint_job.c holds what touches the disk, on the writer's thread.
 */
#ifndef GIDD_IO_CHECKPOINT_WRITER_H
#define GIDD_IO_CHECKPOINT_WRITER_H

#include "io/checkpoint.h"
#include "io/checkpoint_staging.h"

#include <jansson.h>
#include <pthread.h>

/* The checksum of one block, on its way to the coordinator. */
typedef struct gidd_block_record {
    int64_t block;
    char digest[GIDD_DIGEST_SIZE + 7]; /* rounded up, so that no byte is left undefined */
} gidd_block_record;

typedef enum gidd_writer_job {
    GIDD_JOB_NONE = 0,
    GIDD_JOB_PREPARE, /* staging memory, once */
    GIDD_JOB_WRITE,   /* this rank's runs; checksums of the blocks it has whole */
    GIDD_JOB_SEAL,    /* checksums of blocks shared with other ranks, read back */
    GIDD_JOB_COMMIT,  /* coordinator: manifest, rename, prune */
    GIDD_JOB_ABANDON, /* coordinator: remove what a failed attempt left */
    GIDD_JOB_STOP,    /* end the thread */
} gidd_writer_job;

struct gidd_checkpoint_writer {
    gidd_comm *comm; /* owned */
    int is_coordinator, coordinator;
    char *run_dir;
    gidd_run_lock *lock;
    gidd_checkpoint_layout layout; /* tensors owned */
    int64_t keep_last, keep_every;
    int verify_after_write;
    gidd_staging_copy copy;
    void *copy_context;
    size_t staging_bytes; /* to prepare */
    char token[GIDD_RUN_LOCK_TOKEN_SIZE];

    /* The attempt: set by the main thread between jobs, used by jobs. */
    int64_t attempt; /* begins so far: no two attempts share a directory */
    int64_t step;
    int64_t committed_step;
    gidd_writer_job stage; /* WRITE, SEAL, COMMIT; NONE: idle. The same on all ranks */
    char *tmp_path, *state_path;
    json_t *root; /* coordinator: the manifest but for its checksums */
    gidd_staging staging;
    gidd_block_record *records; /* [block_count] checksums this rank made */
    int64_t record_count;
    int64_t *shared; /* [block_count] blocks to seal: ours by their first byte */
    int64_t shared_count;
    char (*digests)[GIDD_DIGEST_SIZE]; /* [block_count] coordinator: all of them */
    char *block;                       /* scratch of one block */

    /* The thread, if there is one. */
    int background, thread_runs;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    gidd_writer_job job; /* under mutex; NONE: the thread waits */
    gidd_status result;  /* under mutex; of the last job */
    gidd_error error;    /* under mutex; its story */
};

/* Does `job` and returns its outcome. On the writer's thread, or inline without one. Local. */
gidd_status gidd_checkpoint_job(gidd_checkpoint_writer *writer, gidd_writer_job job);

#endif
