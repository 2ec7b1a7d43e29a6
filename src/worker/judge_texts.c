/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples from a file of JSON lines, as texts encoded anew.
 */
#include "worker/judge.h"

#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the lines of a file have in common. */
typedef struct reader {
    const char       *path;
    int64_t           line;
    const gidd_bpe   *bpe;
    gidd_bpe_encoder *encoder;
    int64_t           longest;
    gidd_judge_texts *texts;
    int64_t           text_room, id_room;
} reader;

static gidd_status bad_line(const reader *r, const char *what)
{
    return gidd_fail(GIDD_ERR_CORRUPT, "%s:%lld: %s", r->path, (long long)r->line, what);
}

// Room for one more text of `ids` ids.
static gidd_status grow(reader *r, int64_t ids)
{
    gidd_judge_texts *t = r->texts;
    if (t->count + 2 > r->text_room) {
        int64_t  room = 2 * (t->count + 2);
        int64_t *first = realloc(t->first, (size_t)room * sizeof *first);
        if (first == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld texts", (long long)t->count);
        }
        t->first = first;
        r->text_room = room;
    }
    t->first[0] = 0;
    int64_t need = t->first[t->count] + ids;
    if (need > r->id_room) {
        int64_t  room = 2 * need + 1024;
        int32_t *grown = realloc(t->ids, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld ids", (long long)need);
        }
        t->ids = grown;
        r->id_room = room;
    }
    return GIDD_OK;
}

static gidd_status add_text(reader *r, const uint8_t *text, size_t bytes)
{
    gidd_judge_texts *t = r->texts;
    uint16_t         *ids = malloc((bytes + 1) * sizeof *ids);
    size_t            count = 0;
    if (ids == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a text of %zu bytes", bytes);
    }
    gidd_status status = gidd_bpe_encode(r->encoder, text, bytes, ids, bytes, &count);
    if (status == GIDD_OK) {
        t->cut += (int64_t)count > r->longest;
        count = (int64_t)count > r->longest ? (size_t)r->longest : count;
        status = grow(r, (int64_t)count);
    }
    if (status == GIDD_OK) {
        int64_t at = t->first[t->count];
        for (size_t k = 0; k < count; k++) {
            t->ids[at + (int64_t)k] = ids[k];
        }
        t->first[++t->count] = at + (int64_t)count;
    }
    free(ids);
    return status;
}

// The ids that stand for text: from behind an opening <|endoftext|> to the next one.
static gidd_status take_ids(const reader *r, const json_t *list, uint16_t *ids, size_t *count_p)
{
    int32_t eos = gidd_bpe_eos(r->bpe), size = gidd_bpe_size(r->bpe);
    int     is_over = 0;
    *count_p = 0;
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *item = json_array_get(list, k);
        json_int_t    id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= (json_int_t)size + 2) {
            return bad_line(r, "\"ids\" holds what is no id of the tokenizer");
        }
        is_over = is_over || (id == (json_int_t)eos && k > 0);
        if (!is_over && id < (json_int_t)size && id != (json_int_t)eos) {
            ids[(*count_p)++] = (uint16_t)id;
        }
    }
    return GIDD_OK;
}

static gidd_status add_ids(reader *r, const json_t *list)
{
    size_t    count = 0, bytes = 0, room = json_array_size(list) * 256 + 1; // no token is longer than 128 bytes
    uint16_t *ids = malloc((json_array_size(list) + 1) * sizeof *ids);
    uint8_t  *text = malloc(room);
    gidd_status status =
        ids != NULL && text != NULL ? take_ids(r, list, ids, &count) : gidd_fail(GIDD_ERR_NOMEM, "no memory for a text");
    if (status == GIDD_OK) {
        status = gidd_bpe_decode(r->bpe, ids, count, GIDD_BPE_SPECIALS_SKIP, text, room, &bytes);
    }
    if (status == GIDD_OK) {
        status = add_text(r, text, bytes);
    }
    free(ids);
    free(text);
    return status;
}

static gidd_status add_line(reader *r, const char *line, size_t bytes)
{
    json_error_t error;
    if (strspn(line, " \t\r\n") == bytes) {
        return GIDD_OK;
    }
    json_t *object = NULL;
    GIDD_TRY(gidd_json_parse(line, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error, &object));
    if (object == NULL) {
        return bad_line(r, error.text);
    }
    const json_t *text = json_object_get(object, "text"), *ids = json_object_get(object, "ids");
    gidd_status   status = GIDD_OK;
    if (json_is_string(text)) {
        status = add_text(r, (const uint8_t *)json_string_value(text), json_string_length(text));
    } else if (json_is_array(ids)) {
        status = add_ids(r, ids);
    } else {
        status = bad_line(r, "neither \"text\" nor \"ids\"");
    }
    json_decref(object);
    return status;
}

static gidd_status read_lines(reader *r, FILE *file)
{
    char       *line = NULL;
    size_t      room = 0;
    ssize_t     bytes;
    gidd_status status = GIDD_OK;
    while (status == GIDD_OK && (bytes = getline(&line, &room, file)) >= 0) {
        r->line++;
        status = add_line(r, line, (size_t)bytes);
    }
    free(line);
    if (status == GIDD_OK && ferror(file)) {
        status = gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", r->path, strerror(errno));
    }
    if (status == GIDD_OK && r->texts->count == 0) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s holds no samples", r->path);
    }
    return status;
}

gidd_status gidd_judge_texts_read(const char *path, const gidd_bpe *bpe, int64_t longest, gidd_judge_texts *texts)
{
    reader r = {.path = path, .bpe = bpe, .longest = longest, .texts = texts};
    *texts = (gidd_judge_texts){0};
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_MISSING, "cannot open %s: %s", path, strerror(errno));
    }
    gidd_status status = gidd_bpe_encoder_create(bpe, &r.encoder);
    if (status == GIDD_OK) {
        status = read_lines(&r, file);
    }
    gidd_bpe_encoder_destroy(r.encoder);
    (void)fclose(file);
    return status;
}

void gidd_judge_texts_release(gidd_judge_texts *texts)
{
    free(texts->first);
    free(texts->ids);
    *texts = (gidd_judge_texts){0};
}
