/* SPDX-License-Identifier: Apache-2.0
 *
 * What all benchmarks need around their measurements: repeats, slowest rank, temporary folders.
 */
#include "base/log.h"
#include "tools/bench.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPEN_FOLDERS = 16 };

gidd_bench_plan gidd_bench_plan_of(gidd_bench *bench)
{
    const gidd_bench_options *o = bench->options;
    gidd_bench_report_count(bench->report, "warmup", o->warmup);
    gidd_bench_report_count(bench->report, "repeats", o->repeats);
    return (gidd_bench_plan){
        .warmup = o->warmup, .repeats = o->repeats, .total = o->warmup + o->repeats};
}

double gidd_bench_cpu_seconds(void)
{
    struct timespec now = {0};
    int failed = clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    GIDD_ASSERT(failed == 0);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

gidd_status gidd_bench_slowest(gidd_comm *comm, double *seconds, int64_t count)
{
    return gidd_comm_allreduce_double(comm, seconds, count, GIDD_COMM_MAX);
}

gidd_status gidd_bench_survive(const gidd_comm *comm, gidd_status status)
{
    if (status != GIDD_OK && gidd_comm_size(comm) > 1) {
        gidd_log_last_error();
        gidd_comm_abort(gidd_status_exit_code(status));
    }
    return status;
}

/* ---- Temporary folders ----------------------------------------------------------------------- */

static gidd_status make_folder(const gidd_bench_options *options, char path[GIDD_BENCH_FOLDER_SIZE])
{
    const char *parent = options->folder != NULL ? options->folder : getenv("TMPDIR");
    parent = parent != NULL && parent[0] != '\0' ? parent : "/tmp";
    int length = snprintf(path, GIDD_BENCH_FOLDER_SIZE, "%s/gidd-bench-XXXXXX", parent);
    if (length >= GIDD_BENCH_FOLDER_SIZE || mkdtemp(path) == NULL) {
        path[0] = '\0';
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot make a temporary folder in %s: %s", parent,
                         length >= GIDD_BENCH_FOLDER_SIZE ? "its name is too long"
                                                          : strerror(errno));
    }
    return GIDD_OK;
}

gidd_status gidd_bench_folder_create(const gidd_bench_options *options, gidd_comm *comm,
                                     char path[GIDD_BENCH_FOLDER_SIZE])
{
    path[0] = '\0';
    if (comm == NULL) {
        return make_folder(options, path);
    }
    GIDD_TRY(
        gidd_comm_agree(comm, gidd_comm_rank(comm) == 0 ? make_folder(options, path) : GIDD_OK));
    return gidd_comm_bcast(comm, 0, path, GIDD_BENCH_FOLDER_SIZE);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

void gidd_bench_folder_remove(const char *path)
{
    if (path[0] != '\0' && nftw(path, remove_entry, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) != 0) {
        gidd_log(GIDD_LOG_WARN, "bench", "cannot remove %s: %s", path, strerror(errno));
    }
}
