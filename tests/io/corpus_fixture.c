/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_fixture.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void must(int good, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "fixture: %s: %s\n", what, strerror(errno));
        abort();
    }
}

void fixture_folder(char folder[256])
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(folder, 256, "%s/gidd-io-XXXXXX", base != NULL ? base : "/tmp");
    must(mkdtemp(folder) != NULL, folder);
}

static int remove_one(const char *path, const struct stat *facts, int type, struct FTW *walk)
{
    (void)facts;
    (void)type;
    (void)walk;
    return remove(path);
}

void fixture_remove(const char *folder)
{
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *fixture_path(const char *folder, const char *name)
{
    static char paths[8][1024];
    static int next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

void fixture_write(const char *path, const void *bytes, size_t size)
{
    char partial[1024];
    (void)snprintf(partial, sizeof partial, "%s", path);
    for (char *slash = strchr(partial + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(partial, 0777);
        *slash = '/';
    }
    FILE *file = fopen(path, "wb");
    must(file != NULL, path);
    must(fwrite(bytes, 1, size, file) == size, path);
    must(fclose(file) == 0, path);
}

char *fixture_read(const char *path, size_t *size_p)
{
    FILE *file = fopen(path, "rb");
    must(file != NULL, path);
    must(fseek(file, 0, SEEK_END) == 0, path);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(size + 1);
    must(bytes != NULL && fread(bytes, 1, size, file) == size, path);
    bytes[size] = '\0';
    (void)fclose(file);
    *size_p = size;
    return bytes;
}

char *fixture_text(int64_t number, size_t *size_p)
{
    uint64_t state = (uint64_t)number * 0x9E3779B97F4A7C15u + 1;
    size_t size = 1 + (size_t)((state >> 33) % 3000);
    char *text = malloc(size + 1);
    must(text != NULL, "text");
    for (size_t i = 0; i < size; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        text[i] = (state >> 60) == 0   ? ' '
                  : (state >> 60) == 1 ? '\n'
                                       : (char)('a' + (state >> 59) % 26);
    }
    text[size] = '\0';
    *size_p = size;
    return text;
}

struct fixture_archive {
    struct archive *archive;
    char *bytes;
    size_t used;
    size_t room;
};

static la_ssize_t keep(struct archive *archive, void *context, const void *bytes, size_t size)
{
    fixture_archive *out = context;
    (void)archive;
    if (out->used + size > out->room) {
        out->room = (out->used + size) * 2;
        out->bytes = realloc(out->bytes, out->room);
        must(out->bytes != NULL, "archive");
    }
    memcpy(out->bytes + out->used, bytes, size);
    out->used += size;
    return (la_ssize_t)size;
}

fixture_archive *fixture_archive_new(const char *format, const char *filter)
{
    fixture_archive *out = calloc(1, sizeof *out);
    must(out != NULL, "archive");
    out->archive = archive_write_new();
    struct archive *a = out->archive;
    must(archive_write_set_bytes_per_block(a, 0) == ARCHIVE_OK, "block");
    if (strcmp(filter, "gz") == 0) {
        must(archive_write_add_filter_gzip(a) == ARCHIVE_OK, filter);
        must(archive_write_set_filter_option(a, "gzip", "timestamp", NULL) == ARCHIVE_OK, filter);
    } else if (strcmp(filter, "xz") == 0) {
        must(archive_write_add_filter_xz(a) == ARCHIVE_OK, filter);
        must(archive_write_set_filter_option(a, "xz", "compression-level", "1") == ARCHIVE_OK,
             filter);
    } else if (strcmp(filter, "zst") == 0) {
        must(archive_write_add_filter_zstd(a) == ARCHIVE_OK, filter);
    }
    if (strcmp(format, "tar") == 0) {
        must(archive_write_set_format_pax_restricted(a) == ARCHIVE_OK, format);
    } else if (strcmp(format, "zip") == 0) {
        must(archive_write_set_format_zip(a) == ARCHIVE_OK, format);
    } else {
        must(archive_write_set_format_raw(a) == ARCHIVE_OK, format);
    }
    must(archive_write_open(a, out, NULL, keep, NULL) == ARCHIVE_OK, "open");
    return out;
}

void fixture_archive_add(fixture_archive *out, const char *name, char kind, const void *bytes,
                         size_t size)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_filetype(entry, kind == 'd'   ? AE_IFDIR
                                      : kind == 'l' ? AE_IFLNK
                                      : kind == 'c' ? AE_IFCHR
                                                    : AE_IFREG);
    archive_entry_set_size(entry, kind == 'f' ? (int64_t)size : 0);
    if (kind == 'l') {
        archive_entry_set_symlink(entry, bytes);
    } else if (kind == 'h') {
        archive_entry_set_hardlink(entry, bytes);
    }
    must(archive_write_header(out->archive, entry) >= ARCHIVE_WARN, name);
    if (kind == 'f' && size > 0) {
        must(archive_write_data(out->archive, bytes, size) == (la_ssize_t)size, name);
    }
    archive_entry_free(entry);
}

char *fixture_archive_end(fixture_archive *out, size_t *size_p)
{
    must(archive_write_close(out->archive) == ARCHIVE_OK, "close");
    (void)archive_write_free(out->archive);
    char *bytes = out->bytes;
    *size_p = out->used;
    free(out);
    return bytes;
}

char *fixture_compress(const char *filter, const void *bytes, size_t size, size_t *size_p)
{
    fixture_archive *out = fixture_archive_new("raw", filter);
    fixture_archive_add(out, "", 'f', bytes, size);
    return fixture_archive_end(out, size_p);
}

// GPT-2's printable stand-in for a byte, as UTF-8.
static void print_byte(FILE *file, int byte)
{
    int plain = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    int code = byte, shift = 0;
    for (int b = 0; !plain && b < byte; b++) {
        shift += !((b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE);
    }
    code = plain ? byte : 256 + shift;
    if (code == '"' || code == '\\') {
        (void)fprintf(file, "\\%c", code);
    } else if (code < 0x80) {
        (void)fputc(code, file);
    } else {
        (void)fprintf(file, "%c%c", 0xC0 | (code >> 6), 0x80 | (code & 0x3F));
    }
}

void fixture_tokenizer(const char *folder)
{
    fixture_write(fixture_path(folder, "vocab.bpe"), "#version: 0.2\n", strlen("#version: 0.2\n"));
    FILE *file = fopen(fixture_path(folder, "encoder.json"), "w");
    must(file != NULL, folder);
    (void)fputc('{', file);
    for (int byte = 0; byte < 256; byte++) {
        (void)fputc('"', file);
        print_byte(file, byte);
        (void)fprintf(file, "\": %d, ", byte);
    }
    (void)fputs("\"<|endoftext|>\": 256}", file);
    must(fclose(file) == 0, folder);
}
