/* SPDX-License-Identifier: Apache-2.0
 *
 * A corpus of one file, which the first byte names: texts, JSON lines, archives, compressed or not. What is
 * delivered respects the limits, and is the same when it is read again.
 */
#include "fuzz/fuzz.h"

#include "base/log.h"
#include "io/corpus.h"

#include <string.h>

enum { DOCUMENT_MAX = 1 << 16 };

static const gidd_corpus_options options = {
    .suffixes = "txt,md", .json_key = "text", .document_bytes_max = DOCUMENT_MAX, .shard_bytes = 1 << 18};

typedef struct reading {
    int64_t documents, bytes;
} reading;

static gidd_status take_document(void *context, const uint8_t *text, size_t bytes)
{
    reading *seen = context;
    FUZZ_CHECK(text != NULL && bytes >= 1 && bytes <= DOCUMENT_MAX);
    seen->documents++;
    seen->bytes += (int64_t)bytes;
    return GIDD_OK;
}

static gidd_status take_part(void *context, const gidd_corpus_part *part, int *stop_p)
{
    gidd_corpus_counts counts, again;
    char               digest[GIDD_DIGEST_SIZE], only[GIDD_DIGEST_SIZE];
    reading            first = {0}, second = {0};
    (void)context;
    gidd_status status = gidd_corpus_part_read(part, &options, take_document, &first, &counts, digest);
    FUZZ_CHECK(gidd_corpus_part_read(part, &options, take_document, &second, &again, only) == status);
    FUZZ_CHECK(first.documents == second.documents && first.bytes == second.bytes);
    if (status == GIDD_OK) {
        FUZZ_CHECK(strcmp(digest, only) == 0);
        FUZZ_CHECK(counts.of[GIDD_CORPUS_DOCUMENTS] == first.documents);
        FUZZ_CHECK(counts.of[GIDD_CORPUS_TEXT_BYTES] == first.bytes);
        FUZZ_CHECK(gidd_corpus_part_digest(part, &options, only) == GIDD_OK && strcmp(digest, only) == 0);
    }
    *stop_p = part->index > 64;
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"c.txt", "c.jsonl", "c.tar", "c.tar.gz", "c.tar.xz", "c.tar.zst", "c.zip",
                                        "c.jsonl.gz", "c.txt.xz", "c.xz", "c.jsonl.zst", "c.tgz", "c.gz"};
    gidd_corpus             *corpus = NULL;
    gidd_corpus_counts       counts;
    if (size == 0) {
        return 0;
    }
    gidd_log_set_level(GIDD_LOG_ERROR);
    const char *path = fuzz_file(names[data[0] % (sizeof names / sizeof *names)], data + 1, size - 1);
    if (gidd_corpus_open(&path, 1, &options, &corpus) == GIDD_OK) {
        (void)!gidd_corpus_deal(corpus, take_part, NULL, &counts);
        gidd_corpus_close(corpus);
    }
    (void)remove(path);
    return 0;
}
