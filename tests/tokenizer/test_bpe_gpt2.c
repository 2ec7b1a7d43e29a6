/* SPDX-License-Identifier: Apache-2.0
 *
 * Ids of GPT-2's own vocabulary, from $GIDD_TOKENIZER_DIR; exits 77 (skipped) without it. Lines of
 * gpt2_golden.txt are the text in hexadecimal, ":" and its ids, written by compare_tiktoken.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/bpe_internal.h"

enum { SKIPPED = 77, TEXT_BYTES = 4096 };

typedef struct golden {
    uint8_t text[TEXT_BYTES];
    size_t bytes;
    uint16_t ids[TEXT_BYTES];
    size_t count;
} golden;

/* Returns 0 at the end of the file. */
static int read_golden(FILE *file, golden *g)
{
    unsigned value;
    g->bytes = 0;
    g->count = 0;
    while (g->bytes < TEXT_BYTES && fscanf(file, "%2x", &value) == 1) {
        g->text[g->bytes++] = (uint8_t)value;
    }
    if (fgetc(file) != ':') {
        return 0;
    }
    for (int next = fgetc(file); next == ' ' && g->count < TEXT_BYTES; next = fgetc(file)) {
        if (fscanf(file, "%u", &value) != 1) {
            return 0;
        }
        g->ids[g->count++] = (uint16_t)value;
    }
    return 1;
}

static int check(const bpe_variant *variant, gidd_bpe_encoder *encoder, const golden *g, int line)
{
    static uint16_t ids[TEXT_BYTES];
    size_t count = 0;
    encoder->encode = variant->encode;
    gidd_status status = gidd_bpe_encode(encoder, g->text, g->bytes, ids, TEXT_BYTES, &count);
    if (status == GIDD_OK && count == g->count && memcmp(ids, g->ids, count * sizeof(*ids)) == 0) {
        return 0;
    }
    printf("gpt2_golden.txt:%d: %s gives %zu ids, not %zu:", line, variant->name, count, g->count);
    for (size_t i = 0; i < count; i++) {
        printf(" %u", ids[i]);
    }
    printf("\n");
    return 1;
}

static int check_all(FILE *file, gidd_bpe_encoder *encoder)
{
    static golden g;
    int failures = 0, line = 0;
    while (read_golden(file, &g)) {
        line++;
        for (const bpe_variant *v = gidd_bpe_variants; v->name != NULL; v++) {
            failures += v->is_supported() ? check(v, encoder, &g, line) : 0;
        }
    }
    printf("%d golden texts: %d failures\n", line, failures);
    return failures + (line < 50) + !feof(file);
}

int main(void)
{
    const char *dir = getenv("GIDD_TOKENIZER_DIR");
    gidd_bpe *bpe = NULL;
    gidd_bpe_encoder *encoder = NULL;
    if (dir == NULL || dir[0] == '\0') {
        printf("skipped: GIDD_TOKENIZER_DIR names no folder with GPT-2's vocab.bpe and "
               "encoder.json\n");
        return SKIPPED;
    }
    if (gidd_bpe_load(dir, &bpe) != GIDD_OK || gidd_bpe_encoder_create(bpe, &encoder) != GIDD_OK) {
        printf("%s\n", gidd_error_last()->text);
        return 1;
    }
    FILE *file = fopen(GIDD_TEST_DATA "/gpt2_golden.txt", "r");
    int failures = file == NULL ? 1 : check_all(file, encoder);
    failures += gidd_bpe_size(bpe) != GIDD_BPE_GPT2_SIZE || gidd_bpe_eos(bpe) != GIDD_BPE_GPT2_EOS;
    failures += strcmp(gidd_bpe_digest(bpe), "a27d569bd98690c7bb03c8008c16c15f") != 0;
    if (file != NULL) {
        fclose(file);
    }
    gidd_bpe_encoder_destroy(encoder);
    gidd_bpe_destroy(bpe);
    printf("%s\n", failures == 0 ? "passed" : "FAILED");
    return failures != 0;
}
