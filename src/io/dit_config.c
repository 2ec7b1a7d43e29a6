/* SPDX-License-Identifier: Apache-2.0 */
#include "io/dit_config.h"

#include "base/json.h"

#include "io/checkpoint_dir.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 20 };

// One table: read and written in the same words. `initial` is DITConfig's default.
static const struct count_key {
    const char *name;
    size_t      at;
    int64_t     initial;
} count_keys[] = {
    {"vocab_size", offsetof(gidd_dit_config, vocab_size), 50258},
    {"max_seq_len", offsetof(gidd_dit_config, max_seq_len), 1024},
    {"hidden_size", offsetof(gidd_dit_config, hidden_size), 768},
    {"timestep_cond_dim", offsetof(gidd_dit_config, timestep_cond_dim), 128},
    {"num_hidden_layers", offsetof(gidd_dit_config, num_hidden_layers), 12},
    {"num_attention_heads", offsetof(gidd_dit_config, num_attention_heads), 12},
};
enum { COUNT_KEYS = sizeof count_keys / sizeof *count_keys };

#define COUNT_MAX ((int64_t)1 << 24)

/* ---- reading ---------------------------------------------------------------------------------------- */

static gidd_status take_count(const char *path, const json_t *object, const char *name, int64_t lowest, int64_t *count_p)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL) {
        return GIDD_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < lowest || json_integer_value(value) > COUNT_MAX) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s is no whole number from %lld to %lld", path, name, (long long)lowest,
                         (long long)COUNT_MAX);
    }
    *count_p = json_integer_value(value);
    return GIDD_OK;
}

// null stands for the default: models of processes without the key have it.
static gidd_status take_share(const char *path, const json_t *object, const char *name, double *share_p)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL || json_is_null(value)) {
        return GIDD_OK;
    }
    if (!json_is_number(value) || !(json_number_value(value) >= 0.0 && json_number_value(value) < 1.0)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s is no number from 0 to below 1", path, name);
    }
    *share_p = json_number_value(value);
    return GIDD_OK;
}

static gidd_status take_word(const char *path, const json_t *object, const char *name, const char *first,
                             const char *second, char word[8])
{
    const json_t *value = json_object_get(object, name);
    const char   *text = json_string_value(value);
    if (value == NULL) {
        return GIDD_OK;
    }
    if (text == NULL || (strcmp(text, first) != 0 && strcmp(text, second) != 0)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: gidd.%s is neither \"%s\" nor \"%s\"", path, name, first, second);
    }
    (void)snprintf(word, 8, "%s", text);
    return GIDD_OK;
}

static gidd_status take_extension(const char *path, const json_t *object, gidd_dit_config *config)
{
    const json_t *digest = json_object_get(object, "tokenizer_digest");
    GIDD_TRY(take_count(path, object, "base_ids", 1, &config->base_ids));
    GIDD_TRY(take_word(path, object, "pad", "own", "eos", config->pad));
    GIDD_TRY(take_word(path, object, "process", "gidd", "mdlm", config->process));
    const json_t *step = json_object_get(object, "step");
    if (json_is_integer(step) && json_integer_value(step) > 0) {
        config->step = json_integer_value(step);
    }
    if (digest != NULL && (!json_is_string(digest) || !gidd_digest_valid(json_string_value(digest)))) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: gidd.tokenizer_digest is no digest", path);
    }
    if (digest != NULL) {
        memcpy(config->tokenizer_digest, json_string_value(digest), GIDD_DIGEST_SIZE);
    }
    return GIDD_OK;
}

static gidd_status take_keys(const char *path, const json_t *root, gidd_dit_config *config)
{
    const json_t *type = json_object_get(root, "model_type");
    if (!json_is_object(root)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is no JSON object", path);
    }
    if (type != NULL && (!json_is_string(type) || strcmp(json_string_value(type), "dit") != 0)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: model_type is '%.60s', only \"dit\" is read", path,
                         json_is_string(type) ? json_string_value(type) : "no text");
    }
    for (int i = 0; i < COUNT_KEYS; i++) {
        int64_t value = count_keys[i].initial;
        GIDD_TRY(take_count(path, root, count_keys[i].name, 1, &value));
        memcpy((char *)config + count_keys[i].at, &value, sizeof value);
    }
    config->t_eps = 1e-4;
    GIDD_TRY(take_share(path, root, "p_uniform", &config->p_uniform));
    GIDD_TRY(take_share(path, root, "t_eps", &config->t_eps));
    const json_t *extension = json_object_get(root, "gidd");
    return extension != NULL ? take_extension(path, extension, config) : GIDD_OK;
}

static gidd_status read_text(const char *path, char *text, size_t capacity, size_t *bytes_p)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return gidd_fail(errno == ENOENT || errno == ENOTDIR ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s", path,
                         strerror(errno));
    }
    *bytes_p = fread(text, 1, capacity, file);
    int bad = ferror(file);
    (void)fclose(file);
    if (bad) {
        return gidd_fail(GIDD_ERR_IO, "cannot read %s", path);
    }
    return *bytes_p < capacity ? GIDD_OK : gidd_fail(GIDD_ERR_CORRUPT, "%s has more than 1 MiB: no configuration", path);
}

gidd_status gidd_dit_config_read(const char *path, gidd_dit_config *config)
{
    json_error_t error;
    size_t       bytes = 0;
    char        *text = malloc(FILE_BYTES_MAX);
    if (text == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read %s", path);
    }
    memset(config, 0, sizeof *config);
    gidd_status status = read_text(path, text, FILE_BYTES_MAX, &bytes);
    json_t     *root = NULL;
    if (status == GIDD_OK) {
        status = gidd_json_parse(text, bytes, JSON_REJECT_DUPLICATES, &error, &root);
    }
    if (status == GIDD_OK && root == NULL) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s:%d: %s", path, error.line, error.text);
    }
    if (status == GIDD_OK) {
        status = take_keys(path, root, config);
    }
    json_decref(root);
    free(text);
    return status;
}

/* ---- writing ---------------------------------------------------------------------------------------- */

static json_t *build(const gidd_dit_config *config, const char *dtype)
{
    // auto_map: where the reference's own code, copied beside it, is found by transformers
    json_t *root = json_pack("{s:[s], s:s, s:f, s:{s:s, s:s}, s:s, s:f, s:f, s:{s:I, s:s, s:s, s:I}}", "architectures", "DIT",
                             "model_type", "dit", "attention_dropout", 0.0, "auto_map", "AutoConfig",
                             "configuration_dit.DITConfig", "AutoModelForMaskedLM", "modeling_dit.DIT", "torch_dtype", dtype,
                             "p_uniform", config->p_uniform, "t_eps", config->t_eps, "gidd", "base_ids",
                             (json_int_t)config->base_ids, "pad", config->pad, "process", config->process, "step",
                             (json_int_t)config->step);
    int bad = root == NULL;
    for (int i = 0; !bad && i < COUNT_KEYS; i++) {
        int64_t value = 0;
        memcpy(&value, (const char *)config + count_keys[i].at, sizeof value);
        bad = json_object_set_new(root, count_keys[i].name, json_integer(value)) != 0;
    }
    if (!bad && config->tokenizer_digest[0] != '\0') {
        bad = json_object_set_new(json_object_get(root, "gidd"), "tokenizer_digest", json_string(config->tokenizer_digest)) != 0;
    }
    if (bad) {
        json_decref(root);
        return NULL;
    }
    return root;
}

gidd_status gidd_dit_config_write(const char *path, const gidd_dit_config *config, const char *dtype)
{
    json_t *root = build(config, dtype);
    char   *text = root != NULL ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (text == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to write %s", path);
    }
    gidd_status status = gidd_checkpoint_write_file(path, text, strlen(text));
    free(text);
    return status;
}
