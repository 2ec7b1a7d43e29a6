/* SPDX-License-Identifier: Apache-2.0
 *
 * What a benchmark says: facts, spreads of repeated measurements, and one table. Kept as one JSON
 * object, of which the readable page and the JSON line are two views, so they cannot differ.
 *
 *     gidd-bench gemm
 *       device     cpu fp32, 2 threads, avx512_core, onednn 2.6.3
 *       step_ms    812.4  (805.1 .. 840.9)                       median (lowest .. highest)
 *
 *       product    ms   gflop_per_s
 *       fwd       6.2         344.1
 *     {"bench": "gemm", "device": "cpu ...", "step_ms": {"median": ...}, "rows": [{"product":
 * "fwd", ...
 *
 * Keys carry their units. Functions are Local; a failure (no memory) is kept until the report is
 * printed.
 */
#ifndef GIDD_TOOLS_BENCH_REPORT_H
#define GIDD_TOOLS_BENCH_REPORT_H

#include "base/status.h"

#include <stdint.h>

/* Of repeated measurements of one thing. */
typedef struct gidd_bench_spread {
    double median, min, max;
} gidd_bench_spread;

/* Sorts values[count], count >= 1; an even count has the mean of the two in the middle as its
 * median. Local. */
gidd_bench_spread gidd_bench_spread_of(double *values, int64_t count);

/* From times to rates: work / time, so that the longest time gives the lowest rate. Local. */
gidd_bench_spread gidd_bench_spread_rate(gidd_bench_spread times, double work);

/* From one unit to another: each value times `factor` > 0. Local. */
gidd_bench_spread gidd_bench_spread_scale(gidd_bench_spread spread, double factor);

typedef struct gidd_bench_report gidd_bench_report;

/* The report of `bench`; it starts with the machine: processor, processors, load. Owned by the
 * caller. Local. */
gidd_status gidd_bench_report_create(const char *bench, gidd_bench_report **report_p);
void gidd_bench_report_destroy(gidd_bench_report *report); /* NULL-safe. Local. */

/* Add one fact each, in the order in which they will be shown. Local. */
void gidd_bench_report_text(gidd_bench_report *report, const char *key, const char *text);
void gidd_bench_report_count(gidd_bench_report *report, const char *key, int64_t count);
void gidd_bench_report_number(gidd_bench_report *report, const char *key, double number);
void gidd_bench_report_spread(gidd_bench_report *report, const char *key, gidd_bench_spread spread);

/* Adds a row to the table: its name, under `title`, and values[count] under keys[count]. Every row
 * of a report has the same title and keys. NaN: no value (null in JSON). Local. */
typedef struct gidd_bench_row {
    const char *title, *name;
    const char *const *keys;
    const double *values;
    int count;
} gidd_bench_row;

void gidd_bench_report_row(gidd_bench_report *report, const gidd_bench_row *row);

/* Prints the page and, as the last line, the JSON object on standard output. GIDD_ERR_NOMEM,
 * GIDD_ERR_IO. Local. */
gidd_status gidd_bench_report_print(const gidd_bench_report *report);

#endif
