/* SPDX-License-Identifier: Apache-2.0
 *
 * The checkpoint's table of tensors is the parameters' table, name by name.
 */
#ifndef GIDD_WORKER_LAYOUT_H
#define GIDD_WORKER_LAYOUT_H

#include "io/checkpoint.h"
#include "model/params.h"

/* The layout of checkpoints with `count` sections. layout->tensors is the caller's (free). NOMEM. Local. */
gidd_status gidd_layout_of_params(const gidd_params *params, const char *const *sections, int count,
                                  gidd_checkpoint_layout *layout);

#endif
