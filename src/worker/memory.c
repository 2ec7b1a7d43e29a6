/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/memory.h"

#include <stdio.h>
#include <string.h>

static const double gib = 1073741824.0;

gidd_status gidd_memory_plan(const gidd_memory_args *args, gidd_plan_line lines[GIDD_MEMORY_LINES], int64_t *count_p)
{
    const gidd_model_args *model = args->model;
    GIDD_TRY(gidd_model_plan(model, lines, GIDD_MEMORY_LINES - 2, count_p));
    int64_t         own = model->slice != NULL ? model->slice->own_count : model->params->memory_count;
    gidd_plan_line *line = &lines[(*count_p)++];
    (void)snprintf(line->name, sizeof line->name, "Adam moments");
    line->bytes = (size_t)own * 2 * sizeof(float);
    if (args->ema_decay > 0) {
        line = &lines[(*count_p)++];
        (void)snprintf(line->name, sizeof line->name, "running average");
        line->bytes = (size_t)own * sizeof(float);
    }
    return GIDD_OK;
}

static gidd_status plan_total(const gidd_memory_args *args, int64_t max_B, double *bytes_p)
{
    gidd_model_args model = *args->model;
    gidd_plan_line  lines[GIDD_MEMORY_LINES];
    int64_t         count = 0;
    model.max_B = max_B;
    GIDD_TRY(gidd_memory_plan(&(gidd_memory_args){&model, args->ema_decay}, lines, &count));
    *bytes_p = 0;
    for (int64_t i = 0; i < count; i++) {
        *bytes_p += (double)lines[i].bytes;
    }
    return GIDD_OK;
}

/* By halves: a larger micro-batch wants more of everything, but for the chunk of logits, whose rows are cut anew (by
 * less than what a sequence's activations have). */
gidd_status gidd_memory_largest(const gidd_memory_args *args, double bytes, int64_t *max_B_p)
{
    int64_t fits = 0, too_many = GIDD_MEMORY_MOST_B + 1;
    while (too_many - fits > 1) {
        int64_t middle = fits + (too_many - fits) / 2;
        double  total = 0;
        GIDD_TRY(plan_total(args, middle, &total));
        *(total <= bytes ? &fits : &too_many) = middle;
    }
    *max_B_p = fits;
    return GIDD_OK;
}

gidd_status gidd_memory_explain(const gidd_memory_args *args)
{
    gidd_error     story = *gidd_error_last();
    gidd_plan_line lines[GIDD_MEMORY_LINES];
    char           text[sizeof story.text];
    int64_t        count = 0;
    double         total = 0;
    size_t         used = (size_t)snprintf(text, sizeof text, "%.300s; a rank wants", story.text);
    GIDD_TRY(gidd_memory_plan(args, lines, &count));
    for (int64_t i = 0; i < count && used < sizeof text; i++) {
        total += (double)lines[i].bytes;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s %s %.3f GiB", i > 0 ? "," : "", lines[i].name,
                                 (double)lines[i].bytes / gib);
    }
    if (used < sizeof text) {
        (void)snprintf(text + used, sizeof text - used, "; in all %.3f GiB: a smaller training.micro_batch, training.recompute=block or comm.zero=on want "
                       "less", total / gib);
    }
    return gidd_fail(GIDD_ERR_NOMEM, "%s", text);
}
