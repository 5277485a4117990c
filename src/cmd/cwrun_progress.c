#include "cmd/cwrun_progress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/units.h"
#include "oci/pull.h"

enum { BAR = 24, MAX_BARS = 16, LINES_EVERY_S = 2 };

struct progress {
    enum progress_form form;
    pthread_mutex_t lock; /* guards the rest */
    unsigned drawn;       /* lines on the terminal that are ours */
    bool *told;           /* per layer and state: 2 k started, 2 k + 1 done */
    unsigned n_told;
    enum oci_phase phase;
    bool begun;
    uint64_t next_ns;
};

static const char *const phases[] = {"resolving", "downloading", "extracting", "committing",
                                     "done"};

struct progress *progress_new(enum progress_form form)
{
    struct progress *m = mem_new(struct progress);

    m->form = form;
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

void progress_free(struct progress *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->lock);
    free(m->told);
    free(m);
}

static unsigned percent(uint64_t part, uint64_t whole)
{
    return part >= whole ? 100 : (unsigned)((double)part * 100 / (double)whole);
}

/* ---- bars ---- */

static void erase(struct progress *m)
{
    for (; m->drawn; m->drawn--)
        fputs("\033[A\033[2K", stderr);
}

static void draw_bar(const struct oci_layer_progress *l)
{
    char bar[BAR + 1], now[UNITS_TEXT_MAX], all[UNITS_TEXT_MAX];
    unsigned full = percent(l->bytes, l->total) * BAR / 100;

    for (unsigned i = 0; i < BAR; i++)
        bar[i] = i < full ? '=' : i == full ? '>' : ' ';
    bar[BAR] = '\0';
    fprintf(stderr, "%.12s [%s] %s/%s\n", digest_hex(l->digest), bar,
            units_decimal_str(now, l->bytes), units_decimal_str(all, l->total));
}

static unsigned rows_for_bars(void)
{
    struct winsize w = {0};
    unsigned rows = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row ? w.ws_row : 24;

    return rows < 3 ? 0 : rows - 2 < MAX_BARS ? rows - 2 : MAX_BARS;
}

static void print_sum(const struct oci_progress *p)
{
    char now[UNITS_TEXT_MAX], all[UNITS_TEXT_MAX];

    fprintf(stderr, "%s", phases[p->phase]);
    if (p->layers)
        fprintf(stderr, " %s/%s (%u%%), %u of %u layers", units_decimal_str(now, p->bytes),
                units_decimal_str(all, p->total), percent(p->bytes, p->total), p->layers_done,
                p->layers);
    fputc('\n', stderr);
}

/* Only layers under way have a bar: what waits and what is done is in the sum. */
static void draw(struct progress *m, const struct oci_progress *p)
{
    unsigned room = rows_for_bars();

    erase(m);
    for (unsigned i = 0; i < p->layers && m->drawn < room; i++) {
        if (!p->each[i].started || p->each[i].done)
            continue;
        draw_bar(&p->each[i]);
        m->drawn++;
    }
    print_sum(p);
    m->drawn = p->phase == OCI_DONE ? 0 : m->drawn + 1;
    fflush(stderr);
}

/* ---- events ---- */

static void print_event(cJSON *v)
{
    AUTO_FREE char *text = json_text(v);

    puts(text);
    cJSON_Delete(v);
}

static void layer_event(const struct oci_layer_progress *l, const char *state)
{
    cJSON *v = cJSON_CreateObject();

    json_add_str(v, "event", "layer");
    json_add_str(v, "digest", l->digest);
    json_add_str(v, "state", state);
    json_add_int(v, "bytes", (int64_t)l->bytes);
    json_add_int(v, "total", (int64_t)l->total);
    print_event(v);
}

static void sum_event(const struct oci_progress *p)
{
    cJSON *v = cJSON_CreateObject();

    json_add_str(v, "event", "progress");
    json_add_str(v, "phase", phases[p->phase]);
    json_add_int(v, "bytes", (int64_t)p->bytes);
    json_add_int(v, "total", (int64_t)p->total);
    json_add_int(v, "layersDone", p->layers_done);
    json_add_int(v, "layers", p->layers);
    print_event(v);
}

/* ---- what is new ---- */

static bool is_news(struct progress *m, unsigned at, bool state)
{
    bool news = state && !m->told[at];

    m->told[at] |= state;
    return news;
}

static void tell_layers(struct progress *m, const struct oci_progress *p)
{
    if (m->n_told != p->layers) {
        free(m->told);
        m->told = mem_array(2 * (size_t)p->layers, sizeof(*m->told));
        m->n_told = p->layers;
    }
    for (unsigned i = 0; i < p->layers; i++) {
        const struct oci_layer_progress *l = &p->each[i];
        bool started = is_news(m, 2 * i, l->started), done = is_news(m, 2 * i + 1, l->done);
        char size[UNITS_TEXT_MAX];

        if (started && m->form == PROGRESS_JSON)
            layer_event(l, "started");
        if (done && m->form == PROGRESS_JSON)
            layer_event(l, "done");
        if (done && m->form == PROGRESS_LINES)
            fprintf(stderr, "layer %.12s done, %s\n", digest_hex(l->digest),
                    units_decimal_str(size, l->total));
    }
}

/* A new phase at once, else every few seconds. */
static void tell_sum(struct progress *m, const struct oci_progress *p)
{
    if (m->begun && m->phase == p->phase && !clock_passed(m->next_ns))
        return;
    m->begun = true;
    m->phase = p->phase;
    m->next_ns = clock_in_ns((m->form == PROGRESS_JSON ? 1 : LINES_EVERY_S) * NS_PER_S);
    if (m->form == PROGRESS_JSON)
        sum_event(p);
    else
        print_sum(p);
}

void progress_show(void *arg, const struct oci_progress *p)
{
    struct progress *m = arg;

    pthread_mutex_lock(&m->lock);
    if (m->form == PROGRESS_BARS) {
        draw(m, p);
    } else if (m->form != PROGRESS_NONE) {
        tell_layers(m, p);
        tell_sum(m, p);
        fflush(m->form == PROGRESS_JSON ? stdout : stderr);
    }
    pthread_mutex_unlock(&m->lock);
}
