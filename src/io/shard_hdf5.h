/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shard files share about HDF5. Serial HDF5 is not thread-safe in every build, so every H5
 * call of the process is made between gidd_hdf5_lock and gidd_hdf5_unlock. Names of this header
 * that take hid_t are for src/io alone.
 */
#ifndef GIDD_IO_SHARD_HDF5_H
#define GIDD_IO_SHARD_HDF5_H

#include "base/status.h"
#include "io/shard.h"

#include <hdf5.h>

#define GIDD_SHARD_CHUNK_IDS                                                                       \
    16384 /* 32 KiB: a random window of 512 costs one chunk, seldom two                            \
           */
#define GIDD_SHARD_CHUNK_OFFSETS 4096 /* 32 KiB */

/* The one lock. It also keeps HDF5 from printing its error stack. Not recursive. Local. */
void gidd_hdf5_lock(void);
void gidd_hdf5_unlock(void);

/* gidd_fail with HDF5's own reason (the innermost error of its stack) appended. Under the lock.
 * Local. */
gidd_status gidd_hdf5_fail_at(gidd_status code, const char *file, int line, const char *func,
                              const char *format, ...) __attribute__((format(printf, 5, 6)));
#define gidd_hdf5_fail(code, ...)                                                                  \
    gidd_hdf5_fail_at((code), __FILE__, __LINE__, __func__, __VA_ARGS__)

/* An opened shard: file and both datasets. Negative: not open. */
typedef struct gidd_shard_file {
    hid_t file;
    hid_t tokens;
    hid_t offsets;
    int64_t document_count;
    int64_t token_count;
} gidd_shard_file;

#define GIDD_SHARD_FILE_CLOSED ((gidd_shard_file){.file = -1, .tokens = -1, .offsets = -1})

/* Opens `path` read-only and without locks, and checks format, version, attributes, types, sizes
 * and filters; `name` is what messages call it. Errors: MISSING, CORRUPT. Under the lock. Local. */
gidd_status gidd_shard_file_open(const char *path, const char *name, const char *tokenizer_digest,
                                 int32_t vocab_size, gidd_shard_file *file_p);

/* Closes what is open; repeating it is harmless. Under the lock. Local. */
void gidd_shard_file_close(gidd_shard_file *file);

/* Reads all offsets to offsets[document_count + 1] and checks that they start at 0, rise and end at
 * the number of tokens. Errors: CORRUPT. Under the lock. Local. */
gidd_status gidd_shard_file_offsets(const gidd_shard_file *file, const char *name,
                                    uint64_t *offsets);

/* Reads tokens [first, first + count) to ids. Errors: CORRUPT. Under the lock. Local. */
gidd_status gidd_shard_file_tokens(const gidd_shard_file *file, const char *name, int64_t first,
                                   int64_t count, uint16_t *ids);

#endif
