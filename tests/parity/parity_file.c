/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a vectors file, and the memory of a section.
 */
#include "parity/parity_driver.h"

#include <hdf5.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parity_block {
    parity_block *next;
    gidd_device *device; /* NULL: host memory */
    void *memory;
    size_t bytes;
};

static void keep(parity *p, gidd_device *device, void *memory, size_t bytes)
{
    parity_block *block = malloc(sizeof *block);
    GIDD_ASSERT(block != NULL);
    *block = (parity_block){.next = p->blocks, .device = device, .memory = memory, .bytes = bytes};
    p->blocks = block;
}

void parity_release_blocks(parity *p)
{
    while (p->blocks != NULL) {
        parity_block *block = p->blocks;
        p->blocks = block->next;
        if (block->device != NULL) {
            gidd_device_free(block->device, block->memory, block->bytes);
        } else {
            free(block->memory);
        }
        free(block);
    }
}

void *parity_alloc(parity *p, size_t bytes)
{
    size_t rounded = (bytes + 63) / 64 * 64 + 64;
    void *memory = aligned_alloc(64, rounded);
    GIDD_ASSERT(memory != NULL);
    memset(memory, 0, rounded);
    keep(p, NULL, memory, rounded);
    return memory;
}

const char *parity_path(parity *p, const char *format, ...)
{
    enum { PATH_SIZE = 256 };
    char *text = parity_alloc(p, PATH_SIZE);
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, PATH_SIZE, format, args);
    va_end(args);
    GIDD_ASSERT(length >= 0 && length < PATH_SIZE);
    return text;
}

/* ------------------------------------------------------------------ datasets */

int parity_has(const parity *p, const char *path)
{
    // H5Lexists wants every link on the way to be there.
    char prefix[256];
    for (const char *end = strchr(path + 1, '/');; end = strchr(end + 1, '/')) {
        size_t length = end != NULL ? (size_t)(end - path) : strlen(path);
        if (length >= sizeof prefix) {
            return 0;
        }
        memcpy(prefix, path, length);
        prefix[length] = '\0';
        if (H5Lexists(p->file, prefix, H5P_DEFAULT) <= 0) {
            return 0;
        }
        if (end == NULL) {
            return 1;
        }
    }
}

static gidd_status unreadable(const parity *p, const char *path, const char *why)
{
    return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s %s", p->path, path, why);
}

static int read_shape(hid_t dataset, parity_shape *shape)
{
    hsize_t dims[PARITY_MAX_RANK];
    hid_t space = H5Dget_space(dataset);
    int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    if (rank < 0 || rank > PARITY_MAX_RANK || H5Sget_simple_extent_dims(space, dims, NULL) < 0) {
        rank = -1;
    }
    *shape = (parity_shape){.rank = rank, .count = 1};
    for (int i = 0; i < rank; i++) {
        shape->dims[i] = (int64_t)dims[i];
        shape->count *= shape->dims[i];
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return rank >= 0;
}

static gidd_status read_dataset(parity *p, const char *path, hid_t type, size_t element_bytes,
                                parity_shape *shape, void **data_p)
{
    parity_shape here;
    if (!parity_has(p, path)) {
        return unreadable(p, path, "is not there");
    }
    hid_t dataset = H5Dopen2(p->file, path, H5P_DEFAULT);
    if (dataset < 0) {
        return unreadable(p, path, "is no dataset");
    }
    herr_t code = -1;
    if (read_shape(dataset, &here)) {
        *data_p = parity_alloc(p, (size_t)here.count * element_bytes);
        code = H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *data_p);
    }
    (void)H5Dclose(dataset);
    if (code < 0) {
        return unreadable(p, path, "cannot be read");
    }
    if (shape != NULL) {
        *shape = here;
    }
    return GIDD_OK;
}

gidd_status parity_read_f32(parity *p, const char *path, parity_shape *shape, float **data_p)
{
    void *data = NULL;
    GIDD_TRY(read_dataset(p, path, H5T_NATIVE_FLOAT, sizeof **data_p, shape, &data));
    *data_p = data;
    return GIDD_OK;
}

gidd_status parity_read_f64(parity *p, const char *path, parity_shape *shape, double **data_p)
{
    void *data = NULL;
    GIDD_TRY(read_dataset(p, path, H5T_NATIVE_DOUBLE, sizeof **data_p, shape, &data));
    *data_p = data;
    return GIDD_OK;
}

gidd_status parity_read_i32(parity *p, const char *path, parity_shape *shape, int32_t **data_p)
{
    void *data = NULL;
    GIDD_TRY(read_dataset(p, path, H5T_NATIVE_INT32, sizeof **data_p, shape, &data));
    *data_p = data;
    return GIDD_OK;
}

gidd_status parity_read_i64(parity *p, const char *path, parity_shape *shape, int64_t **data_p)
{
    void *data = NULL;
    GIDD_TRY(read_dataset(p, path, H5T_NATIVE_INT64, sizeof **data_p, shape, &data));
    *data_p = data;
    return GIDD_OK;
}

static gidd_status check_count(const parity *p, const char *path, int64_t count, int64_t want)
{
    if (count != want) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s has %lld elements, not %lld", p->path, path,
                         (long long)count, (long long)want);
    }
    return GIDD_OK;
}

gidd_status parity_need_f32(parity *p, const char *path, int64_t count, float **data_p)
{
    parity_shape shape;
    GIDD_TRY(parity_read_f32(p, path, &shape, data_p));
    return check_count(p, path, shape.count, count);
}

gidd_status parity_need_f64(parity *p, const char *path, int64_t count, double **data_p)
{
    parity_shape shape;
    GIDD_TRY(parity_read_f64(p, path, &shape, data_p));
    return check_count(p, path, shape.count, count);
}

gidd_status parity_need_i32(parity *p, const char *path, int64_t count, int32_t **data_p)
{
    parity_shape shape;
    GIDD_TRY(parity_read_i32(p, path, &shape, data_p));
    return check_count(p, path, shape.count, count);
}

gidd_status parity_attribute(parity *p, const char *path, const char *name, double *value_p)
{
    if (!parity_has(p, path)) {
        return unreadable(p, path, "is not there");
    }
    hid_t attribute = H5Aopen_by_name(p->file, path, name, H5P_DEFAULT, H5P_DEFAULT);
    herr_t code = attribute >= 0 ? H5Aread(attribute, H5T_NATIVE_DOUBLE, value_p) : -1;
    if (attribute >= 0) {
        (void)H5Aclose(attribute);
    }
    if (code < 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: %s has no number called %s", p->path, path, name);
    }
    return GIDD_OK;
}

gidd_status parity_members(parity *p, const char *path, const char ***names_p, int64_t *count_p)
{
    H5G_info_t info;
    if (!parity_has(p, path) || H5Gget_info_by_name(p->file, path, &info, H5P_DEFAULT) < 0) {
        return unreadable(p, path, "is no group");
    }
    const char **names = parity_alloc(p, (size_t)info.nlinks * sizeof *names);
    for (hsize_t i = 0; i < info.nlinks; i++) {
        char name[256];
        ssize_t length = H5Lget_name_by_idx(p->file, path, H5_INDEX_NAME, H5_ITER_INC, i, name,
                                            sizeof name, H5P_DEFAULT);
        if (length < 0 || length >= (ssize_t)sizeof name) {
            return unreadable(p, path, "cannot be listed");
        }
        names[i] = parity_path(p, "%s", name);
    }
    *names_p = names;
    *count_p = (int64_t)info.nlinks;
    return GIDD_OK;
}

/* ------------------------------------------------------------------ the file */

static gidd_status read_config(parity *p)
{
    const struct {
        const char *name;
        int64_t *value_p;
    } integers[] = {
        {"vocab_size", &p->config.V},  {"rounded_vocab", &p->config.Vr},
        {"hidden_size", &p->config.D}, {"cond_dim", &p->config.C},
        {"n_blocks", &p->config.L},    {"n_heads", &p->config.H},
        {"max_seq_len", &p->config.T}, {"batch", &p->config.B},
        {"seed", &p->config.seed},
    };
    const struct {
        const char *name;
        int32_t *value_p;
    } ids[] = {{"bos_id", &p->config.bos},
               {"eos_id", &p->config.eos},
               {"pad_id", &p->config.pad},
               {"mask_id", &p->config.mask}};
    double value;
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        GIDD_TRY(parity_attribute(p, "/config", integers[i].name, &value));
        *integers[i].value_p = (int64_t)value;
    }
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        GIDD_TRY(parity_attribute(p, "/config", ids[i].name, &value));
        *ids[i].value_p = (int32_t)value;
    }
    GIDD_TRY(parity_attribute(p, "/config", "p_uniform", &p->config.p_uniform));
    GIDD_TRY(parity_attribute(p, "/config", "t_eps", &p->config.t_eps));
    GIDD_TRY(parity_attribute(p, "/config", "min_loss_weight", &p->config.min_weight));
    return parity_attribute(p, "/config", "max_loss_weight", &p->config.max_weight);
}

gidd_status parity_open(parity *p, const char *path)
{
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL); // our own messages say it
    p->path = path;
    p->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (p->file < 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s: cannot be opened as an HDF5 file", path);
    }
    return read_config(p);
}

void parity_close(parity *p)
{
    gidd_device_close(p->device);
    p->device = NULL;
    if (p->file >= 0) {
        (void)H5Fclose(p->file);
        p->file = -1;
    }
}

/* ------------------------------------------------------------------ the device */

gidd_status parity_device(parity *p, gidd_device **device_p)
{
    if (p->device == NULL) {
        const parity_config *c = &p->config;
        gidd_device_limits limits = {c->B, c->T, c->D, c->H, c->L, c->C, c->Vr, c->B * c->T};
        GIDD_TRY(gidd_device_open(
            &(gidd_device_args){.name = p->device_name, .dtype = p->precision}, &p->device));
        GIDD_TRY(gidd_device_reserve(p->device, &limits));
    }
    *device_p = p->device;
    return GIDD_OK;
}

gidd_status parity_put(parity *p, const void *host, size_t bytes, void **memory_p)
{
    gidd_device *device;
    GIDD_TRY(parity_device(p, &device));
    GIDD_TRY(gidd_device_alloc(device, bytes, "a parity array", memory_p));
    keep(p, device, *memory_p, bytes);
    return host != NULL ? gidd_device_copy_in(device, *memory_p, host, bytes)
                        : gidd_device_zero(device, *memory_p, bytes);
}

gidd_status parity_get(parity *p, void *host, const void *memory, size_t bytes)
{
    gidd_device *device;
    GIDD_TRY(parity_device(p, &device));
    return gidd_device_copy_out(device, host, memory, bytes);
}

// Round to nearest, ties to even; NaN does not occur in the files.
static uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

gidd_status parity_put_e(parity *p, const float *host, int64_t count, void **memory_p)
{
    if (p->precision == GIDD_F32) {
        return parity_put(p, host, (size_t)count * sizeof *host, memory_p);
    }
    uint16_t *narrow = parity_alloc(p, (size_t)count * sizeof *narrow);
    for (int64_t i = 0; i < count; i++) {
        narrow[i] = to_bf16(host[i]);
    }
    return parity_put(p, narrow, (size_t)count * sizeof *narrow, memory_p);
}

gidd_status parity_get_e(parity *p, float *host, const void *memory, int64_t count)
{
    if (p->precision == GIDD_F32) {
        return parity_get(p, host, memory, (size_t)count * sizeof *host);
    }
    uint16_t *narrow = parity_alloc(p, (size_t)count * sizeof *narrow);
    GIDD_TRY(parity_get(p, narrow, memory, (size_t)count * sizeof *narrow));
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)narrow[i] << 16;
        memcpy(&host[i], &bits, sizeof bits);
    }
    return GIDD_OK;
}

gidd_status parity_schedule(parity *p, gidd_process process, double p_uniform,
                            gidd_weighting weighting, gidd_schedule *schedule)
{
    return gidd_schedule_init(schedule, &(gidd_schedule_args){.process = process,
                                                              .weighting = weighting,
                                                              .p_uniform = p_uniform,
                                                              .t_eps = p->config.t_eps,
                                                              .min_weight = p->config.min_weight,
                                                              .max_weight = p->config.max_weight,
                                                              .vocab_size = p->config.V,
                                                              .mask_id = p->config.mask});
}
