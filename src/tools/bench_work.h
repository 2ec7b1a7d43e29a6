/* SPDX-License-Identifier: Apache-2.0
 *
 * The least that a call of a kernel has to do, from its arguments: what its time is held against.
 *
 *   flops   of matrix products and attention (a multiplication and an addition count 2); nothing else
 *   bytes   each input read once, each output written once, what is added to read and written: no
 *           kernel that keeps its contract moves less between memory and the processor
 *
 * Attention counts four products of T x T x d a head forward and ten backward, whatever the kernel
 * computes again: as its rivals are counted. Half where it is causal.
 *
 * What only the device knows is taken as the arguments have it: rows of the embedding count each,
 * though ids repeat; lists of rows and of chunks count whole.
 */
#ifndef GIDD_TOOLS_BENCH_WORK_H
#define GIDD_TOOLS_BENCH_WORK_H

#include "kernels/kernels.h"

#define GIDD_BENCH_SLOT_ENUM(slot, arguments) GIDD_BENCH_SLOT_##slot,
typedef enum gidd_bench_slot {
    GIDD_KERNEL_SLOTS(GIDD_BENCH_SLOT_ENUM) GIDD_BENCH_SLOT_COUNT
} gidd_bench_slot;
#undef GIDD_BENCH_SLOT_ENUM

typedef struct gidd_bench_work {
    double flops, bytes;
} gidd_bench_work;

/* Of a slot called with `arguments`, the slot's own struct, on a device of type `E`. Local. */
gidd_bench_work gidd_bench_work_of(gidd_bench_slot slot, gidd_dtype E, const void *arguments);

/* What a device does at best (bench_ceiling.h measures it). */
typedef struct gidd_bench_ceiling {
    double flops_per_s; /* of a large square matrix product of type E         */
    double bytes_per_s; /* read and written by a copy within the device        */
    double call_s;      /* issuing next to nothing and waiting for it          */
    int64_t side;       /* of the product                                      */
} gidd_bench_ceiling;

/* Seconds below which nothing can do `work`: the longer of its products at the ceiling and its bytes. Local. */
static inline double gidd_bench_floor(const gidd_bench_work *work, const gidd_bench_ceiling *ceiling)
{
    const double products_s = work->flops / ceiling->flops_per_s, bytes_s = work->bytes / ceiling->bytes_per_s;
    return products_s > bytes_s ? products_s : bytes_s;
}

#endif
