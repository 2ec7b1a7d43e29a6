/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/prove_resume.h"

#include "coordinator/signals.h"
#include "io/shard_files.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 6, EVERY = 2, GIVEN_UP_AFTER = 5, CHUNK_ELEMENTS = 1 << 20 };

typedef struct proof {
    const gidd_worker_args *args;
    gidd_comm *world;
    gidd_config *config; // the user's, cut down to a few steps
    char folder[GIDD_CONFIG_TEXT_MAX + 64];
} proof;

/* ---- the two runs ------------------------------------------------------------------------------ */

static gidd_status make_folder(proof *p)
{
    const char *run_dir = p->args->config->run.dir;
    if (snprintf(p->folder, sizeof p->folder, "%s.prove-resume-XXXXXX", run_dir) >= GIDD_CONFIG_TEXT_MAX - 16) {
        return gidd_fail(GIDD_ERR_CONFIG, "run.dir: %.100s... is too long for a folder beside it", run_dir);
    }
    char *slash = strrchr(p->folder, '/');
    if (slash != NULL && slash != p->folder) {
        *slash = '\0';
        gidd_status status = gidd_folder_make(p->folder);
        *slash = '/';
        GIDD_TRY(status);
    }
    return mkdtemp(p->folder) != NULL
               ? GIDD_OK
               : gidd_fail(GIDD_ERR_OUTPUT, "cannot make a folder like %s: %s", p->folder, strerror(errno));
}

static gidd_status prepare(proof *p)
{
    if (p->args->config->training.steps <= STEPS) {
        return gidd_fail(GIDD_ERR_CONFIG, "training.steps: a proof needs more than %d", STEPS);
    }
    gidd_status local = p->args->comms->is_coordinator ? make_folder(p) : GIDD_OK;
    p->config = malloc(sizeof *p->config);
    if (local == GIDD_OK && p->config == NULL) {
        local = gidd_fail(GIDD_ERR_NOMEM, "no memory for a configuration");
    }
    GIDD_TRY(gidd_comm_agree(p->world, local));
    GIDD_TRY(gidd_comm_bcast(p->world, p->args->comms->coordinator, p->folder, sizeof p->folder));
    *p->config = *p->args->config;
    p->config->checkpoint.every_steps = EVERY;
    p->config->checkpoint.every_minutes = 0;
    p->config->checkpoint.keep_last = STEPS;
    p->config->run.max_minutes = 0;
    p->config->log.every_steps = 1;
    p->config->log.tensorboard = GIDD_CONFIG_OFF;
    if (p->config->eval.every_steps > 0) { // the user's evaluation, but soon and short
        p->config->eval.every_steps = STEPS / 2;
        p->config->eval.documents = p->config->eval.documents < 64 ? p->config->eval.documents : 64;
    }
    return GIDD_OK;
}

// One life of a run in the folder's sub-folder `name`. An end that was not asked for is a failure.
static gidd_status run_once(proof *p, const char *name, int64_t give_up_after, int *exit_code_p)
{
    gidd_worker_args args = *p->args;
    args.config = p->config;
    args.stop_after = give_up_after > 0 ? 0 : STEPS;
    args.give_up_after = give_up_after;
    args.allow_change = NULL;
    (void)snprintf(p->config->run.dir, sizeof p->config->run.dir, "%.*s/%s", GIDD_CONFIG_TEXT_MAX - 16, p->folder, name);
    GIDD_TRY(gidd_worker_run(&args, exit_code_p));
    if (*exit_code_p != GIDD_EXIT_RERUN || gidd_signals_seen() != 0) {
        return gidd_fail(GIDD_ERR_PEER, "the proof was interrupted; %s is left", p->folder);
    }
    return GIDD_OK;
}

/* ---- the comparison ---------------------------------------------------------------------------- */

static gidd_status open_last(const proof *p, const char *name, gidd_checkpoint **out_p)
{
    char path[sizeof p->folder + 64];
    (void)snprintf(path, sizeof path, "%s/%s/checkpoints/step-%09d", p->folder, name, STEPS);
    return gidd_checkpoint_open(path, out_p);
}

static gidd_status tell_difference(const gidd_checkpoint *checkpoint, int section, int64_t element, float whole,
                                   float resumed)
{
    const gidd_checkpoint_layout *layout = gidd_checkpoint_layout_of(checkpoint);
    int64_t i = 0;
    while (i + 1 < layout->tensor_count && layout->tensors[i + 1].offset <= element) {
        i++;
    }
    return gidd_fail(GIDD_ERR_CORRUPT, "not bit-exact: first difference in %s of tensor %s, index %" PRId64
                     ": %.9g (%a) in one go, %.9g (%a) resumed", layout->sections[section], layout->tensors[i].name,
                     element - layout->tensors[i].offset, (double)whole, (double)whole, (double)resumed, (double)resumed);
}

// This rank's share of one section, bit by bit: a NaN equals itself, and -0 is not 0.
static gidd_status compare_section(const proof *p, gidd_checkpoint *whole, gidd_checkpoint *resumed, int section,
                                   float *values)
{
    int64_t rank = gidd_comm_rank(p->world), size = gidd_comm_size(p->world);
    int64_t elements = gidd_checkpoint_layout_of(whole)->elements;
    for (int64_t at = elements * rank / size, end = elements * (rank + 1) / size; at < end;) {
        int64_t count = end - at < CHUNK_ELEMENTS ? end - at : CHUNK_ELEMENTS;
        GIDD_TRY(gidd_checkpoint_read(whole, section, at, count, values));
        GIDD_TRY(gidd_checkpoint_read(resumed, section, at, count, values + CHUNK_ELEMENTS));
        for (int64_t i = 0; i < count; i++) {
            const float *a = &values[i], *b = &values[CHUNK_ELEMENTS + i];
            if (memcmp(a, b, sizeof *a) != 0) {
                return tell_difference(whole, section, at + i, *a, *b);
            }
        }
        at += count;
    }
    return GIDD_OK;
}

// The lowest rank that finds a difference tells it, and its part is the first: sections one by one.
static gidd_status compare_states(const proof *p, int64_t *bytes_p)
{
    gidd_checkpoint *whole = NULL, *resumed = NULL;
    float *values = malloc((size_t)2 * CHUNK_ELEMENTS * sizeof *values);
    gidd_status status = values != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory to compare");
    if (status == GIDD_OK) {
        status = open_last(p, "whole", &whole);
    }
    if (status == GIDD_OK) {
        status = open_last(p, "resumed", &resumed);
    }
    GIDD_TRY_GOTO(gidd_comm_agree(p->world, status));
    *bytes_p = gidd_checkpoint_state_bytes(gidd_checkpoint_layout_of(whole));
    for (int section = 0; section < gidd_checkpoint_layout_of(whole)->section_count; section++) {
        GIDD_TRY_GOTO(gidd_comm_agree(p->world, compare_section(p, whole, resumed, section, values)));
    }
out:
    gidd_checkpoint_close(whole);
    gidd_checkpoint_close(resumed);
    free(values);
    return status;
}

static gidd_status read_metrics(const proof *p, const char *name, char **text_p)
{
    char path[sizeof p->folder + 64];
    size_t bytes = 0;
    (void)snprintf(path, sizeof path, "%s/%s/metrics.jsonl", p->folder, name);
    return gidd_file_read(path, (size_t)1 << 24, text_p, &bytes);
}

static gidd_status compare_metrics(const proof *p)
{
    char *whole = NULL, *resumed = NULL;
    gidd_status status = read_metrics(p, "whole", &whole);
    if (status == GIDD_OK) {
        status = read_metrics(p, "resumed", &resumed);
    }
    if (status == GIDD_OK && strcmp(whole, resumed) != 0) {
        size_t at = 0, line = 1, start = 0;
        for (; whole[at] != '\0' && whole[at] == resumed[at]; at++) {
            line += whole[at] == '\n';
            start = whole[at] == '\n' ? at + 1 : start;
        }
        status = gidd_fail(GIDD_ERR_CORRUPT, "not bit-exact: the states agree, but metrics.jsonl differs in line %zu: %.300s "
                           "in one go, %.300s resumed", line, whole + start, resumed + start);
    }
    free(whole);
    free(resumed);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info, (void)type, (void)place;
    return remove(path);
}

static gidd_status prove(proof *p, int *exit_code_p)
{
    int64_t bytes = 0;
    GIDD_TRY(prepare(p));
    GIDD_TRY(run_once(p, "whole", 0, exit_code_p));
    GIDD_TRY(run_once(p, "resumed", GIVEN_UP_AFTER, exit_code_p));
    GIDD_TRY(run_once(p, "resumed", 0, exit_code_p));
    GIDD_TRY(compare_states(p, &bytes));
    GIDD_TRY(gidd_comm_agree(p->world, p->args->comms->is_coordinator ? compare_metrics(p) : GIDD_OK));
    if (p->args->comms->is_coordinator) {
        (void)printf("bit-exact: %d steps in one go, and the same given up after step %d and resumed from a checkpoint, "
                     "left the same %.1f MB of state and the same metrics.jsonl\n", STEPS, GIVEN_UP_AFTER,
                     (double)bytes * 1e-6);
        (void)nftw(p->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
    return GIDD_OK;
}

gidd_status gidd_prove_resume(const gidd_worker_args *args, int *exit_code_p)
{
    proof p = {.args = args, .world = args->comms->world};
    gidd_status status = prove(&p, exit_code_p);
    *exit_code_p = gidd_status_exit_code(status);
    free(p.config);
    return status;
}
