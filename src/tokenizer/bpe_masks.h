/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known about 64 bytes of text: bit i speaks of byte i.
 */
#ifndef GIDD_TOKENIZER_BPE_MASKS_H
#define GIDD_TOKENIZER_BPE_MASKS_H

#include <stdint.h>

typedef struct block_masks {
    uint64_t letter, number, space; /* classes, on every byte of a character */
    uint64_t blank;                 /* U+0020 */
    uint64_t space_lead1;           /* first bytes of spaces of one, two and three bytes */
    uint64_t space_lead2;
    uint64_t space_lead3;
    uint64_t apostrophe;
    uint64_t sdmt, rv, l, e; /* letters of the contractions */
    uint64_t lead;           /* bytes >= 0xC2: only these can begin a longer character */
} block_masks;

#endif
