/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-coordinator: a coordinator of its own, beside the workers of the same job:
 *     mpirun -np 1 gidd-coordinator --config C : -np 8 gidd-worker --config C
 */
#include "worker/program.h"

int main(int argc, char **argv)
{
    return gidd_program_main(argc, argv, GIDD_COMM_COORDINATOR);
}
