/* SPDX-License-Identifier: Apache-2.0
 *
 * The record of the algorithms that a run's matrix products use: RUN/gemm.json, and the text "gemm" of each
 * checkpoint (FORMAT.md). They are chosen once by timing, which comes out differently each time; with the record the
 * same run uses the same ones for ever.
 */
#ifndef GIDD_IO_GEMM_RECORD_H
#define GIDD_IO_GEMM_RECORD_H

#include "base/gemm_choice.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { GIDD_GEMM_DEVICE_SIZE = 192, GIDD_GEMM_CHOICES_MAX = 4096 };

typedef struct gidd_gemm_record {
    char              device[GIDD_GEMM_DEVICE_SIZE]; /* device and library: only there the choices mean anything */
    gidd_gemm_choice *choices;                       /* owned; ascending keys, no key twice */
    int64_t           count;
} gidd_gemm_record;

/* NULL-safe. Local. */
void gidd_gemm_record_release(gidd_gemm_record *record);

/* JSON, the same bytes for the same choices in any order. *text_p is to be freed. GIDD_ERR_ARG: a key twice, or one that
 * is not printable; GIDD_ERR_NOMEM. Local. */
gidd_status gidd_gemm_record_encode(const char *device, const gidd_gemm_choice *choices, int64_t count, char **text_p);

/* GIDD_ERR_CORRUPT says what is wrong with the text called `name`. Local. */
gidd_status gidd_gemm_record_decode(const char *name, const char *text, size_t bytes, gidd_gemm_record *record);

/* The file: *text_p is to be freed. GIDD_ERR_MISSING: there is none; GIDD_ERR_IO. Local. */
gidd_status gidd_gemm_record_read(const char *path, char **text_p, size_t *bytes_p);

/* Replaces the file by rename, synced. GIDD_ERR_OUTPUT, GIDD_ERR_IO. Local. */
gidd_status gidd_gemm_record_write(const char *path, const char *text);

#endif
