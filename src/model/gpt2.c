/* SPDX-License-Identifier: Apache-2.0 */
#include "model/gpt2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_TENSORS = 12,
    HEAD_ROWS = 512, /* rows of logits at once */
    VOCAB_MULTIPLE = 128,
    HEAD_SIZE_MAX = 128,
    ALIGN = 64, /* elements: tensors begin at multiples of it */
};

/* Places of a block's parameters. */
typedef struct block_places {
    int64_t ln1_w, ln1_b, attn_w, attn_b, attn_proj_w, attn_proj_b;
    int64_t ln2_w, ln2_b, fc_w, fc_b, mlp_proj_w, mlp_proj_b;
} block_places;

struct gidd_gpt2 {
    gidd_gpt2_args args;
    int64_t Vr, rows; /* of the largest batch */
    gidd_gpt2_tensor *tensors;
    int64_t tensor_count, elements;
    block_places *blocks;
    int64_t wte, wpe, final_w, final_b, zeros, ones;
    float *weights; /* [elements] on the device */
    void *memory;   /* everything below, on the device */
    size_t bytes;
    float *x, *y, *u, *qkv, *wide, *lse, *mean, *rstd, *rope, *logits;
    gidd_loss_row *terms;
    gidd_seq_coef *coef;
    int32_t *ids, *positions, *mask;
    gidd_loss_row *host_terms;
    int32_t *host_mask;
    int64_t B, T; /* of the last judgement */
};

/* ---- The table of parameters ----------------------------------------------------------------- */

static int64_t take(gidd_gpt2 *g, int64_t count)
{
    const int64_t at = g->elements;
    g->elements += (count + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

/* cols 0: a vector. `kept` rows of memory, where more than the published ones are wanted. */
static int64_t add_tensor(gidd_gpt2 *g, const char *name, int64_t rows, int64_t cols, int turned, int64_t kept)
{
    gidd_gpt2_tensor *t = &g->tensors[g->tensor_count++];
    *t = (gidd_gpt2_tensor){.dims = cols == 0 ? 1 : 2,
                            .shape = {rows, cols == 0 ? 1 : cols},
                            .turned = turned,
                            .at = take(g, (kept > rows ? kept : rows) * (cols == 0 ? 1 : cols))};
    (void)snprintf(t->name, sizeof(t->name), "%s", name);
    return t->at;
}

static int64_t add_in_block(gidd_gpt2 *g, int64_t i, const char *part, int64_t rows, int64_t cols)
{
    char name[sizeof(g->tensors->name)];
    (void)snprintf(name, sizeof(name), "h.%lld.%s", (long long)i, part);
    return add_tensor(g, name, rows, cols, cols != 0, 0);
}

static void list_tensors(gidd_gpt2 *g)
{
    const gidd_gpt2_shape *s = &g->args.shape;
    const int64_t D = s->D;
    g->wte = add_tensor(g, "wte.weight", s->V, D, 0, g->Vr);
    g->wpe = add_tensor(g, "wpe.weight", s->T, D, 0, 0);
    for (int64_t i = 0; i < s->L; i++) {
        g->blocks[i] = (block_places){
            .ln1_w = add_in_block(g, i, "ln_1.weight", D, 0),
            .ln1_b = add_in_block(g, i, "ln_1.bias", D, 0),
            .attn_w = add_in_block(g, i, "attn.c_attn.weight", D, 3 * D),
            .attn_b = add_in_block(g, i, "attn.c_attn.bias", 3 * D, 0),
            .attn_proj_w = add_in_block(g, i, "attn.c_proj.weight", D, D),
            .attn_proj_b = add_in_block(g, i, "attn.c_proj.bias", D, 0),
            .ln2_w = add_in_block(g, i, "ln_2.weight", D, 0),
            .ln2_b = add_in_block(g, i, "ln_2.bias", D, 0),
            .fc_w = add_in_block(g, i, "mlp.c_fc.weight", D, 4 * D),
            .fc_b = add_in_block(g, i, "mlp.c_fc.bias", 4 * D, 0),
            .mlp_proj_w = add_in_block(g, i, "mlp.c_proj.weight", 4 * D, D),
            .mlp_proj_b = add_in_block(g, i, "mlp.c_proj.bias", D, 0),
        };
    }
    g->final_w = add_tensor(g, "ln_f.weight", D, 0, 0, 0);
    g->final_b = add_tensor(g, "ln_f.bias", D, 0, 0, 0);
    g->zeros = take(g, D);
    g->ones = take(g, D);
}

const gidd_gpt2_tensor *gidd_gpt2_tensors(const gidd_gpt2 *gpt2, int64_t *count_p)
{
    *count_p = gpt2->tensor_count;
    return gpt2->tensors;
}

gidd_status gidd_gpt2_set(gidd_gpt2 *g, const gidd_gpt2_tensor *tensor, const float *values)
{
    const int64_t in = tensor->shape[0], out = tensor->shape[1];
    const size_t bytes = (size_t)(in * out) * sizeof(*values);
    float *turned = NULL;
    if (tensor->turned) {
        turned = malloc(bytes);
        if (turned == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %s", tensor->name);
        }
        for (int64_t i = 0; i < in; i++) {
            for (int64_t o = 0; o < out; o++) {
                turned[o * in + i] = values[i * out + o];
            }
        }
    }
    gidd_status status =
        gidd_device_copy_in(g->args.device, g->weights + tensor->at, turned != NULL ? turned : values, bytes);
    if (status == GIDD_OK) {
        status = gidd_device_synchronize(g->args.device); // the values may go away now
    }
    free(turned);
    return status;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static gidd_status check_shape(const gidd_gpt2_args *args)
{
    const gidd_gpt2_shape *s = &args->shape;
    if (s->D < 8 || s->D % 8 != 0 || s->D > 65536 || s->L < 1 || s->L > 1024 || s->H < 1 || s->D % s->H != 0 ||
        (s->D / s->H) % 2 != 0 || s->D / s->H > HEAD_SIZE_MAX || s->T < 1 || s->T > 1 << 20 || s->V < 2 ||
        s->V > 1 << 24) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "a GPT-2 of n_embd %lld, n_layer %lld, n_head %lld, n_positions %lld, vocab_size %lld: n_embd "
                         "must be a multiple of 8, n_embd / n_head even and at most %d",
                         (long long)s->D, (long long)s->L, (long long)s->H, (long long)s->T, (long long)s->V,
                         HEAD_SIZE_MAX);
    }
    if (args->max_B < 1 || args->max_T < 1 || args->max_T > s->T || args->device->dtype != GIDD_F32) {
        return gidd_fail(GIDD_ERR_ARG, "a judge of %lld x %lld tokens, at most %lld positions, in fp32",
                         (long long)args->max_B, (long long)args->max_T, (long long)s->T);
    }
    return GIDD_OK;
}

/* Points the buffers into `base`, NULL to measure only. Each begins at 256 bytes. */
static size_t lay_out(gidd_gpt2 *g, char *base)
{
    const int64_t D = g->args.shape.D, rows = g->rows, T = g->args.max_T;
    const int64_t head_rows = rows < HEAD_ROWS ? rows : HEAD_ROWS;
    const struct {
        void *slot;
        size_t bytes;
    } parts[] = {
        {&g->x, (size_t)(rows * D) * 4},
        {&g->y, (size_t)(rows * D) * 4},
        {&g->u, (size_t)(rows * D) * 4},
        {&g->qkv, (size_t)(rows * 3 * D) * 4},
        {&g->wide, (size_t)(rows * 4 * D) * 4},
        {&g->lse, (size_t)(rows * g->args.shape.H) * 4},
        {&g->mean, (size_t)rows * 4},
        {&g->rstd, (size_t)rows * 4},
        {&g->rope, (size_t)(T * (D / g->args.shape.H)) * 4},
        {&g->logits, (size_t)(head_rows * g->Vr) * 4},
        {&g->terms, (size_t)rows * sizeof(gidd_loss_row)},
        {&g->coef, (size_t)g->args.max_B * sizeof(gidd_seq_coef)},
        {&g->ids, (size_t)rows * 4},
        {&g->positions, (size_t)rows * 4},
        {&g->mask, (size_t)rows * 4},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        if (base != NULL) {
            void *at = base + used;
            memcpy(parts[i].slot, &at, sizeof(at)); // a pointer to any type
        }
        used += (parts[i].bytes + 255) / 256 * 256;
    }
    return used;
}

/* What never changes: ones, angles of 0, weights of 1. */
static gidd_status write_constants(gidd_gpt2 *g)
{
    const int64_t D = g->args.shape.D, d = D / g->args.shape.H, pairs = g->args.max_T * d / 2;
    const int64_t most = D > 2 * pairs ? D : 2 * pairs;
    float *numbers = calloc((size_t)most, sizeof(*numbers));
    gidd_seq_coef *coef = calloc((size_t)g->args.max_B, sizeof(*coef));
    gidd_status status =
        numbers != NULL && coef != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a judge");
    for (int64_t i = 0; status == GIDD_OK && i < D; i++) {
        numbers[i] = 1.0f;
    }
    if (status == GIDD_OK) {
        status = gidd_device_copy_in(g->args.device, g->weights + g->ones, numbers, (size_t)D * sizeof(*numbers));
    }
    if (status == GIDD_OK) {
        status = gidd_device_synchronize(g->args.device); // before `numbers` are written again
    }
    for (int64_t i = 0; status == GIDD_OK && i < pairs; i++) {
        numbers[2 * i] = 1.0f; // cosine
        numbers[2 * i + 1] = 0.0f;
    }
    if (status == GIDD_OK) {
        status = gidd_device_copy_in(g->args.device, g->rope, numbers, (size_t)(2 * pairs) * sizeof(*numbers));
    }
    for (int64_t b = 0; status == GIDD_OK && b < g->args.max_B; b++) {
        coef[b].w_keep = coef[b].row_weight = 1.0f;
    }
    if (status == GIDD_OK) {
        status = gidd_device_copy_in(g->args.device, g->coef, coef, (size_t)g->args.max_B * sizeof(*coef));
    }
    if (status == GIDD_OK) {
        status = gidd_device_synchronize(g->args.device);
    }
    free(numbers);
    free(coef);
    return status;
}

static gidd_status allocate(gidd_gpt2 *g)
{
    const gidd_gpt2_shape *s = &g->args.shape;
    gidd_device *device = g->args.device;
    void *memory = NULL;
    g->tensors = calloc((size_t)(4 + BLOCK_TENSORS * s->L), sizeof(*g->tensors));
    g->blocks = calloc((size_t)s->L, sizeof(*g->blocks));
    g->host_terms = calloc((size_t)g->rows, sizeof(*g->host_terms));
    g->host_mask = calloc((size_t)(2 * g->rows), sizeof(*g->host_mask));
    if (g->tensors == NULL || g->blocks == NULL || g->host_terms == NULL || g->host_mask == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a judge of %lld blocks", (long long)s->L);
    }
    list_tensors(g);
    GIDD_TRY(gidd_device_alloc(device, (size_t)g->elements * sizeof(float), "judge", &memory));
    g->weights = memory;
    GIDD_TRY(gidd_device_zero(device, memory, (size_t)g->elements * sizeof(float)));
    g->bytes = lay_out(g, NULL);
    GIDD_TRY(gidd_device_alloc(device, g->bytes, "judge's activations", &g->memory));
    (void)lay_out(g, g->memory);
    GIDD_TRY(gidd_device_reserve(device, &(gidd_device_limits){.B = g->args.max_B,
                                                               .T = g->args.max_T,
                                                               .D = s->D,
                                                               .H = s->H,
                                                               .L = s->L,
                                                               .Vr = g->Vr,
                                                               .head_rows = HEAD_ROWS}));
    return write_constants(g);
}

gidd_status gidd_gpt2_create(const gidd_gpt2_args *args, gidd_gpt2 **gpt2_p)
{
    GIDD_TRY(check_shape(args));
    gidd_gpt2 *g = calloc(1, sizeof(*g));
    if (g == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a judge");
    }
    g->args = *args;
    g->Vr = (args->shape.V + VOCAB_MULTIPLE - 1) / VOCAB_MULTIPLE * VOCAB_MULTIPLE;
    g->rows = args->max_B * args->max_T;
    gidd_status status = allocate(g);
    if (status != GIDD_OK) {
        gidd_gpt2_destroy(g);
        return status;
    }
    *gpt2_p = g;
    return GIDD_OK;
}

void gidd_gpt2_destroy(gidd_gpt2 *g)
{
    if (g == NULL) {
        return;
    }
    if (g->weights != NULL) {
        gidd_device_free(g->args.device, g->weights, (size_t)g->elements * sizeof(float));
    }
    if (g->memory != NULL) {
        gidd_device_free(g->args.device, g->memory, g->bytes);
    }
    free(g->tensors);
    free(g->blocks);
    free(g->host_terms);
    free(g->host_mask);
    free(g);
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* x += y where with_y; u = LN(x) w + b. */
static gidd_status layer_norm(gidd_gpt2 *g, int with_y, int64_t w, int64_t b)
{
    const int64_t rows = g->B * g->T;
    const gidd_norm_mod_fwd_args args = {
        .x_out = with_y ? g->x : NULL,
        .u = g->u,
        .mean = g->mean,
        .rstd = g->rstd,
        .x = g->x,
        .y = with_y ? g->y : NULL,
        .gain = g->weights + w,
        .mods = g->weights,
        .u_rows = rows,
        .at = {.shift = b, .scale = g->zeros, .gate = g->ones},
        .stride = g->elements,
        .rows = rows,
        .cols = g->args.shape.D,
        .T = rows, // one row of "modulations" serves all
    };
    return g->args.device->kernels->norm_mod_fwd(g->args.device, &args);
}

typedef struct layer {
    float *y;
    const float *x;
    int64_t w, b; /* b < 0: no bias */
    int64_t M, N, K;
    gidd_linear_epilogue epilogue;
} layer;

static gidd_status linear(gidd_gpt2 *g, layer l)
{
    const gidd_linear_fwd_args args = {
        .y = l.y,
        .x = l.x,
        .w = g->weights + l.w,
        .bias = l.b < 0 ? NULL : g->weights + l.b,
        .M = l.M,
        .N = l.N,
        .K = l.K,
        .dtype = GIDD_F32,
        .epilogue = l.epilogue,
    };
    return g->args.device->kernels->linear_fwd(g->args.device, &args);
}

static gidd_status attend(gidd_gpt2 *g)
{
    const gidd_gpt2_shape *s = &g->args.shape;
    const gidd_attention_fwd_args args = {
        .out = g->u,
        .lse = g->lse,
        .qkv = g->qkv,
        .rope = g->rope,
        .B = g->B,
        .T = g->T,
        .H = s->H,
        .d = s->D / s->H,
        .kind = GIDD_ATTENTION_CAUSAL,
    };
    return g->args.device->kernels->attention_fwd(g->args.device, &args);
}

static gidd_status run_block(gidd_gpt2 *g, int64_t i)
{
    const int64_t D = g->args.shape.D, M = g->B * g->T;
    const block_places *p = &g->blocks[i];
    GIDD_TRY(layer_norm(g, 1, p->ln1_w, p->ln1_b)); // block 0 adds the embedding of the position
    GIDD_TRY(linear(g, (layer){g->qkv, g->u, p->attn_w, p->attn_b, M, 3 * D, D, GIDD_LINEAR_BIAS}));
    GIDD_TRY(attend(g));
    GIDD_TRY(linear(g, (layer){g->y, g->u, p->attn_proj_w, p->attn_proj_b, M, D, D, GIDD_LINEAR_BIAS}));
    GIDD_TRY(layer_norm(g, 1, p->ln2_w, p->ln2_b));
    GIDD_TRY(linear(g, (layer){g->wide, g->u, p->fc_w, p->fc_b, M, 4 * D, D, GIDD_LINEAR_BIAS_GELU}));
    return linear(g, (layer){g->y, g->wide, p->mlp_proj_w, p->mlp_proj_b, M, D, 4 * D, GIDD_LINEAR_BIAS});
}

static gidd_status embed(gidd_gpt2 *g, float *out, int64_t table, const int32_t *ids)
{
    const gidd_embed_fwd_args args = {.out = out,
                                      .table = g->weights + table,
                                      .ids = ids,
                                      .rows = g->B * g->T,
                                      .cols = g->args.shape.D};
    return g->args.device->kernels->embed_fwd(g->args.device, &args);
}

static gidd_status run_trunk(gidd_gpt2 *g)
{
    GIDD_TRY(embed(g, g->x, g->wte, g->ids));
    GIDD_TRY(embed(g, g->y, g->wpe, g->positions));
    for (int64_t i = 0; i < g->args.shape.L; i++) {
        GIDD_TRY(run_block(g, i));
    }
    return layer_norm(g, 1, g->final_w, g->final_b);
}

static gidd_status logits_of_rows(gidd_gpt2 *g, int64_t first, int64_t rows)
{
    const int64_t D = g->args.shape.D;
    return linear(g, (layer){g->logits, g->u + first * D, g->wte, -1, rows, g->Vr, D, GIDD_LINEAR_NONE});
}

static gidd_status losses_of_rows(gidd_gpt2 *g, int64_t first, int64_t rows)
{
    const gidd_loss_args args = {
        .logits = g->logits,
        .terms = g->terms,
        .x = g->ids,
        .attention_mask = g->mask,
        .first_position = first,
        .coef = g->coef,
        .rows = rows,
        .T = g->T,
        .V = g->args.shape.V,
        .Vr = g->Vr,
        .scale = 1.0f,
        .mode = GIDD_LOSS_EVALUATE,
    };
    return g->args.device->kernels->loss_next(g->args.device, &args);
}

static gidd_status load(gidd_gpt2 *g, const int32_t *ids, const int64_t *lengths, int64_t B, int64_t T)
{
    const size_t bytes = (size_t)(B * T) * sizeof(*ids);
    int32_t *positions = g->host_mask + g->rows;
    if (B < 1 || B > g->args.max_B || T < 1 || T > g->args.max_T) {
        return gidd_fail(GIDD_ERR_ARG, "%lld x %lld tokens to judge, at most %lld x %lld", (long long)B, (long long)T,
                         (long long)g->args.max_B, (long long)g->args.max_T);
    }
    for (int64_t p = 0; p < B * T; p++) {
        if (ids[p] < 0 || ids[p] >= g->args.shape.V) {
            return gidd_fail(GIDD_ERR_ARG, "id %d, the judge knows %lld", (int)ids[p], (long long)g->args.shape.V);
        }
        positions[p] = (int32_t)(p % T);
        g->host_mask[p] = p % T + 1 < lengths[p / T];
    }
    g->B = B;
    g->T = T;
    GIDD_TRY(gidd_device_copy_in(g->args.device, g->ids, ids, bytes));
    GIDD_TRY(gidd_device_copy_in(g->args.device, g->positions, positions, bytes));
    return gidd_device_copy_in(g->args.device, g->mask, g->host_mask, bytes);
}

gidd_status gidd_gpt2_judge(gidd_gpt2 *g, const int32_t *ids, const int64_t *lengths, int64_t B, int64_t T, float *nll)
{
    const int64_t rows = B * T;
    GIDD_TRY(load(g, ids, lengths, B, T));
    GIDD_TRY(run_trunk(g));
    for (int64_t first = 0; first < rows; first += HEAD_ROWS) {
        const int64_t chunk = rows - first < HEAD_ROWS ? rows - first : HEAD_ROWS;
        GIDD_TRY(logits_of_rows(g, first, chunk));
        GIDD_TRY(losses_of_rows(g, first, chunk));
    }
    GIDD_TRY(gidd_device_copy_out(g->args.device, g->host_terms, g->terms, (size_t)rows * sizeof(*g->host_terms)));
    for (int64_t p = 0; p < rows; p++) {
        nll[p] = g->host_terms[p].is;
    }
    return GIDD_OK;
}

gidd_status gidd_gpt2_read_logits(gidd_gpt2 *g, float *logits)
{
    const int64_t rows = g->B * g->T, V = g->args.shape.V;
    for (int64_t first = 0; first < rows; first += HEAD_ROWS) {
        const int64_t chunk = rows - first < HEAD_ROWS ? rows - first : HEAD_ROWS;
        GIDD_TRY(logits_of_rows(g, first, chunk));
        for (int64_t r = 0; r < chunk; r++) {
            GIDD_TRY(gidd_device_copy_out(g->args.device, logits + (first + r) * V, g->logits + r * g->Vr,
                                          (size_t)V * sizeof(*logits)));
        }
    }
    return GIDD_OK;
}
