/* SPDX-License-Identifier: Apache-2.0
 *
 * power_record ROOT RUN LOG whole|pieces: a short life of the run directory ROOT/RUN, with every
 * file operation below ROOT recorded: created, four checkpoints with pruning, a restore, one more
 * checkpoint. Marks in the record say what the program believed at that moment:
 *
 *     "begin S"       step S is being written         "committed S"   step S is promised to last
 *
 * mpirun -np N; power_replay then cuts the power everywhere in it.
 */
#include "iofault.h"
#include "storage_fixture.h"
#include "support/mpi_program.h"

#include <inttypes.h>

static void mark(const storage *s, const char *what, int64_t step)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%s %" PRId64, what, step);
    if (s->rank == 0) {
        iofault_mark(text);
    }
}

static gidd_status write_marked(storage *s, int64_t step)
{
    GIDD_TRY(gidd_comm_barrier(s->comm));
    mark(s, "begin", step);
    GIDD_TRY(gidd_comm_barrier(s->comm));
    GIDD_TRY(storage_write(s, step));
    mark(s, "committed", step);
    return GIDD_OK;
}

static gidd_status live(storage *s)
{
    for (int64_t step = 10; step <= 40; step += 10) {
        GIDD_TRY(write_marked(s, step));
    }
    int64_t found = 0;
    GIDD_TRY(storage_restore(s, &found));
    if (found != 40) {
        return gidd_fail(GIDD_ERR_ARG, "restored step %" PRId64, found);
    }
    return write_marked(s, 50);
}

static gidd_status run(gidd_comm_set *set, int argc, char **argv)
{
    storage s;
    char path[sizeof s.run_dir];
    if (argc != 5) {
        return gidd_fail(GIDD_ERR_USAGE, "power_record ROOT RUN LOG whole|pieces");
    }
    if (iofault_start_record(argv[1], argv[3]) != 0) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot write %s", argv[3]);
    }
    (void)snprintf(path, sizeof path, "%s/%s", argv[1], argv[2]);
    gidd_status status = storage_open_at(&s, set->world, path, strcmp(argv[4], "pieces") == 0);
    if (status == GIDD_OK) {
        status = live(&s);
    }
    storage_release(&s);
    return gidd_comm_agree(set->world, status);
}

int main(int argc, char **argv)
{
    return mpi_program_main(argc, argv, run);
}
