/* SPDX-License-Identifier: Apache-2.0
 *
 * gzip, unpacked with zlib, which compares each member's CRC-32 and length; libarchive 3.6 takes a gzip whose
 * contents were damaged for whole.
 */
#ifndef GIDD_IO_CORPUS_GZIP_H
#define GIDD_IO_CORPUS_GZIP_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct gidd_corpus_gzip gidd_corpus_gzip;

/* Where the packed bytes come from: *bytes_p is borrowed until the next call, *got_p = 0 at the end. */
typedef gidd_status (*gidd_corpus_gzip_pull)(void *context, const void **bytes_p, size_t *got_p);

/* Whether the bytes begin as a gzip file does. Local. */
int gidd_corpus_gzip_begins(const void *bytes, size_t size);

/* Errors: NOMEM. Local. */
gidd_status gidd_corpus_gzip_create(gidd_corpus_gzip_pull pull, void *context, gidd_corpus_gzip **gzip_p);

/* NULL is ignored. Local. */
void gidd_corpus_gzip_destroy(gidd_corpus_gzip *gzip);

/* The next unpacked bytes, borrowed until the next call; *got_p = 0 at the end. Members follow one another; zeros
 * behind the last are padding. What was unpacked before a failure comes first. Errors: CORRUPT (damaged, truncated, something else behind it), those of `pull`,
 * NOMEM. Local. */
gidd_status gidd_corpus_gzip_read(gidd_corpus_gzip *gzip, const void **bytes_p, size_t *got_p);

/* Packed bytes unpacked so far. Local. */
int64_t gidd_corpus_gzip_consumed(const gidd_corpus_gzip *gzip);

#endif
