/* SPDX-License-Identifier: Apache-2.0
 *
 * What the command lines of all programs share: --config FILE, `section.key=value` overrides, --help with
 * every configuration key, exit code 64 for a wrong command line. A program adds its own options with an
 * argp of its own and this one as a child:
 *
 *     static const struct argp_child children[] = {{&gidd_cli_argp, 0, NULL, 0}, {0}};
 *
 * and passes a gidd_cli as the child's input. Under a launcher every rank parses the same words; only
 * the first one speaks.
 */
#ifndef GIDD_BASE_CLI_H
#define GIDD_BASE_CLI_H

#include "base/config.h"

#include <argp.h>

enum { GIDD_CLI_OVERRIDES_MAX = 128 };

typedef struct gidd_cli {
    const char *config_path;                       /* --config, or NULL */
    const char *overrides[GIDD_CLI_OVERRIDES_MAX]; /* borrowed from argv */
    int         override_count;
    int         takes_words; /* set by the program: other words are its own arguments, not errors */
} gidd_cli;

extern const struct argp gidd_cli_argp;

/* Whether this process prints usage and start-up errors: the launcher's rank variable is 0 or absent. Local. */
int gidd_cli_speaks(void);

/* argp_parse for a program: a wrong command line ends the process with exit code 64, want of memory with 70, each with
 * one message; so does --help, with 0. Ranks that do not speak are silent. Starts the clock that messages tell. Local. */
void gidd_cli_parse(const struct argp *argp, int argc, char **argv, unsigned flags, void *input);

/* Defaults, then the file (--config, else $GIDD_CONFIG, else ./gidd.yaml), then overrides, then the checks.
 * With `required`, no file at all is GIDD_ERR_USAGE with what to do; else defaults are used. Local. */
gidd_status gidd_cli_load(const gidd_cli *cli, int required, gidd_config *config);

/* For a program's own options: `word` as a whole number from `lowest` to 2^62; else a usage error that names it.
 * Local. */
int64_t gidd_cli_count(struct argp_state *state, const char *word, int64_t lowest);

/* Prints the error record in one line on stderr if this process speaks; returns its exit code. Local. */
int gidd_cli_report(const char *program, gidd_status status);

#endif
