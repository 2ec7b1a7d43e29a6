/* SPDX-License-Identifier: Apache-2.0
 *
 * Infilling: what of a sample is given, out of a text with holes or a list of positions.
 */
#include "base/json.h"
#include "worker/samples.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct template {
    const gidd_vocab *vocab;
    gidd_bpe_encoder *encoder;
    int32_t          *given; /* [T], -1 at first */
    int64_t           T;
    int64_t           at; /* next position; may run past T, so that an error can tell by how much */
} template;

static void put(template *t, int32_t id)
{
    if (t->at < t->T) {
        t->given[t->at] = id;
    }
    t->at++;
}

static gidd_status put_text(template *t, const char *text, size_t bytes)
{
    uint16_t *ids = malloc((bytes + 1) * sizeof *ids);
    size_t    count = 0;
    if (ids == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a text of %zu bytes", bytes);
    }
    gidd_status status = gidd_bpe_encode(t->encoder, (const uint8_t *)text, bytes, ids, bytes, &count);
    for (size_t k = 0; status == GIDD_OK && k < count; k++) {
        put(t, ids[k]);
    }
    free(ids);
    return status;
}

// A template in which nothing is given yet.
static gidd_status open_template(const gidd_bpe *bpe, const gidd_vocab *vocab, int64_t T, int32_t *given, template *t)
{
    *t = (template){.vocab = vocab, .given = given, .T = T};
    for (int64_t p = 0; p < T; p++) {
        given[p] = -1;
    }
    return gidd_bpe_encoder_create(bpe, &t->encoder);
}

/* ---- a text with holes ------------------------------------------------------------------------------------- */

typedef enum mark_kind { MARK_NONE = 0, MARK_HOLE, MARK_END } mark_kind;

typedef struct mark {
    mark_kind kind;
    size_t    bytes;
    int64_t   tokens; /* of a hole; 0: it says none, or nonsense */
} mark;

// The mark that starts at text.
static mark mark_at(const char *text)
{
    static const char hole[] = "[MASK", end[] = "<|endoftext|>";
    if (strncmp(text, end, sizeof end - 1) == 0) {
        return (mark){.kind = MARK_END, .bytes = sizeof end - 1};
    }
    if (strncmp(text, hole, sizeof hole - 1) != 0) {
        return (mark){.kind = MARK_NONE};
    }
    const char *after = text + sizeof hole - 1;
    if (*after == ']') {
        return (mark){.kind = MARK_HOLE, .bytes = sizeof hole, .tokens = 1};
    }
    const size_t digits = *after == ':' ? strspn(after + 1, "0123456789") : 0;
    if (*after != ':' || after[1 + digits] != ']') {
        return (mark){.kind = MARK_NONE};
    }
    const int64_t tokens = digits > 0 && digits < 10 ? strtol(after + 1, NULL, 10) : 0;
    return (mark){.kind = MARK_HOLE, .bytes = sizeof hole - 1 + 1 + digits + 1, .tokens = tokens};
}

static gidd_status take_template(template *t, const char *text)
{
    const char *piece = text;
    for (const char *now = text;;) {
        const mark m = mark_at(now);
        if (m.kind == MARK_NONE && *now != '\0') {
            now++;
            continue;
        }
        GIDD_TRY(put_text(t, piece, (size_t)(now - piece)));
        if (m.kind == MARK_NONE) {
            return GIDD_OK;
        }
        if (m.kind == MARK_HOLE && m.tokens < 1) {
            return gidd_fail(GIDD_ERR_USAGE, "%.*s is a hole of no tokens; write [MASK] or [MASK:12]", (int)m.bytes, now);
        }
        t->at += m.tokens;
        now += m.bytes;
        piece = now;
        if (m.kind == MARK_END) {
            const int closes = t->at > 0 && *now == '\0';
            put(t, t->vocab->eos);
            while (closes && t->at < t->T) {
                put(t, t->vocab->pad);
            }
        }
    }
}

gidd_status gidd_given_of_text(const gidd_bpe *bpe, const gidd_vocab *vocab, const char *text, int64_t T, int32_t *given)
{
    template t;
    gidd_status status = open_template(bpe, vocab, T, given, &t);
    if (status == GIDD_OK) {
        status = take_template(&t, text);
    }
    gidd_bpe_encoder_destroy(t.encoder);
    if (status == GIDD_OK && t.at > T) {
        return gidd_fail(GIDD_ERR_USAGE, "the text to fill in has %" PRId64 " tokens with its holes; the model has room for %" PRId64,
                         t.at, T);
    }
    return status;
}

/* ---- a list of positions ----------------------------------------------------------------------------------- */

typedef struct place {
    const char *path;
    size_t      item;
} place;

static gidd_status put_ids(template *t, const place *where, const json_t *ids)
{
    for (size_t k = 0; k < json_array_size(ids); k++) {
        const json_t     *item = json_array_get(ids, k);
        const json_int_t  id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id >= t->vocab->V || id == t->vocab->mask) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: item %zu: its id %zu is not a whole number from 0 to %" PRId64 " but for the mask's, %" PRId32,
                             where->path, where->item, k, t->vocab->V - 1, t->vocab->mask);
        }
        put(t, (int32_t)id);
    }
    return GIDD_OK;
}

// `t` writes to a strip of its own, so that what is given twice is seen.
static gidd_status take_item(template *t, const place *where, const json_t *item)
{
    const json_t *position = json_object_get(item, "position");
    const json_t *ids = json_object_get(item, "ids"), *text = json_object_get(item, "text");
    if (!json_is_integer(position) || json_is_array(ids) == json_is_string(text)) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "%s: item %zu is not {\"position\": P, \"ids\": [...]} or {\"position\": P, \"text\": \"...\"}",
                         where->path, where->item);
    }
    t->at = json_integer_value(position);
    if (t->at < 0 || t->at >= t->T) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: item %zu: position %" PRId64 " is not one of 0 to %" PRId64, where->path, where->item,
                         t->at, t->T - 1);
    }
    if (json_is_string(text)) {
        return put_text(t, json_string_value(text), json_string_length(text));
    }
    return put_ids(t, where, ids);
}

// An item written to `strip`, then taken over.
static gidd_status add_item(template *t, const place *where, const json_t *item, int32_t *strip)
{
    template own = *t;
    own.given = strip;
    for (int64_t p = 0; p < t->T; p++) {
        strip[p] = -1;
    }
    GIDD_TRY(take_item(&own, where, item));
    if (own.at > t->T) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: item %zu ends at position %" PRId64 "; the model has room for %" PRId64, where->path,
                         where->item, own.at, t->T);
    }
    for (int64_t p = 0; p < t->T; p++) {
        if (strip[p] >= 0 && t->given[p] >= 0) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: item %zu gives position %" PRId64 " a second time", where->path, where->item, p);
        }
        t->given[p] = strip[p] >= 0 ? strip[p] : t->given[p];
    }
    return GIDD_OK;
}

static gidd_status add_items(template *t, const char *path, const json_t *list)
{
    int32_t    *strip = malloc((size_t)t->T * sizeof *strip);
    gidd_status status = strip != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for %" PRId64 " positions", t->T);
    for (size_t k = 0; status == GIDD_OK && k < json_array_size(list); k++) {
        status = add_item(t, &(place){path, k}, json_array_get(list, k), strip);
    }
    free(strip);
    return status;
}

static gidd_status load_list(const char *path, json_t **list_p)
{
    json_error_t error;
    json_t      *list = NULL;
    FILE        *file = fopen(path, "re");
    if (file == NULL) {
        return gidd_fail(errno == ENOENT || errno == ENOTDIR ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s", path,
                         strerror(errno));
    }
    gidd_status status = gidd_json_parse_file(file, JSON_REJECT_DUPLICATES, &error, &list);
    (void)fclose(file);
    GIDD_TRY(status);
    if (!json_is_array(list)) {
        status = list == NULL ? gidd_fail(GIDD_ERR_CORRUPT, "%s:%d:%d: %s", path, error.line, error.column, error.text)
                              : gidd_fail(GIDD_ERR_CORRUPT, "%s is not a list", path);
        json_decref(list);
        return status;
    }
    *list_p = list;
    return GIDD_OK;
}

gidd_status gidd_given_of_file(const gidd_bpe *bpe, const gidd_vocab *vocab, const char *path, int64_t T, int32_t *given)
{
    template t;
    json_t     *list = NULL;
    GIDD_TRY(load_list(path, &list));
    gidd_status status = open_template(bpe, vocab, T, given, &t);
    if (status == GIDD_OK) {
        status = add_items(&t, path, list);
    }
    gidd_bpe_encoder_destroy(t.encoder);
    json_decref(list);
    return status;
}
