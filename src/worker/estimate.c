/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/estimate.h"

#include "diffusion/corrupt.h"
#include "diffusion/time.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_BITS = 40 };

/* Sums of one sequence over the draws made so far. */
typedef struct row_sums {
    gidd_estimate_sums sums;      /* cells, loss, clean_loss, min_log_px, nonfinite: added up over draws */
    double             weight;    /* of the draw at hand: dt/du, 1 where t is uniform                    */
    double             n;         /* real tokens                                                         */
    double             y, yy;     /* over draws: sum of weight * ELBO, of weight * ELBO^2                */
    double             pairs;     /* over draws 2j, 2j+1: sum of squared differences of weight * ELBO    */
    double             last;      /* weight * ELBO of the draw before                                    */
} row_sums;

typedef struct estimate {
    const gidd_estimate_args *args;
    int64_t                   first, end;  // this rank's rows
    int64_t                   draws;       // forward passes of a row
    double                    offset;      // of the grid of times
    gidd_batch                batch;
    void                     *memory;
    int32_t                  *scratch; // [max_B * T]
    gidd_loss_row            *terms;   // [max_B * T] on the host
    row_sums                 *rows;    // [max_B]
    gidd_estimate_sums       *blocks;  // [blocks of this rank]
} estimate;

/* ---- one draw of some rows --------------------------------------------------------------------------------- */

void gidd_estimate_noise(const gidd_schedule *schedule, uint64_t seed, gidd_rng_stream stream, uint64_t index, float t,
                         gidd_batch *batch, int64_t b)
{
    const int64_t   at = b * batch->T;
    gidd_corruption corruption;
    gidd_schedule_coef(schedule, t, &batch->coef[b]);
    gidd_corruption_init(&corruption, schedule, (double)t);
    gidd_corrupt_row(&corruption, seed, stream, index, batch->x + at, batch->T, batch->z + at);
}

// The k-th of the stratified draws of rows first ... of the batch.
static void noise_rows(estimate *e, int64_t first, int64_t k)
{
    const gidd_estimate_args *args = e->args;
    const int64_t             N = args->source.rows, K = args->draws;
    const double              t_eps = args->schedule->args.t_eps;
    for (int64_t b = 0; b < e->batch.B; b++) {
        const int64_t  row = first + b, point = k * N + gidd_time_rank(row, N);
        const double   shifted = (double)point / (double)(K * N) + e->offset, u = shifted - floor(shifted);
        const uint64_t index = (uint64_t)k << ROW_BITS | (uint64_t)row;
        e->rows[b].weight = 2 * u;
        gidd_estimate_noise(args->schedule, args->seed, GIDD_STREAM_ESTIMATE, index, (float)((1 - 2 * t_eps) * u * u + t_eps),
                            &e->batch, b);
    }
    gidd_batch_index(&e->batch, args->schedule->args.vocab_size, e->scratch);
}

static gidd_status forward(estimate *e)
{
    gidd_model *model = e->args->model;
    GIDD_TRY(gidd_model_zero_sums(model));
    GIDD_TRY(gidd_model_load(model, &e->batch));
    GIDD_TRY(gidd_model_forward(model));
    GIDD_TRY(gidd_model_head(model, &(gidd_head_args){.mode = GIDD_LOSS_EVALUATE, .scale = 1}));
    return gidd_device_copy_out(model->device, e->terms, model->terms,
                                (size_t)(e->batch.B * e->batch.T) * sizeof *e->terms);
}

/* ---- sums of a row ----------------------------------------------------------------------------------------- */

static gidd_token_class class_of(int32_t x, int32_t z, int32_t mask)
{
    if (z == x) {
        return GIDD_TOKEN_CLEAN;
    }
    return z == mask ? GIDD_TOKEN_MASKED : GIDD_TOKEN_REPLACED;
}

static int64_t bin_of(float t)
{
    const int64_t bin = (int64_t)((double)t * GIDD_ESTIMATE_BINS);
    return bin < GIDD_ESTIMATE_BINS ? bin : GIDD_ESTIMATE_BINS - 1;
}

// Adds the terms of row b; returns the ELBO of this draw, summed over real tokens.
static double add_terms(const estimate *e, int64_t b, row_sums *row)
{
    const gidd_seq_coef *coef = &e->batch.coef[b];
    const double         omega[] = {(double)coef->omega_mask, (double)coef->omega_other, (double)coef->omega_keep};
    const double         w[] = {(double)coef->w_mask, (double)coef->w_other, (double)coef->w_keep};
    const int32_t        mask = e->args->schedule->args.mask_id;
    gidd_estimate_sums  *s = &row->sums;
    gidd_estimate_cell  *cells = s->cells[bin_of(coef->t)];
    const double         weight = row->weight;
    double               elbo = 0, n = 0;
    for (int64_t p = b * e->batch.T; p < (b + 1) * e->batch.T; p++) {
        const gidd_token_class class = class_of(e->batch.x[p], e->batch.z[p], mask);
        const double           real = e->batch.attention_mask[p];
        const double           terms = (double)e->terms[p].kl + (double)e->terms[p].is;
        const double           log_px = (double)e->terms[p].log_px, here = real * omega[class] * terms;
        elbo += here;
        n += real;
        cells[class].tokens += weight * real;
        cells[class].elbo += weight * here;
        cells[class].nll -= weight * real * log_px;
        s->loss += weight * w[class] * terms;
        if (class == GIDD_TOKEN_CLEAN) {
            s->clean_loss += weight * w[class] * terms;
            s->min_log_px = fmin(s->min_log_px, log_px);
        }
        s->nonfinite += !isfinite(terms);
    }
    row->n = n;
    return elbo;
}

static void add_draw(const estimate *e, int64_t b, int64_t k)
{
    row_sums    *row = &e->rows[b];
    const double elbo = add_terms(e, b, row), y = row->weight * elbo;
    row->y += y;
    row->yy += y * elbo;
    row->pairs += k % 2 == 1 ? (y - row->last) * (y - row->last) : 0;
    row->last = y;
}

static void add_sums(gidd_estimate_sums *total, const gidd_estimate_sums *part)
{
    total->rows += part->rows;
    total->positions += part->positions;
    total->y += part->y;
    total->n += part->n;
    total->yy += part->yy;
    total->yn += part->yn;
    total->nn += part->nn;
    total->noise += part->noise;
    total->single += part->single;
    total->loss += part->loss;
    total->clean_loss += part->clean_loss;
    total->min_log_px = fmin(total->min_log_px, part->min_log_px);
    total->nonfinite += part->nonfinite;
    for (int bin = 0; bin < GIDD_ESTIMATE_BINS; bin++) {
        for (int class = 0; class < GIDD_TOKEN_CLASSES; class ++) {
            total->cells[bin][class].tokens += part->cells[bin][class].tokens;
            total->cells[bin][class].elbo += part->cells[bin][class].elbo;
            total->cells[bin][class].nll += part->cells[bin][class].nll;
        }
    }
}

/* A row whose draws are all there. The variance of its mean over K strata is sum_k Var_k / K^2. Neighbouring strata
 * have nearly the same mean, so the squared difference of two is the sum of their variances, or a little more: the
 * error is not understated. (An odd last draw counts as the others do.) One draw at a uniform time has the variance
 * E[elbo^2] - Y^2, its first part the integral over t that the weights make of the draws. */
static void finish_row(const estimate *e, row_sums *row, gidd_estimate_sums *block)
{
    gidd_estimate_sums *s = &row->sums;
    const double        K = (double)e->draws, Y = row->y / K, paired = 2 * floor(K / 2);
    s->rows = 1;
    s->positions = (double)e->batch.T;
    s->y = Y;
    s->n = row->n;
    s->yy = Y * Y;
    s->yn = Y * row->n;
    s->nn = row->n * row->n;
    if (e->draws > 1) {
        s->noise = row->pairs / paired / K;
        s->single = fmax(row->yy / K - Y * Y, 0);
    }
    s->loss /= K;
    s->clean_loss /= K;
    add_sums(block, s);
}

/* ---- this rank's rows -------------------------------------------------------------------------------------- */

static const gidd_estimate_sums nothing = {.min_log_px = HUGE_VAL};

static int64_t share(int64_t blocks, int64_t rank, int64_t ranks)
{
    return blocks * rank / ranks;
}

static gidd_status start(estimate *e)
{
    const gidd_estimate_args *args = e->args;
    const int64_t             B = args->model->max_B, N = args->source.rows;
    const int64_t             rank = gidd_comm_rank(args->comm), ranks = gidd_comm_size(args->comm);
    const int64_t             blocks = (N + GIDD_ESTIMATE_BLOCK - 1) / GIDD_ESTIMATE_BLOCK;
    const int64_t             from = share(blocks, rank, ranks), to = share(blocks, rank + 1, ranks);
    const size_t              rows = (size_t)(B * args->T), bytes = (gidd_batch_bytes(B, args->T) + 63) / 64 * 64;
    e->first = from * GIDD_ESTIMATE_BLOCK;
    e->end = to * GIDD_ESTIMATE_BLOCK < N ? to * GIDD_ESTIMATE_BLOCK : N;
    e->draws = args->draws > 0 ? args->draws : 1;
    e->offset = gidd_time_eval_offset(args->seed, 0);
    e->memory = aligned_alloc(64, bytes);
    e->scratch = calloc(rows, sizeof *e->scratch);
    e->terms = calloc(rows, sizeof *e->terms);
    e->rows = calloc((size_t)B, sizeof *e->rows);
    e->blocks = calloc((size_t)(to - from) + 1, sizeof *e->blocks);
    if (e->memory == NULL || e->scratch == NULL || e->terms == NULL || e->rows == NULL || e->blocks == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to evaluate %" PRId64 " sequences at once", B);
    }
    memset(e->memory, 0, bytes);
    for (int64_t block = 0; block < to - from; block++) {
        e->blocks[block] = nothing;
    }
    return GIDD_OK;
}

static void count_tokens(const estimate *e)
{
    for (int64_t p = 0; e->args->histogram != NULL && p < e->batch.B * e->batch.T; p++) {
        e->args->histogram[e->batch.x[p]] += e->batch.attention_mask[p];
    }
}

// All draws of rows first .. first + count - 1.
static gidd_status estimate_rows(estimate *e, int64_t first, int64_t count)
{
    const gidd_estimate_args *args = e->args;
    gidd_batch_layout(&e->batch, count, args->T, e->memory);
    GIDD_TRY(args->source.build(args->source.context, first, count, &e->batch));
    count_tokens(e);
    for (int64_t b = 0; b < count; b++) {
        e->rows[b] = (row_sums){.sums = nothing, .weight = 1};
    }
    for (int64_t k = 0; k < e->draws; k++) {
        if (args->draws > 0) {
            noise_rows(e, first, k);
        }
        GIDD_TRY(forward(e));
        for (int64_t b = 0; b < count; b++) {
            add_draw(e, b, k);
        }
    }
    for (int64_t b = 0; b < count; b++) {
        finish_row(e, &e->rows[b], &e->blocks[(first + b - e->first) / GIDD_ESTIMATE_BLOCK]);
    }
    return GIDD_OK;
}

static gidd_status estimate_share(estimate *e)
{
    const int64_t B = e->args->model->max_B;
    for (int64_t at = e->first; at < e->end; at += B) {
        const int64_t count = e->end - at < B ? e->end - at : B;
        GIDD_TRY(estimate_rows(e, at, count));
        if (e->args->progress != NULL) {
            e->args->progress(e->args->context, at + count - e->first, e->end - e->first);
        }
    }
    return GIDD_OK;
}

/* ---- all ranks --------------------------------------------------------------------------------------------- */

// Adds all blocks in order on rank 0 and tells everybody.
static gidd_status add_blocks(estimate *e, gidd_estimate_sums *sums)
{
    gidd_comm          *comm = e->args->comm;
    const int           is_root = gidd_comm_rank(comm) == 0;
    const size_t        count = (size_t)((e->args->source.rows + GIDD_ESTIMATE_BLOCK - 1) / GIDD_ESTIMATE_BLOCK);
    const size_t        mine = (size_t)((e->end - e->first + GIDD_ESTIMATE_BLOCK - 1) / GIDD_ESTIMATE_BLOCK);
    gidd_estimate_sums *all = is_root ? calloc(count, sizeof *all) : NULL;
    size_t             *sizes = calloc((size_t)gidd_comm_size(comm), sizeof *sizes);
    const int           complete = sizes != NULL && (all != NULL || !is_root);
    gidd_status status = gidd_comm_agree(comm, complete ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu sums", count));
    if (status == GIDD_OK) {
        status = gidd_comm_gatherv(comm, 0, e->blocks, mine * sizeof *all, all, count * sizeof *all, sizes);
    }
    *sums = nothing;
    for (size_t block = 0; status == GIDD_OK && is_root && block < count; block++) {
        add_sums(sums, &all[block]);
    }
    free(all);
    free(sizes);
    return status == GIDD_OK ? gidd_comm_bcast(comm, 0, sums, sizeof *sums) : status;
}

static gidd_status estimate_all(estimate *e, gidd_estimate_sums *sums)
{
    gidd_comm *comm = e->args->comm;
    GIDD_TRY(gidd_comm_agree(comm, start(e)));
    GIDD_TRY(gidd_comm_agree(comm, estimate_share(e)));
    return add_blocks(e, sums);
}

gidd_status gidd_estimate(const gidd_estimate_args *args, gidd_estimate_sums *sums)
{
    estimate e = {.args = args};
    if (args->source.rows < 1 || args->source.rows >= (int64_t)1 << ROW_BITS || args->draws < 0 ||
        args->draws >= (int64_t)1 << (63 - ROW_BITS)) {
        return gidd_fail(GIDD_ERR_ARG, "an estimate of %" PRId64 " sequences with %" PRId64 " draws", args->source.rows, args->draws);
    }
    gidd_status status = estimate_all(&e, sums);
    free(e.memory);
    free(e.scratch);
    free(e.terms);
    free(e.rows);
    free(e.blocks);
    return status;
}

/* ---- reading the sums -------------------------------------------------------------------------------------- */

double gidd_estimate_elbo(const gidd_estimate_sums *sums)
{
    return sums->y / sums->n;
}

double gidd_estimate_error(const gidd_estimate_sums *sums)
{
    const double R = gidd_estimate_elbo(sums), N = sums->rows;
    const double residuals = sums->yy - 2 * R * sums->yn + R * R * sums->nn; // of Y_i about R n_i
    return N > 1 ? sqrt(fmax(residuals, 0) * N / (N - 1)) / sums->n : 0;
}

double gidd_estimate_noise_error(const gidd_estimate_sums *sums)
{
    return sqrt(sums->noise) / sums->n;
}

double gidd_estimate_single_error(const gidd_estimate_sums *sums)
{
    return sqrt(sums->single) / sums->n;
}
