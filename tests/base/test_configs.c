/* SPDX-License-Identifier: Apache-2.0
 *
 * The files of configs/: each is read and checked, each is in the table below, and models have the sizes that the
 * paper gives.
 */
#include "base/config.h"
#include "model/params.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <string.h>

static const struct {
    const char *file;
    int64_t     parameters; /* 0: not a size of the paper */
    double      p_uniform, weight_decay;
    int64_t     steps;
    int         process;
} table[] = {
    {"demo.yaml", 0, 0.1, 0.02, 0, GIDD_CONFIG_GIDD},
    {"owt.yaml", 0, 0.0, 0.02, 0, GIDD_CONFIG_GIDD},
    {"gidd-tiny.yaml", 80108416, 0.0, 0.0, 500000, GIDD_CONFIG_GIDD},
    {"gidd-small.yaml", 169697920, 0.0, 0.0, 500000, GIDD_CONFIG_GIDD},
    {"gidd-small-pu0.1.yaml", 169697920, 0.1, 0.0, 500000, GIDD_CONFIG_GIDD},
    {"gidd-small-pu0.2.yaml", 169697920, 0.2, 0.0, 500000, GIDD_CONFIG_GIDD},
    {"gidd-base.yaml", 424571264, 0.0, 0.0, 500000, GIDD_CONFIG_GIDD},
    {"gidd-plus-tiny.yaml", 80108416, 0.0, 0.02, 500000, GIDD_CONFIG_GIDD},
    {"gidd-plus-small.yaml", 169697920, 0.0, 0.02, 500000, GIDD_CONFIG_GIDD},
    {"gidd-plus-small-pu0.1.yaml", 169697920, 0.1, 0.02, 500000, GIDD_CONFIG_GIDD},
    {"gidd-plus-small-pu0.2.yaml", 169697920, 0.2, 0.02, 500000, GIDD_CONFIG_GIDD},
    {"gidd-plus-base.yaml", 424571264, 0.0, 0.02, 500000, GIDD_CONFIG_GIDD},
    {"gidd-1b.yaml", 1453022592, 0.0, 0.02, 500000, GIDD_CONFIG_GIDD},
    {"mdlm-small.yaml", 169697920, 0.0, 0.02, 1000000, GIDD_CONFIG_MDLM},
    {"ar-tiny.yaml", 85074432, 0.0, 0.02, 1000000, GIDD_CONFIG_GIDD},
    {"ar-small.yaml", 190532352, 0.0, 0.02, 1000000, GIDD_CONFIG_GIDD},
    {"ar-base.yaml", 505725952, 0.0, 0.02, 1000000, GIDD_CONFIG_GIDD},
};

enum { FILE_COUNT = (int)(sizeof table / sizeof *table), PAPER_VOCABULARY = 50259 };

static int64_t parameters_of(const gidd_config *c)
{
    gidd_params      params;
    const gidd_model_type types[] = {[GIDD_CONFIG_DIFFUSION] = GIDD_MODEL_DIFFUSION,
                                     [GIDD_CONFIG_AUTOREGRESSIVE] = GIDD_MODEL_AUTOREGRESSIVE};
    gidd_model_shape shape = {.type = types[c->model.type],
                              .D = c->model.hidden_size,
                              .L = c->model.blocks,
                              .H = c->model.heads,
                              .C = c->model.cond_size,
                              .T = c->model.context,
                              .V = PAPER_VOCABULARY,
                              .Vr = gidd_vocab_rounded(PAPER_VOCABULARY),
                              .mask_id = PAPER_VOCABULARY - 1};
    cr_assert(gidd_params_init(&params, &shape, 1 << 26, 1) == GIDD_OK, "%s", gidd_error_last()->text);
    int64_t count = params.count;
    gidd_params_release(&params);
    return count;
}

Test(configs, each_is_sound_and_of_its_size)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        gidd_config config;
        char        path[512];
        (void)snprintf(path, sizeof path, "%s/%s", GIDD_CONFIG_FOLDER, table[i].file);
        gidd_config_init(&config);
        cr_assert(gidd_config_read(&config, path) == GIDD_OK, "%s", gidd_error_last()->text);
        cr_assert(gidd_config_check(&config) == GIDD_OK, "%s", gidd_error_last()->text);
        cr_expect(config.model.p_uniform == table[i].p_uniform, "%s: p_uniform", table[i].file);
        cr_expect(config.optimizer.weight_decay == table[i].weight_decay, "%s: weight_decay", table[i].file);
        cr_expect(config.diffusion.process == table[i].process, "%s: process", table[i].file);
        if (table[i].parameters > 0) {
            cr_expect(parameters_of(&config) == table[i].parameters, "%s: %lld parameters", table[i].file,
                      (long long)parameters_of(&config));
            cr_expect(config.training.steps == table[i].steps, "%s: steps", table[i].file);
            cr_expect(config.training.global_batch == 512 && config.model.context == 512, "%s: batch", table[i].file);
            // each model has a run directory of its own, named after its file
            cr_expect(strncmp(config.run.dir, "runs/", 5) == 0 &&
                          strncmp(config.run.dir + 5, table[i].file, strlen(table[i].file) - 5) == 0,
                      "%s: run.dir %s", table[i].file, config.run.dir);
        }
    }
}

Test(configs, none_is_left_out)
{
    DIR *folder = opendir(GIDD_CONFIG_FOLDER);
    cr_assert(folder != NULL);
    struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        int known = entry->d_name[0] == '.';
        for (int i = 0; i < FILE_COUNT; i++) {
            known = known || strcmp(entry->d_name, table[i].file) == 0;
        }
        cr_expect(known, "configs/%s is not in this test's table", entry->d_name);
    }
    cr_assert(closedir(folder) == 0);
}
