/* SPDX-License-Identifier: Apache-2.0
 *
 * index.json of a data set. One that is accepted keeps what its header promises.
 */
#include "fuzz/fuzz.h"

#include "io/shard_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gidd_shard_info   info;
    gidd_shard_entry *entries = NULL;
    (void)fuzz_file("index.json", data, size);
    if (gidd_shard_index_read(fuzz_folder(), &info, &entries) == GIDD_OK) {
        int64_t documents = 0, tokens = 0;
        for (int64_t i = 0; i < info.shard_count; i++) {
            documents += entries[i].document_count;
            tokens += entries[i].token_count;
        }
        FUZZ_CHECK(documents == info.document_count && tokens == info.token_count);
        FUZZ_CHECK(info.valid_documents >= 0 && info.valid_documents < info.document_count);
        FUZZ_CHECK(info.vocab_size >= 1 && info.vocab_size <= 65536);
        free(entries);
    }
    return 0;
}
