/* SPDX-License-Identifier: Apache-2.0
 *
 * The losses of SPEC section 5 (GIDD: KL + Itakura-Saito) and section 6 (MDLM), and the cross-entropy of
 * the next token (autoregressive baseline), row by row, with the gradient with respect to the logits
 * written in place.
 *
 * A row of logits has Vr columns; the mask column's softmax is 0; the Vr - V padding columns take part
 * in the softmax. For the next token it is over the V columns, the mask's among them, and the others'
 * gradient is 0. Arithmetic in fp32 whatever E is.
 */
#ifndef GIDD_KERNELS_LOSS_H
#define GIDD_KERNELS_LOSS_H

#include "diffusion/batch.h"
#include "kernels/device.h"

typedef enum gidd_loss_mode {
    GIDD_LOSS_EVALUATE = 0, /* logits are only read                                               */
    GIDD_LOSS_TRAIN,        /* logits become dlogits = scale * d(w (KL + IS))/dlogits              */
} gidd_loss_mode;

/* What a row of logits says about its position. */
typedef struct gidd_loss_row {
    float kl;        /* GIDD: KL(q || r).            MDLM, next: 0                                */
    float is;        /* GIDD: rho - log rho - 1.     MDLM: -log xhat_x at masked positions, else 0;
                        next: -log p of the position's successor, 0 where none is predicted       */
    float log_ratio; /* GIDD: log q_z - log r_z.     MDLM, next: 0                                */
    float log_px;    /* log xhat_x: the probability given to the clean token; next: -is           */
} gidd_loss_row;

/* Row r of logits belongs to position p = row_list ? row_list[r] : first_position + r; its result goes
 * to terms[p], its sequence is p / T. A row whose entry is GIDD_NO_POSITION has no terms; in TRAIN it
 * becomes zeros. Slots loss_gidd, loss_mdlm and loss_next take the same arguments; loss_next reads
 * attention_mask instead of z and mask_id: a position with 1 that is not the last of its sequence predicts
 * x of the next one, with the weight w_keep. */
typedef struct gidd_loss_args {
    void                *logits;   /* [rows][Vr] E  read; in TRAIN overwritten                     */
    gidd_loss_row       *terms;    /* [B*T]         written at the rows' positions                 */
    const int32_t       *x, *z;    /* [B*T]                                                        */
    const int32_t       *attention_mask; /* [B*T] of loss_next                                     */
    const int32_t       *row_list; /* [rows] or NULL                                               */
    int64_t              first_position;
    const gidd_seq_coef *coef;     /* [B]                                                          */
    int64_t              rows, T;
    int64_t              V, Vr;
    int32_t              mask_id;
    float                scale;    /* 1 / (G*T): every reduction is then a plain sum               */
    gidd_loss_mode       mode;
} gidd_loss_args;

/* Sums over positions, in float64 and in one fixed order. a: attention mask, w: loss weight, omega:
 * ELBO weight of the position's kind. Sequences with row_weight 0 count nowhere. */
typedef struct gidd_loss_sums {
    double loss;         /* sum of w (KL + IS) over all positions (the trained scalar times B*T; for
                            the next token times their number, which is `tokens`)                  */
    double positions;    /* number of positions                                                     */
    double elbo;         /* sum of omega (KL + IS) a                                                 */
    double tokens;       /* sum of a                                                                 */
    double w_kl, w_is;   /* sums of w KL a, w IS a                                                   */
    double w;            /* sum of w a                                                               */
    double clean_loss;   /* the share of `loss` that comes from positions with z = x                 */
    double clean_elbo;   /* likewise of `elbo`                                                       */
    double noised_tokens; /* sum of a over positions with z != x                                    */
    double min_log_px;   /* smallest log xhat_x over positions with z = x; +inf: none                */
    double nonfinite;    /* positions whose terms are not finite                                     */
} gidd_loss_sums;

/* Adds `part` to `total` (the smaller min_log_px), both on the host. Local. */
static inline void gidd_loss_sums_add(gidd_loss_sums *total, const gidd_loss_sums *part)
{
    total->loss += part->loss;
    total->positions += part->positions;
    total->elbo += part->elbo;
    total->tokens += part->tokens;
    total->w_kl += part->w_kl;
    total->w_is += part->w_is;
    total->w += part->w;
    total->clean_loss += part->clean_loss;
    total->clean_elbo += part->clean_elbo;
    total->noised_tokens += part->noised_tokens;
    total->min_log_px = part->min_log_px < total->min_log_px ? part->min_log_px : total->min_log_px;
    total->nonfinite += part->nonfinite;
}

/* Adds a micro-batch's sums to *sums, whose first user sets min_log_px to +inf and the rest to 0. With
 * `skip_clean` the terms of positions with z = x were not computed: they are not read and add 0 to loss,
 * elbo, w_kl and w_is, but the positions still count in positions, tokens and w. */
typedef struct gidd_loss_sums_args {
    gidd_loss_sums      *sums;  /* one, on the device; added to                                     */
    const gidd_loss_row *terms; /* [B*T]                                                            */
    const int32_t       *x, *z, *attention_mask;
    const gidd_seq_coef *coef;
    int64_t              B, T;
    int32_t              mask_id;
    int                  skip_clean;
} gidd_loss_sums_args;

#endif
