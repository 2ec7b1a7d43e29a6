/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/memory.h"

#include <stdio.h>
#include <string.h>

static const double gib = 1073741824.0;

gidd_status gidd_memory_plan(const gidd_model_args *args, gidd_plan_line lines[GIDD_MEMORY_LINES], int64_t *count_p)
{
    GIDD_TRY(gidd_model_plan(args, lines, GIDD_MEMORY_LINES - 1, count_p));
    int64_t         own = args->slice != NULL ? args->slice->own_count : args->params->memory_count;
    gidd_plan_line *line = &lines[(*count_p)++];
    (void)snprintf(line->name, sizeof line->name, "Adam moments");
    line->bytes = (size_t)own * 2 * sizeof(float);
    return GIDD_OK;
}

gidd_status gidd_memory_explain(const gidd_model_args *args)
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
