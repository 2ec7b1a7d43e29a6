/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shard_look.h"

#include "io/shard.h"
#include "tokenizer/bpe.h"

#include <errno.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IDS_MAX = 65536, LENGTH_BINS = 32, BAR_COLUMNS = 40 };

/* ------------------------------------------------------------------ documents as texts */

// An open data set, its tokenizer, and one document of it.
struct look {
    gidd_shard_set *set;
    const gidd_shard_info *info;
    gidd_bpe *bpe;
    uint16_t *ids; // [room]
    int64_t count, room;
    uint8_t *text; // [text_room]
    size_t bytes, text_room;
};

static gidd_status open_look(const gidd_config *config, struct look *look)
{
    GIDD_TRY(gidd_shard_set_open(config->data.dir, &look->set));
    look->info = gidd_shard_set_info(look->set);
    GIDD_TRY(gidd_bpe_load(config->data.tokenizer, &look->bpe));
    if (strcmp(gidd_bpe_digest(look->bpe), look->info->tokenizer_digest) != 0) {
        return gidd_fail(GIDD_ERR_CORRUPT, "%s was made with another tokenizer than %s",
                         config->data.dir, config->data.tokenizer);
    }
    return GIDD_OK;
}

static void close_look(struct look *look)
{
    free(look->text);
    free(look->ids);
    gidd_bpe_destroy(look->bpe);
    gidd_shard_set_close(look->set);
}

static gidd_status load_ids(struct look *look, int64_t document)
{
    GIDD_TRY(gidd_shard_set_length(look->set, document, &look->count));
    if (look->count > look->room) {
        free(look->ids);
        look->room = look->count + look->count / 2;
        look->ids = malloc((size_t)look->room * sizeof *look->ids);
        if (look->ids == NULL) {
            look->room = 0;
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %lld ids", (long long)look->count);
        }
    }
    return gidd_shard_set_read(look->set, document, 0, look->count, look->ids);
}

static gidd_status decode(struct look *look, const uint16_t *ids, int64_t count)
{
    GIDD_TRY(gidd_bpe_decode(look->bpe, ids, (size_t)count, GIDD_BPE_SPECIALS_RENDER, NULL, 0, &look->bytes));
    if (look->bytes + 1 > look->text_room) {
        free(look->text);
        look->text_room = look->bytes + look->bytes / 2 + 1;
        look->text = malloc(look->text_room);
        if (look->text == NULL) {
            look->text_room = 0;
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for a text of %zu bytes", look->bytes);
        }
    }
    GIDD_TRY(gidd_bpe_decode(look->bpe, ids, (size_t)count, GIDD_BPE_SPECIALS_RENDER, look->text, look->text_room,
                             &look->bytes));
    look->text[look->bytes] = '\0';
    return GIDD_OK;
}

static gidd_status print_bytes(const void *bytes, size_t size)
{
    return fwrite(bytes, 1, size, stdout) == size
               ? GIDD_OK
               : gidd_fail(GIDD_ERR_IO, "cannot write standard output: %s", strerror(errno));
}

/* ------------------------------------------------------------------ info and show */

gidd_status gidd_shard_info_print(const gidd_config *config)
{
    gidd_shard_set *set = NULL;
    GIDD_TRY(gidd_shard_set_open(config->data.dir, &set));
    const gidd_shard_info *info = gidd_shard_set_info(set);
    int64_t bytes = 0;
    for (int64_t s = 0; s < info->shard_count; s++) {
        bytes += gidd_shard_set_entry(set, s)->file_bytes;
    }
    (void)printf(
        "documents: %lld\ntraining_documents: %lld\nvalid_documents: %lld\ntokens: %lld\n"
        "tokens_per_document: %.1f\nvocab_size: %d\nshards: %lld\nbytes: %lld\n"
        "tokenizer_digest: %s\ndata_digest: %s\n",
        (long long)info->document_count, (long long)(info->document_count - info->valid_documents),
        (long long)info->valid_documents, (long long)info->token_count,
        (double)info->token_count / (double)info->document_count, info->vocab_size,
        (long long)info->shard_count, (long long)bytes, info->tokenizer_digest, info->data_digest);
    gidd_shard_set_close(set);
    return GIDD_OK;
}

gidd_status gidd_shard_document_print(const gidd_config *config, int64_t document)
{
    struct look look = {0};
    gidd_status status = open_look(config, &look);
    if (status == GIDD_OK && document >= look.info->document_count) {
        status = gidd_fail(GIDD_ERR_USAGE, "document %lld of %lld (the first is 0)", (long long)document,
                           (long long)look.info->document_count);
    }
    if (status == GIDD_OK) {
        status = load_ids(&look, document);
    }
    if (status == GIDD_OK) {
        status = decode(&look, look.ids, look.count);
    }
    if (status == GIDD_OK) {
        status = print_bytes(look.text, look.bytes);
    }
    close_look(&look);
    return status;
}

/* ------------------------------------------------------------------ stats */

struct tally {
    int64_t of_id[IDS_MAX];
    int64_t of_length[LENGTH_BINS]; // bin b: 2^b <= length < 2^(b+1)
    int64_t shortest, longest;
};

static gidd_status count_all(struct look *look, struct tally *tally)
{
    tally->shortest = INT64_MAX;
    for (int64_t d = 0; d < look->info->document_count; d++) {
        GIDD_TRY(load_ids(look, d));
        int bin = 63 - __builtin_clzll((unsigned long long)look->count);
        tally->of_length[bin < LENGTH_BINS ? bin : LENGTH_BINS - 1]++;
        tally->shortest = look->count < tally->shortest ? look->count : tally->shortest;
        tally->longest = look->count > tally->longest ? look->count : tally->longest;
        for (int64_t i = 0; i < look->count; i++) {
            tally->of_id[look->ids[i]]++;
        }
    }
    return GIDD_OK;
}

static void print_lengths(const struct look *look, const struct tally *tally)
{
    static const char bar[BAR_COLUMNS + 1] = "########################################";
    int64_t most = 1;
    for (int b = 0; b < LENGTH_BINS; b++) {
        most = tally->of_length[b] > most ? tally->of_length[b] : most;
    }
    (void)printf("documents: %lld\ntokens: %lld\ntokens_per_document: %.1f (%lld .. %lld)\n\ntokens of a document\n",
                 (long long)look->info->document_count, (long long)look->info->token_count,
                 (double)look->info->token_count / (double)look->info->document_count, (long long)tally->shortest,
                 (long long)tally->longest);
    for (int b = 0; b < LENGTH_BINS; b++) {
        if (tally->of_length[b] > 0) {
            int columns = (int)((tally->of_length[b] * BAR_COLUMNS + most - 1) / most);
            (void)printf("%10lld .. %-10lld %12lld  %5.1f %%  %.*s\n", 1LL << b, (1LL << (b + 1)) - 1,
                         (long long)tally->of_length[b],
                         100.0 * (double)tally->of_length[b] / (double)look->info->document_count, columns, bar);
        }
    }
}

static int by_count(const void *left, const void *right, void *counts)
{
    const int64_t *of_id = counts;
    uint16_t a = *(const uint16_t *)left, b = *(const uint16_t *)right;
    return of_id[a] != of_id[b] ? (of_id[a] < of_id[b] ? 1 : -1) : (a > b) - (a < b);
}

// A token as a quoted word: what is no printable ASCII as \xHH.
static void print_token(const struct look *look)
{
    (void)putchar('"');
    for (size_t i = 0; i < look->bytes; i++) {
        uint8_t byte = look->text[i];
        if (byte < 0x20 || byte >= 0x7F || byte == '"' || byte == '\\') {
            (void)printf("\\x%02x", byte);
        } else {
            (void)putchar(byte);
        }
    }
    (void)printf("\"\n");
}

static gidd_status print_ids(struct look *look, struct tally *tally, uint16_t *order, int64_t top)
{
    int64_t used = 0, total = look->info->token_count;
    double entropy = 0.0;
    for (int32_t id = 0; id < look->info->vocab_size; id++) {
        double share = (double)tally->of_id[id] / (double)total;
        order[id] = (uint16_t)id;
        used += tally->of_id[id] > 0;
        entropy -= share > 0.0 ? share * log(share) : 0.0;
    }
    qsort_r(order, (size_t)look->info->vocab_size, sizeof *order, by_count, tally->of_id);
    (void)printf("\nids_used: %lld of %d\nentropy_nats_per_token: %.4f\n\nmost frequent ids\n", (long long)used,
                 look->info->vocab_size, entropy);
    for (int64_t i = 0; i < top && i < used; i++) {
        GIDD_TRY(decode(look, &order[i], 1));
        (void)printf("%10u %14lld  %6.3f %%  ", order[i], (long long)tally->of_id[order[i]],
                     100.0 * (double)tally->of_id[order[i]] / (double)total);
        print_token(look);
    }
    return GIDD_OK;
}

gidd_status gidd_shard_stats_print(const gidd_config *config, int64_t top)
{
    struct look look = {0};
    struct tally *tally = calloc(1, sizeof *tally);
    uint16_t *order = malloc(IDS_MAX * sizeof *order);
    gidd_status status =
        tally == NULL || order == NULL ? gidd_fail(GIDD_ERR_NOMEM, "no memory to count ids") : open_look(config, &look);
    if (status == GIDD_OK) {
        status = count_all(&look, tally);
    }
    if (status == GIDD_OK) {
        print_lengths(&look, tally);
        status = print_ids(&look, tally, order, top);
    }
    close_look(&look);
    free(order);
    free(tally);
    return status;
}

/* ------------------------------------------------------------------ grep */

// The lines of the loaded text that match, until `left` is used up.
static gidd_status grep_text(const struct look *look, const regex_t *expression, int64_t document, int64_t *left)
{
    const char *line = (const char *)look->text, *end = line + look->bytes;
    while (line < end && *left > 0) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *stop = newline != NULL ? newline : end;
        regmatch_t match = {.rm_so = 0, .rm_eo = (regoff_t)(stop - line)};
        if (regexec(expression, line, 1, &match, REG_STARTEND) == 0) {
            --*left;
            (void)printf("%lld:", (long long)document);
            GIDD_TRY(print_bytes(line, (size_t)(stop - line)));
            GIDD_TRY(print_bytes("\n", 1));
        }
        line = stop + 1;
    }
    return GIDD_OK;
}

static gidd_status grep_all(struct look *look, const regex_t *expression, int64_t limit)
{
    int64_t left = limit > 0 ? limit : INT64_MAX;
    for (int64_t d = 0; d < look->info->document_count && left > 0; d++) {
        GIDD_TRY(load_ids(look, d));
        GIDD_TRY(decode(look, look->ids, look->count));
        GIDD_TRY(grep_text(look, expression, d, &left));
    }
    return GIDD_OK;
}

gidd_status gidd_shard_grep_print(const gidd_config *config, const char *pattern, int64_t limit)
{
    struct look look = {0};
    regex_t expression;
    char why[128];
    int code = regcomp(&expression, pattern, REG_EXTENDED | REG_NEWLINE);
    if (code != 0) {
        (void)regerror(code, &expression, why, sizeof why);
        return gidd_fail(GIDD_ERR_USAGE, "'%s' is no regular expression: %s", pattern, why);
    }
    gidd_status status = open_look(config, &look);
    if (status == GIDD_OK) {
        status = grep_all(&look, &expression, limit);
    }
    close_look(&look);
    regfree(&expression);
    return status;
}
