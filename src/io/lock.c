/* SPDX-License-Identifier: Apache-2.0 */
#include "io/lock.h"

#include "base/json.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_BYTES_MAX = 4096 };

// What the file says of a holder. Process ids mean something only within (boot, pid namespace).
typedef struct holder {
    char host[128];
    char boot_id[64];
    char pid_namespace[64];
    char job_id[128]; // with the cluster's name; "" outside a batch system
    char token[GIDD_RUN_LOCK_TOKEN_SIZE];
    int64_t pid;
    int64_t pid_start; // start time of the process in clock ticks: tells a reused pid
    int64_t restart_count;
} holder;

struct gidd_run_lock {
    char *path;
    char *run_dir;
    holder self;
    double beat_s, stale_s, settle_s;
    int fd; // of the file we wrote; if it was replaced, beats go to the old one
    pthread_t thread;
    int thread_runs;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int stop; // under mutex
};

/* ---- who am I ---------------------------------------------------------------------------------
 */

static void read_line(const char *path, char *line, size_t capacity)
{
    FILE *file = fopen(path, "re");
    line[0] = '\0';
    if (file != NULL) {
        if (fgets(line, (int)capacity, file) == NULL) {
            line[0] = '\0';
        }
        line[strcspn(line, "\n")] = '\0';
        (void)fclose(file);
    }
}

// When the process started (field 22 of /proc/PID/stat); 0 if there is no such process, or only its
// zombie. The name in field 2 may hold anything, so counting starts behind its closing parenthesis.
static int64_t process_start(int64_t pid)
{
    char path[64], line[1024];
    (void)snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    read_line(path, line, sizeof line);
    const char *field = strrchr(line, ')');
    if (field == NULL || strncmp(field, ") Z", 3) == 0 || strncmp(field, ") X", 3) == 0) {
        return 0;
    }
    for (int i = 2; field != NULL && i < 22; i++) {
        field = strchr(field + 1, ' ');
    }
    return field != NULL ? atoll(field) : 0;
}

static void copy_first_set(const char *const *names, char *value, size_t capacity)
{
    for (; *names != NULL; names++) {
        const char *found = getenv(*names);
        if (found != NULL && found[0] != '\0') {
            (void)snprintf(value, capacity, "%s", found);
            return;
        }
    }
}

static gidd_status describe_self(holder *self)
{
    static const char *const jobs[] = {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", NULL};
    static const char *const restarts[] = {"SLURM_RESTART_COUNT", NULL};
    unsigned char random[(GIDD_RUN_LOCK_TOKEN_SIZE - 1) / 2];
    char number[32] = "0";
    *self = (holder){.pid = getpid()};
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return gidd_fail(GIDD_ERR_IO, "no random bytes for a lock's token: %s", strerror(errno));
    }
    for (size_t i = 0; i < sizeof random; i++) {
        (void)snprintf(self->token + 2 * i, 3, "%02x", random[i]);
    }
    (void)gethostname(self->host, sizeof self->host - 1);
    read_line("/proc/sys/kernel/random/boot_id", self->boot_id, sizeof self->boot_id);
    ssize_t length =
        readlink("/proc/self/ns/pid", self->pid_namespace, sizeof self->pid_namespace - 1);
    self->pid_namespace[length > 0 ? length : 0] = '\0';
    self->pid_start = process_start(self->pid);
    copy_first_set(jobs, self->job_id, sizeof self->job_id);
    copy_first_set(restarts, number, sizeof number);
    self->restart_count = atoll(number);
    const char *cluster = getenv("SLURM_CLUSTER_NAME");
    if (cluster != NULL && self->job_id[0] != '\0') {
        size_t used = strlen(self->job_id);
        (void)snprintf(self->job_id + used, sizeof self->job_id - used, "@%s", cluster);
    }
    return GIDD_OK;
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static gidd_status write_holder(int fd, const char *path, const holder *self)
{
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s}", "host", self->host, "boot_id",
                  self->boot_id, "pid_namespace", self->pid_namespace, "job_id", self->job_id,
                  "restart_count", (json_int_t)self->restart_count, "pid", (json_int_t)self->pid,
                  "pid_start", (json_int_t)self->pid_start, "token", self->token);
    char *text = root != NULL ? json_dumps(root, JSON_SORT_KEYS | JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (text == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "cannot describe this process in %s", path);
    }
    size_t bytes = strlen(text);
    ssize_t written = pwrite(fd, text, bytes, 0);
    free(text);
    if (written < 0 || (size_t)written != bytes || fsync(fd) != 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot write %s: %s", path,
                         written >= 0 && (size_t)written != bytes ? "short write"
                                                                  : strerror(errno));
    }
    return GIDD_OK;
}

static void copy_string(const json_t *root, const char *key, char *value, size_t capacity)
{
    const char *text = json_string_value(json_object_get(root, key));
    (void)snprintf(value, capacity, "%s", text != NULL ? text : "");
}

// Reads whoever holds the lock. What is not understood (a holder that is just writing it) stays
// empty: then the age alone decides. GIDD_ERR_MISSING: nobody holds it.
static gidd_status read_holder(const char *path, holder *other, struct timespec *beat_p)
{
    char text[LOCK_BYTES_MAX];
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC); // opening makes NFS ask the server again
    *other = (holder){0};
    if (fd < 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s",
                         path, strerror(errno));
    }
    ssize_t bytes = read(fd, text, sizeof text);
    int failed = bytes < 0 || fstat(fd, &info) != 0;
    int reason = errno;
    (void)close(fd);
    if (failed) {
        return gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(reason));
    }
    if (beat_p != NULL) {
        *beat_p = info.st_mtim;
    }
    json_t *root = NULL;
    GIDD_TRY(gidd_json_parse(text, (size_t)bytes, JSON_REJECT_DUPLICATES, NULL, &root));
    copy_string(root, "host", other->host, sizeof other->host);
    copy_string(root, "boot_id", other->boot_id, sizeof other->boot_id);
    copy_string(root, "pid_namespace", other->pid_namespace, sizeof other->pid_namespace);
    copy_string(root, "job_id", other->job_id, sizeof other->job_id);
    copy_string(root, "token", other->token, sizeof other->token);
    other->pid = json_integer_value(json_object_get(root, "pid"));
    other->pid_start = json_integer_value(json_object_get(root, "pid_start"));
    other->restart_count = json_integer_value(json_object_get(root, "restart_count"));
    json_decref(root);
    return GIDD_OK;
}

// The file server's present time: the time stamp of a file written now.
static gidd_status server_time(const gidd_run_lock *lock, struct timespec *now_p)
{
    char path[4096];
    struct stat info;
    (void)snprintf(path, sizeof path, "%s.probe-%s", lock->path, lock->self.token);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    int failed = write(fd, "?", 1) != 1 || fsync(fd) != 0 || fstat(fd, &info) != 0;
    int reason = errno;
    (void)close(fd);
    (void)unlink(path);
    if (failed) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot write %s: %s", path, strerror(reason));
    }
    *now_p = info.st_mtim;
    return GIDD_OK;
}

/* ---- judging a holder -------------------------------------------------------------------------
 */

static int same_process_space(const holder *a, const holder *b)
{
    return a->boot_id[0] != '\0' && strcmp(a->boot_id, b->boot_id) == 0 &&
           strcmp(a->host, b->host) == 0 && strcmp(a->pid_namespace, b->pid_namespace) == 0;
}

// Dead for certain: gone from this host, or an earlier start of this very job.
static int is_dead(const holder *other, const holder *self)
{
    if (same_process_space(other, self) && other->pid > 0) {
        int gone = kill((pid_t)other->pid, 0) != 0 && errno == ESRCH;
        return gone || process_start(other->pid) != other->pid_start;
    }
    return other->job_id[0] != '\0' && strcmp(other->job_id, self->job_id) == 0 &&
           self->restart_count > other->restart_count;
}

static double seconds_between(const struct timespec *from, const struct timespec *to)
{
    return (double)(to->tv_sec - from->tv_sec) + (double)(to->tv_nsec - from->tv_nsec) * 1e-9;
}

static gidd_status name_holder(const gidd_run_lock *lock, const holder *other, double age_s)
{
    return gidd_fail(GIDD_ERR_OUTPUT,
                     "%s is in use by process %lld on %s%s%s (last sign of life %.0f s ago)",
                     lock->run_dir, (long long)other->pid,
                     other->host[0] != '\0' ? other->host : "an unknown host",
                     other->job_id[0] != '\0' ? ", job " : "", other->job_id, age_s);
}

/* ---- taking it --------------------------------------------------------------------------------
 */

// First come: the file did not exist. GIDD_OK with lock->fd -1: somebody has it.
static gidd_status create_lock(gidd_run_lock *lock)
{
    lock->fd = open(lock->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (lock->fd < 0) {
        return errno == EEXIST ? GIDD_OK
                               : gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", lock->path,
                                           strerror(errno));
    }
    gidd_status status = write_holder(lock->fd, lock->path, &lock->self);
    if (status != GIDD_OK) {
        (void)unlink(lock->path); // an empty lock would be in everybody's way for a minute
    }
    return status;
}

// Puts our file in the place of the abandoned one. Of several who try, the last rename wins, and
// the others see that after the settling time.
static gidd_status take_over(gidd_run_lock *lock, const holder *stale)
{
    char path[4096];
    holder now;
    (void)snprintf(path, sizeof path, "%s.take-%s", lock->path, lock->self.token);
    lock->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (lock->fd < 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", path, strerror(errno));
    }
    gidd_status status = write_holder(lock->fd, path, &lock->self);
    if (status == GIDD_OK) {
        status = read_holder(lock->path, &now, NULL);
    }
    if (status == GIDD_OK && strcmp(now.token, stale->token) != 0) {
        status = name_holder(lock, &now, 0.0); // somebody was faster
    }
    if (status == GIDD_OK && rename(path, lock->path) != 0) {
        status = gidd_fail(GIDD_ERR_OUTPUT, "cannot take over %s: %s", lock->path, strerror(errno));
    }
    if (status != GIDD_OK) {
        (void)unlink(path);
        return status == GIDD_ERR_MISSING ? GIDD_ERR_OUTPUT : status;
    }
    struct timespec pause = {.tv_sec = (time_t)lock->settle_s};
    pause.tv_nsec = (long)((lock->settle_s - (double)pause.tv_sec) * 1e9);
    (void)nanosleep(&pause, NULL);
    return gidd_run_lock_check(lock);
}

static gidd_status take_lock(gidd_run_lock *lock, int steal)
{
    // Twice: the holder may release between our attempt to create and our look at it.
    for (int attempt = 0; attempt < 2; attempt++) {
        holder other;
        struct timespec beat = {0}, now = {0};
        GIDD_TRY(create_lock(lock));
        if (lock->fd >= 0) {
            return GIDD_OK;
        }
        gidd_status status = read_holder(lock->path, &other, &beat);
        if (status == GIDD_ERR_MISSING) {
            continue;
        }
        GIDD_TRY(status);
        GIDD_TRY(server_time(lock, &now));
        double age_s = seconds_between(&beat, &now);
        if (!steal && age_s <= lock->stale_s && !is_dead(&other, &lock->self)) {
            return name_holder(lock, &other, age_s);
        }
        gidd_log(GIDD_LOG_WARN, "lock", "taking over %s from process %lld on %s, silent for %.0f s",
                 lock->path, (long long)other.pid, other.host, age_s);
        return take_over(lock, &other);
    }
    return gidd_fail(GIDD_ERR_OUTPUT, "%s comes and goes", lock->path);
}

// Probes and takeovers that were killed in the middle leave their files.
static void sweep_leftovers(const gidd_run_lock *lock)
{
    DIR *folder = opendir(lock->run_dir);
    struct dirent *entry = NULL;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (strncmp(entry->d_name, "run.lock.", 9) == 0) {
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
}

/* ---- keeping it -------------------------------------------------------------------------------
 */

// Rewrites through the descriptor: after a takeover that is the old file, which nobody sees any
// more.
static void *beat(void *argument)
{
    gidd_run_lock *lock = argument;
    (void)pthread_mutex_lock(&lock->mutex);
    while (!lock->stop) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)lock->beat_s;
        until.tv_nsec += (long)((lock->beat_s - (double)(time_t)lock->beat_s) * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&lock->wake, &lock->mutex, &until) != ETIMEDOUT) {
            continue; // woken: look at `stop`
        }
        (void)pthread_mutex_unlock(&lock->mutex);
        if (write_holder(lock->fd, lock->path, &lock->self) != GIDD_OK) {
            gidd_log_last_error(); // the next beat may succeed; the age decides
        }
        (void)pthread_mutex_lock(&lock->mutex);
    }
    (void)pthread_mutex_unlock(&lock->mutex);
    return NULL;
}

static gidd_status start_beat(gidd_run_lock *lock)
{
    // Signals are the main thread's business.
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int code = pthread_create(&lock->thread, NULL, beat, lock);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    lock->thread_runs = code == 0;
    return code == 0 ? GIDD_OK
                     : gidd_fail(GIDD_ERR_NOMEM, "no thread for the run lock: %s", strerror(code));
}

static gidd_status allocate_lock(const gidd_run_lock_args *args, gidd_run_lock **out_p)
{
    gidd_run_lock *lock = calloc(1, sizeof *lock);
    if (lock == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the run lock");
    }
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&lock->wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&lock->mutex, NULL);
    lock->fd = -1;
    lock->beat_s = args->beat_s > 0.0 ? args->beat_s : 10.0;
    lock->stale_s = args->stale_s > 0.0 ? args->stale_s : 60.0;
    lock->settle_s = args->settle_s > 0.0 ? args->settle_s : 1.0;
    lock->run_dir = strdup(args->run_dir);
    if (lock->run_dir == NULL || asprintf(&lock->path, "%s/run.lock", args->run_dir) < 0) {
        lock->path = NULL;
        gidd_run_lock_release(lock);
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the run lock");
    }
    *out_p = lock;
    return GIDD_OK;
}

gidd_status gidd_run_lock_acquire(const gidd_run_lock_args *args, gidd_run_lock **out_p)
{
    gidd_run_lock *lock = NULL;
    GIDD_TRY(allocate_lock(args, &lock));
    gidd_status status = GIDD_OK;
    GIDD_TRY_GOTO(describe_self(&lock->self));
    GIDD_TRY_GOTO(take_lock(lock, args->steal));
    sweep_leftovers(lock);
    GIDD_TRY_GOTO(start_beat(lock));
    *out_p = lock;
    return GIDD_OK;
out:
    gidd_run_lock_release(lock);
    return status;
}

gidd_status gidd_run_lock_check(gidd_run_lock *lock)
{
    holder other;
    gidd_status status = read_holder(lock->path, &other, NULL);
    if (status == GIDD_ERR_MISSING) {
        return gidd_fail(GIDD_ERR_OUTPUT, "%s is gone: this run has lost its directory",
                         lock->path);
    }
    GIDD_TRY(status);
    if (strcmp(other.token, lock->self.token) != 0) {
        return gidd_fail(GIDD_ERR_OUTPUT,
                         "%s was taken over by process %lld on %s%s%s: this run may touch nothing",
                         lock->run_dir, (long long)other.pid, other.host,
                         other.job_id[0] != '\0' ? ", job " : "", other.job_id);
    }
    return GIDD_OK;
}

const char *gidd_run_lock_token(const gidd_run_lock *lock)
{
    return lock->self.token;
}

void gidd_run_lock_release(gidd_run_lock *lock)
{
    if (lock == NULL) {
        return;
    }
    if (lock->thread_runs) {
        (void)pthread_mutex_lock(&lock->mutex);
        lock->stop = 1;
        (void)pthread_cond_signal(&lock->wake);
        (void)pthread_mutex_unlock(&lock->mutex);
        (void)pthread_join(lock->thread, NULL);
    }
    if (lock->fd >= 0) {
        const gidd_error before = *gidd_error_last(); // not the caller's business
        if (gidd_run_lock_check(lock) == GIDD_OK) {
            (void)unlink(lock->path);
        }
        gidd_error_restore(&before);
        (void)close(lock->fd);
    }
    (void)pthread_cond_destroy(&lock->wake);
    (void)pthread_mutex_destroy(&lock->mutex);
    free(lock->path);
    free(lock->run_dir);
    free(lock);
}
