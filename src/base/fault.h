/* SPDX-License-Identifier: Apache-2.0
 *
 * Fault injection: named points through the program at which a test can make a rank die, stop, fail or
 * sleep. Acts only in builds with GIDD_FAULTS=ON and with the environment variable
 *
 *     GIDD_FAULT=kind:rank=R,point=NAME[,step=S][,count=K]      kind: kill | stop | sleep | exit | slow |
 *                                                                 nan | flip
 *
 * set, and is announced at start. fault_points.inl lists the points; another name is refused.
 */
#ifndef GIDD_BASE_FAULT_H
#define GIDD_BASE_FAULT_H

#include "base/status.h"

#include <stdint.h>

/* Reads GIDD_FAULT for this rank (world rank). GIDD_ERR_USAGE: not understood. Local. */
gidd_status gidd_fault_init(int rank);

/* The step that points belong to from now on. Local. */
void gidd_fault_set_step(int64_t step);

/* A place where a fault may strike. kill: SIGKILL to this process; stop: SIGSTOP; exit: _exit(3);
 * sleep: 3600 s; slow: 0.1 s at every passage, whatever the step. Costs one comparison when nothing is armed. Local. */
void gidd_fault_point(const char *name);

/* The same for work that belongs to a step of its own, such as a checkpoint that is written behind the loop. Local. */
void gidd_fault_point_of(int64_t step, const char *name);

/* Whether a fault of kind `nan` strikes here and now (the caller then poisons its numbers). Local. */
int gidd_fault_nan(const char *name);

/* Whether a fault of kind `flip` does (the caller then flips a bit of what the point names). Local. */
int gidd_fault_flip(const char *name);

#endif
