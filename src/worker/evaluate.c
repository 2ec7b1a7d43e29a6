/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/evaluate.h"

static void count_tokens(const gidd_batch *batch, int64_t rows, int64_t *histogram)
{
    for (int64_t p = 0; p < rows * batch->T; p++) {
        histogram[batch->x[p]] += batch->attention_mask[p];
    }
}

static gidd_status evaluate_batch(const gidd_evaluate_args *args)
{
    GIDD_TRY(gidd_model_load(args->model, args->batch));
    GIDD_TRY(gidd_model_forward(args->model));
    return gidd_model_head(args->model, &(gidd_head_args){.mode = GIDD_LOSS_EVALUATE, .scale = 1});
}

gidd_status gidd_evaluate(const gidd_evaluate_args *args, gidd_loss_sums *sums)
{
    int64_t first = args->examples * args->rank / args->ranks;
    int64_t end = args->examples * (args->rank + 1) / args->ranks;
    GIDD_TRY(gidd_model_zero_sums(args->model));
    for (int64_t draw = 0; draw < args->draws; draw++) {
        for (int64_t at = first; at < end; at += args->batch->B) {
            int64_t rows = end - at < args->batch->B ? end - at : args->batch->B;
            GIDD_TRY(gidd_loader_build_eval(args->loader, at, rows, draw, args->batch));
            if (args->histogram != NULL && draw == 0) {
                count_tokens(args->batch, rows, args->histogram);
            }
            GIDD_TRY(evaluate_batch(args));
            if (args->progress != NULL) {
                args->progress(args->context, draw * (end - first) + at - first + rows, args->draws * (end - first));
            }
        }
    }
    return gidd_model_read_sums(args->model, sums);
}
