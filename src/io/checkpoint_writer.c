/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a checkpoint being written. Stages are the same on all ranks and change only in
 * gidd_checkpoint_advance; within a stage each rank has at most one job, done by its thread. */
#include "io/checkpoint_writer.h"

#include "base/fault.h"
#include "base/log.h"
#include "io/checkpoint_dir.h"
#include "io/checkpoint_manifest.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the thread -------------------------------------------------------------------------------
 */

static void *work(void *argument)
{
    gidd_checkpoint_writer *writer = argument;
    (void)pthread_mutex_lock(&writer->mutex);
    while (writer->job != GIDD_JOB_STOP) {
        if (writer->job == GIDD_JOB_NONE) {
            (void)pthread_cond_wait(&writer->changed, &writer->mutex);
            continue;
        }
        gidd_writer_job job = writer->job;
        (void)pthread_mutex_unlock(&writer->mutex);
        gidd_status result = gidd_checkpoint_job(writer, job);
        (void)pthread_mutex_lock(&writer->mutex);
        writer->result = result;
        writer->error = *gidd_error_last();
        writer->job = GIDD_JOB_NONE;
        (void)pthread_cond_broadcast(&writer->changed);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

static gidd_status start_thread(gidd_checkpoint_writer *writer)
{
    sigset_t all, old; // signals are the main thread's business
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int code = pthread_create(&writer->thread, NULL, work, writer);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    writer->thread_runs = code == 0;
    return code == 0 ? GIDD_OK
                     : gidd_fail(GIDD_ERR_NOMEM, "no thread for checkpoints: %s", strerror(code));
}

// The outcome of the rank's part in this stage, with its story if it failed. Waits for the thread.
static gidd_status await_job(gidd_checkpoint_writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    while (writer->job != GIDD_JOB_NONE) {
        (void)pthread_cond_wait(&writer->changed, &writer->mutex);
    }
    gidd_status result = writer->result;
    if (result != GIDD_OK) {
        gidd_error_restore(&writer->error);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
    return result;
}

static void set_result(gidd_checkpoint_writer *writer, gidd_status result)
{
    (void)pthread_mutex_lock(&writer->mutex);
    writer->result = result;
    writer->error = *gidd_error_last();
    (void)pthread_mutex_unlock(&writer->mutex);
}

static void start_job(gidd_checkpoint_writer *writer, gidd_writer_job job)
{
    if (!writer->background || job == GIDD_JOB_NONE) {
        set_result(writer, gidd_checkpoint_job(writer, job));
        return;
    }
    (void)pthread_mutex_lock(&writer->mutex);
    writer->job = job;
    writer->result = GIDD_OK;
    (void)pthread_cond_broadcast(&writer->changed);
    (void)pthread_mutex_unlock(&writer->mutex);
}

/* ---- create and destroy -----------------------------------------------------------------------
 */

static gidd_status allocate_writer(gidd_checkpoint_writer *writer,
                                   const gidd_checkpoint_writer_args *args)
{
    size_t blocks = (size_t)gidd_checkpoint_block_count(args->layout);
    size_t tensors = (size_t)args->layout->tensor_count;
    writer->run_dir = strdup(args->run_dir);
    writer->layout = *args->layout;
    writer->layout.tensors = malloc(tensors * sizeof *writer->layout.tensors);
    writer->records = calloc(blocks, sizeof *writer->records);
    writer->shared = calloc(blocks, sizeof *writer->shared);
    writer->block = malloc((size_t)GIDD_CHECKPOINT_BLOCK);
    if (writer->is_coordinator) {
        writer->digests = calloc(blocks, sizeof *writer->digests);
    }
    if (writer->run_dir == NULL || writer->layout.tensors == NULL || writer->records == NULL ||
        writer->shared == NULL || writer->block == NULL ||
        (writer->is_coordinator && writer->digests == NULL)) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a checkpoint of %zu blocks", blocks);
    }
    memcpy(writer->layout.tensors, args->layout->tensors, tensors * sizeof *writer->layout.tensors);
    return GIDD_OK;
}

// The rank's own half of create.
static gidd_status prepare_writer(gidd_checkpoint_writer *writer,
                                  const gidd_checkpoint_writer_args *args)
{
    GIDD_TRY(allocate_writer(writer, args));
    if (writer->is_coordinator) {
        GIDD_ASSERT(args->lock != NULL && args->keep_last >= 1);
        char *folder = gidd_checkpoint_join(writer->run_dir, "checkpoints");
        if (folder == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
        }
        gidd_status status = gidd_checkpoint_make_dir(folder);
        if (status == GIDD_OK) { // its own name must last too, not only the names in it
            status = gidd_checkpoint_sync_dir(writer->run_dir);
        }
        free(folder);
        GIDD_TRY(status);
        memcpy(writer->token, gidd_run_lock_token(args->lock), sizeof writer->token);
    }
    return args->background ? start_thread(writer) : GIDD_OK;
}

gidd_status gidd_checkpoint_writer_create(const gidd_checkpoint_writer_args *args,
                                          gidd_checkpoint_writer **out_p)
{
    gidd_checkpoint_writer *writer = calloc(1, sizeof *writer);
    gidd_status status = GIDD_OK;
    if (writer == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for a checkpoint writer");
    } else {
        writer->coordinator = args->coordinator;
        writer->is_coordinator = gidd_comm_rank(args->comm) == args->coordinator;
        writer->lock = args->lock;
        writer->keep_last = args->keep_last;
        writer->keep_every = args->keep_every;
        writer->verify_after_write = args->verify_after_write;
        writer->background = args->background;
        writer->copy = args->copy;
        writer->copy_context = args->copy_context;
        writer->staging_bytes = (size_t)args->staging_bytes;
        writer->committed_step = -1;
        (void)pthread_mutex_init(&writer->mutex, NULL);
        (void)pthread_cond_init(&writer->changed, NULL);
        status = prepare_writer(writer, args);
    }
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    GIDD_TRY_GOTO(gidd_comm_dup(args->comm, &writer->comm));
    GIDD_TRY_GOTO(
        gidd_comm_bcast(writer->comm, args->coordinator, writer->token, sizeof writer->token));
    start_job(writer, writer->staging_bytes > 0 ? GIDD_JOB_PREPARE : GIDD_JOB_NONE);
    *out_p = writer;
    return GIDD_OK;
out:
    gidd_checkpoint_writer_destroy(writer);
    return status;
}

static void end_attempt(gidd_checkpoint_writer *writer)
{
    writer->stage = GIDD_JOB_NONE;
    json_decref(writer->root);
    writer->root = NULL;
}

void gidd_checkpoint_writer_destroy(gidd_checkpoint_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (writer->thread_runs) {
        (void)pthread_mutex_lock(&writer->mutex);
        while (writer->job != GIDD_JOB_NONE) {
            (void)pthread_cond_wait(&writer->changed, &writer->mutex);
        }
        writer->job = GIDD_JOB_STOP;
        (void)pthread_cond_broadcast(&writer->changed);
        (void)pthread_mutex_unlock(&writer->mutex);
        (void)pthread_join(writer->thread, NULL);
    }
    end_attempt(writer);
    gidd_comm_destroy(writer->comm);
    gidd_staging_release(&writer->staging);
    (void)pthread_cond_destroy(&writer->changed);
    (void)pthread_mutex_destroy(&writer->mutex);
    free(writer->layout.tensors);
    free(writer->run_dir);
    free(writer->tmp_path);
    free(writer->state_path);
    free(writer->records);
    free(writer->shared);
    free(writer->digests);
    free(writer->block);
    free(writer);
}

/* ---- begin ------------------------------------------------------------------------------------
 */

// Every attempt has a directory of its own, so that nothing of a failed one can get into the next.
static gidd_status name_attempt(gidd_checkpoint_writer *writer)
{
    free(writer->tmp_path);
    free(writer->state_path);
    writer->tmp_path = writer->state_path = NULL;
    if (asprintf(&writer->tmp_path, "%s/checkpoints/step-%09lld.tmp-%s-%lld", writer->run_dir,
                 (long long)writer->step, writer->token, (long long)writer->attempt) < 0) {
        writer->tmp_path = NULL;
    } else {
        writer->state_path = gidd_checkpoint_join(writer->tmp_path, "state.bin");
    }
    return writer->state_path != NULL ? GIDD_OK
                                      : gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
}

static gidd_status prepare_attempt(gidd_checkpoint_writer *writer,
                                   const gidd_checkpoint_fields *fields,
                                   const gidd_checkpoint_extent *extents, int64_t extent_count)
{
    GIDD_TRY(name_attempt(writer));
    if (writer->is_coordinator) {
        GIDD_TRY(gidd_manifest_build(&writer->layout, fields, &writer->root));
    }
    return gidd_staging_fill(&writer->staging, &writer->layout, extents, extent_count, writer->copy,
                             writer->copy_context);
}

void gidd_checkpoint_begin(gidd_checkpoint_writer *writer, int64_t step,
                           const gidd_checkpoint_fields *fields,
                           const gidd_checkpoint_extent *extents, int64_t extent_count)
{
    GIDD_ASSERT(writer->stage == GIDD_JOB_NONE);
    GIDD_ASSERT(!writer->is_coordinator || (fields != NULL && fields->step == step));
    (void)await_job(writer); // memory being prepared, or a failed attempt being removed
    writer->step = step;
    writer->attempt++;
    writer->stage = GIDD_JOB_WRITE;
    gidd_status status = prepare_attempt(writer, fields, extents, extent_count);
    if (status == GIDD_OK) {
        start_job(writer, GIDD_JOB_WRITE);
    } else {
        set_result(writer, status); // FAILED until advance tells everybody
    }
}

gidd_status gidd_checkpoint_amend(gidd_checkpoint_writer *writer,
                                  const gidd_checkpoint_amendment *amendment)
{
    // a commit that runs reads the manifest; before it no job does
    int open = writer->stage == GIDD_JOB_WRITE || writer->stage == GIDD_JOB_SEAL;
    return open && writer->root != NULL ? gidd_manifest_amend(writer->root, amendment) : GIDD_OK;
}

gidd_checkpoint_state gidd_checkpoint_writer_state(gidd_checkpoint_writer *writer)
{
    if (writer->stage == GIDD_JOB_NONE) {
        return GIDD_CHECKPOINT_IDLE;
    }
    (void)pthread_mutex_lock(&writer->mutex);
    gidd_checkpoint_state state = writer->job != GIDD_JOB_NONE ? GIDD_CHECKPOINT_WRITING
                                  : writer->result == GIDD_OK  ? GIDD_CHECKPOINT_DONE
                                                               : GIDD_CHECKPOINT_FAILED;
    (void)pthread_mutex_unlock(&writer->mutex);
    return state;
}

/* ---- advance ----------------------------------------------------------------------------------
 */

// Coordinator: every block has exactly one checksum.
static gidd_status sort_records(gidd_checkpoint_writer *writer, const gidd_block_record *all,
                                int64_t count)
{
    int64_t blocks = gidd_checkpoint_block_count(&writer->layout);
    memset(writer->digests, 0, (size_t)blocks * sizeof *writer->digests);
    for (int64_t i = 0; i < count; i++) {
        if (all[i].block < 0 || all[i].block >= blocks ||
            writer->digests[all[i].block][0] != '\0') {
            return gidd_fail(GIDD_ERR_ARG, "block %lld of the checkpoint was written twice",
                             (long long)all[i].block);
        }
        memcpy(writer->digests[all[i].block], all[i].digest, GIDD_DIGEST_SIZE);
    }
    for (int64_t block = 0; block < blocks; block++) {
        if (writer->digests[block][0] == '\0') {
            return gidd_fail(GIDD_ERR_ARG, "block %lld of the checkpoint was written by no rank",
                             (long long)block);
        }
    }
    return GIDD_OK;
}

// All elements were given, and the coordinator has the checksums of all blocks. Collective.
static gidd_status gather_records(gidd_checkpoint_writer *writer)
{
    int64_t elements = writer->staging.elements;
    int64_t wanted = writer->layout.elements * writer->layout.section_count;
    size_t capacity = 0, mine = (size_t)writer->record_count * sizeof(gidd_block_record);
    gidd_block_record *all = NULL;
    gidd_status status = GIDD_OK;
    GIDD_TRY(gidd_comm_allreduce_int64(writer->comm, &elements, 1, GIDD_COMM_SUM));
    if (elements != wanted) {
        return gidd_fail(GIDD_ERR_ARG, "the ranks gave %lld of %lld elements to the checkpoint",
                         (long long)elements, (long long)wanted);
    }
    if (writer->is_coordinator) {
        capacity = (size_t)gidd_checkpoint_block_count(&writer->layout) * sizeof *all;
        all = malloc(capacity);
        status = all != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "out of memory for checksums");
    }
    GIDD_TRY_GOTO(gidd_comm_agree(writer->comm, status));
    GIDD_TRY_GOTO(gidd_comm_gatherv(writer->comm, writer->coordinator, writer->records, mine, all,
                                    capacity, NULL));
    int64_t count = writer->record_count;
    GIDD_TRY_GOTO(gidd_comm_allreduce_int64(writer->comm, &count, 1, GIDD_COMM_SUM));
    if (writer->is_coordinator) {
        status = sort_records(writer, all, count);
    }
    status = gidd_comm_agree(writer->comm, status);
out:
    free(all);
    return status;
}

// Every rank is through its part of the stage: what comes next? Collective.
static gidd_status next_stage(gidd_checkpoint_writer *writer)
{
    if (writer->stage == GIDD_JOB_COMMIT) {
        gidd_fault_point_of(writer->step, "ckpt_committed");
        writer->committed_step = writer->step;
        end_attempt(writer);
        return GIDD_OK;
    }
    int64_t shared = writer->stage == GIDD_JOB_WRITE ? writer->shared_count : 0;
    GIDD_TRY(gidd_comm_allreduce_int64(writer->comm, &shared, 1, GIDD_COMM_MAX));
    if (shared > 0) {
        writer->stage = GIDD_JOB_SEAL;
        start_job(writer, writer->shared_count > 0 ? GIDD_JOB_SEAL : GIDD_JOB_NONE);
        return GIDD_OK;
    }
    gidd_fault_point_of(writer->step, "ckpt_gather");
    GIDD_TRY(gather_records(writer));
    writer->stage = GIDD_JOB_COMMIT;
    start_job(writer, writer->is_coordinator ? GIDD_JOB_COMMIT : GIDD_JOB_NONE);
    return GIDD_OK;
}

gidd_status gidd_checkpoint_advance(gidd_checkpoint_writer *writer)
{
    if (writer->stage == GIDD_JOB_NONE) {
        return GIDD_OK;
    }
    gidd_status status = gidd_comm_agree(writer->comm, await_job(writer));
    if (status == GIDD_OK) {
        status = next_stage(writer);
    }
    if (status != GIDD_OK) {
        const gidd_error story = *gidd_error_last();
        end_attempt(writer);
        start_job(writer, writer->is_coordinator ? GIDD_JOB_ABANDON : GIDD_JOB_NONE);
        gidd_error_restore(&story);
    }
    return status;
}

gidd_status gidd_checkpoint_finish(gidd_checkpoint_writer *writer)
{
    while (writer->stage != GIDD_JOB_NONE) {
        GIDD_TRY(gidd_checkpoint_advance(writer));
    }
    return GIDD_OK;
}

int64_t gidd_checkpoint_committed_step(const gidd_checkpoint_writer *writer)
{
    return writer->committed_step;
}
