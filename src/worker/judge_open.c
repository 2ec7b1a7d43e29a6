/* SPDX-License-Identifier: Apache-2.0
 *
 * A judge from its files.
 */
#include "base/json.h"
#include "io/safetensors.h"
#include "worker/judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096, PIECE = 1 << 16 };

/* ---- config.json ------------------------------------------------------------------------------------------- */

static gidd_status read_count(const char *path, const json_t *config, const char *key, int64_t *value_p)
{
    const json_t *value = json_object_get(config, key);
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > 1 << 24) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s is not a number of a GPT-2", path, key);
    }
    *value_p = json_integer_value(value);
    return GIDD_OK;
}

static gidd_status read_shape(const char *path, const json_t *config, gidd_gpt2_shape *shape)
{
    const json_t *activation = json_object_get(config, "activation_function");
    const json_t *epsilon = json_object_get(config, "layer_norm_epsilon");
    GIDD_TRY(read_count(path, config, "n_embd", &shape->D));
    GIDD_TRY(read_count(path, config, "n_layer", &shape->L));
    GIDD_TRY(read_count(path, config, "n_head", &shape->H));
    GIDD_TRY(read_count(path, config, "n_positions", &shape->T));
    GIDD_TRY(read_count(path, config, "vocab_size", &shape->V));
    if (activation != NULL && (!json_is_string(activation) || strcmp(json_string_value(activation), "gelu_new") != 0)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: activation_function is not gelu_new, GPT-2's", path);
    }
    if (epsilon != NULL && fabs(json_number_value(epsilon) - 1e-5) > 1e-12) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: layer_norm_epsilon is not 1e-5, GPT-2's", path);
    }
    return GIDD_OK;
}

// config.json in the folder of `model`.
static gidd_status read_config(const char *model, gidd_gpt2_shape *shape)
{
    char        path[PATH_SIZE];
    const char *slash = strrchr(model, '/');
    int         folder = slash != NULL ? (int)(slash - model) + 1 : 0;
    if (snprintf(path, sizeof path, "%.*sconfig.json", folder, model) >= (int)sizeof path) {
        return gidd_fail(GIDD_ERR_MISSING, "the path of %.80s... is too long", model);
    }
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_MISSING, "%s is not there: it says how many layers and heads the judge has", path);
    }
    json_error_t error;
    json_t      *config = NULL;
    gidd_status  status = gidd_json_parse_file(file, JSON_REJECT_DUPLICATES, &error, &config);
    (void)fclose(file);
    GIDD_TRY(status);
    if (config == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%d: %s", path, error.line, error.text);
    }
    status = read_shape(path, config, shape);
    json_decref(config);
    return status;
}

/* ---- tensors ----------------------------------------------------------------------------------------------- */

static const char prefix[] = "transformer.";

// The tensor called `name`, or with the prefix.
static gidd_status expect(const gidd_safetensors *file, const gidd_gpt2_tensor *want,
                          const gidd_safetensors_tensor **tensor_p)
{
    char full[sizeof want->name + sizeof prefix];
    (void)snprintf(full, sizeof full, "%s%s", prefix, want->name);
    const char *name = gidd_safetensors_find(file, full) != NULL ? full : want->name;
    return gidd_safetensors_expect(file, name, want->dims, want->shape, tensor_p);
}

static gidd_status load_tensor(gidd_safetensors *file, gidd_gpt2 *judge, const gidd_gpt2_tensor *want)
{
    const gidd_safetensors_tensor *tensor = NULL;
    GIDD_TRY(expect(file, want, &tensor));
    float *values = malloc((size_t)tensor->count * sizeof *values);
    if (values == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read %s", want->name);
    }
    gidd_status status = gidd_safetensors_read(file, tensor, 0, tensor->count, values);
    if (status == GIDD_OK) {
        status = gidd_gpt2_set(judge, want, values);
    }
    free(values);
    return status;
}

// A published head is the embedding once more, or it is another model's.
static gidd_status check_head(gidd_safetensors *file, const gidd_gpt2_tensor *wte)
{
    const gidd_safetensors_tensor *head = NULL, *embedding = NULL;
    if (gidd_safetensors_find(file, "lm_head.weight") == NULL) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_safetensors_expect(file, "lm_head.weight", wte->dims, wte->shape, &head));
    GIDD_TRY(expect(file, wte, &embedding));
    float *values = malloc(2 * PIECE * sizeof *values);
    if (values == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to compare the head");
    }
    gidd_status status = GIDD_OK;
    for (int64_t first = 0; status == GIDD_OK && first < head->count; first += PIECE) {
        int64_t count = head->count - first < PIECE ? head->count - first : PIECE;
        status = gidd_safetensors_read(file, head, first, count, values);
        if (status == GIDD_OK) {
            status = gidd_safetensors_read(file, embedding, first, count, values + PIECE);
        }
        if (status == GIDD_OK && memcmp(values, values + PIECE, (size_t)count * sizeof *values) != 0) {
            status = gidd_fail(GIDD_ERR_CORRUPT, "%s: lm_head.weight is not wte.weight: not a GPT-2, whose head is tied",
                               gidd_safetensors_path(file));
        }
    }
    free(values);
    return status;
}

// Old files carry the causal mask as "attn.bias" and "attn.masked_bias": buffers, no parameters.
static int is_known(const char *name, const gidd_gpt2_tensor *tensors, int64_t count)
{
    const char *bare = strncmp(name, prefix, sizeof prefix - 1) == 0 ? name + sizeof prefix - 1 : name;
    const char *last = strrchr(bare, '.');
    if (strcmp(name, "lm_head.weight") == 0) {
        return 1;
    }
    if (last != NULL && last - bare > 5 && strncmp(last - 5, ".attn", 5) == 0) {
        return strcmp(last, ".bias") == 0 || strcmp(last, ".masked_bias") == 0;
    }
    for (int64_t i = 0; i < count; i++) {
        if (strcmp(bare, tensors[i].name) == 0) {
            return 1;
        }
    }
    return 0;
}

static gidd_status load_tensors(gidd_safetensors *file, gidd_gpt2 *judge)
{
    int64_t                 count = 0;
    const gidd_gpt2_tensor *tensors = gidd_gpt2_tensors(judge, &count);
    for (int64_t i = 0; i < gidd_safetensors_count(file); i++) {
        const char *name = gidd_safetensors_at(file, i)->name;
        if (!is_known(name, tensors, count)) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: %.200s is not a tensor of a GPT-2 of that many layers",
                             gidd_safetensors_path(file), name);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        GIDD_TRY(load_tensor(file, judge, &tensors[i]));
    }
    return check_head(file, &tensors[0]);
}

gidd_status gidd_judge_open(const char *path, gidd_device *device, int64_t max_B, gidd_gpt2 **judge_p,
                            gidd_gpt2_shape *shape)
{
    gidd_safetensors *file = NULL;
    gidd_gpt2        *judge = NULL;
    GIDD_TRY(gidd_safetensors_open(path, &file));
    gidd_status status = read_config(path, shape);
    if (status == GIDD_OK) {
        status = gidd_gpt2_create(
            &(gidd_gpt2_args){.device = device, .shape = *shape, .max_B = max_B, .max_T = shape->T}, &judge);
    }
    if (status == GIDD_OK) {
        status = load_tensors(file, judge);
    }
    gidd_safetensors_close(file);
    if (status != GIDD_OK) {
        gidd_gpt2_destroy(judge);
        return status;
    }
    *judge_p = judge;
    return GIDD_OK;
}
