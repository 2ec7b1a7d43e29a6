/* SPDX-License-Identifier: Apache-2.0
 *
 * vectors_model VECTORS.h5 FOLDER [--rows N]: the parameters of a vectors file (tests/golden) as a published model,
 * in another order than the program's own, with the buffers that the reference's state dict has. --rows writes
 * embedding and output matrix with that many rows instead of all: how models without rounding are published.
 */
#include "io/dit_config.h"
#include "io/safetensors.h"
#include "model/params.h"
#include "parity/parity.h"
#include "parity/parity_driver.h"
#include "worker/published.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TENSORS_MAX = 256 };

typedef struct model {
    parity                 p;
    gidd_params            params;
    gidd_safetensors_entry entries[TENSORS_MAX];
    int64_t                count, rows;
} model;

static int by_name(const void *left, const void *right)
{
    return strcmp(((const gidd_safetensors_entry *)left)->name, ((const gidd_safetensors_entry *)right)->name);
}

static void add(model *m, const char *name, int dims, const int64_t *shape)
{
    gidd_safetensors_entry *entry = &m->entries[m->count++];
    GIDD_ASSERT(m->count <= TENSORS_MAX);
    *entry = (gidd_safetensors_entry){.name = name, .dtype = GIDD_SAFETENSORS_F32, .dims = dims};
    memcpy(entry->shape, shape, (size_t)dims * sizeof *shape);
}

static void list_tensors(model *m)
{
    const parity_config *c = &m->p.config;
    for (int64_t i = 0; i < m->params.tensor_count; i++) {
        const gidd_tensor *tensor = &m->params.tensors[i];
        int64_t            shape[2] = {gidd_published_counts_ids(tensor->name) ? m->rows : tensor->shape[0],
                                 tensor->shape[1]};
        add(m, tensor->name, tensor->dims, shape);
    }
    const int64_t table[5] = {1, c->T, 3, 1, c->D / c->H}, one[3] = {1, 1, 1};
    add(m, "rotary_emb.cos_cached", 5, table);
    add(m, "rotary_emb.sin_cached", 5, table);
    add(m, "logit_bias", 3, one);
    qsort(m->entries, (size_t)m->count, sizeof *m->entries, by_name);
}

// From the file's own rotary tables [T][d] to [T][q, k, v][d], where v stays as it is.
static gidd_status write_rotary(model *m, gidd_safetensors_writer *writer, const char *path, float for_v)
{
    const int64_t T = m->p.config.T, d = m->p.config.D / m->p.config.H;
    float        *table = NULL, v[128];
    GIDD_TRY(parity_need_f32(&m->p, path, T * d, &table));
    for (int64_t i = 0; i < d; i++) {
        v[i] = for_v;
    }
    for (int64_t p = 0; p < T; p++) {
        GIDD_TRY(gidd_safetensors_write(writer, table + p * d, d));
        GIDD_TRY(gidd_safetensors_write(writer, table + p * d, d));
        GIDD_TRY(gidd_safetensors_write(writer, v, d));
    }
    return GIDD_OK;
}

static gidd_status write_entry(model *m, gidd_safetensors_writer *writer, const gidd_safetensors_entry *entry)
{
    const float zero = 0;
    float      *values = NULL;
    if (strcmp(entry->name, "rotary_emb.cos_cached") == 0) {
        return write_rotary(m, writer, "/forward/rope_cos", 1.0F);
    }
    if (strcmp(entry->name, "rotary_emb.sin_cached") == 0) {
        return write_rotary(m, writer, "/forward/rope_sin", 0.0F);
    }
    if (strcmp(entry->name, "logit_bias") == 0) {
        return gidd_safetensors_write(writer, &zero, 1);
    }
    GIDD_TRY(parity_read_f32(&m->p, parity_path(&m->p, "/params/%s", entry->name), NULL, &values));
    return gidd_safetensors_write(writer, values, entry->shape[0] * (entry->dims == 2 ? entry->shape[1] : 1));
}

static gidd_status write_tensors(model *m, const char *folder)
{
    gidd_safetensors_writer *writer = NULL;
    char                     path[1024];
    list_tensors(m);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    GIDD_TRY(gidd_safetensors_writer_create(path, m->entries, m->count, &writer));
    gidd_status status = GIDD_OK;
    for (int64_t i = 0; status == GIDD_OK && i < m->count; i++) {
        status = write_entry(m, writer, &m->entries[i]);
    }
    if (status == GIDD_OK) {
        status = gidd_safetensors_writer_commit(writer);
    }
    gidd_safetensors_writer_destroy(writer);
    return status;
}

static gidd_status write_config(const model *m, const char *folder)
{
    const parity_config  *c = &m->p.config;
    char                  path[1024];
    const gidd_dit_config config = {.vocab_size = m->rows,
                                    .max_seq_len = c->T,
                                    .hidden_size = c->D,
                                    .timestep_cond_dim = c->C,
                                    .num_hidden_layers = c->L,
                                    .num_attention_heads = c->H,
                                    .p_uniform = 0.1,
                                    .t_eps = 1e-4,
                                    .base_ids = c->V - 2,
                                    .pad = "own",
                                    .process = "gidd"};
    (void)snprintf(path, sizeof path, "%s/config.json", folder);
    return gidd_dit_config_write(path, &config, "float32");
}

static gidd_status publish(model *m, const char *vectors, const char *folder, int64_t rows)
{
    GIDD_TRY(parity_open(&m->p, vectors));
    const parity_config   *c = &m->p.config;
    const gidd_model_shape shape = {
        .D = c->D, .L = c->L, .H = c->H, .C = c->C, .T = c->T, .V = c->V, .Vr = c->Vr, .mask_id = c->mask};
    m->rows = rows > 0 ? rows : c->Vr;
    GIDD_TRY(gidd_params_init(&m->params, &shape, (size_t)1 << 30, 1));
    (void)mkdir(folder, 0777);
    GIDD_TRY(write_tensors(m, folder));
    return write_config(m, folder);
}

int main(int argc, char **argv)
{
    model m = {.p = {.file = -1, .device_name = "cpu"}};
    if (argc != 3 && argc != 5) {
        (void)fprintf(stderr, "usage: vectors_model VECTORS.h5 FOLDER [--rows N]\n");
        return gidd_status_exit_code(GIDD_ERR_USAGE);
    }
    gidd_status status = publish(&m, argv[1], argv[2], argc == 5 ? atoll(argv[4]) : 0);
    if (status != GIDD_OK) {
        (void)fprintf(stderr, "vectors_model: %s\n", gidd_error_last()->text);
    }
    parity_release_blocks(&m.p);
    parity_close(&m.p);
    gidd_params_release(&m.params);
    return gidd_status_exit_code(status);
}
