/* SPDX-License-Identifier: Apache-2.0
 *
 * A look into the cache of words with AVX2: for both encoding loops that have it.
 */
#ifndef GIDD_TOKENIZER_BPE_FIND_AVX2_INL
#define GIDD_TOKENIZER_BPE_FIND_AVX2_INL

#include "tokenizer/bpe_internal.h"

#include <immintrin.h>

/* Compares both keys of a line at once: bits 0 and 2 of `both` are hits of the first and second. */
static inline const uint16_t *find(const bpe_cache_line *line, const uint64_t key[2])
{
    const __m256i wanted =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i_u *)(const void *)key));
    const __m256i keys = _mm256_load_si256((const __m256i *)(const void *)line->key);
    unsigned same =
        (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(keys, wanted)));
    unsigned both = same & same >> 1;
    return __builtin_expect((both & 5) == 0, 0) ? NULL : line->ids[~both & 1];
}

#endif
