/* SPDX-License-Identifier: Apache-2.0
 *
 * Bucket reduction. The inputs are small integers, so that sums are exact in fp32 whatever the
 * order: every rank count must give the same bits. One case has inputs whose sum does depend on the
 * order, and wants rank order.
 */
#include "comm/bucket.h"
#include "support/mpi_test.h"

#include <stdlib.h>

static const int64_t tensors[] = {5, 1000, 1, 64, 70000, 3, 4096, 12345, 7};
enum { TENSORS = sizeof tensors / sizeof *tensors, BUCKET_BYTES = 16384 };

typedef struct fixture {
    gidd_bucket_plan plan;
    gidd_buckets *buckets;
    float *gradients;
} fixture;

static void setup(mpi_test *t, fixture *f, gidd_bucket_mode mode)
{
    MPI_TEST_OK(t, gidd_bucket_plan_init(&f->plan, tensors, TENSORS, BUCKET_BYTES, t->size));
    f->gradients = calloc((size_t)f->plan.memory_elements, sizeof(float));
    MPI_TEST_OK(t, gidd_buckets_create(t->set.workers, &f->plan, f->gradients, mode, &f->buckets));
}

static void teardown(fixture *f)
{
    gidd_buckets_destroy(f->buckets);
    gidd_bucket_plan_release(&f->plan);
    free(f->gradients);
}

static float exact_value(int64_t flat, int rank)
{
    return (float)((flat * 7 + rank * 13) % 1021 - 510);
}

static float exact_sum(int64_t flat, int ranks)
{
    float sum = 0.0f;
    for (int rank = 0; rank < ranks; rank++) {
        sum += exact_value(flat, rank);
    }
    return sum;
}

static void fill_bucket(mpi_test *t, fixture *f, int64_t index)
{
    const gidd_bucket_range *range = &f->plan.ranges[index];
    for (int64_t i = 0; i < range->count; i++) {
        f->gradients[range->memory + i] = exact_value(range->first + i, t->rank);
    }
}

static void plan_covers_everything_once(mpi_test *t)
{
    for (int ranks = 1; ranks <= 9; ranks++) {
        gidd_bucket_plan plan;
        int64_t flat = 0, memory = 0;
        MPI_TEST_OK(t, gidd_bucket_plan_init(&plan, tensors, TENSORS, BUCKET_BYTES, ranks));
        for (int64_t b = 0; b < plan.count; b++) {
            const gidd_bucket_range *range = &plan.ranges[b];
            int64_t owned = 0;
            MPI_TEST_CHECK(t, range->first == flat && range->memory == memory);
            MPI_TEST_CHECK(t, range->piece % GIDD_BUCKET_ALIGN == 0);
            MPI_TEST_CHECK(t, range->piece * ranks >= range->count);
            MPI_TEST_CHECK(t, (range->piece - GIDD_BUCKET_ALIGN) * ranks < range->count);
            for (int rank = 0; rank < ranks; rank++) {
                int64_t first = 0, count = 0;
                gidd_bucket_slice(&plan, b, rank, &first, &count);
                MPI_TEST_CHECK(t, count >= 0 && first == range->first + owned);
                owned += count;
            }
            MPI_TEST_CHECK(t, owned == range->count);
            flat += range->count;
            memory += range->piece * ranks;
        }
        MPI_TEST_CHECK(t, flat == plan.elements && memory == plan.memory_elements);
        for (int64_t i = 0, at = 0; i < TENSORS; at += tensors[i], i++) { // none straddles
            MPI_TEST_CHECK(t,
                           gidd_bucket_of(&plan, at) == gidd_bucket_of(&plan, at + tensors[i] - 1));
            MPI_TEST_CHECK(t, gidd_bucket_memory(&plan, at + tensors[i] - 1) ==
                                  gidd_bucket_memory(&plan, at) + tensors[i] - 1);
        }
        gidd_bucket_plan_release(&plan);
    }
}

static void whole_sums_reach_everybody(mpi_test *t)
{
    fixture f = {0};
    setup(t, &f, GIDD_BUCKET_WHOLE);
    for (int step = 0; step < 3; step++) {
        memset(f.gradients, 0, (size_t)f.plan.memory_elements * sizeof(float));
        for (int64_t b = 0; b < f.plan.count; b++) {
            fill_bucket(t, &f,
                        b); // as backward does: later buckets are written while earlier ones fly
            MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
            MPI_TEST_OK(t, gidd_bucket_poll(f.buckets));
        }
        MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
        for (int64_t b = 0; b < f.plan.count; b++) {
            const gidd_bucket_range *range = &f.plan.ranges[b];
            for (int64_t i = 0; i < range->piece * t->size; i++) {
                float want = i < range->count ? exact_sum(range->first + i, t->size) : 0.0f;
                MPI_TEST_CHECK(t, f.gradients[range->memory + i] == want);
            }
        }
    }
    teardown(&f);
}

// ZeRO-1: sums of the pieces, an "update" of each piece, and the updated values everywhere.
static void pieces_then_gather(mpi_test *t)
{
    fixture f = {0};
    setup(t, &f, GIDD_BUCKET_PIECE);
    uint16_t *weights = calloc((size_t)f.plan.memory_elements, sizeof *weights);
    for (int64_t b = 0; b < f.plan.count; b++) {
        fill_bucket(t, &f, b);
        MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
    }
    MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
    for (int64_t b = 0; b < f.plan.count; b++) {
        const gidd_bucket_range *range = &f.plan.ranges[b];
        int64_t first = 0, count = 0;
        gidd_bucket_slice(&f.plan, b, t->rank, &first, &count);
        for (int64_t i = 0; i < count; i++) {
            int64_t at = range->memory + t->rank * range->piece + i;
            MPI_TEST_CHECK(t, f.gradients[at] == exact_sum(first + i, t->size));
            weights[at] = (uint16_t)((first + i) * 31 + 1);
        }
    }
    MPI_TEST_OK(t, gidd_bucket_gather(f.buckets, weights, sizeof *weights));
    for (int64_t flat = 0; flat < f.plan.elements; flat++) {
        // One rank sends nothing, so it has all it ever wrote.
        MPI_TEST_CHECK(t, weights[gidd_bucket_memory(&f.plan, flat)] == (uint16_t)(flat * 31 + 1));
    }
    free(weights);
    teardown(&f);
}

// 2^24, then ones: fp32 swallows each one alone, but not in another order of adding.
static void order_of_summation_is_rank_order(mpi_test *t)
{
    fixture f = {0};
    setup(t, &f, GIDD_BUCKET_WHOLE);
    float want = 0.0f;
    for (int rank = 0; rank < t->size; rank++) {
        want += rank == 0 ? 0x1p24f : 1.0f;
    }
    for (int64_t i = 0; i < f.plan.memory_elements; i++) {
        f.gradients[i] = t->rank == 0 ? 0x1p24f : 1.0f;
    }
    for (int64_t b = 0; b < f.plan.count; b++) {
        MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
    }
    MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
    for (int64_t flat = 0; flat < f.plan.elements; flat++) {
        MPI_TEST_CHECK(t, f.gradients[gidd_bucket_memory(&f.plan, flat)] == want);
    }
    teardown(&f);
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"plan_covers_everything_once", plan_covers_everything_once, 1},
        {"whole_sums_reach_everybody", whole_sums_reach_everybody, 1},
        {"pieces_then_gather", pieces_then_gather, 1},
        {"order_of_summation_is_rank_order", order_of_summation_is_rank_order, 1},
    };
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
