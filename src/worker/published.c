/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/published.h"

#include "io/dit_config.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { GPT2_IDS = 50257, BASE_IDS_MAX = 65535, PATH_SIZE = 1200 };

static gidd_status join(const char *folder, const char *name, char path[PATH_SIZE])
{
    int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
    return length < PATH_SIZE ? GIDD_OK : gidd_fail(GIDD_ERR_USAGE, "the path %.200s... is too long", folder);
}

static int is_there(const char *folder, const char *name)
{
    char path[PATH_SIZE];
    return snprintf(path, sizeof path, "%s/%s", folder, name) < PATH_SIZE && access(path, F_OK) == 0;
}

int gidd_published_looks_like(const char *path)
{
    struct stat about;
    if (stat(path, &about) != 0 || S_ISREG(about.st_mode)) {
        return stat(path, &about) == 0;
    }
    return is_there(path, "config.json") || is_there(path, "model.safetensors") ||
           is_there(path, "model.safetensors.index.json");
}

/* ---- config.json ------------------------------------------------------------------------------------- */

// A refusal by the configuration's rules is, here, bad data.
static gidd_status as_corrupt(const char *path, gidd_status status)
{
    if (status != GIDD_ERR_CONFIG) {
        return status;
    }
    char story[sizeof gidd_error_last()->text];
    memcpy(story, gidd_error_last()->text, sizeof story);
    return gidd_fail(GIDD_ERR_CORRUPT, "%.250s: %.700s", path, story);
}

static gidd_status set_count(gidd_config *config, const char *path, const char *key, int64_t value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    return as_corrupt(path, gidd_config_set(config, "config.json", key, text));
}

static gidd_status set_real(gidd_config *config, const char *path, const char *key, double value)
{
    char text[40];
    (void)snprintf(text, sizeof text, "%.17g", value);
    return as_corrupt(path, gidd_config_set(config, "config.json", key, text));
}

// Which ids there are follows from the number of rows: n + 1 (PAD is EOS), n + 2, or that rounded up.
static gidd_status set_vocabulary(const char *path, const gidd_dit_config *dit, gidd_config *config,
                                  gidd_published *published)
{
    int64_t n = dit->base_ids > 0 ? dit->base_ids : GPT2_IDS;
    int     is_own = dit->vocab_size == n + 2 || dit->vocab_size == gidd_vocab_rounded(n + 2);
    int     is_eos = dit->vocab_size == n + 1 || dit->vocab_size == gidd_vocab_rounded(n + 1);
    if (dit->pad[0] != '\0') { // said, not guessed
        is_own = is_own && strcmp(dit->pad, "own") == 0;
        is_eos = is_eos && strcmp(dit->pad, "eos") == 0;
    }
    if (n > BASE_IDS_MAX || (!is_own && !is_eos)) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: vocab_size %" PRId64 " does not fit a tokenizer of %" PRId64 " ids: expected %" PRId64
                         ", %" PRId64 " or one of them rounded up to a multiple of 128; another tokenizer is told by "
                         "\"gidd\": {\"base_ids\": N}", path, dit->vocab_size, n, n + 1, n + 2);
    }
    published->base_ids = (int32_t)n;
    published->rows = dit->vocab_size;
    config->model.pad = is_own ? GIDD_CONFIG_PAD_OWN : GIDD_CONFIG_PAD_EOS;
    return GIDD_OK;
}

static gidd_status read_config(const char *path, gidd_config *config, gidd_published *published)
{
    gidd_dit_config dit;
    GIDD_TRY(gidd_dit_config_read(path, &dit));
    GIDD_TRY(set_count(config, path, "model.hidden_size", dit.hidden_size));
    GIDD_TRY(set_count(config, path, "model.blocks", dit.num_hidden_layers));
    GIDD_TRY(set_count(config, path, "model.heads", dit.num_attention_heads));
    GIDD_TRY(set_count(config, path, "model.cond_size", dit.timestep_cond_dim));
    GIDD_TRY(set_count(config, path, "model.context", dit.max_seq_len));
    GIDD_TRY(set_real(config, path, "model.p_uniform", dit.p_uniform));
    GIDD_TRY(set_real(config, path, "diffusion.t_eps", dit.t_eps));
    if (dit.process[0] != '\0') {
        GIDD_TRY(as_corrupt(path, gidd_config_set(config, "config.json", "diffusion.process", dit.process)));
    }
    published->step = dit.step;
    memcpy(published->tokenizer_digest, dit.tokenizer_digest, sizeof published->tokenizer_digest);
    return set_vocabulary(path, &dit, config, published);
}

/* ---- opening ----------------------------------------------------------------------------------------- */

// The tensor file and config.json that `path` stands for.
static gidd_status find_files(const char *path, char tensors[PATH_SIZE], char config[PATH_SIZE])
{
    struct stat about;
    char        folder[PATH_SIZE];
    if (stat(path, &about) != 0) {
        return gidd_fail(GIDD_ERR_MISSING, "no model %s", path);
    }
    if (snprintf(folder, sizeof folder, "%s", path) >= PATH_SIZE) {
        return gidd_fail(GIDD_ERR_USAGE, "the path %.200s... is too long", path);
    }
    (void)snprintf(tensors, PATH_SIZE, "%s", path);
    if (S_ISDIR(about.st_mode)) {
        GIDD_TRY(join(path, "model.safetensors", tensors));
    } else {
        char *slash = strrchr(folder, '/');
        (void)snprintf(slash != NULL ? slash : folder, 2, "%s", slash != NULL ? "" : ".");
    }
    GIDD_TRY(join(folder[0] != '\0' ? folder : "/", "config.json", config));
    if (access(config, F_OK) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: no config.json: the shape of the model is unknown", folder);
    }
    if (access(tensors, F_OK) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: no model.safetensors%s", folder,
                         is_there(folder, "model.safetensors.index.json") ? ": models in several files are not read" : "");
    }
    return GIDD_OK;
}

gidd_status gidd_published_open(const char *path, gidd_config *config, gidd_published *published)
{
    char tensors[PATH_SIZE], text[PATH_SIZE];
    memset(published, 0, sizeof *published);
    GIDD_TRY(find_files(path, tensors, text));
    GIDD_TRY(read_config(text, config, published));
    GIDD_TRY(as_corrupt(text, gidd_config_check(config)));
    return gidd_safetensors_open(tensors, &published->file);
}

void gidd_published_close(gidd_published *published)
{
    gidd_safetensors_close(published->file);
    published->file = NULL;
}

/* ---- checking ---------------------------------------------------------------------------------------- */

int gidd_published_counts_ids(const char *name)
{
    return strcmp(name, "vocab_embed.embedding") == 0 || strncmp(name, "output_layer.linear.", 20) == 0;
}

// Rows of a tensor of the table in this file.
static int64_t stored_rows(const gidd_published *published, const gidd_tensor *tensor)
{
    return gidd_published_counts_ids(tensor->name) ? published->rows : tensor->shape[0];
}

static gidd_status check_tensor(const gidd_published *published, const gidd_tensor *tensor)
{
    const gidd_safetensors_tensor *stored = NULL;
    const int64_t shape[2] = {stored_rows(published, tensor), tensor->shape[1]};
    return gidd_safetensors_expect(published->file, tensor->name, tensor->dims, shape, &stored);
}

// The rotary tables are computed, not read: another base or another order of the halves is another model.
static gidd_status check_rotary(const gidd_published *published, const gidd_safetensors_tensor *stored,
                                const gidd_params *params, int is_sine)
{
    const int64_t d = params->shape.D / params->shape.H, T = params->shape.T, shape[5] = {1, T, 3, 1, d};
    GIDD_TRY(gidd_safetensors_expect(published->file, stored->name, 5, shape, &stored));
    float *row = malloc((size_t)(3 * d) * sizeof *row);
    if (row == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to compare %s", stored->name);
    }
    gidd_status status = GIDD_OK;
    for (int64_t p = 0; status == GIDD_OK && p < T; p++) {
        status = gidd_safetensors_read(published->file, stored, p * 3 * d, 3 * d, row);
        for (int64_t i = 0; status == GIDD_OK && i < 3 * d; i++) {
            double angle = i < 2 * d ? (double)p * pow(10000.0, -2.0 * (double)(i % (d / 2)) / (double)d) : 0.0;
            double expected = is_sine ? sin(angle) : cos(angle);
            if (!(fabs((double)row[i] - expected) < 0.01)) { // also of bf16
                status = gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s is not the rotary table of this model: %g at position %" PRId64
                                   ", must be %g", gidd_safetensors_path(published->file), stored->name, (double)row[i], p,
                                   expected);
            }
        }
    }
    free(row);
    return status;
}

static gidd_status check_logit_bias(const gidd_published *published, const gidd_safetensors_tensor *stored)
{
    float bias = 0;
    if (stored->count != 1) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s has %" PRId64 " elements, must have 1",
                         gidd_safetensors_path(published->file), stored->name, stored->count);
    }
    GIDD_TRY(gidd_safetensors_read(published->file, stored, 0, 1, &bias));
    if (bias != 0.0F) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s is %g, only 0 is supported: the model would ignore it",
                         gidd_safetensors_path(published->file), stored->name, (double)bias);
    }
    return GIDD_OK;
}

static gidd_status check_surplus(const gidd_published *published, const gidd_safetensors_tensor *stored,
                                 const gidd_params *params)
{
    if (gidd_params_find(params, stored->name) != NULL) {
        return GIDD_OK;
    }
    if (strcmp(stored->name, "rotary_emb.cos_cached") == 0 || strcmp(stored->name, "rotary_emb.sin_cached") == 0) {
        return check_rotary(published, stored, params, stored->name[11] == 's');
    }
    if (strcmp(stored->name, "logit_bias") == 0) {
        return check_logit_bias(published, stored);
    }
    return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %.200s is not of this model: surplus",
                     gidd_safetensors_path(published->file), stored->name);
}

gidd_status gidd_published_check(const gidd_published *published, const gidd_params *params)
{
    for (int64_t i = 0; i < params->tensor_count; i++) {
        GIDD_TRY(check_tensor(published, &params->tensors[i]));
    }
    for (int64_t i = 0; i < gidd_safetensors_count(published->file); i++) {
        GIDD_TRY(check_surplus(published, gidd_safetensors_at(published->file, i), params));
    }
    return GIDD_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

// Elements [first, first + count) of one tensor.
static gidd_status read_tensor(const gidd_published *published, const gidd_tensor *tensor, int64_t first, int64_t count,
                               float *values)
{
    const gidd_safetensors_tensor *stored = gidd_safetensors_find(published->file, tensor->name);
    GIDD_ASSERT(stored != NULL);
    int64_t there = stored->count > first ? stored->count - first : 0;
    there = there < count ? there : count;
    GIDD_TRY(gidd_safetensors_read(published->file, stored, first, there, values));
    for (int64_t i = 0; i < there; i++) {
        if (!isfinite(values[i])) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s: tensor %s: element %" PRId64 " is %g", gidd_safetensors_path(published->file),
                             tensor->name, first + i, (double)values[i]);
        }
    }
    float filling = strcmp(tensor->name, "output_layer.linear.bias") == 0 ? GIDD_PUBLISHED_BIAS : 0.0F;
    for (int64_t i = there; i < count; i++) {
        values[i] = filling;
    }
    return GIDD_OK;
}

gidd_status gidd_published_read(const gidd_published *published, const gidd_params *params, int64_t first,
                                int64_t count, float *values)
{
    for (int64_t i = 0; count > 0 && i < params->tensor_count; i++) {
        const gidd_tensor *tensor = &params->tensors[i];
        if (first < tensor->offset || first >= tensor->offset + tensor->count) {
            continue;
        }
        int64_t left = tensor->offset + tensor->count - first, part = left < count ? left : count;
        GIDD_TRY(read_tensor(published, tensor, first - tensor->offset, part, values));
        first += part;
        count -= part;
        values += part;
    }
    GIDD_ASSERT(count == 0); // the table has every element
    return GIDD_OK;
}
