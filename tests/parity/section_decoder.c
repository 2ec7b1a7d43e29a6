/* SPDX-License-Identifier: Apache-2.0
 *
 * The autoregressive network against an independent float64 implementation (tests/golden/decoder_vectors.py):
 * logits, losses, gradients of every tensor, and a greedy continuation through the cache of keys.
 */
#include "parity/network.h"

#include "model/ancestral.h"

#include <string.h>

typedef struct decoder_data {
    int32_t *ids, *mask;
    int64_t rows;
    gidd_schedule schedule;
    network_inputs inputs;
} decoder_data;

static gidd_status read_data(parity *p, decoder_data *data)
{
    const int64_t B = p->config.B, T = p->config.T;
    *data = (decoder_data){.rows = B * T};
    GIDD_TRY(parity_need_i32(p, "/decoder/input_ids", B * T, &data->ids));
    GIDD_TRY(parity_need_i32(p, "/decoder/attention_mask", B * T, &data->mask));
    for (int64_t b = 0; b < B; b++) {
        data->mask[b * T + T - 1] = 0; // as in a batch record: nothing follows the last position
    }
    GIDD_TRY(parity_schedule(p, GIDD_PROCESS_NONE, 0.0, GIDD_WEIGHTING_NONE, &data->schedule));
    data->inputs = (network_inputs){.x = data->ids,
                                    .z = data->ids,
                                    .mask = data->mask,
                                    .t = parity_alloc(p, (size_t)B * sizeof(float)),
                                    .schedule = &data->schedule};
    return GIDD_OK;
}

static gidd_status check_logits(parity *p, network *net)
{
    const int64_t rows = p->config.B * p->config.T, V = p->config.V, Vr = p->config.Vr;
    float *want = NULL, *got = parity_alloc(p, (size_t)(rows * Vr) * sizeof(*got));
    GIDD_TRY(parity_need_f32(p, "/decoder/logits", rows * Vr, &want));
    GIDD_TRY(network_logits(p, net, got));
    for (int64_t i = 0; i < rows * Vr; i++) { // columns behind V count nowhere
        got[i] = i % Vr < V ? got[i] : want[i];
    }
    network_check(p, got, want, rows * Vr, 2e-5, "/decoder/logits");
    return GIDD_OK;
}

static gidd_status check_losses(parity *p, network *net, const decoder_data *data, int64_t predictions)
{
    const size_t bytes = (size_t)data->rows * sizeof(gidd_loss_row);
    gidd_loss_row *terms = parity_alloc(p, bytes);
    float *want = NULL, *got = parity_alloc(p, (size_t)data->rows * sizeof(*got));
    double *loss = NULL;
    gidd_loss_sums sums;
    GIDD_TRY(parity_need_f32(p, "/decoder/nll", data->rows, &want));
    GIDD_TRY(parity_need_f64(p, "/decoder/loss", 1, &loss));
    GIDD_TRY(parity_get(p, terms, net->model->terms, bytes));
    GIDD_TRY(gidd_model_read_sums(net->model, &sums));
    for (int64_t i = 0; i < data->rows; i++) {
        got[i] = terms[i].is;
    }
    parity_check(p, parity_max_rel(got, want, data->rows), parity_tolerance(p, 1e-5, BF16_POSITION_LOSS),
                 "/decoder/nll");
    const float mean[2] = {(float)(sums.elbo / sums.tokens), (float)(sums.loss / sums.tokens)};
    const float wanted[2] = {(float)*loss, (float)*loss};
    parity_check(p, parity_max_rel(mean, wanted, 2), parity_tolerance(p, 1e-6, BF16_MEAN_LOSS), "/decoder/loss");
    parity_check(p, sums.tokens - (double)predictions, 0.0, "/decoder/predictions");
    return GIDD_OK;
}

static gidd_status check_gradients(parity *p, network *net)
{
    const size_t bytes = (size_t)net->params.memory_count * sizeof(float);
    float *grads = parity_alloc(p, bytes);
    GIDD_TRY(parity_get(p, grads, net->model->grads, bytes));
    for (int64_t i = 0; i < net->params.tensor_count; i++) {
        const gidd_tensor *tensor = &net->params.tensors[i];
        const char *path = parity_path(p, "/decoder/grads/%s", tensor->name);
        float *want = NULL;
        GIDD_TRY(parity_need_f32(p, path, tensor->count, &want));
        parity_check(p, parity_rel_l2(grads + tensor->at, want, tensor->count),
                     parity_tolerance(p, 2e-5, BF16_GRADIENTS), "%s", path);
    }
    return GIDD_OK;
}

static gidd_status train(parity *p, network *net, const decoder_data *data)
{
    int64_t *predictions = NULL;
    GIDD_TRY(network_open_with(p, net, GIDD_MODEL_TRAIN, GIDD_LOSS_NEXT, p->config.B, 0));
    GIDD_TRY(network_read_params_of(p, net, "/decoder/params"));
    GIDD_TRY(parity_read_i64(p, "/decoder/predictions", NULL, &predictions));
    GIDD_TRY(network_forward(net, &data->inputs));
    GIDD_TRY(check_logits(p, net));
    GIDD_TRY(gidd_model_zero_sums(net->model));
    GIDD_TRY(network_forward(net, &data->inputs));
    GIDD_TRY(gidd_model_head(
        net->model, &(gidd_head_args){.mode = GIDD_LOSS_TRAIN, .scale = 1.0f / (float)predictions[0]}));
    GIDD_TRY(check_losses(p, net, data, predictions[0]));
    GIDD_TRY(gidd_model_backward(net->model, &(gidd_backward_args){0}));
    return check_gradients(p, net);
}

/* At a low temperature a draw is the most probable token. */
static gidd_status continue_greedily(parity *p, network *net, const decoder_data *data)
{
    enum { PREFIX = 4 };
    const int64_t T = p->config.T;
    int32_t *want = NULL, *got = parity_alloc(p, (size_t)data->rows * sizeof(*got));
    int32_t *given = parity_alloc(p, (size_t)data->rows * sizeof(*given));
    gidd_ancestral *sampler = NULL;
    GIDD_TRY(parity_need_i32(p, "/decoder/greedy", data->rows, &want));
    GIDD_TRY(network_open_with(p, net, GIDD_MODEL_INFER, GIDD_LOSS_NEXT, p->config.B, 37));
    GIDD_TRY(network_read_params_of(p, net, "/decoder/params"));
    for (int64_t i = 0; i < data->rows; i++) {
        given[i] = i % T < PREFIX ? data->ids[i] : -1;
    }
    GIDD_TRY(gidd_ancestral_create(
        &(gidd_ancestral_args){.model = net->model, .T = T, .temperature = 1e-4, .seed = 1}, &sampler));
    gidd_status status = gidd_ancestral_generate(sampler, 0, p->config.B, given, got, NULL);
    gidd_ancestral_destroy(sampler);
    GIDD_TRY(status);
    for (int64_t i = 0; i < data->rows; i++) { // the reference goes on behind EOS
        int behind = i % T > 0 && (got[i] == p->config.pad);
        got[i] = behind ? want[i] : got[i];
    }
    parity_check(p, parity_mismatches(got, want, data->rows), 0.0, "/decoder/greedy");
    return GIDD_OK;
}

gidd_status parity_section_decoder(parity *p)
{
    network net = {0};
    decoder_data data;
    GIDD_TRY(read_data(p, &data));
    gidd_status status = train(p, &net, &data);
    network_close(&net);
    if (status != GIDD_OK || p->precision != GIDD_F32) { // bf16 decides near-ties its own way
        return status;
    }
    status = continue_greedily(p, &net, &data);
    network_close(&net);
    return status;
}
