/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/shard_job.h"

#include "base/clock.h"
#include "base/fault.h"
#include "coordinator/shard_part.h"
#include "io/shard.h"
#include "io/shard_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TAG_ORDER = 1, TAG_PART = 2, TAG_REPORT = 3, DEALER_ONLY_RANKS = 8 };

/* Rank 0 to a rank: take this part (its bytes follow), or stop. */
struct job_order {
    int64_t index; // -1: stop
    int64_t document_max;
    uint64_t size;
};

/* A rank to rank 0: what became of its part. */
struct job_report {
    int64_t index;
    gidd_status status;
    gidd_shard_part_result result;
    char text[1024]; // of the failure
};

struct job {
    const gidd_shard_job_args *args;
    gidd_shard_part_maker maker;
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
    char *busy; // [size] 1: an order without its report
    int lock;   // descriptor of the held lock file, or -1
};

/* ------------------------------------------------------------------ the folder */

// Whether the lock file that was opened still is the one that others would open.
static int is_current(int fd, const char *path)
{
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

// Open-file-description lock: it goes with the process, so a killed job leaves nothing behind.
static gidd_status lock_file(struct job *job, const char *path)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    job->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (job->lock < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot write to %s: %s", job->args->output,
                         strerror(errno));
    }
    // ENOLCK, EINVAL: a file system without locks; nothing better can be had there.
    int held = fcntl(job->lock, F_OFD_SETLK, &whole) != 0 && (errno == EAGAIN || errno == EACCES);
    if (held || !is_current(job->lock, path)) { // or its owner removed it as we opened it
        (void)close(job->lock);
        job->lock = -1;
        return gidd_fail(GIDD_ERR_OUTPUT, "another shard job is writing to %s", job->args->output);
    }
    return GIDD_OK;
}

static gidd_status take_lock(struct job *job)
{
    char *path = gidd_path_join(job->args->output, "build.lock");
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the lock of %s", job->args->output);
    }
    gidd_status status = lock_file(job, path);
    free(path);
    return status;
}

static void release_lock(struct job *job)
{
    if (job->lock >= 0) {
        char *path = gidd_path_join(job->args->output, "build.lock");
        if (path != NULL) {
            (void)unlink(path); // under the lock: nobody else can hold this file
        }
        free(path);
        (void)close(job->lock);
        job->lock = -1;
    }
}

static int is_leftover(const char *name, int64_t shard_count)
{
    size_t length = strlen(name);
    const char *digits = name + strlen("shard-");
    char *end = NULL;
    if (strncmp(name, "shard-", strlen("shard-")) != 0) {
        return strcmp(name, "index.json.tmp") == 0;
    }
    if (length > 4 && strcmp(name + length - 4, ".tmp") == 0) {
        return 1;
    }
    long long shard = strtoll(digits, &end, 10);
    return end != digits && (strcmp(end, ".h5") == 0 || strcmp(end, ".json") == 0) &&
           shard >= shard_count;
}

// Removes temporary files, and shards and records numbered `shard_count` or more.
static gidd_status sweep_folder(const char *folder, int64_t shard_count)
{
    gidd_status status = GIDD_OK;
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot list %s: %s", folder, strerror(errno));
    }
    for (struct dirent *entry; status == GIDD_OK && (entry = readdir(dir)) != NULL;) {
        if (is_leftover(entry->d_name, shard_count) &&
            unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno != ENOENT) {
            status = gidd_fail(GIDD_ERR_IO, "cannot remove %s/%s: %s", folder, entry->d_name,
                               strerror(errno));
        }
    }
    (void)closedir(dir);
    return status;
}

static gidd_status sweep(const struct job *job, int64_t shard_count)
{
    char *done = gidd_path_join(job->args->output, "done");
    if (done == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a path");
    }
    gidd_status status = sweep_folder(job->args->output, shard_count);
    if (status == GIDD_OK) {
        status = sweep_folder(done, shard_count);
    }
    free(done);
    return status;
}

static gidd_status prepare_folder(struct job *job)
{
    char *done = gidd_path_join(job->args->output, "done");
    if (done == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a path");
    }
    gidd_status status = gidd_folder_make(done);
    free(done);
    GIDD_TRY(status);
    GIDD_TRY(take_lock(job));
    return sweep(job, INT64_MAX);
}

static gidd_status check_folder(const struct job *job)
{
    char *done = gidd_path_join(job->args->output, "done");
    int seen = done != NULL && access(done, W_OK) == 0;
    free(done);
    return seen ? GIDD_OK
                : gidd_fail(GIDD_ERR_MISSING,
                            "%s is not there for this rank: all ranks need one file system",
                            job->args->output);
}

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

static gidd_status take_report(struct job *job, const struct job_report *report, int from)
{
    job->busy[from] = 0;
    if (report->status != GIDD_OK) {
        return gidd_fail(report->status, "rank %d: %s", from, report->text);
    }
    GIDD_ASSERT(report->index >= 0 && report->index < job->part_count);
    note_result(job, report->index, &report->result);
    return GIDD_OK;
}

static gidd_status await_report(struct job *job, int from)
{
    struct job_report report;
    GIDD_TRY(gidd_comm_recv(job->args->comm, from, TAG_REPORT, &report, sizeof report));
    return take_report(job, &report, from);
}

/* ------------------------------------------------------------------ dealing, rank 0 */

// The rank that takes the next part. With few ranks the parts go round, rank 0 last, so that it
// works while the others do; with many, to whoever is free.
static gidd_status choose_rank(struct job *job, int64_t index, int *rank_p)
{
    if (job->size < DEALER_ONLY_RANKS) {
        int rank = (int)((index + 1) % job->size);
        *rank_p = rank;
        return job->busy[rank] ? await_report(job, rank) : GIDD_OK;
    }
    for (int rank = 1; rank < job->size; rank++) {
        if (!job->busy[rank]) {
            *rank_p = rank;
            return GIDD_OK;
        }
    }
    struct job_report report;
    size_t bytes = 0;
    GIDD_TRY(
        gidd_comm_recv_any(job->args->comm, TAG_REPORT, &report, sizeof report, &bytes, rank_p));
    return take_report(job, &report, *rank_p);
}

static gidd_status send_part(struct job *job, int rank, const gidd_corpus_part *part,
                             int64_t document_max)
{
    struct job_order order = {
        .index = part->index, .document_max = document_max, .size = part->size};
    GIDD_TRY(gidd_comm_send(job->args->comm, rank, TAG_ORDER, &order, sizeof order));
    GIDD_TRY(gidd_comm_send(job->args->comm, rank, TAG_PART, part->bytes, part->size));
    job->busy[rank] = 1;
    return GIDD_OK;
}

static gidd_status deal_part(void *context, const gidd_corpus_part *part, int *stop_p)
{
    struct job *job = context;
    int rank = 0;
    int64_t limit = job->args->document_limit;
    int64_t left = limit > 0 ? limit - job->progress.counts.of[GIDD_CORPUS_DOCUMENTS] : INT64_MAX;
    GIDD_TRY(note_part(job, part));
    GIDD_TRY(choose_rank(job, part->index, &rank));
    if (rank == 0) {
        gidd_shard_part_result result;
        GIDD_TRY(gidd_shard_part_make(&job->maker, part, left, &result));
        note_result(job, part->index, &result);
    } else {
        GIDD_TRY(send_part(job, rank, part, left));
        if (limit > 0) {
            GIDD_TRY(await_report(job, rank)); // what is left depends on it
        }
    }
    *stop_p = limit > 0 && job->progress.counts.of[GIDD_CORPUS_DOCUMENTS] >= limit;
    return GIDD_OK;
}

// Hears everybody out and dismisses them, also after a failure, of which the first is returned.
static gidd_status dismiss(struct job *job, gidd_status status)
{
    gidd_error first = *gidd_error_last();
    const struct job_order stop = {.index = -1};
    for (int rank = 1; rank < job->size; rank++) {
        gidd_status answered = job->busy[rank] ? await_report(job, rank) : GIDD_OK;
        if (answered == GIDD_ERR_COMM) {
            return answered;
        }
        if (status == GIDD_OK && answered != GIDD_OK) {
            status = answered;
            first = *gidd_error_last();
        }
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
    struct job_report report = {.index = order->index};
    uint8_t *bytes = malloc((size_t)order->size + 1);
    if (bytes == NULL) {
        // Without the memory for the message there is no orderly way to take it off the wire.
        return gidd_fail(GIDD_ERR_COMM, "no memory for a part of %llu bytes",
                         (unsigned long long)order->size);
    }
    gidd_status status = gidd_comm_recv(job->args->comm, 0, TAG_PART, bytes, (size_t)order->size);
    if (status == GIDD_OK) {
        gidd_corpus_part part = {
            .index = order->index, .bytes = bytes, .size = (size_t)order->size};
        report.status =
            gidd_shard_part_make(&job->maker, &part, order->document_max, &report.result);
        if (report.status != GIDD_OK) {
            (void)snprintf(report.text, sizeof report.text, "%s", gidd_error_last()->text);
        }
        status = gidd_comm_send(job->args->comm, 0, TAG_REPORT, &report, sizeof report);
    }
    free(bytes);
    return status;
}

// A part that fails is reported, and rank 0 ends the job: the loop goes on until it is dismissed.
static gidd_status serve(struct job *job)
{
    for (;;) {
        struct job_order order;
        GIDD_TRY(gidd_comm_recv(job->args->comm, 0, TAG_ORDER, &order, sizeof order));
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
    return sweep(job, job->part_count);
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

// Everything up to the first part; fails on all ranks or on none.
static gidd_status start(struct job *job)
{
    gidd_comm *comm = job->args->comm;
    GIDD_TRY(compare_tokenizers(job));
    GIDD_TRY(gidd_comm_agree(comm, job->rank == 0 ? prepare_folder(job) : GIDD_OK));
    gidd_status status = check_folder(job);
    if (status == GIDD_OK) {
        status = gidd_shard_part_maker_init(&job->maker, job->args->output, job->args->bpe,
                                            &job->args->corpus, job->args->document_limit);
    }
    if (status == GIDD_OK && job->rank == 0) {
        job->busy = calloc((size_t)job->size, 1);
        if (job->busy == NULL) {
            status = gidd_fail(GIDD_ERR_NOMEM, "no memory for %d ranks", job->size);
        }
    }
    return gidd_comm_agree(comm, status);
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
    if (status == GIDD_OK && job.rank == 0 && total_p != NULL) {
        job.progress.seconds = gidd_clock_seconds() - job.started_at;
        *total_p = job.progress;
    }
    release_lock(&job);
    gidd_shard_part_maker_release(&job.maker);
    free(job.busy);
    free(job.disk_bytes);
    free(job.entries);
    return status;
}

/* ------------------------------------------------------------------ from the configuration */

enum { INPUTS_MAX = GIDD_CONFIG_TEXT_MAX / 2 + 1 }; // one letter and a comma each

gidd_status gidd_shard_job_run_config(gidd_comm *comm, const gidd_config *config,
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
