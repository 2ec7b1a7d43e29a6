/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/export_tokenizer.h"

#include "io/checkpoint_dir.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 1300, FILE_BYTES_MAX = 64 << 20 };

#define EOS_TEXT "<|endoftext|>"

static gidd_status write_json(const char *folder, const char *name, json_t *root)
{
    char  path[PATH_SIZE];
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    if (text == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to write %s", path);
    }
    gidd_status status = gidd_checkpoint_write_file(path, text, strlen(text));
    free(text);
    return status;
}

static gidd_status copy_file(const char *from_folder, const char *from_name, const char *folder, const char *name)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", from_folder, from_name);
    FILE *file = fopen(path, "rbe");
    char *text = malloc(FILE_BYTES_MAX);
    size_t bytes = file != NULL && text != NULL ? fread(text, 1, FILE_BYTES_MAX, file) : 0;
    gidd_status status = GIDD_OK;
    if (text == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory to copy %s", path);
    } else if (file == NULL || ferror(file) || bytes == FILE_BYTES_MAX) {
        status = gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, file == NULL ? strerror(errno) : "too long, or an error");
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    if (status == GIDD_OK) {
        status = gidd_checkpoint_write_file(path, text, bytes);
    }
    free(text);
    return status;
}

// How transformers describes a token that the vocabulary's own file does not have.
static json_t *describe(const char *text)
{
    return json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", text, "lstrip", 0, "normalized", 0, "rstrip", 0,
                     "single_word", 0, "special", 1);
}

static void add_described(json_t *decoder, int32_t id, const char *text)
{
    char key[16];
    (void)snprintf(key, sizeof key, "%d", (int)id);
    (void)json_object_set_new(decoder, key, describe(text));
}

// The special tokens by role, into `object`.
static void add_roles(json_t *object, int32_t eos, const gidd_vocab *vocab)
{
    if (eos >= 0) {
        (void)json_object_set_new(object, "bos_token", json_string(EOS_TEXT));
        (void)json_object_set_new(object, "eos_token", json_string(EOS_TEXT));
        (void)json_object_set_new(object, "unk_token", json_string(EOS_TEXT));
    }
    (void)json_object_set_new(object, "pad_token", json_string(vocab->pad != vocab->eos ? "[PAD]" : EOS_TEXT));
    (void)json_object_set_new(object, "mask_token", json_string("[MASK]"));
}

static gidd_status write_added(const char *folder, const gidd_vocab *vocab)
{
    json_t *added = json_pack("{s:i}", "[MASK]", (int)vocab->mask);
    if (vocab->pad != vocab->eos) {
        (void)json_object_set_new(added, "[PAD]", json_integer(vocab->pad));
    }
    return write_json(folder, "added_tokens.json", added);
}

static gidd_status write_tokenizer_config(const char *folder, int32_t eos, const gidd_vocab *vocab, int64_t context)
{
    json_t *decoder = json_object();
    if (eos >= 0) {
        add_described(decoder, eos, EOS_TEXT);
    }
    if (vocab->pad != vocab->eos) {
        add_described(decoder, vocab->pad, "[PAD]");
    }
    add_described(decoder, vocab->mask, "[MASK]");
    json_t *config = json_pack("{s:s, s:b, s:I, s:b, s:o}", "tokenizer_class", "GPT2Tokenizer", "add_prefix_space", 0,
                               "model_max_length", (json_int_t)context, "clean_up_tokenization_spaces", 0,
                               "added_tokens_decoder", decoder);
    add_roles(config, eos, vocab);
    return write_json(folder, "tokenizer_config.json", config);
}

gidd_status gidd_export_tokenizer(const char *folder, const char *from, int32_t eos, const gidd_vocab *vocab,
                                  int64_t context)
{
    GIDD_TRY(copy_file(from, "encoder.json", folder, "vocab.json"));
    GIDD_TRY(copy_file(from, "vocab.bpe", folder, "merges.txt"));
    json_t *roles = json_object();
    add_roles(roles, eos, vocab);
    GIDD_TRY(write_json(folder, "special_tokens_map.json", roles));
    GIDD_TRY(write_added(folder, vocab));
    return write_tokenizer_config(folder, eos, vocab, context);
}

void gidd_export_remove(const char *folder)
{
    DIR *directory = opendir(folder);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        (void)unlinkat(dirfd(directory), entry->d_name, 0); // "." and ".." stay
    }
    if (directory != NULL) {
        (void)closedir(directory);
    }
    (void)rmdir(folder);
}
