/* The Swin block of fused_block.c with its products in bfloat16: two products per lane, summed in float32. Norms, softmax,
 * GELU, biases and residuals stay float32. swinir/network/packing.py packs the weights: panels [panel][pair of rows][PANEL][2].
 * dim, head_dim and hidden are even.
 */
#include "bfloat16.h"

typedef enum { TO_FLOAT, TO_HALVES, GELU_TO_HALVES, ADD_TO_FLOAT } HalfEnding;

/* One tile, as in fused_block.c; depth counts pairs, `next` is in halves. */
#define HALF_TILE(COUNT, VECTORS)                                                                                      \
    static inline __attribute__((always_inline)) void half_tile_##COUNT##x##VECTORS(                                   \
        const half *a, int64_t a_pitch, const half *panel, int64_t next, int64_t depth, const float *start,            \
        int64_t start_pitch, void *out, int64_t out_pitch, HalfEnding ending) {                                        \
        vec acc[COUNT][VECTORS];                                                                                       \
        ivec right[VECTORS];                                                                                           \
        _Pragma("GCC unroll 8") for (int r = 0; r < COUNT; r++)                                                        \
            _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++)                                                  \
                acc[r][v] = load(start + r * start_pitch + v * VECTOR_WIDTH);                                          \
        for (int64_t k = 0; k < depth; k++) {                                                                          \
            _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++)                                                  \
                right[v] = *(const loose_pairs *)(panel + k * 2 * PANEL + v * next);                                   \
            _Pragma("GCC unroll 8") for (int r = 0; r < COUNT; r++) {                                                  \
                ivec x = (ivec){0} + load_pair(a + r * a_pitch + 2 * k);                                               \
                _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++) acc[r][v] = dot(acc[r][v], x, right[v]);     \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 8") for (int r = 0; r < COUNT; r++)                                                        \
            _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++) {                                                \
                int64_t at = r * out_pitch + v * VECTOR_WIDTH;                                                         \
                vec value = acc[r][v];                                                                                 \
                if (ending == GELU_TO_HALVES) value = gelu_vec(value);                                                 \
                if (ending == ADD_TO_FLOAT) value += load((float *)out + at);                                          \
                if (ending == TO_FLOAT || ending == ADD_TO_FLOAT) store((float *)out + at, value);                     \
                else store_halves((half *)out + at, narrow(value));                                                    \
            }                                                                                                          \
    }

#define HALF_STEP(COUNT, VECTORS)                                                                                      \
    half_tile_##COUNT##x##VECTORS(a + r * a_pitch, a_pitch, panel, next, depth, start + r * start_pitch, start_pitch,  \
                                  (char *)out + r * out_pitch * size, out_pitch, ending);

#define HALF_COLUMNS(VECTORS)                                                                                          \
    HALF_TILE(1, VECTORS)                                                                                              \
    HALF_TILE(2, VECTORS)                                                                                              \
    HALF_TILE(4, VECTORS)                                                                                              \
    HALF_TILE(8, VECTORS)                                                                                              \
    static inline __attribute__((always_inline)) void half_columns_##VECTORS(                                          \
        const half *a, int64_t a_pitch, int64_t rows, const half *panel, int64_t next, int64_t depth,                  \
        const float *start, int64_t start_pitch, void *out, int64_t out_pitch, HalfEnding ending) {                    \
        const int64_t size = ending == TO_FLOAT || ending == ADD_TO_FLOAT ? sizeof(float) : sizeof(half);              \
        int64_t r = 0;                                                                                                 \
        for (; r + 8 <= rows; r += 8) HALF_STEP(8, VECTORS)                                                            \
        if (r + 4 <= rows) { HALF_STEP(4, VECTORS) r += 4; }                                                           \
        if (r + 2 <= rows) { HALF_STEP(2, VECTORS) r += 2; }                                                           \
        if (r < rows) HALF_STEP(1, VECTORS)                                                                            \
    }
HALF_COLUMNS(1)
HALF_COLUMNS(2)

/* out[rows][columns] = (or +=) start + a[rows][2 * depth] * weight; the pitch is a multiple of PANEL. */
static inline __attribute__((always_inline)) void multiply_halves(
    const half *a, int64_t a_pitch, int64_t rows, int64_t depth, const half *weight, int64_t columns, const float *start,
    int64_t start_pitch, void *out, int64_t out_pitch, HalfEnding ending) {
    const int64_t size = ending == TO_FLOAT || ending == ADD_TO_FLOAT ? sizeof(float) : sizeof(half);
    int64_t column = 0;
    for (; column + 2 * PANEL <= columns; column += 2 * PANEL)
        half_columns_2(a, a_pitch, rows, weight + column * 2 * depth, 2 * PANEL * depth, depth, start + column, start_pitch,
                       (char *)out + column * size, out_pitch, ending);
    if (column < columns)
        half_columns_1(a, a_pitch, rows, weight + column * 2 * depth, 0, depth, start + column, start_pitch,
                       (char *)out + column * size, out_pitch, ending);
}

static void round_rows(const float *x, int64_t count, half *out) {
    for (int64_t i = 0; i < count; i += VECTOR_WIDTH) store_halves(out + i, narrow(load(x + i)));
}

/* As `exponentiate`; each row of the result takes the first half of its row of scores. */
static void exponentiate_to_halves(float *scores, int64_t rows, int64_t pitch, float *inverse) {
    for (int64_t r = 0; r < rows; r++, scores += pitch) {
        vec maxima = load(scores);
        for (int64_t c = VECTOR_WIDTH; c < pitch; c += VECTOR_WIDTH) maxima = larger(load(scores + c), maxima);
        float highest = largest(maxima);
        vec total = all(0);
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH) {
            half *row = (half *)scores + c;
            store_halves(row, narrow(exp_vec(load(scores + c) - highest)));
            total += (vec)(extend(row) << 16); /* the rounded values, so that the weights of a token add up to one */
        }
        inverse[r] = 1.0f / sum(total);
    }
}

static void attend_in_halves(const Block *b, const float *bias, const Scratch *s) {
    int64_t n = b->window_tokens, d = b->head_dim, wide = padded(3 * b->dim), across = padded(n), deep = padded(d);
    int64_t pairs = (n + 1) / 2;
    half *qkv = (half *)s->qkv, *values = (half *)s->values, *attended = (half *)s->attended;
    pair *keys = (pair *)s->keys;
    for (int64_t head = 0; head < b->heads; head++) {
        const half *query = qkv + head * d, *key = query + b->dim, *value = key + b->dim;
        for (int64_t j = 0; j < n; j++) {
            pair *panel = keys + j / PANEL * PANEL * (d / 2) + j % PANEL;
            for (int64_t k = 0; k < d; k += 2) panel[k / 2 * PANEL] = load_pair(key + j * wide + k);
        }
        for (int64_t c = 0; c < d; c += PANEL)
            for (int64_t j = 0; j < n; j += 2) { /* columns beyond the head's become padding that nothing reads */
                const half *row = value + j * wide + c;
                words low = extend(row), high = j + 1 < n ? extend(row + wide) : (words){0};
                *(loose_pairs *)(values + (c * pairs + j / 2 * PANEL) * 2) = (ivec)(low | high << 16);
            }
        multiply_halves(query, wide, n, d / 2, (const half *)keys, across, bias + head * n * across, across, s->scores, across,
                        TO_FLOAT);
        exponentiate_to_halves(s->scores, n, across, s->inverse);
        static const float zeros[1024];
        multiply_halves((const half *)s->scores, 2 * across, n, pairs, values, deep, zeros, 0, s->mixed, deep, TO_FLOAT);
        for (int64_t j = 0; j < n; j++)
            for (int64_t c = 0; c < d; c += VECTOR_WIDTH) {
                halves scaled = narrow(load(s->mixed + j * deep + c) * s->inverse[j]);
                half *to = attended + j * padded(b->dim) + head * d + c;
                if (d - c >= VECTOR_WIDTH) store_halves(to, scaled);
                else memcpy(to, &scaled, (d - c) * sizeof(half)); /* after the last head begins the next row */
            }
    }
}

/* As the second half of `run_window`: s->x holds the tokens of the window. */
static void run_in_halves(const Block *b, const float *bias, const Scratch *s) {
    int64_t n = b->window_tokens, dim = b->dim, pitch = padded(dim), hidden = padded(b->hidden), wide = padded(3 * dim);
    half *normal = (half *)s->attended, *inner = (half *)s->hidden;

    normalise(s->x, n, dim, b->norm1_weight, b->norm1_bias, s->normal);
    round_rows(s->normal, n * pitch, normal);
    multiply_halves(normal, pitch, n, dim / 2, (const half *)b->qkv_weight, wide, b->qkv_bias, 0, s->qkv, wide, TO_HALVES);
    attend_in_halves(b, bias, s);
    multiply_halves((half *)s->attended, pitch, n, dim / 2, (const half *)b->proj_weight, pitch, b->proj_bias, 0, s->x, pitch,
                    ADD_TO_FLOAT);

    normalise(s->x, n, dim, b->norm2_weight, b->norm2_bias, s->normal);
    round_rows(s->normal, n * pitch, normal);
    multiply_halves(normal, pitch, n, dim / 2, (const half *)b->fc1_weight, hidden, b->fc1_bias, 0, inner, hidden,
                    GELU_TO_HALVES);
    multiply_halves(inner, hidden, n, b->hidden / 2, (const half *)b->fc2_weight, pitch, b->fc2_bias, 0, s->x, pitch,
                    ADD_TO_FLOAT);
}
