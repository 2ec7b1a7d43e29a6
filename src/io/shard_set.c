/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shard.h"

#include "io/shard_files.h"
#include "io/shard_hdf5.h"
#include "io/shard_index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { OPEN_FILES_MIN = 64, OTHER_FILES = 256, SETS = 4 };

struct shard_state {
    gidd_shard_file file;
    int64_t used_at;   // tick of the last use
    uint64_t *offsets; // [document_count + 1], NULL until first needed
};

struct gidd_shard_set {
    char *dir;
    gidd_shard_info info;
    gidd_shard_entry *entries;  // [shard_count]
    int64_t *first_document;    // [shard_count + 1]
    struct shard_state *shards; // [shard_count], guarded by the HDF5 lock, as the next two are
    int64_t open_count, open_max;
    int64_t tick;
};

static gidd_status stat_shard(const gidd_shard_set *set, int64_t s, char name[24], struct stat *facts)
{
    gidd_shard_name(s, name);
    char *path = gidd_path_join(set->dir, name);
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the name of shard %lld", (long long)s);
    }
    int failed = stat(path, facts) != 0;
    int reason = errno;
    free(path);
    return !failed ? GIDD_OK
                   : gidd_fail(reason == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "%s/%s: %s", set->dir, name,
                               strerror(reason));
}

static gidd_status check_sizes(const gidd_shard_set *set)
{
    for (int64_t s = 0; s < set->info.shard_count; s++) {
        char name[24];
        struct stat facts;
        GIDD_TRY(stat_shard(set, s, name, &facts));
        if (facts.st_size != set->entries[s].file_bytes) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s/%s has %lld bytes, the index says %lld",
                             set->dir, name, (long long)facts.st_size,
                             (long long)set->entries[s].file_bytes);
        }
    }
    return GIDD_OK;
}

gidd_status gidd_shard_set_stamp(const gidd_shard_set *set, gidd_digest *digest)
{
    for (int64_t s = 0; s < set->info.shard_count; s++) {
        char name[24], line[256];
        struct stat facts;
        GIDD_TRY(stat_shard(set, s, name, &facts));
        int used = snprintf(line, sizeof line, "%s %lld %lld.%09ld %lld.%09ld %llu\n", name, (long long)facts.st_size,
                            (long long)facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec, (long long)facts.st_ctim.tv_sec,
                            facts.st_ctim.tv_nsec, (unsigned long long)facts.st_ino);
        gidd_digest_update(digest, line, (size_t)used);
    }
    return GIDD_OK;
}

// How many shards may be open at once. Opening one costs half a millisecond, forty times a window, and windows go all
// over the data: so all of them, if the system lets this process have as many files. A process may raise its own limit
// as far as its hard limit; several sets (data.mix) and everything else must find room too.
static int64_t open_files_max(int64_t shard_count)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)(OTHER_FILES + SETS * shard_count);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return OPEN_FILES_MIN;
    }
    if (limit.rlim_cur < wanted && limit.rlim_cur < limit.rlim_max) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
        limit.rlim_cur = setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : before;
    }
    int64_t files = limit.rlim_cur >= wanted ? shard_count : ((int64_t)limit.rlim_cur - OTHER_FILES) / SETS;
    return files < OPEN_FILES_MIN ? OPEN_FILES_MIN : files;
}

static gidd_status prepare(gidd_shard_set *set)
{
    int64_t count = set->info.shard_count;
    set->open_max = open_files_max(count);
    set->first_document = calloc((size_t)count + 1, sizeof *set->first_document);
    set->shards = calloc((size_t)count, sizeof *set->shards);
    if (set->first_document == NULL || set->shards == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld shards", (long long)count);
    }
    for (int64_t s = 0; s < count; s++) {
        set->first_document[s + 1] = set->first_document[s] + set->entries[s].document_count;
        set->shards[s].file = GIDD_SHARD_FILE_CLOSED;
    }
    return check_sizes(set);
}

gidd_status gidd_shard_set_open(const char *dir, gidd_shard_set **set_p)
{
    gidd_status status = GIDD_OK;
    gidd_shard_set *set = calloc(1, sizeof *set);
    if (set == NULL || (set->dir = strdup(dir)) == NULL) {
        free(set);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", dir);
    }
    GIDD_TRY_GOTO(gidd_shard_index_read(dir, &set->info, &set->entries));
    GIDD_TRY_GOTO(prepare(set));
    *set_p = set;
    return GIDD_OK;
out:
    gidd_shard_set_close(set);
    return status;
}

void gidd_shard_set_close(gidd_shard_set *set)
{
    if (set == NULL) {
        return;
    }
    gidd_hdf5_lock();
    for (int64_t s = 0; set->shards != NULL && s < set->info.shard_count; s++) {
        gidd_shard_file_close(&set->shards[s].file);
        free(set->shards[s].offsets);
    }
    gidd_hdf5_unlock();
    free(set->shards);
    free(set->first_document);
    free(set->entries);
    free(set->dir);
    free(set);
}

const gidd_shard_info *gidd_shard_set_info(const gidd_shard_set *set)
{
    return &set->info;
}

const gidd_shard_entry *gidd_shard_set_entry(const gidd_shard_set *set, int64_t shard)
{
    GIDD_ASSERT(shard >= 0 && shard < set->info.shard_count);
    return &set->entries[shard];
}

// The shard that holds a document: the last one that starts at or before it and is not empty.
static int64_t find_shard(const gidd_shard_set *set, int64_t document)
{
    int64_t low = 0, high = set->info.shard_count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (set->first_document[middle] <= document) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static void close_oldest(gidd_shard_set *set)
{
    int64_t oldest = -1;
    for (int64_t s = 0; s < set->info.shard_count; s++) {
        if (set->shards[s].file.file >= 0 &&
            (oldest < 0 || set->shards[s].used_at < set->shards[oldest].used_at)) {
            oldest = s;
        }
    }
    gidd_shard_file_close(&set->shards[oldest].file);
    set->open_count--;
}

static gidd_status open_shard(gidd_shard_set *set, int64_t s, const char *name)
{
    struct shard_state *shard = &set->shards[s];
    const gidd_shard_entry *entry = &set->entries[s];
    shard->used_at = ++set->tick;
    if (shard->file.file >= 0) {
        return GIDD_OK;
    }
    if (set->open_count == set->open_max) {
        close_oldest(set);
    }
    char *path = gidd_path_join(set->dir, name);
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to open %s", name);
    }
    gidd_shard_file file = GIDD_SHARD_FILE_CLOSED;
    gidd_status status =
        gidd_shard_file_open(path, name, set->info.tokenizer_digest, set->info.vocab_size, &file);
    free(path);
    GIDD_TRY(status);
    if (file.document_count != entry->document_count || file.token_count != entry->token_count) {
        gidd_shard_file_close(&file);
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "%s holds other numbers of documents or tokens than the index", name);
    }
    shard->file = file;
    set->open_count++;
    return GIDD_OK;
}

static gidd_status load_offsets(gidd_shard_set *set, int64_t s, const char *name)
{
    if (set->shards[s].offsets != NULL) {
        return GIDD_OK;
    }
    GIDD_TRY(open_shard(set, s, name));
    // The count is bounded by the real size of the file (checked when the index was read).
    uint64_t *offsets = malloc(((size_t)set->entries[s].document_count + 1) * sizeof *offsets);
    if (offsets == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the offsets of %s", name);
    }
    gidd_status status = gidd_shard_file_offsets(&set->shards[s].file, name, offsets);
    if (status != GIDD_OK) {
        free(offsets);
        return status;
    }
    set->shards[s].offsets = offsets;
    return GIDD_OK;
}

// Where a document lies: shard, its name, first token and length. Under the lock.
struct place {
    int64_t shard;
    int64_t first;
    int64_t length;
    char name[24];
};

static gidd_status find_place(gidd_shard_set *set, int64_t document, struct place *place)
{
    if (document < 0 || document >= set->info.document_count) {
        return gidd_fail(GIDD_ERR_ARG, "document %lld of %lld", (long long)document,
                         (long long)set->info.document_count);
    }
    place->shard = find_shard(set, document);
    gidd_shard_name(place->shard, place->name);
    GIDD_TRY(load_offsets(set, place->shard, place->name));
    const uint64_t *offsets =
        set->shards[place->shard].offsets + (document - set->first_document[place->shard]);
    place->first = (int64_t)offsets[0];
    place->length = (int64_t)(offsets[1] - offsets[0]);
    return GIDD_OK;
}

gidd_status gidd_shard_set_length(gidd_shard_set *set, int64_t document, int64_t *tokens_p)
{
    struct place place = {0};
    gidd_hdf5_lock();
    gidd_status status = find_place(set, document, &place);
    gidd_hdf5_unlock();
    if (status == GIDD_OK) {
        *tokens_p = place.length;
    }
    return status;
}

static gidd_status read_window(gidd_shard_set *set, int64_t document, int64_t first, int64_t count,
                               uint16_t *ids)
{
    struct place place = {0};
    GIDD_TRY(find_place(set, document, &place));
    if (first < 0 || count < 0 || first > place.length || count > place.length - first) {
        return gidd_fail(GIDD_ERR_ARG, "%lld ids from %lld on of document %lld, which has %lld",
                         (long long)count, (long long)first, (long long)document,
                         (long long)place.length);
    }
    GIDD_TRY(open_shard(set, place.shard, place.name));
    if (gidd_shard_file_tokens(&set->shards[place.shard].file, place.name, place.first + first,
                               count, ids) != GIDD_OK) {
        gidd_error cause = *gidd_error_last();
        return gidd_fail(cause.code, "document %lld: %s", (long long)document, cause.text);
    }
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] >= set->info.vocab_size) {
            return gidd_fail(GIDD_ERR_CORRUPT,
                             "%s: document %lld has id %u at %lld, the vocabulary has %d",
                             place.name, (long long)document, ids[i], (long long)(first + i),
                             set->info.vocab_size);
        }
    }
    return GIDD_OK;
}

gidd_status gidd_shard_set_read(gidd_shard_set *set, int64_t document, int64_t first, int64_t count,
                                uint16_t *ids)
{
    gidd_hdf5_lock();
    gidd_status status = read_window(set, document, first, count, ids);
    gidd_hdf5_unlock();
    return status;
}

gidd_status gidd_shard_set_verify(gidd_shard_set *set, int64_t shard, gidd_ranges *damaged)
{
    char name[24];
    int64_t before = damaged != NULL ? damaged->count : 0;
    if (shard < 0 || shard >= set->info.shard_count) {
        return gidd_fail(GIDD_ERR_ARG, "shard %lld of %lld", (long long)shard,
                         (long long)set->info.shard_count);
    }
    gidd_shard_name(shard, name);
    char *path = gidd_path_join(set->dir, name);
    if (path == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to verify %s", name);
    }
    gidd_status status = gidd_shard_file_verify(path, &set->entries[shard],
                                                set->info.tokenizer_digest, set->info.vocab_size, damaged);
    free(path);
    for (int64_t i = before; damaged != NULL && i < damaged->count; i++) {
        damaged->at[i].first += set->first_document[shard];
        damaged->at[i].end += set->first_document[shard];
    }
    return status;
}
