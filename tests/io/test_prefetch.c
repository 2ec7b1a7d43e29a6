/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loader_library.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ------------------------------------------------------------------ building ahead */

static gidd_prefetch *start_prefetch(gidd_prefetch_args args)
{
    gidd_prefetch *prefetch = NULL;
    cr_assert(gidd_prefetch_create(&args, &prefetch) == GIDD_OK, "%s", gidd_error_last()->text);
    return prefetch;
}

Test(prefetch, delivers_the_slices_of_all_steps_in_order)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 3));
    gidd_prefetch_args args = {.loader = loader,
                               .first_step = 2,
                               .end_step = 9,
                               .row_first = 4,
                               .row_count = 8,
                               .micro_batch = 3, // 3, 3, 2
                               .depth = 2};
    void *memory = aligned_alloc(64, gidd_prefetch_bytes(&args));
    args.memory = memory;
    gidd_prefetch *prefetch = start_prefetch(args);
    for (int64_t step = 2; step < 9; step++) {
        for (int64_t offset = 0; offset < 8; offset += 3) {
            const gidd_batch *got = NULL;
            gidd_batch want = make_batch(offset < 6 ? 3 : 2);
            cr_assert(gidd_loader_build(loader, step, 4 + offset, &want) == GIDD_OK);
            cr_assert(gidd_prefetch_next(prefetch, &got) == GIDD_OK);
            cr_assert(got->B == want.B && got->first_sample == step * 12 + 4 + offset);
            cr_assert((char *)got->memory >= (char *)memory &&
                      (char *)got->memory + got->bytes <=
                          (char *)memory + gidd_prefetch_bytes(&args));
            for (int64_t b = 0; b < want.B; b++) {
                assert_same_row(got, b, &want, b);
            }
            cr_assert_eq(got->row_count, want.row_count);
            gidd_prefetch_release(prefetch);
            free(want.memory);
        }
    }
    const gidd_batch *none = NULL;
    cr_assert(gidd_prefetch_next(prefetch, &none) == GIDD_ERR_ARG && none == NULL);
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
    free(memory);
}

Test(prefetch, keeps_records_until_they_are_released)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader *loader = open_loader(loader_args(&lib, 3));
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 100, .row_count = 12, .micro_batch = 12, .depth = 3});
    const gidd_batch *held[3], *more;
    for (int i = 0; i < 3; i++) {
        cr_assert(gidd_prefetch_next(prefetch, &held[i]) == GIDD_OK);
    }
    cr_assert(gidd_prefetch_next(prefetch, &more) == GIDD_ERR_ARG); // all held
    (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(held[i]->first_sample, 12 * i);
    }
    gidd_prefetch_release(prefetch);
    cr_assert(gidd_prefetch_next(prefetch, &more) == GIDD_OK);
    cr_assert_eq(more->first_sample, 36);
    gidd_prefetch_destroy(prefetch); // with records held and steps left
    gidd_loader_close(loader);
}

Test(prefetch, hands_a_failure_to_the_consumer)
{
    library lib;
    fill_library(&lib, 1);
    gidd_loader_args wide = loader_args(&lib, 0);
    wide.global_batch = 1;
    gidd_loader *loader = open_loader(wide);
    const gidd_batch *batch;
    lib.failing = 0;
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 10, .row_count = 1, .micro_batch = 1, .depth = 2});
    for (int i = 0; i < 2; i++) { // it stays failed
        cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_ERR_IO);
        cr_assert_str_eq(gidd_error_last()->text, "document 0 is on fire");
    }
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
}

// Records built before a failure still come, then the failure.
Test(prefetch, delivers_what_was_built_before_a_failure)
{
    library lib;
    fill_library(&lib, 20);
    gidd_loader_args args = loader_args(&lib, 0);
    args.global_batch = 1;
    gidd_loader *loader = open_loader(args);
    gidd_batch probe = make_batch(1);
    int64_t good = 0;
    lib.failing = 13;
    while (gidd_loader_build(loader, good, 0, &probe) == GIDD_OK) {
        good++;
    }
    cr_assert(good > 0 && good < 20);
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 100, .row_count = 1, .micro_batch = 1, .depth = 2});
    const gidd_batch *batch;
    for (int64_t i = 0; i < good; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL); // let it run ahead, and fail
        cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_OK);
        gidd_prefetch_release(prefetch);
    }
    cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_ERR_IO);
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
    free(probe.memory);
}

Test(prefetch, tells_how_long_it_was_waited_for)
{
    library lib;
    fill_library(&lib, 4);
    lib.slow_ns = 10000000;
    gidd_loader *loader = open_loader(loader_args(&lib, 0));
    gidd_prefetch *prefetch = start_prefetch((gidd_prefetch_args){
        .loader = loader, .end_step = 2, .row_count = 2, .micro_batch = 2, .depth = 2});
    const gidd_batch *batch;
    cr_assert_eq(gidd_prefetch_waited_ns(prefetch), 0);
    cr_assert(gidd_prefetch_next(prefetch, &batch) == GIDD_OK); // two reads of 10 ms
    cr_assert(gidd_prefetch_waited_ns(prefetch) > 10000000);
    gidd_prefetch_destroy(prefetch);
    gidd_loader_close(loader);
}

Test(prefetch, refuses_senseless_arguments)
{
    library lib;
    fill_library(&lib, 4);
    gidd_loader *loader = open_loader(loader_args(&lib, 0));
    gidd_prefetch_args good = {
        .loader = loader, .end_step = 1, .row_count = 1, .micro_batch = 1, .depth = 2};
    gidd_prefetch_args wrong[4] = {good, good, good, good};
    gidd_prefetch *prefetch = NULL;
    wrong[0].depth = 1;
    wrong[1].micro_batch = 0;
    wrong[2].row_count = 0;
    wrong[3].first_step = 2;
    for (int i = 0; i < 4; i++) {
        cr_assert(gidd_prefetch_create(&wrong[i], &prefetch) == GIDD_ERR_ARG, "case %d", i);
    }
    gidd_prefetch_destroy(NULL);
    gidd_loader_close(loader);
}
