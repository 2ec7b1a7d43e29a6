/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the state of a run and its checkpoints.
 *
 * Files have the unpadded flat order; memory has the parts of this rank's slice. Both list the same
 * elements in the same order, so a flat range is one memory range per part that it touches.
 */
#include "worker/worker.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/version.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGING_ELEMENTS = 1 << 20 };

// Fields of the numerics fingerprint: equal ones mean that a resume is bit for bit.
enum { FINGERPRINT_FIELDS = 5, FINGERPRINT_VALUE = 256 };

typedef struct fingerprint {
    char                 values[FINGERPRINT_FIELDS][FINGERPRINT_VALUE];
    gidd_checkpoint_text fields[FINGERPRINT_FIELDS];
} fingerprint;

static void fill_fingerprint(const gidd_worker *worker, fingerprint *print)
{
    static const char *const names[FINGERPRINT_FIELDS] = {"ranks", "ranks_per_node", "reduction", "bucket_mib", "device"};
    const gidd_comm_set     *comms = worker->args.comms;
    int ranks = gidd_comm_size(comms->world) - comms->is_dedicated;
    (void)snprintf(print->values[0], FINGERPRINT_VALUE, "%d", ranks);
    (void)snprintf(print->values[1], FINGERPRINT_VALUE, "%d", comms->node_size_max);
    (void)snprintf(print->values[2], FINGERPRINT_VALUE, "%s", worker->reduction_text != NULL ? worker->reduction_text : "");
    (void)snprintf(print->values[3], FINGERPRINT_VALUE, "%.9g", worker->config->comm.bucket_mib);
    (void)snprintf(print->values[4], FINGERPRINT_VALUE, "%.255s", worker->device_text);
    for (int i = 0; i < FINGERPRINT_FIELDS; i++) {
        print->fields[i] = (gidd_checkpoint_text){names[i], print->values[i]};
    }
}

// Memory of a section's elements of a part of this rank's slice.
static float *section_memory(const gidd_worker *worker, int section, const gidd_slice_part *part)
{
    const gidd_optimizer *optimizer = worker->optimizer;
    float *const          own[] = {optimizer->m, optimizer->v, optimizer->average}; // in the order of the layout
    return section == 0 ? gidd_model_own_master(worker->model, part) : own[section - 1] + part->own;
}

/* ---- restoring ------------------------------------------------------------------------------------ */

typedef struct config_change {
    gidd_worker *worker;
    int64_t      step;
} config_change;

static int is_allowed(const char *list, const char *name)
{
    char item[128];
    for (int i = 0; list != NULL && gidd_config_list_item(list, i, item, sizeof item); i++) {
        if (strcmp(item, name) == 0) {
            return 1;
        }
    }
    return 0;
}

static gidd_status judge_change(void *context, const char *name, gidd_config_class class, const char *before,
                                const char *after)
{
    config_change *change = context;
    gidd_worker   *worker = change->worker;
    if (class == GIDD_CONFIG_IDENTITY) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: the run in %s has '%.200s', not '%.200s'; that makes it another run: give "
                         "it another run.dir", gidd_config_place(worker->config, name), name, worker->config->run.dir,
                         before, after);
    }
    if (class == GIDD_CONFIG_SEMANTIC && !is_allowed(worker->args.allow_change, name)) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: the run in %s has '%.200s', not '%.200s'; to change it from step %" PRId64
                         " on, add --allow-change %s", gidd_config_place(worker->config, name), name,
                         worker->config->run.dir, before, after, change->step, name);
    }
    if (class == GIDD_CONFIG_SEMANTIC && worker->is_coordinator) {
        gidd_log(GIDD_LOG_WARN, "run", "%s changes from '%s' to '%s' at step %" PRId64, name, before, after, change->step);
    }
    return GIDD_OK;
}

static gidd_status compare_config(gidd_worker *worker, const gidd_checkpoint_fields *fields)
{
    const char *text = gidd_checkpoint_text_find(fields->texts, fields->text_count, "config");
    const char *data = gidd_checkpoint_text_find(fields->texts, fields->text_count, "data_digest");
    const char *mine = gidd_data_set_info(worker->data)->data_digest;
    if (text == NULL || data == NULL) {
        return gidd_fail(GIDD_ERR_CORRUPT, "the checkpoint does not say its configuration and data");
    }
    gidd_config *before = malloc(sizeof *before);
    if (before == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the checkpoint's configuration");
    }
    gidd_config_init(before);
    config_change change = {worker, fields->step};
    gidd_status   status = gidd_config_parse(before, "checkpoint's config", text, strlen(text));
    if (status == GIDD_OK) {
        status = gidd_config_compare(before, worker->config, judge_change, &change);
    }
    free(before);
    if (status == GIDD_OK && strcmp(data, mine) != 0) {
        int         is_mix = worker->config->data.mix[0] != '\0';
        const char *key = is_mix ? "data.mix" : "data.dir";
        status = gidd_fail(GIDD_ERR_CONFIG, "%s: %s: %s holds other data (digest %s) than the run was trained on (%s)",
                           gidd_config_place(worker->config, key), key,
                           is_mix ? worker->config->data.mix : worker->config->data.dir, mine, data);
    }
    return status;
}

static void compare_fingerprint(const gidd_worker *worker, const gidd_checkpoint_fields *fields)
{
    fingerprint mine;
    fill_fingerprint(worker, &mine);
    for (int i = 0; i < FINGERPRINT_FIELDS; i++) {
        const char *before = gidd_checkpoint_text_find(fields->fingerprint, fields->fingerprint_count, mine.fields[i].name);
        // a dedicated coordinator has no device to compare
        if (worker->device != NULL && (before == NULL || strcmp(before, mine.fields[i].value) != 0)) {
            gidd_log(GIDD_LOG_WARN, "run", "bit-exactness ends at step %" PRId64 ": %s was '%s', now '%s'; samples and noise "
                     "stay the same", fields->step, mine.fields[i].name, before != NULL ? before : "unknown",
                     mine.fields[i].value);
        }
    }
}

gidd_status gidd_worker_fill_section(gidd_worker *worker, int section,
                                     gidd_status (*read)(void *context, int64_t first, int64_t count, float *values),
                                     void *context)
{
    float      *staging = malloc(STAGING_ELEMENTS * sizeof *staging);
    gidd_status status = staging != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory to read parameters");
    for (int64_t i = 0; status == GIDD_OK && i < worker->slice.part_count; i++) {
        const gidd_slice_part *part = &worker->slice.parts[i];
        float                 *memory = section_memory(worker, section, part);
        for (int64_t at = 0; status == GIDD_OK && at < part->used; at += STAGING_ELEMENTS) {
            int64_t count = part->used - at < STAGING_ELEMENTS ? part->used - at : STAGING_ELEMENTS;
            status = read(context, part->flat + at, count, staging);
            if (status == GIDD_OK) {
                status = gidd_device_copy_in(worker->device, memory + at, staging, (size_t)count * sizeof *staging);
            }
            if (status == GIDD_OK) {
                status = gidd_device_synchronize(worker->device); // staging is used again
            }
        }
    }
    free(staging);
    return status;
}

typedef struct stored_section {
    gidd_checkpoint *checkpoint;
    int              section;
} stored_section;

static gidd_status read_stored(void *context, int64_t first, int64_t count, float *values)
{
    const stored_section *stored = context;
    return gidd_checkpoint_read(stored->checkpoint, stored->section, first, count, values);
}

static gidd_status read_section(gidd_worker *worker, gidd_checkpoint *checkpoint, int section)
{
    const char    *name = worker->layout.sections[section];
    stored_section stored = {checkpoint, gidd_checkpoint_section(gidd_checkpoint_layout_of(checkpoint), name)};
    if (stored.section < 0 && strcmp(name, "ema") == 0) { // turned on since: it starts here
        return gidd_optimizer_start_average(worker->optimizer, worker->model);
    }
    if (stored.section < 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s has no section %s", gidd_checkpoint_path_of(checkpoint), name);
    }
    return gidd_worker_fill_section(worker, section, read_stored, &stored);
}

static gidd_status read_state(gidd_worker *worker, gidd_checkpoint *checkpoint)
{
    GIDD_TRY(gidd_checkpoint_layout_compare(gidd_checkpoint_layout_of(checkpoint), &worker->layout));
    for (int section = 0; section < worker->layout.section_count; section++) {
        GIDD_TRY(read_section(worker, checkpoint, section));
    }
    return gidd_model_refresh(worker->model);
}

static gidd_status take_fields(gidd_worker *worker, const gidd_checkpoint_fields *fields)
{
    const char        *journal = gidd_checkpoint_text_find(fields->texts, fields->text_count, "journal");
    const char        *plan = gidd_checkpoint_text_find(fields->texts, fields->text_count, "plan");
    gidd_journal_mark *mark = &worker->resume_mark.journal;
    worker->resumed = 1;
    worker->first_step = fields->step;
    worker->step.skipped_in_row = fields->skipped_in_row;
    mark->metrics_bytes = fields->metrics_bytes;
    if (journal == NULL || strlen(journal) >= sizeof mark->state) {
        return gidd_fail(GIDD_ERR_CORRUPT, "the checkpoint does not say how its journal stood");
    }
    (void)snprintf(mark->state, sizeof mark->state, "%s", journal);
    // checkpoints before the text was there had decided nothing
    (void)snprintf(worker->resume_mark.plan, sizeof worker->resume_mark.plan, "%s", plan != NULL ? plan : "");
    return GIDD_OK;
}

static gidd_status resume_from(gidd_worker *worker, gidd_checkpoint *checkpoint)
{
    const gidd_checkpoint_fields *fields = gidd_checkpoint_fields_of(checkpoint);
    GIDD_TRY(compare_config(worker, fields));
    compare_fingerprint(worker, fields);
    GIDD_TRY(take_fields(worker, fields));
    return worker->has_slice ? read_state(worker, checkpoint) : GIDD_OK;
}

// A run without trained steps: from a model, or at random.
static gidd_status start_fresh(gidd_worker *worker, const char *model)
{
    if (model[0] != '\0') {
        GIDD_TRY(gidd_worker_initialise(worker, model));
    } else if (worker->has_slice) {
        GIDD_TRY(gidd_model_init_params(worker->model, (uint64_t)worker->config->run.seed));
    }
    return worker->has_slice ? gidd_optimizer_start_average(worker->optimizer, worker->model) : GIDD_OK;
}

static gidd_status create_writer(gidd_worker *worker);

gidd_status gidd_worker_restore(gidd_worker *worker)
{
    gidd_checkpoint *checkpoint = NULL;
    gidd_watch_point(worker->watch, GIDD_WATCH_STARTUP, 0, "restore");
    gidd_fault_point("restore");
    GIDD_TRY(gidd_checkpoint_restore(&(gidd_checkpoint_restore_args){.comm = worker->world,
                                                                     .coordinator = worker->args.comms->coordinator,
                                                                     .run_dir = worker->config->run.dir,
                                                                     .lock = worker->lock},
                                     &checkpoint));
    gidd_status local = GIDD_OK;
    if (checkpoint == NULL) {
        local = start_fresh(worker, worker->config->model.init_from);
    } else if (gidd_checkpoint_fields_of(checkpoint)->step == 0) { // an import: parameters, and nothing trained here
        local = start_fresh(worker, gidd_checkpoint_path_of(checkpoint));
    } else {
        local = resume_from(worker, checkpoint);
        gidd_log(GIDD_LOG_INFO, "run", "resuming %s at step %" PRId64 " of %" PRId64, gidd_checkpoint_path_of(checkpoint),
                 worker->first_step, worker->config->training.steps);
    }
    gidd_checkpoint_close(checkpoint);
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    if (worker->has_slice) {
        local = gidd_replicate_weights(worker->model, worker->reduction.buckets);
    }
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    return create_writer(worker);
}

/* ---- saving ---------------------------------------------------------------------------------------- */

static gidd_status copy_from_device(void *context, void *destination, const void *source, size_t bytes)
{
    return gidd_device_copy_out(context, destination, source, bytes);
}

static gidd_status create_writer(gidd_worker *worker)
{
    const gidd_config *config = worker->config;
    int64_t            workers = gidd_comm_size(worker->world) - worker->args.comms->is_dedicated;
    int64_t share = gidd_checkpoint_state_bytes(&worker->layout) / workers + 2 * GIDD_CHECKPOINT_BLOCK; // cut at blocks
    if (!worker->slice.is_whole) {
        share = worker->slice.own_count * worker->layout.section_count * (int64_t)sizeof(float) + GIDD_CHECKPOINT_BLOCK;
    }
    return gidd_checkpoint_writer_create(
        &(gidd_checkpoint_writer_args){.comm = worker->world,
                                       .coordinator = worker->args.comms->coordinator,
                                       .run_dir = config->run.dir,
                                       .lock = worker->lock,
                                       .layout = &worker->layout,
                                       .keep_last = config->checkpoint.keep_last,
                                       .keep_every = config->checkpoint.keep_every,
                                       .verify_after_write = config->checkpoint.verify_after_write,
                                       .background = worker->args.comms->thread_multiple,
                                       .staging_bytes = worker->has_slice ? share : 0,
                                       .copy = worker->has_slice ? copy_from_device : NULL,
                                       .copy_context = worker->device},
        &worker->writer);
}

// What lies in this rank's slice of elements [first, first + count) of a section, cut where parts meet.
static int64_t add_extents(const gidd_worker *worker, int section, int64_t first, int64_t count,
                           gidd_checkpoint_extent *extents)
{
    int64_t filled = 0, end = first + count;
    for (int64_t i = 0; i < worker->slice.part_count; i++) {
        const gidd_slice_part *part = &worker->slice.parts[i];
        int64_t                from = part->flat > first ? part->flat : first;
        int64_t                to = part->flat + part->used < end ? part->flat + part->used : end;
        if (from < to) {
            extents[filled++] = (gidd_checkpoint_extent){
                .section = section,
                .first = from,
                .count = to - from,
                .source = section_memory(worker, section, part) + (from - part->flat)};
        }
    }
    return filled;
}

// This rank's share of the state: its slice; where all have everything, an equal part.
static int64_t fill_extents(const gidd_worker *worker, gidd_checkpoint_extent *extents)
{
    gidd_checkpoint_extent share[GIDD_CHECKPOINT_SECTIONS_MAX];
    int64_t                count = 0;
    if (!worker->slice.is_whole) {
        for (int section = 0; section < worker->layout.section_count; section++) {
            count += add_extents(worker, section, 0, worker->layout.elements, extents + count);
        }
        return count;
    }
    int pieces = gidd_checkpoint_share(&worker->layout, gidd_comm_rank(worker->args.comms->workers),
                                       gidd_comm_size(worker->args.comms->workers), share);
    for (int i = 0; i < pieces; i++) {
        count += add_extents(worker, share[i].section, share[i].first, share[i].count, extents + count);
    }
    return count;
}

gidd_status gidd_worker_checkpoint_begin(gidd_worker *worker)
{
    const gidd_config   *config = worker->config;
    int64_t              capacity = worker->params.bucket_count * GIDD_CHECKPOINT_SECTIONS_MAX;
    char                 base_ids[16];
    (void)snprintf(base_ids, sizeof base_ids, "%d", gidd_data_set_info(worker->data)->vocab_size);
    gidd_checkpoint_text texts[] = {
        {"base_ids", base_ids},
        {"config", worker->config_text},
        {"data_digest", gidd_data_set_info(worker->data)->data_digest},
        {"tokenizer_digest", gidd_data_set_info(worker->data)->tokenizer_digest},
        {"gemm", worker->gemm_text}, // last: not always there
    };
    fingerprint print;
    fill_fingerprint(worker, &print);
    gidd_checkpoint_fields fields = {
        .step = worker->completed,
        .sample_cursor = worker->completed * config->training.global_batch,
        .adam_step = worker->completed,
        .seed = config->run.seed,
        .world_size = gidd_comm_size(worker->world) - worker->args.comms->is_dedicated,
        .build_id = GIDD_BUILD_ID,
        .texts = texts,
        .text_count = (int64_t)(sizeof texts / sizeof *texts) - (worker->gemm_text == NULL),
        .fingerprint = print.fields,
        .fingerprint_count = FINGERPRINT_FIELDS,
    };
    gidd_checkpoint_extent *extents = calloc((size_t)capacity, sizeof *extents);
    if (extents == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a checkpoint's list of extents");
    }
    int64_t     count = worker->has_slice ? fill_extents(worker, extents) : 0;
    gidd_checkpoint_begin(worker->writer, worker->completed, worker->is_coordinator ? &fields : NULL, extents, count);
    free(extents);
    return GIDD_OK;
}

// What only the coordinator knows, added before the manifest is written.
static gidd_status complete_fields(gidd_worker *worker, const gidd_coordinator_mark *mark)
{
    if (!worker->is_coordinator) {
        return GIDD_OK;
    }
    GIDD_TRY(gidd_journal_flush(gidd_coordinator_journal(worker->coordinator)));
    const gidd_checkpoint_text texts[] = {{"journal", mark->journal.state}, {"plan", mark->plan}};
    return gidd_checkpoint_amend(worker->writer,
                                 &(gidd_checkpoint_amendment){.metrics_bytes = mark->journal.metrics_bytes,
                                                              .tokens_seen = mark->journal.tokens_seen,
                                                              .skipped_total = mark->journal.skipped_total,
                                                              .skipped_in_row = mark->journal.skipped_in_row,
                                                              .texts = texts,
                                                              .text_count = 2});
}

gidd_status gidd_worker_checkpoint_advance(gidd_worker *worker)
{
    gidd_watch_point(worker->watch, GIDD_WATCH_CHECKPOINT, worker->completed, "checkpoint stage");
    const gidd_coordinator_mark *mark =
        worker->is_coordinator ? gidd_coordinator_checkpoint_mark(worker->coordinator) : NULL;
    GIDD_TRY(gidd_comm_agree(worker->world, complete_fields(worker, mark)));
    int64_t     before = gidd_checkpoint_committed_step(worker->writer);
    gidd_status status = gidd_checkpoint_advance(worker->writer);
    if (status != GIDD_OK && worker->is_coordinator) {
        gidd_log(GIDD_LOG_WARN, "checkpoint", "not written, training goes on: %s", gidd_error_last()->text);
        GIDD_TRY(gidd_journal_event(gidd_coordinator_journal(worker->coordinator), worker->completed, "checkpoint failed",
                                    gidd_error_last()->text));
    }
    int64_t now = gidd_checkpoint_committed_step(worker->writer);
    if (now != before) {
        gidd_log(GIDD_LOG_INFO, "checkpoint", "step %" PRId64 " is safe", now);
    }
    return status == GIDD_ERR_COMM || status == GIDD_ERR_OUTPUT ? status : GIDD_OK; // lost the lock, or MPI: leave
}

gidd_status gidd_worker_checkpoint_final(gidd_worker *worker)
{
    gidd_coordinator_mark mark;
    memset(&mark, 0, sizeof mark);
    while (gidd_checkpoint_writer_state(worker->writer) != GIDD_CHECKPOINT_IDLE) {
        const gidd_coordinator_mark *pending =
            worker->is_coordinator ? gidd_coordinator_checkpoint_mark(worker->coordinator) : NULL;
        GIDD_TRY(gidd_comm_agree(worker->world, complete_fields(worker, pending)));
        gidd_status status = gidd_checkpoint_finish(worker->writer);
        if (status != GIDD_OK) {
            gidd_log(GIDD_LOG_WARN, "checkpoint", "not written: %s", gidd_error_last()->text);
        }
    }
    int64_t committed = gidd_checkpoint_committed_step(worker->writer);
    int64_t newest = committed > worker->first_step ? committed : (worker->resumed ? worker->first_step : 0);
    if (worker->completed <= newest) {
        return GIDD_OK; // nothing was done since
    }
    gidd_status local = gidd_worker_checkpoint_begin(worker);
    if (local == GIDD_OK && worker->is_coordinator) {
        gidd_coordinator_final_mark(worker->coordinator, &mark);
        local = complete_fields(worker, &mark);
    }
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    GIDD_TRY(gidd_checkpoint_finish(worker->writer));
    gidd_log(GIDD_LOG_INFO, "checkpoint", "step %" PRId64 " is safe", worker->completed);
    return GIDD_OK;
}
