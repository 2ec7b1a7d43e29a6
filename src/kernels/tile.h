/* SPDX-License-Identifier: Apache-2.0
 *
 * A small fp32 matrix product for operands that lie in the caller's cache: attention's products are
 * too small and too many for a GEMM library. Written with the compilers' portable vector types; one
 * tile of C stays in registers for the whole sum.
 *
 * Operands are padded by the caller: rows of C (and of A) to GIDD_TILE_ROWS, columns of C (and of
 * B) to GIDD_TILE_COLS; what the padding holds only reaches the padding of C. Private to the CPU
 * device. Local.
 */
#ifndef GIDD_KERNELS_TILE_H
#define GIDD_KERNELS_TILE_H

#include <stdint.h>

#if defined(__AVX512F__)
enum { GIDD_LANES = 16, GIDD_TILE_ROWS = 12 };
#elif defined(__AVX__)
enum { GIDD_LANES = 8, GIDD_TILE_ROWS = 6 };
#else
enum { GIDD_LANES = 4, GIDD_TILE_ROWS = 6 };
#endif
enum { GIDD_TILE_COLS = 2 * GIDD_LANES };

// aligned(4): may be read from any float's address; may_alias: that memory is declared as floats
typedef float gidd_vec __attribute__((vector_size(4 * GIDD_LANES), aligned(4), may_alias));

/* A matrix inside a buffer: element (i, j) is at data[i * row + j * col]. */
typedef struct gidd_view {
    const float *data;
    int64_t      row, col;
} gidd_view;

/* One tile: c (+)= a[0..ROWS)[0..depth) * b[0..depth)[0..COLS). */
static inline void gidd_tile(float *c, int64_t c_row, gidd_view a, const float *b, int64_t b_row,
                             int64_t depth, int accumulate)
{
    gidd_vec sum[GIDD_TILE_ROWS][2];
#pragma GCC unroll 12
    for (int i = 0; i < GIDD_TILE_ROWS; i++) {
        sum[i][0] = (gidd_vec){0};
        sum[i][1] = (gidd_vec){0};
    }
    for (int64_t k = 0; k < depth; k++) {
        gidd_vec     b0 = *(const gidd_vec *)(b + k * b_row);
        gidd_vec     b1 = *(const gidd_vec *)(b + k * b_row + GIDD_LANES);
        const float *column = a.data + k * a.col;
#pragma GCC unroll 12
        for (int i = 0; i < GIDD_TILE_ROWS; i++) {
            float factor = column[i * a.row];
            sum[i][0] += factor * b0;
            sum[i][1] += factor * b1;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < GIDD_TILE_ROWS; i++) {
        gidd_vec *left = (gidd_vec *)(c + i * c_row);
        gidd_vec *right = (gidd_vec *)(c + i * c_row + GIDD_LANES);
        if (accumulate) {
            sum[i][0] += *left;
            sum[i][1] += *right;
        }
        *left = sum[i][0];
        *right = sum[i][1];
    }
}

/* c [rows][cols] (+)= a [rows][depth] * b [depth][cols]; rows and cols are rounded up to whole
 * tiles. */
static inline void gidd_tiles(float *c, int64_t c_row, gidd_view a, const float *b, int64_t b_row,
                              int64_t rows, int64_t cols, int64_t depth, int accumulate)
{
    for (int64_t j = 0; j < cols; j += GIDD_TILE_COLS) {
        for (int64_t i = 0; i < rows; i += GIDD_TILE_ROWS) {
            gidd_view part = {a.data + i * a.row, a.row, a.col};
            gidd_tile(c + i * c_row + j, c_row, part, b + j, b_row, depth, accumulate);
        }
    }
}

#endif
