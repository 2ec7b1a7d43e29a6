/* SPDX-License-Identifier: Apache-2.0
 *
 * The texts of the benchmarks: people's, or synthetic ones made from one seed.
 */
#include "base/rng.h"
#include "io/corpus.h"
#include "tools/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Documents in memory --------------------------------------------------------------------- */

static gidd_status grow(void **memory, size_t *room, size_t needed, size_t item)
{
    if (needed <= *room) {
        return GIDD_OK;
    }
    size_t larger = needed + needed / 2 + 4096;
    void *moved = realloc(*memory, larger * item);
    if (moved == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu bytes of text", larger * item);
    }
    *memory = moved;
    *room = larger;
    return GIDD_OK;
}

// starts[count] is where the document being written begins.
static gidd_status append_bytes(gidd_bench_texts *texts, size_t at, const void *bytes, size_t count)
{
    void *memory = texts->bytes;
    GIDD_TRY(grow(&memory, &texts->capacity, at + count, 1));
    texts->bytes = memory;
    memcpy(texts->bytes + at, bytes, count);
    return GIDD_OK;
}

static gidd_status end_document(gidd_bench_texts *texts, size_t at)
{
    void *memory = texts->starts;
    GIDD_TRY(grow(&memory, &texts->room, (size_t)texts->count + 2, sizeof *texts->starts));
    texts->starts = memory;
    texts->starts[0] = 0;
    texts->starts[++texts->count] = at;
    return GIDD_OK;
}

static size_t end_of(const gidd_bench_texts *texts)
{
    return texts->count > 0 ? texts->starts[texts->count] : 0;
}

void gidd_bench_texts_release(gidd_bench_texts *texts)
{
    free(texts->bytes);
    free(texts->starts);
    memset(texts, 0, sizeof *texts);
}

/* ---- Texts from files ------------------------------------------------------------------------ */

typedef struct reading {
    gidd_bench_texts *texts;
    const gidd_corpus_options *options;
} reading;

static gidd_status take_document(void *context, const uint8_t *text, size_t bytes)
{
    reading *r = context;
    size_t at = end_of(r->texts);
    GIDD_TRY(append_bytes(r->texts, at, text, bytes));
    return end_document(r->texts, at + bytes);
}

static gidd_status take_part(void *context, const gidd_corpus_part *part, int *stop_p)
{
    reading *r = context;
    gidd_corpus_counts counts;
    char digest[GIDD_DIGEST_SIZE];
    (void)stop_p;
    return gidd_corpus_part_read(part, r->options, take_document, r, &counts, digest);
}

static gidd_status read_texts(gidd_bench_texts *texts, const gidd_bench *bench)
{
    const gidd_corpus_options options = {.suffixes = bench->config->data.suffixes,
                                         .json_key = bench->config->data.json_key};
    gidd_corpus *corpus = NULL;
    gidd_corpus_counts counts;
    reading r = {texts, &options};
    GIDD_TRY(
        gidd_corpus_open(bench->options->paths, bench->options->path_count, &options, &corpus));
    gidd_status status = gidd_corpus_deal(corpus, take_part, &r, &counts);
    gidd_corpus_close(corpus);
    return status == GIDD_OK && texts->count == 0
               ? gidd_fail(GIDD_ERR_CORRUPT, "no text under the paths of the command line")
               : status;
}

/* ---- Synthetic text -------------------------------------------------------------------------- */

// The most frequent words are English, the long tail is made of syllables, ranks follow Zipf's law.
// That keeps the lengths of words and the share of repeated ones near those of prose, which is what
// a tokenizer's speed depends on; the text means nothing.
static const char *const common_words[] = {
    "the",   "of",    "and",     "to",   "in",    "a",     "is",    "that",  "for",   "it",
    "as",    "was",   "with",    "be",   "by",    "on",    "not",   "he",    "his",   "but",
    "at",    "are",   "this",    "have", "from",  "or",    "had",   "an",    "they",  "which",
    "one",   "you",   "were",    "all",  "her",   "she",   "there", "would", "their", "we",
    "him",   "been",  "has",     "when", "who",   "will",  "no",    "more",  "if",    "out",
    "so",    "up",    "said",    "what", "its",   "about", "than",  "into",  "them",  "can",
    "only",  "other", "time",    "new",  "some",  "could", "these", "two",   "may",   "first",
    "then",  "do",    "any",     "like", "my",    "now",   "over",  "such",  "our",   "man",
    "me",    "even",  "most",    "made", "after", "also",  "well",  "many",  "must",  "before",
    "years", "back",  "through", "much", "way",   "down",
};
static const char *const syllables[] = {
    "con", "ter", "re",  "ing", "tion", "al",  "ment", "ver", "per", "in",  "de",
    "ex",  "pro", "com", "ly",  "est",  "er",  "ac",   "sub", "tra", "for", "ma",
    "li",  "ni",  "so",  "can", "der",  "ful", "sta",  "mon", "pla", "vi",
};

enum {
    COMMON_COUNT = sizeof common_words / sizeof *common_words,
    SYLLABLE_COUNT = sizeof syllables / sizeof *syllables,
    WORD_COUNT = 40000,
    SENTENCE_WORDS = 18,
    PARAGRAPH_SENTENCES = 5,
    DOCUMENT_WORDS = 1400, /* about 8 KiB */
};

typedef struct text_writer {
    gidd_bench_texts *texts;
    size_t at;
    uint64_t drawn; /* numbers drawn so far */
} text_writer;

static uint64_t draw(text_writer *w, uint64_t bound)
{
    return gidd_uniform_below(GIDD_BENCH_SEED, GIDD_STREAM_TOKEN, w->drawn++, 0, bound);
}

// Rank r with probability about 1/r: the logarithm of the rank is uniform.
static int64_t draw_rank(text_writer *w)
{
    double u = gidd_uniform(GIDD_BENCH_SEED, GIDD_STREAM_TOKEN, w->drawn++, 0, 0);
    return (int64_t)(exp(u * log((double)WORD_COUNT + 1.0))) - 1;
}

static gidd_status put(text_writer *w, const char *word)
{
    size_t bytes = strlen(word);
    GIDD_TRY(append_bytes(w->texts, w->at, word, bytes));
    w->at += bytes;
    return GIDD_OK;
}

// The word of a rank is always the same one.
static gidd_status put_word(text_writer *w, int64_t rank)
{
    if (rank < COMMON_COUNT) {
        return put(w, common_words[rank]);
    }
    int64_t left = rank - COMMON_COUNT + SYLLABLE_COUNT;
    while (left > 0) {
        GIDD_TRY(put(w, syllables[left % SYLLABLE_COUNT]));
        left /= SYLLABLE_COUNT;
    }
    return GIDD_OK;
}

static gidd_status put_sentence(text_writer *w)
{
    int64_t words = 4 + (int64_t)draw(w, 2 * (SENTENCE_WORDS - 4));
    size_t first = w->at;
    char number[24];
    for (int64_t i = 0; i < words; i++) {
        GIDD_TRY(i > 0 ? put(w, draw(w, 12) == 0 ? ", " : " ") : GIDD_OK);
        if (draw(w, 60) == 0) {
            (void)snprintf(number, sizeof number, "%llu", (unsigned long long)draw(w, 3000));
            GIDD_TRY(put(w, number));
        } else {
            GIDD_TRY(put_word(w, draw_rank(w)));
        }
    }
    uint8_t *letter = &w->texts->bytes[first];
    *letter = (uint8_t)(*letter >= 'a' && *letter <= 'z' ? *letter - 'a' + 'A' : *letter);
    return put(w, ".");
}

static gidd_status put_document(text_writer *w)
{
    int64_t sentences = DOCUMENT_WORDS / SENTENCE_WORDS;
    for (int64_t i = 0; i < sentences; i++) {
        GIDD_TRY(put_sentence(w));
        GIDD_TRY(put(w, i + 1 == sentences                                   ? "\n"
                        : i % PARAGRAPH_SENTENCES == PARAGRAPH_SENTENCES - 1 ? "\n\n"
                                                                             : " "));
    }
    return end_document(w->texts, w->at);
}

static gidd_status make_texts(gidd_bench_texts *texts, double mib)
{
    text_writer w = {.texts = texts};
    while ((double)w.at < mib * 1048576.0) {
        GIDD_TRY(put_document(&w));
    }
    return GIDD_OK;
}

gidd_status gidd_bench_texts_init(gidd_bench_texts *texts, gidd_bench *bench, double mib)
{
    const int given = bench->options->path_count > 0;
    memset(texts, 0, sizeof *texts);
    GIDD_TRY(given ? read_texts(texts, bench) : make_texts(texts, mib));
    gidd_bench_report_text(bench->report, "input",
                           given ? "texts of the command line"
                                 : "synthetic English-like text, made from a seed");
    gidd_bench_report_count(bench->report, "documents", texts->count);
    gidd_bench_report_count(bench->report, "text_bytes", (int64_t)end_of(texts));
    return GIDD_OK;
}

const char *gidd_bench_tokenizer_folder(const gidd_config *config)
{
    const char *folder = getenv("GIDD_TOKENIZER_DIR");
    int is_default = strcmp(gidd_config_place(config, "data.tokenizer"), "default") == 0;
    return is_default && folder != NULL && folder[0] != '\0' ? folder : config->data.tokenizer;
}
