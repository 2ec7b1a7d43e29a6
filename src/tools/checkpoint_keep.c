/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/checkpoint_keep.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MAX = 64, PATH_SIZE = 4096 };

static gidd_status step_path(const char *run_dir, const char *name, char path[PATH_SIZE])
{
    int length = snprintf(path, PATH_SIZE, "%s/checkpoints/%s", run_dir, name);
    return length < PATH_SIZE ? GIDD_OK : gidd_fail(GIDD_ERR_USAGE, "the path %s is too long", run_dir);
}

/* ---- reading, by threads ------------------------------------------------------------------------ */

// One thread's part of the blocks. Every thread has the checkpoint open for itself.
typedef struct reading {
    gidd_checkpoint *checkpoint;
    int64_t first, count;
    unsigned char *damaged; // [count]
    pthread_t thread;
    int runs;
    gidd_status status;
    gidd_error error;
} reading;

static void *read_part(void *context)
{
    reading *r = context;
    r->status = gidd_checkpoint_verify(r->checkpoint, r->first, r->count, r->damaged);
    r->error = *gidd_error_last();
    return NULL;
}

// Opens for all threads first: files are opened and closed by one thread at a time.
static gidd_status open_parts(const char *path, int64_t first, int64_t count, unsigned char *damaged, reading *parts,
                              int threads)
{
    for (int i = 0; i < threads; i++) {
        int64_t begin = count * i / threads, end = count * (i + 1) / threads;
        parts[i].first = first + begin;
        parts[i].count = end - begin;
        parts[i].damaged = damaged + begin;
        GIDD_TRY(gidd_checkpoint_open(path, &parts[i].checkpoint));
    }
    return GIDD_OK;
}

static gidd_status verify_blocks(const char *path, int64_t first, int64_t count, int threads, unsigned char *damaged)
{
    reading parts[THREADS_MAX];
    memset(parts, 0, sizeof parts);
    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    threads = count < threads ? (int)count : threads;
    gidd_status status = open_parts(path, first, count, damaged, parts, threads);
    for (int i = 0; i < threads && status == GIDD_OK; i++) {
        parts[i].runs = i > 0 && pthread_create(&parts[i].thread, NULL, read_part, &parts[i]) == 0;
    }
    for (int i = 0; i < threads && status == GIDD_OK; i++) {
        if (!parts[i].runs) { // the first part, and those no thread could be had for
            (void)read_part(&parts[i]);
        }
    }
    for (int i = 0; i < threads; i++) {
        if (parts[i].runs) {
            (void)pthread_join(parts[i].thread, NULL);
        }
        gidd_checkpoint_close(parts[i].checkpoint);
        if (status == GIDD_OK && parts[i].status != GIDD_OK) {
            status = parts[i].status;
            gidd_error_restore(&parts[i].error);
        }
    }
    return status;
}

/* ---- verify ------------------------------------------------------------------------------------- */

// Rank 0: a line for the checkpoint, and one for each damaged block. Returns how many there are.
static int64_t print_verdict(const gidd_checkpoint *checkpoint, const unsigned char *damaged, int size)
{
    int64_t blocks = gidd_checkpoint_block_count(gidd_checkpoint_layout_of(checkpoint)), bad = 0;
    char text[512];
    for (int64_t block = 0; block < blocks; block++) {
        bad += damaged[block];
    }
    printf("%s: %s, %" PRId64 " of %" PRId64 " blocks good\n", gidd_checkpoint_path_of(checkpoint),
           bad == 0 ? "intact" : "damaged", blocks - bad, blocks);
    for (int64_t block = 0, rank = 0; block < blocks; block++) {
        while (block >= blocks * (rank + 1) / size) {
            rank++;
        }
        if (damaged[block]) {
            gidd_checkpoint_describe_block(checkpoint, block, text, sizeof text);
            printf("  damaged %s (found by rank %" PRId64 ")\n", text, rank);
        }
    }
    return bad;
}

// All ranks read their share of the blocks. *damaged_p: set to 1 on rank 0 if any is bad. Collective.
static gidd_status verify_shares(gidd_comm *comm, gidd_checkpoint *checkpoint, int threads, int *damaged_p)
{
    int rank = gidd_comm_rank(comm), size = gidd_comm_size(comm);
    int64_t blocks = gidd_checkpoint_block_count(gidd_checkpoint_layout_of(checkpoint));
    int64_t first = blocks * rank / size, count = blocks * (rank + 1) / size - first;
    unsigned char *mine = calloc((size_t)count + 1, 1), *all = calloc((size_t)blocks + 1, 1);
    gidd_status status = mine != NULL && all != NULL
                             ? verify_blocks(gidd_checkpoint_path_of(checkpoint), first, count, threads, mine)
                             : gidd_fail(GIDD_ERR_NOMEM, "out of memory for %" PRId64 " blocks", blocks);
    GIDD_TRY_GOTO(gidd_comm_agree(comm, status));
    GIDD_TRY_GOTO(gidd_comm_gatherv(comm, 0, mine, (size_t)count, all, (size_t)blocks, NULL));
    if (rank == 0 && print_verdict(checkpoint, all, size) > 0) {
        *damaged_p = 1;
    }
out:
    free(mine);
    free(all);
    return status;
}

// Damage goes to *damaged_p; a status is a failure to look. `named`: it has a final name, so that what is
// missing is damage too. Collective.
static gidd_status verify_one(const gidd_keep_args *args, gidd_comm *comm, const char *path, int named, int *damaged_p)
{
    gidd_checkpoint *checkpoint = NULL;
    gidd_status status = gidd_comm_agree(comm, gidd_checkpoint_open(path, &checkpoint));
    if (status == GIDD_OK) {
        status = verify_shares(comm, checkpoint, args->threads, damaged_p);
    } else if (status == GIDD_ERR_CORRUPT || (named && status == GIDD_ERR_MISSING)) {
        if (gidd_comm_rank(comm) == 0) {
            printf("%s: damaged: %s\n", path, gidd_error_last()->text);
        }
        *damaged_p = 1;
        status = GIDD_OK;
    }
    gidd_checkpoint_close(checkpoint);
    return status;
}

// Rank 0's list of a run directory, given to all; a step directory gives none. Collective.
static gidd_status share_entries(gidd_comm *comm, const char *path, gidd_checkpoint_entry **entries_p, int64_t *count_p)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0;
    gidd_status status = gidd_comm_rank(comm) == 0 ? gidd_checkpoint_list(path, &entries, &count) : GIDD_OK;
    GIDD_TRY(gidd_comm_agree(comm, status));
    GIDD_TRY_GOTO(gidd_comm_bcast(comm, 0, &count, sizeof count));
    if (gidd_comm_rank(comm) != 0) {
        entries = calloc((size_t)count + 1, sizeof *entries);
        status = entries != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "out of memory for a list");
    }
    GIDD_TRY_GOTO(gidd_comm_agree(comm, status));
    GIDD_TRY_GOTO(gidd_comm_bcast(comm, 0, entries, (size_t)count * sizeof *entries));
    *entries_p = entries;
    *count_p = count;
    return GIDD_OK;
out:
    free(entries);
    return status;
}

gidd_status gidd_keep_verify(const gidd_keep_args *args, gidd_comm *comm)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, looked = 0;
    int damaged = 0;
    gidd_status status = GIDD_OK;
    GIDD_TRY(share_entries(comm, args->path, &entries, &count));
    for (int64_t i = 0; i < count && status == GIDD_OK; i++) {
        char path[PATH_SIZE];
        if (entries[i].kind == GIDD_CHECKPOINT_COMPLETE) {
            status = step_path(args->path, entries[i].name, path);
            status = status == GIDD_OK ? verify_one(args, comm, path, 1, &damaged) : status;
            looked++;
        }
    }
    free(entries);
    if (status == GIDD_OK && looked == 0) { // no run directory, or an empty one
        status = verify_one(args, comm, args->path, 0, &damaged);
    }
    if (status == GIDD_OK && damaged) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s: damage was found", args->path);
    }
    return status;
}

/* ---- prune -------------------------------------------------------------------------------------- */

// Whether a checkpoint is whole, every byte read.
static gidd_status is_whole(const gidd_keep_args *args, const char *name, int *whole_p)
{
    char path[PATH_SIZE];
    gidd_checkpoint *checkpoint = NULL;
    GIDD_TRY(step_path(args->path, name, path));
    gidd_status status = gidd_checkpoint_open(path, &checkpoint);
    *whole_p = 0;
    if (status == GIDD_ERR_CORRUPT || status == GIDD_ERR_MISSING) {
        return GIDD_OK;
    }
    GIDD_TRY(status);
    int64_t blocks = gidd_checkpoint_block_count(gidd_checkpoint_layout_of(checkpoint));
    gidd_checkpoint_close(checkpoint);
    unsigned char *damaged = calloc((size_t)blocks, 1);
    status = damaged != NULL ? verify_blocks(path, 0, blocks, args->threads, damaged)
                             : gidd_fail(GIDD_ERR_NOMEM, "out of memory for %" PRId64 " blocks", blocks);
    *whole_p = status == GIDD_OK && memchr(damaged, 1, (size_t)blocks) == NULL;
    free(damaged);
    return status;
}

// Makes sure that a whole one stays: of those that the rules keep, else of the others, the newest.
static gidd_status spare_a_whole_one(const gidd_keep_args *args, const gidd_checkpoint_entry *entries, int64_t count,
                                     unsigned char *doomed)
{
    for (int among = 0; among < 2; among++) {
        for (int64_t i = 0; i < count; i++) {
            int whole = 0;
            if (entries[i].kind != GIDD_CHECKPOINT_COMPLETE || doomed[i] != among) {
                continue;
            }
            GIDD_TRY(is_whole(args, entries[i].name, &whole));
            if (whole) {
                printf("%s is whole%s\n", entries[i].name, among ? " and stays: those that the rules keep are damaged" : "");
                doomed[i] = 0;
                return GIDD_OK;
            }
            printf("%s is damaged\n", entries[i].name);
        }
    }
    return gidd_fail(GIDD_ERR_CORRUPT, "%s: no checkpoint there is whole: nothing was deleted", args->path);
}

static gidd_status delete_doomed(const gidd_keep_args *args, gidd_run_lock *lock, const gidd_checkpoint_entry *entries,
                                 int64_t count, const unsigned char *doomed)
{
    int64_t deleted = 0;
    for (int64_t i = 0; i < count; i++) {
        if (doomed[i]) {
            if (!args->dry_run) {
                GIDD_TRY(gidd_checkpoint_remove(args->path, lock, entries[i].name));
            }
            printf("%s %s\n", entries[i].name, args->dry_run ? "would be deleted" : "deleted");
            deleted++;
        }
    }
    printf("%" PRId64 " checkpoints %s\n", deleted, args->dry_run ? "would be deleted" : "deleted");
    return GIDD_OK;
}

static gidd_status prune_entries(const gidd_keep_args *args, gidd_run_lock *lock)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0;
    GIDD_TRY(gidd_checkpoint_list(args->path, &entries, &count));
    unsigned char *doomed = calloc((size_t)count + 1, 1);
    gidd_status status = doomed != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "out of memory for a list");
    if (status == GIDD_OK && count == 0) {
        status = gidd_fail(GIDD_ERR_MISSING, "no checkpoint in %s", args->path);
    }
    if (status == GIDD_OK) {
        gidd_checkpoint_doom(entries, count, args->keep_last, args->keep_every, doomed);
        status = spare_a_whole_one(args, entries, count, doomed);
    }
    if (status == GIDD_OK) {
        status = delete_doomed(args, lock, entries, count, doomed);
    }
    free(doomed);
    free(entries);
    return status;
}

gidd_status gidd_keep_prune(const gidd_keep_args *args)
{
    gidd_run_lock *lock = NULL;
    if (!args->dry_run) {
        GIDD_TRY(gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = args->path}, &lock));
    }
    gidd_status status = prune_entries(args, lock);
    gidd_run_lock_release(lock);
    return status;
}
