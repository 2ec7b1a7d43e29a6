/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

static gidd_status fail_here(void)
{
    return gidd_fail(GIDD_ERR_IO, "cannot open %s: %d", "shard", 3);
}

static gidd_status relay(void)
{
    GIDD_TRY(fail_here());
    return GIDD_OK;
}

static gidd_status relay_to_label(int *cleaned)
{
    gidd_status status = GIDD_OK;
    GIDD_TRY_GOTO(fail_here());
    *cleaned = -1;
out:
    *cleaned += 1;
    return status;
}

Test(status, record_is_written_at_the_origin)
{
    cr_expect(relay() == GIDD_ERR_IO);
    const gidd_error *error = gidd_error_last();
    cr_expect(error->code == GIDD_ERR_IO);
    cr_expect_str_eq(error->text, "cannot open shard: 3");
    cr_expect_str_eq(error->func, "fail_here");
    cr_expect(strstr(error->file, "test_status.c") != NULL);
    cr_expect(error->line == 11, "line %d", error->line);
}

Test(status, goto_runs_the_cleanup)
{
    int cleaned = 0;
    cr_expect(relay_to_label(&cleaned) == GIDD_ERR_IO);
    cr_expect(cleaned == 1);
}

Test(status, text_may_quote_the_old_record)
{
    gidd_status status = gidd_fail(GIDD_ERR_CORRUPT, "block 7");
    status = gidd_fail(GIDD_ERR_PEER, "rank 2: %s", gidd_error_last()->text);
    cr_expect(status == GIDD_ERR_PEER);
    cr_expect_str_eq(gidd_error_last()->text, "rank 2: block 7");
}

Test(status, long_text_is_cut)
{
    char text[4096];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    gidd_status status = gidd_fail(GIDD_ERR_ARG, "%s", text);
    cr_expect(status == GIDD_ERR_ARG);
    cr_expect(strlen(gidd_error_last()->text) == sizeof gidd_error_last()->text - 1);
}

static void *fail_in_thread(void *copy)
{
    gidd_status status = gidd_fail(GIDD_ERR_NOMEM, "in the thread");
    cr_assert(status == GIDD_ERR_NOMEM);
    *(gidd_error *)copy = *gidd_error_last();
    return NULL;
}

Test(status, records_belong_to_threads)
{
    pthread_t   thread;
    gidd_error  theirs;
    gidd_status status = gidd_fail(GIDD_ERR_CONFIG, "mine");
    cr_assert(status == GIDD_ERR_CONFIG);
    cr_assert(pthread_create(&thread, NULL, fail_in_thread, &theirs) == 0);
    cr_assert(pthread_join(thread, NULL) == 0);
    cr_expect_str_eq(gidd_error_last()->text, "mine");
    gidd_error_restore(&theirs);
    cr_expect_str_eq(gidd_error_last()->text, "in the thread");
    cr_expect(gidd_error_last()->code == GIDD_ERR_NOMEM);
}

// The documented exit codes: sysexits' numbers, and 76 for "a peer was lost, run me again".
Test(status, exit_codes)
{
    static const struct {
        gidd_status status;
        int         code;
    } want[] = {
        {GIDD_OK, 0},           {GIDD_ERR_ARG, 70},      {GIDD_ERR_USAGE, 64},       {GIDD_ERR_CONFIG, 78},
        {GIDD_ERR_MISSING, 66}, {GIDD_ERR_CORRUPT, 65},  {GIDD_ERR_DIVERGED, 65},    {GIDD_ERR_IO, 74},
        {GIDD_ERR_OUTPUT, 73},  {GIDD_ERR_NOMEM, 70},    {GIDD_ERR_COMM, 76},        {GIDD_ERR_PEER, 76},
        {GIDD_ERR_TIMEOUT, 76}, {GIDD_ERR_DEVICE, 69},   {GIDD_ERR_UNSUPPORTED, 69},
    };
    cr_expect(sizeof want / sizeof *want == GIDD_ERR_UNSUPPORTED + 1, "a status has no row here");
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        cr_expect(gidd_status_exit_code(want[i].status) == want[i].code, "status %d", (int)want[i].status);
        cr_expect(strcmp(gidd_status_name(want[i].status), "unknown") != 0);
    }
    cr_expect_str_eq(gidd_status_name((gidd_status)999), "unknown");
    cr_expect(gidd_status_exit_code((gidd_status)999) == 70);
    cr_expect(GIDD_EXIT_RERUN == 75 && GIDD_EXIT_STOPPED == 79);
}

Test(status, assertion_ends_the_process, .signal = SIGABRT)
{
    int zero = 0;
    GIDD_ASSERT(zero == 0);
    GIDD_ASSERT(zero == 1);
}
