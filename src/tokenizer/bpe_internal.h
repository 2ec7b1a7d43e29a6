/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the tokenizer share: the vocabulary as tables, the encoder's caches, and the
 * variants of the encoding loop. Not for other rooms.
 *
 * Inside, a token is a *symbol*: 0 .. 255 are the byte values, 256 + r is the result of merge r. A
 * larger symbol was therefore made later. id_of[] turns symbols into the vocabulary's ids at the
 * end.
 */
#ifndef GIDD_TOKENIZER_BPE_INTERNAL_H
#define GIDD_TOKENIZER_BPE_INTERNAL_H

#include "tokenizer/bpe.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "keys of words are little-endian integers");

enum {
    BPE_BYTE_SYMBOLS = 256,
    BPE_NO_SYMBOL = 0xFFFF,
    BPE_NO_LABEL = 0xFFFF,
    BPE_ROOT_BASE = 256, /* children of the trie's root; slots below are never a child */
    BPE_SHORT_WORD_BYTES = 15,
    BPE_SHORT_WORD_IDS = 7,
    BPE_LONG_WORD_BYTES = 48,
    BPE_LONG_WORD_IDS = 38,
    BPE_SYMBOL_BYTES = 65535, /* the longest token */
    BPE_PAIR_FILTER_BITS = 19,
    BPE_TEXT_SLOT_BYTES = 13,
    BPE_TEXT_SLOT_BITS = 17,
    BPE_TEXT_FILTER_BITS = 19,
};

/* Double-array trie over the bytes of all symbols that merging can produce. The child of a node for
 * byte c is slot base + c if that slot's label is c. No two nodes have the same base, so the label
 * alone proves the parent. */
typedef struct bpe_trie_slot {
    uint32_t base;   /* of the children; 0: none */
    uint16_t label;  /* the byte that leads here, or BPE_NO_LABEL */
    uint16_t symbol; /* the symbol that ends here, or BPE_NO_SYMBOL */
} bpe_trie_slot;

/* What is known about a symbol, together because it is used together. */
typedef struct bpe_symbol {
    uint16_t left; /* the two symbols it was merged from; BPE_NO_SYMBOL for bytes */
    uint16_t right;
    uint16_t shorter; /* the longest other symbol that its text starts with, or BPE_NO_SYMBOL */
    uint16_t length;  /* bytes */
} bpe_symbol;

typedef struct bpe_pair_slot {
    uint32_t key;    /* left << 16 | right */
    uint32_t symbol; /* BPE_NO_SYMBOL: free */
} bpe_pair_slot;

/* A symbol of 1 .. 13 bytes by its text: an open hash table. */
typedef struct bpe_text_slot {
    uint64_t low; /* bytes 0 .. 7, zeros behind the text */
    uint64_t
        high; /* bytes 8 .. 12, the length in byte 13 (0: free), the symbol in bytes 14 and 15 */
} bpe_text_slot;

struct gidd_bpe {
    int32_t size;
    int32_t eos;
    int32_t symbol_count; /* 256 + merges */
    uint32_t pair_shift;  /* 64 - log2(slots) */
    uint32_t pair_mask;
    uint16_t *id_of;     /* [symbol_count] */
    bpe_symbol *symbols; /* [symbol_count] */
    uint8_t *produced;   /* [symbol_count] 1: the encoding of this symbol's text is the symbol */
    uint64_t
        *pair_filter; /* bitmap: no pair has a hash whose bit is 0. Small enough to stay near */
    bpe_pair_slot *pairs;
    uint64_t *text_filter; /* the same for texts */
    bpe_text_slot *text_slots;
    bpe_trie_slot *trie;
    uint32_t *text_at; /* [size + 1] bytes of id i: text[text_at[i] .. text_at[i + 1]) */
    uint8_t *text;
    uint8_t *char_table; /* unicode_class.h */
    char digest[33];
};

/* Cache of words of 1 .. 15 bytes: 64-byte lines of two. A key is the word padded with zeros, its
 * length in byte 15. ids[w][7] is the number of ids, at most 7: a hit stores all eight values and
 * advances by that number, without a branch. */
typedef struct bpe_cache_line {
    uint64_t key[2][2];
    uint16_t ids[2][8];
} bpe_cache_line;

/* Cache of words of 16 .. 48 bytes, direct mapped; length 0: free. */
typedef struct bpe_long_word {
    uint8_t text[BPE_LONG_WORD_BYTES];
    uint16_t ids[BPE_LONG_WORD_IDS];
    uint16_t id_count;
    uint16_t length;
} bpe_long_word;

enum {
    BPE_CACHE_LINE_BITS = 16,
    BPE_LONG_WORD_BITS = 13,
    BPE_SCAN_BLOCKS = 16, /* 64-byte blocks scanned before their words are looked up */
};

/* Encodes a text of at least one byte and returns the number of ids. */
typedef size_t bpe_encode_function(gidd_bpe_encoder *encoder, const uint8_t *text, size_t bytes,
                                   uint16_t *ids);

struct gidd_bpe_encoder {
    const gidd_bpe *bpe;
    bpe_encode_function *encode;
    bpe_cache_line *lines;
    bpe_long_word *long_words;
    uint16_t ends[BPE_SCAN_BLOCKS * 64 + 64];
    uint32_t line_at[BPE_SCAN_BLOCKS * 64 + 1];
    uint64_t keys[BPE_SCAN_BLOCKS * 64 + 1][2];
};

/* Bits of gidd_bpe_ascii_class[]. */
enum {
    BPE_ASCII_LETTER = 1,
    BPE_ASCII_NUMBER = 2,
    BPE_ASCII_SPACE = 4,
    BPE_ASCII_BLANK = 8, /* U+0020 */
    BPE_ASCII_APOSTROPHE = 16,
    BPE_ASCII_SDMT = 32, /* 's 'd 'm 't */
    BPE_ASCII_RV = 64,   /* 're 've */
    BPE_ASCII_L = 128,   /* 'll */
};
extern const uint8_t gidd_bpe_ascii_class[128];

/* [n]: the first n of 15 bytes; [16]: none. */
extern const uint64_t gidd_bpe_key_mask[17][2];

static inline uint64_t bpe_text_hash(uint64_t low, uint64_t high)
{
    return low * UINT64_C(0x9E3779B97F4A7C15) + high * UINT64_C(0xD6E8FEB86659FD93);
}

static inline uint32_t bpe_cache_index(uint64_t low, uint64_t high)
{
    return (uint32_t)(bpe_text_hash(low, high) >> (64 - BPE_CACHE_LINE_BITS));
}

static inline uint64_t bpe_pair_hash(uint32_t key)
{
    return key * UINT64_C(0x9E3779B97F4A7C15);
}

/* The symbol that merging left and right makes, or BPE_NO_SYMBOL: mostly the latter. */
static inline uint32_t bpe_pair_symbol(const gidd_bpe *bpe, uint32_t left, uint32_t right)
{
    uint32_t key = left << 16 | right;
    uint64_t hash = bpe_pair_hash(key);
    uint64_t bit = hash >> (64 - BPE_PAIR_FILTER_BITS);
    if ((bpe->pair_filter[bit / 64] >> (bit % 64) & 1) == 0) {
        return BPE_NO_SYMBOL;
    }
    uint32_t at = (uint32_t)(hash >> bpe->pair_shift);
    while (bpe->pairs[at].key != key && bpe->pairs[at].symbol != BPE_NO_SYMBOL) {
        at = (at + 1) & bpe->pair_mask;
    }
    return bpe->pairs[at].symbol;
}

/* Memory in huge pages if possible (fewer TLB misses), or NULL. Freed with free(). Local. */
void *gidd_bpe_allocate_table(size_t bytes);

/* Builds pairs and trie, and fills symbols[].shorter, from symbol_count, left, right and length
 * (bpe_tables.c). Local. */
gidd_status gidd_bpe_build_tables(gidd_bpe *bpe);

/* Whether symbols a and b next to each other stay as they are: no merge made before symbol `limit`
 * crosses the boundary between them while both sides are being built (bpe_merge.c). Local. */
int gidd_bpe_is_boundary(const gidd_bpe *bpe, uint32_t a, uint32_t b, uint32_t limit);

/* Encodes one word of 1 .. 15 bytes, of which 32 can be read; ids to ids[0 .. return value). Local. */
size_t gidd_bpe_merge_short(const gidd_bpe *bpe, const uint8_t *word, size_t bytes, uint16_t *ids);

/* Encodes one word of any length. Local. */
size_t gidd_bpe_merge_long(const gidd_bpe *bpe, const uint8_t *word, size_t bytes, uint16_t *ids);

/* Encodes one word of any length that the first cache does not hold, and remembers it
 * (bpe_encode.c). Local. */
size_t gidd_bpe_encode_word(gidd_bpe_encoder *encoder, const uint8_t *word, size_t bytes,
                            uint16_t *ids);

/* The encoding loop, once for each instruction set; the same ids from all. */
typedef struct bpe_variant {
    const char *name;
    bpe_encode_function *encode;
    int (*is_supported)(void);
} bpe_variant;

/* Best first; ends with the portable one, which is always supported, and a name of NULL. */
extern const bpe_variant gidd_bpe_variants[];

bpe_encode_function gidd_bpe_encode_portable;
bpe_encode_function gidd_bpe_encode_avx2;
bpe_encode_function gidd_bpe_encode_avx512;

#endif
