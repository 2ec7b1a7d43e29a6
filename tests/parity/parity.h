/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-parity: compares this program with files of numbers from an independent implementation.
 *
 * A section is a function that reads some datasets of the file, computes the same quantities and
 * reports each comparison with its tolerance. It returns a status only for what is no comparison:
 * unreadable data, a device that failed. Whatever it reads, allocates or puts on the device lives
 * until the section ends and is freed by the driver.
 *
 * Everything here is Local.
 */
#ifndef GIDD_TESTS_PARITY_PARITY_H
#define GIDD_TESTS_PARITY_PARITY_H

#include "diffusion/schedule.h"
#include "kernels/kernels.h"

#include <stddef.h>
#include <stdint.h>

/* /config of the file. */
typedef struct parity_config {
    int64_t V, Vr, D, C, L, H, T, B;
    int64_t seed;
    int32_t bos, eos, pad, mask;
    double p_uniform, t_eps, min_weight, max_weight;
} parity_config;

typedef struct parity_block parity_block; /* memory of a section */

typedef struct parity {
    const char *path;
    int64_t file; /* HDF5's handle */
    parity_config config;
    gidd_device *device; /* NULL until a section asks (parity_device) */
    const char *device_name;
    gidd_dtype precision;
    int verbose; /* print every check, not only those that fail */
    const char *model; /* parameters come from this published model; NULL: from the file */

    /* of the section under way */
    const char *section;
    parity_block *blocks;
    int64_t checks, failures;
    double worst; /* largest error / tolerance */
    char worst_text[160];
} parity;

/* ------------------------------------------------------------------ reading */

enum { PARITY_MAX_RANK = 4 };

typedef struct parity_shape {
    int rank;
    int64_t count; /* elements in all */
    int64_t dims[PARITY_MAX_RANK];
} parity_shape;

/* A path of the file, formatted; lives until the section ends. */
const char *parity_path(parity *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether the object exists. */
int parity_has(const parity *p, const char *path);

/* A dataset as float, double or int32, whatever its type in the file. *shape may be NULL. CORRUPT:
 * it is not there or cannot be read; the text names it. */
gidd_status parity_read_f32(parity *p, const char *path, parity_shape *shape, float **data_p);
gidd_status parity_read_f64(parity *p, const char *path, parity_shape *shape, double **data_p);
gidd_status parity_read_i32(parity *p, const char *path, parity_shape *shape, int32_t **data_p);
gidd_status parity_read_i64(parity *p, const char *path, parity_shape *shape, int64_t **data_p);

/* The same with a demand on the number of elements: CORRUPT where it differs. */
gidd_status parity_need_f32(parity *p, const char *path, int64_t count, float **data_p);
gidd_status parity_need_f64(parity *p, const char *path, int64_t count, double **data_p);
gidd_status parity_need_i32(parity *p, const char *path, int64_t count, int32_t **data_p);

/* A numeric attribute of the object at `path`. */
gidd_status parity_attribute(parity *p, const char *path, const char *name, double *value_p);

/* Names of the members of a group, alphabetically; names[count], owned by the section. */
gidd_status parity_members(parity *p, const char *path, const char ***names_p, int64_t *count_p);

/* ------------------------------------------------------------------ memory and the device */

/* Zeroed memory until the section ends; never NULL. */
void *parity_alloc(parity *p, size_t bytes);

/* The device under test, opened at the first call in a file, with a workspace for the file's shape
 * and B*T rows of logits. ERR_DEVICE, ERR_UNSUPPORTED: not on this machine. */
gidd_status parity_device(parity *p, gidd_device **device_p);

/* Device memory until the section ends: with a copy of `host` (NULL: zeros). */
gidd_status parity_put(parity *p, const void *host, size_t bytes, void **memory_p);
gidd_status parity_get(parity *p, void *host, const void *memory, size_t bytes);

/* The same for `count` activations: float on the host, E (the precision under test) on the device.
 */
gidd_status parity_put_e(parity *p, const float *host, int64_t count, void **memory_p);
gidd_status parity_get_e(parity *p, float *host, const void *memory, int64_t count);

/* A schedule over the file's vocabulary; process, p_uniform and weighting as given. */
gidd_status parity_schedule(parity *p, gidd_process process, double p_uniform,
                            gidd_weighting weighting, gidd_schedule *schedule);

/* ------------------------------------------------------------------ comparing */

/* Records one comparison of the section: fails unless error <= tolerance (so NaN fails). A
 * tolerance of 0 demands equality. `format` names the quantity. */
void parity_check(parity *p, double error, double tolerance, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Largest |got - want|; largest |got - want| / (1 + |want|); ||got - want||_2 / ||want||_2; number
 * of differing integers. NaN or infinity on one side only gives infinity. */
double parity_max_abs(const float *got, const float *want, int64_t count);
double parity_max_rel(const float *got, const float *want, int64_t count);
double parity_rel_l2(const float *got, const float *want, int64_t count);
double parity_mismatches(const int32_t *got, const int32_t *want, int64_t count);

/* fp32's tolerance, or bf16's where that is the precision under test. */
double parity_tolerance(const parity *p, double fp32, double bf16);

/* ------------------------------------------------------------------ sections */

/* X(section, an object that must be in the file for the section to run) */
#define PARITY_SECTIONS(X)                                                                         \
    X(noise, "/noise")                                                                             \
    X(sample_t, "/sample_t")                                                                       \
    X(inputs, "/inputs/uniforms_mdlm")                                                             \
    X(categorical, "/categorical")                                                                 \
    X(lr, "/lr")                                                                                   \
    X(data, "/data")                                                                               \
    X(loss, "/forward/logits_mdlm")                                                                \
    X(sampler, "/sampler")                                                                         \
    X(self_correction, "/self_correction")

/* Those that need the network (section_model.c). */
#define PARITY_MODEL_SECTIONS(X)                                                                   \
    X(forward, "/params")                                                                          \
    X(grads, "/params")                                                                            \
    X(decoder, "/decoder")                                                                         \
    X(train, "/train")                                                                             \
    X(generate, "/sampler/gidd_generate_pu0.1")                                                    \
    X(small1, "/recipe")

#define PARITY_DECLARE(name, needs) gidd_status parity_section_##name(parity *p);
PARITY_SECTIONS(PARITY_DECLARE)
PARITY_MODEL_SECTIONS(PARITY_DECLARE)
#undef PARITY_DECLARE

#endif
