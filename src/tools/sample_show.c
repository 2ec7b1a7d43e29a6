/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/sample_show.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char red[] = "\033[31;9m", green[] = "\033[32m", dim[] = "\033[2m", plain[] = "\033[0m";

static gidd_status print_ids(const sample_view *view, const int32_t *ids, int64_t count)
{
    char *text = NULL;
    GIDD_TRY(gidd_samples_render(view->bpe, ids, count, GIDD_BPE_SPECIALS_RENDER, &text));
    (void)fputs(text, view->stream);
    free(text);
    return GIDD_OK;
}

gidd_status sample_show_text(const sample_view *view, const gidd_samples *samples, int64_t i)
{
    char *text = NULL;
    GIDD_TRY(gidd_samples_text(view->bpe, view->vocab, samples->ids + i * samples->T, samples->T, &text));
    (void)fprintf(view->stream, "%s\n", text);
    free(text);
    return GIDD_OK;
}

/* ---- what changed ------------------------------------------------------------------------------------------ */

static gidd_status print_exchange(const sample_view *view, const int32_t *before, const int32_t *after, int64_t count)
{
    (void)fputs(view->colour ? red : "[-", view->stream);
    GIDD_TRY(print_ids(view, before, count));
    (void)fprintf(view->stream, "%s%s", view->colour ? plain : "-]", view->colour ? green : "{+");
    GIDD_TRY(print_ids(view, after, count));
    (void)fputs(view->colour ? plain : "+}", view->stream);
    return GIDD_OK;
}

gidd_status sample_show_diff(const sample_view *view, const gidd_samples *samples, int64_t i)
{
    const int64_t  T = samples->T;
    const int32_t *before = samples->before + i * T, *after = samples->ids + i * T;
    for (int64_t at = 0, end = 0; at < T; at = end) {
        const int same = before[at] == after[at];
        while (end < T && (before[end] == after[end]) == same) {
            end++;
        }
        GIDD_TRY(same ? print_ids(view, after + at, end - at) : print_exchange(view, before + at, after + at, end - at));
    }
    (void)fputc('\n', view->stream);
    return GIDD_OK;
}

void sample_show_table(FILE *stream, const gidd_samples *samples)
{
    double  initial = 0, final = 0, changed = 0, steps = 0;
    int64_t converged = 0, limit = 0;
    (void)fputs("sample   self-accuracy      changed   steps   ended\n", stream);
    for (int64_t i = 0; i < samples->num; i++) {
        const gidd_correct_result *r = &samples->results[i];
        (void)fprintf(stream, "%6" PRId64 "   %.4f -> %.4f %8" PRId64 "%8" PRId64 "   %s\n", i, r->initial_accuracy,
                      r->final_accuracy, r->changed, r->steps, gidd_samples_ending(r));
        initial += r->initial_accuracy;
        final += r->final_accuracy;
        changed += (double)r->changed;
        steps += (double)r->steps;
        converged += r->verdict == GIDD_CORRECT_CONVERGED;
        limit += r->verdict == GIDD_CORRECT_ADOPT;
    }
    const double num = (double)samples->num;
    (void)fprintf(stream, "  mean   %.4f -> %.4f %8.1f%8.1f   %" PRId64 " converged, %" PRId64 " out of patience, %" PRId64 " at the limit\n",
                  initial / num, final / num, changed / num, steps / num, converged, samples->num - converged - limit, limit);
}

/* ---- watching ---------------------------------------------------------------------------------------------- */

gidd_status sample_watch_open(const sample_view *view, int64_t T, int terminal, sample_watch *watch)
{
    *watch = (sample_watch){.view = *view, .terminal = terminal, .T = T};
    watch->last = malloc((size_t)T * sizeof *watch->last);
    return watch->last != NULL ? GIDD_OK : gidd_fail(GIDD_ERR_NOMEM, "no memory to watch samples of %" PRId64 " tokens", T);
}

void sample_watch_close(sample_watch *watch)
{
    free(watch->last);
    watch->last = NULL;
}

static gidd_status print_token(const sample_watch *watch, int32_t id, int is_new)
{
    const sample_view *view = &watch->view;
    char              *text = NULL;
    if (id == view->vocab->mask) {
        (void)fprintf(view->stream, "%s_%s", view->colour ? dim : "", view->colour ? plain : "");
        return GIDD_OK;
    }
    GIDD_TRY(gidd_samples_render(view->bpe, &id, 1, id == view->vocab->pad ? GIDD_BPE_SPECIALS_SKIP : GIDD_BPE_SPECIALS_RENDER,
                                 &text));
    for (char *c = text; !watch->terminal && *c != '\0'; c++) {
        *c = *c == '\n' ? ' ' : *c; // one step, one line
    }
    (void)fprintf(view->stream, "%s%s%s", is_new && view->colour ? green : "", text, is_new && view->colour ? plain : "");
    free(text);
    return GIDD_OK;
}

gidd_status sample_watch_step(sample_watch *watch, const gidd_samples_progress *now)
{
    FILE      *stream = watch->view.stream;
    const int  is_first = now->step == 1;
    const int  is_tenth = now->step * 10 / now->steps != (now->step - 1) * 10 / now->steps;
    const char *start = watch->terminal ? "\033[H\033[J" : "";
    if (watch->terminal || is_first || is_tenth) {
        (void)fprintf(stream, "%s%s sample %" PRId64 ", step %" PRId64 " of %" PRId64 ":%s", start, now->what, now->sample, now->step,
                      now->steps, watch->terminal ? "\n\n" : " ");
        for (int64_t p = 0; p < watch->T; p++) {
            GIDD_TRY(print_token(watch, now->z[p], !is_first && now->z[p] != watch->last[p]));
        }
        (void)fputc('\n', stream);
        (void)fflush(stream);
    }
    memcpy(watch->last, now->z, (size_t)watch->T * sizeof *watch->last);
    return GIDD_OK;
}
