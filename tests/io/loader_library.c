/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader_library.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int32_t id_of(const library *lib, int64_t d, int64_t i)
{
    if ((i == 0 && lib->starts_with_bos[d]) ||
        (i == lib->lengths[d] - 1 && lib->ends_with_eos[d])) {
        return BOS;
    }
    return d == 0 && lib->wrong_id > 0 ? lib->wrong_id : (int32_t)((31 * d + 7 * i) % BOS);
}

static gidd_status library_length(void *context, int64_t document, int64_t *tokens_p)
{
    const library *lib = context;
    *tokens_p = lib->lengths[document];
    return GIDD_OK;
}

static gidd_status library_read(void *context, int64_t document, int64_t first, int64_t count,
                                uint16_t *ids)
{
    library *lib = context;
    cr_assert(first >= 0 && count >= 1 && first + count <= lib->lengths[document]);
    if (document == lib->failing) {
        return gidd_fail(GIDD_ERR_IO, "document %ld is on fire", (long)document);
    }
    if (lib->slow_ns > 0) {
        (void)nanosleep(&(struct timespec){.tv_nsec = lib->slow_ns}, NULL);
    }
    for (int64_t i = 0; i < count; i++) {
        ids[i] = (uint16_t)id_of(lib, document, first + i);
    }
    atomic_fetch_add(&lib->ids_read, count);
    atomic_fetch_add(&lib->reads, 1);
    lib->shown[document]++;
    return GIDD_OK;
}

void fill_library(library *lib, int64_t count)
{
    memset(lib, 0, sizeof *lib);
    lib->count = count;
    lib->failing = -1;
    for (int64_t d = 0; d < count; d++) {
        lib->lengths[d] = 1 + 3 * d % 50;
    }
}

gidd_schedule some_schedule(void)
{
    gidd_schedule s;
    cr_assert(gidd_schedule_init(&s, &(gidd_schedule_args){.p_uniform = 0.2,
                                                           .t_eps = 1e-4,
                                                           .max_weight = 2.0,
                                                           .vocab_size = V,
                                                           .mask_id = MASK}) == GIDD_OK);
    return s;
}

gidd_loader_args loader_args(library *lib, int64_t valid)
{
    static gidd_schedule schedule; // copied by open
    schedule = some_schedule();
    return (gidd_loader_args){.source = {.context = lib,
                                         .document_count = lib->count,
                                         .valid_documents = valid,
                                         .vocab_size = WORDS,
                                         .length = library_length,
                                         .read = library_read},
                              .schedule = &schedule,
                              .seed = 17,
                              .eval_seed = 99,
                              .global_batch = 12,
                              .T = T};
}

gidd_loader *open_loader(gidd_loader_args args)
{
    gidd_loader *loader = NULL;
    cr_assert(gidd_loader_open(&args, &loader) == GIDD_OK, "%s", gidd_error_last()->text);
    return loader;
}

gidd_batch make_batch(int64_t B)
{
    gidd_batch batch;
    size_t bytes = gidd_batch_bytes(B, T);
    void *memory = aligned_alloc(64, bytes);
    memset(memory, 0xa5, bytes);
    gidd_batch_layout(&batch, B, T, memory);
    return batch;
}

void assert_same_row(const gidd_batch *a, int64_t row_a, const gidd_batch *b, int64_t row_b)
{
    cr_assert_arr_eq(a->x + row_a * T, b->x + row_b * T, T * sizeof(int32_t));
    cr_assert_arr_eq(a->z + row_a * T, b->z + row_b * T, T * sizeof(int32_t));
    cr_assert_arr_eq(a->attention_mask + row_a * T, b->attention_mask + row_b * T,
                     T * sizeof(int32_t));
    cr_assert_arr_eq(&a->coef[row_a], &b->coef[row_b], sizeof(gidd_seq_coef));
}
