/* SPDX-License-Identifier: Apache-2.0
 *
 * make_owt WORDS OUTPUT.tar.xz GIGABYTES [SEED]: an archive of OpenWebText's shape out of nothing: a tar.xz of
 * "openwebtext/urlsf_subsetNN-K_data.xz", each a tar.xz of about 389 texts "NNNNNNN-....txt".
 *
 * WORDS has a word a line, the most frequent first; they are drawn by Zipf's law with Mandelbrot's shift. Lengths of
 * texts are log-normal with OpenWebText's mean of 4870 bytes. Sentences, paragraphs, capitals, contractions, numbers
 * and quotation marks (those of UTF-8 too) come about as often as on web pages. The text means nothing and compresses
 * about half as well as people's. The same arguments give the same bytes under one version of libarchive and liblzma.
 */
#include <archive.h>
#include <archive_entry.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXTS_PER_ARCHIVE = 389, ARCHIVES_PER_SUBSET = 1000, WORDS_MAX = 1 << 20, TEXT_MAX = 1 << 20 };

static const double MEAN_BYTES = 4870.0, SIGMA = 1.0, SHIFT = 2.7;

struct words {
    char *bytes;
    const char *of[WORDS_MAX];
    uint8_t length[WORDS_MAX];
    int count;
};

static uint64_t state;

static void fail(const char *what)
{
    (void)fprintf(stderr, "make_owt: %s\n", what);
    exit(1);
}

static uint64_t draw(void) // splitmix64
{
    uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static double uniform(void)
{
    return ((double)(draw() >> 11) + 0.5) / 9007199254740992.0;
}

static int below(int bound)
{
    return (int)(uniform() * bound);
}

static double normal(void)
{
    return sqrt(-2.0 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static struct words *read_words(const char *path)
{
    struct words *words = calloc(1, sizeof *words);
    FILE *file = fopen(path, "re");
    long size = 0;
    if (words == NULL || file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) <= 0) {
        fail("cannot read the words");
    }
    rewind(file);
    words->bytes = malloc((size_t)size + 1);
    if (words->bytes == NULL || fread(words->bytes, 1, (size_t)size, file) != (size_t)size) {
        fail("cannot read the words");
    }
    (void)fclose(file);
    words->bytes[size] = '\0';
    for (char *word = strtok(words->bytes, "\r\n"); word != NULL && words->count < WORDS_MAX; word = strtok(NULL, "\r\n")) {
        size_t length = strlen(word);
        if (length <= 32) {
            words->length[words->count] = (uint8_t)length;
            words->of[words->count++] = word;
        }
    }
    if (words->count < 100) {
        fail("fewer than 100 words");
    }
    return words;
}

/* ---- One text -------------------------------------------------------------------------------- */

static size_t put(char *at, const char *text)
{
    size_t length = strlen(text);
    memcpy(at, text, length);
    return length;
}

// The density of rank r is 1 / (r + SHIFT).
static size_t put_word(const struct words *words, char *at)
{
    double rank = SHIFT * pow(((double)words->count + SHIFT) / SHIFT, uniform()) - SHIFT;
    int index = (int)rank < words->count ? (int)rank : words->count - 1;
    memcpy(at, words->of[index], words->length[index]);
    return words->length[index];
}

static size_t put_sentence(const struct words *words, char *at)
{
    int count = 4 + (int)(14.0 * -log(uniform())), quoted = below(14) == 0;
    size_t used = quoted ? put(at, below(2) ? "\"" : "\u201c") : 0, start = used;
    count = count < 60 ? count : 60;
    for (int i = 0; i < count; i++) {
        int kind = below(400);
        used += i == 0 ? 0 : put(at + used, kind < 24 ? ", " : kind < 26 ? " - " : kind < 28 ? "; " : " ");
        size_t first = used;
        used += kind >= 40 && kind < 47 ? (size_t)sprintf(at + used, "%d", below(3000)) : put_word(words, at + used);
        if (kind >= 50 && kind < 66 && at[first] >= 'a' && at[first] <= 'z') {
            at[first] = (char)(at[first] - 'a' + 'A'); // a name
        }
        used += kind >= 70 && kind < 75 ? put(at + used, below(3) ? "'s" : "\u2019s") : 0;
    }
    if (at[start] >= 'a' && at[start] <= 'z') {
        at[start] = (char)(at[start] - 'a' + 'A');
    }
    int end = below(20);
    used += put(at + used, end == 0 ? "?" : end == 1 ? "!" : ".");
    return used + (quoted ? put(at + used, at[0] == '"' ? "\"" : "\u201d") : 0);
}

static size_t put_text(const struct words *words, char *at)
{
    double wanted = MEAN_BYTES * exp(SIGMA * normal() - SIGMA * SIGMA / 2.0);
    size_t used = 0;
    wanted = wanted < 30.0 ? 30.0 : wanted > TEXT_MAX / 2.0 ? TEXT_MAX / 2.0 : wanted;
    while ((double)used < wanted) {
        used += used == 0 ? 0 : put(at + used, below(4) == 0 ? "\n\n" : " ");
        used += put_sentence(words, at + used);
    }
    return used + put(at + used, "\n");
}

/* ---- Archives -------------------------------------------------------------------------------- */

static void add_member(struct archive *archive, const char *name, const void *bytes, size_t size)
{
    struct archive_entry *entry = archive_entry_new();
    if (entry == NULL) {
        fail("no memory");
    }
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)size);
    if (archive_write_header(archive, entry) != ARCHIVE_OK ||
        archive_write_data(archive, bytes, size) != (la_ssize_t)size) {
        fail(archive_error_string(archive));
    }
    archive_entry_free(entry);
}

static struct archive *new_archive(void)
{
    struct archive *archive = archive_write_new();
    if (archive == NULL || archive_write_set_format_ustar(archive) != ARCHIVE_OK ||
        archive_write_add_filter_xz(archive) != ARCHIVE_OK ||
        archive_write_set_filter_option(archive, "xz", "compression-level", "0") != ARCHIVE_OK) {
        fail("libarchive cannot write .tar.xz");
    }
    return archive;
}

static size_t pack_inner(const struct words *words, int64_t first, char *text, void *packed, size_t room,
                         int64_t *text_bytes)
{
    struct archive *inner = new_archive();
    size_t used = 0;
    if (archive_write_open_memory(inner, packed, room, &used) != ARCHIVE_OK) {
        fail(archive_error_string(inner));
    }
    for (int64_t i = first; i < first + TEXTS_PER_ARCHIVE; i++) {
        char name[64];
        size_t size = put_text(words, text);
        (void)snprintf(name, sizeof name, "%07lld-%016llx.txt", (long long)i, (unsigned long long)draw());
        add_member(inner, name, text, size);
        *text_bytes += (int64_t)size;
    }
    if (archive_write_close(inner) != ARCHIVE_OK) {
        fail(archive_error_string(inner));
    }
    (void)archive_write_free(inner);
    return used;
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5) {
        (void)fprintf(stderr, "usage: make_owt WORDS OUTPUT.tar.xz GIGABYTES [SEED]\n");
        return 64;
    }
    const struct words *words = read_words(argv[1]);
    const double wanted = strtod(argv[3], NULL) * 1e9;
    const size_t room = (size_t)TEXTS_PER_ARCHIVE * TEXT_MAX / 8;
    char *text = malloc(TEXT_MAX), *packed = malloc(room);
    struct archive *outer = new_archive();
    int64_t text_bytes = 0, texts = 0;
    state = argc == 5 ? strtoull(argv[4], NULL, 10) : 1;
    if (text == NULL || packed == NULL || archive_write_open_filename(outer, argv[2]) != ARCHIVE_OK) {
        fail("no memory, or the output cannot be created");
    }
    for (int64_t k = 0; (double)text_bytes < wanted; k++, texts += TEXTS_PER_ARCHIVE) {
        char name[96];
        size_t size = pack_inner(words, texts, text, packed, room, &text_bytes);
        (void)snprintf(name, sizeof name, "openwebtext/urlsf_subset%02lld-%lld_data.xz",
                       (long long)(k / ARCHIVES_PER_SUBSET), (long long)(k % ARCHIVES_PER_SUBSET));
        add_member(outer, name, packed, size);
    }
    if (archive_write_close(outer) != ARCHIVE_OK) {
        fail(archive_error_string(outer));
    }
    (void)archive_write_free(outer);
    (void)printf("%lld texts, %lld bytes of text\n", (long long)texts, (long long)text_bytes);
    free(packed);
    free(text);
    return 0;
}
