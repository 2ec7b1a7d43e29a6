/* SPDX-License-Identifier: Apache-2.0
 *
 * A run.lock left by another program. It is taken over or refused, and if taken it is ours.
 */
#include "fuzz/fuzz.h"

#include "base/log.h"
#include "io/lock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gidd_run_lock *lock = NULL;
    gidd_log_set_level(GIDD_LOG_ERROR);
    const char *path = fuzz_file("run.lock", data, size);
    gidd_status status = gidd_run_lock_acquire(
        &(gidd_run_lock_args){.run_dir = fuzz_folder(), .steal = size % 2 == 1, .beat_s = 10, .settle_s = 1e-6}, &lock);
    if (status == GIDD_OK) {
        FUZZ_CHECK(gidd_run_lock_check(lock) == GIDD_OK);
        gidd_run_lock_release(lock);
    } else {
        FUZZ_CHECK(status == GIDD_ERR_OUTPUT);
        (void)remove(path);
    }
    return 0;
}
