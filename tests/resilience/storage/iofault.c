/* SPDX-License-Identifier: Apache-2.0 */
#include "iofault_parts.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const op_names[OPS] = {"open",  "read",   "write",  "fsync", "ftruncate", "fallocate",
                                          "close", "rename", "unlink", "mkdir", "rmdir"};
static const struct {
    const char *name;
    int value;
} errors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC},     {"EINTR", EINTR},    {"EDQUOT", EDQUOT},   {"EACCES", EACCES},
              {"EROFS", EROFS},   {"EMFILE", EMFILE},     {"ESTALE", ESTALE},  {"short", ERROR_SHORT}, {"late", ERROR_LATE},
              {"kill", ERROR_KILL}, {"spoil", ERROR_SPOIL}, {"slow", ERROR_SLOW}};

// The shim is one piece of process-wide state by nature.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int ready; // the environment was read
    char prefix[PATH_BYTES];
    unsigned ops;
    int error, forever, armed;
    long k, counted, struck;
    char last[PATH_BYTES + 16];
    int log; // of strikes, or -1
} shim = {.log = -1};

/* ---- steering ----------------------------------------------------------------------------------- */

static int parse_ops(const char *words)
{
    unsigned ops = 0;
    while (*words != '\0') {
        size_t length = strcspn(words, "+");
        unsigned before = ops;
        for (int op = 0; op < OPS; op++) {
            if ((strlen(op_names[op]) == length && strncmp(words, op_names[op], length) == 0) ||
                (length == 3 && strncmp(words, "any", 3) == 0)) {
                ops |= 1u << op;
            }
        }
        if (ops == before) {
            return -1;
        }
        words += length + (words[length] == '+');
    }
    shim.ops = ops;
    return 0;
}

static int parse_error(const char *word)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (strcmp(word, errors[i].name) == 0) {
            shim.error = errors[i].value;
            return 0;
        }
    }
    return -1;
}

static int parse_spec(const char *spec)
{
    char text[PATH_BYTES + 128], *save = NULL;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    int bad = (size_t)snprintf(text, sizeof text, "%s", spec) >= sizeof text, applies = 1;
    shim.ops = 0, shim.error = EIO, shim.forever = 0, shim.k = 1;
    shim.prefix[0] = '\0';
    for (char *word = strtok_r(text, ",", &save); word != NULL; word = strtok_r(NULL, ",", &save)) {
        if (strncmp(word, "path=", 5) == 0) {
            (void)snprintf(shim.prefix, sizeof shim.prefix, "%s", word + 5);
        } else if (strncmp(word, "op=", 3) == 0) {
            bad |= parse_ops(word + 3);
        } else if (strncmp(word, "k=", 2) == 0) {
            shim.k = atol(word + 2);
        } else if (strncmp(word, "error=", 6) == 0) {
            bad |= parse_error(word + 6);
        } else if (strncmp(word, "rank=", 5) == 0) {
            applies = rank != NULL && atoi(rank) == atoi(word + 5);
        } else if (strcmp(word, "forever") == 0) {
            shim.forever = 1;
        } else {
            bad = 1;
        }
    }
    shim.armed = !bad && applies && shim.prefix[0] == '/' && shim.ops != 0;
    return bad || shim.prefix[0] != '/' || shim.ops == 0 ? -1 : 0;
}

int iofault_arm(const char *spec)
{
    (void)pthread_mutex_lock(&mutex);
    shim.ready = 1;
    shim.counted = shim.struck = shim.armed = 0;
    shim.last[0] = '\0';
    int result = spec != NULL ? parse_spec(spec) : 0;
    (void)pthread_mutex_unlock(&mutex);
    return result;
}

int iofault_start_record(const char *prefix, const char *log)
{
    (void)pthread_mutex_lock(&mutex);
    shim.ready = 1;
    int result = iofault_record_open(prefix, log);
    (void)pthread_mutex_unlock(&mutex);
    return result;
}

static void read_record(const char *words)
{
    char prefix[PATH_BYTES];
    size_t length = strcspn(words, ",");
    (void)snprintf(prefix, sizeof prefix, "%.*s", (int)length, words);
    (void)iofault_record_open(prefix, words + length + (words[length] == ','));
}

// Under the mutex, once: what the environment says.
static void read_environment(void)
{
    const char *spec = getenv("IOFAULT"), *log = getenv("IOFAULT_LOG"), *record = getenv("IOFAULT_RECORD");
    shim.ready = 1;
    if (spec != NULL && parse_spec(spec) != 0) {
        (void)fprintf(stderr, "IOFAULT is not understood: %s\n", spec);
        _exit(64);
    }
    if (log != NULL) {
        shim.log = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
    if (record != NULL) {
        read_record(record);
    }
}

// While a record is kept, an operation and its entry are one for all processes: what another one can see is
// in the record before it can act on it.
void iofault_enter(void)
{
    (void)pthread_mutex_lock(&mutex);
    if (!shim.ready) {
        read_environment();
    }
    iofault_record_lock();
}

void iofault_leave(void)
{
    iofault_record_unlock();
    (void)pthread_mutex_unlock(&mutex);
}

long iofault_counted(void)
{
    iofault_enter();
    long count = shim.counted;
    iofault_leave();
    return count;
}

long iofault_struck(void)
{
    iofault_enter();
    long count = shim.struck;
    iofault_leave();
    return count;
}

const char *iofault_last(void)
{
    return shim.last;
}

/* ---- striking ------------------------------------------------------------------------------------- */

int iofault_is_target(const char *path)
{
    return iofault_begins(path, shim.prefix);
}

int iofault_strike(int op, const char *path)
{
    if (!shim.armed || !(shim.ops >> op & 1) || !iofault_is_target(path)) {
        return 0;
    }
    shim.counted++;
    if (shim.counted < shim.k || (shim.counted > shim.k && !shim.forever)) {
        return 0;
    }
    if ((shim.error == ERROR_SHORT && op != OP_WRITE && op != OP_READ) || (shim.error == ERROR_SPOIL && op != OP_WRITE)) {
        return 0;
    }
    shim.struck++;
    (void)snprintf(shim.last, sizeof shim.last, "%s %s", op_names[op], path);
    if (shim.log >= 0) {
        char line[PATH_BYTES + 128];
        const char *rank = getenv("OMPI_COMM_WORLD_RANK");
        int bytes = snprintf(line, sizeof line, "%s %s %d\n", rank != NULL ? rank : "-", shim.last, shim.error);
        (void)syscall(SYS_write, shim.log, line, bytes);
    }
    if (shim.error == ERROR_KILL) {
        (void)syscall(SYS_kill, getpid(), SIGKILL);
    }
    return shim.error;
}
