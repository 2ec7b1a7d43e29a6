/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for libnccl.so.2 with which the NCCL back-end runs where there is no GPU: host memory, over MPI. A
 * "stream" is a fake_nccl_stream; what is issued to it is done at fake_nccl_run, and must have been forked first.
 */
#ifndef GIDD_TESTS_FAKE_NCCL_H
#define GIDD_TESTS_FAKE_NCCL_H

enum { FAKE_NCCL_MOST = 256 };

typedef struct fake_nccl_stream {
    int is_forked; /* the test's fork sets it, its join runs the stream and clears it */
    int count;
    struct {
        int kind, type;
        const void *send;
        void *receive;
        unsigned long items;
        void *comm;
    } work[FAKE_NCCL_MOST];
} fake_nccl_stream;

/* Does what was issued; 0, or an ncclResult_t. */
int fake_nccl_run(fake_nccl_stream *stream);

/* What ncclCommGetAsyncError finds from now on; how often ncclCommAbort was called; live communicators. */
void fake_nccl_set_async_error(int error);
int fake_nccl_aborts(void);
int fake_nccl_live(void);

#endif
