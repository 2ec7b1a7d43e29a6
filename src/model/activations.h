/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything a pass through the network writes, planned as one table and held in one allocation.
 * Private to the model room.
 *
 *   TRAIN   every block has its own buffers: backward reads them. On top of them four that all blocks
 *           share in backward: dx (residual stream), branch (branch output), du (norm output), wide.
 *           With recomputation (gidd_recompute) blocks have their own only of what it keeps, and take
 *           turns in one set of the rest; backward of a block fills that set again first
 *   INFER   all blocks share x_final, u_final, branch and wide; the residual stream is updated in place
 *
 * The names of the table are those that VECTORS.md gives the intermediates, where it has one.
 */
#ifndef GIDD_MODEL_ACTIVATIONS_H
#define GIDD_MODEL_ACTIVATIONS_H

#include "kernels/device.h"
#include "model/model.h"

/* What the count of a buffer's rows follows. */
typedef enum gidd_activation_per {
    GIDD_PER_TOKEN = 0, /* B*T                   */
    GIDD_PER_SEQUENCE,  /* B                     */
    GIDD_PER_POSITION,  /* T                     */
    GIDD_PER_HEAD_ROW,  /* rows of logits at once */
} gidd_activation_per;

/* Which line of the memory plan a buffer counts in. */
typedef enum gidd_activation_area {
    GIDD_AREA_BLOCKS = 0,
    GIDD_AREA_CONDITIONING,
    GIDD_AREA_HEAD,
    GIDD_AREA_BACKWARD,
    GIDD_AREA_COUNT,
} gidd_activation_area;

typedef struct gidd_activation {
    char                 name[32];
    gidd_activation_area area;
    gidd_activation_per  per;
    int64_t              cols;   /* elements of a row                          */
    gidd_dtype           dtype;
    size_t               bytes;  /* of the largest micro-batch, rounded to 256 */
    void                *memory; /* on the device                              */
    void                *slot;   /* the pointer variable that gets `memory`    */
} gidd_activation;

/* A block's parameters (element offsets into the flat buffers), modulations and activations. The decoder's has
 * fc1 [B*T][2F] (gates, values), gelu [B*T][F] (SwiGLU's output), and no means, biases and modulations. */
typedef struct gidd_block {
    int64_t norm1, qkv_w, out_w, norm2, fc1_w, fc1_b, fc2_w, fc2_b;
    int64_t mods;   /* its six vectors inside a row of modulations: shift_a ... gate_m */
    void   *x1;     /* [B*T][D]  E  residual stream before attention                   */
    float  *mean1, *rstd1; /* [B*T]                                                    */
    void   *u1;     /* [B*T][D]  E  modulated norm of x1                               */
    void   *qkv;    /* [B*T][3D] E                                                     */
    float  *lse;    /* [B][H][T]                                                       */
    void   *attn;   /* [B*T][D]  E  heads, concatenated                                */
    void   *attn_y; /* [B*T][D]  E  attn times W_out: the branch's output, not gated   */
    void   *x2;     /* [B*T][D]  E  residual stream before the MLP                     */
    float  *mean2, *rstd2; /* [B*T]                                                    */
    void   *u2;     /* [B*T][D]  E                                                     */
    void   *fc1;    /* [B*T][4D] E  before GELU; NULL in INFER                         */
    void   *gelu;   /* [B*T][4D] E                                                     */
    void   *mlp_y;  /* [B*T][D]  E  the branch's output, not gated                     */
} gidd_block;

/* How far the loaded batch is: what may be asked for next. */
typedef enum gidd_stage {
    GIDD_STAGE_NONE = 0,      /* nothing was computed, or backward has used it up        */
    GIDD_STAGE_TRUNK,         /* the blocks are done: x_final is not yet summed          */
    GIDD_STAGE_NORMED,        /* u_final has all rows                                    */
    GIDD_STAGE_NORMED_LISTED, /* u_final has the rows of batch.rows                      */
    GIDD_STAGE_DU,            /* du is the gradient of all rows of u_final               */
    GIDD_STAGE_DU_LISTED,     /* likewise of the listed rows                             */
} gidd_stage;

typedef struct gidd_activations {
    gidd_recompute   recompute;
    gidd_activation *table; /* owned */
    int64_t          table_count;
    void            *memory; /* owned, on the device */
    size_t           bytes;
    gidd_block      *blocks; /* owned: [L]           */
    gidd_block       turns;  /* buffers in which blocks take turns; NULL: each block has its own */
    void            *batch_memory; /* owned by the model: the loaded batch, on the device */
    size_t           batch_bytes;

    /* element offsets of the parameters outside the blocks */
    int64_t embedding, mods_w, mods_b, time_w0, time_b0, time_w2, time_b2;
    int64_t head_w, head_b, norm_final; /* head_b -1: none */
    int64_t mods_final;  /* the output layer's shift and scale in a row of modulations */
    int64_t mods_stride; /* 6DL + 2D                                                   */

    float *features, *hidden, *embedding_t, *c; /* [B][256], [B][C] three times: time conditioning */
    float *mods;                                /* [B][stride]                                     */
    float *rope;                                /* [T][d/2][2]                                     */
    void  *x_final;                             /* [B*T][D] E  residual stream after all blocks    */
    float *mean_final, *rstd_final;             /* [B*T]                                           */
    void  *u_final;                             /* [rows][D] E input of the output matrix          */
    void  *logits;                              /* [head_rows][Vr] E, dlogits in training          */

    void  *dx, *du; /* [B*T][D]  E  TRAIN: gradients of the residual stream and of a norm's output     */
    void  *branch;  /* [B*T][D]  E  TRAIN: gradient of a branch's output; INFER: the output            */
    void  *wide;    /* [B*T][4D] E  TRAIN: gradient of qkv or before GELU; INFER: qkv or GELU's output */
    float *dmods;   /* [B][stride]                                                                     */
    float *dc;      /* [B][C]                                                                          */

    void  *act; /* [B*T][F] E  decoder: SwiGLU's output (INFER) or its gradient (TRAIN); wide is then [B*T][2F] */
    const struct gidd_cache *cache; /* decoder: attend to this instead of the batch's own positions; NULL: not */

    gidd_stage stage;
} gidd_activations;

/* The table for a model of which device, params, mode and sizes are set; nothing is allocated on the
 * device. Owned by the caller (gidd_activations_destroy). Local. */
gidd_status gidd_activations_plan(gidd_model *model, gidd_activations **activations_p);

/* Allocates what was planned on the model's device and points every buffer into it. Local. */
gidd_status gidd_activations_allocate(gidd_activations *activations, const gidd_model *model);

/* NULL-safe. Local. */
void gidd_activations_destroy(gidd_activations *activations, gidd_device *device);

/* Rows of a buffer for a batch of B sequences of T tokens. Local. */
int64_t gidd_activation_rows(const gidd_activation *activation, int64_t B, int64_t T,
                             int64_t head_rows);

/* A buffer to be: what it counts in, how many rows of how many elements of which type. */
typedef struct gidd_buffer_kind {
    gidd_activation_area area;
    gidd_activation_per  per;
    int64_t              cols;
    gidd_dtype           dtype;
} gidd_buffer_kind;

/* Appends a buffer to the table. `slot` is the address of the pointer variable, of whatever element type, that
 * allocation sets; the name is what gidd_model_inspect calls it. Local. */
void gidd_activations_add(gidd_activations *activations, void *slot, gidd_buffer_kind kind,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The first element in memory of a tensor that exists. Local. */
int64_t gidd_activations_place(const gidd_params *params, const char *name);

/* The diffusion network's functions of architecture.h. Local. */
void gidd_dit_plan(gidd_activations *activations, const gidd_model *model);
void gidd_dit_share(gidd_activations *activations, int64_t L);

/* A parameter's place: the copy of type E that the matrix products read, its fp32 value
 * (of tensors whose exact_at says so), and its gradient. Local. */
static inline const void *gidd_model_weight(const gidd_model *model, int64_t at)
{
    return (const char *)model->weights + (size_t)at * gidd_dtype_bytes(model->device->dtype);
}

static inline const float *gidd_model_master(const gidd_model *model, int64_t at)
{
    return model->exact == NULL ? model->master + at
                                : model->exact + gidd_params_exact_place(model->params, at);
}

static inline float *gidd_model_grad(const gidd_model *model, int64_t at)
{
    return model->grads + at;
}

#endif
