/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <pthread.h>
#include <stdlib.h>

// errno will not do for this: jansson clears it before each number.
static _Thread_local int refused;

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    refused |= memory == NULL;
    return memory;
}

static void install(void)
{
    json_set_alloc_funcs(allocate, free);
}

gidd_status gidd_json_parse(const char *text, size_t bytes, size_t flags, json_error_t *error, json_t **root_p)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, install);
    refused = 0;
    *root_p = json_loadb(text, bytes, flags, error);
    if (refused) { // also with a value: a part of it may be missing
        json_decref(*root_p);
        *root_p = NULL;
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for %zu bytes of JSON", bytes);
    }
    return GIDD_OK;
}
