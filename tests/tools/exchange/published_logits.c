/* SPDX-License-Identifier: Apache-2.0
 *
 * published_logits MODEL INPUT OUTPUT: this program's logits of a model for given ids and times, in fp32.
 *
 *     INPUT   int32 B, T; float t[B]; int32 ids[B][T]
 *     OUTPUT  float logits[B][T][V], of the ids that exist
 */
#include "diffusion/batch.h"
#include "worker/inference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct input {
    int32_t  B, T;
    float   *t;
    int32_t *ids;
} input;

static gidd_status fail_input(const char *path)
{
    return gidd_fail(GIDD_ERR_CORRUPT, "%s is no input of this program", path);
}

static gidd_status read_input(const char *path, input *in)
{
    FILE   *file = fopen(path, "rb");
    int32_t sizes[2];
    if (file == NULL || fread(sizes, sizeof *sizes, 2, file) != 2 || sizes[0] < 1 || sizes[1] < 1) {
        return fail_input(path);
    }
    in->B = sizes[0];
    in->T = sizes[1];
    size_t B = (size_t)in->B, rows = B * (size_t)in->T;
    in->t = malloc(B * sizeof *in->t);
    in->ids = malloc(rows * sizeof *in->ids);
    size_t got = fread(in->t, sizeof *in->t, B, file) + fread(in->ids, sizeof *in->ids, rows, file);
    (void)fclose(file);
    return got == B + rows ? GIDD_OK : fail_input(path);
}

static gidd_status fill_batch(const gidd_inference *inference, const input *in, gidd_batch *batch)
{
    int64_t  rows = (int64_t)in->B * in->T;
    int32_t *scratch = malloc((size_t)rows * sizeof *scratch);
    void    *memory = aligned_alloc(64, (gidd_batch_bytes(in->B, in->T) + 63) / 64 * 64);
    gidd_batch_layout(batch, in->B, in->T, memory);
    memcpy(batch->x, in->ids, (size_t)rows * sizeof *in->ids);
    memcpy(batch->z, in->ids, (size_t)rows * sizeof *in->ids);
    for (int64_t i = 0; i < rows; i++) {
        batch->attention_mask[i] = 1;
    }
    for (int64_t b = 0; b < in->B; b++) {
        gidd_schedule_coef(&inference->schedule, in->t[b], &batch->coef[b]);
    }
    gidd_batch_index(batch, inference->vocab.V, scratch);
    free(scratch);
    return GIDD_OK;
}

static gidd_status write_logits(const gidd_inference *inference, const gidd_batch *batch, const char *path)
{
    const gidd_model_shape *s = &inference->params.shape;
    gidd_model             *model = inference->model;
    int64_t                 rows = batch->B * batch->T;
    float                  *host = malloc((size_t)(model->head_rows * s->Vr) * sizeof *host);
    FILE                   *file = fopen(path, "wb");
    gidd_status             status = host != NULL && file != NULL ? GIDD_OK : fail_input(path);
    for (int64_t first = 0, part = model->head_rows; status == GIDD_OK && first < rows; first += part) {
        void *memory = NULL;
        part = part < rows - first ? part : rows - first;
        status = gidd_model_logits(model, first, part, &memory);
        if (status == GIDD_OK) {
            status = gidd_device_copy_out(inference->device, host, memory, (size_t)(part * s->Vr) * sizeof *host);
        }
        for (int64_t r = 0; status == GIDD_OK && r < part; r++) {
            if (fwrite(host + r * s->Vr, sizeof *host, (size_t)s->V, file) != (size_t)s->V) {
                status = gidd_fail(GIDD_ERR_IO, "cannot write %s", path);
            }
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    free(host);
    return status;
}

static gidd_status run(const char *const *paths, input *in, gidd_inference *inference, gidd_batch *batch)
{
    const gidd_cli cli = {.overrides = {"training.precision=fp32", "device.kind=cpu"}, .override_count = 2};
    GIDD_TRY(read_input(paths[1], in));
    GIDD_TRY(gidd_inference_open(inference, &(gidd_inference_args){
                                                .model = paths[0], .cli = &cli, .max_B = in->B, .node_size = 1}));
    GIDD_TRY(fill_batch(inference, in, batch));
    GIDD_TRY(gidd_model_load(inference->model, batch));
    GIDD_TRY(gidd_model_forward(inference->model));
    return write_logits(inference, batch, paths[2]);
}

int main(int argc, char **argv)
{
    input          in = {0};
    gidd_inference inference;
    gidd_batch     batch = {0};
    memset(&inference, 0, sizeof inference);
    if (argc != 4) {
        (void)fprintf(stderr, "usage: published_logits MODEL INPUT OUTPUT\n");
        return gidd_status_exit_code(GIDD_ERR_USAGE);
    }
    const char *const paths[] = {argv[1], argv[2], argv[3]};
    gidd_status       status = run(paths, &in, &inference, &batch);
    if (status != GIDD_OK) {
        (void)fprintf(stderr, "published_logits: %s\n", gidd_error_last()->text);
    }
    gidd_inference_close(&inference);
    free(batch.memory);
    free(in.t);
    free(in.ids);
    return gidd_status_exit_code(status);
}
