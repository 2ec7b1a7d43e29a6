/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/model_options.h"

enum { OPTION_CHECKPOINT = 1024, OPTION_MODEL, OPTION_EMA };

static const struct argp_option options[] = {
    {"checkpoint", OPTION_CHECKPOINT, "DIR", 0, "run directory (its newest checkpoint) or step directory", 0},
    {"ema", OPTION_EMA, NULL, 0, "use the checkpoint's running average (see optimizer.ema_decay)", 0},
    {"model", OPTION_MODEL, "PATH", 0, "published model: a .safetensors file with config.json beside it, or their folder", 0},
    {0},
};

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    gidd_model_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->cli;
        return 0;
    case OPTION_CHECKPOINT:
    case OPTION_MODEL:
        if (o->path != NULL) {
            argp_error(state, "one of --checkpoint and --model, once");
        }
        o->path = word;
        return 0;
    case OPTION_EMA:
        o->weights = GIDD_MODEL_AVERAGE;
        return 0;
    case ARGP_KEY_END:
        if (o->path == NULL && !o->optional) {
            argp_error(state, "--checkpoint or --model is missing");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&gidd_cli_argp, 0, NULL, 0}, {0}};
const struct argp gidd_model_argp = {options, parse_option, NULL, NULL, children, NULL, NULL};

gidd_status gidd_model_options_open(const gidd_model_options *chosen, const gidd_comm_set *comms, int64_t max_B,
                                    gidd_inference *inference)
{
    return gidd_inference_open(inference, &(gidd_inference_args){.model = chosen->path,
                                                                 .weights = chosen->weights,
                                                                 .cli = &chosen->cli,
                                                                 .max_B = max_B,
                                                                 .node_rank = comms->node_rank,
                                                                 .node_size = comms->node_size});
}
