/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/shard_job.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/processors.h"
#include "coordinator/shard_folder.h"
#include "coordinator/shard_pool.h"
#include "io/shard.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum {
    TAG_ORDER = 1,
    TAG_PART = 2,
    TAG_REPORT = 3,
    MANY_RANKS = 8, /* from here on rank 0 keeps one of its threads for dealing */
    PATIENCE_MS = 2 /* between looks at the two places where something may happen, threads and messages */
};

/* Rank 0 to a rank: take this part (its bytes follow), or stop. */
struct job_order {
    int64_t index; // -1: stop
    int64_t document_max;
    uint64_t size;
};

struct job {
    const gidd_shard_job_args *args;
    gidd_shard_pool *pool; // NULL: this rank makes no shards
    int rank;
    int size;
    // rank 0 only
    gidd_shard_progress progress;
    double started_at;
    gidd_shard_entry *entries; // [entry_room]
    int64_t *disk_bytes;       // [entry_room] of each part alone
    int64_t entry_room;
    int64_t part_count;
    int64_t disk_dealt;
    int32_t *room; // [size] parts that a rank can hold
    int32_t *held; // [size] parts given to it without their reports
    int lock;      // descriptor of the held lock file, or -1
};

/* ------------------------------------------------------------------ results, rank 0 */

static void show_progress(struct job *job)
{
    job->progress.seconds = gidd_clock_seconds() - job->started_at;
    if (job->args->show != NULL) {
        job->args->show(job->args->show_context, &job->progress);
    }
}

static gidd_status note_part(struct job *job, const gidd_corpus_part *part)
{
    if (part->index >= job->entry_room) {
        int64_t room = job->entry_room == 0 ? 256 : job->entry_room * 2;
        gidd_shard_entry *entries = realloc(job->entries, (size_t)room * sizeof *entries);
        job->entries = entries != NULL ? entries : job->entries;
        int64_t *disk_bytes = realloc(job->disk_bytes, (size_t)room * sizeof *disk_bytes);
        job->disk_bytes = disk_bytes != NULL ? disk_bytes : job->disk_bytes;
        if (entries == NULL || disk_bytes == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory to list %lld shards", (long long)room);
        }
        job->entry_room = room;
    }
    job->disk_bytes[part->index] = part->disk_bytes - job->disk_dealt;
    job->disk_dealt = part->disk_bytes;
    job->part_count = part->index + 1;
    return GIDD_OK;
}

static void note_result(struct job *job, int64_t index, const gidd_shard_part_result *result)
{
    gidd_shard_progress *progress = &job->progress;
    job->entries[index] = result->entry;
    gidd_corpus_counts_add(&progress->counts, &result->counts);
    progress->token_count += result->entry.token_count;
    progress->disk_bytes += job->disk_bytes[index];
    progress->shard_count++;
    progress->reused_count += result->reused;
    progress->fresh_text_bytes += result->reused ? 0 : result->counts.of[GIDD_CORPUS_TEXT_BYTES];
    show_progress(job);
}

static gidd_status take_report(struct job *job, const gidd_shard_report *report, int from)
{
    job->held[from]--;
    if (report->status != GIDD_OK) {
        return job->size > 1 ? gidd_fail(report->status, "rank %d: %s", from, report->text)
                             : gidd_fail(report->status, "%s", report->text);
    }
    GIDD_ASSERT(report->index >= 0 && report->index < job->part_count);
    note_result(job, report->index, &report->result);
    return GIDD_OK;
}

// Takes the reports that are there, of this rank's threads and of other ranks; *taken_p counts them.
static gidd_status collect(struct job *job, int wait_ms, int *taken_p)
{
    gidd_shard_report report;
    int from = 0;
    *taken_p = 0;
    while (job->pool != NULL && gidd_shard_pool_take(job->pool, *taken_p == 0 ? wait_ms : 0, &report)) {
        ++*taken_p;
        GIDD_TRY(take_report(job, &report, 0));
    }
    while (job->size > 1) {
        GIDD_TRY(gidd_comm_poll_any(job->args->comm, TAG_REPORT, &from));
        if (from < 0) {
            break;
        }
        GIDD_TRY(gidd_comm_recv(job->args->comm, from, TAG_REPORT, &report, sizeof report));
        ++*taken_p;
        GIDD_TRY(take_report(job, &report, from));
    }
    return GIDD_OK;
}

// Waits for at least one report.
static gidd_status await_report(struct job *job)
{
    const struct timespec moment = {.tv_nsec = PATIENCE_MS * 1000000L};
    int taken = 0;
    for (;;) {
        GIDD_TRY(collect(job, job->held[0] == 0 ? 0 : job->size > 1 ? PATIENCE_MS : 1000, &taken));
        if (taken > 0) {
            return GIDD_OK;
        }
        if (job->held[0] == 0) {
            (void)nanosleep(&moment, NULL);
        }
    }
}

/* ------------------------------------------------------------------ dealing, rank 0 */

static int total_held(const struct job *job)
{
    int total = 0;
    for (int rank = 0; rank < job->size; rank++) {
        total += job->held[rank];
    }
    return total;
}

// The rank that has least to do for its size, of equal ones the last: others before this one. -1: all are full.
static int least_busy(const struct job *job)
{
    int best = -1;
    for (int rank = job->size - 1; rank >= 0; rank--) {
        if (job->held[rank] < job->room[rank] &&
            (best < 0 || (int64_t)job->held[rank] * job->room[best] < (int64_t)job->held[best] * job->room[rank])) {
            best = rank;
        }
    }
    return best;
}

static gidd_status keep_part(struct job *job, const gidd_corpus_part *part, int64_t document_max)
{
    uint8_t *bytes = malloc(part->size);
    if (bytes == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a part of %zu bytes", part->size);
    }
    memcpy(bytes, part->bytes, part->size);
    return gidd_shard_pool_put(job->pool, part->index, bytes, part->size, document_max);
}

static gidd_status send_part(struct job *job, int rank, const gidd_corpus_part *part,
                             int64_t document_max)
{
    struct job_order order = {
        .index = part->index, .document_max = document_max, .size = part->size};
    GIDD_TRY(gidd_comm_send(job->args->comm, rank, TAG_ORDER, &order, sizeof order));
    return gidd_comm_send(job->args->comm, rank, TAG_PART, part->bytes, part->size);
}

static gidd_status deal_part(void *context, const gidd_corpus_part *part, int *stop_p)
{
    struct job *job = context;
    int taken = 0;
    int64_t limit = job->args->document_limit;
    int64_t left = limit > 0 ? limit - job->progress.counts.of[GIDD_CORPUS_DOCUMENTS] : INT64_MAX;
    GIDD_TRY(note_part(job, part));
    GIDD_TRY(collect(job, 0, &taken));
    while (least_busy(job) < 0) {
        GIDD_TRY(await_report(job));
    }
    int rank = least_busy(job);
    GIDD_TRY(rank == 0 ? keep_part(job, part, left) : send_part(job, rank, part, left));
    job->held[rank]++;
    while (limit > 0 && total_held(job) > 0) {
        GIDD_TRY(await_report(job)); // what is left depends on it
    }
    *stop_p = limit > 0 && job->progress.counts.of[GIDD_CORPUS_DOCUMENTS] >= limit;
    return GIDD_OK;
}

// Hears everybody out and dismisses them, also after a failure, of which the first is returned.
static gidd_status dismiss(struct job *job, gidd_status status)
{
    gidd_error first = *gidd_error_last();
    const struct job_order stop = {.index = -1};
    while (total_held(job) > 0) {
        gidd_status answered = await_report(job);
        if (answered == GIDD_ERR_COMM) {
            return answered;
        }
        if (status == GIDD_OK && answered != GIDD_OK) {
            status = answered;
            first = *gidd_error_last();
        }
    }
    for (int rank = 1; rank < job->size; rank++) {
        GIDD_TRY(gidd_comm_send(job->args->comm, rank, TAG_ORDER, &stop, sizeof stop));
    }
    if (status != GIDD_OK) {
        gidd_error_restore(&first);
    }
    return status;
}

static gidd_status deal(struct job *job)
{
    gidd_corpus *corpus = NULL;
    gidd_corpus_counts counts = {0};
    gidd_status status =
        gidd_corpus_open(job->args->inputs, job->args->input_count, &job->args->corpus, &corpus);
    if (status == GIDD_OK) {
        job->progress.disk_bytes_total = gidd_corpus_file_bytes(corpus);
        status = gidd_corpus_deal(corpus, deal_part, job, &counts);
    }
    gidd_corpus_close(corpus);
    if (status != GIDD_ERR_COMM) {
        status = dismiss(job, status);
    }
    gidd_corpus_counts_add(&job->progress.counts, &counts);
    return status;
}

/* ------------------------------------------------------------------ taking, the other ranks */

static gidd_status take_part(struct job *job, const struct job_order *order)
{
    uint8_t *bytes = malloc((size_t)order->size + 1);
    if (bytes == NULL) {
        // Without the memory for the message there is no orderly way to take it off the wire.
        return gidd_fail(GIDD_ERR_COMM, "no memory for a part of %llu bytes",
                         (unsigned long long)order->size);
    }
    gidd_status status = gidd_comm_recv(job->args->comm, 0, TAG_PART, bytes, (size_t)order->size);
    if (status != GIDD_OK) {
        free(bytes);
        return status;
    }
    return gidd_shard_pool_put(job->pool, order->index, bytes, (size_t)order->size, order->document_max);
}

// A part that fails is reported, and rank 0 ends the job: the loop goes on until it is dismissed.
static gidd_status serve(struct job *job)
{
    gidd_comm *comm = job->args->comm;
    for (;;) {
        struct job_order order;
        gidd_shard_report report;
        int from = -1;
        if (gidd_shard_pool_take(job->pool, PATIENCE_MS, &report)) {
            GIDD_TRY(gidd_comm_send(comm, 0, TAG_REPORT, &report, sizeof report));
        }
        GIDD_TRY(gidd_comm_poll_any(comm, TAG_ORDER, &from));
        if (from < 0) {
            continue;
        }
        GIDD_TRY(gidd_comm_recv(comm, from, TAG_ORDER, &order, sizeof order));
        if (order.index < 0) {
            return GIDD_OK;
        }
        GIDD_TRY(take_part(job, &order));
    }
}

/* ------------------------------------------------------------------ the end */

static char *format_counts(const gidd_corpus_counts *counts)
{
    json_t *object = json_object();
    char *text = NULL;
    int failed = object == NULL;
    for (int i = 0; i < GIDD_CORPUS_COUNTERS; i++) {
        const char *name = gidd_corpus_counter_name((gidd_corpus_counter)i);
        failed |= json_object_set_new(object, name, json_integer(counts->of[i])) != 0;
    }
    if (!failed) {
        text = json_dumps(object, JSON_SORT_KEYS);
    }
    json_decref(object);
    return text;
}

static gidd_status write_index(struct job *job)
{
    char *counts = format_counts(&job->progress.counts);
    if (counts == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the index of %s", job->args->output);
    }
    gidd_fault_point("shard_before_index");
    gidd_status status = gidd_shard_index_write(
        job->args->output, &(gidd_shard_index){.shard_count = job->part_count,
                                               .entries = job->entries,
                                               .valid_documents = job->args->valid_documents,
                                               .vocab_size = gidd_bpe_size(job->args->bpe),
                                               .tokenizer_digest = gidd_bpe_digest(job->args->bpe),
                                               .source_json = counts});
    free(counts);
    GIDD_TRY(status);
    gidd_fault_point("shard_after_index");
    return gidd_shard_folder_sweep(job->args->output, job->part_count);
}

// Ranks that tokenize with different files would make a data set of two tongues.
static gidd_status compare_tokenizers(const struct job *job)
{
    char first[GIDD_DIGEST_SIZE] = "";
    if (job->rank == 0) {
        (void)snprintf(first, sizeof first, "%s", gidd_bpe_digest(job->args->bpe));
    }
    GIDD_TRY(gidd_comm_bcast(job->args->comm, 0, first, sizeof first));
    gidd_status status = GIDD_OK;
    if (strcmp(first, gidd_bpe_digest(job->args->bpe)) != 0) {
        status = gidd_fail(GIDD_ERR_CORRUPT,
                           "the tokenizer's files are not those of rank 0 (digests %s, %s)",
                           gidd_bpe_digest(job->args->bpe), first);
    }
    return gidd_comm_agree(job->args->comm, status);
}

static int pool_threads(const struct job *job)
{
    int threads = job->args->threads < 1 ? 1 : job->args->threads;
    threads = threads < GIDD_SHARD_THREADS_MAX ? threads : GIDD_SHARD_THREADS_MAX;
    return job->rank == 0 && job->size >= MANY_RANKS ? threads - 1 : threads;
}

static gidd_status start_pool(struct job *job)
{
    int threads = pool_threads(job);
    GIDD_TRY(gidd_shard_folder_check(job->args->output));
    if (job->rank == 0) {
        job->room = calloc((size_t)job->size, sizeof *job->room);
        job->held = calloc((size_t)job->size, sizeof *job->held);
        if (job->room == NULL || job->held == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %d ranks", job->size);
        }
    }
    return threads == 0 ? GIDD_OK
                        : gidd_shard_pool_create(&(gidd_shard_pool_args){.output = job->args->output,
                                                                         .bpe = job->args->bpe,
                                                                         .options = &job->args->corpus,
                                                                         .document_limit = job->args->document_limit,
                                                                         .threads = threads},
                                                 &job->pool);
}

// Everything up to the first part; fails on all ranks or on none.
static gidd_status start(struct job *job)
{
    gidd_comm *comm = job->args->comm;
    GIDD_TRY(compare_tokenizers(job));
    GIDD_TRY(gidd_comm_agree(
        comm, job->rank == 0 ? gidd_shard_folder_take(job->args->output, &job->lock) : GIDD_OK));
    GIDD_TRY(gidd_comm_agree(comm, start_pool(job)));
    int32_t room = job->pool != NULL ? gidd_shard_pool_room(job->pool) : 0;
    return gidd_comm_gather(comm, 0, &room, sizeof room, job->room);
}

// The most memory that any rank has had, on rank 0.
static gidd_status note_memory(struct job *job)
{
    struct rusage usage;
    double peak = getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss * 1024.0 : 0.0;
    GIDD_TRY(gidd_comm_allreduce_double(job->args->comm, &peak, 1, GIDD_COMM_MAX));
    job->progress.peak_bytes = (int64_t)peak;
    return GIDD_OK;
}

gidd_status gidd_shard_job_run(const gidd_shard_job_args *args, gidd_shard_progress *total_p)
{
    struct job job = {.args = args,
                      .rank = gidd_comm_rank(args->comm),
                      .size = gidd_comm_size(args->comm),
                      .started_at = gidd_clock_seconds(),
                      .lock = -1};
    gidd_status status = start(&job);
    if (status == GIDD_OK) {
        status = job.rank == 0 ? deal(&job) : serve(&job);
        if (status == GIDD_OK && job.rank == 0) {
            status = write_index(&job);
        }
        if (status != GIDD_ERR_COMM) {
            status = gidd_comm_agree(args->comm, status);
        }
    }
    if (status == GIDD_OK) {
        status = note_memory(&job);
    }
    if (status == GIDD_OK && job.rank == 0 && total_p != NULL) {
        job.progress.seconds = gidd_clock_seconds() - job.started_at;
        *total_p = job.progress;
    }
    gidd_shard_pool_destroy(job.pool);
    gidd_shard_folder_release(args->output, job.lock);
    free(job.room);
    free(job.held);
    free(job.disk_bytes);
    free(job.entries);
    return status;
}

/* ------------------------------------------------------------------ from the configuration */

enum { INPUTS_MAX = GIDD_CONFIG_TEXT_MAX / 2 + 1 }; // one letter and a comma each

gidd_status gidd_shard_job_run_config(gidd_comm *comm, const gidd_config *config, int node_ranks,
                                      gidd_shard_progress_show show, void *show_context)
{
    char item[GIDD_CONFIG_TEXT_MAX];
    char *inputs[INPUTS_MAX] = {NULL};
    int count = 0;
    gidd_bpe *bpe = NULL;
    gidd_status status = gidd_bpe_load(config->data.tokenizer, &bpe);
    while (status == GIDD_OK && count < INPUTS_MAX &&
           gidd_config_list_item(config->data.source, count, item, sizeof item)) {
        inputs[count] = strdup(item);
        if (inputs[count] == NULL) {
            status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the inputs");
            break;
        }
        count++;
    }
    status = gidd_comm_agree(comm, status);
    if (status == GIDD_OK) {
        const gidd_shard_job_args args = {
            .comm = comm,
            .inputs = (const char *const *)inputs,
            .input_count = count,
            .output = config->data.dir,
            .bpe = bpe,
            .corpus = {.suffixes = config->data.suffixes, .json_key = config->data.json_key},
            .valid_documents = config->data.valid_documents,
            .threads = gidd_processors_share(config->device.threads, node_ranks),
            .show = show,
            .show_context = show_context};
        status = gidd_shard_job_run(&args, NULL);
    }
    while (count > 0) {
        free(inputs[--count]);
    }
    gidd_bpe_destroy(bpe);
    return status;
}
