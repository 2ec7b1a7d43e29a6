/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench checkpoint: how long training would stand still, how long until the state is safe,
 * against plain pwrite and fsync of as many bytes in the same folder; then restoring it with the
 * page cache dropped. With --step, the stall as a part of a training step of the configuration.
 */
#include "base/clock.h"
#include "io/checkpoint.h"
#include "tools/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    SECTIONS = 3, /* masters and two moments            */
    TENSOR_COLUMNS = 4096,
    WRITE_BYTES = 4 << 20,   /* of one plain pwrite                */
    READ_ELEMENTS = 1 << 20, /* of one read of a restore           */
    HELD_STATES = 3,         /* on disk at once: two checkpoints and the plain file */
};

typedef struct checkpoint_work {
    char folder[GIDD_BENCH_FOLDER_SIZE];
    gidd_comm *comm;
    gidd_run_lock *lock; /* rank 0 */
    gidd_checkpoint_tensor tensor;
    gidd_checkpoint_layout layout;
    gidd_checkpoint_writer *writer;
    gidd_checkpoint_extent extents[GIDD_CHECKPOINT_SECTIONS_MAX];
    int extent_count;
    float *values; /* one section: the state of a rank repeats it */
    double *stall, *safe, *plain, *restore;
    double step_seconds; /* of a training step of the configuration; 0: not asked for */
} checkpoint_work;

/* ---- Set-up ---------------------------------------------------------------------------------- */

static void lay_out(checkpoint_work *w, double gib)
{
    static const char *const names[SECTIONS] = {"master", "adam_m", "adam_v"};
    int64_t rows = (int64_t)(gib * 1073741824.0 / SECTIONS / sizeof(float) / TENSOR_COLUMNS);
    rows = rows > 0 ? rows : 1;
    w->tensor =
        (gidd_checkpoint_tensor){.name = "weights", .dims = 2, .shape = {rows, TENSOR_COLUMNS}};
    w->layout = (gidd_checkpoint_layout){.tensors = &w->tensor,
                                         .tensor_count = 1,
                                         .elements = rows * TENSOR_COLUMNS,
                                         .section_count = SECTIONS};
    for (int i = 0; i < SECTIONS; i++) {
        (void)snprintf(w->layout.sections[i], sizeof w->layout.sections[i], "%s", names[i]);
    }
}

static gidd_status check_space(const checkpoint_work *w)
{
    struct statvfs disk;
    double needed = (double)gidd_checkpoint_state_bytes(&w->layout) * HELD_STATES;
    if (statvfs(w->folder, &disk) != 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot ask %s for its free space: %s", w->folder,
                         strerror(errno));
    }
    if ((double)disk.f_bavail * (double)disk.f_frsize < needed) {
        return gidd_fail(GIDD_ERR_OUTPUT,
                         "%s has %.2f GB free, but %.2f GB are needed; choose --gib or --folder",
                         w->folder, (double)disk.f_bavail * (double)disk.f_frsize * 1e-9,
                         needed * 1e-9);
    }
    return GIDD_OK;
}

// Every rank holds everything, and writes its share, as a run without ZeRO does.
static gidd_status fill_state(checkpoint_work *w)
{
    w->values = malloc((size_t)w->layout.elements * sizeof *w->values);
    if (w->values == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a state of %lld parameters",
                         (long long)w->layout.elements);
    }
    for (int64_t i = 0; i < w->layout.elements; i++) {
        w->values[i] = (float)((uint32_t)i * 2654435761u >> 8) * 0x1p-24f;
    }
    w->extent_count = gidd_checkpoint_share(&w->layout, gidd_comm_rank(w->comm),
                                            gidd_comm_size(w->comm), w->extents);
    for (int i = 0; i < w->extent_count; i++) {
        w->extents[i].source = w->values + w->extents[i].first;
    }
    return GIDD_OK;
}

static gidd_status allocate_times(checkpoint_work *w, const gidd_bench_plan *plan)
{
    size_t count = (size_t)plan->total;
    w->stall = calloc(4 * count, sizeof *w->stall);
    if (w->stall == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the times");
    }
    w->safe = w->stall + count;
    w->plain = w->safe + count;
    w->restore = w->plain + count;
    return GIDD_OK;
}

static gidd_status prepare(gidd_bench *bench, const gidd_bench_plan *plan, checkpoint_work *w)
{
    const int is_first = gidd_comm_rank(w->comm) == 0;
    GIDD_TRY(gidd_bench_folder_create(bench->options, w->comm, w->folder));
    lay_out(w, bench->options->gib > 0.0 ? bench->options->gib : 0.25);
    gidd_status status = check_space(w);
    if (status == GIDD_OK && is_first) {
        status = gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = w->folder}, &w->lock);
    }
    if (status == GIDD_OK) {
        status = fill_state(w);
    }
    if (status == GIDD_OK) {
        status = allocate_times(w, plan);
    }
    GIDD_TRY(gidd_comm_agree(w->comm, status));
    return gidd_checkpoint_writer_create(
        &(gidd_checkpoint_writer_args){.comm = w->comm,
                                       .run_dir = w->folder,
                                       .lock = w->lock,
                                       .layout = &w->layout,
                                       .keep_last = 1,
                                       .verify_after_write =
                                           bench->config->checkpoint.verify_after_write,
                                       .background = bench->comms->thread_multiple},
        &w->writer);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

static double seconds_since(int64_t start_ns)
{
    return (double)(gidd_clock_ns() - start_ns) * 1e-9;
}

static gidd_status save(checkpoint_work *w, int64_t index)
{
    const gidd_checkpoint_fields fields = {
        .step = index + 1, .world_size = gidd_comm_size(w->comm), .build_id = "bench"};
    const int is_first = gidd_comm_rank(w->comm) == 0;
    GIDD_TRY(gidd_comm_barrier(w->comm));
    int64_t start_ns = gidd_clock_ns();
    gidd_checkpoint_begin(w->writer, fields.step, is_first ? &fields : NULL, w->extents,
                          w->extent_count);
    w->stall[index] = seconds_since(start_ns);
    GIDD_TRY(gidd_checkpoint_finish(w->writer));
    w->safe[index] = seconds_since(start_ns);
    return GIDD_OK;
}

static gidd_status write_plainly(int file, const char *path, const void *bytes, size_t count,
                                 off_t offset)
{
    for (size_t done = 0; done < count;) {
        size_t now = count - done < WRITE_BYTES ? count - done : WRITE_BYTES;
        ssize_t wrote = pwrite(file, (const char *)bytes + done, now, offset + (off_t)done);
        if (wrote <= 0) {
            return gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        }
        done += (size_t)wrote;
    }
    return GIDD_OK;
}

// The same extents at the same places, as simply as it can be done.
static gidd_status write_extents(const checkpoint_work *w, const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    gidd_status status = GIDD_OK;
    for (int i = 0; status == GIDD_OK && i < w->extent_count; i++) {
        const gidd_checkpoint_extent *e = &w->extents[i];
        int64_t at = gidd_checkpoint_section_offset(&w->layout, e->section) +
                     e->first * (int64_t)sizeof(float);
        status = write_plainly(file, path, e->source, (size_t)e->count * sizeof(float), (off_t)at);
    }
    if (status == GIDD_OK && fsync(file) != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot sync %s: %s", path, strerror(errno));
    }
    (void)close(file);
    return status;
}

static gidd_status save_plainly(checkpoint_work *w, int64_t index)
{
    char path[GIDD_BENCH_FOLDER_SIZE + 16];
    (void)snprintf(path, sizeof path, "%s/plain.bin", w->folder);
    GIDD_TRY(gidd_comm_barrier(w->comm));
    int64_t start_ns = gidd_clock_ns();
    GIDD_TRY(gidd_comm_agree(w->comm, write_extents(w, path)));
    w->plain[index] = seconds_since(start_ns);
    if (gidd_comm_rank(w->comm) == 0) {
        (void)unlink(path);
    }
    return GIDD_OK;
}

// Advice only: a file system may keep what it has.
static void drop_cached_state(const checkpoint_work *w, int64_t step)
{
    char path[GIDD_BENCH_FOLDER_SIZE + 64];
    (void)snprintf(path, sizeof path, "%s/checkpoints/step-%09lld/state.bin", w->folder,
                   (long long)step);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(file);
    }
}

static gidd_status read_all(gidd_checkpoint *checkpoint, const checkpoint_work *w, float *staging)
{
    for (int section = 0; section < SECTIONS; section++) {
        for (int64_t at = 0; at < w->layout.elements; at += READ_ELEMENTS) {
            int64_t left = w->layout.elements - at,
                    count = left < READ_ELEMENTS ? left : READ_ELEMENTS;
            GIDD_TRY(gidd_checkpoint_read(checkpoint, section, at, count, staging));
            if (memcmp(staging, w->values + at, (size_t)count * sizeof *staging) != 0) {
                return gidd_fail(GIDD_ERR_CORRUPT, "section %d came back changed near element %lld",
                                 section, (long long)at);
            }
        }
    }
    return GIDD_OK;
}

// As a start does it: verify shares, agree, then every rank reads everything.
static gidd_status restore(checkpoint_work *w, int64_t index, float *staging)
{
    gidd_checkpoint *checkpoint = NULL;
    drop_cached_state(w, index + 1);
    GIDD_TRY(gidd_comm_barrier(w->comm));
    int64_t start_ns = gidd_clock_ns();
    GIDD_TRY(gidd_checkpoint_restore(
        &(gidd_checkpoint_restore_args){.comm = w->comm, .run_dir = w->folder, .lock = w->lock},
        &checkpoint));
    gidd_status status =
        checkpoint == NULL ? gidd_fail(GIDD_ERR_MISSING, "the checkpoint just written is not there")
                           : read_all(checkpoint, w, staging);
    w->restore[index] = seconds_since(start_ns);
    gidd_checkpoint_close(checkpoint);
    return gidd_comm_agree(w->comm, status);
}

static gidd_status repeat(checkpoint_work *w, const gidd_bench_plan *plan)
{
    float *staging = malloc(READ_ELEMENTS * sizeof *staging);
    GIDD_TRY(gidd_comm_agree(
        w->comm, staging == NULL ? gidd_fail(GIDD_ERR_NOMEM, "no memory to read") : GIDD_OK));
    gidd_status status = GIDD_OK;
    for (int64_t i = 0; status == GIDD_OK && i < plan->total; i++) {
        status = save_plainly(w, i);
        if (status == GIDD_OK) {
            status = save(w, i);
        }
        if (status == GIDD_OK) {
            status = restore(w, i, staging);
        }
    }
    free(staging);
    GIDD_TRY(status);
    return gidd_bench_slowest(w->comm, w->stall, 4 * plan->total); // all four lists
}

static void report(gidd_bench *bench, const checkpoint_work *w, const gidd_bench_plan *plan)
{
    gidd_bench_report *r = bench->report;
    double mb = (double)gidd_checkpoint_state_bytes(&w->layout) * 1e-6;
    gidd_bench_spread stall = gidd_bench_spread_of(w->stall + plan->warmup, plan->repeats);
    gidd_bench_spread safe = gidd_bench_spread_of(w->safe + plan->warmup, plan->repeats);
    gidd_bench_spread plain = gidd_bench_spread_of(w->plain + plan->warmup, plan->repeats);
    gidd_bench_spread restored = gidd_bench_spread_of(w->restore + plan->warmup, plan->repeats);
    gidd_bench_report_number(r, "state_mb", mb);
    gidd_bench_report_text(r, "writer",
                           bench->comms->thread_multiple ? "a thread of its own"
                                                         : "inside begin and advance");
    gidd_bench_report_text(r, "verify_after_write",
                           bench->config->checkpoint.verify_after_write ? "on" : "off");
    gidd_bench_report_spread(r, "stall_ms", gidd_bench_spread_scale(stall, 1e3));
    gidd_bench_report_spread(r, "safe_ms", gidd_bench_spread_scale(safe, 1e3));
    gidd_bench_report_spread(r, "plain_write_ms", gidd_bench_spread_scale(plain, 1e3));
    gidd_bench_report_spread(r, "restore_ms", gidd_bench_spread_scale(restored, 1e3));
    gidd_bench_report_spread(r, "write_mb_per_s", gidd_bench_spread_rate(safe, mb));
    gidd_bench_report_spread(r, "plain_write_mb_per_s", gidd_bench_spread_rate(plain, mb));
    gidd_bench_report_spread(r, "restore_mb_per_s", gidd_bench_spread_rate(restored, mb));
    gidd_bench_report_number(r, "write_to_plain_ratio", plain.median / safe.median);
    if (w->step_seconds > 0.0) {
        gidd_bench_report_number(r, "step_ms", w->step_seconds * 1e3);
        gidd_bench_report_number(r, "stall_of_a_step", stall.median / w->step_seconds);
    }
}

gidd_status gidd_bench_checkpoint(gidd_bench *bench)
{
    checkpoint_work w = {.comm = bench->comms->world};
    gidd_bench_plan plan = gidd_bench_plan_of(bench);
    gidd_status status = prepare(bench, &plan, &w);
    if (status == GIDD_OK) {
        status = repeat(&w, &plan);
    }
    if (status == GIDD_OK && bench->options->step) {
        status = gidd_bench_step_seconds(bench, &w.step_seconds);
    }
    if (status == GIDD_OK) {
        report(bench, &w, &plan);
    }
    gidd_checkpoint_writer_destroy(w.writer);
    gidd_run_lock_release(w.lock);
    if (gidd_comm_rank(w.comm) == 0) {
        gidd_bench_folder_remove(w.folder);
    }
    free(w.values);
    free(w.stall);
    return status;
}
