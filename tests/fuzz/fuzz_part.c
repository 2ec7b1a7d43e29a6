/* SPDX-License-Identifier: Apache-2.0
 *
 * An encoded part of a corpus, as one rank sends it to another: a message that is damaged or from another
 * version is refused.
 */
#include "fuzz/fuzz.h"

#include "base/log.h"
#include "io/corpus.h"

static gidd_status take_document(void *context, const uint8_t *text, size_t bytes)
{
    (void)context;
    FUZZ_CHECK(text != NULL && bytes >= 1);
    return GIDD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const gidd_corpus_options options = {.suffixes = "txt", .json_key = "text", .document_bytes_max = 1 << 16};
    const gidd_corpus_part           part = {.bytes = data, .size = size};
    gidd_corpus_counts               counts;
    char                             digest[GIDD_DIGEST_SIZE];
    gidd_log_set_level(GIDD_LOG_ERROR);
    (void)!gidd_corpus_part_read(&part, &options, take_document, NULL, &counts, digest);
    (void)!gidd_corpus_part_digest(&part, &options, digest);
    return 0;
}
