/* SPDX-License-Identifier: Apache-2.0
 *
 * A checkpoint's state.bin, damaged as the input says: records of six bytes {what, position (4), value}.
 * Any byte changed, cut off or added is found; an intact file is accepted.
 */
#include "fuzz/fuzz.h"

#include "comm/comm.h"
#include "io/checkpoint_manifest.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ELEMENTS = 1000, RECORD = 6, STATE_BYTES = GIDD_CHECKPOINT_BLOCK, LONGEST = STATE_BYTES + 4096 };

static const char    step_name[] = "/checkpoints/step-000000007";
static char          run_folder[600];
static uint8_t       sound[STATE_BYTES], damaged[LONGEST];
static int           state_file = -1;
static gidd_comm_set comms; // the file is read through MPI

// "/NAME" lies in the run's folder, "./NAME" in the checkpoint's; borrowed until the next call.
static const char *in_run(const char *name)
{
    static char path[800];
    int         inside = name[0] == '.';
    (void)snprintf(path, sizeof path, "%s%s%s", run_folder, inside ? step_name : "", name + inside);
    return path;
}

static void write_manifest(void)
{
    gidd_checkpoint_tensor tensor = {.name = "w", .dims = 1, .shape = {ELEMENTS, 1}};
    gidd_checkpoint_layout layout = {
        .tensors = &tensor, .tensor_count = 1, .elements = ELEMENTS, .section_count = 1, .sections = {"master"}};
    gidd_checkpoint_fields fields = {.step = 7, .world_size = 1, .build_id = "fuzz"};
    json_t                *root = NULL;
    char                  *text = NULL, digests[1][GIDD_DIGEST_SIZE];
    size_t                 bytes = 0;
    gidd_digest_of(sound, sizeof sound, digests[0]);
    FUZZ_CHECK(gidd_manifest_build(&layout, &fields, &root) == GIDD_OK);
    FUZZ_CHECK(gidd_manifest_encode(root, digests, 1, &text, &bytes) == GIDD_OK);
    FILE *file = fopen(in_run("./manifest.json"), "wbe");
    FUZZ_CHECK(file != NULL && fwrite(text, 1, bytes, file) == bytes && fclose(file) == 0);
    free(text);
    json_decref(root);
}

static void remove_checkpoint(void)
{
    static const char *const names[] = {"./manifest.json", "./state.bin", ".", "/checkpoints", "/"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        (void)remove(in_run(names[i]));
    }
    gidd_comm_set_finalize(&comms);
}

static void make_checkpoint(void)
{
    FUZZ_CHECK(gidd_comm_bootstrap(NULL, NULL, GIDD_COMM_TOOL, &comms) == GIDD_OK);
    for (int i = 0; i < ELEMENTS * 4; i++) {
        sound[i] = (uint8_t)(i * 31 + i / 256);
    }
    (void)snprintf(run_folder, sizeof run_folder, "%s-state", fuzz_folder());
    FUZZ_CHECK(mkdir(in_run("/"), 0777) == 0 && mkdir(in_run("/checkpoints"), 0777) == 0);
    FUZZ_CHECK(mkdir(in_run("."), 0777) == 0);
    (void)atexit(remove_checkpoint);
    write_manifest();
    state_file = open(in_run("./state.bin"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    FUZZ_CHECK(state_file >= 0);
}

// Fills `damaged`; returns its length.
static size_t apply_records(const uint8_t *data, size_t size)
{
    size_t length = STATE_BYTES;
    memcpy(damaged, sound, sizeof sound);
    for (size_t i = 0; i + RECORD <= size; i += RECORD) {
        uint32_t position = 0;
        memcpy(&position, data + i + 1, sizeof position);
        size_t at = position % STATE_BYTES;
        switch (data[i] % 3) {
        case 0:
            damaged[at] ^= data[i + 5];
            break;
        case 1:
            memset(damaged + at, 0, STATE_BYTES - at); // a hole of the right length
            break;
        default:
            length = data[i + 5] % 2 ? at : STATE_BYTES + at % 4096;
            break;
        }
    }
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gidd_checkpoint *checkpoint = NULL;
    unsigned char    bad = 0;
    if (state_file < 0) {
        make_checkpoint();
    }
    size_t length = apply_records(data, size);
    FUZZ_CHECK(pwrite(state_file, damaged, length, 0) == (ssize_t)length && ftruncate(state_file, (off_t)length) == 0);
    gidd_status status = gidd_checkpoint_open(run_folder, &checkpoint);
    if (status == GIDD_OK) {
        status = gidd_checkpoint_verify(checkpoint, 0, 1, &bad);
    }
    gidd_checkpoint_close(checkpoint);
    int accepted = status == GIDD_OK && !bad;
    FUZZ_CHECK(accepted == (length == STATE_BYTES && memcmp(damaged, sound, sizeof sound) == 0));
    return 0;
}
