/* SPDX-License-Identifier: Apache-2.0
 *
 * What is given in infilling, and samples as lines of JSON, with the tokenizer of tests/fixtures: 256 bytes, 16
 * merges (" the" and "int" among them), EOS.
 */
#include "worker/samples.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { T = 12 };

static gidd_bpe *open_tokenizer(gidd_vocab *vocab)
{
    gidd_bpe *bpe = NULL;
    cr_assert_eq(gidd_bpe_load(GIDD_TEST_DATA "/../fixtures/tokenizer", &bpe), GIDD_OK, "%s", gidd_error_last()->text);
    *vocab = gidd_vocab_of(gidd_bpe_size(bpe));
    return bpe;
}

/* The template as text: what is given rendered, '_' for what is to be found. */
static void expect_given(const char *text, const char *want)
{
    gidd_vocab vocab;
    gidd_bpe  *bpe = open_tokenizer(&vocab);
    int32_t    given[T];
    char       got[512] = "";
    cr_assert_eq(gidd_given_of_text(bpe, &vocab, text, T, given), GIDD_OK, "%s", gidd_error_last()->text);
    for (int p = 0; p < T; p++) {
        char *piece = NULL;
        if (given[p] >= 0) {
            cr_assert_eq(gidd_samples_render(bpe, &given[p], 1, GIDD_BPE_SPECIALS_RENDER, &piece), GIDD_OK);
        }
        strcat(got, given[p] >= 0 ? piece : "_");
        free(piece);
    }
    cr_assert_str_eq(got, want);
    gidd_bpe_destroy(bpe);
}

Test(given, of_a_text_with_holes)
{
    expect_given("", "____________");
    expect_given("int[MASK:3] the[MASK]x", "int___ the_x_____");
    expect_given("[MASK:12]", "____________");
    expect_given("[MASK][MASK:2]a", "___a________");
}

Test(given, marks_that_are_none_are_text)
{
    expect_given("[MASK:x]", "[MASK:x]____");
    expect_given("[MAS", "[MAS________");
    expect_given("[MASK:2", "[MASK:2_____");
}

/* An end mark opens a text, or closes it: then padding follows, as behind a short document in training. */
Test(given, end_marks)
{
    expect_given("<|endoftext|>a[MASK]", "<|endoftext|>a__________");
    expect_given("<|endoftext|>", "<|endoftext|>___________");
    expect_given("a[MASK]<|endoftext|>", "a_<|endoftext|>[PAD][PAD][PAD][PAD][PAD][PAD][PAD][PAD][PAD]");
    expect_given("a<|endoftext|>b", "a<|endoftext|>b_________");
}

Test(given, what_does_not_fit_is_refused)
{
    gidd_vocab vocab;
    gidd_bpe  *bpe = open_tokenizer(&vocab);
    int32_t    given[T];
    static const char *const texts[] = {"[MASK:13]", "a[MASK:12]", "abcdefghijklm", "[MASK:0]", "[MASK:]", "[MASK:99999999999]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cr_assert_eq(gidd_given_of_text(bpe, &vocab, texts[i], T, given), GIDD_ERR_USAGE, "%s", texts[i]);
    }
    gidd_bpe_destroy(bpe);
}

/* Written and read again; a byte that is no UTF-8 becomes U+FFFD in the text and stays in the ids. */
Test(samples, survive_a_file)
{
    gidd_vocab   vocab;
    gidd_bpe    *bpe = open_tokenizer(&vocab);
    gidd_samples s, back;
    int32_t      given[T];
    char         path[] = "/tmp/gidd-samples-XXXXXX";
    const int    file = mkstemp(path);
    FILE        *stream = fdopen(file, "w");
    cr_assert_eq(gidd_samples_create(2, T, &s), GIDD_OK);
    for (int i = 0; i < 2 * T; i++) {
        s.ids[i] = i * 11 % 274;
    }
    s.ids[3] = 200; /* half of a character */
    for (int p = 0; p < T; p++) {
        given[p] = p % 5 == 1 ? s.ids[p] : -1;
    }
    cr_assert_eq(gidd_samples_give(&s, given), GIDD_OK);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(gidd_samples_write_json(stream, bpe, &vocab, &s, i), GIDD_OK);
    }
    (void)fclose(stream);
    cr_assert_eq(gidd_samples_read(path, &vocab, T, &back), GIDD_OK, "%s", gidd_error_last()->text);
    cr_assert(back.num == 2 && back.T == T && back.entropy == NULL && back.before == NULL);
    cr_assert_arr_eq(back.ids, s.ids, 2 * T * sizeof *s.ids);
    for (int p = 0; p < T; p++) {
        cr_assert_eq(back.given[p], given[p]);
        cr_assert_eq(back.given[T + p], given[p] >= 0 ? s.ids[T + p] : -1);
    }
    char *text = NULL;
    cr_assert_eq(gidd_samples_text(bpe, &vocab, s.ids, T, &text), GIDD_OK);
    cr_assert_not_null(strstr(text, "\xEF\xBF\xBD"));
    free(text);
    (void)unlink(path);
    gidd_samples_release(&s);
    gidd_samples_release(&back);
    gidd_bpe_destroy(bpe);
}
