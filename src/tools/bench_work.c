/* SPDX-License-Identifier: Apache-2.0
 *
 * One function for each kind of arguments. Sums stand in the order of the fields in the kernels' headers:
 * a line for what is of type E, a line for what is not.
 */
#include "tools/bench_work.h"

enum { FP32 = 4, FP64 = 8, INT32 = 4 };

static double bytes_of(gidd_dtype dtype)
{
    return (double)gidd_dtype_bytes(dtype);
}

// Times that a gradient passes: written, or read and written.
static double passes(int accumulate)
{
    return accumulate ? 2.0 : 1.0;
}

/* ---- Products and attention ------------------------------------------------------------------ */

static double product_flops(int64_t M, int64_t N, int64_t K)
{
    return 2.0 * (double)M * (double)N * (double)K;
}

static gidd_bench_work work_linear_fwd(gidd_dtype E, const gidd_linear_fwd_args *a)
{
    const double M = (double)a->M, N = (double)a->N, K = (double)a->K;
    const double bias = a->epilogue == GIDD_LINEAR_NONE ? 0.0 : N;
    const double outputs = a->epilogue == GIDD_LINEAR_BIAS_GELU && a->pre != NULL ? 2.0 : 1.0;
    (void)E; // the call says its own
    return (gidd_bench_work){product_flops(a->M, a->N, a->K),
                             bytes_of(a->dtype) * (M * K + N * K + bias + outputs * M * N)};
}

static gidd_bench_work work_linear_bwd_data(gidd_dtype E, const gidd_linear_bwd_data_args *a)
{
    const double M = (double)a->M, N = (double)a->N, K = (double)a->K;
    const double inputs = a->pre != NULL ? M * K : 0.0;
    (void)E;
    return (gidd_bench_work){product_flops(a->M, a->N, a->K),
                             bytes_of(a->dtype) * (M * K + M * N + N * K + inputs)};
}

static gidd_bench_work work_linear_bwd_weight(gidd_dtype E, const gidd_linear_bwd_weight_args *a)
{
    const double M = (double)a->M, N = (double)a->N, K = (double)a->K;
    const double gradients = N * K + (a->dbias != NULL ? N : 0.0);
    (void)E;
    return (gidd_bench_work){product_flops(a->M, a->N, a->K),
                             bytes_of(a->dtype) * (M * N + M * K) + passes(a->accumulate) * FP32 * gradients};
}

// Pairs of positions in which one sees the other.
static double pairs(int64_t T, gidd_attention_kind kind)
{
    return kind == GIDD_ATTENTION_CAUSAL ? (double)T * (double)(T + 1) / 2.0 : (double)T * (double)T;
}

static gidd_bench_work work_attention_fwd(gidd_dtype E, const gidd_attention_fwd_args *a)
{
    const double heads = (double)a->B * (double)a->H, T = (double)a->T, d = (double)a->d;
    return (gidd_bench_work){4.0 * heads * pairs(a->T, a->kind) * d,
                             bytes_of(E) * 4.0 * heads * T * d + FP32 * (heads * T + T * d)};
}

static gidd_bench_work work_attention_bwd(gidd_dtype E, const gidd_attention_bwd_args *a)
{
    const double heads = (double)a->B * (double)a->H, T = (double)a->T, d = (double)a->d;
    return (gidd_bench_work){10.0 * heads * pairs(a->T, a->kind) * d,
                             bytes_of(E) * 8.0 * heads * T * d + FP32 * (heads * T + T * d)};
}

static gidd_bench_work work_attention_step(gidd_dtype E, const gidd_attention_step_args *a)
{
    const double heads = (double)a->B * (double)a->H, d = (double)a->d, seen = (double)(a->position + 1);
    return (gidd_bench_work){4.0 * heads * seen * d,
                             bytes_of(E) * 4.0 * heads * d + FP32 * (2.0 * heads * seen * d + d)};
}

/* ---- Norms and activations ------------------------------------------------------------------- */

static gidd_bench_work work_norm_mod_fwd(gidd_dtype E, const gidd_norm_mod_fwd_args *a)
{
    const double rows = (double)a->rows, D = (double)a->cols, listed = (double)a->u_rows, B = rows / (double)a->T;
    const double branch = a->y != NULL ? 1.0 : 0.0, streams = a->x_out != NULL ? 2.0 : 1.0; // x, and perhaps x'
    return (gidd_bench_work){0.0, bytes_of(E) * D * (rows * (streams + branch) + listed) +
                                      FP32 * (2.0 * rows + D + B * D * (2.0 + branch)) +
                                      (a->row_list != NULL ? INT32 * listed : 0.0)};
}

static gidd_bench_work work_norm_mod_bwd(gidd_dtype E, const gidd_norm_mod_bwd_args *a)
{
    const double rows = (double)a->rows, D = (double)a->cols, listed = (double)a->u_rows, B = rows / (double)a->T;
    const double branch = a->y != NULL ? 1.0 : 0.0, above = a->dx_out != NULL ? 1.0 : 0.0;
    const double read = B * D * (1.0 + branch), written = B * D * (2.0 + branch); // of modulations
    return (gidd_bench_work){0.0, bytes_of(E) * D * (rows * (2.0 + above + 2.0 * branch) + listed) +
                                      FP32 * (2.0 * rows + D * (1.0 + passes(a->accumulate)) + read + written) +
                                      (a->row_list != NULL ? INT32 * listed : 0.0)};
}

static gidd_bench_work work_rms_norm_fwd(gidd_dtype E, const gidd_rms_norm_fwd_args *a)
{
    const double rows = (double)a->rows, D = (double)a->cols, streams = a->y != NULL ? 4.0 : 2.0;
    return (gidd_bench_work){0.0, bytes_of(E) * D * rows * streams + FP32 * (rows + D)};
}

static gidd_bench_work work_rms_norm_bwd(gidd_dtype E, const gidd_rms_norm_bwd_args *a)
{
    const double rows = (double)a->rows, D = (double)a->cols, streams = a->dx_out != NULL ? 4.0 : 3.0;
    return (gidd_bench_work){0.0, bytes_of(E) * D * rows * streams + FP32 * (rows + D * (1.0 + passes(a->accumulate)))};
}

static gidd_bench_work work_swiglu_fwd(gidd_dtype E, const gidd_swiglu_fwd_args *a)
{
    return (gidd_bench_work){0.0, bytes_of(E) * (double)a->rows * 3.0 * (double)a->cols};
}

static gidd_bench_work work_swiglu_bwd(gidd_dtype E, const gidd_swiglu_bwd_args *a)
{
    return (gidd_bench_work){0.0, bytes_of(E) * (double)a->rows * 5.0 * (double)a->cols};
}

/* ---- Embedding and time ---------------------------------------------------------------------- */

static gidd_bench_work work_embed_fwd(gidd_dtype E, const gidd_embed_fwd_args *a)
{
    const double rows = (double)a->rows;
    return (gidd_bench_work){0.0, bytes_of(E) * 2.0 * rows * (double)a->cols + INT32 * rows};
}

// Of a further micro-batch as many rows of the table as there are positions, or all.
static gidd_bench_work work_embed_bwd(gidd_dtype E, const gidd_embed_bwd_args *a)
{
    const double rows = (double)a->chunk_count, D = (double)a->cols, table = (double)a->table_rows;
    const double touched = rows < table ? rows : table;
    return (gidd_bench_work){0.0, bytes_of(E) * rows * D + FP32 * D * (a->accumulate ? 2.0 * touched : table) +
                                      rows * (INT32 + (double)sizeof(gidd_embed_chunk))};
}

static double time_cond_weights(int64_t C)
{
    return (double)C * GIDD_TIME_FEATURES + (double)C * (double)C + 2.0 * (double)C;
}

static gidd_bench_work work_time_cond_fwd(gidd_dtype E, const gidd_time_cond_fwd_args *a)
{
    const double B = (double)a->B, C = (double)a->C;
    (void)E;
    return (gidd_bench_work){0.0, FP32 * (B * (GIDD_TIME_FEATURES + 3.0 * C) + time_cond_weights(a->C)) +
                                      B * (double)sizeof(gidd_seq_coef)};
}

static gidd_bench_work work_time_cond_bwd(gidd_dtype E, const gidd_time_cond_bwd_args *a)
{
    const double B = (double)a->B, C = (double)a->C;
    (void)E;
    return (gidd_bench_work){0.0, FP32 * (B * (GIDD_TIME_FEATURES + 3.0 * C) + C * C +
                                          passes(a->accumulate) * time_cond_weights(a->C))};
}

/* ---- Losses ---------------------------------------------------------------------------------- */

// x and one of z and the attention mask; the coefficients of a sequence once.
static gidd_bench_work work_loss(gidd_dtype E, const gidd_loss_args *a)
{
    const double rows = (double)a->rows, logits = rows * (double)a->Vr * (a->mode == GIDD_LOSS_TRAIN ? 2.0 : 1.0);
    return (gidd_bench_work){0.0, bytes_of(E) * logits + rows * ((double)sizeof(gidd_loss_row) + 2.0 * INT32) +
                                      (a->row_list != NULL ? INT32 * rows : 0.0) +
                                      rows / (double)a->T * (double)sizeof(gidd_seq_coef)};
}

static gidd_bench_work work_loss_sums(gidd_dtype E, const gidd_loss_sums_args *a)
{
    const double B = (double)a->B, positions = B * (double)a->T;
    (void)E;
    return (gidd_bench_work){0.0, positions * ((double)sizeof(gidd_loss_row) + 3.0 * INT32) +
                                      B * (double)sizeof(gidd_seq_coef) + 2.0 * (double)sizeof(gidd_loss_sums)};
}

/* ---- Update ---------------------------------------------------------------------------------- */

static gidd_bench_work work_grad_norm(gidd_dtype E, const gidd_grad_norm_args *a)
{
    const int64_t partials = (a->count + GIDD_NORM_CHUNK - 1) / GIDD_NORM_CHUNK;
    (void)E;
    return (gidd_bench_work){0.0, FP32 * (double)a->count + FP64 * (double)partials};
}

static gidd_bench_work work_grad_norm_finish(gidd_dtype E, const gidd_grad_norm_finish_args *a)
{
    (void)E;
    return (gidd_bench_work){0.0, FP64 * (double)a->count + 2.0 * (double)sizeof(gidd_update_state)};
}

static gidd_bench_work work_adamw(gidd_dtype E, const gidd_adamw_args *a)
{
    const double copy = a->copy != NULL ? bytes_of(E) : 0.0;
    return (gidd_bench_work){0.0, (double)a->count * (7.0 * FP32 + copy)};
}

static gidd_bench_work work_ema(gidd_dtype E, const gidd_ema_args *a)
{
    (void)E;
    return (gidd_bench_work){0.0, 3.0 * FP32 * (double)a->count};
}

static gidd_bench_work work_cast(gidd_dtype E, const gidd_cast_args *a)
{
    return (gidd_bench_work){0.0, (double)a->count * (FP32 + bytes_of(E))};
}

/* ---- Generation ------------------------------------------------------------------------------ */

static gidd_bench_work work_sample_step(gidd_dtype E, const gidd_sample_step_args *a)
{
    const double rows = (double)a->rows, width = (double)a->width;
    const double kept = (a->posterior != NULL ? width : 0.0) + (a->entropy != NULL ? 1.0 : 0.0) +
                        (a->kind != GIDD_SAMPLE_ARGMAX ? 1.0 : 0.0); // and the uniform
    return (gidd_bench_work){0.0, rows * (bytes_of(E) * width + 2.0 * INT32 + FP64 * kept +
                                          (a->fixed != NULL ? 1.0 : 0.0))};
}

static gidd_bench_work work_correct_step(gidd_dtype E, const gidd_correct_step_args *a)
{
    return (gidd_bench_work){0.0, (double)a->rows * (bytes_of(E) * (double)a->width + 3.0 * INT32 + 2.0 * FP64)};
}

gidd_bench_work gidd_bench_work_of(gidd_bench_slot slot, gidd_dtype E, const void *arguments)
{
    switch (slot) {
#define WORK_OF_SLOT(slot, kind)                                                                   \
    case GIDD_BENCH_SLOT_##slot:                                                                   \
        return work_##kind(E, arguments);
        GIDD_KERNEL_SLOTS(WORK_OF_SLOT)
#undef WORK_OF_SLOT
    case GIDD_BENCH_SLOT_COUNT:
        break;
    }
    return (gidd_bench_work){0.0, 0.0};
}
