/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/journal.h"

#include "coordinator/progress.h"
#include "coordinator/writer_queue.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Sums over a window of log.every_steps steps. All doubles, so that one loop saves and restores it.
typedef struct window {
    double steps, loss, positions, elbo, tokens, noised_tokens, w_kl, w_is, w, grad_norm, skipped;
    double total_tokens, total_skipped, skipped_in_row; // not of the window: of the run
    double clean_elbo, noised_only;                     // its steps without clean rows
} window;

enum {
    WINDOW_FIELDS = sizeof(window) / sizeof(double),
    WINDOW_FIELDS_FIRST = 14, // as many had the first version's checkpoints
};

struct gidd_journal {
    gidd_journal_args  args;
    window             sums;
    int64_t            metrics_bytes; /* written or queued */
    gidd_writer_queue *queue;
    gidd_progress      progress;
};

// A line is a list of names and numbers: the same list feeds JSON and TensorBoard.
typedef struct field {
    const char *name;
    double      value;
} field;

static double ratio(double numerator, double denominator)
{
    return denominator > 0 ? numerator / denominator : 0;
}

// JSON has no word for infinity; such a value is null.
static size_t format_line(char *line, size_t size, int64_t step, const field *fields, int count)
{
    size_t used = (size_t)snprintf(line, size, "{\"step\":%" PRId64, step);
    for (int i = 0; i < count; i++) {
        used += (size_t)(isfinite(fields[i].value)
                             ? snprintf(line + used, size - used, ",\"%s\":%.9g", fields[i].name, fields[i].value)
                             : snprintf(line + used, size - used, ",\"%s\":null", fields[i].name));
    }
    used += (size_t)snprintf(line + used, size - used, "}\n");
    GIDD_ASSERT(used < size);
    return used;
}

static gidd_status write_metrics(gidd_journal *journal, int64_t step, const char *group, const field *fields, int count)
{
    char   line[2048];
    size_t bytes = format_line(line, sizeof line, step, fields, count);
    journal->metrics_bytes += (int64_t)bytes;
    GIDD_TRY(gidd_writer_queue_line(journal->queue, GIDD_WRITER_METRICS, line, bytes));
    for (int i = 0; i < count; i++) {
        GIDD_TRY(gidd_writer_queue_scalar(journal->queue, group, fields[i].name, step, fields[i].value));
    }
    return GIDD_OK;
}

// A step whose loss is no number is counted, but would drown the others in every sum.
static int has_loss(const gidd_report *reports, int count)
{
    double sum = 0;
    for (int rank = 0; rank < count; rank++) {
        const gidd_loss_sums *t = &reports[rank].train;
        sum += t->loss + t->elbo + t->w_kl + t->w_is + t->w;
    }
    return isfinite(sum);
}

static void add_report(window *sums, const gidd_report *report)
{
    sums->loss += report->train.loss;
    sums->positions += report->train.positions;
    sums->elbo += report->train.elbo;
    sums->tokens += report->train.tokens;
    sums->noised_tokens += report->train.noised_tokens;
    sums->w_kl += report->train.w_kl;
    sums->w_is += report->train.w_is;
    sums->w += report->train.w;
    sums->total_tokens += report->train.tokens;
    sums->clean_elbo += report->train.clean_elbo;
}

static int is_autoregressive(const gidd_journal *journal)
{
    return journal->args.config->model.type == GIDD_CONFIG_AUTOREGRESSIVE;
}

// An autoregressive model's likelihood is exact: a mean over predicted tokens, and no bound.
static gidd_status write_window_next(gidd_journal *journal, int64_t completed, double lr)
{
    const window *sums = &journal->sums;
    double        nll = ratio(sums->elbo, sums->tokens);
    const field   fields[] = {
        {"loss", ratio(sums->loss, sums->positions)}, // a mean of steps; nll one of tokens
        {"nll", nll},
        {"lr", lr},
        {"grad_norm", ratio(sums->grad_norm, sums->steps)},
        {"skipped", sums->skipped},
        {"tokens", sums->total_tokens},
        {"ppl", exp(nll)},
    };
    return write_metrics(journal, completed, "train", fields, (int)(sizeof fields / sizeof *fields));
}

static gidd_status write_window(gidd_journal *journal, int64_t completed, double lr)
{
    const window *sums = &journal->sums;
    int           skips = sums->noised_only > 0; // one such step, and the window has no ELBO, only the noised rows' part
    double        elbo = ratio(skips ? sums->elbo - sums->clean_elbo : sums->elbo, sums->tokens);
    const field   fields[] = {
        {"loss", ratio(sums->loss, sums->positions)},
        {skips ? "elbo_noised" : "elbo", elbo},
        {"kl_loss", ratio(sums->w_kl, sums->w)},
        {"is_loss", ratio(sums->w_is, sums->w)},
        {"lr", lr},
        {"grad_norm", ratio(sums->grad_norm, sums->steps)},
        {"skipped", sums->skipped},
        {"tokens", sums->total_tokens},
        {"ppl", exp(elbo)}, // last: left out where rows were skipped
    };
    return write_metrics(journal, completed, "train", fields, (int)(sizeof fields / sizeof *fields) - (skips ? 1 : 0));
}

static gidd_status end_window(gidd_journal *journal, int64_t completed, double lr)
{
    window *sums = &journal->sums, before = *sums;
    GIDD_TRY(is_autoregressive(journal) ? write_window_next(journal, completed, lr) : write_window(journal, completed, lr));
    *sums = (window){.total_tokens = before.total_tokens,
                     .total_skipped = before.total_skipped,
                     .skipped_in_row = before.skipped_in_row};
    return GIDD_OK;
}

static gidd_status write_eval(gidd_journal *journal, const gidd_report *reports, int count, int64_t completed)
{
    gidd_loss_sums total = gidd_reports_eval(reports, count);
    double         elbo = ratio(total.elbo, total.tokens);
    const field    next[] = {
        {"valid_loss", elbo}, {"valid_nll", elbo}, {"valid_ppl", exp(elbo)}, {"valid_tokens", total.tokens}};
    const field fields[] = {
        {"valid_loss", ratio(total.loss, total.positions)},
        {"valid_elbo", elbo},
        {"valid_ppl", exp(elbo)},
        {"valid_tokens", total.tokens},
        {"clean_loss_share", ratio(total.clean_loss, total.loss)},
        {"clean_elbo_share", ratio(total.clean_elbo, total.elbo)},
        {"min_log_px", total.min_log_px},
    };
    gidd_progress_eval(&journal->progress, completed, elbo);
    if (is_autoregressive(journal)) {
        return write_metrics(journal, completed, "valid", next, (int)(sizeof next / sizeof *next));
    }
    return write_metrics(journal, completed, "valid", fields, (int)(sizeof fields / sizeof *fields));
}

static gidd_status write_timings(gidd_journal *journal, int64_t completed)
{
    const gidd_progress *p = &journal->progress;
    char                 line[2048];
    field                fields[] = {
        {"step_ms", p->step_ms},
        {"data_ms", p->data_ms},
        {"comm_ms", p->comm_ms},
        {"tokens_per_s", p->tokens_per_s},
        {"model_gflops_per_s", p->model_gflops_per_s},
        {"executed_gflops_per_s", p->executed_gflops_per_s},
        {"slowest_rank", p->slowest_rank},
        {"slowest_step_ms", p->slowest_ms},
    };
    int count = (int)(sizeof fields / sizeof *fields);
    for (int i = 0; i < count; i++) {
        GIDD_TRY(gidd_writer_queue_scalar(journal->queue, "timing", fields[i].name, completed, fields[i].value));
    }
    return gidd_writer_queue_line(journal->queue, GIDD_WRITER_TIMINGS, line,
                                  format_line(line, sizeof line, completed, fields, count));
}

gidd_status gidd_journal_step(gidd_journal *journal, const gidd_report *reports, int count, int64_t step,
                              const gidd_order *order)
{
    const gidd_config *config = journal->args.config;
    window            *sums = &journal->sums;
    int64_t            completed = step + 1;
    int numbers = has_loss(reports, count);
    for (int rank = 0; rank < count; rank++) {
        if (numbers) {
            add_report(sums, &reports[rank]);
        } else {
            sums->total_tokens += reports[rank].train.tokens;
        }
    }
    // equal on all workers; a dedicated coordinator's own report is zero
    double norm = 0, skipped = 0;
    for (int rank = 0; rank < count; rank++) {
        norm = fmax(norm, reports[rank].grad_norm);
        skipped = fmax(skipped, (double)reports[rank].skipped);
    }
    sums->steps += 1;
    sums->noised_only += (order->actions & GIDD_ACT_SKIP_CLEAN) != 0;
    sums->grad_norm += skipped > 0 ? 0 : norm;
    sums->skipped += skipped;
    sums->total_skipped += skipped;
    sums->skipped_in_row = skipped > 0 ? sums->skipped_in_row + 1 : 0;
    gidd_progress_step(&journal->progress, reports, count, order);
    if (completed % config->log.every_steps == 0 || completed == config->training.steps) {
        GIDD_TRY(end_window(journal, completed, order->lr));
        GIDD_TRY(write_timings(journal, completed));
    }
    if (order->actions & GIDD_ACT_EVAL) {
        GIDD_TRY(write_eval(journal, reports, count, completed));
    }
    return GIDD_OK;
}

void gidd_journal_get_mark(const gidd_journal *journal, gidd_journal_mark *mark)
{
    double fields[WINDOW_FIELDS];
    size_t used = 0;
    memcpy(fields, &journal->sums, sizeof fields);
    memset(mark, 0, sizeof *mark);
    mark->metrics_bytes = journal->metrics_bytes;
    mark->tokens_seen = (int64_t)journal->sums.total_tokens;
    mark->skipped_total = (int64_t)journal->sums.total_skipped;
    mark->skipped_in_row = (int64_t)journal->sums.skipped_in_row;
    for (int i = 0; i < WINDOW_FIELDS; i++) {
        used += (size_t)snprintf(mark->state + used, sizeof mark->state - used, "%s%a", i > 0 ? " " : "", fields[i]);
    }
    GIDD_ASSERT(used < sizeof mark->state);
}

static gidd_status restore_mark(gidd_journal *journal, const gidd_journal_mark *mark)
{
    double      fields[WINDOW_FIELDS] = {0};
    const char *text = mark->state;
    for (int i = 0; i < WINDOW_FIELDS; i++) {
        char *end = NULL;
        fields[i] = strtod(text, &end);
        if (end == text && i >= WINDOW_FIELDS_FIRST && *text == '\0') {
            break; // written before the later fields were there: they start at 0
        }
        if (end == text || !isfinite(fields[i])) {
            return gidd_fail(GIDD_ERR_CORRUPT, "the checkpoint's journal state is not %d numbers", WINDOW_FIELDS);
        }
        text = end;
    }
    memcpy(&journal->sums, fields, sizeof fields);
    return GIDD_OK;
}

gidd_status gidd_journal_event(gidd_journal *journal, int64_t step, const char *event, const char *text)
{
    char   line[2048];
    size_t used = (size_t)snprintf(line, sizeof line, "{\"step\":%" PRId64 ",\"event\":\"%s\",\"text\":\"", step, event);
    for (; *text != '\0' && used < sizeof line - 16; text++) {
        if (*text == '"' || *text == '\\') {
            line[used++] = '\\';
        }
        line[used++] = (unsigned char)*text < 0x20 ? ' ' : *text;
    }
    used += (size_t)snprintf(line + used, sizeof line - used, "\"}\n");
    return gidd_writer_queue_line(journal->queue, GIDD_WRITER_EVENTS, line, used);
}

gidd_status gidd_journal_open(const gidd_journal_args *args, gidd_journal **journal_p)
{
    gidd_journal *journal = calloc(1, sizeof *journal);
    if (journal == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the journal");
    }
    journal->args = *args;
    int64_t     keep = 0;
    gidd_status status = GIDD_OK;
    if (args->resume != NULL) {
        keep = args->resume->metrics_bytes;
        GIDD_TRY_GOTO(restore_mark(journal, args->resume));
    }
    GIDD_TRY_GOTO(gidd_writer_queue_open(args->config->run.dir, keep, args->config->log.tensorboard == GIDD_CONFIG_ON,
                                         &journal->queue));
    journal->metrics_bytes = keep;
    gidd_progress_init(&journal->progress, &(gidd_progress_args){.config = args->config,
                                                                 .first_step = args->first_step,
                                                                 .context = args->context,
                                                                 .flops = args->flops});
    *journal_p = journal;
    return GIDD_OK;
out:
    free(journal);
    return status;
}

gidd_status gidd_journal_flush(gidd_journal *journal)
{
    return gidd_writer_queue_flush(journal->queue);
}

gidd_status gidd_journal_close(gidd_journal *journal)
{
    if (journal == NULL) {
        return GIDD_OK;
    }
    gidd_progress_end(&journal->progress);
    gidd_status status = gidd_writer_queue_close(journal->queue);
    free(journal);
    return status;
}
