/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/memory.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

enum { GPT2_IDS = 50257 };

typedef struct dry_plan {
    gidd_params    params;
    gidd_slice     slice; /* of rank 0: all slices are equally large */
    gidd_plan_line lines[GIDD_MEMORY_LINES];
    int64_t        line_count, rows, micro;
    double         memory_gb;
    int64_t        largest[GIDD_RECOMPUTE_BLOCK + 1]; /* micro-batch in it, by what is recomputed; -1: not of this model */
    double         noised_share;
    int32_t        base_ids;
    int            has_data;
} dry_plan;

// The vocabulary comes with the shards; a plan made before there are any assumes GPT-2's.
static gidd_status find_vocabulary(const gidd_config *config, dry_plan *plan)
{
    gidd_data_set *data = NULL;
    gidd_status    status = gidd_data_set_open(config->data.dir, config->data.mix, &data);
    plan->base_ids = GPT2_IDS;
    if (status == GIDD_ERR_MISSING) {
        return GIDD_OK;
    }
    GIDD_TRY(status);
    plan->has_data = 1;
    plan->base_ids = gidd_data_set_info(data)->vocab_size;
    gidd_data_set_close(data);
    return GIDD_OK;
}

static gidd_status find_largest(gidd_memory_args args, dry_plan *plan)
{
    gidd_model_args model = *args.model;
    args.model = &model;
    for (int what = GIDD_RECOMPUTE_NONE; what <= GIDD_RECOMPUTE_BLOCK; what++) {
        plan->largest[what] = -1;
        if (what == GIDD_RECOMPUTE_NONE || plan->params.shape.type != GIDD_MODEL_AUTOREGRESSIVE) {
            model.recompute = (gidd_recompute)what;
            GIDD_TRY(gidd_memory_largest(&args, plan->memory_gb * 1e9, &plan->largest[what]));
        }
    }
    return GIDD_OK;
}

static gidd_status plan_memory(const gidd_config *config, dry_plan *plan)
{
    gidd_device *device = NULL;
    GIDD_TRY(gidd_device_open(&(gidd_device_args){.name = "cpu",
                                                  .dtype = config->training.precision == GIDD_CONFIG_BF16 ? GIDD_BF16
                                                                                                          : GIDD_F32,
                                                  .threads = 1},
                              &device));
    const gidd_model_args model = {.device = device,
                                   .params = &plan->params,
                                   .slice = &plan->slice,
                                   .mode = GIDD_MODEL_TRAIN,
                                   .recompute = gidd_resolve_recompute(config),
                                   .loss = gidd_resolve_loss(config),
                                   .max_B = plan->micro,
                                   .max_T = config->model.context};
    const gidd_memory_args args = {&model, config->optimizer.ema_decay};
    gidd_status            status = gidd_memory_plan(&args, plan->lines, &plan->line_count);
    if (status == GIDD_OK) {
        status = find_largest(args, plan);
    }
    gidd_device_close(device);
    return status;
}

// Share of the positions whose token is noised, on average over times.
static gidd_status noised_share(const gidd_config *config, int32_t base_ids, double *share_p)
{
    enum { POINTS = 4096 };
    gidd_vocab         vocab = gidd_resolve_vocab(config, base_ids);
    gidd_schedule_args args = gidd_resolve_schedule(config, &vocab);
    gidd_schedule      schedule;
    double             clean = 0;
    GIDD_TRY(gidd_schedule_init(&schedule, &args));
    for (int i = 0; i < POINTS; i++) {
        double        t = args.t_eps + (1 - 2 * args.t_eps) * (i + 0.5) / POINTS;
        gidd_marginal at = gidd_schedule_marginal(&schedule, t);
        clean += (at.alpha + at.beta_other) / POINTS;
    }
    *share_p = 1 - clean;
    return GIDD_OK;
}

static void print_work(const gidd_config *config, const dry_plan *plan)
{
    int64_t          G = config->training.global_batch, T = config->model.context;
    double           sequences = (double)G, tokens = sequences * (double)T, steps = (double)config->training.steps;
    gidd_model_flops flops = gidd_model_flops_of(&plan->params.shape, T, gidd_resolve_recompute(config));
    gidd_skip_guard  guard;
    gidd_skip_guard_init(&guard, config);
    int    skips = gidd_skip_guard_skips(&guard, 0);
    double rows = skips ? plan->noised_share * tokens : tokens;
    printf("work          %.4g GFLOP a token, %.4g TFLOP a step, %" PRId64 " steps, %.4g tokens, %.4g FLOP in all\n",
           flops.sequence / (double)T * 1e-9, flops.sequence * sequences * 1e-12, config->training.steps, steps * tokens,
           flops.sequence * sequences * steps);
    printf("executed      %.4g TFLOP a step%s%s\n", gidd_model_flops_executed(&flops, sequences, T, rows) * 1e-12,
           skips ? " on average: rows that were not noised do not pass the head" : "",
           flops.recompute > 0 ? "; with what backward recomputes" : "");
    if (guard.guarded) {
        printf("              (an approximation: every evaluation checks it%s)\n",
               guard.may_end ? " and may end it" : "");
    }
}

static void print_largest(const dry_plan *plan)
{
    static const char *const names[] = {"", "; with training.recompute=mlp ", ", =block "};
    char title[32];
    (void)snprintf(title, sizeof title, "in %g GB", plan->memory_gb);
    printf("%-13s micro-batches of at most ", title);
    for (int what = GIDD_RECOMPUTE_NONE; what <= GIDD_RECOMPUTE_BLOCK; what++) {
        if (plan->largest[what] >= 0) {
            printf("%s%" PRId64, names[what], plan->largest[what]);
        }
    }
    printf("\n              (the kernels' workspace and what libraries take come on top)\n");
}

static void print_plan(const gidd_config *config, int ranks, const dry_plan *plan)
{
    const double gib = 1073741824.0;
    int          average = config->optimizer.ema_decay > 0; // one more vector beside the two moments
    double       total = 0;
    int64_t      G = config->training.global_batch, T = config->model.context;
    printf("model         D %" PRId64 ", %" PRId64 " blocks, %" PRId64 " heads, context %" PRId64 ", vocabulary %" PRId64
           " (rounded to %" PRId64 ")%s\n", plan->params.shape.D, plan->params.shape.L, plan->params.shape.H, T,
           plan->params.shape.V, plan->params.shape.Vr, plan->has_data ? "" : ", as with GPT-2's tokenizer: no shards yet");
    printf("parameters    %" PRId64 ", of them in blocks %" PRId64 "\n", plan->params.count,
           gidd_params_block_count(&plan->params));
    printf("batch         %" PRId64 " sequences: %d rank%s x %" PRId64 " micro-batch%s of %" PRId64 "\n", G, ranks,
           ranks == 1 ? "" : "s", (plan->rows + plan->micro - 1) / plan->micro,
           plan->rows > plan->micro ? "es" : "", plan->micro);
    print_work(config, plan);
    printf("memory of a rank\n");
    for (int64_t i = 0; i < plan->line_count; i++) {
        printf("  %-32s %10.3f GiB\n", plan->lines[i].name, (double)plan->lines[i].bytes / gib);
        total += (double)plan->lines[i].bytes;
    }
    printf("  %-32s %10.3f GiB\n", "total", total / gib);
    print_largest(plan);
    printf("checkpoint    %.3f GiB (masters, two moments%s, fp32), every %" PRId64 " steps, %" PRId64 " kept\n",
           (3.0 + average) * 4 * (double)plan->params.count / gib, average ? ", average" : "", config->checkpoint.every_steps,
           config->checkpoint.keep_last);
}

gidd_status gidd_worker_dry_run(const gidd_config *config, int ranks, double memory_gb)
{
    dry_plan plan;
    memset(&plan, 0, sizeof plan);
    plan.memory_gb = memory_gb;
    GIDD_TRY(find_vocabulary(config, &plan));
    GIDD_TRY(gidd_resolve_split(config, ranks, &plan.rows, &plan.micro));
    GIDD_TRY(noised_share(config, plan.base_ids, &plan.noised_share));
    gidd_model_shape shape = gidd_resolve_shape(config, plan.base_ids);
    GIDD_TRY(gidd_params_init(&plan.params, &shape, (size_t)(config->comm.bucket_mib * 1048576), ranks));
    gidd_status status = gidd_slice_init(&plan.slice, &plan.params, 0, config->comm.zero ? ranks : 1);
    if (status == GIDD_OK) {
        status = plan_memory(config, &plan);
    }
    if (status == GIDD_OK) {
        char *text = NULL;
        print_plan(config, ranks, &plan);
        status = gidd_config_format(config, &text);
        if (status == GIDD_OK) {
            printf("\nresolved configuration\n%s", text);
        }
        free(text);
    }
    gidd_slice_release(&plan.slice);
    gidd_params_release(&plan.params);
    return status;
}
