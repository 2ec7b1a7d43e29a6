/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/samples.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

gidd_status gidd_samples_create(int64_t num, int64_t T, gidd_samples *samples)
{
    *samples = (gidd_samples){.num = num, .T = T};
    samples->ids = calloc((size_t)num * (size_t)T + 1, sizeof *samples->ids);
    return samples->ids != NULL ? GIDD_OK
                                : gidd_fail(GIDD_ERR_NOMEM, "no memory for %" PRId64 " samples of %" PRId64 " tokens", num, T);
}

void gidd_samples_release(gidd_samples *samples)
{
    free(samples->ids);
    free(samples->given);
    free(samples->before);
    free(samples->entropy);
    free(samples->results);
    *samples = (gidd_samples){0};
}

gidd_status gidd_samples_give(gidd_samples *samples, const int32_t *given)
{
    const size_t T = (size_t)samples->T;
    samples->given = malloc(((size_t)samples->num * T + 1) * sizeof *given);
    if (samples->given == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for what %" PRId64 " samples are given", samples->num);
    }
    for (int64_t i = 0; i < samples->num; i++) {
        memcpy(samples->given + i * samples->T, given, T * sizeof *given);
    }
    return GIDD_OK;
}

double gidd_samples_unigram_entropy(const gidd_samples *samples, int64_t V)
{
    const int64_t total = samples->num * samples->T;
    int64_t      *counts = calloc((size_t)V, sizeof *counts);
    double        entropy = 0;
    for (int64_t i = 0; counts != NULL && i < total; i++) {
        counts[samples->ids[i]]++;
    }
    for (int64_t id = 0; counts != NULL && id < V; id++) {
        const double p = (double)counts[id] / (double)total;
        entropy -= counts[id] > 0 ? p * log(p) : 0;
    }
    free(counts);
    return entropy;
}

/* ---- a run ------------------------------------------------------------------------------------------------- */

typedef struct run {
    const gidd_samples_args *args;
    gidd_samples            *samples;
    gidd_sampler            *sampler;
    int64_t                  first, mine; // this rank's share
    gidd_samples_progress    now;
} run;

static void on_progress(void *context, int64_t step, int64_t steps, const int32_t *z, int64_t B)
{
    run *r = context;
    r->now.sample = r->first + r->now.done;
    r->now.count = B;
    r->now.step = step;
    r->now.steps = steps;
    r->now.z = z;
    r->args->progress(r->args->context, &r->now);
    r->now.done += step == steps ? B : 0;
}

static gidd_status allocate_results(run *r)
{
    gidd_samples *s = r->samples;
    const size_t  num = (size_t)s->num, T = (size_t)s->T;
    int           complete = 1;
    if (r->args->steps > 0) {
        s->steps = gidd_sampler_computed_steps(r->sampler);
        s->entropy = calloc(num * (size_t)s->steps + 1, sizeof *s->entropy);
        complete = s->entropy != NULL;
    }
    if (r->args->correct != NULL) {
        s->before = calloc(num * T + 1, sizeof *s->before);
        s->results = calloc(num + 1, sizeof *s->results);
        complete = complete && s->before != NULL && s->results != NULL;
    }
    return complete ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for the results of %zu samples", num);
}

static gidd_status start(run *r)
{
    const gidd_samples_args *args = r->args;
    const int64_t            rank = gidd_comm_rank(args->comm), size = gidd_comm_size(args->comm);
    r->first = r->samples->num * rank / size;
    r->mine = r->samples->num * (rank + 1) / size - r->first;
    r->now.mine = r->mine;
    GIDD_TRY(gidd_sampler_create(&(gidd_sampler_args){.model = args->model,
                                                      .schedule = args->schedule,
                                                      .T = r->samples->T,
                                                      .steps = args->steps > 0 ? args->steps : 1,
                                                      .temperature = args->temperature,
                                                      .min_p = args->min_p,
                                                      .seed = args->seed,
                                                      .progress = args->progress != NULL ? on_progress : NULL,
                                                      .context = r},
                                 &r->sampler));
    return allocate_results(r);
}

static gidd_status work_on_share(run *r)
{
    gidd_samples          *s = r->samples;
    const int64_t          at = r->first * s->T;
    const gidd_sample_span span = {r->first, r->mine, s->given != NULL ? s->given + at : NULL};
    if (r->args->steps > 0) {
        r->now.what = "sampling";
        GIDD_TRY(gidd_sampler_generate(r->sampler, &span, s->ids + at, s->entropy + r->first * s->steps));
    }
    if (r->args->correct == NULL) {
        return GIDD_OK;
    }
    memcpy(s->before + at, s->ids + at, (size_t)(r->mine * s->T) * sizeof *s->ids);
    r->now.what = "correcting";
    r->now.done = 0;
    return gidd_sampler_correct(r->sampler, r->args->correct, &span, s->ids + at, s->results + r->first);
}

// The shares of an array [num][item] to rank 0, where they are consecutive in rank order.
static gidd_status collect(const run *r, void *array, size_t item_bytes)
{
    gidd_comm   *comm = r->args->comm;
    const int    is_root = gidd_comm_rank(comm) == 0;
    const size_t bytes = (size_t)r->mine * item_bytes, all = (size_t)r->samples->num * item_bytes;
    char        *mine = malloc(bytes + 1); // the root's share is inside of what it receives into
    size_t      *sizes = calloc((size_t)gidd_comm_size(comm), sizeof *sizes);
    gidd_status  status = mine != NULL && sizes != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory to collect samples");
    status = gidd_comm_agree(comm, status);
    if (status == GIDD_OK) {
        memcpy(mine, (char *)array + (size_t)r->first * item_bytes, bytes);
        status = gidd_comm_gatherv(comm, 0, mine, bytes, is_root ? array : NULL, all, sizes);
    }
    free(mine);
    free(sizes);
    return status;
}

static gidd_status run_all(run *r)
{
    gidd_samples *s = r->samples;
    gidd_comm    *comm = r->args->comm;
    const size_t  row_bytes = (size_t)s->T * sizeof *s->ids;
    GIDD_TRY(gidd_comm_agree(comm, start(r)));
    GIDD_TRY(gidd_comm_agree(comm, work_on_share(r)));
    GIDD_TRY(collect(r, s->ids, row_bytes));
    if (s->entropy != NULL) {
        GIDD_TRY(collect(r, s->entropy, (size_t)s->steps * sizeof *s->entropy));
    }
    if (s->before != NULL) {
        GIDD_TRY(collect(r, s->before, row_bytes));
        GIDD_TRY(collect(r, s->results, sizeof *s->results));
    }
    return GIDD_OK;
}

gidd_status gidd_samples_run(const gidd_samples_args *args, gidd_samples *samples)
{
    run         r = {.args = args, .samples = samples};
    gidd_status status = run_all(&r);
    gidd_sampler_destroy(r.sampler);
    return status;
}
