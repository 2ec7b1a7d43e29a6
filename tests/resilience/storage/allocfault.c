/* SPDX-License-Identifier: Apache-2.0
 *
 * allocfault: preloaded, makes one allocation of a program fail, or the start of one thread.
 *
 *     ALLOCFAULT=K[,forever]            the K-th allocation (and all later ones); 0: none
 *     ALLOCFAULT_THREADS=K[,forever]    the K-th thread
 *     ALLOCFAULT_LOG=FILE               gets one line at the end: allocations counted, failed, threads counted, failed
 *
 * Counted is what the program's own code asks for (its libraries are linked into it) and
 * libjansson on its behalf, told by the caller's address. What MPI, HDF5 or the C library want
 * for themselves does not fail: their ways out of it are theirs.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
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

typedef struct resource {
    long k;
    int forever;
    _Atomic long counted, failed;
} resource;

static struct {
    uintptr_t first[8], end[8]; // of code whose wants count
    int ranges;
    resource memory, threads;
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

static void steer(resource *what, const char *variable)
{
    const char *spec = getenv(variable);
    what->k = spec != NULL ? atol(spec) : 0;
    what->forever = spec != NULL && strstr(spec, "forever") != NULL;
}

__attribute__((constructor)) static void begin(void)
{
    steer(&shim.memory, "ALLOCFAULT");
    steer(&shim.threads, "ALLOCFAULT_THREADS");
    (void)dl_iterate_phdr(add_ranges, NULL);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("ALLOCFAULT_LOG");
    char line[128];
    int bytes = snprintf(line, sizeof line, "%ld %ld %ld %ld\n", shim.memory.counted, shim.memory.failed,
                         shim.threads.counted, shim.threads.failed);
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    if (fd >= 0) {
        (void)!write(fd, line, (size_t)bytes);
        (void)close(fd);
    }
}

static int fails(resource *what, const void *caller)
{
    for (int i = 0; i < shim.ranges; i++) {
        if ((uintptr_t)caller >= shim.first[i] && (uintptr_t)caller < shim.end[i]) {
            long number = atomic_fetch_add(&what->counted, 1) + 1;
            if (what->k > 0 && (number == what->k || (number > what->k && what->forever))) {
                atomic_fetch_add(&what->failed, 1);
                return 1;
            }
        }
    }
    return 0;
}

#define FAILS() (fails(&shim.memory, __builtin_return_address(0)) && (errno = ENOMEM))

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*run)(void *),
                   void *restrict argument)
{
    int (*real)(pthread_t *restrict, const pthread_attr_t *restrict, void *(*)(void *), void *restrict);
    if (fails(&shim.threads, __builtin_return_address(0))) {
        return EAGAIN;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, run, argument);
}

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
