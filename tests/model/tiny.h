/* SPDX-License-Identifier: Apache-2.0
 *
 * A model small enough to run in a millisecond, with parameters that are nowhere zero, and batches for it.
 */
#ifndef GIDD_TESTS_MODEL_TINY_H
#define GIDD_TESTS_MODEL_TINY_H

#include "diffusion/schedule.h"
#include "model/model.h"

enum { TINY_D = 32, TINY_L = 2, TINY_H = 2, TINY_C = 16, TINY_T = 16, TINY_B = 4, TINY_V = 61 };
enum { TINY_VR = 128, TINY_MASK = TINY_V - 1, TINY_ROWS = TINY_B * TINY_T };

typedef struct tiny {
    gidd_device  *device;
    gidd_params   params;
    gidd_model   *model;
    gidd_schedule schedule;
    gidd_batch    batch; /* on the host: tiny_fill_batch */
    void         *memory;
} tiny;

typedef struct tiny_args {
    const char     *device; /* NULL: cpu */
    gidd_dtype      dtype;
    gidd_recompute  recompute;
    gidd_model_mode mode;
    gidd_loss_kind  loss;      /* GIDD_LOSS_NEXT: an autoregressive model */
    int64_t         L;         /* 0: TINY_L */
    int64_t         max_B;     /* 0: TINY_B */
    int64_t         head_rows; /* 0: all    */
} tiny_args;

/* A model with all its parameters random; tiny_close releases everything. Fails the test on an error. */
tiny *tiny_open(const tiny_args *args);
void  tiny_close(tiny *t);

/* Random texts, times and noise: rows [first, first + B) of one batch of TINY_B, each cut to T tokens. */
void tiny_fill_batch(tiny *t, int64_t first, int64_t B, int64_t T);

/* Load and forward; then the training head with scale 1 / TINY_ROWS; then backward. */
void tiny_forward(tiny *t);
void tiny_train(tiny *t, int accumulate, int skip_clean);

/* Sum of the weighted loss of the loaded batch over TINY_ROWS, from the device. */
double tiny_loss(tiny *t);

/* ||a - b|| / ||b||. */
double tiny_distance(const float *a, const float *b, int64_t count);

#endif
