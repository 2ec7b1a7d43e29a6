/* SPDX-License-Identifier: Apache-2.0
 *
 * Damaged and hostile input: the rules of FORMAT.md, one test for each of their kinds. Each input is read twice: under
 * the strict rule it must be refused by name, otherwise skipped and counted, with all that is sound beside it kept.
 */
#include "io/corpus_reading.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(corpus_bad, .init = make_folder, .fini = remove_folder, .timeout = 100);

static void check_refused(const char *path, const char *words)
{
    cr_assert_eq(read_failing(path, &strict), GIDD_ERR_CORRUPT, "%s is not refused", path);
    cr_assert_not_null(strstr(gidd_error_last()->text, words), "'%s' is not in: %s", words, gidd_error_last()->text);
}

// Skipped once for the reason `why` and for no other; returns what was found beside it.
static struct found *check_skipped(const char *path, gidd_corpus_counter why)
{
    struct found *found = read_input(path, &plain);
    for (int k = GIDD_CORPUS_SKIPPED_EMPTY; k < GIDD_CORPUS_COUNTERS; k++) {
        cr_assert_eq(found->counts.of[k], k == (int)why, "%s: %s is %lld", path,
                     gidd_corpus_counter_name((gidd_corpus_counter)k), (long long)found->counts.of[k]);
    }
    return found;
}

static void check_both(const char *path, gidd_corpus_counter why, const char *words, int kept)
{
    check_refused(path, words);
    struct found *found = check_skipped(path, why);
    cr_assert(kept < 0 || found->count == kept, "%s: %d documents, not %d", path, found->count, kept);
    check_texts(found, found->count); // all that came before the damage, whole and in order
    release(found);
}

/* ------------------------------------------------------------------ names and kinds of members */

Test(corpus_bad, tricks_in_archives)
{
    size_t size = 0;
    fixture_archive *tar = fixture_archive_new("tar", "gz");
    fixture_archive_add(tar, "../up.txt", 'f', "no", 2);
    fixture_archive_add(tar, "a/../../up.txt", 'f', "no", 2);
    fixture_archive_add(tar, "/etc/absolute.txt", 'f', "no", 2);
    fixture_archive_add(tar, "link.txt", 'l', "/etc/passwd", 0);
    fixture_archive_add(tar, "good..txt", 'f', "yes", 3);
    fixture_archive_add(tar, "hard.txt", 'h', "good..txt", 0);
    fixture_archive_add(tar, "device.txt", 'c', NULL, 0);
    fixture_archive_add(tar, "program", 'f', "no", 2);
    char *bytes = fixture_archive_end(tar, &size);
    const char *path = write_file("tricks.tgz", bytes, size);
    struct found *found = read_input(path, &plain);
    cr_assert_eq(found->count, 1);
    check_document(found, 0, "yes", 3);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_PATH], 3);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_LINK], 3);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_SUFFIX], 1);
    release(found);
    check_refused(path, "tricks.tgz: ../up.txt: skipped_path");
    free(bytes);
}

Test(corpus_bad, pipes_in_folders)
{
    write_string("d/a.txt", "a");
    cr_assert_eq(mkfifo(fixture_path(folder, "d/b.txt"), 0600), 0);
    const char *path = fixture_path(folder, "d");
    struct found *found = check_skipped(path, GIDD_CORPUS_SKIPPED_LINK);
    cr_assert_eq(found->count, 1);
    release(found);
    check_refused(path, "b.txt");
}

/* ------------------------------------------------------------------ truncated and damaged */

Test(corpus_bad, truncated_archives)
{
    static const char *const filters[] = {"gz", "xz", "zst", ""};
    for (int f = 0; f < 4; f++) {
        char name[32];
        size_t size = 0;
        char *bytes = pack_texts("tar", filters[f], 0, 60, &size);
        (void)snprintf(name, sizeof name, "cut.tar%s%s", f < 3 ? "." : "", filters[f]);
        for (int tenth = 1; tenth < 10; tenth++) {
            size_t cut = size * (size_t)tenth / 10;
            check_both(write_file(name, bytes, cut), GIDD_CORPUS_SKIPPED_DAMAGED, name, -1);
        }
        free(bytes);
    }
}

// Cut where a member ends: all that is left looks whole, and only the end mark is missing.
Test(corpus_bad, a_tar_cut_between_its_members)
{
    size_t size = 0;
    char *bytes = pack_texts("tar", "", 0, 20, &size);
    size_t end = size;
    while (bytes[end - 1] == '\0') {
        end--;
    }
    end = (end + 511) / 512 * 512;
    check_both(write_file("between.tar", bytes, end), GIDD_CORPUS_SKIPPED_DAMAGED, "end mark", 20);
    struct found *found = read_input(write_file("one.tar", bytes, end + 512), &strict); // one block of zeros will do
    check_texts(found, 20);
    release(found);
    size_t packed_size = 0;
    char *packed = fixture_compress("gz", bytes, end, &packed_size);
    check_both(write_file("between.tar.gz", packed, packed_size), GIDD_CORPUS_SKIPPED_DAMAGED, "end mark", 20);
    free(packed);
    free(bytes);
}

// libarchive 3.6 does not compare gzip's checksum.
Test(corpus_bad, a_gzip_with_another_checksum)
{
    size_t size = 0;
    char *bytes = pack_texts("tar", "gz", 0, 20, &size);
    bytes[size - 6] ^= 1; // of the CRC-32
    check_both(write_file("crc.tar.gz", bytes, size), GIDD_CORPUS_SKIPPED_DAMAGED, "crc.tar.gz", 20);
    free(bytes);
    bytes = fixture_compress("gz", "one text", 8, &size);
    bytes[size - 2] ^= 1; // of the length
    check_both(write_file("length.txt.gz", bytes, size), GIDD_CORPUS_SKIPPED_DAMAGED, "length.txt.gz", 0);
    free(bytes);
}

Test(corpus_bad, gzip_of_several_members_and_padding)
{
    size_t first = 0, second = 0;
    char *a = fixture_compress("gz", "one ", 4, &first), *b = fixture_compress("gz", "text", 4, &second);
    char *both = calloc(1, first + second + 100);
    memcpy(both, a, first);
    memcpy(both + first, b, second);
    struct found *found = read_input(write_file("both.txt.gz", both, first + second + 100), &strict);
    cr_assert_eq(found->count, 1);
    check_document(found, 0, "one text", 8);
    release(found);
    both[first + second + 50] = 'x';
    check_both(write_file("tail.txt.gz", both, first + second + 100), GIDD_CORPUS_SKIPPED_DAMAGED, "follows the end", 0);
    free(both);
    free(a);
    free(b);
}

Test(corpus_bad, truncated_files_and_members)
{
    static const char *const filters[] = {"gz", "xz", "zst"};
    size_t text_size = 0, size = 0;
    char *text = fixture_text(77, &text_size);
    for (int f = 0; f < 3; f++) {
        char name[32];
        char *packed = fixture_compress(filters[f], text, text_size, &size);
        (void)snprintf(name, sizeof name, "d%d/t.txt.%s", f, filters[f]);
        for (size_t cut = 0; cut < size; cut += cut + 20 > size ? 1 : size / 7 + 1) { // every byte of the trailer
            check_both(write_file(name, packed, cut), GIDD_CORPUS_SKIPPED_DAMAGED, name + 3, 0);
        }
        free(packed);
    }
    free(text);
}

// An inner archive is damaged: what it gave before stays, and the archives around it are read to their ends.
Test(corpus_bad, a_damaged_archive_in_an_archive)
{
    static const char *const filters[] = {"gz", "xz", "zst"};
    for (int f = 0; f < 3; f++) {
        size_t size = 0, last = 0;
        fixture_archive *outer = fixture_archive_new("tar", "xz");
        char name[32];
        char *good = pack_texts("tar", filters[f], 0, 30, &size), *cut = pack_texts("tar", filters[f], 30, 30, &last);
        (void)snprintf(name, sizeof name, "b.tar.%s", filters[f]);
        fixture_archive_add(outer, "a.txt.xz", 'f', "this is no xz", 13);
        fixture_archive_add(outer, name, 'f', cut, last / 2);
        fixture_archive_add(outer, "c.tar.xz", 'f', good, size);
        char *bytes = fixture_archive_end(outer, &size);
        const char *path = write_file("outer.tar.xz", bytes, size);
        check_refused(path, "a.txt.xz");
        struct found *found = read_input(path, &plain);
        cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_DAMAGED], 2);
        cr_assert_geq(found->count, 30);
        for (int i = 0; i < found->count; i++) { // 30, 31, ... as far as they came, then 0 .. 29
            size_t text_size = 0;
            int number = i < found->count - 30 ? 30 + i : i - (found->count - 30);
            char *text = fixture_text(number, &text_size);
            check_document(found, i, text, text_size);
            free(text);
        }
        release(found);
        free(bytes);
        free(good);
        free(cut);
    }
}

// Damage to the outer archive inside a member that is opened on the way counts once, for the outer one.
Test(corpus_bad, an_archive_cut_inside_a_nested_one)
{
    size_t size = 0;
    char *inner = pack_texts("tar", "", 0, 30, &size);
    fixture_archive *outer = fixture_archive_new("tar", "");
    fixture_archive_add(outer, "inner.tar", 'f', inner, size);
    free(inner);
    char *bytes = fixture_archive_end(outer, &size);
    check_both(write_file("outer.tar", bytes, size / 2), GIDD_CORPUS_SKIPPED_DAMAGED, "outer.tar", -1);
    free(bytes);
}

Test(corpus_bad, names_that_lie)
{
    check_both(write_string("fake.txt.gz", "plain text"), GIDD_CORPUS_SKIPPED_DAMAGED, "fake.txt.gz", 0);
    check_both(write_string("fake.tar", "plain text that is no archive"), GIDD_CORPUS_SKIPPED_DAMAGED, "fake.tar", 0);
    check_both(write_string("nothing.tar", ""), GIDD_CORPUS_SKIPPED_DAMAGED, "nothing.tar", 0);
    check_both(write_string("nothing.zip", ""), GIDD_CORPUS_SKIPPED_DAMAGED, "nothing.zip", 0);
}

/* ------------------------------------------------------------------ too large */

Test(corpus_bad, bombs)
{
    size_t size = 0, twice_size = 0, room = (size_t)140 << 20; // bombs are called so from 128 MiB on
    char *zeros = calloc(1, room);
    char *once = fixture_compress("xz", zeros, room, &size);
    free(zeros);
    // A text stops at the limit of documents; a stream of lines at the ratio, as does a skipped member.
    struct found *found = check_skipped(write_file("bomb.txt.xz", once, size), GIDD_CORPUS_SKIPPED_TOO_LARGE);
    cr_assert_eq(found->count, 0);
    release(found);
    const char *path = write_file("bomb.jsonl.xz", once, size);
    check_refused(path, "bomb.jsonl.xz");
    found = read_input(path, &plain);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_BOMB], 1);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_TOO_LARGE], 1); // the line that it is, as far as it was followed
    release(found);
    char *twice = fixture_compress("gz", once, size, &twice_size);
    check_both(write_file("twice.txt.gz", twice, twice_size), GIDD_CORPUS_SKIPPED_DAMAGED, "more than once", 0);
    free(twice);
    free(once);
    zeros = calloc(1, room);
    fixture_archive *tar = fixture_archive_new("tar", "xz");
    fixture_archive_add(tar, "skipped.bin", 'f', zeros, room);
    fixture_archive_add(tar, "a.txt", 'f', "a", 1);
    free(zeros);
    char *bytes = fixture_archive_end(tar, &size);
    path = write_file("bomb.tar.xz", bytes, size);
    check_refused(path, "1000 times");
    found = read_input(path, &plain);
    cr_assert_eq(found->counts.of[GIDD_CORPUS_SKIPPED_BOMB], 1);
    release(found);
    free(bytes);
}

// Far below the ratio of a bomb, and still more text than a part may become: memory is bounded by that, not by what a
// member says of itself. The rest of the part is kept.
Test(corpus_bad, members_that_make_a_part_too_large)
{
    enum { TEXT_BYTES = 48 << 20, TEXTS = 7 };
    size_t inner_size = 0, size = 0;
    char *text = malloc(TEXT_BYTES);
    for (size_t i = 0; i < TEXT_BYTES; i++) {
        text[i] = (char)('a' + i * 2654435761u % 26 * (i % 97 != 0));
    }
    fixture_archive *inner = fixture_archive_new("tar", "gz");
    for (int i = 0; i < TEXTS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%d.txt", i);
        fixture_archive_add(inner, name, 'f', text, TEXT_BYTES);
    }
    char *packed = fixture_archive_end(inner, &inner_size);
    fixture_archive *outer = fixture_archive_new("tar", "");
    fixture_archive_add(outer, "large.tar.gz", 'f', packed, inner_size);
    fixture_archive_add(outer, "small.txt", 'f', "small", 5);
    char *bytes = fixture_archive_end(outer, &size);
    const char *path = write_file("outer.tar", bytes, size);
    check_refused(path, "256 MiB");
    struct found *found = check_skipped(path, GIDD_CORPUS_SKIPPED_BOMB);
    cr_assert_eq(found->count, 6); // five times 48 MiB fit, and the text beside them
    check_document(found, 5, "small", 5);
    release(found);
    free(bytes);
    free(packed);
    free(text);
}

/* ------------------------------------------------------------------ texts */

// What looks wrong in a text is the text: its bytes are kept.
Test(corpus_bad, bytes_that_are_kept)
{
    static const struct {
        const char *name, *bytes;
        size_t size;
    } texts[] = {{"a.txt", "x", 1},
                 {"b.txt", "\0a\0", 3},
                 {"c.txt", "a\r\nb\r\n", 6},
                 {"d.txt", "\xFF\xFE\x80 \xC3\x28 \xED\xA0\x80", 10},
                 {"e.txt", "\xEF\xBB\xBF"
                           "bom",
                  6},
                 {"f.txt", "\n", 1}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "d/%s", texts[i].name);
        write_file(name, texts[i].bytes, texts[i].size);
    }
    write_file("d/g.txt", "", 0);
    struct found *found = check_skipped(fixture_path(folder, "d"), GIDD_CORPUS_SKIPPED_EMPTY);
    cr_assert_eq(found->count, 6);
    for (int i = 0; i < 6; i++) {
        check_document(found, i, texts[i].bytes, texts[i].size);
    }
    release(found);
    found = read_input(fixture_path(folder, "d"), &strict); // an empty text is no fault
    cr_assert_eq(found->count, 6);
    release(found);
}

Test(corpus_bad, lines_that_are_skipped)
{
    static const struct {
        const char *line;
        gidd_corpus_counter why;
    } lines[] = {
        {"no json", GIDD_CORPUS_SKIPPED_JSON},
        {"[\"text\"]", GIDD_CORPUS_SKIPPED_JSON},
        {"{\"text\": \"cut", GIDD_CORPUS_SKIPPED_JSON},
        {"{\"text\": \"a\"} b", GIDD_CORPUS_SKIPPED_JSON},
        {"{\"text\": \"\xFF\"}", GIDD_CORPUS_SKIPPED_JSON},        // no UTF-8: no JSON
        {"{\"text\": \"\\ud800\"}", GIDD_CORPUS_SKIPPED_JSON},     // half a surrogate pair
        {"{\"txt\": \"a\"}", GIDD_CORPUS_SKIPPED_KEY},
        {"{\"text\": 1}", GIDD_CORPUS_SKIPPED_KEY},
        {"{\"text\": null}", GIDD_CORPUS_SKIPPED_KEY},
        {"{}", GIDD_CORPUS_SKIPPED_KEY},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[128];
        int size = snprintf(text, sizeof text, "{\"text\": \"before\"}\r\n%s\r\n{\"text\": \"a\\u0000b\"}\n", lines[i].line);
        const char *path = write_file("lines.jsonl", text, (size_t)size);
        struct found *found = check_skipped(path, lines[i].why);
        cr_assert_eq(found->count, 2, "%s", lines[i].line);
        check_document(found, 0, "before", 6);
        check_document(found, 1, "a\0b", 3);
        release(found);
        check_refused(path, gidd_corpus_counter_name(lines[i].why));
    }
}
