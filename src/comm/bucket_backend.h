/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the buckets: what a transport must do. bucket.c checks the order of calls and passes them on; with
 * one rank it passes nothing on. To add a transport, write a gidd_bucket_backend and list it in bucket.c.
 */
#ifndef GIDD_COMM_BUCKET_BACKEND_H
#define GIDD_COMM_BUCKET_BACKEND_H

#include "comm/bucket.h"

typedef struct gidd_bucket_backend {
    const char *name; /* for the numerics fingerprint */

    /* The rank's own half of create, then the half that needs the others; a failure of either leaves a state
     * that destroy accepts. */
    gidd_status (*prepare)(const gidd_buckets_args *args, void **state_p);
    gidd_status (*connect)(void *state);
    void (*destroy)(void *state); /* NULL-safe */

    gidd_status (*post)(void *state, int64_t index);
    gidd_status (*poll)(void *state);
    gidd_status (*wait_all)(void *state);
    gidd_status (*gather)(void *state, void *values, size_t element_bytes);
    gidd_status (*merge)(void *state, void *words, int64_t count);
} gidd_bucket_backend;

extern const gidd_bucket_backend gidd_bucket_mpi, gidd_bucket_nccl;

#endif
