/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_kind.h"

#include <string.h>

// One table: name, and whether the strict rule refuses it.
static const struct {
    const char *name;
    int refused; // under GIDD_CORPUS_STRICT
} counter_table[GIDD_CORPUS_COUNTERS] = {
    [GIDD_CORPUS_DOCUMENTS] = {"documents", 0},
    [GIDD_CORPUS_TEXT_BYTES] = {"text_bytes", 0},
    [GIDD_CORPUS_SKIPPED_EMPTY] = {"skipped_empty", 0},
    [GIDD_CORPUS_SKIPPED_TOO_LARGE] = {"skipped_too_large", 1},
    [GIDD_CORPUS_SKIPPED_SUFFIX] = {"skipped_suffix", 0},
    [GIDD_CORPUS_SKIPPED_LINK] = {"skipped_link", 1},
    [GIDD_CORPUS_SKIPPED_PATH] = {"skipped_path", 1},
    [GIDD_CORPUS_SKIPPED_NESTED] = {"skipped_nested", 1},
    [GIDD_CORPUS_SKIPPED_JSON] = {"skipped_json", 1},
    [GIDD_CORPUS_SKIPPED_KEY] = {"skipped_key", 1},
    [GIDD_CORPUS_SKIPPED_DAMAGED] = {"skipped_damaged", 1},
    [GIDD_CORPUS_SKIPPED_BOMB] = {"skipped_bomb", 1},
};

const char *gidd_corpus_counter_name(gidd_corpus_counter counter)
{
    return counter_table[counter].name;
}

void gidd_corpus_counts_add(gidd_corpus_counts *counts, const gidd_corpus_counts *more)
{
    for (int i = 0; i < GIDD_CORPUS_COUNTERS; i++) {
        counts->of[i] += more->of[i];
    }
}

size_t gidd_corpus_document_limit(const gidd_corpus_options *options)
{
    return options->document_bytes_max != 0 ? options->document_bytes_max : (size_t)64 << 20;
}

gidd_status gidd_corpus_skip(const gidd_corpus_options *options, gidd_corpus_counts *counts,
                             gidd_corpus_counter why, const char *archive, const char *name)
{
    counts->of[why]++;
    if (options->rule == GIDD_CORPUS_STRICT && counter_table[why].refused) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s%s%s: %s, refused by the strict rule", archive,
                         name[0] != '\0' ? ": " : "", name, counter_table[why].name);
    }
    return GIDD_OK;
}

static int ends_in(const char *name, size_t length, const char *ending, size_t ending_length)
{
    // The dot must be there, and something before it: ".txt" alone is a hidden file without ending.
    return length > ending_length + 1 && name[length - ending_length - 1] == '.' &&
           memcmp(name + length - ending_length, ending, ending_length) == 0;
}

static size_t without_compression(const char *name)
{
    static const char *const endings[] = {"gz", "xz", "zst"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (ends_in(name, length, endings[i], strlen(endings[i]))) {
            return length - strlen(endings[i]) - 1;
        }
    }
    return length;
}

static int in_list(const char *name, size_t length, const char *list)
{
    while (*list != '\0') {
        size_t item = strcspn(list, ",");
        size_t lead = strspn(list, " .");
        size_t used = item;
        while (used > lead && list[used - 1] == ' ') {
            used--;
        }
        if (used > lead && ends_in(name, length, list + lead, used - lead)) {
            return 1;
        }
        list += item;
        list += *list == ',' ? 1 : 0;
    }
    return 0;
}

int gidd_corpus_listed(const char *name, const char *suffixes)
{
    return in_list(name, without_compression(name), suffixes) ||
           in_list(name, strlen(name), suffixes);
}

gidd_corpus_type gidd_corpus_type_of(const char *name, const char *suffixes)
{
    size_t whole = strlen(name);
    size_t length = without_compression(name);
    gidd_corpus_type type = {.kind = GIDD_CORPUS_OTHER, .compressed = length != whole};
    if (in_list(name, length, "jsonl")) {
        type.kind = GIDD_CORPUS_JSONL;
    } else if (in_list(name, length, "tar,zip")) {
        type.kind = GIDD_CORPUS_ARCHIVE;
    } else if (in_list(name, whole, "tgz,txz,tzst")) {
        type = (gidd_corpus_type){.kind = GIDD_CORPUS_ARCHIVE, .compressed = 1};
    } else if (in_list(name, length, suffixes)) {
        type.kind = GIDD_CORPUS_TEXT;
    } else if (type.compressed) {
        type.kind = GIDD_CORPUS_PACKED;
    }
    return type;
}
