/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/harness.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const struct embed_case {
    int64_t rows, ids, D; // ids: size of the table
} cases[] = {{1, 1, 8}, {5, 3, 24}, {300, 2, 40}, {257, 101, 96}, {64, 5000, 512}, {200, 1, 16}};

enum { CASES = sizeof cases / sizeof *cases };

// Positions by (id, position), cut where the id changes and after 64.
static int64_t make_chunks(const int32_t *ids, int64_t rows, int64_t table, int32_t *sorted,
                           gidd_embed_chunk *chunks)
{
    int64_t filled = 0, count = 0;
    for (int32_t id = 0; id < table; id++) {
        int64_t first = filled;
        for (int64_t p = 0; p < rows; p++) {
            if (ids[p] != id) {
                continue;
            }
            if ((filled - first) % GIDD_EMBED_CHUNK_ROWS == 0) {
                chunks[count++] = (gidd_embed_chunk){id, (int32_t)filled, 0, filled == first};
            }
            chunks[count - 1].count++;
            sorted[filled++] = (int32_t)p;
        }
    }
    return count;
}

static void check_case(gidd_device *device, struct embed_case c, int accumulate)
{
    gidd_dtype dtype = device->dtype;
    int32_t   *ids = malloc((size_t)c.rows * sizeof *ids),
            *sorted = malloc((size_t)c.rows * sizeof *sorted);
    gidd_embed_chunk *chunks = malloc((size_t)c.rows * sizeof *chunks);
    for (int64_t p = 0; p < c.rows; p++) {
        ids[p] = (int32_t)random_below(21, p, c.ids);
    }
    int64_t chunk_count = make_chunks(ids, c.rows, c.ids, sorted, chunks);
    double *table = random_values(22, c.ids * c.D, 1.0, dtype),
           *dout = random_values(23, c.rows * c.D, 1.0, dtype);
    double *exact_out = malloc((size_t)(c.rows * c.D) * sizeof *exact_out);
    double *exact = accumulate ? random_values(24, c.ids * c.D, 1.0, GIDD_F32)
                               : calloc((size_t)(c.ids * c.D), sizeof *exact);
    buffer  dtable = buffer_of(device, GIDD_F32, accumulate ? exact : NULL, c.ids * c.D);
    for (int64_t i = 0; i < c.rows * c.D; i++) {
        int64_t element = ids[i / c.D] * c.D + i % c.D;
        exact_out[i] = table[element];
        exact[element] += dout[i];
    }
    buffer out = buffer_of(device, dtype, NULL, c.rows * c.D),
           dev_table = buffer_of(device, dtype, table, c.ids * c.D);
    buffer dev_ids = buffer_of_bytes(device, ids, (size_t)c.rows * sizeof *ids);
    buffer dev_dout = buffer_of(device, dtype, dout, c.rows * c.D);
    buffer dev_sorted = buffer_of_bytes(device, sorted, (size_t)c.rows * sizeof *sorted);
    const int32_t counts[4] = {0, (int32_t)chunk_count, 0, 0}; // what a recorded launch goes by
    buffer dev_counts = buffer_of_bytes(device, counts, sizeof counts);
    buffer dev_chunks = buffer_of_bytes(device, chunks, (size_t)chunk_count * sizeof *chunks);
    CHECK_OK(device->kernels->embed_fwd(device, &(gidd_embed_fwd_args){.out = out.memory,
                                                                       .table = dev_table.memory,
                                                                       .ids = dev_ids.memory,
                                                                       .rows = c.rows,
                                                                       .cols = c.D}));
    CHECK_OK(device->kernels->embed_bwd(device, &(gidd_embed_bwd_args){.dtable = dtable.memory,
                                                                       .dout = dev_dout.memory,
                                                                       .sorted = dev_sorted.memory,
                                                                       .chunks = dev_chunks.memory,
                                                                       .chunk_count = accumulate ? c.rows : chunk_count,
                                                                       .counts = accumulate ? dev_counts.memory : NULL,
                                                                       .table_rows = c.ids,
                                                                       .cols = c.D,
                                                                       .accumulate = accumulate}));
    check_buffer("out", &out, exact_out, (gidd_tolerance){dtype, 0, 0});
    check_buffer("dtable", &dtable, exact,
                 (gidd_tolerance){GIDD_F32, (double)c.rows, largest_of(exact, c.ids * c.D)});
    buffer *all[] = {&out, &dev_table, &dev_ids, &dev_dout, &dev_sorted, &dev_chunks, &dev_counts, &dtable};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
    void *owned[] = {ids, sorted, chunks, table, dout, exact_out, exact};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
}

Test(embed, gather_and_sum)
{
    for (int run = 0; run < 4; run++) {
        gidd_device *device = open_test_device(run % 2 == 0 ? GIDD_F32 : GIDD_BF16, 1 + run);
        for (int i = 0; i < CASES; i++) {
            check_case(device, cases[i], 0);
            check_case(device, cases[i], 1);
        }
        gidd_device_close(device);
    }
}
