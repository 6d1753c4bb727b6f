/* One Swin block (SwinIR eq. 6-8), forward and backward, for training: the walk over the windows.
 *
 * Windows are processed one by one: everything but the block's input, output and gradients stays in the processor's
 * cache. The backward pass repeats the forward pass of a window instead of keeping its results. The sizes are those of
 * the compact variants; swin_block.py checks the arguments, and compiles this for each window, with products in
 * bfloat16 on AMX (-DSWIN_AMX) or in float32 on AVX2.
 */
#ifdef SWIN_AMX
#include "swin_amx.h"
#else
#include "swin_floats.h"
#endif

/* Kinds of window: bit 0 at the right edge, bit 1 at the bottom, where the shift joins pixels that are far apart. */
static void pack_bias(const Shape *shape, const float *from, Packed *to) {
    int window = (int)shape->window, n = window * window, apart = window - window / 2;
    for (int kind = 0; kind < (shape->shifted ? KINDS : 1); kind++)
        for (int head = 0; head < HEADS; head++)
            for (int i = 0; i < TOKENS; i++)
                for (int j = 0; j < TOKENS; j++) {
                    int right = (i % window >= apart) != (j % window >= apart);
                    int below = (i / window >= apart) != (j / window >= apart);
                    float value = j < n ? 0.0f : -1e30f;
                    if (i < n && j < n) value = from[(head * n + i) * n + j];
                    if ((kind & 1 && right) || (kind & 2 && below)) value -= 100.0f;
                    *score_at(to->bias[kind][head], i, j) = value;
                }
}

static Packed *pack_all(const Shape *shape, const Parameters *p) {
    Packed *w = aligned_alloc(64, (sizeof *w + 63) / 64 * 64);
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    pack_weights(p, w);
    pack_bias(shape, p->position_bias, w);
    return w;
}

/* Rows of a window: where each of its tokens lies in [batch][height][width]. */
static int locate(const Shape *shape, int64_t index, int64_t *places) {
    int64_t window = shape->window, across = shape->width / window, down = shape->height / window;
    int64_t x = index % across, y = index / across % down, image = index / across / down;
    int64_t shift = shape->shifted ? window / 2 : 0;
    for (int64_t i = 0; i < window * window; i++) {
        int64_t row = (y * window + i / window + shift) % shape->height;
        int64_t column = (x * window + i % window + shift) % shape->width;
        places[i] = ((image * shape->height + row) * shape->width + column) * DIM;
    }
    return shape->shifted ? (x == across - 1) | (y == down - 1) << 1 : 0;
}

/* Ask for AMX where it is needed, once per process: 0, or -1 where it is not supported. */
int swin_block_prepare(void) { return prepare(); }

/* `out` = block(x), or, with d_out, `out` = gradient of x, and those of the parameters are added to `d`; 1: no memory. */
int swin_block_run(const Shape *shape, const Parameters *p, const float *x, const float *d_out,
                        const Parameters *d, float *out) {
    Packed *w = pack_all(shape, p);
    Scratch *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);
    float(*d_bias)[TOKENS][TOKENS] = calloc(HEADS, sizeof *d_bias);
    int failed = !w || !s || !d_bias;
    if (!failed) {
        memset(s, 0, sizeof *s); /* rows beyond the window, and columns beyond a head, stay zero */
        unsigned status = begin();
        int64_t n = shape->window * shape->window, places[TOKENS];
        int64_t count = shape->batch * (shape->height / shape->window) * (shape->width / shape->window);
        for (int64_t index = 0; index < count; index++) {
            int kind = locate(shape, index, places);
            for (int64_t i = 0; i < n; i++) memcpy(s->x[i], x + places[i], sizeof s->x[i]);
            run_window(w, p, kind, s);
            if (d_out) {
                memset(s->d_out, 0, sizeof s->d_out);
                for (int64_t i = 0; i < n; i++) memcpy(s->d_out[i], d_out + places[i], sizeof s->d_out[i]);
                run_window_back(w, p, d, d_bias, s);
            } else {
                finish_window(w, p, s);
            }
            for (int64_t i = 0; i < n; i++) memcpy(out + places[i], d_out ? s->d_out[i] : s->out[i], sizeof s->out[i]);
        }
        end(status);
        if (d_out)
            for (int64_t head = 0; head < HEADS; head++)
                for (int64_t i = 0; i < n; i++)
                    for (int64_t j = 0; j < n; j++) d->position_bias[(head * n + i) * n + j] += *score_at(d_bias[head], (int)i, (int)j);
    }
    free(w);
    free(s);
    free(d_bias);
    return failed;
}
