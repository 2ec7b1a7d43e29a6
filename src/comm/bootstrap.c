/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "comm/comm_mpi.h"
#include "comm/nccl_abort.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ROMIO's name differs between releases of Open MPI.
#if defined(OMPI_MAJOR_VERSION) && OMPI_MAJOR_VERSION >= 5
#define ROMIO_COMPONENT "romio341"
#else
#define ROMIO_COMPONENT "romio321"
#endif

void gidd_comm_abort(int code)
{
    int started = 0, ended = 0;
    gidd_nccl_abort_fire();
    (void)MPI_Initialized(&started);
    (void)MPI_Finalized(&ended);
    if (started && !ended) {
        (void)MPI_Abort(MPI_COMM_WORLD, code);
    }
    _exit(code);
}

static void abort_after_assert(void)
{
    gidd_comm_abort(gidd_status_exit_code(GIDD_ERR_ARG));
}

// What launchers leave in the environment of the processes they start. `needs`: the variable counts
// only if this one is set too (a batch script has Slurm's variables without being a step's task).
static const struct launcher {
    const char *size;
    const char *needs;
    const char *name;
} launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", NULL, "Open MPI's mpirun"},
    {"PMI_SIZE", NULL, "a PMI launcher (mpiexec of MPICH or Intel MPI, srun --mpi=pmi2)"},
    {"MPI_LOCALNRANKS", NULL, "mpiexec of MPICH or Intel MPI"},
    {"MV2_COMM_WORLD_SIZE", NULL, "mpirun of MVAPICH2"},
    {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID", "srun"},
};

// A process that MPI believes to be alone, though its launcher started more, would train N copies
// of one run into one directory.
static gidd_status check_launcher(int size)
{
    if (size > 1) {
        return GIDD_OK;
    }
    const char *own = getenv("OMPI_COMM_WORLD_SIZE");
    if (own != NULL && atol(own) == 1) {
        return GIDD_OK; // Open MPI's mpirun itself says 1, whatever surrounds it
    }
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    (void)MPI_Get_library_version(version, &length);
    version[strcspn(version, ",\n")] = '\0';
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        const char *value = getenv(launchers[i].size);
        if (value == NULL || atol(value) <= 1 ||
            (launchers[i].needs != NULL && getenv(launchers[i].needs) == NULL)) {
            continue;
        }
        return gidd_fail(GIDD_ERR_USAGE,
                         "%s started %s processes (%s), but MPI sees only this one: the program is "
                         "built with %s; start it with that library's own mpirun, or with srun "
                         "--mpi=pmix if Slurm offers it (srun --mpi=list)",
                         launchers[i].name, value, launchers[i].size, version);
    }
    const char *pmix_rank = getenv("PMIX_RANK");
    if (pmix_rank != NULL && atol(pmix_rank) > 0) {
        return gidd_fail(GIDD_ERR_USAGE,
                         "a PMIx launcher made this process rank %s, but MPI sees only this one: "
                         "start it with the mpirun of %s",
                         pmix_rank, version);
    }
    return GIDD_OK;
}

// Finds the coordinator and whether the mix of programs makes sense; the same answer on all ranks.
static gidd_status assign_roles(gidd_comm_set *set)
{
    int size = set->world->size;
    int counts[3] = {0, 0, 0}, first[3] = {0, 0, 0};
    int role = (int)set->role;
    int *roles = malloc((size_t)size * sizeof *roles);
    if (roles == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for %d roles", size);
    }
    gidd_status status = gidd_comm_allgather(set->world, &role, sizeof role, roles);
    for (int rank = size - 1; status == GIDD_OK && rank >= 0; rank--) {
        counts[roles[rank]]++;
        first[roles[rank]] = rank;
    }
    free(roles);
    GIDD_TRY(status);
    if (counts[GIDD_COMM_COORDINATOR] > 1) {
        return gidd_fail(GIDD_ERR_USAGE, "%d coordinators were started: start one",
                         counts[GIDD_COMM_COORDINATOR]);
    }
    if (counts[GIDD_COMM_TOOL] != 0 && counts[GIDD_COMM_TOOL] != size) {
        return gidd_fail(GIDD_ERR_USAGE, "workers and tools were started in one job");
    }
    if (counts[GIDD_COMM_COORDINATOR] == size) {
        return gidd_fail(GIDD_ERR_USAGE, "a coordinator needs workers: mpirun -np 1 "
                                         "gidd-coordinator --config C : -np N gidd-worker "
                                         "--config C, or gidd-worker alone");
    }
    set->is_dedicated = counts[GIDD_COMM_COORDINATOR] == 1;
    set->coordinator = set->is_dedicated ? first[GIDD_COMM_COORDINATOR] : 0;
    set->is_coordinator = set->world->rank == set->coordinator;
    return GIDD_OK;
}

static gidd_status split_world(gidd_comm_set *set)
{
    MPI_Comm workers = MPI_COMM_NULL;
    int is_worker = set->role != GIDD_COMM_COORDINATOR;
    GIDD_TRY_MPI(
        MPI_Comm_split(set->world->mpi, is_worker ? 0 : MPI_UNDEFINED, set->world->rank, &workers));
    if (is_worker) {
        GIDD_TRY(gidd_comm_adopt(workers, &set->workers));
    }
    return gidd_comm_dup(set->world, &set->protocol);
}

static gidd_status count_nodes(gidd_comm_set *set)
{
    MPI_Comm node = MPI_COMM_NULL;
    int facts[2] = {0, 0}; // workers on my node; 1 if I am the first of it
    set->node_rank = -1;
    if (set->workers != NULL) {
        GIDD_TRY_MPI(MPI_Comm_split_type(set->workers->mpi, MPI_COMM_TYPE_SHARED,
                                         set->workers->rank, MPI_INFO_NULL, &node));
        GIDD_TRY_MPI(MPI_Comm_rank(node, &set->node_rank));
        GIDD_TRY_MPI(MPI_Comm_size(node, &set->node_size));
        GIDD_TRY_MPI(MPI_Comm_free(&node));
        facts[0] = set->node_size;
        facts[1] = set->node_rank == 0;
    }
    GIDD_TRY_MPI(
        MPI_Allreduce(&facts[0], &set->node_size_max, 1, MPI_INT, MPI_MAX, set->world->mpi));
    return GIDD_MPI(
        MPI_Allreduce(&facts[1], &set->node_count, 1, MPI_INT, MPI_SUM, set->world->mpi));
}

static gidd_status agree_on_threads(gidd_comm_set *set, int provided)
{
    int weakest = provided;
    GIDD_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &weakest, 1, MPI_INT, MPI_MIN, set->world->mpi));
    set->thread_multiple = weakest == MPI_THREAD_MULTIPLE;
    return GIDD_OK;
}

gidd_status gidd_comm_bootstrap(int *argc, char ***argv, gidd_comm_role role, gidd_comm_set *set)
{
    int provided = MPI_THREAD_SINGLE;
    MPI_Comm world = MPI_COMM_NULL;
    *set = (gidd_comm_set){.role = role, .node_rank = -1};
    if (setenv("OMPI_MCA_io", ROMIO_COMPONENT, 0) != 0) { // 0: the user's choice stands
        return gidd_fail(GIDD_ERR_NOMEM, "out of memory for the environment");
    }
    GIDD_TRY_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided));
    GIDD_TRY_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    GIDD_TRY_MPI(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
    GIDD_TRY_MPI(MPI_File_set_errhandler(MPI_FILE_NULL, MPI_ERRORS_RETURN));
    gidd_assert_set_handler(abort_after_assert);
    GIDD_TRY_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &world));
    GIDD_TRY(gidd_comm_adopt(world, &set->world));
    GIDD_TRY(check_launcher(set->world->size));
    if (set->world->size > 1) {
        gidd_log_set_rank(set->world->rank);
    }
    GIDD_TRY(assign_roles(set));
    GIDD_TRY(split_world(set));
    GIDD_TRY(count_nodes(set));
    return agree_on_threads(set, provided);
}

#ifdef __SANITIZE_ADDRESS__
// MPI leaks in plugins that it unloads, and in code without frame pointers. For the leak checker to
// know whose leak it is (tests/support/lsan.supp), nothing is unloaded and stacks are unwound in
// full.
int dlclose(void *module);
const char *__asan_default_options(void);

int dlclose(void *module)
{
    (void)module;
    return 0;
}

const char *__asan_default_options(void)
{
    return "fast_unwind_on_malloc=0";
}
#endif

void gidd_comm_set_finalize(gidd_comm_set *set)
{
    int started = 0, ended = 0;
    (void)MPI_Initialized(&started);
    (void)MPI_Finalized(&ended);
    if (started && !ended) {
        gidd_comm_destroy(set->protocol);
        gidd_comm_destroy(set->workers);
        gidd_comm_destroy(set->world);
        (void)MPI_Finalize();
    }
    *set = (gidd_comm_set){.node_rank = -1};
}
