/* SPDX-License-Identifier: Apache-2.0
 *
 * Configuration: YAML files and `section.key=value` overrides, resolved against one table
 * (config_keys.inl). A file has one level of sections and one of keys:
 *
 *     model:
 *       hidden_size: 512
 *     training: {steps: 1000, precision: fp32}
 *
 * Aliases, anchors, tags, merge keys and duplicate keys are refused; so are unknown keys (with the
 * nearest known name), values of a wrong type or out of range. Every error is GIDD_ERR_CONFIG and says
 * file, line, key and what was expected. After loading everyone holds a `const gidd_config *`.
 */
#ifndef GIDD_BASE_CONFIG_H
#define GIDD_BASE_CONFIG_H

#include "base/config_keys.inl"
#include "base/status.h"

#include <stdint.h>
#include <stdio.h>

enum {
    GIDD_CONFIG_TEXT_MAX = 1024,         /* bytes of a TEXT or LIST value, terminator included */
    GIDD_CONFIG_FILE_MAX = 1024 * 1024,  /* bytes of a file */
};

/* Values of the ENUM keys, in the order of the table's names. */
enum { GIDD_CONFIG_DIFFUSION, GIDD_CONFIG_AUTOREGRESSIVE };
enum { GIDD_CONFIG_PAD_OWN, GIDD_CONFIG_PAD_EOS };
enum { GIDD_CONFIG_GIDD, GIDD_CONFIG_MDLM };
enum { GIDD_CONFIG_WINDOW_DOCUMENT, GIDD_CONFIG_WINDOW_PADDED, GIDD_CONFIG_WINDOW_PACKED };
enum { GIDD_CONFIG_VERIFY_AUTO, GIDD_CONFIG_VERIFY_ALWAYS, GIDD_CONFIG_VERIFY_NEVER };
enum { GIDD_CONFIG_BAD_CHUNK_STOP, GIDD_CONFIG_BAD_CHUNK_SKIP };
enum { GIDD_CONFIG_WEIGHT_NONE, GIDD_CONFIG_WEIGHT_CLIP, GIDD_CONFIG_WEIGHT_DYNAMIC };
enum { GIDD_CONFIG_SKIP_AUTO, GIDD_CONFIG_SKIP_ON, GIDD_CONFIG_SKIP_OFF };
enum { GIDD_CONFIG_COSINE, GIDD_CONFIG_LINEAR, GIDD_CONFIG_CONSTANT };
enum { GIDD_CONFIG_FP32, GIDD_CONFIG_BF16 };
enum { GIDD_CONFIG_BACKEND_AUTO, GIDD_CONFIG_BACKEND_MPI, GIDD_CONFIG_BACKEND_NCCL };
enum { GIDD_CONFIG_GRAPHS_AUTO, GIDD_CONFIG_GRAPHS_ON, GIDD_CONFIG_GRAPHS_OFF };
enum { GIDD_CONFIG_RECOMPUTE_NONE, GIDD_CONFIG_RECOMPUTE_MLP, GIDD_CONFIG_RECOMPUTE_BLOCK };
enum { GIDD_CONFIG_SPIKE_OFF, GIDD_CONFIG_SPIKE_SKIP, GIDD_CONFIG_SPIKE_ROLLBACK, GIDD_CONFIG_SPIKE_STOP };
enum { GIDD_CONFIG_OFF, GIDD_CONFIG_ON };
enum { GIDD_CONFIG_COMM_AUTO, GIDD_CONFIG_COMM_MPI, GIDD_CONFIG_COMM_NCCL };

#define GIDD_CONFIG_FIELD_INT(name) int64_t name
#define GIDD_CONFIG_FIELD_REAL(name) double name
#define GIDD_CONFIG_FIELD_TEXT(name) char name[GIDD_CONFIG_TEXT_MAX]
#define GIDD_CONFIG_FIELD_LIST(name) char name[GIDD_CONFIG_TEXT_MAX] /* comma separated */
#define GIDD_CONFIG_FIELD_ENUM(name) int name
#define GIDD_CONFIG_FIELD(section, key, type, ...) GIDD_CONFIG_FIELD_##type(key);
#define GIDD_CONFIG_STRUCT(section)                                                                \
    struct {                                                                                       \
        GIDD_CONFIG_KEYS_##section(GIDD_CONFIG_FIELD)                                              \
    } section;

#define GIDD_CONFIG_COUNT_ONE(...) +1
#define GIDD_CONFIG_COUNT_SECTION(section) GIDD_CONFIG_KEYS_##section(GIDD_CONFIG_COUNT_ONE)
enum { GIDD_CONFIG_KEY_COUNT = 0 GIDD_CONFIG_SECTIONS(GIDD_CONFIG_COUNT_SECTION) };

/* Where a value came from, for error messages: "configs/a.yaml:12", "command line", "default". */
typedef struct gidd_config_origin {
    char place[256];
} gidd_config_origin;

typedef struct gidd_config {
    GIDD_CONFIG_SECTIONS(GIDD_CONFIG_STRUCT)
    gidd_config_origin origin[GIDD_CONFIG_KEY_COUNT]; /* by index into the table */
} gidd_config;

typedef enum gidd_config_class {
    GIDD_CONFIG_IDENTITY,
    GIDD_CONFIG_SEMANTIC,
    GIDD_CONFIG_FREE,
} gidd_config_class;

/* Sets every key to its default (the paper's). Local. */
void gidd_config_init(gidd_config *config);

/* Reads a YAML file over the present values. GIDD_ERR_MISSING: no such file. Local. */
gidd_status gidd_config_read(gidd_config *config, const char *path);

/* The same from memory; `name` stands for the file in messages. Local. */
gidd_status gidd_config_parse(gidd_config *config, const char *name, const char *text, size_t bytes);

/* Sets one key by its name from text; `place` says where the text stands. Local. */
gidd_status gidd_config_set(gidd_config *config, const char *place, const char *name, const char *text);

/* Applies one "section.key=value". Local. */
gidd_status gidd_config_override(gidd_config *config, const char *assignment);

/* Checks the combinations that the table cannot (heads divide hidden_size ...). Local. */
gidd_status gidd_config_check(const gidd_config *config);

/* The key that gives rows whose token was not noised (z = x) a weight in GIDD's loss that counts: with uniform
 * noise, or a lower bound of the weights. NULL: none does, their weight is about 1e-13 (MDLM: 0). Local. */
const char *gidd_config_clean_rows_weigh(const gidd_config *config);

/* The resolved configuration as YAML, the same bytes for the same values; *text_p is owned by the
 * caller (free). Local. */
gidd_status gidd_config_format(const gidd_config *config, char **text_p);

/* Calls `differ` for each key whose values in `before` and `after` differ, in table order, with both
 * values as text. Stops at the first status that is not GIDD_OK and returns it. Local. */
typedef gidd_status (*gidd_config_differ)(void *context, const char *name, gidd_config_class class,
                                          const char *before, const char *after);
gidd_status gidd_config_compare(const gidd_config *before, const gidd_config *after,
                                gidd_config_differ differ, void *context);

/* The place "file:line" of a key's value, for messages about combinations. Local. */
const char *gidd_config_place(const gidd_config *config, const char *name);

/* Prints all keys with type, default, range and help, as --help shows them. Local. */
void gidd_config_print_keys(FILE *stream);

/* Copies item `index` of a LIST value (spaces around it dropped) into item[size]; 0: there is no such
 * item. Local. */
int gidd_config_list_item(const char *list, int index, char *item, size_t size);

/* GPT-2's 50257 tokens + PAD + MASK. */
static inline int64_t gidd_vocab_rounded(int64_t V)
{
    return (V + 127) / 128 * 128;
}

#endif
