/* SPDX-License-Identifier: Apache-2.0
 *
 * The writer's work on the disk. Nothing here is collective. */
#include "io/checkpoint_writer.h"

#include "base/fault.h"
#include "base/log.h"
#include "comm/file.h"
#include "io/checkpoint_dir.h"
#include "io/checkpoint_manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What cannot be created now may be possible at the next attempt. GIDD_ERR_OUTPUT is left to mean
// that the run directory is not ours any more.
static gidd_status transient(gidd_status status)
{
    if (status != GIDD_ERR_OUTPUT) {
        return status;
    }
    gidd_error error = *gidd_error_last();
    error.code = GIDD_ERR_IO;
    gidd_error_restore(&error);
    return GIDD_ERR_IO;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

// Notes a piece's checksum if it is a whole block, or that the block is ours to seal if we hold its
// first byte only. A piece that starts inside a block belongs to another rank's, or to an own run
// that ended; either way somebody else has the first byte.
static void note_piece(gidd_checkpoint_writer *writer, int64_t offset, const char *data,
                       int64_t bytes)
{
    int64_t block = offset / GIDD_CHECKPOINT_BLOCK;
    if (offset % GIDD_CHECKPOINT_BLOCK != 0) {
        return;
    }
    if (bytes < GIDD_CHECKPOINT_BLOCK) {
        writer->shared[writer->shared_count++] = block;
        return;
    }
    gidd_block_record *record = &writer->records[writer->record_count++];
    *record = (gidd_block_record){.block = block};
    gidd_digest_of(data, (size_t)bytes, record->digest);
}

// A state with a number that is none would be restored for ever: it is not saved.
static gidd_status check_finite(const gidd_checkpoint_writer *writer, int64_t offset,
                                const char *data, int64_t bytes)
{
    const uint32_t exponent = UINT32_C(0x7f800000);
    uint32_t worst = 0, bits = 0;
    for (int64_t at = 0; at + 4 <= bytes; at += 4) {
        memcpy(&bits, data + at, sizeof bits);
        worst = (bits & exponent) > worst ? bits & exponent : worst;
    }
    if (worst != exponent) {
        return GIDD_OK;
    }
    return gidd_fail(GIDD_ERR_DIVERGED,
                     "%s: bytes %lld to %lld of the state hold a number that is not finite: it is "
                     "not saved",
                     writer->state_path, (long long)offset, (long long)(offset + bytes));
}

static gidd_status write_runs(gidd_checkpoint_writer *writer, gidd_file *file)
{
    for (int64_t i = 0; i < writer->staging.run_count; i++) {
        const gidd_staging_run *run = &writer->staging.runs[i];
        for (int64_t at = 0, bytes = 0; at < run->bytes; at += bytes) {
            bytes = gidd_staging_piece(run, at);
            gidd_fault_point_of(writer->step, "ckpt_write");
            GIDD_TRY(check_finite(writer, run->offset + at, run->data + at, bytes));
            note_piece(writer, run->offset + at, run->data + at, bytes);
            GIDD_TRY(gidd_file_write_at(file, run->offset + at, run->data + at, (size_t)bytes));
        }
    }
    return GIDD_OK;
}

// What the file gives back must be what the memory holds: short and lost writes have been reported
// as success.
static gidd_status compare_runs(gidd_checkpoint_writer *writer, gidd_file *file)
{
    for (int64_t i = 0; i < writer->staging.run_count; i++) {
        const gidd_staging_run *run = &writer->staging.runs[i];
        for (int64_t at = 0, bytes = 0; at < run->bytes; at += bytes) {
            bytes = gidd_staging_piece(run, at);
            gidd_fault_point_of(writer->step, "ckpt_readback");
            GIDD_TRY(gidd_file_read_at(file, run->offset + at, writer->block, (size_t)bytes));
            if (memcmp(writer->block, run->data + at, (size_t)bytes) != 0) {
                return gidd_fail(GIDD_ERR_IO,
                                 "%s: bytes %lld to %lld read back other than they were written",
                                 writer->state_path, (long long)(run->offset + at),
                                 (long long)(run->offset + at + bytes));
            }
        }
    }
    return GIDD_OK;
}

// Closes on every path; the first failure wins.
static gidd_status close_after(gidd_file **file_p, gidd_status status)
{
    const gidd_error before = *gidd_error_last();
    gidd_status closed = gidd_file_close(file_p);
    if (status != GIDD_OK) {
        gidd_error_restore(&before);
        return status;
    }
    return closed;
}

static gidd_status write_part(gidd_checkpoint_writer *writer)
{
    gidd_file *file = NULL;
    int64_t reserved = gidd_checkpoint_state_bytes(&writer->layout);
    writer->record_count = writer->shared_count = 0;
    if (writer->staging.run_count == 0 && !writer->is_coordinator) {
        return GIDD_OK;
    }
    gidd_fault_point_of(writer->step, "ckpt_create");
    // Whoever comes first makes the directory and the file; the coordinator gives it its length.
    GIDD_TRY(transient(gidd_checkpoint_make_dir(writer->tmp_path)));
    GIDD_TRY(transient(
        gidd_file_create(writer->state_path, writer->is_coordinator ? reserved : 0, &file)));
    gidd_status status = write_runs(writer, file);
    if (status == GIDD_OK) {
        gidd_fault_point_of(writer->step, "ckpt_sync");
        status = gidd_file_sync(file);
    }
    GIDD_TRY(close_after(&file, status));
    if (writer->verify_after_write && writer->staging.run_count > 0) {
        GIDD_TRY(gidd_file_open(writer->state_path, &file));
        GIDD_TRY(close_after(&file, compare_runs(writer, file)));
    }
    return GIDD_OK;
}

/* ---- blocks of several ranks ------------------------------------------------------------------
 */

static gidd_status seal_blocks(gidd_checkpoint_writer *writer)
{
    gidd_file *file = NULL;
    gidd_status status = GIDD_OK;
    GIDD_TRY(gidd_file_open(writer->state_path, &file));
    for (int64_t i = 0; i < writer->shared_count && status == GIDD_OK; i++) {
        int64_t block = writer->shared[i];
        gidd_fault_point_of(writer->step, "ckpt_seal");
        status = gidd_file_read_at(file, block * GIDD_CHECKPOINT_BLOCK, writer->block,
                                   (size_t)GIDD_CHECKPOINT_BLOCK);
        gidd_block_record *record = &writer->records[writer->record_count++];
        *record = (gidd_block_record){.block = block};
        gidd_digest_of(writer->block, (size_t)GIDD_CHECKPOINT_BLOCK, record->digest);
    }
    return close_after(&file, status);
}

/* ---- commit -----------------------------------------------------------------------------------
 */

static gidd_status write_manifest(gidd_checkpoint_writer *writer)
{
    char *text = NULL, *path = gidd_checkpoint_join(writer->tmp_path, "manifest.json");
    size_t bytes = 0;
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
    }
    gidd_status status = gidd_manifest_encode(
        writer->root, writer->digests, gidd_checkpoint_block_count(&writer->layout), &text, &bytes);
    if (status == GIDD_OK) {
        gidd_fault_point_of(writer->step, "ckpt_manifest");
        status = transient(gidd_checkpoint_write_file(path, text, bytes));
    }
    free(text);
    free(path);
    return status;
}

// On a network file system a rename can be done and still be reported as failed.
static int was_renamed(const char *from, const char *to)
{
    char *manifest = gidd_checkpoint_join(to, "manifest.json");
    int done = manifest != NULL && access(from, F_OK) != 0 && errno == ENOENT &&
               access(manifest, F_OK) == 0;
    free(manifest);
    return done;
}

// An earlier attempt at this step got its name, but could not sync it, and counted as failed.
static int is_there_already(const char *from, const char *to)
{
    char *paths[2] = {gidd_checkpoint_join(from, "manifest.json"),
                      gidd_checkpoint_join(to, "manifest.json")};
    char digests[2][GIDD_DIGEST_SIZE];
    size_t bytes = 0;
    int same = paths[0] != NULL && paths[1] != NULL &&
               gidd_digest_file(paths[0], digests[0], &bytes) == GIDD_OK &&
               gidd_digest_file(paths[1], digests[1], &bytes) == GIDD_OK &&
               strcmp(digests[0], digests[1]) == 0;
    free(paths[0]);
    free(paths[1]);
    return same;
}

// Gives the finished directory its final name.
static gidd_status take_name(gidd_checkpoint_writer *writer, const char *final_path)
{
    if (rename(writer->tmp_path, final_path) == 0) {
        return GIDD_OK;
    }
    int reason = errno;
    if (was_renamed(writer->tmp_path, final_path)) {
        return GIDD_OK;
    }
    if (is_there_already(writer->tmp_path, final_path)) {
        return gidd_checkpoint_remove(writer->run_dir, writer->lock,
                                      strrchr(writer->tmp_path, '/') + 1);
    }
    return gidd_fail(GIDD_ERR_IO, "cannot rename %s to %s: %s", writer->tmp_path, final_path,
                     strerror(reason));
}

static gidd_status rename_to_final(gidd_checkpoint_writer *writer, const char *folder)
{
    char name[64], *final_path = NULL;
    gidd_status status = GIDD_OK;
    (void)snprintf(name, sizeof name, "step-%09lld", (long long)writer->step);
    final_path = gidd_checkpoint_join(folder, name);
    if (final_path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
    }
    gidd_fault_point_of(writer->step, "ckpt_sync_tmp");
    GIDD_TRY_GOTO(gidd_checkpoint_sync_dir(writer->tmp_path));
    GIDD_TRY_GOTO(gidd_run_lock_check(writer->lock));
    gidd_fault_point_of(writer->step, "ckpt_rename");
    GIDD_TRY_GOTO(take_name(writer, final_path));
    gidd_fault_point_of(writer->step, "ckpt_fsync_dir");
    status = gidd_checkpoint_sync_dir(folder);
out:
    free(final_path);
    return status;
}

static gidd_status commit(gidd_checkpoint_writer *writer)
{
    char *folder = gidd_checkpoint_join(writer->run_dir, "checkpoints");
    if (folder == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
    }
    gidd_status status = write_manifest(writer);
    if (status == GIDD_OK) {
        status = rename_to_final(writer, folder);
    }
    free(folder);
    if (status == GIDD_OK && gidd_checkpoint_prune(writer->run_dir, writer->lock, writer->keep_last,
                                                   writer->keep_every, NULL) != GIDD_OK) {
        gidd_log(GIDD_LOG_WARN, "checkpoint", "old checkpoints stay: %s", gidd_error_last()->text);
    }
    return status;
}

static gidd_status abandon(gidd_checkpoint_writer *writer)
{
    const char *name = writer->tmp_path != NULL ? strrchr(writer->tmp_path, '/') + 1 : NULL;
    if (name != NULL && gidd_checkpoint_remove(writer->run_dir, writer->lock, name) != GIDD_OK) {
        gidd_log(GIDD_LOG_WARN, "checkpoint", "%s stays: %s", name, gidd_error_last()->text);
    }
    return GIDD_OK; // the next start sweeps it; the failure that matters is the one that led here
}

gidd_status gidd_checkpoint_job(gidd_checkpoint_writer *writer, gidd_writer_job job)
{
    switch (job) {
    case GIDD_JOB_PREPARE:
        return gidd_staging_prepare(&writer->staging, writer->staging_bytes);
    case GIDD_JOB_WRITE:
        return write_part(writer);
    case GIDD_JOB_SEAL:
        return seal_blocks(writer);
    case GIDD_JOB_COMMIT:
        return commit(writer);
    case GIDD_JOB_ABANDON:
        return abandon(writer);
    case GIDD_JOB_NONE:
    case GIDD_JOB_STOP:
        break;
    }
    return GIDD_OK;
}
