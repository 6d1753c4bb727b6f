/* One Swin block (SwinIR eq. 6-8) on a CPU, window by window. All data of a window stays in the processor's cache; only
 * the result of the block is written to memory. Plain C with GCC's vector types: the compiler chooses AVX2, AVX-512 or
 * NEON. swinir/network/fused.py packs the weights: panels of PANEL columns, [panel][row][PANEL], padded with zeros. The
 * scale of the attention is part of the query's weights. Arguments are not checked here; fused.py checks them.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Floats per vector. A tile of the product has two vectors per row, and 8 rows with AVX-512 (16 of its 32 registers hold sums),
 * 6 otherwise (12 of the 16 registers of AVX2). */
#ifndef VECTOR_WIDTH
#ifdef __AVX512F__
#define VECTOR_WIDTH 16
#else
#define VECTOR_WIDTH 8
#endif
#endif
#define PANEL 16 /* columns of a panel of weights */
#define WINDOWS_PER_STEP 2 /* windows that a thread takes at a time */
#define MAX_THREADS 64

typedef float vec __attribute__((vector_size(4 * VECTOR_WIDTH)));
typedef float loose __attribute__((vector_size(4 * VECTOR_WIDTH), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VECTOR_WIDTH)));

typedef struct {
    int64_t dim, heads, head_dim, window_tokens, hidden, in_bfloat16; /* the last: 1 if the weights are packed so */
    const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias;
    const float *qkv_weight, *qkv_bias, *proj_weight, *proj_bias;
    const float *fc1_weight, *fc1_bias, *fc2_weight, *fc2_bias;
} Block;

typedef struct {
    int64_t first, end; /* windows */
    const float *bias;  /* [heads, N, N padded to PANEL]; the padding is far below zero */
} Kind;

typedef struct {
    const Block *block;
    const Kind *kinds;
    int64_t kind_count, windows;
    const float *tokens;
    const int64_t *gather;
    float *out;
    int64_t next; /* first window that no thread has taken */
    int failed;
} Work;

static inline int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }
static inline vec load(const float *p) { return *(const loose *)p; }
static inline void store(float *p, vec v) { *(loose *)p = v; }
#if (VECTOR_WIDTH == 16 && defined(__AVX512F__)) || (VECTOR_WIDTH == 8 && defined(__AVX__))
static inline vec all(float x) { return x - (vec){0}; } /* 0 + x would be an addition in the innermost loop: it makes 0 of -0 */
#else /* a vector of several registers: GCC 12 may compile the line above for minutes */
static inline vec all(float x) { return (vec){0} + x; }
#endif
static inline vec choose(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

/* The vector with its halves, quarters, pairs or neighbours exchanged, to add up or compare all of its floats. */
#define SHUFFLE(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#if VECTOR_WIDTH == 16
#define HALVES(v) SHUFFLE(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#define QUARTERS(v) SHUFFLE(v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define PAIRS(v) SHUFFLE(v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define NEIGHBOURS(v) SHUFFLE(v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#else
#define QUARTERS(v) SHUFFLE(v, 4, 5, 6, 7, 0, 1, 2, 3)
#define PAIRS(v) SHUFFLE(v, 2, 3, 0, 1, 6, 7, 4, 5)
#define NEIGHBOURS(v) SHUFFLE(v, 1, 0, 3, 2, 5, 4, 7, 6)
#endif

static inline vec larger(vec a, vec b) { return choose(a > b, a, b); }

static inline float sum(vec v) {
#if VECTOR_WIDTH == 16
    v += HALVES(v);
#endif
    v += QUARTERS(v);
    v += PAIRS(v);
    v += NEIGHBOURS(v);
    return v[0];
}

static inline float largest(vec v) {
#if VECTOR_WIDTH == 16
    v = larger(v, HALVES(v));
#endif
    v = larger(v, QUARTERS(v));
    v = larger(v, PAIRS(v));
    v = larger(v, NEIGHBOURS(v));
    return v[0];
}

/* e^x within 2 units in the last place for x <= 88; 0 below -87 (Cephes' expf: reduction by ln 2, then a polynomial). */
static inline vec exp_vec(vec x) {
    ivec tiny = x < all(-87.0f);
    x = choose(tiny, all(-87.0f), x);
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
    vec n = shifted - 12582912.0f;
    x = x - n * 0.693359375f;
    x = x + n * 2.12194440e-4f;
    vec y = all(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    ivec power = ((ivec)shifted << 23) + (127 << 23);
    return (vec)((ivec)(y * (vec)power) & ~tiny);
}

/* x * Phi(x), erf by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7). */
static inline vec gelu_vec(vec x) {
    ivec negative = x < all(0.0f);
    vec magnitude = choose(negative, -x, x);
    vec t = 1.0f / (1.0f + magnitude * (0.3275911f * 0.70710678f));
    vec y = all(1.061405429f);
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    vec tail = 0.5f * y * t * exp_vec(-0.5f * x * x); /* 1 - Phi(|x|) */
    return x * choose(negative, tail, 1.0f - tail);
}

typedef enum { WRITE, ADD, GELU } Ending;

/* One tile of the product, COUNT x VECTORS vectors: starts from `start` (one row for all, or one row each at start_pitch),
 * adds a[rows][depth] * panel[depth][PANEL], ends as `ending` says. `next` is the distance from a vector of the panel to the
 * one on its right: in the same panel, or in the next one. */
#define TILE(COUNT, VECTORS)                                                                                           \
    static inline __attribute__((always_inline)) void tile_##COUNT##x##VECTORS(                                        \
        const float *a, int64_t a_pitch, const float *panel, int64_t next, int64_t depth, const float *start,          \
        int64_t start_pitch, float *out, int64_t out_pitch, Ending ending) {                                           \
        vec acc[COUNT][VECTORS], right[VECTORS];                                                                       \
        _Pragma("GCC unroll 8") for (int r = 0; r < COUNT; r++)                                                        \
            _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++)                                                  \
                acc[r][v] = load(start + r * start_pitch + v * VECTOR_WIDTH);                                          \
        for (int64_t k = 0; k < depth; k++) {                                                                          \
            _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++) right[v] = load(panel + k * PANEL + v * next);   \
            _Pragma("GCC unroll 8") for (int r = 0; r < COUNT; r++) {                                                  \
                vec x = all(a[r * a_pitch + k]);                                                                       \
                _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++) acc[r][v] += x * right[v];                   \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 8") for (int r = 0; r < COUNT; r++)                                                        \
            _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++) {                                                \
                float *to = out + r * out_pitch + v * VECTOR_WIDTH;                                                    \
                vec value = acc[r][v];                                                                                 \
                if (ending == GELU) value = gelu_vec(value);                                                           \
                if (ending == ADD) value += load(to);                                                                  \
                store(to, value);                                                                                      \
            }                                                                                                          \
    }

/* All rows of VECTORS columns, in tiles of FIRST, 4, 2 and 1 rows. */
#define COLUMNS(FIRST, VECTORS)                                                                                        \
    TILE(1, VECTORS)                                                                                                   \
    TILE(2, VECTORS)                                                                                                   \
    TILE(4, VECTORS)                                                                                                   \
    TILE(FIRST, VECTORS)                                                                                               \
    static inline __attribute__((always_inline)) void columns_##VECTORS(                                               \
        const float *a, int64_t a_pitch, int64_t rows, const float *panel, int64_t next, int64_t depth,                \
        const float *start, int64_t start_pitch, float *out, int64_t out_pitch, Ending ending) {                       \
        int64_t r = 0;                                                                                                 \
        for (; r + FIRST <= rows; r += FIRST) STEP(FIRST, VECTORS)                                                     \
        if (r + 4 <= rows) { STEP(4, VECTORS) r += 4; }                                                                \
        if (r + 2 <= rows) { STEP(2, VECTORS) r += 2; }                                                                \
        if (r < rows) STEP(1, VECTORS)                                                                                 \
    }
#define STEP(COUNT, VECTORS)                                                                                           \
    tile_##COUNT##x##VECTORS(a + r * a_pitch, a_pitch, panel, next, depth, start + r * start_pitch, start_pitch,       \
                             out + r * out_pitch, out_pitch, ending);

#if VECTOR_WIDTH == 16
COLUMNS(8, 1)
COLUMNS(8, 2)
#else
COLUMNS(6, 2)
#endif

/* out[rows][columns] = (or +=) start + a[rows][depth] * weight, panel by panel; the pitch is a multiple of PANEL. */
static inline __attribute__((always_inline)) void multiply_matrix(
    const float *a, int64_t a_pitch, int64_t rows, int64_t depth, const float *weight, int64_t columns,
    const float *start, int64_t start_pitch, float *out, int64_t out_pitch, Ending ending) {
    int64_t column = 0;
#if VECTOR_WIDTH == 16
    for (; column + 2 * PANEL <= columns; column += 2 * PANEL)
        columns_2(a, a_pitch, rows, weight + column * depth, PANEL * depth, depth, start + column, start_pitch,
                  out + column, out_pitch, ending);
    if (column < columns)
        columns_1(a, a_pitch, rows, weight + column * depth, 0, depth, start + column, start_pitch, out + column,
                  out_pitch, ending);
#else
    for (; column < columns; column += PANEL)
        columns_2(a, a_pitch, rows, weight + column * depth, VECTOR_WIDTH, depth, start + column, start_pitch,
                  out + column, out_pitch, ending);
#endif
}

/* Rows of x beyond dim hold zeros up to the pitch, and so do the norm's weight and bias. */
static void normalise(const float *x, int64_t rows, int64_t dim, const float *weight, const float *bias, float *out) {
    int64_t pitch = padded(dim);
    ivec columns;
    for (int i = 0; i < VECTOR_WIDTH; i++) columns[i] = i;
    for (int64_t r = 0; r < rows; r++, x += pitch, out += pitch) {
        vec total = all(0);
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH) total += load(x + c);
        float mean = sum(total) / dim;
        vec squares = all(0);
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH) {
            vec distance = choose(columns + (int32_t)c < (int32_t)dim, load(x + c) - mean, all(0));
            squares += distance * distance;
        }
        float factor = 1.0f / sqrtf(sum(squares) / dim + 1e-5f);
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH)
            store(out + c, (load(x + c) - mean) * factor * load(weight + c) + load(bias + c));
    }
}

/* Softmax of each row without the division; returns 1 / sum of each row. */
static void exponentiate(float *scores, int64_t rows, int64_t pitch, float *inverse) {
    for (int64_t r = 0; r < rows; r++, scores += pitch) {
        vec maxima = load(scores);
        for (int64_t c = VECTOR_WIDTH; c < pitch; c += VECTOR_WIDTH) maxima = larger(load(scores + c), maxima);
        float highest = largest(maxima);
        vec total = all(0);
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH) {
            vec value = exp_vec(load(scores + c) - highest);
            total += value;
            store(scores + c, value);
        }
        inverse[r] = 1.0f / sum(total);
    }
}

typedef struct {
    float *x, *normal, *qkv, *attended, *hidden, *keys, *values, *scores, *inverse, *mixed;
} Scratch;

static void attend(const Block *b, const float *bias, const Scratch *s) {
    int64_t n = b->window_tokens, d = b->head_dim, wide = padded(3 * b->dim), across = padded(n), deep = padded(d);
    for (int64_t head = 0; head < b->heads; head++) {
        const float *query = s->qkv + head * d, *key = query + b->dim, *value = key + b->dim;
        for (int64_t j = 0; j < n; j++) {
            float *panel = s->keys + j / PANEL * PANEL * d + j % PANEL;
            for (int64_t k = 0; k < d; k++) panel[k * PANEL] = key[j * wide + k];
            for (int64_t k = 0; k < d; k++) s->values[k / PANEL * PANEL * n + j * PANEL + k % PANEL] = value[j * wide + k];
        }
        multiply_matrix(query, wide, n, d, s->keys, across, bias + head * n * across, across, s->scores, across, WRITE);
        exponentiate(s->scores, n, across, s->inverse);
        static const float zeros[1024];
        multiply_matrix(s->scores, across, n, n, s->values, deep, zeros, 0, s->mixed, deep, WRITE);
        for (int64_t j = 0; j < n; j++)
            for (int64_t k = 0; k < d; k++)
                s->attended[j * padded(b->dim) + head * d + k] = s->mixed[j * deep + k] * s->inverse[j];
    }
}

/* 1 also compiles blocks with products in bfloat16: where there is an instruction for it, or where a test asks for it. */
#ifndef HAS_BFLOAT16
#if defined(__AVX512BF16__) && VECTOR_WIDTH == 16
#define HAS_BFLOAT16 1
#else
#define HAS_BFLOAT16 0
#endif
#endif
#if HAS_BFLOAT16
#include "fused_bfloat16.h"
#endif

/* Return whether this library runs blocks whose weights are packed in bfloat16. */
int has_bfloat16(void) { return HAS_BFLOAT16; }

static void run_in_floats(const Block *b, const float *bias, const Scratch *s) {
    int64_t n = b->window_tokens, dim = b->dim, pitch = padded(dim), hidden = padded(b->hidden);

    normalise(s->x, n, dim, b->norm1_weight, b->norm1_bias, s->normal);
    multiply_matrix(s->normal, pitch, n, dim, b->qkv_weight, padded(3 * dim), b->qkv_bias, 0, s->qkv, padded(3 * dim), WRITE);
    attend(b, bias, s);
    multiply_matrix(s->attended, pitch, n, dim, b->proj_weight, pitch, b->proj_bias, 0, s->x, pitch, ADD);

    normalise(s->x, n, dim, b->norm2_weight, b->norm2_bias, s->normal);
    multiply_matrix(s->normal, pitch, n, dim, b->fc1_weight, hidden, b->fc1_bias, 0, s->hidden, hidden, GELU);
    multiply_matrix(s->hidden, hidden, n, b->hidden, b->fc2_weight, pitch, b->fc2_bias, 0, s->x, pitch, ADD);
}

static void run_window(const Work *work, int64_t window, const Scratch *s) {
    const Block *b = work->block;
    int64_t n = b->window_tokens, dim = b->dim, pitch = padded(dim);
    const Kind *kind = work->kinds;
    while (window >= kind->end) kind++;
    const int64_t *gather = work->gather + window * n;
    for (int64_t j = 0; j < n; j++) {
        memcpy(s->x + j * pitch, work->tokens + gather[j] * dim, dim * sizeof(float));
        memset(s->x + j * pitch + dim, 0, (pitch - dim) * sizeof(float)); /* a NaN of the previous window may be left here */
    }

#if HAS_BFLOAT16
    if (b->in_bfloat16)
        run_in_halves(b, kind->bias, s);
    else
#endif
        run_in_floats(b, kind->bias, s);

    float *out = work->out + window * n * dim;
    for (int64_t j = 0; j < n; j++) memcpy(out + j * dim, s->x + j * pitch, dim * sizeof(float));
}

static void *run_thread(void *argument) {
    Work *work = argument;
    const Block *b = work->block;
    int64_t n = b->window_tokens, pitch = padded(b->dim), across = padded(n), deep = padded(b->head_dim);
    int64_t sizes[] = {n * pitch, n * pitch, n * padded(3 * b->dim), n * pitch, n * padded(b->hidden),
                       across * b->head_dim, n * deep, n * across, across, n * deep};
    int64_t total = 0;
    for (int i = 0; i < 10; i++) total += padded(sizes[i]);
    float *memory = aligned_alloc(64, total * sizeof(float));
    if (!memory) {
        __atomic_store_n(&work->failed, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    memset(memory, 0, total * sizeof(float)); /* the padding of keys and values stays zero */
    float *parts[10], *part = memory;
    for (int i = 0; i < 10; part += padded(sizes[i++])) parts[i] = part;
    Scratch scratch = {parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7], parts[8], parts[9]};
    for (;;) {
        int64_t window = __atomic_fetch_add(&work->next, WINDOWS_PER_STEP, __ATOMIC_RELAXED);
        if (window >= work->windows) break;
        for (int i = 0; i < WINDOWS_PER_STEP && window + i < work->windows; i++) run_window(work, window + i, &scratch);
    }
    free(memory);
    return NULL;
}

/* Run the block over all windows; returns 0, or 1 when memory ran out or this library has no bfloat16. `tokens` and `out`
 * must not overlap. */
int run_swin_block(const Block *block, const Kind *kinds, int64_t kind_count, const float *tokens, const int64_t *gather,
                   float *out, int64_t threads) {
    if (block->in_bfloat16 && !HAS_BFLOAT16) return 1;
    Work work = {block, kinds, kind_count, kinds[kind_count - 1].end, tokens, gather, out, 0, 0};
    pthread_t others[MAX_THREADS];
    int64_t started = 0;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    while (started < threads - 1 && !pthread_create(&others[started], NULL, run_thread, &work)) started++;
    run_thread(&work);
    while (started) pthread_join(others[--started], NULL);
    return work.failed;
}
