/* SPDX-License-Identifier: Apache-2.0
 *
 * The GPT-2 judge against an independent float64 implementation (tests/golden/gpt2_vectors.py), and what it refuses.
 */
#include "io/safetensors.h"
#include "worker/judge.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char golden[] = GIDD_TEST_DATA "/../golden/gpt2/model.safetensors";
static const char expected[] = GIDD_TEST_DATA "/../golden/gpt2/expected.safetensors";

enum { B = 3, T = 16, V = 273 };

static gidd_device *open_device(const char *name)
{
    gidd_device *device = NULL;
    gidd_status  status =
        gidd_device_open(&(gidd_device_args){.name = name, .dtype = GIDD_F32, .threads = 1}, &device);
    cr_assert(status == GIDD_OK || status == GIDD_ERR_UNSUPPORTED, "%s", gidd_error_last()->text);
    return status == GIDD_OK ? device : NULL;
}

static float *read_expected(const char *name, int64_t *count_p)
{
    gidd_safetensors *file = NULL;
    cr_assert_eq(gidd_safetensors_open(expected, &file), GIDD_OK, "%s", gidd_error_last()->text);
    const gidd_safetensors_tensor *tensor = gidd_safetensors_find(file, name);
    cr_assert_not_null(tensor, "%s", name);
    float *values = malloc((size_t)tensor->count * sizeof *values);
    cr_assert_eq(gidd_safetensors_read(file, tensor, 0, tensor->count, values), GIDD_OK);
    *count_p = tensor->count;
    gidd_safetensors_close(file);
    return values;
}

static void check_close(const char *what, const float *got, const char *name, double tolerance)
{
    int64_t count = 0;
    float  *want = read_expected(name, &count);
    double  worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    }
    cr_assert(worst <= tolerance, "%s differ by %g", what, worst);
    free(want);
}

/* Logits up to 9, of some 20 sums of fp32 one after another. */
static void check_device(const char *name)
{
    gidd_device    *device = open_device(name);
    gidd_gpt2      *judge = NULL;
    gidd_gpt2_shape shape;
    int32_t         ids[B * T];
    int64_t         lengths[B], count = 0;
    static float    nll[B * T], logits[B * T * V];
    if (device == NULL) {
        return;
    }
    cr_assert_eq(gidd_judge_open(golden, device, B, &judge, &shape), GIDD_OK, "%s", gidd_error_last()->text);
    float *values = read_expected("ids", &count);
    for (int64_t i = 0; i < count; i++) {
        ids[i] = (int32_t)values[i];
    }
    free(values);
    values = read_expected("lengths", &count);
    for (int64_t b = 0; b < B; b++) {
        lengths[b] = (int64_t)values[b];
    }
    free(values);
    cr_assert_eq(gidd_gpt2_judge(judge, ids, lengths, B, T, nll), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(gidd_gpt2_read_logits(judge, logits), GIDD_OK);
    check_close("logits", logits, "logits", 2e-5);
    check_close("losses", nll, "nll", 2e-5);
    ids[3] = V;
    cr_assert_eq(gidd_gpt2_judge(judge, ids, lengths, B, T, nll), GIDD_ERR_ARG);
    gidd_gpt2_destroy(judge);
    gidd_device_close(device);
}

Test(judge, says_what_the_formulas_say)
{
    check_device("cpu");
}

Test(judge, and_so_do_the_cuda_sources)
{
    check_device("emu");
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

/* What a copy of the golden file is to look like. */
typedef struct change {
    const char *leave_out; /* a tensor's name, without prefix                     */
    const char *add;       /* a surplus tensor's name                             */
    int         bare;      /* names without the prefix                            */
    int         head;      /* 1: a tied lm_head.weight, 2: another one            */
    const char *config;    /* text of config.json; NULL: none; "": the golden one */
} change;

static char *folder_of(char *path)
{
    cr_assert_not_null(mkdtemp(path));
    return path;
}

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void copy_config(const char *folder)
{
    char   text[1024];
    FILE  *file = fopen(GIDD_TEST_DATA "/../golden/gpt2/config.json", "r");
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    text[bytes] = '\0';
    (void)fclose(file);
    write_text(folder, "config.json", text);
}

/* The golden file, changed, as FOLDER/model.safetensors. */
static void write_changed(const char *folder, const change *c)
{
    enum { MOST = 64, PREFIX = 12 }; /* "transformer." */
    gidd_safetensors              *from = NULL;
    gidd_safetensors_writer       *to = NULL;
    gidd_safetensors_entry         entries[MOST] = {{0}};
    const gidd_safetensors_tensor *source[MOST];
    int64_t                        count = 0;
    char                           path[600];
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    cr_assert_eq(gidd_safetensors_open(golden, &from), GIDD_OK);
    for (int64_t i = 0; i < gidd_safetensors_count(from); i++) {
        const gidd_safetensors_tensor *t = gidd_safetensors_at(from, i);
        if (c->leave_out != NULL && strcmp(t->name + PREFIX, c->leave_out) == 0) {
            continue;
        }
        source[count] = t;
        entries[count] = (gidd_safetensors_entry){.name = t->name + (c->bare ? PREFIX : 0), .dims = t->dims};
        memcpy(entries[count].shape, t->shape, sizeof t->shape);
        count++;
    }
    if (c->add != NULL || c->head != 0) {
        source[count] = gidd_safetensors_find(from, "transformer.wte.weight");
        entries[count] = entries[0];
        memcpy(entries[count].shape, source[count]->shape, sizeof source[count]->shape);
        entries[count].dims = source[count]->dims;
        entries[count].name = c->add != NULL ? c->add : "lm_head.weight";
        count++;
    }
    cr_assert_eq(gidd_safetensors_writer_create(path, entries, count, &to), GIDD_OK, "%s", gidd_error_last()->text);
    for (int64_t i = 0; i < count; i++) {
        float *values = malloc((size_t)source[i]->count * sizeof *values);
        cr_assert_eq(gidd_safetensors_read(from, source[i], 0, source[i]->count, values), GIDD_OK);
        if (c->head == 2 && i == count - 1) {
            values[7] += 1.0f;
        }
        cr_assert_eq(gidd_safetensors_write(to, values, source[i]->count), GIDD_OK);
        free(values);
    }
    cr_assert_eq(gidd_safetensors_writer_commit(to), GIDD_OK);
    gidd_safetensors_writer_destroy(to);
    gidd_safetensors_close(from);
    if (c->config != NULL && c->config[0] != '\0') {
        write_text(folder, "config.json", c->config);
    } else if (c->config != NULL) {
        copy_config(folder);
    }
}

static void remove_folder(const char *folder)
{
    char path[600];
    const char *const names[] = {"model.safetensors", "config.json", "samples.jsonl"};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static gidd_status open_changed(const change *c)
{
    char            folder[] = "/tmp/gidd-judge-XXXXXX", path[600];
    gidd_device    *device = open_device("cpu");
    gidd_gpt2      *judge = NULL;
    gidd_gpt2_shape shape;
    write_changed(folder_of(folder), c);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    gidd_status status = gidd_judge_open(path, device, 1, &judge, &shape);
    gidd_gpt2_destroy(status == GIDD_OK ? judge : NULL);
    gidd_device_close(device);
    remove_folder(folder);
    return status;
}

Test(judge, takes_names_as_published_in_both_ways)
{
    cr_assert_eq(open_changed(&(change){.config = ""}), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(open_changed(&(change){.config = "", .bare = 1}), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(open_changed(&(change){.config = "", .head = 1}), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(open_changed(&(change){.config = "", .add = "transformer.h.1.attn.bias"}), GIDD_OK, "%s",
                 gidd_error_last()->text);
}

static void refuse(const change *c, gidd_status status, const char *word)
{
    cr_assert_eq(open_changed(c), status, "%s: %s", word, gidd_error_last()->text);
    cr_assert_not_null(strstr(gidd_error_last()->text, word), "%s: %s", word, gidd_error_last()->text);
}

Test(judge, refuses_other_models)
{
    const char *head = "{\"n_embd\": 32, \"n_layer\": 2, \"n_head\": 4, \"n_positions\": 24, \"vocab_size\": 273";
    char        config[512];
    refuse(&(change){.config = "", .leave_out = "h.1.ln_2.bias"}, GIDD_ERR_CORRUPT, "h.1.ln_2.bias");
    refuse(&(change){.config = "", .add = "transformer.h.2.ln_1.weight"}, GIDD_ERR_CORRUPT, "h.2.ln_1.weight");
    refuse(&(change){.config = "", .head = 2}, GIDD_ERR_CORRUPT, "tied");
    refuse(&(change){.config = NULL}, GIDD_ERR_MISSING, "config.json");
    refuse(&(change){.config = "{"}, GIDD_ERR_CORRUPT, "config.json");
    refuse(&(change){.config = "[]"}, GIDD_ERR_CORRUPT, "n_embd");
    (void)snprintf(config, sizeof config, "%s, \"activation_function\": \"relu\"}", head);
    refuse(&(change){.config = config}, GIDD_ERR_CORRUPT, "gelu_new");
    (void)snprintf(config, sizeof config, "%s, \"layer_norm_epsilon\": 1e-6}", head);
    refuse(&(change){.config = config}, GIDD_ERR_CORRUPT, "layer_norm_epsilon");
    refuse(&(change){.config = "{\"n_embd\": 32, \"n_layer\": 2, \"n_head\": 5, \"n_positions\": 24, \"vocab_size\": 273}"},
           GIDD_ERR_CONFIG, "n_head");
    refuse(&(change){.config = "{\"n_embd\": 32, \"n_layer\": 2, \"n_head\": 4, \"n_positions\": 24, \"vocab_size\": 272}"},
           GIDD_ERR_CORRUPT, "wte.weight");
}

/* ---- Texts --------------------------------------------------------------------------------------------------- */

static gidd_status read_texts(const char *lines, int64_t longest, gidd_judge_texts *texts)
{
    char      folder[] = "/tmp/gidd-judge-XXXXXX", path[600];
    gidd_bpe *bpe = NULL;
    cr_assert_eq(gidd_bpe_load(GIDD_TEST_DATA "/../fixtures/tokenizer", &bpe), GIDD_OK);
    write_text(folder_of(folder), "samples.jsonl", lines);
    (void)snprintf(path, sizeof path, "%s/samples.jsonl", folder);
    gidd_status status = gidd_judge_texts_read(path, bpe, longest, texts);
    gidd_bpe_destroy(bpe);
    remove_folder(folder);
    return status;
}

/* Ids are turned into text and encoded anew: t, h, e of one byte each become one token. Ids 272 and 273, 274 are
 * <|endoftext|>, PAD and MASK. */
Test(judge, reads_texts_and_ids_alike)
{
    gidd_judge_texts texts;
    const char      *lines = "{\"text\": \"the\"}\n\n{\"ids\": [272, 83, 71, 68, 274, 273, 272, 65]}\n{\"text\": \"\"}\n"
                             "{\"ids\": [1], \"text\": \"the the the\"}\n";
    cr_assert_eq(read_texts(lines, 2, &texts), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert_eq(texts.count, 4);
    cr_assert_eq(texts.first[1], 1);
    cr_assert_eq(texts.first[2], 2);
    cr_assert_eq(texts.ids[1], texts.ids[0]);
    cr_assert_eq(texts.first[3], 2);
    cr_assert_eq(texts.first[4], 4); /* cut */
    cr_assert_eq(texts.cut, 1);
    gidd_judge_texts_release(&texts);
}

Test(judge, refuses_what_are_no_samples)
{
    const char *bad[] = {"", "\n", "{\"text\": \"a\"}\nx\n", "{\"text\": 3}\n", "[]\n", "{\"ids\": [275]}\n",
                         "{\"ids\": [-1]}\n", "{\"ids\": [1.5]}\n", "{\"text\": \"a\", \"text\": \"b\"}\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gidd_judge_texts texts;
        cr_assert_eq(read_texts(bad[i], 9, &texts), GIDD_ERR_CORRUPT, "%s", bad[i]);
        gidd_judge_texts_release(&texts);
    }
    gidd_judge_texts texts;
    gidd_bpe        *bpe = NULL;
    cr_assert_eq(gidd_bpe_load(GIDD_TEST_DATA "/../fixtures/tokenizer", &bpe), GIDD_OK);
    cr_assert_eq(gidd_judge_texts_read("/nowhere/samples.jsonl", bpe, 9, &texts), GIDD_ERR_MISSING);
    gidd_judge_texts_release(&texts);
    gidd_bpe_destroy(bpe);
}
