/* SPDX-License-Identifier: Apache-2.0
 *
 * Every file operation of a checkpoint's writing, of a restore and of the clean-up behind a failure
 * is made to fail in turn, once and for ever, on each rank (the loop of SQLite's tests: k = 1, 2 ...
 * until nothing fails any more).
 *
 *     mpirun -np N test_io_faults [--share S]       one case in S, chosen by GIDD_TEST_SEED; 1: all
 *
 * What must hold: a failed attempt says path and reason (and the rank, when it is another one), and
 * leaves the last checkpoint whole; what has a final name is whole; once the fault is over the next
 * attempt succeeds; an I/O error is never taken for damage.
 */
#include "iofault.h"
#include "storage_fixture.h"

#include <inttypes.h>

typedef struct fault_kind {
    const char *error;
    int forever;
    const char *reason; /* that the story must hold; NULL: none is promised */
} fault_kind;

// EINTR and short are not for ever: no kernel does that.
static const fault_kind kinds[] = {
    {"EIO", 0, "Input/output error"},       {"EIO", 1, "Input/output error"},
    {"ENOSPC", 0, "No space left on device"}, {"ENOSPC", 1, "No space left on device"},
    {"EACCES", 0, "Permission denied"},     {"EINTR", 0, NULL},
    {"short", 0, NULL},                     {"short", 1, NULL},
    {"late", 0, NULL},                      {"late", 1, NULL},
};

typedef struct tally {
    int64_t cases, injected, survived, exact;
} tally;

static int64_t share = 1; /* of the cases: one in so many */
static uint64_t drawn;    /* cases considered so far; the same on all ranks */

// Arms operation k on one rank. Local.
static void arm(const storage *s, const fault_kind *kind, int rank, long k)
{
    char spec[320];
    (void)snprintf(spec, sizeof spec, "path=%s/checkpoints,op=any,k=%ld,error=%s%s", s->run_dir, k,
                   kind->error, kind->forever ? ",forever" : "");
    (void)iofault_arm(s->rank == rank ? spec : NULL);
}

// Ends the fault; how often it struck, on all ranks. `last`: what it struck first, everywhere.
static int64_t disarm(storage *s, int rank, char last[256])
{
    int64_t struck = iofault_struck();
    (void)snprintf(last, 256, "%.255s", iofault_last());
    (void)iofault_arm(NULL);
    if (gidd_comm_bcast(s->comm, rank, &struck, sizeof struck) != GIDD_OK ||
        gidd_comm_bcast(s->comm, rank, last, 256) != GIDD_OK) {
        return -1;
    }
    return struck;
}

// One case in `one_in`, the same on all ranks.
static int is_chosen(int64_t one_in)
{
    return storage_random(drawn++) % (uint64_t)one_in == 0;
}

// The story of a failure, as rank 0 tells it.
static gidd_status check_story(const storage *s, const fault_kind *kind, int rank, const char *last)
{
    const gidd_error story = *gidd_error_last();
    char who[32];
    (void)snprintf(who, sizeof who, "rank %d:", rank);
    if (s->rank != 0) {
        return GIDD_OK;
    }
    if (strstr(story.text, s->run_dir) == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "no path in: %s", story.text);
    }
    if (kind->reason != NULL && strstr(story.text, kind->reason) == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "after '%s' no '%s' in: %s", last, kind->reason, story.text);
    }
    if (rank != 0 && strstr(story.text, who) == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "no '%s' in: %s", who, story.text);
    }
    return GIDD_OK;
}

// After an attempt at `step` with a fault: what a start finds, and that the next attempt succeeds.
static gidd_status check_aftermath(storage *s, gidd_status attempt, int64_t before, int64_t step,
                                   tally *t)
{
    int64_t found = 0;
    GIDD_TRY(storage_restore(s, &found));
    // a whole checkpoint whose name could not be synced may stay, though it does not count
    if (found != step && (attempt == GIDD_OK || found != before)) {
        return gidd_fail(GIDD_ERR_ARG, "status %s, but a start finds step %" PRId64,
                         gidd_status_name(attempt), found);
    }
    if (storage_count(s, GIDD_CHECKPOINT_UNFINISHED) != 0 ||
        storage_count(s, GIDD_CHECKPOINT_DAMAGED) != 0) {
        return gidd_fail(GIDD_ERR_ARG, "leftovers, or something taken for damaged");
    }
    t->survived++;
    if (attempt != GIDD_OK) { // the same step again, as a final checkpoint does it
        GIDD_TRY(storage_write(s, step));
        GIDD_TRY(storage_restore(s, &found));
    }
    t->exact += found == step;
    return found == step ? GIDD_OK
                         : gidd_fail(GIDD_ERR_ARG, "the next attempt is not what is found");
}

static gidd_status write_with_faults(storage *s, const fault_kind *kind, int rank, tally *t)
{
    int64_t step = gidd_checkpoint_committed_step(s->writer);
    char last[256];
    for (long k = 1;; k++) {
        if (!is_chosen(share)) {
            if (k > 400) {
                return GIDD_OK; // more than any rank does: the end was not among the chosen
            }
            continue;
        }
        int64_t before = step++;
        arm(s, kind, rank, k);
        gidd_status attempt = storage_write(s, step);
        gidd_status told = attempt != GIDD_OK ? check_story(s, kind, rank, iofault_last()) : GIDD_OK;
        int64_t struck = disarm(s, rank, last);
        GIDD_TRY(gidd_comm_agree(s->comm, told));
        t->cases++;
        t->injected += struck;
        gidd_status status = check_aftermath(s, attempt, before, step, t);
        if (status != GIDD_OK) {
            const gidd_error story = *gidd_error_last();
            return gidd_fail(status, "%s%s at operation %ld of rank %d (%.200s): %.500s", kind->error,
                             kind->forever ? " for ever" : "", k, rank, last, story.text);
        }
        if (struck == 0) { // k is beyond the last operation
            return attempt == GIDD_OK ? GIDD_OK
                                      : gidd_fail(GIDD_ERR_ARG, "failed without a fault");
        }
    }
}

static gidd_status fail_every_write(gidd_comm *comm, int pieces, tally *t)
{
    storage s;
    gidd_status status = storage_open(&s, comm, pieces);
    if (status == GIDD_OK) {
        status = storage_write(&s, 1);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && status == GIDD_OK; i++) {
        for (int rank = 0; rank < s.size && status == GIDD_OK; rank++) {
            status = write_with_faults(&s, &kinds[i], rank, t);
        }
    }
    storage_close(&s);
    return status;
}

static void report(const mpi_test *t, const char *what, const tally *sum)
{
    if (t->rank == 0) {
        (void)printf("%s: %" PRId64 " cases, %" PRId64 " faults injected, %" PRId64
                     " survived, %" PRId64 " bit-exact\n",
                     what, sum->cases, sum->injected, sum->survived, sum->exact);
    }
}

static void writing_survives_every_failure(mpi_test *t)
{
    tally sum = {0};
    MPI_TEST_OK(t, fail_every_write(t->set.world, 0, &sum));
    MPI_TEST_OK(t, fail_every_write(t->set.world, 1, &sum));
    MPI_TEST_CHECK(t, sum.injected > 20 && sum.survived == sum.cases && sum.exact == sum.cases);
    report(t, "writing", &sum);
}

/* ---- faults while recovering ------------------------------------------------------------------- */

static void spoil(const storage *s, int64_t step)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/checkpoints/step-%09" PRId64 "/state.bin", s->run_dir, step);
    FILE *file = fopen(path, "r+");
    if (file != NULL) {
        (void)fseek(file, 4321, SEEK_SET);
        (void)fputc('#', file);
        (void)fclose(file);
    }
}

// What a crash and a bad disk leave: steps 1 and 2 whole, 3 damaged, 4 half written.
static gidd_status make_ruin(storage *s)
{
    char path[300];
    gidd_status status = GIDD_OK;
    GIDD_TRY(storage_write(s, 1));
    GIDD_TRY(storage_write(s, 2));
    GIDD_TRY(storage_write(s, 3)); // 1 is pruned
    if (s->rank == 0) {
        spoil(s, 3);
        (void)snprintf(path, sizeof path, "cd %s/checkpoints && mkdir step-000000004.tmp-0-1 && "
                       "echo half >step-000000004.tmp-0-1/state.bin", s->run_dir);
        status = system(path) == 0 ? GIDD_OK : gidd_fail(GIDD_ERR_IO, "no ruin");
    }
    return gidd_comm_agree(s->comm, status);
}

// One start with operation k failing, then one without faults: that must find step 2.
static gidd_status restore_with_fault(gidd_comm *comm, const fault_kind *kind, int rank, long k,
                                      int64_t *struck_p, tally *t)
{
    storage s;
    char last[256];
    int64_t found = 0;
    gidd_status status = GIDD_OK;
    GIDD_TRY_GOTO(storage_open(&s, comm, 0));
    GIDD_TRY_GOTO(make_ruin(&s));
    arm(&s, kind, rank, k);
    gidd_status first = storage_restore(&s, &found);
    *struck_p = disarm(&s, rank, last);
    t->cases++;
    t->injected += *struck_p;
    if (first == GIDD_OK && found != 2) {
        status = gidd_fail(GIDD_ERR_ARG, "with a fault a start found step %" PRId64, found);
        goto out;
    }
    GIDD_TRY_GOTO(storage_restore(&s, &found));
    t->survived++;
    t->exact += found == 2;
    if (found != 2 || storage_count(&s, GIDD_CHECKPOINT_DAMAGED) != 1 ||
        storage_count(&s, GIDD_CHECKPOINT_COMPLETE) != 1) {
        status = gidd_fail(GIDD_ERR_ARG, "%s at operation %ld of rank %d (%s): then step %" PRId64
                           " was found", kind->error, k, rank, last, found);
    }
out:
    storage_close(&s);
    return status;
}

static gidd_status fail_every_restore(gidd_comm *comm, tally *t)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        for (int rank = 0; rank < gidd_comm_size(comm); rank++) {
            int64_t struck = 1;
            for (long k = 1; struck != 0 && k < 400; k++) {
                if (is_chosen((share + 7) / 8)) { // a start does far fewer operations than a commit
                    GIDD_TRY(restore_with_fault(comm, &kinds[i], rank, k, &struck, t));
                }
            }
        }
    }
    return GIDD_OK;
}

static void recovery_survives_every_failure(mpi_test *t)
{
    tally sum = {0};
    MPI_TEST_OK(t, fail_every_restore(t->set.world, &sum));
    MPI_TEST_CHECK(t, sum.injected > 5 && sum.exact == sum.cases);
    report(t, "recovering", &sum);
}

/* ---- a disk that lies ---------------------------------------------------------------------------- */

// A bit that goes wrong on its way to the disk is found by reading back, and nothing gets a final name.
static void silent_damage_is_read_back(mpi_test *t)
{
    storage s;
    char last[256];
    int64_t found = 0, cases = 0;
    MPI_TEST_OK(t, storage_open(&s, t->set.world, 0));
    MPI_TEST_OK(t, storage_write(&s, 1));
    for (int rank = 0; rank < s.size; rank++) {
        char spec[320];
        (void)snprintf(spec, sizeof spec, "path=%s/checkpoints/step-000000002,op=write,k=1,error=spoil", s.run_dir);
        (void)iofault_arm(s.rank == rank ? spec : NULL);
        gidd_status attempt = storage_write(&s, 2);
        const gidd_error story = *gidd_error_last();
        int64_t struck = disarm(&s, rank, last);
        MPI_TEST_CHECK(t, struck == 1 && attempt == GIDD_ERR_IO);
        MPI_TEST_CHECK(t, strstr(story.text, "read back other than they were written") != NULL);
        MPI_TEST_OK(t, storage_restore(&s, &found));
        MPI_TEST_CHECK(t, found == 1);
        cases++;
    }
    MPI_TEST_OK(t, storage_write(&s, 2));
    storage_close(&s);
    if (t->rank == 0) {
        (void)printf("silent damage: %" PRId64 " cases, all read back\n", cases);
    }
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"silent_damage_is_read_back", silent_damage_is_read_back, 1},
        {"writing_survives_every_failure", writing_survives_every_failure, 1},
        {"recovery_survives_every_failure", recovery_survives_every_failure, 1},
    };
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--share=", 8) == 0) {
            share = atoll(argv[i] + 8) > 0 ? atoll(argv[i] + 8) : 1;
        }
    }
    gidd_log_set_level(GIDD_LOG_ERROR);
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
