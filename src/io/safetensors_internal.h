/* SPDX-License-Identifier: Apache-2.0
 *
 * Private to safetensors: the header as text and as a table.
 */
#ifndef GIDD_IO_SAFETENSORS_INTERNAL_H
#define GIDD_IO_SAFETENSORS_INTERNAL_H

#include "io/safetensors.h"

#include <jansson.h>

typedef struct gidd_safetensors_header {
    gidd_safetensors_tensor *tensors; /* owned; in the order of their bytes */
    int64_t                  count;
    json_t                  *root;    /* owned; the names point into it */
} gidd_safetensors_header;

/* Bytes of an element. Local. */
int64_t gidd_safetensors_element_bytes(gidd_safetensors_dtype dtype);

/* Reads and checks the JSON of a header whose data have `data_bytes` bytes; `path` for messages. Release with
 * gidd_safetensors_header_release. Local. */
gidd_status gidd_safetensors_header_decode(const char *path, const char *text, size_t bytes, int64_t data_bytes,
                                           gidd_safetensors_header *header);
void        gidd_safetensors_header_release(gidd_safetensors_header *header); /* Local. */

#endif
