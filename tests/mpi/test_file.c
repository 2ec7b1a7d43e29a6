/* SPDX-License-Identifier: Apache-2.0
 *
 * Files over MPI-IO: what is written is read, and a full disk is an error (a limit on file size
 * stands in for the disk: it needs no privilege and meets the same code).
 */
#include "comm/file.h"
#include "support/mpi_test.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHARE = 1 << 20 };

// A path in a folder that rank 0 makes; the same on all ranks.
static void make_path(mpi_test *t, char path[256])
{
    char folder[128] = "/tmp/gidd-test-file-XXXXXX";
    if (t->rank == 0) {
        MPI_TEST_CHECK(t, mkdtemp(folder) != NULL);
    }
    MPI_TEST_OK(t, gidd_comm_bcast(t->set.world, 0, folder, sizeof folder));
    (void)snprintf(path, 256, "%s/data.bin", folder);
}

static void remove_path(mpi_test *t, char path[256])
{
    MPI_TEST_OK(t, gidd_comm_barrier(t->set.world));
    if (t->rank == 0) {
        (void)unlink(path);
        *strrchr(path, '/') = '\0';
        MPI_TEST_CHECK(t, rmdir(path) == 0);
    }
}

static unsigned char byte_at(int64_t offset)
{
    return (unsigned char)((uint64_t)offset * 2654435761u >> 13);
}

static void fill(unsigned char *data, int64_t offset)
{
    for (int64_t i = 0; i < SHARE; i++) {
        data[i] = byte_at(offset + i);
    }
}

// Every rank writes its own stripe of one file; every rank reads all of it.
static void stripes_make_one_file(mpi_test *t)
{
    char path[256];
    gidd_file *file = NULL;
    int64_t whole = (int64_t)SHARE * t->size, bytes = 0;
    unsigned char *data = malloc(SHARE), *back = malloc(SHARE);
    make_path(t, path);
    MPI_TEST_OK(t, gidd_file_create(path, t->rank == 0 ? whole : 0, &file));
    fill(data, (int64_t)SHARE * t->rank);
    MPI_TEST_OK(t, gidd_file_write_at(file, (int64_t)SHARE * t->rank, data, SHARE));
    MPI_TEST_OK(t, gidd_file_sync(file));
    MPI_TEST_OK(t, gidd_file_close(&file));
    MPI_TEST_CHECK(t, file == NULL);
    MPI_TEST_OK(t, gidd_comm_barrier(t->set.world));
    MPI_TEST_OK(t, gidd_file_open(path, &file));
    MPI_TEST_OK(t, gidd_file_size(file, &bytes));
    MPI_TEST_CHECK(t, bytes == whole);
    for (int rank = 0; rank < t->size; rank++) {
        fill(data, (int64_t)SHARE * rank);
        MPI_TEST_OK(t, gidd_file_read_at(file, (int64_t)SHARE * rank, back, SHARE));
        MPI_TEST_CHECK(t, memcmp(data, back, SHARE) == 0);
    }
    MPI_TEST_CHECK(t, gidd_file_read_at(file, whole - 1, back, 2) == GIDD_ERR_CORRUPT);
    MPI_TEST_CHECK(t, gidd_file_write_at(file, 0, data, 1) == GIDD_ERR_IO); // opened for reading
    MPI_TEST_OK(t, gidd_file_close(&file));
    MPI_TEST_OK(t, gidd_file_close(&file));
    remove_path(t, path);
    free(data);
    free(back);
}

static void absent_files_are_named(mpi_test *t)
{
    gidd_file *file = NULL;
    MPI_TEST_CHECK(t, gidd_file_open("/nowhere/at/all", &file) == GIDD_ERR_MISSING);
    MPI_TEST_CHECK(t, file == NULL && strstr(gidd_error_last()->text, "/nowhere/at/all") != NULL);
    MPI_TEST_CHECK(t, gidd_file_create("/nowhere/at/all", 0, &file) != GIDD_OK);
    MPI_TEST_CHECK(t, gidd_file_create("/nowhere/at/all", 10, &file) == GIDD_ERR_OUTPUT);
    MPI_TEST_CHECK(t, file == NULL);
}

// The last rank's stripe crosses the limit. Its write fails; the others' succeed; all agree.
static void full_disk_is_an_error(mpi_test *t)
{
    char path[256];
    gidd_file *file = NULL;
    int64_t offset = (int64_t)SHARE * t->rank;
    unsigned char *data = calloc(1, SHARE);
    struct rlimit old, small;
    make_path(t, path);
    MPI_TEST_CHECK(t, getrlimit(RLIMIT_FSIZE, &old) == 0);
    small = old;
    small.rlim_cur = (rlim_t)((int64_t)SHARE * t->size - SHARE / 2);
    (void)signal(SIGXFSZ, SIG_IGN);
    MPI_TEST_CHECK(t, setrlimit(RLIMIT_FSIZE, &small) == 0);
    // Reserved first: known before a byte is written.
    MPI_TEST_CHECK(t, gidd_file_create(path, (int64_t)SHARE * t->size, &file) == GIDD_ERR_IO);
    MPI_TEST_CHECK(t, strstr(gidd_error_last()->text, "free") != NULL);
    MPI_TEST_OK(t, gidd_file_create(path, 0, &file));
    gidd_status status = gidd_file_write_at(file, offset, data, SHARE);
    MPI_TEST_CHECK(t, (status == GIDD_ERR_IO) == (t->rank == t->size - 1));
    if (status != GIDD_OK) {
        MPI_TEST_CHECK(t, strstr(gidd_error_last()->text, path) != NULL);
    }
    MPI_TEST_CHECK(t, gidd_comm_agree(t->set.world, status) == GIDD_ERR_IO);
    (void)gidd_file_close(&file);
    MPI_TEST_CHECK(t, setrlimit(RLIMIT_FSIZE, &old) == 0);
    (void)signal(SIGXFSZ, SIG_DFL);
    remove_path(t, path);
    free(data);
}

typedef struct writer_job {
    const char *path;
    int64_t offset;
    gidd_status status;
} writer_job;

static void *write_often(void *argument)
{
    writer_job *job = argument;
    gidd_file *file = NULL;
    unsigned char *data = malloc(SHARE);
    fill(data, job->offset);
    job->status = gidd_file_create(job->path, 0, &file);
    for (int i = 0; i < 20 && job->status == GIDD_OK; i++) {
        job->status = gidd_file_write_at(file, job->offset, data, SHARE);
    }
    gidd_status closed = gidd_file_close(&file);
    job->status = job->status == GIDD_OK ? closed : job->status;
    free(data);
    return NULL;
}

// A writer thread works while the main thread reduces.
static void writing_beside_collectives(mpi_test *t)
{
    char path[256];
    pthread_t thread;
    writer_job job = {.path = path, .offset = (int64_t)SHARE * t->rank};
    make_path(t, path);
    MPI_TEST_CHECK(t, pthread_create(&thread, NULL, write_often, &job) == 0);
    for (int i = 0; i < 500; i++) {
        double one = 1.0;
        MPI_TEST_OK(t, gidd_comm_allreduce_double(t->set.world, &one, 1, GIDD_COMM_SUM));
        MPI_TEST_CHECK(t, one == (double)t->size);
    }
    MPI_TEST_CHECK(t, pthread_join(thread, NULL) == 0);
    MPI_TEST_OK(t, job.status);
    remove_path(t, path);
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"stripes_make_one_file", stripes_make_one_file, 1},
        {"absent_files_are_named", absent_files_are_named, 1},
        {"full_disk_is_an_error", full_disk_is_an_error, 1},
        {"writing_beside_collectives", writing_beside_collectives, 1},
    };
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
