/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#include "base/fault_points.inl"
#include "base/log.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum fault_kind { FAULT_NONE = 0, FAULT_KILL, FAULT_STOP, FAULT_SLEEP, FAULT_EXIT, FAULT_SLOW, FAULT_NAN, FAULT_FLIP } fault_kind;

// Armed once before any thread starts and then only read; the step and the count change.
static struct {
    atomic_int      kind;
    char            point[64];
    int64_t         step; /* -1: any */
    _Atomic int64_t left; /* strikes at the left-th passage */
    _Atomic int64_t now;
} armed = {.step = -1};

static int is_known(const char *point)
{
#define SAME_NAME(name, group, where, meaning) || strcmp(point, #name) == 0
    return 0 GIDD_FAULT_POINTS(SAME_NAME);
#undef SAME_NAME
}

static gidd_status parse_field(const char *text, int rank, int *applies)
{
    const char *equals = strchr(text, '=');
    size_t      length = equals != NULL ? (size_t)(equals - text) : 0;
    if (length == 4 && strncmp(text, "rank", 4) == 0) {
        *applies = strcmp(equals + 1, "any") == 0 || atoi(equals + 1) == rank;
    } else if (length == 5 && strncmp(text, "point", 5) == 0) {
        size_t bytes = strlen(equals + 1);
        bytes = bytes < sizeof armed.point ? bytes : sizeof armed.point - 1;
        memcpy(armed.point, equals + 1, bytes);
        armed.point[bytes] = '\0';
    } else if (length == 4 && strncmp(text, "step", 4) == 0) {
        armed.step = atoll(equals + 1);
    } else if (length == 5 && strncmp(text, "count", 5) == 0) {
        atomic_store(&armed.left, atoll(equals + 1));
    } else {
        return gidd_fail(GIDD_ERR_USAGE, "GIDD_FAULT: unknown field '%.60s'", text);
    }
    return GIDD_OK;
}

static gidd_status parse_fault(char *text, int rank)
{
    static const struct {
        const char *name;
        fault_kind  kind;
    } kinds[] = {{"kill", FAULT_KILL}, {"stop", FAULT_STOP}, {"sleep", FAULT_SLEEP}, {"exit", FAULT_EXIT},
                 {"slow", FAULT_SLOW}, {"nan", FAULT_NAN},   {"flip", FAULT_FLIP}};
    char      *save = NULL;
    char      *word = strtok_r(text, ":,", &save);
    fault_kind kind = FAULT_NONE;
    int        applies = 1;
    for (size_t i = 0; word != NULL && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(word, kinds[i].name) == 0) {
            kind = kinds[i].kind;
        }
    }
    if (kind == FAULT_NONE) {
        return gidd_fail(GIDD_ERR_USAGE, "GIDD_FAULT: unknown kind '%.60s'; kinds are kill, stop, sleep, exit, slow, nan, flip",
                         word != NULL ? word : "");
    }
    while ((word = strtok_r(NULL, ",", &save)) != NULL) {
        GIDD_TRY(parse_field(word, rank, &applies));
    }
    if (armed.point[0] == '\0') {
        return gidd_fail(GIDD_ERR_USAGE, "GIDD_FAULT: point=NAME is missing");
    }
    if (!is_known(armed.point)) {
        return gidd_fail(GIDD_ERR_USAGE, "GIDD_FAULT: no point is called '%s'; src/base/fault_points.inl lists them",
                         armed.point);
    }
    atomic_store(&armed.kind, applies ? (int)kind : (int)FAULT_NONE);
    return GIDD_OK;
}

gidd_status gidd_fault_init(int rank)
{
    const char *value = getenv("GIDD_FAULT");
    if (value == NULL || value[0] == '\0') {
        return GIDD_OK;
    }
#ifdef GIDD_FAULTS
    char text[256];
    if (strlen(value) >= sizeof text) {
        return gidd_fail(GIDD_ERR_USAGE, "GIDD_FAULT: longer than %zu bytes", sizeof text - 1);
    }
    strcpy(text, value);
    atomic_store(&armed.left, 1);
    armed.point[0] = '\0';
    armed.step = -1;
    GIDD_TRY(parse_fault(text, rank));
    if (atomic_load(&armed.kind) != FAULT_NONE) {
        gidd_log(GIDD_LOG_WARN, "fault", "armed: %s", value);
    }
    return GIDD_OK;
#else
    (void)rank;
    (void)parse_fault;
    return gidd_fail(GIDD_ERR_USAGE, "GIDD_FAULT is set, but this build has GIDD_FAULTS=OFF");
#endif
}

void gidd_fault_set_step(int64_t step)
{
    atomic_store(&armed.now, step);
}

static int strikes(const char *name, int64_t step)
{
    if (armed.step >= 0 && step != armed.step) {
        return 0;
    }
    return strcmp(name, armed.point) == 0 && atomic_fetch_sub(&armed.left, 1) == 1;
}

void gidd_fault_point(const char *name)
{
    gidd_fault_point_of(atomic_load_explicit(&armed.now, memory_order_relaxed), name);
}

void gidd_fault_point_of(int64_t step, const char *name)
{
    int kind = atomic_load_explicit(&armed.kind, memory_order_relaxed);
    if (kind == FAULT_SLOW && strcmp(name, armed.point) == 0) { // at every passage
        (void)usleep(100000);
        return;
    }
    if (kind == FAULT_NONE || kind >= FAULT_SLOW || !strikes(name, step)) {
        return;
    }
    gidd_log(GIDD_LOG_WARN, "fault", "fault strikes: %s", name);
    switch (kind) {
    case FAULT_KILL:
        (void)kill(getpid(), SIGKILL);
        break;
    case FAULT_STOP:
        (void)kill(getpid(), SIGSTOP);
        break;
    case FAULT_SLEEP:
        (void)sleep(3600);
        break;
    case FAULT_EXIT:
        _exit(3);
    default:
        break;
    }
}

int gidd_fault_nan(const char *name)
{
    return atomic_load_explicit(&armed.kind, memory_order_relaxed) == FAULT_NAN &&
           strikes(name, atomic_load(&armed.now));
}

int gidd_fault_flip(const char *name)
{
    return atomic_load_explicit(&armed.kind, memory_order_relaxed) == FAULT_FLIP &&
           strikes(name, atomic_load(&armed.now));
}
