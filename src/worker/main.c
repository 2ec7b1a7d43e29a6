/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-worker: trains. One rank, one device; rank 0 is the coordinator too, unless gidd-coordinator runs.
 */
#include "worker/program.h"

int main(int argc, char **argv)
{
    return gidd_program_main(argc, argv, GIDD_COMM_WORKER);
}
