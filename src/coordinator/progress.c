/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/progress.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static const double keep = 0.9; // weight of the past in the averages

void gidd_progress_init(gidd_progress *progress, const gidd_progress_args *args)
{
    memset(progress, 0, sizeof *progress);
    progress->args = *args;
    progress->terminal = isatty(STDERR_FILENO);
}

static void average(double *value, double now, int64_t seen)
{
    double weight = seen == 0 ? 1 : fmax(1 - keep, 1.0 / (double)(seen + 1));
    *value += weight * (now - *value);
}

static void note_times(gidd_progress *p, const gidd_report *reports, int count)
{
    double slowest_ns = 0, data_ns = 0, comm_ns = 0;
    int    slowest = 0;
    for (int rank = 0; rank < count; rank++) {
        // a slow rank is the one that computes longest, not the one that waits for it
        double busy_ns = (double)(reports[rank].step_ns - reports[rank].comm_ns);
        if (busy_ns > slowest_ns) {
            slowest_ns = busy_ns;
            slowest = rank;
        }
        data_ns = fmax(data_ns, (double)reports[rank].data_ns);
        comm_ns = fmax(comm_ns, (double)reports[rank].comm_ns);
    }
    int64_t now = gidd_clock_ns();
    double  step_ns = (double)reports[slowest].step_ns;
    if (p->seen == 0) {
        p->started_ns = now;
    } else {
        step_ns = (double)(now - p->last_step_ns); // wall time from report to report: evaluations count too
    }
    p->last_step_ns = now;
    average(&p->step_ms, step_ns * 1e-6, p->seen);
    average(&p->data_ms, data_ns * 1e-6, p->seen);
    average(&p->comm_ms, comm_ns * 1e-6, p->seen);
    p->slowest_rank = slowest;
    p->slowest_ms = slowest_ns * 1e-6;
}

static void note_speed(gidd_progress *p, const gidd_report *reports, int count)
{
    double sequences = (double)p->args.config->training.global_batch, head_rows = 0;
    for (int rank = 0; rank < count; rank++) {
        head_rows += (double)reports[rank].head_rows;
    }
    average(&p->executed_flops, gidd_model_flops_executed(&p->args.flops, sequences, p->args.context, head_rows), p->seen);
    double per_s = p->step_ms > 0 ? 1e3 / p->step_ms : 0;
    p->tokens_per_s = sequences * (double)p->args.context * per_s;
    p->model_gflops_per_s = sequences * p->args.flops.sequence * per_s * 1e-9;
    p->executed_gflops_per_s = p->executed_flops * per_s * 1e-9;
}

static void format_duration(double seconds, char *text, size_t size)
{
    int64_t s = (int64_t)seconds;
    if (s >= 86400) {
        (void)snprintf(text, size, "%" PRId64 "d%02" PRId64 "h", s / 86400, s % 86400 / 3600);
    } else if (s >= 3600) {
        (void)snprintf(text, size, "%" PRId64 "h%02" PRId64 "m", s / 3600, s % 3600 / 60);
    } else {
        (void)snprintf(text, size, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    }
}

static int is_autoregressive(const gidd_progress *p)
{
    return p->args.config->model.type == GIDD_CONFIG_AUTOREGRESSIVE;
}

static void draw(gidd_progress *p, int64_t completed, double lr)
{
    char    line[512], left[32], elbo[64], valid[48] = "", limit[48] = "";
    int64_t steps = p->args.config->training.steps;
    format_duration((double)(steps - completed) * p->step_ms * 1e-3, left, sizeof left);
    if (p->noised_only) { // not a bound on anything
        (void)snprintf(elbo, sizeof elbo, "elbo_noised %.3f", p->elbo);
    } else {
        (void)snprintf(elbo, sizeof elbo, "%s %.3f ppl %.4g", is_autoregressive(p) ? "nll" : "elbo", p->elbo, exp(p->elbo));
    }
    if (p->valid_elbo > 0) {
        (void)snprintf(valid, sizeof valid, " valid %.3f", p->valid_elbo);
    }
    if (p->args.config->run.max_minutes > 0) {
        (void)snprintf(limit, sizeof limit, " (stops at %.3g min)", p->args.config->run.max_minutes);
    }
    (void)snprintf(line, sizeof line,
                   "step %" PRId64 "/%" PRId64 " loss %.4f %s%s lr %.2e norm %.3f %.5g tok/s %.3g TFLOP/s (executed %.3g) "
                   "data %.1f%% comm %.1f%% left %s%s",
                   completed, steps, p->loss, elbo, valid, lr, p->grad_norm, p->tokens_per_s,
                   p->model_gflops_per_s * 1e-3, p->executed_gflops_per_s * 1e-3, 100 * p->data_ms / fmax(p->step_ms, 1e-9),
                   100 * p->comm_ms / fmax(p->step_ms, 1e-9), left, limit);
    if (p->terminal) {
        (void)fprintf(stderr, "\r\033[K%s", line);
        (void)fflush(stderr);
    } else {
        gidd_log(GIDD_LOG_INFO, "train", "%s", line);
    }
}

void gidd_progress_step(gidd_progress *p, const gidd_report *reports, int count, const gidd_order *order)
{
    const int64_t completed = order->step + 1;
    double        loss = 0, positions = 0, elbo = 0, tokens = 0, norm = 0;
    for (int rank = 0; rank < count; rank++) {
        loss += reports[rank].train.loss;
        positions += reports[rank].train.positions;
        elbo += reports[rank].train.elbo;
        tokens += reports[rank].train.tokens;
        norm = fmax(norm, reports[rank].grad_norm);
    }
    note_times(p, reports, count);
    note_speed(p, reports, count);
    p->noised_only = (order->actions & GIDD_ACT_SKIP_CLEAN) != 0;
    if (isfinite(loss + elbo)) {
        average(&p->loss, positions > 0 ? loss / positions : 0, p->seen);
        average(&p->elbo, tokens > 0 ? elbo / tokens : 0, p->seen);
    }
    if (isfinite(norm)) {
        average(&p->grad_norm, norm, p->seen);
    }
    int64_t now = gidd_clock_ns();
    int64_t every_ns = p->terminal ? INT64_C(250000000) : INT64_C(10000000000);
    if (p->seen == 0 || now - p->drawn_ns >= every_ns || completed == p->args.config->training.steps) {
        draw(p, completed, order->lr);
        p->drawn_ns = now;
    }
    p->seen++;
}

void gidd_progress_eval(gidd_progress *p, int64_t completed, double elbo)
{
    p->valid_elbo = elbo;
    gidd_progress_end(p);
    int exact = is_autoregressive(p);
    gidd_log(GIDD_LOG_INFO, "eval", "step %" PRId64 " validation %s %.4f nats a token, perplexity%s %.5g", completed,
             exact ? "nll" : "elbo", elbo, exact ? "" : " at most", exp(elbo));
}

void gidd_progress_end(gidd_progress *p)
{
    if (p->terminal && p->seen > 0) {
        (void)fputs("\n", stderr);
    }
}
