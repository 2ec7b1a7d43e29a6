/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal's thread: a bounded queue of lines and scalars, written in order. When storage is so slow that the
 * queue is full, adding waits: memory stays bounded and nothing is lost. Files are opened for appending.
 */
#ifndef GIDD_COORDINATOR_WRITER_QUEUE_H
#define GIDD_COORDINATOR_WRITER_QUEUE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum gidd_writer_file {
    GIDD_WRITER_METRICS = 0,
    GIDD_WRITER_TIMINGS,
    GIDD_WRITER_EVENTS,
    GIDD_WRITER_FILES,
} gidd_writer_file;

typedef struct gidd_writer_queue gidd_writer_queue;

/* Opens the files in `dir`; metrics.jsonl keeps its first `metrics_bytes` bytes, the rest is appended to
 * metrics.lost.jsonl. Local. */
gidd_status gidd_writer_queue_open(const char *dir, int64_t metrics_bytes, int tensorboard, gidd_writer_queue **queue_p);

/* Adds a line (with its newline; <= 2048 bytes; copied). Returns the first failure of the thread, if any. Local. */
gidd_status gidd_writer_queue_line(gidd_writer_queue *queue, gidd_writer_file file, const char *line, size_t bytes);

/* Adds a TensorBoard scalar "group/name" (both static text); nothing without TensorBoard. Local. */
gidd_status gidd_writer_queue_scalar(gidd_writer_queue *queue, const char *group, const char *name, int64_t step,
                                     double value);

/* Waits until everything added is written and synced. Local. */
gidd_status gidd_writer_queue_flush(gidd_writer_queue *queue);

/* Flushes, ends the thread and closes. NULL-safe. Local. */
gidd_status gidd_writer_queue_close(gidd_writer_queue *queue);

#endif
