/* SPDX-License-Identifier: Apache-2.0
 *
 * TensorBoard's event files, as far as scalars need them.
 *
 *   file    events.out.tfevents.<seconds>.<host>.<pid>: records, appended
 *   record  length u64 | masked CRC-32C of length u32 | event | masked CRC-32C of event u32    (little endian)
 *   event   protobuf: wall_time (1, double), step (2, varint), file_version (3, text)
 *                     | summary (5) { value (1) { tag (1, text), simple_value (2, float) } } | session_log (7)
 *
 * Each opening starts a new file. Its first scalar is preceded by a session start at that step, at which
 * TensorBoard drops what older files of the folder say about later steps: a resumed run shows one curve.
 */
#ifndef GIDD_IO_TFEVENTS_H
#define GIDD_IO_TFEVENTS_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct gidd_tfevents gidd_tfevents;

enum { GIDD_TFEVENTS_TAG_MAX = 255 }; /* bytes of a tag */

/* Creates `dir` if it is not there (its parent must be) and a new event file in it. *events_p is closed
 * with gidd_tfevents_close. GIDD_ERR_OUTPUT: the file cannot be created. Local. */
gidd_status gidd_tfevents_open(const char *dir, gidd_tfevents **events_p);

/* Appends one point of the curve `tag`, buffered. A value is kept as a float; NaN and infinities are kept. step >= 0.
 * GIDD_ERR_ARG: the tag is longer than GIDD_TFEVENTS_TAG_MAX. Local. */
gidd_status gidd_tfevents_scalar(gidd_tfevents *events, const char *tag, int64_t step, double value);

/* Hands everything so far to the system, for readers to see. GIDD_ERR_IO. Local. */
gidd_status gidd_tfevents_flush(gidd_tfevents *events);

/* Flushes and closes; NULL-safe. The memory is released whatever the status. Local. */
gidd_status gidd_tfevents_close(gidd_tfevents *events);

/* CRC-32C (Castagnoli) of bytes; its masked form is what the records hold. Local. */
uint32_t gidd_tfevents_crc(const void *bytes, size_t count);
uint32_t gidd_tfevents_crc_mask(uint32_t crc);

#endif
