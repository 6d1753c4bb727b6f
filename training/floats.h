/* Matrix products in float32, and functions of 8 values at once, in GCC's vector types, for AVX2.
 *
 * A product adds up tiles of 4 rows x 3 vectors: 12 sums, 3 vectors of the right matrix and one value of the left one
 * fill the 16 registers of AVX2. The left matrix may lie in memory in either order, so nothing is transposed for it.
 */
#pragma once
#include "swin_sizes.h"
#undef VECTOR_WIDTH
#define VECTOR_WIDTH 8
#include "../swinir/network/vectors.h"

#define ROWS 4 /* of a tile */

/* Have the vector in a register. GCC otherwise reads it from memory again for each of the 4 rows: a fifth slower. */
#define KEEP(VECTOR) __asm__("" : "+x"(VECTOR))

/* One tile: out = start + left x right. Left is left[r * row + k * step]. */
INLINE void multiply_tile(int vectors, const float *left, int64_t row, int64_t step, const float *right,
                          int64_t right_pitch, int depth, const float *start, int64_t start_pitch, float *out,
                          int64_t out_pitch) {
    vec sums[ROWS][3];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++)
            sums[r][v] = start ? load(start + r * start_pitch + v * VECTOR_WIDTH) : (vec){0};
    for (int k = 0; k < depth; k++) {
        vec b[3];
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) {
            b[v] = load(right + k * right_pitch + v * VECTOR_WIDTH);
            KEEP(b[v]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            vec a = all(left[r * row + k * step]);
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++) sums[r][v] += a * b[v];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) store(out + r * out_pitch + v * VECTOR_WIDTH, sums[r][v]);
}

/* out[rows][columns] = start + left x right, for rows that 4 divides and columns that 8 divides. `start` is NULL for zeros, a
 * row for all with a pitch of 0, or `out` itself. Pitches and steps are counted in floats. */
INLINE void multiply(const float *left, int64_t row, int64_t step, const float *right, int64_t right_pitch, float *out,
                     int64_t out_pitch, int rows, int columns, int depth, const float *start, int64_t start_pitch) {
    int c = 0;
#define COLUMNS_OF(VECTORS)                                                                                            \
    for (int r = 0; r < rows; r += ROWS)                                                                               \
        multiply_tile(VECTORS, left + r * row, row, step, right + c, right_pitch, depth,                               \
                      start ? start + r * start_pitch + c : NULL, start_pitch, out + r * out_pitch + c, out_pitch);    \
    c += VECTORS * VECTOR_WIDTH;
    while (columns - c >= 3 * VECTOR_WIDTH && columns - c != 4 * VECTOR_WIDTH) { COLUMNS_OF(3) }
    while (columns - c >= 2 * VECTOR_WIDTH) { COLUMNS_OF(2) }
    if (columns - c > 0) { COLUMNS_OF(1) }
#undef COLUMNS_OF
}

/* The same with whole arrays: rows of `left` by the rows of `right`; and with the columns of `left`, its transpose. */
#define PITCH(ARRAY) ((int64_t)(sizeof((ARRAY)[0]) / sizeof(float)))
#define FLAT(ARRAY) ((float *)(ARRAY))
#define MULTIPLY(LEFT, RIGHT, OUT, ROWS_OUT, COLUMNS_OUT, DEPTH, START, START_PITCH)                                       \
    multiply(FLAT(LEFT), PITCH(LEFT), 1, FLAT(RIGHT), PITCH(RIGHT), FLAT(OUT), PITCH(OUT), ROWS_OUT, COLUMNS_OUT, DEPTH,  \
             START, START_PITCH)
#define MULTIPLY_TURNED(LEFT, RIGHT, OUT, ROWS_OUT, COLUMNS_OUT, DEPTH, START, START_PITCH)                                \
    multiply((LEFT)[0], 1, PITCH(LEFT), FLAT(RIGHT), PITCH(RIGHT), FLAT(OUT), PITCH(OUT), ROWS_OUT, COLUMNS_OUT, DEPTH,  \
             START, START_PITCH)

/* [8 rows] of 8 floats, transposed. */
INLINE void transpose_8(const float *from, int64_t from_pitch, float *to, int64_t to_pitch) {
#define MIX(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
    vec a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a[i] = load(from + i * from_pitch);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        b[i] = MIX(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = MIX(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
        for (int o = 0; o < 2; o++) {
            a[i + 2 * o] = MIX(b[i + o], b[i + o + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            a[i + 2 * o + 1] = MIX(b[i + o], b[i + o + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        store(to + i * to_pitch, MIX(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11));
        store(to + (i + 4) * to_pitch, MIX(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15));
    }
#undef MIX
}

/* [rows][columns], transposed; both multiples of 8. */
INLINE void transpose(const float *from, int64_t from_pitch, float *to, int64_t to_pitch, int rows, int columns) {
    for (int r = 0; r < rows; r += 8)
        for (int c = 0; c < columns; c += 8)
            transpose_8(from + r * from_pitch + c, from_pitch, to + c * to_pitch + r, to_pitch);
}

/* e^x within 3e-6 of it, for -87 <= x <= 0; e^-87 below. */
INLINE vec exponential(vec x) {
    vec t = larger(x, all(-87.0f)) * 1.44269504f, shifted = t + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    vec f = t - (shifted - 12582912.0f), y = all(1.3333558e-3f);
    y = y * f + 9.6181291e-3f;
    y = y * f + 5.5504109e-2f;
    y = y * f + 2.4022651e-1f;
    y = y * f + 6.9314718e-1f;
    y = y * f + 1.0f;
    return (vec)((ivec)y + ((ivec)shifted << 23));
}

/* x * Phi(x) and its derivative Phi(x) + x * phi(x); erf by Abramowitz and Stegun 7.1.26. */
INLINE vec gelu(vec x, vec *slope) {
    vec magnitude = larger(x, -x), bell = exponential(x * x * -0.5f);
    vec t = 1.0f / (magnitude * (0.3275911f * 0.70710678f) + 1.0f), y = all(1.061405429f);
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    vec tail = y * t * bell * 0.5f; /* 1 - Phi(|x|) */
    vec phi = choose(x < all(0.0f), tail, 1.0f - tail);
    *slope = x * bell * 0.39894228f + phi;
    return x * phi;
}
