/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/update.h"
#include "model/params.h"
#include "model/slice.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gidd_model_shape shape_of(int64_t D, int64_t L, int64_t H)
{
    return (gidd_model_shape){
        .D = D, .L = L, .H = H, .C = 128, .T = 512, .V = 50259, .Vr = 50304, .mask_id = 50258};
}

static const gidd_model_shape small_shape = {
    .D = 32, .L = 3, .H = 2, .C = 16, .T = 24, .V = 61, .Vr = 128, .mask_id = 60};

static gidd_params make(const gidd_model_shape *shape, size_t bucket_bytes, int64_t pieces)
{
    gidd_params params;
    cr_assert_eq(gidd_params_init(&params, shape, bucket_bytes, pieces), GIDD_OK);
    return params;
}

Test(params, counts_are_those_of_the_published_models)
{
    const struct {
        int64_t D, L, H, count, blocks;
    } models[] = {
        {512, 8, 8, 80108416, 28364800},        {512, 6, 8, 73017216, 21273600},
        {768, 12, 12, 169697920, 92132352},     {1024, 24, 16, 424571264, 321183744},
        {2048, 24, 32, 1453022592, 1246347264},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        gidd_model_shape shape = shape_of(models[i].D, models[i].L, models[i].H);
        gidd_params params = make(&shape, (size_t)64 << 20, 8);
        cr_assert_eq(params.count, models[i].count, "D = %d", (int)models[i].D);
        cr_assert_eq(gidd_params_block_count(&params), models[i].blocks);
        gidd_params_release(&params);
    }
}

static void expect_tensor(const gidd_params *params, int64_t rows, int64_t cols, const char *name)
{
    const gidd_tensor *tensor = gidd_params_find(params, name);
    cr_assert_not_null(tensor, "%s", name);
    cr_assert_eq(tensor->shape[0], rows, "%s", name);
    cr_assert_eq(tensor->shape[1], cols == 0 ? 1 : cols, "%s", name);
    cr_assert_eq(tensor->dims, cols == 0 ? 1 : 2, "%s", name);
    cr_assert_eq(tensor->count, rows * (cols == 0 ? 1 : cols), "%s", name);
}

Test(params, names_and_shapes_are_the_references)
{
    const gidd_model_shape *s = &small_shape;
    gidd_params p = make(s, (size_t)1 << 30, 1);
    expect_tensor(&p, s->Vr, s->D, "vocab_embed.embedding");
    expect_tensor(&p, s->C, 256, "sigma_map.mlp.0.weight");
    expect_tensor(&p, s->C, 0, "sigma_map.mlp.0.bias");
    expect_tensor(&p, s->C, s->C, "sigma_map.mlp.2.weight");
    expect_tensor(&p, s->C, 0, "sigma_map.mlp.2.bias");
    const struct {
        const char *name;
        int64_t rows, cols;
    } block[] = {{"norm1.weight", s->D, 0},
                 {"attn_qkv.weight", 3 * s->D, s->D},
                 {"attn_out.weight", s->D, s->D},
                 {"norm2.weight", s->D, 0},
                 {"mlp.0.weight", 4 * s->D, s->D},
                 {"mlp.0.bias", 4 * s->D, 0},
                 {"mlp.2.weight", s->D, 4 * s->D},
                 {"mlp.2.bias", s->D, 0},
                 {"adaLN_modulation.weight", 6 * s->D, s->C},
                 {"adaLN_modulation.bias", 6 * s->D, 0}};
    for (int i = 0; i < s->L; i++) {
        for (size_t k = 0; k < sizeof block / sizeof *block; k++) {
            char name[64];
            (void)snprintf(name, sizeof name, "blocks.%d.%s", i, block[k].name);
            expect_tensor(&p, block[k].rows, block[k].cols, name);
        }
    }
    expect_tensor(&p, s->D, 0, "output_layer.norm_final.weight");
    expect_tensor(&p, s->Vr, s->D, "output_layer.linear.weight");
    expect_tensor(&p, s->Vr, 0, "output_layer.linear.bias");
    expect_tensor(&p, 2 * s->D, s->C, "output_layer.adaLN_modulation.weight");
    expect_tensor(&p, 2 * s->D, 0, "output_layer.adaLN_modulation.bias");
    cr_assert_eq(p.tensor_count, 5 + 10 * s->L + 5);
    cr_assert_null(gidd_params_find(&p, "blocks.3.norm1.weight"));
    gidd_params_release(&p);
}

Test(params, flat_order_is_the_order_of_completion)
{
    gidd_params p = make(&small_shape, (size_t)1 << 30, 1);
    int64_t offset = 0;
    int32_t group = 0;
    for (int64_t i = 0; i < p.tensor_count; i++) {
        cr_assert_eq(p.tensors[i].offset, offset);
        cr_assert(p.tensors[i].group == group || p.tensors[i].group == group + 1);
        group = p.tensors[i].group;
        offset += p.tensors[i].count;
    }
    cr_assert_eq(offset, p.count);
    cr_assert_eq(p.group_count, small_shape.L + 3);
    cr_assert_eq(group, p.group_count - 1);
    const struct {
        const char *name;
        int32_t group;
    } groups[] = {{"output_layer.linear.weight", 0},
                  {"output_layer.norm_final.weight", 0},
                  {"blocks.2.mlp.2.weight", 1},
                  {"blocks.0.norm1.weight", 3},
                  {"blocks.2.adaLN_modulation.weight", 4},
                  {"sigma_map.mlp.2.bias", 4},
                  {"output_layer.adaLN_modulation.bias", 4},
                  {"vocab_embed.embedding", 5}};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        cr_assert_eq(gidd_params_find(&p, groups[i].name)->group, groups[i].group, "%s",
                     groups[i].name);
    }
    gidd_params_release(&p);
}

Test(params, modulations_are_one_matrix_and_one_bias)
{
    gidd_params p = make(&small_shape, 1, 3);
    for (int kind = 0; kind < 2; kind++) {
        const char *suffix = kind == 0 ? "weight" : "bias";
        char name[64];
        (void)snprintf(name, sizeof name, "blocks.0.adaLN_modulation.%s", suffix);
        int64_t at = gidd_params_find(&p, name)->at;
        for (int i = 0; i < small_shape.L; i++) {
            (void)snprintf(name, sizeof name, "blocks.%d.adaLN_modulation.%s", i, suffix);
            cr_assert_eq(gidd_params_find(&p, name)->at, at);
            at += gidd_params_find(&p, name)->count;
        }
        (void)snprintf(name, sizeof name, "output_layer.adaLN_modulation.%s", suffix);
        cr_assert_eq(gidd_params_find(&p, name)->at, at);
    }
    gidd_params_release(&p);
}

static void expect_sound_buckets(const gidd_params *p, int64_t pieces)
{
    int64_t at = 0, count = 0, tensor = 0;
    int32_t group = 0;
    for (int64_t i = 0; i < p->bucket_count; i++) {
        const gidd_param_bucket *b = &p->buckets[i];
        cr_assert_eq(b->at, at);
        cr_assert_eq(b->first_group, group);
        cr_assert_eq(b->padded_count % (pieces * GIDD_NORM_CHUNK), 0);
        cr_assert(b->padded_count >= b->count && b->padded_count - b->count < pieces * GIDD_NORM_CHUNK);
        int64_t place = b->at;
        for (; tensor < p->tensor_count && p->tensors[tensor].group < group + b->group_count;
             tensor++) {
            cr_assert_eq(p->tensors[tensor].at, place);
            cr_assert_eq(place % 8, 0);
            place += p->tensors[tensor].count;
        }
        cr_assert_eq(place, b->at + b->count);
        at += b->padded_count;
        count += b->count;
        group += b->group_count;
    }
    cr_assert_eq(tensor, p->tensor_count);
    cr_assert_eq(group, p->group_count);
    cr_assert_eq(count, p->count);
    cr_assert_eq(at, p->memory_count);
}

Test(params, buckets_are_whole_groups_cut_alike_for_any_number_of_ranks)
{
    const size_t bytes[] = {1, 60000, 100000, 200000, (size_t)1 << 30};
    const int64_t pieces[] = {1, 2, 3, 8, 7};
    for (size_t i = 0; i < 5; i++) {
        gidd_params first = make(&small_shape, bytes[i], 1);
        for (size_t k = 0; k < 5; k++) {
            gidd_params p = make(&small_shape, bytes[i], pieces[k]);
            expect_sound_buckets(&p, pieces[k]);
            cr_assert_eq(p.bucket_count, first.bucket_count);
            for (int64_t b = 0; b < p.bucket_count; b++) {
                cr_assert_eq(p.buckets[b].count, first.buckets[b].count);
                cr_assert(p.buckets[b].group_count == 1 ||
                          (size_t)p.buckets[b].count * sizeof(float) <= bytes[i]);
            }
            gidd_params_release(&p);
        }
        cr_assert(i > 0 || first.bucket_count == first.group_count);
        cr_assert(i < 4 || first.bucket_count == 1);
        gidd_params_release(&first);
    }
}

/* The slices of all ranks: every element once, pieces of whole chunks, partial sums numbered as a whole
 * slice numbers them. */
static void expect_slices(const gidd_params *p, int64_t pieces)
{
    gidd_slice whole, slice;
    cr_assert_eq(gidd_slice_init(&whole, p, 0, 1), GIDD_OK);
    cr_assert(whole.is_whole && whole.own_count == p->memory_count);
    int64_t used = 0, own = 0;
    for (int64_t piece = 0; piece < pieces; piece++) {
        cr_assert_eq(gidd_slice_init(&slice, p, piece, pieces), GIDD_OK);
        cr_assert_eq(slice.chunk_count, whole.chunk_count);
        int64_t place = 0;
        for (int64_t b = 0; b < p->bucket_count; b++) {
            const gidd_slice_part *part = &slice.parts[b], *all = &whole.parts[b];
            cr_assert(all->at == all->own && all->used == p->buckets[b].count);
            cr_assert_eq(part->own, place);
            cr_assert_eq(part->at, all->at + piece * part->count);
            cr_assert(part->used >= 0 && part->used <= part->count);
            cr_assert(part->used == 0 || (part->flat - all->flat == part->at - all->at &&
                                          (part->chunk - all->chunk) * GIDD_NORM_CHUNK == part->at - all->at));
            cr_assert(part->chunk * GIDD_NORM_CHUNK >= part->flat);
            place += part->count;
            used += part->used;
        }
        cr_assert_eq(place, slice.own_count);
        own += slice.own_count;
        gidd_slice_release(&slice);
    }
    cr_assert_eq(used, p->count);
    cr_assert_eq(own, p->memory_count);
    gidd_slice_release(&whole);
}

Test(params, slices_share_everything_out)
{
    const size_t bytes[] = {1, 60000, (size_t)1 << 30};
    const int64_t pieces[] = {1, 2, 3, 8};
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 4; k++) {
            gidd_params p = make(&small_shape, bytes[i], pieces[k]);
            expect_slices(&p, pieces[k]);
            gidd_params_release(&p);
        }
    }
}

/* Those that are read in fp32 get places of their own, the stacked modulations one behind another. */
Test(params, tensors_read_in_fp32_have_their_own_places)
{
    gidd_params p = make(&small_shape, 60000, 2);
    int64_t exact = 0, D = small_shape.D, L = small_shape.L, C = small_shape.C;
    for (int64_t i = 0; i < p.tensor_count; i++) {
        const gidd_tensor *t = &p.tensors[i];
        int fp32 = strstr(t->name, "norm") != NULL || strstr(t->name, "adaLN") != NULL ||
                   strstr(t->name, "sigma_map") != NULL;
        cr_assert_eq(t->exact_at, fp32 ? exact : -1, "%s", t->name);
        if (fp32) {
            cr_assert_eq(gidd_params_exact_place(&p, t->at), exact);
            cr_assert_eq(gidd_params_exact_place(&p, t->at + t->count - 1), exact + t->count - 1);
            exact += t->count;
        }
    }
    cr_assert_eq(exact, p.exact_count);
    cr_assert_eq(exact, (2 * L + 1) * D + (6 * D * L + 2 * D) * (C + 1) + (256 + 1) * C + (C + 1) * C);
    gidd_params_release(&p);
}

static void expect_uniform(const gidd_tensor *t, const float *values, double bound)
{
    double sum = 0.0, square = 0.0, largest = 0.0;
    for (int64_t i = 0; i < t->count; i++) {
        double v = (double)values[t->at + i];
        sum += v;
        square += v * v;
        largest = fmax(largest, fabs(v));
    }
    double n = (double)t->count, sigma = bound / sqrt(3.0);
    cr_assert(largest <= bound, "%s: %g above %g", t->name, largest, bound);
    cr_assert(largest > bound * (1.0 - 20.0 / n), "%s: %g far below %g", t->name, largest, bound);
    cr_assert(fabs(sum / n) < 5.0 * sigma / sqrt(n), "%s: mean %g", t->name, sum / n);
    cr_assert(fabs(square / n / (sigma * sigma) - 1.0) < 5.0 / sqrt(n), "%s: variance %g", t->name,
              square / n);
}

Test(params, initial_values_are_the_specifications)
{
    gidd_params p = make(&small_shape, 100000, 3);
    float *values = malloc((size_t)p.memory_count * sizeof *values);
    const int64_t D = small_shape.D, C = small_shape.C;
    gidd_params_fill(&p, 7, 0, p.memory_count, values);
    const struct {
        const char *name;
        int64_t fan_in; /* 0: all zero, -1: all one */
    } tensors[] = {{"vocab_embed.embedding", D},
                   {"sigma_map.mlp.0.weight", 256},
                   {"sigma_map.mlp.0.bias", 256},
                   {"sigma_map.mlp.2.weight", C},
                   {"sigma_map.mlp.2.bias", C},
                   {"blocks.1.attn_qkv.weight", D},
                   {"blocks.1.attn_out.weight", D},
                   {"blocks.1.mlp.0.weight", D},
                   {"blocks.1.mlp.0.bias", D},
                   {"blocks.1.mlp.2.weight", 4 * D},
                   {"blocks.1.mlp.2.bias", 4 * D},
                   {"output_layer.linear.weight", 0},
                   {"output_layer.linear.bias", 0},
                   {"blocks.2.adaLN_modulation.weight", 0},
                   {"blocks.2.adaLN_modulation.bias", 0},
                   {"output_layer.adaLN_modulation.weight", 0},
                   {"blocks.0.norm1.weight", -1},
                   {"blocks.0.norm2.weight", -1},
                   {"output_layer.norm_final.weight", -1}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        const gidd_tensor *t = gidd_params_find(&p, tensors[i].name);
        if (tensors[i].fan_in > 0) {
            expect_uniform(t, values, 1.0 / sqrt((double)tensors[i].fan_in));
            continue;
        }
        for (int64_t e = 0; e < t->count; e++) {
            cr_assert_eq(values[t->at + e], tensors[i].fan_in == 0 ? 0.0f : 1.0f, "%s", t->name);
        }
    }
    free(values);
    gidd_params_release(&p);
}

/* Any rank may fill any range; buckets and padding change places, not values. */
Test(params, initial_values_depend_on_seed_tensor_and_element_alone)
{
    gidd_params p = make(&small_shape, (size_t)1 << 30, 1), q = make(&small_shape, 60000, 5);
    float *whole = malloc((size_t)p.memory_count * sizeof *whole);
    float *padded = malloc((size_t)q.memory_count * sizeof *padded);
    gidd_params_fill(&p, 7, 0, p.memory_count, whole);
    memset(padded, 0x7f, (size_t)q.memory_count * sizeof *padded);
    for (int64_t first = 0; first < q.memory_count; first += 997) {
        int64_t left = q.memory_count - first;
        gidd_params_fill(&q, 7, first, left < 997 ? left : 997, padded + first);
    }
    int64_t zeros = q.memory_count;
    for (int64_t i = 0; i < p.tensor_count; i++) {
        const gidd_tensor *a = &p.tensors[i], *b = &q.tensors[i];
        cr_assert_arr_eq(whole + a->at, padded + b->at, (size_t)a->count * sizeof *whole);
        memset(padded + b->at, 0, (size_t)b->count * sizeof *padded);
    }
    for (int64_t i = 0; i < q.memory_count; i++) {
        zeros -= padded[i] == 0.0f;
    }
    cr_assert_eq(zeros, 0, "padding is not zero");

    const gidd_tensor *t = gidd_params_find(&p, "blocks.0.attn_out.weight");
    const gidd_tensor *u = gidd_params_find(&p, "blocks.1.attn_out.weight");
    cr_assert_neq(whole[t->at], whole[u->at]);
    float other = 0.0f;
    gidd_params_fill(&p, 8, t->at, 1, &other);
    cr_assert_neq(other, whole[t->at]);
    free(whole);
    free(padded);
    gidd_params_release(&p);
    gidd_params_release(&q);
}

Test(params, impossible_shapes_are_refused_with_their_numbers)
{
    const struct {
        gidd_model_shape shape;
        const char *says;
    } cases[] = {
        {{.D = 96, .L = 2, .H = 5, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 60}, "5 heads"},
        {{.D = 36, .L = 2, .H = 2, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 60}, "36"},
        {{.D = 24, .L = 2, .H = 8, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 60},
         "heads of 3"},
        {{.D = 512, .L = 2, .H = 2, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 60}, "256"},
        {{.D = 32, .L = 0, .H = 2, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 60}, "blocks"},
        {{.D = 32, .L = 2, .H = 0, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 60}, "heads"},
        {{.D = 32, .L = 2, .H = 2, .C = 12, .T = 8, .V = 61, .Vr = 128, .mask_id = 60}, "12"},
        {{.D = 32, .L = 2, .H = 2, .C = 16, .T = 0, .V = 61, .Vr = 128, .mask_id = 60}, "length"},
        {{.D = 32, .L = 2, .H = 2, .C = 16, .T = 8, .V = 61, .Vr = 64, .mask_id = 60}, "64"},
        {{.D = 32, .L = 2, .H = 2, .C = 16, .T = 8, .V = 128, .Vr = 256, .mask_id = 127}, "256"},
        {{.D = 32, .L = 2, .H = 2, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 59}, "59"},
        {{.D = -8, .L = 2, .H = 2, .C = 16, .T = 8, .V = 61, .Vr = 128, .mask_id = 60}, "-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gidd_params p;
        cr_assert_eq(gidd_params_init(&p, &cases[i].shape, 1000, 1), GIDD_ERR_CONFIG, "case %zu",
                     i);
        cr_assert_not_null(strstr(gidd_error_last()->text, cases[i].says), "case %zu: %s", i,
                           gidd_error_last()->text);
    }
}
