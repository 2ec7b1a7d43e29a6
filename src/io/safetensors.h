/* SPDX-License-Identifier: Apache-2.0
 *
 * Safetensors: named tensors in one file, the format in which models are published.
 *
 *     u64 little-endian     N, bytes of the header
 *     N bytes               JSON object, from '{', padded with spaces:
 *                             {"__metadata__": {"format": "pt"},
 *                              "norm1.weight": {"dtype": "F32", "shape": [768], "data_offsets": [0, 3072]}, ...}
 *     the rest              the tensors' bytes, row-major, little-endian; data_offsets count from here
 *
 * The reader takes nothing on trust: N at most GIDD_SAFETENSORS_HEADER_MAX and within the file; UTF-8; no name
 * twice; only the three keys above, of known types; offsets of exactly the size that dtype and shape give; the
 * tensors together cover the data once, without gap or overlap, up to the end of the file. Everything else is
 * GIDD_ERR_CORRUPT, naming file and tensor. Values are read piece by piece with read(2): a file that shrinks
 * meanwhile is an error, not a crash, and no more of it is in memory than the caller asks for.
 *
 * Life of a reader: open -> find, at, expect, read ... -> close. One thread at a time.
 * Life of a writer: create -> write ... -> commit -> destroy. The file has its name when it is whole, or never.
 */
#ifndef GIDD_IO_SAFETENSORS_H
#define GIDD_IO_SAFETENSORS_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    GIDD_SAFETENSORS_HEADER_MAX = 16 << 20, /* bytes: 100 000 tensors; parsed JSON takes some 50 times as much */
    GIDD_SAFETENSORS_DIMS_MAX = 8,
};

typedef enum gidd_safetensors_dtype {
    GIDD_SAFETENSORS_F32 = 0,
    GIDD_SAFETENSORS_BF16,
    GIDD_SAFETENSORS_F16,
    GIDD_SAFETENSORS_F64,
    GIDD_SAFETENSORS_OTHER, /* integers, booleans, 8-bit floats: known by size, never read */
} gidd_safetensors_dtype;

typedef struct gidd_safetensors_tensor {
    const char            *name;       /* borrowed from the reader */
    gidd_safetensors_dtype dtype;
    const char            *dtype_name; /* as the file writes it; static */
    int                    dims;       /* 0: one number */
    int64_t                shape[GIDD_SAFETENSORS_DIMS_MAX];
    int64_t                count;      /* elements: product of the shape */
    int64_t                first, end; /* bytes, from the start of the data */
} gidd_safetensors_tensor;

/* ---- reading ---------------------------------------------------------------------------------------- */

typedef struct gidd_safetensors gidd_safetensors; /* opaque */

/* Opens a file and checks all of its header. *file_p is closed with gidd_safetensors_close. Errors: MISSING,
 * IO, CORRUPT, NOMEM. Local. */
gidd_status gidd_safetensors_open(const char *path, gidd_safetensors **file_p);

/* The same for bytes in memory, borrowed until close; `name` stands for the file in messages. Local. */
gidd_status gidd_safetensors_open_memory(const char *name, const void *bytes, size_t size,
                                         gidd_safetensors **file_p);

void gidd_safetensors_close(gidd_safetensors *file); /* NULL-safe. Local. */

/* The path it was opened by. Local. */
const char *gidd_safetensors_path(const gidd_safetensors *file);

/* Number of tensors, and tensor 0 <= index < count in the order of their bytes. Local. */
int64_t                        gidd_safetensors_count(const gidd_safetensors *file);
const gidd_safetensors_tensor *gidd_safetensors_at(const gidd_safetensors *file, int64_t index);

/* The tensor called `name`, NULL if there is none. Local. */
const gidd_safetensors_tensor *gidd_safetensors_find(const gidd_safetensors *file, const char *name);

/* The tensor called `name` if it is one of floating-point numbers (F32, BF16, F16, F64) of exactly this shape.
 * Else GIDD_ERR_CORRUPT, saying what is there instead. Local. */
gidd_status gidd_safetensors_expect(const gidd_safetensors *file, const char *name, int dims, const int64_t *shape,
                                    const gidd_safetensors_tensor **tensor_p);

/* The value of a key of __metadata__, NULL if there is none. Borrowed. Local. */
const char *gidd_safetensors_metadata(const gidd_safetensors *file, const char *key);

/* Elements [first, first + count) of a tensor as float. F32 comes bit for bit, F64 is rounded to nearest.
 * GIDD_ERR_CORRUPT: not floating-point, or the file has become shorter; IO. Local. */
gidd_status gidd_safetensors_read(gidd_safetensors *file, const gidd_safetensors_tensor *tensor, int64_t first,
                                  int64_t count, float *values);

/* ---- writing ---------------------------------------------------------------------------------------- */

/* A tensor to be written: values come as float and become F32 bit for bit, or BF16 rounded to nearest. */
typedef struct gidd_safetensors_entry {
    const char            *name; /* UTF-8, not "__metadata__", none twice */
    gidd_safetensors_dtype dtype; /* F32 or BF16 */
    int                    dims;
    int64_t                shape[GIDD_SAFETENSORS_DIMS_MAX];
} gidd_safetensors_entry;

typedef struct gidd_safetensors_writer gidd_safetensors_writer; /* opaque */

/* Starts PATH.tmp-PID, with the header: the tensors in the given order, metadata {"format": "pt"}, which loaders
 * of PyTorch models ask for. The bytes of the file depend on entries and values alone. Errors: ARG (a bad or
 * repeated name, dtype or shape), OUTPUT, IO, NOMEM. Local. */
gidd_status gidd_safetensors_writer_create(const char *path, const gidd_safetensors_entry *entries, int64_t count,
                                           gidd_safetensors_writer **writer_p);

/* The next `count` elements, tensor after tensor in the order of the entries. GIDD_ERR_ARG: more than there are
 * to be. Local. */
gidd_status gidd_safetensors_write(gidd_safetensors_writer *writer, const float *values, int64_t count);

/* All elements are written: syncs, renames to PATH, syncs the folder. GIDD_ERR_ARG: some are missing. Local. */
gidd_status gidd_safetensors_writer_commit(gidd_safetensors_writer *writer);

/* NULL-safe. Removes what was not committed. Local. */
void gidd_safetensors_writer_destroy(gidd_safetensors_writer *writer);

#endif
