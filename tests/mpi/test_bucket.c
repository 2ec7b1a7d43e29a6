/* SPDX-License-Identifier: Apache-2.0
 *
 * Bucket reduction. The inputs are small integers, so that sums are exact in fp32 whatever the
 * order: every rank count must give the same bits. One case has inputs whose sum does depend on the
 * order, and wants rank order.
 */
#include "comm/bucket.h"
#include "support/mpi_test.h"

#include <limits.h>
#include <stdlib.h>

// Elements of the buckets before padding: below a piece, at its end, and not a multiple of anything.
static const int64_t sizes[] = {1069, 64, 70003, 3, 16448, 128};
enum { BUCKETS = sizeof sizes / sizeof *sizes, PIECE_MULTIPLE = 64 };

typedef struct fixture {
    gidd_bucket_range ranges[BUCKETS];
    gidd_bucket_plan plan;
    gidd_buckets *buckets;
    float *gradients;
} fixture;

static void lay_out(fixture *f, int ranks)
{
    f->plan = (gidd_bucket_plan){.ranges = f->ranges, .count = BUCKETS, .ranks = ranks};
    for (int i = 0; i < BUCKETS; i++) {
        int64_t unit = (int64_t)ranks * PIECE_MULTIPLE;
        f->ranges[i].piece = (sizes[i] + unit - 1) / unit * PIECE_MULTIPLE;
        f->ranges[i].at = f->plan.elements;
        f->plan.elements += f->ranges[i].piece * ranks;
    }
}

static void setup(mpi_test *t, fixture *f, gidd_bucket_mode mode)
{
    lay_out(f, t->size);
    f->gradients = calloc((size_t)f->plan.elements, sizeof(float));
    MPI_TEST_OK(t, gidd_buckets_create(t->set.workers, &f->plan, f->gradients, mode, &f->buckets));
}

static void teardown(fixture *f)
{
    gidd_buckets_destroy(f->buckets);
    free(f->gradients);
}

// Of an element of memory; padding stays zero.
static float exact_value(int64_t at, int rank)
{
    return (float)((at * 7 + rank * 13) % 1021 - 510);
}

static float exact_sum(int64_t at, int ranks)
{
    float sum = 0.0f;
    for (int rank = 0; rank < ranks; rank++) {
        sum += exact_value(at, rank);
    }
    return sum;
}

static void fill_bucket(mpi_test *t, fixture *f, int64_t index)
{
    for (int64_t i = 0; i < sizes[index]; i++) {
        int64_t at = f->ranges[index].at + i;
        f->gradients[at] = exact_value(at, t->rank);
    }
}

static void whole_sums_reach_everybody(mpi_test *t)
{
    fixture f = {0};
    setup(t, &f, GIDD_BUCKET_WHOLE);
    for (int step = 0; step < 3; step++) {
        memset(f.gradients, 0, (size_t)f.plan.elements * sizeof(float));
        for (int64_t b = 0; b < BUCKETS; b++) {
            fill_bucket(t, &f,
                        b); // as backward does: later buckets are written while earlier ones fly
            MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
            MPI_TEST_OK(t, gidd_bucket_poll(f.buckets));
        }
        MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
        for (int64_t b = 0; b < BUCKETS; b++) {
            for (int64_t i = 0; i < f.ranges[b].piece * t->size; i++) {
                int64_t at = f.ranges[b].at + i;
                float want = i < sizes[b] ? exact_sum(at, t->size) : 0.0f;
                MPI_TEST_CHECK(t, f.gradients[at] == want);
            }
        }
    }
    teardown(&f);
}

// Sums of the pieces, an "update" of each piece, and the updated values of either width everywhere.
static void pieces_then_gather(mpi_test *t)
{
    fixture f = {0};
    setup(t, &f, GIDD_BUCKET_PIECE);
    uint16_t *halves = calloc((size_t)f.plan.elements, sizeof *halves);
    uint32_t *words = calloc((size_t)f.plan.elements, sizeof *words);
    for (int64_t b = 0; b < BUCKETS; b++) {
        fill_bucket(t, &f, b);
        MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
    }
    MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
    for (int64_t b = 0; b < BUCKETS; b++) {
        const gidd_bucket_range *range = &f.ranges[b];
        for (int64_t i = 0; i < range->piece; i++) {
            int64_t place = t->rank * range->piece + i, at = range->at + place;
            MPI_TEST_CHECK(t, f.gradients[at] == (place < sizes[b] ? exact_sum(at, t->size) : 0.0f));
            halves[at] = (uint16_t)(at * 31 + 1);
            words[at] = (uint32_t)(at * 31 + 1);
        }
    }
    MPI_TEST_OK(t, gidd_bucket_gather(f.buckets, halves, sizeof *halves));
    MPI_TEST_OK(t, gidd_bucket_gather(f.buckets, words, sizeof *words));
    for (int64_t at = 0; at < f.plan.elements; at++) {
        MPI_TEST_CHECK(t, halves[at] == (uint16_t)(at * 31 + 1));
        MPI_TEST_CHECK(t, words[at] == (uint32_t)(at * 31 + 1));
    }
    free(words);
    free(halves);
    teardown(&f);
}

// Every word is somebody's: sign bits, NaNs and tiny numbers arrive as they were.
static void scattered_words_are_merged(mpi_test *t)
{
    enum { COUNT = 10007 };
    static const uint32_t strange[] = {0x80000000u, 0x7fc00001u, 0xffffffffu, 0x00000001u, 0xff800000u};
    fixture f = {0};
    setup(t, &f, GIDD_BUCKET_PIECE);
    uint32_t *words = calloc(COUNT, sizeof *words);
    for (uint32_t i = 0; i < COUNT; i++) {
        words[i] = (int)(i / 3) % t->size == t->rank ? strange[i % 5] ^ (i << 8) : 0;
    }
    MPI_TEST_OK(t, gidd_bucket_merge(f.buckets, words, COUNT));
    for (uint32_t i = 0; i < COUNT; i++) {
        MPI_TEST_CHECK(t, words[i] == (strange[i % 5] ^ (i << 8)));
    }
    free(words);
    teardown(&f);
}

// A piece beyond what MPI can count is refused on every rank.
static void a_piece_beyond_int_is_refused(mpi_test *t)
{
    gidd_bucket_range range = {.piece = (int64_t)INT_MAX + 1};
    gidd_bucket_plan plan = {
        .ranges = &range, .count = 1, .elements = range.piece * t->size, .ranks = t->size};
    gidd_buckets *buckets = NULL;
    MPI_TEST_CHECK(t, gidd_buckets_create(t->set.workers, &plan, NULL, GIDD_BUCKET_WHOLE,
                                          &buckets) == GIDD_ERR_UNSUPPORTED);
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
    for (int64_t i = 0; i < f.plan.elements; i++) {
        f.gradients[i] = t->rank == 0 ? 0x1p24f : 1.0f;
    }
    for (int64_t b = 0; b < BUCKETS; b++) {
        MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
    }
    MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
    for (int64_t at = 0; at < f.plan.elements; at++) {
        MPI_TEST_CHECK(t, f.gradients[at] == want);
    }
    teardown(&f);
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"whole_sums_reach_everybody", whole_sums_reach_everybody, 1},
        {"pieces_then_gather", pieces_then_gather, 1},
        {"scattered_words_are_merged", scattered_words_are_merged, 1},
        {"a_piece_beyond_int_is_refused", a_piece_beyond_int_is_refused, 1},
        {"order_of_summation_is_rank_order", order_of_summation_is_rank_order, 1},
    };
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
