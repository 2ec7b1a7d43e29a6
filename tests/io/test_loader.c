/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader.h"

#include "base/rng.h"
#include "diffusion/corrupt.h"
#include "diffusion/time.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------ documents in memory */

enum { WORDS = 95, BOS = WORDS - 1, PAD = WORDS, MASK = WORDS + 1, V = WORDS + 2, T = 16 };

// Document d has lengths[d] ids; id i of it is (31 d + 7 i) mod BOS, unless a special is put in
// place.
typedef struct library {
    int64_t count;
    int64_t lengths[64];
    int starts_with_bos[64], ends_with_eos[64];
    int64_t failing;  // document whose reading fails; -1: none
    int64_t slow_ns;  // per read
    int32_t wrong_id; // put into document 0; 0: none
    atomic_long ids_read, reads;
} library;

static int32_t id_of(const library *lib, int64_t d, int64_t i)
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
    return GIDD_OK;
}

// `count` documents of 1, 4, 7 ... ids, so that there are short and long ones.
static void fill_library(library *lib, int64_t count)
{
    memset(lib, 0, sizeof *lib);
    lib->count = count;
    lib->failing = -1;
    for (int64_t d = 0; d < count; d++) {
        lib->lengths[d] = 1 + 3 * d % 50;
    }
}

static gidd_schedule some_schedule(void)
{
    gidd_schedule s;
    cr_assert(gidd_schedule_init(&s, &(gidd_schedule_args){.p_uniform = 0.2,
                                                           .t_eps = 1e-4,
                                                           .max_weight = 2.0,
                                                           .vocab_size = V,
                                                           .mask_id = MASK}) == GIDD_OK);
    return s;
}

static gidd_loader_args loader_args(library *lib, int64_t valid)
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

static gidd_loader *open_loader(gidd_loader_args args)
{
    gidd_loader *loader = NULL;
    cr_assert(gidd_loader_open(&args, &loader) == GIDD_OK, "%s", gidd_error_last()->text);
    return loader;
}

static gidd_batch make_batch(int64_t B)
{
    gidd_batch batch;
    size_t bytes = gidd_batch_bytes(B, T);
    void *memory = aligned_alloc(64, bytes);
    memset(memory, 0xa5, bytes);
    gidd_batch_layout(&batch, B, T, memory);
    return batch;
}

static void assert_same_row(const gidd_batch *a, int64_t row_a, const gidd_batch *b, int64_t row_b)
{
    cr_assert_arr_eq(a->x + row_a * T, b->x + row_b * T, T * sizeof(int32_t));
    cr_assert_arr_eq(a->z + row_a * T, b->z + row_b * T, T * sizeof(int32_t));
    cr_assert_arr_eq(a->attention_mask + row_a * T, b->attention_mask + row_b * T,
                     T * sizeof(int32_t));
    cr_assert_arr_eq(&a->coef[row_a], &b->coef[row_b], sizeof(gidd_seq_coef));
}

/* ------------------------------------------------------------------ windows */

// SPEC section 12, steps 2 to 5, with the whole document in hand.
static void naive_window(const library *lib, int64_t d, int64_t max_add_padding, int64_t start,
                         int32_t *x, int32_t *mask, int64_t *bound_p)
{
    int32_t all[128];
    int64_t n = 0;
    if (id_of(lib, d, 0) != BOS) {
        all[n++] = BOS;
    }
    for (int64_t i = 0; i < lib->lengths[d]; i++) {
        all[n++] = id_of(lib, d, i);
    }
    if (all[n - 1] != BOS) {
        all[n++] = BOS;
    }
    *bound_p = n > T ? n - T + max_add_padding : 0;
    int64_t from = n > T ? start : 0;
    for (int64_t i = 0; i < T; i++) {
        mask[i] = from + i < n;
        x[i] = from + i < n ? all[from + i] : PAD;
    }
}

static void check_all_windows(library *lib, int64_t max_add_padding)
{
    gidd_loader_args args = loader_args(lib, 0);
    args.source.has_specials = 1;
    args.max_add_padding = max_add_padding;
    gidd_loader *loader = open_loader(args);
    for (int64_t d = 0; d < lib->count; d++) {
        int64_t bound = 1;
        for (int64_t start = 0; start < (bound > 0 ? bound : 1); start++) {
            int32_t x[T], mask[T], want_x[T], want_mask[T];
            int64_t got_start, got_bound;
            gidd_window_args window = {.example = d,
                                       .start = start,
                                       .x = x,
                                       .attention_mask = mask,
                                       .start_p = &got_start,
                                       .bound_p = &got_bound};
            naive_window(lib, d, max_add_padding, start, want_x, want_mask, &bound);
            cr_assert(gidd_loader_window(loader, &window) == GIDD_OK);
            cr_assert_arr_eq(x, want_x, sizeof x, "document %ld start %ld", (long)d, (long)start);
            cr_assert_arr_eq(mask, want_mask, sizeof mask);
            cr_assert(got_bound == bound && got_start == (bound > 0 ? start : -1));
        }
        if (bound > 0) {
            gidd_window_args beyond = {.example = d,
                                       .start = bound,
                                       .x = (int32_t[T]){0},
                                       .attention_mask = (int32_t[T]){0}};
            cr_assert(gidd_loader_window(loader, &beyond) == GIDD_ERR_ARG);
        }
    }
    gidd_loader_close(loader);
}

Test(loader, windows_follow_the_rule)
{
    library lib;
    fill_library(&lib, 48);
    for (int64_t d = 0; d < 48; d++) { // all lengths around T, all kinds of ends
        lib.lengths[d] = 1 + d / 4 + (d >= 24 ? T - 9 : 0);
        lib.starts_with_bos[d] = (d & 1) != 0;
        lib.ends_with_eos[d] = (d & 2) != 0;
    }
    check_all_windows(&lib, 0);
    check_all_windows(&lib, 5);
    check_all_windows(&lib, 3 * T); // starts beyond the end: nothing but PAD
}

Test(loader, a_lone_end_of_text_stays_one_id)
{
    library lib;
    fill_library(&lib, 1);
    lib.starts_with_bos[0] = 1;
    gidd_loader_args args = loader_args(&lib, 0);
    args.source.has_specials = 1;
    gidd_loader *loader = open_loader(args);
    int32_t x[T], mask[T];
    cr_assert(gidd_loader_window(
                  loader, &(gidd_window_args){.start = -1, .x = x, .attention_mask = mask}) ==
              GIDD_OK);
    cr_assert(x[0] == BOS && x[1] == PAD && mask[0] == 1 && mask[1] == 0);
    gidd_loader_close(loader);
}

// Without added padding the last window, the only one with EOS, is never drawn.
Test(loader, random_starts_cover_the_bound_and_no_more)
{
    const int64_t paddings[] = {0, 2};
    for (int k = 0; k < 2; k++) {
        library lib;
        fill_library(&lib, 1);
        lib.lengths[0] = T + 3; // 5 more than T with BOS and EOS
        gidd_loader_args args = loader_args(&lib, 0);
        args.max_add_padding = paddings[k];
        gidd_loader *loader = open_loader(args);
        int64_t seen[16] = {0}, expected = 5 + paddings[k];
        for (uint64_t sample = 0; sample < 6000; sample++) {
            int32_t x[T], mask[T];
            int64_t start;
            cr_assert(gidd_loader_window(loader, &(gidd_window_args){.start = -1,
                                                                     .sample = sample,
                                                                     .x = x,
                                                                     .attention_mask = mask,
                                                                     .start_p = &start}) ==
                      GIDD_OK);
            seen[start]++;
        }
        for (int64_t i = 0; i < 16; i++) {
            double mean = i < expected ? 6000.0 / (double)expected : 0.0;
            cr_assert_float_eq((double)seen[i], mean, 5.0 * 35.0 * (mean > 0), "start %ld: %ld",
                               (long)i, (long)seen[i]);
        }
        gidd_loader_close(loader);
    }
}

Test(loader, reads_the_window_and_nothing_else)
{
    library lib;
    fill_library(&lib, 1);
    lib.lengths[0] = 60;
    gidd_loader *loader = open_loader(loader_args(&lib, 0));
    int32_t x[T], mask[T];
    cr_assert(gidd_loader_window(
                  loader, &(gidd_window_args){.start = 20, .x = x, .attention_mask = mask}) ==
              GIDD_OK);
    cr_assert_eq(lib.reads, 1);
    cr_assert_eq(lib.ids_read, T);
    gidd_loader_close(loader);
}

/* ------------------------------------------------------------------ rows of other modes */

Test(loader, padded_mode_gives_a_full_multiple_a_row_of_padding)
{
    library lib;
    fill_library(&lib, 3);
    lib.lengths[0] = T - 3;     // BOS and EOS: one short of a row
    lib.lengths[1] = 2 * T - 2; // two rows to the last id, and one of PAD
    lib.lengths[2] = T - 1;     // one id over
    gidd_loader_args args = loader_args(&lib, 0);
    args.window = GIDD_WINDOW_PADDED;
    gidd_loader *loader = open_loader(args);
    const int filled[6] = {T - 1, T, T, 0, T, 1};
    cr_assert_eq(gidd_loader_train_examples(loader), 6);
    for (int64_t row = 0; row < 6; row++) {
        int32_t x[T], mask[T];
        cr_assert(gidd_loader_window(
                      loader,
                      &(gidd_window_args){
                          .example = row, .start = -1, .x = x, .attention_mask = mask}) == GIDD_OK);
        for (int i = 0; i < T; i++) {
            cr_assert_eq(mask[i], i < filled[row], "row %ld", (long)row);
            cr_assert_eq(x[i] == PAD, i >= filled[row]);
        }
        cr_assert_eq(x[0] == BOS, row == 0 || row == 1 || row == 4 || row == 5);
    }
    gidd_loader_close(loader);
}

Test(loader, packed_mode_runs_documents_together)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader_args args = loader_args(&lib, 5);
    args.window = GIDD_WINDOW_PACKED;
    gidd_loader *loader = open_loader(args);
    int32_t all[2048];
    int64_t n = 0;
    for (int64_t d = 0; d < 15; d++) {
        all[n++] = BOS;
        for (int64_t i = 0; i < lib.lengths[d]; i++) {
            all[n++] = id_of(&lib, d, i);
        }
    }
    cr_assert_eq(gidd_loader_train_examples(loader), n / T);
    for (int64_t row = 0; row < n / T; row++) {
        int32_t x[T], mask[T];
        cr_assert(gidd_loader_window(
                      loader,
                      &(gidd_window_args){
                          .example = row, .start = -1, .x = x, .attention_mask = mask}) == GIDD_OK);
        cr_assert_arr_eq(x, all + row * T, sizeof x);
        cr_assert_eq(mask[T - 1], 1);
    }
    cr_assert(gidd_loader_valid_examples(loader) > 0);
    gidd_loader_close(loader);
}

/* ------------------------------------------------------------------ batches */

Test(loader, rows_do_not_depend_on_how_a_step_is_split)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 3));
    for (int64_t step = 0; step < 4; step++) { // G 12, 17 documents: steps straddle epochs
        gidd_batch whole = make_batch(12);
        cr_assert(gidd_loader_build(loader, step, 0, &whole) == GIDD_OK);
        cr_assert_eq(whole.first_sample, step * 12);
        for (int64_t B = 1; B <= 12; B++) {
            for (int64_t first = 0; first + B <= 12; first++) {
                gidd_batch part = make_batch(B);
                cr_assert(gidd_loader_build(loader, step, first, &part) == GIDD_OK);
                for (int64_t b = 0; b < B; b++) {
                    assert_same_row(&part, b, &whole, first + b);
                }
                cr_assert_eq(part.first_sample, step * 12 + first);
                free(part.memory);
            }
        }
        free(whole.memory);
    }
    gidd_loader_close(loader);
}

// Times, noise and coefficients of a batch, each from its own definition.
Test(loader, rows_hold_what_they_should)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 3));
    gidd_schedule schedule = some_schedule();
    gidd_batch batch = make_batch(12);
    cr_assert(gidd_loader_build(loader, 5, 0, &batch) == GIDD_OK);
    for (int64_t b = 0; b < 12; b++) {
        int32_t z[T];
        gidd_seq_coef coef;
        gidd_corruption c;
        float t = gidd_time_on_grid(gidd_time_rank(b, 12), 12, gidd_time_offset(17, 5), 1e-4);
        gidd_schedule_coef(&schedule, t, &coef);
        gidd_corruption_init(&c, &schedule, (double)t);
        gidd_corrupt_row(&c, 17, GIDD_STREAM_NOISE, (uint64_t)(60 + b), batch.x + b * T, T, z);
        cr_assert_arr_eq(&batch.coef[b], &coef, sizeof coef);
        cr_assert_arr_eq(batch.z + b * T, z, sizeof z);
    }
    int64_t noised = 0;
    for (int64_t p = 0; p < 12 * T; p++) {
        noised += batch.x[p] != batch.z[p];
    }
    cr_assert(noised > 0 && noised == batch.row_count && batch.counts[0] == noised);
    cr_assert(batch.chunk_count > 0);
    free(batch.memory);
    gidd_loader_close(loader);
}

// Which document a row came from: the first ids after BOS tell, for documents told apart by them.
static int64_t document_of(const library *lib, const int32_t *x)
{
    for (int64_t d = 0; d < lib->count; d++) {
        if (x[1] == id_of(lib, d, 0)) {
            return d;
        }
    }
    return -1;
}

Test(loader, an_epoch_shows_each_training_document_once)
{
    library lib;
    fill_library(&lib, 20);
    for (int64_t d = 0; d < 20; d++) {
        lib.lengths[d] = 5; // never cut
    }
    gidd_loader *loader = open_loader(loader_args(&lib, 3));
    gidd_batch batch = make_batch(12);
    int64_t order[3][17], sample = 0;
    for (int64_t step = 0; sample < 3 * 17; step++) {
        cr_assert(gidd_loader_build(loader, step, 0, &batch) == GIDD_OK);
        for (int64_t b = 0; b < 12 && sample < 3 * 17; b++, sample++) {
            order[sample / 17][sample % 17] = document_of(&lib, batch.x + b * T);
        }
    }
    for (int epoch = 0; epoch < 3; epoch++) {
        int seen[20] = {0};
        for (int i = 0; i < 17; i++) {
            cr_assert(order[epoch][i] >= 0 && order[epoch][i] < 17, "a validation document");
            cr_assert_eq(seen[order[epoch][i]]++, 0);
        }
    }
    cr_assert_arr_neq(order[0], order[1], sizeof order[0]);
    free(batch.memory);
    gidd_loader_close(loader);
}

Test(loader, slices_tile_the_step)
{
    int64_t next = 0;
    for (int64_t rank = 0; rank < 6; rank++) {
        int64_t first, count;
        gidd_loader_slice(48, rank, 6, &first, &count);
        cr_assert(first == next && count == 8);
        next += count;
    }
}

/* ------------------------------------------------------------------ evaluation */

Test(loader, evaluation_does_not_depend_on_batch_size_and_pads_its_last_batch)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 7));
    gidd_batch whole = make_batch(7), part = make_batch(4);
    cr_assert_eq(gidd_loader_valid_examples(loader), 7);
    cr_assert(gidd_loader_build_eval(loader, 0, 7, 0, &whole) == GIDD_OK);
    cr_assert(gidd_loader_build_eval(loader, 4, 3, 0, &part) == GIDD_OK);
    for (int64_t b = 0; b < 3; b++) {
        assert_same_row(&part, b, &whole, 4 + b);
        cr_assert(part.coef[b].row_weight == 1.0f);
    }
    cr_assert(part.coef[3].row_weight == 0.0f);
    for (int64_t i = 0; i < T; i++) {
        cr_assert(part.x[3 * T + i] == PAD && part.z[3 * T + i] == PAD);
        cr_assert_eq(part.attention_mask[3 * T + i], 0);
    }
    for (int64_t k = 0; k < part.row_count; k++) {
        cr_assert(part.rows[k] < 3 * T);
    }
    free(whole.memory);
    free(part.memory);
    gidd_loader_close(loader);
}

Test(loader, evaluation_draws_differ_and_cover_all_times)
{
    library lib;
    fill_library(&lib, 24);
    gidd_loader_args args = loader_args(&lib, 8);
    gidd_loader *loader = open_loader(args);
    gidd_batch a = make_batch(8), b = make_batch(8);
    cr_assert(gidd_loader_build_eval(loader, 0, 8, 0, &a) == GIDD_OK);
    cr_assert(gidd_loader_build_eval(loader, 0, 8, 1, &b) == GIDD_OK);
    cr_assert_arr_neq(a.z, b.z, sizeof(int32_t) * 8 * T);
    cr_assert(a.coef[0].t != b.coef[0].t);
    int hit[8] = {0}; // one time in each eighth of a circle
    for (int i = 0; i < 8; i++) {
        double shifted = ((double)a.coef[i].t - (double)a.coef[0].t) / 0.9998 * 8.0 + 8.0;
        hit[(int)(shifted + 0.5) % 8]++;
    }
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(hit[i], 1);
    }
    gidd_loader_close(loader);

    args.seed = 18; // training's seed has no part in evaluation
    loader = open_loader(args);
    cr_assert(gidd_loader_build_eval(loader, 0, 8, 0, &b) == GIDD_OK);
    for (int64_t i = 0; i < 8; i++) {
        assert_same_row(&a, i, &b, i);
    }
    gidd_loader_close(loader);
    free(a.memory);
    free(b.memory);
}

// Crop and noise of a validation row come from (eval seed, document, draw).
Test(loader, evaluation_is_keyed_by_document_and_draw)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 7));
    gidd_schedule schedule = some_schedule();
    gidd_batch batch = make_batch(7);
    for (int64_t draw = 0; draw < 3; draw++) {
        cr_assert(gidd_loader_build_eval(loader, 0, 7, draw, &batch) == GIDD_OK);
        for (int64_t b = 0; b < 7; b++) {
            int32_t z[T];
            gidd_corruption c;
            uint64_t key = (uint64_t)draw << 40 | (uint64_t)(13 + b);
            double r = gidd_time_eval_offset(99, draw);
            cr_assert(batch.coef[b].t == gidd_time_on_grid(gidd_time_rank(b, 7), 7, r, 1e-4));
            gidd_corruption_init(&c, &schedule, (double)batch.coef[b].t);
            gidd_corrupt_row(&c, 99, GIDD_STREAM_EVAL_NOISE, key, batch.x + b * T, T, z);
            cr_assert_arr_eq(batch.z + b * T, z, sizeof z);
        }
    }
    free(batch.memory);
    gidd_loader_close(loader);
}

/* ------------------------------------------------------------------ refusals and failures */

Test(loader, refuses_what_does_not_fit)
{
    library lib;
    gidd_loader *loader = NULL;
    fill_library(&lib, 4);
    gidd_loader_args good = loader_args(&lib, 1), wrong[7];
    for (int i = 0; i < 7; i++) {
        wrong[i] = good;
    }
    wrong[0].source.valid_documents = 4;
    wrong[1].source.vocab_size = WORDS + 1; // the schedule is over another vocabulary
    wrong[2].source.vocab_size = 65537;
    wrong[3].T = 0;
    wrong[4].global_batch = 0;
    wrong[5].max_add_padding = -1;
    wrong[6].window = GIDD_WINDOW_PACKED;
    wrong[6].T = 1000; // not one row
    for (int i = 0; i < 7; i++) {
        cr_assert(gidd_loader_open(&wrong[i], &loader) == GIDD_ERR_CONFIG, "case %d", i);
        cr_assert_null(loader);
    }
}

Test(loader, finds_ids_beyond_the_vocabulary)
{
    library lib;
    fill_library(&lib, 1);
    lib.wrong_id = WORDS;
    gidd_loader *loader = open_loader(loader_args(&lib, 0));
    gidd_batch batch = make_batch(1);
    cr_assert(gidd_loader_build(loader, 0, 0, &batch) == GIDD_ERR_CORRUPT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "document 0"));
    free(batch.memory);
    gidd_loader_close(loader);
}

Test(loader, finds_empty_documents)
{
    library lib;
    fill_library(&lib, 1);
    lib.lengths[0] = 0;
    gidd_loader *loader = open_loader(loader_args(&lib, 0));
    gidd_batch batch = make_batch(1);
    cr_assert(gidd_loader_build(loader, 0, 0, &batch) == GIDD_ERR_CORRUPT);
    free(batch.memory);
    gidd_loader_close(loader);
}

/* ------------------------------------------------------------------ building ahead */

static gidd_prefetch *start_prefetch(gidd_prefetch_args args)
{
    gidd_prefetch *prefetch = NULL;
    cr_assert(gidd_prefetch_create(&args, &prefetch) == GIDD_OK, "%s", gidd_error_last()->text);
    return prefetch;
}

Test(prefetch, delivers_the_slices_of_all_steps_in_order)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 3));
    gidd_prefetch_args args = {.loader = loader,
                               .first_step = 2,
                               .end_step = 9,
                               .row_first = 4,
                               .row_count = 8,
                               .micro_batch = 3, // 3, 3, 2
                               .depth = 2};
    void *memory = aligned_alloc(64, gidd_prefetch_bytes(&args));
    args.memory = memory;
    gidd_prefetch *prefetch = start_prefetch(args);
    for (int64_t step = 2; step < 9; step++) {
        for (int64_t offset = 0; offset < 8; offset += 3) {
            const gidd_batch *got = NULL;
            gidd_batch want = make_batch(offset < 6 ? 3 : 2);
            cr_assert(gidd_loader_build(loader, step, 4 + offset, &want) == GIDD_OK);
            cr_assert(gidd_prefetch_next(prefetch, &got) == GIDD_OK);
            cr_assert(got->B == want.B && got->first_sample == step * 12 + 4 + offset);
            cr_assert((char *)got->memory >= (char *)memory &&
                      (char *)got->memory + got->bytes <=
                          (char *)memory + gidd_prefetch_bytes(&args));
            for (int64_t b = 0; b < want.B; b++) {
                assert_same_row(got, b, &want, b);
            }
            cr_assert_eq(got->row_count, want.row_count);
            gidd_prefetch_release(prefetch);
            free(want.memory);
        }
    }
    const gidd_batch *none = NULL;
    cr_assert(gidd_prefetch_next(prefetch, &none) == GIDD_ERR_ARG && none == NULL);
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
    free(memory);
}

Test(prefetch, keeps_records_until_they_are_released)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 3));
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 100, .row_count = 12, .micro_batch = 12, .depth = 3});
    const gidd_batch *held[3], *more;
    for (int i = 0; i < 3; i++) {
        cr_assert(gidd_prefetch_next(prefetch, &held[i]) == GIDD_OK);
    }
    cr_assert(gidd_prefetch_next(prefetch, &more) == GIDD_ERR_ARG); // all held
    (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(held[i]->first_sample, 12 * i);
    }
    gidd_prefetch_release(prefetch);
    cr_assert(gidd_prefetch_next(prefetch, &more) == GIDD_OK);
    cr_assert_eq(more->first_sample, 36);
    gidd_prefetch_destroy(prefetch); // with records held and steps left
    gidd_loader_close(loader);
}

Test(prefetch, hands_a_failure_to_the_consumer)
{
    library lib;
    fill_library(&lib, 1);
    gidd_loader_args wide = loader_args(&lib, 0);
    wide.global_batch = 1;
    gidd_loader *loader = open_loader(wide);
    const gidd_batch *batch;
    lib.failing = 0;
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 10, .row_count = 1, .micro_batch = 1, .depth = 2});
    for (int i = 0; i < 2; i++) { // it stays failed
        cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_ERR_IO);
        cr_assert_str_eq(gidd_error_last()->text, "document 0 is on fire");
    }
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
}

// Records built before a failure still come, then the failure.
Test(prefetch, delivers_what_was_built_before_a_failure)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader_args args = loader_args(&lib, 0);
    args.global_batch = 1;
    gidd_loader *loader = open_loader(args);
    gidd_batch probe = make_batch(1);
    int64_t good = 0;
    lib.failing = 13;
    while (gidd_loader_build(loader, good, 0, &probe) == GIDD_OK) {
        good++;
    }
    cr_assert(good > 0 && good < 20);
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 100, .row_count = 1, .micro_batch = 1, .depth = 2});
    const gidd_batch *batch;
    for (int64_t i = 0; i < good; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL); // let it run ahead, and fail
        cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_OK);
        gidd_prefetch_release(prefetch);
    }
    cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_ERR_IO);
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
    free(probe.memory);
}

Test(prefetch, tells_how_long_it_was_waited_for)
{
    library lib;
    fill_library(&lib, 4);
    lib.slow_ns = 10000000;
    gidd_loader *loader = open_loader(loader_args(&lib, 0));
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 2, .row_count = 2, .micro_batch = 2, .depth = 2});
    const gidd_batch *batch;
    cr_assert_eq(gidd_prefetch_waited_ns(prefetch), 0);
    cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_OK); // two reads of 10 ms
    cr_assert(gidd_prefetch_waited_ns(prefetch) > 10000000);
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
}

Test(prefetch, refuses_senseless_arguments)
{
    library lib;
    fill_library(&lib, 4);
    gidd_loader *loader = open_loader(loader_args(&lib, 0));
    gidd_prefetch_args good = {
        .loader = loader, .end_step = 1, .row_count = 1, .micro_batch = 1, .depth = 2};
    gidd_prefetch_args wrong[4] = {good, good, good, good};
    gidd_prefetch *prefetch = NULL;
    wrong[0].depth = 1;
    wrong[1].micro_batch = 0;
    wrong[2].row_count = 0;
    wrong[3].first_step = 2;
    for (int i = 0; i < 4; i++) {
        cr_assert(gidd_prefetch_create(&wrong[i], &prefetch) == GIDD_ERR_ARG, "case %d", i);
    }
    gidd_prefetch_destroy(NULL);
    gidd_loader_close(loader);
}

/* ------------------------------------------------------------------ over shards */

static void write_shards(const char *dir, const library *lib)
{
    char digest[GIDD_DIGEST_SIZE];
    gidd_shard_entry entry;
    char path[256], name[24];
    gidd_shard_writer *writer = NULL;
    memset(digest, '0', sizeof digest - 1);
    digest[sizeof digest - 1] = '\0';
    gidd_shard_name(0, name);
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    cr_assert(gidd_shard_writer_create(path, digest, WORDS, &writer) == GIDD_OK);
    for (int64_t d = 0; d < lib->count; d++) {
        uint16_t ids[64];
        for (int64_t i = 0; i < lib->lengths[d]; i++) {
            ids[i] = (uint16_t)id_of(lib, d, i);
        }
        cr_assert(gidd_shard_writer_append(writer, ids, lib->lengths[d]) == GIDD_OK);
    }
    cr_assert(gidd_shard_writer_commit(writer, &entry) == GIDD_OK);
    gidd_shard_writer_destroy(writer);
    gidd_shard_index index = {.shard_count = 1,
                              .entries = &entry,
                              .valid_documents = 3,
                              .vocab_size = WORDS,
                              .tokenizer_digest = digest};
    cr_assert(gidd_shard_index_write(dir, &index) == GIDD_OK, "%s", gidd_error_last()->text);
}

Test(loader, shards_and_memory_give_the_same_batches)
{
    char dir[] = "/tmp/test_loader.XXXXXX", command[64];
    gidd_shard_set *set = NULL;
    library lib;
    fill_library(&lib, 20);
    cr_assert_not_null(mkdtemp(dir));
    write_shards(dir, &lib);
    cr_assert(gidd_shard_set_open(dir, &set) == GIDD_OK, "%s", gidd_error_last()->text);
    gidd_loader_args args = loader_args(&lib, 3);
    gidd_loader *from_memory = open_loader(args);
    args.source = gidd_source_of_shards(set);
    gidd_loader *from_shards = open_loader(args);
    gidd_batch a = make_batch(12), b = make_batch(12);
    for (int64_t step = 0; step < 3; step++) {
        cr_assert(gidd_loader_build(from_memory, step, 0, &a) == GIDD_OK);
        cr_assert(gidd_loader_build(from_shards, step, 0, &b) == GIDD_OK);
        for (int64_t i = 0; i < 12; i++) {
            assert_same_row(&a, i, &b, i);
        }
    }
    free(a.memory);
    free(b.memory);
    gidd_loader_close(from_shards);
    gidd_loader_close(from_memory);
    gidd_shard_set_close(set);
    (void)snprintf(command, sizeof command, "rm -r %s", dir);
    cr_assert_eq(system(command), 0);
}
