/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz targets: one small file each, one function each. The same function is driven by libFuzzer
 * (run.sh, clang) and by replay.c (any compiler), which repeats the inputs kept in corpus/TARGET as
 * a unit test. A target must neither crash, leak, hang nor print, whatever the bytes are; what it
 * can claim beyond that it states with FUZZ_CHECK.
 */
#ifndef GIDD_TESTS_FUZZ_FUZZ_H
#define GIDD_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* libFuzzer's entry point; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A claim about the input at hand; a false one ends the process like a crash. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: claim is false: %s\n", __FILE__, __LINE__, #condition);  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A folder of this process under TMPDIR (else /tmp), made at the first call, removed at exit. */
const char *fuzz_folder(void);

/* Makes `name` in that folder hold these bytes; returns its path, borrowed until the next call with the
 * same name. Ends the process when it cannot. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t size);

#endif
