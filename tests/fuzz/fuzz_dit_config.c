/* SPDX-License-Identifier: Apache-2.0
 *
 * config.json of a published model. One that is accepted has sizes that products cannot overflow, and written again
 * it reads as itself.
 */
#include "fuzz/fuzz.h"

#include "io/dit_config.h"

#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gidd_dit_config config, again;
    char            path[512];
    if (gidd_dit_config_read(fuzz_file("config.json", data, size), &config) == GIDD_OK) {
        FUZZ_CHECK(config.vocab_size >= 1 && config.vocab_size <= 1 << 24);
        FUZZ_CHECK(config.num_attention_heads >= 1 && config.num_attention_heads <= 1 << 24);
        FUZZ_CHECK(config.p_uniform >= 0.0 && config.p_uniform < 1.0);
        (void)snprintf(path, sizeof path, "%s/again.json", fuzz_folder());
        (void)unlink(path);
        if (config.base_ids > 0 && config.pad[0] != '\0' && config.process[0] != '\0') {
            FUZZ_CHECK(gidd_dit_config_write(path, &config, "float32") == GIDD_OK);
            FUZZ_CHECK(gidd_dit_config_read(path, &again) == GIDD_OK);
            FUZZ_CHECK(memcmp(&config, &again, sizeof config) == 0);
            (void)unlink(path);
        }
    }
    return 0;
}
