/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cli.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static const char *const launcher_variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};

// A folder of its own without gidd.yaml, and no launcher's or user's variables.
static void clean_start(void)
{
    (void)strcpy(folder, "/tmp/gidd_cli_XXXXXX");
    for (size_t i = 0; i < 4; i++) {
        cr_assert(unsetenv(launcher_variables[i]) == 0);
    }
    cr_assert(unsetenv("GIDD_CONFIG") == 0);
    cr_assert(mkdtemp(folder) != NULL && chdir(folder) == 0);
}

static void clean_end(void)
{
    static const char *const names[] = {"a.yaml", "gidd.yaml", "env.yaml", "option.yaml"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        (void)unlink(names[i]);
    }
    (void)rmdir(folder);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void parse(gidd_cli *cli, const char *const *words, int count)
{
    static char copies[7][64]; // argp may reorder and write; static, since some tests leave by exit()
    char       *argv[8];
    for (int i = 0; i < count; i++) {
        (void)snprintf(copies[i], sizeof copies[i], "%s", words[i]);
        argv[i] = copies[i];
    }
    argv[count] = NULL;
    gidd_cli_parse(&gidd_cli_argp, count, argv, 0, cli);
}

TestSuite(cli, .init = clean_start, .fini = clean_end);

Test(cli, options_and_overrides)
{
    gidd_cli                 cli = {0};
    gidd_config              config;
    static const char *const words[] = {"prog", "model.blocks=3", "--config", "a.yaml", "optimizer.lr=1e-3"};
    write_file("a.yaml", "model: {blocks: 5, heads: 6}\n");
    parse(&cli, words, 5);
    cr_assert_str_eq(cli.config_path, "a.yaml");
    cr_assert(cli.override_count == 2);
    cr_assert(gidd_cli_load(&cli, 1, &config) == GIDD_OK, "%s", gidd_error_last()->text);
    cr_expect(config.model.blocks == 3 && config.model.heads == 6 && config.optimizer.lr == 1e-3);
    cr_expect_str_eq(gidd_config_place(&config, "model.blocks"), "command line");
    cr_expect_str_eq(gidd_config_place(&config, "model.heads"), "a.yaml:1");
}

// --config, then $GIDD_CONFIG, then ./gidd.yaml.
Test(cli, where_the_file_comes_from)
{
    gidd_cli    cli = {0};
    gidd_config config;
    write_file("gidd.yaml", "run: {seed: 1001}\n");
    write_file("env.yaml", "run: {seed: 1002}\n");
    write_file("option.yaml", "run: {seed: 1003}\n");
    cr_expect(gidd_cli_load(&cli, 1, &config) == GIDD_OK && config.run.seed == 1001);
    cr_assert(setenv("GIDD_CONFIG", "env.yaml", 1) == 0);
    cr_expect(gidd_cli_load(&cli, 1, &config) == GIDD_OK && config.run.seed == 1002);
    cli.config_path = "option.yaml";
    cr_expect(gidd_cli_load(&cli, 1, &config) == GIDD_OK && config.run.seed == 1003);
}

Test(cli, no_file)
{
    gidd_cli    cli = {0};
    gidd_config config;
    cr_expect(gidd_cli_load(&cli, 1, &config) == GIDD_ERR_USAGE);
    cr_expect(strstr(gidd_error_last()->text, "hpc/quickstart.sh") != NULL);
    cr_expect(gidd_cli_load(&cli, 0, &config) == GIDD_OK && config.model.hidden_size == 768);
    cli.config_path = "absent.yaml";
    cr_expect(gidd_cli_load(&cli, 1, &config) == GIDD_ERR_MISSING);
}

Test(cli, combinations_are_checked)
{
    gidd_cli    cli = {.overrides = {"model.heads=7"}, .override_count = 1};
    gidd_config config;
    cr_expect(gidd_cli_load(&cli, 0, &config) == GIDD_ERR_CONFIG);
    cr_expect(strstr(gidd_error_last()->text, "command line: model.heads") != NULL, "%s", gidd_error_last()->text);
}

Test(cli_exit, unknown_option_64, .exit_code = 64)
{
    gidd_cli                 cli = {0};
    static const char *const words[] = {"prog", "--confog", "a.yaml"};
    parse(&cli, words, 3);
}

Test(cli_exit, stray_word_64, .exit_code = 64)
{
    gidd_cli                 cli = {0};
    static const char *const words[] = {"prog", "stray"};
    parse(&cli, words, 2);
}

static error_t parse_without_memory(int key, char *word, struct argp_state *state)
{
    (void)word;
    (void)state;
    return key == ARGP_KEY_END ? ENOMEM : ARGP_ERR_UNKNOWN;
}

Test(cli_exit, want_of_memory_70, .exit_code = 70)
{
    static const struct argp argp = {.parser = parse_without_memory};
    char                     word[] = "prog", *argv[] = {word, NULL};
    gidd_cli_parse(&argp, 1, argv, 0, NULL);
}

Test(cli_exit, help_0, .exit_code = 0)
{
    gidd_cli                 cli = {0};
    static const char *const words[] = {"prog", "--help"};
    parse(&cli, words, 2);
}

Test(cli, only_the_first_rank_speaks)
{
    cr_expect(gidd_cli_speaks() == 1);
    for (size_t i = 0; i < 4; i++) {
        cr_assert(setenv(launcher_variables[i], "0", 1) == 0);
        cr_expect(gidd_cli_speaks() == 1, "%s=0", launcher_variables[i]);
        cr_assert(setenv(launcher_variables[i], "3", 1) == 0);
        cr_expect(gidd_cli_speaks() == 0, "%s=3", launcher_variables[i]);
        cr_assert(unsetenv(launcher_variables[i]) == 0);
    }
}
