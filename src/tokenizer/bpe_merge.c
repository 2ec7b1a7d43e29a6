/* SPDX-License-Identifier: Apache-2.0
 *
 * BPE of one word without doing its merges one by one.
 *
 * A sequence of symbols is the encoding of its text exactly if every two neighbours are (that is:
 * if each pair is the encoding of its own text), because a merge across a boundary depends only on
 * the two symbols that touch it at that moment. And what the encoding of a text begins with is
 * itself the encoding of that part. So the word is covered from the left with the longest symbol
 * that is compatible with its left neighbour; when none fits, the last symbol is replaced by a
 * shorter one.
 *
 * This is linear: symbols 0 .. k that are pairwise compatible are *the* encoding of the text they
 * cover, so there is one way only to arrive at a position. Backtracking leaves a position for good,
 * and at each one at most all the symbols that begin there are tried.
 */
#include "tokenizer/bpe_internal.h"

#include <string.h>

/* While the word was merged, the symbols at both sides of the boundary grew. Walk back through all
 * pairs (a, b) that ever touched there, undoing the latest merge first. Had such a pair been a rule
 * c, it would have been applied unless a or b had been merged away before c: a with its left
 * neighbour (equal rules go leftmost first, so even by c itself), or b with its right one (strictly
 * before c). */
int gidd_bpe_is_boundary(const gidd_bpe *bpe, uint32_t a, uint32_t b, uint32_t limit)
{
    for (;;) {
        uint32_t made = bpe_pair_symbol(bpe, a, b);
        if (made < limit && made != BPE_NO_SYMBOL) {
            return 0;
        }
        if (a > b) { // an equal pair: the left one was made first
            if (a < BPE_BYTE_SYMBOLS) {
                return 1;
            }
            limit = a;
            a = bpe->symbols[a].right;
        } else {
            if (b < BPE_BYTE_SYMBOLS) {
                return 1;
            }
            limit = b + 1;
            b = bpe->symbols[b].left;
        }
    }
}

static inline uint32_t longest_symbol(const gidd_bpe *bpe, const uint8_t *text, size_t bytes)
{
    const bpe_trie_slot *trie = bpe->trie;
    uint32_t base = BPE_ROOT_BASE, found = BPE_NO_SYMBOL;
    for (size_t i = 0; i < bytes; i++) {
        bpe_trie_slot slot = trie[base + text[i]];
        if (slot.label != text[i]) {
            break;
        }
        found = slot.symbol != BPE_NO_SYMBOL ? slot.symbol : found;
        base = slot.base;
    }
    return found;
}

/* The symbol with this text, or BPE_NO_SYMBOL. */
static inline uint32_t symbol_of_text(const gidd_bpe *bpe, uint64_t low, uint64_t high)
{
    const uint64_t symbol_bits = UINT64_C(0xFFFF) << 48;
    uint32_t at = (uint32_t)(bpe_text_hash(low, high) >> (64 - BPE_TEXT_SLOT_BITS));
    for (;; at = (at + 1) & ((1u << BPE_TEXT_SLOT_BITS) - 1)) {
        bpe_text_slot slot = bpe->text_slots[at];
        if (slot.low == low && (slot.high & ~symbol_bits) == high) {
            return (uint32_t)(slot.high >> 48);
        }
        if (slot.high == 0) {
            return BPE_NO_SYMBOL;
        }
    }
}

/* The same without the trie, whose every step waits for the one before: all prefixes are tried
 * against the filter at once, then those that pass against the table, longest first. 16 bytes can
 * be read. */
static inline uint32_t longest_symbol_near(const gidd_bpe *bpe, const uint8_t *text, size_t bytes)
{
    if (bytes > BPE_TEXT_SLOT_BYTES) {
        return longest_symbol(bpe, text, bytes);
    }
    uint64_t raw[2];
    uint32_t candidates = 0;
    memcpy(raw, text, sizeof(raw));
    for (size_t n = 2; n <= bytes; n++) {
        uint64_t low = raw[0] & gidd_bpe_key_mask[n][0];
        uint64_t high = (raw[1] & gidd_bpe_key_mask[n][1]) | (uint64_t)n << 40;
        uint64_t bit = bpe_text_hash(low, high) >> (64 - BPE_TEXT_FILTER_BITS);
        candidates |= (uint32_t)(bpe->text_filter[bit / 64] >> (bit % 64) & 1) << n;
    }
    while (candidates != 0) {
        unsigned n = 31u - (unsigned)__builtin_clz(candidates);
        uint64_t low = raw[0] & gidd_bpe_key_mask[n][0];
        uint64_t high = (raw[1] & gidd_bpe_key_mask[n][1]) | (uint64_t)n << 40;
        uint32_t symbol = symbol_of_text(bpe, low, high);
        if (symbol != BPE_NO_SYMBOL) {
            return symbol;
        }
        candidates ^= UINT32_C(1) << n;
    }
    return text[0];
}

typedef uint32_t longest_function(const gidd_bpe *bpe, const uint8_t *text, size_t bytes);

static inline __attribute__((always_inline)) size_t merge(const gidd_bpe *bpe, const uint8_t *word,
                                                          size_t bytes, uint16_t *ids,
                                                          longest_function *longest)
{
    size_t count = 0, at = 0;
    uint32_t symbol = longest(bpe, word, bytes);
    for (;;) {
        size_t end = at + bpe->symbols[symbol].length;
        if (count == 0 || gidd_bpe_is_boundary(bpe, ids[count - 1], symbol, UINT32_MAX)) {
            ids[count++] = (uint16_t)symbol;
            if (end == bytes) {
                break;
            }
            at = end;
            symbol = longest(bpe, word + at, bytes - at);
            continue;
        }
        symbol = bpe->symbols[symbol].shorter;
        while (symbol == BPE_NO_SYMBOL) {
            GIDD_ASSERT(count > 0);
            symbol = ids[--count];
            at -= bpe->symbols[symbol].length;
            symbol = bpe->symbols[symbol].shorter;
        }
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = bpe->id_of[ids[i]];
    }
    return count;
}

size_t gidd_bpe_merge_short(const gidd_bpe *bpe, const uint8_t *word, size_t bytes, uint16_t *ids)
{
    return merge(bpe, word, bytes, ids, longest_symbol_near);
}

size_t gidd_bpe_merge_long(const gidd_bpe *bpe, const uint8_t *word, size_t bytes, uint16_t *ids)
{
    return merge(bpe, word, bytes, ids, longest_symbol);
}
