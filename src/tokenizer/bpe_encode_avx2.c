/* SPDX-License-Identifier: Apache-2.0
 *
 * The encoding loop with AVX2 and BMI2: Haswell, Zen and later.
 */
#include "tokenizer/bpe_internal.h"
#include "tokenizer/bpe_masks.h"
#include "tokenizer/unicode_class.h"

#include <immintrin.h>
#include <string.h>

static inline uint64_t mask_of(__m256i low, __m256i high)
{
    return (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high)
                                                     << 32;
}

/* The bytes from `first` to `last`, a range within 0 .. 127, of 64. */
static inline uint64_t between(__m256i low, __m256i high, char first, char last)
{
    const __m256i below = _mm256_set1_epi8((char)(first - 1)),
                  above = _mm256_set1_epi8((char)(last + 1));
    return mask_of(
        _mm256_and_si256(_mm256_cmpgt_epi8(low, below), _mm256_cmpgt_epi8(above, low)),
        _mm256_and_si256(_mm256_cmpgt_epi8(high, below), _mm256_cmpgt_epi8(above, high)));
}

static inline uint64_t equal(__m256i low, __m256i high, char byte)
{
    const __m256i wanted = _mm256_set1_epi8(byte);
    return mask_of(_mm256_cmpeq_epi8(low, wanted), _mm256_cmpeq_epi8(high, wanted));
}

static inline void classify(const uint8_t *block, block_masks *m)
{
    const __m256i low = _mm256_loadu_si256((const __m256i_u *)(const void *)block);
    const __m256i high = _mm256_loadu_si256((const __m256i_u *)(const void *)(block + 32));
    const __m256i fold = _mm256_set1_epi8(0x20);
    m->letter = between(_mm256_or_si256(low, fold), _mm256_or_si256(high, fold), 'a', 'z');
    m->number = between(low, high, '0', '9');
    m->blank = equal(low, high, ' ');
    m->space = m->blank | between(low, high, '\t', '\r');
    m->space_lead1 = m->space;
    m->apostrophe = equal(low, high, '\'');
    m->sdmt = equal(low, high, 's') | equal(low, high, 'd') | equal(low, high, 'm') |
              equal(low, high, 't');
    m->rv = equal(low, high, 'r') | equal(low, high, 'v');
    m->l = equal(low, high, 'l');
    m->e = equal(low, high, 'e');
    const __m256i lead = _mm256_set1_epi8((char)0xC2);
    m->lead = mask_of(_mm256_cmpeq_epi8(_mm256_max_epu8(low, lead), low),
                      _mm256_cmpeq_epi8(_mm256_max_epu8(high, lead), high));
}

/* Eight at a time: a mispredicted loop exit costs more than the positions written in vain. */
static inline size_t write_ends(uint64_t bits, size_t offset, uint16_t *ends)
{
    size_t count = (size_t)_mm_popcnt_u64(bits);
    for (size_t i = 0; i < count; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            ends[i + k] = (uint16_t)(offset + _tzcnt_u64(bits));
            bits = _blsr_u64(bits);
        }
    }
    return count;
}

#define BPE_ENCODE_FUNCTION gidd_bpe_encode_avx2
#include "tokenizer/bpe_find_avx2.inl"
#include "tokenizer/bpe_encode.inl"
