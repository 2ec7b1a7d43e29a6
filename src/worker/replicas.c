/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/replicas.h"

#include "io/digest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGING_BYTES = 1 << 20 };

static uint64_t first_half(const gidd_digest *digest)
{
    char text[GIDD_DIGEST_SIZE];
    gidd_digest_text(digest, text);
    text[16] = '\0';
    return strtoull(text, NULL, 16);
}

// Digests of every tensor, and of all of them in digests[tensor_count].
static gidd_status digest_tensors(gidd_model *model, uint64_t *digests, void *staging, gidd_digest *digest)
{
    const gidd_params *params = model->params;
    size_t             element = model->weights == (void *)model->master ? sizeof(float) : gidd_dtype_bytes(model->device->dtype);
    for (int64_t i = 0; i < params->tensor_count; i++) {
        const char *source = (const char *)model->weights + (size_t)params->tensors[i].at * element;
        size_t      bytes = (size_t)params->tensors[i].count * element;
        gidd_digest_reset(digest);
        for (size_t done = 0; done < bytes;) {
            size_t piece = bytes - done < STAGING_BYTES ? bytes - done : STAGING_BYTES;
            GIDD_TRY(gidd_device_copy_out(model->device, staging, source + done, piece));
            gidd_digest_update(digest, staging, piece);
            done += piece;
        }
        digests[i] = first_half(digest);
    }
    gidd_digest_reset(digest);
    gidd_digest_update(digest, digests, (size_t)params->tensor_count * sizeof *digests);
    digests[params->tensor_count] = first_half(digest);
    return GIDD_OK;
}

// The value that most ranks have; of equals the first.
static uint64_t majority(const uint64_t *values, int count)
{
    uint64_t best = values[0];
    int      most = 0;
    for (int i = 0; i < count; i++) {
        int votes = 0;
        for (int j = 0; j < count; j++) {
            votes += values[j] == values[i];
        }
        if (votes > most) {
            most = votes;
            best = values[i];
        }
    }
    return best;
}

// Lists the ranks that differ from the majority; all of them when half is not a majority.
static void list_ranks(const uint64_t *values, int count, char *text, size_t size)
{
    uint64_t best = majority(values, count);
    int      votes = 0;
    size_t   used = 0;
    for (int i = 0; i < count; i++) {
        votes += values[i] == best;
    }
    for (int i = 0; i < count && used + 16 < size; i++) {
        if (2 * votes <= count || values[i] != best) {
            used += (size_t)snprintf(text + used, size - used, "%s%d", used > 0 ? ", " : "", i);
        }
    }
}

// After it is known that the copies differ: where, and whose.
static gidd_status name_difference(gidd_comm *workers, const gidd_model *model, const uint64_t *mine, int64_t step)
{
    int         size = gidd_comm_size(workers);
    uint64_t   *all = malloc((size_t)size * sizeof *all);
    char        ranks[256] = "";
    gidd_status status = gidd_comm_agree(workers, all != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory for digests"));
    for (int64_t i = 0; status == GIDD_OK && i < model->params->tensor_count; i++) {
        status = gidd_comm_allgather(workers, &mine[i], sizeof *mine, all);
        int differ = 0;
        for (int rank = 1; status == GIDD_OK && rank < size; rank++) {
            differ |= all[rank] != all[0];
        }
        if (differ) {
            list_ranks(all, size, ranks, sizeof ranks);
            status = gidd_fail(GIDD_ERR_CORRUPT, "after step %" PRId64 " the ranks' copies of %s differ (worker %s): memory or a "
                               "device is faulty; checkpoints newer than the last check may hold the damage",
                               step, model->params->tensors[i].name, ranks);
        }
    }
    free(all);
    return status;
}

gidd_status gidd_replicas_check(gidd_comm *workers, gidd_model *model, int64_t step)
{
    int64_t      count = model->params->tensor_count;
    uint64_t    *digests = calloc((size_t)count + 1, sizeof *digests);
    void        *staging = malloc(STAGING_BYTES);
    gidd_digest *digest = gidd_digest_create();
    gidd_status  status = digests != NULL && staging != NULL && digest != NULL
                              ? digest_tensors(model, digests, staging, digest)
                              : gidd_fail(GIDD_ERR_NOMEM, "no memory to compare the ranks' weights");
    int64_t      ends[2] = {0, 0}; // smallest of the digest and of its complement: equal everywhere or not
    free(staging);
    gidd_digest_destroy(digest);
    status = gidd_comm_agree(workers, status);
    if (status == GIDD_OK) {
        memcpy(&ends[0], &digests[count], sizeof *ends);
        ends[1] = ~ends[0];
        status = gidd_comm_allreduce_int64(workers, ends, 2, GIDD_COMM_MIN);
    }
    if (status == GIDD_OK && ends[0] != ~ends[1]) {
        status = name_difference(workers, model, digests, step);
    }
    free(digests);
    return status;
}
