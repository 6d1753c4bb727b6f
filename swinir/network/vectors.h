/* Vectors, matrix products and layer norms for the C sources of the network. Plain C with GCC's vector types: the compiler
 * chooses AVX2, AVX-512 or NEON. Weights come in panels of PANEL columns, [panel][row][PANEL], padded with zeros.
 */
#ifndef VECTORS_H
#define VECTORS_H
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) || (defined(__AVX2__) && !defined(PLAIN_VECTORS))
#include <immintrin.h>
#endif

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

typedef float vec __attribute__((vector_size(4 * VECTOR_WIDTH)));
typedef float loose __attribute__((vector_size(4 * VECTOR_WIDTH), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VECTOR_WIDTH)));

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

/* The larger and the smaller of two values; the second if one is NaN. Also 1 / v, for v of at least 1. */
#if VECTOR_WIDTH == 16 && defined(__AVX512F__)
static inline vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vec smaller(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vec inverse_of(vec v) { /* an estimate of 14 bits and a step of Newton's: a third of the time of a division */
    vec estimate = (vec)_mm512_rcp14_ps((__m512)v);
    return estimate * (2.0f - v * estimate);
}
#elif VECTOR_WIDTH == 8 && defined(__AVX2__) && !defined(PLAIN_VECTORS)
static inline vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vec smaller(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vec inverse_of(vec v) { return 1.0f / v; }
#else
static inline vec larger(vec a, vec b) { return choose(a > b, a, b); }
static inline vec smaller(vec a, vec b) { return choose(a < b, a, b); }
static inline vec inverse_of(vec v) { return 1.0f / v; }
#endif

/* Round to the nearest integer, halves to even; negative for NaN and for values that do not fit. */
static inline ivec round_vec(vec v) {
#if VECTOR_WIDTH == 16 && defined(__AVX512F__)
    return (ivec)_mm512_cvtps_epi32((__m512)v);
#elif VECTOR_WIDTH == 8 && defined(__AVX2__) && !defined(PLAIN_VECTORS)
    return (ivec)_mm256_cvtps_epi32((__m256)v);
#else /* by the bits that the addition drops; values of more than 2^22 are not rounded, and stay on their side of 0 */
    vec inner = smaller(larger(v, all(-4194304.0f)), all(4194304.0f));
    return (ivec)(inner + 12582912.0f) - (ivec)all(12582912.0f);
#endif
}

typedef struct {
    ivec parts[4];
} Integers;

/* Write integers, clamped to 0..255, as bytes. */
static inline void store_bytes(uint8_t *out, Integers v) {
#if VECTOR_WIDTH == 16 && defined(__AVX512F__) && !defined(PLAIN_VECTORS)
    for (int i = 0; i < 4; i++) {
        __m512i positive = _mm512_max_epi32((__m512i)v.parts[i], _mm512_setzero_si512());
        _mm_storeu_si128((__m128i *)(out + 16 * i), _mm512_cvtusepi32_epi8(positive));
    }
#elif VECTOR_WIDTH == 8 && defined(__AVX2__) && !defined(PLAIN_VECTORS) /* GCC 12 extracts integers one by one */
    __m256i low = _mm256_packs_epi32((__m256i)v.parts[0], (__m256i)v.parts[1]);
    __m256i high = _mm256_packs_epi32((__m256i)v.parts[2], (__m256i)v.parts[3]);
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)out, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
#else
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < VECTOR_WIDTH; k++) {
            int32_t value = v.parts[i][k];
            out[i * VECTOR_WIDTH + k] = value < 0 ? 0 : value > 255 ? 255 : value;
        }
#endif
}

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

/* e^x within 2 units in the last place for x <= 88 (Cephes' expf: reduction by ln 2, then a polynomial); 0 below -80, so that no
 * product of it has to be a denormal number, which takes a hundred times as long. */
static inline vec exp_vec(vec x) {
#if VECTOR_WIDTH == 16 && defined(__AVX512F__)
    __mmask16 counts = _mm512_cmp_ps_mask((__m512)x, (__m512)all(-80.0f), _CMP_NLT_UQ); /* also for NaN */
    vec n = (vec)_mm512_roundscale_ps((__m512)(x * 1.44269504f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    ivec tiny = x < all(-80.0f);
    x = larger(all(-80.0f), x);
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
    vec n = shifted - 12582912.0f;
#endif
    x = x - n * 0.693359375f;
    x = x + n * 2.12194440e-4f;
    vec y = all(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
#if VECTOR_WIDTH == 16 && defined(__AVX512F__)
    return (vec)_mm512_maskz_scalef_ps(counts, (__m512)y, (__m512)n);
#else
    ivec power = ((ivec)shifted << 23) + (127 << 23);
    return (vec)((ivec)(y * (vec)power) & ~tiny);
#endif
}

/* x * Phi(x) within 2e-7 of |x|: Phi(u) - 1/2 as u P(u^2) / Q(u^2), fitted for |u| <= 5.5 (2e-8), where Phi is 0 or 1 in float32. */
static inline vec gelu_vec(vec x) {
    vec u = larger(all(-5.5f), smaller(all(5.5f), x)); /* NaN stays NaN */
    vec z = u * u, p = all(1.117570827546821e-10f);
    p = p * z - 2.208228977451654e-8f;
    p = p * z + 3.241063495806884e-6f;
    p = p * z + 1.7037455108948052e-4f;
    p = p * z + 4.5091696083545685e-3f;
    p = p * z + 3.592229261994362e-2f;
    p = p * z + 0.39894214272499084f;
    vec q = all(6.232665327843279e-5f);
    q = q * z + 1.8306478159502149e-3f;
    q = q * z + 2.9091540724039078e-2f;
    q = q * z + 0.25670841336250305f;
    q = q * z + 1.0f;
    return x * (0.5f + u * p * inverse_of(q));
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
#endif
