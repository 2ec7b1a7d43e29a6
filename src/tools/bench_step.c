/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench step: the objects of a run as gidd-worker builds them, and its step without orders:
 * fetch the batch record, forward, head and loss, backward, reduce, clip, AdamW. First the device's
 * ceilings, then the step timed as it is, then with a profile of the kernels, whose times are held
 * against floors that the ceilings give.
 */
#include "base/clock.h"
#include "tools/bench.h"
#include "tools/bench_ceiling.h"
#include "tools/bench_profile.h"
#include "worker/resolve.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* parts of a step that no kernel accounts for, after the profile's */
    PART_DATA = GIDD_BENCH_PARTS,
    PART_COMM,
    PART_REST,
    PART_COUNT,
};

typedef struct step_work {
    char folder[GIDD_BENCH_FOLDER_SIZE];
    gidd_worker worker;
    gidd_bench_profile *profile;
    gidd_bench_ceiling ceiling; /* of this rank's device */
    double all_flops_per_s;     /* ceilings of all ranks' devices */
    gidd_bench_plan plan;
    int64_t profiled;                 /* steps with the profile, after plan.total without */
    double *seconds;                  /* [plan.total + profiled] */
    double *cpu_seconds;              /* [plan.total]: of all threads, on this rank */
    double *part_seconds[PART_COUNT]; /* [profiled] each; parts of one allocation */
    gidd_bench_count counts[GIDD_BENCH_PARTS]; /* of the last step */
    double loss;                               /* of the last step, nats a token, on this rank */
    int skips_clean;                           /* as the configuration has it before any evaluation */
    double *executed;                          /* [plan.total + profiled] FLOPs over all ranks */
} step_work;

/* ---- Set-up ---------------------------------------------------------------------------------- */

static gidd_status open_data(gidd_bench *bench, step_work *w)
{
    gidd_comm *world = bench->comms->world;
    const char *folder = bench->config->data.dir;
    if (bench->options->input == GIDD_BENCH_DATA) {
        gidd_bench_report_text(bench->report, "input", "the shards in data.dir");
    } else {
        gidd_bench_report_text(bench->report, "input", "synthetic documents of random ids");
        GIDD_TRY(gidd_bench_folder_create(bench->options, world, w->folder));
        folder = w->folder;
        GIDD_TRY(gidd_comm_agree(world,
                                 gidd_comm_rank(world) == 0
                                     ? gidd_bench_shards_make(folder, bench->config->model.context)
                                     : GIDD_OK));
    }
    return gidd_comm_agree(world, gidd_data_set_open(folder, "", &w->worker.data));
}

static gidd_status allocate_times(step_work *w)
{
    double *seconds =
        calloc((size_t)(3 * w->plan.total + (PART_COUNT + 2) * w->profiled), sizeof *seconds);
    if (seconds == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the times");
    }
    w->seconds = seconds;
    for (int i = 0; i < PART_COUNT; i++) {
        w->part_seconds[i] = seconds + w->plan.total + (i + 1) * w->profiled;
    }
    w->cpu_seconds = seconds + w->plan.total + (PART_COUNT + 1) * w->profiled;
    w->executed = w->cpu_seconds + w->plan.total;
    return GIDD_OK;
}

static gidd_status prepare(gidd_bench *bench, step_work *w)
{
    gidd_worker *worker = &w->worker;
    worker->args = (gidd_worker_args){.config = bench->config, .comms = bench->comms};
    worker->config = bench->config;
    worker->world = bench->comms->world;
    worker->has_slice = 1;
    worker->is_coordinator = bench->comms->is_coordinator;
    GIDD_TRY(open_data(bench, w));
    GIDD_TRY(gidd_worker_build(worker));
    gidd_status status = gidd_model_init_params(worker->model, (uint64_t)bench->config->run.seed);
    if (status == GIDD_OK) {
        status = allocate_times(w);
    }
    if (status == GIDD_OK) {
        status = gidd_worker_open_feed(worker, 0, w->plan.total + w->profiled);
    }
    return gidd_comm_agree(worker->world, status);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

// On a device of its own, before the run's takes the memory.
static gidd_status measure_ceiling(const gidd_bench *bench, step_work *w)
{
    gidd_device *device = NULL;
    gidd_status status = gidd_resolve_device(bench->config, bench->comms->node_rank, bench->comms->node_size, &device);
    if (status == GIDD_OK) {
        status = gidd_bench_ceiling_measure(device, &w->ceiling);
    }
    gidd_device_close(device);
    GIDD_TRY(gidd_comm_agree(bench->comms->world, status));
    w->all_flops_per_s = w->ceiling.flops_per_s;
    return gidd_comm_allreduce_double(bench->comms->world, &w->all_flops_per_s, 1, GIDD_COMM_SUM);
}

static gidd_status count_executed(step_work *w, int64_t index, const gidd_report *report)
{
    const gidd_config *config = w->worker.config;
    const gidd_model_flops flops =
        gidd_model_flops_of(&w->worker.params.shape, config->model.context,
                            gidd_resolve_recompute(config));
    int64_t head_rows = report->head_rows;
    GIDD_TRY(gidd_comm_allreduce_int64(w->worker.world, &head_rows, 1, GIDD_COMM_SUM));
    w->executed[index] =
        gidd_model_flops_executed(&flops, (double)config->training.global_batch,
                                  config->model.context, (double)head_rows);
    return GIDD_OK;
}

static gidd_status run_step(step_work *w, int64_t index, gidd_report *report)
{
    const gidd_order order = {
        .step = index,
        .lr = w->worker.config->optimizer.lr,
        .loss_limit = HUGE_VAL,
        .actions = GIDD_ACT_TRAIN | (w->skips_clean ? (uint32_t)GIDD_ACT_SKIP_CLEAN : 0)};
    GIDD_TRY(gidd_comm_barrier(w->worker.world));
    int64_t start_ns = gidd_clock_ns();
    GIDD_TRY(gidd_step_run(&w->worker.step, &order));
    memset(report, 0, sizeof *report);
    GIDD_TRY(gidd_step_report(&w->worker.step, report));
    report->step_ns = gidd_clock_ns() - start_ns; // until the device is done
    if (report->skipped) {
        return gidd_fail(GIDD_ERR_DIVERGED, "the gradient of step %lld is not finite",
                         (long long)index);
    }
    w->seconds[index] = (double)report->step_ns * 1e-9;
    w->loss = report->train.loss / report->train.positions;
    return count_executed(w, index, report);
}

static gidd_status run_profiled_step(step_work *w, int64_t at)
{
    gidd_report report;
    gidd_bench_profile_reset(w->profile);
    GIDD_TRY(run_step(w, w->plan.total + at, &report));
    const gidd_bench_count *counts = NULL;
    GIDD_TRY(gidd_bench_profile_finish(w->profile, &counts));
    double rest = (double)(report.step_ns - report.data_ns - report.comm_ns) * 1e-9;
    memcpy(w->counts, counts, sizeof w->counts);
    for (int part = 0; part < GIDD_BENCH_PARTS; part++) {
        w->part_seconds[part][at] = counts[part].seconds;
        rest -= counts[part].seconds;
    }
    w->part_seconds[PART_DATA][at] = (double)report.data_ns * 1e-9;
    w->part_seconds[PART_COMM][at] = (double)report.comm_ns * 1e-9;
    w->part_seconds[PART_REST][at] = rest;
    return GIDD_OK;
}

static gidd_status run_steps(step_work *w)
{
    gidd_report report;
    for (int64_t i = 0; i < w->plan.total; i++) {
        double start = gidd_bench_cpu_seconds();
        GIDD_TRY(run_step(w, i, &report));
        w->cpu_seconds[i] = gidd_bench_cpu_seconds() - start;
    }
    gidd_segments_issue_plainly(w->worker.segments); // a graph's launches do not pass the profile
    GIDD_TRY(gidd_bench_profile_attach(w->worker.device, &w->worker.params.shape, &w->profile));
    for (int64_t i = 0; i < w->profiled; i++) {
        GIDD_TRY(run_profiled_step(w, i));
    }
    return GIDD_OK;
}

/* ---- Reporting ------------------------------------------------------------------------------- */

static void report_model(const gidd_bench *bench, const step_work *w)
{
    const gidd_model_shape *s = &w->worker.params.shape;
    gidd_bench_report *r = bench->report;
    char text[256];
    gidd_bench_report_text(r, "device", w->worker.device_text);
    (void)snprintf(text, sizeof text,
                   "%" PRId64 " blocks, D %" PRId64 ", H %" PRId64 ", T %" PRId64 ", V %" PRId64
                   " (%" PRId64 ")",
                   s->L, s->D, s->H, s->T, s->V, s->Vr);
    gidd_bench_report_text(r, "model", text);
    gidd_bench_report_text(r, "precision", w->worker.device->dtype == GIDD_BF16 ? "bf16" : "fp32");
    gidd_bench_report_count(r, "parameters", w->worker.params.count);
    gidd_bench_report_count(r, "global_batch", bench->config->training.global_batch);
    gidd_bench_report_count(r, "micro_batch", w->worker.micro_batch);
    gidd_bench_report_text(r, "clean_rows", w->skips_clean ? "left out of the head" : "computed");
    gidd_bench_report_number(r, "gflop_per_token",
                             gidd_model_flops_of(s, s->T, GIDD_RECOMPUTE_NONE).sequence / (double)s->T * 1e-9);
}

// Of the timed steps; without clean rows it differs from step to step.
static double median_executed(const step_work *w)
{
    return gidd_bench_spread_of(w->executed + w->plan.warmup, w->plan.repeats).median;
}

typedef struct part_time {
    int part;
    double seconds;
} part_time;

static int longer_first(const void *a, const void *b)
{
    double x = ((const part_time *)a)->seconds, y = ((const part_time *)b)->seconds;
    return (x < y) - (x > y);
}

static void name_part(int part, char name[64])
{
    static const char *const others[] = {"waiting for the batch", "waiting for the reduction",
                                         "everything else"};
    if (part < GIDD_BENCH_PARTS) {
        gidd_bench_profile_name(part, name);
    } else {
        (void)snprintf(name, 64, "%s", others[part - GIDD_BENCH_PARTS]);
    }
}

static void report_part(const gidd_bench *bench, const step_work *w, part_time time,
                        double step_seconds)
{
    static const char *const keys[] = {"calls", "ms", "share_percent", "gflop", "gflop_per_s",
                                       "gb",    "gb_per_s", "floor_ms", "gap"};
    static const gidd_bench_count no_kernel = {0};
    const double none = (double)NAN;
    const gidd_bench_count *count = time.part < GIDD_BENCH_PARTS ? &w->counts[time.part] : &no_kernel;
    const int is_kernel = count->calls > 0, has_flops = count->work.flops > 0.0;
    const double gflop = count->work.flops * 1e-9, gb = count->work.bytes * 1e-9;
    const double floor_s = gidd_bench_floor(&count->work, &w->ceiling);
    const double values[] = {is_kernel ? (double)count->calls : none,
                             time.seconds * 1e3,
                             100.0 * time.seconds / step_seconds,
                             has_flops ? gflop : none,
                             has_flops ? gflop / time.seconds : none,
                             is_kernel ? gb : none,
                             is_kernel ? gb / time.seconds : none,
                             is_kernel ? floor_s * 1e3 : none,
                             is_kernel ? time.seconds / floor_s : none};
    char name[64];
    name_part(time.part, name);
    gidd_bench_report_row(bench->report, &(gidd_bench_row){"part", name, keys, values,
                                                           (int)(sizeof keys / sizeof *keys)});
}

/* Rank 0's kernels as a whole: what they took, what they could not have gone below, and what the step without
 * a profile has beyond them: launches, waits, the device's idle time. Below 0: kernels were slower under the profile. */
static void report_kernels(const gidd_bench *bench, const step_work *w, const part_time *times, int count,
                           double plain_seconds)
{
    double kernels_s = 0.0, floors_s = 0.0;
    for (int i = 0; i < count; i++) {
        if (times[i].part < GIDD_BENCH_PARTS) {
            kernels_s += times[i].seconds;
            floors_s += gidd_bench_floor(&w->counts[times[i].part].work, &w->ceiling);
        }
    }
    gidd_bench_report_number(bench->report, "kernels_ms", kernels_s * 1e3);
    gidd_bench_report_number(bench->report, "kernels_floor_ms", floors_s * 1e3);
    gidd_bench_report_number(bench->report, "beyond_kernels_ms", (plain_seconds - kernels_s) * 1e3);
}

/* Executed FLOPs of all ranks over what their devices' ceilings allow, and over what their maker says. */
static void report_utilisation(const gidd_bench *bench, const step_work *w, double executed_per_s)
{
    const double peak = bench->options->peak_tflops * 1e12 * (double)gidd_comm_size(bench->comms->world);
    gidd_bench_report_number(bench->report, "executed_of_ceiling_percent", 100.0 * executed_per_s / w->all_flops_per_s);
    if (peak > 0.0) {
        gidd_bench_report_number(bench->report, "peak_tflops", bench->options->peak_tflops);
        gidd_bench_report_number(bench->report, "executed_of_peak_percent", 100.0 * executed_per_s / peak);
    }
}

// Rank 0's own parts, the longest first; kernels that were not called are left out.
static void report_parts(const gidd_bench *bench, step_work *w, double step_seconds, double plain_seconds)
{
    part_time times[PART_COUNT];
    int count = 0;
    for (int part = 0; part < PART_COUNT; part++) {
        if (part >= GIDD_BENCH_PARTS || w->counts[part].calls > 0) {
            times[count++] =
                (part_time){part, gidd_bench_spread_of(w->part_seconds[part], w->profiled).median};
        }
    }
    qsort(times, (size_t)count, sizeof *times, longer_first);
    report_kernels(bench, w, times, count, plain_seconds);
    for (int i = 0; i < count; i++) {
        report_part(bench, w, times[i], step_seconds);
    }
}

static gidd_status report(gidd_bench *bench, step_work *w)
{
    const gidd_model_shape *s = &w->worker.params.shape;
    double G = (double)bench->config->training.global_batch;
    double gflop = gidd_model_flops_of(s, s->T, GIDD_RECOMPUTE_NONE).sequence * G * 1e-9;
    double executed_gflop = median_executed(w) * 1e-9;
    GIDD_TRY(gidd_bench_slowest(w->worker.world, w->seconds, w->plan.total + w->profiled));
    gidd_bench_spread seconds = gidd_bench_spread_of(w->seconds + w->plan.warmup, w->plan.repeats);
    gidd_bench_spread cpu = gidd_bench_spread_of(w->cpu_seconds + w->plan.warmup, w->plan.repeats);
    gidd_bench_spread profiled = gidd_bench_spread_of(w->seconds + w->plan.total, w->profiled);
    report_model(bench, w);
    gidd_bench_report_number(bench->report, "loss_nats", w->loss);
    gidd_bench_report_spread(bench->report, "step_ms", gidd_bench_spread_scale(seconds, 1e3));
    gidd_bench_report_spread(bench->report, "step_cpu_ms", gidd_bench_spread_scale(cpu, 1e3));
    gidd_bench_report_spread(bench->report, "profiled_step_ms",
                             gidd_bench_spread_scale(profiled, 1e3));
    gidd_bench_report_spread(bench->report, "tokens_per_s",
                             gidd_bench_spread_rate(seconds, G * (double)s->T));
    gidd_bench_report_spread(bench->report, "gflop_per_s", gidd_bench_spread_rate(seconds, gflop));
    gidd_bench_report_spread(bench->report, "executed_gflop_per_s",
                             gidd_bench_spread_rate(seconds, executed_gflop));
    gidd_bench_ceiling_report(bench->report, "ceiling", &w->ceiling);
    report_utilisation(bench, w, executed_gflop * 1e9 / seconds.median);
    report_parts(bench, w, profiled.median, seconds.median);
    return GIDD_OK;
}

static gidd_status measure(gidd_bench *bench, step_work *w)
{
    w->plan = gidd_bench_plan_of(bench);
    w->profiled = w->plan.repeats / 2 + 1;
    gidd_skip_guard guard;
    gidd_skip_guard_init(&guard, bench->config);
    w->skips_clean = gidd_skip_guard_skips(&guard, 0);
    GIDD_TRY(measure_ceiling(bench, w));
    GIDD_TRY(prepare(bench, w));
    GIDD_TRY(gidd_bench_survive(bench->comms->world, run_steps(w)));
    return report(bench, w);
}

static gidd_status create_work(const gidd_bench *bench, step_work **w_p)
{
    *w_p = calloc(1, sizeof **w_p);
    return gidd_comm_agree(bench->comms->world, *w_p == NULL
                                                    ? gidd_fail(GIDD_ERR_NOMEM, "no memory for a worker")
                                                    : GIDD_OK);
}

static void destroy_work(const gidd_bench *bench, step_work *w)
{
    gidd_bench_profile_detach(w->profile);
    gidd_worker_release(&w->worker);
    if (gidd_comm_rank(bench->comms->world) == 0) {
        gidd_bench_folder_remove(w->folder);
    }
    free(w->seconds);
    free(w);
}

gidd_status gidd_bench_step(gidd_bench *bench)
{
    step_work *w = NULL;
    GIDD_TRY(create_work(bench, &w));
    gidd_status status = measure(bench, w);
    destroy_work(bench, w);
    return status;
}

static gidd_status time_steps(gidd_bench *bench, step_work *w, double *seconds_p)
{
    gidd_report report;
    w->plan = (gidd_bench_plan){.warmup = 1, .repeats = 2, .total = 3};
    GIDD_TRY(prepare(bench, w));
    for (int64_t i = 0; i < w->plan.total; i++) {
        GIDD_TRY(gidd_bench_survive(bench->comms->world, run_step(w, i, &report)));
    }
    GIDD_TRY(gidd_bench_slowest(w->worker.world, w->seconds, w->plan.total));
    *seconds_p = gidd_bench_spread_of(w->seconds + w->plan.warmup, w->plan.repeats).median;
    gidd_bench_report_text(bench->report, "step_device", w->worker.device_text);
    gidd_bench_report_count(bench->report, "step_parameters", w->worker.params.count);
    gidd_bench_report_count(bench->report, "step_global_batch", bench->config->training.global_batch);
    return GIDD_OK;
}

gidd_status gidd_bench_step_seconds(gidd_bench *bench, double *seconds_p)
{
    step_work *w = NULL;
    GIDD_TRY(create_work(bench, &w));
    gidd_status status = time_steps(bench, w, seconds_p);
    destroy_work(bench, w);
    return status;
}
