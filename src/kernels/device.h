/* SPDX-License-Identifier: Apache-2.0
 *
 * A device: where tensors live and which table of kernels works on them.
 *
 * Chosen once, by name: "cpu", "emu" (the CUDA sources run on the host), "cuda:0". The activation
 * type E (fp32 or bf16) is fixed when the device is opened. All work of a device is issued by one
 * thread and runs in order (one stream); a second thread opens a device of its own.
 */
#ifndef GIDD_KERNELS_DEVICE_H
#define GIDD_KERNELS_DEVICE_H

#include "base/gemm_choice.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gidd_dtype { GIDD_F32 = 0, GIDD_BF16 = 1 } gidd_dtype;

/* Bytes of one element. */
static inline size_t gidd_dtype_bytes(gidd_dtype dtype)
{
    return dtype == GIDD_BF16 ? 2 : 4;
}

struct gidd_kernels;
struct gidd_backend;     /* kernels/backend.h */
struct gidd_graph;       /* kernels/stream.h */
struct gidd_late_copies; /* kernels/stream.c */

typedef struct gidd_device {
    const struct gidd_backend *backend;   /* memory and order of work of this device               */
    const struct gidd_kernels *kernels;   /* the launchers of this device                          */
    gidd_dtype                 dtype;     /* E: type of activations and of the weights they meet   */
    int                        threads;   /* host threads that a CPU kernel may use, >= 1          */
    void                      *workspace; /* owned; gidd_device_reserve()                          */
    size_t                     workspace_bytes;
    size_t                     allocated_bytes; /* by gidd_device_alloc, now                       */
    int64_t                    allocation_count; /* ever: constant after step 2 (a test)           */
    int64_t                    stall_count; /* waits of the host for all that was issued (stream.h) */
    int64_t                    issued[3]; /* by stream: graphs, copies and fills so far            */
    struct gidd_graph         *recording; /* between gidd_graph_begin and _end                     */
    const struct gidd_kernels *plain_kernels; /* while recording: those that really work           */
    struct gidd_late_copies   *late;      /* owned; emu's, NULL elsewhere                          */
    void                      *impl;      /* the back-end's own: GEMM caches, handles, stream      */
} gidd_device;

typedef struct gidd_device_args {
    const char *name;    /* "cpu", "emu", "cuda", "cuda:N"                                        */
    gidd_dtype  dtype;
    int         threads; /* 0: OMP_NUM_THREADS, else the processors this process may run on       */
} gidd_device_args;

/* Devices "kind:0" to "kind:count-1" of this machine, at least 1. GIDD_ERR_DEVICE says why there is none;
 * GIDD_ERR_UNSUPPORTED: this build has no such device. Local. */
gidd_status gidd_device_count(const char *kind, int *count_p);

/* Opens a device. *device_p is owned by the caller (gidd_device_close). GIDD_ERR_DEVICE: there is no
 * such device on this machine; GIDD_ERR_UNSUPPORTED: this build does not have it. Local. */
gidd_status gidd_device_open(const gidd_device_args *args, gidd_device **device_p);
void        gidd_device_close(gidd_device *device);

/* Memory on the device, 256-byte aligned, not initialised. GIDD_ERR_NOMEM names `what`. Local. */
gidd_status gidd_device_alloc(gidd_device *device, size_t bytes, const char *what, void **memory_p);
void        gidd_device_free(gidd_device *device, void *memory, size_t bytes);

/* Copies and fills, in stream order. copy_out returns when the bytes are there. Local. */
gidd_status gidd_device_copy_in(gidd_device *device, void *target, const void *host, size_t bytes);
gidd_status gidd_device_copy_out(gidd_device *device, void *host, const void *source, size_t bytes);
gidd_status gidd_device_copy(gidd_device *device, void *target, const void *source, size_t bytes); /* within it */
gidd_status gidd_device_zero(gidd_device *device, void *target, size_t bytes);

/* Host memory for copies to and from the device: pinned on cuda, ordinary elsewhere; 256-byte aligned,
 * not initialised, not counted. A copy_in from it may return before the bytes are read: they stay
 * untouched until the device has been synchronised behind it. (From other memory copy_in returns when
 * the source may be reused.) GIDD_ERR_NOMEM names `what`. Local. */
gidd_status gidd_device_host_alloc(gidd_device *device, size_t bytes, const char *what,
                                   void **memory_p);
void        gidd_device_host_free(gidd_device *device, void *memory);

/* Waits until all work issued so far is done. Local. */
gidd_status gidd_device_synchronize(gidd_device *device);

/* Largest sizes with which a model will call the kernels; reserve() sizes the workspace for them, so
 * that no launcher ever allocates (the CPU's GEMM cache excepted: first use of a shape builds its
 * primitive, counted in allocation_count). A launcher that would need more fails with GIDD_ERR_ARG.
 * Sizes that are not used may be 0; a later call only ever enlarges the workspace. Local. */
typedef struct gidd_device_limits {
    int64_t B, T, D, H, L, C, Vr;
    int64_t head_rows; /* rows of logits worked on at once; for sample_step too */
} gidd_device_limits;

gidd_status gidd_device_reserve(gidd_device *device, const gidd_device_limits *limits);

/* Algorithms of matrix products, where a library leaves the choice (cuda): chooses() is 1. tune(): products met from
 * now on are timed with each candidate. choices(): what was chosen so far, by ascending key or not; writes up to `most`,
 * returns how many there are. adopt(): what an earlier run chose, before the first product; others are not timed.
 * GIDD_ERR_ARG: a product has been issued already. Elsewhere they do nothing. Local. */
int         gidd_device_gemm_chooses(const gidd_device *device);
gidd_status gidd_device_gemm_tune(gidd_device *device);
int64_t     gidd_device_gemm_choices(const gidd_device *device, gidd_gemm_choice *choices, int64_t most);
gidd_status gidd_device_gemm_adopt(gidd_device *device, const gidd_gemm_choice *choices, int64_t count);

/* One line for people and for the numerics fingerprint:
 * "cpu bf16, 2 threads, avx512_core_bf16, onednn 2.6.3". Local. */
void gidd_device_describe(const gidd_device *device, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
