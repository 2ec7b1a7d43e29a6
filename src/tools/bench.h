/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-bench: one program, one sub-command a thing to be measured (bench_<name>.c). Each warms up,
 * repeats, reports medians with lowest and highest, and ends with one line of JSON
 * (bench_report.h).
 *
 * What is measured is the shipped code, called as the programs call it; what a benchmark adds is
 * inputs made from a fixed seed, clocks, and temporary folders, which it removes.
 */
#ifndef GIDD_TOOLS_BENCH_H
#define GIDD_TOOLS_BENCH_H

#include "base/cli.h"
#include "comm/comm.h"
#include "io/loader.h"
#include "tools/bench_report.h"

#include <stddef.h>
#include <stdint.h>

enum {
    GIDD_BENCH_PATHS_MAX = 4096,
    GIDD_BENCH_FOLDER_SIZE = 1024,
    GIDD_BENCH_SEED = 20250304,     /* of all synthetic inputs                      */
    GIDD_BENCH_LENGTH_SPREAD = 512, /* synthetic documents: length .. length + this */
};

typedef enum gidd_bench_input {
    GIDD_BENCH_SYNTHETIC = 0,
    GIDD_BENCH_DATA, /* --data: the shards in data.dir */
} gidd_bench_input;

/* The command line. Sizes are 0 and pointers NULL where an option was not given. */
typedef struct gidd_bench_options {
    gidd_cli cli;                            /* first: the input of the parser's child */
    int64_t repeats, warmup;                 /* repeats >= 1 */
    const char *folder;                      /* --folder: where temporary folders are made */
    const char *paths[GIDD_BENCH_PATHS_MAX]; /* texts to read */
    int path_count;
    double mib, gib, work_ms, peak_tflops;
    gidd_bench_input input;
    int step; /* checkpoint --step: time a training step as well */
} gidd_bench_options;

/* What a sub-command works with. */
typedef struct gidd_bench {
    const gidd_bench_options *options;
    const gidd_config *config;
    gidd_comm_set *comms;      /* NULL: the sub-command runs without MPI, on one rank */
    gidd_bench_report *report; /* printed by the frame on rank 0; other ranks fill theirs in vain */
} gidd_bench;

/* The sub-commands. Those with communicators are Collective over the world and return one status
 * everywhere; the others are Local. */
gidd_status gidd_bench_step(gidd_bench *bench);       /* Collective */
gidd_status gidd_bench_gemm(gidd_bench *bench);       /* Local      */
gidd_status gidd_bench_tokenizer(gidd_bench *bench);  /* Local      */
gidd_status gidd_bench_shard(gidd_bench *bench);      /* Collective */
gidd_status gidd_bench_loader(gidd_bench *bench);     /* Local      */
gidd_status gidd_bench_allreduce(gidd_bench *bench);  /* Collective */
gidd_status gidd_bench_checkpoint(gidd_bench *bench); /* Collective */

/* Seconds of a training step of the configuration (median of two after one), for comparison with
 * something else; says which step into the report. Collective. */
gidd_status gidd_bench_step_seconds(gidd_bench *bench, double *seconds_p);

/* ---- repeats --------------------------------------------------------------------------------- */

/* How often to measure; tells the report. Local. */
typedef struct gidd_bench_plan {
    int64_t warmup, repeats, total; /* total = warmup + repeats */
} gidd_bench_plan;

gidd_bench_plan gidd_bench_plan_of(gidd_bench *bench);

/* Processor time of this process, all threads: what something costs where other work shares the
 * machine. With several threads it counts those that spin as well. Local. */
double gidd_bench_cpu_seconds(void);

/* The time of a collective is that of its slowest rank: seconds[count] become, on every rank, the
 * largest of all ranks. Collective. */
gidd_status gidd_bench_slowest(gidd_comm *comm, double *seconds, int64_t count);

/* Inside a loop of collectives one rank's failure cannot be told to the others, who wait for it:
 * ends the job unless `comm` has one rank. Returns `status`. Local. */
gidd_status gidd_bench_survive(const gidd_comm *comm, gidd_status status);

/* ---- temporary folders ----------------------------------------------------------------------- */

/* Makes a new folder under --folder, else $TMPDIR, else /tmp; rank 0 makes it and all know it. An
 * interrupted program leaves it there. Local with `comm` NULL, else Collective. */
gidd_status gidd_bench_folder_create(const gidd_bench_options *options, gidd_comm *comm,
                                     char path[GIDD_BENCH_FOLDER_SIZE]);

/* Removes a folder and all that is in it; "" is ignored. Local. */
void gidd_bench_folder_remove(const char *path);

/* ---- inputs ---------------------------------------------------------------------------------- */

/* Documents, one after another in memory: document i is bytes[starts[i]] .. bytes[starts[i+1]]. */
typedef struct gidd_bench_texts {
    uint8_t *bytes;
    size_t *starts; /* [count + 1] */
    int64_t count;
    size_t capacity, room; /* of bytes; of starts */
} gidd_bench_texts;

/* All documents under the command line's paths, read as gidd-shard reads them; without paths, `mib`
 * MiB of synthetic English-like text. Says which into the report. Release also after a failure.
 * Local. */
gidd_status gidd_bench_texts_init(gidd_bench_texts *texts, gidd_bench *bench, double mib);
void gidd_bench_texts_release(gidd_bench_texts *texts);

/* Documents of random ids in memory, GPT-2's vocabulary, each of at least *length ids, so that no
 * row is padded; `length` is borrowed. The source keeps no state. Local. */
gidd_source gidd_bench_source(const int64_t *length);

/* Writes the first few thousand of these documents as a data set into `folder`. Local. */
gidd_status gidd_bench_shards_make(const char *folder, int64_t length);

/* Folder of the tokenizer: data.tokenizer, unless that is only the default and $GIDD_TOKENIZER_DIR
 * is set. Local. */
const char *gidd_bench_tokenizer_folder(const gidd_config *config);

#endif
