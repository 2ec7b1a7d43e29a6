/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench tokenizer: gidd_bpe_encode over all documents, one after another, with one thread. Each
 * time a new encoder goes over them twice: "cold", its cache holding the vocabulary's own words
 * alone, and "warm", all the words of the texts seen before. A large corpus lies between the two.
 */
#include "base/clock.h"
#include "tokenizer/bpe.h"
#include "tools/bench.h"

#include <stdlib.h>

typedef struct tokenizer_work {
    gidd_bench_texts texts;
    gidd_bpe *bpe;
    gidd_bpe_encoder *encoder;
    uint16_t *ids;
    size_t longest;
    double *cold_seconds, *seconds;
} tokenizer_work;

static gidd_status prepare(gidd_bench *bench, const gidd_bench_plan *plan, tokenizer_work *w)
{
    GIDD_TRY(gidd_bpe_load(gidd_bench_tokenizer_folder(bench->config), &w->bpe));
    GIDD_TRY(gidd_bench_texts_init(&w->texts, bench,
                                   bench->options->mib > 0.0 ? bench->options->mib : 16.0));
    for (int64_t i = 0; i < w->texts.count; i++) {
        size_t bytes = w->texts.starts[i + 1] - w->texts.starts[i];
        w->longest = bytes > w->longest ? bytes : w->longest;
    }
    w->ids = malloc((w->longest + 1) * sizeof *w->ids);
    w->cold_seconds = calloc((size_t)plan->total, sizeof *w->cold_seconds);
    w->seconds = calloc((size_t)plan->total, sizeof *w->seconds);
    if (w->ids == NULL || w->cold_seconds == NULL || w->seconds == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the ids of %zu bytes", w->longest);
    }
    return GIDD_OK;
}

static gidd_status encode_all(const tokenizer_work *w, int64_t *tokens_p, double *seconds_p)
{
    int64_t start_ns = gidd_clock_ns();
    const gidd_bench_texts *texts = &w->texts;
    *tokens_p = 0;
    for (int64_t i = 0; i < texts->count; i++) {
        size_t count = 0;
        GIDD_TRY(gidd_bpe_encode(w->encoder, texts->bytes + texts->starts[i],
                                 texts->starts[i + 1] - texts->starts[i], w->ids, w->longest,
                                 &count));
        *tokens_p += (int64_t)count;
    }
    *seconds_p = (double)(gidd_clock_ns() - start_ns) * 1e-9;
    return GIDD_OK;
}

static gidd_status measure(gidd_bench *bench, tokenizer_work *w)
{
    gidd_bench_plan plan = gidd_bench_plan_of(bench);
    int64_t tokens = 0;
    GIDD_TRY(prepare(bench, &plan, w));
    for (int64_t i = 0; i < plan.total; i++) {
        gidd_bpe_encoder_destroy(w->encoder);
        w->encoder = NULL;
        GIDD_TRY(gidd_bpe_encoder_create(w->bpe, &w->encoder));
        GIDD_TRY(encode_all(w, &tokens, &w->cold_seconds[i]));
        GIDD_TRY(encode_all(w, &tokens, &w->seconds[i]));
    }
    gidd_bench_spread seconds = gidd_bench_spread_of(w->seconds + plan.warmup, plan.repeats);
    gidd_bench_spread cold = gidd_bench_spread_of(w->cold_seconds + plan.warmup, plan.repeats);
    double bytes = (double)w->texts.starts[w->texts.count];
    gidd_bench_report_count(bench->report, "tokens", tokens);
    gidd_bench_report_number(bench->report, "bytes_per_token", bytes / (double)tokens);
    gidd_bench_report_spread(bench->report, "seconds", seconds);
    gidd_bench_report_spread(bench->report, "cold_mb_per_s",
                             gidd_bench_spread_rate(cold, bytes * 1e-6));
    gidd_bench_report_spread(bench->report, "mb_per_s",
                             gidd_bench_spread_rate(seconds, bytes * 1e-6));
    gidd_bench_report_spread(bench->report, "tokens_per_s",
                             gidd_bench_spread_rate(seconds, (double)tokens));
    return GIDD_OK;
}

gidd_status gidd_bench_tokenizer(gidd_bench *bench)
{
    tokenizer_work w = {0};
    gidd_status status = measure(bench, &w);
    gidd_bpe_encoder_destroy(w.encoder);
    gidd_bpe_destroy(w.bpe);
    gidd_bench_texts_release(&w.texts);
    free(w.ids);
    free(w.cold_seconds);
    free(w.seconds);
    return status;
}
