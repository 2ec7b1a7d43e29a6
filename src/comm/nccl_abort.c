/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/nccl_abort.h"

#include <stdatomic.h>
#include <stddef.h>

static _Atomic(void *) armed_comm;
static int (*_Atomic armed_abort)(void *comm);

void gidd_nccl_abort_arm(int (*abort_comm)(void *comm), void *comm)
{
    atomic_store(&armed_abort, NULL);
    atomic_store(&armed_comm, comm);
    atomic_store(&armed_abort, abort_comm);
}

void gidd_nccl_abort_fire(void)
{
    int (*abort_comm)(void *comm) = atomic_exchange(&armed_abort, NULL);
    if (abort_comm != NULL) {
        (void)abort_comm(atomic_load(&armed_comm));
    }
}
