/* SPDX-License-Identifier: Apache-2.0
 *
 * A state to checkpoint in tests: five tensors, three sections of two blocks each, every number
 * known from its place and its step, held by the ranks whole or in pieces as ZeRO-1 does.
 */
#ifndef GIDD_TESTS_CHECKPOINT_STATE_H
#define GIDD_TESTS_CHECKPOINT_STATE_H

#include "io/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_TENSORS = 5, STATE_SECTIONS = 3, STATE_EXTENTS_MAX = 64 };
enum { STATE_BUCKET = 1 << 17 }; /* elements that are cut into pieces, or handed over at once */

#ifdef STATE_SMALL /* one block a section, for tests that write very many */
static const int64_t state_shapes[STATE_TENSORS][2] = {
    {50, 70}, {333, 1}, {60, 110}, {77, 11}, {30, 1013}};
#else
static const int64_t state_shapes[STATE_TENSORS][2] = {
    {500, 700}, {333, 1}, {600, 1100}, {77, 11}, {300, 1013}};
#endif

typedef struct state {
    gidd_checkpoint_tensor tensors[STATE_TENSORS];
    gidd_checkpoint_layout layout;
    int ranks;
    float *memory[STATE_SECTIONS]; /* [layout.elements] each */
} state;

static inline float state_value(int section, int64_t flat, int64_t step)
{
    return (float)((flat * 31 + section * 1009 + step * 7) % 16777213) * 0x1p-10f;
}

static inline void state_init(state *s, int ranks)
{
    static const char *const names[STATE_SECTIONS] = {"master", "adam_m", "adam_v"};
    int64_t offset = 0;
    memset(s, 0, sizeof *s);
    for (int i = 0; i < STATE_TENSORS; i++) {
        gidd_checkpoint_tensor *tensor = &s->tensors[i];
        (void)snprintf(tensor->name, sizeof tensor->name, "blocks.%d.weight", i);
        tensor->shape[0] = state_shapes[i][0];
        tensor->shape[1] = state_shapes[i][1];
        tensor->dims = tensor->shape[1] == 1 ? 1 : 2;
        tensor->offset = offset;
        offset += tensor->shape[0] * tensor->shape[1];
    }
    s->layout = (gidd_checkpoint_layout){.tensors = s->tensors,
                                         .tensor_count = STATE_TENSORS,
                                         .elements = offset,
                                         .section_count = STATE_SECTIONS};
    for (int i = 0; i < STATE_SECTIONS; i++) {
        (void)snprintf(s->layout.sections[i], GIDD_CHECKPOINT_NAME_SIZE, "%s", names[i]);
    }
    s->ranks = ranks;
    for (int i = 0; i < STATE_SECTIONS; i++) {
        s->memory[i] = calloc((size_t)offset, sizeof(float));
    }
}

static inline void state_release(state *s)
{
    for (int i = 0; i < STATE_SECTIONS; i++) {
        free(s->memory[i]);
    }
}

/* What training leaves in memory after `step` steps. */
static inline void state_fill(state *s, int64_t step)
{
    for (int section = 0; section < STATE_SECTIONS; section++) {
        for (int64_t i = 0; i < s->layout.elements; i++) {
            s->memory[section][i] = state_value(section, i, step);
        }
    }
}

/* Appends the flat range of a section as extents, one per bucket it touches. */
static inline void state_append(const state *s, int section, int64_t first, int64_t count,
                                gidd_checkpoint_extent *extents, int64_t *used)
{
    while (count > 0) {
        int64_t part = STATE_BUCKET - first % STATE_BUCKET;
        part = part < count ? part : count;
        extents[(*used)++] = (gidd_checkpoint_extent){.section = section,
                                                      .first = first,
                                                      .count = part,
                                                      .source = s->memory[section] + first};
        first += part;
        count -= part;
    }
}

/* Every rank holds everything: each writes whole blocks. */
static inline int64_t state_extents_whole(const state *s, int rank, gidd_checkpoint_extent *extents)
{
    gidd_checkpoint_extent share[GIDD_CHECKPOINT_SECTIONS_MAX];
    int64_t used = 0;
    int shares = gidd_checkpoint_share(&s->layout, rank, s->ranks, share);
    for (int i = 0; i < shares; i++) {
        state_append(s, share[i].section, share[i].first, share[i].count, extents, &used);
    }
    return used;
}

/* Every rank holds its piece of every bucket: blocks are shared. Everything else of the memory is
 * spoilt, so that nobody writes what is not his. */
static inline int64_t state_extents_pieces(state *s, int rank, gidd_checkpoint_extent *extents)
{
    int64_t used = 0;
    for (int section = 0; section < STATE_SECTIONS; section++) {
        for (int64_t at = 0; at < s->layout.elements; at += STATE_BUCKET) {
            int64_t left = s->layout.elements - at, size = left < STATE_BUCKET ? left : STATE_BUCKET;
            int64_t first = size * rank / s->ranks, end = size * (rank + 1) / s->ranks;
            for (int64_t i = 0; i < size; i++) {
                if (i < first || i >= end) {
                    s->memory[section][at + i] = -1.0f;
                }
            }
            state_append(s, section, at + first, end - first, extents, &used);
        }
    }
    return used;
}

/* GIDD_ERR_ARG unless every number is that of the checkpoint's step. */
static inline gidd_status state_compare(gidd_checkpoint *checkpoint)
{
    const gidd_checkpoint_layout *layout = gidd_checkpoint_layout_of(checkpoint);
    int64_t step = gidd_checkpoint_fields_of(checkpoint)->step, wrong = 0;
    float *values = malloc((size_t)layout->elements * sizeof *values);
    gidd_status status = values != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory");
    for (int section = 0; section < layout->section_count && status == GIDD_OK; section++) {
        status = gidd_checkpoint_read(checkpoint, section, 0, layout->elements, values);
        for (int64_t i = 0; i < layout->elements && status == GIDD_OK; i++) {
            wrong += values[i] != state_value(section, i, step);
        }
    }
    free(values);
    return wrong == 0 ? status
                      : gidd_fail(GIDD_ERR_ARG, "%lld numbers are wrong", (long long)wrong);
}

static inline gidd_checkpoint_fields state_fields(int64_t step, int64_t ranks)
{
    static const gidd_checkpoint_text texts[] = {
        {"config", "run:\n  seed: 1\n  # \"checksum\": \"\n"}, {"data_digest", "00112233"}};
    static const gidd_checkpoint_text fingerprint[] = {{"reduction", "direct"}, {"isa", "any"}};
    return (gidd_checkpoint_fields){.step = step,
                                    .sample_cursor = step * 64,
                                    .adam_step = step,
                                    .skipped_total = 2,
                                    .tokens_seen = step * 64 * 128,
                                    .seed = -1,
                                    .metrics_bytes = step * 100,
                                    .world_size = ranks,
                                    .build_id = "test",
                                    .texts = texts,
                                    .text_count = 2,
                                    .fingerprint = fingerprint,
                                    .fingerprint_count = 2};
}

#endif
