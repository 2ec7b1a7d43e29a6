/* SPDX-License-Identifier: Apache-2.0
 *
 * Windows over documents, from the loader over an array in memory.
 */
#include "io/loader.h"
#include "parity/parity.h"

// /data's documents.
typedef struct documents {
    const int32_t *tokens;
    const int64_t *offsets; // [count + 1]
} documents;

static gidd_status document_length(void *context, int64_t document, int64_t *tokens_p)
{
    const documents *all = context;
    *tokens_p = all->offsets[document + 1] - all->offsets[document];
    return GIDD_OK;
}

static gidd_status document_read(void *context, int64_t document, int64_t first, int64_t count,
                                 uint16_t *ids)
{
    const documents *all = context;
    for (int64_t i = 0; i < count; i++) {
        ids[i] = (uint16_t)all->tokens[all->offsets[document] + first + i];
    }
    return GIDD_OK;
}

static gidd_status open_loader(parity *p, documents *all, int64_t count, int64_t max_add_padding,
                               gidd_window_mode mode, gidd_loader **loader_p)
{
    gidd_schedule schedule;
    GIDD_TRY(parity_schedule(p, GIDD_PROCESS_GIDD, 0.0, GIDD_WEIGHTING_DYNAMIC, &schedule));
    gidd_loader_args args = {.source = {.context = all,
                                        .document_count = count,
                                        .vocab_size = (int32_t)p->config.V - 2,
                                        .has_specials = 1,
                                        .length = document_length,
                                        .read = document_read},
                             .schedule = &schedule,
                             .global_batch = 1,
                             .T = p->config.T,
                             .max_add_padding = max_add_padding,
                             .window = mode};
    return gidd_loader_open(&args, loader_p);
}

// Cuts every document where the file says and compares ids, masks and the bound of the random
// start.
static gidd_status compare_windows(parity *p, const gidd_loader *loader, const char *group)
{
    int64_t T = p->config.T, count = gidd_loader_train_examples(loader);
    int64_t *starts, *bounds, start, bound;
    int32_t *want_ids, *want_mask;
    int32_t *ids = parity_alloc(p, (size_t)(count * T) * sizeof *ids);
    int32_t *mask = parity_alloc(p, (size_t)(count * T) * sizeof *mask);
    int64_t wrong = 0;
    parity_shape shape;
    GIDD_TRY(parity_read_i64(p, parity_path(p, "%s/start_idx", group), &shape, &starts));
    GIDD_TRY(
        parity_read_i64(p, parity_path(p, "%s/randint_exclusive_high", group), &shape, &bounds));
    GIDD_TRY(parity_need_i32(p, parity_path(p, "%s/input_ids", group), count * T, &want_ids));
    GIDD_TRY(parity_need_i32(p, parity_path(p, "%s/attention_mask", group), count * T, &want_mask));
    for (int64_t d = 0; d < count; d++) {
        gidd_window_args window = {.example = d,
                                   .start = starts[d],
                                   .x = ids + d * T,
                                   .attention_mask = mask + d * T,
                                   .start_p = &start,
                                   .bound_p = &bound};
        GIDD_TRY(gidd_loader_window(loader, &window));
        wrong += start != starts[d] || bound != (bounds[d] < 0 ? 0 : bounds[d]);
    }
    parity_check(p, (double)wrong, 0.0, "%s cuts that differ", group + 1);
    parity_check(p, parity_mismatches(ids, want_ids, count * T), 0.0, "%s input_ids", group + 1);
    parity_check(p, parity_mismatches(mask, want_mask, count * T), 0.0, "%s attention_mask",
                 group + 1);
    return GIDD_OK;
}

static gidd_status check_windows(parity *p, documents *all, int64_t count, const char *group)
{
    gidd_loader *loader;
    double max_add_padding;
    GIDD_TRY(parity_attribute(p, group, "max_add_padding", &max_add_padding));
    GIDD_TRY(open_loader(p, all, count, (int64_t)max_add_padding, GIDD_WINDOW_DOCUMENT, &loader));
    gidd_status status = compare_windows(p, loader, group);
    gidd_loader_close(loader);
    return status;
}

static gidd_status compare_rows(parity *p, const gidd_loader *loader, const char *path)
{
    int64_t T = p->config.T, rows = gidd_loader_train_examples(loader), wrong_mask = 0;
    int32_t *want, *ids = parity_alloc(p, (size_t)(rows * T) * sizeof *ids);
    int32_t *mask = parity_alloc(p, (size_t)(rows * T) * sizeof *mask);
    parity_shape shape;
    GIDD_TRY(parity_read_i32(p, path, &shape, &want));
    parity_check(p, (double)(shape.count - rows * T), 0.0, "%s rows", path + 1);
    if (shape.count != rows * T) {
        return GIDD_OK;
    }
    for (int64_t r = 0; r < rows; r++) {
        gidd_window_args window = {
            .example = r, .start = -1, .x = ids + r * T, .attention_mask = mask + r * T};
        GIDD_TRY(gidd_loader_window(loader, &window));
    }
    for (int64_t i = 0; i < rows * T; i++) {
        wrong_mask += mask[i] != (want[i] != p->config.pad);
    }
    parity_check(p, parity_mismatches(ids, want, rows * T), 0.0, "%s", path + 1);
    parity_check(p, (double)wrong_mask, 0.0, "%s attention mask", path + 1);
    return GIDD_OK;
}

static gidd_status check_rows(parity *p, documents *all, int64_t count, gidd_window_mode mode,
                              const char *path)
{
    gidd_loader *loader;
    GIDD_TRY(open_loader(p, all, count, 0, mode, &loader));
    gidd_status status = compare_rows(p, loader, path);
    gidd_loader_close(loader);
    return status;
}

gidd_status parity_section_data(parity *p)
{
    int32_t *tokens;
    int64_t *offsets;
    parity_shape shape;
    GIDD_TRY(parity_read_i32(p, "/data/doc_tokens", NULL, &tokens));
    GIDD_TRY(parity_read_i64(p, "/data/doc_offsets", &shape, &offsets));
    documents all = {tokens, offsets};
    int64_t count = shape.count - 1;
    GIDD_TRY(check_windows(p, &all, count, "/data/subsample_pad0"));
    GIDD_TRY(check_windows(p, &all, count, "/data/subsample_pad5"));
    GIDD_TRY(check_rows(p, &all, count, GIDD_WINDOW_PADDED, "/data/pretokenized_padded"));
    return check_rows(p, &all, count, GIDD_WINDOW_PACKED, "/data/pretokenized_packed");
}
