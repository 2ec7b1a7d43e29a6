/* SPDX-License-Identifier: Apache-2.0
 *
 * Linear layers by cuBLASLt, which thinks in columns: a row-major matrix [r][c] is its c x r matrix
 * with leading dimension c. So
 *
 *     y  [M][N] = x W^T     is  y'  (N x M) = op_T(W: K x N) (x: K x M)        k = K
 *     dx [M][K] = dy W      is  dx' (K x M) = (W: K x N) (dy: N x M)           k = N
 *     dW [N][K] = dy^T x    is  dW' (K x N) = (x: K x M) op_T(dy: N x M)       k = M
 *
 * Sums are fp32 (CUBLAS_COMPUTE_32F: no TF32); split-K only with sums in fp32. Bias, GELU (its
 * argument kept) and GELU' are epilogues where cuBLASLt has them for the shape: `pre` has the
 * layout and type of y, begins at a 16-byte address, and its rows are multiples of 8 long.
 * Elsewhere they are passes of linear_passes_cuda.cu.
 *
 * A plan (descriptors and algorithm) is made at the first use of a shape and kept.
 */
#include "kernels/device_cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum gemm_epilogue { PLAIN, BIAS, BIAS_GELU, BIAS_GELU_KEPT, DGELU } gemm_epilogue;

// One product in cuBLASLt's terms: C (m x n) = op(A) op(B) + beta C; A, B of type `in`, C of `out`.
typedef struct gemm_shape {
    int64_t m, n, k;
    int64_t lda, ldb, ldc;
    int transpose_a, transpose_b;
    gidd_dtype in, out;
    gemm_epilogue epilogue;
    int accumulate;
    int alignment; // of all pointers: 256 or less
} gemm_shape;

typedef struct gemm_operands {
    void *c;
    const void *a, *b, *bias;
    void *aux; // the argument of GELU
} gemm_operands;

typedef struct gemm_plan {
    gemm_shape shape;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    int is_usable; // 0: cuBLASLt has nothing for it
} gemm_plan;

enum { MOST_PLANS = 256 };

struct gidd_gemm_cache_cuda {
    const gidd_blas_cuda *blas;
    gemm_plan plans[MOST_PLANS];
    int64_t count;
    gidd_gemm_choice *adopted;
    int64_t adopted_count;
    int times_candidates;
};

_Static_assert(sizeof(cublasLtMatmulAlgo_t) == GIDD_GEMM_ALGORITHM_BYTES, "an algorithm is kept whole");

#define BLAS_TRY(blas, call) GIDD_TRY(blas_check((blas), (call), #call))

static gidd_status blas_check(const gidd_blas_cuda *blas, cublasStatus_t result, const char *call)
{
    if (result == CUBLAS_STATUS_SUCCESS) {
        return GIDD_OK;
    }
    return gidd_fail(result == CUBLAS_STATUS_ALLOC_FAILED ? GIDD_ERR_NOMEM : GIDD_ERR_DEVICE,
                     "cublasLt %s: %s", call, blas->status_text(result));
}

static cudaDataType_t type_of(gidd_dtype dtype)
{
    return dtype == GIDD_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

// ---- plans -----------------------------------------------------------------------------------

gidd_status gidd_gemm_cache_create_cuda(const gidd_blas_cuda *blas, gidd_gemm_cache_cuda **cache_p)
{
    gidd_gemm_cache_cuda *cache = calloc(1, sizeof *cache);
    if (cache == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for GEMM plans");
    }
    cache->blas = blas;
    *cache_p = cache;
    return GIDD_OK;
}

static void release_plan(const gidd_blas_cuda *blas, gemm_plan *plan)
{
    if (plan->operation != NULL) {
        (void)blas->desc_destroy(plan->operation);
    }
    cublasLtMatrixLayout_t layouts[] = {plan->a, plan->b, plan->c};
    for (int i = 0; i < 3; i++) {
        if (layouts[i] != NULL) {
            (void)blas->layout_destroy(layouts[i]);
        }
    }
    memset(plan, 0, sizeof *plan);
}

void gidd_gemm_cache_destroy_cuda(gidd_gemm_cache_cuda *cache)
{
    if (cache != NULL) {
        for (int64_t i = 0; i < cache->count; i++) {
            release_plan(cache->blas, &cache->plans[i]);
        }
        free(cache->adopted);
        free(cache);
    }
}

static int same_shape(const gemm_shape *a, const gemm_shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->transpose_a == b->transpose_a &&
           a->transpose_b == b->transpose_b && a->in == b->in && a->out == b->out &&
           a->epilogue == b->epilogue && a->accumulate == b->accumulate &&
           a->alignment == b->alignment; // leading dimensions follow from the rest
}

static void write_key(char *key, size_t size, const gidd_blas_cuda *blas, const gemm_shape *s)
{
    static const char *const epilogues[] = {"plain", "bias", "bias_gelu", "bias_gelu_kept",
                                            "dgelu"};
    (void)snprintf(key, size, "%lldx%lldx%lld %c%c %s->%s %s%s align%d cublasLt%zu",
                   (long long)s->m, (long long)s->n, (long long)s->k, s->transpose_a ? 'T' : 'N',
                   s->transpose_b ? 'T' : 'N', s->in == GIDD_BF16 ? "bf16" : "fp32",
                   s->out == GIDD_BF16 ? "bf16" : "fp32", epilogues[s->epilogue],
                   s->accumulate ? "+" : "", s->alignment, blas->version());
}

static cublasLtEpilogue_t epilogue_of(gemm_epilogue epilogue)
{
    static const cublasLtEpilogue_t epilogues[] = {
        [PLAIN] = CUBLASLT_EPILOGUE_DEFAULT,
        [BIAS] = CUBLASLT_EPILOGUE_BIAS,
        [BIAS_GELU] = CUBLASLT_EPILOGUE_GELU_BIAS,
        [BIAS_GELU_KEPT] = CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        [DGELU] = CUBLASLT_EPILOGUE_DGELU,
    };
    return epilogues[epilogue];
}

static gidd_status set(const gidd_blas_cuda *blas, const gemm_plan *plan,
                       cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes)
{
    BLAS_TRY(blas, blas->desc_set(plan->operation, attribute, value, bytes));
    return GIDD_OK;
}

static gidd_status make_layout(const gidd_blas_cuda *blas, cublasLtMatrixLayout_t *layout,
                               gidd_dtype dtype, int64_t rows, int64_t columns, int64_t leading)
{
    BLAS_TRY(blas, blas->layout_create(layout, type_of(dtype), (uint64_t)rows, (uint64_t)columns,
                                       leading));
    return GIDD_OK;
}

// Operation and layouts; pointers of bias and argument are set at each call.
static gidd_status describe_plan(const gidd_blas_cuda *blas, gemm_plan *plan)
{
    const gemm_shape *s = &plan->shape;
    cublasOperation_t a = s->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t b = s->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = epilogue_of(s->epilogue);
    BLAS_TRY(blas, blas->desc_create(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    GIDD_TRY(set(blas, plan, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    GIDD_TRY(set(blas, plan, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
    GIDD_TRY(set(blas, plan, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (s->epilogue == BIAS || s->epilogue == BIAS_GELU || s->epilogue == BIAS_GELU_KEPT) {
        cudaDataType_t type = type_of(s->in);
        GIDD_TRY(set(blas, plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
    }
    if (s->epilogue == BIAS_GELU_KEPT || s->epilogue == DGELU) {
        cudaDataType_t type = type_of(s->out);
        GIDD_TRY(set(blas, plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &s->ldc, sizeof s->ldc));
        GIDD_TRY(set(blas, plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, &type, sizeof type));
    }
    GIDD_TRY(make_layout(blas, &plan->a, s->in, s->transpose_a ? s->k : s->m,
                         s->transpose_a ? s->m : s->k, s->lda));
    GIDD_TRY(make_layout(blas, &plan->b, s->in, s->transpose_b ? s->n : s->k,
                         s->transpose_b ? s->k : s->n, s->ldb));
    return make_layout(blas, &plan->c, s->out, s->m, s->n, s->ldc);
}

static gidd_status set_preference(const gidd_blas_cuda *blas, cublasLtMatmulPreference_t preference,
                                  int alignment)
{
    uint64_t workspace = GIDD_CUDA_GEMM_WORKSPACE;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, bytes = (uint32_t)alignment;
    BLAS_TRY(blas, blas->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                        &workspace, sizeof workspace));
    BLAS_TRY(blas, blas->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                        &schemes, sizeof schemes));
    static const cublasLtMatmulPreferenceAttributes_t pointers[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4; i++) {
        BLAS_TRY(blas, blas->preference_set(preference, pointers[i], &bytes, sizeof bytes));
    }
    return GIDD_OK;
}

enum { CANDIDATES = 8, TIMED_RUNS = 5 };

// Enqueues a product with the plan's algorithm, or another.
static gidd_status enqueue(const gidd_cuda *cuda, const gemm_plan *plan, const gemm_operands *at,
                           const cublasLtMatmulAlgo_t *algorithm, void *workspace, cudaStream_t stream)
{
    float one = 1.0f, beta = plan->shape.accumulate ? 1.0f : 0.0f;
    if (at->bias != NULL) {
        GIDD_TRY(
            set(&cuda->blas, plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &at->bias, sizeof at->bias));
    }
    if (at->aux != NULL) {
        GIDD_TRY(set(&cuda->blas, plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &at->aux,
                     sizeof at->aux));
    }
    BLAS_TRY(&cuda->blas, cuda->blas.matmul(cuda->blas.handle, plan->operation, &one, at->a, plan->a,
                                            at->b, plan->b, &beta, at->c, plan->c, at->c, plan->c,
                                            algorithm, workspace, GIDD_CUDA_GEMM_WORKSPACE, stream));
    return GIDD_OK;
}

typedef struct stopwatch {
    cudaStream_t stream;
    cudaEvent_t start, end;
} stopwatch;

// Milliseconds of one run, the fastest of a few; the first is not counted.
static gidd_status time_candidate(const gidd_cuda *cuda, const gemm_plan *plan, const gemm_operands *at,
                                  const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                                  const stopwatch *watch, float *ms_p)
{
    *ms_p = HUGE_VALF;
    for (int i = 0; i <= TIMED_RUNS; i++) {
        float ms = 0.0f;
        GIDD_CUDA_TRY(cudaEventRecord(watch->start, watch->stream));
        GIDD_TRY(enqueue(cuda, plan, at, algorithm, workspace, watch->stream));
        GIDD_CUDA_TRY(cudaEventRecord(watch->end, watch->stream));
        GIDD_CUDA_TRY(cudaEventSynchronize(watch->end));
        GIDD_CUDA_TRY(cudaEventElapsedTime(&ms, watch->start, watch->end));
        *ms_p = i > 0 && ms < *ms_p ? ms : *ms_p;
    }
    return GIDD_OK;
}

// The fastest of the candidates, on the product's own operands: what they hold before the first step does not matter,
// and results go where the first step writes.
static gidd_status time_candidates(const gidd_cuda *cuda, gemm_plan *plan, const gemm_operands *at,
                                   const cublasLtMatmulHeuristicResult_t *candidates, int count, void *workspace)
{
    stopwatch watch = {0};
    gidd_status status = GIDD_OK;
    float best_ms = HUGE_VALF;
    // Elsewhere than on the stream that may be recording, whose thread may not wait else.
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    GIDD_CUDA_TRY(cudaThreadExchangeStreamCaptureMode(&mode));
    GIDD_TRY_GOTO(gidd_cuda_check(cudaStreamCreateWithFlags(&watch.stream, cudaStreamNonBlocking), "cudaStreamCreate"));
    GIDD_TRY_GOTO(gidd_cuda_check(cudaEventCreate(&watch.start), "cudaEventCreate"));
    GIDD_TRY_GOTO(gidd_cuda_check(cudaEventCreate(&watch.end), "cudaEventCreate"));
    for (int i = 0; i < count; i++) {
        float ms = 0.0f;
        GIDD_TRY_GOTO(time_candidate(cuda, plan, at, &candidates[i].algo, workspace, &watch, &ms));
        if (ms < best_ms) {
            best_ms = ms;
            plan->algorithm = candidates[i].algo;
        }
    }
out:
    if (watch.end != NULL) {
        (void)cudaEventDestroy(watch.end);
    }
    if (watch.start != NULL) {
        (void)cudaEventDestroy(watch.start);
    }
    if (watch.stream != NULL) {
        (void)cudaStreamDestroy(watch.stream);
    }
    (void)cudaThreadExchangeStreamCaptureMode(&mode);
    return status;
}

// What cuBLASLt thinks fastest, or what is. No answer is not an error: the plan stays unusable.
static gidd_status ask_heuristic(gidd_device *device, gemm_plan *plan, const gemm_operands *at,
                                 cublasLtMatmulPreference_t preference)
{
    const gidd_cuda *cuda = gidd_cuda_of(device);
    cublasLtMatmulHeuristicResult_t answers[CANDIDATES];
    int count = 0, good = 0, wanted = cuda->gemms->times_candidates ? CANDIDATES : 1;
    GIDD_TRY(set_preference(&cuda->blas, preference, plan->shape.alignment));
    cublasStatus_t result = cuda->blas.heuristic(cuda->blas.handle, plan->operation, plan->a, plan->b, plan->c,
                                                 plan->c, preference, wanted, answers, &count);
    for (int i = 0; result == CUBLAS_STATUS_SUCCESS && i < count; i++) {
        if (answers[i].state == CUBLAS_STATUS_SUCCESS) {
            answers[good++] = answers[i];
        }
    }
    if (good == 0) {
        return GIDD_OK;
    }
    plan->algorithm = answers[0].algo;
    plan->is_usable = 1;
    return good > 1 ? time_candidates(cuda, plan, at, answers, good, device->workspace) : GIDD_OK;
}

static gidd_status choose_algorithm(gidd_device *device, gemm_plan *plan, const gemm_operands *at)
{
    gidd_cuda *cuda = gidd_cuda_of(device);
    char key[sizeof cuda->gemms->adopted->key];
    write_key(key, sizeof key, &cuda->blas, &plan->shape);
    for (int64_t i = 0; i < cuda->gemms->adopted_count; i++) {
        const gidd_gemm_choice *choice = &cuda->gemms->adopted[i];
        if (strcmp(choice->key, key) == 0) {
            memcpy(&plan->algorithm, choice->algorithm, sizeof plan->algorithm);
            plan->is_usable = 1;
            return GIDD_OK;
        }
    }
    cublasLtMatmulPreference_t preference = NULL;
    BLAS_TRY(&cuda->blas, cuda->blas.preference_create(&preference));
    gidd_status status = ask_heuristic(device, plan, at, preference);
    (void)cuda->blas.preference_destroy(preference);
    return status;
}

static gidd_status plan_of(gidd_device *device, const gemm_shape *shape, const gemm_operands *at,
                           gemm_plan **plan_p)
{
    gidd_cuda *cuda = gidd_cuda_of(device);
    gidd_gemm_cache_cuda *cache = cuda->gemms;
    for (int64_t i = 0; i < cache->count; i++) {
        if (same_shape(&cache->plans[i].shape, shape)) {
            *plan_p = &cache->plans[i];
            return GIDD_OK;
        }
    }
    if (cache->count == MOST_PLANS) {
        return gidd_fail(GIDD_ERR_ARG, "more than %d shapes of matrix products", MOST_PLANS);
    }
    gemm_plan *plan = &cache->plans[cache->count];
    plan->shape = *shape;
    gidd_status status = describe_plan(&cuda->blas, plan);
    if (status == GIDD_OK) {
        status = choose_algorithm(device, plan, at);
    }
    if (status != GIDD_OK) {
        release_plan(&cuda->blas, plan);
        return status;
    }
    cache->count++;
    device->allocation_count++; // host memory, once a shape, as on the CPU
    *plan_p = plan;
    return GIDD_OK;
}

gidd_status gidd_gemm_tune_cuda(gidd_device *device)
{
    gidd_cuda_of(device)->gemms->times_candidates = 1;
    return GIDD_OK;
}

int64_t gidd_gemm_choices_cuda(const gidd_device *device, gidd_gemm_choice *choices,
                               int64_t most)
{
    const gidd_gemm_cache_cuda *cache = gidd_cuda_of(device)->gemms;
    int64_t count = 0;
    for (int64_t i = 0; i < cache->count; i++) {
        if (cache->plans[i].is_usable) {
            if (count < most) {
                write_key(choices[count].key, sizeof choices[count].key, cache->blas,
                          &cache->plans[i].shape);
                memcpy(choices[count].algorithm, &cache->plans[i].algorithm,
                       sizeof choices[count].algorithm);
            }
            count++;
        }
    }
    return count;
}

gidd_status gidd_gemm_adopt_cuda(gidd_device *device, const gidd_gemm_choice *choices,
                                 int64_t count)
{
    gidd_gemm_cache_cuda *cache = gidd_cuda_of(device)->gemms;
    if (cache->count > 0 || cache->adopted != NULL || count < 0) {
        return gidd_fail(GIDD_ERR_ARG,
                         "GEMM algorithms are adopted once, before the first product");
    }
    cache->adopted = calloc((size_t)count + 1, sizeof *choices);
    if (cache->adopted == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld GEMM algorithms", (long long)count);
    }
    if (count > 0) {
        memcpy(cache->adopted, choices, (size_t)count * sizeof *choices);
    }
    cache->adopted_count = count;
    return GIDD_OK;
}

// ---- running ---------------------------------------------------------------------------------

static int alignment_of(const gemm_operands *at)
{
    uintptr_t bits = (uintptr_t)at->c | (uintptr_t)at->a | (uintptr_t)at->b | (uintptr_t)at->bias |
                     (uintptr_t)at->aux | 256;
    return (int)(bits & (~bits + 1)); // the lowest set bit
}

// Enqueues the product. *is_done_p = 0: cuBLASLt cannot (an epilogue, a shape); nothing happened.
static gidd_status run(gidd_device *device, gemm_shape shape, const gemm_operands *at,
                       int *is_done_p)
{
    const gidd_cuda *cuda = gidd_cuda_of(device);
    gemm_plan *plan = NULL;
    if (device->workspace_bytes < GIDD_CUDA_GEMM_WORKSPACE) {
        return gidd_fail(GIDD_ERR_ARG, "a linear layer before gidd_device_reserve()");
    }
    shape.alignment = alignment_of(at);
    GIDD_TRY(plan_of(device, &shape, at, &plan));
    *is_done_p = plan->is_usable;
    return plan->is_usable ? enqueue(cuda, plan, at, &plan->algorithm, device->workspace, cuda->stream) : GIDD_OK;
}

static gidd_status run_or_fail(gidd_device *device, const gemm_shape *shape,
                               const gemm_operands *at)
{
    int is_done = 0;
    GIDD_TRY(run(device, *shape, at, &is_done));
    if (!is_done) {
        char key[128];
        write_key(key, sizeof key, &gidd_cuda_of(device)->blas, shape);
        return gidd_fail(GIDD_ERR_UNSUPPORTED, "cublasLt has no algorithm for %s", key);
    }
    return GIDD_OK;
}

static gidd_status check_shape(const char *slot, int64_t M, int64_t N, int64_t K, int has_buffers)
{
    if (M < 0 || N < 1 || K < 1 || !has_buffers) {
        return gidd_fail(GIDD_ERR_ARG, "%s: M %lld, N %lld, K %lld, or a buffer is missing", slot,
                         (long long)M, (long long)N, (long long)K);
    }
    return GIDD_OK;
}

// Whether `aux` may be an operand of an epilogue.
static int aux_fits(const void *aux, int64_t row)
{
    return (uintptr_t)aux % 16 == 0 && row % 8 == 0;
}

// ---- the slots -------------------------------------------------------------------------------

gidd_status gidd_linear_fwd_cuda(gidd_device *device, const gidd_linear_fwd_args *args)
{
    int with_bias = args->epilogue != GIDD_LINEAR_NONE;
    int with_gelu = args->epilogue == GIDD_LINEAR_BIAS_GELU, is_done = 0;
    GIDD_TRY(check_shape("linear_fwd", args->M, args->N, args->K,
                         args->y != NULL && args->x != NULL && args->w != NULL &&
                             (!with_bias || args->bias != NULL)));
    if (args->M == 0) {
        return GIDD_OK;
    }
    gemm_shape shape = {.m = args->N,
                        .n = args->M,
                        .k = args->K,
                        .lda = args->K,
                        .ldb = args->K,
                        .ldc = args->N,
                        .transpose_a = 1,
                        .in = args->dtype,
                        .out = args->dtype,
                        .epilogue = with_bias ? BIAS : PLAIN};
    gemm_operands at = {
        .c = args->y, .a = args->w, .b = args->x, .bias = with_bias ? args->bias : NULL};
    if (!with_gelu) {
        return run_or_fail(device, &shape, &at);
    }
    if (args->pre == NULL || aux_fits(args->pre, args->N)) {
        gemm_shape fused = shape;
        fused.epilogue = args->pre == NULL ? BIAS_GELU : BIAS_GELU_KEPT;
        at.aux = args->pre;
        GIDD_TRY(run(device, fused, &at, &is_done));
        at.aux = NULL;
    }
    if (is_done) {
        return GIDD_OK;
    }
    at.c = args->pre != NULL ? args->pre : args->y;
    GIDD_TRY(run_or_fail(device, &shape, &at));
    return gidd_gelu_pass_cuda(device, args->y, at.c, args->M * args->N, args->dtype);
}

static gemm_shape shape_of_bwd_data(const gidd_linear_bwd_data_args *args, int64_t rows)
{
    return (gemm_shape){.m = args->K,
                        .n = rows,
                        .k = args->N,
                        .lda = args->K,
                        .ldb = args->N,
                        .ldc = args->K,
                        .in = args->dtype,
                        .out = args->dtype};
}

// Where there is no epilogue: fp32 products of as many rows as the workspace holds, then the pass.
static gidd_status dgelu_by_pass(gidd_device *device, const gidd_linear_bwd_data_args *args)
{
    size_t element = gidd_dtype_bytes(args->dtype);
    float *product = (float *)(void *)((char *)device->workspace + GIDD_CUDA_GEMM_WORKSPACE);
    int64_t most = 0;
    if (device->workspace_bytes > GIDD_CUDA_GEMM_WORKSPACE) {
        size_t bytes = device->workspace_bytes - GIDD_CUDA_GEMM_WORKSPACE;
        most = (int64_t)(bytes / sizeof *product) / args->K;
    }
    if (most < 1) {
        return gidd_fail(GIDD_ERR_ARG, "linear_bwd_data: no workspace for a row of %lld",
                         (long long)args->K);
    }
    for (int64_t row = 0; row < args->M; row += most) {
        int64_t rows = args->M - row < most ? args->M - row : most;
        size_t first = (size_t)(row * args->K) * element;
        gemm_shape shape = shape_of_bwd_data(args, rows);
        gemm_operands at = {.c = product,
                            .a = args->w,
                            .b = (const char *)args->dy + (size_t)(row * args->N) * element};
        shape.out = GIDD_F32;
        GIDD_TRY(run_or_fail(device, &shape, &at));
        GIDD_TRY(gidd_dgelu_pass_cuda(device, (char *)args->dx + first, product,
                                      (const char *)args->pre + first, rows * args->K,
                                      args->dtype));
    }
    return GIDD_OK;
}

gidd_status gidd_linear_bwd_data_cuda(gidd_device *device, const gidd_linear_bwd_data_args *args)
{
    int is_done = 0;
    GIDD_TRY(check_shape("linear_bwd_data", args->M, args->N, args->K,
                         args->dx != NULL && args->dy != NULL && args->w != NULL));
    if (args->M == 0) {
        return GIDD_OK;
    }
    gemm_shape shape = shape_of_bwd_data(args, args->M);
    gemm_operands at = {.c = args->dx, .a = args->w, .b = args->dy};
    if (args->pre == NULL) {
        return run_or_fail(device, &shape, &at);
    }
    if (aux_fits(args->pre, args->K)) {
        shape.epilogue = DGELU;
        memcpy(&at.aux, &args->pre, sizeof at.aux); // only read by this epilogue
        GIDD_TRY(run(device, shape, &at, &is_done));
    }
    return is_done ? GIDD_OK : dgelu_by_pass(device, args);
}

/* The epilogue that sums columns overwrites its result and stores it in C's type; a pass of its own
 * adds in fp32. Which is faster has not been measured. */
gidd_status gidd_linear_bwd_weight_cuda(gidd_device *device,
                                        const gidd_linear_bwd_weight_args *args)
{
    GIDD_TRY(check_shape("linear_bwd_weight", args->M, args->N, args->K,
                         args->dw != NULL && args->dy != NULL && args->x != NULL));
    if (args->dbias != NULL) {
        GIDD_TRY(gidd_column_sum_cuda(device, args));
    }
    if (args->M == 0) {
        return args->accumulate ? GIDD_OK
                                : gidd_device_zero(device, args->dw,
                                                   (size_t)(args->N * args->K) * sizeof(float));
    }
    gemm_shape shape = {.m = args->K,
                        .n = args->N,
                        .k = args->M,
                        .lda = args->K,
                        .ldb = args->N,
                        .ldc = args->K,
                        .transpose_b = 1,
                        .in = args->dtype,
                        .out = GIDD_F32,
                        .accumulate = args->accumulate};
    gemm_operands at = {.c = args->dw, .a = args->x, .b = args->dy};
    return run_or_fail(device, &shape, &at);
}

size_t gidd_linear_workspace_cuda(const gidd_device_limits *limits)
{
    enum { PASS_ROWS = 1024 }; // of the pass that replaces GELU's epilogue
    return GIDD_CUDA_GEMM_WORKSPACE + (size_t)(PASS_ROWS * 4 * limits->D) * sizeof(float);
}
