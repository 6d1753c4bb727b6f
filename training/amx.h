/* Matrix products on AMX tiles, the layouts of their operands, and functions of 16 values at once.
 *
 * Products take bfloat16 and add up in float32. "rows" is [row][column] bfloat16. "pairs" is [row / 2][column], two
 * bfloat16 each (rows 2i and 2i + 1 of a column): the layout of the right operand. Pairs transposed as 32-bit values
 * are the transposed matrix in rows.
 */
#pragma once
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "swin_sizes.h"

typedef uint16_t half; /* a bfloat16 */
typedef uint32_t pair; /* two of them */

/* ---- Matrix products ---- */

typedef struct __attribute__((packed)) {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileConfig;

/* Ask Linux to let this process use AMX: 0, or -1 when the processor or the kernel does not support it. */
static int allow_amx(void) {
    const int request = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, request, tile_data) ? -1 : 0;
}

static void configure_tiles(void) {
    TileConfig config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
}

/* out[16 rows][16 columns] = (or +=) left (rows) x right (pairs), counted in tiles of 16 x 16 and depths of 32. */
INLINE void multiply(const void *left, int64_t left_bytes, const void *right, int64_t right_bytes, void *out,
                     int64_t out_bytes, int rows, int columns, int depths, int add) {
    __asm__ volatile("" ::: "memory"); /* GCC's tile loads do not say that they read memory */
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < columns; c += 2) {
            int two = r + 1 < rows, wide = c + 1 < columns;
            char *o = (char *)out + r * 16 * out_bytes + c * 64, *o2 = o + 16 * out_bytes;
            if (add) {
                _tile_loadd(0, o, out_bytes);
                if (wide) _tile_loadd(1, o + 64, out_bytes);
                if (two) _tile_loadd(2, o2, out_bytes);
                if (two && wide) _tile_loadd(3, o2 + 64, out_bytes);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int k = 0; k < depths; k++) {
                const char *a = (const char *)left + r * 16 * left_bytes + k * 64;
                const char *b = (const char *)right + k * 16 * right_bytes + c * 64;
                _tile_loadd(4, a, left_bytes);
                _tile_loadd(6, b, right_bytes);
                _tile_dpbf16ps(0, 4, 6);
                if (two) _tile_loadd(5, a + 16 * left_bytes, left_bytes);
                if (two) _tile_dpbf16ps(2, 5, 6);
                if (wide) _tile_loadd(7, b + 64, right_bytes);
                if (wide) _tile_dpbf16ps(1, 4, 7);
                if (two && wide) _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, o, out_bytes);
            if (wide) _tile_stored(1, o + 64, out_bytes);
            if (two) _tile_stored(2, o2, out_bytes);
            if (two && wide) _tile_stored(3, o2 + 64, out_bytes);
        }
    __asm__ volatile("" ::: "memory");
}

/* As above, of whole arrays: the pitches are those of their rows. */
#define MULTIPLY(LEFT, RIGHT, OUT, ROWS, COLUMNS, DEPTHS, ADD)                                                         \
    multiply(LEFT, sizeof((LEFT)[0]), RIGHT, sizeof((RIGHT)[0]), OUT, sizeof((OUT)[0]), ROWS, COLUMNS, DEPTHS, ADD)

/* ---- Layouts ---- */

INLINE __m512 zeros(void) { return _mm512_setzero_ps(); }
INLINE __m512i two_halves(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* 16 columns of rows 2i and 2i + 1 -> 16 pairs. */
INLINE void store_pairs(__m512 even, __m512 odd, pair *to) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, two_halves(even, odd)));
}

/* [16 rows] of 16 32-bit values, transposed. */
INLINE void transpose_16(const void *from, int64_t from_bytes, void *to, int64_t to_bytes) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512((const char *)from + i * from_bytes);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512((char *)to + i * to_bytes, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
        _mm512_storeu_si512((char *)to + (i + 4) * to_bytes, _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88));
        _mm512_storeu_si512((char *)to + (i + 8) * to_bytes, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
        _mm512_storeu_si512((char *)to + (i + 12) * to_bytes, _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd));
    }
}

/* [rows][columns] of 32-bit values, transposed; both multiples of 16. */
INLINE void transpose(const void *from, int64_t from_bytes, void *to, int64_t to_bytes, int rows, int columns) {
    for (int r = 0; r < rows; r += 16)
        for (int c = 0; c < columns; c += 16)
            transpose_16((const char *)from + r * from_bytes + c * 4, from_bytes,
                         (char *)to + c * to_bytes + r * 4, to_bytes);
}

/* Rows 2i and 2i + 1 of a float32 matrix -> rows and pairs; `sum`, unless NULL, gains both rows. */
INLINE void split(const float *even, const float *odd, int columns, half *even_row, half *odd_row, pair *pairs,
                  float *sum) {
    for (int c = 0; c < columns; c += 32) {
        int more = c + 16 < columns;
        __m512 a = _mm512_loadu_ps(even + c), b = _mm512_loadu_ps(odd + c);
        __m512 a2 = more ? _mm512_loadu_ps(even + c + 16) : zeros(), b2 = more ? _mm512_loadu_ps(odd + c + 16) : zeros();
        _mm512_storeu_si512(even_row + c, two_halves(a, a2));
        _mm512_storeu_si512(odd_row + c, two_halves(b, b2));
        store_pairs(a, b, pairs + c);
        if (more) store_pairs(a2, b2, pairs + c + 16);
        if (!sum) continue;
        _mm512_storeu_ps(sum + c, _mm512_add_ps(_mm512_loadu_ps(sum + c), _mm512_add_ps(a, b)));
        if (more) _mm512_storeu_ps(sum + c + 16, _mm512_add_ps(_mm512_loadu_ps(sum + c + 16), _mm512_add_ps(a2, b2)));
    }
}

/* ---- Functions of single values ---- */

/* e^x, within 3e-6 of it; x <= 0. */
INLINE __m512 exponential(__m512 x) {
    __m512 t = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(1.44269504f));
    __m512 n = _mm512_roundscale_ps(t, 8), f = _mm512_sub_ps(t, n);
    __m512 y = _mm512_set1_ps(1.3333558e-3f);
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(9.6181291e-3f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.5504109e-2f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.4022651e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.9314718e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, n);
}

/* x * Phi(x) and its derivative Phi(x) + x * phi(x); erf by Abramowitz and Stegun 7.1.26. */
INLINE __m512 gelu(__m512 x, __m512 *slope) {
    __m512 magnitude = _mm512_abs_ps(x), one = _mm512_set1_ps(1.0f);
    __m512 bell = exponential(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f)));
    __m512 t = _mm512_rcp14_ps(_mm512_fmadd_ps(magnitude, _mm512_set1_ps(0.3275911f * 0.70710678f), one));
    __m512 y = _mm512_set1_ps(1.061405429f);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-1.453152027f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.421413741f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.284496736f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.254829592f));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(y, t), bell), _mm512_set1_ps(0.5f)); /* 1 - Phi(|x|) */
    __mmask16 negative = _mm512_cmp_ps_mask(x, zeros(), _CMP_LT_OQ);
    __m512 phi = _mm512_mask_mov_ps(_mm512_sub_ps(one, tail), negative, tail);
    *slope = _mm512_fmadd_ps(_mm512_mul_ps(x, bell), _mm512_set1_ps(0.39894228f), phi);
    return _mm512_mul_ps(x, phi);
}
