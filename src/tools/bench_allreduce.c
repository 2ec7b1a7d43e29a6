/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench allreduce: one gradient bucket of each size, posted and waited for, as a step does it.
 * The values are small integers, so that every order of summation gives the same bits, which are
 * checked.
 */
#include "base/clock.h"
#include "comm/bucket.h"
#include "tools/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const double smallest_mib = 0.0625; /* 64 KiB */

typedef struct reduction {
    gidd_bucket_range range; /* one bucket: the elements, rounded up to equal pieces */
    gidd_bucket_plan plan;
    gidd_buckets *buckets;
    float *gradients;
    int64_t elements;
} reduction;

// Gradients and scratch of all ranks of this host may take half of its free memory.
static double largest_mib(const gidd_bench *bench)
{
    double free_mib = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
    double allowed = free_mib / 2.0 / 2.0 / bench->comms->node_size_max;
    double asked = bench->options->mib > 0.0 ? bench->options->mib : 256.0;
    return asked < allowed ? asked : allowed;
}

static gidd_status open_reduction(gidd_comm *comm, double mib, reduction *r)
{
    int ranks = gidd_comm_size(comm);
    gidd_status status = GIDD_OK;
    r->elements = (int64_t)(mib * 1048576.0 / sizeof(float));
    r->range.piece = (r->elements + ranks - 1) / ranks;
    r->plan = (gidd_bucket_plan){
        .ranges = &r->range, .count = 1, .elements = r->range.piece * ranks, .ranks = ranks};
    r->gradients = aligned_alloc(256, ((size_t)r->plan.elements * sizeof(float) + 255) / 256 * 256);
    if (r->gradients == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for a bucket of %g MiB", mib);
    }
    GIDD_TRY(gidd_comm_agree(comm, status));
    return gidd_buckets_create(
        &(gidd_buckets_args){.comm = comm, .plan = &r->plan, .gradients = r->gradients}, &r->buckets);
}

static void close_reduction(reduction *r)
{
    gidd_buckets_destroy(r->buckets);
    free(r->gradients);
}

static void fill(const reduction *r, int rank)
{
    for (int64_t i = 0; i < r->plan.elements; i++) {
        r->gradients[i] = i < r->elements ? (float)(i % 1021 + rank) : 0.0f;
    }
}

static gidd_status check(const reduction *r, int ranks)
{
    for (int64_t i = 0; i < r->elements; i++) {
        float expected = (float)((i % 1021) * ranks + (int64_t)ranks * (ranks - 1) / 2);
        if (r->gradients[i] < expected || r->gradients[i] > expected) {
            return gidd_fail(GIDD_ERR_COMM, "element %lld of the sum is %g, not %g", (long long)i,
                             (double)r->gradients[i], (double)expected);
        }
    }
    return GIDD_OK;
}

static gidd_status reduce(gidd_comm *comm, const reduction *r, double *seconds_p)
{
    fill(r, gidd_comm_rank(comm));
    GIDD_TRY(gidd_comm_barrier(comm));
    int64_t start_ns = gidd_clock_ns();
    GIDD_TRY(gidd_bucket_post(r->buckets, 0));
    GIDD_TRY(gidd_bucket_wait_all(r->buckets));
    *seconds_p = (double)(gidd_clock_ns() - start_ns) * 1e-9;
    return GIDD_OK;
}

static void report_row(gidd_bench *bench, double bytes, gidd_bench_spread seconds)
{
    static const char *const keys[] = {"ms", "ms_min", "ms_max", "algbw_gb_per_s",
                                       "busbw_gb_per_s"};
    int ranks = gidd_comm_size(bench->comms->workers);
    double algbw = ranks > 1 ? bytes * 1e-9 / seconds.median : (double)NAN,
           busbw = algbw * 2.0 * (ranks - 1) / ranks;
    double values[] = {seconds.median * 1e3, seconds.min * 1e3, seconds.max * 1e3, algbw, busbw};
    char size[32];
    (void)snprintf(size, sizeof size, bytes < 1048576.0 ? "%.0f KiB" : "%.4g MiB",
                   bytes < 1048576.0 ? bytes / 1024.0 : bytes / 1048576.0);
    gidd_bench_report_row(bench->report, &(gidd_bench_row){"size", size, keys, values,
                                                           (int)(sizeof keys / sizeof *keys)});
}

static gidd_status measure_size(gidd_bench *bench, const gidd_bench_plan *plan, double mib,
                                double *seconds)
{
    gidd_comm *comm = bench->comms->workers;
    reduction r = {0};
    gidd_status status = open_reduction(comm, mib, &r);
    for (int64_t i = 0; status == GIDD_OK && i < plan->total; i++) {
        status = gidd_bench_survive(comm, reduce(comm, &r, &seconds[i]));
    }
    if (status == GIDD_OK) {
        status = gidd_comm_agree(comm, check(&r, gidd_comm_size(comm)));
    }
    if (status == GIDD_OK) {
        status = gidd_bench_slowest(comm, seconds, plan->total);
    }
    if (status == GIDD_OK) {
        report_row(bench, (double)r.elements * sizeof(float),
                   gidd_bench_spread_of(seconds + plan->warmup, plan->repeats));
    }
    close_reduction(&r);
    return status;
}

gidd_status gidd_bench_allreduce(gidd_bench *bench)
{
    gidd_comm *comm = bench->comms->workers;
    gidd_bench_plan plan = gidd_bench_plan_of(bench);
    double largest = largest_mib(bench);
    double *seconds = calloc((size_t)plan.total, sizeof *seconds);
    gidd_status status = gidd_comm_agree(
        comm, seconds == NULL ? gidd_fail(GIDD_ERR_NOMEM, "no memory for the times") : GIDD_OK);
    if (status == GIDD_OK) { // memory differs from host to host, sizes must not
        status = gidd_comm_allreduce_double(comm, &largest, 1, GIDD_COMM_MIN);
    }
    if (gidd_comm_size(comm) == 1) {
        gidd_bench_report_text(bench->report, "note",
                               "one rank: nothing is sent; start it with mpirun");
    }
    for (double mib = smallest_mib; status == GIDD_OK && mib <= largest; mib *= 4.0) {
        status = measure_size(bench, &plan, mib, seconds);
    }
    free(seconds);
    return status;
}
