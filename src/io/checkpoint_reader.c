/* SPDX-License-Identifier: Apache-2.0 */
#include "io/checkpoint.h"

#include "base/fault.h"
#include "base/log.h"
#include "comm/file.h"
#include "io/checkpoint_dir.h"
#include "io/checkpoint_manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct gidd_checkpoint {
    char *path;
    gidd_manifest manifest;
    gidd_file *file;
    char *block; // one block of state.bin
};

/* ---- opening ----------------------------------------------------------------------------------
 */

// A whole small file in fresh memory.
static gidd_status read_text(const char *path, char **text_p, size_t *bytes_p)
{
    struct stat info;
    char *text = NULL;
    size_t done = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s",
                         path, strerror(errno));
    }
    gidd_status status = GIDD_OK;
    if (fstat(fd, &info) != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode) || info.st_size > (off_t)1 << 28) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s is no file of at most 256 MiB", path);
    } else if ((text = malloc((size_t)info.st_size + 1)) == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for %s", path);
    }
    while (status == GIDD_OK && done < (size_t)info.st_size) {
        ssize_t got = read(fd, text + done, (size_t)info.st_size - done);
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            break;
        } else if (errno != EINTR) {
            status = gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        }
    }
    (void)close(fd);
    if (status != GIDD_OK) {
        free(text);
        return status;
    }
    *text_p = text;
    *bytes_p = done;
    return GIDD_OK;
}

// Whether the manifest is the one of a directory called `name`.
static gidd_status check_step(const gidd_manifest *manifest, const char *name)
{
    gidd_checkpoint_entry entry;
    const gidd_error before = *gidd_error_last();
    if (gidd_checkpoint_parse_name(name, &entry) != GIDD_OK) {
        gidd_error_restore(&before); // a copy under a name of the user's
        return GIDD_OK;
    }
    if (entry.step != manifest->fields.step) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s holds the manifest of step %lld", name,
                         (long long)manifest->fields.step);
    }
    return GIDD_OK;
}

static gidd_status open_state(gidd_checkpoint *checkpoint)
{
    int64_t bytes = 0, wanted = gidd_checkpoint_state_bytes(&checkpoint->manifest.layout);
    char *path = gidd_checkpoint_join(checkpoint->path, "state.bin");
    gidd_status status = path != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "out of memory");
    GIDD_TRY_GOTO(status);
    GIDD_TRY_GOTO(gidd_file_open(path, &checkpoint->file));
    GIDD_TRY_GOTO(gidd_file_size(checkpoint->file, &bytes));
    if (bytes != wanted) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s has %lld bytes, its manifest says %lld", path,
                           (long long)bytes, (long long)wanted);
    }
out:
    free(path);
    return status;
}

// A checkpoint out of its manifest's text. What is absent under a final name is damage.
static gidd_status open_with_text(const char *path, const char *text, size_t bytes,
                                  gidd_checkpoint **out_p)
{
    const char *name = strrchr(path, '/');
    gidd_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    gidd_status status = GIDD_OK;
    if (checkpoint == NULL || (checkpoint->path = strdup(path)) == NULL ||
        (checkpoint->block = malloc((size_t)GIDD_CHECKPOINT_BLOCK)) == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for checkpoint %s", path);
        goto out;
    }
    GIDD_TRY_GOTO(gidd_manifest_decode(text, bytes, &checkpoint->manifest));
    GIDD_TRY_GOTO(check_step(&checkpoint->manifest, name != NULL ? name + 1 : path));
    GIDD_TRY_GOTO(open_state(checkpoint));
    *out_p = checkpoint;
    return GIDD_OK;
out:
    gidd_checkpoint_close(checkpoint);
    return status == GIDD_ERR_MISSING ? GIDD_ERR_CORRUPT : status;
}

static gidd_status read_manifest(const char *path, char **text_p, size_t *bytes_p)
{
    char *file = gidd_checkpoint_join(path, "manifest.json");
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
    }
    gidd_status status = read_text(file, text_p, bytes_p);
    free(file);
    return status;
}

// The newest complete checkpoint of a run directory; GIDD_ERR_MISSING if there is none.
static gidd_status newest_path(const char *run_dir, char **path_p)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, i = 0;
    gidd_status status = GIDD_OK;
    GIDD_TRY(gidd_checkpoint_list(run_dir, &entries, &count));
    while (i < count && entries[i].kind != GIDD_CHECKPOINT_COMPLETE) {
        i++;
    }
    if (i == count) {
        status = gidd_fail(GIDD_ERR_MISSING, "no checkpoint in %s: neither its manifest.json nor checkpoints/step-N is there", run_dir);
    } else if (asprintf(path_p, "%s/checkpoints/%s", run_dir, entries[i].name) < 0) {
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
    }
    free(entries);
    return status;
}

gidd_status gidd_checkpoint_open(const char *path, gidd_checkpoint **out_p)
{
    char *folder = strdup(path), *text = NULL;
    size_t bytes = 0;
    gidd_status status = folder != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "out of memory");
    GIDD_TRY_GOTO(status);
    for (size_t end = strlen(folder); end > 1 && folder[end - 1] == '/'; end--) {
        folder[end - 1] = '\0';
    }
    status = read_manifest(folder, &text, &bytes);
    if (status == GIDD_ERR_MISSING) { // no step directory: a run directory, perhaps
        free(folder);
        folder = NULL;
        GIDD_TRY_GOTO(newest_path(path, &folder));
        status = read_manifest(folder, &text, &bytes);
    }
    if (status == GIDD_OK) {
        status = open_with_text(folder, text, bytes, out_p);
    }
out:
    free(text);
    free(folder);
    return status;
}

void gidd_checkpoint_close(gidd_checkpoint *checkpoint)
{
    if (checkpoint != NULL) {
        const gidd_error before = *gidd_error_last();
        if (gidd_file_close(&checkpoint->file) != GIDD_OK) {
            gidd_error_restore(&before); // it was only read
        }
        gidd_manifest_release(&checkpoint->manifest);
        free(checkpoint->path);
        free(checkpoint->block);
        free(checkpoint);
    }
}

const gidd_checkpoint_layout *gidd_checkpoint_layout_of(const gidd_checkpoint *checkpoint)
{
    return &checkpoint->manifest.layout;
}

const gidd_checkpoint_fields *gidd_checkpoint_fields_of(const gidd_checkpoint *checkpoint)
{
    return &checkpoint->manifest.fields;
}

const char *gidd_checkpoint_path_of(const gidd_checkpoint *checkpoint)
{
    return checkpoint->path;
}

/* ---- blocks -----------------------------------------------------------------------------------
 */

// Index of the tensor that holds flat element `element`.
static int64_t tensor_at(const gidd_checkpoint_layout *layout, int64_t element)
{
    int64_t low = 0, high = layout->tensor_count - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (layout->tensors[middle].offset <= element) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

void gidd_checkpoint_describe_block(const gidd_checkpoint *checkpoint, int64_t block, char *text,
                                    size_t capacity)
{
    const gidd_checkpoint_layout *layout = &checkpoint->manifest.layout;
    int64_t start = block * GIDD_CHECKPOINT_BLOCK;
    int section = (int)(start / gidd_checkpoint_section_offset(layout, 1));
    int64_t first =
        (start - gidd_checkpoint_section_offset(layout, section)) / (int64_t)sizeof(float);
    int64_t last = first + GIDD_CHECKPOINT_BLOCK / (int64_t)sizeof(float) - 1;
    last = last < layout->elements ? last : layout->elements - 1;
    (void)snprintf(text, capacity,
                   "block %lld (bytes %lld to %lld): section %s, elements %lld to %lld, tensors %s "
                   "to %s",
                   (long long)block, (long long)start, (long long)(start + GIDD_CHECKPOINT_BLOCK),
                   layout->sections[section], (long long)first, (long long)(last + 1),
                   layout->tensors[tensor_at(layout, first)].name,
                   layout->tensors[tensor_at(layout, last)].name);
}

// Reads a block into checkpoint->block and compares its checksum.
static gidd_status read_block(gidd_checkpoint *checkpoint, int64_t block)
{
    char digest[GIDD_DIGEST_SIZE], where[512];
    GIDD_TRY(gidd_file_read_at(checkpoint->file, block * GIDD_CHECKPOINT_BLOCK, checkpoint->block,
                               (size_t)GIDD_CHECKPOINT_BLOCK));
    gidd_digest_of(checkpoint->block, (size_t)GIDD_CHECKPOINT_BLOCK, digest);
    if (strcmp(digest, checkpoint->manifest.digests[block]) != 0) {
        gidd_checkpoint_describe_block(checkpoint, block, where, sizeof where);
        return gidd_fail(GIDD_ERR_CORRUPT, "%s/state.bin is damaged: %s", checkpoint->path, where);
    }
    return GIDD_OK;
}

gidd_status gidd_checkpoint_read(gidd_checkpoint *checkpoint, int section, int64_t first,
                                 int64_t count, float *values)
{
    const gidd_checkpoint_layout *layout = &checkpoint->manifest.layout;
    GIDD_ASSERT(section >= 0 && section < layout->section_count && first >= 0 && count >= 0 &&
                first <= layout->elements - count);
    int64_t at = gidd_checkpoint_section_offset(layout, section) + first * (int64_t)sizeof(float);
    int64_t end = at + count * (int64_t)sizeof(float);
    char *to = (char *)values;
    while (at < end) {
        int64_t block = at / GIDD_CHECKPOINT_BLOCK;
        int64_t stop = (block + 1) * GIDD_CHECKPOINT_BLOCK;
        stop = stop < end ? stop : end;
        GIDD_TRY(read_block(checkpoint, block));
        memcpy(to, checkpoint->block + at % GIDD_CHECKPOINT_BLOCK, (size_t)(stop - at));
        to += stop - at;
        at = stop;
    }
    return GIDD_OK;
}

gidd_status gidd_checkpoint_verify(gidd_checkpoint *checkpoint, int64_t first, int64_t count,
                                   unsigned char *damaged)
{
    GIDD_ASSERT(first >= 0 && count >= 0 && first <= checkpoint->manifest.block_count - count);
    for (int64_t i = 0; i < count; i++) {
        gidd_status status = read_block(checkpoint, first + i);
        damaged[i] = status == GIDD_ERR_CORRUPT;
        if (status != GIDD_ERR_CORRUPT) {
            GIDD_TRY(status);
        }
    }
    return GIDD_OK;
}

/* ---- restore ----------------------------------------------------------------------------------
 */

// The coordinator's reading of the manifest, given to all. Collective.
static gidd_status share_text(const gidd_checkpoint_restore_args *args, const char *path,
                              char **text_p, int64_t *bytes_p)
{
    int proposes = gidd_comm_rank(args->comm) == args->coordinator;
    char *text = NULL;
    size_t bytes = 0;
    gidd_status status = proposes ? read_manifest(path, &text, &bytes) : GIDD_OK;
    if (status == GIDD_ERR_MISSING) {
        status = GIDD_ERR_CORRUPT; // the record tells the story
    }
    int64_t length = (int64_t)bytes;
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    GIDD_TRY_GOTO(gidd_comm_bcast(args->comm, args->coordinator, &length, sizeof length));
    if (!proposes) {
        text = malloc((size_t)length + 1);
        status = text != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "out of memory for a manifest");
    }
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    GIDD_TRY_GOTO(gidd_comm_bcast(args->comm, args->coordinator, text, (size_t)length));
    *text_p = text;
    *bytes_p = length;
    return GIDD_OK;
out:
    free(text);
    return status;
}

// This rank's share of the blocks; the first damaged one ends it.
static gidd_status verify_share(gidd_checkpoint *checkpoint, int rank, int size)
{
    int64_t blocks = checkpoint->manifest.block_count;
    for (int64_t block = blocks * rank / size; block < blocks * (rank + 1) / size; block++) {
        gidd_fault_point("ckpt_verify");
        GIDD_TRY(read_block(checkpoint, block));
    }
    return GIDD_OK;
}

// Opens one candidate on all ranks and proves it. Collective.
static gidd_status try_candidate(const gidd_checkpoint_restore_args *args, const char *name,
                                 gidd_checkpoint **out_p)
{
    gidd_checkpoint *checkpoint = NULL;
    char *path = NULL, *text = NULL;
    int64_t bytes = 0;
    gidd_status status = GIDD_OK;
    if (asprintf(&path, "%s/checkpoints/%s", args->run_dir, name) < 0) {
        path = NULL;
        status = gidd_fail(GIDD_ERR_NOMEM, "out of memory for a path");
    }
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    GIDD_TRY_GOTO(share_text(args, path, &text, &bytes));
    status = open_with_text(path, text, (size_t)bytes, &checkpoint);
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    status = verify_share(checkpoint, gidd_comm_rank(args->comm), gidd_comm_size(args->comm));
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    *out_p = checkpoint;
    checkpoint = NULL;
out:
    gidd_checkpoint_close(checkpoint);
    free(text);
    free(path);
    return status;
}

// The coordinator's list, given to all; what dead writers left is removed. Collective.
static gidd_status share_list(const gidd_checkpoint_restore_args *args,
                              gidd_checkpoint_entry **entries_p, int64_t *count_p)
{
    int proposes = gidd_comm_rank(args->comm) == args->coordinator;
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0;
    gidd_status status = GIDD_OK;
    if (proposes) {
        GIDD_ASSERT(args->lock != NULL);
        status = gidd_checkpoint_sweep(args->run_dir, args->lock);
        status = status == GIDD_OK ? gidd_checkpoint_list(args->run_dir, &entries, &count) : status;
    }
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    GIDD_TRY_GOTO(gidd_comm_bcast(args->comm, args->coordinator, &count, sizeof count));
    if (!proposes) {
        entries = calloc((size_t)count + 1, sizeof *entries);
        status = entries != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "out of memory for a list");
    }
    GIDD_TRY_GOTO(gidd_comm_agree(args->comm, status));
    GIDD_TRY_GOTO(
        gidd_comm_bcast(args->comm, args->coordinator, entries, (size_t)count * sizeof *entries));
    *entries_p = entries;
    *count_p = count;
    return GIDD_OK;
out:
    free(entries);
    return status;
}

// Sets a damaged checkpoint aside, so that no later start tries it again. Collective.
static gidd_status set_aside(const gidd_checkpoint_restore_args *args, const char *name)
{
    gidd_status status = GIDD_OK;
    if (gidd_comm_rank(args->comm) == args->coordinator) {
        gidd_log(GIDD_LOG_WARN, "checkpoint", "%s is damaged, trying an older one: %s", name,
                 gidd_error_last()->text);
        status = gidd_checkpoint_quarantine(args->run_dir, args->lock, name);
    }
    return gidd_comm_agree(args->comm, status);
}

gidd_status gidd_checkpoint_restore(const gidd_checkpoint_restore_args *args,
                                    gidd_checkpoint **out_p)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, damaged = 0;
    gidd_status status = GIDD_OK;
    *out_p = NULL;
    GIDD_TRY(share_list(args, &entries, &count));
    for (int64_t i = 0; i < count; i++) {
        if (entries[i].kind == GIDD_CHECKPOINT_COMPLETE) {
            status = try_candidate(args, entries[i].name, out_p);
            if (status != GIDD_ERR_CORRUPT) { // restored, or a failure that proves nothing
                goto out;
            }
            GIDD_TRY_GOTO(set_aside(args, entries[i].name));
        }
        damaged += entries[i].kind != GIDD_CHECKPOINT_UNFINISHED;
    }
    if (damaged > 0) {
        status = gidd_fail(GIDD_ERR_CORRUPT,
                           "%s/checkpoints holds %lld checkpoints, and none is intact: not "
                           "starting from step 0; move the folder away to do so",
                           args->run_dir, (long long)damaged);
    }
out:
    free(entries);
    return status;
}
