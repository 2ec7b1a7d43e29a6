/* SPDX-License-Identifier: Apache-2.0
 *
 * The record of matrix products around a device that leaves the choice: a stand-in whose algorithms are numbers.
 */
#include "io/gemm_record.h"
#include "kernels/backend.h"
#include "worker/products.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t adopted; /* the algorithm that adopt was given for "p" */

static void describe(const gidd_device *device, char *text, size_t size)
{
    (void)device;
    (void)snprintf(text, size, "cuda:3 bf16 NVIDIA Test, sm_90");
}

static gidd_status adopt(gidd_device *device, const gidd_gemm_choice *choices, int64_t count)
{
    (void)device;
    adopted = count == 1 && strcmp(choices[0].key, "p") == 0 ? choices[0].algorithm[0] : -1;
    return GIDD_OK;
}

static const gidd_backend backend = {.name = "test", .describe = describe, .gemm_adopt = adopt};
static gidd_device device = {.backend = &backend};

static void write_record(const char *folder, const char *device_text, unsigned char algorithm)
{
    char             path[256], *text = NULL;
    gidd_gemm_choice choice = {.key = "p", .algorithm = {algorithm}};
    (void)snprintf(path, sizeof path, "%s/gemm.json", folder);
    cr_assert_eq(gidd_gemm_record_encode(device_text, &choice, 1, &text), GIDD_OK);
    cr_assert_eq(gidd_gemm_record_write(path, text), GIDD_OK);
    free(text);
}

Test(products, a_record_is_for_the_device_that_it_names)
{
    char folder[] = "/tmp/gidd-products-XXXXXX", name[GIDD_GEMM_DEVICE_SIZE], path[256], *text = NULL;
    cr_assert(mkdtemp(folder) != NULL);
    gidd_products_device(&device, name, sizeof name);
    cr_assert_str_eq(name, "bf16 NVIDIA Test, sm_90"); // whichever of the node's GPUs
    cr_assert_eq(gidd_products_find(folder, name, &text), GIDD_OK);
    cr_assert(text == NULL); // there is none
    write_record(folder, name, 42);
    cr_assert_eq(gidd_products_find(folder, name, &text), GIDD_OK);
    cr_assert_eq(gidd_products_adopt(&device, text), GIDD_OK);
    cr_assert_eq(adopted, 42);
    free(text);
    write_record(folder, "bf16 NVIDIA Other", 43);
    cr_assert_eq(gidd_products_find(folder, name, &text), GIDD_OK);
    cr_assert(text == NULL);
    (void)snprintf(path, sizeof path, "%s/gemm.json", folder);
    cr_assert_eq(gidd_gemm_record_write(path, "{\"format\": \"gidd-gemm\""), GIDD_OK); // damaged
    cr_assert_eq(gidd_products_find(folder, name, &text), GIDD_OK);
    cr_assert(text == NULL);
    (void)unlink(path);
    (void)rmdir(folder);
}

Test(products, a_text_that_is_no_record_is_not_adopted)
{
    adopted = 7;
    cr_assert_eq(gidd_products_adopt(&device, "{}"), GIDD_ERR_CORRUPT);
    cr_assert_eq(adopted, 7);
}

/* Devices that leave no choice say so, and adopting nothing is fine. */
Test(products, the_cpu_chooses_nothing)
{
    gidd_device *cpu = NULL;
    cr_assert_eq(gidd_device_open(&(gidd_device_args){.name = "cpu", .dtype = GIDD_F32, .threads = 1}, &cpu), GIDD_OK);
    cr_assert_eq(gidd_device_gemm_chooses(cpu), 0);
    cr_assert_eq(gidd_device_gemm_chooses(&device), 1);
    cr_assert_eq(gidd_device_gemm_choices(cpu, NULL, 0), 0);
    gidd_device_close(cpu);
}
