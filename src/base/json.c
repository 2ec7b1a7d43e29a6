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

static void begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, install);
    refused = 0;
}

// Whether `root` is all that was there to read: a value too may have lost a part for want of memory.
static int is_whole(json_t *root, json_t **root_p)
{
    if (refused) {
        json_decref(root);
        root = NULL;
    }
    *root_p = root;
    return !refused;
}

gidd_status gidd_json_parse(const char *text, size_t bytes, size_t flags, json_error_t *error, json_t **root_p)
{
    begin();
    return is_whole(json_loadb(text, bytes, flags, error), root_p)
               ? GIDD_OK
               : gidd_fail(GIDD_ERR_NOMEM, "out of memory for %zu bytes of JSON", bytes);
}

gidd_status gidd_json_parse_file(FILE *file, size_t flags, json_error_t *error, json_t **root_p)
{
    begin();
    return is_whole(json_loadf(file, flags, error), root_p) ? GIDD_OK
                                                            : gidd_fail(GIDD_ERR_NOMEM, "out of memory for a file of JSON");
}
