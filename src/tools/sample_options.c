/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/sample_options.h"

#include <stdlib.h>

enum {
    OPTION_TOKENIZER = 256,
    OPTION_OUTPUT,
    OPTION_NUM,
    OPTION_STEPS,
    OPTION_BATCH,
    OPTION_SEED,
    OPTION_MIN_P,
    OPTION_TEMPERATURE,
    OPTION_INFILL,
    OPTION_INFILL_FILE,
    OPTION_GIVEN,
    OPTION_SELF_CORRECT,
    OPTION_CORRECT_FILE,
    OPTION_CORRECT_TIME,
    OPTION_CORRECT_TEMPERATURE,
    OPTION_CORRECT_TOKENS,
    OPTION_CORRECT_STEPS,
    OPTION_CORRECT_PATIENCE,
    OPTION_JSON,
    OPTION_DIFF,
    OPTION_WATCH,
    OPTION_COLOUR,
};

static const struct argp_option options[] = {
    {"tokenizer", OPTION_TOKENIZER, "DIR", 0, "folder of vocab.bpe and encoder.json (default: data.tokenizer)", 0},
    {"batch", OPTION_BATCH, "N", 0, "samples at once on a rank (default 4)", 0},

    {NULL, 0, NULL, 0, "Sampling:", 1},
    {"num", OPTION_NUM, "N", 0, "samples (default 4)", 1},
    {"steps", OPTION_STEPS, "N", 0, "denoising steps, at least 2 (default 128)", 1},
    {"seed", OPTION_SEED, "N", 0, "seed of the samples (default 1)", 1},
    {"min-p", OPTION_MIN_P, "P", 0, "drop probabilities below P (default 0)", 1},
    {"temperature", OPTION_TEMPERATURE, "X", 0, "divide logits by X (default 1)", 1},
    {"infill", OPTION_INFILL, "TEXT", 0,
     "keep TEXT and fill in its holes and what follows it: [MASK] is a hole of one token, [MASK:12] of twelve (tokens begin with "
     "their space, so write \"beginning[MASK:5] the\"), "
     "<|endoftext|> the mark that starts and ends a document",
     1},
    {"infill-file", OPTION_INFILL_FILE, "FILE", 0, "the same with a text from FILE, without its last line feed", 1},
    {"given", OPTION_GIVEN, "FILE", 0,
     "keep the tokens that FILE lists, [{\"position\": 0, \"ids\": [464]}, {\"position\": 9, \"text\": \" and\"}], and fill in the rest",
     1},

    {NULL, 0, NULL, 0, "Self-correction:", 2},
    {"self-correct", OPTION_SELF_CORRECT, NULL, 0, "improve the samples by self-correction afterwards", 2},
    {"correct", OPTION_CORRECT_FILE, "FILE", 0, "draw no samples: self-correct those of FILE, as --json wrote them", 2},
    {"correct-temperature", OPTION_CORRECT_TEMPERATURE, "X", 0, "of the proposals (default 0.1)", 2},
    {"correct-tokens", OPTION_CORRECT_TOKENS, "N", 0, "tokens exchanged in a step (default 1)", 2},
    {"correct-steps", OPTION_CORRECT_STEPS, "N", 0, "at most so many steps (default 128)", 2},
    {"correct-patience", OPTION_CORRECT_PATIENCE, "N", 0,
     "stop after more than N steps without a new best self-accuracy (default 32)", 2},
    {"correct-time", OPTION_CORRECT_TIME, "T", 0, "noise level that the network is told (default 0.01)", 2},

    {NULL, 0, NULL, 0, "Output:", 3},
    {"output", OPTION_OUTPUT, "FILE", 0, "write here instead of the standard output", 3},
    {"json", OPTION_JSON, NULL, 0,
     "one JSON object a sample: ids, text, mean entropy of the predictions in each step, results of self-correction", 3},
    {"diff", OPTION_DIFF, NULL, 0, "after self-correction show what changed: [-before-]{+after+}", 3},
    {"watch", OPTION_WATCH, NULL, 0, "show how a sample of each batch comes about, on standard error", 3},
    {"color", OPTION_COLOUR, NULL, 0, "colours also where the output is no terminal", 3},
    {0},
};

static double parse_real(const char *word, double lowest, double highest, struct argp_state *state)
{
    char  *end = NULL;
    double value = strtod(word, &end);
    if (end == word || *end != '\0' || !(value >= lowest && value <= highest)) {
        argp_error(state, "expected a number from %g to %g, found '%s'", lowest, highest, word);
    }
    return value;
}

static void check_together(const sample_options *o, struct argp_state *state)
{
    const int templates = (o->infill != NULL) + (o->infill_file != NULL) + (o->given != NULL);
    if (templates > 1) {
        argp_error(state, "only one of --infill, --infill-file and --given can be taken");
    } else if (templates > 0 && o->correct_file != NULL) {
        argp_error(state, "--correct takes what is given from its file, not from an option");
    } else if (o->diff && o->json) {
        argp_error(state, "--json holds the ids before and after; --diff is for people");
    } else if (o->diff && !o->self_correct && o->correct_file == NULL) {
        argp_error(state, "--diff shows what self-correction changed; add --self-correct or --correct FILE");
    }
}

static error_t parse_path(int key, char *word, sample_options *o)
{
    switch (key) {
    case OPTION_TOKENIZER:
        o->tokenizer = word;
        return 0;
    case OPTION_OUTPUT:
        o->output = word;
        return 0;
    case OPTION_INFILL:
        o->infill = word;
        return 0;
    case OPTION_INFILL_FILE:
        o->infill_file = word;
        return 0;
    case OPTION_GIVEN:
        o->given = word;
        return 0;
    case OPTION_CORRECT_FILE:
        o->correct_file = word;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_number(int key, char *word, struct argp_state *state, sample_options *o)
{
    switch (key) {
    case OPTION_NUM:
        o->num = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_STEPS:
        o->steps = gidd_cli_count(state, word, 2);
        return 0;
    case OPTION_BATCH:
        o->batch = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_SEED:
        o->seed = gidd_cli_count(state, word, 0);
        return 0;
    case OPTION_MIN_P:
        o->min_p = parse_real(word, 0, 0.999, state);
        return 0;
    case OPTION_TEMPERATURE:
        o->temperature = parse_real(word, 1e-3, 1e3, state);
        return 0;
    case OPTION_CORRECT_TIME:
        o->correct.t = parse_real(word, 1e-9, 1 - 1e-9, state);
        return 0;
    case OPTION_CORRECT_TEMPERATURE:
        o->correct.temperature = parse_real(word, 1e-3, 1e3, state);
        return 0;
    case OPTION_CORRECT_TOKENS:
        o->correct.tokens_per_step = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_CORRECT_STEPS:
        o->correct.max_steps = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_CORRECT_PATIENCE:
        o->correct.max_patience = gidd_cli_count(state, word, 0);
        return 0;
    default:
        return parse_path(key, word, o);
    }
}

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    sample_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->model;
        return 0;
    case ARGP_KEY_END:
        check_together(o, state);
        return 0;
    case OPTION_SELF_CORRECT:
        o->self_correct = 1;
        return 0;
    case OPTION_JSON:
        o->json = 1;
        return 0;
    case OPTION_DIFF:
        o->diff = 1;
        return 0;
    case OPTION_WATCH:
        o->watch = 1;
        return 0;
    case OPTION_COLOUR:
        o->colour = 1;
        return 0;
    default:
        return parse_number(key, word, state, o);
    }
}

void sample_options_parse(int argc, char **argv, sample_options *o)
{
    static const struct argp_child children[] = {{&gidd_model_argp, 0, NULL, 4}, {0}};
    static const struct argp       argp = {options, parse_option, NULL,
                                           "Draws samples from a model, alone or under mpirun. Same seed, same samples, whatever the "
                                           "number of ranks or the batch size.",
                                           children, NULL, NULL};
    *o = (sample_options){
        .num = 4,
        .steps = 128,
        .batch = 4,
        .seed = 1,
        .temperature = 1,
        .correct = {.t = 0.01, .temperature = 0.1, .tokens_per_step = 1, .max_steps = 128, .max_patience = 32},
    };
    gidd_cli_parse(&argp, argc, argv, 0, o);
}
