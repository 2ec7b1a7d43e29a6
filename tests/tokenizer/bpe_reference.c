/* SPDX-License-Identifier: Apache-2.0 */
#include "bpe_reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "tokenizer/unicode_class.h"

typedef struct character {
    size_t at;
    gidd_char_class class;
} character;

static void write_byte(unsigned byte, char text[3])
{
    unsigned other = 0x100;
    for (unsigned b = 0; b <= byte; b++) {
        int prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        unsigned point = prints ? b : other++;
        text[0] = (char)(point < 0x80 ? point : 0xC0 | point >> 6);
        text[1] = (char)(point < 0x80 ? 0 : 0x80 | (point & 0x3F));
        text[2] = 0;
    }
}

static int is_new(const bpe_reference *r, int symbols, const char *text)
{
    for (int s = 0; s < symbols; s++) {
        if (strcmp(r->text[s], text) == 0) {
            return 0;
        }
    }
    return 1;
}

/* Parts are few bytes, most often a, b and c, and what was merged before: then many symbols are
 * never produced, because an earlier merge takes a part of them, and the longest is often wrong. */
static void draw_merges(bpe_reference *r, uint64_t seed)
{
    static const uint8_t seeds[] = "aabbcde' \n1.\xC3\xA9\xE3\x80";
    uint64_t draw = 0;
    for (int m = 0; m < REFERENCE_MERGES;) {
        int part[2];
        for (int k = 0; k < 2; k++) {
            uint64_t pick = gidd_uniform_below(seed, GIDD_STREAM_TOKEN, draw++, 0, 100);
            int is_byte = pick < 50 || m == 0;
            uint64_t of = pick < 30 ? 5
                          : is_byte ? sizeof(seeds) - 1
                                    : (uint64_t)m; // 5: a and b, c
            uint64_t at = gidd_uniform_below(seed, GIDD_STREAM_TOKEN, draw++, 0, of);
            part[k] = is_byte ? seeds[at] : 256 + (int)at;
        }
        char text[128];
        snprintf(text, sizeof(text), "%s%s", r->text[part[0]], r->text[part[1]]);
        if (strlen(text) < sizeof(r->text[0]) / 2 && is_new(r, 256 + m, text)) {
            strcpy(r->text[256 + m], text);
            r->parts[m][0] = (uint16_t)part[0];
            r->parts[m][1] = (uint16_t)part[1];
            m++;
        }
    }
}

bpe_reference *bpe_reference_create(uint64_t seed)
{
    bpe_reference *r = calloc(1, sizeof(*r));
    for (unsigned byte = 0; byte < 256; byte++) {
        write_byte(byte, r->text[byte]);
    }
    draw_merges(r, seed);
    strcpy(r->text[REFERENCE_SIZE - 1], "<|endoftext|>");
    for (int s = 0; s < REFERENCE_SIZE; s++) { // a permutation: ids need not follow the merges
        r->id_of[s] = (uint16_t)((s * 37 + 11) % REFERENCE_SIZE);
    }
    r->eos = r->id_of[REFERENCE_SIZE - 1];
    r->char_table = malloc(GIDD_CHAR_TABLE_BYTES);
    gidd_char_table_init(r->char_table);
    return r;
}

void bpe_reference_destroy(bpe_reference *r)
{
    free(r->char_table);
    free(r);
}

void bpe_reference_write(const bpe_reference *r, const char *dir)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/vocab.bpe", dir);
    FILE *merges = fopen(path, "wb");
    fprintf(merges, "#version: 0.2\n");
    for (int m = 0; m < REFERENCE_MERGES; m++) {
        fprintf(merges, "%s %s\n", r->text[r->parts[m][0]], r->text[r->parts[m][1]]);
    }
    fclose(merges);
    snprintf(path, sizeof(path), "%s/encoder.json", dir);
    FILE *ids = fopen(path, "wb");
    for (int s = 0; s < REFERENCE_SIZE; s++) {
        fprintf(ids, "%s\"%s%s\": %d", s == 0 ? "{" : ", ",
                r->text[s][0] == '"' || r->text[s][0] == '\\' ? "\\" : "", r->text[s], r->id_of[s]);
    }
    fprintf(ids, "}");
    fclose(ids);
}

static size_t read_characters(const bpe_reference *r, const uint8_t *text, size_t bytes,
                              character *characters)
{
    size_t count = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t point = text[at];
        size_t length = 1;
        if (point >= 0x80) {
            length = gidd_char_decode(text + at, bytes - at, &point);
            point = length == 1 ? 0xFFFD : point;
        }
        characters[count++] =
            (character){.at = at, .class = gidd_char_class_of(r->char_table, point)};
        at += length;
    }
    characters[count] = (character){.at = bytes, .class = GIDD_CHAR_SPACE};
    return count;
}

/* The number of characters that the pattern matches at c[0]; `count` are left. */
static size_t match(const uint8_t *text, const character *c, size_t count)
{
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    const char *rest = (const char *)text + c->at;
    for (size_t k = 0; k < sizeof(contractions) / sizeof(contractions[0]); k++) {
        size_t length = strlen(contractions[k]);
        if (length <= c[count].at - c->at && memcmp(rest, contractions[k], length) == 0) {
            return length;
        }
    }
    size_t blank = rest[0] == ' ' && count > 1;
    if (c[blank].class != GIDD_CHAR_SPACE) { // letters, numbers or others, maybe after a blank
        size_t n = blank;
        while (n < count && c[n].class == c[blank].class) {
            n++;
        }
        return n;
    }
    size_t n = 0;
    while (n < count && c[n].class == GIDD_CHAR_SPACE) {
        n++;
    }
    return n < count && n > 1 ? n - 1 : n;
}

static size_t merge_word(const bpe_reference *r, const uint8_t *word, size_t bytes, uint16_t *out)
{
    for (size_t i = 0; i < bytes; i++) {
        out[i] = word[i];
    }
    for (int m = 0; m < REFERENCE_MERGES; m++) {
        size_t kept = 0;
        for (size_t i = 0; i < bytes; kept++) {
            int merges = i + 1 < bytes && out[i] == r->parts[m][0] && out[i + 1] == r->parts[m][1];
            out[kept] = merges ? (uint16_t)(256 + m) : out[i];
            i += merges ? 2 : 1;
        }
        bytes = kept;
    }
    for (size_t i = 0; i < bytes; i++) {
        out[i] = r->id_of[out[i]];
    }
    return bytes;
}

size_t bpe_reference_encode(const bpe_reference *r, const uint8_t *text, size_t bytes,
                            uint16_t *ids)
{
    character *characters = malloc((bytes + 1) * sizeof(*characters));
    size_t count = read_characters(r, text, bytes, characters), ids_count = 0;
    for (size_t at = 0; at < count;) {
        size_t length = match(text, characters + at, count - at);
        size_t from = characters[at].at, to = characters[at + length].at;
        ids_count += merge_word(r, text + from, to - from, ids + ids_count);
        at += length;
    }
    free(characters);
    return ids_count;
}
