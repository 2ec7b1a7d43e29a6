/* SPDX-License-Identifier: Apache-2.0
 *
 * Whichever allocation is refused, a good text is never called damaged, nor loses a part. The linker
 * sends base/json's malloc here (--wrap).
 */
#include "base/json.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);

static int left = -1; // allocations until one is refused; -1: none is

void *__wrap_malloc(size_t bytes)
{
    return left >= 0 && left-- == 0 ? NULL : __real_malloc(bytes);
}

// No token of more than 14 bytes: where its buffer for one cannot grow, jansson ends the process.
static const char text[] = "{\"list\": [1, 2.5, true, null, {}], \"one more\": {\"name\": \"text\"}}";

static gidd_status parse(const char *from, int by_file, json_error_t *error, json_t **root_p)
{
    if (!by_file) {
        return gidd_json_parse(from, strlen(from), JSON_REJECT_DUPLICATES, error, root_p);
    }
    FILE *file = tmpfile();
    cr_assert(file != NULL && fputs(from, file) >= 0 && fflush(file) == 0);
    rewind(file);
    gidd_status status = gidd_json_parse_file(file, JSON_REJECT_DUPLICATES, error, root_p);
    (void)fclose(file);
    return status;
}

Test(json, every_refused_allocation_is_told)
{
    for (int by_file = 0; by_file < 2; by_file++) {
        json_t *whole = NULL;
        json_error_t error;
        cr_assert_eq(parse(text, by_file, &error, &whole), GIDD_OK);
        int refused = 0;
        for (int complete = 0; !complete; refused += !complete) {
            json_t *root = NULL;
            left = refused;
            gidd_status status = parse(text, by_file, &error, &root);
            complete = left >= 0;
            left = -1;
            cr_assert_eq(status, complete ? GIDD_OK : GIDD_ERR_NOMEM, "allocation %d: status %d", refused, (int)status);
            cr_assert_eq(json_equal(root, whole), complete);
            json_decref(root);
        }
        cr_assert_gt(refused, 10, "only %d allocations were refused", refused);
        json_decref(whole);
    }
}

Test(json, damage_is_the_callers_to_tell)
{
    for (int by_file = 0; by_file < 2; by_file++) {
        json_error_t error;
        json_t *root = NULL;
        cr_assert_eq(parse("{\"a\": 1,\n \"a\": 2}", by_file, &error, &root), GIDD_OK);
        cr_assert(root == NULL && error.line == 2 && strlen(error.text) > 0);
    }
}
