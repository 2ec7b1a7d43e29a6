/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading DIR/index.json; writing it is part of shard.h.
 */
#ifndef GIDD_IO_SHARD_INDEX_H
#define GIDD_IO_SHARD_INDEX_H

#include "base/status.h"
#include "io/shard.h"

/* Reads and checks the index: format and version, known keys only and each once, bounds, digests,
 * sums. *entries_p gets info->shard_count entries, which the caller frees. Errors: MISSING,
 * CORRUPT, IO, NOMEM. Local. */
gidd_status gidd_shard_index_read(const char *dir, gidd_shard_info *info,
                                  gidd_shard_entry **entries_p);

#endif
