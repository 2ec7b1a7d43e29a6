/* SPDX-License-Identifier: Apache-2.0
 *
 * How gidd-sample shows samples to people: the text, what self-correction changed, a table of its results, and
 * denoising as it goes on. Everything Local.
 */
#ifndef GIDD_TOOLS_SAMPLE_SHOW_H
#define GIDD_TOOLS_SAMPLE_SHOW_H

#include "worker/samples.h"

#include <stdio.h>

typedef struct sample_view {
    const gidd_bpe   *bpe;
    const gidd_vocab *vocab;
    FILE             *stream;
    int               colour; /* 1: ANSI colours; 0: marks in plain text */
} sample_view;

/* The text of sample i and a line feed. */
gidd_status sample_show_text(const sample_view *view, const gidd_samples *samples, int64_t i);

/* The whole window of sample i before and after self-correction: runs of exchanged tokens in red and green, or as
 * [-old-]{+new+}. */
gidd_status sample_show_diff(const sample_view *view, const gidd_samples *samples, int64_t i);

/* One line a sample: self-accuracy before and after, tokens exchanged, steps, how it ended; then their means. */
void sample_show_table(FILE *stream, const gidd_samples *samples);

/* Denoising of the first sequence of each batch. On a terminal the screen is drawn anew at every step, what the step
 * changed in colour; else a line at every tenth of the way. */
typedef struct sample_watch {
    sample_view view;
    int         terminal;
    int32_t    *last; /* [T] the step before */
    int64_t     T;
} sample_watch;

gidd_status sample_watch_open(const sample_view *view, int64_t T, int terminal, sample_watch *watch);
void        sample_watch_close(sample_watch *watch);
gidd_status sample_watch_step(sample_watch *watch, const gidd_samples_progress *now);

#endif
