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
