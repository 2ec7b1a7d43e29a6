/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/checkpoint_exchange.h"

#include "worker/exchange.h"

#include <stdio.h>
#include <string.h>

static gidd_status check_format(const gidd_exchange_words *words)
{
    if (words->format != NULL && strcmp(words->format, "safetensors") != 0) {
        return gidd_fail(GIDD_ERR_USAGE, "--format: only safetensors is written, not '%s'", words->format);
    }
    if (words->dtype != NULL && strcmp(words->dtype, "fp32") != 0 && strcmp(words->dtype, "bf16") != 0) {
        return gidd_fail(GIDD_ERR_USAGE, "--dtype: expected fp32 or bf16, found '%s'", words->dtype);
    }
    return words->to != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_USAGE, "two paths are needed: from where, and to where");
}

gidd_status gidd_exchange_export(const gidd_exchange_words *words)
{
    GIDD_TRY(check_format(words));
    int is_bf16 = words->dtype != NULL && strcmp(words->dtype, "bf16") == 0;
    GIDD_TRY(gidd_export_model(&(gidd_export_args){.model = words->from,
                                                   .folder = words->to,
                                                   .weights = words->ema ? GIDD_MODEL_AVERAGE : GIDD_MODEL_MASTERS,
                                                   .dtype = is_bf16 ? GIDD_SAFETENSORS_BF16 : GIDD_SAFETENSORS_F32,
                                                   .cli = &words->cli}));
    printf("%s: exported to %s\n", words->from, words->to);
    return GIDD_OK;
}

gidd_status gidd_exchange_import(const gidd_exchange_words *words, gidd_comm *comm)
{
    GIDD_TRY(check_format(words));
    GIDD_TRY(gidd_import_model(&(gidd_import_args){
        .model = words->from, .run_dir = words->to, .cli = &words->cli, .comm = comm}));
    if (gidd_comm_rank(comm) == 0) {
        printf("%s: imported into %s\n", words->from, words->to);
    }
    return GIDD_OK;
}
