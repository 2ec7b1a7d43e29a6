/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-parity [--device cpu|emu|cuda] [--precision fp32|bf16] [--section NAME] [--model PATH] FILE...
 *
 * Exit: 0 everything agrees, 1 something does not, 64 usage, 65 a file cannot be read, 69 no such
 * device, others as src/base/status.h has them.
 */
#include "base/cli.h"
#include "parity/parity.h"
#include "parity/parity_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct section {
    const char *name;
    const char *needs; /* object of the file without which the section does not apply */
    gidd_status (*run)(parity *p);
} section;

#define PARITY_ENTRY(name, needs) {#name, needs, parity_section_##name},
static const section sections[] = {PARITY_SECTIONS(PARITY_ENTRY)
#ifdef PARITY_HAVE_MODEL
                                       PARITY_MODEL_SECTIONS(PARITY_ENTRY)
#endif
};
#undef PARITY_ENTRY

enum { SECTION_COUNT = sizeof sections / sizeof *sections };

typedef struct options {
    const char *device, *section, *model;
    gidd_dtype precision;
    int verbose;
    char **files;
    int file_count;
} options;

/* ------------------------------------------------------------------ command line */

static const struct argp_option argp_options[] = {
    {"device", 'd', "NAME", 0, "cpu (default), emu, cuda, cuda:N", 0},
    {"precision", 'p', "TYPE", 0, "type of activations: fp32 (default) or bf16", 0},
    {"section", 's', "NAME", 0, "only this section", 0},
    {"model", 'm', "PATH", 0, "take the parameters from this published model", 0},
    {"verbose", 'v', NULL, 0, "print every comparison", 0},
    {0},
};

static int known_section(const char *name)
{
    for (int i = 0; i < SECTION_COUNT; i++) {
        if (strcmp(sections[i].name, name) == 0) {
            return 1;
        }
    }
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case 'd':
        o->device = arg;
        return 0;
    case 'p':
        if (strcmp(arg, "fp32") != 0 && strcmp(arg, "bf16") != 0) {
            argp_error(state, "precision %s is neither fp32 nor bf16", arg);
        }
        o->precision = strcmp(arg, "bf16") == 0 ? GIDD_BF16 : GIDD_F32;
        return 0;
    case 's':
        if (!known_section(arg)) {
            argp_error(state, "there is no section %s", arg);
        }
        o->section = arg;
        return 0;
    case 'm':
        o->model = arg;
        return 0;
    case 'v':
        o->verbose = 1;
        return 0;
    case ARGP_KEY_ARGS:
        o->files = state->argv + state->next;
        o->file_count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a vectors file is needed");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ------------------------------------------------------------------ running */

// One section; its memory goes with it.
static gidd_status run_section(parity *p, const section *s)
{
    p->section = s->name;
    p->checks = p->failures = 0;
    p->worst = 0.0;
    p->worst_text[0] = '\0';
    gidd_status status = s->run(p);
    parity_release_blocks(p);
    if (status == GIDD_OK) {
        printf("  %-16s %4lld checks, %lld failed; worst: %-60s %s\n", s->name,
               (long long)p->checks, (long long)p->failures, p->worst_text,
               p->failures == 0 ? "ok" : "FAIL");
    }
    return status;
}

// *failures_p += failed comparisons. A file to which no section applies is unreadable.
static gidd_status run_file(parity *p, const options *o, const char *path, int64_t *failures_p)
{
    int ran = 0;
    GIDD_TRY(parity_open(p, path));
    printf("%s (device %s, %s)\n", path, o->device, o->precision == GIDD_BF16 ? "bf16" : "fp32");
    for (int i = 0; i < SECTION_COUNT; i++) {
        if (o->section != NULL && strcmp(o->section, sections[i].name) != 0) {
            continue;
        }
        if (!parity_has(p, sections[i].needs)) {
            printf("  %-16s not in this file\n", sections[i].name);
            continue;
        }
        GIDD_TRY(run_section(p, &sections[i]));
        *failures_p += p->failures;
        ran++;
    }
    if (ran == 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: holds nothing that was asked for", path);
    }
    return GIDD_OK;
}

int main(int argc, char **argv)
{
    const struct argp argp = {
        argp_options, parse,
        "FILE...",    "Compare this build with files of an independent implementation's numbers.",
        NULL,         NULL,
        NULL};
    options o = {.device = "cpu"};
    int64_t failures = 0;
    gidd_status status = GIDD_OK;
    gidd_cli_parse(&argp, argc, argv, 0, &o);
    parity p = {.file = -1,
                .device_name = o.device,
                .precision = o.precision,
                .verbose = o.verbose,
                .model = o.model};
    for (int i = 0; i < o.file_count && status == GIDD_OK; i++) {
        status = run_file(&p, &o, o.files[i], &failures);
        parity_release_blocks(&p);
        parity_close(&p);
    }
    if (status != GIDD_OK) {
        (void)fflush(stdout);
        (void)fprintf(stderr, "gidd-parity: %s\n", gidd_error_last()->text);
        return gidd_status_exit_code(status);
    }
    printf("%s\n", failures == 0 ? "all agree" : "FAILED");
    return failures == 0 ? 0 : 1;
}
