/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/emu/emu_block.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

enum {
    WARPS = GIDD_EMU_THREADS / GIDD_EMU_WARP,
    STACK_BYTES = 128 * 1024,
    STACK_COLOUR = 192, // tops of neighbouring stacks fall into different cache sets
    POISON = 0xff,
    GUARD = 0x5a,
    GUARD_BYTES = 256,
    COPIES = 512, // of one thread, not yet waited for
};

// ---- switching stacks ------------------------------------------------------------------------

#if defined(__x86_64__)
// Only what the ABI asks a callee to keep; swapcontext() would make a system call each time.
typedef void *fiber_context;
void gidd_emu_switch(fiber_context *from, fiber_context to);
__asm__(".text\n"
        ".type gidd_emu_switch,@function\n"
        "gidd_emu_switch:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp,(%rdi)\n  movq %rsi,%rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size gidd_emu_switch,.-gidd_emu_switch\n");

static void switch_context(fiber_context *from, fiber_context *to)
{
    gidd_emu_switch(from, *to);
}

static void make_context(fiber_context *made, char *stack, char *top, void (*entry)(void))
{
    enum { SAVED = 6 }; // registers
    (void)stack;
    void **at = (void **)(void *)top;
    void (**at_entry)(void) = (void (**)(void))(at - 2);
    memset(at - 2 - SAVED, 0, (2 + SAVED) * sizeof *at); // a return address of 0 ends backtraces
    *at_entry = entry;
    *made = at - 2 - SAVED;
}
#else
typedef ucontext_t fiber_context;

static void switch_context(fiber_context *from, fiber_context *to)
{
    (void)swapcontext(from, to);
}

static void make_context(fiber_context *made, char *stack, char *top, void (*entry)(void))
{
    (void)getcontext(made);
    made->uc_stack.ss_sp = stack;
    made->uc_stack.ss_size = (size_t)(top - stack);
    made->uc_link = NULL;
    makecontext(made, entry, 0);
}
#endif

// ---- the block -------------------------------------------------------------------------------

typedef struct async_copy {
    void *target;
    const void *source;
    int source_bytes;
    int group;
} async_copy;

typedef struct fiber {
    fiber_context context;
    gidd_emu_position position;
    uint32_t mask; // of the meeting it waits in
    gidd_emu_operation operation;
    void *operand;
    int64_t barriers;                   // it has reached
    int copy_first, copy_count, groups; // its queue of copies; groups committed
} fiber;

// Lanes by what they do; the rest has ended.
typedef struct warp {
    uint32_t ready, meeting, at_barrier;
} warp;

/* Kernels name no block that they belong to, so the one that runs is the file's; `running` lets one
 * launch in at a time. */
static struct {
    fiber fibers[GIDD_EMU_THREADS];
    warp warps[WARPS];
    async_copy copies[GIDD_EMU_THREADS][COPIES];
    unsigned threads, warp_count, ended, waiting; // waiting: at the block's barrier
    unsigned current;
    int votes, last_votes;
    int64_t most_barriers; // that any thread has reached
    char *stacks, *shared;
    size_t shared_bytes;
    void (*body)(void *);
    void *context;
    fiber_context launcher;
    uint64_t random; // 0: threads run in order
    uint64_t copy_random;
} block;

static pthread_mutex_t running = PTHREAD_MUTEX_INITIALIZER;

const gidd_emu_position *gidd_emu_now;
gidd_emu_fences gidd_emu_fenced;

// Static __shared__ variables of all kernels (cuda_host.cuh); absent when none has any.
extern char __start_gidd_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_gidd_shared[] __attribute__((weak, visibility("hidden")));

void gidd_emu_fail(const char *format, ...)
{
    va_list arguments;
    (void)fflush(stdout);
    (void)fputs("emu: ", stderr);
    if (gidd_emu_now != NULL) {
        const gidd_emu_position *p = gidd_emu_now;
        (void)fprintf(stderr, "block (%u,%u,%u) thread (%u,%u,%u): ", p->block.x, p->block.y,
                      p->block.z, p->thread.x, p->thread.y, p->thread.z);
    }
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    abort();
}

static char *stack_of(unsigned number)
{
    return block.stacks + (size_t)number * STACK_BYTES;
}

static uint32_t random_bits(uint64_t *state)
{
    *state ^= *state << 13; // xorshift64
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

// ---- who runs next ---------------------------------------------------------------------------

// A deadlock: some wait at the barrier, some in a meeting that cannot become complete.
static void report_stuck(void)
{
    unsigned meeting = 0;
    for (unsigned w = 0; w < block.warp_count; w++) {
        meeting += (unsigned)__builtin_popcount(block.warps[w].meeting);
    }
    gidd_emu_fail("deadlock: %u threads wait at a barrier of the block, %u inside their warps, %u "
                  "have ended",
                  block.waiting, meeting, block.ended);
}

static unsigned choose_lane(uint32_t ready)
{
    if (block.random == 0) {
        return (unsigned)__builtin_ctz(ready);
    }
    for (uint32_t skip = random_bits(&block.random) % (uint32_t)__builtin_popcount(ready); skip > 0; skip--) {
        ready &= ready - 1;
    }
    return (unsigned)__builtin_ctz(ready);
}

// Its own warp first, so that warps advance as whole; at random: any.
static unsigned choose_fiber(void)
{
    unsigned start =
        block.random == 0 ? block.current / GIDD_EMU_WARP : random_bits(&block.random) % block.warp_count;
    for (unsigned i = 0; i < block.warp_count; i++) {
        unsigned w = start + i < block.warp_count ? start + i : start + i - block.warp_count;
        if (block.warps[w].ready != 0) {
            return w * GIDD_EMU_WARP + choose_lane(block.warps[w].ready);
        }
    }
    report_stuck();
    return 0;
}

// Leaves the running fiber for another; at random it may go on itself, if it does not wait.
static void run_another(void)
{
    fiber *from = &block.fibers[block.current];
    if (block.ended == block.threads) {
        switch_context(&from->context, &block.launcher);
    }
    block.current = choose_fiber();
    fiber *to = &block.fibers[block.current];
    if (to != from) {
        gidd_emu_now = &to->position;
        switch_context(&from->context, &to->context);
    }
}

static void end_fiber(void)
{
    warp *own = &block.warps[block.current / GIDD_EMU_WARP];
    if (block.fibers[block.current].barriers < block.most_barriers) {
        gidd_emu_fail(
            "divergent barrier: this thread ended after %lld barriers, others reached %lld",
            (long long)block.fibers[block.current].barriers, (long long)block.most_barriers);
    }
    own->ready &= ~(1u << block.current % GIDD_EMU_WARP);
    block.ended++;
    run_another();
}

static void fiber_main(void)
{
    block.body(block.context);
    end_fiber();
    abort(); // an ended fiber is never run
}

// ---- barriers and meetings -------------------------------------------------------------------

gidd_emu_votes gidd_emu_barrier(int vote)
{
    fiber *self = &block.fibers[block.current];
    warp *own = &block.warps[block.current / GIDD_EMU_WARP];
    if (++self->barriers > block.most_barriers) {
        block.most_barriers = self->barriers;
    }
    block.votes += vote != 0;
    if (block.ended > 0) {
        gidd_emu_fail("divergent barrier: %u threads of the block have ended without reaching it",
                      block.ended);
    }
    if (block.waiting + 1 < block.threads) {
        uint32_t bit = 1u << block.current % GIDD_EMU_WARP;
        block.waiting++;
        own->ready &= ~bit;
        own->at_barrier |= bit;
        run_another();
    } else {
        for (unsigned w = 0; w < block.warp_count; w++) {
            block.warps[w].ready |= block.warps[w].at_barrier;
            block.warps[w].at_barrier = 0;
        }
        gidd_emu_fenced.barrier = ++gidd_emu_fenced.now;
        block.waiting = 0;
        block.last_votes = block.votes;
        block.votes = 0;
        if (block.random != 0) {
            run_another(); // the last to arrive is not the first to go on
        }
    }
    return (gidd_emu_votes){block.last_votes, (int)block.threads};
}

static void fence_lanes(unsigned first, uint32_t mask)
{
    gidd_emu_fenced.now++;
    for (uint32_t left = mask; left != 0; left &= left - 1) {
        gidd_emu_fenced.own[first + (unsigned)__builtin_ctz(left)] = gidd_emu_fenced.now;
    }
}

// Whether every lane of the mask is here; ends the process where they never can be.
static int meeting_is_complete(const fiber *first, const warp *own, uint32_t mask,
                               gidd_emu_operation operation)
{
    int complete = 1;
    uint32_t self_bit = 1u << block.current % GIDD_EMU_WARP;
    for (uint32_t left = mask; left != 0; left &= left - 1) {
        unsigned lane = (unsigned)__builtin_ctz(left);
        uint32_t bit = 1u << lane;
        const fiber *other = &first[lane];
        if (own->meeting & bit) {
            int same = other->mask == mask && other->operation == operation;
            if (!same && (other->mask & self_bit) != 0) { // each waits for the other
                gidd_emu_fail(
                    "lane %u waits in another operation of the warp (mask %08x, here %08x)", lane,
                    other->mask, mask);
            }
            complete &= same;
        } else if ((own->ready & bit) == 0 && (own->at_barrier & bit) == 0) {
            gidd_emu_fail("lane %u of the mask %08x has ended", lane, mask);
        } else {
            complete = 0;
        }
    }
    return complete;
}

void gidd_emu_meet(uint32_t mask, gidd_emu_operation operation, void *operand)
{
    unsigned lane = block.current % GIDD_EMU_WARP;
    uint32_t bit = 1u << lane;
    fiber *first = &block.fibers[block.current - lane], *self = first + lane;
    warp *own = &block.warps[block.current / GIDD_EMU_WARP];
    if ((mask & bit) == 0) {
        gidd_emu_fail("a lane outside the mask %08x of its own warp operation", mask);
    }
    self->mask = mask;
    self->operation = operation;
    self->operand = operand;
    own->meeting |= bit;
    own->ready &= ~bit;
    if (!meeting_is_complete(first, own, mask, operation)) {
        run_another();
        return;
    }
    if (operation != NULL) {
        void *operands[GIDD_EMU_WARP];
        for (unsigned i = 0; i < GIDD_EMU_WARP; i++) {
            operands[i] = mask >> i & 1u ? first[i].operand : NULL;
        }
        operation(operands, mask);
    } else {
        fence_lanes(block.current - lane, mask);
    }
    own->meeting &= ~mask;
    own->ready |= mask;
    if (block.random != 0) {
        run_another();
    }
}

// ---- asynchronous copies ---------------------------------------------------------------------

static void do_copy(const async_copy *copy)
{
    memset(copy->target, 0, 16);
    memcpy(copy->target, copy->source, (size_t)copy->source_bytes);
}

/* Hardware may do a copy at any moment from here to its wait. Half of them, drawn at random, are done here: too
 * early for whoever still reads what is overwritten; the others at the wait: too late for whoever reads before. */
void gidd_emu_copy_async(void *target, const void *source, int source_bytes)
{
    fiber *self = &block.fibers[block.current];
    if ((uintptr_t)target % 16 != 0 || (uintptr_t)source % 16 != 0) {
        gidd_emu_fail("an asynchronous copy that is not 16-byte aligned: %p from %p", target,
                      source);
    }
    if (source_bytes < 0 || source_bytes > 16 || self->copy_count == COPIES) {
        gidd_emu_fail("an asynchronous copy of %d bytes, %d pending", source_bytes,
                      self->copy_count);
    }
    async_copy copy = {target, source, source_bytes, self->groups};
    if (random_bits(&block.copy_random) % 2 == 0) {
        do_copy(&copy);
        return;
    }
    block.copies[block.current][(self->copy_first + self->copy_count++) % COPIES] = copy;
}

void gidd_emu_copy_commit(void)
{
    block.fibers[block.current].groups++;
}

void gidd_emu_copy_wait(int leave)
{
    fiber *self = &block.fibers[block.current];
    while (self->copy_count > 0) {
        const async_copy *copy = &block.copies[block.current][self->copy_first];
        if (copy->group >= self->groups - leave) {
            return;
        }
        do_copy(copy);
        self->copy_first = (self->copy_first + 1) % COPIES;
        self->copy_count--;
    }
}

// ---- launches --------------------------------------------------------------------------------

void *gidd_emu_shared(void)
{
    return block.shared;
}

static void prepare(void)
{
    const char *seed = getenv("GIDD_EMU_SEED");
    block.random = seed != NULL ? strtoull(seed, NULL, 10) * 0x9e3779b97f4a7c15u | 1u : 0;
    block.copy_random = block.random ^ 0xd1b54a32d192ed03u; // so the same launch does the same each time
    if (block.stacks != NULL) {
        return;
    }
    size_t bytes = (size_t)GIDD_EMU_THREADS * STACK_BYTES;
    block.stacks = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    block.shared = aligned_alloc(128, GIDD_EMU_SHARED_BYTES + GUARD_BYTES);
    if (block.stacks == MAP_FAILED || block.shared == NULL) {
        gidd_emu_fail("no memory for the stacks of a block");
    }
}

static void start_fibers(gidd_emu_index grid, gidd_emu_index size, gidd_emu_index at)
{
    for (unsigned i = 0; i < block.threads; i++) {
        fiber *made = &block.fibers[i];
        char *stack = stack_of(i);
        memset(stack, GUARD, sizeof(uint64_t)); // looked at when the block has ended
        make_context(&made->context, stack,
                     stack + STACK_BYTES - (size_t)(i % 16) * STACK_COLOUR - 64, fiber_main);
        made->position =
            (gidd_emu_position){.thread = {i % size.x, i / size.x % size.y, i / (size.x * size.y)},
                                .block = at,
                                .block_size = size,
                                .grid_size = grid,
                                .number = i};
        made->barriers = 0;
        made->copy_first = made->copy_count = made->groups = 0;
    }
    for (unsigned w = 0; w < block.warp_count; w++) {
        block.warps[w] = (warp){.ready = UINT32_MAX};
    }
    gidd_emu_fenced.barrier = ++gidd_emu_fenced.now;
    block.ended = block.waiting = 0;
    block.votes = 0;
    block.most_barriers = 0;
}

static void poison_shared(void)
{
    memset(block.shared, POISON, block.shared_bytes);
    memset(block.shared + block.shared_bytes, GUARD, GUARD_BYTES);
    if (__start_gidd_shared != NULL) {
        memset(__start_gidd_shared, POISON, (size_t)(__stop_gidd_shared - __start_gidd_shared));
    }
}

static void check_guards(void)
{
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        if (block.shared[block.shared_bytes + i] != GUARD) {
            gidd_emu_fail("%zu bytes of dynamic shared memory, and byte %zu was written",
                          block.shared_bytes, block.shared_bytes + i);
        }
    }
    uint64_t guard;
    memset(&guard, GUARD, sizeof guard);
    for (unsigned i = 0; i < block.threads; i++) {
        if (memcmp(stack_of(i), &guard, sizeof guard) != 0) {
            gidd_emu_fail("the stack of thread %u overflowed", i);
        }
    }
}

static void run_block(gidd_emu_index grid, gidd_emu_index size, gidd_emu_index at)
{
    start_fibers(grid, size, at);
    poison_shared();
    block.current = 0;
    block.current = choose_fiber();
    gidd_emu_now = &block.fibers[block.current].position;
    switch_context(&block.launcher, &block.fibers[block.current].context);
    check_guards();
}

void gidd_emu_run(gidd_emu_index grid, gidd_emu_index size, size_t shared_bytes,
                  void (*body)(void *context), void *context)
{
    uint64_t threads = (uint64_t)size.x * size.y * size.z;
    if (threads == 0 || threads > GIDD_EMU_THREADS || threads % GIDD_EMU_WARP != 0 || grid.x == 0 ||
        grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
        shared_bytes > GIDD_EMU_SHARED_BYTES) {
        gidd_emu_fail("launch of %u x %u x %u blocks of %llu threads, %zu bytes of shared memory",
                      grid.x, grid.y, grid.z, (unsigned long long)threads, shared_bytes);
    }
    (void)pthread_mutex_lock(&running);
    prepare();
    block.threads = (unsigned)threads;
    block.warp_count = block.threads / GIDD_EMU_WARP;
    block.shared_bytes = shared_bytes;
    block.body = body;
    block.context = context;
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                run_block(grid, size, (gidd_emu_index){x, y, z});
            }
        }
    }
    gidd_emu_now = NULL;
    (void)pthread_mutex_unlock(&running);
}
