/* SPDX-License-Identifier: Apache-2.0
 *
 * Building ahead: one producer thread, one consumer, a ring of records between them. Records are
 * numbered from 0 in the order in which they are built; `released <= taken <= built <= released +
 * depth`.
 */
#include "io/loader.h"

#include "base/clock.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_ALIGNMENT = 64 };

struct gidd_prefetch {
    gidd_prefetch_args args;
    int64_t T;
    int64_t per_step; // records of a step
    int64_t total;    // records in all
    gidd_batch *ring; // [depth]
    void *own_memory;
    int64_t waited_ns; // the consumer's

    pthread_t thread;
    int started; // thread, mutex and condition exist
    pthread_mutex_t
        mutex; // guards what follows; taken and released are written by the consumer only
    pthread_cond_t changed;
    int64_t built, taken, released;
    int stop;
    int failed;
    gidd_error error;
};

void gidd_loader_slice(int64_t global_batch, int64_t rank, int64_t ranks, int64_t *row_first_p,
                       int64_t *row_count_p)
{
    GIDD_ASSERT(ranks >= 1 && rank >= 0 && rank < ranks && global_batch % ranks == 0);
    *row_count_p = global_batch / ranks;
    *row_first_p = rank * *row_count_p;
}

static size_t record_bytes(const gidd_prefetch_args *args, int64_t T)
{
    size_t bytes = gidd_batch_bytes(args->micro_batch, T);
    return (bytes + RECORD_ALIGNMENT - 1) / RECORD_ALIGNMENT * RECORD_ALIGNMENT;
}

size_t gidd_prefetch_bytes(const gidd_prefetch_args *args)
{
    return (size_t)args->depth * record_bytes(args, gidd_loader_row_length(args->loader));
}

// Builds record `number` into its place in the ring.
static gidd_status build_record(gidd_prefetch *prefetch, int64_t number)
{
    const gidd_prefetch_args *args = &prefetch->args;
    gidd_batch *batch = &prefetch->ring[number % args->depth];
    int64_t offset = number % prefetch->per_step * args->micro_batch;
    int64_t left = args->row_count - offset;
    int64_t B = left < args->micro_batch ? left : args->micro_batch;
    gidd_batch_layout(batch, B, prefetch->T, batch->memory);
    return gidd_loader_build(args->loader, args->first_step + number / prefetch->per_step,
                             args->row_first + offset, batch);
}

// Waits for a free record; 0: there is nothing more to do.
static int wait_for_room(gidd_prefetch *prefetch)
{
    (void)pthread_mutex_lock(&prefetch->mutex);
    while (!prefetch->stop && prefetch->built - prefetch->released == prefetch->args.depth) {
        (void)pthread_cond_wait(&prefetch->changed, &prefetch->mutex);
    }
    int go_on = !prefetch->stop && prefetch->built < prefetch->total;
    (void)pthread_mutex_unlock(&prefetch->mutex);
    return go_on;
}

static void *produce(void *argument)
{
    gidd_prefetch *prefetch = argument;
    for (int64_t number = 0; wait_for_room(prefetch); number++) {
        gidd_status status = build_record(prefetch, number);
        (void)pthread_mutex_lock(&prefetch->mutex);
        if (status == GIDD_OK) {
            prefetch->built++;
        } else {
            prefetch->failed = 1;
            prefetch->stop = 1;
            prefetch->error = *gidd_error_last();
        }
        (void)pthread_cond_broadcast(&prefetch->changed);
        (void)pthread_mutex_unlock(&prefetch->mutex);
    }
    return NULL;
}

static gidd_status check_args(const gidd_prefetch_args *args)
{
    if (args->loader == NULL || args->micro_batch < 1 || args->depth < 2 || args->row_first < 0 ||
        args->row_count < 1 || args->first_step < 0 || args->end_step < args->first_step) {
        return gidd_fail(
            GIDD_ERR_ARG,
            "no records of %lld rows in a ring of %lld from rows %lld+%lld of steps %lld to %lld",
            (long long)args->micro_batch, (long long)args->depth, (long long)args->row_first,
            (long long)args->row_count, (long long)args->first_step, (long long)args->end_step);
    }
    return GIDD_OK;
}

static gidd_status make_ring(gidd_prefetch *prefetch)
{
    const gidd_prefetch_args *args = &prefetch->args;
    size_t bytes = record_bytes(args, prefetch->T);
    unsigned char *memory = args->memory;
    prefetch->ring = calloc((size_t)args->depth, sizeof *prefetch->ring);
    if (memory == NULL) {
        prefetch->own_memory = aligned_alloc(RECORD_ALIGNMENT, gidd_prefetch_bytes(args));
        memory = prefetch->own_memory;
    }
    if (prefetch->ring == NULL || memory == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld batch records of %zu bytes",
                         (long long)args->depth, bytes);
    }
    // Padding between the arrays travels with them to the device: let it be something.
    memset(memory, 0, gidd_prefetch_bytes(args));
    for (int64_t i = 0; i < args->depth; i++) {
        prefetch->ring[i].memory = memory + (size_t)i * bytes;
    }
    return GIDD_OK;
}

static gidd_status start_thread(gidd_prefetch *prefetch)
{
    sigset_t all, before;
    (void)pthread_mutex_init(&prefetch->mutex, NULL);
    (void)pthread_cond_init(&prefetch->changed, NULL);
    // Signals are the main thread's business: handlers set flags that it polls.
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&prefetch->thread, NULL, produce, prefetch);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        (void)pthread_cond_destroy(&prefetch->changed);
        (void)pthread_mutex_destroy(&prefetch->mutex);
        return gidd_fail(GIDD_ERR_NOMEM, "cannot start the prefetch thread: %s", strerror(code));
    }
    prefetch->started = 1;
    return GIDD_OK;
}

gidd_status gidd_prefetch_create(const gidd_prefetch_args *args, gidd_prefetch **prefetch_p)
{
    gidd_status status = GIDD_OK;
    GIDD_TRY(check_args(args));
    gidd_prefetch *prefetch = calloc(1, sizeof *prefetch);
    if (prefetch == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a prefetch");
    }
    prefetch->args = *args;
    prefetch->T = gidd_loader_row_length(args->loader);
    prefetch->per_step = (args->row_count + args->micro_batch - 1) / args->micro_batch;
    prefetch->total = (args->end_step - args->first_step) * prefetch->per_step;
    GIDD_TRY_GOTO(make_ring(prefetch));
    GIDD_TRY_GOTO(start_thread(prefetch));
    *prefetch_p = prefetch;
    return GIDD_OK;
out:
    gidd_prefetch_destroy(prefetch);
    return status;
}

void gidd_prefetch_destroy(gidd_prefetch *prefetch)
{
    if (prefetch == NULL) {
        return;
    }
    if (prefetch->started) {
        (void)pthread_mutex_lock(&prefetch->mutex);
        prefetch->stop = 1;
        (void)pthread_cond_broadcast(&prefetch->changed);
        (void)pthread_mutex_unlock(&prefetch->mutex);
        (void)pthread_join(prefetch->thread, NULL);
        (void)pthread_cond_destroy(&prefetch->changed);
        (void)pthread_mutex_destroy(&prefetch->mutex);
    }
    free(prefetch->own_memory);
    free(prefetch->ring);
    free(prefetch);
}

gidd_status gidd_prefetch_next(gidd_prefetch *prefetch, const gidd_batch **batch_p)
{
    if (prefetch->taken == prefetch->total) {
        return gidd_fail(GIDD_ERR_ARG, "all %lld records were taken", (long long)prefetch->total);
    }
    if (prefetch->taken - prefetch->released == prefetch->args.depth) {
        return gidd_fail(GIDD_ERR_ARG, "all %lld records of the ring are held",
                         (long long)prefetch->args.depth);
    }
    gidd_status status = GIDD_OK;
    int64_t start = gidd_clock_ns();
    (void)pthread_mutex_lock(&prefetch->mutex);
    while (prefetch->built == prefetch->taken && !prefetch->failed) {
        (void)pthread_cond_wait(&prefetch->changed, &prefetch->mutex);
    }
    if (prefetch->built > prefetch->taken) {
        *batch_p = &prefetch->ring[prefetch->taken % prefetch->args.depth];
        prefetch->taken++;
    } else {
        gidd_error_restore(&prefetch->error);
        status = prefetch->error.code;
    }
    (void)pthread_mutex_unlock(&prefetch->mutex);
    prefetch->waited_ns += gidd_clock_ns() - start;
    return status;
}

void gidd_prefetch_release(gidd_prefetch *prefetch)
{
    (void)pthread_mutex_lock(&prefetch->mutex);
    GIDD_ASSERT(prefetch->released < prefetch->taken);
    prefetch->released++;
    (void)pthread_cond_broadcast(&prefetch->changed);
    (void)pthread_mutex_unlock(&prefetch->mutex);
}

int64_t gidd_prefetch_waited_ns(const gidd_prefetch *prefetch)
{
    return prefetch->waited_ns;
}
