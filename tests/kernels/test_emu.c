/* SPDX-License-Identifier: Apache-2.0
 *
 * The emulation against plain loops, with threads in order and at random.
 */
#include "kernels/emu_selftest.h"
#include "kernels/harness.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 256, WARP = 32, SEEDS = 4 };

static const uint32_t poison = 0xffffffffu;

static gidd_device *open_emu(void)
{
    gidd_device *device = NULL;
    CHECK_OK(gidd_device_open(&(gidd_device_args){.name = "emu", .dtype = GIDD_BF16, .threads = 1},
                              &device));
    return device;
}

// Seed 0: threads in order.
static void set_seed(int seed)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%d", seed);
    cr_assert_eq(seed == 0 ? unsetenv("GIDD_EMU_SEED") : setenv("GIDD_EMU_SEED", text, 1), 0);
}

Test(emu, barrier_orders_a_ring)
{
    enum { ROUNDS = 40 };
    gidd_device *device = open_emu();
    static int out[2 * BLOCK];
    for (int seed = 0; seed < SEEDS; seed++) {
        set_seed(seed);
        CHECK_OK(selftest_ring(device, &(selftest_args){.out = out, .rounds = ROUNDS}));
        for (int i = 0; i < 2 * BLOCK; i++) {
            cr_assert_eq(out[i], (i + ROUNDS) % BLOCK + ROUNDS);
        }
        int right = 0; // without its first barrier the ring must break, in any order of threads
        CHECK_OK(selftest_ring(device, &(selftest_args){.out = out, .rounds = ROUNDS, .kind = 1}));
        for (int i = 0; i < 2 * BLOCK; i++) {
            right += out[i] == (i + ROUNDS) % BLOCK + ROUNDS;
        }
        cr_assert(right < 2 * BLOCK, "a missing barrier was not seen, seed %d", seed);
    }
    gidd_device_close(device);
}

Test(emu, barriers_count_votes)
{
    gidd_device *device = open_emu();
    static int out[3 * BLOCK];
    for (int seed = 0; seed < SEEDS; seed++) {
        set_seed(seed);
        CHECK_OK(selftest_votes(device, &(selftest_args){.out = out}));
        for (int i = 0; i < BLOCK; i++) {
            cr_assert(out[3 * i] == 86 && out[3 * i + 1] == 1 && out[3 * i + 2] == 0);
        }
    }
    gidd_device_close(device);
}

Test(emu, shared_memory_is_poisoned_for_every_block)
{
    gidd_device *device = open_emu();
    static uint32_t out[3 * BLOCK * 2];
    CHECK_OK(selftest_poison(device, &(selftest_args){.out = out}));
    for (int i = 0; i < 3 * BLOCK * 2; i++) {
        cr_assert_eq(out[i], poison);
    }
    gidd_device_close(device);
}

static void check_warp_row(const int *row, int t)
{
    int lane = t % WARP, first = t - lane;
    cr_assert_eq(row[0], first + (lane ^ 5));
    cr_assert_eq(row[1], lane + 3 < WARP ? t + 3 : t);
    cr_assert_eq(row[2], lane % 8 >= 3 ? t - 3 : t);
    cr_assert_eq(row[3], first + lane / 16 * 16 + (lane + 9) % 16);
    cr_assert_eq(row[4], 1 << 0 | 1 << 5 | 1 << 10 | 1 << 15 | 1 << 20 | 1 << 25 | 1 << 30);
    cr_assert_eq(row[5], first == WARP);
    cr_assert_eq(row[6], first != WARP);
    cr_assert_eq(row[7], WARP * (WARP - 1) / 2);
    cr_assert_eq(row[8], lane < 16 ? 3 * (first + (lane ^ 1)) : first + (lane ^ 2));
    cr_assert_eq(row[9], 2 * (first + (lane ^ 16)) + 1);
}

Test(emu, warp_operations)
{
    gidd_device *device = open_emu();
    static int out[2 * WARP * SELFTEST_WARP_COLUMNS];
    for (int seed = 0; seed < SEEDS; seed++) {
        set_seed(seed);
        CHECK_OK(selftest_warp(device, &(selftest_args){.out = out}));
        for (int t = 0; t < 2 * WARP; t++) {
            check_warp_row(out + t * SELFTEST_WARP_COLUMNS, t);
        }
    }
    gidd_device_close(device);
}

// Small integers: every product and sum is exact, so the layouts alone decide.
Test(emu, mma_with_ldmatrix)
{
    gidd_device *device = open_emu();
    double *values[2];
    buffer operands[2], out = buffer_of(device, GIDD_F32, NULL, 256);
    for (int i = 0; i < 2; i++) {
        values[i] = malloc(256 * sizeof(double));
        for (int k = 0; k < 256; k++) {
            values[i][k] = (double)(random_below(91 + (uint64_t)i, k, 17) - 8);
        }
        operands[i] = buffer_of(device, GIDD_BF16, values[i], 256);
    }
    for (int run = 0; run < 2 * SEEDS; run++) {
        int is_nk = run % 2;
        set_seed(run / 2);
        CHECK_OK(selftest_mma(device, &(selftest_args){.out = out.memory,
                                                       .a = operands[0].memory,
                                                       .b = operands[1].memory,
                                                       .kind = is_nk}));
        double *d = buffer_values(&out);
        for (int i = 0; i < 256; i++) {
            double exact = 1.0;
            for (int k = 0; k < 16; k++) {
                exact += values[0][i / 16 * 16 + k] *
                         values[1][is_nk ? i % 16 * 16 + k : k * 16 + i % 16];
            }
            cr_assert_eq(d[i], exact, "d[%d][%d] is %g, should be %g", i / 16, i % 16, d[i], exact);
        }
        free(d);
    }
    buffer_release(&out);
    for (int i = 0; i < 2; i++) {
        buffer_release(&operands[i]);
        free(values[i]);
    }
    gidd_device_close(device);
}

// Where a step of the copy kernel is before its wait, a lane may see the copy or not: both happen.
Test(emu, copies_arrive_at_any_time_up_to_their_wait)
{
    gidd_device *device = open_emu();
    uint32_t in[WARP * 4], got[6 * WARP];
    for (uint32_t i = 0; i < WARP * 4; i++) {
        in[i] = 1000 + i;
    }
    buffer source = buffer_of_bytes(device, in, sizeof in);
    buffer out = buffer_of_bytes(device, got, sizeof got);
    CHECK_OK(selftest_copy(device, &(selftest_args){.out = out.memory, .a = source.memory}));
    buffer_bytes(&out, got);
    int early[6] = {0};
    for (int lane = 0; lane < WARP; lane++) {
        uint32_t expected[6] = {in[4 * lane], in[4 * lane], in[4 * lane], in[4 * lane + 3], in[4 * lane], 0};
        for (int i = 0; i < 6; i++) {
            const int waited_for = i != 0 && i != 2;
            const uint32_t value = got[i * WARP + lane];
            cr_assert(value == expected[i] || (!waited_for && value == poison), "step %d, lane %d", i, lane);
            early[i] += value == expected[i];
        }
    }
    for (int i = 0; i <= 2; i += 2) {
        cr_assert(early[i] > 4 && early[i] < WARP - 4, "step %d: %d of %d copies came early", i, early[i], WARP);
    }
    buffer_release(&source);
    buffer_release(&out);
    gidd_device_close(device);
}

enum { FETCHES = 4 };

// Whether the kernel that fetches ahead computes the right sums, with or without its barrier.
static int fetches_right(gidd_device *device, int has_barrier)
{
    uint32_t in[(FETCHES + 1) * 64 * 4], got[64];
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        in[i] = (uint32_t)(i * i + 7 * i);
    }
    buffer source = buffer_of_bytes(device, in, sizeof in);
    buffer out = buffer_of_bytes(device, got, sizeof got);
    CHECK_OK(selftest_prefetch(
        device, &(selftest_args){.out = out.memory, .a = source.memory, .rounds = FETCHES, .kind = has_barrier}));
    buffer_bytes(&out, got);
    int right = 1;
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t sum = 0;
        for (uint32_t round = 1; round <= FETCHES; round++) {
            sum += round * in[((round - 1) * 64 + (i + WARP) % 64) * 4];
        }
        right &= got[i] == sum;
    }
    buffer_release(&source);
    buffer_release(&out);
    return right;
}

Test(emu, a_copy_issued_before_its_barrier_shows)
{
    gidd_device *device = open_emu();
    for (int seed = 0; seed < SEEDS; seed++) {
        set_seed(seed);
        cr_assert(fetches_right(device, 1), "seed %d", seed);
        cr_assert(!fetches_right(device, 0), "seed %d: nobody saw the early copy", seed);
    }
    gidd_device_close(device);
}

// A process of its own makes the mistake; its message is read.
static void check_reported(int mistake, int seed, const char *words)
{
    int ends[2];
    char text[512] = "";
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        static int out[64];
        (void)dup2(ends[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        set_seed(seed);
        gidd_device *device = open_emu();
        (void)!selftest_divergent(device, &(selftest_args){.out = out, .kind = mistake});
        _exit(0);
    }
    (void)close(ends[1]);
    size_t length = 0;
    ssize_t got = 0;
    while (length + 1 < sizeof text &&
           (got = read(ends[0], text + length, sizeof text - 1 - length)) > 0) {
        length += (size_t)got;
    }
    (void)close(ends[0]);
    int how = 0;
    cr_assert_eq(waitpid(child, &how, 0), child);
    cr_assert(WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT, "mistake %d: status %d", mistake, how);
    cr_assert(strstr(text, words) != NULL, "mistake %d: \"%s\"", mistake, text);
}

Test(emu, mistakes_end_the_process)
{
    static const char *const words[SELFTEST_MISTAKES] = {
        [SELFTEST_HALF_AT_BARRIER] = "divergent barrier",
        [SELFTEST_BARRIER_AGAINST_SHUFFLE] = "deadlock",
        [SELFTEST_OTHER_OPERATION] = "another operation",
        [SELFTEST_LANE_ENDED] = "has ended",
        [SELFTEST_LANE_NOT_IN_MASK] = "outside the mask",
        [SELFTEST_SHARED_OVERFLOW] = "dynamic shared memory",
        [SELFTEST_LDMATRIX_MISALIGNED] = "16-byte aligned",
    };
    for (int mistake = 0; mistake < SELFTEST_MISTAKES; mistake++) {
        check_reported(mistake, 0, words[mistake]);
    }
    check_reported(SELFTEST_HALF_AT_BARRIER, 3, words[SELFTEST_HALF_AT_BARRIER]);
}
