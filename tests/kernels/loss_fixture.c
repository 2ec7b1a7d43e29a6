/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/loss_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

loss_fixture loss_fixture_of(gidd_device *device, loss_slot slot, loss_case c, int64_t tokens)
{
    loss_fixture f = {.device = device, .slot = slot, .c = c, .B = c.rows / c.T};
    f.x = malloc((size_t)c.rows * sizeof *f.x);
    f.list = malloc((size_t)c.rows * sizeof *f.list);
    f.coef = calloc((size_t)f.B, sizeof *f.coef);
    for (int64_t p = 0; p < c.rows; p++) {
        f.x[p] = (int32_t)random_below(51, p, tokens);
        f.list[p] = (int32_t)((p + 1) % c.rows);
    }
    for (int64_t b = 0; b < f.B; b++) {
        f.coef[b].row_weight = b > 0 && b == f.B - 1 ? 0.0f : 1.0f;
    }
    f.logits = random_values(53, c.rows * c.Vr, c.spread, device->dtype);
    return f;
}

static void release_buffers(loss_fixture *f)
{
    buffer *all[] = {&f->dev_x, &f->dev_z, &f->dev_mask, &f->dev_list, &f->dev_coef, &f->dev_logits, &f->terms};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_release(all[i]);
    }
}

static buffer buffer_of_ids(const loss_fixture *f, const int32_t *ids)
{
    return ids != NULL ? buffer_of_bytes(f->device, ids, (size_t)f->c.rows * sizeof *ids) : (buffer){0};
}

void loss_fixture_upload(loss_fixture *f)
{
    release_buffers(f);
    f->dev_x = buffer_of_ids(f, f->x);
    f->dev_z = buffer_of_ids(f, f->z);
    f->dev_mask = buffer_of_ids(f, f->mask);
    f->dev_list = buffer_of_ids(f, f->list);
    f->dev_coef = buffer_of_bytes(f->device, f->coef, (size_t)f->B * sizeof *f->coef);
    f->dev_logits = buffer_of(f->device, f->device->dtype, f->logits, f->c.rows * f->c.Vr);
    f->terms = buffer_of(f->device, GIDD_F32, NULL, f->c.rows * 4);
}

void loss_fixture_release(loss_fixture *f)
{
    release_buffers(f);
    void *owned[] = {f->x, f->z, f->mask, f->list, f->coef, f->logits};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
}

void loss_fixture_run(loss_fixture *f, gidd_loss_mode mode, int with_list, double scale)
{
    CHECK_OK(f->slot(f->device, &(gidd_loss_args){.logits = f->dev_logits.memory,
                                                  .terms = f->terms.memory,
                                                  .x = f->dev_x.memory,
                                                  .z = f->dev_z.memory,
                                                  .attention_mask = f->dev_mask.memory,
                                                  .row_list = with_list ? f->dev_list.memory : NULL,
                                                  .coef = f->dev_coef.memory,
                                                  .rows = f->c.rows,
                                                  .T = f->c.T,
                                                  .V = f->c.V,
                                                  .Vr = f->c.Vr,
                                                  .mask_id = f->mask_id,
                                                  .scale = (float)scale,
                                                  .mode = mode}));
}

loss_results loss_fixture_run_both(loss_fixture *f, int with_list, double scale)
{
    loss_fixture_run(f, GIDD_LOSS_EVALUATE, with_list, scale);
    double *evaluated = buffer_values(&f->terms);
    check_buffer("logits after evaluation", &f->dev_logits, f->logits,
                 (gidd_tolerance){f->device->dtype, 0, 0});
    loss_fixture_run(f, GIDD_LOSS_TRAIN, with_list, scale);
    loss_results made = {buffer_values(&f->terms), buffer_values(&f->dev_logits)};
    cr_assert_eq(memcmp(evaluated, made.terms, (size_t)(f->c.rows * 4) * sizeof *evaluated), 0);
    free(evaluated);
    return made;
}

void loss_results_release(loss_results *gone)
{
    free(gone->terms);
    free(gone->gradient);
}
