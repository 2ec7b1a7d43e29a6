/* SPDX-License-Identifier: Apache-2.0
 *
 * The encoding loop with AVX-512 (BW, VL, VBMI, VBMI2): Ice Lake, Zen 4 and later.
 */
#include "tokenizer/bpe_internal.h"
#include "tokenizer/bpe_masks.h"
#include "tokenizer/unicode_class.h"

#include <immintrin.h>
#include <string.h>

/* One table of 128 bytes fits in two registers: a single instruction classifies 64 characters. */
static inline void classify(const uint8_t *block, block_masks *m)
{
    const __m512i bytes = _mm512_loadu_si512(block);
    const __m512i table0 = _mm512_loadu_si512(gidd_bpe_ascii_class);
    const __m512i table1 = _mm512_loadu_si512(gidd_bpe_ascii_class + 64);
    const __mmask64 ascii = ~_mm512_movepi8_mask(bytes);
    const __m512i classes = _mm512_maskz_permutex2var_epi8(ascii, table0, bytes, table1);
    m->letter = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(BPE_ASCII_LETTER));
    m->number = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(BPE_ASCII_NUMBER));
    m->space = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(BPE_ASCII_SPACE));
    m->blank = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(BPE_ASCII_BLANK));
    m->apostrophe = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(BPE_ASCII_APOSTROPHE));
    m->sdmt = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(BPE_ASCII_SDMT));
    m->rv = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(BPE_ASCII_RV));
    m->l = _mm512_movepi8_mask(classes); // BPE_ASCII_L is the sign bit
    m->e = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('e'));
    m->lead = _mm512_cmpge_epu8_mask(bytes, _mm512_set1_epi8((char)0xC2));
    m->space_lead1 = m->space;
}

/* The positions of the set bits are the numbers 0 .. 63 compressed by them. */
static inline size_t write_ends(uint64_t bits, size_t offset, uint16_t *ends)
{
    const __m512i numbers = _mm512_set_epi8(
        63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41,
        40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18,
        17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i first = _mm512_set1_epi16((short)offset);
    const __m512i found = _mm512_maskz_compress_epi8(bits, numbers);
    const __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(found));
    const __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(found, 1));
    _mm512_storeu_si512(ends, _mm512_add_epi16(low, first));
    _mm512_storeu_si512(ends + 32, _mm512_add_epi16(high, first));
    return (size_t)_mm_popcnt_u64(bits);
}

#define BPE_ENCODE_FUNCTION gidd_bpe_encode_avx512
#include "tokenizer/bpe_find_avx2.inl"
#include "tokenizer/bpe_encode.inl"
