/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_fixture.h"
#include "io/shard.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKENIZER "0123456789abcdef0123456789abcdef"

enum { VOCAB = 50257, DOCUMENTS = 300, SHARDS = 3 };

// HDF5 1.10 leaks where a damaged chunk makes a read fail; what is ours is looked for all the same.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static char folder[256];

static void make_folder(void)
{
    fixture_folder(folder);
}

static void remove_folder(void)
{
    fixture_remove(folder);
}

TestSuite(shard, .init = make_folder, .fini = remove_folder, .timeout = 60);

// Length and ids of a document are functions of its number; some are longer than a chunk.
static int64_t length_of(int64_t document)
{
    return document % 97 == 5 ? 40000 + document : 1 + (document * 37) % 500;
}

static uint16_t id_of(int64_t document, int64_t position)
{
    return (uint16_t)((uint64_t)(document * 7919 + position * 104729) % VOCAB);
}

static void write_shard(const char *path, int64_t first, int64_t count, gidd_shard_entry *entry)
{
    gidd_shard_writer *writer = NULL;
    uint16_t *ids = malloc(100000 * sizeof *ids);
    cr_assert_eq(gidd_shard_writer_create(path, TOKENIZER, VOCAB, &writer), GIDD_OK);
    for (int64_t d = first; d < first + count; d++) {
        for (int64_t i = 0; i < length_of(d); i++) {
            ids[i] = id_of(d, i);
        }
        cr_assert_eq(gidd_shard_writer_append(writer, ids, length_of(d)), GIDD_OK);
    }
    cr_assert_eq(gidd_shard_writer_commit(writer, entry), GIDD_OK, "%s", gidd_error_last()->text);
    gidd_shard_writer_destroy(writer);
    free(ids);
}

// Three shards; the middle one holds nothing.
static void write_set(const char *dir, int64_t valid)
{
    static const int64_t counts[SHARDS] = {DOCUMENTS / 3, 0, DOCUMENTS - DOCUMENTS / 3};
    gidd_shard_entry entries[SHARDS];
    int64_t first = 0;
    for (int64_t s = 0; s < SHARDS; s++) {
        char name[24];
        gidd_shard_name(s, name);
        write_shard(fixture_path(dir, name), first, counts[s], &entries[s]);
        first += counts[s];
    }
    gidd_shard_index index = {.shard_count = SHARDS,
                              .entries = entries,
                              .valid_documents = valid,
                              .vocab_size = VOCAB,
                              .tokenizer_digest = TOKENIZER,
                              .source_json = "{\"documents\": 300}"};
    cr_assert_eq(gidd_shard_index_write(dir, &index), GIDD_OK, "%s", gidd_error_last()->text);
}

static gidd_shard_set *open_set(const char *dir)
{
    gidd_shard_set *set = NULL;
    cr_assert_eq(gidd_shard_set_open(dir, &set), GIDD_OK, "%s", gidd_error_last()->text);
    return set;
}

static void check_window(gidd_shard_set *set, int64_t document, int64_t first, int64_t count)
{
    uint16_t *ids = malloc((size_t)(count + 1) * sizeof *ids);
    ids[count] = 0xABCD; // a canary
    cr_assert_eq(gidd_shard_set_read(set, document, first, count, ids), GIDD_OK, "%s",
                 gidd_error_last()->text);
    for (int64_t i = 0; i < count; i++) {
        cr_assert_eq(ids[i], id_of(document, first + i), "document %ld position %ld",
                     (long)document, (long)(first + i));
    }
    cr_assert_eq(ids[count], 0xABCD);
    free(ids);
}

static int count_files(const char *dir)
{
    int count = 0;
    DIR *stream = opendir(dir);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(stream);
    return count;
}

Test(shard, documents_come_back)
{
    write_set(folder, 10);
    gidd_shard_set *set = open_set(folder);
    const gidd_shard_info *info = gidd_shard_set_info(set);
    cr_assert_eq(info->document_count, DOCUMENTS);
    cr_assert_eq(info->shard_count, SHARDS);
    cr_assert_eq(info->valid_documents, 10);
    cr_assert_eq(info->vocab_size, VOCAB);
    cr_assert_str_eq(info->tokenizer_digest, TOKENIZER);
    int64_t tokens = 0;
    for (int64_t d = DOCUMENTS - 1; d >= 0; d--) {
        int64_t length = 0;
        cr_assert_eq(gidd_shard_set_length(set, d, &length), GIDD_OK);
        cr_assert_eq(length, length_of(d));
        check_window(set, d, 0, length);
        check_window(set, d, length / 3, length - length / 3);
        check_window(set, d, length, 0);
        tokens += length;
    }
    cr_assert_eq(info->token_count, tokens);
    for (int64_t s = 0; s < SHARDS; s++) {
        cr_assert_eq(gidd_shard_set_verify(set, s, NULL), GIDD_OK, "%s", gidd_error_last()->text);
    }
    gidd_shard_set_close(set);
}

Test(shard, windows_outside_a_document_are_refused)
{
    uint16_t ids[8];
    int64_t length = 0;
    write_set(folder, 0);
    gidd_shard_set *set = open_set(folder);
    cr_assert_eq(gidd_shard_set_read(set, 0, length_of(0), 1, ids), GIDD_ERR_ARG);
    cr_assert_eq(gidd_shard_set_read(set, 0, -1, 1, ids), GIDD_ERR_ARG);
    cr_assert_eq(gidd_shard_set_read(set, 0, 0, INT64_MAX, ids), GIDD_ERR_ARG);
    cr_assert_eq(gidd_shard_set_read(set, 0, 1, INT64_MAX, ids), GIDD_ERR_ARG);
    cr_assert_eq(gidd_shard_set_read(set, DOCUMENTS, 0, 1, ids), GIDD_ERR_ARG);
    cr_assert_eq(gidd_shard_set_length(set, -1, &length), GIDD_ERR_ARG);
    gidd_shard_set_close(set);
}

struct reader {
    gidd_shard_set *set;
    int seed;
    int wrong;
};

static void *read_randomly(void *context)
{
    struct reader *reader = context;
    uint64_t state = (uint64_t)reader->seed;
    uint16_t ids[64];
    for (int i = 0; i < 2000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        int64_t document = (int64_t)((state >> 33) % DOCUMENTS);
        int64_t count = length_of(document) < 64 ? length_of(document) : 64;
        int64_t first = (int64_t)((state >> 20) % (uint64_t)(length_of(document) - count + 1));
        reader->wrong += gidd_shard_set_read(reader->set, document, first, count, ids) != GIDD_OK;
        for (int64_t k = 0; k < count; k++) {
            reader->wrong += ids[k] != id_of(document, first + k);
        }
    }
    return NULL;
}

Test(shard, threads_may_read_at_once)
{
    pthread_t threads[4];
    struct reader readers[4];
    write_set(folder, 0);
    gidd_shard_set *set = open_set(folder);
    for (int t = 0; t < 4; t++) {
        readers[t] = (struct reader){.set = set, .seed = t + 1};
        cr_assert_eq(pthread_create(&threads[t], NULL, read_randomly, &readers[t]), 0);
    }
    for (int t = 0; t < 4; t++) {
        pthread_join(threads[t], NULL);
        cr_assert_eq(readers[t].wrong, 0);
    }
    gidd_shard_set_close(set);
}

Test(shard, bytes_depend_on_the_documents_alone)
{
    gidd_shard_entry a, b;
    size_t size_a = 0, size_b = 0;
    const char *first = fixture_path(folder, "a.h5"),
               *second = fixture_path(folder, "other-name.h5");
    write_shard(first, 0, 50, &a);
    sleep(1); // a stored time would differ
    write_shard(second, 0, 50, &b);
    char *bytes_a = fixture_read(first, &size_a), *bytes_b = fixture_read(second, &size_b);
    cr_assert_eq(size_a, size_b);
    cr_assert_eq(memcmp(bytes_a, bytes_b, size_a), 0);
    cr_assert_str_eq(a.digest, b.digest);
    cr_assert_str_eq(a.file_digest, b.file_digest);
    free(bytes_a);
    free(bytes_b);
}

Test(shard, nothing_is_left_without_a_commit)
{
    gidd_shard_writer *writer = NULL;
    uint16_t good = VOCAB - 1, bad = VOCAB;
    cr_assert_eq(gidd_shard_writer_create(fixture_path(folder, "x.h5"), TOKENIZER, VOCAB, &writer),
                 GIDD_OK);
    cr_assert_eq(gidd_shard_writer_append(writer, &good, 1), GIDD_OK);
    cr_assert_eq(gidd_shard_writer_append(writer, &bad, 1), GIDD_ERR_ARG);
    cr_assert_eq(gidd_shard_writer_append(writer, &good, 0), GIDD_ERR_ARG);
    gidd_shard_writer_destroy(writer);
    cr_assert_eq(count_files(folder), 0);
    cr_assert_eq(
        gidd_shard_writer_create(fixture_path(folder, "no/x.h5"), TOKENIZER, VOCAB, &writer),
        GIDD_ERR_OUTPUT);
}

// HDF5 reports a chunk that does not fit only when the dataset is closed, if at all.
Test(shard, a_full_disk_is_noticed)
{
    signal(SIGXFSZ, SIG_IGN);
    gidd_shard_entry entry;
    write_shard(fixture_path(folder, "whole.h5"), 0, 40, &entry);
    for (int64_t limit = 1000; limit < entry.file_bytes; limit += entry.file_bytes / 23) {
        struct rlimit old, room;
        gidd_shard_writer *writer = NULL;
        gidd_status status = GIDD_OK;
        cr_assert_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
        room = (struct rlimit){.rlim_cur = (rlim_t)limit, .rlim_max = old.rlim_max};
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &room), 0);
        status =
            gidd_shard_writer_create(fixture_path(folder, "cut.h5"), TOKENIZER, VOCAB, &writer);
        for (int64_t d = 0; status == GIDD_OK && d < 40; d++) {
            uint16_t *ids = malloc((size_t)length_of(d) * sizeof *ids);
            for (int64_t i = 0; i < length_of(d); i++) {
                ids[i] = id_of(d, i);
            }
            status = gidd_shard_writer_append(writer, ids, length_of(d));
            free(ids);
        }
        if (status == GIDD_OK) {
            status = gidd_shard_writer_commit(writer, &entry);
        }
        gidd_shard_writer_destroy(writer);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
        cr_assert(status == GIDD_ERR_IO || status == GIDD_ERR_OUTPUT || status == GIDD_ERR_CORRUPT,
                  "limit %ld: %s", (long)limit, gidd_status_name(status));
        cr_assert_eq(count_files(folder), 1, "limit %ld leaves files", (long)limit);
    }
}

static gidd_status verify_all(void)
{
    gidd_shard_set *set = NULL;
    gidd_status status = gidd_shard_set_open(folder, &set);
    for (int64_t s = 0; status == GIDD_OK && s < SHARDS; s++) {
        status = gidd_shard_set_verify(set, s, NULL);
    }
    gidd_shard_set_close(set);
    return status;
}

// Whatever a damaged file gives: the right ids, or an error; never other ids in silence.
static void read_all(void)
{
    gidd_shard_set *set = NULL;
    static uint16_t ids[100000];
    if (gidd_shard_set_open(folder, &set) != GIDD_OK) {
        return;
    }
    for (int64_t d = 0; d < DOCUMENTS; d++) {
        int64_t length = 0;
        if (gidd_shard_set_length(set, d, &length) != GIDD_OK) {
            continue;
        }
        cr_assert_eq(length, length_of(d));
        if (gidd_shard_set_read(set, d, 0, length, ids) == GIDD_OK) {
            for (int64_t i = 0; i < length; i++) {
                cr_assert_eq(ids[i], id_of(d, i));
            }
        }
    }
    gidd_shard_set_close(set);
}

Test(shard, every_flipped_byte_is_found)
{
    size_t size = 0;
    write_set(folder, 5);
    const char *path = fixture_path(folder, "shard-00000.h5");
    char *copy = strdup(path);
    char *bytes = fixture_read(copy, &size);
    // All of the head, where the metadata lies, then every 997th byte; the tail too.
    for (size_t at = 0; at < size; at += at < 2048 || at + 600 > size ? 7 : 997) {
        char kept = bytes[at];
        bytes[at] = (char)(kept ^ (1 << (at % 8)));
        fixture_write(copy, bytes, size);
        cr_assert_eq(verify_all(), GIDD_ERR_CORRUPT, "byte %zu", at);
        cr_assert_not_null(strstr(gidd_error_last()->text, "shard-00000.h5"), "byte %zu: %s", at,
                           gidd_error_last()->text);
        if (at % 5 == 0) {
            read_all();
        }
        bytes[at] = kept;
    }
    fixture_write(copy, bytes, size);
    cr_assert_eq(verify_all(), GIDD_OK);
    free(bytes);
    free(copy);
}

// One chunk of shard 2 is damaged, in the ids of `document`: what is to be left out is what has ids in that chunk, the
// failure without a list names the same documents, and an intact shard adds nothing.
static void check_damaged_documents(gidd_shard_set *set, int64_t document)
{
    enum { CHUNK = 16384 };
    gidd_ranges damaged = {0};
    char expected[128];
    int64_t before = DOCUMENTS / 3, start = 0, first = -1, end = -1;
    for (int64_t d = before; d < document; d++) {
        start += length_of(d);
    }
    int64_t chunk = start / CHUNK, at = 0;
    for (int64_t d = before; d < DOCUMENTS; at += length_of(d++)) {
        int touches = at < (chunk + 1) * CHUNK && at + length_of(d) > chunk * CHUNK;
        first = touches && first < 0 ? d : first;
        end = touches ? d + 1 : end;
    }
    cr_assert_eq(gidd_shard_set_verify(set, 2, NULL), GIDD_ERR_CORRUPT);
    (void)snprintf(expected, sizeof expected, "chunk %ld of dataset tokens, with ids of documents %ld to %ld", (long)chunk,
                   (long)(first - before), (long)(end - 1 - before));
    cr_assert_not_null(strstr(gidd_error_last()->text, expected), "%s: not '%s'", gidd_error_last()->text, expected);
    for (int64_t s = 0; s < SHARDS; s++) {
        cr_assert_eq(gidd_shard_set_verify(set, s, &damaged), GIDD_OK, "%s", gidd_error_last()->text);
    }
    cr_assert_eq(damaged.count, 1);
    cr_assert(damaged.at[0].first == first && damaged.at[0].end == end, "%ld to %ld, not %ld to %ld", (long)damaged.at[0].first,
              (long)damaged.at[0].end, (long)first, (long)end);
    gidd_ranges_release(&damaged);
}

Test(shard, a_damaged_chunk_names_its_dataset)
{
    size_t size = 0;
    write_set(folder, 5);
    char *path = strdup(fixture_path(folder, "shard-00002.h5"));
    char *bytes = fixture_read(path, &size);
    uint16_t want[4];
    for (int i = 0; i < 4; i++) {
        want[i] = id_of(DOCUMENTS / 3 + 40, i);
    }
    char *found = memmem(bytes, size, want, sizeof want);
    cr_assert_not_null(found);
    found[3] ^= 0x10;
    fixture_write(path, bytes, size);
    cr_assert_eq(verify_all(), GIDD_ERR_CORRUPT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "shard-00002.h5: dataset tokens"), "%s",
                       gidd_error_last()->text);
    gidd_shard_set *set = open_set(folder);
    check_damaged_documents(set, DOCUMENTS / 3 + 40);
    uint16_t ids[4];
    cr_assert_eq(gidd_shard_set_read(set, DOCUMENTS / 3 + 40, 0, 4, ids), GIDD_ERR_CORRUPT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "document 140"), "%s",
                       gidd_error_last()->text);
    check_window(set, 3, 0, 4); // the others are as they were
    gidd_shard_set_close(set);
    free(bytes);
    free(path);
}

Test(shard, missing_short_and_swapped_shards_are_found)
{
    size_t size = 0, other_size = 0;
    write_set(folder, 5);
    char *path = strdup(fixture_path(folder, "shard-00000.h5"));
    char *bytes = fixture_read(path, &size);
    char *other = fixture_read(fixture_path(folder, "shard-00001.h5"), &other_size);
    fixture_write(path, bytes, size - 1);
    cr_assert_eq(verify_all(), GIDD_ERR_CORRUPT);
    fixture_write(path, bytes, size / 2);
    cr_assert_eq(verify_all(), GIDD_ERR_CORRUPT);
    fixture_write(path, other, other_size);
    cr_assert_eq(verify_all(), GIDD_ERR_CORRUPT);
    char *zeros = calloc(1, size);
    fixture_write(path, zeros, size); // a hole of the right size
    cr_assert_eq(verify_all(), GIDD_ERR_CORRUPT);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(verify_all(), GIDD_ERR_MISSING);
    cr_assert_eq(unlink(fixture_path(folder, "index.json")), 0);
    cr_assert_eq(verify_all(), GIDD_ERR_MISSING);
    free(zeros);
    free(bytes);
    free(other);
    free(path);
}

static char *replace(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    cr_assert_not_null(at, "%s", from);
    char *changed = malloc(strlen(text) + strlen(to) + 1);
    (void)sprintf(changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return changed;
}

Test(shard, an_index_that_breaks_its_rules_is_refused)
{
    static const char *const cases[][2] = {
        {"\"version\": 1", "\"version\": 2"},
        {"\"version\": 1", "\"version\": \"1\""},
        {"\"format\": \"gidd-shards\"", "\"format\": \"other\""},
        {"\"document_count\": 300", "\"document_count\": 301"},
        {"\"document_count\": 300", "\"document_count\": 9007199254740993"},
        {"\"document_count\": 300", "\"document_count\": -300"},
        {"\"document_count\": 300", "\"document_count\": 300, \"document_count\": 300"},
        {"\"document_count\": 300", "\"document_count\": 300, \"unknown\": 1"},
        {"\"valid_documents\": 5", "\"valid_documents\": 300"},
        {"\"vocab_size\": 50257", "\"vocab_size\": 65537"},
        {"\"vocab_size\": 50257", "\"vocab_size\": 0"},
        {"\"tokenizer_digest\": \"0123", "\"tokenizer_digest\": \"0x23"},
        {"\"tokenizer_digest\": \"0123", "\"tokenizer_digest\": \"1123"},
        {"\"file\": \"shard-00001.h5\"", "\"file\": \"../shard-00001.h5\""},
        {"\"documents\": 100", "\"documents\": 101"},
        {"\"documents\": 100", "\"documents\": 100000000"},
        {"\"shards\": [", "\"shards\": [[], "},
        {"\"shards\": [", "\"shard\": ["},
        {"}\n ],", "}\n ,"},
    };
    size_t size = 0;
    write_set(folder, 5);
    char *path = strdup(fixture_path(folder, "index.json"));
    char *text = fixture_read(path, &size);
    cr_assert_eq(verify_all(), GIDD_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replace(text, cases[i][0], cases[i][1]);
        gidd_shard_set *set = NULL;
        fixture_write(path, changed, strlen(changed));
        cr_assert_eq(gidd_shard_set_open(folder, &set), GIDD_ERR_CORRUPT, "%s", cases[i][1]);
        cr_assert_not_null(strstr(gidd_error_last()->text, "index.json"), "%s",
                           gidd_error_last()->text);
        free(changed);
    }
    for (size_t cut = 0; cut < size; cut += 41) {
        gidd_shard_set *set = NULL;
        fixture_write(path, text, cut);
        cr_assert_eq(gidd_shard_set_open(folder, &set), GIDD_ERR_CORRUPT, "cut at %zu", cut);
    }
    free(text);
    free(path);
}

Test(shard, the_split_must_leave_documents_to_train_on)
{
    gidd_shard_entry entry;
    write_shard(fixture_path(folder, "shard-00000.h5"), 0, 7, &entry);
    gidd_shard_index index = {.shard_count = 1,
                              .entries = &entry,
                              .valid_documents = 7,
                              .vocab_size = VOCAB,
                              .tokenizer_digest = TOKENIZER};
    cr_assert_eq(gidd_shard_index_write(folder, &index), GIDD_ERR_CORRUPT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "7 documents"), "%s",
                       gidd_error_last()->text);
    cr_assert_eq(count_files(folder), 1);
    index.valid_documents = 6;
    cr_assert_eq(gidd_shard_index_write(folder, &index), GIDD_OK);
}

Test(shard, identity_follows_the_contents_and_not_the_split)
{
    char digest[GIDD_DIGEST_SIZE];
    write_set(folder, 5);
    gidd_shard_set *set = open_set(folder);
    memcpy(digest, gidd_shard_set_info(set)->data_digest, sizeof digest);
    gidd_shard_set_close(set);
    write_set(folder, 6);
    set = open_set(folder);
    cr_assert_str_eq(digest, gidd_shard_set_info(set)->data_digest);
    gidd_shard_entry entries[SHARDS];
    for (int64_t s = 0; s < SHARDS; s++) {
        entries[s] = *gidd_shard_set_entry(set, s);
    }
    gidd_shard_set_close(set);
    write_shard(fixture_path(folder, "shard-00002.h5"), 101, 200, &entries[2]);
    gidd_shard_index index = {.shard_count = SHARDS,
                              .entries = entries,
                              .valid_documents = 5,
                              .vocab_size = VOCAB,
                              .tokenizer_digest = TOKENIZER};
    cr_assert_eq(gidd_shard_index_write(folder, &index), GIDD_OK);
    set = open_set(folder);
    cr_assert_str_neq(digest, gidd_shard_set_info(set)->data_digest);
    gidd_shard_set_close(set);
}

// data/shard-v1 was written by the first version of the format: it must stay readable for ever. To
// make it: write_shard with documents 0 .. 3, write_set's index; only a new format version may
// replace it.
Test(shard, the_first_version_stays_readable)
{
    gidd_shard_set *set = open_set(GIDD_TEST_DATA "/data/shard-v1");
    cr_assert_eq(gidd_shard_set_info(set)->document_count, 4);
    cr_assert_eq(gidd_shard_set_info(set)->valid_documents, 1);
    cr_assert_str_eq(gidd_shard_set_info(set)->data_digest, "ed39fb7c1892de9565dd7ac59d6f2786");
    cr_assert_str_eq(gidd_shard_set_entry(set, 0)->digest, "ebbace7a9a45f56e8c1052a50f20ff5b");
    cr_assert_eq(gidd_shard_set_verify(set, 0, NULL), GIDD_OK, "%s", gidd_error_last()->text);
    for (int64_t d = 0; d < 4; d++) {
        check_window(set, d, 0, length_of(d));
    }
    gidd_shard_set_close(set);
}
