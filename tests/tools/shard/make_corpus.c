/* SPDX-License-Identifier: Apache-2.0
 *
 * make_corpus DIR: the inputs of test_shard_tool.sh. All hold the documents 0 .. 1499 in this
 * order. tokenizer/        the 256 bytes and <|endoftext|> texts/            a folder of .txt and
 * .rst.gz lines.jsonl  lines.jsonl.gz owt.tar.xz        OpenWebText's packing;  cut.tar.xz: one
 * inner archive of it is truncated
 */
#include "io/corpus_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOCUMENTS = 1500, PER_ARCHIVE = 100 };

static void write_texts(const char *folder)
{
    for (int i = 0; i < DOCUMENTS; i++) {
        char name[64];
        size_t size = 0, packed_size = 0;
        char *text = fixture_text(i, &size);
        if (i % 3 == 0) {
            char *packed = fixture_compress("gz", text, size, &packed_size);
            (void)snprintf(name, sizeof name, "texts/%02d/%05d.rst.gz", i / 100, i);
            fixture_write(fixture_path(folder, name), packed, packed_size);
            free(packed);
        } else {
            (void)snprintf(name, sizeof name, "texts/%02d/%05d.txt", i / 100, i);
            fixture_write(fixture_path(folder, name), text, size);
        }
        free(text);
    }
}

static void write_lines(const char *folder)
{
    size_t used = 0, size = 0, packed_size = 0;
    char *lines = malloc((size_t)DOCUMENTS * 6200);
    for (int i = 0; lines != NULL && i < DOCUMENTS; i++) {
        char *text = fixture_text(i, &size);
        used += (size_t)sprintf(lines + used, "{\"id\": %d, \"text\": \"", i);
        for (size_t k = 0; k < size; k++) {
            if (text[k] == '\n') {
                lines[used++] = '\\';
            }
            lines[used++] = (char)(text[k] == '\n' ? 'n' : text[k]);
        }
        used += (size_t)sprintf(lines + used, "\"}\n");
        free(text);
    }
    fixture_write(fixture_path(folder, "lines.jsonl"), lines, used);
    char *packed = fixture_compress("gz", lines, used, &packed_size);
    fixture_write(fixture_path(folder, "lines.jsonl.gz"), packed, packed_size);
    free(packed);
    free(lines);
}

static char *pack_inner(int first, size_t *size_p)
{
    fixture_archive *inner = fixture_archive_new("tar", "xz");
    for (int i = first; i < first + PER_ARCHIVE; i++) {
        char name[64];
        size_t size = 0;
        char *text = fixture_text(i, &size);
        (void)snprintf(name, sizeof name, "%07d-0123456789abcdef.txt", i);
        fixture_archive_add(inner, name, 'f', text, size);
        free(text);
    }
    return fixture_archive_end(inner, size_p);
}

static void write_archive(const char *path, int damaged)
{
    fixture_archive *outer = fixture_archive_new("tar", "xz");
    size_t size = 0;
    fixture_archive_add(outer, "openwebtext", 'd', NULL, 0);
    for (int k = 0; k < DOCUMENTS / PER_ARCHIVE; k++) {
        char name[64];
        char *inner = pack_inner(k * PER_ARCHIVE, &size);
        (void)snprintf(name, sizeof name, "openwebtext/urlsf_subset00-%d_data.xz", k);
        fixture_archive_add(outer, name, 'f', inner, k == damaged ? size / 2 : size);
        free(inner);
    }
    char *bytes = fixture_archive_end(outer, &size);
    fixture_write(path, bytes, size);
    free(bytes);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        return 64;
    }
    fixture_write(fixture_path(argv[1], "tokenizer/vocab.bpe"), "", 0);
    fixture_tokenizer(fixture_path(argv[1], "tokenizer"));
    write_texts(argv[1]);
    write_lines(argv[1]);
    write_archive(fixture_path(argv[1], "owt.tar.xz"), -1);
    write_archive(fixture_path(argv[1], "cut.tar.xz"), 9);
    return 0;
}
