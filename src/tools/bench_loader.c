/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench loader: batch records of 64 x T, built on this thread and fetched from the prefetch
 * thread, from memory and from shards.
 */
#include "base/clock.h"
#include "tools/bench.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    RECORD_ROWS = 64,
    RING_DEPTH = 4,
};

typedef struct loader_work {
    char folder[GIDD_BENCH_FOLDER_SIZE];
    int64_t T;
    gidd_shard_set *shards;
    gidd_schedule schedule;
    gidd_batch batch;
    double *seconds, *waited; /* [total] */
    gidd_bench_plan plan;
} loader_work;

/* ---- Set-up ---------------------------------------------------------------------------------- */

static gidd_status open_shards(gidd_bench *bench, loader_work *w)
{
    if (bench->options->input == GIDD_BENCH_DATA) {
        gidd_bench_report_text(bench->report, "shards", "those in data.dir");
        return gidd_shard_set_open(bench->config->data.dir, &w->shards);
    }
    gidd_bench_report_text(bench->report, "shards", "synthetic, just written");
    GIDD_TRY(gidd_bench_folder_create(bench->options, NULL, w->folder));
    GIDD_TRY(gidd_bench_shards_make(w->folder, w->T));
    return gidd_shard_set_open(w->folder, &w->shards);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

static gidd_status open_loader(gidd_bench *bench, loader_work *w, const gidd_source *source,
                               gidd_loader **loader_p)
{
    gidd_vocab vocab = gidd_vocab_of(source->vocab_size);
    gidd_schedule_args schedule = gidd_resolve_schedule(bench->config, &vocab);
    GIDD_TRY(gidd_schedule_init(&w->schedule, &schedule));
    return gidd_loader_open(
        &(gidd_loader_args){.source = *source,
                            .schedule = &w->schedule,
                            .seed = (uint64_t)bench->config->run.seed,
                            .eval_seed = (uint64_t)bench->config->eval.seed,
                            .global_batch = RECORD_ROWS,
                            .T = w->T,
                            .max_add_padding = bench->config->data.max_add_padding,
                            .window = GIDD_WINDOW_DOCUMENT},
        loader_p);
}

static double seconds_since(int64_t start_ns)
{
    return (double)(gidd_clock_ns() - start_ns) * 1e-9;
}

// Every record built by this thread.
static gidd_status build_records(const gidd_loader *loader, loader_work *w)
{
    for (int64_t i = 0; i < w->plan.total; i++) {
        int64_t start_ns = gidd_clock_ns();
        GIDD_TRY(gidd_loader_build(loader, i, 0, &w->batch));
        w->seconds[i] = seconds_since(start_ns);
        w->waited[i] = (double)NAN;
    }
    return GIDD_OK;
}

// A consumer that sleeps `work_ms` over each record: it takes no processor time from the thread
// that builds.
static gidd_status consume(gidd_prefetch *prefetch, loader_work *w, double work_ms)
{
    const struct timespec work = {.tv_sec = (time_t)(work_ms * 1e-3),
                                  .tv_nsec = (long)(fmod(work_ms, 1e3) * 1e6)};
    for (int64_t i = 0; i < w->plan.total; i++) {
        const gidd_batch *batch = NULL;
        int64_t start_ns = gidd_clock_ns(), waited_ns = gidd_prefetch_waited_ns(prefetch);
        GIDD_TRY(gidd_prefetch_next(prefetch, &batch));
        w->waited[i] = (double)(gidd_prefetch_waited_ns(prefetch) - waited_ns) * 1e-9;
        if (work_ms > 0.0) {
            (void)nanosleep(&work, NULL);
        }
        gidd_prefetch_release(prefetch);
        w->seconds[i] = seconds_since(start_ns);
    }
    return GIDD_OK;
}

static gidd_status fetch_records(const gidd_loader *loader, loader_work *w, double work_ms)
{
    gidd_prefetch *prefetch = NULL;
    GIDD_TRY(gidd_prefetch_create(&(gidd_prefetch_args){.loader = loader,
                                                        .end_step = w->plan.total,
                                                        .row_count = RECORD_ROWS,
                                                        .micro_batch = RECORD_ROWS,
                                                        .depth = RING_DEPTH},
                                  &prefetch));
    gidd_status status = consume(prefetch, w, work_ms);
    gidd_prefetch_destroy(prefetch);
    return status;
}

static void report_row(gidd_bench *bench, loader_work *w, const char *name)
{
    static const char *const keys[] = {"ms",        "ms_min",       "ms_max", "records_per_s",
                                       "waited_ms", "waited_ms_max", "waited_percent"};
    const gidd_bench_spread no_spread = {(double)NAN, (double)NAN, (double)NAN};
    double *waited = w->waited + w->plan.warmup;
    gidd_bench_spread ms = gidd_bench_spread_scale(
        gidd_bench_spread_of(w->seconds + w->plan.warmup, w->plan.repeats), 1e3);
    gidd_bench_spread wait =
        isnan(waited[0])
            ? no_spread
            : gidd_bench_spread_scale(gidd_bench_spread_of(waited, w->plan.repeats), 1e3);
    double all = 0.0, all_waited = 0.0;
    for (int64_t i = 0; i < w->plan.repeats; i++) {
        all += w->seconds[w->plan.warmup + i];
        all_waited += waited[i];
    }
    const double values[] = {ms.median, ms.min, ms.max, 1e3 / ms.median, wait.median, wait.max, 100.0 * all_waited / all};
    gidd_bench_report_row(bench->report, &(gidd_bench_row){"way", name, keys, values,
                                                           (int)(sizeof keys / sizeof *keys)});
}

typedef enum loader_way { WAY_BUILD, WAY_FETCH, WAY_FETCH_COLD } loader_way;

// Asks the system to forget the shards' bytes, so that they are read from the disk again.
static gidd_status forget_pages(const gidd_bench *bench, const loader_work *w)
{
    const char *folder = bench->options->input == GIDD_BENCH_DATA ? bench->config->data.dir : w->folder;
    for (int64_t s = 0; s < gidd_shard_set_info(w->shards)->shard_count; s++) {
        char name[24], path[GIDD_BENCH_FOLDER_SIZE + 32];
        gidd_shard_name(s, name);
        (void)snprintf(path, sizeof path, "%s/%s", folder, name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return gidd_fail(GIDD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
        }
        (void)fdatasync(fd); // pages that are not written yet cannot be dropped
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(fd);
    }
    return GIDD_OK;
}

static gidd_status measure_way(gidd_bench *bench, loader_work *w, const gidd_source *source,
                               loader_way way, double work_ms, const char *name)
{
    gidd_loader *loader = NULL;
    GIDD_TRY(way == WAY_FETCH_COLD ? forget_pages(bench, w) : GIDD_OK);
    GIDD_TRY(open_loader(bench, w, source, &loader));
    gidd_status status =
        way == WAY_BUILD ? build_records(loader, w) : fetch_records(loader, w, work_ms);
    gidd_loader_close(loader);
    if (status == GIDD_OK) {
        report_row(bench, w, name);
    }
    return status;
}

static gidd_status measure(gidd_bench *bench, loader_work *w)
{
    double work_ms = bench->options->work_ms > 0.0 ? bench->options->work_ms : 40.0;
    char busy[64], cold[96];
    w->T = bench->config->model.context;
    w->plan = gidd_bench_plan_of(bench);
    w->seconds = calloc((size_t)w->plan.total, sizeof *w->seconds);
    w->waited = calloc((size_t)w->plan.total, sizeof *w->waited);
    void *memory = aligned_alloc(64, (gidd_batch_bytes(RECORD_ROWS, w->T) + 63) / 64 * 64);
    if (memory == NULL || w->seconds == NULL || w->waited == NULL) {
        free(memory);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a batch record");
    }
    gidd_batch_layout(&w->batch, RECORD_ROWS, w->T, memory);
    gidd_bench_report_count(bench->report, "record_rows", RECORD_ROWS);
    gidd_bench_report_count(bench->report, "record_columns", w->T);
    gidd_bench_report_number(bench->report, "consumer_work_ms", work_ms);
    GIDD_TRY(open_shards(bench, w));
    gidd_source from_memory = gidd_bench_source(&w->T),
                from_shards = gidd_source_of_shards(w->shards);
    (void)snprintf(busy, sizeof busy, "shards, prefetched, %g ms of work", work_ms);
    GIDD_TRY(measure_way(bench, w, &from_memory, WAY_BUILD, 0.0, "memory, built here"));
    GIDD_TRY(measure_way(bench, w, &from_shards, WAY_BUILD, 0.0, "shards, built here"));
    GIDD_TRY(measure_way(bench, w, &from_shards, WAY_FETCH, 0.0, "shards, prefetched, no work"));
    GIDD_TRY(measure_way(bench, w, &from_shards, WAY_FETCH, work_ms, busy));
    (void)snprintf(cold, sizeof cold, "%s, cold page cache", busy);
    return measure_way(bench, w, &from_shards, WAY_FETCH_COLD, work_ms, cold);
}

gidd_status gidd_bench_loader(gidd_bench *bench)
{
    loader_work w = {0};
    gidd_status status = measure(bench, &w);
    gidd_shard_set_close(w.shards);
    gidd_bench_folder_remove(w.folder);
    free(w.batch.memory);
    free(w.seconds);
    free(w.waited);
    return status;
}
