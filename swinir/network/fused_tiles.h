/* The Swin block of fused_block.c with its products on tiles (tiles.h). Norms, softmax, GELU, biases and residuals are float32.
 * swinir/network/packing.py packs the weights. Matrices have rows of zeros up to a multiple of 16.
 */
#include "tiles.h"

typedef struct {
    int64_t rows;                           /* of all matrices: tokens of a window, padded */
    int64_t tokens, inner, query, weights;  /* depths of the left matrices */
    int64_t wide, deep;                     /* columns of `products` and `mixed` */
} TileSizes;

typedef struct {
    TileSizes sizes;
    Halves tokens, inner, query, weights; /* left matrices */
    half *keys, *values;                  /* right matrices of a head */
    float *products, *scores, *mixed;
} TileScratch;

static TileSizes measure_tiles(const Block *b) {
    int64_t rows = padded(b->window_tokens), wide = padded(3 * b->dim), hidden = padded(b->hidden);
    return (TileSizes){rows, padded_depth(b->dim), padded_depth(b->hidden), padded_depth(b->head_dim), padded_depth(rows),
                       wide > hidden ? wide : hidden, padded(b->head_dim + 1)};
}

/* Place the matrices in `memory` and return the floats that they take; only the number if it is NULL. */
static int64_t place_tiles(const Block *b, float *memory, TileScratch *placed) {
    TileSizes t = measure_tiles(b);
    int64_t halves[] = {2 * t.rows * t.tokens, 2 * t.rows * t.inner, 2 * t.rows * t.query, 2 * t.rows * t.weights,
                        2 * t.rows * t.query, 2 * t.weights * t.deep};
    int64_t floats[] = {t.rows * t.wide, t.rows * t.rows, t.rows * t.deep}, total = 0;
    for (int i = 0; i < 6; i++) total += padded(halves[i] / 2);
    for (int i = 0; i < 3; i++) total += padded(floats[i]);
    if (!memory) return total;
    half *at[6];
    for (int i = 0; i < 6; memory += padded(halves[i++] / 2)) at[i] = (half *)memory;
    float *products = memory, *scores = products + padded(floats[0]), *mixed = scores + padded(floats[1]);
    *placed = (TileScratch){t,
                            {at[0], at[0] + t.rows * t.tokens},
                            {at[1], at[1] + t.rows * t.inner},
                            {at[2], at[2] + t.rows * t.query},
                            {at[3], at[3] + t.rows * t.weights},
                            at[4], at[5], products, scores, mixed};
    return total;
}

/* Exchange the blocks of s x s values beside the diagonal of each block of 2s x 2s. */
#define EXCHANGE(s, ...)                                                                                               \
    _Pragma("GCC unroll 16") for (int i = 0; i < TILE_SIDE; i++) if (!(i & s)) {                                       \
        ivec upper = __builtin_shufflevector(rows[i], rows[i + s], __VA_ARGS__);                                       \
        rows[i + s] = __builtin_shufflevector(rows[i + s], rows[i], SWAPPED_##s);                                      \
        rows[i] = upper;                                                                                               \
    }
#define SWAPPED_1 17, 1, 19, 3, 21, 5, 23, 7, 25, 9, 27, 11, 29, 13, 31, 15
#define SWAPPED_2 18, 19, 2, 3, 22, 23, 6, 7, 26, 27, 10, 11, 30, 31, 14, 15
#define SWAPPED_4 20, 21, 22, 23, 4, 5, 6, 7, 28, 29, 30, 31, 12, 13, 14, 15
#define SWAPPED_8 24, 25, 26, 27, 28, 29, 30, 31, 8, 9, 10, 11, 12, 13, 14, 15

/* Transpose 16 rows of 16 pairs. */
static inline void transpose_pairs(const half *from, half *to) {
    ivec rows[TILE_SIDE];
#pragma GCC unroll 16
    for (int i = 0; i < TILE_SIDE; i++) rows[i] = *(const loose_pairs *)(from + i * TILE_DEPTH);
    EXCHANGE(8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
    EXCHANGE(4, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
    EXCHANGE(2, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
    EXCHANGE(1, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#pragma GCC unroll 16
    for (int i = 0; i < TILE_SIDE; i++) *(loose_pairs *)(to + i * TILE_DEPTH) = rows[i];
}

/* Keys, rows of `head_dim` values, as a right matrix: pairs of values of a row become pairs of rows of its column. */
static void pack_keys(const Block *b, const float *key, const float *bias, const TileScratch *t) {
    int64_t n = b->window_tokens, d = b->head_dim;
    half *out = t->keys;
    for (int64_t j = 0; j < n; j += TILE_SIDE)
        for (int64_t k = 0; k < d; k += TILE_DEPTH, out += 2 * BLOCK_VALUES) {
            half high[BLOCK_VALUES] __attribute__((aligned(64))) = {0}, low[BLOCK_VALUES] __attribute__((aligned(64))) = {0};
            for (int64_t i = 0; i < TILE_SIDE && j + i < n; i++)
                split_sums(key + (j + i) * t->sizes.wide + k, bias + k, d - k < TILE_DEPTH ? d - k : TILE_DEPTH, (Halves){high, low},
                           i * TILE_DEPTH);
            transpose_pairs(high, out);
            transpose_pairs(low, out + BLOCK_VALUES);
        }
}

/* Values, rows of `head_dim` values, as a right matrix, and a column of ones, whose product is the sum of each row of weights. */
static void pack_values(const Block *b, const float *value, const float *bias, const TileScratch *t) {
    int64_t n = b->window_tokens, steps = t->sizes.weights / TILE_DEPTH;
    ivec columns;
    for (int i = 0; i < VECTOR_WIDTH; i++) columns[i] = i;
    for (int64_t c = 0; c < t->sizes.deep; c += VECTOR_WIDTH) {
        ivec used = columns + (int32_t)c < (int32_t)b->head_dim;
        vec others = choose(columns + (int32_t)c == (int32_t)b->head_dim, all(1), all(0));
        for (int64_t j = 0; j < n; j += 2) {
            const float *row = value + j * t->sizes.wide + c;
            vec even = choose(used, load(row) + load(bias + c), others);
            vec odd = choose(used, load(j + 1 < n ? row + t->sizes.wide : row) + load(bias + c), others); /* the weight is 0 */
            words even_high, even_low, odd_high, odd_low;
            split(even, &even_high, &even_low);
            split(odd, &odd_high, &odd_low);
            half *block = t->values + (c / TILE_SIDE * steps + j / TILE_DEPTH) * 2 * BLOCK_VALUES + j % TILE_DEPTH * TILE_SIDE +
                          c % TILE_SIDE * 2;
            *(loose_pairs *)block = (ivec)(even_high | odd_high << 16);
            *(loose_pairs *)(block + BLOCK_VALUES) = (ivec)(even_low | odd_low << 16);
        }
    }
}

/* Softmax of each row of scores + bias without the division, into `to`. */
static inline __attribute__((always_inline)) void exponentiate_scores(const float *scores, const float *bias, int64_t rows,
                                                                      int64_t pitch, Halves to, int64_t to_pitch) {
    for (int64_t r = 0; r < rows; r++) {
        const float *s = scores + r * pitch, *b = bias + r * pitch;
        vec maxima = load(s) + load(b);
#pragma GCC unroll 4
        for (int64_t c = VECTOR_WIDTH; c < pitch; c += VECTOR_WIDTH) maxima = larger(load(s + c) + load(b + c), maxima);
        float highest = largest(maxima);
#pragma GCC unroll 4
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH)
            store_split(exp_vec(load(s + c) + load(b + c) - highest), to, r * to_pitch + c, VECTOR_WIDTH);
    }
}

static void attend_on_tiles(const Block *b, const float *bias, const TileScratch *t) {
    int64_t n = b->window_tokens, d = b->head_dim;
    TileSizes z = t->sizes;
    for (int64_t head = 0; head < b->heads; head++) {
        int64_t query = head * d, key = b->dim + query, value = b->dim + key;
        for (int64_t j = 0; j < n; j++)
            split_sums(t->products + j * z.wide + query, b->qkv_bias + query, d, t->query, j * z.query);
        pack_keys(b, t->products + key, b->qkv_bias + key, t);
        pack_values(b, t->products + value, b->qkv_bias + value, t);
        multiply_tiles(&t->query, 1, z.query, z.rows, z.query / TILE_DEPTH, t->keys, z.rows, t->scores, z.rows);
        const float *own = bias + head * n * z.rows;
        if (z.rows == 64) exponentiate_scores(t->scores, own, n, 64, t->weights, 64); /* windows of 7 and 8 */
        else exponentiate_scores(t->scores, own, n, z.rows, t->weights, z.weights);
        multiply_tiles(&t->weights, 1, z.weights, z.rows, z.weights / TILE_DEPTH, t->values, z.deep, t->mixed, z.deep);
        for (int64_t j = 0; j < n; j++) {
            float inverse = 1.0f / t->mixed[j * z.deep + d];
            for (int64_t c = 0; c < d; c += VECTOR_WIDTH)
                store_split(load(t->mixed + j * z.deep + c) * inverse, t->tokens, j * z.tokens + query + c, d - c);
        }
    }
}

static void normalise_to_split(const Block *b, const Scratch *s, const float *weight, const float *bias, const TileScratch *t) {
    int64_t pitch = padded(b->dim);
    normalise(s->x, b->window_tokens, b->dim, weight, bias, s->normal);
    for (int64_t j = 0; j < b->window_tokens; j++) split_values(s->normal + j * pitch, pitch, t->tokens, j * t->sizes.tokens);
}

/* Add left x right + bias to the tokens in s->x. */
static void multiply_residual(const Block *b, const Scratch *s, Halves left, int64_t depth, const float *weight, const float *bias,
                              const TileScratch *t) {
    int64_t pitch = padded(b->dim);
    multiply_tiles(&left, 1, depth, t->sizes.rows, depth / TILE_DEPTH, (const half *)weight, pitch, t->products, pitch);
    for (int64_t j = 0; j < b->window_tokens; j++)
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH) {
            float *x = s->x + j * pitch + c;
            store(x, load(x) + load(t->products + j * pitch + c) + load(bias + c));
        }
}

/* As `run_in_floats`. */
static void run_on_tiles(const Block *b, const float *bias, const Scratch *s) {
    TileScratch placed, *t = &placed;
    place_tiles(b, s->tiles, t);
    TileSizes z = t->sizes;
    int64_t hidden = padded(b->hidden);

    normalise_to_split(b, s, b->norm1_weight, b->norm1_bias, t);
    multiply_tiles(&t->tokens, 1, z.tokens, z.rows, z.tokens / TILE_DEPTH, (const half *)b->qkv_weight, padded(3 * b->dim),
                   t->products, z.wide);
    attend_on_tiles(b, bias, t);
    multiply_residual(b, s, t->tokens, z.tokens, b->proj_weight, b->proj_bias, t);

    normalise_to_split(b, s, b->norm2_weight, b->norm2_bias, t);
    multiply_tiles(&t->tokens, 1, z.tokens, z.rows, z.tokens / TILE_DEPTH, (const half *)b->fc1_weight, hidden, t->products, z.wide);
    for (int64_t j = 0; j < b->window_tokens; j++)
        for (int64_t c = 0; c < hidden; c += VECTOR_WIDTH) {
            vec value = load(t->products + j * z.wide + c) + load(b->fc1_bias + c);
            store_split(gelu_vec(value), t->inner, j * z.inner + c, VECTOR_WIDTH);
        }
    multiply_residual(b, s, t->inner, z.inner, b->fc2_weight, b->fc2_bias, t);
}
