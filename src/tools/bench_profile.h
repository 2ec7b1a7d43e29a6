/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the time of a step goes: a table of kernels that stands in front of a device's own, passes
 * every call on and counts calls, time and work (bench_work.h) by part.
 *
 * A call lies between two timed events, so that nothing waits for it: kernels follow each other on the
 * device as they do without a profile, and the times are the device's own. What runs as a recorded graph
 * is not seen. The linear slots are counted by the matrix they multiply with.
 */
#ifndef GIDD_TOOLS_BENCH_PROFILE_H
#define GIDD_TOOLS_BENCH_PROFILE_H

#include "model/params.h"
#include "tools/bench_work.h"

#include <stdint.h>

/* The matrix of a linear slot, by its numbers of rows and columns. */
typedef enum gidd_bench_matrix {
    GIDD_BENCH_NO_MATRIX = 0, /* of the slots that are not linear */
    GIDD_BENCH_QKV,
    GIDD_BENCH_ATTN_OUT,
    GIDD_BENCH_MLP_IN,
    GIDD_BENCH_MLP_OUT,
    GIDD_BENCH_MODS, /* modulations: fp32, a row a sequence */
    GIDD_BENCH_HEAD,
    GIDD_BENCH_MATRIX_COUNT,
} gidd_bench_matrix;

/* Part s * GIDD_BENCH_MATRIX_COUNT + m is slot s on matrix m. */
enum { GIDD_BENCH_PARTS = GIDD_BENCH_SLOT_COUNT * GIDD_BENCH_MATRIX_COUNT };

typedef struct gidd_bench_count {
    int64_t calls;
    double seconds;
    gidd_bench_work work;
} gidd_bench_count;

typedef struct gidd_bench_profile gidd_bench_profile;

/* Puts the profile's table in front of the device's; `shape` (borrowed) tells the matrices. GIDD_ERR_NOMEM. Local. */
gidd_status gidd_bench_profile_attach(gidd_device *device, const gidd_model_shape *shape,
                                      gidd_bench_profile **profile_p);

/* Gives the device its own table back and frees; NULL-safe. Local. */
void gidd_bench_profile_detach(gidd_bench_profile *profile);

/* Forgets the calls so far. Local. */
void gidd_bench_profile_reset(gidd_bench_profile *profile);

/* The counts since the last reset, [GIDD_BENCH_PARTS], borrowed: waits for the device and adds up the times.
 * Local. */
gidd_status gidd_bench_profile_finish(gidd_bench_profile *profile, const gidd_bench_count **counts_p);

/* Name of a part: "linear_fwd, head". Local. */
void gidd_bench_profile_name(int part, char name[64]);

#endif
