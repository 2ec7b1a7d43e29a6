/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-shard: a corpus to token shards (alone or under mpirun), and a look at what was made.
 */
#include "base/cli.h"
#include "base/config.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/processors.h"
#include "base/status.h"
#include "comm/comm.h"
#include "coordinator/shard_job.h"
#include "io/shard.h"
#include "tokenizer/bpe.h"
#include "tools/shard_look.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUTS_MAX = 4096, STATS_IDS = 20 };

typedef enum command {
    COMMAND_BUILD,
    COMMAND_VERIFY, // with build the ones that all ranks take part in
    COMMAND_INFO,
    COMMAND_SHOW,
    COMMAND_STATS,
    COMMAND_GREP,
} command;

typedef struct arguments {
    gidd_cli cli; // first: the child's input
    command command;
    const char *inputs[INPUTS_MAX];
    int input_count;
    char source[GIDD_CONFIG_TEXT_MAX * 2]; // the items of data.source, NUL after each
    const char *dir;                       // --output, or the folder named after the command
    const char *pattern;                   // of grep
    int has_command;                       // it was named
    int word_count;
    const char *tokenizer;
    int64_t document; // of show
    int64_t limit;
    int64_t shard_bytes;
    gidd_corpus_rule rule;
    int dry_run;
} arguments;

enum { KEY_TOKENIZER = 256, KEY_LIMIT, KEY_STRICT, KEY_DRY_RUN, KEY_SHARD_BYTES };

static const struct argp_option option_table[] = {
    {"input", 'i', "PATH...", 0, "folders, texts, .jsonl files, archives (default: data.source)",
     0},
    {"output", 'o', "DIR", 0, "folder of the data set (default: data.dir)", 0},
    {"tokenizer", KEY_TOKENIZER, "DIR", 0, "vocab.bpe and encoder.json (default: data.tokenizer)",
     0},
    {"limit", KEY_LIMIT, "N", 0, "build: take the first N documents only; grep: the first N lines; stats: the N most "
                               "frequent ids (20)", 0},
    {"strict", KEY_STRICT, NULL, 0,
     "bad documents end the job instead of being skipped and counted", 0},
    {"shard-bytes", KEY_SHARD_BYTES, "N", 0,
     "text per shard (default: 4 to 64 MiB, by the size of the inputs)", 0},
    {"dry-run", KEY_DRY_RUN, NULL, 0, "list the inputs, say what would be done, write nothing", 0},
    {0},
};

static int is_override(const char *word)
{
    const char *equals = strchr(word, '=');
    return equals != NULL && strcspn(word, "/") > (size_t)(equals - word) &&
           memchr(word, '.', (size_t)(equals - word)) != NULL;
}

// A word that is no override: the command, its folder, its document, or one more input.
static error_t take_word(arguments *given, const char *word, struct argp_state *state)
{
    static const char *const names[] = {"build", "verify", "info", "show", "stats", "grep"};
    if (is_override(word)) {
        return ARGP_ERR_UNKNOWN; // the child's
    }
    int is_first = given->word_count++ == 0;
    if (is_first && strcmp(word, names[COMMAND_BUILD]) == 0) { // options come before words, wherever they stand
        given->has_command = 1;
        return 0;
    }
    if (given->input_count > 0) {
        if (given->input_count == INPUTS_MAX) {
            argp_error(state, "more than %d inputs", INPUTS_MAX);
        }
        given->inputs[given->input_count++] = word;
        return 0;
    }
    for (int i = COMMAND_BUILD; !given->has_command && i <= COMMAND_GREP; i++) {
        if (strcmp(word, names[i]) == 0) {
            given->command = (command)i;
            given->has_command = 1;
            return 0;
        }
    }
    if (given->command == COMMAND_BUILD) {
        argp_error(state, "unexpected argument '%s'; name inputs with --input", word);
    } else if (given->command == COMMAND_SHOW && given->document < 0 &&
               strspn(word, "0123456789") == strlen(word)) {
        given->document = gidd_cli_count(state, word, 0);
    } else if (given->command == COMMAND_GREP && given->pattern == NULL) {
        given->pattern = word;
    } else if (given->dir == NULL && given->command == COMMAND_GREP) { // grep DIR PATTERN
        given->dir = given->pattern;
        given->pattern = word;
    } else if (given->dir == NULL) {
        given->dir = word;
    } else {
        argp_error(state, "unexpected argument '%s'", word);
    }
    return 0;
}

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    arguments *given = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &given->cli;
        return 0;
    case 'i':
        return given->input_count < INPUTS_MAX ? (given->inputs[given->input_count++] = word, 0)
                                               : E2BIG;
    case 'o':
        given->dir = word;
        return 0;
    case KEY_TOKENIZER:
        given->tokenizer = word;
        return 0;
    case KEY_LIMIT:
        given->limit = gidd_cli_count(state, word, 0);
        return 0;
    case KEY_SHARD_BYTES:
        given->shard_bytes = gidd_cli_count(state, word, 0);
        return 0;
    case KEY_STRICT:
        given->rule = GIDD_CORPUS_STRICT;
        return 0;
    case KEY_DRY_RUN:
        given->dry_run = 1;
        return 0;
    case ARGP_KEY_ARG:
        return take_word(given, word, state);
    case ARGP_KEY_END:
        if (given->command == COMMAND_SHOW && given->document < 0) {
            argp_error(state, "which document? gidd-shard show [DIR] N");
        }
        if (given->command == COMMAND_GREP && given->pattern == NULL) {
            argp_error(state, "for what? gidd-shard grep [DIR] PATTERN");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ------------------------------------------------------------------ the configuration */

static gidd_status set_text(gidd_config *config, const char *key, const char *text)
{
    return text != NULL ? gidd_config_set(config, "command line", key, text) : GIDD_OK;
}

// Options are other names for configuration keys; what follows reads the configuration alone.
static gidd_status resolve(const arguments *given, gidd_config *config)
{
    GIDD_TRY(gidd_cli_load(&given->cli, 0, config));
    GIDD_TRY(set_text(config, "data.dir", given->dir));
    GIDD_TRY(set_text(config, "data.tokenizer", given->tokenizer));
    if (given->tokenizer == NULL &&
        strcmp(gidd_config_place(config, "data.tokenizer"), "default") == 0) {
        GIDD_TRY(set_text(config, "data.tokenizer", getenv("GIDD_TOKENIZER_DIR")));
    }
    return GIDD_OK;
}

// The inputs of the command line, else those of data.source.
static gidd_status find_inputs(arguments *given, const gidd_config *config)
{
    size_t used = 0;
    int count = given->input_count;
    while (given->input_count == 0 && count < INPUTS_MAX &&
           gidd_config_list_item(config->data.source, count, given->source + used,
                                 sizeof given->source - used)) {
        given->inputs[count++] = given->source + used;
        used += strlen(given->source + used) + 1;
    }
    if (count == 0) {
        return gidd_fail(GIDD_ERR_USAGE,
                         "no input: give --input PATH..., or data.source in the configuration");
    }
    given->input_count = count;
    return GIDD_OK;
}

/* ------------------------------------------------------------------ build */

typedef struct screen {
    double shown_at;
    int is_terminal;
} screen;

static void show_progress(void *context, const gidd_shard_progress *p)
{
    screen *seen = context;
    const double MB = 1e6;
    if (p->seconds - seen->shown_at < (seen->is_terminal ? 1.0 : 10.0)) {
        return;
    }
    seen->shown_at = p->seconds;
    double share =
        p->disk_bytes_total > 0 ? (double)p->disk_bytes / (double)p->disk_bytes_total : 0.0;
    double left = share > 0.0 ? p->seconds * (1.0 - share) / share : 0.0;
    (void)fprintf(
        stderr,
        "%s%.0f s  %.1f of %.1f MB (%.0f %%)  %lld documents  %.1f M tokens  %.1f MB/s of text  "
        "%.0f s left%s",
        seen->is_terminal ? "\r\033[K" : "", p->seconds, (double)p->disk_bytes / MB,
        (double)p->disk_bytes_total / MB, 100.0 * share,
        (long long)p->counts.of[GIDD_CORPUS_DOCUMENTS], (double)p->token_count / 1e6,
        (double)p->fresh_text_bytes / MB / p->seconds, left, seen->is_terminal ? "" : "\n");
}

static void print_skipped(const gidd_corpus_counts *counts)
{
    for (int i = GIDD_CORPUS_SKIPPED_EMPTY; i < GIDD_CORPUS_COUNTERS; i++) {
        if (counts->of[i] > 0) {
            (void)printf("%s: %lld\n", gidd_corpus_counter_name((gidd_corpus_counter)i),
                         (long long)counts->of[i]);
        }
    }
}

static void print_total(const char *dir, const gidd_shard_progress *total, int ranks, int threads)
{
    (void)printf(
        "%s: %lld documents, %lld tokens in %lld shards, %lld of them kept from an earlier run\n",
        dir, (long long)total->counts.of[GIDD_CORPUS_DOCUMENTS], (long long)total->token_count,
        (long long)total->shard_count, (long long)total->reused_count);
    print_skipped(&total->counts);
    (void)printf("%.1f s, %.1f MB/s of text, %d %s of %d %s, at most %.0f MB of memory each\n", total->seconds,
                 total->seconds > 0.0 ? (double)total->fresh_text_bytes / 1e6 / total->seconds
                                      : 0.0,
                 ranks, ranks == 1 ? "rank" : "ranks", threads, threads == 1 ? "thread" : "threads",
                 (double)total->peak_bytes / 1e6);
}

static gidd_status plan(const gidd_corpus_options *options, const arguments *given, const char *dir)
{
    gidd_corpus *corpus = NULL;
    GIDD_TRY(gidd_corpus_open(given->inputs, given->input_count, options, &corpus));
    if (gidd_cli_speaks()) {
        (void)printf("%lld files, %.1f MB on disk, would be sharded to %s\n",
                     (long long)gidd_corpus_file_count(corpus),
                     (double)gidd_corpus_file_bytes(corpus) / 1e6, dir);
    }
    gidd_corpus_close(corpus);
    return GIDD_OK;
}

static gidd_status build(const arguments *given, const gidd_config *config, const gidd_comm_set *set)
{
    gidd_comm *comm = set->world;
    int threads = gidd_processors_share(config->device.threads, set->node_size);
    gidd_shard_progress total = {0};
    screen seen = {.is_terminal = isatty(STDERR_FILENO)};
    gidd_bpe *bpe = NULL;
    const gidd_corpus_options options = {.suffixes = config->data.suffixes,
                                         .json_key = config->data.json_key,
                                         .shard_bytes = (size_t)given->shard_bytes,
                                         .rule = given->rule};
    if (given->dry_run) {
        return gidd_comm_agree(comm, plan(&options, given, config->data.dir));
    }
    gidd_status status = gidd_comm_agree(comm, gidd_bpe_load(config->data.tokenizer, &bpe));
    if (status == GIDD_OK) {
        status = gidd_shard_job_run(
            &(gidd_shard_job_args){.comm = comm,
                                   .inputs = given->inputs,
                                   .input_count = given->input_count,
                                   .output = config->data.dir,
                                   .bpe = bpe,
                                   .corpus = options,
                                   .valid_documents = config->data.valid_documents,
                                   .document_limit = given->limit,
                                   .threads = threads,
                                   .show = show_progress,
                                   .show_context = &seen},
            &total);
    }
    gidd_bpe_destroy(bpe);
    if (gidd_comm_rank(comm) == 0 && seen.is_terminal && seen.shown_at > 0.0) {
        (void)fputs("\r\033[K", stderr);
    }
    if (status == GIDD_OK && gidd_comm_rank(comm) == 0) {
        print_total(config->data.dir, &total, gidd_comm_size(comm), threads);
    }
    return status;
}

/* ------------------------------------------------------------------ verify */

// Every rank takes every size-th shard and names each damaged one; the first failure is the status.
static gidd_status verify_share(gidd_shard_set *set, const gidd_comm *comm)
{
    gidd_status status = GIDD_OK;
    gidd_error first = {0};
    int64_t count = gidd_shard_set_info(set)->shard_count;
    for (int64_t s = gidd_comm_rank(comm); s < count; s += gidd_comm_size(comm)) {
        gidd_status found = gidd_shard_set_verify(set, s, NULL);
        if (found == GIDD_OK) {
            continue;
        }
        gidd_log(GIDD_LOG_ERROR, "shard", "%s", gidd_error_last()->text);
        if (status == GIDD_OK) {
            status = found;
            first = *gidd_error_last();
        }
    }
    if (status != GIDD_OK) {
        gidd_error_restore(&first);
    }
    return status;
}

static gidd_status verify(const char *dir, gidd_comm *comm)
{
    gidd_shard_set *set = NULL;
    gidd_status status = gidd_comm_agree(comm, gidd_shard_set_open(dir, &set));
    if (status == GIDD_OK) {
        status = gidd_comm_agree(comm, verify_share(set, comm));
    }
    if (status == GIDD_OK && gidd_comm_rank(comm) == 0) {
        const gidd_shard_info *info = gidd_shard_set_info(set);
        (void)printf("%s: intact: %lld shards, %lld documents, %lld tokens\n", dir,
                     (long long)info->shard_count, (long long)info->document_count,
                     (long long)info->token_count);
    }
    gidd_shard_set_close(set);
    return status;
}

/* ------------------------------------------------------------------ main */

// The commands of one process need no launcher; under one, the first rank does it.
static gidd_status run_alone(const arguments *given, const gidd_config *config)
{
    if (!gidd_cli_speaks()) {
        return GIDD_OK;
    }
    switch (given->command) {
    case COMMAND_SHOW:
        return gidd_shard_document_print(config, given->document);
    case COMMAND_STATS:
        return gidd_shard_stats_print(config, given->limit > 0 ? given->limit : STATS_IDS);
    case COMMAND_GREP:
        return gidd_shard_grep_print(config, given->pattern, given->limit);
    default:
        return gidd_shard_info_print(config);
    }
}

static gidd_status run_together(const arguments *given, const gidd_config *config, const gidd_comm_set *set)
{
    GIDD_TRY(gidd_comm_agree(set->world, gidd_fault_init(gidd_comm_rank(set->world))));
    return given->command == COMMAND_VERIFY ? verify(config->data.dir, set->world)
                                            : build(given, config, set);
}

int main(int argc, char **argv)
{
    static arguments given = {.document = -1, .cli = {.takes_words = 1}};
    static gidd_config config;
    static const struct argp_child children[] = {{&gidd_cli_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        option_table,
        parse_option,
        "[build] --input PATH... --output DIR\nverify [DIR]\ninfo [DIR]\nshow [DIR] N\nstats [DIR]\n"
        "grep [DIR] PATTERN",
        "A corpus to token shards, alone or under mpirun; or a check of a data set, facts about it, one document, "
        "statistics of lengths and tokens, the lines that match an extended regular expression.",
        children,
        NULL,
        NULL};
    gidd_comm_set set = {0};
    gidd_cli_parse(&argp, argc, argv, 0, &given);
    gidd_status status = resolve(&given, &config);
    if (status == GIDD_OK && given.command == COMMAND_BUILD) {
        status = find_inputs(&given, &config);
    }
    if (status != GIDD_OK || given.command > COMMAND_VERIFY) {
        return gidd_cli_report("gidd-shard",
                               status == GIDD_OK ? run_alone(&given, &config) : status);
    }
    status = gidd_comm_bootstrap(&argc, &argv, GIDD_COMM_TOOL, &set);
    if (status == GIDD_OK) {
        status = run_together(&given, &config, &set);
    }
    int code = gidd_cli_report("gidd-shard", status);
    if (status == GIDD_ERR_COMM) {
        gidd_comm_abort(code);
    }
    gidd_comm_set_finalize(&set);
    return code;
}
