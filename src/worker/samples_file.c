/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples as lines of JSON.
 */
#include "tokenizer/unicode_class.h"
#include "base/json.h"
#include "worker/samples.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- text -------------------------------------------------------------------------------------------------- */

static size_t character_bytes(const uint8_t *text, size_t bytes)
{
    uint32_t point = 0;
    if (text[0] < 0x80) {
        return 1;
    }
    size_t length = gidd_char_decode(text, bytes, &point);
    return length > 1 ? length : 0;
}

// `text` with U+FFFD in place of bytes that are no UTF-8, ending in NUL; NULL: no memory.
static char *valid_utf8(const uint8_t *text, size_t bytes)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    char             *out = malloc(3 * bytes + 1);
    size_t            at = 0;
    for (size_t i = 0; out != NULL && i < bytes;) {
        const size_t length = character_bytes(text + i, bytes - i);
        memcpy(out + at, length > 0 ? (const char *)text + i : replacement, length > 0 ? length : 3);
        at += length > 0 ? length : 3;
        i += length > 0 ? length : 1;
    }
    if (out != NULL) {
        out[at] = '\0';
    }
    return out;
}

gidd_status gidd_samples_render(const gidd_bpe *bpe, const int32_t *ids, int64_t count, gidd_bpe_specials specials,
                                char **text_p)
{
    const size_t n = (size_t)count;
    uint16_t    *narrow = calloc(n + 1, sizeof *narrow);
    uint8_t     *raw = NULL;
    char        *text = NULL;
    size_t       bytes = 0;
    gidd_status  status = narrow != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a text");
    for (size_t k = 0; status == GIDD_OK && k < n; k++) {
        narrow[k] = (uint16_t)ids[k];
    }
    if (status == GIDD_OK) {
        status = gidd_bpe_decode(bpe, narrow, n, specials, NULL, 0, &bytes);
    }
    if (status == GIDD_OK) {
        raw = malloc(bytes + 1);
        status = raw != NULL ? gidd_bpe_decode(bpe, narrow, n, specials, raw, bytes, &bytes)
                             : gidd_fail(GIDD_ERR_NOMEM, "no memory for a text of %zu bytes", bytes);
    }
    if (status == GIDD_OK) {
        text = valid_utf8(raw, bytes);
        status = text != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a text of %zu bytes", bytes);
    }
    free(narrow);
    free(raw);
    if (status == GIDD_OK) {
        *text_p = text;
    }
    return status;
}

gidd_status gidd_samples_text(const gidd_bpe *bpe, const gidd_vocab *vocab, const int32_t *ids, int64_t T, char **text_p)
{
    const int64_t first = ids[0] == vocab->bos;
    int64_t       end = first;
    while (end < T && ids[end] != vocab->eos) {
        end++;
    }
    return gidd_samples_render(bpe, ids + first, end - first, GIDD_BPE_SPECIALS_SKIP, text_p);
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

const char *gidd_samples_ending(const gidd_correct_result *result)
{
    switch (result->verdict) {
    case GIDD_CORRECT_CONVERGED:
        return "converged";
    case GIDD_CORRECT_STALLED:
        return "patience";
    case GIDD_CORRECT_ADOPT:
        break;
    }
    return "limit";
}

static void write_ids(FILE *stream, const char *name, const int32_t *ids, int64_t count)
{
    (void)fprintf(stream, ",\"%s\":[", name);
    for (int64_t p = 0; p < count; p++) {
        (void)fprintf(stream, "%s%" PRId32, p > 0 ? "," : "", ids[p]);
    }
    (void)fputc(']', stream);
}

static void write_entropy(FILE *stream, const double *entropy, int64_t steps)
{
    (void)fputs(",\"entropy\":[", stream);
    for (int64_t k = 0; k < steps; k++) {
        (void)fprintf(stream, "%s%.9g", k > 0 ? "," : "", entropy[k]);
    }
    (void)fputc(']', stream);
}

static void write_given(FILE *stream, const int32_t *given, int64_t T)
{
    const char *separator = "";
    (void)fputs(",\"given\":[", stream);
    for (int64_t p = 0; p < T; p++) {
        if (given[p] >= 0) {
            (void)fprintf(stream, "%s%" PRId64, separator, p);
            separator = ",";
        }
    }
    (void)fputc(']', stream);
}

static void write_result(FILE *stream, const gidd_correct_result *result)
{
    (void)fprintf(stream,
                  ",\"initial_accuracy\":%.9g,\"final_accuracy\":%.9g,\"changed\":%" PRId64 ",\"steps\":%" PRId64
                  ",\"ended\":\"%s\"",
                  result->initial_accuracy, result->final_accuracy, result->changed, result->steps,
                  gidd_samples_ending(result));
}

static gidd_status write_text(FILE *stream, const gidd_bpe *bpe, const gidd_vocab *vocab, const int32_t *ids, int64_t T)
{
    char *text = NULL;
    GIDD_TRY(gidd_samples_text(bpe, vocab, ids, T, &text));
    json_t *string = json_string(text);
    char   *quoted = string != NULL ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    if (quoted != NULL) {
        (void)fprintf(stream, ",\"text\":%s", quoted);
    }
    gidd_status status = quoted != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a text in JSON");
    free(quoted);
    json_decref(string);
    free(text);
    return status;
}

gidd_status gidd_samples_write_json(FILE *stream, const gidd_bpe *bpe, const gidd_vocab *vocab,
                                    const gidd_samples *samples, int64_t i)
{
    const int64_t T = samples->T;
    (void)fprintf(stream, "{\"sample\":%" PRId64, i);
    write_ids(stream, "ids", samples->ids + i * T, T);
    GIDD_TRY(write_text(stream, bpe, vocab, samples->ids + i * T, T));
    if (samples->entropy != NULL) {
        write_entropy(stream, samples->entropy + i * samples->steps, samples->steps);
    }
    if (samples->given != NULL) {
        write_given(stream, samples->given + i * T, T);
    }
    if (samples->results != NULL) {
        write_ids(stream, "before", samples->before + i * T, T);
        write_result(stream, &samples->results[i]);
    }
    (void)fputs("}\n", stream);
    return GIDD_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

typedef struct reader {
    const char       *path;
    const gidd_vocab *vocab;
    int64_t           line, capacity;
    gidd_samples     *samples;
} reader;

static gidd_status grow(reader *r)
{
    gidd_samples *s = r->samples;
    if (s->num < r->capacity) {
        return GIDD_OK;
    }
    const int64_t capacity = r->capacity > 0 ? 2 * r->capacity : 64;
    const size_t  bytes = (size_t)capacity * (size_t)s->T * sizeof(int32_t);
    int32_t      *ids = realloc(s->ids, bytes);
    s->ids = ids != NULL ? ids : s->ids;
    int32_t *given = realloc(s->given, bytes);
    s->given = given != NULL ? given : s->given;
    if (ids == NULL || given == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %" PRId64 " samples of %s", capacity, r->path);
    }
    r->capacity = capacity;
    return GIDD_OK;
}

static gidd_status take_ids(reader *r, const json_t *list, int32_t *ids)
{
    const int64_t T = r->samples->T;
    if (!json_is_array(list) || (int64_t)json_array_size(list) != T) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%" PRId64 ": \"ids\" is not a list of the model's %" PRId64 " tokens", r->path,
                         r->line, T);
    }
    for (int64_t p = 0; p < T; p++) {
        const json_t     *item = json_array_get(list, (size_t)p);
        const json_int_t  id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id >= r->vocab->V) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s:%" PRId64 ": id %" PRId64 " of the list is not a whole number from 0 to %" PRId64,
                             r->path, r->line, p, r->vocab->V - 1);
        }
        ids[p] = (int32_t)id;
    }
    return GIDD_OK;
}

static gidd_status take_given(reader *r, const json_t *list, const int32_t *ids, int32_t *given)
{
    const int64_t T = r->samples->T;
    for (int64_t p = 0; p < T; p++) {
        given[p] = -1;
    }
    if (list != NULL && !json_is_array(list)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%" PRId64 ": \"given\" is not a list of positions", r->path, r->line);
    }
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t     *item = json_array_get(list, k);
        const json_int_t  p = json_is_integer(item) ? json_integer_value(item) : -1;
        if (p < 0 || p >= T) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s:%" PRId64 ": \"given\" holds something else than positions from 0 to %" PRId64,
                             r->path, r->line, T - 1);
        }
        given[p] = ids[p];
    }
    return GIDD_OK;
}

static gidd_status take_line(reader *r, const char *line, size_t bytes)
{
    json_error_t  error;
    gidd_samples *s = r->samples;
    if (strspn(line, " \t\r\n") == bytes) {
        return GIDD_OK;
    }
    json_t *object = NULL;
    GIDD_TRY(gidd_json_parse(line, bytes, JSON_REJECT_DUPLICATES, &error, &object));
    if (!json_is_object(object)) {
        json_decref(object);
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%" PRId64 ": not a sample in JSON: %s", r->path, r->line,
                         object == NULL ? error.text : "no object");
    }
    gidd_status status = grow(r);
    if (status == GIDD_OK) {
        status = take_ids(r, json_object_get(object, "ids"), s->ids + s->num * s->T);
    }
    if (status == GIDD_OK) {
        status = take_given(r, json_object_get(object, "given"), s->ids + s->num * s->T, s->given + s->num * s->T);
    }
    s->num += status == GIDD_OK;
    json_decref(object);
    return status;
}

static gidd_status take_lines(reader *r, FILE *file)
{
    char       *line = NULL;
    size_t      capacity = 0;
    ssize_t     bytes = 0;
    gidd_status status = GIDD_OK;
    while (status == GIDD_OK && (bytes = getline(&line, &capacity, file)) >= 0) {
        r->line++;
        status = take_line(r, line, (size_t)bytes);
    }
    free(line);
    if (status == GIDD_OK && ferror(file)) {
        return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", r->path, strerror(errno));
    }
    if (status == GIDD_OK && r->samples->num == 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s holds no samples", r->path);
    }
    return status;
}

gidd_status gidd_samples_read(const char *path, const gidd_vocab *vocab, int64_t T, gidd_samples *samples)
{
    *samples = (gidd_samples){.T = T};
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return gidd_fail(errno == ENOENT || errno == ENOTDIR ? GIDD_ERR_MISSING : GIDD_ERR_IO,
                         "cannot open the samples %s: %s", path, strerror(errno));
    }
    reader      r = {.path = path, .vocab = vocab, .samples = samples};
    gidd_status status = take_lines(&r, file);
    (void)fclose(file);
    return status;
}
