/* SPDX-License-Identifier: Apache-2.0
 *
 * allocfault: preloaded, makes one allocation of a program fail.
 *
 *     ALLOCFAULT=K[,forever]      the K-th (and all later ones); 0: none
 *     ALLOCFAULT_LOG=FILE         gets one line at the end: allocations counted, and how many failed
 *
 * Counted are allocations by the program's own code (its libraries are linked into it) and by
 * libjansson on its behalf, told by the caller's address. What MPI, HDF5 or the C library allocate
 * for themselves does not fail: their ways out of it are theirs.
 */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static struct {
    uintptr_t first[8], end[8]; // of code whose allocations count
    int ranges;
    long k;
    int forever;
    _Atomic long counted, failed;
} shim;

static int add_ranges(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size, (void)context;
    int wanted = info->dlpi_name[0] == '\0' || strstr(info->dlpi_name, "libjansson") != NULL;
    for (int i = 0; wanted && i < info->dlpi_phnum && shim.ranges < 8; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
            shim.first[shim.ranges] = info->dlpi_addr + part->p_vaddr;
            shim.end[shim.ranges] = shim.first[shim.ranges] + part->p_memsz;
            shim.ranges++;
        }
    }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *spec = getenv("ALLOCFAULT");
    shim.k = spec != NULL ? atol(spec) : 0;
    shim.forever = spec != NULL && strstr(spec, "forever") != NULL;
    (void)dl_iterate_phdr(add_ranges, NULL);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("ALLOCFAULT_LOG");
    char line[64];
    int bytes = snprintf(line, sizeof line, "%ld %ld\n", shim.counted, shim.failed);
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    if (fd >= 0) {
        (void)!write(fd, line, (size_t)bytes);
        (void)close(fd);
    }
}

static int fails(const void *caller)
{
    for (int i = 0; i < shim.ranges; i++) {
        if ((uintptr_t)caller >= shim.first[i] && (uintptr_t)caller < shim.end[i]) {
            long number = atomic_fetch_add(&shim.counted, 1) + 1;
            if (shim.k > 0 && (number == shim.k || (number > shim.k && shim.forever))) {
                atomic_fetch_add(&shim.failed, 1);
                errno = ENOMEM;
                return 1;
            }
        }
    }
    return 0;
}

#define FAILS() fails(__builtin_return_address(0))

void *malloc(size_t size)
{
    return FAILS() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return FAILS() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return FAILS() ? NULL : __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return FAILS() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory_p, size_t alignment, size_t size)
{
    if (FAILS()) {
        return ENOMEM;
    }
    *memory_p = __libc_memalign(alignment, size);
    return *memory_p != NULL ? 0 : ENOMEM;
}

char *strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = FAILS() ? NULL : __libc_malloc(bytes);
    return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}

char *strndup(const char *text, size_t limit)
{
    size_t bytes = strnlen(text, limit);
    char *copy = FAILS() ? NULL : __libc_malloc(bytes + 1);
    if (copy != NULL) {
        memcpy(copy, text, bytes);
        copy[bytes] = '\0';
    }
    return copy;
}

__attribute__((format(printf, 2, 0))) static int format(char **text_p, const char *pattern, va_list list)
{
    va_list again;
    va_copy(again, list);
    int bytes = vsnprintf(NULL, 0, pattern, list);
    char *text = bytes >= 0 ? __libc_malloc((size_t)bytes + 1) : NULL;
    if (text != NULL) {
        (void)vsnprintf(text, (size_t)bytes + 1, pattern, again);
    }
    va_end(again);
    *text_p = text;
    return text != NULL ? bytes : -1;
}

int vasprintf(char **text_p, const char *pattern, va_list list)
{
    return FAILS() ? -1 : format(text_p, pattern, list);
}

int asprintf(char **text_p, const char *pattern, ...)
{
    va_list list;
    if (FAILS()) {
        return -1;
    }
    va_start(list, pattern);
    int bytes = format(text_p, pattern, list);
    va_end(list);
    return bytes;
}
