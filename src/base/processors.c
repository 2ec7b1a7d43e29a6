/* SPDX-License-Identifier: Apache-2.0 */
#include "base/processors.h"

#include <sched.h>
#include <stdlib.h>

int gidd_processors_share(int64_t asked, int ranks)
{
    const char *words = getenv("OMP_NUM_THREADS");
    cpu_set_t   set;
    if (asked > 0) {
        return (int)asked;
    }
    if (words != NULL && atoi(words) > 0) {
        return atoi(words);
    }
    int processors = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int share = processors / (ranks > 0 ? ranks : 1);
    return share > 0 ? share : 1;
}
