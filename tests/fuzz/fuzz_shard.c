/* SPDX-License-Identifier: Apache-2.0
 *
 * A shard file of any origin. First byte even: the rest is the file as it is (HDF5 itself reads it; the
 * library is not instrumented). Odd: the rest says how an HDF5 file that is nearly a shard is made, with
 * attributes, types, shapes and filters of its choice, so that our own checks see every variety.
 */
#include "fuzz/fuzz.h"

#include "base/log.h"
#include "io/shard_hdf5.h"

#include <string.h>

static const char tokenizer[] = "0123456789abcdef0123456789abcdef";
enum { VOCAB = 273, DOCUMENTS_MAX = 1 << 16, TOKENS_MAX = 1 << 22 };

typedef struct bytes {
    const uint8_t *at, *end;
} bytes;

static uint8_t take(bytes *b)
{
    return b->at < b->end ? *b->at++ : 0;
}

static int64_t take_number(bytes *b, int64_t usual)
{
    uint8_t how = take(b);
    return how < 128 ? usual : how < 160 ? (int64_t)((uint64_t)usual + take(b) - 128) : how < 180 ? INT64_MAX - take(b) : -(int64_t)take(b);
}

static void put_number(bytes *b, hid_t file, const char *name, int64_t usual)
{
    uint8_t how = take(b);
    if (how > 240) {
        return; // absent
    }
    hsize_t length = 3;
    int64_t values[3] = {take_number(b, usual)};
    hid_t   space = how > 220 ? H5Screate_simple(1, &length, NULL) : H5Screate(H5S_SCALAR);
    hid_t   attribute = H5Acreate2(file, name, how > 200 ? H5T_STD_I32LE : H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    (void)H5Awrite(attribute, H5T_NATIVE_INT64, values);
    (void)H5Aclose(attribute);
    (void)H5Sclose(space);
}

static void put_text(bytes *b, hid_t file, const char *name, const char *usual)
{
    char    value[80] = "";
    uint8_t how = take(b);
    (void)snprintf(value, sizeof value, "%s", usual);
    if (how > 240) {
        return;
    }
    value[how % 40] = how > 128 ? (char)take(b) : value[how % 40];
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    (void)H5Tset_size(type, how > 220 ? 70 : strlen(usual));
    (void)H5Tset_strpad(type, how > 200 ? H5T_STR_NULLTERM : H5T_STR_NULLPAD);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    (void)H5Awrite(attribute, type, value);
    (void)H5Aclose(attribute);
    (void)H5Sclose(space);
    (void)H5Tclose(type);
}

static void put_dataset(bytes *b, hid_t file, const char *name, hid_t type, hid_t memory, const void *values, hsize_t count)
{
    uint8_t how = take(b);
    hsize_t shape[2] = {count, 1}, chunk[2] = {how > 100 ? 7 : 16384, 1};
    int     dims = how > 230 ? 2 : 1;
    hid_t   space = how > 245 ? H5Screate(H5S_SCALAR) : H5Screate_simple(dims, shape, NULL);
    hid_t   plist = H5Pcreate(H5P_DATASET_CREATE);
    if (how < 220) {
        (void)H5Pset_chunk(plist, dims, chunk);
        (void)(how < 200 ? H5Pset_fletcher32(plist) : 0);
    }
    hid_t dataset = H5Dcreate2(file, name, how > 190 && how < 200 ? H5T_STD_I16LE : type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    if (how <= 245) {
        (void)H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    }
    (void)H5Dclose(dataset);
    (void)H5Pclose(plist);
    (void)H5Sclose(space);
}

static void make_shard(bytes *b, const char *path)
{
    uint16_t tokens[256];
    uint64_t offsets[16] = {0};
    hsize_t  documents = take(b) % 15, count = 0;
    hid_t    file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    for (hsize_t d = 0; d < documents; d++) {
        offsets[d + 1] = (uint64_t)take_number(b, (int64_t)(offsets[d] + 1 + take(b) % 16));
        count = offsets[d + 1] < 256 ? offsets[d + 1] : 255;
    }
    for (hsize_t i = 0; i < count; i++) {
        tokens[i] = (uint16_t)take_number(b, take(b));
    }
    put_text(b, file, "format", "gidd-shard");
    put_number(b, file, "version", GIDD_SHARD_VERSION);
    put_text(b, file, "tokenizer_digest", tokenizer);
    put_number(b, file, "vocab_size", VOCAB);
    put_number(b, file, "document_count", (int64_t)documents);
    put_number(b, file, "token_count", (int64_t)count);
    put_dataset(b, file, "tokens", H5T_STD_U16LE, H5T_NATIVE_UINT16, tokens, count);
    put_dataset(b, file, "offsets", H5T_STD_U64LE, H5T_NATIVE_UINT64, offsets, documents + 1);
    (void)H5Fclose(file);
}

// Returns what the index would have to say of it; document_count -1: no shard.
static gidd_shard_entry use_shard(const char *path)
{
    gidd_shard_entry entry = {.document_count = -1};
    gidd_shard_file  file = GIDD_SHARD_FILE_CLOSED;
    if (gidd_shard_file_open(path, "fuzz", tokenizer, VOCAB, &file) != GIDD_OK) {
        return entry;
    }
    entry.document_count = file.document_count;
    entry.token_count = file.token_count;
    FUZZ_CHECK(file.document_count >= 0 && file.token_count >= 0);
    if (file.document_count < DOCUMENTS_MAX) {
        uint64_t *offsets = malloc(((size_t)file.document_count + 1) * sizeof *offsets);
        FUZZ_CHECK(offsets != NULL);
        if (gidd_shard_file_offsets(&file, "fuzz", offsets) == GIDD_OK) {
            for (int64_t d = 0; d < file.document_count; d++) {
                FUZZ_CHECK(offsets[d] < offsets[d + 1] && offsets[d + 1] <= (uint64_t)file.token_count);
            }
        }
        free(offsets);
    }
    uint16_t ids[64];
    int64_t  some = file.token_count < 64 ? file.token_count : 64;
    (void)!gidd_shard_file_tokens(&file, "fuzz", file.token_count - some, some, ids);
    gidd_shard_file_close(&file);
    return entry;
}

// Whatever is damaged in it, what is to be left out are documents that it has.
static void prove_shard(const char *path, const gidd_shard_entry *entry)
{
    gidd_ranges damaged = {0};
    if (entry->document_count < 0 || entry->document_count >= DOCUMENTS_MAX || entry->token_count >= TOKENS_MAX) {
        return;
    }
    gidd_log_set_level(GIDD_LOG_ERROR); // damage that is left out is warned of
    (void)!gidd_shard_file_verify(path, entry, tokenizer, VOCAB, &damaged);
    for (int64_t i = 0; i < damaged.count; i++) {
        FUZZ_CHECK(damaged.at[i].first >= 0 && damaged.at[i].first < damaged.at[i].end);
        FUZZ_CHECK(damaged.at[i].end <= entry->document_count);
    }
    gidd_ranges_release(&damaged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bytes       b = {data + (size > 0), data + size};
    const char *path = fuzz_file("shard.h5", b.at, (size_t)(b.end - b.at));
    gidd_hdf5_lock();
    if (size > 0 && data[0] % 2 == 1) {
        make_shard(&b, path);
    }
    gidd_shard_entry entry = use_shard(path);
    gidd_hdf5_unlock();
    prove_shard(path, &entry);
    return 0;
}
