/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-eval: the ELBO of the validation split, or of a file of samples, under a model, over all ranks; or the
 * perplexity of samples under a GPT-2 (--judge).
 */
#include "diffusion/time.h"
#include "io/data_set.h"
#include "tools/eval_judge.h"
#include "tools/eval_report.h"
#include "tools/model_options.h"
#include "tools/tool.h"
#include "worker/estimate.h"
#include "worker/samples.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct eval_options {
    gidd_model_options model;
    const char        *samples, *judge, *tokenizer;
    int64_t            batch, documents, draws;
    int                json;
} eval_options;

typedef struct eval_work {
    const eval_options  *options;
    gidd_inference       inference;
    gidd_data_set       *data;
    gidd_loader         *loader;
    gidd_samples         samples;
    gidd_estimate_source source;
    int64_t             *histogram;
    const char          *doing; /* for the progress line */
} eval_work;

enum { OPTION_BATCH = 256, OPTION_DOCUMENTS, OPTION_DRAWS, OPTION_SAMPLES, OPTION_JSON, OPTION_JUDGE, OPTION_TOKENIZER };

static const struct argp_option options[] = {
    {"batch", OPTION_BATCH, "N", 0, "sequences at once (default 8)", 0},
    {"documents", OPTION_DOCUMENTS, "N", 0, "the first N validation documents, or samples, only (default: all)", 0},
    {"draws", OPTION_DRAWS, "N", 0, "noise draws of each, at stratified times (default 8)", 0},
    {"samples", OPTION_SAMPLES, "FILE", 0, "score the samples of FILE, as gidd-sample --json wrote them, not the validation split", 0},
    {"json", OPTION_JSON, NULL, 0, "print one JSON object", 0},
    {"judge", OPTION_JUDGE, "FILE", 0,
     "in place of a model: perplexity of the texts of --samples under this GPT-2, a safetensors file with config.json beside it", 0},
    {"tokenizer", OPTION_TOKENIZER, "DIR", 0, "for --judge: folder of vocab.bpe and encoder.json (default: data.tokenizer)", 0},
    {0},
};

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    eval_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->model;
        return 0;
    case OPTION_BATCH:
        o->batch = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_DOCUMENTS:
        o->documents = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_DRAWS:
        o->draws = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_SAMPLES:
        o->samples = word;
        return 0;
    case OPTION_JSON:
        o->json = 1;
        return 0;
    case OPTION_JUDGE:
        o->judge = word;
        o->model.optional = 1;
        return 0;
    case OPTION_TOKENIZER:
        o->tokenizer = word;
        return 0;
    case ARGP_KEY_END:
        if (o->judge != NULL && (o->samples == NULL || o->model.path != NULL)) {
            argp_error(state, "--judge needs --samples, and takes the place of --checkpoint and --model");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- what is scored ---------------------------------------------------------------------------------------- */

static gidd_status build_documents(void *context, int64_t first, int64_t count, gidd_batch *batch)
{
    const eval_work *work = context;
    return gidd_loader_build_eval(work->loader, first, count, 0, batch);
}

static gidd_status open_documents(eval_work *work)
{
    const gidd_config *config = &work->inference.config;
    GIDD_TRY(gidd_data_set_open(config->data.dir, config->data.mix, &work->data));
    const gidd_data_info *info = gidd_data_set_info(work->data);
    GIDD_TRY(gidd_inference_check_tokenizer(&work->inference, config->data.dir, info->tokenizer_digest, info->vocab_size));
    GIDD_TRY(gidd_loader_open(&(gidd_loader_args){.mix = gidd_data_set_parts(work->data),
                                                  .mix_count = info->source_count,
                                                  .schedule = &work->inference.schedule,
                                                  .vocab = work->inference.vocab,
                                                  .seed = (uint64_t)config->run.seed,
                                                  .eval_seed = (uint64_t)config->eval.seed,
                                                  .global_batch = 1,
                                                  .T = config->model.context,
                                                  .max_add_padding = config->data.max_add_padding,
                                                  .window = (gidd_window_mode)config->data.window},
                              &work->loader));
    work->source = (gidd_estimate_source){work, gidd_loader_valid_examples(work->loader), build_documents};
    return GIDD_OK;
}

static int is_autoregressive(const eval_work *work)
{
    return work->inference.config.model.type == GIDD_CONFIG_AUTOREGRESSIVE;
}

// PAD is no real token, nor is a mask that sampling has left: both are in the window and not in the score.
static gidd_status build_samples(void *context, int64_t first, int64_t count, gidd_batch *batch)
{
    const eval_work  *work = context;
    const gidd_vocab *vocab = &work->inference.vocab;
    const int64_t     T = batch->T, N = work->samples.num;
    const uint64_t    seed = (uint64_t)work->inference.config.eval.seed;
    const double      offset = gidd_time_eval_offset(seed, 0);
    for (int64_t b = 0; b < count; b++) {
        for (int64_t p = b * T; p < (b + 1) * T; p++) {
            const int32_t id = work->samples.ids[first * T + p];
            batch->x[p] = id;
            batch->attention_mask[p] = id != vocab->mask && (id != vocab->pad || vocab->pad == vocab->eos);
        }
        const float t = gidd_time_on_grid(gidd_time_rank(first + b, N), N, offset, work->inference.schedule.args.t_eps);
        gidd_estimate_noise(&work->inference.schedule, seed, GIDD_STREAM_EVAL_NOISE, (uint64_t)(first + b), t, batch, b);
    }
    for (int64_t b = 0; is_autoregressive(work) && b < count; b++) {
        batch->attention_mask[(b + 1) * T - 1] = 0; // nothing follows it
    }
    gidd_batch_index(batch, vocab->V, batch->rows);
    return GIDD_OK;
}

static gidd_status open_work(eval_work *work, const gidd_comm_set *comms)
{
    const eval_options *o = work->options;
    GIDD_TRY(gidd_model_options_open(&o->model, comms, o->batch, &work->inference));
    if (o->samples != NULL) {
        GIDD_TRY(gidd_samples_read(o->samples, &work->inference.vocab, work->inference.config.model.context, &work->samples));
        work->source = (gidd_estimate_source){work, work->samples.num, build_samples};
    } else {
        GIDD_TRY(open_documents(work));
    }
    if (o->documents > 0 && o->documents < work->source.rows) {
        work->source.rows = o->documents;
    }
    work->histogram = calloc((size_t)work->inference.vocab.V, sizeof *work->histogram);
    return work->histogram != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory to count tokens");
}

/* ---- scoring ----------------------------------------------------------------------------------------------- */

static void show_progress(void *context, int64_t done, int64_t count)
{
    const eval_work *work = context;
    if (isatty(STDERR_FILENO)) {
        (void)fprintf(stderr, "\r\033[K%s: %" PRId64 " of %" PRId64 " sequences of this rank%s", work->doing, done, count,
                      done == count ? "\n" : "");
    }
}

static gidd_status estimate(eval_work *work, gidd_comm_set *comms, int64_t draws, gidd_estimate_sums *sums)
{
    const int is_root = gidd_comm_rank(comms->world) == 0;
    work->doing = is_autoregressive(work) ? "likelihood" : draws > 0 ? "stratified estimate" : "one draw each";
    return gidd_estimate(&(gidd_estimate_args){.comm = comms->world,
                                               .model = work->inference.model,
                                               .schedule = &work->inference.schedule,
                                               .source = work->source,
                                               .T = work->inference.config.model.context,
                                               .draws = draws,
                                               .seed = (uint64_t)work->inference.config.eval.seed,
                                               .histogram = draws > 0 || is_autoregressive(work) ? work->histogram : NULL,
                                               .progress = is_root ? show_progress : NULL,
                                               .context = work},
                         sums);
}

static gidd_status evaluate(eval_work *work, gidd_comm_set *comms)
{
    gidd_estimate_sums stratified, one_draw;
    GIDD_TRY(gidd_comm_agree(comms->world, open_work(work, comms)));
    const int64_t V = work->inference.vocab.V;
    const int     is_exact = is_autoregressive(work); // there is no noise to draw
    if (!is_exact) {
        GIDD_TRY(estimate(work, comms, work->options->draws, &stratified));
    }
    GIDD_TRY(estimate(work, comms, 0, &one_draw));
    GIDD_TRY(gidd_comm_allreduce_int64(comms->world, work->histogram, V, GIDD_COMM_SUM));
    if (gidd_comm_rank(comms->world) != 0) {
        return GIDD_OK;
    }
    const eval_report report = {.model = work->inference.path,
                                .step = work->inference.step,
                                .texts = work->options->samples != NULL ? "samples" : "documents",
                                .draws = work->options->draws,
                                .stratified = is_exact ? NULL : &stratified,
                                .one_draw = &one_draw,
                                .unigram_entropy = eval_unigram_entropy(work->histogram, V)};
    if (work->options->json) {
        return eval_report_print_json(stdout, &report);
    }
    eval_report_print(stdout, &report);
    return GIDD_OK;
}

static gidd_status run_eval(void *context, gidd_comm_set *comms)
{
    const eval_options *o = context;
    if (o->judge != NULL) {
        return gidd_eval_judge(&(gidd_eval_judge_options){o->judge, o->samples, o->tokenizer, o->batch, o->json}, &o->model.cli,
                               comms);
    }
    eval_work *work = calloc(1, sizeof *work);
    if (work == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory");
    }
    work->options = context;
    gidd_status status = evaluate(work, comms);
    gidd_loader_close(work->loader);
    gidd_data_set_close(work->data);
    gidd_samples_release(&work->samples);
    gidd_inference_close(&work->inference);
    free(work->histogram);
    free(work);
    return status;
}

int main(int argc, char **argv)
{
    static const struct argp_child children[] = {{&gidd_model_argp, 0, NULL, 0}, {0}};
    static const struct argp       argp = {options, parse_option, NULL,
                                           "Evaluates a model on the validation split, or on samples, alone or under mpirun. The ELBO is an "
                                           "upper bound on the negative log likelihood in nats per real token, and its exponential a "
                                           "bound on perplexity (of an autoregressive model both are exact); neither depends on the number of ranks or the batch size.",
                                           children, NULL, NULL};
    eval_options o = {.batch = 8, .draws = 8};
    gidd_cli_parse(&argp, argc, argv, 0, &o);
    return gidd_tool_run(&argc, &argv, run_eval, &o);
}
