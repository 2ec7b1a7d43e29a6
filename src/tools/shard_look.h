/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-shard's looks at a finished data set: info, show, stats, grep. All print to standard output and are Local.
 */
#ifndef GIDD_TOOLS_SHARD_LOOK_H
#define GIDD_TOOLS_SHARD_LOOK_H

#include "base/config.h"
#include "base/status.h"

#include <stdint.h>

/* Facts of the index of data.dir, a line each. Errors: gidd_shard_set_open's. Local. */
gidd_status gidd_shard_info_print(const gidd_config *config);

/* The text of one document, and nothing else. Errors: USAGE (no such document), CORRUPT (another tokenizer). Local. */
gidd_status gidd_shard_document_print(const gidd_config *config, int64_t document);

/* Reads everything: a histogram of the documents' lengths, the `top` most frequent ids with their texts, how many ids
 * of the vocabulary occur, and the entropy of single ids (what a model that knows only their frequencies would reach).
 * Local. */
gidd_status gidd_shard_stats_print(const gidd_config *config, int64_t top);

/* Every line of every document that the POSIX extended regular expression matches, as "document:line", at most `limit`
 * of them (0: all). Errors: USAGE (no such expression), and as show. Local. */
gidd_status gidd_shard_grep_print(const gidd_config *config, const char *pattern, int64_t limit);

#endif
