/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/left_out.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void name_file(const char *run_dir, char path[2048])
{
    (void)snprintf(path, 2048, "%s/left_out.txt", run_dir);
}

static gidd_status read_lines(gidd_left_out *list, FILE *file, const char *path)
{
    char line[64];
    for (int number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        char   *end = NULL;
        int64_t step = strtoll(line, &end, 10);
        if (end == line || *end != '\n' || step < 0 || list->count == GIDD_LEFT_OUT_MAX) {
            return gidd_fail(GIDD_ERR_CORRUPT, "%s:%d: expected a step number on a line of its own, at most %d of them", path,
                             number, GIDD_LEFT_OUT_MAX);
        }
        list->steps[list->count++] = step;
    }
    return ferror(file) ? gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno)) : GIDD_OK;
}

gidd_status gidd_left_out_read(gidd_left_out *list, const char *run_dir)
{
    char path[2048];
    *list = (gidd_left_out){0};
    name_file(run_dir, path);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return errno == ENOENT ? GIDD_OK : gidd_fail(GIDD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    list->steps = malloc(GIDD_LEFT_OUT_MAX * sizeof *list->steps);
    gidd_status status = list->steps != NULL ? read_lines(list, file, path)
                                             : gidd_fail(GIDD_ERR_NOMEM, "no memory for %s", path);
    (void)fclose(file);
    return status;
}

void gidd_left_out_release(gidd_left_out *list)
{
    free(list->steps);
    *list = (gidd_left_out){0};
}

int gidd_left_out_has(const gidd_left_out *list, int64_t step)
{
    for (int64_t i = 0; i < list->count; i++) {
        if (list->steps[i] == step) {
            return 1;
        }
    }
    return 0;
}

gidd_status gidd_left_out_add(const char *run_dir, int64_t step)
{
    char path[2048];
    name_file(run_dir, path);
    FILE *file = fopen(path, "ae");
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    int bad = fprintf(file, "%" PRId64 "\n", step) < 0;
    bad |= fflush(file) != 0 || fsync(fileno(file)) != 0;
    bad |= fclose(file) != 0;
    return bad ? gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", path, strerror(errno)) : GIDD_OK;
}
