/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors_internal.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define METADATA_KEY "__metadata__"

// No file is longer, and below it neither products of shapes nor byte counts overflow.
#define BYTES_MAX ((int64_t)1 << 50)

typedef struct dtype_row {
    const char            *name;
    gidd_safetensors_dtype dtype;
    int64_t                bytes;
} dtype_row;

static const dtype_row dtypes[] = {
    {"F32", GIDD_SAFETENSORS_F32, 4},   {"BF16", GIDD_SAFETENSORS_BF16, 2},    {"F16", GIDD_SAFETENSORS_F16, 2},
    {"F64", GIDD_SAFETENSORS_F64, 8},   {"BOOL", GIDD_SAFETENSORS_OTHER, 1},   {"U8", GIDD_SAFETENSORS_OTHER, 1},
    {"I8", GIDD_SAFETENSORS_OTHER, 1},  {"F8_E5M2", GIDD_SAFETENSORS_OTHER, 1}, {"F8_E4M3", GIDD_SAFETENSORS_OTHER, 1},
    {"I16", GIDD_SAFETENSORS_OTHER, 2}, {"U16", GIDD_SAFETENSORS_OTHER, 2},    {"I32", GIDD_SAFETENSORS_OTHER, 4},
    {"U32", GIDD_SAFETENSORS_OTHER, 4}, {"I64", GIDD_SAFETENSORS_OTHER, 8},    {"U64", GIDD_SAFETENSORS_OTHER, 8},
};

int64_t gidd_safetensors_element_bytes(gidd_safetensors_dtype dtype)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (dtypes[i].dtype == dtype) {
            return dtypes[i].bytes;
        }
    }
    return 0;
}

static const dtype_row *find_dtype(const json_t *word)
{
    const char *name = json_string_value(word);
    for (size_t i = 0; name != NULL && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            return &dtypes[i];
        }
    }
    return NULL;
}

// A whole number from 0 to BYTES_MAX, else -1.
static int64_t take_size(const json_t *value)
{
    int64_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    return number <= BYTES_MAX ? number : -1;
}

static gidd_status take_shape(const char *path, const json_t *shape, gidd_safetensors_tensor *tensor)
{
    if (!json_is_array(shape) || json_array_size(shape) > GIDD_SAFETENSORS_DIMS_MAX) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s: its shape is no list of at most %d numbers", path,
                         tensor->name, GIDD_SAFETENSORS_DIMS_MAX);
    }
    tensor->dims = (int)json_array_size(shape);
    tensor->count = 1;
    for (int d = 0; d < tensor->dims; d++) {
        int64_t extent = take_size(json_array_get(shape, (size_t)d));
        if (extent < 0 || (extent > 0 && tensor->count > BYTES_MAX / extent)) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s: extent %d of its shape is no possible size", path,
                             tensor->name, d);
        }
        tensor->shape[d] = extent;
        tensor->count *= extent;
    }
    return GIDD_OK;
}

static gidd_status take_offsets(const char *path, const json_t *offsets, int64_t element_bytes, int64_t data_bytes,
                                gidd_safetensors_tensor *tensor)
{
    tensor->first = json_array_size(offsets) == 2 ? take_size(json_array_get(offsets, 0)) : -1;
    tensor->end = json_array_size(offsets) == 2 ? take_size(json_array_get(offsets, 1)) : -1;
    if (tensor->first < 0 || tensor->end < tensor->first) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s: its data_offsets are not two ascending byte offsets", path,
                         tensor->name);
    }
    if (tensor->end > data_bytes) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s: its data end at byte %" PRId64 ", but the file has only %" PRId64
                         " bytes of data: it is cut off, or the header is wrong", path, tensor->name, tensor->end, data_bytes);
    }
    if (tensor->count > BYTES_MAX / element_bytes || tensor->end - tensor->first != tensor->count * element_bytes) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s: %" PRId64 " elements of %s do not take the %" PRId64
                         " bytes of its data_offsets", path, tensor->name, tensor->count, tensor->dtype_name,
                         tensor->end - tensor->first);
    }
    return GIDD_OK;
}

static gidd_status take_tensor(const char *path, const char *name, const json_t *entry, int64_t data_bytes,
                               gidd_safetensors_tensor *tensor)
{
    tensor->name = name;
    if (!json_is_object(entry) || json_object_size(entry) != 3 || json_object_get(entry, "dtype") == NULL ||
        json_object_get(entry, "shape") == NULL || json_object_get(entry, "data_offsets") == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s: its entry is not exactly dtype, shape and data_offsets", path,
                         name);
    }
    const dtype_row *row = find_dtype(json_object_get(entry, "dtype"));
    if (row == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s: unknown dtype", path, name);
    }
    tensor->dtype = row->dtype;
    tensor->dtype_name = row->name;
    GIDD_TRY(take_shape(path, json_object_get(entry, "shape"), tensor));
    return take_offsets(path, json_object_get(entry, "data_offsets"), row->bytes, data_bytes, tensor);
}

static gidd_status check_metadata(const char *path, json_t *metadata)
{
    const char *key;
    json_t     *value;
    if (!json_is_object(metadata)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: " METADATA_KEY " is no object", path);
    }
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value)) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: " METADATA_KEY ": %.200s is no string", path, key);
        }
    }
    return GIDD_OK;
}

static int compare_places(const void *left, const void *right)
{
    const gidd_safetensors_tensor *a = left, *b = right;
    if (a->first != b->first) {
        return a->first < b->first ? -1 : 1;
    }
    if (a->end != b->end) {
        return a->end < b->end ? -1 : 1;
    }
    return strcmp(a->name, b->name); // empty tensors share a place
}

// Sorted by place, the tensors must cover the data once.
static gidd_status check_cover(const char *path, const gidd_safetensors_header *header, int64_t data_bytes)
{
    int64_t     reached = 0;
    const char *before = "the start";
    for (int64_t i = 0; i < header->count; i++) {
        const gidd_safetensors_tensor *tensor = &header->tensors[i];
        if (tensor->first != reached) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s begins at byte %" PRId64 " and %s %.200s, which ends at %" PRId64,
                             path, tensor->name, tensor->first,
                             tensor->first < reached ? "overlaps" : "leaves a gap after", before, reached);
        }
        reached = tensor->end;
        before = tensor->name;
    }
    if (reached != data_bytes) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: its tensors take %" PRId64 " bytes, but %" PRId64 " bytes of data follow the header",
                         path, reached, data_bytes);
    }
    return GIDD_OK;
}

static gidd_status take_tensors(const char *path, int64_t data_bytes, gidd_safetensors_header *header)
{
    const char *name;
    json_t     *entry;
    header->tensors = calloc(json_object_size(header->root) + 1, sizeof *header->tensors);
    if (header->tensors == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the tensors of %s", path);
    }
    json_object_foreach(header->root, name, entry) {
        if (strcmp(name, METADATA_KEY) == 0) {
            GIDD_TRY(check_metadata(path, entry));
        } else {
            GIDD_TRY(take_tensor(path, name, entry, data_bytes, &header->tensors[header->count++]));
        }
    }
    qsort(header->tensors, (size_t)header->count, sizeof *header->tensors, compare_places);
    return check_cover(path, header, data_bytes);
}

gidd_status gidd_safetensors_header_decode(const char *path, const char *text, size_t bytes, int64_t data_bytes,
                                           gidd_safetensors_header *header)
{
    json_error_t error;
    *header = (gidd_safetensors_header){0};
    if (bytes == 0 || text[0] != '{') {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: its header does not begin with '{': not a safetensors file", path);
    }
    GIDD_TRY(gidd_json_parse(text, bytes, JSON_REJECT_DUPLICATES, &error, &header->root));
    if (header->root == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: its header is not valid JSON: %s (byte %d)", path, error.text, error.position);
    }
    gidd_status status = take_tensors(path, data_bytes, header);
    if (status != GIDD_OK) {
        gidd_safetensors_header_release(header);
    }
    return status;
}

void gidd_safetensors_header_release(gidd_safetensors_header *header)
{
    free(header->tensors);
    json_decref(header->root);
    *header = (gidd_safetensors_header){0};
}
