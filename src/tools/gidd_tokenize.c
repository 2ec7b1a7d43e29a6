/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-tokenize: text to GPT-2 ids and back, on standard input and output. The input is one text;
 * with
 * --lines every line is one, its line feed not part of it.
 */
#include <argp.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/status.h"
#include "tokenizer/bpe.h"

typedef enum direction { DIRECTION_ENCODE, DIRECTION_DECODE, DIRECTION_COUNT } direction;
typedef enum format { FORMAT_TEXT, FORMAT_U16 } format;
typedef enum unit { UNIT_INPUT, UNIT_LINE } unit;

typedef struct options {
    const char *tokenizer;
    direction direction;
    format format;
    unit unit;
    gidd_bpe_specials specials;
} options;

typedef struct buffer {
    uint8_t *data;
    size_t bytes;
} buffer;

enum { KEY_TOKENIZER = 256, KEY_DECODE, KEY_COUNT, KEY_FORMAT, KEY_LINES, KEY_SPECIALS };

static const struct argp_option option_table[] = {
    {"tokenizer", KEY_TOKENIZER, "DIR", 0,
     "folder with vocab.bpe and encoder.json (default $GIDD_TOKENIZER_DIR, else ./data/tokenizer)",
     0},
    {"decode", KEY_DECODE, NULL, 0, "ids to text", 0},
    {"count", KEY_COUNT, NULL, 0, "print the number of ids only", 0},
    {"format", KEY_FORMAT, "text|u16", 0,
     "ids as decimal numbers (default), or as raw 16-bit little-endian integers", 0},
    {"lines", KEY_LINES, NULL, 0, "each line of the input is a text, each line of the output too",
     0},
    {"specials", KEY_SPECIALS, "refuse|skip|render", 0,
     "what --decode does with ids that stand for no text (default refuse)", 0},
    {0},
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case KEY_TOKENIZER:
        o->tokenizer = value;
        return 0;
    case KEY_DECODE:
        o->direction = DIRECTION_DECODE;
        return 0;
    case KEY_COUNT:
        o->direction = DIRECTION_COUNT;
        return 0;
    case KEY_FORMAT:
        if (strcmp(value, "text") != 0 && strcmp(value, "u16") != 0) {
            argp_error(state, "--format is text or u16, not %s", value);
        }
        o->format = strcmp(value, "u16") == 0 ? FORMAT_U16 : FORMAT_TEXT;
        return 0;
    case KEY_LINES:
        o->unit = UNIT_LINE;
        return 0;
    case KEY_SPECIALS:
        o->specials = strcmp(value, "refuse") == 0 ? GIDD_BPE_SPECIALS_REFUSE
                      : strcmp(value, "skip") == 0 ? GIDD_BPE_SPECIALS_SKIP
                                                   : GIDD_BPE_SPECIALS_RENDER;
        if (o->specials == GIDD_BPE_SPECIALS_RENDER && strcmp(value, "render") != 0) {
            argp_error(state, "--specials is refuse, skip or render, not %s", value);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static gidd_status read_input(buffer *input)
{
    size_t capacity = 1 << 20;
    for (;;) {
        uint8_t *data = realloc(input->data, capacity);
        if (data == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu bytes of input", capacity);
        }
        input->data = data;
        input->bytes += fread(data + input->bytes, 1, capacity - input->bytes, stdin);
        if (ferror(stdin)) {
            return gidd_fail(GIDD_ERR_IO, "cannot read standard input: %s", strerror(errno));
        }
        if (input->bytes < capacity) {
            return GIDD_OK;
        }
        capacity *= 2;
    }
}

static gidd_status write_output(const void *data, size_t bytes)
{
    if (fwrite(data, 1, bytes, stdout) != bytes) {
        return gidd_fail(GIDD_ERR_IO, "cannot write standard output: %s", strerror(errno));
    }
    return GIDD_OK;
}

static gidd_status write_u16(uint16_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t little[2] = {(uint8_t)(ids[i] & 0xFF), (uint8_t)(ids[i] >> 8)};
        memcpy(&ids[i], little, sizeof(little));
    }
    return write_output(ids, count * sizeof(*ids));
}

static gidd_status write_decimal(const uint16_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char number[8];
        int length = snprintf(number, sizeof(number), i + 1 < count ? "%u " : "%u", ids[i]);
        GIDD_TRY(write_output(number, (size_t)length));
    }
    return write_output("\n", 1);
}

/* The text from `from`: all of the input, or up to its next line feed. Sets the start of the next.
 */
static size_t next_text(const options *o, const buffer *input, size_t from, size_t *next_p)
{
    const uint8_t *start = input->data + from;
    const uint8_t *feed = o->unit == UNIT_LINE ? memchr(start, '\n', input->bytes - from) : NULL;
    size_t bytes = feed != NULL ? (size_t)(feed - start) : input->bytes - from;
    *next_p = from + bytes + (feed != NULL);
    return bytes;
}

static gidd_status encode_input(const options *o, gidd_bpe_encoder *encoder, const buffer *input,
                                uint16_t *ids)
{
    size_t total = 0;
    for (size_t from = 0, next = 0; from < input->bytes; from = next) {
        size_t bytes = next_text(o, input, from, &next), count = 0;
        GIDD_TRY(gidd_bpe_encode(encoder, input->data + from, bytes, ids, bytes, &count));
        total += count;
        if (o->direction != DIRECTION_COUNT) {
            GIDD_TRY(o->format == FORMAT_U16 ? write_u16(ids, count) : write_decimal(ids, count));
        }
    }
    if (o->direction == DIRECTION_COUNT) {
        char line[32];
        size_t length = (size_t)snprintf(line, sizeof(line), "%zu\n", total);
        return write_output(line, length);
    }
    return GIDD_OK;
}

static gidd_status encode(const options *o, const gidd_bpe *bpe, const buffer *input)
{
    gidd_bpe_encoder *encoder = NULL;
    uint16_t *ids = malloc(input->bytes * sizeof(*ids) + 1);
    gidd_status status = GIDD_OK;
    if (ids == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the ids of %zu bytes", input->bytes);
        goto out;
    }
    GIDD_TRY_GOTO(gidd_bpe_encoder_create(bpe, &encoder));
    GIDD_TRY_GOTO(encode_input(o, encoder, input, ids));
out:
    gidd_bpe_encoder_destroy(encoder);
    free(ids);
    return status;
}

/* Numbers of at most 16 bits between white space. */
static gidd_status parse_decimal(const uint8_t *text, size_t bytes, uint16_t *ids, size_t *count_p)
{
    size_t count = 0;
    for (size_t i = 0; i < bytes;) {
        uint32_t value = 0;
        size_t first = i;
        for (; i < bytes && text[i] >= '0' && text[i] <= '9' && value <= UINT16_MAX; i++) {
            value = value * 10 + (uint32_t)(text[i] - '0');
        }
        int is_gap =
            i < bytes && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r');
        if ((i < bytes && !is_gap) || value > UINT16_MAX) {
            return gidd_fail(GIDD_ERR_CORRUPT, "id %zu of the input is not a number below 65536",
                             count + 1);
        }
        if (i > first) {
            ids[count++] = (uint16_t)value;
        }
        i += (size_t)is_gap;
    }
    *count_p = count;
    return GIDD_OK;
}

static gidd_status read_ids(const options *o, const uint8_t *data, size_t bytes, uint16_t *ids,
                            size_t *count_p)
{
    if (o->format == FORMAT_TEXT) {
        return parse_decimal(data, bytes, ids, count_p);
    }
    if (bytes % 2 != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%zu bytes are not a whole number of 16-bit ids", bytes);
    }
    for (size_t i = 0; i < bytes / 2; i++) {
        ids[i] = (uint16_t)(data[2 * i] | data[2 * i + 1] << 8);
    }
    *count_p = bytes / 2;
    return GIDD_OK;
}

static gidd_status decode_text(const options *o, const gidd_bpe *bpe, const uint16_t *ids,
                               size_t count)
{
    size_t bytes = 0;
    GIDD_TRY(gidd_bpe_decode(bpe, ids, count, o->specials, NULL, 0, &bytes));
    uint8_t *text = malloc(bytes + 1);
    if (text == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu bytes of text", bytes);
    }
    gidd_status status = gidd_bpe_decode(bpe, ids, count, o->specials, text, bytes, &bytes);
    text[bytes] = '\n';
    if (status == GIDD_OK) {
        status = write_output(text, bytes + (o->unit == UNIT_LINE));
    }
    free(text);
    return status;
}

static gidd_status decode(const options *o, const gidd_bpe *bpe, const buffer *input)
{
    uint16_t *ids = malloc(input->bytes * sizeof(*ids) + 1);
    if (ids == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the ids in %zu bytes", input->bytes);
    }
    gidd_status status = GIDD_OK;
    for (size_t from = 0, next = 0; status == GIDD_OK && from < input->bytes; from = next) {
        size_t bytes = next_text(o, input, from, &next), count = 0;
        status = read_ids(o, input->data + from, bytes, ids, &count);
        if (status == GIDD_OK) {
            status = decode_text(o, bpe, ids, count);
        }
    }
    free(ids);
    return status;
}

static gidd_status run(const options *o)
{
    buffer input = {0};
    gidd_bpe *bpe = NULL;
    gidd_status status = GIDD_OK;
    if (o->unit == UNIT_LINE && o->format == FORMAT_U16) {
        return gidd_fail(GIDD_ERR_USAGE, "--lines needs --format text: raw ids have no lines");
    }
    GIDD_TRY_GOTO(gidd_bpe_load(o->tokenizer, &bpe));
    GIDD_TRY_GOTO(read_input(&input));
    GIDD_TRY_GOTO(o->direction == DIRECTION_DECODE ? decode(o, bpe, &input)
                                                   : encode(o, bpe, &input));
    if (fflush(stdout) != 0) {
        status = gidd_fail(GIDD_ERR_IO, "cannot write standard output: %s", strerror(errno));
    }
out:
    free(input.data);
    gidd_bpe_destroy(bpe);
    return status;
}

int main(int argc, char **argv)
{
    static const struct argp parser = {
        option_table,
        parse_option,
        NULL,
        "Encodes standard input with GPT-2's byte-level BPE, or decodes it.\v"
        "The input is one text unless --lines is given. Exit codes: 0 done, 64 usage, 65 damaged "
        "tokenizer or ids, 66 no tokenizer, 70 out of memory, 74 input or output failed.",
        NULL,
        NULL,
        NULL};
    options o = {.tokenizer = getenv("GIDD_TOKENIZER_DIR")};
    if (o.tokenizer == NULL || o.tokenizer[0] == '\0') {
        o.tokenizer = "data/tokenizer";
    }
    gidd_cli_parse(&parser, argc, argv, 0, &o);
    gidd_status status = run(&o);
    return status == GIDD_OK ? GIDD_EXIT_FINISHED : gidd_cli_report("gidd-tokenize", status);
}
