/* SPDX-License-Identifier: Apache-2.0
 *
 * The encoding loop. A file that includes this one is compiled for one instruction set, defines
 * BPE_ENCODE_FUNCTION, and three functions before:
 *
 *   void classify(const uint8_t *block, block_masks *masks)
 *       fills the masks of 64 bytes as far as ASCII decides them
 *   size_t write_ends(uint64_t bits, size_t offset, uint16_t *ends)
 *       writes offset + position of each set bit and returns their number; may write up to 64
 *   const uint16_t *find(const bpe_cache_line *line, const uint64_t key[2])
 *       the ids of the word with this key, or NULL; without a branch on which of the two places
 *       has it, because that is as good as random
 *
 * Pre-tokenizing is done on bits, 64 bytes at a time (bit i is byte i of the block). All bytes of a
 * character carry its class, so that a class that differs from the one before is a word's start
 * whatever the length of the characters. The pattern's rules are then:
 *   - letters, numbers, others: a word starts where the class changes, but not after a blank
 *     (U+0020), which the word takes in;
 *   - spaces: a word starts where a run of them starts, and at the last character of a run that
 *     something follows (\s+(?!\S) gives that one back);
 *   - an apostrophe that starts a word and is followed by s, d, m, t, re, ve or ll makes a word
 *     with it, and the next word starts behind.
 */
#include <string.h>

typedef struct scanner {
    const uint8_t *text;
    const uint8_t *char_table;
    size_t bytes;
    size_t at;         /* of the block in `next` */
    block_masks next;  /* classified one block ahead: rules look up to 3 bytes ahead */
    uint64_t spill[4]; /* classes of the first bytes of the block after next */
    uint64_t letter, number, other, space, blank; /* bit 0: class of the byte before the block */
    uint64_t clear, set; /* first bits of the block: contractions that began before it */
} scanner;

/* Adds the characters of two bytes and more whose lead byte is in the block at `at`. */
static void classify_multibyte(scanner *s, size_t at, block_masks *m)
{
    uint64_t class_mask[4] = {0, m->letter, m->number, m->space};
    for (uint64_t leads = m->lead; leads != 0; leads &= leads - 1) {
        unsigned i = (unsigned)__builtin_ctzll(leads);
        uint32_t point = 0;
        size_t length = gidd_char_decode(s->text + at + i, s->bytes - at - i, &point);
        if (length == 1) {
            continue; // invalid: of class other, as whatever is not marked
        }
        gidd_char_class class = gidd_char_class_of(s->char_table, point);
        uint64_t bits = (UINT64_C(1) << length) - 1;
        class_mask[class] |= bits << i;
        s->spill[class] |= i + length > 64 ? bits >> (64 - i) : 0;
        if (class == GIDD_CHAR_SPACE) { // no space has four bytes
            m->space_lead2 |= length == 2 ? UINT64_C(1) << i : 0;
            m->space_lead3 |= length == 3 ? UINT64_C(1) << i : 0;
        }
    }
    m->letter = class_mask[GIDD_CHAR_LETTER];
    m->number = class_mask[GIDD_CHAR_NUMBER];
    m->space = class_mask[GIDD_CHAR_SPACE];
}

/* Classifies the block at s->at into s->next. What is behind the text counts as space, so that a
 * run of spaces at its end stays whole. */
static inline void load_next(scanner *s)
{
    block_masks *m = &s->next;
    if (s->bytes - s->at >= 64) {
        classify(s->text + s->at, m);
    } else {
        uint8_t block[64] = {0};
        size_t rest = s->bytes - s->at;
        memcpy(block, s->text + s->at, rest);
        classify(block, m);
        m->space |= ~UINT64_C(0) << rest;
    }
    m->space_lead2 = 0;
    m->space_lead3 = 0;
    m->letter |= s->spill[GIDD_CHAR_LETTER];
    m->number |= s->spill[GIDD_CHAR_NUMBER];
    m->space |= s->spill[GIDD_CHAR_SPACE];
    memset(s->spill, 0, sizeof(s->spill));
    if (m->lead != 0) {
        classify_multibyte(s, s->at, m);
    }
}

/* The bits `distance` bytes ahead of each byte of a block. */
static inline uint64_t ahead(uint64_t bits, uint64_t next, unsigned distance)
{
    return bits >> distance | next << (64 - distance);
}

static inline uint64_t contractions(scanner *s, const block_masks *m, uint64_t starts)
{
    const block_masks *n = &s->next;
    uint64_t quotes = starts & m->apostrophe;
    uint64_t with1 = quotes & ahead(m->sdmt, n->sdmt, 1);
    uint64_t with2 = quotes & ((ahead(m->rv, n->rv, 1) & ahead(m->e, n->e, 2)) |
                               (ahead(m->l, n->l, 1) & ahead(m->l, n->l, 2)));
    uint64_t with = with1 | with2;
    uint64_t clear = with << 1 | s->clear, set = with1 << 2 | with2 << 3 | s->set;
    s->clear = with >> 63;
    s->set = with1 >> 62 | with2 >> 61;
    return (starts & ~clear) | set;
}

/* The word starts of the block before s->next; takes the step to the next block. */
static inline uint64_t word_starts(scanner *s)
{
    block_masks m = s->next;
    uint64_t other = ~(m.letter | m.number | m.space);
    s->at += 64;
    if (s->at < s->bytes) {
        load_next(s);
    } else {
        s->next = (block_masks){.space = ~UINT64_C(0)};
    }
    uint64_t after_space = m.space << 1 | s->space;
    uint64_t starts = (m.letter & ~(m.letter << 1 | s->letter)) |
                      (m.number & ~(m.number << 1 | s->number)) |
                      (other & ~(other << 1 | s->other));
    starts &= ~(m.blank << 1 | s->blank);
    uint64_t ends1 = m.space_lead1 & ~ahead(m.space, s->next.space, 1);
    uint64_t leads = m.space_lead1 | m.space_lead2 | m.space_lead3;
    uint64_t ends2 = m.space_lead2 & ~ahead(m.space, s->next.space, 2);
    uint64_t ends3 = m.space_lead3 & ~ahead(m.space, s->next.space, 3);
    starts |= (leads & ~after_space) | ends1 | ends2 | ends3;
    s->letter = m.letter >> 63;
    s->number = m.number >> 63;
    s->other = other >> 63;
    s->space = m.space >> 63;
    s->blank = m.blank >> 63;
    return contractions(s, &m, starts);
}

/* Scans up to BPE_SCAN_BLOCKS blocks; returns the number of word ends, relative to the first block.
 */
static size_t scan(scanner *s, uint16_t *ends)
{
    size_t count = 0, first = s->at;
    for (size_t block = 0; block < BPE_SCAN_BLOCKS && s->at < s->bytes; block++) {
        size_t rest = s->bytes - s->at;
        uint64_t bits = word_starts(s);
        if (rest <= 64) {
            bits &= ~UINT64_C(0) >> (64 - rest);
        }
        count += write_ends(bits, block * 64, ends + count);
    }
    if (s->at >= s->bytes) {
        ends[count++] = (uint16_t)(s->bytes - first);
    }
    return count;
}

/* The first bytes of a word as its key in the cache: zeros behind them, the length in the last
 * byte. Words of 16 bytes and more have the length 16, which is never found. */
static inline void make_key(const uint8_t *word, size_t bytes, uint64_t key[2])
{
    size_t length = bytes <= BPE_SHORT_WORD_BYTES ? bytes : BPE_SHORT_WORD_BYTES + 1;
    uint64_t raw[2];
    memcpy(raw, word, sizeof(raw));
    key[0] = raw[0] & gidd_bpe_key_mask[length][0];
    key[1] = (raw[1] & gidd_bpe_key_mask[length][1]) | (uint64_t)length << 56;
}

/* Looks up the words between `word` and base + ends[0 .. count) and returns the number of ids.
 * Finding a word's cache line and reading it are two loops, so that the misses of many lines
 * overlap. */
static size_t encode_words(gidd_bpe_encoder *encoder, const uint8_t *word, const uint8_t *base,
                           const uint16_t *ends, size_t count, uint16_t *ids)
{
    const bpe_cache_line *lines = encoder->lines;
    uint64_t(*keys)[2] = encoder->keys;
    uint32_t *at = encoder->line_at;
    uint16_t *out = ids;
    const uint8_t *first = word;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *end = base + ends[i];
        make_key(word, (size_t)(end - word), keys[i]);
        at[i] = bpe_cache_index(keys[i][0], keys[i][1]);
        __builtin_prefetch(&lines[at[i]]);
        word = end;
    }
    for (size_t i = 0; i < count; i++) {
        const uint16_t *found = find(&lines[at[i]], keys[i]);
        if (__builtin_expect(found != NULL, 1)) {
            memcpy(out, found, 8 * sizeof(*out));
            out += found[7];
        } else {
            word = i > 0 ? base + ends[i - 1] : first;
            out += gidd_bpe_encode_word(encoder, word, (size_t)(base + ends[i] - word), out);
        }
    }
    return (size_t)(out - ids);
}

/* The words that start in the last 15 bytes of the text, where loads of 16 bytes and stores of 8
 * ids would leave the caller's memory. */
static size_t encode_last_words(gidd_bpe_encoder *encoder, const uint8_t *word, const uint8_t *base,
                                const uint16_t *ends, size_t count, uint16_t *ids)
{
    uint16_t *out = ids;
    for (size_t i = 0; i < count; i++) {
        size_t bytes = (size_t)(base + ends[i] - word);
        uint8_t padded[16] = {0};
        uint64_t key[2];
        memcpy(padded, word, bytes < 16 ? bytes : 16);
        make_key(padded, bytes, key);
        const uint16_t *found = find(&encoder->lines[bpe_cache_index(key[0], key[1])], key);
        if (found != NULL) {
            memcpy(out, found, found[7] * sizeof(*out));
            out += found[7];
        } else {
            out += gidd_bpe_encode_word(encoder, word, bytes, out);
        }
        word = base + ends[i];
    }
    return (size_t)(out - ids);
}

size_t BPE_ENCODE_FUNCTION(gidd_bpe_encoder *encoder, const uint8_t *text, size_t bytes,
                           uint16_t *ids)
{
    scanner s = {.text = text, .char_table = encoder->bpe->char_table, .bytes = bytes, .clear = 1};
    const uint8_t  *word = text, *stop = text + bytes;
    const uint16_t *ends = encoder->ends;
    size_t          out = 0;
    load_next(&s);
    while (s.at < bytes) {
        const uint8_t *base = text + s.at;
        size_t         count = scan(&s, encoder->ends), far = count;
        // Word i starts at ends[i - 1]: how many are far enough from the end of the text?
        while (far > 0 && stop - (far > 1 ? base + ends[far - 2] : word) < 16) {
            far--;
        }
        out += encode_words(encoder, word, base, ends, far, ids + out);
        word = far > 0 ? base + ends[far - 1] : word;
        out += encode_last_words(encoder, word, base, ends + far, count - far, ids + out);
        word = count > 0 ? base + ends[count - 1] : word;
    }
    return out;
}
