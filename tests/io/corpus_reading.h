/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of corpora share: a folder of their own, and everything that an input gives.
 */
#ifndef GIDD_TESTS_CORPUS_READING_H
#define GIDD_TESTS_CORPUS_READING_H

#include "io/corpus.h"
#include "io/corpus_fixture.h"

enum { KEPT_MAX = 4096 };

struct found {
    const gidd_corpus_options *options;
    char *documents[KEPT_MAX];
    size_t sizes[KEPT_MAX];
    int count;
    int part_count;
    int stop_after; // parts; 0: never
    gidd_corpus_counts counts;
    char digests[64][GIDD_DIGEST_SIZE]; // of the first parts' inputs
};

extern char folder[256];                 /* of the running test */
extern const gidd_corpus_options plain;  /* .txt .md .rst, "text" */
extern const gidd_corpus_options strict; /* the same, refusing */

void make_folder(void);
void remove_folder(void);

/* Goes through inputs; read_input asserts that it works, read_failing gives the status. Local. */
gidd_status read_inputs(const char *const *inputs, int64_t count, const gidd_corpus_options *options, struct found *found);
struct found *read_input(const char *input, const gidd_corpus_options *options);
gidd_status read_failing(const char *input, const gidd_corpus_options *options);
void release(struct found *found);

/* Document `index` is these bytes; the documents are fixture_text(0 .. count-1). Local. */
void check_document(const struct found *found, int index, const void *text, size_t size);
void check_texts(const struct found *found, int count);

/* Below the test's folder; returns the path, in a buffer that later calls reuse. Local. */
const char *write_file(const char *name, const void *bytes, size_t size);
const char *write_string(const char *name, const char *text);

/* An archive of fixture texts first .. first + count - 1; allocated. Local. */
char *pack_texts(const char *format, const char *filter, int first, int count, size_t *size_p);

#endif
