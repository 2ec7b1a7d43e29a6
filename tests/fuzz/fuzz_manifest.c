/* SPDX-License-Identifier: Apache-2.0
 *
 * A checkpoint's manifest: as it is, and once more with its checksum put right, since no mutation would
 * get past that otherwise.
 */
#include "fuzz/fuzz.h"

#include "io/checkpoint_manifest.h"

#include <string.h>

enum { DIGITS = GIDD_DIGEST_SIZE - 1 };

static void use_manifest(const char *text, size_t size)
{
    gidd_manifest manifest;
    memset(&manifest, 0, sizeof manifest);
    if (gidd_manifest_decode(text, size, &manifest) == GIDD_OK) {
        const gidd_checkpoint_layout *layout = &manifest.layout;
        int64_t                       next = 0;
        for (int64_t i = 0; i < layout->tensor_count; i++) {
            FUZZ_CHECK(layout->tensors[i].offset == next);
            next += layout->tensors[i].shape[0] * layout->tensors[i].shape[1];
        }
        FUZZ_CHECK(next == layout->elements);
        FUZZ_CHECK(manifest.block_count == gidd_checkpoint_block_count(layout));
        gidd_manifest_release(&manifest);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char key[] = "\"checksum\": \"";
    use_manifest((const char *)data, size);
    const char *at = memmem(data, size, key, sizeof key - 1);
    size_t      first = at != NULL ? (size_t)(at - (const char *)data) + sizeof key - 1 : size;
    if (first + DIGITS < size) {
        char  digest[GIDD_DIGEST_SIZE];
        char *text = malloc(size);
        FUZZ_CHECK(text != NULL);
        memcpy(text, data, size);
        memset(text + first, '0', DIGITS);
        gidd_digest_of(text, size, digest);
        memcpy(text + first, digest, DIGITS);
        use_manifest(text, size);
        free(text);
    }
    return 0;
}
