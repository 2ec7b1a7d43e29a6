/* SPDX-License-Identifier: Apache-2.0
 *
 * What a file or member is, by its name.
 */
#ifndef GIDD_IO_CORPUS_KIND_H
#define GIDD_IO_CORPUS_KIND_H

#include "io/corpus.h"

typedef enum gidd_corpus_kind {
    GIDD_CORPUS_OTHER,   /* the name says nothing                            */
    GIDD_CORPUS_TEXT,    /* one document                                     */
    GIDD_CORPUS_JSONL,   /* a document a line                                */
    GIDD_CORPUS_ARCHIVE, /* tar or zip, compressed or not                    */
    GIDD_CORPUS_PACKED,  /* compressed, content unknown: perhaps an archive  */
} gidd_corpus_kind;

typedef struct gidd_corpus_type {
    gidd_corpus_kind kind;
    int compressed; /* 1: ends in .gz, .xz or .zst (or .tgz ...) */
} gidd_corpus_type;

/* Type of the name `name` given the endings of texts. Local. */
gidd_corpus_type gidd_corpus_type_of(const char *name, const char *suffixes);

/* Whether the ending of `name`, less .gz/.xz/.zst, is in the comma separated list; 0 or 1. Local.
 */
int gidd_corpus_listed(const char *name, const char *suffixes);

/* document_bytes_max with its default. Local. */
size_t gidd_corpus_document_limit(const gidd_corpus_options *options);

/* Counts something skipped, or refuses it under GIDD_CORPUS_STRICT (CORRUPT). Local. */
gidd_status gidd_corpus_skip(const gidd_corpus_options *options, gidd_corpus_counts *counts,
                             gidd_corpus_counter why, const char *archive, const char *name);

#endif
