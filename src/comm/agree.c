/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/comm_mpi.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

// An error record as bytes: its file and function are pointers, which mean nothing to another rank.
typedef struct record_message {
    int code;
    int line;
    char file[160];
    char func[80];
    char text[sizeof(((gidd_error *)0)->text)];
} record_message;

static void copy_text(char *to, size_t capacity, const char *from)
{
    (void)snprintf(to, capacity, "%s", from != NULL ? from : "");
}

static void pack_record(gidd_status local, record_message *message)
{
    const gidd_error *error = gidd_error_last();
    memset(message, 0, sizeof *message);
    message->code = (int)local;
    if (error->code == GIDD_OK) { // failed without a story: the name has to do
        copy_text(message->text, sizeof message->text, gidd_status_name(local));
        return;
    }
    message->line = error->line;
    copy_text(message->file, sizeof message->file, error->file);
    copy_text(message->func, sizeof message->func, error->func);
    copy_text(message->text, sizeof message->text, error->text);
}

static void unpack_record(int rank, const record_message *message)
{
    // The error record points at its file and function, so they need a place that stays; like the
    // record itself there is one per thread.
    static _Thread_local char file[sizeof message->file], func[sizeof message->func];
    copy_text(file, sizeof file, message->file);
    copy_text(func, sizeof func, message->func);
    int named = -1, end = 0; // a story that came from elsewhere already says from where
    if (sscanf(message->text, "rank %d: %n", &named, &end) == 1 && end > 0) {
        (void)gidd_fail_at((gidd_status)message->code, file, message->line, func, "%s",
                           message->text);
        return;
    }
    (void)gidd_fail_at((gidd_status)message->code, file, message->line, func, "rank %d: %s", rank,
                       message->text);
}

gidd_status gidd_comm_agree(gidd_comm *comm, gidd_status local)
{
    if (comm->size == 1) {
        return local;
    }
    gidd_comm_count_collective();
    int failing = local == GIDD_OK ? INT_MAX : comm->rank;
    GIDD_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &failing, 1, MPI_INT, MPI_MIN, comm->mpi));
    if (failing == INT_MAX) {
        return GIDD_OK;
    }
    record_message message;
    if (comm->rank == failing) {
        pack_record(local, &message);
    }
    GIDD_TRY_MPI(MPI_Bcast(&message, (int)sizeof message, MPI_BYTE, failing, comm->mpi));
    if (local == GIDD_OK) {
        unpack_record(failing, &message);
    }
    return (gidd_status)message.code;
}
