/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-eval: the validation ELBO of a checkpoint over the whole split, over all ranks.
 */
#include "io/data_set.h"
#include "tools/model_options.h"
#include "tools/tool.h"
#include "worker/evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct eval_options {
    gidd_model_options model;
    int64_t            batch, documents, draws;
    int                json;
} eval_options;

typedef struct eval_work {
    const eval_options *options;
    gidd_inference      inference;
    gidd_data_set      *data;
    gidd_loader        *loader;
    gidd_batch          batch;
    int64_t            *histogram;
    int64_t             examples, draws;
} eval_work;

enum { OPTION_BATCH = 256, OPTION_DOCUMENTS, OPTION_DRAWS, OPTION_JSON };

static const struct argp_option options[] = {
    {"batch", OPTION_BATCH, "N", 0, "sequences at once (default 8)", 0},
    {"documents", OPTION_DOCUMENTS, "N", 0, "the first N validation documents only (default: all)", 0},
    {"draws", OPTION_DRAWS, "N", 0, "noise draws of each document (default: eval.draws)", 0},
    {"json", OPTION_JSON, NULL, 0, "print one JSON object", 0},
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
    case OPTION_JSON:
        o->json = 1;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static gidd_status open_data(eval_work *work)
{
    const gidd_config *config = &work->inference.config;
    int64_t            B = work->options->batch, T = config->model.context;
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
                                                  .T = T,
                                                  .max_add_padding = config->data.max_add_padding,
                                                  .window = (gidd_window_mode)config->data.window},
                              &work->loader));
    void *memory = aligned_alloc(64, (gidd_batch_bytes(B, T) + 63) / 64 * 64);
    work->histogram = calloc((size_t)work->inference.vocab.V, sizeof *work->histogram);
    if (memory == NULL || work->histogram == NULL) {
        free(memory);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for an evaluation batch of %" PRId64 " sequences", B);
    }
    gidd_batch_layout(&work->batch, B, T, memory);
    work->examples = gidd_loader_valid_examples(work->loader);
    if (work->options->documents > 0 && work->options->documents < work->examples) {
        work->examples = work->options->documents;
    }
    work->draws = work->options->draws > 0 ? work->options->draws : config->eval.draws;
    return GIDD_OK;
}

static void show_progress(void *context, int64_t done, int64_t count)
{
    (void)context;
    if (isatty(STDERR_FILENO)) {
        (void)fprintf(stderr, "\r\033[Kevaluating: %" PRId64 " of %" PRId64 " windows of this rank%s", done, count,
                      done == count ? "\n" : "");
    }
}

// Sums of all ranks, in rank order, so that they do not depend on how the messages travel.
static gidd_status add_ranks(gidd_comm *comm, gidd_loss_sums *sums)
{
    int             size = gidd_comm_size(comm);
    gidd_loss_sums *all = calloc((size_t)size, sizeof *all);
    gidd_status     local = all != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for %d ranks' sums", size);
    local = gidd_comm_agree(comm, local);
    if (local == GIDD_OK) {
        local = gidd_comm_allgather(comm, sums, sizeof *sums, all);
    }
    if (local == GIDD_OK) {
        *sums = all[0];
        for (int rank = 1; rank < size; rank++) {
            gidd_loss_sums_add(sums, &all[rank]);
        }
    }
    free(all);
    return local;
}

// Entropy of the distribution of single tokens in the very windows that were scored, in nats.
static double unigram_entropy(const int64_t *histogram, int64_t V)
{
    double total = 0, entropy = 0;
    for (int64_t id = 0; id < V; id++) {
        total += (double)histogram[id];
    }
    for (int64_t id = 0; id < V; id++) {
        if (histogram[id] > 0) {
            double p = (double)histogram[id] / total;
            entropy -= p * log(p);
        }
    }
    return entropy;
}

static void print_result(const eval_work *work, const gidd_loss_sums *sums)
{
    double elbo = sums->elbo / sums->tokens, loss = sums->loss / sums->positions;
    double entropy = unigram_entropy(work->histogram, work->inference.vocab.V);
    double clean_loss = sums->clean_loss / sums->loss, clean_elbo = sums->clean_elbo / sums->elbo;
    if (work->options->json) {
        printf("{\"checkpoint\":\"%s\",\"step\":%" PRId64 ",\"documents\":%" PRId64 ",\"draws\":%" PRId64
               ",\"tokens\":%.0f,\"elbo\":%.9g,\"ppl\":%.9g,\"loss\":%.9g,\"unigram_entropy\":%.9g,\"clean_loss_share\":%.9g,"
               "\"clean_elbo_share\":%.9g,\"min_log_px\":%.9g}\n",
               work->inference.path, work->inference.step, work->examples, work->draws, sums->tokens, elbo, exp(elbo), loss,
               entropy, clean_loss, clean_elbo, isfinite(sums->min_log_px) ? sums->min_log_px : 0);
        return;
    }
    printf("checkpoint        %s (step %" PRId64 ")\n", work->inference.path, work->inference.step);
    printf("validation        %" PRId64 " documents, %" PRId64 " draw%s each, %.0f real tokens scored\n", work->examples,
           work->draws, work->draws == 1 ? "" : "s", sums->tokens);
    printf("elbo              %.4f nats per token: perplexity at most %.2f\n", elbo, exp(elbo));
    printf("unigram entropy   %.4f nats per token of the same tokens: %s\n", entropy,
           elbo < entropy ? "the model is better" : "the model is not better yet");
    printf("loss              %.5f (weighted, as trained)\n", loss);
    printf("clean rows        %.3g of the loss, %.3g of the elbo; smallest probability of a clean token %.3g\n", clean_loss,
           clean_elbo, exp(sums->min_log_px));
}

static gidd_status evaluate_split(eval_work *work, gidd_comm_set *comms)
{
    gidd_loss_sums sums;
    int            rank = gidd_comm_rank(comms->world);
    gidd_status    local = gidd_model_options_open(&work->options->model, comms, work->options->batch, &work->inference);
    if (local == GIDD_OK) {
        local = open_data(work);
    }
    GIDD_TRY(gidd_comm_agree(comms->world, local));
    local = gidd_evaluate(&(gidd_evaluate_args){.model = work->inference.model,
                                                .loader = work->loader,
                                                .batch = &work->batch,
                                                .examples = work->examples,
                                                .draws = work->draws,
                                                .rank = rank,
                                                .ranks = gidd_comm_size(comms->world),
                                                .histogram = work->histogram,
                                                .progress = rank == 0 ? show_progress : NULL},
                          &sums);
    GIDD_TRY(gidd_comm_agree(comms->world, local));
    GIDD_TRY(add_ranks(comms->world, &sums));
    GIDD_TRY(gidd_comm_allreduce_int64(comms->world, work->histogram, work->inference.vocab.V, GIDD_COMM_SUM));
    if (rank == 0) {
        print_result(work, &sums);
    }
    return GIDD_OK;
}

static gidd_status run_eval(void *context, gidd_comm_set *comms)
{
    eval_work *work = calloc(1, sizeof *work);
    if (work == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory");
    }
    work->options = context;
    gidd_status status = evaluate_split(work, comms);
    gidd_loader_close(work->loader);
    gidd_data_set_close(work->data);
    gidd_inference_close(&work->inference);
    free(work->batch.memory);
    free(work->histogram);
    free(work);
    return status;
}

int main(int argc, char **argv)
{
    static const struct argp_child children[] = {{&gidd_model_argp, 0, NULL, 0}, {0}};
    static const struct argp       argp = {options, parse_option, NULL,
                                           "Evaluates a checkpoint on the validation split, alone or under mpirun. The number is an "
                                           "upper bound on the negative log likelihood in nats per real token, and its exponential a "
                                           "bound on perplexity; it does not depend on the number of ranks or the batch size.",
                                           children, NULL, NULL};
    eval_options o = {.batch = 8};
    gidd_cli_init();
    if (argp_parse(&argp, argc, argv, 0, NULL, &o) != 0) {
        return gidd_status_exit_code(GIDD_ERR_USAGE);
    }
    return gidd_tool_run(&argc, &argv, run_eval, &o);
}
