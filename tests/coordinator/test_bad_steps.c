/* SPDX-License-Identifier: Apache-2.0
 *
 * What counts as a spike, which rank as slow, and the list of steps to leave out.
 */
#include "coordinator/left_out.h"
#include "coordinator/spike.h"
#include "coordinator/straggler.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static gidd_spike make_spike(void)
{
    static gidd_config config;
    gidd_spike         spike;
    gidd_config_init(&config);
    config.training.spike_window = 10;
    config.training.spike_z = 6;
    gidd_spike_init(&spike, &config);
    return spike;
}

Test(spike, only_what_stands_out)
{
    gidd_spike spike = make_spike();
    int        found = 0;
    for (int i = 0; i < 200; i++) { // a falling, rippling loss
        found += gidd_spike_observe(&spike, 8 - 0.01 * i + 0.1 * ((i * 7) % 5 - 2));
    }
    cr_assert_eq(found, 0);
    cr_assert(gidd_spike_limit(&spike) < 9);
    double before = spike.mean;
    cr_assert(gidd_spike_observe(&spike, 12));
    cr_assert_eq(spike.mean, before, "a spike must not move what is usual");
    cr_assert(!gidd_spike_observe(&spike, 6.1));
    cr_assert(!gidd_spike_observe(&spike, -100), "a low loss is no spike");
}

Test(spike, no_number_is_always_one)
{
    gidd_spike spike = make_spike();
    cr_assert(gidd_spike_observe(&spike, (double)NAN)); // the very first step
    cr_assert(gidd_spike_observe(&spike, HUGE_VAL));
    cr_assert(!gidd_spike_observe(&spike, 1e6), "nothing is usual yet");
    for (int i = 0; i < 30; i++) {
        cr_assert(!gidd_spike_observe(&spike, 5));
        cr_assert(gidd_spike_observe(&spike, (double)NAN));
        cr_assert(gidd_spike_observe(&spike, -HUGE_VAL));
    }
    cr_assert(isfinite(spike.mean) && isfinite(spike.square) && isfinite(gidd_spike_limit(&spike)));
}

Test(spike, a_plateau_may_ripple)
{
    gidd_spike spike = make_spike();
    for (int i = 0; i < 500; i++) {
        cr_assert(!gidd_spike_observe(&spike, 5));
    }
    cr_assert(!gidd_spike_observe(&spike, 5.02));
    cr_assert(gidd_spike_observe(&spike, 5.5));
}

Test(spike, text_is_exact)
{
    gidd_spike spike = make_spike(), again = make_spike();
    char       text[GIDD_SPIKE_TEXT_MAX];
    gidd_spike_format(&spike, text);
    cr_assert(gidd_spike_parse(&again, text));
    for (int i = 0; i < 37; i++) {
        (void)gidd_spike_observe(&spike, 3 + sin((double)i));
    }
    gidd_spike_format(&spike, text);
    cr_assert(gidd_spike_parse(&again, text));
    cr_assert_eq(gidd_spike_limit(&spike), gidd_spike_limit(&again));
    cr_assert_eq(spike.previous, again.previous);
    cr_assert(!gidd_spike_parse(&again, "1 2 nan 4"));
    cr_assert(!gidd_spike_parse(&again, "1 2 3"));
    cr_assert_eq(gidd_spike_limit(&spike), gidd_spike_limit(&again), "what is no state changes nothing");
}

static gidd_straggler_finding find_among(int ranks, const int64_t *busy_ms, const int64_t *waiting_ms)
{
    gidd_straggler straggler;
    gidd_report    reports[8];
    cr_assert_eq(gidd_straggler_init(&straggler, ranks), GIDD_OK);
    memset(reports, 0, sizeof reports);
    for (int rank = 0; rank < ranks; rank++) {
        reports[rank].step_ns = (busy_ms[rank] + waiting_ms[rank]) * 1000000;
        reports[rank].comm_ns = waiting_ms[rank] * 1000000;
    }
    gidd_straggler_add(&straggler, reports);
    gidd_straggler_add(&straggler, reports);
    gidd_straggler_finding finding = gidd_straggler_find(&straggler);
    gidd_straggler_release(&straggler);
    return finding;
}

Test(straggler, computes_longest_and_does_not_wait)
{
    gidd_straggler_finding f = find_among(4, (int64_t[]){50, 52, 160, 51}, (int64_t[]){110, 108, 0, 109});
    cr_assert_eq(f.rank, 2);
    cr_assert_float_eq(f.busy_ms, 160, 1e-9);
    cr_assert_float_eq(f.median_ms, 51, 1e-9);
    cr_assert_eq(find_among(2, (int64_t[]){160, 50}, (int64_t[]){0, 110}).rank, 0);
    cr_assert_eq(find_among(3, (int64_t[]){0, 50, 51}, (int64_t[]){0, 0, 0}).rank, -1, "a coordinator computes nothing");
    cr_assert_eq(find_among(4, (int64_t[]){50, 52, 60, 51}, (int64_t[]){9, 9, 0, 9}).rank, -1);
    cr_assert_eq(find_among(2, (int64_t[]){1, 4}, (int64_t[]){3, 0}).rank, -1, "3 ms are noise");
    cr_assert_eq(find_among(1, (int64_t[]){100}, (int64_t[]){0}).rank, -1);
}

Test(left_out, file_of_steps)
{
    char          folder[] = "/tmp/gidd-left-out-XXXXXX", path[64];
    gidd_left_out list;
    cr_assert(mkdtemp(folder) != NULL);
    cr_assert_eq(gidd_left_out_read(&list, folder), GIDD_OK);
    cr_assert_eq(list.count, 0);
    gidd_left_out_release(&list);
    cr_assert_eq(gidd_left_out_add(folder, 12), GIDD_OK);
    cr_assert_eq(gidd_left_out_add(folder, 7), GIDD_OK);
    cr_assert_eq(gidd_left_out_read(&list, folder), GIDD_OK);
    cr_assert(list.count == 2 && gidd_left_out_has(&list, 7) && gidd_left_out_has(&list, 12) && !gidd_left_out_has(&list, 8));
    gidd_left_out_release(&list);
    (void)snprintf(path, sizeof path, "%s/left_out.txt", folder);
    FILE *file = fopen(path, "w");
    (void)fputs("3\nx\n", file);
    (void)fclose(file);
    cr_assert_eq(gidd_left_out_read(&list, folder), GIDD_ERR_CORRUPT);
    cr_assert(strstr(gidd_error_last()->text, ":2:") != NULL);
    gidd_left_out_release(&list);
    (void)unlink(path);
    (void)rmdir(folder);
}
