/* SPDX-License-Identifier: Apache-2.0
 *
 * Communicators on 1..4 ranks: every verb, agreement, and the sizes at the edges.
 */
#include "support/mpi_test.h"

#include <limits.h>
#include <stdlib.h>

static void set_describes_the_job(mpi_test *t)
{
    MPI_TEST_CHECK(t, t->set.coordinator == 0 && !t->set.is_dedicated);
    MPI_TEST_CHECK(t, t->set.is_coordinator == (t->rank == 0));
    MPI_TEST_CHECK(t, gidd_comm_size(t->set.workers) == t->size);
    MPI_TEST_CHECK(t, gidd_comm_rank(t->set.workers) == t->rank);
    MPI_TEST_CHECK(t, gidd_comm_rank(t->set.protocol) == t->rank);
    MPI_TEST_CHECK(t, t->set.node_size == t->size && t->set.node_size_max == t->size);
    MPI_TEST_CHECK(t, t->set.node_rank == t->rank && t->set.node_count == 1);
    MPI_TEST_CHECK(t, t->set.thread_multiple == 1);
}

static void collectives_move_the_right_bytes(mpi_test *t)
{
    gidd_comm *comm = t->set.world;
    int all[64] = {0}, mine = 100 + t->rank, root = t->size - 1, word = t->rank;
    MPI_TEST_OK(t, gidd_comm_bcast(comm, root, &word, sizeof word));
    MPI_TEST_CHECK(t, word == root);
    MPI_TEST_OK(t, gidd_comm_allgather(comm, &mine, sizeof mine, all));
    for (int rank = 0; rank < t->size; rank++) {
        MPI_TEST_CHECK(t, all[rank] == 100 + rank);
    }
    memset(all, 0, sizeof all);
    MPI_TEST_OK(t, gidd_comm_gather(comm, root, &mine, sizeof mine, t->rank == root ? all : NULL));
    for (int rank = 0; rank < t->size; rank++) {
        MPI_TEST_CHECK(t, all[rank] == (t->rank == root ? 100 + rank : 0));
    }
    MPI_TEST_OK(t, gidd_comm_barrier(comm));
}

// Rank r gives r bytes of value r; rank 0 gives none.
static void gatherv_joins_uneven_shares(mpi_test *t)
{
    unsigned char mine[64], all[64 * 64];
    size_t sizes[64], total = (size_t)(t->size * (t->size - 1) / 2), at = 0;
    memset(mine, t->rank, sizeof mine);
    MPI_TEST_OK(t, gidd_comm_gatherv(t->set.world, 0, mine, (size_t)t->rank, all, total, sizes));
    for (size_t rank = 0; t->rank == 0 && rank < (size_t)t->size; rank++) {
        MPI_TEST_CHECK(t, sizes[rank] == rank);
        for (size_t i = 0; i < rank; i++) {
            MPI_TEST_CHECK(t, all[at++] == rank);
        }
    }
    // One byte too little room on root: refused everywhere, and nobody hangs.
    if (total > 0) {
        MPI_TEST_CHECK(t, gidd_comm_gatherv(t->set.world, 0, mine, (size_t)t->rank, all, total - 1,
                                            sizes) == GIDD_ERR_ARG);
    }
}

static void reductions_are_exact(mpi_test *t)
{
    double sum[3] = {t->rank, 1.0, 0x1p40 + t->rank};
    int64_t low[2] = {t->rank, INT64_MIN + t->rank}, high[1] = {INT64_MAX - t->rank};
    double ranks = t->size;
    MPI_TEST_OK(t, gidd_comm_allreduce_double(t->set.world, sum, 3, GIDD_COMM_SUM));
    MPI_TEST_CHECK(t, sum[0] == ranks * (ranks - 1) / 2 && sum[1] == ranks);
    MPI_TEST_CHECK(t, sum[2] == ranks * 0x1p40 + sum[0]);
    MPI_TEST_OK(t, gidd_comm_allreduce_int64(t->set.world, low, 2, GIDD_COMM_MIN));
    MPI_TEST_CHECK(t, low[0] == 0 && low[1] == INT64_MIN);
    MPI_TEST_OK(t, gidd_comm_allreduce_int64(t->set.world, high, 1, GIDD_COMM_MAX));
    MPI_TEST_CHECK(t, high[0] == INT64_MAX);
}

// Each rank in turn is the only one that fails; then all fail with codes of their own.
static void agreement_carries_the_story(mpi_test *t)
{
    MPI_TEST_CHECK(t, gidd_comm_agree(t->set.world, GIDD_OK) == GIDD_OK);
    for (int bad = 0; bad < t->size; bad++) {
        gidd_status local = GIDD_OK;
        int line = 0;
        if (t->rank == bad) {
            line = __LINE__ + 1;
            local = gidd_fail(GIDD_ERR_CORRUPT, "shard %d is damaged", bad);
        }
        gidd_status agreed = gidd_comm_agree(t->set.world, local);
        const gidd_error *error = gidd_error_last();
        char text[64];
        (void)snprintf(text, sizeof text,
                       t->rank == bad ? "shard %d is damaged" : "rank %d: shard %d is damaged", bad,
                       bad);
        MPI_TEST_CHECK(t, agreed == GIDD_ERR_CORRUPT && error->code == GIDD_ERR_CORRUPT);
        MPI_TEST_CHECK(t, strcmp(error->text, text) == 0);
        MPI_TEST_CHECK(t, strcmp(error->func, __func__) == 0 && error->line > 0);
        MPI_TEST_CHECK(t, strstr(error->file, "test_comm.c") != NULL);
        MPI_TEST_CHECK(t, t->rank != bad || error->line == line);
    }
    gidd_status own = t->rank == 0 ? gidd_fail(GIDD_ERR_IO, "io") : gidd_fail(GIDD_ERR_NOMEM, "m");
    MPI_TEST_CHECK(t, gidd_comm_agree(t->set.world, own) == GIDD_ERR_IO);
    MPI_TEST_CHECK(t, strcmp(gidd_error_last()->text, t->rank == 0 ? "io" : "m") == 0);
}

// A dealer gives numbered jobs to whoever asks; every job is done once.
static void work_is_dealt_to_whoever_asks(mpi_test *t)
{
    enum { JOBS = 200, ASK = 1, JOB = 2 };
    gidd_comm *comm = t->set.world;
    int64_t done[2] = {0, 0}; // how many, sum of their numbers
    if (t->rank != 0) {
        for (int job = 0;;) {
            MPI_TEST_OK(t, gidd_comm_send(comm, 0, ASK, &job, sizeof job));
            MPI_TEST_OK(t, gidd_comm_recv(comm, 0, JOB, &job, sizeof job));
            if (job < 0) {
                break;
            }
            done[0]++;
            done[1] += job;
        }
    }
    for (int next = 0, idle = 1; t->rank == 0 && idle < t->size; next++) {
        size_t bytes = 0;
        int source = 0, ask = 0, job = next < JOBS ? next : -1;
        if (next % 2 == 0) {
            MPI_TEST_OK(t, gidd_comm_probe_any(comm, ASK, &bytes, &source));
            MPI_TEST_OK(t, gidd_comm_recv(comm, source, ASK, &ask, bytes));
        } else {
            MPI_TEST_OK(t, gidd_comm_recv_any(comm, ASK, &ask, sizeof ask, &bytes, &source));
        }
        MPI_TEST_CHECK(t, bytes == sizeof ask && source > 0);
        MPI_TEST_OK(t, gidd_comm_send(comm, source, JOB, &job, sizeof job));
        idle += job < 0;
    }
    MPI_TEST_OK(t, gidd_comm_allreduce_int64(comm, done, 2, GIDD_COMM_SUM));
    MPI_TEST_CHECK(t, done[0] == JOBS && done[1] == JOBS * (JOBS - 1) / 2);
}

// A message of the wrong size is an error, not a silent overrun. On a copy: it is of no use after.
static void wrong_sizes_are_refused(mpi_test *t)
{
    gidd_comm *comm = NULL;
    char bytes[8] = {0}, canary = 77;
    size_t got = 0;
    int source = 0;
    MPI_TEST_OK(t, gidd_comm_dup(t->set.world, &comm));
    if (t->rank == 1) {
        MPI_TEST_OK(t, gidd_comm_send(comm, 0, 3, bytes, 5));
        MPI_TEST_OK(t, gidd_comm_send(comm, 0, 4, bytes, 3));
        MPI_TEST_OK(t, gidd_comm_send(comm, 0, 5, bytes, 0));
    } else if (t->rank == 0) {
        MPI_TEST_CHECK(t, gidd_comm_recv_any(comm, 3, &canary, 0, &got, &source) == GIDD_ERR_COMM);
        MPI_TEST_CHECK(t, canary == 77);
        MPI_TEST_CHECK(t, gidd_comm_recv(comm, 1, 4, bytes, 4) == GIDD_ERR_COMM);
        MPI_TEST_OK(t, gidd_comm_recv(comm, 1, 5, bytes, 0));
    }
    MPI_TEST_CHECK(t, gidd_comm_allgather(comm, bytes, (size_t)INT_MAX + 1, NULL) == GIDD_ERR_ARG);
    gidd_comm_destroy(comm);
    gidd_comm_destroy(NULL);
}

// Order out, reports in, as the protocol does: two requests in flight, tested until done.
static void asynchronous_pairs_complete(mpi_test *t)
{
    gidd_comm_request order = {0}, report = {0};
    int root = t->size - 1, step = t->rank == root ? 42 : 0, mine = t->rank * 3;
    int all[64] = {0}, done = 0;
    MPI_TEST_OK(t, gidd_comm_test(&order, &done));
    MPI_TEST_CHECK(t, done == 1);
    MPI_TEST_OK(t, gidd_comm_ibcast(t->set.protocol, root, &step, sizeof step, &order));
    MPI_TEST_OK(t, gidd_comm_igather(t->set.protocol, root, &mine, sizeof mine, all, &report));
    for (done = 0; !done;) {
        MPI_TEST_OK(t, gidd_comm_test(&order, &done));
    }
    MPI_TEST_OK(t, gidd_comm_wait(&report));
    MPI_TEST_OK(t, gidd_comm_wait(&report)); // nothing to wait for any more
    MPI_TEST_CHECK(t, step == 42 && !order.active && !report.active);
    for (int rank = 0; t->rank == root && rank < t->size; rank++) {
        MPI_TEST_CHECK(t, all[rank] == rank * 3);
    }
}

// More than an int can count: 2 GiB and a bit, so only where asked for ("--large").
static void messages_above_2_gib_arrive(mpi_test *t)
{
    size_t bytes = ((size_t)1 << 31) + 4099;
    int asked = t->argc > 1 && strcmp(t->argv[t->argc - 1], "--large") == 0;
    char *data = asked ? calloc(bytes, 1) : NULL;
    if (data == NULL) {
        return;
    }
    if (t->rank == 0) {
        data[0] = 1;
        data[bytes - 1] = 2;
    }
    MPI_TEST_OK(t, gidd_comm_bcast(t->set.world, 0, data, bytes));
    MPI_TEST_CHECK(t, data[0] == 1 && data[bytes - 1] == 2);
    if (t->rank == 0) {
        data[bytes / 2] = 3;
        MPI_TEST_OK(t, gidd_comm_send(t->set.world, 1, 9, data, bytes));
    } else if (t->rank == 1) {
        MPI_TEST_OK(t, gidd_comm_recv(t->set.world, 0, 9, data, bytes));
        MPI_TEST_CHECK(t, data[bytes / 2] == 3);
    }
    free(data);
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"set_describes_the_job", set_describes_the_job, 1},
        {"collectives_move_the_right_bytes", collectives_move_the_right_bytes, 1},
        {"gatherv_joins_uneven_shares", gatherv_joins_uneven_shares, 1},
        {"reductions_are_exact", reductions_are_exact, 1},
        {"agreement_carries_the_story", agreement_carries_the_story, 1},
        {"work_is_dealt_to_whoever_asks", work_is_dealt_to_whoever_asks, 2},
        {"wrong_sizes_are_refused", wrong_sizes_are_refused, 2},
        {"asynchronous_pairs_complete", asynchronous_pairs_complete, 1},
        {"messages_above_2_gib_arrive", messages_above_2_gib_arrive, 2},
    };
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
