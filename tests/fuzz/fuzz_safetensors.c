/* SPDX-License-Identifier: Apache-2.0
 *
 * A .safetensors file. One that is accepted covers its data once, in order, and every tensor can be read to its end,
 * or is refused for its type.
 */
#include "fuzz/fuzz.h"

#include "io/safetensors.h"

static void read_all(gidd_safetensors *file, const gidd_safetensors_tensor *tensor)
{
    float values[64];
    for (int64_t first = 0; first < tensor->count && first < 4096; first += 64) {
        int64_t     count = tensor->count - first < 64 ? tensor->count - first : 64;
        gidd_status status = gidd_safetensors_read(file, tensor, first, count, values);
        FUZZ_CHECK(status == (tensor->dtype == GIDD_SAFETENSORS_OTHER ? GIDD_ERR_CORRUPT : GIDD_OK));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gidd_safetensors *file = NULL;
    if (gidd_safetensors_open_memory("input", data, size, &file) == GIDD_OK) {
        int64_t reached = 0;
        for (int64_t i = 0; i < gidd_safetensors_count(file); i++) {
            const gidd_safetensors_tensor *tensor = gidd_safetensors_at(file, i);
            FUZZ_CHECK(tensor->first == reached && tensor->end >= tensor->first);
            FUZZ_CHECK(gidd_safetensors_find(file, tensor->name) == tensor);
            reached = tensor->end;
            read_all(file, tensor);
        }
        FUZZ_CHECK((size_t)reached < size);
        (void)gidd_safetensors_metadata(file, "format");
        gidd_safetensors_close(file);
    }
    return 0;
}
