/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench shard: the shard job from texts on disk (in the page cache after the first time) to a
 * verified data set in a temporary folder.
 */
#include "base/clock.h"
#include "base/processors.h"
#include "coordinator/shard_job.h"
#include "tools/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct shard_work {
    char folder[GIDD_BENCH_FOLDER_SIZE];
    char texts[GIDD_BENCH_FOLDER_SIZE + 16]; /* where synthetic texts are */
    gidd_bpe *bpe;
    gidd_shard_progress total; /* of the last run; rank 0 */
    double *seconds;
} shard_work;

static gidd_status write_document(const char *path, const uint8_t *bytes, size_t count)
{
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    int bad = fwrite(bytes, 1, count, file) != count;
    bad |= fclose(file) != 0;
    return bad ? gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", path, strerror(errno)) : GIDD_OK;
}

// A file a document, as people keep their texts.
static gidd_status write_texts(const char *folder, const gidd_bench_texts *texts)
{
    if (mkdir(folder, 0777) != 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", folder, strerror(errno));
    }
    for (int64_t i = 0; i < texts->count; i++) {
        char path[GIDD_BENCH_FOLDER_SIZE + 64];
        (void)snprintf(path, sizeof path, "%s/%08lld.txt", folder, (long long)i);
        GIDD_TRY(write_document(path, texts->bytes + texts->starts[i],
                                texts->starts[i + 1] - texts->starts[i]));
    }
    return GIDD_OK;
}

static gidd_status make_input(gidd_bench *bench, const shard_work *w)
{
    gidd_bench_texts texts = {0};
    if (gidd_comm_rank(bench->comms->world) != 0) {
        return GIDD_OK;
    }
    if (bench->options->path_count > 0) {
        gidd_bench_report_text(bench->report, "input", "texts of the command line");
        return GIDD_OK;
    }
    gidd_status status = gidd_bench_texts_init(
        &texts, bench, bench->options->mib > 0.0 ? bench->options->mib : 32.0);
    if (status == GIDD_OK) {
        status = write_texts(w->texts, &texts);
    }
    gidd_bench_texts_release(&texts);
    return status;
}

static gidd_status prepare(gidd_bench *bench, const gidd_bench_plan *plan, shard_work *w)
{
    gidd_comm *world = bench->comms->world;
    GIDD_TRY(gidd_bench_folder_create(bench->options, world, w->folder));
    (void)snprintf(w->texts, sizeof w->texts, "%s/texts", w->folder);
    gidd_status status = make_input(bench, w);
    if (status == GIDD_OK) {
        status = gidd_bpe_load(gidd_bench_tokenizer_folder(bench->config), &w->bpe);
    }
    w->seconds = calloc((size_t)plan->total, sizeof *w->seconds);
    if (status == GIDD_OK && w->seconds == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the times");
    }
    return gidd_comm_agree(world, status);
}

// Each time into a folder of its own: a job keeps the finished shards of an earlier one.
static gidd_status run_once(gidd_bench *bench, shard_work *w, int64_t index)
{
    const gidd_bench_options *o = bench->options;
    const char *made[] = {w->texts};
    char output[GIDD_BENCH_FOLDER_SIZE + 32];
    (void)snprintf(output, sizeof output, "%s/shards-%lld", w->folder, (long long)index);
    GIDD_TRY(gidd_comm_barrier(bench->comms->world));
    int64_t start_ns = gidd_clock_ns();
    GIDD_TRY(gidd_shard_job_run(
        &(gidd_shard_job_args){.comm = bench->comms->world,
                               .inputs = o->path_count > 0 ? o->paths : made,
                               .input_count = o->path_count > 0 ? o->path_count : 1,
                               .output = output,
                               .bpe = w->bpe,
                               .threads = gidd_processors_share(bench->config->device.threads, bench->comms->node_size),
                               .corpus = {.suffixes = bench->config->data.suffixes,
                                          .json_key = bench->config->data.json_key}},
        &w->total));
    w->seconds[index] = (double)(gidd_clock_ns() - start_ns) * 1e-9;
    if (gidd_comm_rank(bench->comms->world) == 0) {
        gidd_bench_folder_remove(output);
    }
    return GIDD_OK;
}

static gidd_status measure(gidd_bench *bench, shard_work *w)
{
    gidd_bench_plan plan = gidd_bench_plan_of(bench);
    GIDD_TRY(prepare(bench, &plan, w));
    for (int64_t i = 0; i < plan.total; i++) {
        GIDD_TRY(run_once(bench, w, i));
    }
    GIDD_TRY(gidd_bench_slowest(bench->comms->world, w->seconds, plan.total));
    gidd_bench_spread seconds = gidd_bench_spread_of(w->seconds + plan.warmup, plan.repeats);
    double bytes = (double)w->total.counts.of[GIDD_CORPUS_TEXT_BYTES];
    gidd_bench_report_count(bench->report, "threads",
                            gidd_processors_share(bench->config->device.threads, bench->comms->node_size));
    gidd_bench_report_count(bench->report, "shards", w->total.shard_count);
    gidd_bench_report_number(bench->report, "peak_mb", (double)w->total.peak_bytes * 1e-6);
    gidd_bench_report_count(bench->report, "tokens", w->total.token_count);
    gidd_bench_report_number(bench->report, "text_mb", bytes * 1e-6);
    gidd_bench_report_number(bench->report, "disk_mb", (double)w->total.disk_bytes_total * 1e-6);
    gidd_bench_report_spread(bench->report, "seconds", seconds);
    gidd_bench_report_spread(bench->report, "text_mb_per_s",
                             gidd_bench_spread_rate(seconds, bytes * 1e-6));
    gidd_bench_report_spread(bench->report, "tokens_per_s",
                             gidd_bench_spread_rate(seconds, (double)w->total.token_count));
    return GIDD_OK;
}

gidd_status gidd_bench_shard(gidd_bench *bench)
{
    shard_work w = {0};
    gidd_status status = measure(bench, &w);
    if (gidd_comm_rank(bench->comms->world) == 0) {
        gidd_bench_folder_remove(w.folder);
    }
    gidd_bpe_destroy(w.bpe);
    free(w.seconds);
    return status;
}
