/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "io/checkpoint_dir.h"
#include "io/dit_config.h"
#include "tokenizer/bpe.h"
#include "worker/exchange.h"
#include "worker/export_tokenizer.h"
#include "worker/model_source.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 1200, CHUNK_ELEMENTS = 1 << 18 };

typedef struct exporter {
    const gidd_export_args *args;
    gidd_model_source       source;
    char                    folder[PATH_SIZE]; /* the temporary one */
    int64_t                 rows;              /* of embedding and output matrix to be written */
    gidd_safetensors_entry *entries;           /* owned */
    int64_t                 count;
    float                  *chunk; /* [CHUNK_ELEMENTS] owned */
} exporter;

static const char cosines[] = "rotary_emb.cos_cached", sines[] = "rotary_emb.sin_cached", logit_bias[] = "logit_bias";

/* ---- rows ------------------------------------------------------------------------------------------- */

// Whether `count` elements from `first` on all are 0 or, for the bias, so far below 0 that nothing falls on them:
// training lets it decay from GIDD_PUBLISHED_BIAS.
static gidd_status are_filling(exporter *e, int64_t first, int64_t count, int is_bias, int *all_p)
{
    for (int64_t done = 0, part = CHUNK_ELEMENTS; *all_p && done < count; done += part) {
        part = part < count - done ? part : count - done;
        GIDD_TRY(gidd_model_source_read(&e->source, first + done, part, e->chunk));
        for (int64_t i = 0; i < part; i++) {
            *all_p &= is_bias ? e->chunk[i] <= GIDD_PUBLISHED_BIAS / 100 : e->chunk[i] == 0.0F;
        }
    }
    return GIDD_OK;
}

// A model that came without rows for ids that do not exist goes out without them.
static gidd_status count_rows(exporter *e)
{
    static const char *const names[] = {"vocab_embed.embedding", "output_layer.linear.weight", "output_layer.linear.bias"};
    const gidd_model_shape  *s = &e->source.params.shape;
    int                      all = s->V < s->Vr;
    for (int i = 0; all && i < 3; i++) {
        const gidd_tensor *tensor = gidd_params_find(&e->source.params, names[i]);
        GIDD_TRY(are_filling(e, tensor->offset + s->V * tensor->shape[1], (s->Vr - s->V) * tensor->shape[1], i == 2, &all));
    }
    e->rows = all ? s->V : s->Vr;
    return GIDD_OK;
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

static int by_name(const void *left, const void *right)
{
    return strcmp(((const gidd_safetensors_entry *)left)->name, ((const gidd_safetensors_entry *)right)->name);
}

static void add_buffer(exporter *e, const char *name, int dims, const int64_t *shape)
{
    gidd_safetensors_entry *entry = &e->entries[e->count++];
    *entry = (gidd_safetensors_entry){.name = name, .dtype = GIDD_SAFETENSORS_F32, .dims = dims};
    memcpy(entry->shape, shape, (size_t)dims * sizeof *shape);
}

static gidd_status list_tensors(exporter *e)
{
    const gidd_params *params = &e->source.params;
    const int64_t      table[5] = {1, params->shape.T, 3, 1, params->shape.D / params->shape.H}, one[3] = {1, 1, 1};
    e->entries = calloc((size_t)params->tensor_count + 3, sizeof *e->entries);
    if (e->entries == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a list of tensors");
    }
    for (int64_t i = 0; i < params->tensor_count; i++) {
        const gidd_tensor *tensor = &params->tensors[i];
        int64_t            rows = gidd_published_counts_ids(tensor->name) ? e->rows : tensor->shape[0];
        e->entries[e->count++] = (gidd_safetensors_entry){
            .name = tensor->name, .dtype = e->args->dtype, .dims = tensor->dims, .shape = {rows, tensor->shape[1]}};
    }
    add_buffer(e, cosines, 5, table);
    add_buffer(e, sines, 5, table);
    add_buffer(e, logit_bias, 3, one);
    qsort(e->entries, (size_t)e->count, sizeof *e->entries, by_name);
    return GIDD_OK;
}

// cos or sin of the angles as the reference registers them: for q and k twice the half row, for v the identity.
static gidd_status write_rotary(exporter *e, gidd_safetensors_writer *writer, int is_sine)
{
    const int64_t T = e->source.params.shape.T, d = e->source.params.shape.D / e->source.params.shape.H;
    for (int64_t p = 0; p < T; p++) {
        for (int64_t i = 0; i < 3 * d; i++) {
            float frequency = (float)pow(10000.0, -2.0 * (double)(i % (d / 2)) / (double)d);
            float angle = i < 2 * d ? (float)p * frequency : 0.0F;
            e->chunk[i] = (float)(is_sine ? sin((double)angle) : cos((double)angle));
        }
        GIDD_TRY(gidd_safetensors_write(writer, e->chunk, 3 * d));
    }
    return GIDD_OK;
}

static gidd_status write_parameter(exporter *e, gidd_safetensors_writer *writer, const gidd_safetensors_entry *entry)
{
    const gidd_tensor *tensor = gidd_params_find(&e->source.params, entry->name);
    int64_t            count = entry->shape[0] * tensor->shape[1];
    for (int64_t done = 0, part = CHUNK_ELEMENTS; done < count; done += part) {
        part = part < count - done ? part : count - done;
        GIDD_TRY(gidd_model_source_read(&e->source, tensor->offset + done, part, e->chunk));
        GIDD_TRY(gidd_safetensors_write(writer, e->chunk, part));
    }
    return GIDD_OK;
}

static gidd_status write_entry(exporter *e, gidd_safetensors_writer *writer, const gidd_safetensors_entry *entry)
{
    if (entry->name == cosines || entry->name == sines) {
        return write_rotary(e, writer, entry->name == sines);
    }
    if (entry->name == logit_bias) {
        e->chunk[0] = 0.0F;
        return gidd_safetensors_write(writer, e->chunk, 1);
    }
    return write_parameter(e, writer, entry);
}

static gidd_status write_tensors(exporter *e)
{
    gidd_safetensors_writer *writer = NULL;
    char                     path[PATH_SIZE + 32];
    (void)snprintf(path, sizeof path, "%s/model.safetensors", e->folder);
    GIDD_TRY(list_tensors(e));
    GIDD_TRY(gidd_safetensors_writer_create(path, e->entries, e->count, &writer));
    gidd_status status = GIDD_OK;
    for (int64_t i = 0; status == GIDD_OK && i < e->count; i++) {
        status = write_entry(e, writer, &e->entries[i]);
    }
    if (status == GIDD_OK) {
        status = gidd_safetensors_writer_commit(writer);
    }
    gidd_safetensors_writer_destroy(writer);
    return status;
}

/* ---- the folder ------------------------------------------------------------------------------------- */

static gidd_status write_config(const exporter *e)
{
    const gidd_config *config = &e->source.config;
    char               path[PATH_SIZE + 32];
    gidd_dit_config    dit = {.vocab_size = e->rows,
                              .max_seq_len = config->model.context,
                              .hidden_size = config->model.hidden_size,
                              .timestep_cond_dim = config->model.cond_size,
                              .num_hidden_layers = config->model.blocks,
                              .num_attention_heads = config->model.heads,
                              .p_uniform = config->model.p_uniform,
                              .t_eps = config->diffusion.t_eps,
                              .base_ids = e->source.base_ids,
                              .step = e->source.step};
    (void)snprintf(path, sizeof path, "%s/config.json", e->folder);
    (void)snprintf(dit.pad, sizeof dit.pad, "%s", config->model.pad == GIDD_CONFIG_PAD_EOS ? "eos" : "own");
    (void)snprintf(dit.process, sizeof dit.process, "%s", config->diffusion.process == GIDD_CONFIG_MDLM ? "mdlm" : "gidd");
    memcpy(dit.tokenizer_digest, e->source.tokenizer_digest, sizeof dit.tokenizer_digest);
    return gidd_dit_config_write(path, &dit, e->args->dtype == GIDD_SAFETENSORS_BF16 ? "bfloat16" : "float32");
}

static gidd_status write_tokenizer(const exporter *e)
{
    gidd_bpe   *bpe = NULL;
    const char *from = e->source.config.data.tokenizer;
    gidd_status status = gidd_bpe_load(from, &bpe);
    if (status == GIDD_ERR_MISSING) {
        gidd_log(GIDD_LOG_WARN, "export", "no tokenizer in %s: the folder gets none; data.tokenizer=DIR says where it is", from);
        return GIDD_OK;
    }
    GIDD_TRY(status);
    const char *digest = e->source.tokenizer_digest;
    if (gidd_bpe_size(bpe) != e->source.base_ids || (digest[0] != '\0' && strcmp(digest, gidd_bpe_digest(bpe)) != 0)) {
        status = gidd_fail(GIDD_ERR_CORRUPT, "%s is another tokenizer than the model's: data.tokenizer=DIR says where that is",
                           from);
    }
    if (status == GIDD_OK) {
        status = gidd_export_tokenizer(e->folder, from, gidd_bpe_eos(bpe), &e->source.vocab, e->source.config.model.context);
    }
    gidd_bpe_destroy(bpe);
    return status;
}

static gidd_status fill_folder(exporter *e)
{
    e->chunk = malloc(CHUNK_ELEMENTS * sizeof *e->chunk);
    if (e->chunk == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to export a model");
    }
    GIDD_TRY(count_rows(e));
    GIDD_TRY(write_tensors(e));
    GIDD_TRY(write_config(e));
    return write_tokenizer(e);
}

static gidd_status make_folder(exporter *e)
{
    const char *folder = e->args->folder;
    if (access(folder, F_OK) == 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "%s exists: give a name that is not taken", folder);
    }
    if (snprintf(e->folder, sizeof e->folder, "%s.tmp-%ld", folder, (long)getpid()) >= PATH_SIZE) {
        return gidd_fail(GIDD_ERR_USAGE, "the path %.200s... is too long", folder);
    }
    if (mkdir(e->folder, 0777) != 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create folder %s: %s", e->folder, strerror(errno));
    }
    gidd_status status = fill_folder(e);
    if (status == GIDD_OK) {
        status = gidd_checkpoint_sync_dir(e->folder);
    }
    if (status == GIDD_OK && rename(e->folder, folder) != 0) {
        status = gidd_fail(GIDD_ERR_OUTPUT, "cannot rename %s: %s", e->folder, strerror(errno));
    }
    if (status != GIDD_OK) {
        gidd_export_remove(e->folder);
    }
    return status;
}

gidd_status gidd_export_model(const gidd_export_args *args)
{
    exporter *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to export a model");
    }
    e->args = args;
    gidd_status status =
        gidd_model_source_open(&e->source, &(gidd_model_source_args){
                                               .path = args->model, .weights = args->weights, .cli = args->cli});
    if (status == GIDD_OK && e->source.params.shape.type == GIDD_MODEL_AUTOREGRESSIVE) {
        status = gidd_fail(GIDD_ERR_UNSUPPORTED, "%s is an autoregressive model: export writes diffusion models", args->model);
    }
    if (status == GIDD_OK) {
        status = make_folder(e);
    }
    gidd_model_source_close(&e->source);
    free(e->entries);
    free(e->chunk);
    free(e);
    return status;
}
