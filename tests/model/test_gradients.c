/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of the whole network. On the CPU device memory is the host's, so the tests read and
 * write parameters and gradients where they are.
 */
#include "model/tiny.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* fp32 sums of this network's lengths in another order: some 2^-24 each, over a few dozen stages.
 */
static const double same_up_to_order = 2e-6;

static float *copy_of_gradients(const tiny *t)
{
    const size_t bytes = (size_t)t->params.memory_count * sizeof(float);
    float *copy = malloc(bytes);
    memcpy(copy, t->model->grads, bytes);
    return copy;
}

static void expect_gradients(const tiny *t, const float *want, double tolerance)
{
    for (int64_t i = 0; i < t->params.tensor_count; i++) {
        const gidd_tensor *tensor = &t->params.tensors[i];
        double distance =
            tiny_distance(t->model->grads + tensor->at, want + tensor->at, tensor->count);
        cr_assert(distance <= tolerance, "%s differs by %g", tensor->name, distance);
    }
}

/* What no kernel writes must not be read: NaN everywhere before. */
static void poison_gradients(const tiny *t)
{
    for (int64_t i = 0; i < t->params.memory_count; i++) {
        t->model->grads[i] = NAN;
    }
}

/* ---- Against differences of the loss --------------------------------------------------------- */

/* Moves the parameters of `group` to saved + step * direction. */
static void move_group(tiny *t, int32_t group, const float *saved, const float *direction,
                       double step)
{
    for (int64_t i = 0; i < t->params.tensor_count; i++) {
        const gidd_tensor *tensor = &t->params.tensors[i];
        for (int64_t e = tensor->at; tensor->group == group && e < tensor->at + tensor->count;
             e++) {
            t->model->master[e] = (float)((double)saved[e] + step * (double)direction[e]);
        }
    }
}

static double norm_of_group(const tiny *t, int32_t group, const float *values)
{
    double square = 0.0;
    for (int64_t i = 0; i < t->params.tensor_count; i++) {
        const gidd_tensor *tensor = &t->params.tensors[i];
        for (int64_t e = tensor->at; tensor->group == group && e < tensor->at + tensor->count;
             e++) {
            square += (double)values[e] * (double)values[e];
        }
    }
    return sqrt(square);
}

/* Along its own direction a gradient's slope is its norm. Two central differences, of step h and
 * 2h, give it up to h^4; the loss is good to some 1e-7 of itself, so h balances both at a part in a
 * thousand. */
static void check_slopes(gidd_loss_kind loss)
{
    tiny *t = tiny_open(&(tiny_args){.loss = loss});
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    poison_gradients(t);
    tiny_train(t, 0, 0);
    float *gradient = copy_of_gradients(t);
    const size_t bytes = (size_t)t->params.memory_count * sizeof(float);
    float *saved = malloc(bytes);
    memcpy(saved, t->model->master, bytes);
    for (int32_t group = 0; group < t->params.group_count; group++) {
        const double norm = norm_of_group(t, group, gradient), h = 0.01 / norm;
        double values[4];
        const double steps[4] = {h, -h, 2 * h, -2 * h};
        for (int i = 0; i < 4; i++) {
            move_group(t, group, saved, gradient, steps[i]);
            values[i] = tiny_loss(t);
        }
        move_group(t, group, saved, gradient, 0.0);
        const double slope = (8.0 * (values[0] - values[1]) - (values[2] - values[3])) / (12.0 * h);
        const double error = fabs(slope / (norm * norm) - 1.0);
        cr_assert(error < 2e-3, "group %d: slope %g, gradient %g", (int)group, slope, norm * norm);
    }
    free(gradient);
    free(saved);
    tiny_close(t);
}

Test(gradients, gidd_slopes)
{
    check_slopes(GIDD_LOSS_GIDD);
}

Test(gradients, mdlm_slopes)
{
    check_slopes(GIDD_LOSS_MDLM);
}

Test(gradients, next_token_slopes)
{
    check_slopes(GIDD_LOSS_NEXT);
}

/* ---- Pieces of a batch ----------------------------------------------------------------------- */

static void check_micro_batches(gidd_loss_kind loss)
{
    tiny *t = tiny_open(&(tiny_args){.loss = loss});
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    tiny_train(t, 0, 0);
    float *whole = copy_of_gradients(t);
    poison_gradients(t);
    tiny_fill_batch(t, 0, TINY_B / 2, TINY_T);
    tiny_train(t, 0, 0);
    tiny_fill_batch(t, TINY_B / 2, TINY_B / 2, TINY_T);
    tiny_train(t, 1, 0);
    expect_gradients(t, whole, same_up_to_order);
    free(whole);
    tiny_close(t);
}

Test(gradients, two_micro_batches_are_one_batch)
{
    check_micro_batches(GIDD_LOSS_GIDD);
    check_micro_batches(GIDD_LOSS_NEXT);
}

static void check_chunks(gidd_loss_kind loss)
{
    tiny *whole = tiny_open(&(tiny_args){.loss = loss});
    tiny *chunks = tiny_open(&(tiny_args){.loss = loss, .head_rows = 23});
    tiny_fill_batch(whole, 0, TINY_B, TINY_T);
    tiny_fill_batch(chunks, 0, TINY_B, TINY_T);
    tiny_train(whole, 0, 0);
    poison_gradients(chunks);
    tiny_train(chunks, 0, 0);
    expect_gradients(chunks, whole->model->grads, same_up_to_order);
    tiny_close(whole);
    tiny_close(chunks);
}

Test(gradients, chunks_of_logits_are_one_head)
{
    check_chunks(GIDD_LOSS_GIDD);
    check_chunks(GIDD_LOSS_NEXT);
}

/* MDLM's weight of a clean position is exactly 0: leaving it out changes nothing. */
Test(gradients, mdlm_needs_no_clean_rows)
{
    tiny *t = tiny_open(&(tiny_args){.loss = GIDD_LOSS_MDLM, .head_rows = 7});
    gidd_loss_sums all, listed;
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    cr_assert(t->batch.row_count > 7 && t->batch.row_count < TINY_ROWS);
    tiny_train(t, 0, 0);
    cr_assert_eq(gidd_model_read_sums(t->model, &all), GIDD_OK);
    float *want = copy_of_gradients(t);
    poison_gradients(t);
    cr_assert_eq(gidd_model_zero_sums(t->model), GIDD_OK);
    tiny_train(t, 0, 1);
    cr_assert_eq(gidd_model_read_sums(t->model, &listed), GIDD_OK);
    expect_gradients(t, want, same_up_to_order);
    cr_assert_float_eq(listed.loss, all.loss, same_up_to_order * all.loss);
    cr_assert_float_eq(listed.elbo, all.elbo, same_up_to_order * all.elbo);
    free(want);
    tiny_close(t);
}

Test(gradients, without_a_noised_row_all_are_zero)
{
    tiny *t = tiny_open(&(tiny_args){.loss = GIDD_LOSS_MDLM});
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    int32_t scratch[TINY_ROWS];
    memcpy(t->batch.z, t->batch.x, TINY_ROWS * sizeof *t->batch.z);
    gidd_batch_index(&t->batch, TINY_V, scratch);
    cr_assert_eq(t->batch.row_count, 0);
    poison_gradients(t);
    tiny_train(t, 0, 1);
    for (int64_t i = 0; i < t->params.tensor_count; i++) {
        const gidd_tensor *tensor = &t->params.tensors[i];
        for (int64_t e = 0; e < tensor->count; e++) {
            cr_assert_eq(t->model->grads[tensor->at + e], 0.0f, "%s", tensor->name);
        }
    }
    tiny_close(t);
}

Test(gradients, a_micro_batch_without_noised_rows_adds_nothing)
{
    tiny *t = tiny_open(&(tiny_args){.loss = GIDD_LOSS_MDLM});
    int32_t scratch[TINY_ROWS];
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    tiny_train(t, 0, 1);
    float *want = copy_of_gradients(t);
    memcpy(t->batch.z, t->batch.x, TINY_ROWS * sizeof *t->batch.z);
    gidd_batch_index(&t->batch, TINY_V, scratch);
    tiny_train(t, 1, 1);
    expect_gradients(t, want, 0.0);
    free(want);
    tiny_close(t);
}

/* ---- Order of completion --------------------------------------------------------------------- */

typedef struct completion {
    tiny *t;
    int32_t next;
    float *seen; /* each group's gradients as they were when it was announced */
} completion;

static void on_ready(void *context, int32_t group)
{
    completion *c = context;
    cr_assert_eq(group, c->next);
    c->next++;
    for (int64_t i = 0; i < c->t->params.tensor_count; i++) {
        const gidd_tensor *tensor = &c->t->params.tensors[i];
        if (tensor->group == group) {
            memcpy(c->seen + tensor->at, c->t->model->grads + tensor->at,
                   (size_t)tensor->count * sizeof(float));
        }
    }
}

static void check_groups(gidd_loss_kind loss)
{
    tiny *t = tiny_open(&(tiny_args){.loss = loss});
    completion c = {.t = t, .seen = calloc((size_t)t->params.memory_count, sizeof(float))};
    const gidd_head_args head = {.mode = GIDD_LOSS_TRAIN, .scale = 1.0f / TINY_ROWS};
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    poison_gradients(t);
    tiny_forward(t);
    cr_assert_eq(gidd_model_head(t->model, &head), GIDD_OK);
    cr_assert_eq(gidd_model_backward(t->model,
                                     &(gidd_backward_args){.grads_ready = on_ready, .context = &c}),
                 GIDD_OK);
    cr_assert_eq(c.next, t->params.group_count);
    expect_gradients(t, c.seen, 0.0);
    free(c.seen);
    tiny_close(t);
}

Test(gradients, groups_are_complete_when_announced)
{
    check_groups(GIDD_LOSS_GIDD);
    check_groups(GIDD_LOSS_NEXT);
}

/* Before the first update only the output matrix has a gradient (SPEC section 3). */
Test(gradients, of_initial_parameters_reach_only_the_output_matrix)
{
    tiny *t = tiny_open(&(tiny_args){0});
    cr_assert_eq(gidd_model_init_params(t->model, 5), GIDD_OK);
    tiny_fill_batch(t, 0, TINY_B, TINY_T);
    tiny_train(t, 0, 0);
    for (int64_t i = 0; i < t->params.tensor_count; i++) {
        const gidd_tensor *tensor = &t->params.tensors[i];
        const int is_output = strncmp(tensor->name, "output_layer.linear", 19) == 0;
        double square = 0.0;
        for (int64_t e = 0; e < tensor->count; e++) {
            square +=
                (double)t->model->grads[tensor->at + e] * (double)t->model->grads[tensor->at + e];
        }
        cr_assert_eq(square > 0.0, is_output, "%s: %g", tensor->name, square);
    }
    tiny_close(t);
}
