/* SPDX-License-Identifier: Apache-2.0
 *
 * Token ids of the network (SPEC section 1): the tokenizer's n base ids, then PAD, then MASK.
 *
 *     0 .. n-1   base ids; the last one, n-1, is both BOS and EOS (GPT-2: 50256)
 *     n          PAD: an ordinary token for the noise process
 *     n+1        MASK: always the last id, which the inverse CDF of corrupt.h relies on
 *
 * Models published before PAD had an id of its own pad with EOS instead; there MASK is n (GPT-2: 50257).
 */
#ifndef GIDD_DIFFUSION_VOCAB_H
#define GIDD_DIFFUSION_VOCAB_H

#include <stdint.h>

typedef struct gidd_vocab {
    int64_t V;  /* number of ids: n + 2 (GPT-2: 50259) */
    int64_t Vr; /* V rounded up to a multiple of 128: columns of the logits */
    int32_t bos, eos, pad, mask;
} gidd_vocab;

/* The vocabulary over a tokenizer of n >= 1 base ids. Local. */
static inline gidd_vocab gidd_vocab_of(int32_t n)
{
    int64_t V = (int64_t)n + 2;
    return (gidd_vocab){
        .V = V, .Vr = (V + 127) / 128 * 128, .bos = n - 1, .eos = n - 1, .pad = n, .mask = n + 1};
}

/* The same where PAD is EOS. Local. */
static inline gidd_vocab gidd_vocab_with_eos_pad(int32_t n)
{
    int64_t V = (int64_t)n + 1;
    return (gidd_vocab){
        .V = V, .Vr = (V + 127) / 128 * 128, .bos = n - 1, .eos = n - 1, .pad = n - 1, .mask = n};
}

#endif
