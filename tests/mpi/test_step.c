/* SPDX-License-Identifier: Apache-2.0
 *
 * Training steps launch by launch and as recorded segments: the same bits, on cpu and emu, with all rows and with
 * listed ones. After the second step nothing is allocated and the host never waits for all that it issued.
 */
#include "support/mpi_test.h"
#include "worker/reduction.h"
#include "worker/replicate.h"
#include "worker/step.h"

#include <math.h>
#include <stdlib.h>

enum { WORDS = 95, T = 24, D = 16, STEPS = 6, B = 2, MICRO_BATCHES = 3 };

static gidd_status document_length(void *context, int64_t document, int64_t *tokens_p)
{
    (void)context;
    *tokens_p = 5 + document * 7 % 60;
    return GIDD_OK;
}

static gidd_status document_read(void *context, int64_t document, int64_t first, int64_t count, uint16_t *ids)
{
    (void)context;
    for (int64_t i = 0; i < count; i++) {
        ids[i] = (uint16_t)((document * 31 + (first + i) * 7) % (WORDS - 1));
    }
    return GIDD_OK;
}

typedef struct run_args {
    const char *device;
    gidd_dtype  dtype;
    int         use_graphs, skip_clean, zero;
    int64_t     rows; /* sequences of a step on this rank */
} run_args;

typedef struct run {
    run_args           args;
    gidd_vocab         vocab;
    gidd_schedule      schedule;
    gidd_loader       *loader;
    gidd_device       *device;
    gidd_params        params;
    gidd_slice         slice;
    gidd_model        *model;
    gidd_optimizer    *optimizer;
    gidd_results      *results;
    gidd_segments     *segments;
    gidd_feed         *feed;
    gidd_reduction     reduction;
    gidd_step_context  step;
    gidd_report        reports[STEPS];
    int64_t            allocations[STEPS], stalls[STEPS]; /* when the step had been issued */
} run;

static gidd_status open_loader(run *r, int ranks)
{
    r->vocab = gidd_vocab_of(WORDS);
    GIDD_TRY(gidd_schedule_init(&r->schedule, &(gidd_schedule_args){.process = r->args.skip_clean ? GIDD_PROCESS_MDLM
                                                                                                  : GIDD_PROCESS_GIDD,
                                                                    .p_uniform = r->args.skip_clean ? 0.0 : 0.1,
                                                                    .t_eps = 1e-4,
                                                                    .max_weight = 2.0,
                                                                    .vocab_size = r->vocab.V,
                                                                    .mask_id = r->vocab.mask}));
    return gidd_loader_open(&(gidd_loader_args){.source = {.document_count = 200,
                                                           .valid_documents = 8,
                                                           .vocab_size = WORDS,
                                                           .length = document_length,
                                                           .read = document_read},
                                                .schedule = &r->schedule,
                                                .seed = 17,
                                                .eval_seed = 1,
                                                .global_batch = r->args.rows * ranks,
                                                .T = T},
                            &r->loader);
}

static gidd_status open_model(run *r, int rank, int ranks)
{
    gidd_model_shape shape = {.D = D, .L = 2, .H = 2, .C = 8, .T = T, .V = r->vocab.V, .Vr = r->vocab.Vr,
                              .mask_id = r->vocab.mask};
    GIDD_TRY(gidd_device_open(&(gidd_device_args){.name = r->args.device, .dtype = r->args.dtype, .threads = 1}, &r->device));
    GIDD_TRY(gidd_params_init(&r->params, &shape, 16384, ranks));
    GIDD_TRY(gidd_slice_init(&r->slice, &r->params, r->args.zero ? rank : 0, r->args.zero ? ranks : 1));
    GIDD_TRY(gidd_model_create(&(gidd_model_args){.device = r->device,
                                                  .params = &r->params,
                                                  .slice = &r->slice,
                                                  .loss = r->args.skip_clean ? GIDD_LOSS_MDLM : GIDD_LOSS_GIDD,
                                                  .max_B = B,
                                                  .max_T = T,
                                                  .head_rows = 20},
                               &r->model));
    GIDD_TRY(gidd_model_init_params(r->model, 5));
    return gidd_optimizer_create(&(gidd_optimizer_args){.device = r->device,
                                                        .params = &r->params,
                                                        .slice = &r->slice,
                                                        .beta1 = 0.9,
                                                        .beta2 = 0.99,
                                                        .epsilon = 1e-9,
                                                        .weight_decay = 0.02,
                                                        .clip = 1.0},
                                 &r->optimizer);
}

static gidd_status open_buckets(run *r, gidd_comm *workers)
{
    GIDD_TRY(gidd_reduction_open(&r->reduction, &(gidd_reduction_args){.workers = workers, .model = r->model}));
    return gidd_replicate_weights(r->model, r->reduction.buckets);
}

static gidd_status open_step(run *r, int rank)
{
    int64_t micro_batches = (r->args.rows + B - 1) / B;
    GIDD_TRY(gidd_results_create(r->model, r->optimizer, &r->results));
    GIDD_TRY(gidd_feed_create(r->device,
                              &(gidd_prefetch_args){.loader = r->loader,
                                                    .end_step = STEPS,
                                                    .row_first = rank * r->args.rows,
                                                    .row_count = r->args.rows,
                                                    .micro_batch = B},
                              &r->feed));
    r->step = (gidd_step_context){.model = r->model,
                                  .optimizer = r->optimizer,
                                  .feed = r->feed,
                                  .results = r->results,
                                  .buckets = r->reduction.buckets,
                                  .micro_batches = micro_batches};
    GIDD_TRY(gidd_segments_create(&(gidd_segments_args){.model = r->model,
                                                        .optimizer = r->optimizer,
                                                        .scale = 1.0f / 100,
                                                        .T = T,
                                                        .B = B,
                                                        .last_B = r->args.rows - (micro_batches - 1) * B,
                                                        .micro_batches = micro_batches,
                                                        .may_skip = r->args.skip_clean,
                                                        .use_graphs = r->args.use_graphs,
                                                        .chunk_done = gidd_step_poll,
                                                        .grads_ready = gidd_step_post,
                                                        .context = &r->step},
                                  &r->segments));
    r->step.segments = r->segments;
    return GIDD_OK;
}

static void close_run(run *r)
{
    gidd_feed_destroy(r->feed);
    gidd_segments_destroy(r->segments);
    gidd_results_destroy(r->results);
    gidd_reduction_close(&r->reduction);
    gidd_optimizer_destroy(r->optimizer);
    gidd_model_destroy(r->model);
    gidd_slice_release(&r->slice);
    gidd_params_release(&r->params);
    gidd_device_close(r->device);
    gidd_loader_close(r->loader);
}

/* The report of the step before, as a worker makes it. */
static gidd_status midway(void *context)
{
    run *r = context;
    if (!gidd_step_is_open(&r->step)) {
        return GIDD_OK;
    }
    return gidd_step_report(&r->step, &r->reports[r->step.reported]);
}

static gidd_status train(mpi_test *t, run *r, const run_args *args)
{
    *r = (run){.args = *args};
    GIDD_TRY(open_loader(r, t->size));
    GIDD_TRY(open_model(r, t->rank, t->size));
    GIDD_TRY(open_buckets(r, t->set.workers));
    GIDD_TRY(open_step(r, t->rank));
    r->step.midway = midway;
    r->step.context = r;
    for (int64_t k = 0; k < STEPS; k++) {
        uint32_t skip = r->args.skip_clean ? GIDD_ACT_SKIP_CLEAN : 0;
        GIDD_TRY(gidd_step_run(&r->step, &(gidd_order){.step = k, .lr = 1e-3 * (double)k, .loss_limit = HUGE_VAL, .actions = GIDD_ACT_TRAIN | skip}));
        r->allocations[k] = r->device->allocation_count;
        r->stalls[k] = r->device->stall_count;
    }
    return gidd_step_report(&r->step, &r->reports[STEPS - 1]);
}

static void expect_steady(mpi_test *t, const run *r)
{
    int64_t launches = 0, graphs = gidd_segments_count(r->segments, &launches);
    MPI_TEST_CHECK(t, r->args.use_graphs ? graphs >= 5 && launches > graphs : graphs == 0);
    for (int64_t k = 2; k < STEPS; k++) {
        // the CPU's products (emu's too) are planned at the first use of a length of the list
        MPI_TEST_CHECK(t, r->allocations[k] == r->allocations[1] || r->args.skip_clean);
        MPI_TEST_CHECK(t, r->stalls[k] == r->stalls[1]);
    }
}

static void expect_equal(mpi_test *t, const run *a, const run *b)
{
    size_t bytes = (size_t)a->params.memory_count * gidd_dtype_bytes(a->device->dtype);
    MPI_TEST_CHECK(t, memcmp(a->model->weights, b->model->weights, bytes) == 0);
    for (int k = 0; k < STEPS; k++) {
        const gidd_report *x = &a->reports[k], *y = &b->reports[k];
        MPI_TEST_CHECK(t, x->step == k && y->step == k && x->grad_norm > 0 && x->train.positions > 0);
        MPI_TEST_CHECK(t, x->grad_norm == y->grad_norm);
        MPI_TEST_CHECK(t, memcmp(&x->train, &y->train, sizeof x->train) == 0);
    }
}

static void compare(mpi_test *t, run_args plain)
{
    run_args recorded = plain;
    run      a, b;
    recorded.use_graphs = 1;
    MPI_TEST_OK(t, train(t, &a, &plain));
    MPI_TEST_OK(t, train(t, &b, &recorded));
    if (t->status == GIDD_OK) {
        expect_steady(t, &a);
        expect_steady(t, &b);
        expect_equal(t, &a, &b);
    }
    close_run(&a);
    close_run(&b);
}

static void all_rows(mpi_test *t)
{
    compare(t, (run_args){.device = "cpu", .dtype = GIDD_F32, .rows = 2 * B});
    compare(t, (run_args){.device = "cpu", .dtype = GIDD_BF16, .rows = B, .zero = 1});
}

static void listed_rows(mpi_test *t)
{
    compare(t, (run_args){.device = "cpu", .dtype = GIDD_F32, .rows = MICRO_BATCHES * B - 1, .skip_clean = 1});
}

static void on_emu(mpi_test *t)
{
    compare(t, (run_args){.device = "emu", .dtype = GIDD_BF16, .rows = B, .skip_clean = 1, .zero = 1});
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"all_rows", all_rows, 1},
        {"listed_rows", listed_rows, 1},
#ifdef GIDD_HAVE_EMU
        {"on_emu", on_emu, 1},
#endif
    };
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
