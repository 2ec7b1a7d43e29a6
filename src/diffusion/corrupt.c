/* SPDX-License-Identifier: Apache-2.0 */
#include "diffusion/corrupt.h"

enum { BLOCK_DRAWS = 128 }; // uniforms are made in blocks, so that their loop has no branches

void gidd_corruption_init(gidd_corruption *corruption, const gidd_schedule *schedule, double t)
{
    gidd_marginal at = gidd_schedule_marginal(schedule, t);
    *corruption = (gidd_corruption){
        .process = schedule->args.process, .at = at, .mask = schedule->args.mask_id};
    if (schedule->args.process != GIDD_PROCESS_GIDD) {
        corruption->mask_from = at.beta_mask; // 0 without noise
    } else {
        corruption->per_other = 1.0 / at.beta_other;
        corruption->mask_from = (double)corruption->mask * at.beta_other + at.alpha; // mask = N
    }
}

// The j in [low, high) with base + j b <= u < base + (j+1) b. The division only guesses: at V =
// 50259 a bin is 1e-6 wide or far less, and its neighbour is a rounding away.
static int32_t find_bin(const gidd_corruption *c, double base, double u, int32_t low, int32_t high)
{
    double b = c->at.beta_other;
    double guess = (u - base) * c->per_other;
    int32_t j = low;
    if (guess >= (double)high) {
        j = high - 1;
    } else if (guess > (double)low) {
        j = (int32_t)guess;
    }
    while (j + 1 < high && (double)(j + 1) * b + base <= u) {
        j++;
    }
    while (j > low && (double)j * b + base > u) {
        j--;
    }
    return j;
}

static inline int32_t corrupt_hybrid(const gidd_corruption *c, int32_t x, double u)
{
    double b = c->at.beta_other;
    int32_t z = u >= c->mask_from ? c->mask : x;
    if (u < (double)x * b) {
        return find_bin(c, 0.0, u, 0, x);
    }
    if (u >= (double)(x + 1) * b + c->at.alpha && u < c->mask_from) {
        return find_bin(c, c->at.alpha, u, x + 1, c->mask);
    }
    return z;
}

int32_t gidd_corrupt_token(const gidd_corruption *corruption, int32_t x, double u)
{
    if (corruption->process != GIDD_PROCESS_GIDD) {
        return u < corruption->mask_from ? corruption->mask : x;
    }
    return corrupt_hybrid(corruption, x, u);
}

void gidd_corrupt(const gidd_corruption *corruption, const int32_t *x, const double *u,
                  int64_t count, int32_t *z)
{
    if (corruption->process != GIDD_PROCESS_GIDD) {
        for (int64_t i = 0; i < count; i++) {
            z[i] = u[i] < corruption->mask_from ? corruption->mask : x[i];
        }
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        z[i] = corrupt_hybrid(corruption, x[i], u[i]);
    }
}

void gidd_corrupt_row(const gidd_corruption *corruption, uint64_t seed, gidd_rng_stream stream,
                      uint64_t index, const int32_t *x, int64_t count, int32_t *z)
{
    double u[2 * BLOCK_DRAWS];
    for (int64_t first = 0; first < count; first += 2 * BLOCK_DRAWS) {
        int64_t tokens = count - first < 2 * BLOCK_DRAWS ? count - first : 2 * BLOCK_DRAWS;
        for (int64_t k = 0; k < (tokens + 1) / 2; k++) {
            uint32_t word[4];
            gidd_philox(seed, stream, index, (uint32_t)(first / 2 + k), word);
            u[2 * k] = gidd_uniform53(word[0], word[1]);
            u[2 * k + 1] = gidd_uniform53(word[2], word[3]);
        }
        gidd_corrupt(corruption, x + first, u, tokens, z + first);
    }
}
