/* SPDX-License-Identifier: Apache-2.0
 *
 * A model with a file's parameters, and its batches: what the sections that need the network share.
 * Everything here is Local.
 */
#ifndef GIDD_TESTS_PARITY_NETWORK_H
#define GIDD_TESTS_PARITY_NETWORK_H

#include "model/model.h"
#include "parity/parity.h"

typedef struct network {
    gidd_params params;
    gidd_model *model;
    gidd_batch  batch; /* on the host */
    int32_t    *scratch;
} network;

/* A model of the file's shape, of the type that `loss` belongs to, whose parameters are `values` [params->memory_count] once the caller has set
 * them; B sequences of T tokens. Close it whatever happened. */
gidd_status network_open_with(parity *p, network *net, gidd_model_mode mode, gidd_loss_kind loss, int64_t B,
                              int64_t head_rows);
/* The diffusion model. */
gidd_status network_open(parity *p, network *net, gidd_model_mode mode, int64_t B,
                         int64_t head_rows);
void        network_close(network *net);

/* The parameters under /params, or under another group. */
gidd_status network_read_params(parity *p, network *net);
gidd_status network_read_params_of(parity *p, network *net, const char *group);

/* x and mask may be NULL where only the trunk runs. */
typedef struct network_inputs {
    const int32_t       *x, *z, *mask; /* [B][T] */
    const float         *t;            /* [B]    */
    const gidd_schedule *schedule;
} network_inputs;

/* Loads a batch and runs the trunk. */
gidd_status network_forward(network *net, const network_inputs *inputs);

/* All logits of the loaded batch after its forward, [B*T][Vr]. */
gidd_status network_logits(parity *p, network *net, float *logits);

/* "gidd_pu0.1_dynamic", "mdlm": the schedule, the loss, and the suffix of the case's inputs. */
gidd_status network_case(parity *p, const char *name, gidd_schedule *schedule,
                         gidd_loss_kind *loss_p, const char **suffix_p);

/* bf16's tolerances. Between tokens and logits a value is rounded some 100 times (12 blocks of 8 stored
 * results), each time by at most 2^-9 of itself and with a random sign: 2^-9 sqrt(100) = 2 % of the norm of
 * what is compared. Gradients go that way twice. A position's loss has the error of its logits (2 % of about
 * 3); means over positions lose most of theirs. After n updates of size lr a parameter is at most n lr off,
 * where a gradient's sign is in doubt, and far less in the mean. */
#define BF16_ACTIVATIONS 3e-2   /* relative L2 */
#define BF16_GRADIENTS 4e-2     /* relative L2 */
#define BF16_POSITION_LOSS 1e-1 /* over 1 + |x| */
#define BF16_MEAN_LOSS 1e-2
#define BF16_PARAMETERS 5e-3
#define BF16_PARAMETERS_RMS 2e-4

/* One comparison of activations: in fp32 the largest difference, in bf16 its relative L2 norm. */
void network_check(parity *p, const float *got, const float *want, int64_t count, double tolerance,
                   const char *name);

/* The losses of the batch after its head, against the datasets of `group`: scalars, metrics and arrays. */
gidd_status network_check_loss(parity *p, network *net, const char *group);

#endif
