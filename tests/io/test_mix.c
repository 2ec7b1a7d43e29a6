/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/chi_square.h"
#include "io/data_set.h"
#include "io/loader_library.h"
#include "io/mix_order.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------------ the order */

static gidd_mix_order order_of(uint64_t seed, const double *weights, int64_t count)
{
    gidd_mix_order order;
    cr_assert(gidd_mix_order_init(&order, seed, weights, count) == GIDD_OK, "%s", gidd_error_last()->text);
    return order;
}

Test(mix, quotas_are_the_weights_rounded_by_largest_remainders)
{
    const gidd_mix_order order = order_of(1, (double[]){0.7, 0.2, 0.1}, 3); // 716.8 204.8 102.4
    cr_assert_eq(gidd_mix_order_quota(&order, 0), 717);
    cr_assert_eq(gidd_mix_order_quota(&order, 1), 205);
    cr_assert_eq(gidd_mix_order_quota(&order, 2), 102);
    const gidd_mix_order same = order_of(1, (double[]){7, 2, 1}, 3);
    cr_assert_arr_eq(order.before, same.before, sizeof order.before);
}

Test(mix, every_block_has_its_quotas_and_every_source_counts_without_gaps)
{
    const gidd_mix_order order = order_of(5, (double[]){5, 1.5, 0.01, 2}, 4);
    gidd_mix_block block = {.number = -1};
    int64_t next[4] = {0};
    for (int64_t sample = 0; sample < 20 * GIDD_MIX_BLOCK; sample++) {
        gidd_mix_place place = gidd_mix_order_at(&order, sample, &block);
        cr_assert_eq(place.index, next[place.source]++, "sample %ld", (long)sample);
        if (sample % GIDD_MIX_BLOCK == GIDD_MIX_BLOCK - 1) {
            for (int64_t k = 0; k < 4; k++) {
                cr_assert_eq(next[k], (sample / GIDD_MIX_BLOCK + 1) * gidd_mix_order_quota(&order, k));
            }
        }
    }
}

Test(mix, any_sample_can_be_asked_for_alone)
{
    const gidd_mix_order order = order_of(5, (double[]){3, 1}, 2);
    gidd_mix_block running = {.number = -1};
    for (int64_t sample = 0; sample < 5000; sample++) {
        gidd_mix_block fresh = {.number = -1};
        gidd_mix_place a = gidd_mix_order_at(&order, sample, &running);
        if (sample % 97 == 0) {
            gidd_mix_place b = gidd_mix_order_at(&order, sample, &fresh);
            cr_assert(a.source == b.source && a.index == b.index);
        }
    }
    const gidd_mix_order other = order_of(6, (double[]){3, 1}, 2); // another seed is another order
    gidd_mix_block a = {.number = -1}, b = {.number = -1};
    int differing = 0;
    for (int64_t sample = 0; sample < 1000; sample++) {
        differing += gidd_mix_order_at(&order, sample, &a).source != gidd_mix_order_at(&other, sample, &b).source;
    }
    cr_assert(differing > 250 && differing < 500, "%d of 1000 differ", differing); // 2 x 3/4 x 1/4 = 375
}

// Source 0 is as likely at every place of a block, and as likely behind itself as behind another.
Test(mix, places_in_a_block_are_random)
{
    enum { BLOCKS = 400, BINS = 32 };
    const gidd_mix_order order = order_of(11, (double[]){1, 3}, 2);
    gidd_mix_block block = {.number = -1};
    int64_t at[BINS] = {0}, pairs[4] = {0};
    for (int64_t sample = 0, before = 0; sample < BLOCKS * GIDD_MIX_BLOCK; sample++) {
        int64_t source = gidd_mix_order_at(&order, sample, &block).source;
        at[sample % GIDD_MIX_BLOCK * BINS / GIDD_MIX_BLOCK] += source == 0;
        pairs[before * 2 + source]++;
        before = source;
    }
    double expected[BINS];
    for (int b = 0; b < BINS; b++) {
        expected[b] = BLOCKS * 256.0 / BINS;
    }
    cr_assert_lt(chi_square_sigmas(at, expected, BINS, 1), 4.5);
    double again = (double)pairs[0] / (double)(pairs[0] + pairs[1]); // source 0 behind source 0
    cr_assert(fabs(again - 255.0 / 1023.0) < 0.006, "%g", again);    // 4.5 standard deviations
}

Test(mix, the_fitting_beginning_is_the_longest)
{
    const gidd_mix_order order = order_of(3, (double[]){3, 1}, 2);
    static const int64_t cases[][2] = {{8, 4}, {0, 100}, {100, 0}, {3000, 1000}, {3072, 1024}, {100000, 7}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        gidd_mix_block block = {.number = -1};
        int64_t left[2] = {cases[c][0], cases[c][1]}, n = 0;
        while (left[gidd_mix_order_at(&order, n, &block).source] > 0) {
            left[gidd_mix_order_at(&order, n++, &block).source]--;
        }
        cr_assert_eq(gidd_mix_order_fitting(&order, cases[c]), n, "case %zu", c);
    }
}

Test(mix, refuses_senseless_weights)
{
    gidd_mix_order order;
    cr_assert_eq(gidd_mix_order_init(&order, 0, (double[]){1, 0}, 2), GIDD_ERR_CONFIG);
    cr_assert_eq(gidd_mix_order_init(&order, 0, (double[]){1, -1}, 2), GIDD_ERR_CONFIG);
    cr_assert_eq(gidd_mix_order_init(&order, 0, (double[]){1, (double)NAN}, 2), GIDD_ERR_CONFIG);
    cr_assert_eq(gidd_mix_order_init(&order, 0, (double[]){1, (double)INFINITY}, 2), GIDD_ERR_CONFIG);
    cr_assert_eq(gidd_mix_order_init(&order, 0, (double[]){1, 1e-6}, 2), GIDD_ERR_CONFIG);
    cr_assert_eq(gidd_mix_order_init(&order, 0, (double[]){1}, 0), GIDD_ERR_CONFIG);
    cr_assert_eq(gidd_mix_order_init(&order, 0, (double[GIDD_MIX_SOURCES_MAX + 1]){1}, GIDD_MIX_SOURCES_MAX + 1),
                 GIDD_ERR_CONFIG);
}

/* ------------------------------------------------------------------ the loader over a mix */

// Two libraries of 24 and 10 training documents and 8 and 4 others, three samples of the first for one of the second.
static gidd_loader *open_mix(library *first, library *second, gidd_loader_args *args)
{
    gidd_loader_part parts[2];
    fill_library(first, 32);
    fill_library(second, 14);
    parts[0] = (gidd_loader_part){loader_args(first, 8).source, 3.0};
    parts[1] = (gidd_loader_part){loader_args(second, 4).source, 1.0};
    *args = loader_args(first, 8);
    args->source = (gidd_source){0};
    args->mix = parts;
    args->mix_count = 2;
    args->global_batch = 16;
    return open_loader(*args);
}

Test(mix, sources_come_in_proportion_and_go_through_all_they_have)
{
    library first, second;
    gidd_loader_args args;
    gidd_loader *loader = open_mix(&first, &second, &args);
    gidd_batch batch = make_batch(16);
    for (int64_t step = 0; step < 64; step++) { // one block
        cr_assert(gidd_loader_build(loader, step, 0, &batch) == GIDD_OK);
    }
    int64_t rows[2] = {0};
    for (int d = 0; d < 24; d++) {
        cr_assert_eq(first.shown[d], 768 / 24, "document %d of the first: %d times", d, first.shown[d]);
        rows[0] += first.shown[d];
    }
    for (int d = 0; d < 10; d++) { // 256 samples: 25 epochs and six documents more
        cr_assert(second.shown[d] == 25 || second.shown[d] == 26, "document %d of the second", d);
        rows[1] += second.shown[d];
    }
    cr_assert(rows[0] == 768 && rows[1] == 256);
    for (int d = 24; d < 32; d++) {
        cr_assert_eq(first.shown[d], 0, "a document for validation is trained on");
    }
    cr_assert_eq(gidd_loader_train_examples(loader), 34);
    free(batch.memory);
    gidd_loader_close(loader);
}

Test(mix, rows_do_not_depend_on_how_a_step_is_split_or_where_one_starts)
{
    library first, second;
    gidd_loader_args args;
    gidd_loader *loader = open_mix(&first, &second, &args);
    gidd_batch whole = make_batch(16), part = make_batch(4);
    for (int64_t step = 62; step < 67; step++) { // across the end of a block
        cr_assert(gidd_loader_build(loader, step, 0, &whole) == GIDD_OK);
        for (int64_t from = 0; from < 16; from += 4) {
            cr_assert(gidd_loader_build(loader, step, from, &part) == GIDD_OK);
            for (int64_t i = 0; i < 4; i++) {
                assert_same_row(&whole, from + i, &part, i);
            }
        }
    }
    free(whole.memory);
    free(part.memory);
    gidd_loader_close(loader);
}

Test(mix, validation_is_in_proportion_and_shows_nothing_twice)
{
    library first, second;
    gidd_loader_args args;
    gidd_loader *loader = open_mix(&first, &second, &args);
    int64_t examples = gidd_loader_valid_examples(loader);
    gidd_batch batch = make_batch(16);
    cr_assert(examples >= 1 && examples <= 12);
    cr_assert(gidd_loader_build_eval(loader, 0, examples, 0, &batch) == GIDD_OK);
    int total[2] = {0};
    for (int d = 0; d < 32; d++) {
        cr_assert_leq(first.shown[d], d >= 24, "document %d of the first", d);
        total[0] += first.shown[d];
    }
    for (int d = 0; d < 14; d++) {
        cr_assert_leq(second.shown[d], d >= 10, "document %d of the second", d);
        total[1] += second.shown[d];
    }
    cr_assert_eq(total[0] + total[1], examples);
    cr_assert(total[0] == 8 || total[1] == 4, "it ends before a source does"); // the next sample would be one too many
    free(batch.memory);
    gidd_loader_close(loader);
}

Test(mix, one_source_is_no_mix)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader_args args = loader_args(&lib, 3);
    gidd_loader *plain = open_loader(args);
    const gidd_loader_part alone = {args.source, 0.25};
    args.mix = &alone;
    args.mix_count = 1;
    gidd_loader *mixed = open_loader(args);
    gidd_batch a = make_batch(12), b = make_batch(12);
    for (int64_t step = 0; step < 5; step++) {
        cr_assert(gidd_loader_build(plain, step, 0, &a) == GIDD_OK);
        cr_assert(gidd_loader_build(mixed, step, 0, &b) == GIDD_OK);
        for (int64_t i = 0; i < 12; i++) {
            assert_same_row(&a, i, &b, i);
        }
    }
    free(a.memory);
    free(b.memory);
    gidd_loader_close(plain);
    gidd_loader_close(mixed);
}

Test(mix, sources_of_other_vocabularies_are_refused)
{
    library lib;
    gidd_loader *loader = NULL;
    fill_library(&lib, 20);
    gidd_loader_args args = loader_args(&lib, 3);
    gidd_loader_part parts[2] = {{args.source, 1.0}, {args.source, 1.0}};
    parts[1].source.vocab_size++;
    args.mix = parts;
    args.mix_count = 2;
    cr_assert_eq(gidd_loader_open(&args, &loader), GIDD_ERR_CONFIG);
}

/* ------------------------------------------------------------------ folders */

// A folder of one shard of `documents` documents, made with the tokenizer whose digest is all `mark`.
static void make_folder(const char *path, int documents, char mark)
{
    char shard[64], name[24], digest[GIDD_DIGEST_SIZE] = "";
    gidd_shard_entry entry;
    gidd_shard_writer *writer = NULL;
    memset(digest, mark, GIDD_DIGEST_SIZE - 1);
    cr_assert_eq(mkdir(path, 0777), 0);
    gidd_shard_name(0, name);
    (void)snprintf(shard, sizeof shard, "%s/%s", path, name);
    cr_assert(gidd_shard_writer_create(shard, digest, WORDS, &writer) == GIDD_OK);
    for (int d = 0; d < documents; d++) {
        cr_assert(gidd_shard_writer_append(writer, (uint16_t[]){1, 2, (uint16_t)d}, 3) == GIDD_OK);
    }
    cr_assert(gidd_shard_writer_commit(writer, &entry) == GIDD_OK);
    gidd_shard_writer_destroy(writer);
    cr_assert(gidd_shard_index_write(path, &(gidd_shard_index){.shard_count = 1,
                                                               .entries = &entry,
                                                               .valid_documents = 2,
                                                               .vocab_size = WORDS,
                                                               .tokenizer_digest = digest}) == GIDD_OK);
}

static void digest_of(const char *mix, char digest[GIDD_DIGEST_SIZE])
{
    gidd_data_set *data = NULL;
    cr_assert(gidd_data_set_open("nowhere", mix, &data) == GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(gidd_data_set_info(data)->source_count, 2);
    cr_assert_eq(gidd_data_set_info(data)->document_count, 30);
    cr_assert_eq(gidd_data_set_info(data)->valid_documents, 4);
    memcpy(digest, gidd_data_set_info(data)->data_digest, GIDD_DIGEST_SIZE);
    gidd_data_set_close(data);
}

Test(mix, folders_weights_and_their_identity)
{
    char root[] = "/tmp/test_mix.XXXXXX", command[64];
    char digests[4][GIDD_DIGEST_SIZE];
    gidd_data_set *data = NULL;
    cr_assert_not_null(mkdtemp(root));
    cr_assert_eq(chdir(root), 0);
    make_folder("a", 10, '1');
    make_folder("b", 20, '1');
    make_folder("c", 20, '2');
    digest_of("a:3,b:1", digests[0]);
    digest_of("./a:0.75, b:0.25", digests[1]);
    digest_of("a:2,b:1", digests[2]);
    digest_of("b:1,a:3", digests[3]);
    cr_assert_str_eq(digests[0], digests[1]); // the same shares
    cr_assert_str_neq(digests[0], digests[2]);
    cr_assert_str_neq(digests[0], digests[3]);
    cr_assert(gidd_data_set_open("a", "", &data) == GIDD_OK);
    cr_assert_eq(gidd_data_set_info(data)->source_count, 1);
    cr_assert_str_neq(gidd_data_set_info(data)->data_digest, digests[0]);
    gidd_data_set_close(data);
    static const char *const bad[] = {"a:1,c:1", "a:1,b", "a:1,b:x", "a:1,b:0", "a:1,b:1e-9", ":1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(gidd_data_set_open("nowhere", bad[i], &data), GIDD_ERR_CONFIG, "%s", bad[i]);
    }
    cr_assert_eq(gidd_data_set_open("nowhere", "a:1,nowhere:1", &data), GIDD_ERR_MISSING);
    cr_assert_eq(chdir("/"), 0);
    (void)snprintf(command, sizeof command, "rm -r %s", root);
    cr_assert_eq(system(command), 0);
}
