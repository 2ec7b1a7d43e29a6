/* SPDX-License-Identifier: Apache-2.0
 *
 * Safetensors: what is written is read back, bytes are those of the format, and every kind of bad file is named
 * and refused.
 */
#include "io/safetensors.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 4096 };

typedef struct image {
    unsigned char bytes[FILE_MAX];
    size_t        size;
} image;

// A file of this header and so many bytes of data, counting up.
static void draw(image *file, const char *header, size_t data)
{
    size_t length = strlen(header);
    cr_assert(8 + length + data <= FILE_MAX);
    memset(file, 0, sizeof *file);
    file->bytes[0] = (unsigned char)(length & 0xff);
    file->bytes[1] = (unsigned char)(length >> 8);
    memcpy(file->bytes + 8, header, length);
    for (size_t i = 0; i < data; i++) {
        file->bytes[8 + length + i] = (unsigned char)i;
    }
    file->size = 8 + length + data;
}

// A copy of exactly the file's size, so that a sanitizer sees any read beyond it; lives until the next is opened.
static gidd_status open_image(const image *file, gidd_safetensors **reader_p)
{
    static unsigned char *copy;
    free(copy);
    copy = malloc(file->size > 0 ? file->size : 1);
    cr_assert(copy != NULL);
    memcpy(copy, file->bytes, file->size);
    return gidd_safetensors_open_memory("test.safetensors", copy, file->size, reader_p);
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define B "\"b\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[8,16]}"

/* Each breaks one rule; `story` is what the message must say. */
static const struct bad_file {
    const char *header;
    size_t      data;
    const char *story;
} bad_files[] = {
    {"", 0, "does not begin with '{'"},
    {" {" A "}", 8, "does not begin with '{'"},
    {"[1]", 0, "does not begin with '{'"},
    {"{" A, 8, "not valid JSON"},
    {"{" A "}x", 8, "not valid JSON"},
    {"{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "not valid JSON"},
    {"{\"a\\u0000\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "not valid JSON"},
    {"{" A "," A "}", 8, "not valid JSON: duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "duplicate"},
    {"{\"a\":1}", 8, "tensor a: its entry is not exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "tensor a: its entry is not exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "tensor a: its entry is not exactly"},
    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor a: unknown dtype"},
    {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor a: unknown dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "tensor a: its shape is no list"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "tensor a: its shape is no list"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "tensor a: extent 0"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "tensor a: extent 0"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,4611686018427387904],\"data_offsets\":[0,8]}}", 8, "tensor a: extent 1"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1099511627776,1099511627776],\"data_offsets\":[0,8]}}", 8, "tensor a: extent 1"},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[1125899906842624],\"data_offsets\":[0,8]}}", 8, "tensor a: 1125899906842624 elements"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "tensor a: its data_offsets are not two"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":{}}}", 8, "tensor a: its data_offsets are not two"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "tensor a: its data_offsets are not two"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "tensor a: its data_offsets are not two"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "tensor a: 3 elements of F32 do not take the 8 bytes"},
    {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor a: 2 elements of BF16 do not take"},
    {"{" A "," B "}", 12, "tensor b: its data end at byte 16, but the file has only 12"},
    {"{" A "," B "}", 20, "its tensors take 16 bytes, but 20"},
    {"{}", 4, "its tensors take 0 bytes, but 4"},
    {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "tensor b begins at byte 4 and overlaps a"},
    {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor b begins at byte 0 and overlaps a"},
    {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16, "tensor b begins at byte 12 and leaves a gap after a"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "tensor a begins at byte 4 and leaves a gap after the start"},
    {"{\"__metadata__\":[]," A "}", 8, "__metadata__ is no object"},
    {"{\"__metadata__\":{\"format\":1}," A "}", 8, "__metadata__: format is no string"},
};

Test(safetensors, refuses_bad_files)
{
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        image             file;
        gidd_safetensors *reader = NULL;
        draw(&file, bad_files[i].header, bad_files[i].data);
        gidd_status status = open_image(&file, &reader);
        cr_assert(status == GIDD_ERR_CORRUPT, "file %zu, %s: status %d", i, bad_files[i].header, (int)status);
        cr_assert(reader == NULL);
        cr_assert(strstr(gidd_error_last()->text, bad_files[i].story) != NULL, "file %zu: '%s' does not say '%s'", i,
                  gidd_error_last()->text, bad_files[i].story);
    }
    cr_assert(gidd_status_exit_code(GIDD_ERR_CORRUPT) == 65);
}

static void expect_story(const image *file, const char *story)
{
    gidd_safetensors *reader = NULL;
    cr_assert(open_image(file, &reader) == GIDD_ERR_CORRUPT);
    cr_assert(strstr(gidd_error_last()->text, story) != NULL, "'%s' does not say '%s'", gidd_error_last()->text, story);
}

Test(safetensors, refuses_bad_lengths)
{
    image file;
    draw(&file, "{" A "}", 8);
    memset(file.bytes, 0xff, 8); // also negative as a signed number
    expect_story(&file, "at most 16777216 are taken");
    memset(file.bytes, 0, 8);
    file.bytes[3] = 2; // 32 MiB
    expect_story(&file, "33554432 bytes, at most 16777216");
    file.bytes[3] = 0;
    file.bytes[1] = 8; // 2048: below the limit, beyond the file
    expect_story(&file, "goes beyond the end of the file");
}

Test(safetensors, every_cut_of_a_file_is_refused)
{
    image whole, cut;
    draw(&whole, "{" A "," B "}", 16);
    for (size_t size = 0; size < whole.size; size++) {
        gidd_safetensors *reader = NULL;
        cut = whole;
        cut.size = size;
        cr_assert(open_image(&cut, &reader) == GIDD_ERR_CORRUPT, "%zu of %zu bytes are taken", size, whole.size);
    }
}

Test(safetensors, accepts_what_the_format_allows)
{
    image             file;
    gidd_safetensors *reader = NULL;
    // any order, a scalar, an empty tensor, types that are not read, trailing spaces, no metadata
    draw(&file,
         "{\"z\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[8,16]},"
         "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]},"
         "\"e\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[4,4]},"
         "\"h\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}   ",
         16);
    cr_assert(open_image(&file, &reader) == GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert(gidd_safetensors_count(reader) == 4);
    cr_assert_str_eq(gidd_safetensors_at(reader, 0)->name, "h");
    cr_assert_str_eq(gidd_safetensors_at(reader, 3)->name, "z");
    cr_assert(gidd_safetensors_find(reader, "s")->count == 1 && gidd_safetensors_find(reader, "s")->dims == 0);
    cr_assert(gidd_safetensors_find(reader, "e")->count == 0);
    cr_assert(gidd_safetensors_find(reader, "nothing") == NULL);
    cr_assert(gidd_safetensors_metadata(reader, "format") == NULL);
    float value = 0;
    cr_assert(gidd_safetensors_read(reader, gidd_safetensors_find(reader, "z"), 0, 1, &value) == GIDD_ERR_CORRUPT);
    cr_assert(strstr(gidd_error_last()->text, "I64") != NULL);
    gidd_safetensors_close(reader);
}

Test(safetensors, expect_names_what_differs)
{
    image                          file;
    gidd_safetensors              *reader = NULL;
    const gidd_safetensors_tensor *tensor = NULL;
    draw(&file, "{" A "," B ",\"i\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[16,20]}}", 20);
    cr_assert(open_image(&file, &reader) == GIDD_OK);
    cr_assert(gidd_safetensors_expect(reader, "b", 2, (int64_t[]){1, 2}, &tensor) == GIDD_OK && tensor->first == 8);
    cr_assert(gidd_safetensors_expect(reader, "b", 1, (int64_t[]){2}, &tensor) == GIDD_ERR_CORRUPT);
    cr_assert(strstr(gidd_error_last()->text, "tensor b has shape [1, 2], must be [2]") != NULL, "%s", gidd_error_last()->text);
    cr_assert(gidd_safetensors_expect(reader, "i", 1, (int64_t[]){1}, &tensor) == GIDD_ERR_CORRUPT);
    cr_assert(strstr(gidd_error_last()->text, "tensor i has dtype I32") != NULL);
    cr_assert(gidd_safetensors_expect(reader, "c", 1, (int64_t[]){1}, &tensor) == GIDD_ERR_CORRUPT);
    cr_assert(strstr(gidd_error_last()->text, "tensor c is missing") != NULL);
    gidd_safetensors_close(reader);
}

Test(safetensors, converts_all_floating_types)
{
    static const uint16_t bf16[] = {0x3f80, 0xc000, 0x7f80, 0x0001};
    static const uint16_t fp16[] = {0x3c00, 0xc000, 0xfc00, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x8000};
    static const double   fp64[] = {1.0 + 0x1p-30, -1e300};
    image                 file;
    gidd_safetensors     *reader = NULL;
    float                 v[8];
    draw(&file,
         "{\"d\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]},"
         "\"f\":{\"dtype\":\"F16\",\"shape\":[8],\"data_offsets\":[16,32]},"
         "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[32,40]}}",
         40);
    unsigned char *data = file.bytes + file.size - 40;
    memcpy(data, fp64, sizeof fp64);
    memcpy(data + 16, fp16, sizeof fp16);
    memcpy(data + 32, bf16, sizeof bf16);
    cr_assert(open_image(&file, &reader) == GIDD_OK);
    cr_assert(gidd_safetensors_read(reader, gidd_safetensors_find(reader, "d"), 0, 2, v) == GIDD_OK);
    cr_assert(v[0] == 1.0F && isinf(v[1]) && v[1] < 0);
    cr_assert(gidd_safetensors_read(reader, gidd_safetensors_find(reader, "f"), 0, 8, v) == GIDD_OK);
    cr_assert(v[0] == 1.0F && v[1] == -2.0F && isinf(v[2]) && v[2] < 0 && v[3] == 0x1p-24F);
    cr_assert(v[4] == 0x3ffp-24F && v[5] == 0x1p-14F && v[6] == 65504.0F && v[7] == 0.0F && signbit(v[7]));
    cr_assert(gidd_safetensors_read(reader, gidd_safetensors_find(reader, "b"), 1, 3, v) == GIDD_OK);
    cr_assert(v[0] == -2.0F && isinf(v[1]) && v[2] == 0x1p-133F);
    gidd_safetensors_close(reader);
}

/* ---- files ------------------------------------------------------------------------------------------ */

static char folder[64], path[128];

static void make_folder(void)
{
    (void)strcpy(folder, "/tmp/gidd_safetensors_XXXXXX");
    cr_assert(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
}

static void remove_folder(void)
{
    (void)unlink(path);
    cr_assert(rmdir(folder) == 0, "something else is left in %s", folder);
}

static const gidd_safetensors_entry entries[] = {
    {"b.weight", GIDD_SAFETENSORS_F32, 2, {3, 2}},
    {"a", GIDD_SAFETENSORS_BF16, 1, {2}},
};
static const float numbers[] = {1, -0.0F, 3.25F, 1e-40F, 5, 6, 1.00390625F, -2};

static void write_numbers(void)
{
    gidd_safetensors_writer *writer = NULL;
    cr_assert(gidd_safetensors_writer_create(path, entries, 2, &writer) == GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert(gidd_safetensors_write(writer, numbers, 5) == GIDD_OK); // cut elsewhere than at the tensors' borders
    cr_assert(gidd_safetensors_write(writer, numbers + 5, 3) == GIDD_OK);
    cr_assert(access(path, F_OK) != 0, "the file has its name before it is whole");
    cr_assert(gidd_safetensors_writer_commit(writer) == GIDD_OK, "%s", gidd_error_last()->text);
    gidd_safetensors_writer_destroy(writer);
}

Test(safetensors, writes_the_bytes_of_the_format, .init = make_folder, .fini = remove_folder)
{
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"b.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]},"
                                 "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[24,28]}}";
    static const uint16_t halves[] = {0x3f80, 0xc000}; // 1.00390625 lies half-way: to even
    unsigned char         bytes[512];
    size_t                length = (sizeof header - 1 + 7) / 8 * 8;
    write_numbers();
    FILE *stream = fopen(path, "rb");
    cr_assert(stream != NULL);
    size_t size = fread(bytes, 1, sizeof bytes, stream);
    (void)fclose(stream);
    cr_assert(size == 8 + length + 28, "%zu bytes", size);
    cr_assert(bytes[0] == length && bytes[1] == 0);
    cr_assert(memcmp(bytes + 8, header, sizeof header - 1) == 0);
    cr_assert(bytes[8 + sizeof header - 1] == ' ' || length == sizeof header - 1);
    cr_assert(memcmp(bytes + 8 + length, numbers, 24) == 0);
    cr_assert(memcmp(bytes + 8 + length + 24, halves, 4) == 0);
}

Test(safetensors, reads_what_it_wrote, .init = make_folder, .fini = remove_folder)
{
    gidd_safetensors *reader = NULL;
    float             v[6];
    write_numbers();
    cr_assert(gidd_safetensors_open(path, &reader) == GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_str_eq(gidd_safetensors_metadata(reader, "format"), "pt");
    cr_assert(gidd_safetensors_read(reader, gidd_safetensors_find(reader, "b.weight"), 0, 6, v) == GIDD_OK);
    cr_assert(memcmp(v, numbers, sizeof v) == 0); // bits, also of -0 and of a subnormal number
    // a file that shrinks behind the reader's back is an error, no crash
    cr_assert(truncate(path, 100) == 0);
    cr_assert(gidd_safetensors_read(reader, gidd_safetensors_find(reader, "a"), 0, 2, v) == GIDD_ERR_CORRUPT);
    cr_assert(strstr(gidd_error_last()->text, "shorter") != NULL);
    gidd_safetensors_close(reader);
}

Test(safetensors, a_file_is_whole_or_not_there, .init = make_folder, .fini = remove_folder)
{
    gidd_safetensors_writer *writer = NULL;
    cr_assert(gidd_safetensors_writer_create(path, entries, 2, &writer) == GIDD_OK);
    cr_assert(gidd_safetensors_write(writer, numbers, 7) == GIDD_OK);
    cr_assert(gidd_safetensors_writer_commit(writer) == GIDD_ERR_ARG); // one is missing
    cr_assert(gidd_safetensors_write(writer, numbers, 2) == GIDD_ERR_ARG); // one too many
    gidd_safetensors_writer_destroy(writer); // remove_folder sees that nothing is left
    const gidd_safetensors_entry twice[] = {entries[0], entries[0]}, bad = {"\xff", GIDD_SAFETENSORS_F32, 1, {1}};
    cr_assert(gidd_safetensors_writer_create(path, twice, 2, &writer) == GIDD_ERR_ARG);
    cr_assert(gidd_safetensors_writer_create(path, &bad, 1, &writer) == GIDD_ERR_ARG);
    cr_assert(gidd_safetensors_writer_create("/nowhere/x.safetensors", entries, 2, &writer) == GIDD_ERR_OUTPUT);
}

Test(safetensors, names_what_cannot_be_opened, .init = make_folder, .fini = remove_folder)
{
    gidd_safetensors *reader = NULL;
    cr_assert(gidd_safetensors_open(path, &reader) == GIDD_ERR_MISSING);
    cr_assert(strstr(gidd_error_last()->text, "model.safetensors") != NULL);
    cr_assert(gidd_safetensors_open(folder, &reader) == GIDD_ERR_CORRUPT); // a folder
    cr_assert(gidd_safetensors_open("/dev/null", &reader) == GIDD_ERR_CORRUPT);
}
