/* SPDX-License-Identifier: Apache-2.0
 *
 * shard_damager FILE.h5 KIND: changes a shard in a way that HDF5's own checksums do not notice, since
 * HDF5 itself writes it.
 *
 *   vocab     attribute vocab_size becomes 300
 *   version   attribute version becomes 2
 *   format    attribute format becomes "gidd-other"
 *   tokenizer attribute tokenizer_digest becomes another
 *   token     the last token becomes 65535
 *   offset    the second offset becomes 0: a document without ids
 *   count     attribute document_count becomes 1
 */
#include <hdf5.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int set_number(hid_t file, const char *name, int64_t value)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    int bad = attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, &value) < 0;
    return bad || H5Aclose(attribute) < 0;
}

static int set_text(hid_t file, const char *name, const char *value)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT), type = attribute >= 0 ? H5Aget_type(attribute) : -1;
    int bad = type < 0 || H5Tget_size(type) != strlen(value) || H5Awrite(attribute, type, value) < 0;
    return bad || H5Tclose(type) < 0 || H5Aclose(attribute) < 0;
}

// One value of a dataset; at -1: its last.
static int set_value(hid_t file, const char *name, hid_t type, hssize_t at, const void *value)
{
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = dataset >= 0 ? H5Dget_space(dataset) : -1;
    hsize_t one = 1;
    hid_t memory = H5Screate_simple(1, &one, NULL);
    hsize_t place = (hsize_t)(at >= 0 ? at : H5Sget_simple_extent_npoints(space) - 1);
    int bad = space < 0 || memory < 0 || H5Sselect_elements(space, H5S_SELECT_SET, 1, &place) < 0 ||
              H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, value) < 0;
    return bad || H5Sclose(memory) < 0 || H5Sclose(space) < 0 || H5Dclose(dataset) < 0;
}

static int change(hid_t file, const char *kind)
{
    const uint16_t token = 65535;
    const uint64_t offset = 0;
    if (strcmp(kind, "vocab") == 0) {
        return set_number(file, "vocab_size", 300);
    }
    if (strcmp(kind, "version") == 0) {
        return set_number(file, "version", 2);
    }
    if (strcmp(kind, "format") == 0) {
        return set_text(file, "format", "gidd-other");
    }
    if (strcmp(kind, "tokenizer") == 0) {
        return set_text(file, "tokenizer_digest", "0123456789abcdef0123456789abcdef");
    }
    if (strcmp(kind, "count") == 0) {
        return set_number(file, "document_count", 1);
    }
    if (strcmp(kind, "token") == 0) {
        return set_value(file, "tokens", H5T_NATIVE_UINT16, -1, &token);
    }
    return strcmp(kind, "offset") != 0 || set_value(file, "offsets", H5T_NATIVE_UINT64, 1, &offset);
}

int main(int argc, char **argv)
{
    hid_t file = argc == 3 ? H5Fopen(argv[1], H5F_ACC_RDWR, H5P_DEFAULT) : -1;
    int bad = file < 0 || change(file, argv[2]);
    bad |= file >= 0 && H5Fclose(file) < 0;
    if (bad) {
        (void)fprintf(stderr, "shard_damager: cannot do '%s'\n", argc == 3 ? argv[2] : "nothing");
    }
    return bad ? 1 : 0;
}
