/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-sample: texts out of a trained model, spread over all ranks. What a sample becomes depends on the seed
 * and its number alone, not on the number of ranks or the batch size.
 */
#include "model/sampler.h"
#include "tokenizer/bpe.h"
#include "tools/model_options.h"
#include "tools/tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct sample_options {
    gidd_model_options model;
    const char        *tokenizer, *output;
    int64_t            num, steps, batch, seed;
    double             min_p, temperature;
    int                correct, json;
} sample_options;

typedef struct sample_work {
    const sample_options *options;
    gidd_inference        inference;
    gidd_bpe             *bpe;
    gidd_sampler         *sampler;
    int32_t              *ids;     /* [mine][T] of this rank        */
    int32_t              *all;     /* [num][T] on rank 0            */
    gidd_correct_result  *results; /* [num] on rank 0, [mine] else  */
    int64_t               first, mine, batches, done;
} sample_work;

enum {
    OPTION_TOKENIZER = 256,
    OPTION_OUTPUT,
    OPTION_NUM,
    OPTION_STEPS,
    OPTION_BATCH,
    OPTION_SEED,
    OPTION_MIN_P,
    OPTION_TEMPERATURE,
    OPTION_CORRECT,
    OPTION_JSON,
};

static const struct argp_option options[] = {
    {"num", OPTION_NUM, "N", 0, "samples (default 4)", 0},
    {"steps", OPTION_STEPS, "N", 0, "denoising steps (default 128)", 0},
    {"seed", OPTION_SEED, "N", 0, "seed of the samples (default 1)", 0},
    {"min-p", OPTION_MIN_P, "P", 0, "drop probabilities below P (default 0)", 0},
    {"temperature", OPTION_TEMPERATURE, "X", 0, "divide logits by X (default 1)", 0},
    {"self-correct", OPTION_CORRECT, NULL, 0, "improve the samples by self-correction afterwards", 0},
    {"batch", OPTION_BATCH, "N", 0, "samples at once on a rank (default 4)", 0},
    {"output", OPTION_OUTPUT, "FILE", 0, "write here instead of the standard output", 0},
    {"json", OPTION_JSON, NULL, 0, "one JSON object a sample: number, ids", 0},
    {"tokenizer", OPTION_TOKENIZER, "DIR", 0, "folder of vocab.bpe and encoder.json (default: data.tokenizer)", 0},
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

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    sample_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->model;
        return 0;
    case OPTION_TOKENIZER:
        o->tokenizer = word;
        return 0;
    case OPTION_OUTPUT:
        o->output = word;
        return 0;
    case OPTION_NUM:
        o->num = gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_STEPS:
        o->steps = gidd_cli_count(state, word, 1);
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
    case OPTION_CORRECT:
        o->correct = 1;
        return 0;
    case OPTION_JSON:
        o->json = 1;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void show_progress(void *context, int64_t step, int64_t steps, const int32_t *z, int64_t B)
{
    sample_work *work = context;
    (void)z;
    (void)B;
    if (isatty(STDERR_FILENO) || step == steps) {
        (void)fprintf(stderr, "%ssampling: batch %" PRId64 " of %" PRId64 ", step %" PRId64 " of %" PRId64 "%s",
                      isatty(STDERR_FILENO) ? "\r\033[K" : "", work->done + 1, work->batches, step, steps,
                      step == steps ? "\n" : "");
    }
    work->done += step == steps;
}

static gidd_status open_model(sample_work *work, const gidd_comm_set *comms)
{
    const sample_options *o = work->options;
    GIDD_TRY(gidd_model_options_open(&o->model, comms, o->batch, &work->inference));
    const char *tokenizer = o->tokenizer != NULL ? o->tokenizer : work->inference.config.data.tokenizer;
    GIDD_TRY(gidd_bpe_load(tokenizer, &work->bpe));
    GIDD_TRY(gidd_inference_check_tokenizer(&work->inference, tokenizer, gidd_bpe_digest(work->bpe), gidd_bpe_size(work->bpe)));
    int rank = gidd_comm_rank(comms->world), size = gidd_comm_size(comms->world);
    work->first = o->num * rank / size;
    work->mine = o->num * (rank + 1) / size - work->first;
    work->batches = (work->mine + o->batch - 1) / o->batch;
    size_t T = (size_t)work->inference.config.model.context, num = (size_t)o->num;
    work->ids = calloc((size_t)work->mine * T + 1, sizeof *work->ids);
    work->all = rank == 0 ? calloc(num * T, sizeof *work->all) : NULL;
    work->results = calloc(num, sizeof *work->results);
    if (work->ids == NULL || work->results == NULL || (rank == 0 && work->all == NULL)) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %" PRId64 " samples", o->num);
    }
    return gidd_sampler_create(&(gidd_sampler_args){.model = work->inference.model,
                                                    .schedule = &work->inference.schedule,
                                                    .T = work->inference.config.model.context,
                                                    .steps = o->steps,
                                                    .temperature = o->temperature,
                                                    .min_p = o->min_p,
                                                    .seed = (uint64_t)o->seed,
                                                    .progress = rank == 0 ? show_progress : NULL,
                                                    .context = work},
                               &work->sampler);
}

static gidd_status draw_samples(sample_work *work)
{
    if (work->mine == 0) {
        return GIDD_OK;
    }
    const gidd_sample_span span = {work->first, work->mine, NULL};
    GIDD_TRY(gidd_sampler_generate(work->sampler, &span, work->ids, NULL));
    if (!work->options->correct) {
        return GIDD_OK;
    }
    return gidd_sampler_correct(work->sampler,
                                &(gidd_correct_args){
                                    .t = 0.01, .temperature = 0.1, .tokens_per_step = 1, .max_steps = 128, .max_patience = 32},
                                &span, work->ids, work->results);
}

// All samples to rank 0: shares are consecutive, so rank order is sample order.
static gidd_status collect(sample_work *work, gidd_comm *comm)
{
    size_t  T = (size_t)work->inference.config.model.context, num = (size_t)work->options->num;
    size_t *sizes = calloc((size_t)gidd_comm_size(comm), sizeof *sizes);
    gidd_correct_result *mine = calloc((size_t)work->mine + 1, sizeof *mine);
    gidd_status          local = sizes != NULL && mine != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory");
    local = gidd_comm_agree(comm, local);
    if (local == GIDD_OK) {
        memcpy(mine, work->results, (size_t)work->mine * sizeof *mine);
        local = gidd_comm_gatherv(comm, 0, work->ids, (size_t)work->mine * T * sizeof *work->ids, work->all,
                                  num * T * sizeof *work->all, sizes);
    }
    if (local == GIDD_OK) {
        local = gidd_comm_gatherv(comm, 0, mine, (size_t)work->mine * sizeof *mine, work->results, num * sizeof *mine, sizes);
    }
    free(sizes);
    free(mine);
    return local;
}

// The text up to the end-of-text mark that closes it; one at the very start opens it.
static gidd_status print_text(const sample_work *work, FILE *stream, const int32_t *ids, uint16_t *narrow, uint8_t *text,
                              size_t capacity)
{
    int64_t T = work->inference.config.model.context, count = 0;
    size_t  bytes = 0;
    for (int64_t p = ids[0] == work->inference.vocab.bos; p < T && ids[p] != work->inference.vocab.eos; p++) {
        narrow[count++] = (uint16_t)ids[p];
    }
    GIDD_TRY(gidd_bpe_decode(work->bpe, narrow, (size_t)count, GIDD_BPE_SPECIALS_SKIP, text, capacity, &bytes));
    (void)fwrite(text, 1, bytes, stream);
    (void)fputc('\n', stream);
    return GIDD_OK;
}

static void print_ids(FILE *stream, int64_t sample, const int32_t *ids, int64_t T)
{
    (void)fprintf(stream, "{\"sample\":%" PRId64 ",\"ids\":[", sample);
    for (int64_t p = 0; p < T; p++) {
        (void)fprintf(stream, "%s%d", p > 0 ? "," : "", ids[p]);
    }
    (void)fputs("]}\n", stream);
}

static gidd_status print_samples(const sample_work *work, FILE *stream)
{
    int64_t     T = work->inference.config.model.context;
    size_t      capacity = (size_t)T * 256; // no GPT-2 token is longer than 128 bytes
    uint16_t   *narrow = calloc((size_t)T, sizeof *narrow);
    uint8_t    *text = malloc(capacity);
    gidd_status status = narrow != NULL && text != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a text");
    for (int64_t i = 0; status == GIDD_OK && i < work->options->num; i++) {
        const int32_t *ids = work->all + i * T;
        if (work->options->json) {
            print_ids(stream, i, ids, T);
            continue;
        }
        (void)fprintf(stream, "---- sample %" PRId64 " ", i);
        if (work->options->correct) {
            (void)fprintf(stream, "self-accuracy %.3f -> %.3f, %" PRId64 " tokens changed ", work->results[i].initial_accuracy,
                          work->results[i].final_accuracy, work->results[i].changed);
        }
        (void)fputs("----\n", stream);
        status = print_text(work, stream, ids, narrow, text, capacity);
    }
    free(narrow);
    free(text);
    return status;
}

static gidd_status write_samples(const sample_work *work)
{
    const char *path = work->options->output;
    FILE       *stream = path != NULL ? fopen(path, "we") : stdout;
    if (stream == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    gidd_status status = print_samples(work, stream);
    int         bad = ferror(stream) || fflush(stream) != 0;
    if (path != NULL) {
        bad |= fclose(stream) != 0;
    }
    if (status == GIDD_OK && bad) {
        status = gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", path != NULL ? path : "the standard output", strerror(errno));
    }
    return status;
}

static gidd_status sample_all(sample_work *work, gidd_comm_set *comms)
{
    GIDD_TRY(gidd_comm_agree(comms->world, open_model(work, comms)));
    GIDD_TRY(gidd_comm_agree(comms->world, draw_samples(work)));
    GIDD_TRY(collect(work, comms->world));
    return gidd_comm_rank(comms->world) == 0 ? write_samples(work) : GIDD_OK;
}

static gidd_status run_sample(void *context, gidd_comm_set *comms)
{
    sample_work *work = calloc(1, sizeof *work);
    if (work == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory");
    }
    work->options = context;
    gidd_status status = sample_all(work, comms);
    gidd_sampler_destroy(work->sampler);
    gidd_bpe_destroy(work->bpe);
    gidd_inference_close(&work->inference);
    free(work->ids);
    free(work->all);
    free(work->results);
    free(work);
    return status;
}

int main(int argc, char **argv)
{
    static const struct argp_child children[] = {{&gidd_model_argp, 0, NULL, 0}, {0}};
    static const struct argp       argp = {options, parse_option, NULL,
                                           "Draws samples from a checkpoint, alone or under mpirun. Same seed, same samples, whatever the "
                                           "number of ranks or the batch size.",
                                           children, NULL, NULL};
    sample_options o = {.num = 4, .steps = 128, .batch = 4, .seed = 1, .temperature = 1};
    gidd_cli_init();
    if (argp_parse(&argp, argc, argv, 0, NULL, &o) != 0) {
        return gidd_status_exit_code(GIDD_ERR_USAGE);
    }
    return gidd_tool_run(&argc, &argv, run_sample, &o);
}
