/* SPDX-License-Identifier: Apache-2.0
 *
 * More shards than files that may be open: the limit is raised as far as it may be, and beyond it shards take turns.
 */
#include "io/corpus_fixture.h"
#include "io/shard.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { SHARDS = 90 };

static char folder[256];

// Shard s has s % 3 documents (some have none) of the ids {s, number of the document}.
static int64_t make_set(void)
{
    char digest[GIDD_DIGEST_SIZE] = "";
    static gidd_shard_entry entries[SHARDS];
    int64_t documents = 0;
    memset(digest, '0', GIDD_DIGEST_SIZE - 1);
    fixture_folder(folder);
    for (int s = 0; s < SHARDS; s++) {
        gidd_shard_writer *writer = NULL;
        char name[24];
        gidd_shard_name(s, name);
        cr_assert(gidd_shard_writer_create(fixture_path(folder, name), digest, 1000, &writer) == GIDD_OK);
        for (int d = 0; d < s % 3; d++) {
            cr_assert(gidd_shard_writer_append(writer, (uint16_t[]){(uint16_t)s, (uint16_t)documents++}, 2) == GIDD_OK);
        }
        cr_assert(gidd_shard_writer_commit(writer, &entries[s]) == GIDD_OK);
        gidd_shard_writer_destroy(writer);
    }
    cr_assert(gidd_shard_index_write(folder, &(gidd_shard_index){.shard_count = SHARDS,
                                                                 .entries = entries,
                                                                 .valid_documents = 1,
                                                                 .vocab_size = 1000,
                                                                 .tokenizer_digest = digest}) == GIDD_OK);
    return documents;
}

static int open_files(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    cr_assert_not_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count - 3; // ".", ".." and the folder itself
}

// Reads all documents twice, going back and forth, and returns how many files that leaves open.
static int read_all(gidd_shard_set *set, int64_t documents)
{
    int before = open_files();
    for (int64_t i = 0; i < 2 * documents; i++) {
        uint16_t ids[2] = {0};
        int64_t d = i * 37 % documents;
        cr_assert(gidd_shard_set_read(set, d, 0, 2, ids) == GIDD_OK, "%s", gidd_error_last()->text);
        cr_assert_eq(ids[1], d);
        cr_assert_eq(ids[0] / 3 * 3 + (ids[0] % 3 == 1 ? 0 : ids[1] % 3), d, "document %d of shard %d", ids[1], ids[0]);
    }
    return open_files() - before;
}

Test(shard_many, all_stay_open_where_that_is_allowed, .fini = NULL)
{
    gidd_shard_set *set = NULL;
    int64_t documents = make_set();
    struct rlimit few = {.rlim_cur = 100, .rlim_max = 4096}, now;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    cr_assert(gidd_shard_set_open(folder, &set) == GIDD_OK);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &now), 0);
    cr_assert_gt(now.rlim_cur, 100);
    cr_assert_eq(read_all(set, documents), SHARDS * 2 / 3);
    gidd_shard_set_close(set);
    fixture_remove(folder);
}

Test(shard_many, they_take_turns_where_it_is_not)
{
    gidd_shard_set *set = NULL;
    int64_t documents = make_set();
    struct rlimit few = {.rlim_cur = 100, .rlim_max = 100};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    cr_assert(gidd_shard_set_open(folder, &set) == GIDD_OK);
    int open = read_all(set, documents);
    cr_assert(open <= 64 && open >= 32, "%d open", open);
    gidd_shard_set_close(set);
    fixture_remove(folder);
}
