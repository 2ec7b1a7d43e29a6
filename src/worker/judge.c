/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a rank works with. */
typedef struct judge_work {
    const gidd_judge_args *args;
    int64_t                T;       /* judge's positions           */
    int32_t               *ids;     /* [max_B][T]                  */
    int64_t               *lengths; /* [max_B]                     */
    float                 *nll;     /* [max_B][T]                  */
    int64_t               *counts;  /* [V] of one text, 0 between  */
    int64_t               *totals;  /* [V] of this rank's texts    */
} judge_work;

static gidd_status allocate(judge_work *work)
{
    const size_t rows = (size_t)(work->args->max_B * work->T), V = (size_t)work->args->shape->V;
    work->ids = calloc(rows, sizeof *work->ids);
    work->lengths = calloc((size_t)work->args->max_B, sizeof *work->lengths);
    work->nll = calloc(rows, sizeof *work->nll);
    work->counts = calloc(V, sizeof *work->counts);
    work->totals = calloc(V, sizeof *work->totals);
    if (work->ids == NULL || work->lengths == NULL || work->nll == NULL || work->counts == NULL || work->totals == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to judge %lld texts at once", (long long)work->args->max_B);
    }
    return GIDD_OK;
}

static void release(judge_work *work)
{
    free(work->ids);
    free(work->lengths);
    free(work->nll);
    free(work->counts);
    free(work->totals);
}

static int64_t length_of(const gidd_judge_texts *texts, int64_t i)
{
    return texts->first[i + 1] - texts->first[i];
}

// Entropy of one text's distribution of tokens; only the ids that occur are touched.
static double text_entropy(judge_work *work, const int32_t *ids, int64_t count)
{
    double entropy = 0;
    for (int64_t k = 0; k < count; k++) {
        work->counts[ids[k]]++;
        work->totals[ids[k]]++;
    }
    for (int64_t k = 0; k < count; k++) {
        int64_t n = work->counts[ids[k]];
        if (n > 0) {
            double p = (double)n / (double)count;
            entropy -= p * log(p);
            work->counts[ids[k]] = 0;
        }
    }
    return entropy;
}

static double histogram_entropy(const int64_t *counts, int64_t V, double total)
{
    double entropy = 0;
    for (int64_t id = 0; id < V; id++) {
        if (counts[id] > 0) {
            double p = (double)counts[id] / total;
            entropy -= p * log(p);
        }
    }
    return entropy;
}

// Texts first ... first + B - 1; sums[0] += tokens, sums[1] += nll.
static gidd_status judge_batch(judge_work *work, int64_t first, int64_t B, double *sums)
{
    const gidd_judge_texts *texts = work->args->texts;
    int64_t                 T = 1; // the batch's longest sequence
    for (int64_t b = 0; b < B; b++) {
        int64_t length = length_of(texts, first + b) + 1;
        T = length > T ? length : T;
    }
    for (int64_t b = 0; b < B; b++) {
        int32_t *row = work->ids + b * T;
        int64_t  count = length_of(texts, first + b);
        row[0] = work->args->eos;
        memcpy(row + 1, texts->ids + texts->first[first + b], (size_t)count * sizeof *row);
        memset(row + 1 + count, 0, (size_t)(T - 1 - count) * sizeof *row); // counts nowhere
        work->lengths[b] = count + 1;
        sums[0] += (double)count;
    }
    GIDD_TRY(gidd_gpt2_judge(work->args->judge, work->ids, work->lengths, B, T, work->nll));
    for (int64_t p = 0; p < B * T; p++) {
        sums[1] += (double)work->nll[p];
    }
    return GIDD_OK;
}

// sums: tokens, nll, texts' entropies, texts that are not empty.
static gidd_status judge_share(judge_work *work, int64_t first, int64_t end, double *sums)
{
    const gidd_judge_texts *texts = work->args->texts;
    for (int64_t at = first; at < end; at += work->args->max_B) {
        int64_t B = end - at < work->args->max_B ? end - at : work->args->max_B;
        GIDD_TRY(judge_batch(work, at, B, sums));
    }
    for (int64_t i = first; i < end; i++) {
        int64_t count = length_of(texts, i);
        sums[2] += text_entropy(work, texts->ids + texts->first[i], count);
        sums[3] += count > 0;
    }
    return GIDD_OK;
}

static gidd_status run(judge_work *work, gidd_judgement *judgement)
{
    enum { SUMS = 4 };
    const gidd_judge_args *args = work->args;
    const int64_t          count = args->texts->count, V = args->shape->V;
    int                    rank = gidd_comm_rank(args->comm), ranks = gidd_comm_size(args->comm);
    double                 sums[SUMS] = {0};
    gidd_status            local = allocate(work);
    if (local == GIDD_OK) {
        local = judge_share(work, count * rank / ranks, count * (rank + 1) / ranks, sums);
    }
    GIDD_TRY(gidd_comm_agree(args->comm, local));
    GIDD_TRY(gidd_comm_allreduce_double(args->comm, sums, SUMS, GIDD_COMM_SUM));
    GIDD_TRY(gidd_comm_allreduce_int64(args->comm, work->totals, V, GIDD_COMM_SUM));
    *judgement = (gidd_judgement){.samples = count,
                                  .empty = count - (int64_t)sums[3],
                                  .cut = args->texts->cut,
                                  .tokens = sums[0],
                                  .nll = sums[1],
                                  .unigram_entropy = histogram_entropy(work->totals, V, sums[0]),
                                  .sample_entropy = sums[3] > 0 ? sums[2] / sums[3] : 0};
    return GIDD_OK;
}

gidd_status gidd_judge_run(const gidd_judge_args *args, gidd_judgement *judgement)
{
    judge_work  work = {.args = args, .T = args->shape->T};
    gidd_status status = run(&work, judgement);
    release(&work);
    return status;
}
