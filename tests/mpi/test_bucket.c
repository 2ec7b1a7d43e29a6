/* SPDX-License-Identifier: Apache-2.0
 *
 * Bucket reduction. The inputs are small integers, so that sums are exact in fp32 whatever the
 * order: every rank count must give the same bits. One case has inputs whose sum does depend on the
 * order, and wants rank order.
 */
#include "comm/bucket.h"
#include "comm/nccl_abort.h"
#include "comm/nccl_api.h"
#include "support/fake_nccl.h"
#include "support/mpi_test.h"

#include <limits.h>
#include <stdlib.h>

// Elements of the buckets before padding: below a piece, at its end, and not a multiple of anything.
static const int64_t sizes[] = {1069, 64, 70003, 3, 16448, 128};
enum { BUCKETS = sizeof sizes / sizeof *sizes, PIECE_MULTIPLE = 64 };

typedef enum way { HOST, STAGED, NCCL } way;

typedef struct fixture {
    way how;
    fake_nccl_stream stream;
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

// A device's memory is told from the host's by having been copied: STAGED keeps it shifted by one bit pattern.
enum { SHIFT = 0x40 };

static gidd_status copy_shifted(void *target, const void *source, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        ((unsigned char *)target)[i] = ((const unsigned char *)source)[i] ^ SHIFT;
    }
    return GIDD_OK;
}

static gidd_status copy_out(void *context, void *host, const void *device, size_t bytes)
{
    (void)context;
    return copy_shifted(host, device, bytes);
}

static gidd_status copy_in(void *context, void *device, const void *host, size_t bytes)
{
    (void)context;
    return copy_shifted(device, host, bytes);
}

// The test's own memory as the device would have it, and back.
static void shift(const fixture *f, void *memory, size_t bytes)
{
    if (f->how == STAGED) {
        (void)copy_shifted(memory, memory, bytes);
    }
}

static gidd_status fork_stream(void *context)
{
    fixture *f = context;
    f->stream.is_forked = 1;
    return GIDD_OK;
}

static gidd_status join_stream(void *context)
{
    fixture *f = context;
    f->stream.is_forked = 0;
    return fake_nccl_run(&f->stream) == 0 ? GIDD_OK : gidd_fail(GIDD_ERR_COMM, "the stream");
}

static gidd_buckets_args args_of(mpi_test *t, fixture *f, gidd_bucket_mode mode)
{
    return (gidd_buckets_args){.comm = t->set.workers,
                               .plan = &f->plan,
                               .gradients = f->gradients,
                               .mode = mode,
                               .transport = f->how == NCCL ? GIDD_BUCKET_NCCL : GIDD_BUCKET_MPI,
                               .copy_out = f->how == STAGED ? copy_out : NULL,
                               .copy_in = f->how == STAGED ? copy_in : NULL,
                               .stream = &f->stream,
                               .fork = fork_stream,
                               .join = join_stream,
                               .order_context = f,
                               .deterministic = 1};
}

static void setup(mpi_test *t, fixture *f, gidd_bucket_mode mode)
{
    lay_out(f, t->size);
    f->gradients = calloc((size_t)f->plan.elements, sizeof(float));
    gidd_buckets_args args = args_of(t, f, mode);
    MPI_TEST_OK(t, gidd_buckets_create(&args, &f->buckets));
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

static void whole_sums(mpi_test *t, way how)
{
    fixture f = {.how = how};
    setup(t, &f, GIDD_BUCKET_WHOLE);
    for (int step = 0; step < 3; step++) {
        memset(f.gradients, 0, (size_t)f.plan.elements * sizeof(float));
        for (int64_t b = 0; b < BUCKETS; b++) {
            fill_bucket(t, &f, b); // as backward does: later buckets are written while earlier ones fly
            shift(&f, f.gradients + f.ranges[b].at, (size_t)(f.ranges[b].piece * t->size) * sizeof(float));
            MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
            MPI_TEST_OK(t, gidd_bucket_poll(f.buckets));
        }
        MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
        shift(&f, f.gradients, (size_t)f.plan.elements * sizeof(float));
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
static void pieces_and_gather(mpi_test *t, way how)
{
    fixture f = {.how = how};
    setup(t, &f, GIDD_BUCKET_PIECE);
    uint16_t *halves = calloc((size_t)f.plan.elements, sizeof *halves);
    uint32_t *words = calloc((size_t)f.plan.elements, sizeof *words);
    for (int64_t b = 0; b < BUCKETS; b++) {
        fill_bucket(t, &f, b);
        shift(&f, f.gradients + f.ranges[b].at, (size_t)(f.ranges[b].piece * t->size) * sizeof(float));
        MPI_TEST_OK(t, gidd_bucket_post(f.buckets, b));
    }
    MPI_TEST_OK(t, gidd_bucket_wait_all(f.buckets));
    shift(&f, f.gradients, (size_t)f.plan.elements * sizeof(float));
    for (int64_t b = 0; b < BUCKETS; b++) {
        const gidd_bucket_range *range = &f.ranges[b];
        for (int64_t i = 0; i < range->piece; i++) {
            int64_t place = t->rank * range->piece + i, at = range->at + place;
            MPI_TEST_CHECK(t, f.gradients[at] == (place < sizes[b] ? exact_sum(at, t->size) : 0.0f));
            halves[at] = (uint16_t)(at * 31 + 1);
            words[at] = (uint32_t)(at * 31 + 1);
        }
    }
    shift(&f, halves, (size_t)f.plan.elements * sizeof *halves);
    shift(&f, words, (size_t)f.plan.elements * sizeof *words);
    MPI_TEST_OK(t, gidd_bucket_gather(f.buckets, halves, sizeof *halves));
    MPI_TEST_OK(t, gidd_bucket_gather(f.buckets, words, sizeof *words));
    shift(&f, halves, (size_t)f.plan.elements * sizeof *halves);
    shift(&f, words, (size_t)f.plan.elements * sizeof *words);
    for (int64_t at = 0; at < f.plan.elements; at++) {
        MPI_TEST_CHECK(t, halves[at] == (uint16_t)(at * 31 + 1));
        MPI_TEST_CHECK(t, words[at] == (uint32_t)(at * 31 + 1));
    }
    free(words);
    free(halves);
    teardown(&f);
}

// Every word is somebody's: sign bits, NaNs and tiny numbers arrive as they were.
static void scattered_words(mpi_test *t, way how)
{
    enum { COUNT = 10007 };
    static const uint32_t strange[] = {0x80000000u, 0x7fc00001u, 0xffffffffu, 0x00000001u, 0xff800000u};
    fixture f = {.how = how};
    setup(t, &f, GIDD_BUCKET_PIECE);
    uint32_t *words = calloc(COUNT, sizeof *words);
    for (uint32_t i = 0; i < COUNT; i++) {
        words[i] = (int)(i / 3) % t->size == t->rank ? strange[i % 5] ^ (i << 8) : 0;
    }
    shift(&f, words, COUNT * sizeof *words);
    MPI_TEST_OK(t, gidd_bucket_merge(f.buckets, words, COUNT));
    shift(&f, words, COUNT * sizeof *words);
    for (uint32_t i = 0; i < COUNT; i++) {
        MPI_TEST_CHECK(t, words[i] == (strange[i % 5] ^ (i << 8)));
    }
    free(words);
    teardown(&f);
}

static void over_mpi(mpi_test *t)
{
    whole_sums(t, HOST);
    pieces_and_gather(t, HOST);
    scattered_words(t, HOST);
}

static void over_mpi_from_a_device(mpi_test *t)
{
    whole_sums(t, STAGED);
    pieces_and_gather(t, STAGED);
    scattered_words(t, STAGED);
}

static void over_nccl(mpi_test *t)
{
    whole_sums(t, NCCL);
    pieces_and_gather(t, NCCL);
    scattered_words(t, NCCL);
    MPI_TEST_CHECK(t, fake_nccl_live() == 0);
    MPI_TEST_CHECK(t, t->size == 1 || strcmp(getenv("NCCL_ALGO"), "Ring") == 0); // the environment is the user's first
}

// What NCCL finds out meanwhile is told by the next call.
static void a_lost_peer_is_told(mpi_test *t)
{
    fixture f = {.how = NCCL};
    setup(t, &f, GIDD_BUCKET_WHOLE);
    MPI_TEST_OK(t, gidd_bucket_poll(f.buckets));
    fake_nccl_set_async_error(6);
    MPI_TEST_CHECK(t, gidd_bucket_poll(f.buckets) == GIDD_ERR_PEER);
    MPI_TEST_CHECK(t, strstr(gidd_error_last()->text, "remote process exited") != NULL);
    fake_nccl_set_async_error(GIDD_NCCL_IN_PROGRESS);
    MPI_TEST_OK(t, gidd_bucket_poll(f.buckets));
    fake_nccl_set_async_error(0);
    teardown(&f);
}

// The watchdog's way out ends NCCL's kernels, once, while there is a communicator.
static void an_abort_reaches_nccl(mpi_test *t)
{
    fixture f = {.how = NCCL};
    int before = fake_nccl_aborts();
    gidd_nccl_abort_fire();
    MPI_TEST_CHECK(t, fake_nccl_aborts() == before);
    setup(t, &f, GIDD_BUCKET_WHOLE);
    gidd_nccl_abort_fire();
    gidd_nccl_abort_fire();
    MPI_TEST_CHECK(t, fake_nccl_aborts() == before + 1);
    teardown(&f);
    gidd_nccl_abort_fire();
    MPI_TEST_CHECK(t, fake_nccl_aborts() == before + 1);
}

// A piece beyond what MPI can count is refused on every rank.
static void a_piece_beyond_int_is_refused(mpi_test *t)
{
    gidd_bucket_range range = {.piece = (int64_t)INT_MAX + 1};
    gidd_bucket_plan plan = {
        .ranges = &range, .count = 1, .elements = range.piece * t->size, .ranks = t->size};
    gidd_buckets *buckets = NULL;
    gidd_buckets_args args = {.comm = t->set.workers, .plan = &plan};
    MPI_TEST_CHECK(t, gidd_buckets_create(&args, &buckets) == GIDD_ERR_UNSUPPORTED);
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
        {"over_mpi", over_mpi, 1},
        {"over_mpi_from_a_device", over_mpi_from_a_device, 1},
        {"over_nccl", over_nccl, 1},
        {"a_lost_peer_is_told", a_lost_peer_is_told, 2},
        {"an_abort_reaches_nccl", an_abort_reaches_nccl, 2},
        {"a_piece_beyond_int_is_refused", a_piece_beyond_int_is_refused, 2},
        {"order_of_summation_is_rank_order", order_of_summation_is_rank_order, 1},
    };
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
