/* SPDX-License-Identifier: Apache-2.0
 *
 * The work that a kernel's time is held against, against numbers computed by hand: two sequences of T = 4, D = 8,
 * H = 2 (d = 4), 128 logits a row, bf16. And the profile of a whole step, against the model's own count.
 */
#include "model/tiny.h"
#include "tools/bench_profile.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static int not_null; // what stands for an array that is there: nothing is read

static void check(gidd_bench_slot slot, const void *arguments, double flops, double bytes)
{
    const gidd_bench_work work = gidd_bench_work_of(slot, GIDD_BF16, arguments);
    cr_assert_eq(work.flops, flops, "slot %d: %g FLOPs, not %g", (int)slot, work.flops, flops);
    cr_assert_eq(work.bytes, bytes, "slot %d: %g bytes, not %g", (int)slot, work.bytes, bytes);
}

Test(bench_work, of_products)
{
    const gidd_linear_fwd_args qkv = {.M = 8, .N = 24, .K = 8, .dtype = GIDD_BF16};
    check(GIDD_BENCH_SLOT_linear_fwd, &qkv, 3072, 2 * (8 * 8 + 24 * 8 + 8 * 24));
    const gidd_linear_fwd_args mlp_in = {.M = 8, .N = 32, .K = 8, .dtype = GIDD_BF16,
                                         .pre = &not_null, .epilogue = GIDD_LINEAR_BIAS_GELU};
    check(GIDD_BENCH_SLOT_linear_fwd, &mlp_in, 4096, 2 * (64 + 256 + 32 + 256 + 256)); // x, w, bias, y, pre
    const gidd_linear_fwd_args mods = {.M = 2, .N = 64, .K = 16, .epilogue = GIDD_LINEAR_BIAS}; // fp32 says the call
    check(GIDD_BENCH_SLOT_linear_fwd, &mods, 4096, 4 * (32 + 1024 + 64 + 128));
    const gidd_linear_bwd_data_args data = {.M = 8, .N = 8, .K = 32, .dtype = GIDD_BF16, .pre = &not_null};
    check(GIDD_BENCH_SLOT_linear_bwd_data, &data, 4096, 2 * (256 + 64 + 256 + 256)); // dx, dy, w, pre
    gidd_linear_bwd_weight_args weight = {.M = 8, .N = 32, .K = 8, .dtype = GIDD_BF16, .dbias = &(float){0}};
    check(GIDD_BENCH_SLOT_linear_bwd_weight, &weight, 4096, 2 * (256 + 64) + 4 * (256 + 32));
    weight.accumulate = 1;
    check(GIDD_BENCH_SLOT_linear_bwd_weight, &weight, 4096, 2 * (256 + 64) + 2 * 4 * (256 + 32));
}

Test(bench_work, of_attention)
{
    gidd_attention_fwd_args fwd = {.B = 2, .T = 4, .H = 2, .d = 4};
    const gidd_attention_bwd_args bwd = {.B = 2, .T = 4, .H = 2, .d = 4};
    check(GIDD_BENCH_SLOT_attention_fwd, &fwd, 1024, 384 + 128 + 64 + 64);             // qkv, out, lse, rope
    check(GIDD_BENCH_SLOT_attention_bwd, &bwd, 2560, 384 + 128 + 128 + 64 + 384 + 64); // d.., dout, out, lse, qkv
    fwd.kind = GIDD_ATTENTION_CAUSAL; // 10 of 16 pairs
    check(GIDD_BENCH_SLOT_attention_fwd, &fwd, 640, 640);
    const gidd_attention_step_args step = {.B = 2, .T = 4, .H = 2, .d = 4, .position = 2}; // three positions seen
    check(GIDD_BENCH_SLOT_attention_step, &step, 192, 2 * 8 * 8 + 2 * 192 + 16);
}

Test(bench_work, of_norms_and_activations)
{
    gidd_norm_mod_fwd_args fwd = {.rows = 8, .u_rows = 8, .cols = 8, .T = 4, .y = &not_null, .x_out = &not_null};
    check(GIDD_BENCH_SLOT_norm_mod_fwd, &fwd, 0, 4 * 128 + 64 + 32 + 192); // x, y, x', u; statistics; gain; three vectors
    fwd.row_list = &(int32_t){0};
    fwd.u_rows = 4;
    check(GIDD_BENCH_SLOT_norm_mod_fwd, &fwd, 0, 3 * 128 + 64 + 64 + 32 + 192 + 16);
    const gidd_norm_mod_fwd_args first = {.rows = 8, .u_rows = 8, .cols = 8, .T = 4};
    check(GIDD_BENCH_SLOT_norm_mod_fwd, &first, 0, 2 * 128 + 64 + 32 + 128);
    const gidd_norm_mod_bwd_args bwd = {.rows = 8, .u_rows = 8, .cols = 8, .T = 4, .y = &not_null, .dx_out = &not_null};
    check(GIDD_BENCH_SLOT_norm_mod_bwd, &bwd, 0, 6 * 128 + 64 + 32 + 32 + 128 + 192);
    const gidd_rms_norm_fwd_args rms = {.rows = 8, .cols = 8, .y = &not_null};
    check(GIDD_BENCH_SLOT_rms_norm_fwd, &rms, 0, 4 * 128 + 32 + 32);
    const gidd_rms_norm_bwd_args rms_bwd = {.rows = 8, .cols = 8, .dx_out = &not_null, .accumulate = 1};
    check(GIDD_BENCH_SLOT_rms_norm_bwd, &rms_bwd, 0, 4 * 128 + 32 + 32 + 64);
    check(GIDD_BENCH_SLOT_swiglu_fwd, &(gidd_swiglu_fwd_args){.rows = 8, .cols = 32}, 0, 3 * 512);
    check(GIDD_BENCH_SLOT_swiglu_bwd, &(gidd_swiglu_bwd_args){.rows = 8, .cols = 32}, 0, 5 * 512);
}

Test(bench_work, of_embedding_and_time)
{
    check(GIDD_BENCH_SLOT_embed_fwd, &(gidd_embed_fwd_args){.rows = 8, .cols = 8}, 0, 128 + 128 + 32);
    gidd_embed_bwd_args bwd = {.chunk_count = 8, .table_rows = 128, .cols = 8};
    check(GIDD_BENCH_SLOT_embed_bwd, &bwd, 0, 128 + 4096 + 8 * (4 + 16));
    bwd.accumulate = 1;
    check(GIDD_BENCH_SLOT_embed_bwd, &bwd, 0, 128 + 2 * 256 + 8 * (4 + 16));
    const double weights = 16 * 256 + 16 * 16 + 2 * 16, kept = 2 * (256 + 3 * 16);
    check(GIDD_BENCH_SLOT_time_cond_fwd, &(gidd_time_cond_fwd_args){.B = 2, .C = 16}, 0, 4 * (kept + weights) + 2 * 48);
    check(GIDD_BENCH_SLOT_time_cond_bwd, &(gidd_time_cond_bwd_args){.B = 2, .C = 16}, 0, 4 * (kept + 16 * 16 + weights));
}

Test(bench_work, of_losses)
{
    gidd_loss_args loss = {.rows = 8, .T = 4, .V = 100, .Vr = 128, .mode = GIDD_LOSS_TRAIN};
    check(GIDD_BENCH_SLOT_loss_gidd, &loss, 0, 2 * 2048 + 8 * 16 + 8 * 8 + 2 * 48); // logits twice, terms, ids, coefficients
    loss.mode = GIDD_LOSS_EVALUATE;
    check(GIDD_BENCH_SLOT_loss_mdlm, &loss, 0, 2048 + 8 * 16 + 8 * 8 + 2 * 48);
    check(GIDD_BENCH_SLOT_loss_sums, &(gidd_loss_sums_args){.B = 2, .T = 4}, 0, 8 * (16 + 12) + 2 * 48 + 2 * 96);
}

Test(bench_work, of_the_update_and_of_generation)
{
    check(GIDD_BENCH_SLOT_adamw, &(gidd_adamw_args){.count = 1000}, 0, 28000);
    check(GIDD_BENCH_SLOT_adamw, &(gidd_adamw_args){.count = 1000, .copy = &not_null}, 0, 30000);
    check(GIDD_BENCH_SLOT_grad_norm, &(gidd_grad_norm_args){.count = 5000}, 0, 20000 + 3 * 8);
    check(GIDD_BENCH_SLOT_grad_norm_finish, &(gidd_grad_norm_finish_args){.count = 3}, 0, 3 * 8 + 2 * 48);
    check(GIDD_BENCH_SLOT_ema, &(gidd_ema_args){.count = 1000}, 0, 12000);
    check(GIDD_BENCH_SLOT_cast, &(gidd_cast_args){.count = 1000}, 0, 6000);
    const gidd_sample_step_args sample = {.rows = 8, .width = 100, .stride = 128};
    check(GIDD_BENCH_SLOT_sample_step, &sample, 0, 8 * (200 + 4 + 4 + 8)); // logits, z twice, a uniform
    const gidd_correct_step_args correct = {.rows = 8, .width = 100, .stride = 128};
    check(GIDD_BENCH_SLOT_correct_step, &correct, 0, 8 * (200 + 4 + 4 + 4 + 8 + 8));
}

Test(bench_work, floor_is_the_longer_of_the_two)
{
    const gidd_bench_ceiling ceiling = {.flops_per_s = 1000, .bytes_per_s = 10};
    cr_assert_eq(gidd_bench_floor(&(gidd_bench_work){.flops = 500, .bytes = 1}, &ceiling), 0.5);
    cr_assert_eq(gidd_bench_floor(&(gidd_bench_work){.flops = 500, .bytes = 20}, &ceiling), 2.0);
}

/* ---- The profile of a step -------------------------------------------------------------------- */

static gidd_bench_count count_named(const gidd_bench_count *counts, const char *wanted)
{
    for (int part = 0; part < GIDD_BENCH_PARTS; part++) {
        char name[64];
        gidd_bench_profile_name(part, name);
        if (strcmp(name, wanted) == 0) {
            return counts[part];
        }
    }
    cr_assert_fail("no part is called %s", wanted);
    return (gidd_bench_count){0};
}

// All FLOPs but those of the modulations, with attention's backward counted as the model counts it.
static double model_flops(const gidd_bench_count *counts)
{
    double flops = -0.2 * count_named(counts, "attention_bwd").work.flops;
    for (int part = 0; part < GIDD_BENCH_PARTS; part++) {
        flops += part % GIDD_BENCH_MATRIX_COUNT == GIDD_BENCH_MODS ? 0.0 : counts[part].work.flops;
    }
    return flops;
}

Test(bench_profile, sees_every_call_of_a_step)
{
    _Static_assert((int)TINY_VR == 4 * TINY_D, "two matrices of one shape");
    static const char *const thrice[] = {"linear_fwd", "linear_bwd_data", "linear_bwd_weight"};
    tiny *t = tiny_open(&(tiny_args){.dtype = GIDD_BF16});
    const gidd_kernels *own = t->device->kernels;
    gidd_bench_profile *profile = NULL;
    const gidd_bench_count *counts = NULL;
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    cr_assert_eq(gidd_bench_profile_attach(t->device, &t->params.shape, &profile), GIDD_OK);
    for (int i = 0; i < 2; i++) { // again with the events that are there
        gidd_bench_profile_reset(profile);
        tiny_train(t, 0, 0);
        cr_assert_eq(gidd_bench_profile_finish(profile, &counts), GIDD_OK);
    }
    for (int i = 0; i < 3; i++) {
        static const char *const of_blocks[] = {"qkv", "out", "mlp_out"};
        char name[64];
        for (int k = 0; k < 3; k++) {
            (void)snprintf(name, sizeof name, "%s, %s", thrice[i], of_blocks[k]);
            cr_assert_eq(count_named(counts, name).calls, TINY_L, "%s", name);
        }
        (void)snprintf(name, sizeof name, "%s, head", thrice[i]); // and mlp_in: here they have the same shape
        cr_assert_eq(count_named(counts, name).calls, TINY_L + 1);
        cr_assert_eq(count_named(counts, name).work.flops, (TINY_L + 1) * 2.0 * TINY_ROWS * TINY_VR * TINY_D);
        (void)snprintf(name, sizeof name, "%s, mods", thrice[i]);
        cr_assert_eq(count_named(counts, name).calls, 1);
    }
    cr_assert_eq(count_named(counts, "attention_fwd").calls, TINY_L);
    cr_assert_eq(count_named(counts, "norm_mod_bwd").calls, 2 * TINY_L + 1);
    cr_assert_gt(count_named(counts, "loss_gidd").seconds, 0.0);
    const gidd_model_flops flops = gidd_model_flops_of(&t->params.shape, TINY_T, GIDD_RECOMPUTE_NONE);
    cr_assert_float_eq(model_flops(counts), gidd_model_flops_executed(&flops, TINY_B, TINY_T, TINY_ROWS), 0.5);
    gidd_bench_profile_detach(profile);
    cr_assert_eq(t->device->kernels, own);
    tiny_close(t);
}
