/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/harness.h"

#include <criterion/criterion.h>
#include <string.h>

static gidd_status open_named(const char *name)
{
    gidd_device *device = NULL;
    gidd_status  status = gidd_device_open(
         &(gidd_device_args){.name = name, .dtype = GIDD_F32, .threads = 1}, &device);
    gidd_device_close(device);
    return status;
}

Test(device, names)
{
    cr_assert_eq(open_named("cpu"), GIDD_OK);
    cr_assert_eq(open_named("cpu:0"), GIDD_OK);
    const char *wrong[] = {"cpu:1", "", "gpu", "cpux", "cpu:", "cuda:x", "cuda:-1", "cuda:1 "};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(open_named(wrong[i]), GIDD_ERR_DEVICE, "%s", wrong[i]);
    }
    gidd_status cuda = open_named("cuda:1023");
    cr_assert(cuda == GIDD_ERR_DEVICE || cuda == GIDD_ERR_UNSUPPORTED);
}

Test(device, every_slot_is_filled)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
#define CHECK_SLOT(slot, arguments)                                                                \
    cr_assert(device->kernels->slot != NULL, "%s has no %s", device->kernels->device, #slot);
    GIDD_KERNEL_SLOTS(CHECK_SLOT)
#undef CHECK_SLOT
    gidd_device_close(device);
}

Test(device, every_slot_refuses_missing_buffers)
{
    gidd_device *device = open_test_device(GIDD_BF16, 1);
#define CHECK_REFUSAL(slot, arguments)                                                             \
    {                                                                                              \
        gidd_##arguments##_args none;                                                              \
        memset(&none, 0, sizeof none);                                                             \
        SET_COUNT_##arguments(none);                                                               \
        cr_assert_eq(device->kernels->slot(device, &none), GIDD_ERR_ARG, "%s", #slot);             \
    }
#define SET_COUNT_embed_fwd(a) (a).rows = 1
#define SET_COUNT_embed_bwd(a) (a).chunk_count = 1
#define SET_COUNT_time_cond_fwd(a) (a).B = (a).C = 1
#define SET_COUNT_time_cond_bwd(a) (a).B = (a).C = 1
#define SET_COUNT_linear_fwd(a) (a).M = (a).N = (a).K = 1
#define SET_COUNT_linear_bwd_data(a) (a).M = (a).N = (a).K = 1
#define SET_COUNT_linear_bwd_weight(a) (a).M = (a).N = (a).K = 1
#define SET_COUNT_norm_mod_fwd(a) (a).rows = (a).T = (a).cols = 1
#define SET_COUNT_norm_mod_bwd(a) (a).rows = (a).T = (a).cols = 1
#define SET_COUNT_rms_norm_fwd(a) (a).rows = (a).cols = 1
#define SET_COUNT_rms_norm_bwd(a) (a).rows = (a).cols = 1
#define SET_COUNT_swiglu_fwd(a) (a).rows = (a).cols = 1
#define SET_COUNT_swiglu_bwd(a) (a).rows = (a).cols = 1
#define SET_COUNT_attention_fwd(a) (a).B = (a).T = (a).H = 1, (a).d = 2
#define SET_COUNT_attention_bwd(a) (a).B = (a).T = (a).H = 1, (a).d = 2
#define SET_COUNT_attention_step(a) (a).B = (a).T = (a).H = 1, (a).d = 2
#define SET_COUNT_loss(a) (a).rows = (a).T = (a).V = (a).Vr = 1
#define SET_COUNT_loss_sums(a) (a).B = (a).T = 1
#define SET_COUNT_grad_norm(a) (a).count = 1
#define SET_COUNT_grad_norm_finish(a) (a).count = 1
#define SET_COUNT_adamw(a) (a).count = 1
#define SET_COUNT_ema(a) (a).count = 1
#define SET_COUNT_cast(a) (a).count = 1
#define SET_COUNT_sample_step(a) (a).rows = (a).width = (a).stride = 1, (a).temperature = 1.0
#define SET_COUNT_correct_step(a) (a).rows = (a).width = (a).stride = 1, (a).temperature = 1.0
    GIDD_KERNEL_SLOTS(CHECK_REFUSAL)
#undef CHECK_REFUSAL
    gidd_device_close(device);
}

Test(device, memory_is_counted_aligned_and_copied)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    size_t       before = device->allocated_bytes;
    int64_t      count = device->allocation_count;
    void        *memory = NULL;
    CHECK_OK(gidd_device_alloc(device, 1000, "test", &memory));
    cr_assert_eq((uintptr_t)memory % 256, 0);
    cr_assert_eq(device->allocated_bytes, before + 1000);
    cr_assert_eq(device->allocation_count, count + 1);
    char in[1000], out[1000];
    memset(in, 7, sizeof in);
    CHECK_OK(gidd_device_copy_in(device, memory, in, sizeof in));
    CHECK_OK(gidd_device_zero(device, memory, 10));
    CHECK_OK(gidd_device_copy_out(device, out, memory, sizeof out));
    cr_assert(out[9] == 0 && out[10] == 7 && out[999] == 7);
    gidd_device_free(device, memory, 1000);
    cr_assert_eq(device->allocated_bytes, before);
    CHECK_OK(gidd_device_synchronize(device));
    gidd_device_close(device);
}

Test(device, no_memory_names_its_purpose)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    void        *memory = NULL;
    cr_assert_eq(gidd_device_alloc(device, SIZE_MAX - 9, "the moon", &memory), GIDD_ERR_NOMEM);
    cr_assert(strstr(gidd_error_last()->text, "the moon") != NULL);
    gidd_device_close(device);
}

Test(device, kernels_ask_for_reserved_workspace)
{
    gidd_device *device = open_test_device(GIDD_F32, 1);
    gidd_device_free(device, device->workspace, device->workspace_bytes);
    device->workspace = NULL;
    device->workspace_bytes = 0;
    float                  x[8] = {0}, y[8], mean[1], rstd[1];
    gidd_norm_mod_fwd_args args = {.u = y,
                                   .mean = mean,
                                   .rstd = rstd,
                                   .x = x,
                                   .gain = x,
                                   .mods = x,
                                   .u_rows = 1,
                                   .rows = 1,
                                   .cols = 8,
                                   .T = 1};
    if (strcmp(device->kernels->device, "cpu") == 0) {
        cr_assert_eq(device->kernels->norm_mod_fwd(device, &args), GIDD_ERR_ARG);
    }
    gidd_device_close(device);
}

Test(device, describes_itself)
{
    gidd_device *device = open_test_device(GIDD_BF16, 2);
    char         text[128];
    gidd_device_describe(device, text, sizeof text);
    cr_assert(strncmp(text, device->kernels->device, 3) == 0 && strchr(text, '\n') == NULL, "%s",
              text);
    gidd_device_close(device);
}
