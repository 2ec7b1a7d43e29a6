/* SPDX-License-Identifier: Apache-2.0 */
#include "io/mix_order.h"

#include "diffusion/permutation.h"

#include <math.h>

/* Blocks have epochs of their own: no order of documents uses numbers this large. */
static const uint64_t BLOCK_KEY = UINT64_C(1) << 63;

static gidd_status check_weights(const double *weights, int64_t count, double *sum_p)
{
    *sum_p = 0.0;
    if (count < 1 || count > GIDD_MIX_SOURCES_MAX) {
        return gidd_fail(GIDD_ERR_CONFIG, "a mix of %lld sources: 1 to %d are possible", (long long)count,
                         GIDD_MIX_SOURCES_MAX);
    }
    for (int64_t k = 0; k < count; k++) {
        if (!isfinite(weights[k]) || weights[k] <= 0.0) {
            return gidd_fail(GIDD_ERR_CONFIG, "source %lld of the mix has weight %g, which is not above 0", (long long)k,
                             weights[k]);
        }
        *sum_p += weights[k];
    }
    return isfinite(*sum_p) ? GIDD_OK : gidd_fail(GIDD_ERR_CONFIG, "the weights of the mix sum to infinity");
}

gidd_status gidd_mix_order_init(gidd_mix_order *order, uint64_t seed, const double *weights, int64_t count)
{
    double sum = 0.0, rest[GIDD_MIX_SOURCES_MAX];
    int32_t quota[GIDD_MIX_SOURCES_MAX];
    int32_t left = GIDD_MIX_BLOCK;
    GIDD_TRY(check_weights(weights, count, &sum));
    for (int64_t k = 0; k < count; k++) {
        double share = weights[k] / sum * GIDD_MIX_BLOCK;
        quota[k] = (int32_t)share;
        rest[k] = share - quota[k];
        left -= quota[k];
    }
    for (; left > 0; left--) { // largest remainders; of equal ones the first
        int64_t best = 0;
        for (int64_t k = 1; k < count; k++) {
            best = rest[k] > rest[best] ? k : best;
        }
        quota[best]++;
        rest[best] -= 1.0;
    }
    *order = (gidd_mix_order){.seed = seed, .count = count};
    for (int64_t k = 0; k < count; k++) {
        if (quota[k] == 0) {
            return gidd_fail(GIDD_ERR_CONFIG, "source %lld of the mix has a share of %g, below 1/%d", (long long)k,
                             weights[k] / sum, GIDD_MIX_BLOCK);
        }
        order->before[k + 1] = order->before[k] + quota[k];
    }
    return GIDD_OK;
}

int32_t gidd_mix_order_quota(const gidd_mix_order *order, int64_t k)
{
    return order->before[k + 1] - order->before[k];
}

static void work_out(const gidd_mix_order *order, int64_t number, gidd_mix_block *block)
{
    gidd_permutation shuffle;
    int16_t seen[GIDD_MIX_SOURCES_MAX] = {0};
    gidd_permutation_init(&shuffle, order->seed, BLOCK_KEY | (uint64_t)number, GIDD_MIX_BLOCK);
    for (int64_t i = 0; i < GIDD_MIX_BLOCK; i++) {
        int64_t at = gidd_permutation_at(&shuffle, i);
        uint8_t k = 0;
        while (at >= order->before[k + 1]) {
            k++;
        }
        block->source[i] = k;
        block->index[i] = seen[k]++;
    }
    block->number = number;
}

gidd_mix_place gidd_mix_order_at(const gidd_mix_order *order, int64_t sample, gidd_mix_block *block)
{
    int64_t number = sample / GIDD_MIX_BLOCK, at = sample % GIDD_MIX_BLOCK;
    if (order->count == 1) {
        return (gidd_mix_place){.index = sample};
    }
    if (block->number != number) {
        work_out(order, number, block);
    }
    int64_t k = block->source[at];
    return (gidd_mix_place){.source = k, .index = number * gidd_mix_order_quota(order, k) + block->index[at]};
}

int64_t gidd_mix_order_fitting(const gidd_mix_order *order, const int64_t *examples)
{
    gidd_mix_block block = {.number = -1};
    int64_t blocks = INT64_MAX / GIDD_MIX_BLOCK;
    if (order->count == 1) {
        return examples[0];
    }
    for (int64_t k = 0; k < order->count; k++) {
        int64_t whole = examples[k] / gidd_mix_order_quota(order, k);
        blocks = whole < blocks ? whole : blocks;
    }
    for (int64_t n = blocks * GIDD_MIX_BLOCK;; n++) { // ends inside the block that some source cannot fill
        gidd_mix_place place = gidd_mix_order_at(order, n, &block);
        if (place.index >= examples[place.source]) {
            return n;
        }
    }
}
