/* SPDX-License-Identifier: Apache-2.0
 *
 * power_replay ROOT RUN LOG --cases=N [--first=K] [--keep]: cuts the power in the record of
 * power_record (paths below ROOT, the run directory is ROOT/RUN) at N seeded moments, builds a state
 * that the disk may be in, and starts: the loader must find the step that was promised last, or the
 * one that was being written, whole; and nothing that is damaged may have a final name. Every eighth
 * time another checkpoint must then succeed. A failure prints its case: --first=K --cases=1 repeats it.
 *
 * With --worker the record is one of gidd-worker (IOFAULT_RECORD): what is found must be whole, and
 * metrics.jsonl as long as the checkpoint counted, else the run could not go on.
 */
#include "disk_model.h"
#include "iofault.h"
#include "storage_fixture.h"
#include "support/mpi_program.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct replay {
    const disk_model *disk;
    gidd_comm *comm;
    const char *run;
    char folder[128];
    int is_worker;
    int64_t found_new, found_old, found_none; /* outcomes */
    int64_t by_policy[DISK_POLICIES];
} replay;

static gidd_status check_start(replay *r, storage *s, int64_t count, int64_t number)
{
    int64_t promised = disk_mark(r->disk, count, "committed "), begun = disk_mark(r->disk, count, "begin ");
    int64_t found = 0;
    GIDD_TRY(storage_restore(s, &found));
    if (found != promised && found != begun) {
        return gidd_fail(GIDD_ERR_ARG, "found step %" PRId64 ", not %" PRId64 " (promised) or %" PRId64 " (begun)",
                         found, promised, begun);
    }
    if (storage_count(s, GIDD_CHECKPOINT_DAMAGED) != 0) {
        return gidd_fail(GIDD_ERR_ARG, "something damaged had a final name");
    }
    GIDD_TRY(storage_verify_all(s)); // pruned ones as well: they may be needed one day
    if (storage_count(s, GIDD_CHECKPOINT_UNFINISHED) != 0) {
        return gidd_fail(GIDD_ERR_ARG, "something unfinished is left");
    }
    r->found_none += found == 0;
    r->found_old += found != 0 && found == promised;
    r->found_new += found != promised;
    if (number % 8 == 0) {
        GIDD_TRY(storage_write(s, begun + 7));
        GIDD_TRY(storage_restore(s, &found));
        return found == begun + 7 ? GIDD_OK : gidd_fail(GIDD_ERR_ARG, "then step %" PRId64 " was found", found);
    }
    return GIDD_OK;
}

static gidd_status check_worker(replay *r, const storage *s)
{
    char path[200];
    struct stat info = {0};
    gidd_checkpoint *checkpoint = NULL;
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, counted = 0;
    GIDD_TRY(gidd_checkpoint_restore(
        &(gidd_checkpoint_restore_args){.comm = s->comm, .run_dir = s->run_dir, .lock = s->lock}, &checkpoint));
    r->found_none += checkpoint == NULL;
    r->found_old += checkpoint != NULL;
    counted = checkpoint != NULL ? gidd_checkpoint_fields_of(checkpoint)->metrics_bytes : 0;
    gidd_checkpoint_close(checkpoint);
    GIDD_TRY(gidd_checkpoint_list(s->run_dir, &entries, &count));
    for (int64_t i = 0; i < count; i++) {
        if (entries[i].kind == GIDD_CHECKPOINT_DAMAGED) {
            free(entries);
            return gidd_fail(GIDD_ERR_ARG, "something damaged had a final name");
        }
    }
    free(entries);
    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", s->run_dir);
    if (stat(path, &info) != 0 && counted == 0) {
        return GIDD_OK;
    }
    return (int64_t)info.st_size >= counted
               ? GIDD_OK
               : gidd_fail(GIDD_ERR_ARG, "metrics.jsonl has %" PRId64 " bytes, the checkpoint counted %" PRId64,
                           (int64_t)info.st_size, counted);
}

static gidd_status replay_one(replay *r, int64_t number, int keep)
{
    storage s;
    char path[512];
    uint64_t seed = storage_random((uint64_t)number);
    int64_t count = 1 + (int64_t)(seed % (uint64_t)disk_operations(r->disk));
    disk_policy policy = (disk_policy)(storage_random(seed) % DISK_POLICIES);
    r->by_policy[policy]++;
    if (disk_build(r->disk, count, policy, seed, r->folder, "run.lock") != 0) {
        return gidd_fail(GIDD_ERR_IO, "case %" PRId64 ": cannot build the state in %s", number, r->folder);
    }
    (void)snprintf(path, sizeof path, "%s/%s", r->folder, r->run);
    gidd_status status = storage_open_at(&s, r->comm, path, 0);
    if (status == GIDD_OK) {
        status = r->is_worker ? check_worker(r, &s) : check_start(r, &s, count, number);
    }
    storage_release(&s);
    if (status != GIDD_OK) {
        const gidd_error story = *gidd_error_last();
        return gidd_fail(status, "case %" PRId64 " (operation %" PRId64 ", policy %d): %.700s", number, count,
                         (int)policy, story.text);
    }
    if (!keep) {
        storage_remove(r->folder);
    }
    return GIDD_OK;
}

static gidd_status run(gidd_comm_set *set, int argc, char **argv)
{
    int64_t cases = 100, first = 0;
    int keep = 0;
    replay r = {.comm = set->world};
    for (int i = 4; i < argc; i++) {
        cases = strncmp(argv[i], "--cases=", 8) == 0 ? atoll(argv[i] + 8) : cases;
        first = strncmp(argv[i], "--first=", 8) == 0 ? atoll(argv[i] + 8) : first;
        keep |= strcmp(argv[i], "--keep") == 0;
        r.is_worker |= strcmp(argv[i], "--worker") == 0;
    }
    if (argc < 4) {
        return gidd_fail(GIDD_ERR_USAGE, "power_replay ROOT RUN LOG [--cases=N] [--first=K] [--keep]");
    }
    disk_model *disk = disk_load(argv[3], argv[1]);
    gidd_status status = disk != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_CORRUPT, "cannot read %s", argv[3]);
    r.disk = disk;
    r.run = argv[2];
    (void)snprintf(r.folder, sizeof r.folder, "%.90s/gidd-power-%ld", storage_place(), (long)getpid());
    for (int64_t i = first; i < first + cases && status == GIDD_OK; i++) {
        status = replay_one(&r, i, keep);
    }
    if (status == GIDD_OK) {
        (void)printf("power loss: %" PRId64 " cases (%" PRId64 " operations recorded), %" PRId64 " survived: %" PRId64
                     " found the promised step, %" PRId64 " the one being written, %" PRId64 " rightly nothing\n",
                     cases, disk_operations(disk), cases, r.found_old, r.found_new, r.found_none);
    }
    disk_free(disk);
    return status;
}

int main(int argc, char **argv)
{
    return mpi_program_main(argc, argv, run);
}
