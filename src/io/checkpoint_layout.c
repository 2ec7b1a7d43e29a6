/* SPDX-License-Identifier: Apache-2.0 */
#include "io/checkpoint.h"

#include <string.h>

static int64_t section_bytes(const gidd_checkpoint_layout *layout)
{
    return layout->elements * (int64_t)sizeof(float);
}

static int64_t section_blocks(const gidd_checkpoint_layout *layout)
{
    return (section_bytes(layout) + GIDD_CHECKPOINT_BLOCK - 1) / GIDD_CHECKPOINT_BLOCK;
}

int64_t gidd_checkpoint_section_offset(const gidd_checkpoint_layout *layout, int section)
{
    return section * section_blocks(layout) * GIDD_CHECKPOINT_BLOCK;
}

int64_t gidd_checkpoint_state_bytes(const gidd_checkpoint_layout *layout)
{
    return gidd_checkpoint_section_offset(layout, layout->section_count);
}

int64_t gidd_checkpoint_block_count(const gidd_checkpoint_layout *layout)
{
    return layout->section_count * section_blocks(layout);
}

int gidd_checkpoint_section(const gidd_checkpoint_layout *layout, const char *name)
{
    for (int section = 0; section < layout->section_count; section++) {
        if (strcmp(layout->sections[section], name) == 0) {
            return section;
        }
    }
    return -1;
}

static gidd_status compare_tensor(const gidd_checkpoint_tensor *stored,
                                  const gidd_checkpoint_tensor *wanted)
{
    if (strcmp(stored->name, wanted->name) != 0) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "the checkpoint has tensor %s where this model has tensor %s",
                         stored->name, wanted->name);
    }
    if (stored->dims != wanted->dims || stored->shape[0] != wanted->shape[0] ||
        stored->shape[1] != wanted->shape[1] || stored->offset != wanted->offset) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "tensor %s is [%lld][%lld] at %lld in the checkpoint, [%lld][%lld] at "
                         "%lld in this model",
                         stored->name, (long long)stored->shape[0], (long long)stored->shape[1],
                         (long long)stored->offset, (long long)wanted->shape[0],
                         (long long)wanted->shape[1], (long long)wanted->offset);
    }
    return GIDD_OK;
}

gidd_status gidd_checkpoint_layout_compare(const gidd_checkpoint_layout *stored,
                                           const gidd_checkpoint_layout *wanted)
{
    int64_t common =
        stored->tensor_count < wanted->tensor_count ? stored->tensor_count : wanted->tensor_count;
    for (int64_t i = 0; i < common; i++) {
        GIDD_TRY(compare_tensor(&stored->tensors[i], &wanted->tensors[i]));
    }
    if (stored->tensor_count != wanted->tensor_count || stored->elements != wanted->elements) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "the checkpoint has %lld tensors with %lld elements, this model %lld "
                         "with %lld",
                         (long long)stored->tensor_count, (long long)stored->elements,
                         (long long)wanted->tensor_count, (long long)wanted->elements);
    }
    return GIDD_OK;
}

const char *gidd_checkpoint_text_find(const gidd_checkpoint_text *texts, int64_t count,
                                      const char *name)
{
    for (int64_t i = 0; i < count; i++) {
        if (strcmp(texts[i].name, name) == 0) {
            return texts[i].value;
        }
    }
    return NULL;
}

int gidd_checkpoint_share(const gidd_checkpoint_layout *layout, int rank, int size,
                          gidd_checkpoint_extent *extents)
{
    int64_t blocks = gidd_checkpoint_block_count(layout), per_section = section_blocks(layout);
    int64_t first = blocks * rank / size, end = blocks * (rank + 1) / size;
    int64_t block_elements = GIDD_CHECKPOINT_BLOCK / (int64_t)sizeof(float);
    int filled = 0;
    for (int section = 0; section < layout->section_count; section++) {
        // This section's blocks among [first, end), counted from its own start.
        int64_t low = first - section * per_section, high = end - section * per_section;
        low = low > 0 ? low : 0;
        high = high < per_section ? high : per_section;
        if (low >= high) {
            continue;
        }
        int64_t stop = high * block_elements;
        stop = stop < layout->elements ? stop : layout->elements;
        extents[filled++] = (gidd_checkpoint_extent){
            .section = section,
            .first = low * block_elements,
            .count = stop - low * block_elements,
        };
    }
    return filled;
}
