/* SPDX-License-Identifier: Apache-2.0
 *
 * Which device and which transport a rank gets, and what is said when there is not enough. A GPU is a device of the
 * CPU's that calls itself cuda.
 */
#include "kernels/kernels.h"
#include "worker/memory.h"
#include "worker/resolve.h"

#include <criterion/criterion.h>
#include <string.h>

static gidd_status transport(int asked, const char *device_name, int own, gidd_bucket_transport *transport_p)
{
    gidd_config config;
    gidd_config_init(&config);
    config.comm.backend = asked;
    gidd_kernels kernels = {.device = device_name};
    gidd_device  device = {.kernels = &kernels};
    return gidd_resolve_transport(&config, &device, own, transport_p);
}

Test(resolve, nccl_where_every_rank_has_a_gpu)
{
    gidd_bucket_transport found = GIDD_BUCKET_MPI;
    cr_assert_eq(transport(GIDD_CONFIG_BACKEND_AUTO, "cuda", 1, &found), GIDD_OK);
    cr_assert_eq(found, GIDD_BUCKET_NCCL);
    cr_assert_eq(transport(GIDD_CONFIG_BACKEND_AUTO, "cuda", 0, &found), GIDD_OK);
    cr_assert_eq(found, GIDD_BUCKET_MPI);
    cr_assert_eq(transport(GIDD_CONFIG_BACKEND_MPI, "cuda", 1, &found), GIDD_OK);
    cr_assert_eq(found, GIDD_BUCKET_MPI);
    cr_assert_eq(transport(GIDD_CONFIG_BACKEND_AUTO, "cpu", 0, &found), GIDD_OK);
    cr_assert_eq(found, GIDD_BUCKET_MPI);
}

Test(resolve, nccl_that_cannot_be_is_refused)
{
    gidd_bucket_transport found = GIDD_BUCKET_MPI;
    cr_assert_eq(transport(GIDD_CONFIG_BACKEND_NCCL, "cuda", 1, &found), GIDD_OK);
    cr_assert_eq(found, GIDD_BUCKET_NCCL);
    cr_assert_eq(transport(GIDD_CONFIG_BACKEND_NCCL, "cuda", 0, &found), GIDD_ERR_DEVICE); // exit 69
    cr_assert(strstr(gidd_error_last()->text, "more ranks than GPUs") != NULL);
    cr_assert_eq(transport(GIDD_CONFIG_BACKEND_NCCL, "emu", 0, &found), GIDD_ERR_CONFIG); // exit 78
    cr_assert(strstr(gidd_error_last()->text, "the device is emu") != NULL);
}

Test(resolve, devices_are_counted)
{
    int count = 0;
    cr_assert_eq(gidd_device_count("cpu", &count), GIDD_OK);
    cr_assert_eq(count, 1);
    cr_assert_eq(gidd_device_count("abacus", &count), GIDD_ERR_DEVICE);
    gidd_status status = gidd_device_count("cuda", &count);
    cr_assert(status == GIDD_OK ? count >= 1 : status == GIDD_ERR_DEVICE || status == GIDD_ERR_UNSUPPORTED);
}

/* A model of which the memory is planned; nothing of it is allocated. */
typedef struct planned {
    gidd_params      params;
    gidd_device     *device;
    gidd_model_args  model;
    gidd_memory_args args;
} planned;

static void plan_init(planned *p)
{
    const gidd_model_shape shape = {.D = 64, .L = 2, .H = 2, .C = 16, .T = 8, .V = 500, .Vr = 512, .mask_id = 499};
    memset(p, 0, sizeof *p);
    cr_assert_eq(gidd_params_init(&p->params, &shape, 1 << 20, 1), GIDD_OK);
    cr_assert_eq(gidd_device_open(&(gidd_device_args){.name = "cpu", .dtype = GIDD_BF16, .threads = 1}, &p->device), GIDD_OK);
    p->model = (gidd_model_args){.device = p->device, .params = &p->params, .max_B = 4, .max_T = 8};
    p->args = (gidd_memory_args){&p->model, 0.999};
}

static void plan_release(planned *p)
{
    gidd_device_close(p->device);
    gidd_params_release(&p->params);
}

static double plan_total(planned *p, int64_t max_B)
{
    gidd_plan_line lines[GIDD_MEMORY_LINES];
    int64_t        count = 0;
    double         total = 0;
    p->model.max_B = max_B;
    cr_assert_eq(gidd_memory_plan(&p->args, lines, &count), GIDD_OK);
    for (int64_t i = 0; i < count; i++) {
        total += (double)lines[i].bytes;
    }
    return total;
}

/* The story of what was wanted, then every line of the plan, their sum, and what to do. */
Test(resolve, out_of_memory_comes_with_the_plan)
{
    planned        p;
    gidd_plan_line lines[GIDD_MEMORY_LINES];
    int64_t        count = 0;
    plan_init(&p);
    cr_assert_eq(gidd_memory_plan(&p.args, lines, &count), GIDD_OK);
    cr_assert_eq(gidd_fail(GIDD_ERR_NOMEM, "gradients: no 123 bytes of cuda memory"), GIDD_ERR_NOMEM);
    cr_assert_eq(gidd_memory_explain(&p.args), GIDD_ERR_NOMEM);
    const char *text = gidd_error_last()->text;
    cr_assert(strncmp(text, "gradients: no 123 bytes of cuda memory; a rank wants", 50) == 0, "%s", text);
    for (int64_t i = 0; i < count; i++) {
        cr_assert(strstr(text, lines[i].name) != NULL, "%s is not in: %s", lines[i].name, text);
    }
    cr_assert(strstr(text, "Adam moments") != NULL && strstr(text, "running average") != NULL &&
              strstr(text, "in all") != NULL && strstr(text, "comm.zero=on") != NULL, "%s", text);
    plan_release(&p);
}

/* The running average is one more vector of the parameters, and there only where it is kept. */
Test(resolve, running_average_is_planned_where_there_is_one)
{
    planned p;
    plan_init(&p);
    double with = plan_total(&p, 4);
    p.args.ema_decay = 0;
    cr_assert_eq(with - plan_total(&p, 4), (double)p.params.memory_count * sizeof(float));
    plan_release(&p);
}

/* One sequence more would not fit; and where not even one does the answer is 0. */
Test(resolve, largest_micro_batch_fits_and_the_next_does_not)
{
    planned p;
    int64_t largest = -1;
    plan_init(&p);
    for (int64_t B = 1; B <= 64; B++) {
        double bytes = plan_total(&p, B) + 1;
        p.model.max_B = 3; // what it is does not matter
        cr_assert_eq(gidd_memory_largest(&p.args, bytes, &largest), GIDD_OK);
        cr_assert_eq(p.model.max_B, 3);
        cr_assert_eq(largest, B, "%lld sequences, not %lld", (long long)largest, (long long)B);
    }
    cr_assert_eq(gidd_memory_largest(&p.args, plan_total(&p, 1) - 1, &largest), GIDD_OK);
    cr_assert_eq(largest, 0);
    plan_release(&p);
}
