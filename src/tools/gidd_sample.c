/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-sample: texts out of a trained model, spread over all ranks: unconditional, infilled, self-corrected.
 */
#include "tools/sample_options.h"
#include "tools/sample_show.h"
#include "tools/tool.h"
#include "worker/samples.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct sample_work {
    const sample_options *options;
    gidd_inference        inference;
    gidd_bpe             *bpe;
    gidd_samples          samples;
    sample_watch          watch;
    gidd_status           shown; /* of watching, which cannot stop a run */
} sample_work;

/* ---- what to start from ------------------------------------------------------------------------------------ */

static gidd_status open_tokenizer(sample_work *work)
{
    const char *folder = work->options->tokenizer != NULL ? work->options->tokenizer : work->inference.config.data.tokenizer;
    GIDD_TRY(gidd_bpe_load(folder, &work->bpe));
    return gidd_inference_check_tokenizer(&work->inference, folder, gidd_bpe_digest(work->bpe), gidd_bpe_size(work->bpe));
}

// The whole of a file of text, without its last line feed; the caller frees it.
static gidd_status read_text(const char *path, char **text_p)
{
    char  *text = NULL;
    size_t capacity = 0;
    FILE  *file = fopen(path, "re");
    if (file == NULL) {
        return gidd_fail(errno == ENOENT || errno == ENOTDIR ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s", path,
                         strerror(errno));
    }
    ssize_t   bytes = getdelim(&text, &capacity, '\0', file);
    const int whole = bytes >= 0 && getc(file) == EOF && !ferror(file);
    (void)fclose(file);
    if (!whole) {
        free(text);
        return gidd_fail(GIDD_ERR_CORRUPT, "%s is empty, cannot be read, or holds a NUL: not a text to fill in", path);
    }
    if (bytes > 0 && text[bytes - 1] == '\n') {
        text[bytes - 1] = '\0';
    }
    *text_p = text;
    return GIDD_OK;
}

static gidd_status read_given(const sample_work *work, int32_t *given)
{
    const sample_options *o = work->options;
    const gidd_vocab     *vocab = &work->inference.vocab;
    const int64_t         T = work->inference.config.model.context;
    if (o->given != NULL) {
        return gidd_given_of_file(work->bpe, vocab, o->given, T, given);
    }
    if (o->infill != NULL) {
        return gidd_given_of_text(work->bpe, vocab, o->infill, T, given);
    }
    char *text = NULL;
    GIDD_TRY(read_text(o->infill_file, &text));
    gidd_status status = gidd_given_of_text(work->bpe, vocab, text, T, given);
    free(text);
    return status;
}

static gidd_status open_samples(sample_work *work)
{
    const sample_options *o = work->options;
    const int64_t         T = work->inference.config.model.context;
    if (o->correct_file != NULL) {
        return gidd_samples_read(o->correct_file, &work->inference.vocab, T, &work->samples);
    }
    GIDD_TRY(gidd_samples_create(o->num, T, &work->samples));
    if (o->infill == NULL && o->infill_file == NULL && o->given == NULL) {
        return GIDD_OK;
    }
    int32_t    *given = malloc((size_t)T * sizeof *given);
    gidd_status status = given != NULL ? read_given(work, given) : gidd_fail(GIDD_ERR_NOMEM, "no memory for a text to fill in");
    if (status == GIDD_OK) {
        status = gidd_samples_give(&work->samples, given);
    }
    free(given);
    return status;
}

static gidd_status open_work(sample_work *work, const gidd_comm_set *comms)
{
    const sample_options *o = work->options;
    GIDD_TRY(gidd_model_options_open(&o->model, comms, o->batch, &work->inference));
    GIDD_TRY(open_tokenizer(work));
    GIDD_TRY(open_samples(work));
    const sample_view view = {.bpe = work->bpe,
                              .vocab = &work->inference.vocab,
                              .stream = stderr,
                              .colour = o->colour || isatty(STDERR_FILENO)};
    return sample_watch_open(&view, work->samples.T, isatty(STDERR_FILENO), &work->watch);
}

/* ---- what comes out ---------------------------------------------------------------------------------------- */

static void show_progress(void *context, const gidd_samples_progress *now)
{
    sample_work *work = context;
    const int    terminal = isatty(STDERR_FILENO), is_last = now->step == now->steps;
    if (work->options->watch) {
        work->shown = work->shown == GIDD_OK ? sample_watch_step(&work->watch, now) : work->shown;
    } else if (terminal || is_last) {
        (void)fprintf(stderr, "%s%s: %" PRId64 " of %" PRId64 " done on this rank; %" PRId64 " more, step %" PRId64 " of %" PRId64 "%s",
                      terminal ? "\r\033[K" : "", now->what, now->done, now->mine, now->count, now->step, now->steps,
                      is_last ? "\n" : "");
    }
}

static gidd_status print_sample(const sample_work *work, const sample_view *view, int64_t i)
{
    const gidd_samples *s = &work->samples;
    if (work->options->json) {
        return gidd_samples_write_json(view->stream, work->bpe, &work->inference.vocab, s, i);
    }
    (void)fprintf(view->stream, "---- sample %" PRId64 " ----\n", i);
    return work->options->diff ? sample_show_diff(view, s, i) : sample_show_text(view, s, i);
}

static gidd_status print_samples(const sample_work *work, FILE *stream, int is_terminal)
{
    const gidd_samples *s = &work->samples;
    const sample_view   view = {.bpe = work->bpe,
                                .vocab = &work->inference.vocab,
                                .stream = stream,
                                .colour = work->options->colour || is_terminal};
    FILE               *summary = work->options->json ? stderr : stream; // nothing but samples among lines of JSON
    for (int64_t i = 0; i < s->num; i++) {
        GIDD_TRY(print_sample(work, &view, i));
    }
    if (s->results != NULL) {
        const gidd_correct_args *c = &work->options->correct;
        (void)fprintf(summary,
                      "---- self-correction: t %g, temperature %g, %" PRId64 " token%s a step, at most %" PRId64 " steps, patience %" PRId64
                      "\n",
                      c->t, c->temperature, c->tokens_per_step, c->tokens_per_step == 1 ? "" : "s", c->max_steps, c->max_patience);
        sample_show_table(summary, s);
    }
    (void)fprintf(summary, "unigram entropy of the samples: %.4f nats per token\n",
                  gidd_samples_unigram_entropy(s, work->inference.vocab.V));
    return GIDD_OK;
}

static gidd_status write_samples(const sample_work *work)
{
    const char *path = work->options->output;
    FILE       *stream = path != NULL ? fopen(path, "we") : stdout;
    if (stream == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    gidd_status status = print_samples(work, stream, path == NULL && isatty(STDOUT_FILENO));
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
    const sample_options *o = work->options;
    const int             is_root = gidd_comm_rank(comms->world) == 0;
    GIDD_TRY(gidd_comm_agree(comms->world, open_work(work, comms)));
    GIDD_TRY(gidd_samples_run(&(gidd_samples_args){.comm = comms->world,
                                                   .model = work->inference.model,
                                                   .schedule = &work->inference.schedule,
                                                   .steps = o->correct_file != NULL ? 0 : o->steps,
                                                   .temperature = o->temperature,
                                                   .min_p = o->min_p,
                                                   .seed = (uint64_t)o->seed,
                                                   .correct = o->self_correct || o->correct_file != NULL ? &o->correct : NULL,
                                                   .progress = is_root ? show_progress : NULL,
                                                   .context = work},
                              &work->samples));
    GIDD_TRY(gidd_comm_agree(comms->world, work->shown));
    return is_root ? write_samples(work) : GIDD_OK;
}

static gidd_status run_sample(void *context, gidd_comm_set *comms)
{
    sample_work *work = calloc(1, sizeof *work);
    if (work == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory");
    }
    work->options = context;
    gidd_status status = sample_all(work, comms);
    sample_watch_close(&work->watch);
    gidd_samples_release(&work->samples);
    gidd_bpe_destroy(work->bpe);
    gidd_inference_close(&work->inference);
    free(work);
    return status;
}

int main(int argc, char **argv)
{
    sample_options options;
    sample_options_parse(argc, argv, &options);
    return gidd_tool_run(&argc, &argv, run_sample, &options);
}
