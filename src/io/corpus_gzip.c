/* SPDX-License-Identifier: Apache-2.0 */
#include "io/corpus_gzip.h"

#include <stdlib.h>
#include <string.h>
#define ZLIB_CONST // zlib does not write to its input
#include <zlib.h>

enum { OUT_BYTES = 1 << 18, GZIP_ONLY = 16 + MAX_WBITS };

struct gidd_corpus_gzip {
    gidd_corpus_gzip_pull pull;
    void *context;
    z_stream z;
    int64_t pulled;
    int at_end;    // of the source
    int in_member; // a member began that has not ended
    int padding;   // zeros were seen behind a member
    gidd_error failure; // found behind bytes that are given out first; code OK: none
    uint8_t out[OUT_BYTES];
};

int gidd_corpus_gzip_begins(const void *bytes, size_t size)
{
    return size >= 2 && memcmp(bytes, "\x1f\x8b", 2) == 0;
}

gidd_status gidd_corpus_gzip_create(gidd_corpus_gzip_pull pull, void *context, gidd_corpus_gzip **gzip_p)
{
    gidd_corpus_gzip *gzip = calloc(1, sizeof *gzip);
    if (gzip == NULL || inflateInit2(&gzip->z, GZIP_ONLY) != Z_OK) {
        free(gzip);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to unpack gzip");
    }
    gzip->pull = pull;
    gzip->context = context;
    *gzip_p = gzip;
    return GIDD_OK;
}

void gidd_corpus_gzip_destroy(gidd_corpus_gzip *gzip)
{
    if (gzip != NULL) {
        (void)inflateEnd(&gzip->z);
        free(gzip);
    }
}

int64_t gidd_corpus_gzip_consumed(const gidd_corpus_gzip *gzip)
{
    return gzip->pulled - (int64_t)gzip->z.avail_in;
}

static gidd_status refill(gidd_corpus_gzip *gzip)
{
    const void *bytes = NULL;
    size_t got = 0;
    if (gzip->z.avail_in > 0 || gzip->at_end) {
        return GIDD_OK;
    }
    GIDD_TRY(gzip->pull(gzip->context, &bytes, &got));
    GIDD_ASSERT(got <= UINT32_MAX);
    gzip->at_end = got == 0;
    gzip->pulled += (int64_t)got;
    gzip->z.next_in = bytes;
    gzip->z.avail_in = (uInt)got;
    return GIDD_OK;
}

// Between members: zeros are padding, and nothing may follow them.
static gidd_status skip_padding(gidd_corpus_gzip *gzip)
{
    for (;;) {
        GIDD_TRY(refill(gzip));
        if (gzip->z.avail_in == 0) {
            return GIDD_OK;
        }
        if (*gzip->z.next_in != 0) {
            return gzip->padding ? gidd_fail(GIDD_ERR_CORRUPT, "something follows the end of the gzip") : GIDD_OK;
        }
        gzip->padding = 1;
        gzip->z.next_in++;
        gzip->z.avail_in--;
    }
}

static gidd_status inflate_some(gidd_corpus_gzip *gzip)
{
    int code = inflate(&gzip->z, Z_NO_FLUSH);
    if (code == Z_STREAM_END) {
        gzip->in_member = 0;
        return inflateReset(&gzip->z) == Z_OK ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "zlib cannot go on");
    }
    if (code == Z_MEM_ERROR) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to unpack gzip");
    }
    if (code != Z_OK && code != Z_BUF_ERROR) {
        return gidd_fail(GIDD_ERR_CORRUPT, "gzip: %s", gzip->z.msg != NULL ? gzip->z.msg : "damaged");
    }
    return GIDD_OK;
}

// Unpacks until there is something to give, the end, or a failure.
static gidd_status fill_out(gidd_corpus_gzip *gzip)
{
    while (gzip->z.avail_out == OUT_BYTES) {
        GIDD_TRY(gzip->in_member ? refill(gzip) : skip_padding(gzip));
        if (gzip->z.avail_in == 0) {
            return gzip->in_member ? gidd_fail(GIDD_ERR_CORRUPT, "gzip: truncated") : GIDD_OK;
        }
        gzip->in_member = 1;
        GIDD_TRY(inflate_some(gzip));
    }
    return GIDD_OK;
}

gidd_status gidd_corpus_gzip_read(gidd_corpus_gzip *gzip, const void **bytes_p, size_t *got_p)
{
    if (gzip->failure.code != GIDD_OK) {
        gidd_error_restore(&gzip->failure);
        return gzip->failure.code;
    }
    gzip->z.next_out = gzip->out;
    gzip->z.avail_out = OUT_BYTES;
    gidd_status status = fill_out(gzip);
    if (status != GIDD_OK && gzip->z.avail_out < OUT_BYTES) {
        gzip->failure = *gidd_error_last();
    } else {
        GIDD_TRY(status);
    }
    *bytes_p = gzip->out;
    *got_p = OUT_BYTES - gzip->z.avail_out;
    return GIDD_OK;
}
