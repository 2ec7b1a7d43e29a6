/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local gidd_error last_error;
static void (*assert_handler)(void) = abort;

gidd_status gidd_fail_at(gidd_status code, const char *file, int line, const char *func,
                         const char *format, ...)
{
    va_list args;
    gidd_error record = {.code = code, .line = line, .file = file, .func = func};
    va_start(args, format);
    (void)vsnprintf(record.text, sizeof record.text, format, args);
    va_end(args);
    last_error = record; // after formatting: an argument may point into the old record
    return code;
}

const gidd_error *gidd_error_last(void)
{
    return &last_error;
}

void gidd_error_restore(const gidd_error *error)
{
    last_error = *error;
}

// One table: name and exit code of every status, in the enum's order.
static const struct {
    const char *name;
    int         exit_code;
} status_table[] = {
    [GIDD_OK] = {"ok", 0},
    [GIDD_ERR_ARG] = {"internal", 70},
    [GIDD_ERR_USAGE] = {"usage", 64},
    [GIDD_ERR_CONFIG] = {"config", 78},
    [GIDD_ERR_MISSING] = {"missing input", 66},
    [GIDD_ERR_CORRUPT] = {"corrupt", 65},
    [GIDD_ERR_DIVERGED] = {"diverged", 65},
    [GIDD_ERR_IO] = {"i/o", 74},
    [GIDD_ERR_OUTPUT] = {"output", 73},
    [GIDD_ERR_NOMEM] = {"out of memory", 70},
    [GIDD_ERR_COMM] = {"communication", 76},
    [GIDD_ERR_PEER] = {"peer", 76},
    [GIDD_ERR_TIMEOUT] = {"timeout", 76},
    [GIDD_ERR_DEVICE] = {"device", 69},
    [GIDD_ERR_UNSUPPORTED] = {"unsupported", 69},
};

const char *gidd_status_name(gidd_status status)
{
    size_t index = (size_t)status;
    return index < sizeof status_table / sizeof *status_table ? status_table[index].name : "unknown";
}

int gidd_status_exit_code(gidd_status status)
{
    size_t index = (size_t)status;
    return index < sizeof status_table / sizeof *status_table ? status_table[index].exit_code : 70;
}

void gidd_assert_set_handler(void (*handler)(void))
{
    assert_handler = handler != NULL ? handler : abort;
}

void gidd_assert_failed(const char *file, int line, const char *func, const char *condition)
{
    (void)fprintf(stderr, "%s:%d %s: assertion failed: %s\n", file, line, func, condition);
    (void)fflush(stderr);
    assert_handler();
    abort();
}
