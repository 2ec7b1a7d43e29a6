/* SPDX-License-Identifier: Apache-2.0
 *
 * The last resort has no context: gidd_comm_abort, called by the watchdog's thread while the main thread hangs in a
 * collective, ends NCCL's kernels first. So the communicator in use is remembered for the process. Private to src/comm.
 */
#ifndef GIDD_COMM_NCCL_ABORT_H
#define GIDD_COMM_NCCL_ABORT_H

/* From now on gidd_nccl_abort_fire calls abort_comm(comm); NULL: nothing. Local. */
void gidd_nccl_abort_arm(int (*abort_comm)(void *comm), void *comm);

/* Once, from any thread. Local. */
void gidd_nccl_abort_fire(void);

#endif
