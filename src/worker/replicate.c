/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/replicate.h"

gidd_status gidd_replicate_norm(gidd_optimizer *optimizer, gidd_buckets *buckets)
{
    if (optimizer->slice->is_whole) {
        return GIDD_OK;
    }
    return gidd_bucket_merge(buckets, optimizer->partials, 2 * optimizer->slice->chunk_count); // 8 bytes each
}

gidd_status gidd_replicate_weights(gidd_model *model, gidd_buckets *buckets)
{
    if (model->slice == NULL || model->slice->is_whole) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_bucket_gather(buckets, model->weights, gidd_dtype_bytes(model->device->dtype)));
    if (model->exact == NULL) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_model_refresh_exact(model));
    return gidd_bucket_merge(buckets, model->exact, model->params->exact_count);
}
