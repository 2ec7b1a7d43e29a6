/* SPDX-License-Identifier: Apache-2.0
 *
 * What a decoder keeps of the positions that it has seen, so that one more costs one position and not all:
 * rotated keys, and values, of every layer, in fp32.
 *
 *     gidd_cache_create(model, B, T, &cache);
 *     for (position = 0; position < T; position++) {
 *         gidd_model_load(model, batch);              // B sequences of 1 token: those at `position`
 *         gidd_cache_forward(cache, position);        // as gidd_model_forward
 *         gidd_model_logits(model, 0, B, &logits);    // of the tokens after them
 *     }
 */
#ifndef GIDD_MODEL_CACHE_H
#define GIDD_MODEL_CACHE_H

#include "model/model.h"

typedef struct gidd_cache {
    gidd_model *model; /* borrowed */
    int64_t     B, T;  /* sequences, positions     */
    int64_t     position;
    float      *memory; /* [L][2][B][T][D] on the device */
} gidd_cache;

/* Room for B sequences of T tokens of an autoregressive model; T <= model->max_T, B <= model->max_B. Owned by
 * the caller. GIDD_ERR_ARG: another model; GIDD_ERR_NOMEM. Local. */
gidd_status gidd_cache_create(gidd_model *model, int64_t B, int64_t T, gidd_cache **cache_p);
void        gidd_cache_destroy(gidd_cache *cache); /* NULL-safe. Local. */

/* Forward of the loaded batch of at most B sequences of one token each, all at `position`, for which every
 * earlier position has been run with the same sequences. Local. */
gidd_status gidd_cache_forward(gidd_cache *cache, int64_t position);

#endif
