/* SPDX-License-Identifier: Apache-2.0
 *
 * A state to checkpoint in tests: five tensors, three sections of two blocks each, every number
 * known from its place and its step, held by the ranks whole or in pieces as ZeRO-1 does.
 */
#ifndef GIDD_TESTS_CHECKPOINT_STATE_H
#define GIDD_TESTS_CHECKPOINT_STATE_H

#include "comm/bucket.h"
#include "io/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_TENSORS = 5, STATE_SECTIONS = 3, STATE_EXTENTS_MAX = 64 };

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
    gidd_bucket_plan plan;
    float *memory[STATE_SECTIONS]; /* [plan.memory_elements] as training holds them */
} state;

static inline float state_value(int section, int64_t flat, int64_t step)
{
    return (float)((flat * 31 + section * 1009 + step * 7) % 16777213) * 0x1p-10f;
}

static inline void state_init(state *s, int ranks)
{
    static const char *const names[STATE_SECTIONS] = {"master", "adam_m", "adam_v"};
    int64_t counts[STATE_TENSORS], offset = 0;
    memset(s, 0, sizeof *s);
    for (int i = 0; i < STATE_TENSORS; i++) {
        gidd_checkpoint_tensor *tensor = &s->tensors[i];
        (void)snprintf(tensor->name, sizeof tensor->name, "blocks.%d.weight", i);
        tensor->shape[0] = state_shapes[i][0];
        tensor->shape[1] = state_shapes[i][1];
        tensor->dims = tensor->shape[1] == 1 ? 1 : 2;
        tensor->offset = offset;
        counts[i] = tensor->shape[0] * tensor->shape[1];
        offset += counts[i];
    }
    s->layout = (gidd_checkpoint_layout){.tensors = s->tensors,
                                         .tensor_count = STATE_TENSORS,
                                         .elements = offset,
                                         .section_count = STATE_SECTIONS};
    for (int i = 0; i < STATE_SECTIONS; i++) {
        (void)snprintf(s->layout.sections[i], GIDD_CHECKPOINT_NAME_SIZE, "%s", names[i]);
    }
    if (gidd_bucket_plan_init(&s->plan, counts, STATE_TENSORS, 1 << 19, ranks) != GIDD_OK) {
        abort();
    }
    for (int i = 0; i < STATE_SECTIONS; i++) {
        s->memory[i] = calloc((size_t)s->plan.memory_elements, sizeof(float));
    }
}

static inline void state_release(state *s)
{
    for (int i = 0; i < STATE_SECTIONS; i++) {
        free(s->memory[i]);
    }
    gidd_bucket_plan_release(&s->plan);
}

/* What training leaves in memory after `step` steps. */
static inline void state_fill(state *s, int64_t step)
{
    for (int section = 0; section < STATE_SECTIONS; section++) {
        for (int64_t b = 0; b < s->plan.count; b++) {
            const gidd_bucket_range *range = &s->plan.ranges[b];
            for (int64_t i = 0; i < range->count; i++) {
                s->memory[section][range->memory + i] =
                    state_value(section, range->first + i, step);
            }
        }
    }
}

/* Appends the flat range of a section as extents, one per bucket it touches. */
static inline void state_append(const state *s, int section, int64_t first, int64_t count,
                                gidd_checkpoint_extent *extents, int64_t *used)
{
    while (count > 0) {
        const gidd_bucket_range *range = &s->plan.ranges[gidd_bucket_of(&s->plan, first)];
        int64_t part = range->first + range->count - first;
        part = part < count ? part : count;
        extents[(*used)++] = (gidd_checkpoint_extent){
            .section = section,
            .first = first,
            .count = part,
            .source = s->memory[section] + gidd_bucket_memory(&s->plan, first)};
        first += part;
        count -= part;
    }
}

/* Every rank holds everything: each writes whole blocks. */
static inline int64_t state_extents_whole(const state *s, int rank, gidd_checkpoint_extent *extents)
{
    gidd_checkpoint_extent share[GIDD_CHECKPOINT_SECTIONS_MAX];
    int64_t used = 0;
    int shares = gidd_checkpoint_share(&s->layout, rank, s->plan.ranks, share);
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
        for (int64_t b = 0; b < s->plan.count; b++) {
            const gidd_bucket_range *range = &s->plan.ranges[b];
            int64_t first = 0, count = 0;
            gidd_bucket_slice(&s->plan, b, rank, &first, &count);
            for (int64_t i = 0; i < range->count; i++) {
                if (range->first + i < first || range->first + i >= first + count) {
                    s->memory[section][range->memory + i] = -1.0f;
                }
            }
            if (count > 0) {
                state_append(s, section, first, count, extents, &used);
            }
        }
    }
    return used;
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
