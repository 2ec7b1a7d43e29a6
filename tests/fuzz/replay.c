/* SPDX-License-Identifier: Apache-2.0
 *
 * replay FOLDER...: gives every file of the folders to the target, and the empty input. Says how many.
 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <string.h>

static void replay_file(const char *folder, const char *name)
{
    char     path[2048];
    uint8_t *data = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    FUZZ_CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    long size = ftell(file);
    FUZZ_CHECK(size >= 0 && fseek(file, 0, SEEK_SET) == 0);
    data = malloc(size > 0 ? (size_t)size : 1); // no byte more: a sanitizer sees a target read beyond
    FUZZ_CHECK(data != NULL && fread(data, 1, (size_t)size, file) == (size_t)size);
    (void)fclose(file);
    (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
}

int main(int argc, char **argv)
{
    int count = 0;
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        DIR           *list = opendir(argv[i]);
        struct dirent *entry = NULL;
        FUZZ_CHECK(list != NULL);
        while ((entry = readdir(list)) != NULL) {
            if (entry->d_name[0] != '.') {
                replay_file(argv[i], entry->d_name);
                count++;
            }
        }
        (void)closedir(list);
    }
    printf("%d inputs\n", count);
    return count > 0 ? 0 : 1;
}
