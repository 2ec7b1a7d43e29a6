/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/blas_cuda.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#define TEXT_OF(number) #number
#define LIBRARY_OF(major) "libcublasLt.so." TEXT_OF(major)
#define LIBRARY LIBRARY_OF(CUBLAS_VER_MAJOR)

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
#define ENTRY(member, function) {#function, offsetof(gidd_blas_cuda, member)},
    GIDD_BLAS_FUNCTIONS(ENTRY)
#undef ENTRY
};

static gidd_status load(gidd_blas_cuda *blas)
{
    blas->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (blas->library == NULL) { // where the toolkit was at build time
        blas->library = dlopen(GIDD_CUDA_LIBRARIES "/" LIBRARY, RTLD_NOW | RTLD_LOCAL);
    }
    if (blas->library == NULL) {
        return gidd_fail(GIDD_ERR_DEVICE, "the cuda device needs %s: %s", LIBRARY, dlerror());
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(blas->library, functions[i].name);
        if (address == NULL) {
            return gidd_fail(GIDD_ERR_DEVICE, "%s has no %s", LIBRARY, functions[i].name);
        }
        memcpy((char *)blas + functions[i].offset, &address, sizeof address);
    }
    return GIDD_OK;
}

gidd_status gidd_blas_init_cuda(gidd_blas_cuda *blas)
{
    GIDD_TRY(load(blas));
    cublasStatus_t created = blas->create(&blas->handle);
    return created == CUBLAS_STATUS_SUCCESS
               ? GIDD_OK
               : gidd_fail(GIDD_ERR_DEVICE, "cublasLtCreate: %s", blas->status_text(created));
}

void gidd_blas_release_cuda(gidd_blas_cuda *blas)
{
    if (blas->handle != NULL) {
        (void)blas->destroy(blas->handle);
    }
    if (blas->library != NULL) {
        (void)dlclose(blas->library);
    }
    memset(blas, 0, sizeof *blas);
}
