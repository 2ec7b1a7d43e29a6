/* SPDX-License-Identifier: Apache-2.0 */
#include "io/gemm_record.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static gidd_gemm_choice choice(const char *key, unsigned char seed)
{
    gidd_gemm_choice c = {{0}, {0}};
    (void)snprintf(c.key, sizeof c.key, "%s", key);
    for (int i = 0; i < GIDD_GEMM_ALGORITHM_BYTES; i++) {
        c.algorithm[i] = (unsigned char)(seed + 7 * i);
    }
    return c;
}

Test(gemm_record, what_was_written_is_read)
{
    gidd_gemm_choice choices[] = {choice("768x32768x3072 TN bf16->bf16 bias", 3), choice("2x3x4 NN", 250), choice("a", 0)};
    gidd_gemm_choice turned[] = {choices[2], choices[0], choices[1]};
    gidd_gemm_record record;
    char            *text = NULL, *again = NULL;
    cr_assert_eq(gidd_gemm_record_encode("NVIDIA X sm_90", choices, 3, &text), GIDD_OK);
    cr_assert_eq(gidd_gemm_record_encode("NVIDIA X sm_90", turned, 3, &again), GIDD_OK);
    cr_assert_str_eq(text, again); // whatever the order
    cr_assert_eq(gidd_gemm_record_decode("text", text, strlen(text), &record), GIDD_OK);
    cr_assert_str_eq(record.device, "NVIDIA X sm_90");
    cr_assert_eq(record.count, 3);
    cr_assert_str_eq(record.choices[0].key, "2x3x4 NN");
    cr_assert_arr_eq(record.choices[0].algorithm, choices[1].algorithm, GIDD_GEMM_ALGORITHM_BYTES);
    cr_assert_str_eq(record.choices[2].key, "a");
    gidd_gemm_record_release(&record);
    free(text);
    free(again);
}

/* As FORMAT.md has it, to the byte. */
Test(gemm_record, format_is_the_documented_one)
{
    gidd_gemm_choice one = choice("2x3x4 NN fp32->fp32 plain align256", 0);
    memset(one.algorithm, 0, sizeof one.algorithm);
    one.algorithm[0] = 0xab;
    char *text = NULL, zeros[127];
    memset(zeros, '0', 126);
    zeros[126] = '\0';
    char want[600];
    (void)snprintf(want, sizeof want, "{\n \"device\": \"NVIDIA X\",\n \"format\": \"gidd-gemm\",\n \"products\": [\n  {\n"
                   "   \"algorithm\": \"ab%s\",\n   \"key\": \"2x3x4 NN fp32->fp32 plain align256\"\n  }\n ],\n"
                   " \"version\": 1\n}", zeros);
    cr_assert_eq(gidd_gemm_record_encode("NVIDIA X", &one, 1, &text), GIDD_OK);
    cr_assert_str_eq(text, want);
    free(text);
}

Test(gemm_record, choices_that_cannot_be_recorded_are_refused)
{
    gidd_gemm_choice twice[] = {choice("k", 1), choice("k", 2)}, empty = choice("", 1), control = choice("a\nb", 1);
    char            *text = NULL;
    cr_assert_eq(gidd_gemm_record_encode("d", twice, 2, &text), GIDD_ERR_ARG);
    cr_assert_eq(gidd_gemm_record_encode("d", &empty, 1, &text), GIDD_ERR_ARG);
    cr_assert_eq(gidd_gemm_record_encode("d", &control, 1, &text), GIDD_ERR_ARG);
}

static void expect_corrupt(const char *text, size_t bytes)
{
    gidd_gemm_record record;
    gidd_status      status = gidd_gemm_record_decode("text", text, bytes, &record);
    cr_assert_eq(status, GIDD_ERR_CORRUPT, "taken as good: %.*s", (int)bytes, text);
    cr_assert(record.choices == NULL);
}

/* Truncated anywhere, or with any one byte changed, a record is refused or says the same as before in other words. */
Test(gemm_record, damaged_records_are_refused)
{
    gidd_gemm_choice choices[] = {choice("a 1x2x3", 3), choice("b 4x5x6", 9)};
    gidd_gemm_record record;
    char            *text = NULL;
    cr_assert_eq(gidd_gemm_record_encode("NVIDIA X", choices, 2, &text), GIDD_OK);
    size_t length = strlen(text);
    for (size_t bytes = 0; bytes < length; bytes++) {
        expect_corrupt(text, bytes);
    }
    for (size_t i = 0; i < length; i++) { // no crash, no leak: what it says may differ
        char kept = text[i];
        text[i] = (char)(kept ^ 0x15);
        if (gidd_gemm_record_decode("text", text, length, &record) == GIDD_OK) {
            gidd_gemm_record_release(&record);
        }
        text[i] = kept;
    }
    free(text);
    const char *wrong[] = {
        "[]",
        "{\"format\":\"other\",\"version\":1,\"device\":\"d\",\"products\":[]}",
        "{\"format\":\"gidd-gemm\",\"version\":2,\"device\":\"d\",\"products\":[]}",
        "{\"format\":\"gidd-gemm\",\"version\":1,\"device\":\"\",\"products\":[]}",
        "{\"format\":\"gidd-gemm\",\"version\":1,\"device\":\"d\",\"products\":{}}",
        "{\"format\":\"gidd-gemm\",\"version\":1,\"device\":\"d\",\"products\":[],\"more\":1}",
        "{\"format\":\"gidd-gemm\",\"version\":1,\"device\":\"d\",\"products\":[{\"key\":\"k\",\"algorithm\":\"00\"}]}",
        "{\"format\":\"gidd-gemm\",\"version\":1,\"device\":\"d\",\"products\":[3]}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        expect_corrupt(wrong[i], strlen(wrong[i]));
    }
}

Test(gemm_record, the_file)
{
    char path[] = "/tmp/gidd-gemm-XXXXXX", *text = NULL;
    size_t bytes = 0;
    int descriptor = mkstemp(path);
    cr_assert(descriptor >= 0);
    (void)close(descriptor);
    cr_assert_eq(gidd_gemm_record_write(path, "first"), GIDD_OK);
    cr_assert_eq(gidd_gemm_record_write(path, "second"), GIDD_OK);
    cr_assert_eq(gidd_gemm_record_read(path, &text, &bytes), GIDD_OK);
    cr_assert(bytes == 7 && memcmp(text, "second\n", 7) == 0);
    free(text);
    (void)unlink(path);
    cr_assert_eq(gidd_gemm_record_read(path, &text, &bytes), GIDD_ERR_MISSING);
    cr_assert_eq(gidd_gemm_record_write("/nowhere/at/all/gemm.json", "x"), GIDD_ERR_OUTPUT);
}
