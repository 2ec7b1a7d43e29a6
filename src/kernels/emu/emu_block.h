/* SPDX-License-Identifier: Apache-2.0
 *
 * A CUDA block on the host: one fiber per thread, run by one thread of the process. A fiber runs
 * until it waits (for its warp or its block) or ends; whoever arrives last computes the operation
 * for all who waited, releases them and goes on. The language of CUDA over this is in
 * cuda_host.cuh.
 *
 * What real hardware leaves undefined ends the process here, with a message (gidd_emu_fail):
 *   - a thread that ends or waits elsewhere while others wait at a barrier that it never reaches,
 *   - lanes of a warp that meet with different operations or different masks,
 *   - a write behind dynamic shared memory, a misaligned 16-byte access of mma.cuh.
 * Shared memory, static and dynamic, holds 0xff bytes (NaN) when a block starts. With the
 * environment variable GIDD_EMU_SEED=<number> the order in which threads run is drawn at random
 * from that seed; which asynchronous copies are done at once is drawn with and without it.
 */
#ifndef GIDD_KERNELS_EMU_EMU_BLOCK_H
#define GIDD_KERNELS_EMU_EMU_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GIDD_EMU_WARP = 32, GIDD_EMU_THREADS = 1024 };

/* Shared memory of a block that one may ask for: what sm_90 and sm_100 offer. */
enum { GIDD_EMU_SHARED_BYTES = 227 * 1024 };

typedef struct gidd_emu_index {
    unsigned x, y, z;
} gidd_emu_index;

/* The thread that runs now, and the block and grid it belongs to. */
typedef struct gidd_emu_position {
    gidd_emu_index thread, block, block_size, grid_size;
    unsigned number; /* of the thread in its block: lane = number % 32 */
} gidd_emu_position;

extern const gidd_emu_position *gidd_emu_now;

/* Runs body(context) once for each thread of each block. grid: up to 3 numbers, block likewise, the
 * threads of a block a multiple of 32. One launch at a time (others wait). Local. */
void gidd_emu_run(gidd_emu_index grid, gidd_emu_index block, size_t shared_bytes,
                  void (*body)(void *context), void *context);

/* Dynamic shared memory of the running block, 128-byte aligned. Local. */
void *gidd_emu_shared(void);

/* Reports the bug of a kernel, with the place of the running thread, and aborts. Local. */
void gidd_emu_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* What the last lane of a meeting does for all: operands[lane] is what lane passed; NULL outside
 * the mask. An operand may hold inputs and outputs: it lies still while its lane waits. */
typedef void (*gidd_emu_operation)(void *const operands[GIDD_EMU_WARP], uint32_t mask);

/* Waits until every lane of `mask` is here, with the same operation and mask. Local. */
void gidd_emu_meet(uint32_t mask, gidd_emu_operation operation, void *operand);

/* Fences, numbered on through all blocks. What thread w writes while `now` is n is there for thread r
 * after a fence of both with a number above n: a barrier of the block (also its beginning), or a
 * __syncwarp. Shuffles and votes order no memory. tests/kernels/emu_watch.c looks. */
typedef struct gidd_emu_fences {
    int64_t now;
    int64_t barrier;               /* the block's last */
    int64_t own[GIDD_EMU_THREADS]; /* each thread's last __syncwarp */
} gidd_emu_fences;

extern gidd_emu_fences gidd_emu_fenced;

typedef struct gidd_emu_votes {
    int yes, threads;
} gidd_emu_votes;

/* Waits for every thread of the block; how many of them voted with anything but 0. Local. */
gidd_emu_votes gidd_emu_barrier(int vote);

/* Asynchronous copies of 16 bytes into shared memory: each is done either here or when the thread
 * waits for its group, drawn at random; `source_bytes` of them come from `source`, the rest is 0.
 * `leave`: groups that may stay pending. Local. */
void gidd_emu_copy_async(void *target, const void *source, int source_bytes);
void gidd_emu_copy_commit(void);
void gidd_emu_copy_wait(int leave);

#ifdef __cplusplus
}
#endif
#endif
