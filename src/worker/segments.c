/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/segments.h"

#include <stdlib.h>

/* A graph of its own for each bucket whose gradients BACKWARD completes: between two of them the host starts the
 * bucket's reduction, which then runs beside the next. Other segments are one piece. */
typedef struct segment_piece {
    gidd_graph *graph;
    int32_t     group; /* of the last gradients that it completes */
} segment_piece;

typedef struct recorded_segment {
    gidd_segment   segment;
    segment_piece *pieces; /* owned */
    int64_t        count;
} recorded_segment;

struct gidd_segments {
    gidd_segments_args args;
    gidd_device       *device;
    recorded_segment  *recorded;
    int64_t            count, capacity;
    recorded_segment  *open;   /* being recorded */
    gidd_status        status; /* of the host's function in the middle of a recording */
};

/* What the host does in the middle of a segment. */
typedef struct host_part {
    void (*chunk_done)(void *context);
    void (*grads_ready)(void *context, int32_t group);
    void *context;
} host_part;

static gidd_status issue(const gidd_segments_args *args, const gidd_segment *segment, const host_part *host)
{
    switch (segment->kind) {
    case GIDD_SEGMENT_TRUNK:
        return gidd_model_forward(args->model);
    case GIDD_SEGMENT_HEAD:
        return gidd_model_head(args->model, &(gidd_head_args){.mode = GIDD_LOSS_TRAIN,
                                                              .scale = args->scale,
                                                              .accumulate = segment->accumulate,
                                                              .skip_clean = segment->skip_clean,
                                                              .chunk_done = host->chunk_done,
                                                              .context = host->context});
    case GIDD_SEGMENT_BACKWARD:
        return gidd_model_backward(args->model, &(gidd_backward_args){.accumulate = segment->accumulate,
                                                                      .grads_ready = host->grads_ready,
                                                                      .context = host->context});
    case GIDD_SEGMENT_NORM:
        return gidd_optimizer_norm(args->optimizer, args->model);
    case GIDD_SEGMENT_UPDATE:
        return gidd_optimizer_apply(args->optimizer, args->model);
    }
    return gidd_fail(GIDD_ERR_ARG, "no segment %d", (int)segment->kind);
}

/* Which of the fields make a variant of their own. */
static int is_same(const gidd_segment *a, const gidd_segment *b)
{
    int passes = a->kind <= GIDD_SEGMENT_BACKWARD, gradients = passes && a->kind != GIDD_SEGMENT_TRUNK;
    return a->kind == b->kind && (!passes || a->B == b->B) &&
           (!gradients || (a->accumulate == b->accumulate && a->skip_clean == b->skip_clean &&
                           (!a->skip_clean || a->rows == b->rows)));
}

static const recorded_segment *find(const gidd_segments *segments, const gidd_segment *segment)
{
    for (int64_t i = 0; i < segments->count; i++) {
        if (is_same(&segments->recorded[i].segment, segment)) {
            return &segments->recorded[i];
        }
    }
    return NULL;
}

/* Ends the piece that is being recorded. */
static gidd_status end_piece(gidd_segments *segments, int32_t group)
{
    segment_piece *piece = &segments->open->pieces[segments->open->count];
    GIDD_TRY(gidd_graph_end(segments->device, &piece->graph));
    piece->group = group;
    segments->open->count++;
    return GIDD_OK;
}

static int ends_bucket(const gidd_params *params, int32_t group)
{
    for (int64_t i = 0; i < params->bucket_count; i++) {
        if (params->buckets[i].first_group + params->buckets[i].group_count - 1 == group) {
            return 1;
        }
    }
    return 0;
}

/* While BACKWARD is recorded: a new graph where a bucket ends, but for the last. */
static void cut_at_bucket(void *context, int32_t group)
{
    gidd_segments     *segments = context;
    const gidd_params *params = segments->args.model->params;
    if (segments->status == GIDD_OK && group + 1 < params->group_count && ends_bucket(params, group)) {
        segments->status = end_piece(segments, group);
        if (segments->status == GIDD_OK) {
            segments->status = gidd_graph_begin(segments->device);
        }
    }
}

static gidd_status record(gidd_segments *segments, gidd_segment segment)
{
    if (find(segments, &segment) != NULL) {
        return GIDD_OK;
    }
    const gidd_pass_stage before[] = {[GIDD_SEGMENT_TRUNK] = GIDD_PASS_LOADED,
                                    [GIDD_SEGMENT_HEAD] = GIDD_PASS_FORWARD,
                                    [GIDD_SEGMENT_BACKWARD] = GIDD_PASS_HEAD};
    if (segment.kind <= GIDD_SEGMENT_BACKWARD) {
        gidd_model_pretend(segments->args.model, &(gidd_pretence){.B = segment.B,
                                                                  .T = segments->args.T,
                                                                  .listed_rows = segment.rows,
                                                                  .progress = before[segment.kind],
                                                                  .skip_clean = segment.skip_clean});
    }
    if (segments->count == segments->capacity) {
        int64_t           capacity = 2 * segments->capacity + 16;
        recorded_segment *recorded = realloc(segments->recorded, (size_t)capacity * sizeof *recorded);
        if (recorded == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld graphs", (long long)capacity);
        }
        segments->recorded = recorded;
        segments->capacity = capacity;
    }
    const gidd_params *params = segments->args.model->params;
    recorded_segment  *open = segments->open = &segments->recorded[segments->count++];
    *open = (recorded_segment){.segment = segment, .pieces = calloc((size_t)params->bucket_count, sizeof *open->pieces)};
    if (open->pieces == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a segment's graphs");
    }
    segments->status = GIDD_OK;
    GIDD_TRY(gidd_graph_begin(segments->device));
    gidd_status status = issue(&segments->args, &segment, &(host_part){.grads_ready = cut_at_bucket, .context = segments});
    status = status == GIDD_OK ? segments->status : status;
    if (status == GIDD_OK) {
        status = end_piece(segments, (int32_t)params->group_count - 1);
    }
    if (status != GIDD_OK) {
        gidd_graph_abandon(segments->device);
    }
    return status;
}

/* Both directions through head and blocks, for one B, of a first or a further micro-batch. */
static gidd_status record_gradients(gidd_segments *segments, gidd_segment segment)
{
    segment.kind = GIDD_SEGMENT_HEAD;
    GIDD_TRY(record(segments, segment));
    segment.kind = GIDD_SEGMENT_BACKWARD;
    return record(segments, segment);
}

static gidd_status record_passes(gidd_segments *segments, int64_t B)
{
    const gidd_segments_args *args = &segments->args;
    int64_t                   all = B * args->T;
    GIDD_TRY(record(segments, (gidd_segment){.kind = GIDD_SEGMENT_TRUNK, .B = B}));
    for (int accumulate = 0; accumulate <= (args->micro_batches > 1); accumulate++) {
        gidd_segment segment = {.B = B, .accumulate = accumulate};
        GIDD_TRY(record_gradients(segments, segment));
        segment.skip_clean = 1;
        for (int64_t i = 0; args->may_skip && i <= GIDD_ROW_BUCKETS; i++) {
            segment.rows = gidd_model_bucket(all * i / GIDD_ROW_BUCKETS, all);
            GIDD_TRY(record_gradients(segments, segment));
        }
    }
    return GIDD_OK;
}

static gidd_status record_all(gidd_segments *segments)
{
    GIDD_TRY(record_passes(segments, segments->args.B));
    GIDD_TRY(record_passes(segments, segments->args.last_B));
    GIDD_TRY(record(segments, (gidd_segment){.kind = GIDD_SEGMENT_NORM}));
    return record(segments, (gidd_segment){.kind = GIDD_SEGMENT_UPDATE});
}

gidd_status gidd_segments_create(const gidd_segments_args *args, gidd_segments **segments_p)
{
    gidd_segments *segments = calloc(1, sizeof *segments);
    if (segments == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the segments of a step");
    }
    segments->args = *args;
    segments->device = args->model->device;
    gidd_status status = args->use_graphs ? record_all(segments) : GIDD_OK;
    if (status != GIDD_OK) {
        gidd_segments_destroy(segments);
        return status;
    }
    *segments_p = segments;
    return GIDD_OK;
}

void gidd_segments_destroy(gidd_segments *segments)
{
    if (segments != NULL) {
        for (int64_t i = 0; i < segments->count; i++) {
            for (int64_t k = 0; k < segments->recorded[i].count; k++) {
                gidd_graph_destroy(segments->device, segments->recorded[i].pieces[k].graph);
            }
            free(segments->recorded[i].pieces);
        }
        free(segments->recorded);
        free(segments);
    }
}

gidd_status gidd_segment_run(gidd_segments *segments, const gidd_segment *segment)
{
    const gidd_segments_args *args = &segments->args;
    const host_part host = {.chunk_done = args->chunk_done,
                            .grads_ready = segment->kind == GIDD_SEGMENT_BACKWARD && segment->last ? args->grads_ready : NULL,
                            .context = args->context};
    if (!args->use_graphs) {
        return issue(args, segment, &host);
    }
    const recorded_segment *recorded = find(segments, segment);
    if (recorded == NULL) {
        return gidd_fail(GIDD_ERR_ARG, "segment %d of %lld sequences, %lld rows was not recorded", (int)segment->kind,
                         (long long)segment->B, (long long)segment->rows);
    }
    for (int64_t i = 0; i < recorded->count; i++) {
        GIDD_TRY(gidd_graph_launch(segments->device, recorded->pieces[i].graph));
        if (host.grads_ready != NULL) {
            host.grads_ready(host.context, recorded->pieces[i].group);
        }
    }
    if (segment->kind == GIDD_SEGMENT_HEAD && host.chunk_done != NULL) {
        host.chunk_done(host.context);
    }
    return GIDD_OK;
}

void gidd_segments_issue_plainly(gidd_segments *segments)
{
    segments->args.use_graphs = 0;
}

int64_t gidd_segments_count(const gidd_segments *segments, int64_t *launches_p)
{
    int64_t launches = 0, graphs = 0;
    for (int64_t i = 0; i < segments->count; i++) {
        for (int64_t k = 0; k < segments->recorded[i].count; k++) {
            int64_t size = gidd_graph_size(segments->recorded[i].pieces[k].graph);
            launches = size < 0 || launches < 0 ? -1 : launches + size;
            graphs++;
        }
    }
    *launches_p = launches;
    return graphs;
}
