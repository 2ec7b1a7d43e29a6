/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/batch.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static gidd_batch make_batch(int64_t B, int64_t T)
{
    gidd_batch batch;
    size_t bytes = gidd_batch_bytes(B, T);
    void *memory = aligned_alloc(64, bytes);
    memset(memory, 0x5a, bytes);
    gidd_batch_layout(&batch, B, T, memory);
    return batch;
}

Test(batch, layout_fits_and_is_the_same_everywhere)
{
    const int64_t shapes[][2] = {{1, 1}, {3, 7}, {4, 32}, {64, 512}};
    for (size_t i = 0; i < 4; i++) {
        int64_t B = shapes[i][0], T = shapes[i][1];
        gidd_batch a = make_batch(B, T), b = make_batch(B, T);
        size_t n = (size_t)(B * T);
        cr_assert_eq(a.bytes, gidd_batch_bytes(B, T));
        cr_assert_eq((char *)a.coef - (char *)a.memory, (char *)b.coef - (char *)b.memory);
        cr_assert_eq((char *)a.counts - (char *)a.memory, (char *)b.counts - (char *)b.memory);
        const void *starts[] = {a.x,    a.z,      a.attention_mask, a.coef,
                                a.rows, a.sorted, a.chunks,         a.counts};
        const size_t bytes[] = {
            4 * n, 4 * n, 4 * n, (size_t)B * sizeof *a.coef, 4 * n, 4 * n, n * sizeof *a.chunks,
            16};
        for (int k = 0; k < 8; k++) {
            cr_assert_eq((uintptr_t)starts[k] % 64, 0);
            const char *end = (const char *)starts[k] + bytes[k];
            cr_assert(end <= (k < 7 ? (const char *)starts[k + 1] : (char *)a.memory + a.bytes));
        }
        free(a.memory);
        free(b.memory);
    }
}

// The contract of batch.h, checked directly.
static void assert_index(const gidd_batch *batch)
{
    int64_t count = batch->B * batch->T, row = 0, at = 0;
    for (int64_t p = 0; p < count; p++) {
        if (batch->z[p] != batch->x[p]) {
            cr_assert_eq(batch->rows[row++], p);
        }
    }
    cr_assert_eq(batch->row_count, row);
    for (int64_t i = 1; i < count; i++) {
        int32_t a = batch->sorted[i - 1], b = batch->sorted[i];
        cr_assert(batch->z[a] < batch->z[b] || (batch->z[a] == batch->z[b] && a < b));
    }
    for (int64_t k = 0; k < batch->chunk_count; k++) {
        const gidd_embed_chunk *chunk = &batch->chunks[k];
        cr_assert_eq(chunk->first, at);
        cr_assert(chunk->count >= 1 && chunk->count <= GIDD_EMBED_CHUNK_ROWS);
        for (int32_t i = 0; i < chunk->count; i++) {
            cr_assert_eq(batch->z[batch->sorted[at + i]], chunk->id);
        }
        cr_assert_eq(chunk->head, k == 0 || batch->chunks[k - 1].id != chunk->id);
        cr_assert(chunk->head || chunk[-1].count == GIDD_EMBED_CHUNK_ROWS);
        at += chunk->count;
    }
    cr_assert_eq(at, count);
    const int32_t counts[4] = {(int32_t)batch->row_count, (int32_t)batch->chunk_count, 0, 0};
    cr_assert_arr_eq(batch->counts, counts, sizeof counts);
}

Test(batch, index_sorts_and_cuts)
{
    const int64_t vocabularies[] = {2, 3, 97, 501, 50259, 65538, 1 << 22};
    for (size_t v = 0; v < sizeof vocabularies / sizeof *vocabularies; v++) {
        gidd_batch batch = make_batch(6, 257);
        int32_t *scratch = malloc(sizeof *scratch * 6 * 257);
        for (int64_t p = 0; p < 6 * 257; p++) {
            uint64_t V = (uint64_t)vocabularies[v];
            batch.x[p] = (int32_t)gidd_uniform_below(1, GIDD_STREAM_TOKEN, (uint64_t)p, 0, V);
            // A third is the last id, as masks are: more than one chunk of it.
            batch.z[p] = p % 3 == 0 ? (int32_t)V - 1
                         : p % 3 == 1
                             ? batch.x[p]
                             : (int32_t)gidd_uniform_below(1, GIDD_STREAM_TOKEN, (uint64_t)p, 1, V);
        }
        gidd_batch_index(&batch, vocabularies[v], scratch);
        assert_index(&batch);
        gidd_batch_index(&batch, vocabularies[v], batch.rows); // rows may serve as scratch
        assert_index(&batch);
        free(scratch);
        free(batch.memory);
    }
}

Test(batch, index_of_the_extremes)
{
    gidd_batch batch = make_batch(2, 64); // two full chunks of one id, nothing noised
    for (int64_t p = 0; p < 128; p++) {
        batch.x[p] = batch.z[p] = 5;
    }
    gidd_batch_index(&batch, 97, batch.rows);
    assert_index(&batch);
    cr_assert(batch.row_count == 0 && batch.chunk_count == 2);
    for (int64_t p = 0; p < 128; p++) { // everything noised, ids descending
        batch.z[p] = (int32_t)(200 - p);
    }
    gidd_batch_index(&batch, 501, batch.rows);
    assert_index(&batch);
    cr_assert(batch.row_count == 128 && batch.chunk_count == 128);
    free(batch.memory);
}
