/* SPDX-License-Identifier: Apache-2.0
 *
 * Parsing JSON with jansson, telling damage from want of memory: jansson itself calls the second a
 * syntax error, or cuts a string short without a word, and a healthy checkpoint must not be set aside
 * for that.
 */
#ifndef GIDD_BASE_JSON_H
#define GIDD_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdio.h>

/* *root_p: the value that `text` of `bytes` bytes stands for, the caller's; NULL if it is no JSON, and
 * then *error says where and why: for the caller to tell. GIDD_ERR_NOMEM. Local. */
gidd_status gidd_json_parse(const char *text, size_t bytes, size_t flags, json_error_t *error, json_t **root_p);

/* Likewise what is left of `file`, which may be a pipe. Local. */
gidd_status gidd_json_parse_file(FILE *file, size_t flags, json_error_t *error, json_t **root_p);

#endif
