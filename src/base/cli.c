/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cli.h"

#include "base/clock.h"
#include "base/version.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *argp_program_version = "gidd " GIDD_VERSION " (" GIDD_BUILD_ID ")";

int gidd_cli_speaks(void)
{
    static const char *const rank_variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof rank_variables / sizeof *rank_variables; i++) {
        const char *value = getenv(rank_variables[i]);
        if (value != NULL && strcmp(value, "0") != 0) {
            return 0;
        }
        if (value != NULL) {
            return 1;
        }
    }
    return 1;
}

void gidd_cli_parse(const struct argp *argp, int argc, char **argv, unsigned flags, void *input)
{
    argp_err_exit_status = gidd_status_exit_code(GIDD_ERR_USAGE);
    (void)gidd_clock_seconds(); // times are told from here on, the launch of MPI included
    error_t error = argp_parse(argp, argc, argv, flags, NULL, input); // returns what it has not said itself
    if (error != 0) {
        gidd_status status = gidd_fail(error == ENOMEM ? GIDD_ERR_NOMEM : GIDD_ERR_USAGE, "%s for the command line",
                                       error == ENOMEM ? "no memory" : strerror(error));
        exit(gidd_cli_report(program_invocation_short_name, status));
    }
}

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    gidd_cli *cli = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        if (!gidd_cli_speaks()) { // the first rank says it for all
            state->err_stream = fopen("/dev/null", "we");
            state->out_stream = state->err_stream;
        }
        return 0;
    case 'c':
        cli->config_path = word;
        return 0;
    case ARGP_KEY_ARG: {
        const char *equals = strchr(word, '=');
        const char *dot = strchr(word, '.');
        if (equals == NULL || dot == NULL || dot > equals) {
            if (cli->takes_words) {
                return ARGP_ERR_UNKNOWN;
            }
            argp_error(state, "unexpected argument '%s'; overrides look like section.key=value", word);
            return EINVAL;
        }
        if (cli->override_count == GIDD_CLI_OVERRIDES_MAX) {
            argp_error(state, "more than %d overrides", GIDD_CLI_OVERRIDES_MAX);
            return EINVAL;
        }
        cli->overrides[cli->override_count++] = word;
        return 0;
    }
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// --help ends with the configuration keys, from their one table.
static char *append_keys(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC) {
        return (char *)(uintptr_t)text; // argp's interface: return the text itself to keep it
    }
    char  *help = NULL;
    size_t bytes = 0;
    FILE  *stream = open_memstream(&help, &bytes);
    if (stream == NULL) {
        return NULL;
    }
    (void)fputs("Configuration keys (in the file as section: key; on the command line as section.key=value):\n\n", stream);
    gidd_config_print_keys(stream);
    (void)fclose(stream);
    return help;
}

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "configuration (default: $GIDD_CONFIG, else ./gidd.yaml)", 0},
    {0},
};

const struct argp gidd_cli_argp = {options, parse_option, "[section.key=value...]", NULL, NULL, append_keys, NULL};

gidd_status gidd_cli_load(const gidd_cli *cli, int required, gidd_config *config)
{
    const char *path = cli->config_path;
    gidd_config_init(config);
    if (path == NULL) {
        path = getenv("GIDD_CONFIG");
    }
    if (path == NULL && access("gidd.yaml", R_OK) == 0) {
        path = "gidd.yaml";
    }
    if (path != NULL) {
        GIDD_TRY(gidd_config_read(config, path));
    } else if (required) {
        return gidd_fail(GIDD_ERR_USAGE, "no configuration: give --config FILE, set GIDD_CONFIG, or put gidd.yaml here; "
                                         "a complete demonstration is: bash hpc/quickstart.sh");
    }
    for (int i = 0; i < cli->override_count; i++) {
        GIDD_TRY(gidd_config_override(config, cli->overrides[i]));
    }
    return gidd_config_check(config);
}

int64_t gidd_cli_count(struct argp_state *state, const char *word, int64_t lowest)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(word, &end, 10);
    if (end == word || *end != '\0' || errno != 0 || value < lowest || value > (INT64_C(1) << 62)) {
        argp_error(state, "expected a whole number of at least %lld, found '%s'", (long long)lowest, word);
    }
    return value;
}

int gidd_cli_report(const char *program, gidd_status status)
{
    if (status != GIDD_OK && gidd_cli_speaks()) {
        (void)fprintf(stderr, "%s: %s: %s\n", program, gidd_status_name(status), gidd_error_last()->text);
    }
    return gidd_status_exit_code(status);
}
