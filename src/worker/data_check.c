/* SPDX-License-Identifier: Apache-2.0
 *
 * Before the first step: every shard is proven once, by whoever is there. One copy of the data that all ranks see is
 * shared out over all of them; where nodes have copies of their own, each node proves its own. What was proven is
 * remembered in RUN/data.verified by the files' sizes, times and inodes, so that a resume does not read them again.
 */
#include "worker/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/signals.h"
#include "io/shard_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEFT_OUT_SHARE = 10, // more than one document in so many: a bad copy, not a bad chunk
    RANGES_MAX = 1 << 16 // that a rank may find
};

// How a rank takes part.
typedef struct data_check {
    gidd_worker *worker;
    char         stamp[GIDD_DIGEST_SIZE];
    int          may_skip, is_shared;
    int64_t      part, parts;                    // this rank proves shards part, part + parts ...; parts 0: none
    int64_t      broken_off;                     // a signal came: the run ends before its first step in any case
    gidd_ranges  damaged[GIDD_LOADER_PARTS_MAX]; // documents by source; filled with may_skip only
} data_check;

static void record_path(const data_check *check, char path[GIDD_CONFIG_TEXT_MAX + 32])
{
    (void)snprintf(path, GIDD_CONFIG_TEXT_MAX + 32, "%s/data.verified", check->worker->config->run.dir);
}

// Whether these very files were proven by an earlier start. An unreadable record is none.
static int is_recorded(const data_check *check)
{
    char   path[GIDD_CONFIG_TEXT_MAX + 32];
    char  *text = NULL;
    size_t size = 0;
    record_path(check, path);
    if (gidd_file_read(path, GIDD_DIGEST_SIZE, &text, &size) != GIDD_OK) {
        return 0;
    }
    int same = size == GIDD_DIGEST_SIZE && memcmp(text, check->stamp, GIDD_DIGEST_SIZE - 1) == 0 && text[size - 1] == '\n';
    free(text);
    return same;
}

static gidd_status write_record(const data_check *check)
{
    char path[GIDD_CONFIG_TEXT_MAX + 32], line[GIDD_DIGEST_SIZE + 1];
    int  used = snprintf(line, sizeof line, "%s\n", check->stamp);
    record_path(check, path);
    GIDD_TRY(gidd_run_lock_check(check->worker->lock));
    return gidd_file_replace(path, line, (size_t)used);
}

/* ---- who proves what ------------------------------------------------------------------------------ */

static gidd_status share_out(data_check *check)
{
    const gidd_comm_set *comms = check->worker->args.comms;
    gidd_comm           *world = check->worker->world;
    char                 first[GIDD_DIGEST_SIZE];
    GIDD_TRY(gidd_comm_agree(world, gidd_data_set_stamp(check->worker->data, check->stamp)));
    memcpy(first, check->stamp, sizeof first);
    GIDD_TRY(gidd_comm_bcast(world, comms->coordinator, first, sizeof first));
    int64_t same = strcmp(first, check->stamp) == 0;
    GIDD_TRY(gidd_comm_allreduce_int64(world, &same, 1, GIDD_COMM_MIN));
    check->is_shared = (int)same;
    check->part = same ? gidd_comm_rank(world) : comms->node_rank;
    check->parts = same ? gidd_comm_size(world) : comms->node_size;
    return GIDD_OK;
}

// The first failure is the status, with what can be done about it; all are logged.
static gidd_status verify_part(data_check *check)
{
    gidd_worker *worker = check->worker;
    int64_t      count = gidd_data_set_info(worker->data)->shard_count;
    gidd_error   first = {0};
    for (int64_t s = check->part; check->parts > 0 && s < count && !check->broken_off; s += check->parts) {
        gidd_watch_point(worker->watch, GIDD_WATCH_STARTUP, 0, "proof of a shard");
        if (gidd_data_set_verify(worker->data, s, check->may_skip ? check->damaged : NULL) != GIDD_OK) {
            gidd_log(GIDD_LOG_ERROR, "data", "%s", gidd_error_last()->text);
            first = first.code == GIDD_OK ? *gidd_error_last() : first;
        }
        check->broken_off = gidd_signals_seen() != 0;
    }
    if (first.code != GIDD_ERR_CORRUPT) {
        gidd_error_restore(&first);
        return first.code;
    }
    return gidd_fail(GIDD_ERR_CORRUPT, "%.700s; no step was done. Copy the file again, or make it again: gidd-shard on the same "
                     "input keeps the good ones%s", first.text, check->may_skip ? "" : "; data.on_bad_chunk=skip leaves "
                     "out the documents of damaged chunks");
}

/* ---- leaving out ---------------------------------------------------------------------------------- */

typedef struct found_range {
    int64_t source, first, end;
} found_range;

static gidd_status list_found(data_check *check, found_range **list_p, int64_t *count_p)
{
    int64_t sources = gidd_data_set_info(check->worker->data)->source_count, count = 0;
    for (int64_t k = 0; k < sources; k++) {
        gidd_ranges_settle(&check->damaged[k]);
        count += check->damaged[k].count;
    }
    if (count > RANGES_MAX) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%" PRId64 " stretches of documents are damaged: copy the data again", count);
    }
    found_range *list = calloc((size_t)count + 1, sizeof *list);
    if (list == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %" PRId64 " damaged stretches", count);
    }
    *count_p = 0;
    for (int64_t k = 0; k < sources; k++) {
        for (int64_t i = 0; i < check->damaged[k].count; i++) {
            list[(*count_p)++] = (found_range){k, check->damaged[k].at[i].first, check->damaged[k].at[i].end};
        }
    }
    *list_p = list;
    return GIDD_OK;
}

// damaged[] becomes what any rank has found.
static gidd_status unite(data_check *check)
{
    gidd_comm   *world = check->worker->world;
    found_range *mine = NULL, *all = NULL, *padded = NULL;
    int64_t      count = 0, most = 0, ranks = gidd_comm_size(world);
    gidd_status  status = gidd_comm_agree(world, list_found(check, &mine, &count));
    if (status == GIDD_OK) {
        most = count;
        status = gidd_comm_allreduce_int64(world, &most, 1, GIDD_COMM_MAX);
    }
    if (status == GIDD_OK && most > 0) {
        padded = realloc(mine, (size_t)most * sizeof *mine); // the rest are empty ranges
        mine = padded != NULL ? padded : mine;
        all = calloc((size_t)(most * ranks), sizeof *all);
        status = gidd_comm_agree(world, padded != NULL && all != NULL
                                            ? GIDD_OK
                                            : gidd_fail(GIDD_ERR_NOMEM, "no memory for lists of damaged documents"));
    }
    if (status == GIDD_OK && most > 0) {
        memset(mine + count, 0, (size_t)(most - count) * sizeof *mine);
        status = gidd_comm_allgather(world, mine, (size_t)most * sizeof *mine, all);
    }
    for (int64_t i = 0; status == GIDD_OK && i < most * ranks; i++) {
        status = gidd_ranges_add(&check->damaged[all[i].source], all[i].first, all[i].end);
    }
    free(mine);
    free(all);
    return gidd_comm_agree(world, status);
}

static gidd_status leave_out(data_check *check)
{
    gidd_worker          *worker = check->worker;
    const gidd_data_info *info = gidd_data_set_info(worker->data);
    const gidd_loader_part *parts = gidd_data_set_parts(worker->data);
    int64_t               train = 0, valid = 0;
    for (int64_t k = 0; k < info->source_count; k++) {
        int64_t documents = parts[k].source.document_count, first_valid = documents - parts[k].source.valid_documents;
        gidd_ranges_settle(&check->damaged[k]);
        train += gidd_ranges_total(&check->damaged[k], 0, first_valid);
        valid += gidd_ranges_total(&check->damaged[k], first_valid, documents);
    }
    if (train + valid > info->document_count / LEFT_OUT_SHARE) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%" PRId64 " of %" PRId64 " documents touch damaged chunks, more than one in %d: that is "
                         "no bad chunk but a bad copy; copy the data again, or make them again with gidd-shard", train + valid,
                         info->document_count, LEFT_OUT_SHARE);
    }
    for (int64_t k = 0; train + valid > 0 && k < info->source_count; k++) {
        gidd_data_set_leave_out(worker->data, k, &check->damaged[k]);
    }
    if (train + valid > 0) {
        (void)snprintf(worker->left_out, sizeof worker->left_out, "%" PRId64 " of %" PRId64 " documents touch damaged chunks and "
                       "are left out (data.on_bad_chunk=skip): %" PRId64 " for training, %" PRId64 " for validation",
                       train + valid, info->document_count, train, valid);
    }
    return GIDD_OK;
}

/* ---- all of it ------------------------------------------------------------------------------------ */

static gidd_status prove(data_check *check)
{
    gidd_worker *worker = check->worker;
    double       start = gidd_clock_seconds();
    gidd_status  local = verify_part(check);
    gidd_watch_point(worker->watch, GIDD_WATCH_DATA, 0, "proof of the others' shards"); // theirs to watch
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    GIDD_TRY(gidd_comm_allreduce_int64(worker->world, &check->broken_off, 1, GIDD_COMM_MAX));
    gidd_watch_point(worker->watch, GIDD_WATCH_STARTUP, 0, "data");
    if (check->broken_off) {
        return GIDD_OK;
    }
    if (check->may_skip) {
        GIDD_TRY(unite(check));
        GIDD_TRY(gidd_comm_agree(worker->world, leave_out(check)));
    } else if (check->is_shared) {
        GIDD_TRY(gidd_comm_agree(worker->world, worker->is_coordinator ? write_record(check) : GIDD_OK));
    }
    if (worker->is_coordinator) {
        gidd_log(GIDD_LOG_INFO, "data", "%" PRId64 " shards verified in %.1f s%s", gidd_data_set_info(worker->data)->shard_count,
                 gidd_clock_seconds() - start, check->is_shared ? "" : ", each node its own copy");
        if (worker->left_out[0] != '\0') {
            gidd_log(GIDD_LOG_WARN, "data", "%s", worker->left_out);
        }
    }
    return GIDD_OK;
}

static gidd_status check_with(data_check *check)
{
    gidd_worker *worker = check->worker;
    GIDD_TRY(share_out(check));
    int64_t proven = worker->config->data.verify == GIDD_CONFIG_VERIFY_AUTO && !check->may_skip && check->is_shared &&
                     worker->is_coordinator && is_recorded(check);
    GIDD_TRY(gidd_comm_bcast(worker->world, worker->args.comms->coordinator, &proven, sizeof proven));
    if (proven) {
        gidd_log(GIDD_LOG_DEBUG, "data", "the shards were verified by an earlier start and are untouched since");
        return GIDD_OK;
    }
    return prove(check);
}

gidd_status gidd_worker_check_data(gidd_worker *worker)
{
    const gidd_config *config = worker->config;
    if (config->data.verify == GIDD_CONFIG_VERIFY_NEVER) {
        return GIDD_OK;
    }
    data_check *check = calloc(1, sizeof *check);
    gidd_status local = check != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory to verify the data");
    gidd_status status = gidd_comm_agree(worker->world, local);
    if (status == GIDD_OK) {
        check->worker = worker;
        check->may_skip = config->data.on_bad_chunk == GIDD_CONFIG_BAD_CHUNK_SKIP;
        status = check_with(check);
    }
    for (int k = 0; check != NULL && k < GIDD_LOADER_PARTS_MAX; k++) {
        gidd_ranges_release(&check->damaged[k]);
    }
    free(check);
    return status;
}
