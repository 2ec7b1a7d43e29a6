/* SPDX-License-Identifier: Apache-2.0
 *
 * What a device does at best, measured where and when its kernels are: the ceilings that they are held
 * against.
 */
#ifndef GIDD_TOOLS_BENCH_CEILING_H
#define GIDD_TOOLS_BENCH_CEILING_H

#include "tools/bench_report.h"
#include "tools/bench_work.h"

/* The fastest of square products of the device's type (linear_fwd without epilogue, sides 1024 to 8192 as far as one
 * takes less than 50 ms) and a copy within the device of 256 MiB, by gidd_device_copy; on the CPU, where that is one
 * thread's memcpy, by the cast kernel, which is all threads'. Of repeated measurements the shortest counts. Where there
 * is a choice of algorithms, products met from now on are timed with each (gidd_device_gemm_tune). Local. */
gidd_status gidd_bench_ceiling_measure(gidd_device *device, gidd_bench_ceiling *ceiling_p);

/* Adds it to a report: <prefix>_gflop_per_s, <prefix>_gb_per_s, <prefix>_side, <prefix>_call_us. Local. */
void gidd_bench_ceiling_report(gidd_bench_report *report, const char *prefix, const gidd_bench_ceiling *ceiling);

/* Fills device memory with numbers of `dtype`, uniform in [-1, 1), from one fixed seed: with equal or few different
 * values a GPU draws less power, and is faster than with a model's. Waits. Local. */
gidd_status gidd_bench_fill(gidd_device *device, void *target, size_t bytes, gidd_dtype dtype);

/* Seconds of a run of `run`, which issues work: `repeats` measurements after two runs that are not counted, into
 * seconds[repeats], the shortest first. Of one measurement as many runs are issued before the device is waited for as
 * last 5 ms (64 at most), so that waiting costs next to nothing. Local. */
typedef gidd_status (*gidd_bench_run)(void *context);
gidd_status gidd_bench_time_runs(gidd_device *device, gidd_bench_run run, void *context, int64_t repeats,
                                 double *seconds);

#endif
