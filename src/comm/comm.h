/* SPDX-License-Identifier: Apache-2.0
 *
 * Communicators. The only room that names MPI; the headers do not, so everybody may include them.
 *
 *   world      every rank of the job: workers and, if it is a program of its own, the coordinator
 *   workers    the ranks that hold a device and a slice of the work
 *   protocol   a copy of world for orders and reports, so that they never mix with anything else
 *
 * Role follows the program, not the rank: `mpirun -np 8 gidd-worker` makes worker 0 the coordinator
 * as well; `mpirun -np 1 gidd-coordinator : -np 8 gidd-worker` has a dedicated one, wherever it
 * stands.
 *
 * Each function is Local (any rank may call it alone) or Collective (all ranks of its communicator
 * call it, in the same order). Buffers are borrowed until the call returns, for asynchronous calls
 * until the request was waited for. Sizes are bytes unless the name says otherwise. A communication
 * failure is GIDD_ERR_COMM, and the communicator is of no further use: leave through
 * gidd_comm_abort(). One thread per communicator at a time.
 */
#ifndef GIDD_COMM_COMM_H
#define GIDD_COMM_COMM_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct gidd_comm gidd_comm; /* one communicator; opaque */

typedef enum gidd_comm_role {
    GIDD_COMM_WORKER = 0,  /* holds a slice; also the coordinator when there is no dedicated one */
    GIDD_COMM_COORDINATOR, /* a program of its own */
    GIDD_COMM_TOOL,        /* gidd-eval, gidd-sample ...: all ranks alike, filled in like workers */
} gidd_comm_role;

/* What bootstrap gives. The communicators are owned by the set. */
typedef struct gidd_comm_set {
    gidd_comm *world;
    gidd_comm *workers;  /* NULL on a dedicated coordinator */
    gidd_comm *protocol; /* same ranks as world */
    gidd_comm_role role;
    int coordinator;     /* rank of the coordinator in world and protocol */
    int is_coordinator;  /* 1 on that rank */
    int is_dedicated;    /* 1 on all ranks when the coordinator is a program of its own */
    int thread_multiple; /* 1: several threads may communicate at once (on every rank) */
    int node_rank; /* this worker among the workers of its node; -1 on a dedicated coordinator */
    int node_size; /* workers on its node; 0 on a dedicated coordinator */
    int node_size_max; /* most workers on one node */
    int node_count;    /* nodes that hold workers */
} gidd_comm_set;

/* ---- life -------------------------------------------------------------------------------------
 */

/* Starts MPI and fills `set`. Makes errors return instead of end the job, makes a failed
 * GIDD_ASSERT end the whole job, prefers ROMIO for MPI-IO (io=romio321; Open MPI's own reports a
 * full disk as success) unless the user chose, and sets the rank of log lines (world rank) when
 * there is more than one. Errors, the same on all ranks: GIDD_ERR_USAGE when the launcher started
 * more processes than MPI sees, for two coordinators, or for a coordinator without workers. Call
 * gidd_comm_set_finalize() in every case. Call once per process, before any thread is started.
 * Collective over the job. */
gidd_status gidd_comm_bootstrap(int *argc, char ***argv, gidd_comm_role role, gidd_comm_set *set);

/* Releases the communicators and ends MPI. Nothing follows but return from main. NULL-safe members;
 * does nothing if MPI was never started. Collective over the job. */
void gidd_comm_set_finalize(gidd_comm_set *set);

/* Ends the job at once with exit code `code`: the last resort when ranks can no longer agree. Works
 * before and after MPI's life too. Local. */
void gidd_comm_abort(int code) __attribute__((noreturn));

/* A communicator of the same ranks, so that another subsystem's messages are apart. Collective. */
gidd_status gidd_comm_dup(const gidd_comm *comm, gidd_comm **out_p);

/* NULL-safe. Collective. */
void gidd_comm_destroy(gidd_comm *comm);

/* Local. */
int gidd_comm_rank(const gidd_comm *comm);
int gidd_comm_size(const gidd_comm *comm);

/* ---- agreement --------------------------------------------------------------------------------
 */

/* Turns "I failed" into "we failed" before anybody goes on: returns GIDD_OK if every rank passed
 * GIDD_OK, else, on all ranks, the status of the lowest rank that did not. Ranks that were well get
 * that rank's error record, its text prefixed by "rank N: "; ranks that failed keep their own.
 * Collective. */
gidd_status gidd_comm_agree(gidd_comm *comm, gidd_status local);

/* ---- collectives ------------------------------------------------------------------------------
 */

typedef enum gidd_comm_op { GIDD_COMM_SUM = 0, GIDD_COMM_MIN, GIDD_COMM_MAX } gidd_comm_op;

gidd_status gidd_comm_barrier(gidd_comm *comm); /* Collective. */

/* Number of collective operations that this process has begun, gradient buckets included: where ranks hang, the
 * one with the smallest number did not come. Local; any thread. */
int64_t gidd_comm_collectives(void);

/* Counts one that is begun: for the back-ends of this room. Local; any thread. */
void gidd_comm_count_collective(void);

/* `bytes` may exceed 2 GiB. Collective. */
gidd_status gidd_comm_bcast(gidd_comm *comm, int root, void *data, size_t bytes);

/* `bytes` from every rank, equal everywhere and <= INT_MAX, in rank order. `all` [size][bytes] is
 * written on root only (gather; may be NULL elsewhere) or on every rank (allgather). Collective. */
gidd_status gidd_comm_gather(gidd_comm *comm, int root, const void *mine, size_t bytes, void *all);
gidd_status gidd_comm_allgather(gidd_comm *comm, const void *mine, size_t bytes, void *all);

/* Different sizes per rank; root gets them one after another in rank order. On root `all` has room
 * for `capacity` bytes and sizes[size] receives every rank's share; both are ignored elsewhere and
 * may be NULL. A sum above `capacity` or INT_MAX is GIDD_ERR_ARG on all ranks. Collective. */
gidd_status gidd_comm_gatherv(gidd_comm *comm, int root, const void *mine, size_t bytes, void *all,
                              size_t capacity, size_t *sizes);

/* values[count] in place; every rank gets the same bits. Collective. */
gidd_status gidd_comm_allreduce_double(gidd_comm *comm, double *values, int64_t count,
                                       gidd_comm_op op);
gidd_status gidd_comm_allreduce_int64(gidd_comm *comm, int64_t *values, int64_t count,
                                      gidd_comm_op op);

/* ---- point to point ---------------------------------------------------------------------------
 */

/* Tags are 0..32767. Blocking. recv wants exactly `bytes` bytes: any other size is GIDD_ERR_COMM.
 * `bytes` may exceed 2 GiB. Local, but needs its partner. */
gidd_status gidd_comm_send(gidd_comm *comm, int destination, int tag, const void *data,
                           size_t bytes);
gidd_status gidd_comm_recv(gidd_comm *comm, int source, int tag, void *data, size_t bytes);

/* Waits for a message with `tag` from anybody and says its size and sender without receiving it
 * (take it with gidd_comm_recv). Messages of up to 1 GiB. Local. */
gidd_status gidd_comm_probe_any(gidd_comm *comm, int tag, size_t *bytes_p, int *source_p);

/* Whether such a message is there (*source_p: its sender), without waiting; *source_p = -1: none. Local. */
gidd_status gidd_comm_poll_any(gidd_comm *comm, int tag, int *source_p);

/* Receives the next message with `tag` from anybody: the loop that deals out work. A message longer
 * than `capacity` is GIDD_ERR_COMM. Local. */
gidd_status gidd_comm_recv_any(gidd_comm *comm, int tag, void *data, size_t capacity,
                               size_t *bytes_p, int *source_p);

/* ---- asynchronous collectives -----------------------------------------------------------------
 */

/* One operation in flight. Caller's storage; all zero = none. Buffers are pinned until the wait. */
typedef struct gidd_comm_request {
    void *raw[2];
    int active;
} gidd_comm_request;

/* As their blocking namesakes, <= INT_MAX bytes. Started in the same order on all ranks. They
 * progress only inside communication calls: test now and then. Collective. */
gidd_status gidd_comm_igather(gidd_comm *comm, int root, const void *mine, size_t bytes, void *all,
                              gidd_comm_request *request);
gidd_status gidd_comm_ibcast(gidd_comm *comm, int root, void *data, size_t bytes,
                             gidd_comm_request *request);

/* test: *done_p = 1 when complete (also when none was active), and the request is none again. wait:
 * blocks until then. Local. */
gidd_status gidd_comm_test(gidd_comm_request *request, int *done_p);
gidd_status gidd_comm_wait(gidd_comm_request *request);

#endif
