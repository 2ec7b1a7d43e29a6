/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/nccl_api.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#define LIBRARY "libnccl.so.2"

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
    {"ncclGetErrorString", offsetof(gidd_nccl, get_error_string)},
#define ENTRY(member, function, arguments) {#function, offsetof(gidd_nccl, member)},
    GIDD_NCCL_FUNCTIONS(ENTRY)
#undef ENTRY
};

gidd_status gidd_nccl_load(gidd_nccl *nccl)
{
    memset(nccl, 0, sizeof *nccl);
    nccl->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (nccl->library == NULL) {
        return gidd_fail(GIDD_ERR_DEVICE, "comm.backend=nccl needs %s: %s (comm.backend=mpi does without)", LIBRARY,
                         dlerror());
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(nccl->library, functions[i].name);
        if (address == NULL) {
            return gidd_fail(GIDD_ERR_DEVICE, "%s has no %s", LIBRARY, functions[i].name);
        }
        memcpy((char *)nccl + functions[i].offset, &address, sizeof address);
    }
    return GIDD_OK;
}
