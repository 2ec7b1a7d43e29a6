/* SPDX-License-Identifier: Apache-2.0 */
#include "disk_model.h"

#include "iofault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512, NAME_BYTES = 160, INODES = 4096, HANDLES = 8192, ENTRIES = 64 };

// One change of one file or directory.
typedef enum change_kind { CHANGE_WRITE, CHANGE_LENGTH, CHANGE_NAME } change_kind;

typedef struct change {
    change_kind kind;
    int64_t at; // position in the record
    int64_t offset, bytes;
    const char *data;
    int target;                            // inode that `name` stands for from now on; -1: for none
    char name[NAME_BYTES], old[NAME_BYTES]; // `old` goes in the same change: a rename
} change;

typedef struct sync_point {
    int64_t called, done; // positions
} sync_point;

typedef struct inode {
    int is_folder;
    change *changes;
    int64_t change_count, change_room;
    sync_point *syncs;
    int64_t sync_count, sync_room;
    int64_t sync_called; // of one that has not come back; -1
} inode;

typedef struct mark {
    int64_t at;
    char text[64];
} mark;

struct disk_model {
    char *log;
    size_t log_bytes;
    char root[1024];
    inode inodes[INODES]; // 0: root
    int inode_count;
    struct {
        int64_t handle;
        int inode;
    } handles[HANDLES];
    int handle_count;
    mark marks[256];
    int mark_count;
    int64_t operations;
};

/* ---- reading the record -------------------------------------------------------------------------- */

static change *add_change(inode *node, change_kind kind, int64_t at)
{
    if (node->change_count == node->change_room) {
        node->change_room = node->change_room * 2 + 8;
        node->changes = realloc(node->changes, (size_t)node->change_room * sizeof *node->changes);
        if (node->changes == NULL) {
            abort();
        }
    }
    change *new = &node->changes[node->change_count++];
    *new = (change){.kind = kind, .at = at, .target = -1};
    return new;
}

// The inode that a name stands for in a folder as the running program sees it; -1: none.
static int look_up(const disk_model *disk, int folder, const char *name)
{
    const inode *node = &disk->inodes[folder];
    for (int64_t i = node->change_count - 1; i >= 0; i--) {
        if (strcmp(node->changes[i].name, name) == 0) {
            return node->changes[i].target;
        }
        if (strcmp(node->changes[i].old, name) == 0) {
            return -1;
        }
    }
    return -1;
}

// Folder and last name of a path; -1 if a folder on the way is not there.
static int walk(const disk_model *disk, const char *path, char name[NAME_BYTES])
{
    size_t skip = strlen(disk->root);
    int folder = 0;
    if (strncmp(path, disk->root, skip) != 0) {
        return -1;
    }
    path += skip + strspn(path + skip, "/");
    for (;;) {
        size_t length = strcspn(path, "/");
        (void)snprintf(name, NAME_BYTES, "%.*s", (int)length, path);
        path += length + strspn(path + length, "/");
        if (*path == '\0') {
            return folder;
        }
        folder = look_up(disk, folder, name);
        if (folder < 0) {
            return -1;
        }
    }
}

static int resolve(const disk_model *disk, const char *path)
{
    char name[NAME_BYTES];
    int folder = walk(disk, path, name);
    return folder < 0 ? -1 : name[0] == '\0' ? folder : look_up(disk, folder, name);
}

static int new_inode(disk_model *disk, int is_folder)
{
    if (disk->inode_count == INODES) {
        return -1;
    }
    disk->inodes[disk->inode_count] = (inode){.is_folder = is_folder, .sync_called = -1};
    return disk->inode_count++;
}

static int set_name(disk_model *disk, const char *path, int target, int64_t at)
{
    char name[NAME_BYTES];
    int folder = walk(disk, path, name);
    if (folder < 0) {
        return -1;
    }
    change *new = add_change(&disk->inodes[folder], CHANGE_NAME, at);
    new->target = target;
    memcpy(new->name, name, sizeof name);
    return 0;
}

static int rename_path(disk_model *disk, const char *path, const char *other, int64_t at)
{
    char old[NAME_BYTES], name[NAME_BYTES];
    int from = walk(disk, path, old), to = walk(disk, other, name);
    if (from < 0 || from != to) { // between folders: nothing here does that
        return -1;
    }
    int target = look_up(disk, from, old);
    change *new = add_change(&disk->inodes[from], CHANGE_NAME, at);
    new->target = target;
    memcpy(new->name, name, sizeof name);
    memcpy(new->old, old, sizeof old);
    return target < 0 ? -1 : 0;
}

static int open_path(disk_model *disk, const iofault_record *r, const char *path, int64_t at)
{
    int node = resolve(disk, path);
    if (node < 0 && (r->size & O_CREAT)) {
        node = new_inode(disk, 0);
        if (node < 0 || set_name(disk, path, node, at) != 0) {
            return -1;
        }
    } else if (node >= 0 && (r->size & O_TRUNC) && !disk->inodes[node].is_folder) {
        add_change(&disk->inodes[node], CHANGE_LENGTH, at)->bytes = 0;
    }
    if (node < 0 || disk->handle_count == HANDLES) {
        return -1;
    }
    disk->handles[disk->handle_count].handle = r->handle;
    disk->handles[disk->handle_count++].inode = node;
    return 0;
}

static void sync_inode(inode *node, int done, int64_t at)
{
    if (!done) {
        node->sync_called = at;
        return;
    }
    if (node->sync_count == node->sync_room) {
        node->sync_room = node->sync_room * 2 + 8;
        node->syncs = realloc(node->syncs, (size_t)node->sync_room * sizeof *node->syncs);
        if (node->syncs == NULL) {
            abort();
        }
    }
    // of two at once, the one called last is taken for the one that came back: covers less
    node->syncs[node->sync_count++] = (sync_point){.called = node->sync_called, .done = at};
}

static int apply(disk_model *disk, const iofault_record *r, const char *path, const char *other,
                 const char *data, int64_t at)
{
    inode *node = NULL;
    for (int i = disk->handle_count - 1; i >= 0 && node == NULL && r->handle != 0; i--) {
        if (disk->handles[i].handle == r->handle) {
            node = &disk->inodes[disk->handles[i].inode];
        }
    }
    switch (r->kind) {
    case IOFAULT_OPEN:
        return open_path(disk, r, path, at);
    case IOFAULT_WRITE:
        if (node == NULL) {
            return -1;
        }
        change *write = add_change(node, CHANGE_WRITE, at);
        write->offset = r->offset, write->bytes = r->data_bytes, write->data = data;
        return 0;
    case IOFAULT_TRUNCATE:
        if (node == NULL) {
            return -1;
        }
        add_change(node, CHANGE_LENGTH, at)->bytes = r->size;
        return 0;
    case IOFAULT_SYNC:
        if (node == NULL) {
            return -1;
        }
        sync_inode(node, r->size == 1, at);
        return 0;
    case IOFAULT_RENAME:
        return rename_path(disk, path, other, at);
    case IOFAULT_UNLINK:
    case IOFAULT_RMDIR:
        return set_name(disk, path, -1, at);
    case IOFAULT_MKDIR:
        return set_name(disk, path, new_inode(disk, 1), at);
    case IOFAULT_MARK:
        disk->marks[disk->mark_count].at = at;
        (void)snprintf(disk->marks[disk->mark_count].text, 64, "%.63s", path);
        disk->mark_count += disk->mark_count < 255;
        return 0;
    default:
        return 0;
    }
}

static int read_record(disk_model *disk)
{
    const char *at = disk->log, *end = at + disk->log_bytes;
    while (end - at >= (ptrdiff_t)sizeof(iofault_record)) {
        iofault_record r;
        char path[4700], other[4700];
        memcpy(&r, at, sizeof r);
        at += sizeof r;
        if (r.path_bytes >= sizeof path || r.other_bytes >= sizeof other ||
            end - at < (ptrdiff_t)(r.path_bytes + r.other_bytes + (size_t)r.data_bytes)) {
            return -1;
        }
        (void)snprintf(path, sizeof path, "%.*s", (int)r.path_bytes, at);
        (void)snprintf(other, sizeof other, "%.*s", (int)r.other_bytes, at + r.path_bytes);
        at += r.path_bytes + r.other_bytes;
        if (apply(disk, &r, path, other, at, disk->operations++) != 0) {
            (void)fprintf(stderr, "record %" PRId64 " makes no sense: kind %u %s %s\n", disk->operations - 1, r.kind,
                          path, other);
            return -1;
        }
        at += r.data_bytes;
    }
    return at == end ? 0 : -1;
}

disk_model *disk_load(const char *log, const char *root)
{
    struct stat info;
    disk_model *disk = calloc(1, sizeof *disk);
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    if (disk == NULL || fd < 0 || fstat(fd, &info) != 0) {
        free(disk);
        return NULL;
    }
    disk->log_bytes = (size_t)info.st_size;
    disk->log = mmap(NULL, disk->log_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    (void)snprintf(disk->root, sizeof disk->root, "%s", root);
    (void)new_inode(disk, 1);
    if (disk->log == MAP_FAILED || read_record(disk) != 0) {
        disk->log = disk->log == MAP_FAILED ? NULL : disk->log;
        disk_free(disk);
        return NULL;
    }
    return disk;
}

void disk_free(disk_model *disk)
{
    if (disk != NULL) {
        for (int i = 0; i < disk->inode_count; i++) {
            free(disk->inodes[i].changes);
            free(disk->inodes[i].syncs);
        }
        if (disk->log != NULL) {
            (void)munmap(disk->log, disk->log_bytes);
        }
        free(disk);
    }
}

int64_t disk_operations(const disk_model *disk)
{
    return disk->operations;
}

int64_t disk_mark(const disk_model *disk, int64_t count, const char *word)
{
    int64_t step = 0;
    size_t length = strlen(word);
    for (int i = 0; i < disk->mark_count; i++) {
        if (disk->marks[i].at < count && strncmp(disk->marks[i].text, word, length) == 0) {
            step = atoll(disk->marks[i].text + length);
        }
    }
    return step;
}

/* ---- choosing a state ---------------------------------------------------------------------------- */

typedef struct choice {
    const disk_model *disk;
    int64_t count;
    disk_policy policy;
    uint64_t random;
    int64_t journal; // DISK_JOURNAL: names and lengths before this position are there
    const char *skip;
} choice;

static uint64_t draw(choice *c)
{
    uint64_t x = c->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static int is_synced(const inode *node, int64_t at, int64_t count)
{
    for (int64_t i = 0; i < node->sync_count; i++) {
        if (at < node->syncs[i].called && node->syncs[i].done < count) {
            return 1;
        }
    }
    return 0;
}

// Of an inode's changes before the cut: which are there? kept[i] for each.
static void choose(choice *c, const inode *node, char *kept)
{
    int64_t loose = 0;
    for (int64_t i = 0; i < node->change_count; i++) {
        kept[i] = node->changes[i].at < c->count && is_synced(node, node->changes[i].at, c->count);
        loose += node->changes[i].at < c->count && !kept[i];
    }
    int64_t prefix = (int64_t)(draw(c) % (uint64_t)(loose + 1));
    for (int64_t i = 0; i < node->change_count; i++) {
        const change *it = &node->changes[i];
        if (it->at >= c->count || kept[i]) {
            continue;
        }
        prefix--;
        switch (c->policy) {
        case DISK_EVERYTHING:
            kept[i] = 1;
            break;
        case DISK_PREFIXES:
            kept[i] = prefix >= 0;
            break;
        case DISK_TORN:
            kept[i] = it->kind == CHANGE_WRITE || prefix >= 0;
            break;
        case DISK_ANY:
            kept[i] = (char)(draw(c) & 1);
            break;
        case DISK_JOURNAL:
            kept[i] = it->kind == CHANGE_WRITE ? (char)(draw(c) & 1) : it->at < c->journal;
            break;
        default:
            break;
        }
    }
}

/* ---- building it --------------------------------------------------------------------------------- */

static int put(int fd, const char *data, int64_t bytes, int64_t offset)
{
    return pwrite(fd, data, (size_t)bytes, offset) == bytes ? 0 : -1;
}

// A write that was not synced: its sectors one by one, its end perhaps.
static int put_torn(choice *c, int fd, const change *it)
{
    uint64_t odds = draw(c) % 4; // 0: mostly lost ... 3: mostly there
    for (int64_t at = 0; at < it->bytes; at += SECTOR) {
        int64_t bytes = it->bytes - at < SECTOR ? it->bytes - at : SECTOR;
        if (draw(c) % 4 <= odds && put(fd, it->data + at, bytes, it->offset + at) != 0) {
            return -1;
        }
    }
    return 0;
}

static int build_file(choice *c, const inode *node, const char *path)
{
    char *kept = calloc((size_t)node->change_count + 1, 1);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), bad = fd < 0 || kept == NULL;
    if (!bad) {
        choose(c, node, kept);
    }
    for (int64_t i = 0; i < node->change_count && !bad; i++) {
        const change *it = &node->changes[i];
        if (!kept[i]) {
            continue;
        }
        if (it->kind == CHANGE_LENGTH) {
            bad = ftruncate(fd, it->bytes) != 0;
        } else if (c->policy == DISK_TORN && !is_synced(node, it->at, c->count)) {
            bad = put_torn(c, fd, it) != 0;
        } else {
            bad = put(fd, it->data, it->bytes, it->offset) != 0;
        }
    }
    free(kept);
    return fd < 0 || close(fd) != 0 || bad ? -1 : 0;
}

static int build_folder(choice *c, const inode *node, const char *path);

static int build(choice *c, int number, const char *path)
{
    const inode *node = &c->disk->inodes[number];
    return node->is_folder ? build_folder(c, node, path) : build_file(c, node, path);
}

static int build_folder(choice *c, const inode *node, const char *path)
{
    struct {
        const char *name;
        int target;
    } entries[ENTRIES];
    int count = 0, bad = 0;
    char *kept = calloc((size_t)node->change_count + 1, 1);
    if (kept == NULL || (mkdir(path, 0777) != 0 && errno != EEXIST)) {
        free(kept);
        return -1;
    }
    choose(c, node, kept);
    for (int64_t i = 0; i < node->change_count; i++) {
        const change *it = &node->changes[i];
        int known = 0, source = it->old[0] == '\0';
        for (int k = 0; k < count && kept[i]; k++) {
            if (it->old[0] != '\0' && strcmp(entries[k].name, it->old) == 0) {
                source |= entries[k].target == it->target; // what is to be renamed is there
                entries[k].target = -1;
            }
        }
        for (int k = 0; k < count && kept[i]; k++) {
            if (strcmp(entries[k].name, it->name) == 0) {
                entries[k].target = it->target;
                known = 1;
            }
        }
        // a journal renames what it knows; a name that was lost may still come as the rename's target
        if (kept[i] && !known && (source || (draw(c) & 1)) && count < ENTRIES) {
            entries[count].name = it->name;
            entries[count++].target = it->target;
        }
    }
    for (int k = 0; k < count && !bad; k++) {
        char below[2048];
        (void)snprintf(below, sizeof below, "%s/%s", path, entries[k].name);
        if (entries[k].target >= 0 && strcmp(entries[k].name, c->skip) != 0) {
            bad = build(c, entries[k].target, below);
        }
    }
    free(kept);
    return bad;
}

int disk_build(const disk_model *disk, int64_t count, disk_policy policy, uint64_t seed, const char *to,
               const char *skip)
{
    choice c = {.disk = disk, .count = count, .policy = policy, .random = seed, .skip = skip};
    c.journal = (int64_t)(draw(&c) % (uint64_t)(count + 1));
    return build(&c, 0, to);
}
