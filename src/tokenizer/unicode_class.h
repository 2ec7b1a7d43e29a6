/* SPDX-License-Identifier: Apache-2.0
 *
 * Classes of Unicode code points as the pre-tokenizer's pattern needs them: \p{L}, \p{N} and \s of
 * Unicode 16.0.0, the version of current tiktoken and Hugging Face tokenizers (141028 letters, 1911
 * numbers, 25 spaces). \s is the White_Space property: U+0085, U+00A0 and U+3000 are spaces;
 * U+001C .. U+001F, U+180E and U+200B are not.
 *
 * The table is generated and committed (unicode_class_ranges.inl), not made by the build: ids must not follow the Unicode
 * version of the machine that compiles, and Debian's unicode-data has another one. tests/tokenizer/unicode_tables.py
 * generates it again where a source of this version is present, and elsewhere compares what an older one knows.
 */
#ifndef GIDD_TOKENIZER_UNICODE_CLASS_H
#define GIDD_TOKENIZER_UNICODE_CLASS_H

#include <stddef.h>
#include <stdint.h>

typedef enum gidd_char_class {
    GIDD_CHAR_OTHER = 0,
    GIDD_CHAR_LETTER = 1,
    GIDD_CHAR_NUMBER = 2,
    GIDD_CHAR_SPACE = 3,
} gidd_char_class;

/* Two bits for each code point, four code points a byte. */
enum { GIDD_CHAR_TABLE_BYTES = 0x110000 / 4 };

/* Fills table[GIDD_CHAR_TABLE_BYTES]. Local. */
void gidd_char_table_init(uint8_t *table);

static inline gidd_char_class gidd_char_class_of(const uint8_t *table, uint32_t point)
{
    return (gidd_char_class)((table[point >> 2] >> ((point & 3u) * 2u)) & 3u);
}

/* Decodes the character that starts at text[0], a byte >= 0x80, with `bytes` >= 1 readable. Returns
 * its length 2 .. 4 and sets *point_p, or returns 1 with *point_p unchanged if no valid UTF-8
 * character starts here (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). */
static inline size_t gidd_char_decode(const uint8_t *text, size_t bytes, uint32_t *point_p)
{
    uint32_t lead = text[0];
    if (lead < 0xC2 || lead > 0xF4 || bytes < 2 || (text[1] & 0xC0) != 0x80) {
        return 1;
    }
    uint32_t second = text[1] & 0x3Fu;
    if (lead < 0xE0) {
        *point_p = (lead & 0x1Fu) << 6 | second;
        return 2;
    }
    if (bytes < 3 || (text[2] & 0xC0) != 0x80) {
        return 1;
    }
    uint32_t third = text[2] & 0x3Fu;
    if (lead < 0xF0) {
        uint32_t point = (lead & 0x0Fu) << 12 | second << 6 | third;
        if (point < 0x800 || (point >= 0xD800 && point < 0xE000)) {
            return 1;
        }
        *point_p = point;
        return 3;
    }
    if (bytes < 4 || (text[3] & 0xC0) != 0x80) {
        return 1;
    }
    uint32_t point = (lead & 0x07u) << 18 | second << 12 | third << 6 | (text[3] & 0x3Fu);
    if (point < 0x10000 || point > 0x10FFFF) {
        return 1;
    }
    *point_p = point;
    return 4;
}

#endif
