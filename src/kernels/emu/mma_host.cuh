/* SPDX-License-Identifier: Apache-2.0
 *
 * Host halves of mma.cuh. The lanes of a warp meet; the last to come computes for all, from and
 * into their registers in PTX's layouts.
 */
#ifndef GIDD_KERNELS_EMU_MMA_HOST_CUH
#define GIDD_KERNELS_EMU_MMA_HOST_CUH

#include "kernels/emu/cuda_host.cuh"

namespace gidd_emu {

static inline float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
static inline float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

struct mma_registers {
    float *d;
    const uint32_t *a, *b;
};

static inline void multiply(void *const operands[GIDD_EMU_WARP], uint32_t)
{
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < GIDD_EMU_WARP; lane++) {
        const auto *of = static_cast<const mma_registers *>(operands[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            int row = g + 8 * (i % 2), column = 2 * t + 8 * (i / 2);
            a[row][column] = low_half(of->a[i]);
            a[row][column + 1] = high_half(of->a[i]);
            d[g + 8 * (i / 2)][2 * t + i % 2] = of->d[i];
        }
        for (int i = 0; i < 2; i++) {
            b[2 * t + 8 * i][g] = low_half(of->b[i]);
            b[2 * t + 8 * i + 1][g] = high_half(of->b[i]);
        }
    }
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++) {
            for (int j = 0; j < 8; j++) {
                d[i][j] += a[i][k] * b[k][j];
            }
        }
    }
    for (int lane = 0; lane < GIDD_EMU_WARP; lane++) {
        const auto *of = static_cast<const mma_registers *>(operands[lane]);
        for (int i = 0; i < 4; i++) {
            of->d[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
        }
    }
}

struct matrix_rows {
    uint32_t *r;
    const void *row;
};

template <bool TRANSPOSED>
static inline void load_matrices(void *const operands[GIDD_EMU_WARP], uint32_t)
{
    uint16_t matrix[4][8][8];
    for (int lane = 0; lane < GIDD_EMU_WARP; lane++) {
        const void *row = static_cast<const matrix_rows *>(operands[lane])->row;
        if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
            gidd_emu_fail("ldmatrix: lane %d names a row that is not 16-byte aligned: %p", lane,
                          row);
        }
        memcpy(matrix[lane / 8][lane % 8], row, 16);
    }
    for (int lane = 0; lane < GIDD_EMU_WARP; lane++) {
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            uint32_t low = TRANSPOSED ? matrix[i][2 * t][g] : matrix[i][g][2 * t];
            uint32_t high = TRANSPOSED ? matrix[i][2 * t + 1][g] : matrix[i][g][2 * t + 1];
            static_cast<const matrix_rows *>(operands[lane])->r[i] = low | high << 16;
        }
    }
}

} // namespace gidd_emu

static inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    gidd_emu::mma_registers own = {d, a, b};
    gidd_emu_meet(0xffffffffu, gidd_emu::multiply, &own);
}

static inline void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    gidd_emu::matrix_rows own = {r, row};
    gidd_emu_meet(0xffffffffu, gidd_emu::load_matrices<false>, &own);
}

static inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    gidd_emu::matrix_rows own = {r, row};
    gidd_emu_meet(0xffffffffu, gidd_emu::load_matrices<true>, &own);
}

static inline void copy_async(void *target, const void *source, int source_bytes = 16)
{
    gidd_emu_copy_async(target, source, source_bytes);
}

static inline void copy_async_commit()
{
    gidd_emu_copy_commit();
}

template <int LEAVE> static inline void copy_async_wait()
{
    gidd_emu_copy_wait(LEAVE);
}

#endif
