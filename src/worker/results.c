/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/results.h"

#include <stdlib.h>

enum { PLACES = 2 };

struct gidd_results {
    gidd_model     *model;
    gidd_optimizer *optimizer;
    gidd_result    *places; // pinned
    gidd_event     *arrived[PLACES];
    int64_t         sent, taken;
};

static gidd_status open_parts(gidd_results *results)
{
    void *memory = NULL;
    GIDD_TRY(gidd_device_host_alloc(results->model->device, PLACES * sizeof *results->places, "results", &memory));
    results->places = memory;
    for (int i = 0; i < PLACES; i++) {
        GIDD_TRY(gidd_event_create(results->model->device, &results->arrived[i]));
    }
    return GIDD_OK;
}

gidd_status gidd_results_create(gidd_model *model, gidd_optimizer *optimizer, gidd_results **results_p)
{
    gidd_results *results = calloc(1, sizeof *results);
    if (results == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for results");
    }
    results->model = model;
    results->optimizer = optimizer;
    gidd_status status = open_parts(results);
    if (status != GIDD_OK) {
        gidd_results_destroy(results);
        return status;
    }
    *results_p = results;
    return GIDD_OK;
}

void gidd_results_destroy(gidd_results *results)
{
    if (results == NULL) {
        return;
    }
    (void)!gidd_device_synchronize(results->model->device); // what was sent and not taken
    for (int i = 0; i < PLACES; i++) {
        gidd_event_destroy(results->model->device, results->arrived[i]);
    }
    gidd_device_host_free(results->model->device, results->places);
    free(results);
}

gidd_status gidd_results_send(gidd_results *results)
{
    gidd_device *device = results->model->device;
    const int    place = (int)(results->sent % PLACES);
    gidd_result *to = &results->places[place];
    GIDD_ASSERT(results->sent - results->taken < PLACES);
    GIDD_TRY(gidd_stream_copy_out(device, GIDD_STREAM_MAIN, &to->update, results->optimizer->state, sizeof to->update));
    GIDD_TRY(gidd_stream_copy_out(device, GIDD_STREAM_MAIN, &to->train, results->model->sums, sizeof to->train));
    GIDD_TRY(gidd_event_record(device, results->arrived[place], GIDD_STREAM_MAIN));
    results->sent++;
    return GIDD_OK;
}

gidd_status gidd_results_take(gidd_results *results, gidd_result *result)
{
    const int place = (int)(results->taken % PLACES);
    GIDD_ASSERT(results->taken < results->sent);
    GIDD_TRY(gidd_event_wait(results->model->device, results->arrived[place]));
    *result = results->places[place];
    results->taken++;
    return GIDD_OK;
}
