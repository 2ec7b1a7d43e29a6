/* SPDX-License-Identifier: Apache-2.0 */
#include "io/checkpoint_staging.h"

#include <stdlib.h>
#include <string.h>

static int compare_extents(const void *left, const void *right)
{
    const gidd_checkpoint_extent *a = left, *b = right;
    if (a->section != b->section) {
        return a->section < b->section ? -1 : 1;
    }
    return a->first < b->first ? -1 : a->first > b->first;
}

static int ends_section(const gidd_checkpoint_layout *layout, const gidd_checkpoint_extent *extent)
{
    return extent->first + extent->count == layout->elements;
}

// Bytes of an extent in state.bin, with the padding behind a section's last element.
static int64_t extent_bytes(const gidd_checkpoint_layout *layout,
                            const gidd_checkpoint_extent *extent)
{
    if (ends_section(layout, extent)) {
        return gidd_checkpoint_section_offset(layout, 1) - extent->first * (int64_t)sizeof(float);
    }
    return extent->count * (int64_t)sizeof(float);
}

// Sorted extents: inside their sections, and none over another.
static gidd_status check_extents(const gidd_checkpoint_layout *layout,
                                 const gidd_checkpoint_extent *sorted, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const gidd_checkpoint_extent *extent = &sorted[i], *before = i > 0 ? extent - 1 : NULL;
        if (extent->section < 0 || extent->section >= layout->section_count || extent->first < 0 ||
            extent->count < 1 || extent->first > layout->elements - extent->count) {
            return gidd_fail(GIDD_ERR_ARG,
                             "checkpoint extent of %lld elements at %lld of section "
                             "%d is outside",
                             (long long)extent->count, (long long)extent->first, extent->section);
        }
        if (before != NULL && before->section == extent->section &&
            before->first + before->count > extent->first) {
            return gidd_fail(GIDD_ERR_ARG,
                             "checkpoint extents overlap at element %lld of section "
                             "%d",
                             (long long)extent->first, extent->section);
        }
    }
    return GIDD_OK;
}

static gidd_status reserve(gidd_staging *staging, size_t bytes, int64_t runs)
{
    if (bytes > staging->capacity) {
        free(staging->memory);
        staging->memory = malloc(bytes);
        staging->capacity = staging->memory != NULL ? bytes : 0;
    }
    if (runs > staging->run_capacity) {
        free(staging->runs);
        staging->runs = malloc((size_t)runs * sizeof *staging->runs);
        staging->run_capacity = staging->runs != NULL ? runs : 0;
    }
    if (bytes > staging->capacity || runs > staging->run_capacity) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for %zu bytes of checkpoint", bytes);
    }
    return GIDD_OK;
}

gidd_status gidd_staging_prepare(gidd_staging *staging, size_t bytes)
{
    GIDD_TRY(reserve(staging, bytes, 0));
    memset(staging->memory, 0xff,
           bytes); // not 0: that with malloc becomes calloc, which touches nothing
    return GIDD_OK;
}

static gidd_status fill_runs(gidd_staging *staging, const gidd_checkpoint_layout *layout,
                             const gidd_checkpoint_extent *sorted, int64_t count,
                             gidd_staging_copy copy, void *copy_context)
{
    char *to = staging->memory;
    for (int64_t i = 0; i < count; i++) {
        const gidd_checkpoint_extent *extent = &sorted[i];
        size_t data_bytes = (size_t)extent->count * sizeof(float);
        int64_t bytes = extent_bytes(layout, extent);
        int64_t offset = gidd_checkpoint_section_offset(layout, extent->section) +
                         extent->first * (int64_t)sizeof(float);
        gidd_staging_run *last =
            staging->run_count > 0 ? &staging->runs[staging->run_count - 1] : NULL;
        if (copy != NULL) {
            GIDD_TRY(copy(copy_context, to, extent->source, data_bytes));
        } else {
            memcpy(to, extent->source, data_bytes);
        }
        memset(to + data_bytes, 0, (size_t)bytes - data_bytes);
        if (last != NULL && last->offset + last->bytes == offset) {
            last->bytes += bytes;
        } else {
            staging->runs[staging->run_count++] =
                (gidd_staging_run){.offset = offset, .bytes = bytes, .data = to};
        }
        staging->elements += extent->count;
        to += bytes;
    }
    return GIDD_OK;
}

gidd_status gidd_staging_fill(gidd_staging *staging, const gidd_checkpoint_layout *layout,
                              const gidd_checkpoint_extent *extents, int64_t extent_count,
                              gidd_staging_copy copy, void *copy_context)
{
    size_t bytes = 0;
    gidd_status status = GIDD_OK;
    gidd_checkpoint_extent *sorted = NULL;
    staging->run_count = staging->elements = 0;
    if (extent_count == 0) {
        return GIDD_OK;
    }
    sorted = malloc((size_t)extent_count * sizeof *sorted);
    if (sorted == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for %lld extents", (long long)extent_count);
    }
    memcpy(sorted, extents, (size_t)extent_count * sizeof *sorted);
    qsort(sorted, (size_t)extent_count, sizeof *sorted, compare_extents);
    GIDD_TRY_GOTO(check_extents(layout, sorted, extent_count));
    for (int64_t i = 0; i < extent_count; i++) {
        bytes += (size_t)extent_bytes(layout, &sorted[i]);
    }
    GIDD_TRY_GOTO(reserve(staging, bytes, extent_count));
    status = fill_runs(staging, layout, sorted, extent_count, copy, copy_context);
out:
    free(sorted);
    return status;
}

void gidd_staging_release(gidd_staging *staging)
{
    free(staging->memory);
    free(staging->runs);
    *staging = (gidd_staging){0};
}

int64_t gidd_staging_piece(const gidd_staging_run *run, int64_t at)
{
    int64_t boundary = GIDD_CHECKPOINT_BLOCK - (run->offset + at) % GIDD_CHECKPOINT_BLOCK;
    return boundary < run->bytes - at ? boundary : run->bytes - at;
}
