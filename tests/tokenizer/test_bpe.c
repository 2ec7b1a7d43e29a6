/* SPDX-License-Identifier: Apache-2.0
 *
 * The tokenizer against its definition (bpe_reference) over random vocabularies, with every variant
 * of the encoding loop that this CPU has.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "bpe_reference.h"
#include "tokenizer/bpe_internal.h"

enum { SEEDS = 4 };

typedef struct setting {
    char dir[64];
    bpe_reference *reference;
    gidd_bpe *bpe;
    gidd_bpe_encoder *encoder;
} setting;

static void path_in(const setting *s, const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", s->dir, name);
}

static void make_dir(setting *s)
{
    strcpy(s->dir, "/tmp/gidd-test-bpe-XXXXXX");
    cr_assert_not_null(mkdtemp(s->dir));
}

static void remove_dir(const setting *s)
{
    char path[128];
    path_in(s, "vocab.bpe", path);
    unlink(path);
    path_in(s, "encoder.json", path);
    unlink(path);
    rmdir(s->dir);
}

static setting open_setting(uint64_t seed)
{
    setting s = {.reference = bpe_reference_create(seed)};
    make_dir(&s);
    bpe_reference_write(s.reference, s.dir);
    cr_assert_eq(gidd_bpe_load(s.dir, &s.bpe), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(gidd_bpe_encoder_create(s.bpe, &s.encoder), GIDD_OK);
    return s;
}

static void close_setting(setting *s)
{
    gidd_bpe_encoder_destroy(s->encoder);
    gidd_bpe_destroy(s->bpe);
    bpe_reference_destroy(s->reference);
    remove_dir(s);
}

/* Encodes in a buffer of exactly the size, so that a sanitizer sees one byte too many. */
static void check(const setting *s, const uint8_t *text, size_t bytes)
{
    uint8_t *exact = malloc(bytes + (bytes == 0)), *back = malloc(bytes + 1);
    uint16_t *expected = malloc(bytes * 2 + 2), *ids = malloc(bytes * 2 + (bytes == 0));
    memcpy(exact, text, bytes);
    size_t wanted = bpe_reference_encode(s->reference, exact, bytes, expected);
    for (const bpe_variant *v = gidd_bpe_variants; v->name != NULL; v++) {
        size_t count = 77, decoded = 77;
        if (!v->is_supported()) {
            continue;
        }
        s->encoder->encode = v->encode;
        cr_assert_eq(gidd_bpe_encode(s->encoder, exact, bytes, ids, bytes, &count), GIDD_OK);
        cr_assert(count == wanted && memcmp(ids, expected, count * 2) == 0,
                  "%s: %zu ids, expected %zu, for %zu bytes: %.*s", v->name, count, wanted, bytes,
                  (int)bytes, (const char *)text);
        cr_assert_eq(
            gidd_bpe_decode(s->bpe, ids, count, GIDD_BPE_SPECIALS_REFUSE, back, bytes, &decoded),
            GIDD_OK);
        cr_assert(decoded == bytes && memcmp(back, text, bytes) == 0);
    }
    free(exact);
    free(back);
    free(expected);
    free(ids);
}

static size_t append(uint8_t *text, size_t at, const char *piece)
{
    memcpy(text + at, piece, strlen(piece));
    return at + strlen(piece);
}

/* All sequences of up to 4 characters that the rules tell apart, at the start of a text and across
 * the border of two 64-byte blocks. */
Test(bpe, every_short_sequence_is_cut_as_the_pattern_says)
{
    static const char *const pieces[] = {"a",
                                         "1",
                                         ".",
                                         "'",
                                         "s",
                                         "l",
                                         "re",
                                         " ",
                                         "\n",
                                         "\xC2\xA0",
                                         "\xE3\x80\x80",
                                         "\xC3\xA9",
                                         "\xE2\x80\x99",
                                         "\xE3\x80"};
    const size_t n = sizeof(pieces) / sizeof(pieces[0]);
    setting s = open_setting(1);
    for (size_t code = 0; code < n * n * n * n; code++) {
        uint8_t text[128];
        for (size_t lead = 0; lead <= 62; lead += 62 - code % 3) {
            size_t at = 0;
            while (at < lead) {
                text[at++] = 'b';
            }
            for (size_t rest = code, k = 0; k < 4; k++, rest /= n) {
                at = append(text, at, pieces[rest % n]);
            }
            check(&s, text, at);
        }
    }
    close_setting(&s);
}

/* Random text of pieces that occur in the vocabulary, with damage. */
Test(bpe, random_texts_are_encoded_as_defined)
{
    static const char *const pieces[] = {"a",
                                         "ab",
                                         "ca",
                                         "cb",
                                         "bbac",
                                         " abcde",
                                         "'s",
                                         "'ll",
                                         "e",
                                         "  ",
                                         "\n",
                                         "\xC3\xA9",
                                         "\xE3\x80\x80",
                                         "12",
                                         "...",
                                         "\xF0\x9F\x98\x80",
                                         "\xE4\xB8\x80\xE4\xB8\x81",
                                         "\xC2\x85",
                                         "\xED\xA0\x80",
                                         "\xC0\x80",
                                         "\xF4\x90\x80\x80",
                                         "<|endoftext|>",
                                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                         "t' tdead"};
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        setting s = open_setting(seed);
        int never = 0;
        for (int32_t k = 0; k < s.bpe->symbol_count; k++) {
            never += !s.bpe->produced[k];
        }
        cr_assert_gt(never, 100, "the vocabulary is too easy: %d symbols are never produced",
                     never);
        for (uint64_t round = 0; round < 300; round++) {
            uint8_t text[4096];
            size_t bytes = 0, limit = gidd_uniform_below(seed, GIDD_STREAM_MIX, round, 0, 2000);
            for (uint32_t k = 1; bytes < limit; k++) {
                uint64_t pick = gidd_uniform_below(seed, GIDD_STREAM_MIX, round, k, 30);
                if (pick < sizeof(pieces) / sizeof(pieces[0])) {
                    bytes = append(text, bytes, pieces[pick]);
                } else {
                    text[bytes++] =
                        (uint8_t)gidd_uniform_below(seed, GIDD_STREAM_TOKEN, round, k, 256);
                }
            }
            check(&s, text, bytes);
        }
        close_setting(&s);
    }
}

/* Ids must not depend on what the caches hold: one encoder sees more words than they have room for.
 */
Test(bpe, caches_do_not_change_ids)
{
    setting s = open_setting(5);
    for (uint64_t round = 0; round < 60; round++) {
        uint8_t text[3000];
        for (uint32_t i = 0; i < sizeof(text); i++) {
            uint64_t r = gidd_uniform_below(6, GIDD_STREAM_MIX, round % 40, i, 100);
            text[i] = (uint8_t)(r < 12 ? ' ' : r < 90 ? 'a' + r % 3 : 'd' + r % 16);
        }
        check(&s, text, sizeof(text));
    }
    close_setting(&s);
}

/* Words of a mebibyte take time in proportion; quadratic work would take hours. */
Test(bpe, long_words_take_linear_time)
{
    const size_t bytes = 1 << 20;
    setting s = open_setting(2);
    uint8_t *text = malloc(bytes), *back = malloc(bytes);
    uint16_t *ids = malloc(bytes * 2);
    for (int kind = 0; kind < 5; kind++) {
        for (uint32_t i = 0; i < bytes; i++) {
            uint32_t word[4];
            gidd_philox(3, GIDD_STREAM_MIX, i, (uint32_t)kind, word);
            text[i] = (uint8_t)(kind == 0   ? 'a'
                                : kind == 1 ? ' '
                                : kind == 2 ? 'a' + word[0] % 5
                                : kind == 3 ? '0' + word[0] % 10
                                            : 0x80 + word[0] % 64);
        }
        size_t count = 0, decoded = 0;
        clock_t start = clock();
        cr_assert_eq(gidd_bpe_encode(s.encoder, text, bytes, ids, bytes, &count), GIDD_OK);
        cr_assert_lt((double)(clock() - start) / CLOCKS_PER_SEC, 20.0, "text %d", kind);
        cr_assert_eq(
            gidd_bpe_decode(s.bpe, ids, count, GIDD_BPE_SPECIALS_REFUSE, back, bytes, &decoded),
            GIDD_OK);
        cr_assert(decoded == bytes && memcmp(back, text, bytes) == 0);
    }
    free(text);
    free(back);
    free(ids);
    close_setting(&s);
}

Test(bpe, encode_keeps_to_its_capacity)
{
    setting s = open_setting(1);
    uint16_t ids[4] = {1, 2, 3, 4};
    size_t count = 9;
    cr_assert_eq(gidd_bpe_encode(s.encoder, (const uint8_t *)"abc", 3, ids, 2, &count),
                 GIDD_ERR_ARG);
    cr_assert_eq(count, 9u);
    cr_assert_eq(gidd_bpe_encode(s.encoder, NULL, 0, NULL, 0, &count), GIDD_OK);
    cr_assert_eq(count, 0u);
    close_setting(&s);
}

Test(bpe, decode_obeys_specials_and_capacity)
{
    setting s = open_setting(1);
    int32_t size = gidd_bpe_size(s.bpe);
    uint16_t ids[] = {s.reference->id_of['x'], (uint16_t)gidd_bpe_eos(s.bpe), (uint16_t)size,
                      (uint16_t)(size + 1),    s.reference->id_of['y'],       (uint16_t)(size + 2)};
    uint8_t text[64];
    size_t bytes = 99;
    cr_assert_eq(size, REFERENCE_SIZE);
    cr_assert_eq(gidd_bpe_eos(s.bpe), s.reference->eos);
    cr_assert_eq(gidd_bpe_decode(s.bpe, ids, 5, GIDD_BPE_SPECIALS_SKIP, text, 64, &bytes), GIDD_OK);
    cr_assert(bytes == 2 && memcmp(text, "xy", 2) == 0);
    cr_assert_eq(gidd_bpe_decode(s.bpe, ids, 5, GIDD_BPE_SPECIALS_RENDER, text, 64, &bytes),
                 GIDD_OK);
    cr_assert(bytes == 26 && memcmp(text, "x<|endoftext|>[PAD][MASK]y", 26) == 0);
    cr_assert_eq(gidd_bpe_decode(s.bpe, ids, 5, GIDD_BPE_SPECIALS_RENDER, NULL, 0, &bytes),
                 GIDD_OK);
    cr_assert_eq(bytes, 26u);
    bytes = 99;
    cr_assert_eq(gidd_bpe_decode(s.bpe, ids, 5, GIDD_BPE_SPECIALS_RENDER, text, 25, &bytes),
                 GIDD_ERR_ARG);
    cr_assert_eq(gidd_bpe_decode(s.bpe, ids, 2, GIDD_BPE_SPECIALS_REFUSE, text, 64, &bytes),
                 GIDD_ERR_CORRUPT);
    cr_assert_eq(gidd_bpe_decode(s.bpe, ids, 6, GIDD_BPE_SPECIALS_SKIP, text, 64, &bytes),
                 GIDD_ERR_CORRUPT);
    cr_assert_eq(bytes, 99u);
    close_setting(&s);
}

/* Replaces the first `from` in a file by `to`, then loads. */
static gidd_status load_edited(const char *name, const char *from, const char *to)
{
    setting s = open_setting(3);
    char path[128], *data = calloc(1, 1 << 20), *edited = calloc(1, 1 << 20);
    gidd_bpe *bpe = NULL;
    path_in(&s, name, path);
    FILE *file = fopen(path, "rb");
    size_t bytes = fread(data, 1, (1 << 20) - 1024, file);
    fclose(file);
    char *at = strstr(data, from);
    cr_assert(bytes > 0 && at != NULL, "no %s in %s", from, name);
    *at = '\0';
    snprintf(edited, 1 << 20, "%s%s%s", data, to, at + strlen(from));
    file = fopen(path, "wb");
    fputs(edited, file);
    fclose(file);
    gidd_status status = gidd_bpe_load(s.dir, &bpe);
    gidd_bpe_destroy(bpe);
    free(data);
    free(edited);
    close_setting(&s);
    return status;
}

Test(bpe, damaged_vocabularies_are_refused)
{
    static const struct {
        const char *name, *from, *to;
    } cases[] = {
        {"encoder.json", "\"a\"", "\"zzz\""},         /* a byte without id       */
        {"encoder.json", ": 11,", ": 5000,"},         /* id out of range         */
        {"encoder.json", ": 11,", ": 48,"},           /* id of another token     */
        {"encoder.json", ": 11,", ": 11.5,"},         /* not an integer          */
        {"encoder.json", ": 11,", ": 11,,"},          /* not JSON                */
        {"encoder.json", "}", ""},                    /* cut off                 */
        {"encoder.json", "<|endoftext|>", "<|eos|>"}, /* an id that nothing makes */
        {"vocab.bpe", "#version: 0.2\n", "#version: 0.2\na\n"},
        {"vocab.bpe", "#version: 0.2\n", "#version: 0.2\nx  y\n"},
        {"vocab.bpe", "#version: 0.2\n", "#version: 0.2\nx y\n"},  /* no id for xy         */
        {"vocab.bpe", "#version: 0.2\n", "#version: 0.2\nxy z\n"}, /* part not made before */
        {"vocab.bpe", "#version: 0.2\n", ""},                      /* passes, see below    */
    };
    const size_t n = sizeof(cases) / sizeof(cases[0]);
    for (size_t i = 0; i + 1 < n; i++) {
        cr_assert_eq(load_edited(cases[i].name, cases[i].from, cases[i].to), GIDD_ERR_CORRUPT,
                     "case %zu", i);
    }
    cr_assert_eq(load_edited(cases[n - 1].name, cases[n - 1].from, cases[n - 1].to), GIDD_OK);
}

Test(bpe, cut_off_and_missing_files_are_told_apart)
{
    setting s = open_setting(3);
    char path[128];
    gidd_bpe *bpe = NULL;
    struct stat info;
    path_in(&s, "vocab.bpe", path);
    cr_assert_eq(stat(path, &info), 0);
    for (off_t cut = 1; cut < 40; cut += 3) {
        cr_assert_eq(truncate(path, info.st_size - cut), 0);
        cr_assert_eq(gidd_bpe_load(s.dir, &bpe), GIDD_ERR_CORRUPT);
    }
    unlink(path);
    cr_assert_eq(gidd_bpe_load(s.dir, &bpe), GIDD_ERR_MISSING);
    cr_assert_eq(gidd_bpe_load("/nonexistent", &bpe), GIDD_ERR_MISSING);
    cr_assert_null(bpe);
    close_setting(&s);
}

Test(bpe, digest_follows_the_files)
{
    setting s = open_setting(3), other = open_setting(4);
    gidd_bpe *again = NULL;
    cr_assert_eq(gidd_bpe_load(s.dir, &again), GIDD_OK);
    cr_assert_eq(strlen(gidd_bpe_digest(s.bpe)), 32u);
    cr_assert_str_eq(gidd_bpe_digest(s.bpe), gidd_bpe_digest(again));
    cr_assert_str_neq(gidd_bpe_digest(s.bpe), gidd_bpe_digest(other.bpe));
    gidd_bpe_destroy(again);
    close_setting(&s);
    close_setting(&other);
}
