/* SPDX-License-Identifier: Apache-2.0
 *
 * What gidd-eval found, as a page or as one JSON object. Everything Local.
 */
#ifndef GIDD_TOOLS_EVAL_REPORT_H
#define GIDD_TOOLS_EVAL_REPORT_H

#include "worker/estimate.h"

#include <stdio.h>

typedef struct eval_report {
    const char               *model;  /* path                                  */
    int64_t                   step;   /* it was trained for                    */
    const char               *texts;  /* "documents" or "samples": the rows    */
    int64_t                   draws;  /* of the stratified estimate            */
    const gidd_estimate_sums *stratified, *one_draw; /* of an autoregressive model: stratified NULL, and one_draw holds
                                                        the likelihood, which is exact */
    double                    unigram_entropy; /* of the tokens that were scored */
} eval_report;

void eval_report_print(FILE *stream, const eval_report *report);

/* GIDD_ERR_NOMEM. */
gidd_status eval_report_print_json(FILE *stream, const eval_report *report);

/* Entropy in nats of the distribution of single tokens, from their counts [V]. */
double eval_unigram_entropy(const int64_t *counts, int64_t V);

#endif
