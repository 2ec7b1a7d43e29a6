/* SPDX-License-Identifier: Apache-2.0
 *
 * Token shards: what gidd-shard writes and training reads. FORMAT.md describes the bytes.
 *
 *     DIR/index.json          the list of shards with sizes and digests; written last, by rename
 *     DIR/shard-00000.h5      tokens  u16 [token_count]          ids of all documents, back to back
 *     DIR/shard-00001.h5      offsets u64 [document_count + 1]   document d is tokens[offsets[d] ..
 * offsets[d+1])
 *     ...
 *     DIR/done/               records of the build, for resuming it; readers never look at them
 *
 * Documents keep the order of their source and are numbered 0 .. document_count-1 over all shards.
 * They hold plain text ids: no BOS, EOS or PAD (the loader adds them), at least one id each. The
 * last valid_documents documents are the validation split.
 *
 * A gidd_shard_set may be used from several threads: every HDF5 call of the process goes through
 * one lock. Reads copy into the caller's memory. Shard files are opened at their first use,
 * read-only and without file locks, and stay open; opening a set raises the process's limit of open files towards its
 * hard limit for that, and beyond what is allowed the least recently used shard is closed. An open shard takes half a
 * megabyte (HDF5's, mostly) and 8 bytes a document.
 */
#ifndef GIDD_IO_SHARD_H
#define GIDD_IO_SHARD_H

#include "base/status.h"
#include "io/digest.h" // GIDD_DIGEST_SIZE: 32 digits and a NUL
#include "io/ranges.h"

#include <stdint.h>

#define GIDD_SHARD_VERSION 1

/* ------------------------------------------------------------------ reading a data set */

typedef struct gidd_shard_set gidd_shard_set;

typedef struct gidd_shard_info {
    int64_t document_count;                  /* >= 1, over all shards                          */
    int64_t token_count;                     /* over all shards                                */
    int64_t valid_documents;                 /* split: documents [count - valid, count)        */
    int64_t shard_count;                     /* >= 1                                           */
    int32_t vocab_size;                      /* every id is below it; at most 65536            */
    char tokenizer_digest[GIDD_DIGEST_SIZE]; /* of the tokenizer's files (tokenizer/bpe.h)     */
    char data_digest[GIDD_DIGEST_SIZE];      /* identity of the data set: over the contents of
                                                      all shards in order, not over the split        */
} gidd_shard_info;

/* One shard as index.json lists it. A shard may hold no document (a stretch of the source without
 * text). */
typedef struct gidd_shard_entry {
    int64_t document_count;
    int64_t token_count;
    int64_t file_bytes;                 /* size of the file                                 */
    char digest[GIDD_DIGEST_SIZE];      /* of the contents: document lengths and ids        */
    char file_digest[GIDD_DIGEST_SIZE]; /* of the file's bytes                              */
} gidd_shard_entry;

/* Opens the data set in folder `dir`: reads and checks DIR/index.json and that every shard is there
 * in its full size; no shard is opened yet. *set_p is set on success; the caller closes it. Errors:
 * MISSING (no folder, no index, a shard is absent), CORRUPT (the index breaks its rules, a shard
 * has another size; the text names the file), IO, NOMEM. Local. */
gidd_status gidd_shard_set_open(const char *dir, gidd_shard_set **set_p);

/* Closes all files and frees the set; NULL is ignored. Nothing may still be reading. Local. */
void gidd_shard_set_close(gidd_shard_set *set);

/* Facts about the set; borrowed, valid until close, no I/O. Local. */
const gidd_shard_info *gidd_shard_set_info(const gidd_shard_set *set);

/* Entry of shard `shard`, 0 <= shard < shard_count; borrowed, no I/O. Local. */
const gidd_shard_entry *gidd_shard_set_entry(const gidd_shard_set *set, int64_t shard);

/* Number of ids of a document, 0 <= document < document_count. The first call for a shard reads its
 * offsets (8 bytes a document, kept). Errors: ARG, CORRUPT, IO, NOMEM, MISSING. Local; thread-safe.
 */
gidd_status gidd_shard_set_length(gidd_shard_set *set, int64_t document, int64_t *tokens_p);

/* Copies ids [first, first + count) of a document to ids[count]; first + count <= length, count >=
 * 0. O(1) in the size of the data: reads only the chunks (16384 ids) that hold the window and
 * checks their checksums. An id >= vocab_size or a damaged chunk is CORRUPT, naming shard, document
 * and position. Errors: ARG (window outside the document), CORRUPT, IO, NOMEM, MISSING. Local;
 * thread-safe. */
gidd_status gidd_shard_set_read(gidd_shard_set *set, int64_t document, int64_t first, int64_t count,
                                uint16_t *ids);

/* Proves one shard: size and digest of its file, format, attributes, every chunk, order of the
 * offsets, range of the ids, digest of the contents, all against its entry. CORRUPT names file, dataset, chunk and
 * documents. Reads the whole file. With `damaged` a chunk of ids that is damaged is no failure but a warning, and the
 * set's documents that touch it are added there (not settled); what cannot be put down to such chunks is CORRUPT all
 * the same. Local; thread-safe. */
gidd_status gidd_shard_set_verify(gidd_shard_set *set, int64_t shard, gidd_ranges *damaged);

/* Adds size, times and inode of every file to a digest: equal ones mean that nobody has written to, replaced or moved
 * a file in between, which finds no bits that fell over by themselves. Errors: MISSING, IO, NOMEM. Local. */
gidd_status gidd_shard_set_stamp(const gidd_shard_set *set, gidd_digest *digest);

/* ------------------------------------------------------------------ writing one shard */

typedef struct gidd_shard_writer gidd_shard_writer;

/* Starts a shard that will be `path`; until commit it is `path`.tmp, which is replaced if there.
 * The shard is laid out in memory. Ids must be below vocab_size
 * (<= 65536). Errors: OUTPUT (cannot be created), IO, NOMEM. Local. */
gidd_status gidd_shard_writer_create(const char *path, const char *tokenizer_digest,
                                     int32_t vocab_size, gidd_shard_writer **writer_p);

/* Adds a document of count >= 1 ids. Errors: ARG (empty, or an id out of range), NOMEM. Local. */
gidd_status gidd_shard_writer_append(gidd_shard_writer *writer, const uint16_t *ids, int64_t count);

/* Makes the shard real: writes what is buffered, closes with every close checked, opens it again
 * and proves it, fsyncs, renames it to its name and fsyncs the folder. Writes *entry_p. On failure
 * nothing is left under either name. The writer must still be destroyed. Errors: IO, CORRUPT (what
 * was read back differs), NOMEM. Local. */
gidd_status gidd_shard_writer_commit(gidd_shard_writer *writer, gidd_shard_entry *entry_p);

/* Frees the writer; without a commit the temporary file is removed. NULL is ignored. Local. */
void gidd_shard_writer_destroy(gidd_shard_writer *writer);

/* Proves the shard file `path` against `entry`, as gidd_shard_set_verify does; documents in `damaged` are numbered
 * within the shard. Local; thread-safe. */
gidd_status gidd_shard_file_verify(const char *path, const gidd_shard_entry *entry, const char *tokenizer_digest,
                                   int32_t vocab_size, gidd_ranges *damaged);

/* ------------------------------------------------------------------ writing the index */

typedef struct gidd_shard_index {
    int64_t shard_count;             /* >= 1                                                   */
    const gidd_shard_entry *entries; /* [shard_count], in order                                */
    int64_t valid_documents;
    int32_t vocab_size;
    const char *tokenizer_digest;
    const char *source_json; /* a JSON object kept as "source" (counters of the build), or NULL */
} gidd_shard_index;

/* Name of shard `shard` inside its folder ("shard-00012.h5") to name[24]. Local. */
void gidd_shard_name(int64_t shard, char name[24]);

/* Writes DIR/index.json: temporary file, fsync, rename, fsync of the folder.
 * Errors: CORRUPT (0 <= valid_documents < document_count does not hold; both in the text), ARG, IO,
 * OUTPUT, NOMEM. Local. */
gidd_status gidd_shard_index_write(const char *dir, const gidd_shard_index *index);

#endif
