/* SPDX-License-Identifier: Apache-2.0
 *
 * The YAML half of the configuration: libyaml's events, held against the only shape that is allowed. The
 * event interface expands nothing, so a file can cost no more than its own bytes.
 */
#include "base/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct yaml_reader {
    yaml_parser_t parser;
    const char   *name;
    char          place[256];
    char          seen[GIDD_CONFIG_KEY_COUNT][128]; /* keys of this file, to find duplicates */
    int           seen_count;
    char          sections[32][64];
    int           section_count;
} yaml_reader;

static gidd_status fail_at_event(const yaml_reader *reader, const yaml_event_t *event, const char *text)
{
    return gidd_fail(GIDD_ERR_CONFIG, "%s:%zu:%zu: %s", reader->name, event->start_mark.line + 1,
                     event->start_mark.column + 1, text);
}

// Next event; whatever is not plain data is refused here, once, for the whole file.
static gidd_status next_event(yaml_reader *reader, yaml_event_t *event)
{
    if (!yaml_parser_parse(&reader->parser, event)) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s:%zu:%zu: not YAML: %s", reader->name, reader->parser.problem_mark.line + 1,
                         reader->parser.problem_mark.column + 1,
                         reader->parser.problem != NULL ? reader->parser.problem : "unreadable");
    }
    (void)snprintf(reader->place, sizeof reader->place, "%.200s:%zu", reader->name, event->start_mark.line + 1);
    const char *refused = NULL;
    if (event->type == YAML_ALIAS_EVENT) {
        refused = "aliases are not allowed; write the value out";
    } else if (event->type == YAML_SCALAR_EVENT) {
        refused = event->data.scalar.anchor != NULL ? "anchors are not allowed"
                  : event->data.scalar.tag != NULL  ? "tags are not allowed"
                                                    : NULL;
        if (refused == NULL && memchr(event->data.scalar.value, 0, event->data.scalar.length) != NULL) {
            refused = "a NUL byte inside a value";
        }
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        refused = event->data.mapping_start.anchor != NULL ? "anchors are not allowed"
                  : event->data.mapping_start.tag != NULL  ? "tags are not allowed"
                                                           : NULL;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        refused = event->data.sequence_start.anchor != NULL ? "anchors are not allowed"
                  : event->data.sequence_start.tag != NULL  ? "tags are not allowed"
                                                            : NULL;
    }
    if (refused != NULL) {
        gidd_status status = fail_at_event(reader, event, refused);
        yaml_event_delete(event);
        return status;
    }
    return GIDD_OK;
}

static gidd_status expect_event(yaml_reader *reader, yaml_event_type_t type, const char *expected)
{
    yaml_event_t event;
    GIDD_TRY(next_event(reader, &event));
    gidd_status status = event.type == type ? GIDD_OK : fail_at_event(reader, &event, expected);
    yaml_event_delete(&event);
    return status;
}

// The rest of a sequence of scalars, joined with commas.
static gidd_status read_sequence(yaml_reader *reader, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (;;) {
        yaml_event_t event;
        GIDD_TRY(next_event(reader, &event));
        gidd_status status = GIDD_OK;
        int         done = event.type == YAML_SEQUENCE_END_EVENT;
        if (!done && event.type != YAML_SCALAR_EVENT) {
            status = fail_at_event(reader, &event, "expected a list of plain values");
        } else if (!done) {
            size_t length = event.data.scalar.length;
            if (used + length + 2 > size) {
                status = fail_at_event(reader, &event, "the list is too long");
            } else if (memchr(event.data.scalar.value, ',', length) != NULL) {
                status = fail_at_event(reader, &event, "a comma inside a list's value is not supported");
            } else {
                used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? "," : "",
                                         (const char *)event.data.scalar.value);
            }
        }
        yaml_event_delete(&event);
        if (status != GIDD_OK || done) {
            return status;
        }
    }
}

static gidd_status remember_key(yaml_reader *reader, const char *name)
{
    for (int i = 0; i < reader->seen_count; i++) {
        if (strcmp(reader->seen[i], name) == 0) {
            return gidd_fail(GIDD_ERR_CONFIG, "%s: '%s' is given twice", reader->place, name);
        }
    }
    if (reader->seen_count < GIDD_CONFIG_KEY_COUNT) { // more than all known keys: the next one is unknown anyway
        (void)snprintf(reader->seen[reader->seen_count++], sizeof reader->seen[0], "%s", name);
    }
    return GIDD_OK;
}

static gidd_status read_value(yaml_reader *reader, gidd_config *config, const char *name)
{
    yaml_event_t event;
    char         text[GIDD_CONFIG_TEXT_MAX + 1];
    char         place[sizeof reader->place];
    GIDD_TRY(next_event(reader, &event));
    memcpy(place, reader->place, sizeof place);
    gidd_status status = GIDD_OK;
    if (event.type == YAML_SCALAR_EVENT) {
        if (event.data.scalar.length >= sizeof text) {
            status = fail_at_event(reader, &event, "the value is too long");
        } else {
            memcpy(text, event.data.scalar.value, event.data.scalar.length);
            text[event.data.scalar.length] = '\0';
        }
    } else if (event.type == YAML_SEQUENCE_START_EVENT) {
        status = read_sequence(reader, text, sizeof text);
    } else {
        status = fail_at_event(reader, &event, "expected a value: sections have one level of keys");
    }
    yaml_event_delete(&event);
    GIDD_TRY(status);
    return gidd_config_set(config, place, name, text);
}

static gidd_status read_section(yaml_reader *reader, gidd_config *config, const char *section)
{
    for (;;) {
        yaml_event_t event;
        char         name[128];
        GIDD_TRY(next_event(reader, &event));
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return GIDD_OK;
        }
        if (event.type != YAML_SCALAR_EVENT) {
            gidd_status status = fail_at_event(reader, &event, "expected a key");
            yaml_event_delete(&event);
            return status;
        }
        (void)snprintf(name, sizeof name, "%s.%.60s", section, (const char *)event.data.scalar.value);
        yaml_event_delete(&event);
        GIDD_TRY(remember_key(reader, name));
        GIDD_TRY(read_value(reader, config, name));
    }
}

static gidd_status check_section(yaml_reader *reader, const yaml_event_t *event, char *section, size_t size)
{
#define SECTION_NAME(name) #name,
    static const char *const known[] = {GIDD_CONFIG_SECTIONS(SECTION_NAME)};
    const char              *text = (const char *)event->data.scalar.value;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(text, known[i]) == 0) {
            (void)snprintf(section, size, "%s", text);
            return remember_key(reader, text);
        }
    }
    return gidd_fail(GIDD_ERR_CONFIG,
                     "%s: unknown section '%.80s'; sections are run, data, model, diffusion, loss, optimizer, training, "
                     "checkpoint, eval, device, comm, log",
                     reader->place, text);
}

static gidd_status read_document(yaml_reader *reader, gidd_config *config)
{
    GIDD_TRY(expect_event(reader, YAML_STREAM_START_EVENT, "expected YAML"));
    GIDD_TRY(expect_event(reader, YAML_DOCUMENT_START_EVENT, "the file is empty; expected sections such as 'model:'"));
    GIDD_TRY(expect_event(reader, YAML_MAPPING_START_EVENT, "expected sections such as 'model:'"));
    for (;;) {
        yaml_event_t event;
        char         section[64];
        GIDD_TRY(next_event(reader, &event));
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            break;
        }
        gidd_status status = event.type == YAML_SCALAR_EVENT
                                 ? check_section(reader, &event, section, sizeof section)
                                 : fail_at_event(reader, &event, "expected the name of a section");
        yaml_event_delete(&event);
        GIDD_TRY(status);
        GIDD_TRY(expect_event(reader, YAML_MAPPING_START_EVENT, "expected the section's keys"));
        GIDD_TRY(read_section(reader, config, section));
    }
    GIDD_TRY(expect_event(reader, YAML_DOCUMENT_END_EVENT, "expected the end of the file"));
    return expect_event(reader, YAML_STREAM_END_EVENT, "one document a file is allowed");
}

gidd_status gidd_config_parse(gidd_config *config, const char *name, const char *text, size_t bytes)
{
    if (bytes > GIDD_CONFIG_FILE_MAX) {
        return gidd_fail(GIDD_ERR_CONFIG, "%s: %zu bytes; a configuration has at most %d", name, bytes,
                         GIDD_CONFIG_FILE_MAX);
    }
    yaml_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL || !yaml_parser_initialize(&reader->parser)) {
        free(reader);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read %s", name);
    }
    reader->name = name;
    yaml_parser_set_input_string(&reader->parser, (const unsigned char *)text, bytes);
    gidd_status status = read_document(reader, config);
    yaml_parser_delete(&reader->parser);
    free(reader);
    return status;
}

gidd_status gidd_config_read(gidd_config *config, const char *path)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open configuration %s: %s", path,
                         strerror(errno));
    }
    char *text = malloc(GIDD_CONFIG_FILE_MAX + 1);
    if (text == NULL) {
        (void)fclose(file);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read %s", path);
    }
    size_t      bytes = fread(text, 1, GIDD_CONFIG_FILE_MAX + 1, file);
    gidd_status status = ferror(file) ? gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno))
                                      : gidd_config_parse(config, path, text, bytes);
    (void)fclose(file);
    free(text);
    return status;
}
