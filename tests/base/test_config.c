/* SPDX-License-Identifier: Apache-2.0
 *
 * What a configuration may say, and what each wrong one is answered with.
 */
#include "base/config.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static gidd_status parse(gidd_config *config, const char *text)
{
    gidd_config_init(config);
    return gidd_config_parse(config, "t.yaml", text, strlen(text));
}

// The text is refused with a message that holds each of the (up to three) words.
static void expect_refused(const char *text, const char *const words[3])
{
    gidd_config config;
    gidd_status status = parse(&config, text);
    if (status == GIDD_OK) {
        status = gidd_config_check(&config);
    }
    cr_expect(status == GIDD_ERR_CONFIG, "accepted: %s", text);
    for (int i = 0; i < 3 && words[i] != NULL; i++) {
        cr_expect(strstr(gidd_error_last()->text, words[i]) != NULL, "no '%s' in: %s", words[i], gidd_error_last()->text);
    }
}

Test(config, defaults_are_the_papers)
{
    gidd_config c;
    gidd_config_init(&c);
    cr_expect(gidd_config_check(&c) == GIDD_OK);
    cr_expect(c.model.hidden_size == 768 && c.model.blocks == 12 && c.model.heads == 12);
    cr_expect(c.model.cond_size == 128 && c.model.context == 512 && c.model.p_uniform == 0);
    cr_expect(c.training.steps == 500000 && c.training.global_batch == 512);
    cr_expect(c.optimizer.lr == 5e-4 && c.optimizer.warmup_steps == 10000 && c.optimizer.clip == 1.0);
    cr_expect(c.optimizer.beta1 == 0.9 && c.optimizer.beta2 == 0.99 && c.optimizer.epsilon == 1e-9);
    cr_expect(c.optimizer.weight_decay == 0.02 && c.optimizer.schedule == GIDD_CONFIG_COSINE);
    cr_expect(c.loss.weighting == GIDD_CONFIG_WEIGHT_DYNAMIC && c.loss.max_weight == 2.0);
    cr_expect(c.diffusion.process == GIDD_CONFIG_GIDD && c.diffusion.t_eps == 1e-4);
    cr_expect(c.run.seed == 1 && c.data.valid_documents == 100000);
    cr_expect_str_eq(gidd_config_place(&c, "run.seed"), "default");
}

Test(config, both_yaml_styles)
{
    gidd_config c;
    cr_assert(parse(&c, "model:\n  hidden_size: 64\n  heads: 4\ntraining: {precision: fp32, steps: 20000}\n"
                        "data:\n  suffixes: [txt, 'md']\n  source:\n    - a b\n    - c.tar\n") == GIDD_OK,
              "%s", gidd_error_last()->text);
    cr_expect(c.model.hidden_size == 64 && c.training.precision == GIDD_CONFIG_FP32 && c.training.steps == 20000);
    cr_expect_str_eq(c.data.suffixes, "txt,md");
    cr_expect_str_eq(c.data.source, "a b,c.tar");
    cr_expect_str_eq(gidd_config_place(&c, "model.heads"), "t.yaml:3");
    char item[16];
    cr_expect(gidd_config_list_item(c.data.source, 1, item, sizeof item) == 1);
    cr_expect_str_eq(item, "c.tar");
    cr_expect(gidd_config_list_item(c.data.source, 2, item, sizeof item) == 0);
    cr_expect(gidd_config_list_item("", 0, item, sizeof item) == 0);
}

Test(config, wrong_values_say_where_and_what)
{
    static const struct {
        const char *text;
        const char *words[3];
    } cases[] = {
        {"model:\n  hiden_size: 64\n", {"t.yaml:2", "model.hiden_size", "'model.hidden_size'"}},
        {"training:\n  lr: 1\n", {"training.lr", "'optimizer.lr'", NULL}},
        {"modle:\n  heads: 4\n", {"t.yaml:1", "modle", "sections are"}},
        {"model:\n  heads: four\n", {"t.yaml:2", "whole number", "four"}},
        {"model:\n  heads: 4.5\n", {"model.heads", "whole number", NULL}},
        {"model:\n  heads: 0\n", {"model.heads", "range", "1 to 1024"}},
        {"model:\n  heads: 99999999999999999999\n", {"model.heads", NULL, NULL}},
        {"model:\n  p_uniform: 1.5\n", {"model.p_uniform", "range", NULL}},
        {"model:\n  p_uniform: .nan\n", {"finite", NULL, NULL}},
        {"optimizer:\n  lr: nan\n", {"finite", NULL, NULL}},
        {"optimizer:\n  lr: 1e400\n", {"finite", NULL, NULL}},
        {"optimizer:\n  lr: 0x1p-3\n", {"finite number", NULL, NULL}},
        {"training:\n  precision: fp16\n", {"fp32|bf16", "fp16", NULL}},
        {"training:\n  precision: fp3\n", {"fp32|bf16", "fp3", NULL}},
        {"model:\n  heads: 4\n  heads: 4\n", {"t.yaml:3", "model.heads", "twice"}},
        {"model:\n  heads: 4\nmodel:\n  blocks: 4\n", {"t.yaml:3", "model", "twice"}},
        {"model:\n  heads: [1, 2]\n", {"model.heads", NULL, NULL}},
        {"model:\n  heads: {a: 1}\n", {"t.yaml:2", "one level", NULL}},
        {"model: 3\n", {"t.yaml:1", "keys", NULL}},
        {"- a\n", {"t.yaml:1", "sections", NULL}},
        {"", {"empty", NULL, NULL}},
        {"model:\n  heads: &a 4\n", {"t.yaml:2", "anchors", NULL}},
        {"model:\n  heads: *a\n", {"aliases", NULL, NULL}},
        {"model:\n  heads: !!int 4\n", {"tags", NULL, NULL}},
        {"model: &m {heads: 4}\n", {"anchors", NULL, NULL}},
        {"run: {dir: \"a\\nb\"}\n", {"run.dir", "line break", NULL}},
        {"run: {dir: \"a\\0b\"}\n", {"NUL", NULL, NULL}},
        {"model:\n\theads: 4\n", {"t.yaml:2", "not YAML", NULL}},
        {"---\nmodel: {heads: 4}\n---\nmodel: {heads: 4}\n", {"one document", NULL, NULL}},
        {"data:\n  source: ['a,b']\n", {"comma", NULL, NULL}},
        // combinations
        {"model: {hidden_size: 100, heads: 10}\n", {"model.hidden_size", "multiple of 8", NULL}},
        {"model: {hidden_size: 768, heads: 7}\n", {"t.yaml:1", "model.heads", "hidden_size / heads"}},
        {"model: {hidden_size: 768, heads: 4}\n", {"at most 128", NULL, NULL}},
        {"loss: {min_weight: 3}\n", {"loss.min_weight", "loss.max_weight", NULL}},
        {"training: {steps: 10000}\n", {"optimizer.warmup_steps", "training.steps", NULL}},
        {"training: {global_batch: 8, micro_batch: 9}\n", {"training.micro_batch", "training.global_batch", NULL}},
        {"data: {verify: never, on_bad_chunk: skip}\n", {"data.on_bad_chunk", "data.verify is never", NULL}},
        {"model: {p_uniform: 0.1}\nloss: {skip_clean_rows: on}\n",
         {"loss.skip_clean_rows", "teach the model to see wrong tokens", NULL}},
        {"loss: {skip_clean_rows: on, min_weight: 0.01}\n", {"loss.skip_clean_rows", "loss.min_weight 0.01", NULL}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_refused(cases[i].text, cases[i].words);
    }
}

Test(config, sizes_are_limited)
{
    gidd_config config;
    char       *text = malloc(GIDD_CONFIG_FILE_MAX + 2);
    cr_assert(text != NULL);
    memset(text, ' ', GIDD_CONFIG_FILE_MAX + 1);
    gidd_config_init(&config);
    cr_expect(gidd_config_parse(&config, "big", text, GIDD_CONFIG_FILE_MAX + 1) == GIDD_ERR_CONFIG);
    memset(text, 'a', 3000);
    memcpy(text, "run: {dir: ", 11);
    memcpy(text + 2990, "}\n", 3);
    cr_expect(parse(&config, text) == GIDD_ERR_CONFIG);
    memset(text, '[', 100000);
    memcpy(text, "run: {dir: ", 11);
    text[100000] = '\0';
    cr_expect(parse(&config, text) == GIDD_ERR_CONFIG);
    free(text);
}

Test(config, override)
{
    gidd_config config;
    gidd_config_init(&config);
    cr_expect(gidd_config_override(&config, "run.dir=runs/a=b") == GIDD_OK);
    cr_expect_str_eq(config.run.dir, "runs/a=b");
    cr_expect(gidd_config_override(&config, "checkpoint.verify_after_write=false") == GIDD_OK);
    cr_expect(config.checkpoint.verify_after_write == GIDD_CONFIG_OFF);
    cr_expect(gidd_config_override(&config, "run.dir") == GIDD_ERR_USAGE);
    cr_expect(gidd_config_override(&config, "model.block=3") == GIDD_ERR_CONFIG);
    cr_expect(strstr(gidd_error_last()->text, "'model.blocks'") != NULL);
    cr_expect(gidd_config_override(&config, "model.heads=") == GIDD_ERR_CONFIG);
    cr_expect(gidd_config_override(&config, "model.heads= 4") == GIDD_ERR_CONFIG);
}

// A refused value leaves the old one.
Test(config, failure_changes_nothing)
{
    gidd_config config;
    gidd_config_init(&config);
    cr_expect(gidd_config_override(&config, "model.heads=0") == GIDD_ERR_CONFIG);
    cr_expect(config.model.heads == 12);
    cr_expect_str_eq(gidd_config_place(&config, "model.heads"), "default");
}

static gidd_status note(void *context, const char *name, gidd_config_class class, const char *before, const char *after)
{
    char *notes = context;
    (void)snprintf(notes + strlen(notes), 256, "%s %d %s %s;", name, (int)class, before, after);
    return GIDD_OK;
}

Test(config, compare_names_key_class_and_values)
{
    gidd_config before, after;
    char        notes[1024] = "";
    gidd_config_init(&before);
    gidd_config_init(&after);
    cr_expect(gidd_config_compare(&before, &after, note, notes) == GIDD_OK);
    cr_expect_str_empty(notes);
    cr_assert(gidd_config_override(&after, "model.blocks=6") == GIDD_OK);
    cr_assert(gidd_config_override(&after, "optimizer.lr=1e-3") == GIDD_OK);
    cr_assert(gidd_config_override(&after, "run.dir=x") == GIDD_OK);
    cr_expect(gidd_config_compare(&before, &after, note, notes) == GIDD_OK);
    char want[256];
    (void)snprintf(want, sizeof want, "run.dir %d runs/default x;model.blocks %d 12 6;optimizer.lr %d 0.0005 0.001;",
                   GIDD_CONFIG_FREE, GIDD_CONFIG_IDENTITY, GIDD_CONFIG_SEMANTIC);
    cr_expect_str_eq(notes, want);
}

// The resolved configuration reads back as itself, awkward texts and shortest decimals included.
Test(config, format_round_trip)
{
    gidd_config config, again;
    char       *text = NULL, *twice = NULL, notes[1024] = "";
    gidd_config_init(&config);
    cr_assert(gidd_config_override(&config, "run.dir=a \"b\" \\c: #d\te") == GIDD_OK);
    cr_assert(gidd_config_override(&config, "optimizer.lr=0.30000000000000004") == GIDD_OK);
    cr_assert(gidd_config_override(&config, "run.seed=9007199254740991") == GIDD_OK);
    cr_assert(gidd_config_override(&config, "data.source=x,y") == GIDD_OK);
    cr_assert(gidd_config_format(&config, &text) == GIDD_OK);
    cr_assert(parse(&again, text) == GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert(gidd_config_compare(&config, &again, note, notes) == GIDD_OK);
    cr_expect_str_empty(notes);
    cr_assert(gidd_config_format(&again, &twice) == GIDD_OK);
    cr_expect_str_eq(text, twice);
    cr_expect(strstr(text, "  lr: 0.30000000000000004\n") != NULL);
    free(text);
    free(twice);
}

#define KEY_NAME(section, key, ...) #section "." #key,
#define SECTION_NAMES(section) GIDD_CONFIG_KEYS_##section(KEY_NAME)
static const char *const all_keys[] = {GIDD_CONFIG_SECTIONS(SECTION_NAMES)};

Test(config, help_lists_every_key)
{
    char  *text = NULL;
    size_t bytes = 0;
    FILE  *stream = open_memstream(&text, &bytes);
    cr_assert(stream != NULL);
    gidd_config_print_keys(stream);
    cr_assert(fclose(stream) == 0);
    cr_expect(sizeof all_keys / sizeof *all_keys == GIDD_CONFIG_KEY_COUNT);
    for (size_t i = 0; i < sizeof all_keys / sizeof *all_keys; i++) {
        char line[128];
        (void)snprintf(line, sizeof line, "  %-28s ", all_keys[i]);
        cr_expect(strstr(text, line) != NULL, "%s is not listed", all_keys[i]);
    }
    cr_expect(strstr(text, "gidd|mdlm; default gidd; semantic") != NULL);
    free(text);
}
