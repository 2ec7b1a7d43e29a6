/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-checkpoint export and import: their words and options.
 */
#ifndef GIDD_TOOLS_CHECKPOINT_EXCHANGE_H
#define GIDD_TOOLS_CHECKPOINT_EXCHANGE_H

#include "base/cli.h"
#include "comm/comm.h"

/* What the command line says to one of the two; the rest of it is borrowed from argv. */
typedef struct gidd_exchange_words {
    gidd_cli    cli;
    const char *from, *to;
    const char *format, *dtype; /* NULL: safetensors, fp32 */
    int         ema;            /* export the running average */
} gidd_exchange_words;

/* export RUN_OR_STEP OUT_FOLDER. By rank 0; the others have nothing to do. USAGE: unknown words. Local. */
gidd_status gidd_exchange_export(const gidd_exchange_words *words);

/* import MODEL RUN. Collective. */
gidd_status gidd_exchange_import(const gidd_exchange_words *words, gidd_comm *comm);

#endif
