/* SPDX-License-Identifier: Apache-2.0
 *
 * The parts of a checkpoint that need no MPI: layout and shares, staging, manifest, directory.
 * (Writing and restoring: tests/mpi/test_checkpoint_ranks.c.)
 */
#include "io/checkpoint.h"
#include "io/checkpoint_dir.h"
#include "io/checkpoint_manifest.h"
#include "io/checkpoint_staging.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static gidd_checkpoint_tensor tensors[] = {
    {.name = "head", .dims = 2, .shape = {2048, 768}, .offset = 0},
    {.name = "norm", .dims = 1, .shape = {1000, 1}, .offset = 1572864},
};
enum { ELEMENTS = 1573864 }; // two blocks, the second half empty

static gidd_checkpoint_layout example_layout(void)
{
    return (gidd_checkpoint_layout){.tensors = tensors,
                                    .tensor_count = 2,
                                    .elements = ELEMENTS,
                                    .section_count = 3,
                                    .sections = {"master", "adam_m", "adam_v"}};
}

static gidd_checkpoint_fields example_fields(void)
{
    static const gidd_checkpoint_text texts[] = {{"config", "a: \"b\"\nc: \xc3\xa9\n"}};
    static const gidd_checkpoint_text fingerprint[] = {{"isa", "avx512"}};
    return (gidd_checkpoint_fields){.step = 12000,
                                    .sample_cursor = 6144000,
                                    .adam_step = 12000,
                                    .seed = INT64_MAX,
                                    .tokens_seen = 3145728000,
                                    .world_size = 8,
                                    .build_id = "0123abcd",
                                    .texts = texts,
                                    .text_count = 1,
                                    .fingerprint = fingerprint,
                                    .fingerprint_count = 1};
}

/* ---- layout -----------------------------------------------------------------------------------
 */

Test(checkpoint_layout, sections_start_on_blocks)
{
    gidd_checkpoint_layout layout = example_layout();
    cr_assert_eq(gidd_checkpoint_block_count(&layout), 6);
    cr_assert_eq(gidd_checkpoint_section_offset(&layout, 1), 2 * GIDD_CHECKPOINT_BLOCK);
    cr_assert_eq(gidd_checkpoint_state_bytes(&layout), 6 * GIDD_CHECKPOINT_BLOCK);
    cr_assert_eq(gidd_checkpoint_section(&layout, "adam_v"), 2);
    cr_assert_eq(gidd_checkpoint_section(&layout, "ema"), -1);
    layout.elements = GIDD_CHECKPOINT_BLOCK / 4; // exactly one block a section
    cr_assert_eq(gidd_checkpoint_block_count(&layout), 3);
    layout.elements++;
    cr_assert_eq(gidd_checkpoint_block_count(&layout), 6);
}

Test(checkpoint_layout, shares_cover_everything_once_on_block_boundaries)
{
    gidd_checkpoint_layout layout = example_layout();
    int64_t block = GIDD_CHECKPOINT_BLOCK / 4;
    for (int size = 1; size <= 9; size++) {
        int64_t covered[3] = {0, 0, 0};
        for (int rank = 0; rank < size; rank++) {
            gidd_checkpoint_extent extents[GIDD_CHECKPOINT_SECTIONS_MAX];
            int count = gidd_checkpoint_share(&layout, rank, size, extents);
            for (int i = 0; i < count; i++) {
                int64_t end = extents[i].first + extents[i].count;
                cr_assert_eq(extents[i].first, covered[extents[i].section]);
                cr_assert_eq(extents[i].first % block, 0);
                cr_assert(end % block == 0 || end == layout.elements);
                cr_assert_geq(extents[i].count, 1);
                covered[extents[i].section] = end;
            }
        }
        for (int section = 0; section < 3; section++) {
            cr_assert_eq(covered[section], layout.elements);
        }
    }
}

Test(checkpoint_layout, another_model_is_refused_by_name)
{
    gidd_checkpoint_layout layout = example_layout(), other = example_layout();
    gidd_checkpoint_tensor changed[2];
    memcpy(changed, tensors, sizeof changed);
    other.tensors = changed;
    cr_assert_eq(gidd_checkpoint_layout_compare(&layout, &other), GIDD_OK);
    changed[1].shape[0] = 999;
    cr_assert_eq(gidd_checkpoint_layout_compare(&layout, &other), GIDD_ERR_CONFIG);
    cr_assert_not_null(strstr(gidd_error_last()->text, "norm"));
    (void)snprintf(changed[0].name, sizeof changed[0].name, "tail");
    cr_assert_eq(gidd_checkpoint_layout_compare(&layout, &other), GIDD_ERR_CONFIG);
    cr_assert_not_null(strstr(gidd_error_last()->text, "tail"));
}

/* ---- staging ----------------------------------------------------------------------------------
 */

Test(checkpoint_staging, neighbours_join_and_the_end_is_padded)
{
    gidd_checkpoint_layout layout = example_layout();
    gidd_staging staging = {0};
    static float values[ELEMENTS];
    gidd_checkpoint_extent extents[] = {
        {.section = 1, .first = 0, .count = 3, .source = values},
        {.section = 0, .first = 1000, .count = ELEMENTS - 1000, .source = values + 1000},
        {.section = 0, .first = 10, .count = 990, .source = values + 10},
    };
    for (int64_t i = 0; i < ELEMENTS; i++) {
        values[i] = (float)i;
    }
    cr_assert_eq(gidd_staging_fill(&staging, &layout, extents, 3, NULL, NULL), GIDD_OK);
    cr_assert_eq(staging.run_count, 1); // to the padded end of section 0, and on into section 1
    cr_assert_eq(staging.runs[0].offset, 40);
    cr_assert_eq(staging.runs[0].bytes, 2 * GIDD_CHECKPOINT_BLOCK - 40 + 12);
    cr_assert_eq(staging.elements, ELEMENTS - 10 + 3);
    cr_assert_eq(memcmp(staging.runs[0].data, values + 10, (ELEMENTS - 10) * sizeof(float)), 0);
    for (int64_t i = (ELEMENTS - 10) * 4; i < 2 * GIDD_CHECKPOINT_BLOCK - 40; i++) {
        cr_assert_eq(staging.runs[0].data[i], 0);
    }
    cr_assert_eq(gidd_staging_piece(&staging.runs[0], 0), GIDD_CHECKPOINT_BLOCK - 40);
    cr_assert_eq(gidd_staging_piece(&staging.runs[0], GIDD_CHECKPOINT_BLOCK - 40),
                 GIDD_CHECKPOINT_BLOCK);
    gidd_staging_release(&staging);
}

Test(checkpoint_staging, what_is_outside_or_twice_is_refused)
{
    gidd_checkpoint_layout layout = example_layout();
    gidd_staging staging = {0};
    float values[8] = {0};
    gidd_checkpoint_extent bad[][2] = {
        {{0, 0, 4, values}, {0, 3, 4, values}},  {{3, 0, 4, values}, {0, 0, 4, values}},
        {{-1, 0, 4, values}, {0, 0, 4, values}}, {{0, ELEMENTS - 3, 4, values}, {1, 0, 4, values}},
        {{0, -1, 4, values}, {1, 0, 4, values}}, {{0, INT64_MAX, 4, values}, {1, 0, 4, values}},
        {{0, 0, 0, values}, {1, 0, 4, values}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(gidd_staging_fill(&staging, &layout, bad[i], 2, NULL, NULL), GIDD_ERR_ARG,
                     "case %zu", i);
    }
    gidd_staging_release(&staging);
}

/* ---- manifest ---------------------------------------------------------------------------------
 */

static char *example_manifest(size_t *bytes)
{
    gidd_checkpoint_layout layout = example_layout();
    gidd_checkpoint_fields fields = example_fields();
    char digests[6][GIDD_DIGEST_SIZE], *text = NULL;
    json_t *root = NULL;
    for (int i = 0; i < 6; i++) {
        gidd_digest_of(&i, sizeof i, digests[i]);
    }
    cr_assert_eq(gidd_manifest_build(&layout, &fields, &root), GIDD_OK);
    cr_assert_eq(gidd_manifest_encode(root, digests, 6, &text, bytes), GIDD_OK);
    json_decref(root);
    return text;
}

Test(checkpoint_manifest, what_was_written_is_read)
{
    size_t bytes = 0, again = 0;
    char *text = example_manifest(&bytes), *twin = example_manifest(&again);
    gidd_manifest m;
    gidd_checkpoint_layout layout = example_layout();
    gidd_checkpoint_fields fields = example_fields();
    cr_assert(bytes == again && memcmp(text, twin, bytes) == 0); // deterministic
    cr_assert_eq(gidd_manifest_decode(text, bytes, &m), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(gidd_checkpoint_layout_compare(&m.layout, &layout), GIDD_OK);
    cr_assert_eq(m.layout.section_count, 3);
    cr_assert_str_eq(m.layout.sections[1], "adam_m");
    cr_assert_eq(m.block_count, 6);
    cr_assert_eq(m.fields.step, fields.step);
    cr_assert_eq(m.fields.sample_cursor, fields.sample_cursor);
    cr_assert_eq(m.fields.seed, INT64_MAX);
    cr_assert_eq(m.fields.tokens_seen, fields.tokens_seen);
    cr_assert_eq(m.fields.world_size, 8);
    cr_assert_str_eq(m.fields.build_id, "0123abcd");
    cr_assert_eq(m.fields.text_count, 1);
    cr_assert_str_eq(m.fields.texts[0].value, fields.texts[0].value);
    cr_assert_str_eq(m.fields.fingerprint[0].value, "avx512");
    gidd_manifest_release(&m);
    free(text);
    free(twin);
}

Test(checkpoint_manifest, every_changed_bit_and_every_cut_is_noticed)
{
    size_t bytes = 0;
    char *text = example_manifest(&bytes);
    gidd_manifest m;
    for (size_t at = 0; at < bytes; at++) {
        for (int bit = 0; bit < 8; bit++) {
            text[at] = (char)(text[at] ^ (1 << bit));
            cr_assert_eq(gidd_manifest_decode(text, bytes, &m), GIDD_ERR_CORRUPT, "byte %zu bit %d",
                         at, bit);
            text[at] = (char)(text[at] ^ (1 << bit));
        }
        cr_assert_eq(gidd_manifest_decode(text, at, &m), GIDD_ERR_CORRUPT, "cut at %zu", at);
    }
    free(text);
}

// Makes a text's checksum right, so that only the parser stands between it and the program.
static void seal(char *text)
{
    static const char key[] = "\"checksum\": \"";
    char digest[GIDD_DIGEST_SIZE], *digits = strstr(text, key) + strlen(key);
    memset(digits, '0', GIDD_DIGEST_SIZE - 1);
    gidd_digest_of(text, strlen(text), digest);
    memcpy(digits, digest, GIDD_DIGEST_SIZE - 1);
}

// The example with the first `from` replaced by `to`, its checksum right.
static gidd_status decode_changed(const char *from, const char *to)
{
    size_t bytes = 0;
    char *text = example_manifest(&bytes), *changed = NULL;
    char *at = strstr(text, from);
    gidd_manifest m;
    cr_assert_not_null(at, "%s", from);
    cr_assert_geq(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)), 0);
    seal(changed);
    gidd_status status = gidd_manifest_decode(changed, strlen(changed), &m);
    if (status == GIDD_OK) {
        gidd_manifest_release(&m);
    }
    free(changed);
    free(text);
    return status;
}

Test(checkpoint_manifest, hostile_numbers_and_shapes_are_refused)
{
    static const char *const bad[][2] = {
        {"\"elements\": 1573864", "\"elements\": 1573863"},
        {"\"elements\": 1573864", "\"elements\": 1573865"},
        {"\"elements\": 1573864", "\"elements\": 9223372036854775807"},
        {"\"elements\": 1573864", "\"elements\": -1"},
        {"\"elements\": 1573864", "\"elements\": 1e6"},
        {"\"elements\": 1573864", "\"elements\": \"1573864\""},
        {"\"elements\": 1573864", "\"elements\": 99999999999999999999"},
        {"2048,", "0,"},
        {"2048,", "-2048,"},
        {"2048,", "4611686018427387904,"},
        {"2048,", "2048, 1,"},
        {"\"offset\": 1572864", "\"offset\": 0"},
        {"\"name\": \"norm\"", "\"name\": \"\""},
        {"\"name\": \"adam_m\"", "\"name\": \"master\""},
        {"\"dtype\": \"fp32\"", "\"dtype\": \"fp64\""},
        {"\"block_bytes\": 4194304", "\"block_bytes\": 1"},
        {"\"bytes\": 25165824", "\"bytes\": 25165825"},
        {"\"step\": 12000", "\"step\": -1"},
        {"\"world_size\": 8", "\"world_size\": 0"},
        {"\"format\": \"gidd-checkpoint\"", "\"format\": \"gidd-shard\""},
        {"\"fingerprint\": {", "\"surprise\": 1, \"fingerprint\": {"},
        {"\"fingerprint\": {", "\"elements\": 1573864, \"fingerprint\": {"},
        {"\"avx512\"", "7"},
        {"\"texts\": {", "\"texts\": {\"x\": [[[[[[[[[[]]]]]]]]]],"},
        {"\"build_id\": \"0123abcd\"", "\"build_id\": null"},
    };
    cr_assert_eq(decode_changed("12000", "12001"), GIDD_OK); // the method itself works
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(decode_changed(bad[i][0], bad[i][1]), GIDD_ERR_CORRUPT, "%s", bad[i][1]);
    }
    cr_assert_eq(decode_changed("\"version\": 1", "\"version\": 2"), GIDD_ERR_UNSUPPORTED);
}

Test(checkpoint_manifest, texts_that_cannot_be_stored_are_refused)
{
    static const gidd_checkpoint_text bad[][2] = {
        {{"config", "\xff"}, {"x", ""}}, {{"", "a"}, {"x", ""}}, {{"x", "a"}, {"x", "b"}}};
    gidd_checkpoint_layout layout = example_layout();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gidd_checkpoint_fields fields = example_fields();
        json_t *root = NULL;
        fields.texts = bad[i];
        fields.text_count = 2;
        cr_assert_eq(gidd_manifest_build(&layout, &fields, &root), GIDD_ERR_ARG, "case %zu", i);
    }
}

// Today's bytes, for ever: a manifest of version 1 as it was first written.
Test(checkpoint_manifest, the_golden_manifest_is_read)
{
    char text[4096];
    gidd_manifest m;
    FILE *file = fopen(GIDD_TEST_DATA "/golden_manifest_v1.json", "rb");
    cr_assert_not_null(file);
    size_t bytes = fread(text, 1, sizeof text, file);
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(gidd_manifest_decode(text, bytes, &m), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(m.fields.step, 12000);
    cr_assert_str_eq(m.layout.tensors[1].name, "norm");
    gidd_manifest_release(&m);
}

/* ---- directory --------------------------------------------------------------------------------
 */

Test(checkpoint_dir, names_are_recognised_exactly)
{
    static const struct {
        const char *name;
        int kind; // -1: not a checkpoint's
        int64_t step;
    } names[] = {
        {"step-000012000", GIDD_CHECKPOINT_COMPLETE, 12000},
        {"step-1234567890", GIDD_CHECKPOINT_COMPLETE, 1234567890},
        {"step-000012000.tmp-0a1b-3", GIDD_CHECKPOINT_UNFINISHED, 12000},
        {"step-000012000.tmp-pruned-0a1b", GIDD_CHECKPOINT_UNFINISHED, 12000},
        {"step-000012000.damaged-2", GIDD_CHECKPOINT_DAMAGED, 12000},
        {"step-12000", -1, 0},
        {"step-0000012000", -1, 0},
        {"step-000012000x", -1, 0},
        {"step-000012000.old", -1, 0},
        {"step-000012000.damaged-", -1, 0},
        {"step--00012000", -1, 0},
        {"step-99999999999999999999", -1, 0},
        {"latest", -1, 0},
        {"", -1, 0},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        gidd_checkpoint_entry entry;
        gidd_status status = gidd_checkpoint_parse_name(names[i].name, &entry);
        cr_assert_eq(status == GIDD_OK, names[i].kind >= 0, "%s", names[i].name);
        cr_assert(status != GIDD_OK ||
                      ((int)entry.kind == names[i].kind && entry.step == names[i].step),
                  "%s", names[i].name);
    }
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info, (void)type, (void)place;
    return remove(path);
}

static void make(const char *run_dir, const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/checkpoints/%s", run_dir, name);
    cr_assert_eq(mkdir(path, 0777), 0);
    (void)snprintf(path, sizeof path, "%s/checkpoints/%s/state.bin", run_dir, name);
    cr_assert_eq(gidd_checkpoint_write_file(path, "x", 1), GIDD_OK);
}

Test(checkpoint_dir, pruning_keeps_what_the_rules_say)
{
    static const char *const names[] = {
        "step-000000100",       "step-000000150",           "step-000000200", "step-000000250",
        "step-000000260.tmp-a", "step-000000120.damaged-1", "notes"};
    char run_dir[] = "/tmp/gidd-test-dir-XXXXXX", path[256];
    gidd_run_lock *lock = NULL;
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, deleted = 0;
    cr_assert_not_null(mkdtemp(run_dir));
    cr_assert_eq(gidd_checkpoint_list(run_dir, &entries, &count), GIDD_OK);
    cr_assert_eq(count, 0);
    (void)snprintf(path, sizeof path, "%s/checkpoints", run_dir);
    cr_assert_eq(gidd_checkpoint_make_dir(path), GIDD_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        make(run_dir, names[i]);
    }
    cr_assert_eq(gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = run_dir}, &lock), GIDD_OK);
    cr_assert_eq(gidd_checkpoint_prune(run_dir, lock, 1, 100, &deleted), GIDD_OK);
    cr_assert_eq(deleted, 2); // 150 and the unfinished one
    cr_assert_eq(gidd_checkpoint_list(run_dir, &entries, &count), GIDD_OK);
    cr_assert_eq(count, 4);
    cr_assert_str_eq(entries[0].name, "step-000000250");
    cr_assert_str_eq(entries[1].name, "step-000000200");
    cr_assert_str_eq(entries[2].name, "step-000000120.damaged-1");
    cr_assert_str_eq(entries[3].name, "step-000000100");
    free(entries);
    cr_assert_eq(gidd_checkpoint_quarantine(run_dir, lock, "step-000000250"), GIDD_OK);
    make(run_dir, "step-000000250");
    cr_assert_eq(gidd_checkpoint_quarantine(run_dir, lock, "step-000000250"), GIDD_OK);
    (void)snprintf(path, sizeof path, "%s/checkpoints/step-000000250.damaged-2", run_dir);
    cr_assert_eq(access(path, F_OK), 0);
    gidd_run_lock_release(lock);
    (void)nftw(run_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
