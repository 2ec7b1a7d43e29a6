/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-checkpoint: looks at checkpoints, proves them, deletes old ones; models out and in.
 */
#include "io/checkpoint.h"
#include "tools/checkpoint_exchange.h"
#include "tools/checkpoint_keep.h"
#include "tools/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct checkpoint_options {
    const char *command;
    const char *path;
    const char *text;
    int64_t keep_last, keep_every, threads;
    int dry_run;
    gidd_exchange_words exchange; // export, import
} checkpoint_options;

enum {
    OPTION_TEXT = 256,
    OPTION_KEEP_LAST,
    OPTION_KEEP_EVERY,
    OPTION_FORMAT,
    OPTION_DTYPE,
    OPTION_EMA,
    OPTION_DRY_RUN,
    OPTION_THREADS,
};

static const struct argp_option options[] = {
    {"text", OPTION_TEXT, "NAME", 0, "inspect: print this text alone (config, for example)", 0},
    {"keep-last", OPTION_KEEP_LAST, "N", 0, "prune: the newest N stay (default 3)", 0},
    {"keep-every", OPTION_KEEP_EVERY, "K", 0, "prune: steps divisible by K stay too", 0},
    {"dry-run", OPTION_DRY_RUN, NULL, 0, "prune: print what would go, delete nothing", 0},
    {"threads", OPTION_THREADS, "N", 0, "verify, prune: readers on each rank (default: the processors)", 0},
    {"format", OPTION_FORMAT, "NAME", 0, "export, import: safetensors", 0},
    {"dtype", OPTION_DTYPE, "TYPE", 0, "export: fp32 (default) or bf16", 0},
    {"ema", OPTION_EMA, NULL, 0, "export: the running average instead of the parameters", 0},
    {0},
};

static const char doc[] =
    "Looks at checkpoints.\v"
    "  list RUN       what is in a run directory\n"
    "  inspect PATH   step, counters, texts, sections and tensors\n"
    "  verify PATH    reads every byte and names damaged blocks, their tensors and\n"
    "                 the rank that found them: then exit code 65. Threads, and\n"
    "                 under mpirun the ranks, share the blocks\n"
    "  prune RUN      deletes old and unfinished checkpoints, never the last one\n"
    "                 that is whole; not while a job runs there\n"
    "  export PATH FOLDER   a Hugging Face style folder: model.safetensors with\n"
    "                 the reference's names, config.json, the tokenizer\n"
    "  import MODEL RUN   such a folder or .safetensors as step 0 of a new run;\n"
    "                 --config and section.key=value give the run's other keys\n\n"
    "PATH is a step directory or a run directory, of which inspect takes the newest "
    "checkpoint and verify takes all.";

/* ---- command line -----------------------------------------------------------------------------
 */

static int64_t parse_count(const char *word, const char *name, int64_t low,
                           struct argp_state *state)
{
    char *end = NULL;
    long long value = strtoll(word, &end, 10);
    if (end == word || *end != '\0' || value < low) {
        argp_error(state, "--%s: expected a number of at least %" PRId64 ", found '%s'", name, low,
                   word);
    }
    return value;
}

static int is_exchange(const checkpoint_options *o)
{
    return o->command != NULL && (strcmp(o->command, "export") == 0 || strcmp(o->command, "import") == 0);
}

// The command and its paths; export and import take two, and overrides.
static error_t take_word(checkpoint_options *o, char *word, struct argp_state *state)
{
    if (o->command == NULL) {
        o->command = word;
    } else if (o->path == NULL) {
        o->path = o->exchange.from = word;
    } else if (is_exchange(o) && o->exchange.to == NULL) {
        o->exchange.to = word;
    } else if (is_exchange(o)) {
        return ARGP_ERR_UNKNOWN; // an override, or one word too many: the child knows
    } else {
        argp_error(state, "unexpected argument '%s'", word);
    }
    return 0;
}

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    checkpoint_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        o->exchange.cli.takes_words = 1;
        state->child_inputs[0] = &o->exchange.cli;
        return 0;
    case OPTION_TEXT:
        o->text = word;
        return 0;
    case OPTION_KEEP_LAST:
        o->keep_last = parse_count(word, "keep-last", 1, state);
        return 0;
    case OPTION_KEEP_EVERY:
        o->keep_every = parse_count(word, "keep-every", 1, state);
        return 0;
    case OPTION_DRY_RUN:
        o->dry_run = 1;
        return 0;
    case OPTION_THREADS:
        o->threads = parse_count(word, "threads", 1, state);
        return 0;
    case OPTION_FORMAT:
        o->exchange.format = word;
        return 0;
    case OPTION_EMA:
        o->exchange.ema = 1;
        return 0;
    case OPTION_DTYPE:
        o->exchange.dtype = word;
        return 0;
    case ARGP_KEY_ARG:
        return take_word(o, word, state);
    case ARGP_KEY_END:
        if (!is_exchange(o) && o->exchange.cli.config_path != NULL) {
            argp_error(state, "--config is for import");
        }
        if (o->path == NULL) {
            argp_error(state, "a command and a path are needed, for example: verify runs/small");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- list and inspect -------------------------------------------------------------------------
 */

static double mebibytes(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static gidd_status step_path(const char *run_dir, const char *name, char path[4096])
{
    int length = snprintf(path, 4096, "%s/checkpoints/%s", run_dir, name);
    return length < 4096 ? GIDD_OK : gidd_fail(GIDD_ERR_USAGE, "the path %s is too long", run_dir);
}

static gidd_status list_one(const char *run_dir, const gidd_checkpoint_entry *entry)
{
    static const char *const kinds[] = {"complete", "unfinished", "damaged"};
    char path[4096];
    gidd_checkpoint *checkpoint = NULL;
    GIDD_TRY(step_path(run_dir, entry->name, path));
    gidd_status status = entry->kind == GIDD_CHECKPOINT_COMPLETE ? gidd_checkpoint_open(path, &checkpoint) : GIDD_OK;
    if (status == GIDD_ERR_NOMEM) {
        return status; // says nothing about the checkpoint
    }
    printf("%-40s %-10s", entry->name, kinds[entry->kind]);
    if (entry->kind != GIDD_CHECKPOINT_COMPLETE) {
        printf("\n");
    } else if (status != GIDD_OK) {
        printf(" unreadable: %s\n", gidd_error_last()->text);
    } else {
        printf(" %10.1f MiB %15" PRId64 " tokens seen\n",
               mebibytes(gidd_checkpoint_state_bytes(gidd_checkpoint_layout_of(checkpoint))),
               gidd_checkpoint_fields_of(checkpoint)->tokens_seen);
    }
    gidd_checkpoint_close(checkpoint);
    return GIDD_OK;
}

static gidd_status list_run(const checkpoint_options *o)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0;
    gidd_status status = GIDD_OK;
    GIDD_TRY(gidd_checkpoint_list(o->path, &entries, &count));
    if (count == 0) {
        status = gidd_fail(GIDD_ERR_MISSING, "no checkpoint in %s", o->path);
    }
    for (int64_t i = 0; i < count && status == GIDD_OK; i++) {
        status = list_one(o->path, &entries[i]);
    }
    free(entries);
    return status;
}

static void print_fields(const gidd_checkpoint *checkpoint)
{
    const gidd_checkpoint_fields *fields = gidd_checkpoint_fields_of(checkpoint);
    printf("checkpoint       %s\n", gidd_checkpoint_path_of(checkpoint));
    printf("step             %" PRId64 "\n", fields->step);
    printf("sample cursor    %" PRId64 "\n", fields->sample_cursor);
    printf("tokens seen      %" PRId64 "\n", fields->tokens_seen);
    printf("adam step        %" PRId64 "\n", fields->adam_step);
    printf("skipped steps    %" PRId64 " (%" PRId64 " in a row)\n", fields->skipped_total,
           fields->skipped_in_row);
    printf("seed             %" PRId64 "\n", fields->seed);
    printf("metrics.jsonl    %" PRId64 " bytes\n", fields->metrics_bytes);
    printf("workers          %" PRId64 "\n", fields->world_size);
    printf("build            %s\n", fields->build_id);
    for (int64_t i = 0; i < fields->fingerprint_count; i++) {
        printf("fingerprint      %s: %s\n", fields->fingerprint[i].name,
               fields->fingerprint[i].value);
    }
    for (int64_t i = 0; i < fields->text_count; i++) {
        size_t bytes = strlen(fields->texts[i].value);
        if (bytes <= 64 && strchr(fields->texts[i].value, '\n') == NULL) {
            printf("text             %s: %s\n", fields->texts[i].name, fields->texts[i].value);
        } else {
            printf("text             %s: %zu bytes (--text %s)\n", fields->texts[i].name, bytes,
                   fields->texts[i].name);
        }
    }
}

static void print_layout(const gidd_checkpoint_layout *layout)
{
    printf("state.bin        %.1f MiB, %" PRId64 " elements in each of:",
           mebibytes(gidd_checkpoint_state_bytes(layout)), layout->elements);
    for (int i = 0; i < layout->section_count; i++) {
        printf(" %s", layout->sections[i]);
    }
    printf("\n%14s  %-24s name\n", "first element", "shape");
    for (int64_t i = 0; i < layout->tensor_count; i++) {
        const gidd_checkpoint_tensor *tensor = &layout->tensors[i];
        char shape[64];
        int used = snprintf(shape, sizeof shape, "[%" PRId64 "]", tensor->shape[0]);
        if (tensor->dims == 2) {
            (void)snprintf(shape + used, sizeof shape - (size_t)used, "[%" PRId64 "]",
                           tensor->shape[1]);
        }
        printf("%14" PRId64 "  %-24s %s\n", tensor->offset, shape, tensor->name);
    }
}

static gidd_status inspect(const checkpoint_options *o)
{
    gidd_checkpoint *checkpoint = NULL;
    gidd_status status = GIDD_OK;
    GIDD_TRY(gidd_checkpoint_open(o->path, &checkpoint));
    const gidd_checkpoint_fields *fields = gidd_checkpoint_fields_of(checkpoint);
    if (o->text == NULL) {
        print_fields(checkpoint);
        print_layout(gidd_checkpoint_layout_of(checkpoint));
    } else {
        const char *text = gidd_checkpoint_text_find(fields->texts, fields->text_count, o->text);
        if (text == NULL) {
            status = gidd_fail(GIDD_ERR_USAGE, "%s holds no text '%s'",
                               gidd_checkpoint_path_of(checkpoint), o->text);
        } else {
            printf("%s", text);
        }
    }
    gidd_checkpoint_close(checkpoint);
    return status;
}

/* ---- the commands --------------------------------------------------------------------------------
 */

static gidd_keep_args keep_args(const checkpoint_options *o, const gidd_comm_set *comms)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int ranks = comms->node_size > 0 ? comms->node_size : 1;
    int threads = o->threads > 0 ? (int)o->threads : (int)(processors / ranks);
    return (gidd_keep_args){.path = o->path,
                            .threads = threads > 0 && comms->thread_multiple ? threads : 1,
                            .keep_last = o->keep_last,
                            .keep_every = o->keep_every,
                            .dry_run = o->dry_run};
}

static gidd_status run_command(void *context, gidd_comm_set *comms)
{
    const checkpoint_options *o = context;
    static const struct {
        const char *name;
        gidd_status (*run)(const checkpoint_options *); // on one rank
    } commands[] = {{"list", list_run}, {"inspect", inspect}};
    const gidd_keep_args keep = keep_args(o, comms);
    if (strcmp(o->command, "verify") == 0) {
        return gidd_keep_verify(&keep, comms->world);
    }
    if (strcmp(o->command, "prune") == 0) {
        return gidd_comm_rank(comms->world) == 0 ? gidd_keep_prune(&keep) : GIDD_OK;
    }
    if (strcmp(o->command, "import") == 0) {
        return gidd_exchange_import(&o->exchange, comms->world);
    }
    if (strcmp(o->command, "export") == 0) {
        return gidd_comm_rank(comms->world) == 0 ? gidd_exchange_export(&o->exchange) : GIDD_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(o->command, commands[i].name) == 0) {
            return gidd_comm_rank(comms->world) == 0 ? commands[i].run(o) : GIDD_OK;
        }
    }
    return gidd_fail(GIDD_ERR_USAGE, "unknown command '%s': list, inspect, verify, prune, export or import",
                     o->command);
}

int main(int argc, char **argv)
{
    static const struct argp_child children[] = {{&gidd_cli_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse_option, "COMMAND PATH [PATH]", doc, children, NULL, NULL};
    checkpoint_options o = {.keep_last = 3};
    gidd_cli_parse(&argp, argc, argv, 0, &o);
    return gidd_tool_run(&argc, &argv, run_command, &o);
}
