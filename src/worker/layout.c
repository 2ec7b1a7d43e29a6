/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/layout.h"

#include <stdio.h>
#include <stdlib.h>

gidd_status gidd_layout_of_params(const gidd_params *params, const char *const *sections, int count,
                                  gidd_checkpoint_layout *layout)
{
    layout->tensors = calloc((size_t)params->tensor_count, sizeof *layout->tensors);
    if (layout->tensors == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the checkpoint's table");
    }
    layout->tensor_count = params->tensor_count;
    layout->elements = params->count;
    for (int64_t i = 0; i < params->tensor_count; i++) {
        const gidd_tensor *tensor = &params->tensors[i];
        layout->tensors[i] = (gidd_checkpoint_tensor){.dims = tensor->dims,
                                                      .shape = {tensor->shape[0], tensor->shape[1]},
                                                      .offset = tensor->offset};
        (void)snprintf(layout->tensors[i].name, sizeof layout->tensors[i].name, "%s", tensor->name);
    }
    layout->section_count = count;
    for (int i = 0; i < count; i++) {
        (void)snprintf(layout->sections[i], sizeof layout->sections[i], "%s", sections[i]);
    }
    return GIDD_OK;
}
