/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/batch.h"

#include <string.h>

enum {
    ARRAY_ALIGNMENT = 64,
    MAX_DIGIT_BITS = 11, // two digits sort ids below 2^22
    MAX_BUCKETS = 1 << MAX_DIGIT_BITS,
};

typedef struct cursor {
    unsigned char *base; // NULL: only counting
    size_t used;
} cursor;

static void *take(cursor *at, int64_t count, size_t element_bytes)
{
    void *array = at->base != NULL ? at->base + at->used : NULL;
    size_t bytes = (size_t)count * element_bytes;
    at->used += (bytes + ARRAY_ALIGNMENT - 1) / ARRAY_ALIGNMENT * ARRAY_ALIGNMENT;
    return array;
}

static size_t lay_out(gidd_batch *batch, int64_t B, int64_t T, void *memory)
{
    cursor at = {.base = memory};
    *batch = (gidd_batch){.B = B, .T = T, .memory = memory};
    batch->x = take(&at, B * T, sizeof *batch->x);
    batch->z = take(&at, B * T, sizeof *batch->z);
    batch->attention_mask = take(&at, B * T, sizeof *batch->attention_mask);
    batch->coef = take(&at, B, sizeof *batch->coef);
    batch->rows = take(&at, B * T, sizeof *batch->rows);
    batch->sorted = take(&at, B * T, sizeof *batch->sorted);
    batch->chunks = take(&at, B * T, sizeof *batch->chunks);
    batch->counts = take(&at, 4, sizeof *batch->counts);
    batch->bytes = at.used;
    return at.used;
}

size_t gidd_batch_bytes(int64_t B, int64_t T)
{
    gidd_batch batch;
    return lay_out(&batch, B, T, NULL);
}

void gidd_batch_layout(gidd_batch *batch, int64_t B, int64_t T, void *memory)
{
    (void)lay_out(batch, B, T, memory);
}

// One stable pass of a radix sort: out = positions `in` (NULL: 0..count-1) by the digit of their
// ids.
static void sort_by_digit(const int32_t *ids, const int32_t *in, int64_t count, int shift, int bits,
                          int32_t *out)
{
    int32_t start[MAX_BUCKETS];
    uint32_t digit_mask = (1u << bits) - 1;
    memset(start, 0, sizeof *start << bits);
    for (int64_t i = 0; i < count; i++) {
        start[(uint32_t)ids[i] >> shift & digit_mask]++;
    }
    int32_t sum = 0;
    for (uint32_t d = 0; d <= digit_mask; d++) {
        int32_t here = start[d];
        start[d] = sum;
        sum += here;
    }
    for (int64_t i = 0; i < count; i++) {
        int32_t position = in != NULL ? in[i] : (int32_t)i;
        out[start[(uint32_t)ids[position] >> shift & digit_mask]++] = position;
    }
}

static int64_t cut_chunks(const int32_t *ids, const int32_t *sorted, int64_t count,
                          gidd_embed_chunk *chunks)
{
    int64_t chunk_count = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t id = ids[sorted[i]];
        gidd_embed_chunk *last = chunk_count > 0 ? &chunks[chunk_count - 1] : NULL;
        int same = last != NULL && last->id == id;
        if (same && last->count < GIDD_EMBED_CHUNK_ROWS) {
            last->count++;
        } else {
            chunks[chunk_count++] =
                (gidd_embed_chunk){.id = id, .first = (int32_t)i, .count = 1, .head = !same};
        }
    }
    return chunk_count;
}

void gidd_batch_index(gidd_batch *batch, int64_t vocab_size, int32_t *scratch)
{
    int64_t count = batch->B * batch->T;
    int bits = 1;
    while (bits < MAX_DIGIT_BITS && ((int64_t)1 << 2 * bits) < vocab_size) {
        bits++;
    }
    GIDD_ASSERT(vocab_size <= (int64_t)1 << 2 * bits);
    GIDD_ASSERT(count <= INT32_MAX);
    sort_by_digit(batch->z, NULL, count, 0, bits, scratch);
    sort_by_digit(batch->z, scratch, count, bits, bits, batch->sorted);
    batch->chunk_count = cut_chunks(batch->z, batch->sorted, count, batch->chunks);

    // After the sort: scratch may be batch->rows.
    int64_t row_count = 0;
    for (int64_t p = 0; p < count; p++) {
        batch->rows[row_count] = (int32_t)p;
        row_count += batch->z[p] != batch->x[p];
    }
    for (int64_t i = row_count; i < count; i++) {
        batch->rows[i] = GIDD_NO_POSITION;
    }
    batch->row_count = row_count;
    batch->counts[0] = (int32_t)row_count;
    batch->counts[1] = (int32_t)batch->chunk_count;
    batch->counts[2] = 0;
    batch->counts[3] = 0;
}
