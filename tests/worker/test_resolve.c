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

/* The story of what was wanted, then every line of the plan, their sum, and what to do. */
Test(resolve, out_of_memory_comes_with_the_plan)
{
    const gidd_model_shape shape = {.D = 64, .L = 2, .H = 2, .C = 16, .T = 8, .V = 500, .Vr = 512, .mask_id = 499};
    gidd_params            params;
    gidd_device           *device = NULL;
    cr_assert_eq(gidd_params_init(&params, &shape, 1 << 20, 1), GIDD_OK);
    cr_assert_eq(gidd_device_open(&(gidd_device_args){.name = "cpu", .dtype = GIDD_BF16, .threads = 1}, &device), GIDD_OK);
    const gidd_model_args args = {.device = device, .params = &params, .max_B = 4, .max_T = 8};
    gidd_plan_line        lines[GIDD_MEMORY_LINES];
    int64_t               count = 0;
    cr_assert_eq(gidd_memory_plan(&args, lines, &count), GIDD_OK);
    cr_assert_eq(gidd_fail(GIDD_ERR_NOMEM, "gradients: no 123 bytes of cuda memory"), GIDD_ERR_NOMEM);
    cr_assert_eq(gidd_memory_explain(&args), GIDD_ERR_NOMEM);
    const char *text = gidd_error_last()->text;
    cr_assert(strncmp(text, "gradients: no 123 bytes of cuda memory; a rank wants", 50) == 0, "%s", text);
    for (int64_t i = 0; i < count; i++) {
        cr_assert(strstr(text, lines[i].name) != NULL, "%s is not in: %s", lines[i].name, text);
    }
    cr_assert(strstr(text, "Adam moments") != NULL && strstr(text, "in all") != NULL && strstr(text, "comm.zero=on") != NULL);
    gidd_device_close(device);
    gidd_params_release(&params);
}
