/* SPDX-License-Identifier: Apache-2.0
 *
 * A tokenizer's files: vocab.bpe, a NUL byte, encoder.json. A vocabulary that is accepted encodes every
 * byte and decodes it again.
 */
#include "fuzz/fuzz.h"

#include "tokenizer/bpe.h"

#include <string.h>

static void use_vocabulary(const gidd_bpe *bpe)
{
    gidd_bpe_encoder *encoder = NULL;
    uint8_t           text[256], again[256];
    uint16_t          ids[256];
    size_t            count = 0, bytes = 0;
    for (int i = 0; i < 256; i++) {
        text[i] = (uint8_t)(i * 7);
    }
    FUZZ_CHECK(gidd_bpe_encoder_create(bpe, &encoder) == GIDD_OK);
    FUZZ_CHECK(gidd_bpe_encode(encoder, text, sizeof text, ids, sizeof text, &count) == GIDD_OK);
    FUZZ_CHECK(gidd_bpe_decode(bpe, ids, count, GIDD_BPE_SPECIALS_REFUSE, again, sizeof again, &bytes) == GIDD_OK);
    FUZZ_CHECK(bytes == sizeof text && memcmp(text, again, sizeof text) == 0);
    gidd_bpe_encoder_destroy(encoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *cut = size > 0 ? memchr(data, 0, size) : NULL;
    size_t         merges = cut != NULL ? (size_t)(cut - data) : size;
    gidd_bpe      *bpe = NULL;
    (void)fuzz_file("vocab.bpe", data, merges);
    (void)fuzz_file("encoder.json", data + merges + (cut != NULL), size - merges - (cut != NULL));
    if (gidd_bpe_load(fuzz_folder(), &bpe) == GIDD_OK) {
        use_vocabulary(bpe);
        gidd_bpe_destroy(bpe);
    }
    return 0;
}
