/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/products.h"

#include "base/log.h"
#include "io/checkpoint.h"
#include "io/gemm_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gidd_products_device(const gidd_device *device, char *text, size_t size)
{
    char whole[GIDD_GEMM_DEVICE_SIZE];
    gidd_device_describe(device, whole, sizeof whole);
    const char *space = strchr(whole, ' '); // "cuda:0 bf16 NVIDIA ..."
    (void)snprintf(text, size, "%s", space != NULL ? space + 1 : whole);
}

/* ---- finding ---------------------------------------------------------------------------------- */

// 1: the text is a record made on `device`.
static int is_usable(const char *name, const char *text, size_t bytes, const char *device)
{
    gidd_gemm_record record;
    if (gidd_gemm_record_decode(name, text, bytes, &record) != GIDD_OK) {
        gidd_log(GIDD_LOG_WARN, "gemm", "%s; not used", gidd_error_last()->text);
        return 0;
    }
    int same = strcmp(record.device, device) == 0;
    if (!same) {
        gidd_log(GIDD_LOG_WARN, "gemm", "%s was made on '%s', this is '%s'; not used", name, record.device, device);
    }
    gidd_gemm_record_release(&record);
    return same;
}

static gidd_status find_in_checkpoint(const char *run_dir, const char *device, char **text_p)
{
    gidd_checkpoint *checkpoint = NULL;
    if (gidd_checkpoint_open(run_dir, &checkpoint) != GIDD_OK) {
        return GIDD_OK; // none, or damaged: the restore will say so
    }
    const gidd_checkpoint_fields *fields = gidd_checkpoint_fields_of(checkpoint);
    const char *text = gidd_checkpoint_text_find(fields->texts, fields->text_count, "gemm");
    gidd_status status = GIDD_OK;
    if (text != NULL && is_usable("the checkpoint's record of matrix products", text, strlen(text), device)) {
        *text_p = strdup(text);
        status = *text_p != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a record");
    }
    gidd_checkpoint_close(checkpoint);
    return status;
}

gidd_status gidd_products_find(const char *run_dir, const char *device, char **text_p)
{
    char   path[4200], *text = NULL;
    size_t bytes = 0;
    *text_p = NULL;
    (void)snprintf(path, sizeof path, "%.4100s/gemm.json", run_dir);
    gidd_status status = gidd_gemm_record_read(path, &text, &bytes);
    if (status == GIDD_OK && is_usable(path, text, bytes, device)) {
        *text_p = strndup(text, bytes);
    } else if (status != GIDD_OK && status != GIDD_ERR_MISSING) {
        gidd_log(GIDD_LOG_WARN, "gemm", "%s; not used", gidd_error_last()->text);
    }
    free(text);
    return *text_p != NULL ? GIDD_OK : find_in_checkpoint(run_dir, device, text_p);
}

gidd_status gidd_products_adopt(gidd_device *device, const char *text)
{
    gidd_gemm_record record;
    GIDD_TRY(gidd_gemm_record_decode("the record of matrix products", text, strlen(text), &record));
    gidd_status status = gidd_device_gemm_adopt(device, record.choices, record.count);
    gidd_gemm_record_release(&record);
    return status;
}

/* ---- making ----------------------------------------------------------------------------------- */

// Worker 0: times everything that it meets, and tells.
static gidd_status make_record(const gidd_products_args *args, const char *device, char **text_p)
{
    GIDD_TRY(gidd_device_gemm_tune(args->device));
    GIDD_TRY(args->meet(args->context));
    gidd_gemm_choice *choices = malloc(GIDD_GEMM_CHOICES_MAX * sizeof *choices);
    if (choices == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a record of matrix products");
    }
    int64_t     count = gidd_device_gemm_choices(args->device, choices, GIDD_GEMM_CHOICES_MAX);
    gidd_status status = gidd_gemm_record_encode(device, choices, count, text_p);
    free(choices);
    if (status == GIDD_OK) {
        char path[4200];
        (void)snprintf(path, sizeof path, "%.4100s/gemm.json", args->run_dir);
        status = gidd_gemm_record_write(path, *text_p);
        gidd_log(GIDD_LOG_INFO, "gemm", "%" PRId64 " matrix products timed, their algorithms are in %s", count, path);
    }
    return status;
}

// Worker 0's text to all.
static gidd_status spread(gidd_comm *workers, char **text_p)
{
    int64_t bytes = *text_p != NULL ? (int64_t)strlen(*text_p) + 1 : 0;
    GIDD_TRY(gidd_comm_bcast(workers, 0, &bytes, sizeof bytes));
    if (bytes == 0) {
        return GIDD_OK;
    }
    char *text = *text_p != NULL ? *text_p : malloc((size_t)bytes);
    GIDD_TRY(gidd_comm_agree(workers, text != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for a record")));
    *text_p = text;
    return gidd_comm_bcast(workers, 0, text, (size_t)bytes);
}

gidd_status gidd_products_settle(const gidd_products_args *args)
{
    char        device[GIDD_GEMM_DEVICE_SIZE], *text = NULL;
    int         rank = gidd_comm_rank(args->workers);
    gidd_status status = GIDD_OK, local = GIDD_OK;
    if (!gidd_device_gemm_chooses(args->device)) {
        return GIDD_OK; // on all ranks: they have one kind of device
    }
    gidd_products_device(args->device, device, sizeof device);
    int64_t is_new = 0;
    if (rank == 0) {
        local = gidd_products_find(args->run_dir, device, &text);
        is_new = text == NULL;
        if (local == GIDD_OK && is_new) {
            local = make_record(args, device, &text);
        }
    }
    GIDD_TRY_GOTO(gidd_comm_agree(args->workers, local));
    GIDD_TRY_GOTO(spread(args->workers, &text));
    if (rank > 0 || !is_new) {
        local = gidd_products_adopt(args->device, text);
    }
    status = gidd_comm_agree(args->workers, local);
out:
    free(text);
    return status;
}
