/* SPDX-License-Identifier: Apache-2.0
 *
 * Watches the shared memory of emu's kernels: a thread that reads what another has written, without a
 * fence of both between, ends the process. Else emu would not see a missing __syncwarp beside a
 * shuffle, at which lanes meet although it orders no memory.
 *
 * Kernels are compiled with -fsanitize=thread, which puts a call before each access to memory; the
 * calls come here, not into that sanitizer's library. Not seen: what emu itself copies (ldmatrix,
 * cp.async), and a write before the read that it must follow.
 */
#include "kernels/emu/emu_block.h"

#include <stdlib.h>

enum { UNIT = 2 }; // bytes that have one last writer

typedef struct last_write {
    int64_t when; // gidd_emu_fenced.now
    unsigned thread;
} last_write;

extern char __start_gidd_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_gidd_shared[] __attribute__((weak, visibility("hidden")));

static last_write  dynamic_writes[GIDD_EMU_SHARED_BYTES / UNIT];
static last_write *static_writes;

static last_write *find(uintptr_t at)
{
    uintptr_t dynamic = (uintptr_t)gidd_emu_shared(), first = (uintptr_t)__start_gidd_shared,
              end = (uintptr_t)__stop_gidd_shared;
    if (dynamic != 0 && at - dynamic < GIDD_EMU_SHARED_BYTES) {
        return &dynamic_writes[(at - dynamic) / UNIT];
    }
    if (at < first || at >= end) {
        return NULL;
    }
    if (static_writes == NULL && (static_writes = calloc((end - first) / UNIT + 1, sizeof *static_writes)) == NULL) {
        gidd_emu_fail("no memory to watch shared memory");
    }
    return &static_writes[(at - first) / UNIT];
}

static int is_ordered(const last_write *write, unsigned reader)
{
    const gidd_emu_fences *fences = &gidd_emu_fenced;
    return write->thread == reader || write->when < fences->barrier ||
           (fences->own[reader] > write->when && fences->own[write->thread] > write->when);
}

static void watch_read(const void *from, size_t bytes)
{
    uintptr_t at = (uintptr_t)from;
    for (uintptr_t unit = at; gidd_emu_now != NULL && unit < at + bytes; unit += UNIT) {
        const last_write *write = find(unit);
        if (write == NULL) {
            return;
        }
        if (!is_ordered(write, gidd_emu_now->number)) {
            gidd_emu_fail("reads what thread %u has written, with no fence of both between", write->thread);
        }
    }
}

static void watch_write(const void *to, size_t bytes)
{
    uintptr_t at = (uintptr_t)to;
    for (uintptr_t unit = at; gidd_emu_now != NULL && unit < at + bytes; unit += UNIT) {
        last_write *write = find(unit);
        if (write == NULL) {
            return;
        }
        *write = (last_write){gidd_emu_fenced.now, gidd_emu_now->number};
    }
}

// ---- what the compiler calls -----------------------------------------------------------------

#define WATCHED(bytes)                                                                             \
    void __tsan_read##bytes(void *at);                                                             \
    void __tsan_write##bytes(void *at);                                                            \
    void __tsan_unaligned_read##bytes(void *at);                                                   \
    void __tsan_unaligned_write##bytes(void *at);                                                  \
    void __tsan_read##bytes(void *at)                                                              \
    {                                                                                              \
        watch_read(at, bytes);                                                                     \
    }                                                                                              \
    void __tsan_write##bytes(void *at)                                                             \
    {                                                                                              \
        watch_write(at, bytes);                                                                    \
    }                                                                                              \
    void __tsan_unaligned_read##bytes(void *at)                                                    \
    {                                                                                              \
        watch_read(at, bytes);                                                                     \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *at)                                                   \
    {                                                                                              \
        watch_write(at, bytes);                                                                    \
    }
WATCHED(1)
WATCHED(2)
WATCHED(4)
WATCHED(8)
WATCHED(16)

void __tsan_read_range(void *at, size_t bytes);
void __tsan_read_range(void *at, size_t bytes)
{
    watch_read(at, bytes);
}

void __tsan_write_range(void *at, size_t bytes);
void __tsan_write_range(void *at, size_t bytes)
{
    watch_write(at, bytes);
}

void __tsan_init(void);
void __tsan_init(void)
{
}
