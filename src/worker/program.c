/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/program.h"

#include "base/cli.h"
#include "base/log.h"
#include "worker/prove_resume.h"

#include <stdlib.h>
#include <string.h>

typedef struct program_options {
    gidd_cli    cli;
    int         dry_run;
    int         ranks;
    double      memory_gb; /* of a device that --dry-run looks for the largest micro-batch in */
    int         steal_lock;
    int         prove_resume;
    char        allow_change[1024]; /* all --allow-change, comma separated */
} program_options;

enum { OPTION_DRY_RUN = 256, OPTION_RANKS, OPTION_ALLOW_CHANGE, OPTION_STEAL_LOCK, OPTION_PROVE_RESUME, OPTION_MEMORY };

static const struct argp_option options[] = {
    {"dry-run", OPTION_DRY_RUN, NULL, 0, "print the plan (parameters, memory, FLOPs, checkpoint size) and leave", 0},
    {"ranks", OPTION_RANKS, "N", 0, "ranks that --dry-run plans for (default 1)", 0},
    {"memory-gb", OPTION_MEMORY, "N", 0, "memory of a device, in 10^9 bytes, that --dry-run finds the largest micro-batches "
     "for (default 80)", 0},
    {"allow-change", OPTION_ALLOW_CHANGE, "KEY", 0, "let this semantic key differ from the checkpoint's (repeatable)", 0},
    {"steal-lock", OPTION_STEAL_LOCK, NULL, 0, "take the run directory's lock even from a living holder", 0},
    {"prove-resume", OPTION_PROVE_RESUME, NULL, 0, "train six steps in one go and six with an abrupt end and a resume, beside "
     "run.dir, and compare all bytes: prints \"bit-exact\" (exit 0) or the first difference (exit 65)", 0},
    {0},
};

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    program_options *o = state->input;
    size_t           used = strlen(o->allow_change);
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->cli;
        return 0;
    case OPTION_DRY_RUN:
        o->dry_run = 1;
        return 0;
    case OPTION_RANKS:
        o->ranks = (int)gidd_cli_count(state, word, 1);
        if (o->ranks < 1 || o->ranks > 1 << 20) {
            argp_error(state, "--ranks: at most %d ranks, found '%s'", 1 << 20, word);
        }
        return 0;
    case OPTION_MEMORY:
        o->memory_gb = (double)gidd_cli_count(state, word, 1);
        return 0;
    case OPTION_ALLOW_CHANGE:
        if (used + strlen(word) + 2 > sizeof o->allow_change) {
            argp_error(state, "--allow-change: too many keys");
            return EINVAL;
        }
        (void)snprintf(o->allow_change + used, sizeof o->allow_change - used, "%s%s", used > 0 ? "," : "", word);
        return 0;
    case OPTION_STEAL_LOCK:
        o->steal_lock = 1;
        return 0;
    case OPTION_PROVE_RESUME:
        o->prove_resume = 1;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int run_job(const program_options *o, const gidd_config *config, gidd_comm_role role, int *argc, char ***argv)
{
    gidd_comm_set comms;
    int           exit_code = gidd_status_exit_code(GIDD_ERR_COMM);
    memset(&comms, 0, sizeof comms);
    gidd_status status = gidd_comm_bootstrap(argc, argv, role, &comms);
    if (status == GIDD_OK) {
        const gidd_worker_args args = {.config = config,
                                       .comms = &comms,
                                       .allow_change = o->allow_change,
                                       .steal_lock = o->steal_lock};
        status = o->prove_resume ? gidd_prove_resume(&args, &exit_code) : gidd_worker_run(&args, &exit_code);
    } else {
        exit_code = gidd_status_exit_code(status);
    }
    if (status != GIDD_OK && (comms.world == NULL ? gidd_cli_speaks() : comms.is_coordinator)) {
        gidd_log_last_error();
    }
    gidd_comm_set_finalize(&comms);
    return exit_code;
}

int gidd_program_main(int argc, char **argv, gidd_comm_role role)
{
    static const struct argp_child children[] = {{&gidd_cli_argp, 0, NULL, 0}, {0}};
    static const struct argp       argp = {
        options, parse_option, NULL,
        "Trains a discrete-diffusion language model. Start it with mpirun or srun, one rank per device; started again on "
        "the same run.dir it resumes.\vExit codes: 0 finished; 75 a checkpoint is written, run me again; 79 stopped on "
        "request; 64 usage; 65 bad data or diverged; 66 missing input; 69 no such device; 73 output or lock held; 74 I/O; "
        "76 a peer was lost; 78 configuration.",
        children, NULL, NULL};
    program_options o = {.ranks = 1, .memory_gb = 80};
    gidd_config    *config = malloc(sizeof *config);
    const char     *program = role == GIDD_COMM_COORDINATOR ? "gidd-coordinator" : "gidd-worker";
    if (config == NULL) {
        return gidd_cli_report(program, gidd_fail(GIDD_ERR_NOMEM, "no memory for a configuration"));
    }
    gidd_cli_parse(&argp, argc, argv, 0, &o);
    int         exit_code = 0;
    gidd_status status = gidd_cli_load(&o.cli, 1, config);
    if (status != GIDD_OK) {
        exit_code = gidd_cli_report(program, status);
    } else if (o.dry_run) {
        exit_code = gidd_cli_report(program, gidd_cli_speaks() ? gidd_worker_dry_run(config, o.ranks, o.memory_gb) : GIDD_OK);
    } else {
        exit_code = run_job(&o, config, role, &argc, &argv);
    }
    free(config);
    return exit_code;
}
