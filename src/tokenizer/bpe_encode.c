/* SPDX-License-Identifier: Apache-2.0
 *
 * The encoder's caches and everything that is not in the loop of bpe_encode.inl.
 */
#include "tokenizer/bpe_internal.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    L = BPE_ASCII_LETTER,
    N = BPE_ASCII_NUMBER,
    S = BPE_ASCII_SPACE,
    B = BPE_ASCII_SPACE | BPE_ASCII_BLANK,
    Q = BPE_ASCII_APOSTROPHE,
    D = BPE_ASCII_LETTER | BPE_ASCII_SDMT,
    R = BPE_ASCII_LETTER | BPE_ASCII_RV,
    E = BPE_ASCII_LETTER | BPE_ASCII_L,
};

const uint8_t gidd_bpe_ascii_class[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, S, S, S, S, S, 0, 0, // ^A ..
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // ^P ..
    B, 0, 0, 0, 0, 0, 0, Q, 0, 0, 0, 0, 0, 0, 0, 0, // !"#$%&'()*+,-./
    N, N, N, N, N, N, N, N, N, N, 0, 0, 0, 0, 0, 0, // 0123456789:;<=>?
    0, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, // @ABCDEFGHIJKLMNO
    L, L, L, L, L, L, L, L, L, L, L, 0, 0, 0, 0, 0, // PQRSTUVWXYZ[\]^_
    0, L, L, L, D, L, L, L, L, L, L, L, E, D, L, L, // `abcdefghijklmno
    L, L, R, D, D, L, R, L, L, L, L, 0, 0, 0, 0, 0, // pqrstuvwxyz{|}~
};

static int always(void)
{
    return 1;
}

#if defined(__x86_64__)
static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
           __builtin_cpu_supports("bmi2");
}

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}
#endif

const bpe_variant gidd_bpe_variants[] = {
#if defined(__x86_64__)
    {"avx512", gidd_bpe_encode_avx512, has_avx512},
    {"avx2", gidd_bpe_encode_avx2, has_avx2},
#endif
    {"portable", gidd_bpe_encode_portable, always},
    {NULL, NULL, NULL},
};

const uint64_t gidd_bpe_key_mask[17][2] = {
    {0x0000000000000000, 0x0000000000000000},
    {0x00000000000000FF, 0x0000000000000000},
    {0x000000000000FFFF, 0x0000000000000000},
    {0x0000000000FFFFFF, 0x0000000000000000},
    {0x00000000FFFFFFFF, 0x0000000000000000},
    {0x000000FFFFFFFFFF, 0x0000000000000000},
    {0x0000FFFFFFFFFFFF, 0x0000000000000000},
    {0x00FFFFFFFFFFFFFF, 0x0000000000000000},
    {0xFFFFFFFFFFFFFFFF, 0x0000000000000000},
    {0xFFFFFFFFFFFFFFFF, 0x00000000000000FF},
    {0xFFFFFFFFFFFFFFFF, 0x000000000000FFFF},
    {0xFFFFFFFFFFFFFFFF, 0x0000000000FFFFFF},
    {0xFFFFFFFFFFFFFFFF, 0x00000000FFFFFFFF},
    {0xFFFFFFFFFFFFFFFF, 0x000000FFFFFFFFFF},
    {0xFFFFFFFFFFFFFFFF, 0x0000FFFFFFFFFFFF},
    {0xFFFFFFFFFFFFFFFF, 0x00FFFFFFFFFFFFFF},
    {0, 0},
};

/* Remembers a word of 1 .. 15 bytes, padded with zeros to 16. */
static void insert_short(gidd_bpe_encoder *encoder, const uint8_t *padded, size_t bytes,
                         const uint16_t *ids, size_t count)
{
    uint64_t key[2];
    memcpy(key, padded, sizeof(key));
    key[1] |= (uint64_t)bytes << 56;
    bpe_cache_line *line = &encoder->lines[bpe_cache_index(key[0], key[1])];
    memcpy(line->key[1], line->key[0], sizeof(line->key[0]));
    memcpy(line->ids[1], line->ids[0], sizeof(line->ids[0]));
    memcpy(line->key[0], key, sizeof(line->key[0]));
    memset(line->ids[0], 0, sizeof(line->ids[0]));
    memcpy(line->ids[0], ids, count * sizeof(*ids));
    line->ids[0][7] = (uint16_t)count;
}

static size_t encode_medium(gidd_bpe_encoder *encoder, const uint8_t *word, size_t bytes,
                            uint16_t *ids)
{
    uint64_t hash = XXH3_64bits(word, bytes);
    bpe_long_word *cached = &encoder->long_words[hash >> (64 - BPE_LONG_WORD_BITS)];
    if (cached->length == bytes && memcmp(cached->text, word, bytes) == 0) {
        memcpy(ids, cached->ids, cached->id_count * sizeof(*ids));
        return cached->id_count;
    }
    size_t count = gidd_bpe_merge_long(encoder->bpe, word, bytes, ids);
    if (count <= BPE_LONG_WORD_IDS) {
        memcpy(cached->text, word, bytes);
        memcpy(cached->ids, ids, count * sizeof(*ids));
        cached->id_count = (uint16_t)count;
        cached->length = (uint16_t)bytes;
    }
    return count;
}

static size_t encode_short(gidd_bpe_encoder *encoder, const uint8_t *word, size_t bytes,
                           uint16_t *ids)
{
    uint8_t padded[32] = {0};
    memcpy(padded, word, bytes);
    size_t count = gidd_bpe_merge_short(encoder->bpe, padded, bytes, ids);
    if (count <= BPE_SHORT_WORD_IDS) {
        insert_short(encoder, padded, bytes, ids, count);
    }
    return count;
}

size_t gidd_bpe_encode_word(gidd_bpe_encoder *encoder, const uint8_t *word, size_t bytes,
                            uint16_t *ids)
{
    if (bytes <= BPE_SHORT_WORD_BYTES) {
        return encode_short(encoder, word, bytes, ids);
    }
    if (bytes <= BPE_LONG_WORD_BYTES) {
        return encode_medium(encoder, word, bytes, ids);
    }
    return gidd_bpe_merge_long(encoder->bpe, word, bytes, ids);
}

/* Starts with the vocabulary itself in the cache, the most frequent tokens, made first, last. */
static void fill_cache(gidd_bpe_encoder *encoder)
{
    const gidd_bpe *bpe = encoder->bpe;
    for (int32_t s = bpe->symbol_count - 1; s >= 0; s--) {
        size_t length = bpe->symbols[s].length;
        if (bpe->produced[s] && length <= BPE_SHORT_WORD_BYTES) {
            uint8_t padded[16] = {0};
            memcpy(padded, bpe->text + bpe->text_at[bpe->id_of[s]], length);
            insert_short(encoder, padded, length, &bpe->id_of[s], 1);
        }
    }
}

gidd_status gidd_bpe_encoder_create(const gidd_bpe *bpe, gidd_bpe_encoder **encoder_p)
{
    size_t line_bytes = sizeof(bpe_cache_line) << BPE_CACHE_LINE_BITS;
    gidd_bpe_encoder *encoder = calloc(1, sizeof(*encoder));
    if (encoder == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for an encoder");
    }
    encoder->bpe = bpe;
    encoder->lines = gidd_bpe_allocate_table(line_bytes);
    encoder->long_words = calloc((size_t)1 << BPE_LONG_WORD_BITS, sizeof(*encoder->long_words));
    if (encoder->lines == NULL || encoder->long_words == NULL) {
        gidd_bpe_encoder_destroy(encoder);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the caches of an encoder");
    }
    memset(encoder->lines, 0, line_bytes);
    fill_cache(encoder);
    const bpe_variant *variant = gidd_bpe_variants;
    while (!variant->is_supported()) {
        variant++;
    }
    encoder->encode = variant->encode;
    *encoder_p = encoder;
    return GIDD_OK;
}

void gidd_bpe_encoder_destroy(gidd_bpe_encoder *encoder)
{
    if (encoder == NULL) {
        return;
    }
    free(encoder->lines);
    free(encoder->long_words);
    free(encoder);
}

gidd_status gidd_bpe_encode(gidd_bpe_encoder *encoder, const uint8_t *text, size_t bytes,
                            uint16_t *ids, size_t capacity, size_t *count_p)
{
    if (capacity < bytes) {
        return gidd_fail(GIDD_ERR_ARG, "%zu bytes of text need room for as many ids, not %zu",
                         bytes, capacity);
    }
    *count_p = bytes == 0 ? 0 : encoder->encode(encoder, text, bytes, ids);
    return GIDD_OK;
}
