/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/writer_queue.h"

#include "base/fault.h"
#include "io/tfevents.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUEUE_ENTRIES = 1024, LINE_MAX_BYTES = 2048 };

typedef struct entry {
    int         file; /* gidd_writer_file, or GIDD_WRITER_FILES for a scalar */
    const char *group, *name;
    int64_t     step;
    double      value;
    size_t      bytes;
    char        line[LINE_MAX_BYTES];
} entry;

struct gidd_writer_queue {
    int              files[GIDD_WRITER_FILES];
    char             paths[GIDD_WRITER_FILES][1200];
    gidd_tfevents   *events;
    pthread_t        thread;
    pthread_mutex_t  lock;
    pthread_cond_t   changed;
    int64_t          added, written; /* entries, since the start */
    int              stop, flush, started;
    gidd_error       failure; /* code GIDD_OK: none */
    entry            ring[QUEUE_ENTRIES];
};

static const char *const file_names[GIDD_WRITER_FILES] = {"metrics.jsonl", "timings.jsonl", "journal.jsonl"};

static gidd_status write_all(int file, const char *path, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t done = write(file, data, bytes);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return gidd_fail(GIDD_ERR_IO, "cannot write to %s: %s", path, strerror(errno));
        }
        data += done;
        bytes -= (size_t)done;
    }
    return GIDD_OK;
}

static gidd_status write_entry(gidd_writer_queue *queue, const entry *e)
{
    if (e->file < GIDD_WRITER_FILES) {
        return write_all(queue->files[e->file], queue->paths[e->file], e->line, e->bytes);
    }
    char tag[128];
    (void)snprintf(tag, sizeof tag, "%s/%s", e->group, e->name);
    return gidd_tfevents_scalar(queue->events, tag, e->step, e->value);
}

static gidd_status sync_files(gidd_writer_queue *queue)
{
    if (queue->events != NULL) {
        GIDD_TRY(gidd_tfevents_flush(queue->events));
    }
    for (int i = 0; i < GIDD_WRITER_FILES; i++) {
        if (fsync(queue->files[i]) != 0) {
            return gidd_fail(GIDD_ERR_IO, "cannot sync %s: %s", queue->paths[i], strerror(errno));
        }
    }
    return GIDD_OK;
}

static void *writer_main(void *context)
{
    gidd_writer_queue *queue = context;
    (void)pthread_mutex_lock(&queue->lock);
    for (;;) {
        while (queue->written == queue->added && !queue->stop && !queue->flush) {
            (void)pthread_cond_wait(&queue->changed, &queue->lock);
        }
        if (queue->written == queue->added && queue->stop) {
            break;
        }
        int         flush = queue->written == queue->added && queue->flush;
        entry      *next = &queue->ring[queue->written % QUEUE_ENTRIES];
        gidd_status status = queue->failure.code;
        (void)pthread_mutex_unlock(&queue->lock);
        if (status == GIDD_OK) { // after a failure the rest is only drained: the caller has been told
            status = flush ? sync_files(queue) : write_entry(queue, next);
        }
        (void)pthread_mutex_lock(&queue->lock);
        if (status != GIDD_OK && queue->failure.code == GIDD_OK) {
            queue->failure = *gidd_error_last();
        }
        if (flush) {
            queue->flush = 0;
        } else {
            queue->written++;
        }
        (void)pthread_cond_broadcast(&queue->changed);
    }
    (void)pthread_mutex_unlock(&queue->lock);
    return NULL;
}

static gidd_status thread_failure(gidd_writer_queue *queue)
{
    if (queue->failure.code != GIDD_OK) {
        gidd_error_restore(&queue->failure);
    }
    return queue->failure.code;
}

static gidd_status add_entry(gidd_writer_queue *queue, const entry *e)
{
    (void)pthread_mutex_lock(&queue->lock);
    while (queue->added - queue->written == QUEUE_ENTRIES) {
        (void)pthread_cond_wait(&queue->changed, &queue->lock);
    }
    queue->ring[queue->added % QUEUE_ENTRIES] = *e;
    queue->added++;
    (void)pthread_cond_broadcast(&queue->changed);
    gidd_status status = thread_failure(queue);
    (void)pthread_mutex_unlock(&queue->lock);
    return status;
}

gidd_status gidd_writer_queue_line(gidd_writer_queue *queue, gidd_writer_file file, const char *line, size_t bytes)
{
    GIDD_ASSERT(bytes <= LINE_MAX_BYTES);
    entry e = {.file = (int)file, .bytes = bytes};
    memcpy(e.line, line, bytes);
    return add_entry(queue, &e);
}

gidd_status gidd_writer_queue_scalar(gidd_writer_queue *queue, const char *group, const char *name, int64_t step,
                                     double value)
{
    if (queue->events == NULL) {
        return GIDD_OK;
    }
    return add_entry(queue, &(entry){.file = GIDD_WRITER_FILES, .group = group, .name = name, .step = step, .value = value});
}

gidd_status gidd_writer_queue_flush(gidd_writer_queue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->flush = 1;
    (void)pthread_cond_broadcast(&queue->changed);
    while (queue->flush) {
        (void)pthread_cond_wait(&queue->changed, &queue->lock);
    }
    gidd_status status = thread_failure(queue);
    (void)pthread_mutex_unlock(&queue->lock);
    return status;
}

// Moves what stands after `keep` bytes of metrics.jsonl to metrics.lost.jsonl, then cuts the file.
static gidd_status cut_metrics(const char *dir, const char *path, int file, int64_t keep)
{
    char    buffer[65536], lost_path[1200];
    off_t   size = lseek(file, 0, SEEK_END);
    ssize_t got = 0;
    if (size < 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot measure %s: %s", path, strerror(errno));
    }
    if (size < keep) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has %" PRId64 " bytes, but the checkpoint counted %" PRId64
                         "; was the file changed by hand? Move it away to go on without it", path, (int64_t)size, keep);
    }
    if (size == keep) {
        return GIDD_OK;
    }
    gidd_fault_point("journal_cut");
    (void)snprintf(lost_path, sizeof lost_path, "%s/metrics.lost.jsonl", dir);
    int lost = open(lost_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (lost < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", lost_path, strerror(errno));
    }
    gidd_status status = GIDD_OK;
    for (off_t at = keep; status == GIDD_OK && (got = pread(file, buffer, sizeof buffer, at)) > 0; at += got) {
        status = write_all(lost, lost_path, buffer, (size_t)got);
    }
    if (status == GIDD_OK && (got < 0 || fsync(lost) != 0)) {
        status = gidd_fail(GIDD_ERR_IO, "cannot move the tail of %s: %s", path, strerror(errno));
    }
    if (close(lost) != 0 && status == GIDD_OK) {
        status = gidd_fail(GIDD_ERR_IO, "cannot close %s: %s", lost_path, strerror(errno));
    }
    if (status == GIDD_OK && ftruncate(file, keep) != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot cut %s: %s", path, strerror(errno));
    }
    return status;
}

// A file that was synced is lost all the same if the power goes before its name is on disk; a checkpoint counts on
// metrics.jsonl being there.
static gidd_status sync_names(const char *dir)
{
    int         folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    gidd_status status = GIDD_OK;
    if (folder < 0 || (fsync(folder) != 0 && errno != EINVAL)) { // EINVAL: cannot be synced on this file system
        status = gidd_fail(GIDD_ERR_IO, "cannot sync %s: %s", dir, strerror(errno));
    }
    if (folder >= 0) {
        (void)close(folder);
    }
    return status;
}

static gidd_status open_files(gidd_writer_queue *queue, const char *dir, int64_t metrics_bytes, int tensorboard)
{
    for (int i = 0; i < GIDD_WRITER_FILES; i++) {
        queue->files[i] = -1;
    }
    for (int i = 0; i < GIDD_WRITER_FILES; i++) {
        (void)snprintf(queue->paths[i], sizeof queue->paths[i], "%s/%s", dir, file_names[i]);
        queue->files[i] = open(queue->paths[i], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (queue->files[i] < 0) {
            return gidd_fail(GIDD_ERR_OUTPUT, "cannot open %s: %s", queue->paths[i], strerror(errno));
        }
    }
    GIDD_TRY(sync_names(dir));
    GIDD_TRY(cut_metrics(dir, queue->paths[GIDD_WRITER_METRICS], queue->files[GIDD_WRITER_METRICS], metrics_bytes));
    if (tensorboard) {
        char path[1200];
        (void)snprintf(path, sizeof path, "%s/tensorboard", dir);
        GIDD_TRY(gidd_tfevents_open(path, &queue->events));
    }
    return GIDD_OK;
}

static void close_files(gidd_writer_queue *queue)
{
    for (int i = 0; i < GIDD_WRITER_FILES; i++) {
        if (queue->files[i] >= 0) {
            (void)close(queue->files[i]); // synced before; a failure here has no meaning left
        }
    }
}

gidd_status gidd_writer_queue_open(const char *dir, int64_t metrics_bytes, int tensorboard, gidd_writer_queue **queue_p)
{
    gidd_writer_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the journal's queue");
    }
    (void)pthread_mutex_init(&queue->lock, NULL);
    (void)pthread_cond_init(&queue->changed, NULL);
    gidd_status status = open_files(queue, dir, metrics_bytes, tensorboard);
    if (status == GIDD_OK) {
        sigset_t all, before; // signals belong to the main thread
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = pthread_create(&queue->thread, NULL, writer_main, queue);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        queue->started = error == 0;
        if (error != 0) {
            status = gidd_fail(GIDD_ERR_NOMEM, "cannot start the journal's thread: %s", strerror(error));
        }
    }
    if (status != GIDD_OK) {
        gidd_error story = *gidd_error_last();
        (void)!gidd_writer_queue_close(queue); // the first failure is the one to tell
        gidd_error_restore(&story);
        return status;
    }
    *queue_p = queue;
    return GIDD_OK;
}

gidd_status gidd_writer_queue_close(gidd_writer_queue *queue)
{
    if (queue == NULL) {
        return GIDD_OK;
    }
    gidd_status status = GIDD_OK;
    if (queue->started) {
        status = gidd_writer_queue_flush(queue);
        (void)pthread_mutex_lock(&queue->lock);
        queue->stop = 1;
        (void)pthread_cond_broadcast(&queue->changed);
        (void)pthread_mutex_unlock(&queue->lock);
        (void)pthread_join(queue->thread, NULL);
    }
    if (queue->events != NULL) {
        gidd_status closed = gidd_tfevents_close(queue->events);
        status = status == GIDD_OK ? closed : status;
    }
    close_files(queue);
    (void)pthread_cond_destroy(&queue->changed);
    (void)pthread_mutex_destroy(&queue->lock);
    free(queue);
    return status;
}
