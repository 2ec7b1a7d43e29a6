/* SPDX-License-Identifier: Apache-2.0
 *
 * Checkpoints on 1..4 ranks: the bytes on disk, the way back, damage of every kind, a full disk.
 */
#include "mpi/checkpoint_state.h"
#include "support/mpi_test.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    state state;
    char run_dir[128];
    gidd_run_lock *lock; /* rank 0 */
    gidd_checkpoint_writer *writer;
    gidd_checkpoint_extent extents[STATE_EXTENTS_MAX];
} fixture;

typedef enum holding { WHOLE, PIECES } holding;
typedef enum pace { BACKGROUND, SYNCHRONOUS } pace;

static void open_writer(mpi_test *t, fixture *f, pace how)
{
    MPI_TEST_OK(t, gidd_checkpoint_writer_create(
                       &(gidd_checkpoint_writer_args){.comm = t->set.world,
                                                      .run_dir = f->run_dir,
                                                      .lock = f->lock,
                                                      .layout = &f->state.layout,
                                                      .keep_last = 2,
                                                      .keep_every = 100,
                                                      .verify_after_write = 1,
                                                      .background = how == BACKGROUND},
                       &f->writer));
}

static void setup(mpi_test *t, fixture *f, pace how)
{
    memset(f, 0, sizeof *f);
    (void)snprintf(f->run_dir, sizeof f->run_dir, "/tmp/gidd-test-ckpt-XXXXXX");
    if (t->rank == 0) {
        MPI_TEST_CHECK(t, mkdtemp(f->run_dir) != NULL);
        MPI_TEST_OK(t,
                    gidd_run_lock_acquire(&(gidd_run_lock_args){.run_dir = f->run_dir}, &f->lock));
    }
    MPI_TEST_OK(t, gidd_comm_bcast(t->set.world, 0, f->run_dir, sizeof f->run_dir));
    state_init(&f->state, t->size);
    open_writer(t, f, how);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info, (void)type, (void)place;
    return remove(path);
}

static void teardown(mpi_test *t, fixture *f)
{
    gidd_checkpoint_writer_destroy(f->writer);
    gidd_run_lock_release(f->lock);
    state_release(&f->state);
    MPI_TEST_OK(t, gidd_comm_barrier(t->set.world));
    if (t->rank == 0) {
        (void)nftw(f->run_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}

static void begin(mpi_test *t, fixture *f, int64_t step, holding how)
{
    gidd_checkpoint_fields fields = state_fields(step, t->size);
    state_fill(&f->state, step);
    int64_t count = how == WHOLE ? state_extents_whole(&f->state, t->rank, f->extents)
                                 : state_extents_pieces(&f->state, t->rank, f->extents);
    gidd_checkpoint_begin(f->writer, step, t->rank == 0 ? &fields : NULL, f->extents, count);
}

static void write_step(mpi_test *t, fixture *f, int64_t step, holding how)
{
    begin(t, f, step, how);
    MPI_TEST_OK(t, gidd_checkpoint_finish(f->writer));
    MPI_TEST_CHECK(t, gidd_checkpoint_committed_step(f->writer) == step);
}

static void step_path(const fixture *f, int64_t step, const char *file, char path[256])
{
    (void)snprintf(path, 256, "%s/checkpoints/step-%09lld%s%s", f->run_dir, (long long)step,
                   file[0] != '\0' ? "/" : "", file);
}

static int is_there(const fixture *f, int64_t step)
{
    char path[256];
    step_path(f, step, "", path);
    return access(path, F_OK) == 0;
}

static int64_t count_kind(mpi_test *t, const fixture *f, gidd_checkpoint_kind kind)
{
    gidd_checkpoint_entry *entries = NULL;
    int64_t count = 0, found = 0;
    MPI_TEST_OK(t, gidd_checkpoint_list(f->run_dir, &entries, &count));
    for (int64_t i = 0; i < count; i++) {
        found += entries[i].kind == kind;
    }
    free(entries);
    return found;
}

/* ---- bytes ------------------------------------------------------------------------------------
 */

// state.bin against the numbers it is made of, computed here from the format's description.
static int state_file_is_right(const fixture *f, int64_t step)
{
    char path[256];
    int64_t elements = f->state.layout.elements, block = GIDD_CHECKPOINT_BLOCK / 4;
    int64_t padded = (elements + block - 1) / block * block;
    float *data = malloc((size_t)padded * sizeof *data);
    int right = 1;
    step_path(f, step, "state.bin", path);
    FILE *file = fopen(path, "rb");
    for (int section = 0; file != NULL && section < STATE_SECTIONS; section++) {
        right &= fread(data, sizeof *data, (size_t)padded, file) == (size_t)padded;
        for (int64_t i = 0; i < padded && right; i++) {
            right &= data[i] == (i < elements ? state_value(section, i, step) : 0.0f);
        }
    }
    right &= file != NULL && fgetc(file) == EOF;
    if (file != NULL) {
        (void)fclose(file);
    }
    free(data);
    return right;
}

// Whole or in pieces, in the background or not, on any number of ranks: the bytes of the state
// alone.
static void bytes_depend_on_the_state_alone(mpi_test *t)
{
    for (int how = 0; how < 4; how++) {
        fixture f;
        setup(t, &f, how < 2 ? BACKGROUND : SYNCHRONOUS);
        write_step(t, &f, 7 + how, how % 2 == 0 ? WHOLE : PIECES);
        MPI_TEST_CHECK(t, t->rank != 0 || state_file_is_right(&f, 7 + how));
        teardown(t, &f);
    }
}

// What happens to the memory after begin does not reach the disk, and the state tells the stages.
static void training_goes_on_behind_a_write(mpi_test *t)
{
    fixture f;
    setup(t, &f, BACKGROUND);
    MPI_TEST_CHECK(t, gidd_checkpoint_writer_state(f.writer) == GIDD_CHECKPOINT_IDLE);
    MPI_TEST_CHECK(t, gidd_checkpoint_committed_step(f.writer) == -1);
    begin(t, &f, 1, WHOLE);
    state_fill(&f.state, 999);
    MPI_TEST_CHECK(t, gidd_checkpoint_writer_state(f.writer) != GIDD_CHECKPOINT_IDLE);
    for (int stage = 0; gidd_checkpoint_writer_state(f.writer) != GIDD_CHECKPOINT_IDLE; stage++) {
        while (gidd_checkpoint_writer_state(f.writer) == GIDD_CHECKPOINT_WRITING) {
            (void)usleep(1000);
        }
        MPI_TEST_CHECK(t, gidd_checkpoint_writer_state(f.writer) == GIDD_CHECKPOINT_DONE);
        MPI_TEST_CHECK(t, gidd_checkpoint_committed_step(f.writer) == -1);
        MPI_TEST_OK(t, gidd_checkpoint_advance(f.writer));
        MPI_TEST_CHECK(t, stage < 2);
    }
    MPI_TEST_CHECK(t, gidd_checkpoint_committed_step(f.writer) == 1);
    MPI_TEST_CHECK(t, t->rank != 0 || state_file_is_right(&f, 1));
    teardown(t, &f);
}

static void retention_keeps_the_newest_and_the_milestones(mpi_test *t)
{
    static const int64_t steps[] = {50, 100, 150, 200, 250, 260};
    fixture f;
    setup(t, &f, BACKGROUND);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        write_step(t, &f, steps[i], WHOLE);
    }
    MPI_TEST_CHECK(t, !is_there(&f, 50) && is_there(&f, 100) && !is_there(&f, 150));
    MPI_TEST_CHECK(t, is_there(&f, 200) && is_there(&f, 250) && is_there(&f, 260));
    MPI_TEST_CHECK(t, count_kind(t, &f, GIDD_CHECKPOINT_COMPLETE) == 4);
    MPI_TEST_CHECK(t, count_kind(t, &f, GIDD_CHECKPOINT_UNFINISHED) == 0);
    teardown(t, &f);
}

/* ---- the way back -----------------------------------------------------------------------------
 */

static gidd_status restore(mpi_test *t, const fixture *f, gidd_checkpoint **out_p)
{
    return gidd_checkpoint_restore(&(gidd_checkpoint_restore_args){.comm = t->set.world,
                                                                   .run_dir = f->run_dir,
                                                                   .lock = f->lock},
                                   out_p);
}

// Restores and says which step came back; 0: none there; -1: an error.
static int64_t restored_step(mpi_test *t, const fixture *f)
{
    gidd_checkpoint *checkpoint = NULL;
    gidd_status status = restore(t, f, &checkpoint);
    int64_t step = status != GIDD_OK    ? -1
                   : checkpoint == NULL ? 0
                                        : gidd_checkpoint_fields_of(checkpoint)->step;
    gidd_checkpoint_close(checkpoint);
    return step;
}

static void any_range_comes_back(mpi_test *t)
{
    fixture f;
    gidd_checkpoint *checkpoint = NULL;
    setup(t, &f, BACKGROUND);
    MPI_TEST_OK(t, restore(t, &f, &checkpoint));
    MPI_TEST_CHECK(t, checkpoint == NULL);
    write_step(t, &f, 11, PIECES);
    write_step(t, &f, 12, WHOLE);
    MPI_TEST_OK(t, restore(t, &f, &checkpoint));
    if (checkpoint != NULL) {
        const gidd_checkpoint_fields *fields = gidd_checkpoint_fields_of(checkpoint);
        gidd_checkpoint_fields want = state_fields(12, t->size);
        MPI_TEST_CHECK(t, fields->step == 12 && fields->sample_cursor == want.sample_cursor);
        MPI_TEST_CHECK(t, fields->seed == -1 && fields->skipped_total == 2);
        MPI_TEST_CHECK(t, fields->metrics_bytes == 1200 && fields->world_size == t->size);
        MPI_TEST_CHECK(
            t, strcmp(gidd_checkpoint_text_find(fields->texts, fields->text_count, "config"),
                      want.texts[0].value) == 0);
        MPI_TEST_CHECK(t,
                       gidd_checkpoint_text_find(fields->texts, fields->text_count, "x") == NULL);
        MPI_TEST_OK(t, gidd_checkpoint_layout_compare(gidd_checkpoint_layout_of(checkpoint),
                                                      &f.state.layout));
        int64_t elements = f.state.layout.elements,
                firsts[] = {0, 1, 1048575, 1048576, elements - 1};
        float *values = malloc((size_t)elements * sizeof *values);
        for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
            int64_t first = firsts[i], count = i == 0 ? elements : (elements - first + 1) / 2;
            int section = t->rank % STATE_SECTIONS;
            MPI_TEST_OK(t, gidd_checkpoint_read(checkpoint, section, first, count, values));
            for (int64_t k = 0; k < count; k++) {
                MPI_TEST_CHECK(t, values[k] == state_value(section, first + k, 12));
            }
        }
        free(values);
    }
    gidd_checkpoint_close(checkpoint);
    teardown(t, &f);
}

// What the coordinator learns while the write is going on still gets into the manifest.
static void late_facts_reach_the_manifest(mpi_test *t)
{
    fixture f;
    gidd_checkpoint *checkpoint = NULL;
    const gidd_checkpoint_text late_text = {"journal", "late"};
    setup(t, &f, BACKGROUND);
    begin(t, &f, 3, WHOLE);
    if (t->rank == 0) {
        MPI_TEST_OK(t, gidd_checkpoint_amend(
                           f.writer, &(gidd_checkpoint_amendment){.metrics_bytes = 4711,
                                                                  .tokens_seen = 5,
                                                                  .skipped_total = 6,
                                                                  .skipped_in_row = 1,
                                                                  .texts = &late_text,
                                                                  .text_count = 1}));
    }
    MPI_TEST_OK(t, gidd_checkpoint_finish(f.writer));
    MPI_TEST_OK(t, restore(t, &f, &checkpoint));
    if (checkpoint != NULL) {
        const gidd_checkpoint_fields *fields = gidd_checkpoint_fields_of(checkpoint);
        const char *late = gidd_checkpoint_text_find(fields->texts, fields->text_count, "journal");
        MPI_TEST_CHECK(t, fields->metrics_bytes == 4711 && fields->tokens_seen == 5);
        MPI_TEST_CHECK(t, fields->skipped_total == 6 && fields->skipped_in_row == 1);
        MPI_TEST_CHECK(t, late != NULL && strcmp(late, "late") == 0);
    }
    gidd_checkpoint_close(checkpoint);
    teardown(t, &f);
}

// Flips one bit, or puts it right again.
static void flip(mpi_test *t, const char *path, int64_t offset)
{
    char byte = 0;
    int fd = open(path, O_RDWR);
    MPI_TEST_CHECK(t, pread(fd, &byte, 1, offset) == 1);
    byte = (char)(byte ^ 4);
    MPI_TEST_CHECK(t, pwrite(fd, &byte, 1, offset) == 1);
    MPI_TEST_CHECK(t, close(fd) == 0);
}

// After a restore set it aside: back to its place, for the next kind of damage.
static void unquarantine(mpi_test *t, const fixture *f, int64_t step)
{
    char path[256], damaged[300];
    MPI_TEST_OK(t, gidd_comm_barrier(t->set.world)); // everybody has looked
    step_path(f, step, "", path);
    (void)snprintf(damaged, sizeof damaged, "%s.damaged-1", path);
    MPI_TEST_CHECK(t, t->rank != 0 || rename(damaged, path) == 0);
}

// A flipped bit in every block of the newest: always noticed, the older one used, the damaged set
// aside.
static void damage_in_any_block_is_noticed(mpi_test *t)
{
    fixture f;
    char path[256];
    setup(t, &f, BACKGROUND);
    write_step(t, &f, 1, WHOLE);
    write_step(t, &f, 2, WHOLE);
    step_path(&f, 2, "state.bin", path);
    for (int64_t block = 0; block < gidd_checkpoint_block_count(&f.state.layout); block++) {
        int64_t offset = block * GIDD_CHECKPOINT_BLOCK + block * 371 % GIDD_CHECKPOINT_BLOCK;
        if (t->rank == 0) {
            flip(t, path, offset);
        }
        MPI_TEST_CHECK(t, restored_step(t, &f) == 1);
        MPI_TEST_CHECK(t, !is_there(&f, 2));
        unquarantine(t, &f, 2);
        if (t->rank == 0) {
            flip(t, path, offset);
        }
    }
    MPI_TEST_CHECK(t, restored_step(t, &f) == 2);
    teardown(t, &f);
}

static void copy_file(mpi_test *t, const char *from, const char *to)
{
    char command[640];
    (void)snprintf(command, sizeof command, "cp %s %s", from, to);
    MPI_TEST_CHECK(t, t->rank != 0 || system(command) == 0);
}

// Cut at every block, then the right length with a hole of zeros, then no file at all.
static void lost_bytes_are_noticed(mpi_test *t)
{
    fixture f;
    char path[256], backup[256];
    setup(t, &f, BACKGROUND);
    write_step(t, &f, 1, WHOLE);
    write_step(t, &f, 2, WHOLE);
    step_path(&f, 2, "state.bin", path);
    (void)snprintf(backup, sizeof backup, "%s/backup", f.run_dir);
    copy_file(t, path, backup);
    int64_t bytes = gidd_checkpoint_state_bytes(&f.state.layout);
    for (int64_t cut = 0; cut < bytes; cut += GIDD_CHECKPOINT_BLOCK) {
        MPI_TEST_CHECK(t, t->rank != 0 || truncate(path, cut + 17) == 0);
        MPI_TEST_CHECK(t, restored_step(t, &f) == 1);
        unquarantine(t, &f, 2);
        MPI_TEST_CHECK(t, t->rank != 0 || truncate(path, bytes) == 0);
        MPI_TEST_CHECK(t, restored_step(t, &f) == 1);
        unquarantine(t, &f, 2);
        copy_file(t, backup, path);
    }
    MPI_TEST_CHECK(t, t->rank != 0 || truncate(path, bytes + 1) == 0); // a byte too many
    MPI_TEST_CHECK(t, restored_step(t, &f) == 1);
    unquarantine(t, &f, 2);
    MPI_TEST_CHECK(t, t->rank != 0 || truncate(path, bytes) == 0);
    MPI_TEST_CHECK(t, restored_step(t, &f) == 2);
    MPI_TEST_CHECK(t, t->rank != 0 || unlink(path) == 0);
    MPI_TEST_CHECK(t, restored_step(t, &f) == 1);
    teardown(t, &f);
}

// Each byte of the manifest, one bit at a time (every 29th byte here, every one in tests/io).
static void a_changed_manifest_is_noticed(mpi_test *t)
{
    fixture f;
    struct stat info = {0};
    char path[256], other[256];
    setup(t, &f, BACKGROUND);
    write_step(t, &f, 1, WHOLE);
    write_step(t, &f, 2, WHOLE);
    step_path(&f, 2, "manifest.json", path);
    MPI_TEST_CHECK(t, stat(path, &info) == 0);
    for (int64_t at = t->rank; t->rank == 0 && at < info.st_size; at += 29) {
        gidd_checkpoint *checkpoint = NULL;
        char folder[256];
        step_path(&f, 2, "", folder);
        flip(t, path, at);
        MPI_TEST_CHECK(t, gidd_checkpoint_open(folder, &checkpoint) == GIDD_ERR_CORRUPT);
        gidd_checkpoint_close(checkpoint);
        flip(t, path, at);
    }
    // Both files of another step, intact, under this step's name.
    step_path(&f, 1, "manifest.json", other);
    copy_file(t, other, path);
    step_path(&f, 1, "state.bin", other);
    step_path(&f, 2, "state.bin", path);
    copy_file(t, other, path);
    MPI_TEST_CHECK(t, restored_step(t, &f) == 1);
    MPI_TEST_CHECK(t, count_kind(t, &f, GIDD_CHECKPOINT_DAMAGED) == 1 && is_there(&f, 1));
    teardown(t, &f);
}

// Nothing intact is an error that stays one: never a silent start from step 0.
static void nothing_intact_is_an_error(mpi_test *t)
{
    fixture f;
    char path[256];
    gidd_checkpoint *checkpoint = NULL;
    setup(t, &f, BACKGROUND);
    for (int64_t step = 1; step <= 2; step++) {
        write_step(t, &f, step, WHOLE);
        step_path(&f, step, "state.bin", path);
        if (t->rank == 0) {
            flip(t, path, 12345);
        }
    }
    for (int start = 0; start < 2; start++) {
        MPI_TEST_CHECK(t, restore(t, &f, &checkpoint) == GIDD_ERR_CORRUPT && checkpoint == NULL);
        MPI_TEST_CHECK(t, count_kind(t, &f, GIDD_CHECKPOINT_DAMAGED) == 2);
    }
    teardown(t, &f);
}

/* ---- failures while writing -------------------------------------------------------------------
 */

static void limit_file_size(mpi_test *t, rlim_t bytes)
{
    struct rlimit limit;
    MPI_TEST_CHECK(t, getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    MPI_TEST_CHECK(t, setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

// The last rank runs into a full disk. All ranks learn it, the older checkpoint stands, and when
// there is room again the next one succeeds.
static void a_full_disk_costs_one_checkpoint(mpi_test *t)
{
    fixture f;
    setup(t, &f, BACKGROUND);
    write_step(t, &f, 1, PIECES);
    (void)signal(SIGXFSZ, SIG_IGN);
    if (t->rank == t->size - 1) {
        limit_file_size(t, (rlim_t)gidd_checkpoint_state_bytes(&f.state.layout) - 6000000);
    }
    begin(t, &f, 2, PIECES);
    MPI_TEST_CHECK(t, gidd_checkpoint_finish(f.writer) == GIDD_ERR_IO);
    MPI_TEST_CHECK(t, strstr(gidd_error_last()->text, "state.bin") != NULL);
    MPI_TEST_CHECK(t, gidd_checkpoint_writer_state(f.writer) == GIDD_CHECKPOINT_IDLE);
    MPI_TEST_CHECK(t, gidd_checkpoint_committed_step(f.writer) == 1);
    MPI_TEST_CHECK(t, !is_there(&f, 2));
    MPI_TEST_CHECK(t, t->rank != 0 || state_file_is_right(&f, 1));
    if (t->rank == t->size - 1) {
        limit_file_size(t, RLIM_INFINITY);
    }
    write_step(t, &f, 3, PIECES);
    MPI_TEST_CHECK(t, t->rank != 0 || state_file_is_right(&f, 3));
    MPI_TEST_CHECK(t, count_kind(t, &f, GIDD_CHECKPOINT_UNFINISHED) == 0);
    teardown(t, &f);
}

// A mistake in the extents is found before anything gets a final name.
static void gaps_and_overlaps_are_refused(mpi_test *t)
{
    fixture f;
    gidd_checkpoint_fields fields = state_fields(5, t->size);
    setup(t, &f, BACKGROUND);
    for (int mistake = 0; mistake < 3; mistake++) {
        int64_t count = state_extents_whole(&f.state, t->rank, f.extents);
        if (t->rank == 0) {
            gidd_checkpoint_extent *first = &f.extents[0];
            first->count -= mistake == 0;                  // one element missing
            count -= mistake == 1;                         // one extent missing
            first[0] = mistake == 2 ? first[1] : first[0]; // one twice
        }
        gidd_checkpoint_begin(f.writer, 5, t->rank == 0 ? &fields : NULL, f.extents, count);
        MPI_TEST_CHECK(t, gidd_checkpoint_finish(f.writer) == GIDD_ERR_ARG);
        MPI_TEST_CHECK(t, !is_there(&f, 5));
    }
    write_step(t, &f, 5, WHOLE);
    teardown(t, &f);
}

// Another job took the directory: nothing is renamed or deleted any more.
static void a_lost_lock_stops_the_commit(mpi_test *t)
{
    fixture f;
    gidd_run_lock *thief = NULL;
    setup(t, &f, BACKGROUND);
    write_step(t, &f, 1, WHOLE);
    begin(t, &f, 2, WHOLE);
    if (t->rank == 0) {
        MPI_TEST_OK(
            t,
            gidd_run_lock_acquire(
                &(gidd_run_lock_args){.run_dir = f.run_dir, .steal = 1, .settle_s = 0.01}, &thief));
    }
    MPI_TEST_OK(t, gidd_comm_barrier(t->set.world));
    MPI_TEST_CHECK(t, gidd_checkpoint_finish(f.writer) == GIDD_ERR_OUTPUT);
    MPI_TEST_CHECK(t, is_there(&f, 1) && !is_there(&f, 2));
    gidd_checkpoint_writer_destroy(f.writer);
    f.writer = NULL;
    MPI_TEST_CHECK(t, count_kind(t, &f, GIDD_CHECKPOINT_UNFINISHED) == 1); // the thief's to sweep
    gidd_run_lock_release(f.lock);
    f.lock = thief;
    MPI_TEST_CHECK(t, restored_step(t, &f) == 1);
    MPI_TEST_CHECK(t, count_kind(t, &f, GIDD_CHECKPOINT_UNFINISHED) == 0);
    teardown(t, &f);
}

int main(int argc, char **argv)
{
    static const mpi_test_case cases[] = {
        {"bytes_depend_on_the_state_alone", bytes_depend_on_the_state_alone, 1},
        {"training_goes_on_behind_a_write", training_goes_on_behind_a_write, 1},
        {"retention_keeps_the_newest_and_the_milestones",
         retention_keeps_the_newest_and_the_milestones, 1},
        {"any_range_comes_back", any_range_comes_back, 1},
        {"late_facts_reach_the_manifest", late_facts_reach_the_manifest, 1},
        {"damage_in_any_block_is_noticed", damage_in_any_block_is_noticed, 1},
        {"lost_bytes_are_noticed", lost_bytes_are_noticed, 1},
        {"a_changed_manifest_is_noticed", a_changed_manifest_is_noticed, 1},
        {"nothing_intact_is_an_error", nothing_intact_is_an_error, 1},
        {"a_full_disk_costs_one_checkpoint", a_full_disk_costs_one_checkpoint, 1},
        {"gaps_and_overlaps_are_refused", gaps_and_overlaps_are_refused, 1},
        {"a_lost_lock_stops_the_commit", a_lost_lock_stops_the_commit, 1},
    };
    gidd_log_set_level(GIDD_LOG_ERROR); // damage is announced by warnings, and meant here
    return mpi_test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
