/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/gemm_onednn.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SOURCE, WEIGHTS, BIAS, TARGET, SCRATCH, ROLE_COUNT };

// What distinguishes two primitives. All members are int64_t: no padding, compared as bytes.
typedef struct gemm_key {
    int64_t m, n, k, lda, ldb, ldc, a_order, b_order, in, out, bias, accumulate;
} gemm_key;

typedef struct gemm_entry {
    gemm_key         key;
    dnnl_primitive_t primitive;
    dnnl_memory_t    memory[ROLE_COUNT]; // handles are set at each run; NULL: unused role
} gemm_entry;

struct gidd_gemm {
    gidd_device  *device;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    gemm_entry   *entries;
    int64_t       count, capacity;
    void         *scratch; // one scratchpad for all: products run one after another
    size_t        scratch_bytes;
};

static gidd_status check(dnnl_status_t status, const char *call)
{
    switch (status) {
    case dnnl_success:
        return GIDD_OK;
    case dnnl_unimplemented:
        return gidd_fail(GIDD_ERR_UNSUPPORTED,
                         "onednn has no matrix product of these types on this cpu (%s)", call);
    case dnnl_out_of_memory:
        return gidd_fail(GIDD_ERR_NOMEM, "onednn: no memory (%s)", call);
    default:
        return gidd_fail(GIDD_ERR_DEVICE, "onednn: %s failed with status %d", call, (int)status);
    }
}

#define TRY_DNNL(call) GIDD_TRY(check((call), #call))
#define TRY_DNNL_GOTO(call) GIDD_TRY_GOTO(check((call), #call))

// ---- the two C APIs ----------------------------------------------------------------------------

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t       layout;       // owned
typedef const_dnnl_memory_desc_t layout_query; // borrowed from a primitive descriptor

static dnnl_status_t layout_init(layout *made, const dnnl_dims_t sizes, dnnl_data_type_t type,
                                 const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(made, 2, sizes, type, strides);
}

static void layout_release(layout *made)
{
    if (*made != NULL) {
        (void)dnnl_memory_desc_destroy(*made);
        *made = NULL;
    }
}

static dnnl_status_t append_sum(dnnl_post_ops_t operations)
{
    return dnnl_post_ops_append_sum(operations, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *made, dnnl_engine_t engine,
                                     layout layouts[ROLE_COUNT], int with_bias,
                                     dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(made, engine, layouts[SOURCE], layouts[WEIGHTS],
                                             with_bias ? layouts[BIAS] : NULL, layouts[TARGET],
                                             attributes);
}

static dnnl_status_t create_memory(dnnl_memory_t *made, layout *of, dnnl_engine_t engine)
{
    return dnnl_memory_create(made, *of, engine, DNNL_MEMORY_NONE);
}

#else

typedef dnnl_memory_desc_t        layout;
typedef const dnnl_memory_desc_t *layout_query;

static dnnl_status_t layout_init(layout *made, const dnnl_dims_t sizes, dnnl_data_type_t type,
                                 const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(made, 2, sizes, type, strides);
}

static void layout_release(layout *made)
{
    (void)made; // a plain struct
}

static dnnl_status_t append_sum(dnnl_post_ops_t operations)
{
    return dnnl_post_ops_append_sum(operations, 1.0f);
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *made, dnnl_engine_t engine,
                                     layout layouts[ROLE_COUNT], int with_bias,
                                     dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t operation;
    dnnl_status_t      status =
        dnnl_matmul_desc_init(&operation, &layouts[SOURCE], &layouts[WEIGHTS],
                              with_bias ? &layouts[BIAS] : NULL, &layouts[TARGET]);
    if (status != dnnl_success) {
        return status;
    }
    return dnnl_primitive_desc_create(made, &operation, attributes, engine, NULL);
}

static dnnl_status_t create_memory(dnnl_memory_t *made, layout *of, dnnl_engine_t engine)
{
    return dnnl_memory_create(made, of, engine, DNNL_MEMORY_NONE);
}

#endif

// ---- entries -----------------------------------------------------------------------------------

static dnnl_data_type_t data_type(int64_t dtype)
{
    return dtype == GIDD_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t matrix_layout(layout *made, int64_t rows, int64_t cols, int64_t stride,
                                   int64_t order, int64_t dtype)
{
    dnnl_dims_t sizes = {rows, cols};
    dnnl_dims_t strides = {order == GIDD_ROWS ? stride : 1, order == GIDD_ROWS ? 1 : stride};
    return layout_init(made, sizes, data_type(dtype), strides);
}

static gidd_status create_attributes(const gemm_key *key, dnnl_primitive_attr_t *attributes_p)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t       operations = NULL;
    gidd_status           status = GIDD_OK;
    TRY_DNNL_GOTO(dnnl_primitive_attr_create(&attributes));
    TRY_DNNL_GOTO(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    if (key->accumulate) {
        TRY_DNNL_GOTO(dnnl_post_ops_create(&operations));
        TRY_DNNL_GOTO(append_sum(operations));
        TRY_DNNL_GOTO(dnnl_primitive_attr_set_post_ops(attributes, operations));
    }
    *attributes_p = attributes;
    attributes = NULL;
out:
    if (operations != NULL) {
        (void)dnnl_post_ops_destroy(operations);
    }
    if (attributes != NULL) {
        (void)dnnl_primitive_attr_destroy(attributes);
    }
    return status;
}

static void entry_release(gemm_entry *entry)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (entry->memory[role] != NULL) {
            (void)dnnl_memory_destroy(entry->memory[role]);
        }
    }
    if (entry->primitive != NULL) {
        (void)dnnl_primitive_destroy(entry->primitive);
    }
    memset(entry, 0, sizeof *entry);
}

static gidd_status reserve_scratch(gidd_gemm *gemm, size_t bytes)
{
    if (bytes <= gemm->scratch_bytes) {
        return GIDD_OK;
    }
    void *memory = NULL;
    GIDD_TRY(gidd_device_alloc(gemm->device, bytes, "scratch of matrix products", &memory));
    gidd_device_free(gemm->device, gemm->scratch, gemm->scratch_bytes);
    gemm->scratch = memory;
    gemm->scratch_bytes = bytes;
    return GIDD_OK;
}

static gidd_status create_memories(gidd_gemm *gemm, gemm_entry *entry, layout layouts[ROLE_COUNT],
                                   const_dnnl_primitive_desc_t descriptor)
{
    for (int role = SOURCE; role <= TARGET; role++) {
        if (role != BIAS || entry->key.bias) {
            TRY_DNNL(create_memory(&entry->memory[role], &layouts[role], gemm->engine));
        }
    }
    layout_query scratch = dnnl_primitive_desc_query_md(descriptor, dnnl_query_scratchpad_md, 0);
    size_t       bytes = scratch != NULL ? dnnl_memory_desc_get_size(scratch) : 0;
    if (bytes > 0) {
        TRY_DNNL(
            dnnl_memory_create(&entry->memory[SCRATCH], scratch, gemm->engine, DNNL_MEMORY_NONE));
        GIDD_TRY(reserve_scratch(gemm, bytes));
    }
    return GIDD_OK;
}

static gidd_status entry_init(gidd_gemm *gemm, gemm_entry *entry, const gemm_key *key)
{
    layout                layouts[ROLE_COUNT] = {0};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t descriptor = NULL;
    gidd_status           status = GIDD_OK;
    memset(entry, 0, sizeof *entry);
    entry->key = *key;
    TRY_DNNL_GOTO(matrix_layout(&layouts[SOURCE], key->m, key->k, key->lda, key->a_order, key->in));
    TRY_DNNL_GOTO(
        matrix_layout(&layouts[WEIGHTS], key->k, key->n, key->ldb, key->b_order, key->in));
    TRY_DNNL_GOTO(matrix_layout(&layouts[BIAS], 1, key->n, key->n, GIDD_ROWS, key->in));
    TRY_DNNL_GOTO(matrix_layout(&layouts[TARGET], key->m, key->n, key->ldc, GIDD_ROWS, key->out));
    GIDD_TRY_GOTO(create_attributes(key, &attributes));
    TRY_DNNL_GOTO(describe_matmul(&descriptor, gemm->engine, layouts, key->bias != 0, attributes));
    TRY_DNNL_GOTO(dnnl_primitive_create(&entry->primitive, descriptor));
    GIDD_TRY_GOTO(create_memories(gemm, entry, layouts, descriptor));
out:
    if (descriptor != NULL) {
        (void)dnnl_primitive_desc_destroy(descriptor);
    }
    if (attributes != NULL) {
        (void)dnnl_primitive_attr_destroy(attributes);
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        layout_release(&layouts[role]);
    }
    if (status != GIDD_OK) {
        entry_release(entry);
    }
    return status;
}

static gidd_status find_entry(gidd_gemm *gemm, const gemm_key *key, gemm_entry **entry_p)
{
    for (int64_t i = 0; i < gemm->count; i++) {
        if (memcmp(&gemm->entries[i].key, key, sizeof *key) == 0) {
            *entry_p = &gemm->entries[i];
            return GIDD_OK;
        }
    }
    if (gemm->count == gemm->capacity) {
        int64_t     capacity = gemm->capacity > 0 ? 2 * gemm->capacity : 64;
        gemm_entry *entries = realloc(gemm->entries, (size_t)capacity * sizeof *entries);
        if (entries == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld shapes of matrix products",
                             (long long)capacity);
        }
        gemm->entries = entries;
        gemm->capacity = capacity;
    }
    GIDD_TRY(entry_init(gemm, &gemm->entries[gemm->count], key));
    gemm->device->allocation_count++;
    *entry_p = &gemm->entries[gemm->count++];
    return GIDD_OK;
}

// ---- public ------------------------------------------------------------------------------------

gidd_status gidd_gemm_create(gidd_device *device, gidd_gemm **gemm_p)
{
    gidd_gemm *gemm = calloc(1, sizeof *gemm);
    if (gemm == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for matrix products");
    }
    gidd_status status = GIDD_OK;
    gemm->device = device;
    TRY_DNNL_GOTO(dnnl_engine_create(&gemm->engine, dnnl_cpu, 0));
    TRY_DNNL_GOTO(dnnl_stream_create(&gemm->stream, gemm->engine, dnnl_stream_default_flags));
    *gemm_p = gemm;
    gemm = NULL;
out:
    gidd_gemm_destroy(gemm);
    return status;
}

void gidd_gemm_destroy(gidd_gemm *gemm)
{
    if (gemm == NULL) {
        return;
    }
    for (int64_t i = 0; i < gemm->count; i++) {
        entry_release(&gemm->entries[i]);
    }
    free(gemm->entries);
    gidd_device_free(gemm->device, gemm->scratch, gemm->scratch_bytes);
    if (gemm->stream != NULL) {
        (void)dnnl_stream_destroy(gemm->stream);
    }
    if (gemm->engine != NULL) {
        (void)dnnl_engine_destroy(gemm->engine);
    }
    free(gemm);
}

// oneDNN takes void * for what it only reads.
static void *without_const(const void *pointer)
{
    union {
        const void *given;
        void       *taken;
    } both = {.given = pointer};
    return both.taken;
}

static gidd_status execute(gidd_gemm *gemm, gemm_entry *entry, const gidd_gemm_args *args)
{
    static const int names[ROLE_COUNT] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS,
                                          DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    void            *handles[ROLE_COUNT] = {without_const(args->a), without_const(args->b),
                                            without_const(args->bias), args->c, gemm->scratch};
    dnnl_exec_arg_t  given[ROLE_COUNT];
    int              count = 0;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (entry->memory[role] != NULL) {
            TRY_DNNL(dnnl_memory_set_data_handle(entry->memory[role], handles[role]));
            given[count].arg = names[role];
            given[count].memory = entry->memory[role];
            count++;
        }
    }
    TRY_DNNL(dnnl_primitive_execute(entry->primitive, gemm->stream, count, given));
    TRY_DNNL(dnnl_stream_wait(gemm->stream));
    return GIDD_OK;
}

gidd_status gidd_gemm_run(gidd_gemm *gemm, const gidd_gemm_args *args)
{
    gemm_key key = {
        .m = args->m,
        .n = args->n,
        .k = args->k,
        .lda = args->lda,
        .ldb = args->ldb,
        .ldc = args->ldc,
        .a_order = (int64_t)args->a_order,
        .b_order = (int64_t)args->b_order,
        .in = (int64_t)args->in,
        .out = (int64_t)args->out,
        .bias = args->bias != NULL,
        .accumulate = args->accumulate != 0,
    };
    // oneDNN takes its number of threads from OpenMP, when a primitive is built and when it runs
    int before = omp_get_max_threads();
    omp_set_num_threads(gemm->device->threads);
    gemm_entry *entry = NULL;
    gidd_status status = find_entry(gemm, &key, &entry);
    if (status == GIDD_OK) {
        status = execute(gemm, entry, args);
    }
    omp_set_num_threads(before);
    return status;
}

void gidd_gemm_describe(const gidd_gemm *gemm, char *text, size_t size)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        const char    *name;
    } known[] = {
        {dnnl_cpu_isa_sse41, "sse41"},
        {dnnl_cpu_isa_avx, "avx"},
        {dnnl_cpu_isa_avx2, "avx2"},
        {dnnl_cpu_isa_avx512_core, "avx512_core"},
        {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
        {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
        {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"},
    };
    const dnnl_version_t *version = dnnl_version();
    dnnl_cpu_isa_t        isa = dnnl_get_effective_cpu_isa();
    char                  other[24];
    (void)snprintf(other, sizeof other, "isa %#x", (unsigned)isa);
    const char *name = other;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        name = known[i].isa == isa ? known[i].name : name;
    }
    (void)gemm;
    (void)snprintf(text, size, "%s, onednn %d.%d.%d", name, version->major, version->minor,
                   version->patch);
}
