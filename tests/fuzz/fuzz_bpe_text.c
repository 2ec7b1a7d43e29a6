/* SPDX-License-Identifier: Apache-2.0
 *
 * Text of any bytes: the ids are those of the plain reference, and decode to the same bytes.
 */
#include "fuzz/fuzz.h"

#include "tokenizer/bpe.h"
#include "tokenizer/bpe_reference.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bpe_reference    *reference;
    static gidd_bpe         *bpe;
    static gidd_bpe_encoder *encoder;
    if (encoder == NULL) {
        reference = bpe_reference_create(1);
        bpe_reference_write(reference, fuzz_folder());
        FUZZ_CHECK(gidd_bpe_load(fuzz_folder(), &bpe) == GIDD_OK);
        FUZZ_CHECK(gidd_bpe_encoder_create(bpe, &encoder) == GIDD_OK);
    }
    uint16_t *ids = malloc((size + 1) * sizeof *ids), *expected = malloc((size + 1) * sizeof *ids);
    uint8_t  *text = malloc(size + 1);
    size_t    count = 0, bytes = 0;
    FUZZ_CHECK(ids != NULL && expected != NULL && text != NULL);
    FUZZ_CHECK(gidd_bpe_encode(encoder, data, size, ids, size, &count) == GIDD_OK);
    FUZZ_CHECK(bpe_reference_encode(reference, data, size, expected) == count);
    FUZZ_CHECK(count == 0 || memcmp(ids, expected, count * sizeof *ids) == 0);
    FUZZ_CHECK(gidd_bpe_decode(bpe, ids, count, GIDD_BPE_SPECIALS_REFUSE, text, size, &bytes) == GIDD_OK);
    FUZZ_CHECK(bytes == size && (size == 0 || memcmp(text, data, size) == 0));
    free(text);
    free(expected);
    free(ids);
    return 0;
}
