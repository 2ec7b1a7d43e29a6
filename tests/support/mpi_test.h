/* SPDX-License-Identifier: Apache-2.0
 *
 * Tests under mpirun: plain mains, because Criterion forks and MPI starts once per process.
 *
 *   static void sums_are_exact(mpi_test *t) { MPI_TEST_CHECK(t, ...); }
 *   static const mpi_test_case cases[] = {{"sums_are_exact", sums_are_exact}};
 *   int main(int argc, char **argv) { return mpi_test_main(argc, argv, cases, 1); }
 *
 * Every rank runs every case; after each the ranks agree on the outcome, and the first failing
 * rank's line is printed once by rank 0. `mpirun -np N program [name...]` runs the named cases
 * only. Exit code 0 all passed, 1 some failed, 77 none was run (all skipped for want of ranks).
 */
#ifndef GIDD_TESTS_MPI_TEST_H
#define GIDD_TESTS_MPI_TEST_H

#include "base/clock.h"
#include "base/log.h"
#include "comm/comm.h"

#include <stdio.h>
#include <string.h>

typedef struct mpi_test {
    gidd_comm_set set;
    int rank; /* in set.world */
    int size;
    int argc; /* the program's own arguments, after the names */
    char **argv;
    gidd_status status; /* of the running case */
} mpi_test;

typedef struct mpi_test_case {
    const char *name;
    void (*run)(mpi_test *);
    int min_ranks; /* fewer: skipped */
} mpi_test_case;

/* The first failure of a case counts; the case goes on, so that no other rank waits in vain. */
#define MPI_TEST_CHECK(t, condition)                                                               \
    do {                                                                                           \
        if (!(condition) && (t)->status == GIDD_OK) {                                              \
            (t)->status = gidd_fail(GIDD_ERR_ARG, "check failed: %s", #condition);                 \
        }                                                                                          \
    } while (0)

/* `call` must succeed. */
#define MPI_TEST_OK(t, call)                                                                       \
    do {                                                                                           \
        gidd_status mpi_test_status_ = (call);                                                     \
        if (mpi_test_status_ != GIDD_OK && (t)->status == GIDD_OK) {                               \
            (t)->status = gidd_fail(GIDD_ERR_ARG, "%s: %s", #call, gidd_error_last()->text);       \
        }                                                                                          \
    } while (0)

static inline int mpi_test_selected(const mpi_test *t, const char *name)
{
    int named = 0;
    for (int i = 1; i < t->argc; i++) {
        named |= t->argv[i][0] != '-';
        if (strcmp(t->argv[i], name) == 0) {
            return 1;
        }
    }
    return !named;
}

/* Runs one case on all ranks; 1 if it failed anywhere. */
static inline int mpi_test_run(mpi_test *t, const mpi_test_case *test)
{
    int64_t start_ns = gidd_clock_ns();
    t->status = GIDD_OK;
    test->run(t);
    gidd_status status = gidd_comm_agree(t->set.world, t->status);
    if (t->rank == 0) {
        const gidd_error *error = gidd_error_last();
        (void)printf("%s %6.2f s %s", status == GIDD_OK ? "ok  " : "FAIL",
                     (double)(gidd_clock_ns() - start_ns) * 1e-9, test->name);
        if (status != GIDD_OK) {
            (void)printf("\n     %s:%d %s: %s", error->file, error->line, error->func, error->text);
        }
        (void)printf("\n");
        (void)fflush(stdout);
    }
    return status != GIDD_OK;
}

static inline int mpi_test_main(int argc, char **argv, const mpi_test_case *cases, size_t count)
{
    mpi_test t = {.argc = argc, .argv = argv};
    int failed = 0, run = 0;
    if (gidd_comm_bootstrap(&t.argc, &t.argv, GIDD_COMM_TOOL, &t.set) != GIDD_OK) {
        gidd_log_last_error();
        gidd_comm_abort(1);
    }
    t.rank = gidd_comm_rank(t.set.world);
    t.size = gidd_comm_size(t.set.world);
    for (size_t i = 0; i < count; i++) {
        if (t.size >= cases[i].min_ranks && mpi_test_selected(&t, cases[i].name)) {
            failed += mpi_test_run(&t, &cases[i]);
            run++;
        }
    }
    if (t.rank == 0) {
        (void)printf("%d of %d cases passed on %d ranks\n", run - failed, run, t.size);
    }
    gidd_comm_set_finalize(&t.set);
    return failed > 0 ? 1 : run == 0 ? 77 : 0;
}

#endif
