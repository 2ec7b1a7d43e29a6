/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench: how fast the parts are. The command line and the frame; the measurements are
 * bench_*.c.
 */
#include "tools/bench.h"
#include "tools/tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum frame {
    FRAME_ALONE,    /* no MPI: under a launcher the first rank does it */
    FRAME_TOGETHER, /* all ranks of the job                            */
} frame;

typedef struct command {
    const char *name;
    gidd_status (*run)(gidd_bench *bench);
    frame frame;
    const struct argp_option *options;
    int takes_paths;
    int64_t warmup, repeats; /* unless the command line says otherwise */
    const char *summary;     /* a line of the overview, and the head of its own --help */
    const char *details;
} command;

/* ---- Sub-commands and their options ---------------------------------------------------------- */

enum { RUNS_MAX = 1000000 };
enum { KEY_REPEATS = 256, KEY_WARMUP, KEY_FOLDER, KEY_MIB, KEY_GIB, KEY_WORK, KEY_DATA, KEY_STEP, KEY_PEAK };

#define OPTION_REPEATS                                                                             \
    {                                                                                              \
        "repeats", KEY_REPEATS, "N", 0, "measurements, of which the median counts", 0              \
    }
#define OPTION_WARMUP                                                                              \
    {                                                                                              \
        "warmup", KEY_WARMUP, "N", 0, "runs before them that do not count", 0                      \
    }
#define OPTION_FOLDER                                                                              \
    {                                                                                              \
        "folder", KEY_FOLDER, "DIR", 0,                                                            \
            "where temporary files are made (default $TMPDIR, else /tmp)", 0                       \
    }
#define OPTION_DATA                                                                                \
    {                                                                                              \
        "data", KEY_DATA, NULL, 0, "read the shards in data.dir instead of synthetic documents", 0 \
    }

static const struct argp_option options_step[] = {
    OPTION_REPEATS,
    OPTION_WARMUP,
    OPTION_DATA,
    {"peak", KEY_PEAK, "TFLOPS", 0, "what the maker says a device does, such as 989, to give the step as a share of it too", 0},
    {0}};
static const struct argp_option options_gemm[] = {OPTION_REPEATS, OPTION_WARMUP, {0}};
static const struct argp_option options_tokenizer[] = {
    OPTION_REPEATS,
    OPTION_WARMUP,
    {"mib", KEY_MIB, "M", 0, "size of the synthetic text (default 16)", 0},
    {0}};
static const struct argp_option options_shard[] = {
    OPTION_REPEATS,
    OPTION_WARMUP,
    OPTION_FOLDER,
    {"mib", KEY_MIB, "M", 0, "size of the synthetic text (default 32)", 0},
    {0}};
static const struct argp_option options_loader[] = {
    OPTION_REPEATS,
    OPTION_WARMUP,
    OPTION_FOLDER,
    OPTION_DATA,
    {"work-ms", KEY_WORK, "MS", 0, "what the busy consumer does with a record (default 40)", 0},
    {0}};
static const struct argp_option options_allreduce[] = {
    OPTION_REPEATS,
    OPTION_WARMUP,
    {"mib", KEY_MIB, "M", 0, "largest size (default 256, or what memory allows)", 0},
    {0}};
static const struct argp_option options_checkpoint[] = {
    OPTION_REPEATS,
    OPTION_WARMUP,
    OPTION_FOLDER,
    {"gib", KEY_GIB, "G", 0, "size of the state (default 0.25)", 0},
    {"step", KEY_STEP, NULL, 0, "time a training step of the configuration too, and give the stall as a part of it", 0},
    {0}};

static const command commands[] = {
    {"step", gidd_bench_step, FRAME_TOGETHER, options_step, 0, 4, 7,
     "the whole training step, and each kernel's part of it",
     "A part's floor is the longer of its products at the ceiling and its bytes at the ceiling, which are measured "
     "first: a large square product and a copy. Without any configuration the model is six blocks, D = 512, H = 8, T = 512, GPT-2's "
     "vocabulary, two "
     "sequences a step. Under mpirun the ranks share them, so raise training.global_batch with the "
     "ranks."},
    {"gemm", gidd_bench_gemm, FRAME_ALONE, options_gemm, 0, 2, 9,
     "the matrix products of a step: the ceiling of its speed",
     "In fp32 and in bf16, whatever training.precision says; first a large square product and a copy, which nothing is "
     "faster than. Algorithms are chosen as a run chooses them, by timing."},
    {"tokenizer", gidd_bench_tokenizer, FRAME_ALONE, options_tokenizer, 1, 1, 5,
     "encoding of text with one thread",
     "PATH: texts, folders, archives; without one, synthetic text."},
    {"shard", gidd_bench_shard, FRAME_TOGETHER, options_shard, 1, 1, 3,
     "texts to shards, from end to end",
     "PATH: texts, folders, archives; without one, synthetic text."},
    {"loader", gidd_bench_loader, FRAME_ALONE, options_loader, 0, 10, 200,
     "batch records of 64 x 512, and waiting for them", ""},
    {"allreduce", gidd_bench_allreduce, FRAME_TOGETHER, options_allreduce, 0, 2, 9,
     "the reduction of a bucket of gradients over all ranks",
     "algbw is bytes over time, busbw that times 2 (n - 1) / n: what each of n ranks must send and "
     "receive."},
    {"checkpoint", gidd_bench_checkpoint, FRAME_TOGETHER, options_checkpoint, 0, 1, 5,
     "saving and restoring a state, against a plain write", ""},
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

typedef struct program {
    gidd_bench_options options; /* first: holds the child's input */
    const command *command;
} program;

static const command *find_command(const char *name)
{
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* ---- The command line of a sub-command ------------------------------------------------------- */

// Bounded, so that tables of times cannot overflow.
static int64_t parse_runs(struct argp_state *state, const char *word, int64_t lowest)
{
    int64_t runs = gidd_cli_count(state, word, lowest);
    if (runs > RUNS_MAX) {
        argp_error(state, "expected at most %d, found '%s'", RUNS_MAX, word);
    }
    return runs;
}

static double parse_size(const char *word, struct argp_state *state)
{
    char *end = NULL;
    double value = strtod(word, &end);
    if (end == word || *end != '\0' || !(value > 0.0 && value <= 1e6)) {
        argp_error(state, "expected a number above 0, at most 1000000, found '%s'", word);
    }
    return value;
}

static int is_override(const char *word)
{
    const char *equals = strchr(word, '=');
    return equals != NULL && memchr(word, '.', (size_t)(equals - word)) != NULL &&
           memchr(word, '/', (size_t)(equals - word)) == NULL;
}

static error_t take_word(program *p, const char *word, struct argp_state *state)
{
    gidd_bench_options *o = &p->options;
    if (!p->command->takes_paths || is_override(word)) {
        return ARGP_ERR_UNKNOWN; // the child's
    }
    if (o->path_count == GIDD_BENCH_PATHS_MAX) {
        argp_error(state, "more than %d paths", GIDD_BENCH_PATHS_MAX);
        return EINVAL;
    }
    o->paths[o->path_count++] = word;
    return 0;
}

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    program *p = state->input;
    gidd_bench_options *o = &p->options;
    switch (key) {
    case ARGP_KEY_INIT:
        o->cli.takes_words = p->command->takes_paths;
        state->child_inputs[0] = &o->cli;
        return 0;
    case KEY_REPEATS:
        o->repeats = parse_runs(state, word, 1);
        return 0;
    case KEY_WARMUP:
        o->warmup = parse_runs(state, word, 0);
        return 0;
    case KEY_FOLDER:
        o->folder = word;
        return 0;
    case KEY_MIB:
        o->mib = parse_size(word, state);
        return 0;
    case KEY_GIB:
        o->gib = parse_size(word, state);
        return 0;
    case KEY_WORK:
        o->work_ms = parse_size(word, state);
        return 0;
    case KEY_DATA:
        o->input = GIDD_BENCH_DATA;
        return 0;
    case KEY_PEAK:
        o->peak_tflops = parse_size(word, state);
        return 0;
    case KEY_STEP:
        o->step = 1;
        return 0;
    case ARGP_KEY_ARG:
        return take_word(p, word, state);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// The words after the sub-command's name. argp takes argv[0] as the name for its messages.
static void parse_command(program *p, int argc, char **argv)
{
    static const struct argp_child children[] = {{&gidd_cli_argp, 0, NULL, 0}, {0}};
    char name[64], text[1024];
    (void)snprintf(name, sizeof name, "gidd-bench %s", p->command->name);
    (void)snprintf(
        text, sizeof text,
        "Measures %s.\v%s%s%lld measurements after %lld runs of warm-up, unless said otherwise.",
        p->command->summary, p->command->details, p->command->details[0] != '\0' ? " " : "",
        (long long)p->command->repeats, (long long)p->command->warmup);
    const struct argp argp = {p->command->options,
                              parse_option,
                              p->command->takes_paths ? "[PATH...]" : NULL,
                              text,
                              children,
                              NULL,
                              NULL};
    char *word = argv[0];
    argv[0] = name;
    gidd_cli_parse(&argp, argc, argv, 0, p);
    argv[0] = word;
}

/* ---- The command line of the program --------------------------------------------------------- */

static error_t parse_overview(int key, char *word, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->input;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is no benchmark '%s'", word);
        return EINVAL;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "what is to be measured?");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// No sub-command: --help, --version, or a mistake. Does not return.
static void parse_without_command(program *p, int argc, char **argv)
{
    static const struct argp_child children[] = {{&gidd_cli_argp, 0, NULL, 0}, {0}};
    char text[2048];
    size_t used =
        (size_t)snprintf(text, sizeof text, "Measures how fast the parts are. Benchmarks:\n\n");
    for (int i = 0; i < COMMAND_COUNT && used < sizeof text; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "  %-11s %s\n", commands[i].name,
                                 commands[i].summary);
    }
    const struct argp argp = {NULL, parse_overview, "BENCHMARK [option...]", text, children, NULL,
                              NULL};
    p->options.cli.takes_words = 1;
    gidd_cli_parse(&argp, argc, argv, ARGP_IN_ORDER, &p->options.cli);
}

/* ---- Configuration --------------------------------------------------------------------------- */

// What the benchmarks take where no file says anything: the model of the published comparison.
static const char *const default_overrides[] = {
    "model.blocks=6",    "model.hidden_size=512",   "model.heads=8",
    "model.context=512", "training.global_batch=2", "training.micro_batch=2",
    "loss.skip_clean_rows=off", // the other side computes every row
};

enum { DEFAULT_COUNT = sizeof default_overrides / sizeof *default_overrides };

static int has_file(const gidd_cli *cli)
{
    return cli->config_path != NULL || getenv("GIDD_CONFIG") != NULL ||
           access("gidd.yaml", R_OK) == 0;
}

// Defaults are overrides that the command line's own ones come after.
static gidd_status load_config(const gidd_cli *given, gidd_config *config)
{
    gidd_cli cli = *given;
    if (!has_file(given)) {
        if (given->override_count + DEFAULT_COUNT > GIDD_CLI_OVERRIDES_MAX) {
            return gidd_fail(GIDD_ERR_USAGE, "more than %d overrides",
                             GIDD_CLI_OVERRIDES_MAX - DEFAULT_COUNT);
        }
        memcpy(cli.overrides, default_overrides, sizeof default_overrides);
        memcpy(cli.overrides + DEFAULT_COUNT, given->overrides,
               (size_t)given->override_count * sizeof *given->overrides);
        cli.override_count += DEFAULT_COUNT;
    }
    return gidd_cli_load(&cli, 0, config);
}

/* ---- The frame ------------------------------------------------------------------------------- */

typedef struct work {
    const program *program;
    const gidd_config *config;
} work;

static gidd_status measure(void *context, gidd_comm_set *comms)
{
    const work *w = context;
    gidd_bench bench = {.options = &w->program->options, .config = w->config, .comms = comms};
    gidd_status status = gidd_bench_report_create(w->program->command->name, &bench.report);
    if (comms != NULL) {
        GIDD_TRY(gidd_comm_agree(comms->world, status));
        gidd_bench_report_count(bench.report, "ranks", gidd_comm_size(comms->world));
    }
    if (status == GIDD_OK) {
        status = w->program->command->run(&bench);
    }
    if (status == GIDD_OK && (comms == NULL || gidd_comm_rank(comms->world) == 0)) {
        status = gidd_bench_report_print(bench.report);
    }
    gidd_bench_report_destroy(bench.report);
    return status;
}

static int run(program *p, gidd_config *config, int *argc, char ***argv)
{
    work w = {p, config};
    gidd_status status = load_config(&p->options.cli, config);
    if (status != GIDD_OK) {
        return gidd_cli_report("gidd-bench", status);
    }
    gidd_log_set_level((gidd_log_level)config->log.level);
    if (p->command->frame == FRAME_ALONE) {
        return gidd_cli_report("gidd-bench", gidd_cli_speaks() ? measure(&w, NULL) : GIDD_OK);
    }
    return gidd_tool_run(argc, argv, measure, &w);
}

int main(int argc, char **argv)
{
    program *p = calloc(1, sizeof *p);
    gidd_config *config = malloc(sizeof *config);
    int code = gidd_status_exit_code(GIDD_ERR_USAGE);
    if (p == NULL || config == NULL) {
        code = gidd_cli_report("gidd-bench",
                               gidd_fail(GIDD_ERR_NOMEM, "no memory for a configuration"));
        goto out;
    }
    p->command = argc > 1 ? find_command(argv[1]) : NULL;
    if (p->command == NULL) {
        parse_without_command(p, argc, argv);
        goto out;
    }
    p->options.warmup = p->command->warmup;
    p->options.repeats = p->command->repeats;
    parse_command(p, argc - 1, argv + 1);
    code = run(p, config, &argc, &argv);
out:
    free(config);
    free(p);
    return code;
}
