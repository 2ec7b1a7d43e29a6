/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench gemm: what the device does at best (a large square product, a copy), then the matrix
 * products of the configured model through the device's linear slots, in fp32 and in bf16. The sum of
 * these over a step is a floor under its time: what would be left if all else were free.
 */
#include "tools/bench.h"
#include "tools/bench_ceiling.h"
#include "worker/inference.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { GPT2_IDS = 50257 };

typedef struct product {
    const char *name;
    int64_t M, N, K;
    int64_t count; /* of them in a forward, and in each half of a backward */
} product;

enum { PRODUCT_COUNT = 5 };

typedef struct gemm_work {
    gidd_device *device;
    gidd_dtype dtype;
    gidd_bench_plan plan;
    gidd_bench_ceiling ceiling;
    product products[PRODUCT_COUNT];
    int64_t sequences, T; /* of a micro-batch */
    void *x, *y, *w;      /* inputs, large enough for every product; y stands for dy */
    void *out;            /* y or dx */
    float *dw;
    size_t xy_bytes, w_bytes, dw_bytes;
    double *seconds;                       /* [plan.repeats] */
    double cpu_seconds;                    /* of a run, all measurements' mean */
    double step_seconds, step_cpu_seconds; /* all products of a step */
} gemm_work;

typedef gidd_status (*run_product)(const gemm_work *w, const product *p);

/* One product through one slot, and how often it has run: what is measured. */
typedef struct product_runs {
    const gemm_work *w;
    const product *p;
    run_product run;
    int64_t count;
} product_runs;

static gidd_status run_fwd(const gemm_work *w, const product *p)
{
    return w->device->kernels->linear_fwd(w->device,
                                          &(gidd_linear_fwd_args){.y = w->out,
                                                                  .x = w->x,
                                                                  .w = w->w,
                                                                  .M = p->M,
                                                                  .N = p->N,
                                                                  .K = p->K,
                                                                  .dtype = w->dtype,
                                                                  .epilogue = GIDD_LINEAR_NONE});
}

static gidd_status run_bwd_data(const gemm_work *w, const product *p)
{
    return w->device->kernels->linear_bwd_data(w->device,
                                               &(gidd_linear_bwd_data_args){.dx = w->out,
                                                                            .dy = w->y,
                                                                            .w = w->w,
                                                                            .M = p->M,
                                                                            .N = p->N,
                                                                            .K = p->K,
                                                                            .dtype = w->dtype});
}

static gidd_status run_bwd_weight(const gemm_work *w, const product *p)
{
    return w->device->kernels->linear_bwd_weight(w->device,
                                                 &(gidd_linear_bwd_weight_args){.dw = w->dw,
                                                                                .dy = w->y,
                                                                                .x = w->x,
                                                                                .M = p->M,
                                                                                .N = p->N,
                                                                                .K = p->K,
                                                                                .dtype = w->dtype});
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

static gidd_status list_products(const gidd_config *config, gemm_work *w)
{
    gidd_model_shape s = gidd_resolve_shape(config, GPT2_IDS);
    w->T = s.T;
    int64_t rows = 0;
    GIDD_TRY(gidd_resolve_split(config, 1, &rows, &w->sequences));
    int64_t M = w->sequences * s.T;
    w->products[0] = (product){"qkv", M, 3 * s.D, s.D, s.L};
    w->products[1] = (product){"attn_out", M, s.D, s.D, s.L};
    w->products[2] = (product){"mlp_in", M, 4 * s.D, s.D, s.L};
    w->products[3] = (product){"mlp_out", M, s.D, 4 * s.D, s.L};
    w->products[4] = (product){"head", M, s.Vr, s.D, 1};
    return GIDD_OK;
}

static gidd_status allocate(gemm_work *w)
{
    int64_t xy = 0, weights = 0;
    for (int i = 0; i < PRODUCT_COUNT; i++) {
        const product *p = &w->products[i];
        int64_t widest = p->N > p->K ? p->N : p->K;
        xy = p->M * widest > xy ? p->M * widest : xy;
        weights = p->N * p->K > weights ? p->N * p->K : weights;
    }
    void *dw = NULL;
    w->xy_bytes = (size_t)xy * gidd_dtype_bytes(w->dtype);
    w->w_bytes = (size_t)weights * gidd_dtype_bytes(w->dtype);
    w->dw_bytes = (size_t)weights * sizeof(float);
    GIDD_TRY(gidd_device_alloc(w->device, w->xy_bytes, "inputs", &w->x));
    GIDD_TRY(gidd_device_alloc(w->device, w->xy_bytes, "gradients", &w->y));
    GIDD_TRY(gidd_device_alloc(w->device, w->xy_bytes, "outputs", &w->out));
    GIDD_TRY(gidd_device_alloc(w->device, w->w_bytes, "weights", &w->w));
    GIDD_TRY(gidd_device_alloc(w->device, w->dw_bytes, "gradients of weights", &dw));
    w->dw = dw;
    w->seconds = calloc((size_t)w->plan.repeats, sizeof *w->seconds);
    return w->seconds != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for the times");
}

static gidd_status reserve(const gidd_config *config, const gemm_work *w)
{
    gidd_model_shape s = gidd_resolve_shape(config, GPT2_IDS);
    return gidd_device_reserve(w->device, &(gidd_device_limits){.B = w->sequences,
                                                                .T = s.T,
                                                                .D = s.D,
                                                                .H = s.H,
                                                                .L = s.L,
                                                                .C = s.C,
                                                                .Vr = s.Vr,
                                                                .head_rows = w->sequences * s.T});
}

static gidd_status open_work(gidd_bench *bench, gemm_work *w)
{
    gidd_config *config = malloc(sizeof *config); // the precision is ours to choose
    if (config == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a configuration");
    }
    *config = *bench->config;
    config->training.precision = w->dtype == GIDD_BF16 ? GIDD_CONFIG_BF16 : GIDD_CONFIG_FP32;
    gidd_status status = gidd_resolve_device(config, 0, 1, &w->device);
    if (status == GIDD_OK) {
        status = reserve(config, w);
    }
    free(config);
    GIDD_TRY(status);
    GIDD_TRY(gidd_bench_ceiling_measure(w->device, &w->ceiling)); // before the inputs take memory
    GIDD_TRY(allocate(w));
    GIDD_TRY(gidd_bench_fill(w->device, w->x, w->xy_bytes, w->dtype));
    GIDD_TRY(gidd_bench_fill(w->device, w->y, w->xy_bytes, w->dtype));
    return gidd_bench_fill(w->device, w->w, w->w_bytes, w->dtype);
}

static void close_work(gemm_work *w)
{
    if (w->device != NULL) {
        gidd_device_free(w->device, w->dw, w->dw_bytes);
        gidd_device_free(w->device, w->w, w->w_bytes);
        gidd_device_free(w->device, w->out, w->xy_bytes);
        gidd_device_free(w->device, w->y, w->xy_bytes);
        gidd_device_free(w->device, w->x, w->xy_bytes);
    }
    gidd_device_close(w->device);
    free(w->seconds);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

static void report_product(gidd_bench *bench, gemm_work *w, const product *p, const char *slot)
{
    static const char *const keys[] = {"m",      "n",      "k",           "ms",
                                       "ms_min", "ms_max", "gflop_per_s", "gflop_per_cpu_s", "of_ceiling_percent"};
    char name[64];
    gidd_bench_spread wall = gidd_bench_spread_of(w->seconds, w->plan.repeats);
    double gflop = 2.0 * (double)p->M * (double)p->N * (double)p->K * 1e-9;
    const double values[] = {(double)p->M,        (double)p->N,           (double)p->K,
                             wall.median * 1e3,   wall.min * 1e3,         wall.max * 1e3,
                             gflop / wall.median, gflop / w->cpu_seconds, 100e9 * gflop / wall.median / w->ceiling.flops_per_s};
    (void)snprintf(name, sizeof name, "%s, %s, %s", w->dtype == GIDD_BF16 ? "bf16" : "fp32",
                   p->name, slot);
    gidd_bench_report_row(bench->report, &(gidd_bench_row){"product", name, keys, values,
                                                           (int)(sizeof keys / sizeof *keys)});
    w->step_seconds += (double)p->count * wall.median;
    w->step_cpu_seconds += (double)p->count * w->cpu_seconds;
}

static gidd_status run_once(void *context)
{
    product_runs *runs = context;
    runs->count++;
    return runs->run(runs->w, runs->p);
}

static gidd_status measure_product(gidd_bench *bench, gemm_work *w, const product *p,
                                   const char *slot, run_product run)
{
    product_runs runs = {w, p, run, 0};
    for (int64_t i = 0; i < w->plan.warmup; i++) {
        GIDD_TRY(run(w, p));
    }
    const double start_cpu = gidd_bench_cpu_seconds();
    GIDD_TRY(gidd_bench_time_runs(w->device, run_once, &runs, w->plan.repeats, w->seconds));
    w->cpu_seconds = (gidd_bench_cpu_seconds() - start_cpu) / (double)runs.count;
    report_product(bench, w, p, slot);
    return GIDD_OK;
}

static gidd_status measure_precision(gidd_bench *bench, gemm_work *w)
{
    static const struct {
        const char *name;
        run_product run;
    } slots[] = {{"fwd", run_fwd}, {"bwd_data", run_bwd_data}, {"bwd_weight", run_bwd_weight}};
    char text[256];
    GIDD_TRY(open_work(bench, w));
    gidd_device_describe(w->device, text, sizeof text);
    gidd_bench_report_text(bench->report, w->dtype == GIDD_BF16 ? "device_bf16" : "device_fp32",
                           text);
    gidd_bench_ceiling_report(bench->report, w->dtype == GIDD_BF16 ? "ceiling_bf16" : "ceiling_fp32", &w->ceiling);
    for (int i = 0; i < PRODUCT_COUNT; i++) {
        for (size_t slot = 0; slot < sizeof slots / sizeof *slots; slot++) {
            GIDD_TRY(measure_product(bench, w, &w->products[i], slots[slot].name, slots[slot].run));
        }
    }
    const double tokens = (double)(w->sequences * w->T);
    const int is_bf16 = w->dtype == GIDD_BF16;
    gidd_bench_report_number(bench->report,
                             is_bf16 ? "ceiling_bf16_tokens_per_s" : "ceiling_fp32_tokens_per_s",
                             tokens / w->step_seconds);
    gidd_bench_report_number(
        bench->report, is_bf16 ? "ceiling_bf16_tokens_per_cpu_s" : "ceiling_fp32_tokens_per_cpu_s",
        tokens / w->step_cpu_seconds);
    return GIDD_OK;
}

gidd_status gidd_bench_gemm(gidd_bench *bench)
{
    static const gidd_dtype dtypes[] = {GIDD_F32, GIDD_BF16};
    gidd_bench_plan plan = gidd_bench_plan_of(bench);
    gidd_status status = GIDD_OK;
    for (int i = 0; status == GIDD_OK && i < 2; i++) {
        gemm_work w = {.dtype = dtypes[i], .plan = plan};
        status = list_products(bench->config, &w);
        if (status == GIDD_OK) {
            status = measure_precision(bench, &w);
        }
        close_work(&w);
    }
    return status;
}
