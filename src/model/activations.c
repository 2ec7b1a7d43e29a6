/* SPDX-License-Identifier: Apache-2.0 */
#include "model/activations.h"

#include "kernels/time_cond.h"
#include "model/architecture.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER_ALIGN = 256,
    TABLE_PER_BLOCK = 15, /* buffers of a block in TRAIN            */
    TABLE_OUTSIDE = 36,   /* at most so many buffers outside blocks */
    ROPE_BASE = 10000,
};

/* ---- Where the parameters are ---------------------------------------------------------------- */

int64_t gidd_activations_place(const gidd_params *params, const char *name)
{
    const gidd_tensor *tensor = gidd_params_find(params, name);
    GIDD_ASSERT(tensor != NULL);
    return tensor->at;
}

static int64_t place_in_block(const gidd_params *params, int64_t index, const char *name)
{
    char full[sizeof(params->tensors->name)];
    (void)snprintf(full, sizeof(full), "blocks.%lld.%s", (long long)index, name);
    return gidd_activations_place(params, full);
}

static void find_block_params(gidd_block *block, const gidd_params *params, int64_t i)
{
    block->norm1 = place_in_block(params, i, "norm1.weight");
    block->qkv_w = place_in_block(params, i, "attn_qkv.weight");
    block->out_w = place_in_block(params, i, "attn_out.weight");
    block->norm2 = place_in_block(params, i, "norm2.weight");
    block->fc1_w = place_in_block(params, i, "mlp.0.weight");
    block->fc1_b = place_in_block(params, i, "mlp.0.bias");
    block->fc2_w = place_in_block(params, i, "mlp.2.weight");
    block->fc2_b = place_in_block(params, i, "mlp.2.bias");
    block->mods = i * 6 * params->shape.D;
}

static void find_dit_params(gidd_activations *a, const gidd_params *params)
{
    int64_t L = params->shape.L, D = params->shape.D;
    for (int64_t i = 0; i < L; i++) {
        find_block_params(&a->blocks[i], params, i);
    }
    a->embedding = gidd_activations_place(params, "vocab_embed.embedding");
    a->mods_w = gidd_activations_place(params, "blocks.0.adaLN_modulation.weight");
    a->mods_b = gidd_activations_place(params, "blocks.0.adaLN_modulation.bias");
    a->time_w0 = gidd_activations_place(params, "sigma_map.mlp.0.weight");
    a->time_b0 = gidd_activations_place(params, "sigma_map.mlp.0.bias");
    a->time_w2 = gidd_activations_place(params, "sigma_map.mlp.2.weight");
    a->time_b2 = gidd_activations_place(params, "sigma_map.mlp.2.bias");
    a->head_w = gidd_activations_place(params, "output_layer.linear.weight");
    a->head_b = gidd_activations_place(params, "output_layer.linear.bias");
    a->norm_final = gidd_activations_place(params, "output_layer.norm_final.weight");
    a->mods_final = 6 * D * L;
    a->mods_stride = 6 * D * L + 2 * D;
}

/* ---- The table of buffers -------------------------------------------------------------------- */

void gidd_activations_add(gidd_activations *a, void *slot, gidd_buffer_kind kind, const char *format,
                          ...)
{
    gidd_activation *entry = &a->table[a->table_count++];
    *entry = (gidd_activation){
        .area = kind.area, .per = kind.per, .cols = kind.cols, .dtype = kind.dtype, .slot = slot};
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(entry->name, sizeof(entry->name), format, arguments);
    va_end(arguments);
}

/* Columns of a block's buffer. */
typedef enum columns { ONE, HEADS, STREAM, QKV, WIDE } columns;

enum {
    KEPT = 1 << GIDD_RECOMPUTE_NONE,
    KEPT_MLP = 1 << GIDD_RECOMPUTE_MLP,
    KEPT_BLOCK = 1 << GIDD_RECOMPUTE_BLOCK,
};

/* A block's buffers in the order of forward, and with which recomputation each block keeps its own.
 * What is kept suffices to call the forward kernels again with the arguments that they had. */
static const struct block_buffer {
    const char *name; /* after "block<index>_" */
    size_t at;        /* of its pointer in gidd_block */
    columns columns;
    int kept;
} block_buffers[] = {
    {"in", offsetof(gidd_block, x1), STREAM, KEPT | KEPT_MLP}, /* block 0's, the embedding, always */
    {"mean1", offsetof(gidd_block, mean1), ONE, KEPT | KEPT_MLP},
    {"rstd1", offsetof(gidd_block, rstd1), ONE, KEPT | KEPT_MLP},
    {"attn_in", offsetof(gidd_block, u1), STREAM, KEPT | KEPT_MLP},
    {"qkv", offsetof(gidd_block, qkv), QKV, KEPT | KEPT_MLP},
    {"lse", offsetof(gidd_block, lse), HEADS, KEPT | KEPT_MLP},
    {"attn", offsetof(gidd_block, attn), STREAM, KEPT | KEPT_MLP},
    {"attn_out", offsetof(gidd_block, attn_y), STREAM, KEPT | KEPT_MLP},
    {"middle", offsetof(gidd_block, x2), STREAM, KEPT | KEPT_BLOCK},
    {"mean2", offsetof(gidd_block, mean2), ONE, KEPT},
    {"rstd2", offsetof(gidd_block, rstd2), ONE, KEPT},
    {"mlp_in", offsetof(gidd_block, u2), STREAM, KEPT},
    {"mlp_fc1", offsetof(gidd_block, fc1), WIDE, KEPT},
    {"mlp_gelu", offsetof(gidd_block, gelu), WIDE, KEPT},
    {"mlp_out", offsetof(gidd_block, mlp_y), STREAM, KEPT | KEPT_MLP | KEPT_BLOCK},
};

enum { BLOCK_BUFFERS = sizeof(block_buffers) / sizeof(*block_buffers) };

static void *slot_of(gidd_block *block, const struct block_buffer *buffer)
{
    return (char *)block + buffer->at;
}

static int is_kept(const struct block_buffer *buffer, gidd_recompute recompute, int64_t index)
{
    const int is_embedding = index == 0 && buffer->at == offsetof(gidd_block, x1);
    return (buffer->kept >> recompute & 1) != 0 || is_embedding;
}

static gidd_buffer_kind block_buffer_kind(const struct block_buffer *buffer,
                                          const gidd_model *model)
{
    const int64_t D = model->params->shape.D;
    const int64_t cols[] = {
        [ONE] = 1, [HEADS] = model->params->shape.H, [STREAM] = D, [QKV] = 3 * D, [WIDE] = 4 * D};
    const gidd_dtype dtype = buffer->columns >= STREAM ? model->device->dtype : GIDD_F32;
    return (gidd_buffer_kind){GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, cols[buffer->columns], dtype};
}

static void add_block_buffers(gidd_activations *a, const gidd_model *model, int64_t index)
{
    for (int k = 0; k < BLOCK_BUFFERS; k++) {
        const struct block_buffer *buffer = &block_buffers[k];
        const gidd_buffer_kind kind = block_buffer_kind(buffer, model);
        void *slot = slot_of(&a->blocks[index], buffer);
        if (!is_kept(buffer, a->recompute, index)) {
            continue;
        }
        if (k > 0) {
            gidd_activations_add(a, slot, kind, "block%d_%s", (int)index, buffer->name);
        } else if (index > 0) { /* a block's input is named as the output of the one before */
            gidd_activations_add(a, slot, kind, "block_%02d", (int)index - 1);
        } else {
            gidd_activations_add(a, slot, kind, "embed");
        }
    }
}

static void add_turns(gidd_activations *a, const gidd_model *model)
{
    for (int k = 0; k < BLOCK_BUFFERS; k++) {
        const struct block_buffer *buffer = &block_buffers[k];
        if ((buffer->kept >> a->recompute & 1) == 0) {
            gidd_activations_add(a, slot_of(&a->turns, buffer), block_buffer_kind(buffer, model),
                                 "turns_%s", buffer->name);
        }
    }
}

void gidd_dit_take_turns(gidd_activations *a, int64_t L)
{
    for (int64_t i = 0; i < L; i++) {
        for (int k = 0; k < BLOCK_BUFFERS; k++) {
            if (!is_kept(&block_buffers[k], a->recompute, i)) { /* pointers of any type */
                memcpy(slot_of(&a->blocks[i], &block_buffers[k]),
                       slot_of(&a->turns, &block_buffers[k]), sizeof(void *));
            }
        }
    }
}

static void add_conditioning_buffers(gidd_activations *a, const gidd_model_shape *s)
{
    const gidd_buffer_kind features = {GIDD_AREA_CONDITIONING, GIDD_PER_SEQUENCE, GIDD_TIME_FEATURES,
                                  GIDD_F32};
    const gidd_buffer_kind width = {GIDD_AREA_CONDITIONING, GIDD_PER_SEQUENCE, s->C, GIDD_F32};
    const gidd_buffer_kind mods = {GIDD_AREA_CONDITIONING, GIDD_PER_SEQUENCE, a->mods_stride, GIDD_F32};
    const gidd_buffer_kind rope = {GIDD_AREA_CONDITIONING, GIDD_PER_POSITION, s->D / s->H, GIDD_F32};
    gidd_activations_add(a, &a->features, features, "t_freq");
    gidd_activations_add(a, &a->hidden, width, "sigma_map_hidden");
    gidd_activations_add(a, &a->embedding_t, width, "sigma_map_out");
    gidd_activations_add(a, &a->c, width, "c");
    gidd_activations_add(a, &a->mods, mods, "modulations");
    gidd_activations_add(a, &a->rope, rope, "rope");
}

static void add_head_buffers(gidd_activations *a, const gidd_model *model)
{
    const gidd_model_shape *s = &model->params->shape;
    const gidd_dtype E = model->device->dtype;
    const gidd_buffer_kind stream = {GIDD_AREA_HEAD, GIDD_PER_TOKEN, s->D, E};
    const gidd_buffer_kind scalar = {GIDD_AREA_HEAD, GIDD_PER_TOKEN, 1, GIDD_F32};
    const gidd_buffer_kind logits = {GIDD_AREA_HEAD, GIDD_PER_HEAD_ROW, s->Vr, E};
    gidd_activations_add(a, &a->x_final, stream, "block_%02d", (int)(s->L - 1));
    gidd_activations_add(a, &a->mean_final, scalar, "final_mean");
    gidd_activations_add(a, &a->rstd_final, scalar, "final_rstd");
    gidd_activations_add(a, &a->u_final, stream, "final_in");
    gidd_activations_add(a, &a->logits, logits, "logits");
}

static void add_train_buffers(gidd_activations *a, const gidd_model *model)
{
    const gidd_model_shape *s = &model->params->shape;
    const gidd_dtype E = model->device->dtype;
    const gidd_buffer_kind stream = {GIDD_AREA_BACKWARD, GIDD_PER_TOKEN, s->D, E};
    const gidd_buffer_kind wide = {GIDD_AREA_BACKWARD, GIDD_PER_TOKEN, 4 * s->D, E};
    const gidd_buffer_kind mods = {GIDD_AREA_BACKWARD, GIDD_PER_SEQUENCE, a->mods_stride, GIDD_F32};
    const gidd_buffer_kind width = {GIDD_AREA_BACKWARD, GIDD_PER_SEQUENCE, s->C, GIDD_F32};
    for (int64_t i = 0; i < s->L; i++) {
        add_block_buffers(a, model, i);
    }
    add_turns(a, model);
    gidd_activations_add(a, &a->dx, stream, "dx");
    gidd_activations_add(a, &a->branch, stream, "dy");
    gidd_activations_add(a, &a->du, stream, "du");
    gidd_activations_add(a, &a->wide, wide, "dwide");
    gidd_activations_add(a, &a->dmods, mods, "dmods");
    gidd_activations_add(a, &a->dc, width, "dc");
}

static void add_infer_buffers(gidd_activations *a, const gidd_model *model)
{
    const gidd_model_shape *s = &model->params->shape;
    const gidd_dtype E = model->device->dtype;
    const gidd_buffer_kind stream = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, s->D, E};
    const gidd_buffer_kind wide = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, 4 * s->D, E};
    const gidd_buffer_kind per_head = {GIDD_AREA_BLOCKS, GIDD_PER_TOKEN, s->H, GIDD_F32};
    gidd_activations_add(a, &a->branch, stream, "branch");
    gidd_activations_add(a, &a->wide, wide, "wide");
    gidd_activations_add(a, &a->blocks[0].lse, per_head, "lse");
}

void gidd_dit_plan(gidd_activations *a, const gidd_model *model)
{
    find_dit_params(a, model->params);
    add_conditioning_buffers(a, &model->params->shape);
    add_head_buffers(a, model);
    if (model->mode == GIDD_MODEL_TRAIN) {
        add_train_buffers(a, model);
    } else {
        add_infer_buffers(a, model);
    }
}

/* INFER: every block works in the same buffers. u_final serves as u1, attn and u2, each of which is
 * read for the last time by what writes the next. */
void gidd_dit_share(gidd_activations *a, int64_t L)
{
    for (int64_t i = 0; i < L; i++) {
        gidd_block *block = &a->blocks[i];
        block->x1 = block->x2 = a->x_final;
        block->mean1 = block->mean2 = a->mean_final;
        block->rstd1 = block->rstd2 = a->rstd_final;
        block->u1 = block->attn = block->u2 = a->u_final;
        block->qkv = block->gelu = a->wide;
        block->lse = a->blocks[0].lse;
        block->attn_y = block->mlp_y = a->branch;
        block->fc1 = NULL;
    }
}

int64_t gidd_activation_rows(const gidd_activation *activation, int64_t B, int64_t T,
                             int64_t head_rows)
{
    switch (activation->per) {
    case GIDD_PER_TOKEN:
        return B * T;
    case GIDD_PER_SEQUENCE:
        return B;
    case GIDD_PER_POSITION:
        return T;
    case GIDD_PER_HEAD_ROW:
        return head_rows;
    }
    return 0;
}

static void size_buffers(gidd_activations *a, const gidd_model *model)
{
    for (int64_t i = 0; i < a->table_count; i++) {
        gidd_activation *entry = &a->table[i];
        int64_t rows = gidd_activation_rows(entry, model->max_B, model->max_T, model->head_rows);
        size_t bytes = (size_t)(rows * entry->cols) * gidd_dtype_bytes(entry->dtype);
        entry->bytes = (bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
        a->bytes += entry->bytes;
    }
}

gidd_status gidd_activations_plan(gidd_model *model, gidd_activations **activations_p)
{
    const gidd_model_shape *s = &model->params->shape;
    const size_t capacity = (size_t)s->L * TABLE_PER_BLOCK + TABLE_OUTSIDE;
    gidd_activations *a = calloc(1, sizeof(*a));
    if (a != NULL) {
        a->table = calloc(capacity, sizeof(*a->table));
        a->blocks = calloc((size_t)s->L, sizeof(*a->blocks));
    }
    if (a == NULL || a->table == NULL || a->blocks == NULL) {
        gidd_activations_destroy(a, model->device);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the plan of %lld blocks", (long long)s->L);
    }
    a->recompute = model->mode == GIDD_MODEL_TRAIN ? model->recompute : GIDD_RECOMPUTE_NONE;
    gidd_architecture_of(s)->plan(a, model);
    GIDD_ASSERT((size_t)a->table_count <= capacity);
    size_buffers(a, model);
    *activations_p = a;
    return GIDD_OK;
}

/* cos and sin of p * 10000^(-2i/d), computed in float64. */
static gidd_status write_rope(const gidd_activations *a, const gidd_model *model)
{
    const int64_t T = model->max_T, half = model->params->shape.D / model->params->shape.H / 2;
    const size_t bytes = (size_t)(T * half * 2) * sizeof(float);
    float *rope = malloc(bytes);
    if (rope == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a rotary table of %zu bytes", bytes);
    }
    for (int64_t p = 0; p < T; p++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * pow(ROPE_BASE, -(double)i / (double)half);
            rope[(p * half + i) * 2] = (float)cos(angle);
            rope[(p * half + i) * 2 + 1] = (float)sin(angle);
        }
    }
    gidd_status status = gidd_device_copy_in(model->device, a->rope, rope, bytes);
    if (status == GIDD_OK) {
        status = gidd_device_synchronize(model->device); // the host table goes away
    }
    free(rope);
    return status;
}

gidd_status gidd_activations_allocate(gidd_activations *a, const gidd_model *model)
{
    GIDD_TRY(gidd_device_alloc(model->device, a->bytes, "activations", &a->memory));
    char *memory = a->memory;
    for (int64_t i = 0; i < a->table_count; i++) {
        gidd_activation *entry = &a->table[i];
        entry->memory = memory;
        memcpy(entry->slot, &entry->memory, sizeof(entry->memory)); // a pointer to any type
        memory += entry->bytes;
    }
    if (model->mode == GIDD_MODEL_INFER) {
        gidd_architecture_of(&model->params->shape)->share(a, model->params->shape.L);
    } else if (a->recompute != GIDD_RECOMPUTE_NONE) {
        gidd_dit_take_turns(a, model->params->shape.L);
    }
    return write_rope(a, model);
}

void gidd_activations_destroy(gidd_activations *a, gidd_device *device)
{
    if (a == NULL) {
        return;
    }
    if (a->memory != NULL) {
        gidd_device_free(device, a->memory, a->bytes);
    }
    free(a->table);
    free(a->blocks);
    free(a);
}
