/* SPDX-License-Identifier: Apache-2.0
 *
 * Started with several roles in one job (MPMD): test_roles ROLE EXPECTED, where ROLE is worker,
 * coordinator or tool, and EXPECTED is the coordinator's world rank or "refused". Exit code 0 if
 * what happened is what was expected, on all ranks.
 */
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int matches(const gidd_comm_set *set, int expected)
{
    int size = gidd_comm_size(set->world), rank = gidd_comm_rank(set->world);
    int workers = size - set->is_dedicated;
    int ok = set->coordinator == expected && set->is_coordinator == (rank == expected);
    ok &= (set->workers == NULL) == (set->role == GIDD_COMM_COORDINATOR);
    ok &= set->node_count == 1 && set->node_size_max == workers;
    if (set->workers != NULL) {
        int below = set->is_dedicated && expected < rank; // the coordinator is no worker before me
        ok &= gidd_comm_size(set->workers) == workers;
        ok &= gidd_comm_rank(set->workers) == rank - below;
        ok &= set->node_rank == rank - below && set->node_size == workers;
    } else {
        ok &= set->node_rank == -1 && set->node_size == 0;
    }
    ok &= gidd_comm_size(set->protocol) == size;
    return ok;
}

int main(int argc, char **argv)
{
    gidd_comm_set set;
    gidd_comm_role role = GIDD_COMM_WORKER;
    if (argc != 3) {
        return 2;
    }
    if (strcmp(argv[1], "worker") != 0) {
        role = strcmp(argv[1], "tool") == 0 ? GIDD_COMM_TOOL : GIDD_COMM_COORDINATOR;
    }
    gidd_status status = gidd_comm_bootstrap(&argc, &argv, role, &set);
    int ok = strcmp(argv[2], "refused") == 0 ? status == GIDD_ERR_USAGE
                                             : status == GIDD_OK && matches(&set, atoi(argv[2]));
    if (!ok) {
        (void)fprintf(stderr, "role %s expected %s: got %s (%s)\n", argv[1], argv[2],
                      gidd_status_name(status), gidd_error_last()->text);
    }
    gidd_comm_set_finalize(&set);
    return ok ? 0 : 1;
}
