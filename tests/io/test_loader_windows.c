/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader_library.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

Test(loader_windows, windows_follow_the_rule)
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

Test(loader_windows, a_lone_end_of_text_stays_one_id)
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
Test(loader_windows, random_starts_cover_the_bound_and_no_more)
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

Test(loader_windows, reads_the_window_and_nothing_else)
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

Test(loader_windows, padded_mode_gives_a_full_multiple_a_row_of_padding)
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

Test(loader_windows, packed_mode_runs_documents_together)
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

/* ------------------------------------------------------------------ documents that are left out */

// Every sample of three epochs: none shows a document that is left out, and those that never would have are as they are
// without damage.
static void check_left_out(library *lib, gidd_window_mode window, gidd_ranges *left_out)
{
    library whole = *lib;
    gidd_loader_args args = loader_args(lib, 7), intact = loader_args(&whole, 7);
    args.window = intact.window = window;
    args.source.left_out = left_out;
    gidd_loader *loader = open_loader(args), *other = open_loader(intact);
    int64_t examples = gidd_loader_train_examples(loader), same = 0, stood_in = 0;
    cr_assert_eq(examples, gidd_loader_train_examples(other));
    gidd_batch a = make_batch(12), b = make_batch(12), part = make_batch(5);
    for (int64_t step = 0; step * 12 < 3 * examples; step++) {
        memset(lib->shown, 0, sizeof lib->shown);
        cr_assert(gidd_loader_build(loader, step, 0, &a) == GIDD_OK);
        for (int64_t d = 0; d < lib->count; d++) {
            cr_assert(gidd_ranges_find(left_out, d) == NULL || lib->shown[d] == 0, "document %ld", (long)d);
        }
        cr_assert(gidd_loader_build(loader, step, 4, &part) == GIDD_OK);
        for (int64_t i = 0; i < 5; i++) { // nor does it matter how a step is split
            assert_same_row(&part, i, &a, 4 + i);
        }
        for (int64_t i = 0; i < 12; i++) { // one row of the other at a time, to see what it reads
            gidd_batch row = make_batch(1);
            memset(whole.shown, 0, sizeof whole.shown);
            cr_assert(gidd_loader_build(other, step, i, &row) == GIDD_OK);
            int met = 0;
            for (int64_t d = 0; d < lib->count; d++) {
                met |= whole.shown[d] > 0 && gidd_ranges_find(left_out, d) != NULL;
            }
            // a row may have no more of a document than the ids around it
            int edge = window != GIDD_WINDOW_DOCUMENT && (row.x[T - 1] == BOS || row.x[0] == BOS || row.x[0] == PAD);
            if (!met && !(edge && memcmp(a.x + i * T, row.x, T * sizeof *row.x) != 0)) {
                assert_same_row(&a, i, &row, 0);
                same++;
            } else {
                stood_in += memcmp(a.x + i * T, row.x, T * sizeof *row.x) != 0;
            }
            free(row.memory);
        }
    }
    cr_assert(same > 0 && stood_in > 0, "%ld and %ld", (long)same, (long)stood_in);
    for (int64_t i = 0; i < gidd_loader_valid_examples(loader); i++) { // evaluation as well
        memset(lib->shown, 0, sizeof lib->shown);
        cr_assert(gidd_loader_build_eval(loader, i, 1, 0, &b) == GIDD_OK);
        for (int64_t d = 0; d < lib->count; d++) {
            cr_assert(gidd_ranges_find(left_out, d) == NULL || lib->shown[d] == 0, "document %ld", (long)d);
        }
    }
    free(a.memory);
    free(b.memory);
    free(part.memory);
    gidd_loader_close(loader);
    gidd_loader_close(other);
}

Test(loader_windows, documents_that_are_left_out_are_never_read)
{
    const gidd_window_mode windows[] = {GIDD_WINDOW_DOCUMENT, GIDD_WINDOW_PADDED, GIDD_WINDOW_PACKED};
    for (int k = 0; k < 3; k++) {
        library lib;
        gidd_ranges left_out = {0};
        fill_library(&lib, 60);
        cr_assert(gidd_ranges_add(&left_out, 20, 22) == GIDD_OK);
        cr_assert(gidd_ranges_add(&left_out, 0, 1) == GIDD_OK);
        cr_assert(gidd_ranges_add(&left_out, 52, 54) == GIDD_OK); // over the edge of the validation split
        gidd_ranges_settle(&left_out);
        check_left_out(&lib, windows[k], &left_out);
        gidd_ranges_release(&left_out);
    }
}

Test(loader_windows, a_split_of_damage_alone_is_refused)
{
    library lib;
    gidd_loader *loader = NULL;
    gidd_ranges left_out = {0};
    fill_library(&lib, 20);
    gidd_loader_args args = loader_args(&lib, 3);
    cr_assert(gidd_ranges_add(&left_out, 0, 16) == GIDD_OK);
    args.source.left_out = &left_out;
    gidd_loader *almost = open_loader(args); // one document for everything
    gidd_batch batch = make_batch(12);
    cr_assert(gidd_loader_build(almost, 3, 0, &batch) == GIDD_OK);
    free(batch.memory);
    gidd_loader_close(almost);
    left_out.at[0].end = 17;
    cr_assert(gidd_loader_open(&args, &loader) == GIDD_ERR_CORRUPT);
    cr_assert_null(loader);
    gidd_ranges_release(&left_out);
}

Test(loader_windows, ranges_are_joined_and_found)
{
    gidd_ranges ranges = {0};
    const int64_t given[][2] = {{30, 40}, {5, 7}, {7, 9}, {35, 36}, {20, 20}, {38, 45}, {50, 51}};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        cr_assert(gidd_ranges_add(&ranges, given[i][0], given[i][1]) == GIDD_OK);
    }
    gidd_ranges_settle(&ranges);
    cr_assert_eq(ranges.count, 3);
    for (int64_t n = -1; n < 60; n++) {
        int expected = (n >= 5 && n < 9) || (n >= 30 && n < 45) || n == 50;
        cr_assert_eq(gidd_ranges_find(&ranges, n) != NULL, expected, "%ld", (long)n);
        cr_assert_eq(gidd_ranges_total(&ranges, n, n + 1), expected);
    }
    cr_assert_eq(gidd_ranges_total(&ranges, 6, 41), 3 + 11);
    gidd_ranges_release(&ranges);
    cr_assert_null(gidd_ranges_find(&ranges, 0));
}
