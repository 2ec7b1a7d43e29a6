/* SPDX-License-Identifier: Apache-2.0
 *
 * The run directory's lock: one holder; when it counts as abandoned; what a robbed holder sees.
 */
#include "base/log.h"
#include "io/lock.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char run_dir[64], lock_path[96];

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info, (void)type, (void)place;
    return remove(path);
}

static void setup(void)
{
    gidd_log_set_level(GIDD_LOG_ERROR); // takeovers are announced by warnings, and meant here
    (void)strcpy(run_dir, "/tmp/gidd-test-lock-XXXXXX");
    cr_assert_not_null(mkdtemp(run_dir));
    (void)snprintf(lock_path, sizeof lock_path, "%s/run.lock", run_dir);
}

static void teardown(void)
{
    (void)nftw(run_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(lock, .init = setup, .fini = teardown, .timeout = 60);

static gidd_status acquire(gidd_run_lock **lock_p)
{
    return gidd_run_lock_acquire(
        &(gidd_run_lock_args){.run_dir = run_dir, .settle_s = 0.01, .stale_s = 3600}, lock_p);
}

// A lock as another host would have left it; `extra` is more JSON.
static void write_foreign_lock(const char *extra)
{
    FILE *file = fopen(lock_path, "w");
    cr_assert_not_null(file);
    (void)fprintf(file, "{\"host\": \"far\", \"boot_id\": \"b\", \"pid\": 7, \"token\": \"t\"%s}",
                  extra);
    cr_assert_eq(fclose(file), 0);
}

static void set_age(double age_s)
{
    struct timespec times[2];
    (void)clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= (time_t)age_s;
    times[1] = times[0];
    cr_assert_eq(utimensat(AT_FDCWD, lock_path, times, 0), 0);
}

static int files_in_run_dir(void)
{
    char command[128];
    int count = -1;
    (void)snprintf(command, sizeof command, "ls -A %s | wc -l", run_dir);
    FILE *pipe = popen(command, "r");
    cr_assert_not_null(pipe);
    cr_assert_eq(fscanf(pipe, "%d", &count), 1);
    (void)pclose(pipe);
    return count;
}

Test(lock, is_exclusive_and_leaves_nothing)
{
    gidd_run_lock *first = NULL, *second = NULL;
    cr_assert_eq(acquire(&first), GIDD_OK);
    cr_assert_eq(strlen(gidd_run_lock_token(first)), GIDD_RUN_LOCK_TOKEN_SIZE - 1);
    cr_assert_eq(acquire(&second), GIDD_ERR_OUTPUT);
    char host[128] = "", pid[32];
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(pid, sizeof pid, "process %d ", (int)getpid());
    cr_assert_not_null(strstr(gidd_error_last()->text, host));
    cr_assert_not_null(strstr(gidd_error_last()->text, pid));
    cr_assert_eq(gidd_run_lock_check(first), GIDD_OK);
    gidd_run_lock_release(first);
    cr_assert_eq(files_in_run_dir(), 0);
    cr_assert_eq(acquire(&second), GIDD_OK);
    gidd_run_lock_release(second);
    gidd_run_lock_release(NULL);
}

Test(lock, of_a_dead_process_is_taken_over_at_once)
{
    gidd_run_lock *lock = NULL;
    pid_t child = fork();
    if (child == 0) {
        (void)(acquire(&lock) == GIDD_OK ? kill(getpid(), SIGKILL) : 0);
        _exit(1);
    }
    int status = 0;
    // Not yet waited for: its zombie is as dead.
    siginfo_t info;
    cr_assert_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    cr_assert_eq(access(lock_path, F_OK), 0);
    cr_assert_eq(acquire(&lock), GIDD_OK, "%s", gidd_error_last()->text);
    gidd_run_lock_release(lock);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status));
}

Test(lock, of_another_host_is_respected_until_it_is_old)
{
    gidd_run_lock *lock = NULL;
    write_foreign_lock(", \"job_id\": \"99\"");
    set_age(3500);
    cr_assert_eq(acquire(&lock), GIDD_ERR_OUTPUT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "on far, job 99"));
    set_age(3700);
    cr_assert_eq(acquire(&lock), GIDD_OK);
    cr_assert_eq(files_in_run_dir(), 1); // no probe, no takeover file
    gidd_run_lock_release(lock);
}

Test(lock, of_an_earlier_start_of_the_same_job_is_taken_over)
{
    gidd_run_lock *lock = NULL;
    cr_assert_eq(setenv("SLURM_JOB_ID", "99", 1), 0);
    cr_assert_eq(setenv("SLURM_CLUSTER_NAME", "c", 1), 0);
    cr_assert_eq(setenv("SLURM_RESTART_COUNT", "1", 1), 0);
    write_foreign_lock(", \"job_id\": \"99@c\", \"restart_count\": 1"); // the same start
    cr_assert_eq(acquire(&lock), GIDD_ERR_OUTPUT);
    write_foreign_lock(", \"job_id\": \"99@d\", \"restart_count\": 0"); // another cluster's 99
    cr_assert_eq(acquire(&lock), GIDD_ERR_OUTPUT);
    write_foreign_lock(", \"job_id\": \"99@c\", \"restart_count\": 0");
    cr_assert_eq(acquire(&lock), GIDD_OK);
    gidd_run_lock_release(lock);
}

// Whoever is just creating it, or left it half-written, is respected until it is old.
Test(lock, that_cannot_be_read_is_respected_until_it_is_old)
{
    static const char *const texts[] = {"", "{", "[1, 2]", "\xff\xff", "{\"token\": 5}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        gidd_run_lock *lock = NULL;
        FILE *file = fopen(lock_path, "w");
        (void)fputs(texts[i], file);
        cr_assert_eq(fclose(file), 0);
        cr_assert_eq(acquire(&lock), GIDD_ERR_OUTPUT, "%s", texts[i]);
        set_age(3700);
        cr_assert_eq(acquire(&lock), GIDD_OK, "%s", texts[i]);
        gidd_run_lock_release(lock);
    }
}

Test(lock, stolen_is_noticed_and_left_alone)
{
    gidd_run_lock *first = NULL, *thief = NULL;
    cr_assert_eq(acquire(&first), GIDD_OK);
    cr_assert_eq(
        gidd_run_lock_acquire(
            &(gidd_run_lock_args){.run_dir = run_dir, .steal = 1, .settle_s = 0.01}, &thief),
        GIDD_OK);
    cr_assert_eq(gidd_run_lock_check(first), GIDD_ERR_OUTPUT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "taken over by process"));
    gidd_run_lock_release(first); // must not remove the thief's
    cr_assert_eq(gidd_run_lock_check(thief), GIDD_OK);
    cr_assert_eq(unlink(lock_path), 0);
    cr_assert_eq(gidd_run_lock_check(thief), GIDD_ERR_OUTPUT);
    gidd_run_lock_release(thief);
}

Test(lock, is_kept_young_by_its_thread)
{
    gidd_run_lock *lock = NULL, *rival = NULL;
    cr_assert_eq(
        gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = run_dir, .beat_s = 0.02}, &lock),
        GIDD_OK);
    set_age(3700);
    for (int i = 0; i < 500; i++) { // until the beat has made it young again
        struct stat info;
        struct timespec now, pause = {.tv_nsec = 10000000};
        (void)clock_gettime(CLOCK_REALTIME, &now);
        cr_assert_eq(stat(lock_path, &info), 0);
        if (now.tv_sec - info.st_mtim.tv_sec < 60) {
            break;
        }
        (void)nanosleep(&pause, NULL);
    }
    cr_assert_eq(acquire(&rival), GIDD_ERR_OUTPUT);
    gidd_run_lock_release(lock);
}

// Many start at once on an abandoned lock: exactly one gets it.
Test(lock, has_one_winner_among_many)
{
    enum { RIVALS = 12 };
    int winners = 0;
    pid_t children[RIVALS];
    write_foreign_lock("");
    set_age(3700);
    for (int i = 0; i < RIVALS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            gidd_run_lock *lock = NULL;
            struct timespec pause = {.tv_sec = 2};
            if (gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = run_dir, .settle_s = 0.5},
                                      &lock) != GIDD_OK) {
                _exit(0);
            }
            (void)nanosleep(&pause, NULL);
            _exit(gidd_run_lock_check(lock) == GIDD_OK ? 1 : 2);
        }
    }
    for (int i = 0; i < RIVALS; i++) {
        int status = 0;
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 2);
        winners += WEXITSTATUS(status) == 1;
    }
    cr_assert_eq(winners, 1);
}

Test(lock, cannot_be_taken_where_nothing_can_be_written)
{
    gidd_run_lock *lock = NULL;
    (void)snprintf(run_dir + strlen(run_dir), 8, "/none");
    cr_assert_eq(acquire(&lock), GIDD_ERR_OUTPUT);
    cr_assert_not_null(strstr(gidd_error_last()->text, "none/run.lock"));
}
