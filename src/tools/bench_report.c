/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/bench_report.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CELL_SIZE = 64 };

struct gidd_bench_report {
    json_t *root;
    json_t *rows; /* borrowed from root; NULL: no table */
    int failed;   /* something could not be stored      */
};

/* ---- Measurements ---------------------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

gidd_bench_spread gidd_bench_spread_of(double *values, int64_t count)
{
    GIDD_ASSERT(count >= 1);
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return (gidd_bench_spread){.median = (values[(count - 1) / 2] + values[count / 2]) / 2.0,
                               .min = values[0],
                               .max = values[count - 1]};
}

gidd_bench_spread gidd_bench_spread_rate(gidd_bench_spread times, double work)
{
    return (gidd_bench_spread){work / times.median, work / times.max, work / times.min};
}

gidd_bench_spread gidd_bench_spread_scale(gidd_bench_spread spread, double factor)
{
    return (gidd_bench_spread){spread.median * factor, spread.min * factor, spread.max * factor};
}

/* ---- Collecting ------------------------------------------------------------------------------ */

// Takes the reference to `value`; NULL (no memory, or text that is no UTF-8) counts as a failure.
static void set_member(gidd_bench_report *report, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) {
        report->failed = 1;
    }
}

// JSON has no NaN and no infinity.
static json_t *number_or_null(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

static void add_machine(gidd_bench_report *report)
{
    char line[256], model[200] = "unknown";
    FILE *file = fopen("/proc/cpuinfo", "re");
    double load = (double)NAN;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "model name : %199[^\n]", model) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    if (getloadavg(&load, 1) != 1) {
        load = (double)NAN;
    }
    gidd_bench_report_text(report, "processor", model);
    gidd_bench_report_count(report, "processors", sysconf(_SC_NPROCESSORS_ONLN));
    gidd_bench_report_number(report, "load_before", load);
}

gidd_status gidd_bench_report_create(const char *bench, gidd_bench_report **report_p)
{
    gidd_bench_report *report = calloc(1, sizeof *report);
    if (report == NULL || (report->root = json_object()) == NULL) {
        free(report);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a report");
    }
    gidd_bench_report_text(report, "bench", bench);
    add_machine(report);
    *report_p = report;
    return GIDD_OK;
}

void gidd_bench_report_destroy(gidd_bench_report *report)
{
    if (report != NULL) {
        json_decref(report->root);
        free(report);
    }
}

void gidd_bench_report_text(gidd_bench_report *report, const char *key, const char *text)
{
    set_member(report, report->root, key, json_string(text));
}

void gidd_bench_report_count(gidd_bench_report *report, const char *key, int64_t count)
{
    set_member(report, report->root, key, json_integer(count));
}

void gidd_bench_report_number(gidd_bench_report *report, const char *key, double number)
{
    set_member(report, report->root, key, number_or_null(number));
}

void gidd_bench_report_spread(gidd_bench_report *report, const char *key, gidd_bench_spread spread)
{
    json_t *object = json_object();
    if (object != NULL) {
        set_member(report, object, "median", number_or_null(spread.median));
        set_member(report, object, "min", number_or_null(spread.min));
        set_member(report, object, "max", number_or_null(spread.max));
    }
    set_member(report, report->root, key, object);
}

void gidd_bench_report_row(gidd_bench_report *report, const gidd_bench_row *row)
{
    if (report->rows == NULL) {
        report->rows = json_array();
        set_member(report, report->root, "rows", report->rows);
    }
    json_t *object = json_object();
    if (report->failed || object == NULL) {
        json_decref(object);
        report->failed = 1;
        return;
    }
    set_member(report, object, row->title, json_string(row->name));
    for (int i = 0; i < row->count; i++) {
        set_member(report, object, row->keys[i], number_or_null(row->values[i]));
    }
    if (json_array_append_new(report->rows, object) != 0) {
        report->failed = 1;
    }
}

/* ---- Printing -------------------------------------------------------------------------------- */

// Four digits or so; an exponent only for what is next to nothing.
static void format_number(double number, char cell[CELL_SIZE])
{
    double size = fabs(number);
    int is_whole = size >= 1.0 && size < 1e15 && !(floor(size) < size);
    int decimals = is_whole || size >= 1000.0 ? 0 : size >= 100.0 ? 1 : size >= 1.0 ? 2 : 4;
    if (size > 0.0 && size < 0.001) {
        (void)snprintf(cell, CELL_SIZE, "%.3g", number);
    } else {
        (void)snprintf(cell, CELL_SIZE, "%.*f", decimals, number);
    }
}

static void format_cell(const json_t *value, char cell[CELL_SIZE])
{
    if (json_is_string(value)) {
        (void)snprintf(cell, CELL_SIZE, "%s", json_string_value(value));
    } else if (json_is_integer(value)) {
        (void)snprintf(cell, CELL_SIZE, "%lld", (long long)json_integer_value(value));
    } else if (!json_is_number(value)) {
        (void)snprintf(cell, CELL_SIZE, "-");
    } else {
        format_number(json_number_value(value), cell);
    }
}

static int width_of_keys(json_t *object)
{
    const char *key;
    json_t *value;
    size_t width = 0;
    json_object_foreach(object, key, value)
    {
        width = !json_is_array(value) && strlen(key) > width ? strlen(key) : width;
    }
    return (int)width;
}

static void print_fact(const char *key, const json_t *value, int width)
{
    char median[CELL_SIZE], min[CELL_SIZE], max[CELL_SIZE];
    if (json_is_object(value)) {
        format_cell(json_object_get(value, "median"), median);
        format_cell(json_object_get(value, "min"), min);
        format_cell(json_object_get(value, "max"), max);
        (void)printf("  %-*s  %s  (%s .. %s)\n", width, key, median, min, max);
    } else if (json_is_string(value)) {
        (void)printf("  %-*s  %s\n", width, key, json_string_value(value));
    } else {
        format_cell(value, median);
        (void)printf("  %-*s  %s\n", width, key, median);
    }
}

// Width of one column of the table: its key's, or its widest cell's.
static int width_of_column(const json_t *rows, const char *key)
{
    size_t width = strlen(key), index;
    json_t *row;
    json_array_foreach(rows, index, row)
    {
        char cell[CELL_SIZE];
        format_cell(json_object_get(row, key), cell);
        width = strlen(cell) > width ? strlen(cell) : width;
    }
    return (int)width;
}

// The first column is the name, on the left; numbers stand on the right.
static void print_line(const json_t *rows, json_t *keys_from, const json_t *row)
{
    const char *key;
    json_t *unused;
    int column = 0;
    json_object_foreach(keys_from, key, unused)
    {
        char cell[CELL_SIZE];
        int width = width_of_column(rows, key);
        if (row != NULL) {
            format_cell(json_object_get(row, key), cell);
        }
        (void)printf("  %*s", column++ == 0 ? -width : width, row != NULL ? cell : key);
    }
    (void)printf("\n");
}

gidd_status gidd_bench_report_print(const gidd_bench_report *report)
{
    const char *key;
    json_t *value, *row;
    size_t index;
    char *line = report->failed ? NULL : json_dumps(report->root, JSON_REAL_PRECISION(6));
    if (line == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a report");
    }
    (void)printf("gidd-bench %s\n", json_string_value(json_object_get(report->root, "bench")));
    json_object_foreach(report->root, key, value)
    {
        if (!json_is_array(value) && strcmp(key, "bench") != 0) {
            print_fact(key, value, width_of_keys(report->root));
        }
    }
    if (report->rows != NULL) {
        (void)printf("\n");
        print_line(report->rows, json_array_get(report->rows, 0), NULL);
        json_array_foreach(report->rows, index, row)
        {
            print_line(report->rows, json_array_get(report->rows, 0), row);
        }
    }
    (void)printf("\n%s\n", line);
    free(line);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return gidd_fail(GIDD_ERR_IO, "cannot write standard output: %s", strerror(errno));
    }
    return GIDD_OK;
}
