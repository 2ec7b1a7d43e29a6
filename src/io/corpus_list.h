/* SPDX-License-Identifier: Apache-2.0
 *
 * The files of a corpus in their order: about 100 bytes each.
 */
#ifndef GIDD_IO_CORPUS_LIST_H
#define GIDD_IO_CORPUS_LIST_H

#include "io/corpus.h"
#include "io/corpus_kind.h"

typedef struct gidd_corpus_file {
    size_t name;           /* offset of its path into names: below its folder, or whole  */
    int64_t size;          /* bytes                                                      */
    int32_t root;          /* input folder it lies in, or -1                             */
    gidd_corpus_kind bare; /* what a PACKED file is if it is no archive                  */
    gidd_corpus_type type;
} gidd_corpus_file;

typedef struct gidd_corpus_list {
    gidd_corpus_file *files; /* [count] */
    int64_t count;
    int64_t room;
    char *names; /* paths, NUL after each */
    size_t names_used;
    size_t names_room;
    const char *const *inputs; /* borrowed from the caller of build */
    int64_t total_bytes;
    gidd_corpus_counts counts; /* what was left out */
} gidd_corpus_list;

/* Fills `list` (all zero) from the inputs, which stay borrowed. Errors as gidd_corpus_open. Release
 * in every case. Local. */
gidd_status gidd_corpus_list_build(gidd_corpus_list *list, const char *const *inputs,
                                   int64_t input_count, const gidd_corpus_options *options);

void gidd_corpus_list_release(gidd_corpus_list *list);

/* Path of file `index` as a new string, which the caller frees; NULL: out of memory. Local. */
char *gidd_corpus_list_path(const gidd_corpus_list *list, int64_t index);

#endif
