/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes and reads checkpoints of the test state, for scripts that start it with different numbers
 * of ranks and kill it (GIDD_FAULT):
 *
 *     checkpoint_driver write RUN STEP whole|pieces     commits step STEP
 *     checkpoint_driver read RUN STEP                   restores, wants step STEP, checks every
 * number
 *
 * Exit code: that of the status; 1 if the numbers are wrong.
 */
#include "base/fault.h"
#include "mpi/checkpoint_state.h"
#include "support/mpi_program.h"

static gidd_status write_checkpoint(gidd_comm_set *set, const char *run_dir, gidd_run_lock *lock,
                                    int64_t step, const char *how)
{
    state s;
    gidd_checkpoint_writer *writer = NULL;
    gidd_checkpoint_extent extents[STATE_EXTENTS_MAX];
    int rank = gidd_comm_rank(set->world), size = gidd_comm_size(set->world);
    gidd_checkpoint_fields fields = state_fields(step, size);
    state_init(&s, size);
    state_fill(&s, step);
    int64_t count = strcmp(how, "whole") == 0 ? state_extents_whole(&s, rank, extents)
                                              : state_extents_pieces(&s, rank, extents);
    gidd_status status =
        gidd_checkpoint_writer_create(&(gidd_checkpoint_writer_args){.comm = set->world,
                                                                     .run_dir = run_dir,
                                                                     .lock = lock,
                                                                     .layout = &s.layout,
                                                                     .keep_last = 2,
                                                                     .verify_after_write = 1,
                                                                     .background = 1},
                                      &writer);
    if (status == GIDD_OK) {
        gidd_checkpoint_begin(writer, step, rank == 0 ? &fields : NULL, extents, count);
        status = gidd_checkpoint_finish(writer);
    }
    gidd_checkpoint_writer_destroy(writer);
    state_release(&s);
    return status;
}

static gidd_status read_checkpoint(gidd_comm_set *set, const char *run_dir, gidd_run_lock *lock,
                                   int64_t step)
{
    gidd_checkpoint *checkpoint = NULL;
    gidd_status status = gidd_checkpoint_restore(
        &(gidd_checkpoint_restore_args){.comm = set->world, .run_dir = run_dir, .lock = lock},
        &checkpoint);
    int64_t found = checkpoint != NULL ? gidd_checkpoint_fields_of(checkpoint)->step : 0;
    if (status == GIDD_OK && found != step) {
        status = gidd_fail(GIDD_ERR_ARG, "restored step %lld, wanted %lld", (long long)found,
                           (long long)step);
    }
    if (status == GIDD_OK && checkpoint != NULL) {
        status = state_compare(checkpoint);
    }
    gidd_checkpoint_close(checkpoint);
    return status;
}

static gidd_status run(gidd_comm_set *set, int argc, char **argv)
{
    gidd_run_lock *lock = NULL;
    gidd_status status = GIDD_OK;
    if (argc < 4) {
        return gidd_fail(GIDD_ERR_USAGE, "checkpoint_driver write|read RUN STEP [whole|pieces]");
    }
    GIDD_TRY(gidd_fault_init(gidd_comm_rank(set->world)));
    if (set->is_coordinator) {
        status = gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = argv[2], .settle_s = 0.05},
                                       &lock);
    }
    GIDD_TRY_GOTO(gidd_comm_agree(set->world, status));
    int64_t step = atoll(argv[3]);
    gidd_fault_set_step(step);
    status = strcmp(argv[1], "write") == 0
                 ? write_checkpoint(set, argv[2], lock, step, argc > 4 ? argv[4] : "whole")
                 : read_checkpoint(set, argv[2], lock, step);
    status = gidd_comm_agree(set->world, status);
out:
    gidd_run_lock_release(lock);
    return status;
}

int main(int argc, char **argv)
{
    return mpi_program_main(argc, argv, run);
}
