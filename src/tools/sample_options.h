/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line of gidd-sample. Everything Local.
 */
#ifndef GIDD_TOOLS_SAMPLE_OPTIONS_H
#define GIDD_TOOLS_SAMPLE_OPTIONS_H

#include "model/sampler.h"
#include "tools/model_options.h"

typedef struct sample_options {
    gidd_model_options model;
    const char        *tokenizer, *output;
    const char        *infill, *infill_file, *given; /* at most one: a text, the file of one, a list of positions */
    const char        *correct_file;                 /* samples to correct in place of drawing any                */
    int64_t            num, steps, batch, seed;
    double             min_p, temperature;
    int                self_correct, json, diff, watch, colour;
    gidd_correct_args  correct;
} sample_options;

/* Parses; a wrong command line ends the process with exit code 64, --help with 0. */
void sample_options_parse(int argc, char **argv, sample_options *options);

#endif
