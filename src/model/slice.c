/* SPDX-License-Identifier: Apache-2.0 */
#include "model/slice.h"

#include "kernels/update.h"

#include <stdlib.h>

static int64_t chunks_of(int64_t count)
{
    return (count + GIDD_NORM_CHUNK - 1) / GIDD_NORM_CHUNK;
}

gidd_status gidd_slice_init(gidd_slice *slice, const gidd_params *params, int64_t piece, int64_t pieces)
{
    int64_t flat = 0;
    *slice = (gidd_slice){.part_count = params->bucket_count, .is_whole = pieces == 1};
    slice->parts = calloc((size_t)params->bucket_count, sizeof *slice->parts);
    if (slice->parts == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a slice of %lld buckets", (long long)params->bucket_count);
    }
    for (int64_t i = 0; i < params->bucket_count; i++) {
        const gidd_param_bucket *bucket = &params->buckets[i];
        const int64_t            count = bucket->padded_count / pieces, start = piece * count;
        const int64_t            before = start < bucket->count ? start : bucket->count; // parameters of others
        const int64_t            left = bucket->count - before;
        GIDD_ASSERT(count % GIDD_NORM_CHUNK == 0 && count * pieces == bucket->padded_count);
        slice->parts[i] = (gidd_slice_part){.at = bucket->at + start,
                                            .own = slice->own_count,
                                            .count = count,
                                            .used = left < count ? left : count,
                                            .flat = flat + before,
                                            .chunk = slice->chunk_count + chunks_of(before)};
        flat += bucket->count;
        slice->own_count += count;
        slice->chunk_count += chunks_of(bucket->count);
    }
    return GIDD_OK;
}

void gidd_slice_release(gidd_slice *slice)
{
    if (slice != NULL) {
        free(slice->parts);
        *slice = (gidd_slice){0};
    }
}
