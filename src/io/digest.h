/* SPDX-License-Identifier: Apache-2.0
 *
 * XXH3-128 digests, written as 32 lower-case hexadecimal digits. They notice damage and change;
 * they are no protection against an adversary.
 */
#ifndef GIDD_IO_DIGEST_H
#define GIDD_IO_DIGEST_H

#include "base/status.h"

#include <stddef.h>

#define GIDD_DIGEST_SIZE 33 /* 32 digits and a NUL */

typedef struct gidd_digest gidd_digest;

/* A running digest; the caller destroys it. NULL when out of memory. Local. */
gidd_digest *gidd_digest_create(void);
void gidd_digest_destroy(gidd_digest *digest);

/* Adds bytes; `size` may be 0. Local. */
void gidd_digest_update(gidd_digest *digest, const void *bytes, size_t size);

/* Digest of everything added so far; more may be added afterwards. Local. */
void gidd_digest_text(const gidd_digest *digest, char text[GIDD_DIGEST_SIZE]);

/* Forgets what was added. Local. */
void gidd_digest_reset(gidd_digest *digest);

/* Digest of one piece of memory. Local. */
void gidd_digest_of(const void *bytes, size_t size, char text[GIDD_DIGEST_SIZE]);

/* Digest and size of a file's bytes. Errors: MISSING, IO, NOMEM. Local. */
gidd_status gidd_digest_file(const char *path, char text[GIDD_DIGEST_SIZE], size_t *size_p);

/* 1 if `text` is a digest (exactly 32 lower-case hexadecimal digits), else 0. Local. */
int gidd_digest_valid(const char *text);

#endif
