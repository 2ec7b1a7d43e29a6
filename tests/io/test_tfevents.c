/* SPDX-License-Identifier: Apache-2.0
 *
 * Event files against known bytes of the format, and read back by a decoder of the test's own.
 */
#include "io/tfevents.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { RECORDS_MAX = 16, FILE_MAX = 8192 };

static char folder[64];

static void make_folder(void)
{
    (void)strcpy(folder, "/tmp/gidd_tfevents_XXXXXX");
    cr_assert(mkdtemp(folder) != NULL);
}

// Calls `act` on the path of each event file, then counts them.
static int each_file(void (*act)(const char *path, void *context), void *context)
{
    int            count = 0;
    DIR           *dir = opendir(folder);
    struct dirent *entry;
    cr_assert(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "events.out.tfevents.", 20) == 0) {
            char path[512];
            (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            act(path, context);
            count++;
        }
    }
    (void)closedir(dir);
    return count;
}

static void remove_one(const char *path, void *context)
{
    (void)context;
    (void)unlink(path);
}

static void remove_folder(void)
{
    (void)each_file(remove_one, NULL);
    (void)rmdir(folder);
}

typedef struct contents {
    uint8_t bytes[FILE_MAX];
    size_t  count;
} contents;

static void read_one(const char *path, void *context)
{
    contents *c = context;
    FILE     *file = fopen(path, "rb");
    cr_assert(file != NULL);
    c->count = fread(c->bytes, 1, sizeof c->bytes, file);
    (void)fclose(file);
}

static uint64_t little(const uint8_t *bytes, size_t count)
{
    uint64_t value = 0;
    for (size_t i = count; i-- > 0;) {
        value = value << 8 | bytes[i];
    }
    return value;
}

// CRC-32C bit by bit, from its polynomial.
static uint32_t slow_crc(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
        }
    }
    return ~crc;
}

static uint32_t slow_masked(const uint8_t *bytes, size_t count)
{
    uint32_t crc = slow_crc(bytes, count);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

typedef struct record {
    double  wall_time;
    int64_t step;
    char    version[32], tag[300];
    float   value;
    int     has_value, session;
} record;

static uint64_t take_varint(const uint8_t **at)
{
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            return value;
        }
    }
}

// Walks a message; nested ones (summary, its value, the session log) are walked with `depth` + 1.
static void decode(const uint8_t *at, const uint8_t *end, int depth, record *r)
{
    while (at < end) {
        uint64_t key = take_varint(&at), field = key >> 3;
        switch (key & 7) {
        case 0: {
            uint64_t value = take_varint(&at);
            if (depth == 0 && field == 2) {
                r->step = (int64_t)value;
            } else if (depth == 7 && field == 1) {
                r->session = (int)value;
            }
            break;
        }
        case 1: {
            uint64_t bits = little(at, 8);
            memcpy(&r->wall_time, &bits, 8);
            at += 8;
            break;
        }
        case 5: {
            uint32_t bits = (uint32_t)little(at, 4);
            cr_assert(depth == 6 && field == 2);
            memcpy(&r->value, &bits, 4);
            r->has_value = 1;
            at += 4;
            break;
        }
        default: {
            cr_assert((key & 7) == 2);
            size_t count = take_varint(&at);
            cr_assert(at + count <= end);
            if (depth == 0 && field == 3) {
                memcpy(r->version, at, count);
            } else if (depth == 6 && field == 1) {
                memcpy(r->tag, at, count);
            } else {
                decode(at, at + count, depth == 0 ? (int)field : depth + 1, r);
            }
            at += count;
        }
        }
    }
    cr_assert(at == end);
}

static int read_records(record *records)
{
    static contents c;
    size_t          at = 0;
    int             count = 0;
    cr_assert(each_file(read_one, &c) == 1);
    while (at < c.count) {
        size_t length = little(c.bytes + at, 8);
        cr_assert(at + 12 + length + 4 <= c.count, "record %d is cut off", count);
        cr_expect(little(c.bytes + at + 8, 4) == slow_masked(c.bytes + at, 8));
        cr_expect(little(c.bytes + at + 12 + length, 4) == slow_masked(c.bytes + at + 12, length));
        cr_assert(count < RECORDS_MAX);
        memset(&records[count], 0, sizeof *records);
        decode(c.bytes + at + 12, c.bytes + at + 12 + length, 0, &records[count++]);
        at += 12 + length + 4;
    }
    return count;
}

TestSuite(tfevents, .init = make_folder, .fini = remove_folder);

// The check value of CRC-32C, and the mask as every event file shows it: 24 bytes begin with this head.
Test(tfevents, known_bytes)
{
    static contents      c;
    static const uint8_t head[] = {0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22, 0x09};
    gidd_tfevents       *events = NULL;
    cr_expect(gidd_tfevents_crc("123456789", 9) == 0xe3069283u);
    cr_expect(gidd_tfevents_crc("", 0) == 0);
    cr_expect(gidd_tfevents_crc_mask(gidd_tfevents_crc((const uint8_t[8]){0x18}, 8)) == 0x224b7fa3u);
    cr_assert(gidd_tfevents_open(folder, &events) == GIDD_OK);
    cr_assert(gidd_tfevents_close(events) == GIDD_OK);
    cr_assert(each_file(read_one, &c) == 1);
    cr_expect(c.count == 12 + 24 + 4);
    cr_expect(memcmp(c.bytes, head, sizeof head) == 0);
    cr_expect(memcmp(c.bytes + 21, "\x1a\x0d" "brain.Event:2", 15) == 0);
}

Test(tfevents, scalars_read_back)
{
    static record  records[RECORDS_MAX];
    gidd_tfevents *events = NULL;
    time_t         before = time(NULL);
    cr_assert(gidd_tfevents_open(folder, &events) == GIDD_OK);
    cr_assert(gidd_tfevents_scalar(events, "train/loss", 0, 10.5) == GIDD_OK);
    cr_assert(gidd_tfevents_scalar(events, "train/loss", 500000, 0.1) == GIDD_OK);
    cr_assert(gidd_tfevents_scalar(events, "valid/elbo", INT64_MAX, (double)NAN) == GIDD_OK);
    cr_assert(gidd_tfevents_close(events) == GIDD_OK);
    cr_assert(read_records(records) == 5);
    cr_expect_str_eq(records[0].version, "brain.Event:2");
    cr_expect(records[1].session == 1 && records[1].step == 0 && !records[1].has_value);
    cr_expect_str_eq(records[2].tag, "train/loss");
    cr_expect(records[2].step == 0 && records[2].value == 10.5f);
    cr_expect(records[3].step == 500000 && records[3].value == 0.1f);
    cr_expect_str_eq(records[4].tag, "valid/elbo");
    cr_expect(records[4].step == INT64_MAX && isnan(records[4].value));
    cr_expect(records[4].wall_time >= (double)before && records[4].wall_time < (double)before + 60);
}

// A resumed run: its file is a new one, and tells readers from which step it takes over.
Test(tfevents, second_opening_takes_over)
{
    gidd_tfevents *first = NULL, *second = NULL;
    cr_assert(gidd_tfevents_open(folder, &first) == GIDD_OK);
    cr_assert(gidd_tfevents_open(folder, &second) == GIDD_OK);
    cr_assert(gidd_tfevents_close(first) == GIDD_OK);
    cr_assert(each_file(remove_one, NULL) == 2);
    cr_assert(gidd_tfevents_close(second) == GIDD_OK);

    static record records[RECORDS_MAX];
    cr_assert(gidd_tfevents_open(folder, &first) == GIDD_OK);
    cr_assert(gidd_tfevents_scalar(first, "a", 70, 1) == GIDD_OK);
    cr_assert(gidd_tfevents_close(first) == GIDD_OK);
    cr_assert(read_records(records) == 3);
    cr_expect(records[1].session == 1 && records[1].step == 70);
}

Test(tfevents, flushed_is_readable)
{
    static record  records[RECORDS_MAX];
    gidd_tfevents *events = NULL;
    cr_assert(gidd_tfevents_open(folder, &events) == GIDD_OK);
    cr_assert(gidd_tfevents_scalar(events, "a", 1, 1) == GIDD_OK);
    cr_assert(gidd_tfevents_flush(events) == GIDD_OK);
    cr_expect(read_records(records) == 3);
    cr_assert(gidd_tfevents_close(events) == GIDD_OK);
}

Test(tfevents, tags_are_bounded)
{
    static record  records[RECORDS_MAX];
    gidd_tfevents *events = NULL;
    char           tag[GIDD_TFEVENTS_TAG_MAX + 2];
    memset(tag, 't', sizeof tag);
    tag[GIDD_TFEVENTS_TAG_MAX + 1] = '\0';
    cr_assert(gidd_tfevents_open(folder, &events) == GIDD_OK);
    cr_expect(gidd_tfevents_scalar(events, tag, 1, 1) == GIDD_ERR_ARG);
    tag[GIDD_TFEVENTS_TAG_MAX] = '\0';
    cr_expect(gidd_tfevents_scalar(events, tag, INT64_MAX, 1) == GIDD_OK);
    cr_assert(gidd_tfevents_close(events) == GIDD_OK);
    cr_assert(read_records(records) == 3);
    cr_expect_str_eq(records[2].tag, tag);
}

Test(tfevents, no_such_folder)
{
    gidd_tfevents *events = NULL;
    cr_expect(gidd_tfevents_open("/proc/nowhere/tensorboard", &events) == GIDD_ERR_OUTPUT);
    cr_expect(events == NULL);
    cr_expect(gidd_tfevents_close(NULL) == GIDD_OK);
}

// A full disk (a file-size limit stands for it) is reported, not lost.
Test(tfevents, full_disk)
{
    gidd_tfevents *events = NULL;
    cr_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    cr_assert(setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 64, .rlim_max = 64}) == 0);
    cr_assert(gidd_tfevents_open(folder, &events) == GIDD_OK);
    cr_assert(gidd_tfevents_scalar(events, "a", 1, 1) == GIDD_OK);
    cr_expect(gidd_tfevents_flush(events) == GIDD_ERR_IO);
    cr_expect(strstr(gidd_error_last()->text, folder) != NULL);
    cr_expect(gidd_tfevents_close(events) == GIDD_ERR_IO);
}
