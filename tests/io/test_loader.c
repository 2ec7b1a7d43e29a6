/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader.h"
#include "io/loader_library.h"

#include "base/rng.h"
#include "diffusion/corrupt.h"
#include "diffusion/time.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

// Without noise z is x, and a row's mask says which positions predict; every slice of a step has the weight that
// makes a mean over all positions of the step one over those.
static void check_predictions(gidd_window_mode window, int64_t max_add_padding)
{
    library lib;
    fill_library(&lib, 40);
    gidd_schedule    schedule = some_schedule();
    gidd_loader_args args = loader_args(&lib, 7);
    args.schedule = &schedule;
    schedule.args.process = GIDD_PROCESS_NONE;
    args.window = window;
    args.max_add_padding = max_add_padding;
    gidd_loader *loader = open_loader(args);
    gidd_batch   whole = make_batch(12), part = make_batch(5);
    for (int64_t step = 0; step < 8; step++) { // over an epoch's end
        int64_t sum = 0;
        cr_assert(gidd_loader_build(loader, step, 0, &whole) == GIDD_OK);
        cr_assert(gidd_loader_build(loader, step, 3, &part) == GIDD_OK);
        for (int64_t p = 0; p < 12 * T; p++) {
            int is_last = p % T == T - 1;
            cr_assert_eq(whole.z[p], whole.x[p]);
            cr_assert(!is_last || whole.attention_mask[p] == 0);
            cr_assert(is_last || whole.attention_mask[p] == (whole.x[p] != PAD));
            sum += whole.attention_mask[p];
        }
        cr_assert_eq(whole.coef[0].w_keep, (float)(12.0 * T / (double)sum));
        cr_assert_eq(whole.coef[11].w_keep, whole.coef[0].w_keep);
        cr_assert_eq(part.coef[4].w_keep, whole.coef[0].w_keep);
        cr_assert(whole.coef[0].omega_keep == 1.0f && whole.coef[0].row_weight == 1.0f);
    }
    free(whole.memory);
    free(part.memory);
    gidd_loader_close(loader);
}

Test(loader, counts_what_a_step_predicts)
{
    check_predictions(GIDD_WINDOW_DOCUMENT, 0);
    check_predictions(GIDD_WINDOW_DOCUMENT, 5);
    check_predictions(GIDD_WINDOW_PADDED, 0);
    check_predictions(GIDD_WINDOW_PACKED, 0);
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
