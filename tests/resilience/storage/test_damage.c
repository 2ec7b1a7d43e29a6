/* SPDX-License-Identifier: Apache-2.0
 *
 * Every kind of damage to the newest checkpoint: it is noticed, the place is named, a start takes the
 * older one and sets the damaged one aside.
 *
 *     mpirun -np N test_damage [--stride=BYTES]     a flipped bit every so many bytes (default 1 MiB)
 */
#include "iofault.h"
#include "storage_fixture.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OLD = 10, NEW = 20 };

typedef struct tally {
    int64_t cases, noticed, named, fallbacks;
} tally;

static int64_t stride = 1 << 20;

static void path_of(const storage *s, int64_t step, const char *file, char path[300])
{
    (void)snprintf(path, 300, "%s/checkpoints/step-%09" PRId64 "/%s", s->run_dir, step, file);
}

/* ---- one damage, done and undone on rank 0 ---------------------------------------------------- */

typedef struct patch {
    char path[300];
    int64_t offset, bytes; /* bytes saved; -1: the whole file was moved aside */
    unsigned char *saved;
    int64_t length; /* of the file before */
} patch;

static int64_t length_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (int64_t)info.st_size : -1;
}

static int transfer(const char *path, int64_t offset, void *data, int64_t bytes, int write)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t done = fd < 0  ? -1
                   : write ? pwrite(fd, data, (size_t)bytes, offset)
                           : pread(fd, data, (size_t)bytes, offset);
    return fd >= 0 && close(fd) == 0 && done == bytes ? 0 : -1;
}

static int save_bytes(patch *p, const char *path, int64_t offset, int64_t bytes)
{
    *p = (patch){.offset = offset, .bytes = bytes, .length = length_of(path)};
    (void)snprintf(p->path, sizeof p->path, "%s", path);
    p->saved = malloc((size_t)bytes + 1);
    return p->saved != NULL ? transfer(path, offset, p->saved, bytes, 0) : -1;
}

static int flip_bit(patch *p, const char *path, int64_t offset, int bit)
{
    unsigned char byte = 0;
    if (save_bytes(p, path, offset, 1) != 0) {
        return -1;
    }
    byte = (unsigned char)(p->saved[0] ^ (1u << bit));
    return transfer(path, offset, &byte, 1, 1);
}

// Bytes from elsewhere (NULL: zeros) in the place of those at `offset`.
static int replace(patch *p, const char *path, int64_t offset, int64_t bytes, const char *from,
                   int64_t from_offset)
{
    unsigned char *data = calloc((size_t)bytes, 1);
    int bad = data == NULL || (from != NULL && transfer(from, from_offset, data, bytes, 0) != 0) ||
              save_bytes(p, path, offset, bytes) != 0 || transfer(path, offset, data, bytes, 1) != 0;
    free(data);
    return bad ? -1 : 0;
}

static int set_length(patch *p, const char *path, int64_t length)
{
    int64_t before = length_of(path), lost = before > length ? before - length : 0;
    return save_bytes(p, path, before - lost, lost) == 0 ? truncate(path, length) : -1;
}

static int exchange(patch *p, const char *path, const char *with)
{
    char aside[310];
    *p = (patch){.bytes = -1};
    (void)snprintf(p->path, sizeof p->path, "%s", path);
    (void)snprintf(aside, sizeof aside, "%s.kept", path);
    if (rename(path, aside) != 0) {
        return -1;
    }
    if (with == NULL) {
        return 0; // missing
    }
    char command[700];
    (void)snprintf(command, sizeof command, "cp '%s' '%s'", with, path);
    return system(command) == 0 ? 0 : -1;
}

static int undo(patch *p)
{
    char aside[310];
    int bad = 0;
    if (p->bytes < 0) {
        (void)snprintf(aside, sizeof aside, "%s.kept", p->path);
        return rename(aside, p->path);
    }
    bad = truncate(p->path, p->length) != 0 ||
          (p->bytes > 0 && transfer(p->path, p->offset, p->saved, p->bytes, 1) != 0);
    free(p->saved);
    p->saved = NULL;
    return bad ? -1 : 0;
}

/* ---- what must happen ------------------------------------------------------------------------- */

// Verifying names the damaged block and a tensor in it; `block` < 0: opening must fail, naming the
// step's files. Rank 0.
static gidd_status check_naming(const storage *s, int64_t block, tally *t)
{
    char path[300], text[512], want[40];
    unsigned char damaged[64] = {0};
    gidd_checkpoint *checkpoint = NULL;
    path_of(s, NEW, "", path);
    gidd_status status = gidd_checkpoint_open(path, &checkpoint);
    if (block < 0) {
        gidd_checkpoint_close(checkpoint);
        t->noticed += status != GIDD_OK;
        t->named += status != GIDD_OK && (strstr(gidd_error_last()->text, "manifest") != NULL ||
                                          strstr(gidd_error_last()->text, "state.bin") != NULL);
        return status != GIDD_OK ? GIDD_OK : gidd_fail(GIDD_ERR_ARG, "it could be opened");
    }
    GIDD_TRY(status);
    int64_t blocks = gidd_checkpoint_block_count(gidd_checkpoint_layout_of(checkpoint)), bad = 0;
    status = gidd_checkpoint_verify(checkpoint, 0, blocks, damaged);
    for (int64_t i = 0; i < blocks; i++) {
        bad += damaged[i];
    }
    gidd_checkpoint_describe_block(checkpoint, block, text, sizeof text);
    gidd_checkpoint_close(checkpoint);
    (void)snprintf(want, sizeof want, "block %" PRId64 " (bytes ", block);
    t->noticed += bad == 1 && damaged[block];
    t->named += strstr(text, want) != NULL && strstr(text, "tensors blocks.") != NULL;
    return status;
}

// A start takes the older one; the damaged one is put back for the next case.
static gidd_status check_fallback(storage *s, tally *t)
{
    char from[300], to[300];
    int64_t found = 0;
    GIDD_TRY(storage_restore(s, &found));
    t->fallbacks += found == OLD && storage_count(s, GIDD_CHECKPOINT_DAMAGED) == 1;
    (void)snprintf(from, sizeof from, "%s/checkpoints/step-%09d.damaged-1", s->run_dir, NEW);
    (void)snprintf(to, sizeof to, "%s/checkpoints/step-%09d", s->run_dir, NEW);
    gidd_status status = s->rank == 0 && rename(from, to) != 0
                             ? gidd_fail(GIDD_ERR_ARG, "found step %" PRId64 ", nothing set aside", found)
                             : GIDD_OK;
    return gidd_comm_agree(s->comm, status);
}

static gidd_status check_case(storage *s, int made, patch *p, int64_t block, tally *t)
{
    gidd_status status = GIDD_OK;
    if (s->rank == 0) {
        status = made == 0 ? check_naming(s, block, t) : gidd_fail(GIDD_ERR_IO, "cannot damage %s", p->path);
    }
    GIDD_TRY(gidd_comm_agree(s->comm, status));
    t->cases++;
    GIDD_TRY(check_fallback(s, t));
    if (s->rank == 0 && undo(p) != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot repair %s", p->path);
    }
    GIDD_TRY(gidd_comm_agree(s->comm, status));
    status = s->rank != 0 || (t->noticed == t->cases && t->named == t->cases && t->fallbacks == t->cases)
               ? GIDD_OK
               : gidd_fail(GIDD_ERR_ARG, "case %" PRId64 " (%s): noticed %" PRId64 ", named %" PRId64
                           ", fallbacks %" PRId64, t->cases, p->path, t->noticed, t->named, t->fallbacks);
    return gidd_comm_agree(s->comm, status);
}

/* ---- the kinds --------------------------------------------------------------------------------- */

static gidd_status flip_bits(storage *s, tally *t)
{
    char path[300];
    patch p;
    path_of(s, NEW, "state.bin", path);
    int64_t bytes = gidd_checkpoint_state_bytes(&s->state.layout);
    for (int64_t at = 0, n = 0; at < bytes; at += stride, n++) {
        int64_t offset = at + (int64_t)(storage_random((uint64_t)n) % (uint64_t)stride);
        offset = offset < bytes ? offset : bytes - 1;
        int made = s->rank == 0 ? flip_bit(&p, path, offset, (int)(n % 8)) : 0;
        GIDD_TRY(check_case(s, made, &p, offset / GIDD_CHECKPOINT_BLOCK, t));
    }
    return GIDD_OK;
}

static gidd_status spoil_blocks(storage *s, tally *t)
{
    char path[300];
    patch p;
    path_of(s, NEW, "state.bin", path);
    int64_t blocks = gidd_checkpoint_block_count(&s->state.layout);
    for (int64_t block = 0; block < blocks; block++) {
        int64_t at = block * GIDD_CHECKPOINT_BLOCK, other = (block + 2) % blocks * GIDD_CHECKPOINT_BLOCK;
        int made = s->rank == 0 ? set_length(&p, path, at) : 0; // cut here
        GIDD_TRY(check_case(s, made, &p, -1, t));
        made = s->rank == 0 ? replace(&p, path, at, GIDD_CHECKPOINT_BLOCK, NULL, 0) : 0; // a hole
        GIDD_TRY(check_case(s, made, &p, block, t));
        made = s->rank == 0 ? replace(&p, path, at + 4096, 4096, NULL, 0) : 0; // a page never written
        GIDD_TRY(check_case(s, made, &p, block, t));
        made = s->rank == 0 ? replace(&p, path, at, GIDD_CHECKPOINT_BLOCK, path, other) : 0;
        GIDD_TRY(check_case(s, made, &p, block, t)); // a block in another's place
    }
    int made = s->rank == 0 ? set_length(&p, path, length_of(path) + 1) : 0;
    return check_case(s, made, &p, -1, t);
}

static gidd_status spoil_files(storage *s, tally *t)
{
    char manifest[300], numbers[300], old_manifest[300], old_numbers[300];
    patch p;
    path_of(s, NEW, "manifest.json", manifest);
    path_of(s, NEW, "state.bin", numbers);
    path_of(s, OLD, "manifest.json", old_manifest);
    path_of(s, OLD, "state.bin", old_numbers);
    struct {
        const char *path, *with;
    } swaps[] = {{manifest, old_manifest}, {manifest, NULL}, {manifest, "/dev/null"}, {manifest, numbers},
                 {numbers, NULL},            {numbers, manifest}, {numbers, "/dev/null"}};
    for (size_t i = 0; i < sizeof swaps / sizeof *swaps; i++) {
        int made = s->rank == 0 ? exchange(&p, swaps[i].path, swaps[i].with) : 0;
        GIDD_TRY(check_case(s, made, &p, -1, t));
    }
    int64_t bytes = length_of(manifest); // every rank sees it
    GIDD_TRY(gidd_comm_bcast(s->comm, 0, &bytes, sizeof bytes));
    for (int64_t i = 0, step = stride > 4096 ? 257 : 31; i < bytes; i += step) {
        int made = s->rank == 0 ? flip_bit(&p, manifest, i, (int)(i % 8)) : 0;
        GIDD_TRY(check_case(s, made, &p, -1, t));
        made = s->rank == 0 ? set_length(&p, manifest, i) : 0;
        GIDD_TRY(check_case(s, made, &p, -1, t));
    }
    return GIDD_OK;
}

// Each block of the file is another step's: every block is bad, whatever its place.
static gidd_status take_other_state(storage *s, tally *t)
{
    char numbers[300], other[300];
    patch p;
    path_of(s, NEW, "state.bin", numbers);
    path_of(s, OLD, "state.bin", other);
    gidd_status status =
        s->rank != 0 || exchange(&p, numbers, other) == 0 ? GIDD_OK : gidd_fail(GIDD_ERR_IO, "cannot swap");
    GIDD_TRY(gidd_comm_agree(s->comm, status));
    t->cases++, t->noticed++, t->named++;
    GIDD_TRY(check_fallback(s, t));
    status = s->rank != 0 || undo(&p) == 0 ? GIDD_OK : gidd_fail(GIDD_ERR_IO, "cannot repair");
    return gidd_comm_agree(s->comm, status);
}

static void all_damage_is_noticed(mpi_test *t)
{
    storage s;
    tally sum = {0};
    MPI_TEST_OK(t, storage_open(&s, t->set.world, 0));
    MPI_TEST_OK(t, storage_write(&s, OLD));
    MPI_TEST_OK(t, storage_write(&s, NEW));
    MPI_TEST_OK(t, flip_bits(&s, &sum));
    MPI_TEST_OK(t, spoil_blocks(&s, &sum));
    MPI_TEST_OK(t, spoil_files(&s, &sum));
    MPI_TEST_OK(t, take_other_state(&s, &sum));
    int64_t found = 0; // false fallback: the repaired file is taken again
    MPI_TEST_OK(t, storage_restore(&s, &found));
    MPI_TEST_CHECK(t, found == NEW);
    storage_close(&s);
    if (t->rank == 0) {
        (void)printf("damage: %" PRId64 " cases, %" PRId64 " noticed, %" PRId64 " named, %" PRId64
                     " times the older checkpoint was used\n",
                     sum.cases, sum.noticed, sum.named, sum.fallbacks);
    }
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {{"all_damage_is_noticed", all_damage_is_noticed, 1}};
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--stride=", 9) == 0) {
            stride = atoll(argv[i] + 9) > 0 ? atoll(argv[i] + 9) : stride;
        }
    }
    gidd_log_set_level(GIDD_LOG_ERROR);
    return mpi_test_main(argc, argv, cases, 1);
}
