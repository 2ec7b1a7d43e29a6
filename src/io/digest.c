/* SPDX-License-Identifier: Apache-2.0 */
#include "io/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

struct gidd_digest {
    XXH3_state_t *state;
};

gidd_digest *gidd_digest_create(void)
{
    gidd_digest *digest = malloc(sizeof *digest);
    if (digest == NULL) {
        return NULL;
    }
    digest->state = XXH3_createState();
    if (digest->state == NULL) {
        free(digest);
        return NULL;
    }
    gidd_digest_reset(digest);
    return digest;
}

void gidd_digest_destroy(gidd_digest *digest)
{
    if (digest != NULL) {
        (void)XXH3_freeState(digest->state);
        free(digest);
    }
}

void gidd_digest_reset(gidd_digest *digest)
{
    (void)XXH3_128bits_reset(digest->state); // fails only for NULL
}

void gidd_digest_update(gidd_digest *digest, const void *bytes, size_t size)
{
    if (size > 0) {
        (void)XXH3_128bits_update(digest->state, bytes, size); // fails only for NULL
    }
}

static void write_text(XXH128_hash_t hash, char text[GIDD_DIGEST_SIZE])
{
    (void)snprintf(text, GIDD_DIGEST_SIZE, "%016llx%016llx", (unsigned long long)hash.high64,
                   (unsigned long long)hash.low64);
}

void gidd_digest_text(const gidd_digest *digest, char text[GIDD_DIGEST_SIZE])
{
    write_text(XXH3_128bits_digest(digest->state), text);
}

void gidd_digest_of(const void *bytes, size_t size, char text[GIDD_DIGEST_SIZE])
{
    write_text(XXH3_128bits(size > 0 ? bytes : "", size), text);
}

int gidd_digest_valid(const char *text)
{
    return strlen(text) == GIDD_DIGEST_SIZE - 1 &&
           strspn(text, "0123456789abcdef") == GIDD_DIGEST_SIZE - 1;
}

static gidd_status add_file(gidd_digest *digest, int fd, const char *path, size_t *size_p)
{
    enum { BLOCK = 1 << 18 };
    size_t size = 0;
    char *block = malloc(BLOCK);
    if (block == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory to read %s", path);
    }
    gidd_status status = GIDD_OK;
    for (;;) {
        ssize_t got = read(fd, block, BLOCK);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            status = gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        }
        if (got <= 0) {
            break;
        }
        gidd_digest_update(digest, block, (size_t)got);
        size += (size_t)got;
    }
    free(block);
    if (status == GIDD_OK) {
        *size_p = size;
    }
    return status;
}

gidd_status gidd_digest_file(const char *path, char text[GIDD_DIGEST_SIZE], size_t *size_p)
{
    gidd_status status = GIDD_OK;
    size_t size = 0;
    gidd_digest *digest = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s",
                         path, strerror(errno));
    }
    digest = gidd_digest_create();
    if (digest == NULL) {
        status = gidd_fail(GIDD_ERR_NOMEM, "no memory for the digest of %s", path);
        goto out;
    }
    GIDD_TRY_GOTO(add_file(digest, fd, path, &size));
    gidd_digest_text(digest, text);
    if (size_p != NULL) {
        *size_p = size;
    }
out:
    gidd_digest_destroy(digest);
    (void)close(fd); // read-only: nothing to lose
    return status;
}
