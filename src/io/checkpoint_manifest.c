/* SPDX-License-Identifier: Apache-2.0 */
#include "io/checkpoint_manifest.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_NAME "gidd-checkpoint"
#define CHECKSUM_KEY "\"checksum\": \"" // cannot occur inside a JSON string: its quotes are escaped
#define CHECKSUM_ZEROS "00000000000000000000000000000000"

// Limits of the reader: far above any real model, far below what could overflow.
enum {
    MANIFEST_BYTES_MAX = 256 << 20,
    TENSORS_MAX = 1 << 20,
    TEXTS_MAX = 1024,
};
#define ELEMENTS_MAX ((int64_t)1 << 42)
#define COUNTER_MAX INT64_MAX

// One table of the numbers besides shapes: written and read in the same words.
static const struct counter {
    const char *name;
    size_t at;
    int64_t low;
} counters[] = {
    {"adam_step", offsetof(gidd_checkpoint_fields, adam_step), 0},
    {"metrics_bytes", offsetof(gidd_checkpoint_fields, metrics_bytes), 0},
    {"sample_cursor", offsetof(gidd_checkpoint_fields, sample_cursor), 0},
    {"seed", offsetof(gidd_checkpoint_fields, seed), INT64_MIN},
    {"skipped_in_row", offsetof(gidd_checkpoint_fields, skipped_in_row), 0},
    {"skipped_total", offsetof(gidd_checkpoint_fields, skipped_total), 0},
    {"step", offsetof(gidd_checkpoint_fields, step), 0},
    {"tokens_seen", offsetof(gidd_checkpoint_fields, tokens_seen), 0},
    {"world_size", offsetof(gidd_checkpoint_fields, world_size), 1},
};
enum { COUNTERS = sizeof counters / sizeof *counters };

/* ---- writing ----------------------------------------------------------------------------------
 */

static json_t *build_counters(const gidd_checkpoint_fields *fields)
{
    json_t *object = json_object();
    for (size_t i = 0; i < COUNTERS; i++) {
        int64_t value = 0;
        memcpy(&value, (const char *)fields + counters[i].at, sizeof value);
        (void)json_object_set_new(object, counters[i].name, json_integer(value));
    }
    return object;
}

static gidd_status build_texts(const gidd_checkpoint_text *texts, int64_t count, json_t **object_p)
{
    json_t *object = json_object();
    for (int64_t i = 0; i < count; i++) {
        size_t length = strlen(texts[i].name);
        if (length == 0 || length >= GIDD_CHECKPOINT_NAME_SIZE ||
            json_object_get(object, texts[i].name) != NULL) {
            json_decref(object);
            return gidd_fail(GIDD_ERR_ARG, "checkpoint text '%.100s' has a bad name or comes twice",
                             texts[i].name);
        }
        if (json_object_set_new(object, texts[i].name, json_string(texts[i].value)) != 0) {
            json_decref(object);
            return gidd_fail(GIDD_ERR_ARG, "checkpoint text '%s' is not UTF-8", texts[i].name);
        }
    }
    *object_p = object;
    return GIDD_OK;
}

static json_t *build_tensors(const gidd_checkpoint_layout *layout)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < layout->tensor_count; i++) {
        const gidd_checkpoint_tensor *tensor = &layout->tensors[i];
        json_t *shape = json_array();
        for (int d = 0; d < tensor->dims; d++) {
            (void)json_array_append_new(shape, json_integer(tensor->shape[d]));
        }
        (void)json_array_append_new(array,
                                    json_pack("{s:s, s:I, s:o}", "name", tensor->name, "offset",
                                              (json_int_t)tensor->offset, "shape", shape));
    }
    return array;
}

static json_t *build_sections(const gidd_checkpoint_layout *layout)
{
    json_t *array = json_array();
    for (int section = 0; section < layout->section_count; section++) {
        json_int_t offset = gidd_checkpoint_section_offset(layout, section);
        (void)json_array_append_new(array,
                                    json_pack("{s:s, s:s, s:I}", "name", layout->sections[section],
                                              "dtype", "fp32", "offset", offset));
    }
    return array;
}

gidd_status gidd_manifest_build(const gidd_checkpoint_layout *layout,
                                const gidd_checkpoint_fields *fields, json_t **root_p)
{
    json_t *texts = NULL, *fingerprint = NULL;
    GIDD_TRY(build_texts(fields->texts, fields->text_count, &texts));
    gidd_status status = build_texts(fields->fingerprint, fields->fingerprint_count, &fingerprint);
    if (status != GIDD_OK) {
        json_decref(texts);
        return status;
    }
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:s, s:o, s:o, s:o, s:I, s:o, s:o}", "format", FORMAT_NAME,
                  "version", GIDD_CHECKPOINT_VERSION, "checksum", CHECKSUM_ZEROS, "build_id",
                  fields->build_id, "counters", build_counters(fields), "texts", texts,
                  "fingerprint", fingerprint, "elements", (json_int_t)layout->elements, "tensors",
                  build_tensors(layout), "sections", build_sections(layout));
    if (root == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "cannot build the manifest: a text is not UTF-8, or memory "
                                       "ran out");
    }
    *root_p = root;
    return GIDD_OK;
}

gidd_status gidd_manifest_amend(json_t *root, const gidd_checkpoint_amendment *amendment)
{
    json_t *numbers = json_object_get(root, "counters"), *texts = json_object_get(root, "texts");
    int bad = json_object_set_new(numbers, "metrics_bytes", json_integer(amendment->metrics_bytes));
    bad |= json_object_set_new(numbers, "tokens_seen", json_integer(amendment->tokens_seen));
    bad |= json_object_set_new(numbers, "skipped_total", json_integer(amendment->skipped_total));
    bad |= json_object_set_new(numbers, "skipped_in_row", json_integer(amendment->skipped_in_row));
    for (int64_t i = 0; i < amendment->text_count && bad == 0; i++) {
        bad |= json_object_set_new(texts, amendment->texts[i].name, json_string(amendment->texts[i].value));
    }
    return bad == 0 ? GIDD_OK
                    : gidd_fail(GIDD_ERR_ARG, "a checkpoint text is not UTF-8, or no memory");
}

gidd_status gidd_manifest_encode(json_t *root, char (*digests)[GIDD_DIGEST_SIZE], int64_t count,
                                 char **text_p, size_t *bytes_p)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < count; i++) {
        (void)json_array_append_new(array, json_string(digests[i]));
    }
    json_t *state =
        json_pack("{s:I, s:I, s:o}", "block_bytes", (json_int_t)GIDD_CHECKPOINT_BLOCK, "bytes",
                  (json_int_t)(count * GIDD_CHECKPOINT_BLOCK), "digests", array);
    if (state == NULL || json_object_set_new(root, "state", state) != 0) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the manifest");
    }
    char *line = json_dumps(root, JSON_SORT_KEYS | JSON_INDENT(1) | JSON_ENSURE_ASCII);
    char *text = NULL;
    if (line == NULL || asprintf(&text, "%s\n", line) < 0) {
        free(line);
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the manifest's text");
    }
    free(line);
    char *digits = strstr(text, CHECKSUM_KEY), checksum[GIDD_DIGEST_SIZE];
    gidd_digest_of(text, strlen(text), checksum);
    memcpy(digits + strlen(CHECKSUM_KEY), checksum, GIDD_DIGEST_SIZE - 1);
    *text_p = text;
    *bytes_p = strlen(text);
    return GIDD_OK;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static gidd_status broken(const char *what)
{
    return gidd_fail(GIDD_ERR_CORRUPT, "manifest.json: %s", what);
}

static gidd_status read_integer(const json_t *object, const char *key, int64_t low, int64_t high,
                                int64_t *value_p)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < low ||
        json_integer_value(value) > high) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "manifest.json: '%s' is not a whole number from %lld to %lld", key,
                         (long long)low, (long long)high);
    }
    *value_p = json_integer_value(value);
    return GIDD_OK;
}

// A non-empty string that fits into `size` bytes.
static gidd_status read_name(const json_t *object, const char *key, size_t size, char *name)
{
    const json_t *value = json_object_get(object, key);
    size_t length = json_string_length(value); // 0 also for what is no string
    if (length == 0 || length >= size) {
        return gidd_fail(GIDD_ERR_CORRUPT, "manifest.json: '%s' is not a string of 1 to %zu bytes",
                         key, size - 1);
    }
    memcpy(name, json_string_value(value), length + 1);
    return GIDD_OK;
}

static gidd_status read_array(const json_t *object, const char *key, size_t low, size_t high,
                              const json_t **array_p)
{
    const json_t *array = json_object_get(object, key);
    if (!json_is_array(array) || json_array_size(array) < low || json_array_size(array) > high) {
        return gidd_fail(GIDD_ERR_CORRUPT, "manifest.json: '%s' is not a list of %zu to %zu", key,
                         low, high);
    }
    *array_p = array;
    return GIDD_OK;
}

// `object` has exactly `keys` keys: with all known ones read, none is left over.
static gidd_status read_object(const json_t *object, size_t keys, const char *name)
{
    if (!json_is_object(object) || json_object_size(object) != keys) {
        return gidd_fail(GIDD_ERR_CORRUPT, "manifest.json: '%s' does not have exactly %zu keys",
                         name, keys);
    }
    return GIDD_OK;
}

static gidd_status decode_counters(const json_t *root, gidd_checkpoint_fields *fields)
{
    const json_t *object = json_object_get(root, "counters");
    GIDD_TRY(read_object(object, COUNTERS, "counters"));
    for (size_t i = 0; i < COUNTERS; i++) {
        int64_t value = 0;
        GIDD_TRY(read_integer(object, counters[i].name, counters[i].low, COUNTER_MAX, &value));
        memcpy((char *)fields + counters[i].at, &value, sizeof value);
    }
    return GIDD_OK;
}

static gidd_status decode_texts(json_t *root, const char *key, const gidd_checkpoint_text **texts_p,
                                int64_t *count_p)
{
    json_t *object = json_object_get(root, key);
    size_t count = json_object_size(object);
    gidd_checkpoint_text *texts = NULL;
    if (!json_is_object(object) || count > TEXTS_MAX) {
        return gidd_fail(GIDD_ERR_CORRUPT,
                         "manifest.json: '%s' is not an object of at most %d "
                         "strings",
                         key, TEXTS_MAX);
    }
    texts = calloc(count > 0 ? count : 1, sizeof *texts);
    if (texts == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the manifest's texts");
    }
    *texts_p = texts; // owned by the manifest from here on
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(object, name, value)
    {
        if (!json_is_string(value)) {
            return gidd_fail(GIDD_ERR_CORRUPT, "manifest.json: '%s' holds what is no string", key);
        }
        texts[(*count_p)++] =
            (gidd_checkpoint_text){.name = name, .value = json_string_value(value)};
    }
    return GIDD_OK;
}

// The tensor behind `offset` elements; *elements_p: how many it has.
static gidd_status decode_tensor(const json_t *object, int64_t offset,
                                 gidd_checkpoint_tensor *tensor, int64_t *elements_p)
{
    const json_t *shape = NULL;
    int64_t elements = 1;
    GIDD_TRY(read_object(object, 3, "tensor"));
    GIDD_TRY(read_name(object, "name", sizeof tensor->name, tensor->name));
    GIDD_TRY(read_integer(object, "offset", offset, offset, &tensor->offset));
    GIDD_TRY(read_array(object, "shape", 1, 2, &shape));
    tensor->dims = (int)json_array_size(shape);
    tensor->shape[1] = 1;
    for (int d = 0; d < tensor->dims; d++) {
        const json_t *extent = json_array_get(shape, (size_t)d);
        int64_t value = json_integer_value(extent); // 0 for what is no integer
        if (value < 1 || value > ELEMENTS_MAX / elements) {
            return gidd_fail(GIDD_ERR_CORRUPT, "manifest.json: tensor %s has an impossible shape",
                             tensor->name);
        }
        tensor->shape[d] = value;
        elements *= value;
    }
    *elements_p = elements;
    return GIDD_OK;
}

static gidd_status decode_tensors(const json_t *root, gidd_checkpoint_layout *layout)
{
    const json_t *array = NULL;
    int64_t offset = 0;
    GIDD_TRY(read_integer(root, "elements", 1, ELEMENTS_MAX, &layout->elements));
    GIDD_TRY(read_array(root, "tensors", 1, TENSORS_MAX, &array));
    layout->tensor_count = (int64_t)json_array_size(array);
    layout->tensors = calloc((size_t)layout->tensor_count, sizeof *layout->tensors);
    if (layout->tensors == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for %lld tensors",
                         (long long)layout->tensor_count);
    }
    for (int64_t i = 0; i < layout->tensor_count; i++) {
        int64_t elements = 0;
        GIDD_TRY(decode_tensor(json_array_get(array, (size_t)i), offset, &layout->tensors[i],
                               &elements));
        if (elements > layout->elements - offset) {
            return broken("the tensors have more elements than 'elements' says");
        }
        offset += elements;
    }
    return offset == layout->elements ? GIDD_OK
                                      : broken("the tensors have fewer elements than 'elements'");
}

static gidd_status decode_sections(const json_t *root, gidd_checkpoint_layout *layout)
{
    const json_t *array = NULL;
    GIDD_TRY(read_array(root, "sections", 1, GIDD_CHECKPOINT_SECTIONS_MAX, &array));
    int count = (int)json_array_size(array);
    for (int i = 0; i < count; i++) {
        const json_t *object = json_array_get(array, (size_t)i);
        char dtype[8] = "", *name = layout->sections[i];
        int64_t want = gidd_checkpoint_section_offset(layout, i), offset = 0;
        GIDD_TRY(read_object(object, 3, "section"));
        GIDD_TRY(read_name(object, "name", GIDD_CHECKPOINT_NAME_SIZE, name));
        GIDD_TRY(read_name(object, "dtype", sizeof dtype, dtype));
        GIDD_TRY(read_integer(object, "offset", want, want, &offset));
        if (strcmp(dtype, "fp32") != 0 || gidd_checkpoint_section(layout, name) >= 0) {
            return broken("a section has an unknown dtype or comes twice");
        }
        layout->section_count = i + 1;
    }
    return GIDD_OK;
}

static gidd_status decode_digests(const json_t *root, gidd_manifest *manifest)
{
    const json_t *state = json_object_get(root, "state"), *array = NULL;
    int64_t blocks = gidd_checkpoint_block_count(&manifest->layout);
    int64_t bytes = gidd_checkpoint_state_bytes(&manifest->layout), ignored = 0;
    GIDD_TRY(read_object(state, 3, "state"));
    GIDD_TRY(
        read_integer(state, "block_bytes", GIDD_CHECKPOINT_BLOCK, GIDD_CHECKPOINT_BLOCK, &ignored));
    GIDD_TRY(read_integer(state, "bytes", bytes, bytes, &ignored));
    GIDD_TRY(read_array(state, "digests", (size_t)blocks, (size_t)blocks, &array));
    manifest->digests = calloc((size_t)blocks, sizeof *manifest->digests);
    if (manifest->digests == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for %lld checksums", (long long)blocks);
    }
    for (int64_t i = 0; i < blocks; i++) {
        const char *digest = json_string_value(json_array_get(array, (size_t)i));
        if (digest == NULL || !gidd_digest_valid(digest)) {
            return broken("a block's checksum is not 32 hexadecimal digits");
        }
        memcpy(manifest->digests[i], digest, GIDD_DIGEST_SIZE);
    }
    manifest->block_count = blocks;
    return GIDD_OK;
}

// The checksum covers every byte of the text but its own digits.
static gidd_status check_checksum(const char *text, size_t bytes)
{
    const char *key = memmem(text, bytes, CHECKSUM_KEY, strlen(CHECKSUM_KEY));
    size_t start = key != NULL ? (size_t)(key - text) + strlen(CHECKSUM_KEY) : 0;
    size_t end = start + strlen(CHECKSUM_ZEROS);
    char sum[GIDD_DIGEST_SIZE];
    gidd_digest *digest = NULL;
    if (key == NULL || end > bytes) {
        return broken("no checksum");
    }
    digest = gidd_digest_create();
    if (digest == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for a checksum");
    }
    gidd_digest_update(digest, text, start);
    gidd_digest_update(digest, CHECKSUM_ZEROS, end - start);
    gidd_digest_update(digest, text + end, bytes - end);
    gidd_digest_text(digest, sum);
    gidd_digest_destroy(digest);
    return memcmp(sum, text + start, end - start) == 0 ? GIDD_OK : broken("checksum mismatch");
}

static gidd_status decode_root(gidd_manifest *manifest)
{
    json_t *root = manifest->root;
    char format[32], build_id[256];
    int64_t version = 0;
    GIDD_TRY(read_name(root, "format", sizeof format, format));
    GIDD_TRY(read_integer(root, "version", 1, INT32_MAX, &version));
    if (strcmp(format, FORMAT_NAME) != 0) {
        return broken("not a checkpoint's manifest");
    }
    if (version != GIDD_CHECKPOINT_VERSION) {
        return gidd_fail(GIDD_ERR_UNSUPPORTED,
                         "the checkpoint has format version %lld, this program reads %d",
                         (long long)version, GIDD_CHECKPOINT_VERSION);
    }
    GIDD_TRY(read_object(root, 11, "manifest"));
    GIDD_TRY(read_name(root, "build_id", sizeof build_id, build_id));
    manifest->fields.build_id = json_string_value(json_object_get(root, "build_id"));
    GIDD_TRY(decode_counters(root, &manifest->fields));
    GIDD_TRY(decode_texts(root, "texts", &manifest->fields.texts, &manifest->fields.text_count));
    GIDD_TRY(decode_texts(root, "fingerprint", &manifest->fields.fingerprint,
                          &manifest->fields.fingerprint_count));
    GIDD_TRY(decode_tensors(root, &manifest->layout));
    GIDD_TRY(decode_sections(root, &manifest->layout));
    return decode_digests(root, manifest);
}

gidd_status gidd_manifest_decode(const char *text, size_t bytes, gidd_manifest *manifest)
{
    *manifest = (gidd_manifest){0};
    if (bytes > MANIFEST_BYTES_MAX) {
        return broken("longer than 256 MiB");
    }
    GIDD_TRY(check_checksum(text, bytes));
    json_error_t error;
    GIDD_TRY(gidd_json_parse(text, bytes, JSON_REJECT_DUPLICATES, &error, &manifest->root));
    if (manifest->root == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "manifest.json:%d:%d: %s", error.line, error.column,
                         error.text);
    }
    gidd_status status = decode_root(manifest);
    if (status != GIDD_OK) {
        gidd_manifest_release(manifest);
    }
    return status;
}

// The struct lends its texts as const; their arrays are its own all the same.
static void free_texts(const gidd_checkpoint_text *texts)
{
    union {
        const gidd_checkpoint_text *lent;
        void *owned;
    } array = {.lent = texts};
    free(array.owned);
}

void gidd_manifest_release(gidd_manifest *manifest)
{
    free_texts(manifest->fields.texts);
    free_texts(manifest->fields.fingerprint);
    free(manifest->layout.tensors);
    free(manifest->digests);
    json_decref(manifest->root);
    *manifest = (gidd_manifest){0};
}
