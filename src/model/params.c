/* SPDX-License-Identifier: Apache-2.0 */
#include "model/params.h"

#include "base/rng.h"
#include "kernels/update.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_TENSORS = 8,    /* of a block without its modulation      */
    LAYER_TENSORS = 9,    /* of a decoder's layer                   */
    VECTOR_ELEMENTS = 8,  /* every tensor starts on a multiple of this: 16 bytes of bf16 */
    VOCAB_MULTIPLE = 128, /* SPEC section 1 */
    TIME_FEATURES = 256,
    HEAD_SIZE_MAX = 128,
};

/* Hugging Face's default for Llama, which the reference takes. */
static const double decoder_deviation = 0.02;

/* Sizes beyond these are typing errors, and below them no product here overflows. */
static const int64_t width_max = 1 << 16, blocks_max = 1 << 12, vocab_max = 1 << 24,
                     length_max = 1 << 24;

static gidd_status check_range(const char *name, int64_t value, int64_t lowest, int64_t highest)
{
    if (value < lowest || value > highest) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s is %lld, must be from %lld to %lld", name,
                         (long long)value, (long long)lowest, (long long)highest);
    }
    return GIDD_OK;
}

static gidd_status check_multiple(const char *name, int64_t value, int64_t factor)
{
    if (value % factor != 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s is %lld, must be a multiple of %lld", name,
                         (long long)value, (long long)factor);
    }
    return GIDD_OK;
}

static gidd_status check_heads(const gidd_model_shape *s)
{
    if (s->D % s->H != 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "hidden size %lld does not divide by %lld heads",
                         (long long)s->D, (long long)s->H);
    }
    int64_t d = s->D / s->H;
    if (d % 2 != 0 || d > HEAD_SIZE_MAX) {
        return gidd_fail(
            GIDD_ERR_CONFIG,
            "hidden size %lld over %lld heads makes heads of %lld, must be even and at "
            "most %d",
            (long long)s->D, (long long)s->H, (long long)d, HEAD_SIZE_MAX);
    }
    return GIDD_OK;
}

static gidd_status check_shape(const gidd_model_shape *s)
{
    GIDD_TRY(check_range("hidden size", s->D, 1, width_max));
    GIDD_TRY(check_range("number of blocks", s->L, 1, blocks_max));
    GIDD_TRY(check_range("number of heads", s->H, 1, s->D));
    GIDD_TRY(check_range("conditioning width", s->C, 1, width_max));
    GIDD_TRY(check_range("sequence length", s->T, 1, length_max));
    GIDD_TRY(check_range("vocabulary size", s->V, 2, vocab_max));
    GIDD_TRY(check_multiple("hidden size", s->D, VECTOR_ELEMENTS));
    GIDD_TRY(check_multiple("conditioning width", s->C, VECTOR_ELEMENTS));
    GIDD_TRY(check_heads(s));
    int64_t rounded = (s->V + VOCAB_MULTIPLE - 1) / VOCAB_MULTIPLE * VOCAB_MULTIPLE;
    if (s->Vr != rounded) {
        return gidd_fail(GIDD_ERR_CONFIG, "rounded vocabulary is %lld, but %lld rounds up to %lld",
                         (long long)s->Vr, (long long)s->V, (long long)rounded);
    }
    if (s->mask_id != s->V - 1) {
        return gidd_fail(GIDD_ERR_CONFIG, "mask id is %d, must be the last of %lld tokens",
                         (int)s->mask_id, (long long)s->V);
    }
    return GIDD_OK;
}

/* ---- The table ------------------------------------------------------------------------------- */

typedef struct tensor_spec {
    const char *name; /* without the block's prefix */
    int64_t rows;
    int64_t cols; /* 0: a vector of `rows` */
    gidd_init init;
    int64_t fan_in;                  /* of GIDD_INIT_UNIFORM: bound 1/sqrt(fan_in) */
    enum { AS_E = 0, AS_FP32 } read; /* by the network */
} tensor_spec;

static double bound_of(const tensor_spec *spec)
{
    switch (spec->init) {
    case GIDD_INIT_UNIFORM:
        return 1.0 / sqrt((double)spec->fan_in);
    case GIDD_INIT_NORMAL:
        return decoder_deviation;
    case GIDD_INIT_ZERO:
    case GIDD_INIT_ONE:
        break;
    }
    return 0.0;
}

/* Appends a tensor; `block` < 0: it belongs to none. */
static void add_tensor(gidd_params *p, int32_t group, int64_t block, tensor_spec spec)
{
    const char *prefix = p->shape.type == GIDD_MODEL_AUTOREGRESSIVE ? "model.layers" : "blocks";
    gidd_tensor *t = &p->tensors[p->tensor_count++];
    *t = (gidd_tensor){.group = group, .init = spec.init, .offset = p->count};
    if (block < 0) {
        (void)snprintf(t->name, sizeof(t->name), "%s", spec.name);
    } else {
        (void)snprintf(t->name, sizeof(t->name), "%s.%lld.%s", prefix, (long long)block, spec.name);
    }
    t->dims = spec.cols == 0 ? 1 : 2;
    t->shape[0] = spec.rows;
    t->shape[1] = spec.cols == 0 ? 1 : spec.cols;
    t->count = t->shape[0] * t->shape[1];
    t->bound = bound_of(&spec);
    t->exact_at = spec.read == AS_FP32 ? p->exact_count : -1;
    p->exact_count += spec.read == AS_FP32 ? t->count : 0;
    p->count += t->count;
}

static void add_head(gidd_params *p)
{
    int64_t D = p->shape.D, Vr = p->shape.Vr;
    add_tensor(p, 0, -1,
               (tensor_spec){"output_layer.linear.weight", Vr, D, GIDD_INIT_ZERO, 0, AS_E});
    add_tensor(p, 0, -1, (tensor_spec){"output_layer.linear.bias", Vr, 0, GIDD_INIT_ZERO, 0, AS_E});
    add_tensor(p, 0, -1,
               (tensor_spec){"output_layer.norm_final.weight", D, 0, GIDD_INIT_ONE, 0, AS_FP32});
}

static void add_block(gidd_params *p, int64_t i)
{
    int64_t D = p->shape.D;
    int32_t group = (int32_t)(p->shape.L - i);
    const tensor_spec specs[BLOCK_TENSORS] = {
        {"mlp.2.weight", D, 4 * D, GIDD_INIT_UNIFORM, 4 * D, AS_E},
        {"mlp.2.bias", D, 0, GIDD_INIT_UNIFORM, 4 * D, AS_E},
        {"mlp.0.weight", 4 * D, D, GIDD_INIT_UNIFORM, D, AS_E},
        {"mlp.0.bias", 4 * D, 0, GIDD_INIT_UNIFORM, D, AS_E},
        {"norm2.weight", D, 0, GIDD_INIT_ONE, 0, AS_FP32},
        {"attn_out.weight", D, D, GIDD_INIT_UNIFORM, D, AS_E},
        {"attn_qkv.weight", 3 * D, D, GIDD_INIT_UNIFORM, D, AS_E},
        {"norm1.weight", D, 0, GIDD_INIT_ONE, 0, AS_FP32},
    };
    for (int k = 0; k < BLOCK_TENSORS; k++) {
        add_tensor(p, group, i, specs[k]);
    }
}

/* The stacked modulations: consecutive tensors make one matrix and one bias. */
static void add_modulations(gidd_params *p)
{
    int64_t D = p->shape.D, L = p->shape.L, C = p->shape.C;
    int32_t group = (int32_t)(L + 1);
    for (int64_t i = 0; i < L; i++) {
        add_tensor(p, group, i,
                   (tensor_spec){"adaLN_modulation.weight", 6 * D, C, GIDD_INIT_ZERO, 0, AS_FP32});
    }
    add_tensor(p, group, -1,
               (tensor_spec){"output_layer.adaLN_modulation.weight", 2 * D, C, GIDD_INIT_ZERO, 0,
                             AS_FP32});
    for (int64_t i = 0; i < L; i++) {
        add_tensor(p, group, i,
                   (tensor_spec){"adaLN_modulation.bias", 6 * D, 0, GIDD_INIT_ZERO, 0, AS_FP32});
    }
    add_tensor(
        p, group, -1,
        (tensor_spec){"output_layer.adaLN_modulation.bias", 2 * D, 0, GIDD_INIT_ZERO, 0, AS_FP32});
}

static void add_time_map(gidd_params *p)
{
    int64_t C = p->shape.C;
    int32_t group = (int32_t)(p->shape.L + 1);
    const tensor_spec specs[4] = {
        {"sigma_map.mlp.0.weight", C, TIME_FEATURES, GIDD_INIT_UNIFORM, TIME_FEATURES, AS_FP32},
        {"sigma_map.mlp.0.bias", C, 0, GIDD_INIT_UNIFORM, TIME_FEATURES, AS_FP32},
        {"sigma_map.mlp.2.weight", C, C, GIDD_INIT_UNIFORM, C, AS_FP32},
        {"sigma_map.mlp.2.bias", C, 0, GIDD_INIT_UNIFORM, C, AS_FP32},
    };
    for (int k = 0; k < 4; k++) {
        add_tensor(p, group, -1, specs[k]);
    }
}

static void add_layer(gidd_params *p, int64_t i)
{
    int64_t D = p->shape.D, F = gidd_model_mlp_width(&p->shape);
    int32_t group = (int32_t)(p->shape.L - i);
    const tensor_spec specs[LAYER_TENSORS] = {
        {"mlp.down_proj.weight", D, F, GIDD_INIT_NORMAL, 0, AS_E},
        {"mlp.gate_proj.weight", F, D, GIDD_INIT_NORMAL, 0, AS_E},
        {"mlp.up_proj.weight", F, D, GIDD_INIT_NORMAL, 0, AS_E},
        {"post_attention_layernorm.weight", D, 0, GIDD_INIT_ONE, 0, AS_FP32},
        {"self_attn.o_proj.weight", D, D, GIDD_INIT_NORMAL, 0, AS_E},
        {"self_attn.q_proj.weight", D, D, GIDD_INIT_NORMAL, 0, AS_E},
        {"self_attn.k_proj.weight", D, D, GIDD_INIT_NORMAL, 0, AS_E},
        {"self_attn.v_proj.weight", D, D, GIDD_INIT_NORMAL, 0, AS_E},
        {"input_layernorm.weight", D, 0, GIDD_INIT_ONE, 0, AS_FP32},
    };
    for (int k = 0; k < LAYER_TENSORS; k++) {
        add_tensor(p, group, i, specs[k]);
    }
}

static void add_decoder_tensors(gidd_params *p)
{
    int64_t D = p->shape.D, L = p->shape.L, Vr = p->shape.Vr;
    add_tensor(p, 0, -1, (tensor_spec){"lm_head.weight", Vr, D, GIDD_INIT_NORMAL, 0, AS_E});
    add_tensor(p, 0, -1, (tensor_spec){"model.norm.weight", D, 0, GIDD_INIT_ONE, 0, AS_FP32});
    for (int64_t i = L - 1; i >= 0; i--) {
        add_layer(p, i);
    }
    add_tensor(p, (int32_t)(L + 1), -1,
               (tensor_spec){"model.embed_tokens.weight", Vr, D, GIDD_INIT_NORMAL, 0, AS_E});
}

static void add_dit_tensors(gidd_params *p)
{
    int64_t D = p->shape.D, L = p->shape.L;
    add_head(p);
    for (int64_t i = L - 1; i >= 0; i--) {
        add_block(p, i);
    }
    add_modulations(p);
    add_time_map(p);
    add_tensor(p, (int32_t)(L + 2), -1,
               (tensor_spec){"vocab_embed.embedding", p->shape.Vr, D, GIDD_INIT_UNIFORM, D, AS_E});
}

/* ---- Buckets --------------------------------------------------------------------------------- */

static void close_bucket(gidd_param_bucket *bucket, int64_t pieces)
{
    int64_t unit = pieces * GIDD_NORM_CHUNK;
    bucket->padded_count = (bucket->count + unit - 1) / unit * unit;
}

/* Groups join the open bucket while it stays within `limit` elements; a larger group is one alone.
 */
static void cut_buckets(gidd_params *p, int64_t limit, int64_t pieces)
{
    gidd_param_bucket *open = &p->buckets[0];
    p->bucket_count = 1;
    for (int64_t first = 0, last = 0; first < p->tensor_count; first = last) {
        int32_t group = p->tensors[first].group;
        int64_t count = 0;
        for (last = first; last < p->tensor_count && p->tensors[last].group == group; last++) {
            count += p->tensors[last].count;
        }
        if (open->count > 0 && open->count + count > limit) {
            close_bucket(open, pieces);
            open[1].at = open->at + open->padded_count;
            open[1].first_group = group;
            open++;
            p->bucket_count++;
        }
        for (int64_t i = first; i < last; i++) {
            p->tensors[i].at = open->at + open->count;
            open->count += p->tensors[i].count;
        }
        open->group_count++;
    }
    close_bucket(open, pieces);
    p->memory_count = open->at + open->padded_count;
}

gidd_status gidd_params_init(gidd_params *params, const gidd_model_shape *shape,
                             size_t bucket_bytes, int64_t pieces)
{
    GIDD_TRY(check_shape(shape));
    if (pieces < 1) {
        return gidd_fail(GIDD_ERR_ARG, "parameters cut into %lld pieces", (long long)pieces);
    }
    int64_t L = shape->L;
    int is_decoder = shape->type == GIDD_MODEL_AUTOREGRESSIVE;
    gidd_params p = {.shape = *shape, .group_count = is_decoder ? L + 2 : L + 3};
    int64_t tensors = is_decoder ? 3 + LAYER_TENSORS * L : 3 + BLOCK_TENSORS * L + 2 * (L + 1) + 4 + 1;
    p.tensors = calloc((size_t)tensors, sizeof(*p.tensors));
    p.buckets = calloc((size_t)p.group_count, sizeof(*p.buckets));
    if (p.tensors == NULL || p.buckets == NULL) {
        gidd_params_release(&p);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a table of %lld tensors",
                         (long long)tensors);
    }
    if (is_decoder) {
        add_decoder_tensors(&p);
    } else {
        add_dit_tensors(&p);
    }
    GIDD_ASSERT(p.tensor_count == tensors);
    cut_buckets(&p, (int64_t)(bucket_bytes / sizeof(float)), pieces);
    *params = p;
    return GIDD_OK;
}

void gidd_params_release(gidd_params *params)
{
    if (params == NULL) {
        return;
    }
    free(params->tensors);
    free(params->buckets);
    *params = (gidd_params){0};
}

const gidd_tensor *gidd_params_find(const gidd_params *params, const char *name)
{
    for (int64_t i = 0; i < params->tensor_count; i++) {
        if (strcmp(params->tensors[i].name, name) == 0) {
            return &params->tensors[i];
        }
    }
    return NULL;
}

int64_t gidd_params_exact_place(const gidd_params *params, int64_t at)
{
    int64_t low = 0, high = params->tensor_count - 1;
    while (low < high) { // the last tensor that starts at or before `at`
        int64_t middle = (low + high + 1) / 2;
        if (params->tensors[middle].at <= at) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    const gidd_tensor *tensor = &params->tensors[low];
    GIDD_ASSERT(tensor->exact_at >= 0 && at - tensor->at < tensor->count);
    return tensor->exact_at + (at - tensor->at);
}

int64_t gidd_params_block_count(const gidd_params *params)
{
    int64_t count = 0;
    for (int64_t i = 0; i < params->tensor_count; i++) {
        if (strncmp(params->tensors[i].name, "blocks.", 7) == 0 ||
            strncmp(params->tensors[i].name, "model.layers.", 13) == 0) {
            count += params->tensors[i].count;
        }
    }
    return count;
}

/* ---- Initial values -------------------------------------------------------------------------- */

/* Elements [first, first + count) of a uniform tensor. A word's upper 24 bits choose one of 2^24
 * odd multiples of 2^-24 in (-1, 1): symmetric, never 0 or the bound, exact in fp32 before scaling.
 */
static void fill_uniform(float *values, uint64_t seed, uint64_t index, double bound, int64_t first,
                         int64_t count)
{
    uint32_t word[4] = {0};
    int64_t loaded = -1;
    for (int64_t e = first; e < first + count; e++) {
        if (e / 4 != loaded) {
            loaded = e / 4;
            gidd_philox(seed, GIDD_STREAM_PARAM, index << 40 | (uint64_t)loaded, 0, word);
        }
        int32_t odd = (int32_t)(2 * (word[e % 4] >> 8) + 1) - (1 << 24);
        values[e - first] = (float)(bound * ((double)odd * 0x1p-24));
    }
}

/* Elements [first, first + count) of a normal tensor: 2k and 2k+1 are the two numbers that the Box-Muller
 * transform makes of draw k's uniforms, in float64. */
static void fill_normal(float *values, uint64_t seed, uint64_t index, double deviation, int64_t first,
                        int64_t count)
{
    double pair[2] = {0.0, 0.0};
    int64_t loaded = -1;
    for (int64_t e = first; e < first + count; e++) {
        if (e / 2 != loaded) {
            uint32_t word[4];
            loaded = e / 2;
            gidd_philox(seed, GIDD_STREAM_PARAM, index << 40 | (uint64_t)loaded, 0, word);
            double radius = sqrt(-2.0 * log1p(-gidd_uniform53(word[0], word[1])));
            double angle = 2.0 * acos(-1.0) * gidd_uniform53(word[2], word[3]);
            pair[0] = radius * cos(angle);
            pair[1] = radius * sin(angle);
        }
        values[e - first] = (float)(deviation * pair[e % 2]);
    }
}

static void fill_tensor(const gidd_tensor *tensor, uint64_t seed, uint64_t index, int64_t first,
                        int64_t count, float *values)
{
    if (tensor->init == GIDD_INIT_UNIFORM) {
        fill_uniform(values, seed, index, tensor->bound, first, count);
        return;
    }
    if (tensor->init == GIDD_INIT_NORMAL) {
        fill_normal(values, seed, index, tensor->bound, first, count);
        return;
    }
    float value = tensor->init == GIDD_INIT_ONE ? 1.0f : 0.0f;
    for (int64_t i = 0; i < count; i++) {
        values[i] = value;
    }
}

void gidd_params_fill(const gidd_params *params, uint64_t seed, int64_t first, int64_t count,
                      float *values)
{
    memset(values, 0, (size_t)count * sizeof(*values)); // padding
    for (int64_t i = 0; i < params->tensor_count; i++) {
        const gidd_tensor *t = &params->tensors[i];
        int64_t from = t->at > first ? t->at : first;
        int64_t end = t->at + t->count;
        int64_t to = end < first + count ? end : first + count;
        if (from < to) {
            fill_tensor(t, seed, (uint64_t)i, from - t->at, to - from, values + (from - first));
        }
    }
}
