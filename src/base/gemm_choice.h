/* SPDX-License-Identifier: Apache-2.0
 *
 * The algorithm that a library of matrix products was told to use for one kind of product.
 */
#ifndef GIDD_BASE_GEMM_CHOICE_H
#define GIDD_BASE_GEMM_CHOICE_H

enum { GIDD_GEMM_KEY_SIZE = 128, GIDD_GEMM_ALGORITHM_BYTES = 64 };

typedef struct gidd_gemm_choice {
    char          key[GIDD_GEMM_KEY_SIZE]; /* shape, transposition, types, epilogue, alignment: printable ASCII */
    unsigned char algorithm[GIDD_GEMM_ALGORITHM_BYTES]; /* the library's own */
} gidd_gemm_choice;

#endif
