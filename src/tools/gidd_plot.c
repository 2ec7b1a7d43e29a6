/* SPDX-License-Identifier: Apache-2.0
 *
 * gidd-plot: the curves of a run as an SVG, from metrics.jsonl alone. Training and validation of one quantity
 * over the steps.
 */
#include "base/cli.h"
#include "base/json.h"
#include "base/status.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WIDTH = 860, HEIGHT = 480, LEFT = 70, RIGHT = 20, TOP = 46, BOTTOM = 54, TICKS = 6, POINTS_DRAWN = 4000 };

typedef struct plot_options {
    const char *source, *output, *key;
} plot_options;

typedef struct series {
    double *x, *y; /* owned */
    size_t  count, room;
} series;

typedef struct plot {
    series train, valid;
    int    noised_only;  /* some training steps left out rows whose token was not noised */
    char   source[4096]; /* metrics.jsonl */
    char   title[256];
} plot;

// An axis from `low` to `high` with a tick every `step`: 1, 2 or 5 times a power of ten.
typedef struct axis {
    double low, high, step;
} axis;

enum { OPTION_OUTPUT = 'o', OPTION_KEY = 'k' };

static const struct argp_option options[] = {
    {"output", OPTION_OUTPUT, "FILE", 0, "the SVG to write (default: loss.svg beside metrics.jsonl)", 0},
    {"key", OPTION_KEY, "loss|elbo|nll", 0,
     "what to plot (default: nats per real token, elbo of a diffusion model, nll of an autoregressive one)", 0},
    {0},
};

static error_t parse_option(int key, char *word, struct argp_state *state)
{
    plot_options *o = state->input;
    switch (key) {
    case OPTION_OUTPUT:
        o->output = word;
        return 0;
    case OPTION_KEY:
        if (strcmp(word, "loss") != 0 && strcmp(word, "elbo") != 0 && strcmp(word, "nll") != 0) {
            argp_error(state, "--key is loss, elbo or nll, not '%s'", word);
        }
        o->key = word;
        return 0;
    case ARGP_KEY_ARG:
        if (o->source != NULL) {
            argp_error(state, "one run at a time; '%s' is the second", word);
        }
        o->source = word;
        return 0;
    case ARGP_KEY_END:
        if (o->source == NULL) {
            argp_error(state, "which run? give its folder or its metrics.jsonl");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static gidd_status add_point(series *s, double x, double y)
{
    if (s->count == s->room) {
        size_t  room = s->room > 0 ? 2 * s->room : 1024;
        double *more_x = realloc(s->x, room * sizeof *more_x);
        s->x = more_x != NULL ? more_x : s->x;
        double *more_y = realloc(s->y, room * sizeof *more_y);
        s->y = more_y != NULL ? more_y : s->y;
        if (more_x == NULL || more_y == NULL) {
            return gidd_fail(GIDD_ERR_NOMEM, "no memory for %zu points", room);
        }
        s->room = room;
    }
    s->x[s->count] = x;
    s->y[s->count++] = y;
    return GIDD_OK;
}

static gidd_status add_line(plot *p, const char *key, const char *line, size_t bytes, int64_t number)
{
    char          valid_key[32];
    json_error_t  error;
    json_t       *object = NULL;
    GIDD_TRY(gidd_json_parse(line, bytes, JSON_REJECT_DUPLICATES, &error, &object));
    const json_t *step = json_object_get(object, "step");
    if (!json_is_integer(step)) {
        json_decref(object);
        return gidd_fail(GIDD_ERR_CORRUPT, "%s:%" PRId64 ": expected a JSON object with a whole number \"step\"", p->source,
                         number);
    }
    (void)snprintf(valid_key, sizeof valid_key, "valid_%s", key);
    const json_t *train = json_object_get(object, key), *valid = json_object_get(object, valid_key);
    double        x = (double)json_integer_value(step);
    gidd_status   status = GIDD_OK;
    if (train == NULL && strcmp(key, "elbo") == 0 && (train = json_object_get(object, "elbo_noised")) != NULL) {
        p->noised_only = 1;
    }
    if (json_is_number(train)) { // a value that was not finite is null: a gap
        status = add_point(&p->train, x, json_number_value(train));
    }
    if (status == GIDD_OK && json_is_number(valid)) {
        status = add_point(&p->valid, x, json_number_value(valid));
    }
    json_decref(object);
    return status;
}

static gidd_status read_metrics(plot *p, const char *key)
{
    FILE *file = fopen(p->source, "re");
    if (file == NULL) {
        return gidd_fail(errno == ENOENT ? GIDD_ERR_MISSING : GIDD_ERR_IO, "cannot open %s: %s", p->source, strerror(errno));
    }
    char       *line = NULL;
    size_t      room = 0;
    ssize_t     bytes;
    int64_t     number = 0;
    gidd_status status = GIDD_OK;
    // a last line without its end is one that a running job is writing
    while (status == GIDD_OK && (bytes = getline(&line, &room, file)) > 0 && line[bytes - 1] == '\n') {
        status = add_line(p, key, line, (size_t)bytes, ++number);
    }
    if (status == GIDD_OK && ferror(file)) {
        status = gidd_fail(GIDD_ERR_IO, "cannot read %s: %s", p->source, strerror(errno));
    }
    free(line);
    (void)fclose(file);
    return status;
}

// Without a wish the likelihood, which is called after the type of model.
static gidd_status read_chosen(plot *p, const char *wish, const char **key_p)
{
    *key_p = wish != NULL ? wish : "elbo";
    GIDD_TRY(read_metrics(p, *key_p));
    if (wish == NULL && p->train.count + p->valid.count == 0) {
        *key_p = "nll";
        GIDD_TRY(read_metrics(p, *key_p));
    }
    if (p->train.count + p->valid.count == 0) {
        return gidd_fail(GIDD_ERR_MISSING, "%s holds no value of %s yet, of training or validation", p->source,
                         wish != NULL ? wish : "elbo or nll");
    }
    return GIDD_OK;
}

// The folder of a run stands for its metrics.jsonl; its name is the title.
static gidd_status name_source(plot *p, const char *source)
{
    struct stat info;
    size_t      length = strlen(source);
    while (length > 1 && source[length - 1] == '/') {
        length--;
    }
    if (length + sizeof "/metrics.jsonl" > sizeof p->source) {
        return gidd_fail(GIDD_ERR_USAGE, "the path is too long: %.100s...", source);
    }
    int is_folder = stat(source, &info) == 0 && S_ISDIR(info.st_mode);
    (void)snprintf(p->source, sizeof p->source, "%.*s%s", (int)length, source, is_folder ? "/metrics.jsonl" : "");
    (void)snprintf(p->title, sizeof p->title, "%.*s", (int)length, source);
    return GIDD_OK;
}

static void widen(axis *a, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        a->low = fmin(a->low, values[i]);
        a->high = fmax(a->high, values[i]);
    }
}

// Rounds the ends outwards to ticks.
static void choose_ticks(axis *a)
{
    double span = a->high - a->low;
    if (span <= 0) {
        span = fabs(a->high) > 0 ? fabs(a->high) * 0.1 : 1;
    }
    double power = pow(10, floor(log10(span / TICKS))), part = span / TICKS / power;
    a->step = power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
    a->low = floor(a->low / a->step) * a->step;
    a->high = ceil(a->high / a->step) * a->step;
    if (a->high <= a->low) {
        a->high = a->low + a->step;
    }
}

static double place_x(const axis *a, double value)
{
    return LEFT + (value - a->low) / (a->high - a->low) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const axis *a, double value)
{
    return HEIGHT - BOTTOM - (value - a->low) / (a->high - a->low) * (HEIGHT - TOP - BOTTOM);
}

static void print_text(FILE *stream, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '<' || c == '&' || c == '>') {
            (void)fprintf(stream, "&#%d;", c);
        } else if (c >= ' ') {
            (void)fputc(c, stream);
        }
    }
}

// Steps as people write them: 20k, 1.5M.
static void print_step(FILE *stream, double step)
{
    if (step >= 1e6) {
        (void)fprintf(stream, "%.6gM", step / 1e6);
    } else if (step >= 1e4) {
        (void)fprintf(stream, "%.6gk", step / 1e3);
    } else {
        (void)fprintf(stream, "%.6g", step);
    }
}

static void draw_axes(FILE *stream, const axis *x, const axis *y)
{
    for (double at = y->low; at <= y->high + y->step * 1e-6; at += y->step) {
        double value = fabs(at) < y->step * 1e-6 ? 0 : at;
        (void)fprintf(stream,
                      "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"grid\"/>\n"
                      "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n",
                      LEFT, place_y(y, at), WIDTH - RIGHT, place_y(y, at), LEFT - 8, place_y(y, at) + 4, value);
    }
    for (double at = x->low; at <= x->high + x->step * 1e-6; at += x->step) {
        (void)fprintf(stream,
                      "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"axis\"/>\n"
                      "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">",
                      place_x(x, at), HEIGHT - BOTTOM, place_x(x, at), HEIGHT - BOTTOM + 5, place_x(x, at),
                      HEIGHT - BOTTOM + 20);
        print_step(stream, at);
        (void)fputs("</text>\n", stream);
    }
    (void)fprintf(stream, "<path d=\"M%d %dV%dH%d\" class=\"axis\"/>\n", LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT);
}

// A polyline; a run of more points than the picture can show is thinned evenly, its last point kept.
static void draw_series(FILE *stream, const series *s, const axis *x, const axis *y, const char *class, int dots)
{
    size_t stride = (s->count + POINTS_DRAWN - 1) / POINTS_DRAWN;
    if (s->count == 0) {
        return;
    }
    (void)fprintf(stream, "<polyline class=\"%s\" points=\"", class);
    for (size_t i = 0; i < s->count; i++) {
        if (i % stride == 0 || i + 1 == s->count) {
            (void)fprintf(stream, "%.1f,%.1f ", place_x(x, s->x[i]), place_y(y, s->y[i]));
        }
    }
    (void)fputs("\"/>\n", stream);
    for (size_t i = 0; dots && i < s->count && s->count <= 200; i++) {
        (void)fprintf(stream, "<circle class=\"%s-dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>\n", class, place_x(x, s->x[i]),
                      place_y(y, s->y[i]));
    }
}

static void draw_legend(FILE *stream, const plot *p)
{
    const series *shown[] = {&p->train, &p->valid};
    const char   *names[] = {p->noised_only ? "training, noised tokens" : "training", "validation"};
    const char   *classes[] = {"train", "valid"};
    int           top = TOP + 14;
    for (int i = 0; i < 2; i++) {
        if (shown[i]->count > 0) {
            (void)fprintf(stream,
                          "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" class=\"%s\"/>\n"
                          "<text x=\"%d\" y=\"%d\">%s: %.4g at step ",
                          WIDTH - 250, top, WIDTH - 222, top, classes[i], WIDTH - 214, top + 4, names[i],
                          shown[i]->y[shown[i]->count - 1]);
            print_step(stream, shown[i]->x[shown[i]->count - 1]);
            (void)fputs("</text>\n", stream);
            top += 20;
        }
    }
}

static void draw(FILE *stream, const plot *p, const char *key)
{
    static const char style[] = "text{font:12px sans-serif;fill:#333}.title{font-size:15px;font-weight:bold}"
                                ".grid{stroke:#e4e4e4}.axis{stroke:#555;fill:none}"
                                ".train,.valid{fill:none;stroke-width:1.6;stroke-linejoin:round}"
                                ".train{stroke:#4878a8}.valid{stroke:#d1603d}.valid-dot{fill:#d1603d}";
    axis x = {HUGE_VAL, -HUGE_VAL, 0}, y = {HUGE_VAL, -HUGE_VAL, 0};
    widen(&x, p->train.x, p->train.count);
    widen(&x, p->valid.x, p->valid.count);
    widen(&y, p->train.y, p->train.count);
    widen(&y, p->valid.y, p->valid.count);
    choose_ticks(&x);
    choose_ticks(&y);
    (void)fprintf(stream,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
                  "<style>%s</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
                  "<text x=\"%d\" y=\"26\" class=\"title\">",
                  WIDTH, HEIGHT, WIDTH, HEIGHT, style, LEFT);
    print_text(stream, p->title);
    (void)fputs("</text>\n", stream);
    draw_axes(stream, &x, &y);
    (void)fprintf(stream,
                  "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">step</text>\n"
                  "<text x=\"18\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 18 %d)\">%s</text>\n",
                  (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, HEIGHT / 2, HEIGHT / 2,
                  strcmp(key, "elbo") == 0  ? "ELBO, nats per token"
                  : strcmp(key, "nll") == 0 ? "negative log likelihood, nats per token"
                                            : "loss, as trained, nats");
    draw_series(stream, &p->train, &x, &y, "train", 0);
    draw_series(stream, &p->valid, &x, &y, "valid", 1);
    draw_legend(stream, p);
    (void)fputs("</svg>\n", stream);
}

// Under a name of its own first, so that a full disk leaves no half a picture; a pipe or device is written as it is.
static gidd_status write_file(const char *path, const char *text, size_t bytes)
{
    struct stat info;
    char        temporary[4224];
    int         direct = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    int         length = snprintf(temporary, sizeof temporary, "%s.%lld.tmp", path, (long long)getpid());
    const char *written = direct ? path : temporary;
    if (length < 0 || (size_t)length >= sizeof temporary) {
        return gidd_fail(GIDD_ERR_USAGE, "the path is too long: %.100s...", path);
    }
    FILE *file = fopen(written, direct ? "we" : "wxe");
    if (file == NULL) {
        return gidd_fail(GIDD_ERR_OUTPUT, "cannot create %s: %s", written, strerror(errno));
    }
    int failed = fwrite(text, 1, bytes, file) != bytes;
    failed |= fclose(file) != 0;
    if (failed || (!direct && rename(temporary, path) != 0)) {
        gidd_status status = gidd_fail(GIDD_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        if (!direct) {
            (void)unlink(temporary);
        }
        return status;
    }
    return GIDD_OK;
}

// loss.svg beside metrics.jsonl.
static const char *default_output(const plot *p, char *path, size_t size)
{
    const char *slash = strrchr(p->source, '/');
    (void)snprintf(path, size, "%.*sloss.svg", slash != NULL ? (int)(slash - p->source + 1) : 0, p->source);
    return path;
}

static gidd_status run_plot(plot *p, const plot_options *o)
{
    char   path[sizeof p->source + 16];
    char  *text = NULL;
    size_t bytes = 0;
    GIDD_TRY(name_source(p, o->source));
    const char *key = NULL;
    GIDD_TRY(read_chosen(p, o->key, &key));
    FILE *stream = open_memstream(&text, &bytes);
    if (stream == NULL) {
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the picture");
    }
    draw(stream, p, key);
    if (fclose(stream) != 0) {
        free(text);
        return gidd_fail(GIDD_ERR_NOMEM, "no memory for the picture");
    }
    const char *output = o->output != NULL ? o->output : default_output(p, path, sizeof path);
    gidd_status status = write_file(output, text, bytes);
    free(text);
    if (status == GIDD_OK) {
        printf("%s: %s, %zu training and %zu validation points\n", output, key, p->train.count, p->valid.count);
    }
    return status;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "RUN_FOLDER|METRICS_FILE",
                                     "Plots training and validation over the steps of a run as an SVG.", NULL, NULL, NULL};
    plot_options o = {0};
    plot        *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return gidd_cli_report("gidd-plot", gidd_fail(GIDD_ERR_NOMEM, "no memory for a plot"));
    }
    gidd_cli_parse(&argp, argc, argv, 0, &o);
    gidd_status status = run_plot(p, &o);
    free(p->train.x);
    free(p->train.y);
    free(p->valid.x);
    free(p->valid.y);
    free(p);
    return gidd_cli_report("gidd-plot", status);
}
