/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/eval_report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

static const char *const class_names[] = {"masked", "replaced", "clean"};

double eval_unigram_entropy(const int64_t *counts, int64_t V)
{
    double total = 0, entropy = 0;
    for (int64_t id = 0; id < V; id++) {
        total += (double)counts[id];
    }
    for (int64_t id = 0; id < V; id++) {
        const double p = (double)counts[id] / total;
        entropy -= counts[id] > 0 ? p * log(p) : 0;
    }
    return entropy;
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

// One class over all noise levels.
static gidd_estimate_cell class_total(const gidd_estimate_sums *sums, int class)
{
    gidd_estimate_cell total = {0};
    for (int bin = 0; bin < GIDD_ESTIMATE_BINS; bin++) {
        total.tokens += sums->cells[bin][class].tokens;
        total.elbo += sums->cells[bin][class].elbo;
        total.nll += sums->cells[bin][class].nll;
    }
    return total;
}

// Tokens of all classes.
static double tokens_of(const gidd_estimate_cell cells[GIDD_TOKEN_CLASSES])
{
    double tokens = 0;
    for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
        tokens += cells[class].tokens;
    }
    return tokens;
}

/* ---- a page ------------------------------------------------------------------------------------------------ */

static void print_estimate(FILE *stream, const char *name, const gidd_estimate_sums *sums, double noise_error)
{
    const double elbo = gidd_estimate_elbo(sums);
    (void)fprintf(stream, "%s%.4f nats per token, standard error %.4f, of which noise %.4f: perplexity at most %.2f\n", name, elbo,
                  gidd_estimate_error(sums), noise_error, exp(elbo));
}

/* A line of the table: the classes' shares of the tokens, what they add to the ELBO of a token (sums divided by
 * `count`), and the mean -log-probability of their clean tokens. */
static void print_cells(FILE *stream, const char *name, const gidd_estimate_cell cells[GIDD_TOKEN_CLASSES], double count)
{
    const double tokens = tokens_of(cells);
    double       elbo = 0;
    if (tokens <= 0) {
        return;
    }
    (void)fprintf(stream, "%-11s", name);
    for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
        (void)fprintf(stream, "%9.4f", cells[class].tokens / tokens);
        elbo += cells[class].elbo;
    }
    (void)fprintf(stream, "  %9.4f =", elbo / count);
    for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
        (void)fprintf(stream, "%9.4f", cells[class].elbo / count);
    }
    (void)fputs("  ", stream);
    for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
        if (cells[class].tokens > 0) {
            (void)fprintf(stream, "%9.4f", cells[class].nll / cells[class].tokens);
        } else {
            (void)fputs("        -", stream);
        }
    }
    (void)fputc('\n', stream);
}

static void print_table(FILE *stream, const gidd_estimate_sums *sums, double draws)
{
    gidd_estimate_cell all[GIDD_TOKEN_CLASSES];
    (void)fprintf(stream, "%-11s%27s  %38s  %27s\n", "", "share of tokens", "elbo, nats per token", "-log p(clean token)");
    (void)fprintf(stream, "%-11s", "t");
    for (int part = 0; part < 3; part++) {
        (void)fprintf(stream, "%s%9s%9s%9s", part == 1 ? "        all =" : "", class_names[0], class_names[1], class_names[2]);
        (void)fputs(part < 2 ? "  " : "\n", stream);
    }
    for (int bin = 0; bin < GIDD_ESTIMATE_BINS; bin++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%.1f .. %.1f", (double)bin / GIDD_ESTIMATE_BINS, (double)(bin + 1) / GIDD_ESTIMATE_BINS);
        print_cells(stream, name, sums->cells[bin], tokens_of(sums->cells[bin]));
    }
    for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
        all[class] = class_total(sums, class);
    }
    print_cells(stream, "all", all, draws * sums->n);
}

// Of an autoregressive model: the likelihood itself, no bound and no draws.
static void print_exact(FILE *stream, const eval_report *report)
{
    const gidd_estimate_sums *s = report->one_draw;
    const double              nll = gidd_estimate_elbo(s), entropy = report->unigram_entropy;
    (void)fprintf(stream, "model             %s (step %" PRId64 ")\n", report->model, report->step);
    (void)fprintf(stream, "scored            %.0f %s, %.0f tokens predicted\n", s->rows, report->texts, s->n);
    (void)fprintf(stream, "nll               %.4f nats per token, standard error %.4f: perplexity %.2f\n", nll,
                  gidd_estimate_error(s), exp(nll));
    (void)fprintf(stream, "unigram entropy   %.4f nats per token of those that predict: %s\n", entropy,
                  nll < entropy ? "the model is better" : "the model is not better");
    if (s->nonfinite > 0) {
        (void)fprintf(stream, "not finite        %.0f positions\n", s->nonfinite);
    }
}

void eval_report_print(FILE *stream, const eval_report *report)
{
    if (report->stratified == NULL) {
        print_exact(stream, report);
        return;
    }
    const gidd_estimate_sums *s = report->stratified;
    const gidd_estimate_cell  clean = class_total(s, GIDD_TOKEN_CLEAN);
    const double              elbo = gidd_estimate_elbo(s), entropy = report->unigram_entropy;
    (void)fprintf(stream, "model             %s (step %" PRId64 ")\n", report->model, report->step);
    (void)fprintf(stream, "scored            %.0f %s, %.0f real tokens, %" PRId64 " noise draw%s each at stratified times\n",
                  s->rows, report->texts, s->n, report->draws, report->draws == 1 ? "" : "s");
    print_estimate(stream, "elbo              ", s, gidd_estimate_noise_error(s));
    print_estimate(stream, "  in one draw     ", report->one_draw, gidd_estimate_single_error(s));
    (void)fprintf(stream, "unigram entropy   %.4f nats per token of the same tokens: %s\n", entropy,
                  elbo < entropy ? "the model is better" : "the model is not better");
    (void)fprintf(stream, "loss              %.5f (weighted, as trained)\n", s->loss / s->positions);
    (void)fprintf(stream, "clean rows        %.3g of the loss, %.3g of the elbo; smallest probability of a clean token %.3g\n",
                  ratio(s->clean_loss, s->loss), ratio(clean.elbo, (double)report->draws * s->y), exp(s->min_log_px));
    if (s->nonfinite > 0) {
        (void)fprintf(stream, "not finite        %.0f positions\n", s->nonfinite);
    }
    (void)fputc('\n', stream);
    print_table(stream, s, (double)report->draws);
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

// A number, or null where it is not finite: JSON has no other word for it.
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *cell_object(const gidd_estimate_cell *cell, double tokens, double count)
{
    return json_pack("{s:o, s:o, s:o}", "share", number(ratio(cell->tokens, tokens)), "elbo", number(ratio(cell->elbo, count)), "nll",
                     cell->tokens > 0 ? number(cell->nll / cell->tokens) : json_null());
}

static json_t *classes_object(const gidd_estimate_cell cells[GIDD_TOKEN_CLASSES], double count)
{
    const double tokens = tokens_of(cells);
    return json_pack("{s:o, s:o, s:o}", class_names[0], cell_object(&cells[0], tokens, count), class_names[1],
                     cell_object(&cells[1], tokens, count), class_names[2], cell_object(&cells[2], tokens, count));
}

static json_t *times_array(const gidd_estimate_sums *sums)
{
    json_t *array = json_array();
    for (int bin = 0; bin < GIDD_ESTIMATE_BINS; bin++) {
        const double tokens = tokens_of(sums->cells[bin]);
        double       elbo = 0;
        for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
            elbo += sums->cells[bin][class].elbo;
        }
        json_t *item = tokens > 0 ? json_pack("{s:f, s:f, s:o, s:o}", "from", (double)bin / GIDD_ESTIMATE_BINS, "to",
                                              (double)(bin + 1) / GIDD_ESTIMATE_BINS, "elbo", number(elbo / tokens), "by_class",
                                              classes_object(sums->cells[bin], tokens))
                                  : NULL;
        if (item != NULL && json_array_append_new(array, item) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *estimate_object(const gidd_estimate_sums *sums, double noise_error)
{
    const double elbo = gidd_estimate_elbo(sums);
    return json_pack("{s:o, s:o, s:o, s:o}", "elbo", number(elbo), "standard_error", number(gidd_estimate_error(sums)), "noise_error",
                     number(noise_error), "ppl", number(exp(elbo)));
}

static json_t *report_object(const eval_report *report)
{
    const gidd_estimate_sums *s = report->stratified;
    gidd_estimate_cell        all[GIDD_TOKEN_CLASSES];
    for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
        all[class] = class_total(s, class);
    }
    json_t *object = estimate_object(s, gidd_estimate_noise_error(s));
    json_t *rest = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o}", "checkpoint", report->model, "step",
        (json_int_t)report->step, report->texts, (json_int_t)s->rows, "draws", (json_int_t)report->draws, "tokens", (json_int_t)s->n,
        "loss", number(s->loss / s->positions), "unigram_entropy", number(report->unigram_entropy), "clean_loss_share",
        number(ratio(s->clean_loss, s->loss)), "clean_elbo_share",
        number(ratio(all[GIDD_TOKEN_CLEAN].elbo, (double)report->draws * s->y)), "min_log_px", number(s->min_log_px), "one_draw",
        estimate_object(report->one_draw, gidd_estimate_single_error(s)), "nonfinite", (json_int_t)s->nonfinite, "by_class",
        classes_object(all, (double)report->draws * s->n), "by_time", times_array(s));
    if (object == NULL || rest == NULL || json_object_update_missing(object, rest) != 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(rest);
    return object;
}

static json_t *exact_object(const eval_report *report)
{
    const gidd_estimate_sums *s = report->one_draw;
    const double              nll = gidd_estimate_elbo(s);
    return json_pack("{s:o, s:o, s:o, s:o, s:s, s:I, s:I, s:I, s:o, s:I}", "nll", number(nll), "standard_error",
                     number(gidd_estimate_error(s)), "ppl", number(exp(nll)), "loss", number(nll), "checkpoint", report->model,
                     "step", (json_int_t)report->step, report->texts, (json_int_t)s->rows, "tokens", (json_int_t)s->n,
                     "unigram_entropy", number(report->unigram_entropy), "nonfinite", (json_int_t)s->nonfinite);
}

gidd_status eval_report_print_json(FILE *stream, const eval_report *report)
{
    json_t *object = report->stratified != NULL ? report_object(report) : exact_object(report);
    char   *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    if (text != NULL) {
        (void)fprintf(stream, "%s\n", text);
    }
    free(text);
    json_decref(object);
    return text != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a report in JSON");
}
