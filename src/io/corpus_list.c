/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_list.h"

#include "io/shard_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDER_DEPTH_MAX = 64 };

void gidd_corpus_list_release(gidd_corpus_list *list)
{
    free(list->files);
    free(list->names);
    *list = (gidd_corpus_list){0};
}

char *gidd_corpus_list_path(const gidd_corpus_list *list, int64_t index)
{
    const gidd_corpus_file *file = &list->files[index];
    const char *name = list->names + file->name;
    return file->root < 0 ? strdup(name) : gidd_path_join(list->inputs[file->root], name);
}

static gidd_status add_file(gidd_corpus_list *list, const char *name, gidd_corpus_file file)
{
    size_t length = strlen(name) + 1;
    if (list->count == list->room) {
        int64_t room = list->room == 0 ? 256 : list->room * 2;
        gidd_corpus_file *grown = realloc(list->files, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory to list %lld files", (long long)room);
        }
        list->files = grown;
        list->room = room;
    }
    if (list->names_room - list->names_used < length) {
        size_t room = list->names_room * 2 + length;
        char *grown = realloc(list->names, room);
        if (grown == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory to list %lld files", (long long)list->room);
        }
        list->names = grown;
        list->names_room = room;
    }
    file.name = list->names_used;
    memcpy(list->names + list->names_used, name, length);
    list->names_used += length;
    list->files[list->count++] = file;
    list->total_bytes += file.size;
    return GIDD_OK;
}

/* ------------------------------------------------------------------ folders */

struct folder_walk {
    gidd_corpus_list *list;
    const gidd_corpus_options *options;
    int32_t root;
    char path[4096]; // below the root
};

static gidd_status walk_folder(struct folder_walk *walk, int fd, size_t used, int depth);

static gidd_status take_entry(struct folder_walk *walk, int folder, const char *name, size_t used,
                              int depth)
{
    struct stat facts;
    const char *input = walk->list->inputs[walk->root];
    size_t length = strlen(name);
    if (used + length + 2 > sizeof walk->path) {
        return gidd_fail(GIDD_ERR_IO, "%s/%s/%s: the path is too long", input, walk->path, name);
    }
    memcpy(walk->path + used, name, length + 1);
    if (fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW) != 0) {
        return gidd_fail(GIDD_ERR_IO, "%s/%s: %s", input, walk->path, strerror(errno));
    }
    if (S_ISDIR(facts.st_mode)) {
        int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || depth == FOLDER_DEPTH_MAX) {
            int reason = fd < 0 ? errno : ELOOP;
            if (fd >= 0) {
                (void)close(fd);
            }
            return gidd_fail(GIDD_ERR_IO, "%s/%s: %s", input, walk->path, strerror(reason));
        }
        memcpy(walk->path + used + length, "/", 2);
        return walk_folder(walk, fd, used + length + 1, depth + 1);
    }
    if (!gidd_corpus_listed(name, walk->options->suffixes)) {
        walk->list->counts.of[GIDD_CORPUS_SKIPPED_SUFFIX]++;
        return GIDD_OK;
    }
    if (!S_ISREG(facts.st_mode)) {
        return gidd_corpus_skip(walk->options, &walk->list->counts, GIDD_CORPUS_SKIPPED_LINK, input,
                                walk->path);
    }
    gidd_corpus_file file = {.size = facts.st_size,
                             .root = walk->root,
                             .bare = GIDD_CORPUS_OTHER,
                             .type = gidd_corpus_type_of(name, walk->options->suffixes)};
    return add_file(walk->list, walk->path, file);
}

// Takes over fd.
static gidd_status walk_folder(struct folder_walk *walk, int fd, size_t used, int depth)
{
    gidd_status status = GIDD_OK;
    DIR *folder = fdopendir(fd);
    if (folder == NULL) {
        (void)close(fd);
        return gidd_fail(GIDD_ERR_IO, "%s/%s: %s", walk->list->inputs[walk->root], walk->path,
                         strerror(errno));
    }
    errno = 0;
    for (struct dirent *entry; status == GIDD_OK && (entry = readdir(folder)) != NULL; errno = 0) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            status = take_entry(walk, fd, entry->d_name, used, depth);
        }
    }
    if (status == GIDD_OK && errno != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot list %s/%s: %s", walk->list->inputs[walk->root],
                           walk->path, strerror(errno));
    }
    (void)closedir(folder);
    return status;
}

static int compare_names(const void *left, const void *right, void *names)
{
    const gidd_corpus_file *a = left, *b = right;
    return strcmp((const char *)names + a->name, (const char *)names + b->name);
}

static gidd_status add_folder(gidd_corpus_list *list, int32_t root,
                              const gidd_corpus_options *options)
{
    struct folder_walk *walk = calloc(1, sizeof *walk);
    int64_t before = list->count;
    if (walk == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to list %s", list->inputs[root]);
    }
    *walk = (struct folder_walk){.list = list, .options = options, .root = root};
    int fd = open(list->inputs[root], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    gidd_status status =
        fd >= 0 ? walk_folder(walk, fd, 0, 0)
                : gidd_fail(GIDD_ERR_IO, "cannot open %s: %s", list->inputs[root], strerror(errno));
    free(walk);
    if (status == GIDD_OK && list->count > before) {
        qsort_r(list->files + before, (size_t)(list->count - before), sizeof *list->files,
                compare_names, list->names);
    }
    return status;
}

static gidd_status add_input(gidd_corpus_list *list, int32_t index,
                             const gidd_corpus_options *options)
{
    struct stat facts;
    const char *input = list->inputs[index];
    if (stat(input, &facts) != 0) {
        return gidd_fail(errno == ENOENT || errno == ENOTDIR ? GIDD_ERR_MISSING : GIDD_ERR_IO,
                         "input %s: %s", input, strerror(errno));
    }
    if (S_ISDIR(facts.st_mode)) {
        return add_folder(list, index, options);
    }
    if (!S_ISREG(facts.st_mode)) {
        return gidd_fail(GIDD_ERR_MISSING, "input %s is neither a file nor a folder", input);
    }
    const char *slash = strrchr(input, '/');
    gidd_corpus_file file = {.size = facts.st_size, .root = -1, .bare = GIDD_CORPUS_TEXT};
    file.type = gidd_corpus_type_of(slash != NULL ? slash + 1 : input, options->suffixes);
    if (file.type.kind == GIDD_CORPUS_OTHER) {
        file.type.kind = GIDD_CORPUS_TEXT; // named on purpose
    }
    return add_file(list, input, file);
}

gidd_status gidd_corpus_list_build(gidd_corpus_list *list, const char *const *inputs,
                                   int64_t input_count, const gidd_corpus_options *options)
{
    list->inputs = inputs;
    if (input_count < 1 || input_count > INT32_MAX) {
        return gidd_fail(GIDD_ERR_MISSING, "no input to take text from");
    }
    for (int64_t i = 0; i < input_count; i++) {
        GIDD_TRY(add_input(list, (int32_t)i, options));
    }
    if (list->count == 0) {
        return gidd_fail(
            GIDD_ERR_CORRUPT,
            "no text in %s%s: of %lld files none ends in one of \"%s\" (data.suffixes)", inputs[0],
            input_count > 1 ? " and the other inputs" : "",
            (long long)list->counts.of[GIDD_CORPUS_SKIPPED_SUFFIX], options->suffixes);
    }
    return GIDD_OK;
}
