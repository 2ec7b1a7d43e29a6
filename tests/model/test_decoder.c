/* SPDX-License-Identifier: Apache-2.0
 *
 * What is special about the autoregressive network: nothing sees the future, padding counts nowhere, the cache
 * of keys gives what the whole forward gives, samples depend on seed and number alone.
 */
#include "model/ancestral.h"
#include "model/cache.h"
#include "model/sampler.h"
#include "model/tiny.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void logits_of(tiny *t, float *logits)
{
    const int64_t rows = t->batch.B * t->batch.T;
    void *memory = NULL;
    tiny_forward(t);
    cr_assert_eq(gidd_model_logits(t->model, 0, rows, &memory), GIDD_OK, "%s", gidd_error_last()->text);
    memcpy(logits, memory, (size_t)(rows * TINY_VR) * sizeof *logits);
}

static int row_differs(const float *a, const float *b, int64_t row)
{
    return memcmp(a + row * TINY_VR, b + row * TINY_VR, TINY_VR * sizeof *a) != 0;
}

Test(decoder, sees_no_future)
{
    enum { CHANGED = 7 };
    static float before[TINY_ROWS * TINY_VR], after[TINY_ROWS * TINY_VR];
    tiny *t = tiny_open(&(tiny_args){.loss = GIDD_LOSS_NEXT});
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    logits_of(t, before);
    t->batch.z[CHANGED] = (t->batch.z[CHANGED] + 1) % (TINY_V - 1);
    logits_of(t, after);
    for (int64_t row = 0; row < TINY_ROWS; row++) {
        cr_assert_eq(row_differs(before, after, row), row >= CHANGED && row < TINY_T, "row %d", (int)row);
    }
    tiny_close(t);
}

/* Ids behind the end change neither loss nor gradients, but for the one that EOS predicts. */
Test(decoder, padding_counts_nowhere)
{
    const int64_t end = (TINY_B - 1) * TINY_T + TINY_T / 2; // first padded position of the last row
    int32_t scratch[TINY_ROWS];
    tiny *t = tiny_open(&(tiny_args){.loss = GIDD_LOSS_NEXT});
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    for (int64_t p = end; p < TINY_ROWS; p++) {
        t->batch.x[p] = t->batch.z[p] = TINY_MASK - 1;
    }
    gidd_batch_index(&t->batch, TINY_V, scratch);
    tiny_train(t, 0, 0);
    const double loss = tiny_loss(t);
    const size_t bytes = (size_t)t->params.memory_count * sizeof(float);
    float *want = malloc(bytes);
    memcpy(want, t->model->grads, bytes);
    for (int64_t p = end + 1; p < TINY_ROWS; p++) {
        t->batch.x[p] = t->batch.z[p] = 3;
    }
    gidd_batch_index(&t->batch, TINY_V, scratch);
    tiny_train(t, 0, 0);
    cr_assert_float_eq(tiny_loss(t), loss, 1e-12);
    cr_assert(tiny_distance(t->model->grads, want, t->params.memory_count) < 1e-6);
    t->batch.x[end] = 3;
    cr_assert(fabs(tiny_loss(t) - loss) > 1e-4, "what EOS predicts is trained");
    free(want);
    tiny_close(t);
}

static void check_cache(gidd_dtype dtype, double tolerance)
{
    static float whole[TINY_ROWS * TINY_VR];
    tiny *t = tiny_open(&(tiny_args){.loss = GIDD_LOSS_NEXT, .mode = GIDD_MODEL_INFER, .dtype = dtype});
    gidd_cache *cache = NULL;
    int32_t ids[TINY_ROWS];
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    memcpy(ids, t->batch.z, sizeof ids);
    void *memory = NULL;
    tiny_forward(t);
    cr_assert_eq(gidd_model_logits(t->model, 0, TINY_ROWS, &memory), GIDD_OK);
    for (int64_t i = 0; i < TINY_ROWS * TINY_VR; i++) {
        uint32_t bits = dtype == GIDD_BF16 ? (uint32_t)((uint16_t *)memory)[i] << 16 : 0;
        memcpy(&whole[i], dtype == GIDD_BF16 ? (void *)&bits : (void *)((float *)memory + i), sizeof *whole);
    }
    cr_assert_eq(gidd_cache_create(t->model, TINY_B, TINY_T, &cache), GIDD_OK);
    for (int64_t position = 0; position < TINY_T; position++) {
        gidd_batch_layout(&t->batch, TINY_B, 1, t->memory);
        for (int b = 0; b < TINY_B; b++) {
            t->batch.z[b] = ids[b * TINY_T + position];
        }
        cr_assert_eq(gidd_model_load(t->model, &t->batch), GIDD_OK);
        cr_assert_eq(gidd_cache_forward(cache, position), GIDD_OK, "%s", gidd_error_last()->text);
        cr_assert_eq(gidd_model_logits(t->model, 0, TINY_B, &memory), GIDD_OK);
        for (int64_t i = 0; i < TINY_B * TINY_VR; i++) {
            float want = whole[((i / TINY_VR) * TINY_T + position) * TINY_VR + i % TINY_VR], got;
            uint32_t bits = dtype == GIDD_BF16 ? (uint32_t)((uint16_t *)memory)[i] << 16 : 0;
            memcpy(&got, dtype == GIDD_BF16 ? (void *)&bits : (void *)((float *)memory + i), sizeof got);
            cr_assert(fabs((double)got - (double)want) <= tolerance, "position %d: %g, not %g", (int)position,
                      (double)got, (double)want);
        }
    }
    gidd_cache_destroy(cache);
    tiny_close(t);
}

/* Logits of about 2, of some 40 sums of fp32; in bf16 each of some 30 results is rounded to 2^-9 of itself. */
Test(decoder, cache_gives_what_the_whole_gives)
{
    check_cache(GIDD_F32, 1e-5);
    check_cache(GIDD_BF16, 0.15);
}

enum { COUNT = 5, FIRST = 1000 };

static void generate(const tiny_args *args, uint64_t seed, int64_t first, int64_t count, const int32_t *given,
                     int32_t *ids)
{
    tiny *t = tiny_open(args);
    gidd_sampler *sampler = NULL;
    cr_assert_eq(gidd_sampler_create(&(gidd_sampler_args){.model = t->model,
                                                          .schedule = &t->schedule,
                                                          .T = TINY_T,
                                                          .steps = 1,
                                                          .seed = seed},
                                     &sampler),
                 GIDD_OK);
    cr_assert_eq(gidd_sampler_generate(sampler, &(gidd_sample_span){first, count, given}, ids, NULL), GIDD_OK, "%s",
                 gidd_error_last()->text);
    gidd_correct_result results[COUNT];
    cr_assert_eq(gidd_sampler_correct(sampler, &(gidd_correct_args){0}, &(gidd_sample_span){first, count, NULL}, ids, results),
                 GIDD_ERR_USAGE);
    gidd_sampler_destroy(sampler);
    tiny_close(t);
}

Test(decoder, samples_do_not_depend_on_the_batch)
{
    int32_t want[COUNT * TINY_T], ids[COUNT * TINY_T];
    tiny_args args = {.mode = GIDD_MODEL_INFER, .loss = GIDD_LOSS_NEXT};
    generate(&args, 3, FIRST, COUNT, NULL, want);
    for (int64_t max_B = 1; max_B <= 3; max_B += 2) {
        args.max_B = max_B;
        args.head_rows = 2;
        generate(&args, 3, FIRST, COUNT, NULL, ids);
        cr_assert_arr_eq(ids, want, sizeof ids);
    }
    generate(&args, 3, FIRST + 3, 2, NULL, ids);
    cr_assert_arr_eq(ids, want + 3 * TINY_T, 2 * TINY_T * sizeof *ids);
    generate(&args, 4, FIRST, COUNT, NULL, ids);
    cr_assert(memcmp(ids, want, sizeof ids) != 0);
}

/* BOS, tokens, and after EOS only PAD. */
Test(decoder, samples_begin_and_end)
{
    enum { MANY = 64, BOS = TINY_V - 3, PAD = TINY_V - 2 };
    static int32_t ids[MANY * TINY_T];
    static double entropy[MANY * (TINY_T - 1)];
    int ended = 0;
    tiny_args args = {.mode = GIDD_MODEL_INFER, .loss = GIDD_LOSS_NEXT};
    tiny *t = tiny_open(&args);
    gidd_ancestral *sampler = NULL;
    cr_assert_eq(gidd_ancestral_create(
                     &(gidd_ancestral_args){.model = t->model, .T = TINY_T, .temperature = 1.0, .seed = 9}, &sampler),
                 GIDD_OK);
    cr_assert_eq(gidd_ancestral_generate(sampler, 0, MANY, NULL, ids, entropy), GIDD_OK);
    for (int64_t s = 0; s < MANY; s++) {
        const int32_t *row = ids + s * TINY_T;
        int done = 0;
        cr_assert_eq(row[0], BOS);
        for (int i = 1; i < TINY_T; i++) {
            cr_assert(row[i] >= 0 && row[i] != TINY_MASK && row[i] < TINY_V);
            cr_assert(!done || row[i] == PAD);
            const double nats = entropy[s * (TINY_T - 1) + i - 1];
            cr_assert(done ? nats == 0.0 : nats > 0.0 && nats < log(TINY_V), "%g", nats);
            done = done || row[i] == BOS; // EOS has the same id
        }
        ended += done;
    }
    cr_assert(ended > 0 && ended < MANY, "%d of %d have ended", ended, (int)MANY);
    gidd_ancestral_destroy(sampler);
    tiny_close(t);
}

/* 20000 second tokens against the distribution that the model gives behind BOS, at a temperature: chi-square of 59
 * degrees of freedom, five deviations above its mean at most. Also with the least probable left out. */
static void check_chance(double temperature, double min_p)
{
    enum { MANY = 20000, LENGTH = 2, BOS = TINY_V - 3, BATCH = 100 };
    static int32_t ids[MANY * LENGTH];
    double p[TINY_V], counts[TINY_V] = {0}, total = 0.0, chi_square = 0.0;
    int kinds = 0;
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .loss = GIDD_LOSS_NEXT, .max_B = BATCH, .head_rows = BATCH});
    gidd_ancestral *sampler = NULL;
    void *memory = NULL;
    gidd_batch_layout(&t->batch, 1, 1, t->memory);
    t->batch.z[0] = BOS;
    tiny_forward(t);
    cr_assert_eq(gidd_model_logits(t->model, 0, 1, &memory), GIDD_OK);
    for (int pass = 0; pass < 2; pass++) { /* the second leaves out what is below min_p */
        double sum = 0.0;
        for (int j = 0; j < TINY_V; j++) {
            p[j] = pass > 0 ? (p[j] < min_p ? 0.0 : p[j]) : j == TINY_MASK ? 0.0 : exp((double)((float *)memory)[j] / temperature);
            sum += p[j];
        }
        for (int j = 0; j < TINY_V; j++) {
            p[j] /= sum;
        }
    }
    cr_assert_eq(gidd_ancestral_create(&(gidd_ancestral_args){.model = t->model,
                                                              .T = LENGTH,
                                                              .temperature = temperature,
                                                              .min_p = min_p,
                                                              .seed = 4},
                                       &sampler),
                 GIDD_OK);
    cr_assert_eq(gidd_ancestral_generate(sampler, 0, MANY, NULL, ids, NULL), GIDD_OK, "%s", gidd_error_last()->text);
    for (int s = 0; s < MANY; s++) {
        counts[ids[s * LENGTH + 1]]++;
    }
    for (int j = 0; j < TINY_V; j++) {
        cr_assert(p[j] > 0.0 || counts[j] == 0.0, "id %d was drawn", j);
        if (p[j] > 0.0) {
            const double want = p[j] * MANY;
            chi_square += (counts[j] - want) * (counts[j] - want) / want;
            total += counts[j];
            kinds++;
        }
    }
    const double freedom = kinds - 1;
    cr_assert(total == MANY && kinds > 10, "%d ids", kinds);
    cr_assert(chi_square < freedom + 5.0 * sqrt(2.0 * freedom), "chi-square %g of %g", chi_square, freedom);
    gidd_ancestral_destroy(sampler);
    tiny_close(t);
}

Test(decoder, draws_are_the_models)
{
    check_chance(1.0, 0.0);
    check_chance(2.0, 0.012);
}

Test(decoder, a_given_prefix_stays_and_is_seen)
{
    int32_t given[COUNT * TINY_T], ids[COUNT * TINY_T], other[COUNT * TINY_T];
    tiny_args args = {.mode = GIDD_MODEL_INFER, .loss = GIDD_LOSS_NEXT};
    for (int i = 0; i < COUNT * TINY_T; i++) {
        given[i] = i % TINY_T < 4 ? 5 + i % 7 : -1;
    }
    generate(&args, 3, FIRST, COUNT, given, ids);
    for (int i = 0; i < COUNT * TINY_T; i++) {
        cr_assert(given[i] < 0 || ids[i] == given[i]);
    }
    given[0] = 20;
    generate(&args, 3, FIRST, COUNT, given, other);
    cr_assert(memcmp(ids + 4, other + 4, (TINY_T - 4) * sizeof *ids) != 0);
    cr_assert_arr_eq(ids + TINY_T, other + TINY_T, (COUNT - 1) * TINY_T * sizeof *ids);
}

Test(decoder, table_is_llamas)
{
    const gidd_model_shape shape = {.type = GIDD_MODEL_AUTOREGRESSIVE,
                                    .D = 768,
                                    .L = 12,
                                    .H = 12,
                                    .C = 128,
                                    .T = 512,
                                    .V = 50259,
                                    .Vr = 50304,
                                    .mask_id = 50258};
    gidd_params p;
    cr_assert_eq(gidd_params_init(&p, &shape, (size_t)64 << 20, 8), GIDD_OK);
    cr_assert_eq(p.count, 190532352);
    cr_assert_eq(gidd_params_block_count(&p), 113264640);
    const gidd_tensor *q = gidd_params_find(&p, "model.layers.11.self_attn.q_proj.weight");
    const gidd_tensor *k = gidd_params_find(&p, "model.layers.11.self_attn.k_proj.weight");
    const gidd_tensor *gate = gidd_params_find(&p, "model.layers.0.mlp.gate_proj.weight");
    const gidd_tensor *up = gidd_params_find(&p, "model.layers.0.mlp.up_proj.weight");
    cr_assert(q != NULL && k != NULL && gate != NULL && up != NULL);
    cr_assert_eq(k->at, q->at + q->count);
    cr_assert_eq(up->at, gate->at + gate->count);
    cr_assert_eq(gate->shape[0], 3072);
    cr_assert_eq(gidd_params_find(&p, "model.embed_tokens.weight")->group, p.group_count - 1);
    gidd_params_release(&p);
}

/* N(0, 0.02^2): mean, deviation, and the share beyond two deviations, each within five of its own. */
Test(decoder, initial_values_are_normal)
{
    const gidd_model_shape shape = {.type = GIDD_MODEL_AUTOREGRESSIVE,
                                    .D = 64,
                                    .L = 1,
                                    .H = 2,
                                    .C = 8,
                                    .T = 16,
                                    .V = 254,
                                    .Vr = 256,
                                    .mask_id = 253};
    gidd_params p;
    cr_assert_eq(gidd_params_init(&p, &shape, (size_t)1 << 20, 1), GIDD_OK);
    const gidd_tensor *tensor = gidd_params_find(&p, "model.layers.0.mlp.down_proj.weight");
    const int64_t n = tensor->count;
    float *values = malloc((size_t)n * sizeof *values), odd[5];
    gidd_params_fill(&p, 7, tensor->at, n, values);
    double sum = 0.0, squares = 0.0, beyond = 0.0, count = (double)n;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
        beyond += fabs((double)values[i]) > 0.04;
    }
    cr_assert(fabs(sum / count) < 5 * 0.02 / sqrt(count));
    cr_assert(fabs(sqrt(squares / count) - 0.02) < 5 * 0.02 / sqrt(2 * count));
    cr_assert(fabs(beyond / count - 0.0455) < 5 * sqrt(0.0455 / count));
    gidd_params_fill(&p, 7, tensor->at + 3, 5, odd); // any range, the same values
    cr_assert_arr_eq(odd, values + 3, sizeof odd);
    free(values);
    gidd_params_release(&p);
}
