/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and checking a vocabulary; decoding.
 *
 * Both files write the bytes of a token as printable characters: bytes that print stand for
 * themselves, the others, in order, for U+0100, U+0101 ...
 */
#include "tokenizer/bpe_internal.h"

#include "base/json.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tokenizer/unicode_class.h"

enum {
    FILE_BYTES_MAX = 64 << 20,
    SIZE_MAX_IDS = 65534, /* PAD and MASK follow and must fit in 16 bits */
};

static const char eos_text[] = "<|endoftext|>";

typedef struct source {
    char path[4096];
    char *data; /* owned; ends in NUL */
    size_t bytes;
} source;

/* What is needed while the two files are read; symbol_of[id] is BPE_NO_SYMBOL until it is made. */
typedef struct reader {
    gidd_bpe *bpe;
    source merges;
    source ids;
    json_t *id_of_text;
    uint16_t *symbol_of;
    char *joined; /* left and right part of a merge, as the key to look up */
    size_t joined_bytes;
} reader;

static gidd_status read_stream(FILE *file, source *s)
{
    size_t capacity = 1 << 16;
    for (;;) {
        char *data = realloc(s->data, capacity + 1);
        if (data == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %s", s->path);
        }
        s->data = data;
        s->bytes += fread(data + s->bytes, 1, capacity - s->bytes, file);
        data[s->bytes] = '\0';
        if (ferror(file)) {
            return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", s->path, strerror(errno));
        }
        if (s->bytes < capacity) {
            return GIDD_OK;
        }
        if (capacity >= FILE_BYTES_MAX) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s is larger than %d MiB", s->path,
                             FILE_BYTES_MAX >> 20);
        }
        capacity *= 2;
    }
}

static gidd_status read_source(const char *dir, const char *name, source *s)
{
    int length = snprintf(s->path, sizeof(s->path), "%s/%s", dir, name);
    if (length < 0 || (size_t)length >= sizeof(s->path)) {
        return gidd_fail(GIDD_ERR_MISSING, "the tokenizer's folder has too long a name");
    }
    FILE *file = fopen(s->path, "rb");
    if (file == NULL) {
        gidd_status status = errno == ENOENT || errno == ENOTDIR ? GIDD_ERR_MISSING : GIDD_ERR_IO;
        return gidd_fail(status, "cannot open the tokenizer's %s: %s", s->path, strerror(errno));
    }
    gidd_status status = read_stream(file, s);
    fclose(file);
    return status;
}

static gidd_status set_digest(reader *r)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's digest");
    }
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, r->merges.data, r->merges.bytes);
    XXH3_128bits_update(state, r->ids.data, r->ids.bytes);
    XXH128_hash_t digest = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(r->bpe->digest, sizeof(r->bpe->digest), "%016llx%016llx",
             (unsigned long long)digest.high64, (unsigned long long)digest.low64);
    return GIDD_OK;
}

/* encoder.json: an object, its values 0 .. size - 1, each once. */
static gidd_status read_ids(reader *r)
{
    json_error_t error;
    const char *path = r->ids.path;
    GIDD_TRY(gidd_json_parse(r->ids.data, r->ids.bytes, JSON_REJECT_DUPLICATES, &error, &r->id_of_text));
    if (r->id_of_text == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%d:%d: %s", path, error.line, error.column,
                         error.text);
    }
    if (!json_is_object(r->id_of_text)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is not an object of tokens and ids", path);
    }
    size_t size = json_object_size(r->id_of_text);
    if (size < BPE_BYTE_SYMBOLS || size > SIZE_MAX_IDS) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has %zu ids; %d .. %d are possible", path, size,
                         BPE_BYTE_SYMBOLS, SIZE_MAX_IDS);
    }
    char *seen = calloc(size, 1);
    if (seen == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu ids of %s", size, path);
    }
    gidd_status status = GIDD_OK;
    const char *text;
    json_t *value;
    json_object_foreach(r->id_of_text, text, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)size || seen[id]) {
            status = gidd_fail(GIDD_ERR_CORRUPT,
                               "%s: the id of token %s is not one of 0 .. %zu, "
                               "or not its alone",
                               path, text, size - 1);
            break;
        }
        seen[id] = 1;
    }
    free(seen);
    r->bpe->size = (int32_t)size;
    return status;
}

static gidd_status allocate(reader *r)
{
    gidd_bpe *bpe = r->bpe;
    size_t size = (size_t)bpe->size;
    bpe->id_of = malloc(size * sizeof(*bpe->id_of));
    bpe->symbols = malloc(size * sizeof(*bpe->symbols));
    bpe->text_at = calloc(size + 1, sizeof(*bpe->text_at));
    bpe->char_table = malloc(GIDD_CHAR_TABLE_BYTES);
    r->symbol_of = malloc(size * sizeof(*r->symbol_of));
    if (bpe->id_of == NULL || bpe->symbols == NULL || bpe->text_at == NULL ||
        bpe->char_table == NULL || r->symbol_of == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a tokenizer of %zu ids", size);
    }
    for (size_t id = 0; id < size; id++) {
        r->symbol_of[id] = BPE_NO_SYMBOL;
    }
    gidd_char_table_init(bpe->char_table);
    return GIDD_OK;
}

/* Makes the next symbol, written as `text`. */
static gidd_status add_symbol(reader *r, const char *text, size_t length, uint32_t left,
                              uint32_t right)
{
    gidd_bpe *bpe = r->bpe;
    json_t *value = json_object_get(r->id_of_text, text);
    if (value == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has no id for token %s", r->ids.path, text);
    }
    size_t id = (size_t)json_integer_value(value);
    if (length > BPE_SYMBOL_BYTES) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: a token of %zu bytes; %d are possible",
                         r->merges.path, length, BPE_SYMBOL_BYTES);
    }
    if (r->symbol_of[id] != BPE_NO_SYMBOL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: token %s is made twice", r->merges.path, text);
    }
    int32_t symbol = bpe->symbol_count++;
    r->symbol_of[id] = (uint16_t)symbol;
    bpe->id_of[symbol] = (uint16_t)id;
    bpe->symbols[symbol] = (bpe_symbol){.left = (uint16_t)left,
                                        .right = (uint16_t)right,
                                        .shorter = BPE_NO_SYMBOL,
                                        .length = (uint16_t)length};
    bpe->text_at[id + 1] = (uint32_t)length;
    return GIDD_OK;
}

static gidd_status add_bytes(reader *r)
{
    unsigned other = 0x100;
    for (unsigned byte = 0; byte < BPE_BYTE_SYMBOLS; byte++) {
        int prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        unsigned point = prints ? byte : other++;
        char text[3] = {(char)point};
        if (point >= 0x80) {
            text[0] = (char)(0xC0 | point >> 6);
            text[1] = (char)(0x80 | (point & 0x3F));
        }
        GIDD_TRY(add_symbol(r, text, 1, BPE_NO_SYMBOL, BPE_NO_SYMBOL));
    }
    return GIDD_OK;
}

/* The symbol written as text, or BPE_NO_SYMBOL if none was made so far. */
static uint32_t find_symbol(const reader *r, const char *text)
{
    json_t *value = json_object_get(r->id_of_text, text);
    return value == NULL ? BPE_NO_SYMBOL : r->symbol_of[json_integer_value(value)];
}

/* One line "left right" of vocab.bpe; `line` is cut up in place. */
static gidd_status add_merge(reader *r, char *line, size_t length, int64_t number)
{
    const char *path = r->merges.path;
    char *gap = memchr(line, ' ', length);
    if (gap == NULL || gap == line || gap + 1 == line + length || strlen(line) != length ||
        strchr(gap + 1, ' ') != NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%lld: not two tokens", path, (long long)number);
    }
    *gap = '\0';
    uint32_t left = find_symbol(r, line), right = find_symbol(r, gap + 1);
    if (left == BPE_NO_SYMBOL || right == BPE_NO_SYMBOL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%lld: token %s is neither a byte nor made before",
                         path, (long long)number, left == BPE_NO_SYMBOL ? line : gap + 1);
    }
    if (r->joined_bytes < length) {
        char *joined = realloc(r->joined, length * 2);
        if (joined == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for a merge of %s", path);
        }
        r->joined = joined;
        r->joined_bytes = length * 2;
    }
    size_t left_length = (size_t)(gap - line);
    memcpy(r->joined, line, left_length);
    memcpy(r->joined + left_length, gap + 1, length - left_length); // with its NUL
    size_t bytes = (size_t)r->bpe->symbols[left].length + r->bpe->symbols[right].length;
    return add_symbol(r, r->joined, bytes, left, right);
}

static gidd_status add_merges(reader *r)
{
    static const char version[] = "#version";
    char *line = r->merges.data, *stop = line + r->merges.bytes;
    for (int64_t number = 1; line < stop; number++) {
        char *end = memchr(line, '\n', (size_t)(stop - line));
        if (end == NULL) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s:%lld: the last line is cut off", r->merges.path,
                             (long long)number);
        }
        *end = '\0';
        if (number > 1 || strncmp(line, version, sizeof(version) - 1) != 0) {
            GIDD_TRY(add_merge(r, line, (size_t)(end - line), number));
        }
        line = end + 1;
    }
    return GIDD_OK;
}

/* Every id has been made by now, but for <|endoftext|>. */
static gidd_status find_eos(reader *r)
{
    gidd_bpe *bpe = r->bpe;
    json_t *value = json_object_get(r->id_of_text, eos_text);
    bpe->eos = value == NULL ? -1 : (int32_t)json_integer_value(value);
    if (bpe->eos >= 0 && r->symbol_of[bpe->eos] != BPE_NO_SYMBOL) {
        bpe->eos = -1; // an ordinary token that happens to be written like it
    }
    if (bpe->symbol_count + (bpe->eos >= 0) != bpe->size) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "%s has %d ids, but 256 bytes and %d merges of %s make %d", r->ids.path,
                         (int)bpe->size, (int)bpe->symbol_count - BPE_BYTE_SYMBOLS, r->merges.path,
                         (int)bpe->symbol_count);
    }
    return GIDD_OK;
}

static gidd_status set_texts(gidd_bpe *bpe)
{
    for (int32_t id = 0; id < bpe->size; id++) {
        bpe->text_at[id + 1] += bpe->text_at[id];
    }
    bpe->text = malloc(bpe->text_at[bpe->size]);
    if (bpe->text == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the tokenizer's texts");
    }
    for (int32_t s = 0; s < bpe->symbol_count; s++) {
        uint8_t *text = bpe->text + bpe->text_at[bpe->id_of[s]];
        if (s < BPE_BYTE_SYMBOLS) {
            text[0] = (uint8_t)s;
            continue;
        }
        uint32_t left = bpe->symbols[s].left, right = bpe->symbols[s].right;
        memcpy(text, bpe->text + bpe->text_at[bpe->id_of[left]], bpe->symbols[left].length);
        memcpy(text + bpe->symbols[left].length, bpe->text + bpe->text_at[bpe->id_of[right]],
               bpe->symbols[right].length);
    }
    return GIDD_OK;
}

static gidd_status read_vocabulary(reader *r, const char *dir)
{
    GIDD_TRY(read_source(dir, "vocab.bpe", &r->merges));
    GIDD_TRY(read_source(dir, "encoder.json", &r->ids));
    GIDD_TRY(set_digest(r));
    GIDD_TRY(read_ids(r));
    GIDD_TRY(allocate(r));
    GIDD_TRY(add_bytes(r));
    GIDD_TRY(add_merges(r));
    GIDD_TRY(find_eos(r));
    GIDD_TRY(set_texts(r->bpe));
    return gidd_bpe_build_tables(r->bpe);
}

gidd_status gidd_bpe_load(const char *dir, gidd_bpe **bpe_p)
{
    reader *r = calloc(1, sizeof(*r));
    if (r == NULL || (r->bpe = calloc(1, sizeof(*r->bpe))) == NULL) {
        free(r);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a tokenizer");
    }
    gidd_status status = read_vocabulary(r, dir);
    if (status == GIDD_OK) {
        *bpe_p = r->bpe;
        r->bpe = NULL;
    }
    json_decref(r->id_of_text);
    gidd_bpe_destroy(r->bpe);
    free(r->symbol_of);
    free(r->joined);
    free(r->merges.data);
    free(r->ids.data);
    free(r);
    return status;
}

void gidd_bpe_destroy(gidd_bpe *bpe)
{
    if (bpe == NULL) {
        return;
    }
    free(bpe->id_of);
    free(bpe->symbols);
    free(bpe->produced);
    free(bpe->pair_filter);
    free(bpe->text_filter);
    free(bpe->text_slots);
    free(bpe->pairs);
    free(bpe->trie);
    free(bpe->text_at);
    free(bpe->text);
    free(bpe->char_table);
    free(bpe);
}

int32_t gidd_bpe_size(const gidd_bpe *bpe)
{
    return bpe->size;
}

int32_t gidd_bpe_eos(const gidd_bpe *bpe)
{
    return bpe->eos;
}

const char *gidd_bpe_digest(const gidd_bpe *bpe)
{
    return bpe->digest;
}

/* How special id `id` is rendered, or NULL if it is an ordinary one. */
static const char *special_text(const gidd_bpe *bpe, int32_t id)
{
    if (id == bpe->eos) {
        return eos_text;
    }
    return id == bpe->size ? "[PAD]" : id == bpe->size + 1 ? "[MASK]" : NULL;
}

static gidd_status id_text(const gidd_bpe *bpe, int32_t id, gidd_bpe_specials specials,
                           const uint8_t **text_p, size_t *bytes_p)
{
    const char *special = special_text(bpe, id);
    if (special != NULL) {
        if (specials == GIDD_BPE_SPECIALS_REFUSE) {
            return gidd_fail(GIDD_ERR_CORRUPT, "id %d (%s) stands for no text", (int)id, special);
        }
        *text_p = (const uint8_t *)special;
        *bytes_p = specials == GIDD_BPE_SPECIALS_RENDER ? strlen(special) : 0;
        return GIDD_OK;
    }
    if (id >= bpe->size) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "id %d is not of the vocabulary of %d ids and 2 specials", (int)id,
                         (int)bpe->size);
    }
    *text_p = bpe->text + bpe->text_at[id];
    *bytes_p = bpe->text_at[id + 1] - bpe->text_at[id];
    return GIDD_OK;
}

gidd_status gidd_bpe_decode(const gidd_bpe *bpe, const uint16_t *ids, size_t count,
                            gidd_bpe_specials specials, uint8_t *text, size_t capacity,
                            size_t *bytes_p)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *piece = NULL;
        size_t bytes = 0;
        GIDD_TRY(id_text(bpe, ids[i], specials, &piece, &bytes));
        if (text != NULL) {
            if (bytes > capacity - total) {
                return gidd_fail(GIDD_ERR_ARG, "the text of %zu ids needs more than %zu bytes",
                                 count, capacity);
            }
            memcpy(text + total, piece, bytes);
        }
        total += bytes;
    }
    *bytes_p = total;
    return GIDD_OK;
}
