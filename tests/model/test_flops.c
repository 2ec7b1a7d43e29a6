/* SPDX-License-Identifier: Apache-2.0
 *
 * The FLOPs that a model says it executes are those that its products and attention are asked for.
 */
#include "model/tiny.h"

#include <criterion/criterion.h>
#include <string.h>

// The table is the first member: a launcher finds the rest through device->kernels.
typedef struct counter {
    gidd_kernels table;
    const gidd_kernels *own;
    int64_t mods; /* columns of the modulations' product, which the figures leave out */
    double flops;
} counter;

static counter *counter_of(const gidd_device *device)
{
    return (counter *)(uintptr_t)device->kernels;
}

static void add_product(counter *c, int64_t M, int64_t N, int64_t K)
{
    c->flops += N == c->mods ? 0.0 : 2.0 * (double)M * (double)N * (double)K;
}

static gidd_status linear_fwd(gidd_device *device, const gidd_linear_fwd_args *a)
{
    add_product(counter_of(device), a->M, a->N, a->K);
    return counter_of(device)->own->linear_fwd(device, a);
}

static gidd_status linear_bwd_data(gidd_device *device, const gidd_linear_bwd_data_args *a)
{
    add_product(counter_of(device), a->M, a->N, a->K);
    return counter_of(device)->own->linear_bwd_data(device, a);
}

static gidd_status linear_bwd_weight(gidd_device *device, const gidd_linear_bwd_weight_args *a)
{
    add_product(counter_of(device), a->M, a->N, a->K);
    return counter_of(device)->own->linear_bwd_weight(device, a);
}

static double attention(int64_t B, int64_t H, int64_t T, int64_t d)
{
    return 4.0 * (double)B * (double)H * (double)T * (double)T * (double)d;
}

static gidd_status attention_fwd(gidd_device *device, const gidd_attention_fwd_args *a)
{
    counter_of(device)->flops += attention(a->B, a->H, a->T, a->d);
    return counter_of(device)->own->attention_fwd(device, a);
}

// Two products for each of forward's two: how the kernel gets the probabilities back is its own affair.
static gidd_status attention_bwd(gidd_device *device, const gidd_attention_bwd_args *a)
{
    counter_of(device)->flops += 2.0 * attention(a->B, a->H, a->T, a->d);
    return counter_of(device)->own->attention_bwd(device, a);
}

// FLOPs asked for by one training step of a tiny model.
static double count_step(tiny *t, int skip_clean)
{
    counter c = {.table = *t->device->kernels,
                 .own = t->device->kernels,
                 .mods = 6 * TINY_D * TINY_L + 2 * TINY_D};
    c.table.linear_fwd = linear_fwd;
    c.table.linear_bwd_data = linear_bwd_data;
    c.table.linear_bwd_weight = linear_bwd_weight;
    c.table.attention_fwd = attention_fwd;
    c.table.attention_bwd = attention_bwd;
    t->device->kernels = &c.table;
    tiny_train(t, 0, skip_clean);
    t->device->kernels = c.own;
    return c.flops;
}

static void check_executed(const tiny_args *args, int skip_clean)
{
    tiny *t = tiny_open(args);
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    const gidd_model_flops flops = gidd_model_flops_of(&t->params.shape, TINY_T, args->recompute);
    const double counted = count_step(t, skip_clean);
    const int64_t rows = gidd_model_head_rows(t->model, skip_clean);
    const double said = gidd_model_flops_executed(&flops, TINY_B, TINY_T, (double)rows);
    cr_assert_eq(said, counted, "skip %d: %.17g, but %.17g were asked for", skip_clean, said, counted);
    cr_assert(skip_clean ? rows >= t->batch.row_count && rows <= TINY_ROWS : rows == TINY_ROWS);
    tiny_close(t);
}

Test(flops, executed_are_those_that_the_kernels_are_asked_for)
{
    for (int64_t head_rows = 16; head_rows <= TINY_ROWS; head_rows += 8) { // chunks, whole and cut
        check_executed(&(tiny_args){.head_rows = head_rows}, 0);
        check_executed(&(tiny_args){.head_rows = head_rows}, 1);
    }
    for (int what = GIDD_RECOMPUTE_MLP; what <= GIDD_RECOMPUTE_BLOCK; what++) {
        check_executed(&(tiny_args){.recompute = (gidd_recompute)what}, 0);
        check_executed(&(tiny_args){.recompute = (gidd_recompute)what}, 1);
    }
}

Test(flops, of_the_model_are_the_published_count)
{
    const gidd_model_shape small = {.D = 768, .L = 12, .H = 12, .C = 128, .T = 512, .Vr = 50304};
    const gidd_model_shape base = {.D = 1024, .L = 24, .H = 16, .C = 128, .T = 512, .Vr = 50304};
    const gidd_model_flops flops = gidd_model_flops_of(&small, 512, GIDD_RECOMPUTE_NONE);
    cr_assert_float_eq(flops.sequence / 512, 798.0e6, 0.05e6);
    cr_assert_float_eq(gidd_model_flops_of(&base, 512, GIDD_RECOMPUTE_NONE).sequence / 512, 2272.0e6,
                       0.05e6);
    // half of the rows without a head: 14.5 % less
    cr_assert_float_eq(gidd_model_flops_executed(&flops, 1, 512, 256) / flops.sequence, 1 - 0.145, 5e-4);
}
