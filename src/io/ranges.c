/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ranges.h"

#include <stdlib.h>

gidd_status gidd_ranges_add(gidd_ranges *ranges, int64_t first, int64_t end)
{
    if (first >= end) {
        return GIDD_OK;
    }
    if (ranges->count == ranges->capacity) {
        int64_t capacity = ranges->capacity > 0 ? 2 * ranges->capacity : 16;
        gidd_range *at = realloc(ranges->at, (size_t)capacity * sizeof *at);
        if (at == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld ranges", (long long)capacity);
        }
        ranges->at = at;
        ranges->capacity = capacity;
    }
    ranges->at[ranges->count++] = (gidd_range){first, end};
    return GIDD_OK;
}

static int by_first(const void *a, const void *b)
{
    const gidd_range *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

void gidd_ranges_settle(gidd_ranges *ranges)
{
    int64_t kept = 0;
    if (ranges->count < 2) {
        return;
    }
    qsort(ranges->at, (size_t)ranges->count, sizeof *ranges->at, by_first);
    for (int64_t i = 1; i < ranges->count; i++) {
        gidd_range next = ranges->at[i];
        if (next.first > ranges->at[kept].end) {
            ranges->at[++kept] = next;
        } else if (next.end > ranges->at[kept].end) {
            ranges->at[kept].end = next.end;
        }
    }
    ranges->count = kept + 1;
}

int64_t gidd_ranges_total(const gidd_ranges *ranges, int64_t first, int64_t end)
{
    int64_t total = 0;
    for (int64_t i = 0; i < ranges->count; i++) {
        int64_t from = ranges->at[i].first > first ? ranges->at[i].first : first;
        int64_t to = ranges->at[i].end < end ? ranges->at[i].end : end;
        total += to > from ? to - from : 0;
    }
    return total;
}

const gidd_range *gidd_ranges_find(const gidd_ranges *ranges, int64_t number)
{
    int64_t low = 0, high = ranges->count; // the last that starts at or before it is in [low, high)
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (ranges->at[middle].first <= number) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const gidd_range *found = high > low ? &ranges->at[low] : NULL;
    return found != NULL && found->first <= number && number < found->end ? found : NULL;
}

void gidd_ranges_release(gidd_ranges *ranges)
{
    free(ranges->at);
    *ranges = (gidd_ranges){0};
}
