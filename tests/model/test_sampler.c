/* SPDX-License-Identifier: Apache-2.0 */
#include "model/sampler.h"

#include "base/rng.h"
#include "model/tiny.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 5, STEPS = 6, FIRST = 1000 };

static gidd_sampler *open_sampler(tiny *t, uint64_t seed)
{
    gidd_sampler *sampler = NULL;
    cr_assert_eq(gidd_sampler_create(&(gidd_sampler_args){.model = t->model,
                                                          .schedule = &t->schedule,
                                                          .T = TINY_T,
                                                          .steps = STEPS,
                                                          .seed = seed},
                                     &sampler),
                 GIDD_OK);
    return sampler;
}

static void generate(const tiny_args *args, uint64_t seed, int64_t first, int64_t count,
                     const int32_t *given, int32_t *ids)
{
    tiny *t = tiny_open(args);
    gidd_sampler *sampler = open_sampler(t, seed);
    cr_assert_eq(
        gidd_sampler_generate(sampler, &(gidd_sample_span){first, count, given}, ids, NULL),
        GIDD_OK, "%s", gidd_error_last()->text);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

/* Five samples in batches of 1, 3 and 4, with logits in odd chunks, and the last two on "another
 * rank". */
static void check_independence(gidd_loss_kind loss)
{
    int32_t want[COUNT * TINY_T], ids[COUNT * TINY_T];
    tiny_args args = {.mode = GIDD_MODEL_INFER, .loss = loss};
    generate(&args, 3, FIRST, COUNT, NULL, want);
    for (int64_t max_B = 1; max_B <= 3; max_B += 2) {
        args.max_B = max_B;
        args.head_rows = 11;
        generate(&args, 3, FIRST, COUNT, NULL, ids);
        cr_assert_arr_eq(ids, want, sizeof ids);
    }
    generate(&args, 3, FIRST + 3, 2, NULL, ids);
    cr_assert_arr_eq(ids, want + 3 * TINY_T, 2 * TINY_T * sizeof *ids);
    cr_assert(memcmp(want, want + TINY_T, TINY_T * sizeof *want) != 0);
    generate(&args, 4, FIRST, COUNT, NULL, ids);
    cr_assert(memcmp(ids, want, sizeof ids) != 0);
    for (int i = 0; i < COUNT * TINY_T; i++) {
        cr_assert(want[i] >= 0 && want[i] < TINY_V);
        cr_assert(loss == GIDD_LOSS_GIDD || want[i] != TINY_MASK);
    }
}

Test(sampler, gidd_samples_do_not_depend_on_the_batch)
{
    check_independence(GIDD_LOSS_GIDD);
}

Test(sampler, mdlm_samples_do_not_depend_on_the_batch)
{
    check_independence(GIDD_LOSS_MDLM);
}

Test(sampler, given_tokens_stay)
{
    int32_t given[COUNT * TINY_T], ids[COUNT * TINY_T];
    for (int i = 0; i < COUNT * TINY_T; i++) {
        given[i] = i % 3 == 0 ? i % (TINY_V - 1) : -1;
    }
    for (int loss = GIDD_LOSS_GIDD; loss <= GIDD_LOSS_MDLM; loss++) {
        generate(&(tiny_args){.mode = GIDD_MODEL_INFER, .loss = (gidd_loss_kind)loss}, 3, 0, COUNT,
                 given, ids);
        int found = 0;
        for (int i = 0; i < COUNT * TINY_T; i++) {
            cr_assert(given[i] < 0 || ids[i] == given[i]);
            found += given[i] < 0 && ids[i] != TINY_MASK;
        }
        cr_assert(found > 0);
    }
}

/* generate() leaves GIDD's last step out. */
Test(sampler, the_last_step_of_gidd_changes_nothing)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER});
    gidd_sampler *sampler = open_sampler(t, 3);
    int32_t z[TINY_ROWS], before[TINY_ROWS];
    double uniforms[TINY_ROWS];
    for (int i = 0; i < TINY_ROWS; i++) {
        z[i] = before[i] = i % TINY_V;
        uniforms[i] = (double)i / TINY_ROWS;
    }
    cr_assert_eq(gidd_sampler_step(sampler, 0, TINY_B, uniforms, NULL, z), GIDD_OK);
    cr_assert_arr_eq(z, before, sizeof z);
    cr_assert_eq(gidd_sampler_step(sampler, STEPS - 1, TINY_B, uniforms, NULL, z), GIDD_OK);
    cr_assert(memcmp(z, before, sizeof z) != 0);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

/* generate() is the steps with the documented uniforms: Philox of (seed, SAMPLE, sample << 20 |
 * step), the double of position p being number p % 2 of draw p / 2. */
static void check_steps(gidd_loss_kind loss)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .loss = loss});
    gidd_sampler *sampler = open_sampler(t, 3);
    int32_t z[TINY_T], ids[TINY_T];
    double uniforms[TINY_T];
    for (int p = 0; p < TINY_T; p++) {
        z[p] = TINY_MASK;
    }
    for (int64_t i = STEPS - 1; i >= 0; i--) {
        for (uint32_t p = 0; p < TINY_T; p++) {
            uniforms[p] = gidd_uniform(3, GIDD_STREAM_SAMPLE, (uint64_t)FIRST << 20 | (uint64_t)i,
                                       p / 2, p % 2);
        }
        cr_assert_eq(gidd_sampler_step(sampler, i, 1, uniforms, NULL, z), GIDD_OK);
    }
    cr_assert_eq(gidd_sampler_generate(sampler, &(gidd_sample_span){FIRST, 1, NULL}, ids, NULL),
                 GIDD_OK);
    cr_assert_arr_eq(ids, z, sizeof ids);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

Test(sampler, a_generation_is_its_steps)
{
    check_steps(GIDD_LOSS_GIDD);
    check_steps(GIDD_LOSS_MDLM);
}

/* MDLM's last step fills what is still masked with the most probable tokens, and changes nothing
 * else. */
Test(sampler, the_last_step_of_mdlm_leaves_no_mask)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .loss = GIDD_LOSS_MDLM});
    gidd_sampler *sampler = open_sampler(t, 3);
    int32_t z[TINY_ROWS];
    void *memory = NULL;
    for (int i = 0; i < TINY_ROWS; i++) {
        z[i] = i % 2 == 0 ? TINY_MASK : i % TINY_V;
    }
    cr_assert_eq(gidd_sampler_step(sampler, 0, TINY_B, NULL, NULL, z), GIDD_OK);
    cr_assert_eq(gidd_model_logits(t->model, 0, TINY_ROWS, &memory), GIDD_OK);
    for (int i = 0; i < TINY_ROWS; i++) {
        const float *row = (const float *)memory + (size_t)i * TINY_VR;
        int32_t best = 0;
        for (int32_t j = 1; j < TINY_MASK; j++) {
            best = row[j] > row[best] ? j : best;
        }
        cr_assert_eq(z[i], i % 2 == 0 ? best : i % TINY_V);
    }
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

static void count_progress(void *context, int64_t step, int64_t steps, const int32_t *z, int64_t B)
{
    int64_t *calls = context;
    cr_assert_eq(step, ++*calls);
    cr_assert(steps == STEPS && B == 2 && z[0] >= 0);
}

Test(sampler, progress_is_told_and_nothing_is_allocated)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .loss = GIDD_LOSS_MDLM});
    gidd_sampler *sampler = NULL;
    int64_t calls = 0;
    int32_t ids[2 * TINY_T];
    cr_assert_eq(gidd_sampler_create(&(gidd_sampler_args){.model = t->model,
                                                          .schedule = &t->schedule,
                                                          .T = TINY_T,
                                                          .steps = STEPS,
                                                          .progress = count_progress,
                                                          .context = &calls},
                                     &sampler),
                 GIDD_OK);
    cr_assert_eq(gidd_sampler_generate(sampler, &(gidd_sample_span){0, 2, NULL}, ids, NULL),
                 GIDD_OK);
    cr_assert_eq(calls, STEPS);
    const int64_t before = t->device->allocation_count; /* the kernels' caches are warm now */
    calls = 0;
    cr_assert_eq(gidd_sampler_generate(sampler, &(gidd_sample_span){0, 2, NULL}, ids, NULL),
                 GIDD_OK);
    cr_assert_eq(t->device->allocation_count, before);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

Test(sampler, wrong_arguments_are_refused)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER});
    const gidd_sampler_args good = {
        .model = t->model, .schedule = &t->schedule, .T = TINY_T, .steps = 4};
    gidd_sampler_args bad[5] = {good, good, good, good, good};
    gidd_sampler *sampler = NULL;
    bad[0].T = TINY_T + 1;
    bad[1].steps = 0;
    bad[2].width = 100;
    bad[3].temperature = -1.0;
    bad[4].min_p = 1.0;
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(gidd_sampler_create(&bad[i], &sampler), GIDD_ERR_ARG);
        cr_assert_null(sampler);
    }
    tiny_close(t);
}

/* ---- Self-correction ------------------------------------------------------------------------- */

static const gidd_correct_args correct_args = {
    .t = 0.01, .temperature = 0.1, .tokens_per_step = 1, .max_steps = 128, .max_patience = 32};

/* A model that answers the same everywhere: its logits are the bias of the head. */
static void make_constant(tiny *t, int32_t token, float bias)
{
    float *values = calloc((size_t)t->params.memory_count, sizeof *values);
    values[gidd_params_find(&t->params, "output_layer.linear.bias")->at + token] = bias;
    cr_assert_eq(gidd_model_set_params(t->model, values), GIDD_OK);
    free(values);
}

Test(sampler, correction_converges_on_what_the_model_is_sure_of)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER});
    gidd_sampler *sampler = open_sampler(t, 3);
    gidd_correct_args args = correct_args;
    gidd_correct_result results[COUNT];
    int32_t ids[COUNT * TINY_T];
    make_constant(t, 5, 50.0f);
    args.tokens_per_step = 3;
    for (int i = 0; i < COUNT * TINY_T; i++) {
        ids[i] = i % TINY_T < i / TINY_T ? 5 : 9; /* sequence b starts with b right tokens */
    }
    cr_assert_eq(
        gidd_sampler_correct(sampler, &args, &(gidd_sample_span){0, COUNT, NULL}, ids, results),
        GIDD_OK);
    for (int b = 0; b < COUNT; b++) {
        const int wrong = TINY_T - b;
        cr_assert_float_eq(results[b].initial_accuracy, (double)b / TINY_T, 1e-12);
        cr_assert_eq(results[b].final_accuracy, 1.0);
        cr_assert_eq(results[b].changed, wrong);
        cr_assert_eq(results[b].steps, (wrong + 2) / 3 + 1);
        cr_assert_eq(results[b].verdict, GIDD_CORRECT_CONVERGED);
    }
    for (int i = 0; i < COUNT * TINY_T; i++) {
        cr_assert_eq(ids[i], 5);
    }
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

/* Proposals of a hot model never hit the best token: accuracy stays 0 and patience ends, after a
 * third step that is not adopted. */
Test(sampler, correction_stops_when_patience_is_over)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .max_B = 1});
    gidd_sampler *sampler = open_sampler(t, 3);
    gidd_correct_args args = correct_args;
    gidd_correct_result result;
    int32_t ids[3][TINY_T];
    make_constant(t, 7, -1.0f); /* of the other, equal logits the first one, token 0, is the best */
    args.max_patience = 2;
    args.temperature = 1.0;
    for (int run = 0; run < 3; run++) { /* at most 1 step, 2 steps, 128 */
        args.max_steps = run < 2 ? run + 1 : 128;
        for (int i = 0; i < TINY_T; i++) {
            ids[run][i] = 9;
        }
        cr_assert_eq(gidd_sampler_correct(sampler, &args, &(gidd_sample_span){1, 1, NULL}, ids[run],
                                          &result),
                     GIDD_OK);
        cr_assert_eq(result.verdict, run < 2 ? GIDD_CORRECT_ADOPT : GIDD_CORRECT_STALLED);
        cr_assert_eq(result.steps, run + 1);
        cr_assert_eq(result.changed,
                     1); /* of equal scores the first position wins, again and again */
        cr_assert_eq(result.final_accuracy, 0.0);
    }
    cr_assert(memcmp(ids[0], ids[1], sizeof ids[0]) != 0);
    cr_assert_arr_eq(ids[1], ids[2], sizeof ids[1]);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

static void correct(int64_t max_B, int64_t first, int64_t count, int32_t *ids,
                    gidd_correct_result *results)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .max_B = max_B});
    gidd_sampler *sampler = open_sampler(t, 3);
    gidd_correct_args args = correct_args;
    args.max_patience = 4;
    args.temperature = 1.0; /* proposals that depend on their uniforms */
    cr_assert_eq(
        gidd_sampler_correct(sampler, &args, &(gidd_sample_span){first, count, NULL}, ids, results),
        GIDD_OK);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

/* Sequences stop at different steps; the others must not notice. */
Test(sampler, corrections_do_not_depend_on_the_batch)
{
    int32_t want[COUNT * TINY_T], ids[COUNT * TINY_T];
    gidd_correct_result all[COUNT], one;
    int different = 0;
    for (int i = 0; i < COUNT * TINY_T; i++) {
        want[i] = ids[i] = i * 7 % (TINY_V - 1);
    }
    correct(COUNT, FIRST, COUNT, want, all);
    for (int b = 0; b < COUNT; b++) {
        correct(1, FIRST + b, 1, ids + b * TINY_T, &one);
        cr_assert_arr_eq(ids + b * TINY_T, want + b * TINY_T, TINY_T * sizeof *ids);
        cr_assert(one.steps == all[b].steps && one.changed == all[b].changed &&
                  one.verdict == all[b].verdict);
        cr_assert_eq(one.final_accuracy, all[b].final_accuracy);
        different += all[b].steps != all[0].steps;
    }
    cr_assert(different > 0, "all sequences stopped together: nothing was tested");
}

/* Tokens that are given are not exchanged, though the model is sure of others. */
Test(sampler, correction_keeps_what_is_given)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER});
    gidd_sampler *sampler = open_sampler(t, 3);
    gidd_correct_args args = correct_args;
    gidd_correct_result results[COUNT];
    int32_t ids[COUNT * TINY_T], given[COUNT * TINY_T];
    make_constant(t, 5, 50.0f);
    args.tokens_per_step = 2;
    for (int i = 0; i < COUNT * TINY_T; i++) {
        ids[i] = 9;
        given[i] = i % 4 == 1 ? 9 : -1;
    }
    cr_assert_eq(
        gidd_sampler_correct(sampler, &args, &(gidd_sample_span){0, COUNT, given}, ids, results),
        GIDD_OK);
    for (int i = 0; i < COUNT * TINY_T; i++) {
        cr_assert_eq(ids[i], given[i] >= 0 ? 9 : 5);
    }
    cr_assert_eq(results[0].changed, TINY_T - TINY_T / 4);
    cr_assert_eq(results[0].final_accuracy, 0.75);
    cr_assert_eq(results[0].verdict, GIDD_CORRECT_CONVERGED);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

/* ---- Entropy of each step -------------------------------------------------------------------- */

/* A model that answers the same everywhere predicts with one entropy, at every step that has
 * something left to predict; asking for it changes no sample. */
static void check_entropy(gidd_loss_kind loss, int64_t max_B)
{
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .loss = loss, .max_B = max_B});
    gidd_sampler *sampler = open_sampler(t, 3);
    const int64_t computed = gidd_sampler_computed_steps(sampler);
    int32_t given[COUNT * TINY_T], plain[COUNT * TINY_T], ids[COUNT * TINY_T];
    double entropy[COUNT * STEPS];
    const gidd_sample_span span = {FIRST, COUNT, given};
    make_constant(t, 5, 2.0f);
    for (int i = 0; i < COUNT * TINY_T; i++) {
        given[i] = i < TINY_T || i % 3 == 0 ? 1 : -1; /* of the first sequence all are given */
    }
    cr_assert_eq(computed, loss == GIDD_LOSS_GIDD ? STEPS - 1 : STEPS);
    cr_assert_eq(gidd_sampler_generate(sampler, &span, plain, NULL), GIDD_OK);
    cr_assert_eq(gidd_sampler_generate(sampler, &span, ids, entropy), GIDD_OK);
    cr_assert_arr_eq(ids, plain, sizeof ids);
    const double total = exp(2.0) + TINY_V - 2; /* one logit is 2, the others but the mask's 0 */
    const double want = log(total) - 2.0 * exp(2.0) / total;
    for (int64_t k = 0; k < COUNT * computed; k++) {
        const int whole = k < computed;
        cr_assert(whole ? entropy[k] == 0.0
                        : fabs(entropy[k] - want) < 1e-12 ||
                              (loss == GIDD_LOSS_MDLM && entropy[k] == 0.0),
                  "%lld: %.17g, not %.17g", (long long)k, entropy[k], want);
    }
    cr_assert_float_eq(entropy[computed], want, 1e-12); /* the first step finds masks in any case */
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

Test(sampler, tells_the_entropy_of_each_step)
{
    for (int64_t max_B = 2; max_B <= 5; max_B += 3) {
        check_entropy(GIDD_LOSS_GIDD, max_B);
        check_entropy(GIDD_LOSS_MDLM, max_B);
    }
}
