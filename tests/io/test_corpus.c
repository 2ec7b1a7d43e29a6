/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_reading.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(corpus, .init = make_folder, .fini = remove_folder, .timeout = 60);

/* ------------------------------------------------------------------ folders and files */

Test(corpus, a_folder_is_read_in_the_order_of_its_paths)
{
    static const char *const names[] = {"a.txt",  "a/b.md", "a/c/d.rst",
                                        "a0.txt", "b.txt",  "z/z.txt"};
    size_t size = 0;
    for (int i = 0; i < 6; i++) { // sorted by bytes: '.' < '/' < '0'
        write_string(names[i], names[i]);
    }
    char *packed = fixture_compress("gz", "packed", 6, &size);
    write_file("m.txt.gz", packed, size);
    write_string("empty.txt", "");
    write_string("skip.html", "no");
    write_string(".txt", "no name before the dot");
    cr_assert_eq(symlink("a.txt", fixture_path(folder, "link.txt")), 0);
    cr_assert_eq(symlink("a", fixture_path(folder, "linked-folder")), 0);
    struct found *found = read_input(folder, &plain);
    cr_assert_eq(found->count, 7);
    for (int i = 0; i < 5; i++) {
        check_document(found, i, names[i], strlen(names[i]));
    }
    check_document(found, 5, "packed", 6);
    check_document(found, 6, names[5], strlen(names[5]));
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_EMPTY], 1);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_LINK], 1);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_SUFFIX], 3); // html, .txt, the linked folder
    cr_assert_eq(found->counts.of[GIDD_CORPUS_TEXT_BYTES], 5 + 6 + 9 + 6 + 5 + 6 + 7);
    free(packed);
    release(found);
}

Test(corpus, bytes_are_taken_as_they_are)
{
    static const char text[] = "\xEF\xBB\xBF a\0b \xFF\xC0\xED\xA0\x80\r\n\x1F\x8B<|endoftext|>";
    write_file("odd.txt", text, sizeof text);
    struct found *found = read_input(folder, &plain);
    check_document(found, 0, text, sizeof text);
    release(found);
}

Test(corpus, suffixes_choose)
{
    gidd_corpus_options only = {.suffixes = " .rst , md", .json_key = "text"};
    write_string("a.txt", "a");
    write_string("b.rst", "b");
    write_string("c.md", "c");
    struct found *found = read_input(folder, &only);
    cr_assert_eq(found->count, 2);
    release(found);
    only.suffixes = "html";
    cr_assert_eq(read_failing(folder, &only), GIDD_ERR_CORRUPT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "\"html\""), "%s", gidd_error_last()->text);
    cr_assert_eq(read_failing(fixture_path(folder, "nowhere"), &plain), GIDD_ERR_MISSING);
    found = read_input(fixture_path(folder, "c.md"), &only); // a file named on purpose
    check_document(found, 0, "c", 1);
    release(found);
}

Test(corpus, several_inputs_follow_one_another)
{
    write_string("x/b.txt", "1");
    write_string("x/a.txt", "0");
    write_string("lines.jsonl", "{\"text\": \"2\"}\n");
    char *inputs[] = {strdup(fixture_path(folder, "x")),
                      strdup(fixture_path(folder, "lines.jsonl")),
                      strdup(fixture_path(folder, "x"))};
    struct found *found = calloc(1, sizeof *found);
    cr_assert_eq(read_inputs((const char *const *)inputs, 3, &plain, found), GIDD_OK);
    cr_assert_eq(found->count, 5);
    for (int i = 0; i < 5; i++) {
        check_document(found, i, &"01201"[i], 1);
    }
    release(found);
    for (int i = 0; i < 3; i++) {
        free(inputs[i]);
    }
}

/* ------------------------------------------------------------------ lines */

Test(corpus, lines_follow_their_rules)
{
    const char *path =
        write_string("a.jsonl", "\xEF\xBB\xBF{\"text\": \"one\"}\r\n"
                                "\n"
                                "  \t\n"
                                "{\"other\": 1, \"text\": \"tw\\u00f6\\n\\u0000.\"}\n"
                                "not json\n"
                                "{\"text\": 5}\n"
                                "{\"no\": \"x\"}\n"
                                "[\"text\"]\n"
                                "{\"text\": \"\"}\n"
                                "{\"text\": \"bad \xFF\"}\n"
                                "{\"text\": \"lone \\ud800\"}\n"
                                "{\"text\": \"\\ud83d\\ude00\"}\n"
                                "{\"text\": \"last\"}");
    struct found *found = read_input(path, &plain);
    cr_assert_eq(found->count, 4);
    check_document(found, 0, "one", 3);
    check_document(found, 1, "tw\xC3\xB6\n\0.", 7);
    check_document(found, 2, "\xF0\x9F\x98\x80", 4);
    check_document(found, 3, "last", 4);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_JSON], 4);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_KEY], 2);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_EMPTY], 3);
    release(found);
    gidd_corpus_options other = {
        .suffixes = "txt", .json_key = "other", .rule = GIDD_CORPUS_STRICT};
    cr_assert_eq(read_failing(path, &other), GIDD_ERR_CORRUPT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "a.jsonl: skipped_key"), "%s",
                       gidd_error_last()->text);
}

// Lines long and short around the borders of the 4 MiB ranges: none lost, none twice, plain or
// compressed.
Test(corpus, lines_at_the_borders_of_ranges)
{
    static const size_t UNIT = (size_t)4 << 20;
    size_t room = 5 * UNIT, used = 0;
    char *bytes = malloc(room);
    int count = 0;
    // Line lengths so that one ends exactly at a border, one begins there, one spans two borders.
    while (used < 4 * UNIT) {
        size_t at = used % UNIT;
        size_t want = used < UNIT && UNIT - at < 9000 ? UNIT - at
                      : used < 3 * UNIT && used >= 2 * UNIT - 9000 && used < 2 * UNIT
                          ? UNIT + 20000
                          : 3000 + (size_t)(count % 700);
        size_t head = (size_t)sprintf(bytes + used, "{\"text\": \"%d ", count);
        memset(bytes + used + head, 'x', want - head - 3);
        memcpy(bytes + used + want - 3, "\"}\n", 3);
        used += want;
        count++;
    }
    char *path = strdup(write_file("a.jsonl", bytes, used));
    struct found *found = read_input(path, &plain);
    cr_assert_eq(found->count, count);
    cr_assert_geq(found->part_count, 4);
    for (int i = 0; i < count; i++) {
        cr_assert_eq(atoi(found->documents[i]), i);
    }
    static const char *const filters[] = {"gz", "xz", "zst"};
    for (int f = 0; f < 3; f++) {
        size_t size = 0;
        char name[32];
        char *packed = fixture_compress(filters[f], bytes, used, &size);
        (void)snprintf(name, sizeof name, "b.jsonl.%s", filters[f]);
        struct found *other = read_input(write_file(name, packed, size), &plain);
        cr_assert_eq(other->count, count);
        for (int i = 0; i < count; i++) {
            check_document(other, i, found->documents[i], found->sizes[i]);
        }
        release(other);
        free(packed);
    }
    release(found);
    free(path);
    free(bytes);
}

Test(corpus, documents_above_the_limit_are_skipped_wherever_they_are)
{
    gidd_corpus_options small = {.suffixes = "txt", .json_key = "text", .document_bytes_max = 1000};
    size_t size = 0, room = (size_t)10 << 20;
    char *big = malloc(room);
    memset(big, 'x', room);
    fixture_archive *tar = fixture_archive_new("tar", "gz");
    fixture_archive_add(tar, "in.txt", 'f', big, 1001);
    fixture_archive_add(tar, "fits.txt", 'f', big, 1000);
    char *archive = fixture_archive_end(tar, &size);
    write_file("c.tar.gz", archive, size);
    char *packed = fixture_compress("xz", big, 5000, &size);
    write_file("d/b.txt.xz", packed, size);
    write_file("d/a.txt", big, 2000);
    write_file("d/ok.txt", big, 1000);
    struct found *found = read_input(fixture_path(folder, "d"), &small);
    cr_assert_eq(found->count, 1);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_TOO_LARGE], 2);
    release(found);
    found = read_input(fixture_path(folder, "c.tar.gz"), &small);
    cr_assert_eq(found->count, 1);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_TOO_LARGE], 1);
    release(found);
    // One line of ten megabytes between two short ones, plain and compressed.
    memcpy(big, "{\"text\": \"a\"}\n", 14);
    memcpy(big + room - 15, "\n{\"text\": \"b\"}\n", 15);
    write_file("e.jsonl", big, room);
    free(packed);
    packed = fixture_compress("gz", big, room, &size);
    write_file("f.jsonl.gz", packed, size);
    static const char *const names[] = {"e.jsonl", "f.jsonl.gz"};
    for (int i = 0; i < 2; i++) {
        found = read_input(fixture_path(folder, names[i]), &small);
        cr_assert_eq(found->count, 2, "%s", names[i]);
        cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_TOO_LARGE], 1, "%s: %ld", names[i],
                     (long)found->counts.of[GIDD_CORPUS_SKIPPED_TOO_LARGE]);
        release(found);
    }
    free(packed);
    free(archive);
    free(big);
}

/* ------------------------------------------------------------------ archives */

Test(corpus, every_packing_gives_the_same_documents)
{
    static const char *const forms[][3] = {
        {"tar", "", "a.tar"},     {"tar", "gz", "a.tar.gz"}, {"tar", "xz", "a.txz"},
        {"tar", "zst", "a.tzst"}, {"zip", "", "a.zip"},      {"tar", "xz", "subset_data.xz"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        size_t size = 0;
        char *archive = pack_texts(forms[i][0], forms[i][1], 0, 200, &size);
        struct found *found = read_input(write_file(forms[i][2], archive, size), &plain);
        check_texts(found, 200);
        release(found);
        free(archive);
    }
}

// OpenWebText as it is distributed: a tar (compressed or not) of xz tars without ".tar" in their
// names.
Test(corpus, archives_in_an_archive)
{
    static const char *const filters[] = {"xz", ""};
    for (int f = 0; f < 2; f++) {
        size_t size = 0;
        fixture_archive *outer = fixture_archive_new("tar", filters[f]);
        fixture_archive_add(outer, "openwebtext", 'd', NULL, 0);
        for (int k = 0; k < 8; k++) {
            char name[64];
            char *inner = pack_texts("tar", "xz", k * 50, 50, &size);
            (void)snprintf(name, sizeof name, "openwebtext/urlsf_subset%02d-%d_data.xz", k, k);
            fixture_archive_add(outer, name, 'f', inner, size);
            free(inner);
        }
        char *bytes = fixture_archive_end(outer, &size);
        struct found *found =
            read_input(write_file(f == 0 ? "owt.tar.xz" : "hf.tar", bytes, size), &plain);
        check_texts(found, 400);
        release(found);
        free(bytes);
    }
}

Test(corpus, mixed_members_and_nesting)
{
    size_t size = 0, packed_size = 0;
    fixture_archive *outer = fixture_archive_new("zip", "");
    char *inner = pack_texts("tar", "gz", 1, 1, &size);
    size_t text_size = 0;
    char *text = fixture_text(0, &text_size);
    fixture_archive_add(outer, "0.md", 'f', text, text_size);
    fixture_archive_add(outer, "1.tar.gz", 'f', inner, size);
    free(inner);
    free(text);
    text = fixture_text(2, &text_size);
    char *packed = fixture_compress("zst", text, text_size, &packed_size);
    fixture_archive_add(outer, "2.txt.zst", 'f', packed, packed_size);
    free(packed);
    free(text);
    static const char lines[] = "{\"text\": \"l1\"}\n{\"text\": \"l2\"}\n";
    packed = fixture_compress("gz", lines, sizeof lines - 1, &packed_size);
    fixture_archive_add(outer, "3.jsonl", 'f', lines, sizeof lines - 1);
    fixture_archive_add(outer, "4.jsonl.gz", 'f', packed, packed_size);
    fixture_archive_add(outer, "5.bin.gz", 'f', packed, packed_size); // no archive, no text
    free(packed);
    // Three levels: a tar in a tar in this zip.
    inner = pack_texts("tar", "", 0, 3, &size);
    fixture_archive *middle = fixture_archive_new("tar", "xz");
    fixture_archive_add(middle, "deep.tar", 'f', inner, size);
    fixture_archive_add(middle, "deep.txt", 'f', "deep", 4);
    free(inner);
    inner = fixture_archive_end(middle, &size);
    fixture_archive_add(outer, "6.tar.xz", 'f', inner, size);
    free(inner);
    char *bytes = fixture_archive_end(outer, &size);
    struct found *found = read_input(write_file("mixed.zip", bytes, size), &plain);
    cr_assert_eq(found->count, 8);
    for (int i = 0; i < 3; i++) {
        text = fixture_text(i, &text_size);
        check_document(found, i, text, text_size);
        free(text);
    }
    for (int i = 3; i < 7; i++) {
        check_document(found, i, i % 2 == 1 ? "l1" : "l2", 2);
    }
    check_document(found, 7, "deep", 4);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_NESTED], 1);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_SUFFIX], 1);
    release(found);
    free(bytes);
}

/* ------------------------------------------------------------------ parts */

Test(corpus, parts_follow_the_input_and_know_when_it_changed)
{
    gidd_corpus_options small = plain;
    small.shard_bytes = 20000;
    for (int i = 0; i < 100; i++) {
        size_t size = 0;
        char name[32];
        char *text = fixture_text(i, &size);
        (void)snprintf(name, sizeof name, "%03d.txt", i);
        write_file(name, text, size);
        free(text);
    }
    struct found *before = read_input(folder, &small);
    check_texts(before, 100);
    cr_assert_geq(before->part_count, 5);
    cr_assert_leq(before->part_count, 10);
    size_t size = 0;
    char *text = fixture_text(99, &size);
    text[size / 2] ^= 1; // same size, same name
    write_file("099.txt", text, size);
    free(text);
    struct found *after = read_input(folder, &small);
    cr_assert_eq(before->part_count, after->part_count);
    for (int p = 0; p < before->part_count; p++) {
        cr_assert_eq(strcmp(before->digests[p], after->digests[p]) == 0, p < before->part_count - 1,
                     "part %d", p);
    }
    release(before);
    release(after);
}

Test(corpus, dealing_can_stop_early_inside_an_archive)
{
    gidd_corpus_options small = plain;
    size_t size = 0;
    small.shard_bytes = 10000;
    char *bytes = pack_texts("tar", "gz", 0, 200, &size);
    const char *path = write_file("a.tar.gz", bytes, size);
    struct found *found = calloc(1, sizeof *found);
    found->stop_after = 3;
    cr_assert_eq(read_inputs(&path, 1, &small, found), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(found->part_count, 3);
    cr_assert_gt(found->count, 10);
    cr_assert_lt(found->count, 100);
    release(found);
    free(bytes);
}
