/* SPDX-License-Identifier: Apache-2.0 */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum value_type { TYPE_INT, TYPE_REAL, TYPE_TEXT, TYPE_LIST, TYPE_ENUM } value_type;

typedef struct key_row {
    const char       *name; /* "section.key" */
    value_type        type;
    const char       *initial;
    double            lowest, highest;
    const char       *names;
    gidd_config_class class;
    const char       *help;
    size_t            offset;
} key_row;

#define KEY_ROW(section, key, type, initial, lowest, highest, names, class, help)                  \
    {#section "." #key, TYPE_##type, initial, lowest, highest, names, GIDD_CONFIG_##class, help,   \
     offsetof(gidd_config, section.key)},
#define SECTION_ROWS(section) GIDD_CONFIG_KEYS_##section(KEY_ROW)
static const key_row key_table[] = {GIDD_CONFIG_SECTIONS(SECTION_ROWS)};

enum { KEY_COUNT = (int)(sizeof key_table / sizeof *key_table) };

static void *value_of(gidd_config *config, const key_row *row)
{
    return (char *)config + row->offset;
}

static const void *const_value_of(const gidd_config *config, const key_row *row)
{
    return (const char *)config + row->offset;
}

static int find_key(const char *name)
{
    for (int i = 0; i < KEY_COUNT; i++) {
        if (strcmp(key_table[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

// Levenshtein distance of two short names: what "did you mean" is made of.
static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int    row[LONGEST + 1];
    size_t b_length = strlen(b) < LONGEST ? strlen(b) : LONGEST;
    for (size_t j = 0; j <= b_length; j++) {
        row[j] = (int)j;
    }
    for (size_t i = 1; a[i - 1] != '\0' && i <= LONGEST; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= b_length; j++) {
            int above = row[j];
            int best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[b_length];
}

static const char *nearest_key(const char *name)
{
    const char *tail = strchr(name, '.');
    int         best = 1000;
    const char *nearest = key_table[0].name;
    for (int i = 0; i < KEY_COUNT; i++) {
        int distance = edit_distance(name, key_table[i].name);
        // the right key in the wrong section is a likelier slip than a similar word
        const char *key = strchr(key_table[i].name, '.') + 1;
        if (strcmp(tail != NULL ? tail + 1 : name, key) == 0) {
            distance = 1;
        }
        if (distance < best) {
            best = distance;
            nearest = key_table[i].name;
        }
    }
    return nearest;
}

static gidd_status set_integer(gidd_config *config, const key_row *row, const char *place, const char *text)
{
    char     *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || isspace((unsigned char)text[0])) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: expected a whole number, found '%.80s'", place, row->name, text);
    }
    if ((double)value < row->lowest || (double)value > row->highest) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: %lld is out of range: %.15g to %.15g", place, row->name, value,
                         row->lowest, row->highest);
    }
    *(int64_t *)value_of(config, row) = value;
    return GIDD_OK;
}

static gidd_status set_real(gidd_config *config, const key_row *row, const char *place, const char *text)
{
    char  *end = NULL;
    double value = strtod(text, &end);
    int    hexadecimal = strpbrk(text, "xX") != NULL; // strtod takes them; YAML's numbers do not
    if (end == text || *end != '\0' || !isfinite(value) || hexadecimal || isspace((unsigned char)text[0])) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: expected a finite number, found '%.80s'", place, row->name, text);
    }
    if (value < row->lowest || value > row->highest) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: %.17g is out of range: %.15g to %.15g", place, row->name, value,
                         row->lowest, row->highest);
    }
    *(double *)value_of(config, row) = value;
    return GIDD_OK;
}

// Bytes of one UTF-8 character that YAML can hold on one line; 0: there is none. Tabs are.
static size_t printable_character(const unsigned char *at)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t                length = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
    uint32_t              code = length < 2 ? at[0] : at[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (at[i] & 0x3f);
    }
    int control = (code < 0x20 && code != '\t') || (code >= 0x7f && code < 0xa0);
    int odd = code == 0x2028 || code == 0x2029 || code == 0xfeff || code == 0xfffe || code == 0xffff ||
              (code >= 0xd800 && code < 0xe000) || code > 0x10ffff;
    return length == 0 || code < lowest[length] || control || odd ? 0 : length;
}

// Length of the longest beginning of `text` that config.yaml and a manifest can hold.
static size_t printable_bytes(const char *text)
{
    size_t used = 0, length = 0;
    while (text[used] != '\0' && (length = printable_character((const unsigned char *)text + used)) > 0) {
        used += length;
    }
    return used;
}

static gidd_status set_text(gidd_config *config, const key_row *row, const char *place, const char *text)
{
    size_t bytes = strlen(text) + 1;
    if (bytes > GIDD_CONFIG_TEXT_MAX) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: %zu bytes of text, at most %d fit", place, row->name, bytes - 1,
                         GIDD_CONFIG_TEXT_MAX - 1);
    }
    size_t good = printable_bytes(text);
    if (text[good] != '\0') {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: byte %zu of the value is a control character, a line break or no UTF-8",
                         place, row->name, good);
    }
    memcpy(value_of(config, row), text, bytes);
    return GIDD_OK;
}

static gidd_status set_enum(gidd_config *config, const key_row *row, const char *place, const char *text)
{
    int         index = 0;
    size_t      length = strlen(text);
    const char *name = row->names;
    // off and on are what people also write as false and true
    if (strcmp(row->names, "off|on") == 0 && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)) {
        *(int *)value_of(config, row) = text[0] == 't';
        return GIDD_OK;
    }
    while (name != NULL) {
        const char *bar = strchr(name, '|');
        size_t      span = bar != NULL ? (size_t)(bar - name) : strlen(name);
        if (span == length && strncmp(name, text, length) == 0) {
            *(int *)value_of(config, row) = index;
            return GIDD_OK;
        }
        name = bar != NULL ? bar + 1 : NULL;
        index++;
    }
    return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: expected one of %s, found '%.80s'", place, row->name, row->names, text);
}

static gidd_status set_value(gidd_config *config, int index, const char *place, const char *text)
{
    static gidd_status (*const setters[])(gidd_config *, const key_row *, const char *, const char *) = {
        [TYPE_INT] = set_integer, [TYPE_REAL] = set_real, [TYPE_TEXT] = set_text,
        [TYPE_LIST] = set_text,   [TYPE_ENUM] = set_enum,
    };
    const key_row *row = &key_table[index];
    GIDD_TRY(setters[row->type](config, row, place, text));
    (void)snprintf(config->origin[index].place, sizeof config->origin[index].place, "%s", place);
    return GIDD_OK;
}

gidd_status gidd_config_set(gidd_config *config, const char *place, const char *name, const char *text)
{
    int index = find_key(name);
    if (index < 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: unknown key '%.80s'; the nearest known one is '%s'", place, name,
                         nearest_key(name));
    }
    return set_value(config, index, place, text);
}

void gidd_config_init(gidd_config *config)
{
    memset(config, 0, sizeof *config);
    for (int i = 0; i < KEY_COUNT; i++) {
        gidd_status status = set_value(config, i, "default", key_table[i].initial);
        GIDD_ASSERT(status == GIDD_OK);
    }
}

gidd_status gidd_config_override(gidd_config *config, const char *assignment)
{
    char        name[128];
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || (size_t)(equals - assignment) >= sizeof name) {
        return gidd_fail(GIDD_ERR_USAGE, "command line: expected section.key=value, found '%.80s'", assignment);
    }
    memcpy(name, assignment, (size_t)(equals - assignment));
    name[equals - assignment] = '\0';
    return gidd_config_set(config, "command line", name, equals + 1);
}

static void format_value(const gidd_config *config, const key_row *row, char *text, size_t size)
{
    const void *value = const_value_of(config, row);
    switch (row->type) {
    case TYPE_INT:
        (void)snprintf(text, size, "%lld", (long long)*(const int64_t *)value);
        break;
    case TYPE_REAL: { // the shortest of the decimal forms that reads back as the same number
        double number = *(const double *)value;
        if (number == floor(number) && fabs(number) < 1e9) {
            (void)snprintf(text, size, "%.0f", number);
            break;
        }
        for (int digits = 1; digits <= 17; digits++) {
            (void)snprintf(text, size, "%.*g", digits, number);
            if (strtod(text, NULL) == number) {
                break;
            }
        }
        break;
    }
    case TYPE_ENUM: {
        const char *name = row->names;
        for (int i = 0; i < *(const int *)value; i++) {
            name = strchr(name, '|') + 1;
        }
        (void)snprintf(text, size, "%.*s", (int)strcspn(name, "|"), name);
        break;
    }
    case TYPE_TEXT:
    case TYPE_LIST:
        (void)snprintf(text, size, "%s", (const char *)value);
        break;
    }
}

// A YAML double-quoted scalar; control characters other than tabs cannot occur (set_text refuses them).
static void print_quoted(FILE *stream, const char *text)
{
    (void)fputc('"', stream);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            (void)fputc('\\', stream);
        }
        if (*text == '\t') {
            (void)fputs("\\t", stream);
        } else {
            (void)fputc(*text, stream);
        }
    }
    (void)fputc('"', stream);
}

gidd_status gidd_config_format(const gidd_config *config, char **text_p)
{
    char  *text = NULL;
    size_t bytes = 0;
    FILE  *stream = open_memstream(&text, &bytes);
    if (stream == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "cannot format the configuration: %s", strerror(errno));
    }
    char section[64] = "";
    for (int i = 0; i < KEY_COUNT; i++) {
        const key_row *row = &key_table[i];
        char           value[GIDD_CONFIG_TEXT_MAX];
        size_t         length = strcspn(row->name, ".");
        if (strncmp(section, row->name, length) != 0 || section[length] != '\0') {
            (void)snprintf(section, sizeof section, "%.*s", (int)length, row->name);
            (void)fprintf(stream, "%s:\n", section);
        }
        format_value(config, row, value, sizeof value);
        (void)fprintf(stream, "  %s: ", row->name + length + 1);
        if (row->type == TYPE_TEXT || row->type == TYPE_LIST) {
            print_quoted(stream, value);
        } else {
            (void)fputs(value, stream);
        }
        (void)fputc('\n', stream);
    }
    if (fclose(stream) != 0) {
        free(text);
        return gidd_fail(GIDD_ERR_NOMEM, "cannot format the configuration: %s", strerror(errno));
    }
    *text_p = text;
    return GIDD_OK;
}

gidd_status gidd_config_compare(const gidd_config *before, const gidd_config *after, gidd_config_differ differ,
                                void *context)
{
    for (int i = 0; i < KEY_COUNT; i++) {
        char old_value[GIDD_CONFIG_TEXT_MAX], new_value[GIDD_CONFIG_TEXT_MAX];
        format_value(before, &key_table[i], old_value, sizeof old_value);
        format_value(after, &key_table[i], new_value, sizeof new_value);
        if (strcmp(old_value, new_value) != 0) {
            GIDD_TRY(differ(context, key_table[i].name, key_table[i].class, old_value, new_value));
        }
    }
    return GIDD_OK;
}

const char *gidd_config_place(const gidd_config *config, const char *name)
{
    int index = find_key(name);
    GIDD_ASSERT(index >= 0);
    return config->origin[index].place;
}

static gidd_status check_model(const gidd_config *c)
{
    int64_t D = c->model.hidden_size, H = c->model.heads;
    if (D % 8 != 0) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: model.hidden_size: %lld is not a multiple of 8",
                         gidd_config_place(c, "model.hidden_size"), (long long)D);
    }
    if (D % H != 0 || (D / H) % 2 != 0 || D / H > 128) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "%s: model.heads: %lld heads of hidden_size %lld: hidden_size / heads must be a whole, even "
                         "number of at most 128",
                         gidd_config_place(c, "model.heads"), (long long)H, (long long)D);
    }
    return GIDD_OK;
}

const char *gidd_config_clean_rows_weigh(const gidd_config *config)
{
    if (config->model.type == GIDD_CONFIG_AUTOREGRESSIVE) {
        return "model.type"; // every row is clean, and trained
    }
    if (config->diffusion.process != GIDD_CONFIG_GIDD) {
        return NULL;
    }
    if (config->model.p_uniform > 0) {
        return "model.p_uniform";
    }
    return config->loss.weighting != GIDD_CONFIG_WEIGHT_NONE && config->loss.min_weight > 0 ? "loss.min_weight" : NULL;
}

static gidd_status check_skipping(const gidd_config *c)
{
    const char *key = gidd_config_clean_rows_weigh(c);
    if (c->loss.skip_clean_rows != GIDD_CONFIG_SKIP_ON || key == NULL) {
        return GIDD_OK;
    }
    if (strcmp(key, "model.p_uniform") == 0) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "%s: loss.skip_clean_rows: on, but with model.p_uniform %g > 0 the clean rows teach the model "
                         "to see wrong tokens; use auto or off",
                         gidd_config_place(c, "loss.skip_clean_rows"), c->model.p_uniform);
    }
    return gidd_fail(GIDD_ERR_CONFIG,
                     "%s: loss.skip_clean_rows: on, but with loss.min_weight %g > 0 the clean rows weigh at least that "
                     "much; use auto or off",
                     gidd_config_place(c, "loss.skip_clean_rows"), c->loss.min_weight);
}

// What belongs to noise, or to published diffusion models, means nothing here: silence would let the user believe
// it did.
static gidd_status check_autoregressive(const gidd_config *c)
{
    const struct {
        const char *key;
        int         is_set;
    } foreign[] = {
        {"model.p_uniform", c->model.p_uniform > 0},
        {"diffusion.process", c->diffusion.process != GIDD_CONFIG_GIDD},
        {"loss.skip_clean_rows", c->loss.skip_clean_rows == GIDD_CONFIG_SKIP_ON},
        {"training.recompute", c->training.recompute != GIDD_CONFIG_RECOMPUTE_NONE},
        {"model.pad", c->model.pad != GIDD_CONFIG_PAD_OWN},
    };
    for (size_t i = 0; c->model.type == GIDD_CONFIG_AUTOREGRESSIVE && i < sizeof foreign / sizeof *foreign; i++) {
        if (foreign[i].is_set) {
            return gidd_fail(GIDD_ERR_CONFIG, "%s: %s: model.type autoregressive has no such choice; leave this key out",
                             gidd_config_place(c, foreign[i].key), foreign[i].key);
        }
    }
    return GIDD_OK;
}

gidd_status gidd_config_check(const gidd_config *config)
{
    const gidd_config *c = config;
    GIDD_TRY(check_model(c));
    GIDD_TRY(check_autoregressive(c));
    if (c->loss.min_weight > c->loss.max_weight) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: loss.min_weight: %g is above loss.max_weight %g",
                         gidd_config_place(c, "loss.min_weight"), c->loss.min_weight, c->loss.max_weight);
    }
    if (c->optimizer.schedule != GIDD_CONFIG_CONSTANT && c->optimizer.warmup_steps >= c->training.steps) {
        return gidd_fail(GIDD_ERR_CONFIG,
                         "%s: optimizer.warmup_steps: %lld steps of warm-up do not fit training.steps %lld",
                         gidd_config_place(c, "optimizer.warmup_steps"), (long long)c->optimizer.warmup_steps,
                         (long long)c->training.steps);
    }
    if (c->training.micro_batch > c->training.global_batch) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: training.micro_batch: %lld is above training.global_batch %lld",
                         gidd_config_place(c, "training.micro_batch"), (long long)c->training.micro_batch,
                         (long long)c->training.global_batch);
    }
    if (c->data.on_bad_chunk == GIDD_CONFIG_BAD_CHUNK_SKIP && c->data.verify == GIDD_CONFIG_VERIFY_NEVER) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: data.on_bad_chunk: skip has to read all shards before the first step, and "
                         "data.verify is never", gidd_config_place(c, "data.on_bad_chunk"));
    }
    return check_skipping(c);
}

void gidd_config_print_keys(FILE *stream)
{
    static const char *const type_names[] = {"whole number", "number", "text", "list", ""};
    static const char *const class_names[] = {"identity", "semantic", "free"};
    for (int i = 0; i < KEY_COUNT; i++) {
        const key_row *row = &key_table[i];
        (void)fprintf(stream, "  %-28s %s\n      %s", row->name, row->help,
                      row->type == TYPE_ENUM ? row->names : type_names[row->type]);
        if (row->type == TYPE_INT || row->type == TYPE_REAL) {
            (void)fprintf(stream, " %.15g..%.15g", row->lowest, row->highest);
        }
        (void)fprintf(stream, "; default %s; %s\n", row->initial[0] != '\0' ? row->initial : "(empty)",
                      class_names[row->class]);
    }
}

int gidd_config_list_item(const char *list, int index, char *item, size_t size)
{
    for (int i = 0; *list != '\0'; i++) {
        size_t span = strcspn(list, ",");
        if (i == index) {
            const char *first = list, *last = list + span;
            while (first < last && *first == ' ') {
                first++;
            }
            while (last > first && last[-1] == ' ') {
                last--;
            }
            (void)snprintf(item, size, "%.*s", (int)(last - first), first);
            return 1;
        }
        list += span + (list[span] == ',');
    }
    return 0;
}
