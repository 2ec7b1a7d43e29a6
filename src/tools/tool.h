/* SPDX-License-Identifier: Apache-2.0
 *
 * The frame of the parallel tools: bootstrap, one function, one report, one exit code on all ranks.
 */
#ifndef GIDD_TOOLS_TOOL_H
#define GIDD_TOOLS_TOOL_H

#include "base/cli.h"
#include "base/log.h"
#include "comm/comm.h"

#include <string.h>

/* Runs `work` between bootstrap and finalize; its status is agreed over all ranks, rank 0 reports it.
 * Returns the exit code. Collective over the job. */
static inline int gidd_tool_run(int *argc, char ***argv, gidd_status (*work)(void *context, gidd_comm_set *comms),
                                void *context)
{
    gidd_comm_set comms;
    memset(&comms, 0, sizeof comms);
    gidd_status status = gidd_comm_bootstrap(argc, argv, GIDD_COMM_TOOL, &comms);
    if (status == GIDD_OK) {
        status = gidd_comm_agree(comms.world, work(context, &comms));
    }
    if (status != GIDD_OK && (comms.world == NULL ? gidd_cli_speaks() : gidd_comm_rank(comms.world) == 0)) {
        gidd_log_last_error();
    }
    gidd_comm_set_finalize(&comms);
    return gidd_status_exit_code(status);
}

#endif
