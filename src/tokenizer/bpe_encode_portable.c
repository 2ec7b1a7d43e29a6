/* SPDX-License-Identifier: Apache-2.0
 *
 * The encoding loop in plain C.
 */
#include "tokenizer/bpe_internal.h"
#include "tokenizer/bpe_masks.h"
#include "tokenizer/unicode_class.h"

#include <string.h>

/* Bit b of each of 8 bytes, as 8 bits. The product gathers the lowest bits of all bytes on top. */
static inline uint64_t gather(uint64_t classes, unsigned b)
{
    return ((classes >> b & UINT64_C(0x0101010101010101)) * UINT64_C(0x0102040810204080)) >> 56;
}

static inline void classify(const uint8_t *block, block_masks *m)
{
    *m = (block_masks){0};
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t classes = 0;
        for (unsigned k = 0; k < 8; k++) {
            uint8_t byte = block[i + k];
            uint64_t class = byte < 0x80 ? gidd_bpe_ascii_class[byte] : 0;
            classes |= class << (8 * k);
            m->e |= (uint64_t)(byte == 'e') << (i + k);
            m->lead |= (uint64_t)(byte >= 0xC2) << (i + k);
        }
        m->letter |= gather(classes, 0) << i;
        m->number |= gather(classes, 1) << i;
        m->space |= gather(classes, 2) << i;
        m->blank |= gather(classes, 3) << i;
        m->apostrophe |= gather(classes, 4) << i;
        m->sdmt |= gather(classes, 5) << i;
        m->rv |= gather(classes, 6) << i;
        m->l |= gather(classes, 7) << i;
    }
    m->space_lead1 = m->space;
}

static inline size_t write_ends(uint64_t bits, size_t offset, uint16_t *ends)
{
    size_t count = 0;
    for (; bits != 0; bits &= bits - 1) {
        ends[count++] = (uint16_t)(offset + (size_t)__builtin_ctzll(bits));
    }
    return count;
}

static inline const uint16_t *find(const bpe_cache_line *line, const uint64_t key[2])
{
    uint64_t miss0 = (line->key[0][0] ^ key[0]) | (line->key[0][1] ^ key[1]);
    uint64_t miss1 = (line->key[1][0] ^ key[0]) | (line->key[1][1] ^ key[1]);
    miss0 |= UINT64_C(0) - miss0; // the sign bit: not zero
    miss1 |= UINT64_C(0) - miss1;
    return __builtin_expect((miss0 & miss1) >> 63 != 0, 0) ? NULL : line->ids[miss0 >> 63];
}

#define BPE_ENCODE_FUNCTION gidd_bpe_encode_portable
#include "tokenizer/bpe_encode.inl"
