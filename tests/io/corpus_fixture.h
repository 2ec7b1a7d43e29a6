/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of corpora and shards share: a folder of their own, files, archives made with
 * libarchive, texts that depend on a number. Failures end the test (Criterion) or the program (exit
 * 1).
 */
#ifndef GIDD_TESTS_CORPUS_FIXTURE_H
#define GIDD_TESTS_CORPUS_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

/* A new empty folder below $TMPDIR or /tmp; fixture_remove removes it with all it holds. Local. */
void fixture_folder(char folder[256]);
void fixture_remove(const char *folder);

/* "folder/name" in one of a few static buffers. Local. */
const char *fixture_path(const char *folder, const char *name);

/* Writes or reads a whole file, making the folders above it; reading allocates. Local. */
void fixture_write(const char *path, const void *bytes, size_t size);
char *fixture_read(const char *path, size_t *size_p);

/* Text of document `number`: 1 to about 3000 bytes, ASCII, the same on every machine; allocated.
 * Local. */
char *fixture_text(int64_t number, size_t *size_p);

/* A growing archive or compressed file in memory. */
typedef struct fixture_archive fixture_archive;

/* `format`: "tar", "zip", "raw"; `filter`: "", "gz", "xz", "zst". Local. */
fixture_archive *fixture_archive_new(const char *format, const char *filter);

/* Adds a regular file; `kind` otherwise: 'd' folder, 'l' symbolic link to `bytes`, 'h' hard link,
 * 'c' device, 'f' file. Local. */
void fixture_archive_add(fixture_archive *archive, const char *name, char kind, const void *bytes,
                         size_t size);

/* Ends it; its bytes are allocated. Local. */
char *fixture_archive_end(fixture_archive *archive, size_t *size_p);

/* One compressed piece of memory. Local. */
char *fixture_compress(const char *filter, const void *bytes, size_t size, size_t *size_p);

/* A tokenizer of the 256 bytes and <|endoftext|> in `folder`: id = rank of the byte in GPT-2's
 * order. Local. */
void fixture_tokenizer(const char *folder);

#endif
