/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu.h"

#include "base/vmath.h"

enum {
    PIECE = 1024,       // elements of an elementwise pass handled at once
    DGELU_ROWS = 256,   // rows of dx held in fp32 before GELU' and rounding
    SUM_ROWS = 64,      // rows added up in one accumulator of a column sum
    SUM_COLUMNS = 1024, // columns of a column sum handled at once: long enough for the prefetcher
};

// sqrt(2/pi) and the cubic's coefficient of GELU_tanh.
static const float gelu_scale = 0.7978845608028654f;
static const float gelu_cubic = 0.044715f;

static gidd_status check_shape(const char *slot, int64_t M, int64_t N, int64_t K, int has_buffers)
{
    if (M < 0 || N < 1 || K < 1 || !has_buffers) {
        return gidd_fail(GIDD_ERR_ARG, "%s: M %lld, N %lld, K %lld, or a buffer is missing", slot,
                         (long long)M, (long long)N, (long long)K);
    }
    return GIDD_OK;
}

static gidd_gemm *gemm_of(gidd_device *device)
{
    return ((gidd_cpu *)device->impl)->gemm;
}

// 1/2 v (1 + tanh u) = v / (1 + e^-2u), u = sqrt(2/pi) (v + 0.044715 v^3): exact, and free of
// cancellation.
static inline float gelu(float v)
{
    float u = gelu_scale * (v + gelu_cubic * v * v * v);
    return v / (1.0f + gidd_expf(-2.0f * u));
}

// With s = (1 + tanh u) / 2:  GELU' = s + v * 2 s (1 - s) * du/dv.
static inline float gelu_slope(float v)
{
    float u = gelu_scale * (v + gelu_cubic * v * v * v);
    float slope = gelu_scale * (1.0f + 3.0f * gelu_cubic * v * v);
    float e = gidd_expf(-2.0f * (u < 0.0f ? -u : u)); // in (0, 1]: nothing overflows
    float major = 1.0f / (1.0f + e);                  // the larger of s and 1 - s
    float minor = e * major;
    float s = u < 0.0f ? minor : major;
    float bend = minor > 0.0f ? v * 2.0f * major * minor * slope : 0.0f; // v^3 may have overflown
    return s + bend;
}

static void gelu_pass(void *y, const void *pre, int64_t count, gidd_dtype dtype, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < count; first += PIECE) {
        float        in_scratch[PIECE], out_scratch[PIECE];
        int64_t      length = count - first < PIECE ? count - first : PIECE;
        const float *in = gidd_elements_in(pre, first, length, dtype, in_scratch);
        float       *out = gidd_elements_out(y, first, dtype, out_scratch);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            out[i] = gelu(in[i]);
        }
        gidd_elements_store(y, first, length, dtype, out);
    }
}

gidd_status gidd_linear_fwd_cpu(gidd_device *device, const gidd_linear_fwd_args *args)
{
    int with_bias = args->epilogue != GIDD_LINEAR_NONE;
    GIDD_TRY(check_shape("linear_fwd", args->M, args->N, args->K,
                         args->y != NULL && args->x != NULL && args->w != NULL &&
                             (!with_bias || args->bias != NULL)));
    if (args->M == 0) {
        return GIDD_OK;
    }
    int   with_gelu = args->epilogue == GIDD_LINEAR_BIAS_GELU;
    void *product = with_gelu && args->pre != NULL ? args->pre : args->y;
    GIDD_TRY(gidd_gemm_run(gemm_of(device), &(gidd_gemm_args){
                                                .c = product,
                                                .a = args->x,
                                                .b = args->w,
                                                .bias = with_bias ? args->bias : NULL,
                                                .m = args->M,
                                                .n = args->N,
                                                .k = args->K,
                                                .lda = args->K,
                                                .ldb = args->K,
                                                .ldc = args->N,
                                                .b_order = GIDD_COLUMNS,
                                                .in = args->dtype,
                                                .out = args->dtype,
                                            }));
    if (with_gelu) {
        gelu_pass(args->y, product, args->M * args->N, args->dtype, device->threads);
    }
    return GIDD_OK;
}

// target = E(product * GELU'(pre)); product may be target itself (fp32).
static void dgelu_pass(void *target, int64_t first_row, const float *product, const void *pre,
                       int64_t count, int64_t cols, gidd_dtype dtype, int threads)
{
    int64_t start = first_row * cols;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < count; first += PIECE) {
        float        in_scratch[PIECE], out_scratch[PIECE];
        int64_t      length = count - first < PIECE ? count - first : PIECE;
        const float *in = gidd_elements_in(pre, start + first, length, dtype, in_scratch);
        float       *out = gidd_elements_out(target, start + first, dtype, out_scratch);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            out[i] = product[first + i] * gelu_slope(in[i]);
        }
        gidd_elements_store(target, start + first, length, dtype, out);
    }
}

size_t gidd_linear_workspace_cpu(int64_t M, int64_t K)
{
    return (size_t)((M < DGELU_ROWS ? M : DGELU_ROWS) * K) * sizeof(float);
}

gidd_gemm_args gidd_linear_bwd_data_rows(const gidd_linear_bwd_data_args *args, int64_t row,
                                         int64_t rows, float *product)
{
    return (gidd_gemm_args){.c = product,
                            .a = (const char *)args->dy +
                                 (size_t)(row * args->N) * gidd_dtype_bytes(args->dtype),
                            .b = args->w,
                            .m = rows,
                            .n = args->K,
                            .k = args->N,
                            .lda = args->N,
                            .ldb = args->K,
                            .ldc = args->K,
                            .in = args->dtype,
                            .out = GIDD_F32};
}

// Rows of dx = (dy W) * GELU'(pre), rounded once.
static gidd_status bwd_data_dgelu(gidd_device *device, const gidd_linear_bwd_data_args *args)
{
    gidd_dtype dtype = args->dtype;
    if (dtype == GIDD_BF16) {
        GIDD_TRY(gidd_workspace_check(device, gidd_linear_workspace_cpu(args->M, args->K),
                                      "linear_bwd_data"));
    }
    for (int64_t row = 0; row < args->M; row += DGELU_ROWS) {
        int64_t rows = args->M - row < DGELU_ROWS ? args->M - row : DGELU_ROWS;
        float  *product =
            dtype == GIDD_F32 ? (float *)args->dx + row * args->K : (float *)device->workspace;
        const gidd_gemm_args gemm = gidd_linear_bwd_data_rows(args, row, rows, product);
        GIDD_TRY(gidd_gemm_run(gemm_of(device), &gemm));
        dgelu_pass(args->dx, row, product, args->pre, rows * args->K, args->K, dtype,
                   device->threads);
    }
    return GIDD_OK;
}

gidd_status gidd_linear_bwd_data_cpu(gidd_device *device, const gidd_linear_bwd_data_args *args)
{
    GIDD_TRY(check_shape("linear_bwd_data", args->M, args->N, args->K,
                         args->dx != NULL && args->dy != NULL && args->w != NULL));
    if (args->M == 0) {
        return GIDD_OK;
    }
    if (args->pre != NULL) {
        return bwd_data_dgelu(device, args);
    }
    return gidd_gemm_run(gemm_of(device), &(gidd_gemm_args){
                                              .c = args->dx,
                                              .a = args->dy,
                                              .b = args->w,
                                              .m = args->M,
                                              .n = args->K,
                                              .k = args->N,
                                              .lda = args->N,
                                              .ldb = args->K,
                                              .ldc = args->K,
                                              .in = args->dtype,
                                              .out = args->dtype,
                                          });
}

// sum[j] = column sums of `rows` rows, SUM_ROWS at a time, so that rounding errors do not pile up.
static void column_sums(float *sum, const void *dy, int64_t rows, int64_t stride, int64_t column,
                        int64_t columns, gidd_dtype dtype)
{
    float part[SUM_COLUMNS], scratch[SUM_COLUMNS];
    memset(sum, 0, (size_t)columns * sizeof *sum);
    for (int64_t first = 0; first < rows; first += SUM_ROWS) {
        int64_t end = rows - first < SUM_ROWS ? rows : first + SUM_ROWS;
        memset(part, 0, sizeof part);
        for (int64_t row = first; row < end; row++) {
            const float *in = gidd_elements_in(dy, row * stride + column, columns, dtype, scratch);
            for (int64_t j = 0; j < columns; j++) {
                part[j] += in[j];
            }
        }
        for (int64_t j = 0; j < columns; j++) {
            sum[j] += part[j];
        }
    }
}

// Each block of columns has one thread: the sums do not depend on the number of threads.
static void bias_gradient(const gidd_linear_bwd_weight_args *args, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t column = 0; column < args->N; column += SUM_COLUMNS) {
        float   sum[SUM_COLUMNS];
        int64_t columns = args->N - column < SUM_COLUMNS ? args->N - column : SUM_COLUMNS;
        column_sums(sum, args->dy, args->M, args->N, column, columns, args->dtype);
        for (int64_t j = 0; j < columns; j++) {
            args->dbias[column + j] = (args->accumulate ? args->dbias[column + j] : 0.0f) + sum[j];
        }
    }
}

gidd_status gidd_linear_bwd_weight_cpu(gidd_device *device, const gidd_linear_bwd_weight_args *args)
{
    GIDD_TRY(check_shape("linear_bwd_weight", args->M, args->N, args->K,
                         args->dw != NULL && args->dy != NULL && args->x != NULL));
    if (args->dbias != NULL) {
        bias_gradient(args, device->threads);
    }
    if (args->M == 0) {
        return args->accumulate ? GIDD_OK
                                : gidd_device_zero(device, args->dw,
                                                   (size_t)(args->N * args->K) * sizeof(float));
    }
    return gidd_gemm_run(gemm_of(device), &(gidd_gemm_args){
                                              .c = args->dw,
                                              .a = args->dy,
                                              .b = args->x,
                                              .m = args->N,
                                              .n = args->K,
                                              .k = args->M,
                                              .lda = args->N,
                                              .ldb = args->K,
                                              .ldc = args->K,
                                              .a_order = GIDD_COLUMNS,
                                              .in = args->dtype,
                                              .out = GIDD_F32,
                                              .accumulate = args->accumulate,
                                          });
}
