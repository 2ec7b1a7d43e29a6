/* SPDX-License-Identifier: Apache-2.0
 *
 * Which algorithm each matrix product of a run uses, where a library leaves the choice (cuBLASLt): worker 0 times the
 * candidates once, all ranks adopt what it found, and RUN/gemm.json and the checkpoints keep it (io/gemm_record.h), so
 * that no later start chooses anew. Devices that leave no choice have no record.
 */
#ifndef GIDD_WORKER_PRODUCTS_H
#define GIDD_WORKER_PRODUCTS_H

#include "comm/comm.h"
#include "kernels/device.h"

/* What a record names as its device: the description without its number. Local. */
void gidd_products_device(const gidd_device *device, char *text, size_t size);

/* The record for `device` that a run directory has: of gemm.json, else of the newest checkpoint. *text_p is to be
 * freed; NULL: none. A record that is damaged or was made elsewhere is told as a warning and not taken. Local. */
gidd_status gidd_products_find(const char *run_dir, const char *device, char **text_p);

/* The device uses what `text` says, from its first product on. GIDD_ERR_CORRUPT. Local. */
gidd_status gidd_products_adopt(gidd_device *device, const char *text);

typedef struct gidd_products_args {
    gidd_comm   *workers;
    gidd_device *device;
    const char  *run_dir;
    gidd_status (*meet)(void *context); /* issues every product of a step once, to be timed: worker 0 */
    void        *context;
} gidd_products_args;

/* Before the first product: all ranks agree on one record, found or made; a new one is written to gemm.json. Nothing
 * where the device leaves no choice. Collective over the workers. */
gidd_status gidd_products_settle(const gidd_products_args *args);

#endif
