/* SPDX-License-Identifier: Apache-2.0 */
#include "base/version.h"
#include "worker/exchange.h"
#include "worker/layout.h"
#include "worker/model_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct importer {
    const gidd_import_args *args;
    gidd_model_source       source;
    gidd_run_lock          *lock; /* rank 0 */
    gidd_checkpoint_layout  layout;
    gidd_checkpoint_writer *writer;
    float                  *values; /* this rank's share */
    char                   *config_text;
} importer;

static gidd_status make_run(const char *run_dir, gidd_run_lock **lock_p)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t                count = 0;
    if (mkdir(run_dir, 0777) != 0 && errno != EEXIST) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create folder %s: %s", run_dir, strerror(errno));
    }
    GIDD_TRY(gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = run_dir}, lock_p));
    GIDD_TRY(gidd_checkpoint_list(run_dir, &entries, &count));
    free(entries);
    if (count > 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "%s has checkpoints already: import into another run directory", run_dir);
    }
    return GIDD_OK;
}

static gidd_status prepare(importer *m)
{
    static const char *const sections[] = {"master"};
    gidd_config             *config = &m->source.config;
    GIDD_TRY(gidd_model_source_open(&m->source, &(gidd_model_source_args){.path = m->args->model, .cli = m->args->cli}));
    GIDD_TRY(gidd_config_set(config, "command line", "run.dir", m->args->run_dir));
    GIDD_TRY(gidd_config_format(config, &m->config_text));
    GIDD_TRY(gidd_layout_of_params(&m->source.params, sections, 1, &m->layout));
    return gidd_comm_rank(m->args->comm) == 0 ? make_run(m->args->run_dir, &m->lock) : GIDD_OK;
}

// This rank's part of the masters, and the start of its writing.
static gidd_status begin(importer *m)
{
    gidd_checkpoint_extent extents[GIDD_CHECKPOINT_SECTIONS_MAX];
    char                   base_ids[16], step[24];
    int count = gidd_checkpoint_share(&m->layout, gidd_comm_rank(m->args->comm), gidd_comm_size(m->args->comm), extents);
    if (count > 0) {
        m->values = malloc((size_t)extents[0].count * sizeof *m->values);
        if (m->values == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %" PRId64 " parameters", extents[0].count);
        }
        GIDD_TRY(gidd_model_source_read(&m->source, extents[0].first, extents[0].count, m->values));
        extents[0].source = m->values;
    }
    (void)snprintf(base_ids, sizeof base_ids, "%d", (int)m->source.base_ids);
    (void)snprintf(step, sizeof step, "%" PRId64, m->source.step);
    const gidd_checkpoint_text texts[] = {
        {"base_ids", base_ids},
        {"config", m->config_text},
        {"imported_step", step},
        {"tokenizer_digest", m->source.tokenizer_digest},
    };
    const gidd_checkpoint_fields fields = {.seed = m->source.config.run.seed,
                                           .world_size = 1,
                                           .build_id = GIDD_BUILD_ID,
                                           .texts = texts,
                                           .text_count = (int64_t)(sizeof texts / sizeof *texts)};
    gidd_checkpoint_begin(m->writer, 0, gidd_comm_rank(m->args->comm) == 0 ? &fields : NULL, extents, count);
    return GIDD_OK;
}

static gidd_status import(importer *m)
{
    GIDD_TRY(gidd_comm_agree(m->args->comm, prepare(m)));
    GIDD_TRY(gidd_checkpoint_writer_create(&(gidd_checkpoint_writer_args){.comm = m->args->comm,
                                                                          .coordinator = 0,
                                                                          .run_dir = m->args->run_dir,
                                                                          .lock = m->lock,
                                                                          .layout = &m->layout,
                                                                          .keep_last = 1,
                                                                          .verify_after_write = 1},
                                           &m->writer));
    GIDD_TRY(gidd_comm_agree(m->args->comm, begin(m)));
    return gidd_checkpoint_finish(m->writer);
}

gidd_status gidd_import_model(const gidd_import_args *args)
{
    importer   *m = calloc(1, sizeof *m);
    gidd_status status = gidd_comm_agree(args->comm, m != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory to import"));
    if (status == GIDD_OK) {
        m->args = args;
        status = import(m);
        if (m->writer != NULL) {
            gidd_checkpoint_writer_destroy(m->writer);
        }
        gidd_run_lock_release(m->lock);
        gidd_model_source_close(&m->source);
        free(m->layout.tensors);
        free(m->config_text);
        free(m->values);
    }
    free(m);
    return status;
}
