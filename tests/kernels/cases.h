/* SPDX-License-Identifier: Apache-2.0
 *
 * The one list of shapes: tests and gradient checks compare them with the reference on every device.
 * They contain 1, odd numbers, non-multiples of any tile, and the widths
 * of real models.
 */
#ifndef GIDD_TESTS_KERNELS_CASES_H
#define GIDD_TESTS_KERNELS_CASES_H

#include <stdint.h>

typedef struct linear_case {
    int64_t M, N, K;
} linear_case;

static const linear_case linear_cases[] = {
    {1, 1, 1},      {1, 7, 3},     {3, 1, 17},      {5, 33, 9},     {17, 31, 65},   {64, 64, 64},
    {2, 1000, 128}, {300, 48, 20}, {13, 1536, 512}, {9, 512, 2048}, {65, 257, 129}, {3, 5030, 96},
};

typedef struct norm_mod_case {
    int64_t B, T, D;
    int     with_y;   /* a branch is added             */
    int     row_list; /* u is written for listed rows  */
} norm_mod_case;

static const norm_mod_case norm_mod_cases[] = {
    {1, 1, 8, 1, 0},  {2, 3, 24, 1, 0},   {3, 65, 96, 1, 0},  {2, 7, 512, 1, 0},
    {1, 5, 64, 0, 0}, {2, 130, 40, 0, 0}, {2, 9, 1024, 1, 0}, {3, 70, 96, 1, 1},
    {1, 4, 8, 0, 1},  {2, 31, 512, 1, 1}, {1, 5, 2056, 1, 0}, {2, 3, 768, 1, 0},
    {1, 3, 1536, 0, 0}, {1, 2, 4096, 1, 1},
};

typedef struct rms_norm_case {
    int64_t rows, D;
    int     with_y; /* a branch is added */
} rms_norm_case;

static const rms_norm_case rms_norm_cases[] = {
    {1, 8, 1},   {6, 24, 1},  {195, 96, 1}, {14, 512, 1},  {5, 64, 0},  {260, 40, 0},
    {18, 1024, 1}, {5, 2056, 1}, {6, 768, 1}, {3, 1536, 0}, {2, 4096, 1},
};

typedef struct swiglu_case {
    int64_t rows, F;
    double  spread; /* gates and values lie in [-spread, spread) */
} swiglu_case;

static const swiglu_case swiglu_cases[] = {
    {1, 8, 1.0}, {7, 24, 6.0}, {3, 520, 4.0}, {65, 128, 30.0}, {2, 3072, 4.0}, {33, 1032, 100.0},
};

typedef struct attention_case {
    int64_t B, T, H, d;
} attention_case;

static const attention_case attention_cases[] = {
    {1, 1, 1, 2},  {1, 2, 1, 4},   {2, 3, 2, 6},     {1, 32, 4, 16},  {2, 47, 3, 32},
    {1, 49, 1, 8}, {1, 97, 2, 64}, {1, 130, 1, 128}, {1, 200, 2, 10},
    {2, 131, 2, 64}, {1, 70, 2, 96}, {1, 257, 1, 32},
};

typedef struct loss_case {
    int64_t rows, T, V, Vr;
    double  p_uniform;
    double  spread; /* logits lie in [-spread, spread) */
} loss_case;

static const loss_case loss_cases[] = {
    {4, 4, 5, 8, 0.1, 3.0},         {12, 4, 97, 128, 0.1, 4.0},      {12, 4, 97, 128, 0.0, 4.0},
    {9, 3, 501, 512, 0.2, 8.0},     {6, 2, 128, 128, 0.1, 30.0},     {6, 3, 1030, 1152, 0.0, 60.0},
    {6, 3, 50259, 50304, 0.1, 5.0}, {6, 3, 50259, 50304, 0.0, 12.0}, {1, 1, 3, 3, 0.2, 1.0},
    {4, 2, 1001, 1003, 0.1, 6.0},
};

typedef struct sample_case {
    int64_t rows, width, stride;
    double  temperature, min_p;
} sample_case;

static const sample_case sample_cases[] = {
    {1, 2, 2, 1.0, 0.0},       {16, 97, 128, 1.0, 0.0}, {16, 97, 128, 0.5, 0.01},
    {9, 501, 512, 1.3, 0.002}, {5, 128, 128, 0.1, 0.0}, {3, 50259, 50304, 1.0, 0.0},
};

#define COUNT_OF(cases) ((int)(sizeof(cases) / sizeof *(cases)))

#endif
