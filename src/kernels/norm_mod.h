/* SPDX-License-Identifier: Apache-2.0
 *
 * Residual + gate + LayerNorm + modulation in one pass each way (SPEC section 2, steps 2, 6, 7):
 *
 *     x'[r] = x[r] + gate[b] * y[r]                      the residual stream, rounded to E once
 *     u[r]  = LN(x'[r]) * gain * (1 + scale[b]) + shift[b]          b = r / T
 *
 * LN: mean and biased variance over D, eps 1e-5, in fp32, from the rounded x'. gate, scale and shift
 * are D-vectors inside row b of the matrix of all modulations [B][stride].
 */
#ifndef GIDD_KERNELS_NORM_MOD_H
#define GIDD_KERNELS_NORM_MOD_H

#include "diffusion/batch.h"
#include "kernels/device.h"

/* Element offsets of the vectors inside a row of modulations (and of their gradients). */
typedef struct gidd_mod_offsets {
    int64_t shift, scale; /* of this norm                                    */
    int64_t gate;         /* of the branch that produced y; unused without y */
} gidd_mod_offsets;

/* Local; asynchronous on the device's stream. */
typedef struct gidd_norm_mod_fwd_args {
    void            *x_out;    /* [rows][D] E     written: the new residual stream; may alias x          */
    void            *u;        /* [u_rows][D] E   written                                                */
    float           *mean;     /* [rows]          written, kept for backward                             */
    float           *rstd;     /* [rows]          written, kept for backward                             */
    const void      *x;        /* [rows][D] E                                                            */
    const void      *y;        /* [rows][D] E     branch output; NULL: nothing to add (x_out may be NULL)*/
    const float     *gain;     /* [D]                                                                    */
    const float     *mods;     /* [B][stride]                                                            */
    const int32_t   *row_list; /* NULL: u row r is row r; else u row i is row row_list[i]; ascending, then
                                  perhaps GIDD_NO_POSITION, whose rows of u are left as they are         */
    int64_t          u_rows;   /* rows of u: `rows`, or the length of row_list                           */
    gidd_mod_offsets at;
    int64_t          stride;   /* elements of a row of mods                                              */
    int64_t          rows;     /* B*T                                                                    */
    int64_t          cols;     /* D, multiple of 8                                                       */
    int64_t          T;
} gidd_norm_mod_fwd_args;

/* Backward: with g = gradient of x' (dx_out, through later residuals, plus what comes back through LN),
 *     dx = g,   dy = gate * g,   dgate[b] = sum_r g * y,
 *     dshift[b] = sum_r du,   dscale[b] = sum_r du * LN(x') * gain,   dgain = sum_r du * (1+scale) * xhat.
 * Sums over rows in two stages of fixed order. dgate, dscale, dshift are written (not added): each row b
 * belongs to one micro-batch. The other offsets of dmods are not touched. */
typedef struct gidd_norm_mod_bwd_args {
    void            *dx;       /* [rows][D] E   written: gradient of x; may alias dx_out                 */
    void            *dy;       /* [rows][D] E   written; NULL where the forward had no y                 */
    float           *dgain;    /* [D]           written or added to (accumulate)                         */
    float           *dmods;    /* [B][stride]   written at the offsets                                   */
    const void      *du;       /* [u_rows][D] E                                                          */
    const void      *dx_out;   /* [rows][D] E   gradient of x' from above; NULL: none (the last norm)    */
    const void      *x_out;    /* [rows][D] E   x', as kept                                              */
    const void      *y;        /* [rows][D] E   as kept; NULL: none                                      */
    const float     *mean, *rstd; /* [rows]                                                              */
    const float     *gain;
    const float     *mods;
    const int32_t   *row_list; /* as forward; rows outside it have du = 0, and du of no row counts       */
    int64_t          u_rows;
    gidd_mod_offsets at;
    int64_t          stride, rows, cols, T;
    int              accumulate;
} gidd_norm_mod_bwd_args;

#endif
