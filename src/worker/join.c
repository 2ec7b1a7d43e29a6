/* SPDX-License-Identifier: Apache-2.0
 *
 * Joining: what must be the same on every rank is compared before anything is touched; then the run
 * directory, its lock, and the data.
 */
#include "worker/worker.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/version.h"
#include "io/shard_files.h"
#include "coordinator/shard_job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// What every rank must agree on. Text, so that a difference can be told.
typedef struct handshake {
    char build_id[32];
    char config_digest[GIDD_DIGEST_SIZE];
} handshake;

static gidd_status compare_with_coordinator(gidd_worker *worker, const handshake *mine)
{
    handshake first = *mine;
    GIDD_TRY(gidd_comm_bcast(worker->world, worker->args.comms->coordinator, &first, sizeof first));
    gidd_status local = GIDD_OK;
    if (strcmp(first.build_id, mine->build_id) != 0) {
        local = gidd_fail(GIDD_ERR_USAGE, "this program is build %s, the coordinator's is %s: install one build everywhere",
                          mine->build_id, first.build_id);
    } else if (strcmp(first.config_digest, mine->config_digest) != 0) {
        local = gidd_fail(GIDD_ERR_CONFIG, "the configuration read here differs from the coordinator's: give every program "
                          "the same --config and overrides, from files that are the same on every host");
    }
    return gidd_comm_agree(worker->world, local);
}

static gidd_status shake_hands(gidd_worker *worker)
{
    handshake   mine;
    gidd_status local = gidd_config_format(worker->config, &worker->config_text);
    memset(&mine, 0, sizeof mine);
    GIDD_TRY(gidd_comm_agree(worker->world, local));
    (void)snprintf(mine.build_id, sizeof mine.build_id, "%s", GIDD_BUILD_ID);
    mine.build_id[0] ^= (char)gidd_fault_flip("build_id"); // as if another build had been installed on this host
    gidd_digest_of(worker->config_text, strlen(worker->config_text), mine.config_digest);
    return compare_with_coordinator(worker, &mine);
}

// config.yaml is for people: what this life was started with. The checkpoint has its own copy.
static gidd_status write_config(gidd_worker *worker)
{
    char path[GIDD_CONFIG_TEXT_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/config.yaml", worker->config->run.dir);
    GIDD_TRY(gidd_run_lock_check(worker->lock));
    return gidd_file_replace(path, worker->config_text, strlen(worker->config_text));
}

static gidd_status take_directory(gidd_worker *worker)
{
    GIDD_TRY(gidd_folder_make(worker->config->run.dir));
    GIDD_TRY(gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = worker->config->run.dir,
                                                         .steal = worker->args.steal_lock},
                                   &worker->lock));
    return write_config(worker);
}

// Shards are made here when there are none and data.source says from what.
static gidd_status prepare_data(gidd_worker *worker)
{
    const gidd_config *config = worker->config;
    int64_t            build = 0;
    if (worker->is_coordinator) {
        char path[GIDD_CONFIG_TEXT_MAX + 32];
        (void)snprintf(path, sizeof path, "%s/index.json", config->data.dir);
        build = access(path, F_OK) != 0 && config->data.source[0] != '\0' && config->data.mix[0] == '\0';
    }
    GIDD_TRY(gidd_comm_bcast(worker->world, worker->args.comms->coordinator, &build, sizeof build));
    if (build) {
        gidd_log(GIDD_LOG_INFO, "data", "%s has no shards yet: making them from %s", config->data.dir, config->data.source);
        gidd_watch_point(worker->watch, GIDD_WATCH_DATA, 0, "shards");
        GIDD_TRY(gidd_shard_job_run_config(worker->world, config, worker->args.comms->node_size, NULL, NULL));
        gidd_watch_point(worker->watch, GIDD_WATCH_STARTUP, 0, "data");
    }
    gidd_status local = gidd_data_set_open(config->data.dir, config->data.mix, &worker->data);
    if (local == GIDD_ERR_MISSING && !build) {
        char story[sizeof gidd_error_last()->text];
        memcpy(story, gidd_error_last()->text, sizeof story);
        local = gidd_fail(GIDD_ERR_MISSING, "%.700s; make the shards with gidd-shard, or set data.source", story);
    }
    return gidd_comm_agree(worker->world, local);
}

static gidd_status compare_data(gidd_worker *worker)
{
    const gidd_data_info *info = gidd_data_set_info(worker->data);
    char                   first[GIDD_DIGEST_SIZE];
    memcpy(first, info->data_digest, sizeof first);
    GIDD_TRY(gidd_comm_bcast(worker->world, worker->args.comms->coordinator, first, sizeof first));
    gidd_status local = GIDD_OK;
    if (strcmp(first, info->data_digest) != 0) {
        local = gidd_fail(GIDD_ERR_CORRUPT, "%s holds other data here (digest %s) than on the coordinator's host (%s)",
                          worker->config->data.dir, info->data_digest, first);
    } else if (worker->config->data.mix[0] == '\0' && info->valid_documents != worker->config->data.valid_documents) {
        local = gidd_fail(GIDD_ERR_CONFIG, "%s: data.valid_documents: %lld, but %s was split with %lld",
                          gidd_config_place(worker->config, "data.valid_documents"),
                          (long long)worker->config->data.valid_documents, worker->config->data.dir,
                          (long long)info->valid_documents);
    }
    return gidd_comm_agree(worker->world, local);
}

gidd_status gidd_worker_join(gidd_worker *worker)
{
    GIDD_TRY(shake_hands(worker));
    gidd_watch_point(worker->watch, GIDD_WATCH_STARTUP, 0, "run directory");
    GIDD_TRY(gidd_comm_agree(worker->world, worker->is_coordinator ? take_directory(worker) : GIDD_OK));
    gidd_watch_point(worker->watch, GIDD_WATCH_STARTUP, 0, "data");
    GIDD_TRY(prepare_data(worker));
    GIDD_TRY(compare_data(worker));
    return gidd_worker_check_data(worker);
}
