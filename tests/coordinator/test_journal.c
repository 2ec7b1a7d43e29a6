/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/journal.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static gidd_config config;
static char        folder[] = "/tmp/gidd-journal-XXXXXX";

static void prepare(void)
{
    cr_assert_not_null(mkdtemp(folder));
    gidd_config_init(&config);
    (void)snprintf(config.run.dir, sizeof config.run.dir, "%s", folder);
    config.log.every_steps = 4;
    config.training.steps = 1000;
    config.log.level = GIDD_CONFIG_OFF; // only errors are printed
}

static void clean(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(journal, .init = prepare, .fini = clean);

// Numbers that have no short decimal form, so that a lost bit would show.
static void add_steps(gidd_journal *journal, int64_t first, int64_t end)
{
    for (int64_t step = first; step < end; step++) {
        gidd_report reports[2];
        gidd_order  order = {.step = step, .lr = 1e-3 / 3, .actions = GIDD_ACT_TRAIN};
        memset(reports, 0, sizeof reports);
        for (int rank = 0; rank < 2; rank++) {
            double x = (double)(step + 1) / 7.0 + rank / 3.0;
            reports[rank].train.loss = x;
            reports[rank].train.positions = 64;
            reports[rank].train.elbo = 5 * x;
            reports[rank].train.tokens = 60 - rank;
            reports[rank].train.w_kl = x / 3;
            reports[rank].train.w = 11;
            reports[rank].grad_norm = x / 5;
            if (step % 6 == 5) {
                reports[rank].eval = reports[rank].train;
            }
        }
        order.actions |= step % 6 == 5 ? GIDD_ACT_EVAL : 0;
        cr_assert_eq(gidd_journal_step(journal, reports, 2, step, &order), GIDD_OK);
    }
}

static gidd_journal *open_journal(const gidd_journal_mark *resume, int64_t first)
{
    gidd_journal *journal = NULL;
    cr_assert_eq(gidd_journal_open(&(gidd_journal_args){.config = &config, .resume = resume, .first_step = first,
                                                        .context = 32, .flops = {.sequence = 32}},
                                   &journal),
                 GIDD_OK, "%s", gidd_error_last()->text);
    return journal;
}

static char *read_file(const char *name, size_t *bytes_p)
{
    char  path[128];
    char *text = calloc(1, 1 << 20);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    *bytes_p = fread(text, 1, (1 << 20) - 1, file);
    (void)fclose(file);
    return text;
}

Test(journal, a_resumed_journal_is_the_uninterrupted_one_byte_for_byte)
{
    size_t        whole_bytes = 0, bytes = 0, lost_bytes = 0;
    gidd_journal *journal = open_journal(NULL, 0);
    add_steps(journal, 0, 30);
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    char *whole = read_file("metrics.jsonl", &whole_bytes);
    cr_assert_gt(whole_bytes, 500);

    // the same again, with a mark in the middle of a window; steps after it are lost and done again
    journal = open_journal(NULL, 0);
    gidd_journal_mark mark;
    add_steps(journal, 0, 14);
    gidd_journal_get_mark(journal, &mark);
    add_steps(journal, 14, 25);
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    journal = open_journal(&mark, 14);
    add_steps(journal, 14, 30);
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    char *resumed = read_file("metrics.jsonl", &bytes);
    cr_assert_eq(bytes, whole_bytes);
    cr_assert_eq(memcmp(whole, resumed, bytes), 0);
    char *lost = read_file("metrics.lost.jsonl", &lost_bytes);
    cr_assert_gt(lost_bytes, whole_bytes, "the first run's lines and those after the mark are kept");
    free(whole);
    free(resumed);
    free(lost);
}

Test(journal, a_shorter_file_than_the_checkpoint_counted_is_refused)
{
    gidd_journal     *journal = open_journal(NULL, 0);
    gidd_journal_mark mark;
    add_steps(journal, 0, 8);
    gidd_journal_get_mark(journal, &mark);
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    mark.metrics_bytes += 1;
    gidd_journal_args args = {.config = &config, .resume = &mark, .first_step = 8, .context = 32};
    cr_assert_eq(gidd_journal_open(&args, &journal), GIDD_ERR_CORRUPT);
    (void)snprintf(mark.state, sizeof mark.state, "1 2 nan");
    cr_assert_eq(gidd_journal_open(&args, &journal), GIDD_ERR_CORRUPT);
}

Test(journal, a_line_holds_the_means_of_its_window)
{
    size_t        bytes = 0;
    gidd_journal *journal = open_journal(NULL, 0);
    add_steps(journal, 0, 4);
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    char *text = read_file("metrics.jsonl", &bytes);
    // losses of steps 0..3, ranks 0, 1: sum = 2 (1+2+3+4)/7 + 4/3, over 8 * 64 positions
    char expected[64];
    (void)snprintf(expected, sizeof expected, "{\"step\":4,\"loss\":%.9g,", (20.0 / 7 + 4.0 / 3) / 512);
    cr_assert_eq(strncmp(text, expected, strlen(expected)), 0, "%s\n%s", text, expected);
    free(text);
}

// One step without clean rows, and the window has no ELBO: what it has is the noised rows' part of all its steps.
Test(journal, a_window_with_a_step_without_clean_rows_says_elbo_noised)
{
    size_t        bytes = 0;
    gidd_journal *journal = open_journal(NULL, 0);
    for (int64_t step = 0; step < 12; step++) { // windows of 4: all without clean rows, one step, none
        const int   skips = step < 5;
        gidd_report report;
        gidd_order  order = {.step = step, .actions = GIDD_ACT_TRAIN | (skips ? GIDD_ACT_SKIP_CLEAN : 0)};
        memset(&report, 0, sizeof report);
        report.train = (gidd_loss_sums){.loss = 1, .positions = 1, .tokens = 1, .elbo = skips ? 2 : 3,
                                        .clean_elbo = skips ? 0 : 1};
        cr_assert_eq(gidd_journal_step(journal, &report, 1, step, &order), GIDD_OK);
    }
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    char *text = read_file("metrics.jsonl", &bytes), *line = strtok(text, "\n");
    for (int window = 0; window < 3; window++, line = strtok(NULL, "\n")) {
        cr_assert_eq(strstr(line, "\"elbo_noised\":2,") != NULL, window < 2, "%s", line);
        cr_assert_eq(strstr(line, "\"elbo\":3,") != NULL, window == 2, "%s", line);
        cr_assert_eq(strstr(line, "\"ppl\"") != NULL, window == 2, "%s", line);
    }
    free(text);
}

// The first version's checkpoints knew 14 sums; the later ones start at 0.
Test(journal, an_older_checkpoints_state_is_taken)
{
    gidd_journal_mark mark;
    gidd_journal     *journal = open_journal(NULL, 0);
    add_steps(journal, 0, 14);
    gidd_journal_get_mark(journal, &mark);
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    char *end = mark.state;
    for (int i = 0; i < 14; i++) {
        (void)strtod(end, &end);
    }
    *end = '\0';
    journal = open_journal(&mark, 14);
    cr_assert_eq(gidd_journal_close(journal), GIDD_OK);
    *strrchr(mark.state, ' ') = '\0';
    gidd_journal_args args = {.config = &config, .resume = &mark, .first_step = 14, .context = 32};
    cr_assert_eq(gidd_journal_open(&args, &journal), GIDD_ERR_CORRUPT);
}
