/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to the checkpoint: manifest.json as text and as a struct.
 *
 * The text is JSON with sorted keys, so that equal contents are equal bytes. Its "checksum" is the
 * XXH3-128 of the text itself with the checksum's 32 digits taken as zeros, so that no byte of it
 * can change unnoticed. The reader trusts nothing: every key is known, every number within its
 * range, every size recomputed from the tensor table.
 */
#ifndef GIDD_IO_CHECKPOINT_MANIFEST_H
#define GIDD_IO_CHECKPOINT_MANIFEST_H

#include "io/checkpoint.h"

#include <jansson.h>

typedef struct gidd_manifest {
    gidd_checkpoint_layout layout;     /* tensors owned */
    gidd_checkpoint_fields fields;     /* strings point into `root` */
    char (*digests)[GIDD_DIGEST_SIZE]; /* [block_count] owned; one per block of state.bin */
    int64_t block_count;
    json_t *root; /* owned */
} gidd_manifest;

/* Everything but the block checksums, as JSON; the caller releases it with json_decref.
 * GIDD_ERR_ARG: a text that is not UTF-8 or a name given twice. Local. */
gidd_status gidd_manifest_build(const gidd_checkpoint_layout *layout,
                                const gidd_checkpoint_fields *fields, json_t **root_p);

/* Puts an amendment into what build made. GIDD_ERR_ARG: a text that is not UTF-8. Local. */
gidd_status gidd_manifest_amend(json_t *root, const gidd_checkpoint_amendment *amendment);

/* Adds digests[count] to `root` and writes the final text, to be freed with free(). Local. */
gidd_status gidd_manifest_encode(json_t *root, char (*digests)[GIDD_DIGEST_SIZE], int64_t count,
                                 char **text_p, size_t *bytes_p);

/* Reads a text of any origin. GIDD_ERR_CORRUPT says what is wrong with it; GIDD_ERR_UNSUPPORTED:
 * another format version. Release with gidd_manifest_release. Local. */
gidd_status gidd_manifest_decode(const char *text, size_t bytes, gidd_manifest *manifest);
void gidd_manifest_release(gidd_manifest *manifest);

#endif
