/* SPDX-License-Identifier: Apache-2.0 */
#include "io/gemm_record.h"

#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMAT_NAME "gidd-gemm"
enum { VERSION = 1, FILE_BYTES_MAX = 8 << 20, HEX = 2 * GIDD_GEMM_ALGORITHM_BYTES };

void gidd_gemm_record_release(gidd_gemm_record *record)
{
    if (record != NULL) {
        free(record->choices);
        *record = (gidd_gemm_record){0};
    }
}

static int by_key(const void *left, const void *right)
{
    return strcmp(((const gidd_gemm_choice *)left)->key, ((const gidd_gemm_choice *)right)->key);
}

static int is_printable(const char *text, size_t capacity)
{
    size_t length = strnlen(text, capacity);
    for (size_t i = 0; i < length; i++) {
        if (text[i] < ' ' || text[i] > '~') {
            return 0;
        }
    }
    return length > 0 && length < capacity;
}

/* ---- writing ---------------------------------------------------------------------------------- */

static json_t *build_choice(const gidd_gemm_choice *choice)
{
    char hex[HEX + 1];
    for (int i = 0; i < GIDD_GEMM_ALGORITHM_BYTES; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", choice->algorithm[i]);
    }
    return json_pack("{s:s, s:s}", "key", choice->key, "algorithm", hex);
}

static gidd_status build(const char *device, const gidd_gemm_choice *sorted, int64_t count, char **text_p)
{
    json_t *products = json_array();
    for (int64_t i = 0; i < count; i++) {
        if (!is_printable(sorted[i].key, sizeof sorted[i].key) || (i > 0 && by_key(&sorted[i - 1], &sorted[i]) == 0)) {
            json_decref(products);
            return gidd_fail(GIDD_ERR_ARG, "a matrix product's key is not one, or stands twice: \"%.127s\"", sorted[i].key);
        }
        (void)json_array_append_new(products, build_choice(&sorted[i]));
    }
    json_t *root = json_pack("{s:s, s:i, s:s, s:o}", "format", FORMAT_NAME, "version", VERSION, "device", device, "products",
                             products);
    *text_p = root != NULL ? json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    return *text_p != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for the record of matrix products");
}

gidd_status gidd_gemm_record_encode(const char *device, const gidd_gemm_choice *choices, int64_t count, char **text_p)
{
    gidd_gemm_choice *sorted = malloc((size_t)(count + 1) * sizeof *sorted);
    if (sorted == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld matrix products", (long long)count);
    }
    if (count > 0) {
        memcpy(sorted, choices, (size_t)count * sizeof *sorted);
    }
    qsort(sorted, (size_t)count, sizeof *sorted, by_key);
    gidd_status status = build(device, sorted, count, text_p);
    free(sorted);
    return status;
}

/* ---- reading ---------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static gidd_status read_choice(const char *name, const json_t *product, int64_t index, gidd_gemm_choice *choice)
{
    const char *key = json_string_value(json_object_get(product, "key"));
    const char *hex = json_string_value(json_object_get(product, "algorithm"));
    if (key == NULL || hex == NULL || json_object_size(product) != 2 || !is_printable(key, sizeof choice->key) ||
        strlen(hex) != HEX) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: product %lld is not a key and an algorithm", name, (long long)index);
    }
    (void)snprintf(choice->key, sizeof choice->key, "%s", key);
    for (int i = 0; i < GIDD_GEMM_ALGORITHM_BYTES; i++) {
        int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: the algorithm of %s is not hexadecimal", name, key);
        }
        choice->algorithm[i] = (unsigned char)(16 * high + low);
    }
    return GIDD_OK;
}

static gidd_status read_choices(const char *name, const json_t *products, gidd_gemm_record *record)
{
    for (int64_t i = 0; i < record->count; i++) {
        GIDD_TRY(read_choice(name, json_array_get(products, (size_t)i), i, &record->choices[i]));
        if (i > 0 && by_key(&record->choices[i - 1], &record->choices[i]) >= 0) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: products are not in ascending order at %s", name, record->choices[i].key);
        }
    }
    return GIDD_OK;
}

static gidd_status read_root(const char *name, const json_t *root, gidd_gemm_record *record)
{
    const char   *format = json_string_value(json_object_get(root, "format"));
    const char   *device = json_string_value(json_object_get(root, "device"));
    const json_t *version = json_object_get(root, "version"), *products = json_object_get(root, "products");
    if (format == NULL || strcmp(format, FORMAT_NAME) != 0 || !json_is_integer(version)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is not a record of matrix products", name);
    }
    if (json_integer_value(version) != VERSION) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has version %lld, this program reads %d", name,
                         (long long)json_integer_value(version), VERSION);
    }
    if (device == NULL || !is_printable(device, sizeof record->device) || !json_is_array(products) ||
        json_array_size(products) > GIDD_GEMM_CHOICES_MAX || json_object_size(root) != 4) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: no device, no list of at most %d products, or something else besides", name,
                         GIDD_GEMM_CHOICES_MAX);
    }
    (void)snprintf(record->device, sizeof record->device, "%s", device);
    record->count = (int64_t)json_array_size(products);
    record->choices = calloc((size_t)record->count + 1, sizeof *record->choices);
    if (record->choices == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld matrix products", (long long)record->count);
    }
    return read_choices(name, products, record);
}

gidd_status gidd_gemm_record_decode(const char *name, const char *text, size_t bytes, gidd_gemm_record *record)
{
    json_error_t error;
    json_t      *root = NULL;
    *record = (gidd_gemm_record){0};
    GIDD_TRY(gidd_json_parse(text, bytes, JSON_REJECT_DUPLICATES, &error, &root));
    if (root == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%d: %s", name, error.line, error.text);
    }
    gidd_status status = read_root(name, root, record);
    json_decref(root);
    if (status != GIDD_OK) {
        gidd_gemm_record_release(record);
    }
    return status;
}

/* ---- the file --------------------------------------------------------------------------------- */

gidd_status gidd_gemm_record_read(const char *path, char **text_p, size_t *bytes_p)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return errno == ENOENT ? gidd_fail(GIDD_ERR_MISSING, "there is no %s", path)
                               : gidd_fail(GIDD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    char *text = malloc(FILE_BYTES_MAX);
    size_t bytes = text != NULL ? fread(text, 1, FILE_BYTES_MAX, file) : 0;
    gidd_status status = text == NULL                ? gidd_fail(GIDD_ERR_NOMEM, "no memory to read %s", path)
                         : ferror(file) != 0         ? gidd_fail(GIDD_ERR_IO, "cannot read %s", path)
                         : bytes == FILE_BYTES_MAX   ? gidd_fail(GIDD_ERR_CORRUPT, "%s is too large to be a record", path)
                                                     : GIDD_OK;
    (void)fclose(file);
    if (status != GIDD_OK) {
        free(text);
        return status;
    }
    *text_p = text;
    *bytes_p = bytes;
    return GIDD_OK;
}

gidd_status gidd_gemm_record_write(const char *path, const char *text)
{
    char temporary[4200];
    (void)snprintf(temporary, sizeof temporary, "%.4100s.tmp", path);
    FILE *file = fopen(temporary, "wbe");
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", temporary, strerror(errno));
    }
    int bad = fputs(text, file) == EOF || fputc('\n', file) == EOF;
    bad |= fflush(file) != 0 || fsync(fileno(file)) != 0;
    bad |= fclose(file) != 0;
    if (bad || rename(temporary, path) != 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    }
    return GIDD_OK;
}
