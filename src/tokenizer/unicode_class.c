/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/unicode_class.h"

#include <string.h>

#include "tokenizer/unicode_class_ranges.inl"

static void mark(uint8_t *table, const uint32_t ranges[][2], size_t count, gidd_char_class class)
{
    for (size_t i = 0; i < count; i++) {
        for (uint32_t point = ranges[i][0]; point <= ranges[i][1]; point++) {
            table[point >> 2] |= (uint8_t)((unsigned)class << ((point & 3u) * 2u));
        }
    }
}

void gidd_char_table_init(uint8_t *table)
{
    memset(table, 0, GIDD_CHAR_TABLE_BYTES);
    mark(table, letter_ranges, sizeof(letter_ranges) / sizeof(letter_ranges[0]), GIDD_CHAR_LETTER);
    mark(table, number_ranges, sizeof(number_ranges) / sizeof(number_ranges[0]), GIDD_CHAR_NUMBER);
    mark(table, space_ranges, sizeof(space_ranges) / sizeof(space_ranges[0]), GIDD_CHAR_SPACE);
}
