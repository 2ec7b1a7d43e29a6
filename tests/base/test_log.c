/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static int before_count, after_count;

static void count_before(void)
{
    before_count++;
}

static void count_after(void)
{
    after_count++;
}

// What gidd_log writes to stderr, caught through a pipe.
static const char *caught(char text[4096], gidd_log_level level, const char *word)
{
    int ends[2], kept = dup(STDERR_FILENO);
    cr_assert(pipe(ends) == 0 && kept >= 0);
    cr_assert(dup2(ends[1], STDERR_FILENO) >= 0);
    gidd_log(level, "room", "%s", word);
    cr_assert(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(ends[1]);
    ssize_t bytes = read(ends[0], text, 4095);
    text[bytes > 0 ? bytes : 0] = '\0';
    (void)close(ends[0]);
    (void)close(kept);
    return text;
}

Test(log, line_has_time_place_room_and_level)
{
    char text[4096];
    gidd_log_set_rank(3);
    gidd_log_set_step(1200);
    (void)caught(text, GIDD_LOG_WARN, "bucket 4 is late");
    cr_expect(strstr(text, " [r3 s1200] room: warning: bucket 4 is late\n") != NULL, "%s", text);
    cr_expect(text[strspn(text, "0123456789")] == '.', "%s", text);
}

Test(log, levels_and_ranks)
{
    char text[4096];
    cr_expect_str_empty(caught(text, GIDD_LOG_DEBUG, "hidden"));
    cr_expect(strstr(caught(text, GIDD_LOG_INFO, "shown"), "room: shown") != NULL);
    gidd_log_set_rank(1);
    cr_expect_str_empty(caught(text, GIDD_LOG_INFO, "rank 0 says it"));
    cr_expect(strstr(caught(text, GIDD_LOG_ERROR, "mine"), "[r1] room: error: mine") != NULL);
    gidd_log_set_level(GIDD_LOG_DEBUG);
    cr_expect(strstr(caught(text, GIDD_LOG_DEBUG, "shown"), "debug: shown") != NULL);
}

Test(log, long_line_is_cut_and_ends)
{
    char text[4096], word[3000];
    memset(word, 'y', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    (void)caught(text, GIDD_LOG_ERROR, word);
    cr_expect(strlen(text) == 2047, "%zu", strlen(text));
    cr_expect(text[strlen(text) - 1] == '\n');
}

Test(log, hooks_surround_printed_lines)
{
    char text[4096];
    gidd_log_set_hook(count_before, count_after);
    (void)caught(text, GIDD_LOG_WARN, "one");
    (void)caught(text, GIDD_LOG_TRACE, "dropped");
    cr_expect(before_count == 1 && after_count == 1);
}
