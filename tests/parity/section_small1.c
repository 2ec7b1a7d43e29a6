/* SPDX-License-Identifier: Apache-2.0
 *
 * The SMALL model at its real vocabulary. Its parameters are defined by a recipe; the file holds
 * some columns of the logits and some elements of each gradient.
 */
#include "parity/network.h"

#include <math.h>
#include <stdlib.h>

enum { STORED_VALUES = 8 };

static const char group_of_case[] = "gidd_pu0.1_dynamic";

/* ---- Parameters ------------------------------------------------------------------------------ */

/* Element i of parameter number `index`, in [-1, 1) and exact (VECTORS.md, small1). */
static float recipe_value(uint64_t seed, uint64_t index, uint64_t i)
{
    uint64_t x =
        seed * 0xA0761D6478BD642Fu + (index + 1) * 0x9E3779B97F4A7C15u + i * 0xD1B54A32D192ED03u;
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    x ^= x >> 31;
    return (float)(x >> 40) * 0x1p-23f - 1.0f;
}

static gidd_status make_tensor(parity *p, const gidd_tensor *tensor, float *values)
{
    const char *path = parity_path(p, "/recipe/%s", tensor->name);
    double index = 0.0, scale = 0.0, mean = 0.0, want_sum = 0.0, sum = 0.0;
    float *want = NULL;
    GIDD_TRY(parity_attribute(p, path, "index", &index));
    GIDD_TRY(parity_attribute(p, path, "scale", &scale));
    GIDD_TRY(parity_attribute(p, path, "mean", &mean));
    GIDD_TRY(parity_attribute(p, path, "sum", &want_sum));
    GIDD_TRY(parity_need_f32(p, path, STORED_VALUES, &want));
    for (int64_t i = 0; i < tensor->count; i++) {
        const float product =
            (float)scale * recipe_value((uint64_t)p->config.seed, (uint64_t)index, (uint64_t)i);
        values[i] = (float)mean + product;
        sum += (double)values[i];
    }
    parity_check(p, parity_max_abs(values, want, STORED_VALUES), 0.0, "%s", path);
    parity_check(p, fabs(sum - want_sum), 1e-12 * (double)tensor->count, "%s (sum)", path);
    return GIDD_OK;
}

static gidd_status make_params(parity *p, network *net)
{
    float *values = parity_alloc(p, (size_t)net->params.memory_count * sizeof(*values));
    for (int64_t i = 0; i < net->params.tensor_count; i++) {
        const gidd_tensor *tensor = &net->params.tensors[i];
        GIDD_TRY(make_tensor(p, tensor, values + tensor->at));
    }
    return gidd_model_set_params(net->model, values);
}

/* ---- Logits and their gradient --------------------------------------------------------------- */

typedef struct stored_columns {
    int32_t *ids; /* [count] */
    int64_t count;
    int32_t *x, *z; /* [rows] */
    int64_t rows, Vr;
} stored_columns;

/* dataset [rows][columns] against those columns of `all` [rows][Vr]. */
static gidd_status check_columns(parity *p, const stored_columns *at, const float *all,
                                 const char *path, double tolerance)
{
    const int64_t count = at->rows * at->count;
    float *want = NULL, *got = parity_alloc(p, (size_t)count * sizeof(*got));
    GIDD_TRY(parity_need_f32(p, path, count, &want));
    for (int64_t i = 0; i < count; i++) {
        got[i] = all[i / at->count * at->Vr + at->ids[i % at->count]];
    }
    network_check(p, got, want, count, tolerance, path);
    return GIDD_OK;
}

/* dataset [rows] against column ids[row] of each row. */
static gidd_status check_at(parity *p, const stored_columns *at, const float *all,
                            const int32_t *ids, const char *path, double tolerance)
{
    float *want = NULL, *got = parity_alloc(p, (size_t)at->rows * sizeof(*got));
    GIDD_TRY(parity_need_f32(p, path, at->rows, &want));
    for (int64_t r = 0; r < at->rows; r++) {
        got[r] = all[r * at->Vr + ids[r]];
    }
    network_check(p, got, want, at->rows, tolerance, path);
    return GIDD_OK;
}

static gidd_status check_logsumexp(parity *p, const stored_columns *at, const float *logits)
{
    static const char path[] = "/forward/logsumexp_nomask";
    float *want = NULL, *got = parity_alloc(p, (size_t)at->rows * sizeof(*got));
    GIDD_TRY(parity_need_f32(p, path, at->rows, &want));
    for (int64_t r = 0; r < at->rows; r++) {
        const float *row = logits + r * at->Vr;
        double sum = 0.0;
        for (int64_t j = 0; j < at->Vr; j++) {
            sum += j == p->config.mask ? 0.0 : exp((double)row[j]);
        }
        got[r] = (float)log(sum);
    }
    network_check(p, got, want, at->rows, 2e-5, path);
    return GIDD_OK;
}

static gidd_status check_logits(parity *p, network *net, const stored_columns *at, float *logits)
{
    GIDD_TRY(network_logits(p, net, logits));
    GIDD_TRY(check_columns(p, at, logits, "/forward/logits_at_columns", 2e-5));
    GIDD_TRY(check_at(p, at, logits, at->x, "/forward/logit_at_x", 2e-5));
    GIDD_TRY(check_at(p, at, logits, at->z, "/forward/logit_at_z", 2e-5));
    return check_logsumexp(p, at, logits);
}

static gidd_status check_dlogits(parity *p, network *net, const stored_columns *at, float *dlogits)
{
    int64_t seen = 0;
    GIDD_TRY(gidd_model_inspect(net->model, "logits", dlogits, at->rows * at->Vr, &seen));
    GIDD_TRY(check_columns(p, at, dlogits, "/forward/dlogits_at_columns", 5e-8));
    return check_at(p, at, dlogits, at->x, "/forward/dlogit_at_x", 5e-8);
}

/* ---- Gradients ------------------------------------------------------------------------------- */

static gidd_status check_gradient(parity *p, const gidd_tensor *tensor, const float *gradient,
                                  double *square_p)
{
    const char *path = parity_path(p, "/grads/%s/%s", group_of_case, tensor->name);
    parity_shape shape;
    int64_t *index = NULL;
    float *want = NULL;
    double norm = 0.0, square = 0.0;
    GIDD_TRY(parity_read_i64(p, parity_path(p, "%s/flat_index", path), &shape, &index));
    GIDD_TRY(parity_need_f32(p, parity_path(p, "%s/value", path), shape.count, &want));
    GIDD_TRY(parity_attribute(p, path, "norm", &norm));
    float *got = parity_alloc(p, (size_t)shape.count * sizeof(*got));
    for (int64_t i = 0; i < shape.count; i++) {
        if (index[i] < 0 || index[i] >= tensor->count) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s/flat_index is out of range", path);
        }
        got[i] = gradient[index[i]];
    }
    for (int64_t i = 0; i < tensor->count; i++) {
        square += (double)gradient[i] * (double)gradient[i];
    }
    *square_p += square;
    const double tolerance = parity_tolerance(p, 2e-5, BF16_GRADIENTS);
    parity_check(p, parity_rel_l2(got, want, shape.count), tolerance, "%s", path);
    parity_check(p, fabs(sqrt(square) - norm) / norm, tolerance, "%s (norm)", path);
    return GIDD_OK;
}

static gidd_status check_gradients(parity *p, network *net)
{
    const size_t bytes = (size_t)net->params.memory_count * sizeof(float);
    float *grads = parity_alloc(p, bytes);
    double square = 0.0, norm = 0.0;
    GIDD_TRY(parity_get(p, grads, net->model->grads, bytes));
    for (int64_t i = 0; i < net->params.tensor_count; i++) {
        const gidd_tensor *tensor = &net->params.tensors[i];
        GIDD_TRY(check_gradient(p, tensor, grads + tensor->at, &square));
    }
    const char *group = parity_path(p, "/grads/%s", group_of_case);
    GIDD_TRY(parity_attribute(p, group, "grad_norm", &norm));
    parity_check(p, fabs(sqrt(square) - norm) / norm, parity_tolerance(p, 2e-5, BF16_GRADIENTS),
                 "%s (grad_norm)", group);
    return GIDD_OK;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static gidd_status small1(parity *p, network *net)
{
    const int64_t rows = p->config.B * p->config.T;
    stored_columns at = {.rows = rows, .Vr = p->config.Vr};
    parity_shape shape;
    int32_t *mask = NULL;
    float *t = NULL;
    gidd_schedule schedule;
    const char *suffix = NULL;
    GIDD_TRY(network_open(p, net, GIDD_MODEL_TRAIN, p->config.B, rows)); // all dlogits at once
    GIDD_TRY(make_params(p, net));
    GIDD_TRY(parity_need_i32(p, "/inputs/input_ids", rows, &at.x));
    GIDD_TRY(parity_need_i32(p, "/inputs/z_t", rows, &at.z));
    GIDD_TRY(parity_need_i32(p, "/inputs/attention_mask", rows, &mask));
    GIDD_TRY(parity_need_f32(p, "/inputs/t", p->config.B, &t));
    GIDD_TRY(parity_read_i32(p, "/forward/columns", &shape, &at.ids));
    at.count = shape.count;
    GIDD_TRY(network_case(p, group_of_case, &schedule, &net->model->loss, &suffix));
    GIDD_TRY(network_forward(
        net, &(network_inputs){.x = at.x, .z = at.z, .mask = mask, .t = t, .schedule = &schedule}));
    float *logits = parity_alloc(p, (size_t)(rows * at.Vr) * sizeof(*logits));
    GIDD_TRY(check_logits(p, net, &at, logits));
    GIDD_TRY(gidd_model_head(
        net->model, &(gidd_head_args){.mode = GIDD_LOSS_TRAIN, .scale = 1.0f / (float)rows}));
    GIDD_TRY(check_dlogits(p, net, &at, logits));
    GIDD_TRY(network_check_loss(p, net, parity_path(p, "/loss/%s", group_of_case)));
    GIDD_TRY(gidd_model_backward(net->model, &(gidd_backward_args){0}));
    return check_gradients(p, net);
}

gidd_status parity_section_small1(parity *p)
{
    network net = {0};
    gidd_status status = small1(p, &net);
    network_close(&net);
    return status;
}
