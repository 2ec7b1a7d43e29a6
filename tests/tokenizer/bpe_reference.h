/* SPDX-License-Identifier: Apache-2.0
 *
 * BPE as its definition says, character by character and merge by merge, over a random vocabulary:
 * slow, and sharing nothing with the code it checks but the table of character classes.
 */
#ifndef GIDD_TESTS_TOKENIZER_BPE_REFERENCE_H
#define GIDD_TESTS_TOKENIZER_BPE_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

enum { REFERENCE_MERGES = 700, REFERENCE_SIZE = 256 + REFERENCE_MERGES + 1 };

typedef struct bpe_reference {
    uint16_t id_of[REFERENCE_SIZE];      /* symbol (byte, or 256 + merge) -> id */
    uint16_t parts[REFERENCE_MERGES][2]; /* symbols */
    char text[REFERENCE_SIZE][64];       /* of a symbol, as the files write it */
    int eos;
    uint8_t *char_table;
} bpe_reference;

/* A random vocabulary. Frees: bpe_reference_destroy. */
bpe_reference *bpe_reference_create(uint64_t seed);
void bpe_reference_destroy(bpe_reference *reference);

/* Writes vocab.bpe and encoder.json into the existing folder `dir`. */
void bpe_reference_write(const bpe_reference *reference, const char *dir);

/* Returns the number of ids. */
size_t bpe_reference_encode(const bpe_reference *reference, const uint8_t *text, size_t bytes,
                            uint16_t *ids);

#endif
