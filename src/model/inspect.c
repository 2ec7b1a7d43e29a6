/* SPDX-License-Identifier: Apache-2.0
 *
 * Intermediates by name, for tests: the table of activations is what there is to see.
 */
#include "kernels/bf16.h"
#include "model/activations.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* `count` elements of a device buffer as floats on the host. */
static gidd_status read_floats(gidd_model *model, const void *memory, gidd_dtype dtype,
                               int64_t count, float *values)
{
    const size_t bytes = (size_t)count * gidd_dtype_bytes(dtype);
    GIDD_TRY(gidd_device_copy_out(model->device, values, memory, bytes));
    if (dtype == GIDD_BF16) {
        const char *packed = (const char *)values;
        for (int64_t i = count - 1; i >= 0; i--) { // from the end: in place
            uint16_t bits = 0;
            memcpy(&bits, packed + i * 2, sizeof(bits));
            values[i] = gidd_bf16_to_float(bits);
        }
    }
    return GIDD_OK;
}

static const gidd_activation *find_activation(const gidd_activations *a, const char *name)
{
    for (int64_t i = 0; i < a->table_count; i++) {
        if (strcmp(a->table[i].name, name) == 0) {
            return &a->table[i];
        }
    }
    return NULL;
}

static gidd_status check_capacity(const char *name, int64_t count, int64_t capacity)
{
    if (count > capacity) {
        return gidd_fail(GIDD_ERR_ARG, "%s has %lld values, room for %lld", name, (long long)count,
                         (long long)capacity);
    }
    return GIDD_OK;
}

static gidd_status inspect_activation(gidd_model *model, const gidd_activation *entry,
                                      float *values, int64_t capacity, int64_t *count_p)
{
    const gidd_batch *batch = &model->batch;
    const int64_t rows = gidd_activation_rows(entry, batch->B, batch->T, model->head_rows);
    GIDD_TRY(check_capacity(entry->name, rows * entry->cols, capacity));
    GIDD_TRY(read_floats(model, entry->memory, entry->dtype, rows * entry->cols, values));
    *count_p = rows * entry->cols;
    return GIDD_OK;
}

/* Block 0's columns of the modulations. */
static gidd_status inspect_adaln(gidd_model *model, float *values, int64_t capacity,
                                 int64_t *count_p)
{
    const gidd_activations *a = model->activations;
    const int64_t B = model->batch.B, width = 6 * model->params->shape.D;
    GIDD_TRY(check_capacity("block0_adaln", B * width, capacity));
    for (int64_t b = 0; b < B; b++) {
        GIDD_TRY(gidd_device_copy_out(model->device, values + b * width,
                                      a->mods + b * a->mods_stride, (size_t)width * sizeof(float)));
    }
    *count_p = B * width;
    return GIDD_OK;
}

/* values[rows][D] = (values - mean) * rstd * gain. */
static gidd_status normalise(gidd_model *model, float *values, int64_t rows, float *scratch)
{
    const gidd_block *block = &model->activations->blocks[0];
    const int64_t D = model->params->shape.D;
    float *mean = scratch, *rstd = mean + rows, *gain = rstd + rows;
    GIDD_TRY(read_floats(model, block->mean1, GIDD_F32, rows, mean));
    GIDD_TRY(read_floats(model, block->rstd1, GIDD_F32, rows, rstd));
    GIDD_TRY(read_floats(model, gidd_model_master(model, block->norm1), GIDD_F32, D, gain));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = 0; j < D; j++) {
            values[r * D + j] = (values[r * D + j] - mean[r]) * rstd[r] * gain[j];
        }
    }
    return GIDD_OK;
}

/* Block 0's first norm before modulation: not kept, made again. */
static gidd_status inspect_norm1(gidd_model *model, float *values, int64_t capacity,
                                 int64_t *count_p)
{
    const int64_t rows = model->batch.B * model->batch.T, D = model->params->shape.D;
    GIDD_TRY(check_capacity("block0_norm1", rows * D, capacity));
    float *scratch = malloc((size_t)(2 * rows + D) * sizeof(*scratch));
    if (scratch == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to inspect block0_norm1");
    }
    gidd_status status = read_floats(model, model->activations->blocks[0].x1, model->device->dtype,
                                     rows * D, values);
    if (status == GIDD_OK) {
        status = normalise(model, values, rows, scratch);
    }
    free(scratch);
    *count_p = status == GIDD_OK ? rows * D : *count_p;
    return status;
}

gidd_status gidd_model_inspect(gidd_model *model, const char *name, float *values, int64_t capacity,
                               int64_t *count_p)
{
    if (model->mode != GIDD_MODEL_TRAIN) {
        return gidd_fail(GIDD_ERR_ARG, "only a model in training mode keeps its intermediates");
    }
    if (strcmp(name, "block0_adaln") == 0) {
        return inspect_adaln(model, values, capacity, count_p);
    }
    if (strcmp(name, "block0_norm1") == 0) {
        return inspect_norm1(model, values, capacity, count_p);
    }
    const gidd_activation *entry = find_activation(model->activations, name);
    if (entry == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "no intermediate is called %s", name);
    }
    return inspect_activation(model, entry, values, capacity, count_p);
}
