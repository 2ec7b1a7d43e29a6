/* SPDX-License-Identifier: Apache-2.0
 *
 * Status codes and the story of a failure.
 *
 * A function that can fail returns gidd_status. The function that first knows of a failure calls
 * gidd_fail(), which writes one thread-local record (code, place, text); everybody above relays the
 * status with GIDD_TRY and adds nothing. The code says what can be done about it:
 * CORRUPT -> use an older copy, IO -> retry later, TIMEOUT and PEER -> start again, ARG -> our bug.
 */
#ifndef GIDD_BASE_STATUS_H
#define GIDD_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__clang__)
#define GIDD_NODISCARD __attribute__((warn_unused_result))
#elif defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ > 201710L)
#define GIDD_NODISCARD [[nodiscard]]
#else
#define GIDD_NODISCARD /* gcc -std=c17 refuses it on an enum; CI compiles once more with clang */
#endif

typedef enum GIDD_NODISCARD gidd_status {
    GIDD_OK = 0,
    GIDD_ERR_ARG,         /* a caller broke a contract: our bug                          exit 70 */
    GIDD_ERR_USAGE,       /* wrong command line or launcher                              exit 64 */
    GIDD_ERR_CONFIG,      /* wrong configuration, or one that does not fit the run       exit 78 */
    GIDD_ERR_MISSING,     /* an input is not there                                       exit 66 */
    GIDD_ERR_CORRUPT,     /* bytes are damaged, or data break their own rules            exit 65 */
    GIDD_ERR_DIVERGED,    /* training left the finite numbers                            exit 65 */
    GIDD_ERR_IO,          /* reading or writing failed                                   exit 74 */
    GIDD_ERR_OUTPUT,      /* an output cannot be created, or its lock is held            exit 73 */
    GIDD_ERR_NOMEM,       /* out of memory                                               exit 70 */
    GIDD_ERR_COMM,        /* a communication call failed                                 exit 76 */
    GIDD_ERR_PEER,        /* another rank failed                                         exit 76 */
    GIDD_ERR_TIMEOUT,     /* a limit passed without progress                             exit 76 */
    GIDD_ERR_DEVICE,      /* no such device, or it failed                                exit 69 */
    GIDD_ERR_UNSUPPORTED, /* valid, but not by this build or machine                     exit 69 */
} gidd_status;

/* Exit codes that are no failures. */
enum {
    GIDD_EXIT_FINISHED = 0,
    GIDD_EXIT_RERUN = 75,   /* a checkpoint was committed: run me again */
    GIDD_EXIT_STOPPED = 79, /* stopped on request (STOP file, SIGINT): do not requeue */
};

/* The record of the last failure of this thread. `text` is a sentence in lower case. Local. */
typedef struct gidd_error {
    gidd_status code;
    int         line;
    const char *file; /* static storage */
    const char *func; /* static storage */
    char        text[1024];
} gidd_error;

/* Writes the thread's record and returns `code`. Use through gidd_fail(). Local. */
gidd_status gidd_fail_at(gidd_status code, const char *file, int line, const char *func,
                         const char *format, ...) __attribute__((format(printf, 5, 6)));

#define gidd_fail(code, ...) gidd_fail_at((code), __FILE__, __LINE__, __func__, __VA_ARGS__)

/* The thread's record; code is GIDD_OK when nothing failed yet. Valid until the next failure. Local. */
const gidd_error *gidd_error_last(void);

/* Puts `error` in place as this thread's record: how a failure found by another thread reaches the
 * one that reports it. Copies. Local. */
void gidd_error_restore(const gidd_error *error);

/* Name of a code ("corrupt") and the process's exit code for it (see the enum). Local. */
const char *gidd_status_name(gidd_status status);
int         gidd_status_exit_code(gidd_status status);

#define GIDD_TRY(call)                                                                             \
    do {                                                                                           \
        gidd_status gidd_try_status_ = (call);                                                     \
        if (gidd_try_status_ != GIDD_OK) {                                                         \
            return gidd_try_status_;                                                               \
        }                                                                                          \
    } while (0)

/* For functions with one `out:` label and a local `gidd_status status`. */
#define GIDD_TRY_GOTO(call)                                                                        \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != GIDD_OK) {                                                                   \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)

/* What to do when a GIDD_ASSERT fails, after it has been printed; default abort(). The bootstrap of
 * a parallel program sets one that ends the whole job, not one rank of it. Local. */
void gidd_assert_set_handler(void (*handler)(void));

void gidd_assert_failed(const char *file, int line, const char *func, const char *condition)
    __attribute__((noreturn));

/* Stays on in release. No side effects inside. */
#define GIDD_ASSERT(condition)                                                                     \
    ((condition) ? (void)0 : gidd_assert_failed(__FILE__, __LINE__, __func__, #condition))

#ifdef __cplusplus
}
#endif
#endif
