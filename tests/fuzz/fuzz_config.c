/* SPDX-License-Identifier: Apache-2.0
 *
 * A YAML configuration. One that is accepted survives being written and read again, to the byte.
 */
#include "fuzz/fuzz.h"

#include "base/config.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static gidd_config first, second;
    char              *text = NULL, *again = NULL;
    gidd_config_init(&first);
    gidd_config_init(&second);
    if (gidd_config_parse(&first, "fuzz.yaml", (const char *)data, size) != GIDD_OK) {
        FUZZ_CHECK(strncmp(gidd_error_last()->text, "fuzz.yaml", 9) == 0); // every refusal says where
        return 0;
    }
    (void)!gidd_config_check(&first);
    FUZZ_CHECK(gidd_config_format(&first, &text) == GIDD_OK);
    FUZZ_CHECK(gidd_config_parse(&second, "again", text, strlen(text)) == GIDD_OK);
    FUZZ_CHECK(gidd_config_format(&second, &again) == GIDD_OK);
    FUZZ_CHECK(strcmp(text, again) == 0);
    free(text);
    free(again);
    return 0;
}
