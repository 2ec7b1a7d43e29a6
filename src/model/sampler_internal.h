/* SPDX-License-Identifier: Apache-2.0
 *
 * What generation (sampler.c) and self-correction (sampler_correct.c) share.
 */
#ifndef GIDD_MODEL_SAMPLER_INTERNAL_H
#define GIDD_MODEL_SAMPLER_INTERNAL_H

#include "base/rng.h"
#include "model/ancestral.h"
#include "model/sampler.h"

enum { GIDD_SAMPLER_STEP_BITS = 20 };

/* What a position needs in a step, once on the host and once on the device. */
typedef struct sampler_arrays {
    double  *uniform;
    double  *score; /* of a proposal; in a generation, the entropy of the prediction */
    int32_t *z;     /* result of a generation step  */
    int32_t *proposal;
    int32_t *best;
    uint8_t *fixed;
} sampler_arrays;

struct gidd_sampler {
    gidd_sampler_args      args; /* width and temperature resolved */
    gidd_ancestral        *ancestral; /* of an autoregressive model; the rest is then unused */
    gidd_batch             batch;
    sampler_arrays         host, device;
    void                  *host_memory, *device_memory, *batch_memory;
    int64_t               *running;  /* [max_B] self-correction: sequences that have not stopped */
    int32_t               *before;   /* [max_B][T] self-correction: the sequences as given       */
    int32_t               *next;     /* [T]                                                      */
    gidd_correct_patience *patience; /* [max_B] */
};

/* The [T] uniforms of one sequence in one step: positions 2k and 2k+1 share a draw. Local. */
void gidd_sampler_draw_uniforms(const gidd_sampler *sampler, gidd_rng_stream stream, int64_t sample,
                                int64_t step, double *uniforms);

/* Opens the batch record for B sequences: their z is the caller's to fill. Local. */
void gidd_sampler_open_batch(gidd_sampler *sampler, int64_t B, double t);

/* The batch and its uniforms (or NULL) to the device, and through the trunk. Local. */
gidd_status gidd_sampler_run_trunk(gidd_sampler *sampler, const double *uniforms);

/* GIDD_ERR_USAGE, naming `what`, where the model is autoregressive. Local. */
gidd_status gidd_sampler_need_diffusion(const gidd_sampler *sampler, const char *what);

/* GIDD_ERR_ARG: numbers beyond what a uniform's index holds. Local. */
gidd_status gidd_sampler_check_span(const gidd_sample_span *span);

/* The part of a span that fits the batch, `done` sequences on. Local. */
gidd_sample_span gidd_sampler_next_batch(const gidd_sampler *sampler, const gidd_sample_span *span,
                                         int64_t done);

#endif
