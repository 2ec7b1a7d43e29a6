/* SPDX-License-Identifier: Apache-2.0 */
#include "storage_fixture.h"

#include "io/shard_files.h"

#include <ftw.h>
#include <sys/statvfs.h>
#include <unistd.h>

const char *storage_place(void)
{
    struct statvfs info;
    const char *fallback = getenv("TMPDIR");
    if (access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &info) == 0 &&
        (double)info.f_bavail * (double)info.f_frsize > 512e6) {
        return "/dev/shm";
    }
    return fallback != NULL ? fallback : "/tmp";
}

uint64_t storage_random(uint64_t number)
{
    const char *seed = getenv("GIDD_TEST_SEED");
    uint64_t x = number * 0x9e3779b97f4a7c15u + (seed != NULL ? strtoull(seed, NULL, 10) : 1u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static gidd_status open_writer(storage *s)
{
    return gidd_checkpoint_writer_create(
        &(gidd_checkpoint_writer_args){.comm = s->comm,
                                       .run_dir = s->run_dir,
                                       .lock = s->lock,
                                       .layout = &s->state.layout,
                                       .keep_last = 2,
                                       .verify_after_write = 1,
                                       .background = 1},
        &s->writer);
}

gidd_status storage_open_at(storage *s, gidd_comm *comm, const char *run_dir, int pieces)
{
    gidd_status status = GIDD_OK;
    memset(s, 0, sizeof *s);
    s->comm = comm;
    s->pieces = pieces;
    s->rank = gidd_comm_rank(comm);
    s->size = gidd_comm_size(comm);
    state_init(&s->state, s->size);
    (void)snprintf(s->run_dir, sizeof s->run_dir, "%s", run_dir);
    if (s->rank == 0) {
        status = gidd_folder_make(s->run_dir);
        if (status == GIDD_OK) {
            status = gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = s->run_dir}, &s->lock);
        }
    }
    GIDD_TRY(gidd_comm_agree(comm, status));
    return open_writer(s);
}

gidd_status storage_open(storage *s, gidd_comm *comm, int pieces)
{
    char run_dir[sizeof s->run_dir];
    (void)snprintf(run_dir, sizeof run_dir, "%.90s/gidd-storage-XXXXXX", storage_place());
    if (gidd_comm_rank(comm) == 0 && mkdtemp(run_dir) == NULL) {
        abort();
    }
    GIDD_TRY(gidd_comm_bcast(comm, 0, run_dir, sizeof run_dir));
    return storage_open_at(s, comm, run_dir, pieces);
}

void storage_release(storage *s)
{
    gidd_checkpoint_writer_destroy(s->writer);
    gidd_run_lock_release(s->lock);
    state_release(&s->state);
}

void storage_close(storage *s)
{
    storage_release(s);
    if (gidd_comm_barrier(s->comm) == GIDD_OK && s->rank == 0) {
        storage_remove(s->run_dir);
    }
}

gidd_status storage_write(storage *s, int64_t step)
{
    gidd_checkpoint_fields fields = state_fields(step, s->size);
    state_fill(&s->state, step);
    int64_t count = s->pieces ? state_extents_pieces(&s->state, s->rank, s->extents)
                              : state_extents_whole(&s->state, s->rank, s->extents);
    gidd_checkpoint_begin(s->writer, step, s->rank == 0 ? &fields : NULL, s->extents, count);
    return gidd_checkpoint_finish(s->writer);
}

gidd_status storage_restore(storage *s, int64_t *step_p)
{
    gidd_checkpoint *checkpoint = NULL;
    *step_p = 0;
    GIDD_TRY(gidd_checkpoint_restore(
        &(gidd_checkpoint_restore_args){.comm = s->comm, .run_dir = s->run_dir, .lock = s->lock},
        &checkpoint));
    gidd_status status = GIDD_OK;
    if (checkpoint != NULL) {
        *step_p = gidd_checkpoint_fields_of(checkpoint)->step;
        status = s->rank == 0 ? state_compare(checkpoint) : GIDD_OK;
    }
    gidd_checkpoint_close(checkpoint);
    return gidd_comm_agree(s->comm, status);
}

static gidd_status verify_entry(const storage *s, const char *name)
{
    char path[512];
    unsigned char damaged[64] = {0};
    gidd_checkpoint *checkpoint = NULL;
    (void)snprintf(path, sizeof path, "%s/checkpoints/%s", s->run_dir, name);
    GIDD_TRY(gidd_checkpoint_open(path, &checkpoint));
    int64_t blocks = gidd_checkpoint_block_count(gidd_checkpoint_layout_of(checkpoint));
    gidd_status status = gidd_checkpoint_verify(checkpoint, 0, blocks, damaged);
    gidd_checkpoint_close(checkpoint);
    if (status == GIDD_OK && memchr(damaged, 1, (size_t)blocks) != NULL) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s is damaged", name);
    }
    return status;
}

gidd_status storage_verify_all(storage *s)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0;
    gidd_status status = s->rank == 0 ? gidd_checkpoint_list(s->run_dir, &entries, &count) : GIDD_OK;
    for (int64_t i = 0; i < count && status == GIDD_OK; i++) {
        if (entries[i].kind == GIDD_CHECKPOINT_COMPLETE) {
            status = verify_entry(s, entries[i].name);
        }
    }
    free(entries);
    return gidd_comm_agree(s->comm, status);
}

int64_t storage_count(storage *s, gidd_checkpoint_kind kind)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, found = 0;
    if (s->rank == 0 && gidd_checkpoint_list(s->run_dir, &entries, &count) == GIDD_OK) {
        for (int64_t i = 0; i < count; i++) {
            found += entries[i].kind == kind;
        }
    }
    free(entries);
    return gidd_comm_bcast(s->comm, 0, &found, sizeof found) == GIDD_OK ? found : -1;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info, (void)type, (void)place;
    return remove(path);
}

void storage_remove(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
