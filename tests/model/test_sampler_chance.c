/* SPDX-License-Identifier: Apache-2.0
 *
 * Do samplers draw from the distribution that they should? Frequencies against exact probabilities, by Pearson's
 * statistic. Seeds are fixed, so a test passes always or never; by chance each comparison would fail for one seed in
 * 300000 (4.5 standard deviations), and there are fewer than 40 of them.
 */
#include "base/rng.h"
#include "diffusion/chi_square.h"
#include "diffusion/posterior.h"
#include "model/sampler.h"
#include "model/tiny.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one reverse step -------------------------------------------------------------------------------------- */

enum { V = 11, MASK = V - 1, STRIDE = 16, DRAWS = 1000000, CHUNK = 10000 };

/* alpha, beta of an ordinary id, beta of the mask: SPEC section 4, apart from the code under test. */
typedef struct level {
    double alpha, other, mask;
} level;

static level level_at(double t, double p_uniform)
{
    const double c = sqrt(t * (1 - t)) * 2 * p_uniform / (1 - p_uniform);
    return (level){(1 - t) / (1 + c), c / ((V - 1) * (1 + c)), t / (1 + c)};
}

static double beta(level at, int j)
{
    return j == MASK ? at.mask : at.other;
}

/* q(z_s = j | z_t = z) by Bayes' rule over everything that can have happened: clean token x ~ xhat, then j from x up to
 * time s, then z from j up to time t. */
static void exact_gidd(const double xhat[V], level s, level t, int z, double out[V])
{
    const double kept = t.alpha / s.alpha;
    double       sum = 0;
    for (int j = 0; j < V; j++) {
        const double onward = (j == z ? kept : 0) + beta(t, z) - kept * beta(s, z);
        out[j] = 0;
        for (int x = 0; x < V - 1; x++) {
            out[j] += xhat[x] * ((j == x ? s.alpha : 0) + beta(s, j)) * onward;
        }
        sum += out[j];
    }
    for (int j = 0; j < V; j++) {
        out[j] /= sum;
    }
}

/* The same for masks alone, with M(t) = (1 - 1e-4) t. */
static void exact_mdlm(const double xhat[V], double s, double t, double out[V])
{
    for (int j = 0; j < V; j++) {
        out[j] = j == MASK ? s / t : xhat[j] * (t - s) / t;
    }
}

static void softmax(const float logits[STRIDE], double temperature, double xhat[V])
{
    double sum = 0;
    for (int j = 0; j < V; j++) {
        xhat[j] = j == MASK ? 0 : exp((double)logits[j] / temperature);
        sum += xhat[j];
    }
    for (int j = 0; j < V; j++) {
        xhat[j] /= sum;
    }
}

static void trim(double p[V], double min_p)
{
    double sum = 0;
    for (int j = 0; j < V; j++) {
        p[j] = p[j] < min_p ? 0 : p[j];
        sum += p[j];
    }
    for (int j = 0; j < V; j++) {
        p[j] /= sum;
    }
}

/* Frequencies of DRAWS draws by the kernel slot, all from one row of logits. */
static void draw_many(gidd_device *device, gidd_sample_step_args *args, const float logits[STRIDE], int32_t z, uint64_t seed,
                      int64_t seen[V])
{
    float   *rows = malloc((size_t)CHUNK * STRIDE * sizeof *rows);
    int32_t *from = malloc(CHUNK * sizeof *from), *to = malloc(CHUNK * sizeof *to);
    double  *uniform = malloc(CHUNK * sizeof *uniform);
    for (int i = 0; i < CHUNK; i++) {
        memcpy(rows + (size_t)i * STRIDE, logits, STRIDE * sizeof *rows);
        from[i] = z;
    }
    args->logits = rows;
    args->z = from;
    args->z_out = to;
    args->uniform = uniform;
    args->rows = CHUNK;
    args->width = V;
    args->stride = STRIDE;
    args->mask_id = MASK;
    for (uint64_t chunk = 0; chunk < DRAWS / CHUNK; chunk++) {
        for (uint32_t i = 0; i < CHUNK; i++) {
            uniform[i] = gidd_uniform(seed, GIDD_STREAM_SAMPLE, chunk, i / 2, (int)(i % 2));
        }
        cr_assert_eq(device->kernels->sample_step(device, args), GIDD_OK);
        for (int i = 0; i < CHUNK; i++) {
            seen[to[i]]++;
        }
    }
    free(rows);
    free(from);
    free(to);
    free(uniform);
}

static void check_frequencies(const int64_t *seen, const double *p, int64_t count, double total, const char *what)
{
    double *expected = malloc((size_t)count * sizeof *expected);
    for (int64_t j = 0; j < count; j++) {
        expected[j] = p[j] * total;
    }
    const double sigmas = chi_square_sigmas(seen, expected, count, 1);
    cr_assert(sigmas < 4.5, "%s: %g standard deviations", what, sigmas);
    free(expected);
}

static const float some_logits[STRIDE] = {0.3F, -1.0F, 2.0F, 0.0F, -3.0F, 1.2F, 0.7F, -0.4F, 0.1F, -2.0F, 9.0F};

typedef struct step_case {
    double t, s, p_uniform, temperature, min_p;
    int    z;
} step_case;

static void check_gidd_step(gidd_device *device, const step_case *c, uint64_t seed)
{
    gidd_schedule         schedule;
    double                xhat[V], p[V];
    int64_t               seen[V] = {0};
    cr_assert_eq(gidd_schedule_init(&schedule, &(gidd_schedule_args){.p_uniform = c->p_uniform,
                                                                     .t_eps = 1e-4,
                                                                     .max_weight = 2,
                                                                     .vocab_size = V,
                                                                     .mask_id = MASK}),
                 GIDD_OK);
    const gidd_posterior  at = gidd_posterior_at(&schedule, c->t, c->s);
    gidd_sample_step_args args = {.kind = GIDD_SAMPLE_GIDD,
                                  .temperature = c->temperature,
                                  .min_p = c->min_p,
                                  .alpha_s = at.alpha_s,
                                  .alpha_t = at.alpha_t,
                                  .beta_other_s = at.beta_other_s,
                                  .beta_other_t = at.beta_other_t,
                                  .beta_mask_s = at.beta_mask_s,
                                  .beta_mask_t = at.beta_mask_t};
    softmax(some_logits, c->temperature, xhat);
    exact_gidd(xhat, level_at(c->s, c->p_uniform), level_at(c->t, c->p_uniform), c->z, p);
    if (c->min_p > 0) {
        trim(p, c->min_p);
    }
    draw_many(device, &args, some_logits, c->z, seed, seen);
    char what[96];
    (void)snprintf(what, sizeof what, "GIDD from token %d at t %g to s %g, p_u %g", c->z, c->t, c->s, c->p_uniform);
    check_frequencies(seen, p, V, DRAWS, what);
}

Test(chance, a_step_of_gidd_draws_from_the_posterior)
{
    static const step_case cases[] = {
        {0.5, 0.25, 0.2, 1, 0, MASK}, {0.5, 0.25, 0.2, 1, 0, 2},   {0.9, 0.8, 0.5, 1, 0, 4},
        {0.2, 0.1, 0.1, 0.6, 0, 1},   {0.95, 0.5, 0.2, 1.5, 0, 7}, {0.6, 0.3, 0.2, 1, 0.03, MASK},
    };
    tiny *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER});
    for (uint64_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_gidd_step(t->device, &cases[i], 50 + i);
    }
    tiny_close(t);
}

Test(chance, a_step_of_mdlm_draws_from_the_posterior)
{
    static const double times[][2] = {{0.9, 0.8}, {0.5, 0.25}, {0.1, 0.01}};
    tiny               *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER});
    for (uint64_t i = 0; i < 3; i++) {
        double                xhat[V], p[V];
        int64_t               seen[V] = {0};
        gidd_sample_step_args args = {.kind = GIDD_SAMPLE_MDLM,
                                      .temperature = 1,
                                      .move_t = gidd_mdlm_move(times[i][0]),
                                      .move_s = gidd_mdlm_move(times[i][1])};
        softmax(some_logits, 1, xhat);
        exact_mdlm(xhat, times[i][1], times[i][0], p);
        draw_many(t->device, &args, some_logits, MASK, 70 + i, seen);
        check_frequencies(seen, p, V, DRAWS, "MDLM");
    }
    tiny_close(t);
}

/* ---- a whole generation ------------------------------------------------------------------------------------ */

enum { STEPS = 6, SEQUENCES = 6000, BATCH = 400 };

/* A model whose prediction is the same everywhere makes every position a Markov chain of its own: its distribution
 * follows from the steps' posterior rows, and from arg-max in MDLM's last step. */
static void exact_generation(const gidd_schedule *schedule, const double xhat[TINY_V], int32_t best, double out[TINY_V])
{
    const int is_mdlm = schedule->args.process == GIDD_PROCESS_MDLM;
    double    row[TINY_V], next[TINY_V];
    for (int j = 0; j < TINY_V; j++) {
        out[j] = j == TINY_MASK;
    }
    for (int64_t i = STEPS - 1; i >= 1; i--) {
        const gidd_posterior p = gidd_posterior_step(schedule, STEPS, i);
        memset(next, 0, sizeof next);
        for (int32_t z = 0; z < TINY_V; z++) {
            gidd_posterior_row(&p, schedule, xhat, TINY_V, z, row);
            for (int j = 0; j < TINY_V; j++) {
                next[j] += out[z] * (is_mdlm && z != TINY_MASK ? j == z : row[j]);
            }
        }
        memcpy(out, next, sizeof next);
    }
    if (is_mdlm) {
        out[best] += out[TINY_MASK];
        out[TINY_MASK] = 0;
    }
}

static void check_generation(gidd_loss_kind loss)
{
    tiny         *t = tiny_open(&(tiny_args){.mode = GIDD_MODEL_INFER, .loss = loss, .max_B = BATCH, .head_rows = BATCH * TINY_T});
    float        *values = calloc((size_t)t->params.memory_count, sizeof *values);
    float        *bias = values + gidd_params_find(&t->params, "output_layer.linear.bias")->at;
    int32_t      *ids = malloc((size_t)SEQUENCES * TINY_T * sizeof *ids);
    gidd_sampler *sampler = NULL;
    double        xhat[TINY_V], p[TINY_V], sum = 0;
    int64_t       seen[TINY_V] = {0}, pairs[4] = {0};
    for (int j = 0; j < TINY_V; j++) {
        bias[j] = (float)((j * 7) % 5) * 0.5F;
        xhat[j] = j == TINY_MASK ? 0 : exp((double)bias[j]);
        sum += xhat[j];
    }
    for (int j = 0; j < TINY_V; j++) {
        xhat[j] /= sum;
    }
    cr_assert_eq(gidd_model_set_params(t->model, values), GIDD_OK);
    cr_assert_eq(gidd_sampler_create(&(gidd_sampler_args){.model = t->model,
                                                          .schedule = &t->schedule,
                                                          .T = TINY_T,
                                                          .steps = STEPS,
                                                          .seed = 8},
                                     &sampler),
                 GIDD_OK);
    cr_assert_eq(gidd_sampler_generate(sampler, &(gidd_sample_span){0, SEQUENCES, NULL}, ids, NULL), GIDD_OK);
    exact_generation(&t->schedule, xhat, 2, p); /* 2: the first of the largest biases */
    for (int64_t i = 0; i < (int64_t)SEQUENCES * TINY_T; i++) {
        seen[ids[i]]++;
    }
    check_frequencies(seen, p, TINY_V, (double)SEQUENCES * TINY_T, loss == GIDD_LOSS_GIDD ? "GIDD" : "MDLM");
    /* neighbours, which share a draw of Philox, are independent: of an even and an odd id */
    double odd = 0, four[4];
    for (int j = 1; j < TINY_V; j += 2) {
        odd += p[j];
    }
    for (int64_t i = 0; i < (int64_t)SEQUENCES * TINY_T; i += 2) {
        pairs[2 * (ids[i] % 2) + ids[i + 1] % 2]++;
    }
    for (int k = 0; k < 4; k++) {
        four[k] = (k / 2 != 0 ? odd : 1 - odd) * (k % 2 != 0 ? odd : 1 - odd);
    }
    check_frequencies(pairs, four, 4, (double)SEQUENCES * TINY_T / 2, "neighbours");
    gidd_sampler_destroy(sampler);
    free(ids);
    free(values);
    tiny_close(t);
}

Test(chance, a_generation_of_gidd_has_the_exact_distribution)
{
    check_generation(GIDD_LOSS_GIDD);
}

Test(chance, a_generation_of_mdlm_has_the_exact_distribution)
{
    check_generation(GIDD_LOSS_MDLM);
}
