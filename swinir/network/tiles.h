/* Products of float32 matrices on the tiles of Intel AMX, which multiply bfloat16 and sum in float32. Each value is split into
 * the nearest bfloat16 ("high") and the nearest bfloat16 of what is left ("low"); high * high, high * low and low * high are
 * summed. What is missing, low * low, is 2^-18 of the product ("bfloat16x3").
 * The right matrix is packed in blocks [16 pairs of rows][16 columns][2], first high, then low:
 * [column / 16][part][row / 32][2][16][16][2]. EMULATED_TILES does the same in plain C, slowly, for tests on any processor.
 */
#ifndef TILES_H
#define TILES_H
#include "bfloat16.h"

#define TILE_SIDE 16                        /* rows of a tile, and its columns of float32 */
#define TILE_DEPTH 32                  /* values of bfloat16 in a row of a tile */
#define BLOCK_VALUES (TILE_SIDE * TILE_DEPTH)      /* values of a block of the right matrix */

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && !defined(EMULATED_TILES)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Ask Linux to let this process use the tiles; 0, or -1 if it refuses. */
static inline int allow_tiles(void) {
    const int request = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return (int)syscall(SYS_arch_prctl, request, tile_data);
}
static inline void begin_tiles(void) { /* for this thread: eight tiles of 16 rows of 64 bytes */
    struct __attribute__((packed)) {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = TILE_SIDE;
    _tile_loadconfig(&config);
}
static inline void end_tiles(void) { _tile_release(); }
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, bytes) _tile_loadd(t, from, bytes)
#define TILE_STORE(t, to, bytes) _tile_stored(t, to, bytes)
#define TILE_DOT(sum, a, b) _tile_dpbf16ps(sum, a, b)
#define TILE_FENCE() __asm__ volatile("" ::: "memory") /* GCC 12's loads of tiles do not say that they read memory */
#else
static __thread union {
    float sums[TILE_SIDE][TILE_SIDE];
    half halves[TILE_SIDE][TILE_DEPTH];
} emulated_tiles[8];

static inline int allow_tiles(void) { return 0; }
static inline void begin_tiles(void) {}
static inline void end_tiles(void) {}
static inline void copy_tile(char *to, int64_t to_bytes, const char *from, int64_t from_bytes) {
    for (int r = 0; r < TILE_SIDE; r++) memcpy(to + r * to_bytes, from + r * from_bytes, 64);
}
static inline void dot_tile(int sum, int left, int right) {
    for (int r = 0; r < TILE_SIDE; r++)
        for (int c = 0; c < TILE_SIDE; c += VECTOR_WIDTH) {
            float *sums = emulated_tiles[sum].sums[r] + c;
            vec total = load(sums);
            for (int k = 0; k < TILE_DEPTH; k += 2) {
                ivec two = (ivec){0} + load_pair(&emulated_tiles[left].halves[r][k]);
                total = dot(total, two, *(const loose_pairs *)&emulated_tiles[right].halves[k / 2][2 * c]);
            }
            store(sums, total);
        }
}
#define TILE_ZERO(t) memset(&emulated_tiles[t], 0, sizeof emulated_tiles[t])
#define TILE_LOAD(t, from, bytes) copy_tile((char *)&emulated_tiles[t], 64, (const char *)(from), bytes)
#define TILE_STORE(t, to, bytes) copy_tile((char *)(to), bytes, (const char *)&emulated_tiles[t], 64)
#define TILE_DOT(sum, a, b) dot_tile(sum, a, b)
#define TILE_FENCE()
#endif

/* The rows of a left matrix: high and low halves of each value. */
typedef struct {
    half *high, *low;
} Halves;

static inline int64_t padded_depth(int64_t n) { return (n + TILE_DEPTH - 1) / TILE_DEPTH * TILE_DEPTH; }

/* Store the first `count` values of a vector. */
static inline void store_some(half *to, halves values, int64_t count) {
#if defined(__AVX512VL__) && defined(__AVX512BW__) && VECTOR_WIDTH == 16
    _mm256_mask_storeu_epi16(to, (__mmask16)((1u << count) - 1), (__m256i)values);
#else
    memcpy(to, &values, count * sizeof(half));
#endif
}

/* The halves of VECTOR_WIDTH values, in words. */
static inline void split(vec value, words *high, words *low) {
    *high = to_words(narrow(value));
    *low = to_words(narrow(value - (vec)(*high << 16)));
}

/* Split VECTOR_WIDTH values and store the first `count` of them. */
static inline void store_split(vec value, Halves to, int64_t at, int64_t count) {
    halves high = narrow(value), low = narrow(value - (vec)(to_words(high) << 16));
    if (count >= VECTOR_WIDTH) {
        store_halves(to.high + at, high);
        store_halves(to.low + at, low);
    } else {
        store_some(to.high + at, high, count);
        store_some(to.low + at, low, count);
    }
}

static inline void split_values(const float *from, int64_t count, Halves to, int64_t at) {
    for (int64_t c = 0; c < count; c += VECTOR_WIDTH) store_split(load(from + c), to, at + c, count - c);
}

/* The same for sums of two rows. */
static inline void split_sums(const float *a, const float *b, int64_t count, Halves to, int64_t at) {
    for (int64_t c = 0; c < count; c += VECTOR_WIDTH) store_split(load(a + c) + load(b + c), to, at + c, count - c);
}

/* `rows` x `columns` (1 or 2 each) tiles of left x right into `out`. Part i of the left matrix begins at `left[i]` and has `steps` times
 * 32 columns; the second column of blocks is `next` values behind the first. */
static inline __attribute__((always_inline)) void multiply_square(
    const Halves *left, int parts, int64_t left_bytes, int64_t steps, const half *right, int64_t next, int rows, int columns,
    float *out, int64_t out_bytes) {
    const int two = rows == 2, wide = columns == 2;
    TILE_FENCE();
    TILE_ZERO(0);
    if (wide) TILE_ZERO(1);
    if (two) TILE_ZERO(2);
    if (two && wide) TILE_ZERO(3);
    for (int part = 0; part < parts; part++) {
        const char *high = (const char *)left[part].high, *low = (const char *)left[part].low;
        for (int64_t k = 0; k < steps; k++, right += 2 * BLOCK_VALUES, high += 64, low += 64) {
            TILE_LOAD(6, right, 64);
            if (wide) TILE_LOAD(7, right + next, 64);
            TILE_LOAD(4, low, left_bytes);
            TILE_DOT(0, 4, 6);
            if (wide) TILE_DOT(1, 4, 7);
            if (two) TILE_LOAD(5, low + TILE_SIDE * left_bytes, left_bytes);
            if (two) TILE_DOT(2, 5, 6);
            if (two && wide) TILE_DOT(3, 5, 7);
            TILE_LOAD(4, high, left_bytes);
            TILE_DOT(0, 4, 6);
            if (wide) TILE_DOT(1, 4, 7);
            if (two) TILE_LOAD(5, high + TILE_SIDE * left_bytes, left_bytes);
            if (two) TILE_DOT(2, 5, 6);
            if (two && wide) TILE_DOT(3, 5, 7);
            TILE_LOAD(6, right + BLOCK_VALUES, 64);
            TILE_DOT(0, 4, 6);
            if (two) TILE_DOT(2, 5, 6);
            if (wide) TILE_LOAD(7, right + next + BLOCK_VALUES, 64);
            if (wide) TILE_DOT(1, 4, 7);
            if (two && wide) TILE_DOT(3, 5, 7);
        }
    }
    char *below = (char *)out + TILE_SIDE * out_bytes;
    TILE_STORE(0, out, out_bytes);
    if (wide) TILE_STORE(1, out + TILE_SIDE, out_bytes);
    if (two) TILE_STORE(2, below, out_bytes);
    if (two && wide) TILE_STORE(3, below + 64, out_bytes);
    TILE_FENCE();
}

/* out = left x right, for rows padded to 16. */
static void multiply_tiles(
    const Halves *left, int parts, int64_t left_pitch, int64_t rows, int64_t steps, const half *right, int64_t columns,
    float *out, int64_t out_pitch) {
    const int64_t next = parts * steps * 2 * BLOCK_VALUES;
    for (int64_t c = 0; c < columns; c += 2 * TILE_SIDE)
        for (int64_t r = 0; r < rows; r += 2 * TILE_SIDE) {
            Halves here[3];
            for (int part = 0; part < parts; part++)
                here[part] = (Halves){left[part].high + r * left_pitch, left[part].low + r * left_pitch};
            const half *block = right + c / TILE_SIDE * next;
            float *to = out + r * out_pitch + c;
            switch ((r + TILE_SIDE < rows) + 2 * (c + TILE_SIDE < columns)) {
            case 0: multiply_square(here, parts, 2 * left_pitch, steps, block, next, 1, 1, to, 4 * out_pitch); break;
            case 1: multiply_square(here, parts, 2 * left_pitch, steps, block, next, 2, 1, to, 4 * out_pitch); break;
            case 2: multiply_square(here, parts, 2 * left_pitch, steps, block, next, 1, 2, to, 4 * out_pitch); break;
            default: multiply_square(here, parts, 2 * left_pitch, steps, block, next, 2, 2, to, 4 * out_pitch);
            }
        }
}
#endif
