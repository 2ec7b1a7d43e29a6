/* SPDX-License-Identifier: Apache-2.0
 *
 * The network, of one of two types (params->shape.type). It calls the device's kernel table; it knows
 * neither which device nor how many ranks there are. Functions that compute are asynchronous on the
 * device's stream.
 *
 *   diffusion (SPEC section 2): DiT with adaLN, rotary embedding and bidirectional attention
 *     z, t --embed, time_cond, modulations--> blocks 0..L-1 --> final norm --> head --> loss
 *   autoregressive: Llama-style decoder; the batch's z are its inputs, a position predicts x of the next
 *     z --embed--> causal blocks 0..L-1 --> final norm --> head --> loss
 *
 * One allocation per lifetime: parameters, gradients, activations, logits. Nothing is allocated in a step.
 * A training step of one micro-batch reads
 *
 *     gidd_model_load(model, batch);               // to the device
 *     gidd_model_forward(model);                   // trunk: embed, time, blocks
 *     gidd_model_head(model, &(gidd_head_args){...});   // final norm; then, in chunks of rows, output
 *                                                  // matrix, loss and, in training, their backward
 *     gidd_model_backward(model, &(gidd_backward_args){...});
 */
#ifndef GIDD_MODEL_MODEL_H
#define GIDD_MODEL_MODEL_H

#include "base/status.h"
#include "diffusion/batch.h"
#include "kernels/kernels.h"
#include "model/params.h"
#include "model/slice.h"

typedef enum gidd_model_mode {
    GIDD_MODEL_TRAIN = 0, /* keeps what backward needs; gradients exist */
    GIDD_MODEL_INFER,     /* all blocks share their buffers, no gradients */
} gidd_model_mode;

typedef enum gidd_loss_kind {
    GIDD_LOSS_GIDD = 0,
    GIDD_LOSS_MDLM,
    GIDD_LOSS_NEXT, /* cross-entropy of the next token: autoregressive models, and only they */
} gidd_loss_kind;

/* What backward computes once more instead of keeping it. The same kernels are called with the same
 * arguments, so gradients are the same bits. Memory of a block for a token in elements of type E, of 18 D:
 *
 *   NONE   18 D   nothing
 *   MLP     8 D   from the norm before the MLP to its GELU:   1/3 of a block's forward products
 *   BLOCK   2 D   all but the MLP's second product:           2/3 of them, and attention
 *
 * and once for all blocks what is left of the 18 D. The last block's is still there, so L - 1 blocks pay. */
typedef enum gidd_recompute {
    GIDD_RECOMPUTE_NONE = 0,
    GIDD_RECOMPUTE_MLP,
    GIDD_RECOMPUTE_BLOCK,
} gidd_recompute;

typedef struct gidd_model_args {
    gidd_device       *device; /* borrowed */
    const gidd_params *params; /* borrowed: must outlive the model */
    const gidd_slice  *slice;  /* borrowed likewise; whose masters this rank keeps. NULL: all */
    gidd_model_mode    mode;
    gidd_loss_kind     loss;
    gidd_recompute     recompute; /* TRAIN */
    int64_t            max_B, max_T; /* largest micro-batch */
    int64_t            head_rows;    /* rows of logits at once; 0: equal chunks of <= 512 MiB */
} gidd_model_args;

/* One line of the memory plan: what wants how much. */
typedef struct gidd_plan_line {
    char   name[48];
    size_t bytes;
} gidd_plan_line;

typedef struct gidd_model {
    gidd_device       *device;
    const gidd_params *params;
    const gidd_slice  *slice;
    gidd_model_mode    mode;
    gidd_loss_kind     loss;
    gidd_recompute     recompute;
    int64_t            max_B, max_T, head_rows;
    float             *master;  /* fp32 parameters, on the device: [memory_count], or [slice->own_count] where
                                   `exact` is not NULL                                   */
    void              *weights; /* [memory_count] E copy; == master when E is fp32      */
    float             *exact;   /* [params->exact_count] fp32 copy of the tensors that are read in fp32, where
                                   the masters are a slice (E is bf16); else NULL        */
    float             *grads;   /* [memory_count] fp32; NULL in INFER                   */
    gidd_loss_sums    *sums;    /* on the device: [0] the sums, [1] those of nothing */
    gidd_loss_row     *terms;   /* [max_B*max_T] on the device */
    struct gidd_activations *activations; /* private */
    gidd_batch         batch;   /* the loaded batch: pointers on the device; its counts are there too */
    int64_t            listed_rows; /* rows worked on where only listed ones matter: gidd_model_bucket() */
} gidd_model;

/* Plans and allocates; all parameters are 0 (gidd_model_set_params or _init_params follows). Owned by the
 * caller. GIDD_ERR_CONFIG: micro-batches that the shape does not allow; GIDD_ERR_NOMEM. Local. */
gidd_status gidd_model_create(const gidd_model_args *args, gidd_model **model_p);
/* NULL-safe. Local. */
void gidd_model_destroy(gidd_model *model);

/* The memory plan without allocating on the device: fills up to `capacity` lines (16 suffice), *count_p
 * says how many. The device's workspace is not in it. Local. */
gidd_status gidd_model_plan(const gidd_model_args *args, gidd_plan_line *lines, int64_t capacity,
                            int64_t *count_p);

/* FLOPs (multiply and add count 2) of the matrix products on the token path and of attention, forward and
 * backward. `sequence` is what the model asks for, 6 * (matrix parameters) * T + 12 L T^2 D for T tokens (half of
 * the attention where it is causal): the figure to divide by time when systems are compared. What is executed is
 * less by head_row for every row that does not pass the output matrix, and more by `recompute`. */
typedef struct gidd_model_flops {
    double sequence;
    double head_row;  /* of `sequence`: one row's share of the output matrix                          */
    double recompute; /* of a sequence, beyond `sequence`: forward work that backward does once more */
} gidd_model_flops;

/* Local. */
gidd_model_flops gidd_model_flops_of(const gidd_model_shape *shape, int64_t T, gidd_recompute recompute);

/* FLOPs executed for `sequences` sequences of which `head_rows` rows pass the output matrix. Local. */
static inline double gidd_model_flops_executed(const gidd_model_flops *flops, double sequences, int64_t T,
                                               double head_rows)
{
    const double left_out = sequences * (double)T - head_rows;
    return sequences * (flops->sequence + flops->recompute) - left_out * flops->head_row;
}

/* Fills the masters with initial values (SPEC section 3) and refreshes the E copy. Local. */
gidd_status gidd_model_init_params(gidd_model *model, uint64_t seed);
/* Copies [memory_count] fp32 values from the host into the masters, which are whole, and refreshes the E
 * copy. Local. */
gidd_status gidd_model_set_params(gidd_model *model, const float *values);
/* Refreshes what is derived from the masters (after they were written in place): the E copy and `exact`.
 * Where the masters are a slice, only their part of either: the ranks exchange theirs before the next
 * forward (`exact` is 0 where other ranks' parameters belong, so that it can be summed). Local. */
gidd_status gidd_model_refresh(gidd_model *model);
/* As refresh, of `exact` alone (AdamW writes the E copy itself). Local. */
gidd_status gidd_model_refresh_exact(gidd_model *model);
/* The masters of a part of the slice; `part` is NULL for all of them. Local. */
float *gidd_model_own_master(const gidd_model *model, const gidd_slice_part *part);

/* Makes `batch` (host, laid out by gidd_batch_layout) the model's batch: copies it to the device in stream
 * order; `batch` is pinned until the device has been synchronised. B <= max_B, T <= max_T. Local. */
gidd_status gidd_model_load(gidd_model *model, const gidd_batch *batch);

/* The same with bytes that are on the device already (batch->bytes at `source`). Of `batch` only sizes and
 * counts are read. Local. */
gidd_status gidd_model_load_from(gidd_model *model, const gidd_batch *batch, const void *source);

/* The rows with which a list of row_count of B*T positions is worked on: the next of GIDD_ROW_BUCKETS + 1
 * lengths from 0 to B*T, so that only so many ways to run the head exist. Local. */
enum { GIDD_ROW_BUCKETS = 16 };
int64_t gidd_model_bucket(int64_t row_count, int64_t all);

/* How far the loaded batch is, for one whose passes are to be recorded and not run (kernels/stream.h): sets
 * sizes, listed_rows and what counts as done. Local. */
typedef enum gidd_pass_stage { GIDD_PASS_LOADED = 0, GIDD_PASS_FORWARD, GIDD_PASS_HEAD } gidd_pass_stage;
typedef struct gidd_pretence {
    int64_t       B, T, listed_rows;
    gidd_pass_stage progress;
    int           skip_clean; /* of the head that counts as done */
} gidd_pretence;
void gidd_model_pretend(gidd_model *model, const gidd_pretence *pretence);

/* Embedding, time conditioning and blocks of the loaded batch. Local. */
gidd_status gidd_model_forward(gidd_model *model);

typedef struct gidd_head_args {
    gidd_loss_mode mode;       /* TRAIN: also the head's backward into grads and the trunk's gradient */
    float          scale;      /* 1/(G*T) */
    int            accumulate; /* 0: first micro-batch of a step writes gradients, 1: adds  */
    int            skip_clean; /* only the batch's listed rows go through head and loss     */
    void (*chunk_done)(void *context); /* called between chunks (progress of communication); may be NULL */
    void          *context;
} gidd_head_args;

/* Rows of logits that a head computes for the loaded batch: all, or the listed ones and what rounds them up. Local. */
int64_t gidd_model_head_rows(const gidd_model *model, int skip_clean);

/* Final norm, output matrix and loss over all positions (or the listed ones), once after each forward;
 * adds to model->sums and writes model->terms of those positions (both on the device). Local. */
gidd_status gidd_model_head(gidd_model *model, const gidd_head_args *args);

typedef struct gidd_backward_args {
    int accumulate; /* as in gidd_head_args */
    /* Called when the gradients of `group` are complete in model->grads: enqueue only. May be NULL. */
    void (*grads_ready)(void *context, int32_t group);
    void *context;
} gidd_backward_args;

/* After a training head: gradients of everything below the output matrix, groups 0 ... L+2 in order. Local. */
gidd_status gidd_model_backward(gidd_model *model, const gidd_backward_args *args);

/* Sets the sums to those of nothing; copies them to the host, when they are there. Local. */
gidd_status gidd_model_zero_sums(gidd_model *model);
gidd_status gidd_model_read_sums(gidd_model *model, gidd_loss_sums *sums);

/* Logits of positions [first, first + rows) of the loaded batch after forward, rows <= head_rows, left in
 * device memory at *logits_p ([rows][Vr] E) until the next call. Any number of calls after a forward. Local. */
gidd_status gidd_model_logits(gidd_model *model, int64_t first, int64_t rows, void **logits_p);

/* An intermediate of the last TRAIN forward by the name VECTORS.md gives it ("embed", "block_00", "c",
 * "block0_qkv", "final_in" ...), as float32 on the host; for tests. *count_p elements are written to
 * `values` (capacity elements). "final_in" and the last block's output exist after head or logits;
 * "logits" is what the last chunk left: head_rows rows, in training their gradient. GIDD_ERR_ARG: no
 * such name. Local. */
gidd_status gidd_model_inspect(gidd_model *model, const char *name, float *values, int64_t capacity,
                               int64_t *count_p);

#endif
