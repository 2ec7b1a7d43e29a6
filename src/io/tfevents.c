/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tfevents.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    PATH_BYTES = 1400,
    EVENT_BYTES = GIDD_TFEVENTS_TAG_MAX + 64, /* the largest event is a scalar's */
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_FIXED32 = 5,
};

struct gidd_tfevents {
    FILE *file;
    char  path[PATH_BYTES];
    int   started; /* the session start is written */
};

// A message under construction. Sizes are bounded by EVENT_BYTES, so writing needs no checks but an assertion.
typedef struct message {
    uint8_t bytes[EVENT_BYTES];
    size_t  count;
} message;

uint32_t gidd_tfevents_crc(const void *bytes, size_t count)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x105ec76fu, 0x20bd8edeu, 0x30e349b1u, 0x417b1dbcu, 0x5125dad3u, 0x61c69362u, 0x7198540du,
        0x82f63b78u, 0x92a8fc17u, 0xa24bb5a6u, 0xb21572c9u, 0xc38d26c4u, 0xd3d3e1abu, 0xe330a81au, 0xf36e6f75u,
    };
    const uint8_t *at = bytes;
    uint32_t       crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) { // half a byte at a time: events are few and short
        crc ^= at[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

uint32_t gidd_tfevents_crc_mask(uint32_t crc)
{
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put_bytes(message *m, const void *bytes, size_t count)
{
    GIDD_ASSERT(m->count + count <= sizeof m->bytes);
    memcpy(m->bytes + m->count, bytes, count);
    m->count += count;
}

static void put_varint(message *m, uint64_t value)
{
    while (value >= 128) {
        put_bytes(m, &(uint8_t){(uint8_t)((value & 127) | 128)}, 1);
        value >>= 7;
    }
    put_bytes(m, &(uint8_t){(uint8_t)value}, 1);
}

static void put_key(message *m, unsigned field, unsigned wire)
{
    put_varint(m, (uint64_t)field << 3 | wire);
}

// Little endian whatever the host.
static void encode_little(uint8_t *bytes, uint64_t value, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
}

static void put_fixed(message *m, uint64_t value, size_t count)
{
    uint8_t bytes[8];
    encode_little(bytes, value, count);
    put_bytes(m, bytes, count);
}

static void put_block(message *m, unsigned field, const void *bytes, size_t count)
{
    put_key(m, field, WIRE_BYTES);
    put_varint(m, count);
    put_bytes(m, bytes, count);
}

static void begin_event(message *m)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); // TensorBoard's axis of wall time; nothing is decided by it
    double   seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    m->count = 0;
    put_key(m, 1, WIRE_FIXED64);
    put_fixed(m, bits, 8);
}

static gidd_status write_record(gidd_tfevents *events, const message *m)
{
    uint8_t head[12], tail[4];
    encode_little(head, m->count, 8);
    encode_little(head + 8, gidd_tfevents_crc_mask(gidd_tfevents_crc(head, 8)), 4);
    encode_little(tail, gidd_tfevents_crc_mask(gidd_tfevents_crc(m->bytes, m->count)), 4);
    if (fwrite(head, sizeof head, 1, events->file) != 1 || fwrite(m->bytes, m->count, 1, events->file) != 1 ||
        fwrite(tail, sizeof tail, 1, events->file) != 1) {
        return gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", events->path, strerror(errno));
    }
    return GIDD_OK;
}

static gidd_status write_version(gidd_tfevents *events)
{
    static const char version[] = "brain.Event:2";
    message           event;
    begin_event(&event);
    put_block(&event, 3, version, sizeof version - 1);
    return write_record(events, &event);
}

static gidd_status write_session_start(gidd_tfevents *events, int64_t step)
{
    static const uint8_t start[] = {1 << 3 | WIRE_VARINT, 1}; // SessionLog { status: START }
    message              event;
    begin_event(&event);
    put_key(&event, 2, WIRE_VARINT);
    put_varint(&event, (uint64_t)step);
    put_block(&event, 7, start, sizeof start);
    return write_record(events, &event);
}

// Two files of one process within a second need two names: the host's part gets a counter then.
static gidd_status create_file(gidd_tfevents *events, const char *dir)
{
    char host[65] = "host";
    (void)gethostname(host, sizeof host - 1);
    for (int attempt = 0; attempt < 1000; attempt++) {
        int length = snprintf(events->path, sizeof events->path, "%s/events.out.tfevents.%lld.%s.%lld.%d", dir,
                              (long long)time(NULL), host, (long long)getpid(), attempt);
        if (length < 0 || (size_t)length >= sizeof events->path) {
            return gidd_fail(GIDD_ERR_OUTPUT, "the path of the TensorBoard folder is too long: %.200s...", dir);
        }
        events->file = fopen(events->path, "wxe");
        if (events->file != NULL || errno != EEXIST) {
            break;
        }
    }
    return events->file != NULL ? GIDD_OK
                                : gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", events->path, strerror(errno));
}

gidd_status gidd_tfevents_open(const char *dir, gidd_tfevents **events_p)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", dir, strerror(errno));
    }
    gidd_tfevents *events = calloc(1, sizeof *events);
    if (events == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for a TensorBoard writer");
    }
    gidd_status status = create_file(events, dir);
    if (status == GIDD_OK) {
        status = write_version(events);
    }
    if (status == GIDD_OK) {
        status = gidd_tfevents_flush(events);
    }
    if (status != GIDD_OK) {
        if (events->file != NULL) {
            (void)fclose(events->file);
        }
        free(events);
        return status;
    }
    *events_p = events;
    return GIDD_OK;
}

gidd_status gidd_tfevents_scalar(gidd_tfevents *events, const char *tag, int64_t step, double value)
{
    message  inner = {.count = 0}, summary = {.count = 0}, event;
    float    narrow = (float)value;
    uint32_t bits;
    size_t   tag_bytes = strlen(tag);
    if (tag_bytes > GIDD_TFEVENTS_TAG_MAX) {
        return gidd_fail(GIDD_ERR_ARG, "TensorBoard tag of %zu bytes, at most %d", tag_bytes, GIDD_TFEVENTS_TAG_MAX);
    }
    if (!events->started) {
        GIDD_TRY(write_session_start(events, step));
        events->started = 1;
    }
    memcpy(&bits, &narrow, sizeof bits);
    put_block(&inner, 1, tag, tag_bytes);
    put_key(&inner, 2, WIRE_FIXED32);
    put_fixed(&inner, bits, 4);
    put_block(&summary, 1, inner.bytes, inner.count);
    begin_event(&event);
    put_key(&event, 2, WIRE_VARINT);
    put_varint(&event, (uint64_t)step);
    put_block(&event, 5, summary.bytes, summary.count);
    return write_record(events, &event);
}

gidd_status gidd_tfevents_flush(gidd_tfevents *events)
{
    if (fflush(events->file) != 0) {
        return gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", events->path, strerror(errno));
    }
    return GIDD_OK;
}

gidd_status gidd_tfevents_close(gidd_tfevents *events)
{
    if (events == NULL) {
        return GIDD_OK;
    }
    gidd_status status = GIDD_OK;
    int         failed = ferror(events->file); // by an earlier write, which fclose no longer tells
    if (fclose(events->file) != 0 || failed) {
        status = gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", events->path, strerror(errno));
    }
    free(events);
    return status;
}
