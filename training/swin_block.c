/* One Swin block (SwinIR eq. 6-8), forward and backward, for training on CPUs with AMX.
 *
 * Windows are processed one by one: everything but the block's input, output and gradients stays in the processor's
 * cache. Matrix products are bfloat16 (amx.h); layer norms, softmax, GELU and the residual path are float32. The
 * backward pass repeats the forward pass of a window instead of keeping its results. The sizes are those of the compact
 * variants; a window of 7 is padded from 49 to 64 tokens. swin_block.py checks the arguments.
 */
#include <stdlib.h>

#include "swin_window.h"

/* ---- The block ---- */

INLINE void add_rows(const float a[TOKENS][DIM], const float b[TOKENS][DIM], const float *bias, float to[TOKENS][DIM]) {
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < DIM; c++) to[t][c] = a[t][c] + b[t][c] + bias[c];
}

static void run_window(const Packed *w, const Parameters *p, int kind, Scratch *s) {
    normalise(s->x, p->norm1_weight, p->norm1_bias, s->normal1, s->scale1, s->norm1_rows, s->norm1_pairs);
    MULTIPLY(s->norm1_rows, w->qkv, s->qkv, 4, 9, 2, 0);
    split_heads(s, p->qkv_bias);
    attend(s, w->bias[kind]);
    MULTIPLY(s->attended_rows, w->proj, s->product, 4, 3, 2, 0);
    add_rows(s->x, s->product, p->proj_bias, s->middle);

    normalise(s->middle, p->norm2_weight, p->norm2_bias, s->normal2, s->scale2, s->norm2_rows, s->norm2_pairs);
    MULTIPLY(s->norm2_rows, w->fc1, s->hidden, 4, 6, 2, 0);
    for (int t = 0; t < TOKENS; t += 2) {
        for (int o = 0; o < 2; o++)
            for (int c = 0; c < HIDDEN; c += 16) {
                __m512 slope, z = _mm512_add_ps(_mm512_loadu_ps(s->hidden[t + o] + c), _mm512_loadu_ps(p->fc1_bias + c));
                _mm512_storeu_ps(s->hidden[t + o] + c, gelu(z, &slope));
                _mm512_storeu_ps(s->slope[t + o] + c, slope);
            }
        split(s->hidden[t], s->hidden[t + 1], HIDDEN, s->hidden_rows[t], s->hidden_rows[t + 1], s->hidden_pairs[t / 2],
              NULL);
    }
    MULTIPLY(s->hidden_rows, w->fc2, s->product, 4, 3, 3, 0);
    add_rows(s->middle, s->product, p->fc2_bias, s->out);
}

/* s->d_out -> s->d_out: from the gradient of the result to that of the input. */
static void run_window_back(const Packed *w, const Parameters *p, const Parameters *d, float (*d_bias)[TOKENS][TOKENS],
                            Scratch *s) {
    float(*qkv)[DIM] = (void *)d->qkv_weight, (*proj)[DIM] = (void *)d->proj_weight;
    float(*fc1)[DIM] = (void *)d->fc1_weight, (*fc2)[HIDDEN] = (void *)d->fc2_weight;

    for (int t = 0; t < TOKENS; t += 2)
        split(s->d_out[t], s->d_out[t + 1], DIM, s->d_rows[t], s->d_rows[t + 1], s->d_pairs[t / 2], d->fc2_bias);
    transpose(s->d_pairs, sizeof s->d_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2, DIM);
    MULTIPLY(s->d_turned_rows, s->hidden_pairs, fc2, 3, 6, 2, 1);
    MULTIPLY(s->d_rows, w->fc2_back, s->d_hidden, 4, 6, 2, 0);
    for (int t = 0; t < TOKENS; t += 2) {
        for (int o = 0; o < 2; o++)
            for (int c = 0; c < HIDDEN; c++) s->d_hidden[t + o][c] *= s->slope[t + o][c];
        split(s->d_hidden[t], s->d_hidden[t + 1], HIDDEN, s->d_hidden_rows[t], s->d_hidden_rows[t + 1],
              s->d_hidden_pairs[t / 2], d->fc1_bias);
    }
    transpose(s->d_hidden_pairs, sizeof s->d_hidden_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2,
              HIDDEN);
    MULTIPLY(s->d_turned_rows, s->norm2_pairs, fc1, 6, 3, 2, 1);
    MULTIPLY(s->d_hidden_rows, w->fc1_back, s->d_norm, 4, 3, 3, 0);
    normalise_back(s->d_norm, s->normal2, s->scale2, p->norm2_weight, d->norm2_weight, d->norm2_bias, s->d_out,
                   s->d_middle);

    for (int t = 0; t < TOKENS; t += 2)
        split(s->d_middle[t], s->d_middle[t + 1], DIM, s->d_rows[t], s->d_rows[t + 1], s->d_pairs[t / 2], d->proj_bias);
    transpose(s->d_pairs, sizeof s->d_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2, DIM);
    MULTIPLY(s->d_turned_rows, s->attended_pairs, proj, 3, 3, 2, 1);
    MULTIPLY(s->d_rows, w->proj_back, s->d_attended, 4, 3, 2, 0);
    attend_back(s, d_bias);
    for (int t = 0; t < TOKENS; t += 2)
        split(s->d_qkv[t], s->d_qkv[t + 1], QKV, s->d_qkv_rows[t], s->d_qkv_rows[t + 1], s->d_qkv_pairs[t / 2],
              d->qkv_bias);
    transpose(s->d_qkv_pairs, sizeof s->d_qkv_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2, QKV);
    MULTIPLY(s->d_turned_rows, s->norm1_pairs, qkv, 9, 3, 2, 1);
    MULTIPLY(s->d_qkv_rows, w->qkv_back, s->d_norm, 4, 3, 5, 0);
    normalise_back(s->d_norm, s->normal1, s->scale1, p->norm1_weight, d->norm1_weight, d->norm1_bias, s->d_middle,
                   s->d_out);
}

/* ---- Weights, and the walk over the windows ---- */

static half to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (half)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* W [out][in] -> pairs of W^T [in / 2][out], and pairs of W [out / 2][in]. */
static void pack(const float *weight, int out, int in, pair *forward, pair *back) {
    for (int k = 0; k < in / 2; k++)
        for (int n = 0; n < out; n++)
            forward[k * out + n] = to_half(weight[n * in + 2 * k]) | (pair)to_half(weight[n * in + 2 * k + 1]) << 16;
    for (int k = 0; k < out / 2; k++)
        for (int n = 0; n < in; n++)
            back[k * in + n] = to_half(weight[2 * k * in + n]) | (pair)to_half(weight[(2 * k + 1) * in + n]) << 16;
}

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
                    to->bias[kind][head][i][j] = value;
                }
}

static Packed *pack_all(const Shape *shape, const Parameters *p) {
    Packed *w = aligned_alloc(64, (sizeof *w + 63) / 64 * 64);
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    pack(p->qkv_weight, QKV, DIM, w->qkv[0], w->qkv_back[0]);
    pack(p->proj_weight, DIM, DIM, w->proj[0], w->proj_back[0]);
    pack(p->fc1_weight, HIDDEN, DIM, w->fc1[0], w->fc1_back[0]);
    pack(p->fc2_weight, DIM, HIDDEN, w->fc2[0], w->fc2_back[0]);
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

/* Ask for AMX, once per process: 0, or -1 where it is not supported. */
int swin_block_prepare(void) { return allow_amx(); }

/* `out` = block(x), or, with d_out, `out` = gradient of x, and those of the parameters are added to `d`; 1: no memory. */
int swin_block_run(const Shape *shape, const Parameters *p, const float *x, const float *d_out,
                        const Parameters *d, float *out) {
    Packed *w = pack_all(shape, p);
    Scratch *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);
    float(*d_bias)[TOKENS][TOKENS] = calloc(HEADS, sizeof *d_bias);
    int failed = !w || !s || !d_bias;
    if (!failed) {
        memset(s, 0, sizeof *s); /* rows beyond the window, and columns beyond a head, stay zero */
        unsigned status = _mm_getcsr();
        _mm_setcsr(status | 0x8040); /* subnormal numbers count as zero: they take a hundred times as long */
        configure_tiles();
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
            }
            for (int64_t i = 0; i < n; i++) memcpy(out + places[i], d_out ? s->d_out[i] : s->out[i], sizeof s->out[i]);
        }
        _tile_release();
        _mm_setcsr(status);
        if (d_out)
            for (int64_t head = 0; head < HEADS; head++)
                for (int64_t i = 0; i < n; i++)
                    for (int64_t j = 0; j < n; j++) d->position_bias[(head * n + i) * n + j] += d_bias[head][i][j];
    }
    free(w);
    free(s);
    free(d_bias);
    return failed;
}
