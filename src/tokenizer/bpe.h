/* SPDX-License-Identifier: Apache-2.0
 *
 * GPT-2's byte-level BPE: any byte string to 16-bit ids and back.
 *
 *   gidd_bpe           the vocabulary: immutable once loaded, shared by any number of threads
 *   gidd_bpe_encoder   caches and scratch of one thread; borrows its gidd_bpe
 *
 * Text is cut into words by the pattern
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * and every word is merged on its own. The ids are those of GPT-2 and depend on the bytes alone:
 * not on what was encoded before, not on the CPU. Cutting a text in two changes them at the cut.
 * \p{L}, \p{N} and \s are those of unicode_class.h. Bytes that are no valid UTF-8 (stray or missing
 * continuation bytes, overlong forms, surrogates, above U+10FFFF) are characters of their own,
 * neither letter, number nor space; they survive the round trip like all others. NUL is an ordinary
 * byte. No special token is recognised in text: "<|endoftext|>" is seven ordinary tokens.
 *
 * Time is O(bytes) whatever the text is, and encoding allocates nothing.
 */
#ifndef GIDD_TOKENIZER_BPE_H
#define GIDD_TOKENIZER_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* GPT-2's vocabulary, and the two specials that gidd's models append to it. */
enum {
    GIDD_BPE_GPT2_EOS = 50256, /* <|endoftext|>, also BOS */
    GIDD_BPE_GPT2_SIZE = 50257,
    GIDD_BPE_GPT2_PAD = 50257,
    GIDD_BPE_GPT2_MASK = 50258,
};

/* What decoding does with ids that stand for no text: EOS, PAD (= size) and MASK (= size + 1). */
typedef enum gidd_bpe_specials {
    GIDD_BPE_SPECIALS_REFUSE, /* GIDD_ERR_CORRUPT                                */
    GIDD_BPE_SPECIALS_SKIP,   /* nothing                                         */
    GIDD_BPE_SPECIALS_RENDER, /* "<|endoftext|>", "[PAD]", "[MASK]"              */
} gidd_bpe_specials;

typedef struct gidd_bpe gidd_bpe;
typedef struct gidd_bpe_encoder gidd_bpe_encoder;

/* Reads dir/vocab.bpe (merges) and dir/encoder.json (token -> id) and checks them against each
 * other: 256 byte tokens, every merge of two tokens made before it, ids 0 .. size-1 each once, and
 * <|endoftext|> or not. Any such vocabulary of at most 65534 ids is accepted, so that the specials
 * fit in 16 bits; whether it is GPT-2's is the caller's question (gidd_bpe_size, gidd_bpe_digest).
 * The caller owns *bpe_p. GIDD_ERR_MISSING: a file is not there; GIDD_ERR_IO: it cannot be read;
 * GIDD_ERR_CORRUPT: damaged, with file and line; GIDD_ERR_NOMEM. Local. */
gidd_status gidd_bpe_load(const char *dir, gidd_bpe **bpe_p);

/* Frees; NULL is allowed. No encoder may be in use any more. Local. */
void gidd_bpe_destroy(gidd_bpe *bpe);

/* Number of ids of the vocabulary: 50257 for GPT-2. PAD is this, MASK one more. Local. */
int32_t gidd_bpe_size(const gidd_bpe *bpe);

/* Id of <|endoftext|>, or -1 if the vocabulary has none. Local. */
int32_t gidd_bpe_eos(const gidd_bpe *bpe);

/* XXH3-128 over the bytes of vocab.bpe followed by those of encoder.json: 32 lower-case hexadecimal
 * digits, valid as long as `bpe`. Local. */
const char *gidd_bpe_digest(const gidd_bpe *bpe);

/* An encoder for one thread at a time; about 5 MiB. `bpe` is borrowed until the encoder is
 * destroyed. GIDD_ERR_NOMEM. Local. */
gidd_status gidd_bpe_encoder_create(const gidd_bpe *bpe, gidd_bpe_encoder **encoder_p);

/* Frees; NULL is allowed. Local. */
void gidd_bpe_encoder_destroy(gidd_bpe_encoder *encoder);

/* Encodes text[0 .. bytes) into ids[0 .. *count_p). A text never has more ids than bytes:
 * capacity >= bytes always suffices, and less is refused with GIDD_ERR_ARG. Ids beyond *count_p but
 * within capacity may be overwritten. An empty text has no ids. Local. */
gidd_status gidd_bpe_encode(gidd_bpe_encoder *encoder, const uint8_t *text, size_t bytes,
                            uint16_t *ids, size_t capacity, size_t *count_p);

/* Writes the bytes of ids[0 .. count) to text and their number to *bytes_p. With text NULL only
 * counts. GIDD_ERR_ARG: capacity is too small (text is then undefined); GIDD_ERR_CORRUPT: an id
 * that is not of the vocabulary, or a special under GIDD_BPE_SPECIALS_REFUSE. Local. */
gidd_status gidd_bpe_decode(const gidd_bpe *bpe, const uint16_t *ids, size_t count,
                            gidd_bpe_specials specials, uint8_t *text, size_t capacity,
                            size_t *bytes_p);

#endif
