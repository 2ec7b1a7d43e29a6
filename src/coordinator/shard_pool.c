/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/shard_pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HELD_MAX = GIDD_SHARD_THREADS_MAX + 1 };

struct pool_job {
    int64_t index;
    uint8_t *bytes; // [size], the pool's
    size_t size;
    int64_t document_max;
};

struct pool_thread {
    gidd_shard_pool *pool;
    gidd_shard_part_maker maker;
    pthread_t thread;
    int started;
};

struct gidd_shard_pool {
    struct pool_thread threads[GIDD_SHARD_THREADS_MAX];
    int thread_count;
    int held; // put and not taken: the owner's count

    pthread_mutex_t mutex; // guards what follows
    pthread_cond_t work;   // a part waits, or stop
    pthread_cond_t done;   // a report waits
    struct pool_job jobs[HELD_MAX];
    int job_count;
    gidd_shard_report reports[HELD_MAX];
    int report_count;
    int stop;
};

// The next part in order, or 0 when the pool stops.
static int next_job(gidd_shard_pool *pool, struct pool_job *job)
{
    (void)pthread_mutex_lock(&pool->mutex);
    while (!pool->stop && pool->job_count == 0) {
        (void)pthread_cond_wait(&pool->work, &pool->mutex);
    }
    int found = !pool->stop;
    if (found) {
        *job = pool->jobs[0];
        pool->job_count--;
        memmove(pool->jobs, pool->jobs + 1, (size_t)pool->job_count * sizeof *pool->jobs);
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    return found;
}

static void report(gidd_shard_pool *pool, const gidd_shard_report *made)
{
    (void)pthread_mutex_lock(&pool->mutex);
    pool->reports[pool->report_count++] = *made; // as many places as parts are held
    (void)pthread_cond_signal(&pool->done);
    (void)pthread_mutex_unlock(&pool->mutex);
}

static void *work(void *argument)
{
    struct pool_thread *self = argument;
    struct pool_job job;
    while (next_job(self->pool, &job)) {
        const gidd_corpus_part part = {.index = job.index, .bytes = job.bytes, .size = job.size};
        gidd_shard_report made = {.index = job.index};
        made.status = gidd_shard_part_make(&self->maker, &part, job.document_max, &made.result);
        if (made.status != GIDD_OK) {
            (void)snprintf(made.text, sizeof made.text, "%s", gidd_error_last()->text);
        }
        free(job.bytes);
        report(self->pool, &made);
    }
    return NULL;
}

static gidd_status start_thread(gidd_shard_pool *pool, int index, const gidd_shard_pool_args *args)
{
    struct pool_thread *thread = &pool->threads[index];
    sigset_t all, before;
    thread->pool = pool;
    GIDD_TRY(gidd_shard_part_maker_init(&thread->maker, args->output, args->bpe, args->options, args->document_limit));
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the main thread's business
    int code = pthread_create(&thread->thread, NULL, work, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        return gidd_fail(GIDD_ERR_NOMEM, "cannot start thread %d of the shard job: %s", index, strerror(code));
    }
    thread->started = 1;
    return GIDD_OK;
}

gidd_status gidd_shard_pool_create(const gidd_shard_pool_args *args, gidd_shard_pool **pool_p)
{
    pthread_condattr_t monotonic;
    gidd_status status = GIDD_OK;
    if (args->threads < 1 || args->threads > GIDD_SHARD_THREADS_MAX) {
        return gidd_fail(GIDD_ERR_ARG, "a pool of %d threads", args->threads);
    }
    gidd_shard_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the threads of the shard job");
    }
    pool->thread_count = args->threads;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&pool->mutex, NULL);
    (void)pthread_cond_init(&pool->work, NULL);
    (void)pthread_cond_init(&pool->done, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    for (int i = 0; i < pool->thread_count; i++) {
        GIDD_TRY_GOTO(start_thread(pool, i, args));
    }
    *pool_p = pool;
    return GIDD_OK;
out:
    gidd_shard_pool_destroy(pool);
    return status;
}

void gidd_shard_pool_destroy(gidd_shard_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&pool->mutex);
    pool->stop = 1;
    (void)pthread_cond_broadcast(&pool->work);
    (void)pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->thread_count; i++) {
        if (pool->threads[i].started) {
            (void)pthread_join(pool->threads[i].thread, NULL);
        }
        gidd_shard_part_maker_release(&pool->threads[i].maker);
    }
    for (int i = 0; i < pool->job_count; i++) {
        free(pool->jobs[i].bytes);
    }
    (void)pthread_cond_destroy(&pool->done);
    (void)pthread_cond_destroy(&pool->work);
    (void)pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

int gidd_shard_pool_room(const gidd_shard_pool *pool)
{
    return pool->thread_count + 1;
}

int gidd_shard_pool_held(const gidd_shard_pool *pool)
{
    return pool->held;
}

gidd_status gidd_shard_pool_put(gidd_shard_pool *pool, int64_t index, uint8_t *bytes, size_t size, int64_t document_max)
{
    if (pool->held == gidd_shard_pool_room(pool)) {
        free(bytes);
        return gidd_fail(GIDD_ERR_ARG, "a pool of %d threads holds no more parts", pool->thread_count);
    }
    pool->held++;
    (void)pthread_mutex_lock(&pool->mutex);
    pool->jobs[pool->job_count++] =
        (struct pool_job){.index = index, .bytes = bytes, .size = size, .document_max = document_max};
    (void)pthread_cond_signal(&pool->work);
    (void)pthread_mutex_unlock(&pool->mutex);
    return GIDD_OK;
}

int gidd_shard_pool_take(gidd_shard_pool *pool, int wait_ms, gidd_shard_report *report)
{
    struct timespec until;
    int code = 0;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_mutex_lock(&pool->mutex);
    while (pool->report_count == 0 && wait_ms > 0 && code != ETIMEDOUT) {
        code = pthread_cond_timedwait(&pool->done, &pool->mutex, &until);
    }
    int found = pool->report_count > 0;
    if (found) {
        *report = pool->reports[0];
        pool->report_count--;
        memmove(pool->reports, pool->reports + 1, (size_t)pool->report_count * sizeof *pool->reports);
        pool->held--;
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    return found;
}
