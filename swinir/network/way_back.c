/* The way back of restored tiles on a CPU: tiles [N, H * scale, W * scale, 3] in bytes are shrunk to the size of their images and
 * compared with them. swinir/inference/compiled_tiles.py calls measure_way_back and checks its arguments.
 */
#include "threads.h"
#include "vectors.h"
#if defined(__x86_64__) && !defined(PLAIN_VECTORS)
#include <immintrin.h>
#endif

#define ROWS_PER_STEP 16         /* rows of the image that a thread takes at a time */
#define SLACK (4 * VECTOR_WIDTH) /* elements behind each buffer that vectors may read or write */

typedef uint8_t bytes __attribute__((vector_size(VECTOR_WIDTH)));
typedef uint8_t loose_bytes __attribute__((vector_size(VECTOR_WIDTH), aligned(1), may_alias));
typedef int32_t loose_words __attribute__((vector_size(4 * VECTOR_WIDTH), aligned(4), may_alias));
typedef uint8_t group __attribute__((vector_size(16)));
typedef uint8_t loose_group __attribute__((vector_size(16), aligned(1), may_alias));

/* The weights of a filter that shrinks a line by a whole factor, in units of 1 / 2^shift. They fit in 16 bits. */
typedef struct {
    int64_t taps, shift;
    const int32_t *starts, *counts; /* of each output pixel: its first input pixel, and how many have a weight */
    const int32_t *weights;         /* [outputs][taps] */
} Filter;

typedef struct {
    const uint8_t *tiles;
    const float *images;
    int64_t height, width, scale;
    const Filter *across, *down;
    int64_t first, last; /* columns of the image whose 4 * scale weights are the same */
    int64_t quad_words;  /* of all planes of quads */
    int64_t *offsets;    /* [scale]: word of each quad of column `first` */
    int32_t *pairs;      /* [scale][2]: weights of its first and third, and of its second and fourth pixel */
    double *errors;      /* [tiles][steps] */
} Shrink;

/* total + a * b of both 16-bit halves of each word; the halves of `a` are not negative. */
static inline ivec add_products(ivec total, ivec a, ivec b) {
#if defined(PLAIN_VECTORS)
    return total + (a & 0xffff) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#elif VECTOR_WIDTH == 16 && defined(__AVX512VNNI__)
    return (ivec)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
#elif VECTOR_WIDTH == 16 && defined(__AVX512BW__)
    return total + (ivec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif VECTOR_WIDTH == 8 && defined(__AVX2__)
    return total + (ivec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return total + (a & 0xffff) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

static inline int32_t pair_weights(int32_t low, int32_t high) { return (low & 0xffff) | (int32_t)((uint32_t)high << 16); }

static inline ivec repeat(int32_t x) { return x - (ivec){0}; }

static inline ivec to_levels(ivec total, int64_t shift) {
    total >>= (int32_t)shift;
    total &= ~(total < 0);
    ivec above = total > 255;
    return (total & ~above) | (above & 255);
}

static int64_t greatest_divisor(int64_t a, int64_t b) { return b ? greatest_divisor(b, a % b) : a; }

/* Four neighbouring pixels are a quad: a word for each channel, whose bytes are the four levels. The taps of a column of the
 * image are `scale` quads. Quads whose distance is a multiple of `scale` are the same of another column, so they share a plane. */
static int64_t columns_shared(int64_t scale, int64_t phase) { /* columns from the quad at `phase` to the last of its plane */
    int64_t most = 0;
    for (int64_t j = 0; j < scale; j++)
        if (4 * j % scale == phase) most = 4 * j / scale;
    return most;
}

/* Write `count` quads, one for every `scale` pixels. */
static void gather_quads(const uint8_t *pixels, int64_t count, int64_t scale, int32_t *quads) {
    for (int64_t i = 0; i < count; i++, pixels += scale * 3, quads += 3) {
        group four = {0};
        if (i < count - 1) four = *(const loose_group *)pixels;
        else memcpy(&four, pixels, 12); /* the row may end here */
        *(loose_group *)quads = __builtin_shufflevector(four, four, 0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, 12, 13, 14, 15);
    }
}

/* Shrink a row [width * scale][3] to [width][3], with SLACK behind it. */
static void shrink_row(const Shrink *s, const uint8_t *row, uint8_t *out, int32_t *quads) {
    const Filter *f = s->across;
    int64_t scale = s->scale, count = s->last - s->first, start = f->starts[s->first];
    if (count > 0) {
        int64_t step = greatest_divisor(4, scale), pitch = s->quad_words / (scale / step);
        for (int64_t phase = 0; phase < scale; phase += step)
            gather_quads(row + (start + phase) * 3, count + columns_shared(scale, phase), scale, quads + phase / step * pitch);
        ivec bytes_mask = repeat(0x00ff00ff), half = repeat(1 << (f->shift - 1));
        for (int64_t i = 0; i < count * 3; i += 4 * VECTOR_WIDTH) {
            Integers totals = {{half, half, half, half}};
            for (int64_t j = 0; j < scale; j++) {
                ivec outer = repeat(s->pairs[2 * j]), inner = repeat(s->pairs[2 * j + 1]);
                for (int k = 0; k < 4; k++) {
                    ivec quad = *(const loose_words *)(quads + s->offsets[j] + i + k * VECTOR_WIDTH);
                    totals.parts[k] = add_products(totals.parts[k], quad & bytes_mask, outer);
                    totals.parts[k] = add_products(totals.parts[k], (quad >> 8) & bytes_mask, inner);
                }
            }
            for (int k = 0; k < 4; k++) totals.parts[k] >>= (int32_t)f->shift;
            store_bytes(out + s->first * 3 + i, totals);
        }
    }
    for (int64_t x = 0; x < s->width; x++) {
        if (x == s->first && count > 0) x = s->last;
        if (x == s->width) break;
        for (int c = 0; c < 3; c++) {
            int32_t total = 1 << (f->shift - 1);
            for (int64_t k = 0; k < f->counts[x]; k++) total += f->weights[x * f->taps + k] * row[(f->starts[x] + k) * 3 + c];
            total >>= f->shift;
            out[x * 3 + c] = total < 0 ? 0 : total > 255 ? 255 : total;
        }
    }
}

static inline ivec widen(const uint8_t *p) {
#if defined(PLAIN_VECTORS)
    return __builtin_convertvector(*(const loose_bytes *)p, ivec);
#elif VECTOR_WIDTH == 16 && defined(__AVX512F__) /* GCC 12 converts bytes one by one */
    return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
#elif VECTOR_WIDTH == 8 && defined(__AVX2__)
    return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
#else
    return __builtin_convertvector(*(const loose_bytes *)p, ivec);
#endif
}

/* Return the sum of the squared differences between a row of an image and the rows `shrunk`, shrunk down to it. */
static double compare_row(const Shrink *s, int64_t tile, int64_t y, const uint8_t *shrunk) {
    const Filter *f = s->down;
    int64_t line = s->width * 3, count = f->counts[y];
    const int32_t *weights = f->weights + y * f->taps;
    const float *image = s->images + (tile * s->height + y) * line;
    double error = 0;
    vec squares = all(0);
    ivec half = repeat(1 << (f->shift - 1));
    for (int64_t i = 0; i < line; i += 4 * VECTOR_WIDTH) {
        ivec totals[4] = {half, half, half, half};
        for (int64_t k = 0; k + 1 < count; k += 2) {
            ivec pair = repeat(pair_weights(weights[k], weights[k + 1]));
            const uint8_t *above = shrunk + k * line + i, *below = above + line;
            for (int64_t j = 0; j < 4; j++)
                totals[j] = add_products(totals[j], widen(above + j * VECTOR_WIDTH) | widen(below + j * VECTOR_WIDTH) << 16, pair);
        }
        for (int64_t j = 0, rest = line - i; j < 4 && rest > 0; j++, rest -= VECTOR_WIDTH) {
            int64_t at = i + j * VECTOR_WIDTH;
            ivec total = totals[j];
            if (count % 2) total = add_products(total, widen(shrunk + (count - 1) * line + at), repeat(weights[count - 1] & 0xffff));
            vec levels = __builtin_convertvector(to_levels(total, f->shift), vec);
            if (rest < VECTOR_WIDTH) {
                for (int64_t k = 0; k < rest; k++) {
                    float difference = levels[k] - image[at + k] * 255.0f;
                    error += difference * difference;
                }
                break;
            }
            vec difference = levels - load(image + at) * 255.0f;
            squares += difference * difference;
        }
    }
    return error + sum(squares);
}

static void shrink_rows(void *work, int64_t index, float *scratch) {
    const Shrink *s = work;
    const Filter *f = s->down;
    int64_t line = s->width * 3, steps = (s->height + ROWS_PER_STEP - 1) / ROWS_PER_STEP, tile = index / steps;
    int64_t first = index % steps * ROWS_PER_STEP, end = first + ROWS_PER_STEP;
    if (end > s->height) end = s->height;
    int64_t from = f->starts[first], to = f->starts[end - 1] + f->counts[end - 1];
    int32_t *quads = (int32_t *)scratch;
    uint8_t *shrunk = (uint8_t *)(quads + s->quad_words + SLACK);
    const uint8_t *source = s->tiles + tile * s->height * s->scale * line * s->scale;
    for (int64_t y = from; y < to; y++) shrink_row(s, source + y * line * s->scale, shrunk + (y - from) * line, quads);
    double error = 0;
    for (int64_t y = first; y < end; y++) error += compare_row(s, tile, y, shrunk + (f->starts[y] - from) * line);
    s->errors[index] = error;
}

/* Fill in what all rows share. Returns 1 without memory. */
static int prepare(Shrink *s) {
    const Filter *f = s->across;
    int64_t scale = s->scale, step = greatest_divisor(4, scale), pitch = (s->width + 3) * 3 + SLACK;
    s->first = 0;
    while (s->first < s->width && f->counts[s->first] != 4 * scale) s->first++;
    s->last = s->first;
    while (s->last < s->width && f->counts[s->last] == 4 * scale) s->last++;
    s->quad_words = scale / step * pitch;
    s->offsets = malloc(scale * (sizeof(int64_t) + 2 * sizeof(int32_t)));
    if (!s->offsets) return 1;
    s->pairs = (int32_t *)(s->offsets + scale);
    if (s->first == s->last) return 0;
    for (int64_t j = 0; j < scale; j++) {
        const int32_t *weights = f->weights + s->first * f->taps + 4 * j;
        s->offsets[j] = 4 * j % scale / step * pitch + 4 * j / scale * 3;
        s->pairs[2 * j] = pair_weights(weights[0], weights[2]);
        s->pairs[2 * j + 1] = pair_weights(weights[1], weights[3]);
    }
    return 0;
}

/* Shrink tiles [N, height * scale, width * scale, 3] to the size of their images and write the mean squared difference of each
 * in levels, across first and then down, each rounded to bytes. Returns 1 without memory. */
int measure_way_back(const uint8_t *tiles, const float *images, int64_t count, int64_t height, int64_t width, int64_t scale,
                     const Filter *across, const Filter *down, float *errors, int64_t threads) {
    int64_t steps = (height + ROWS_PER_STEP - 1) / ROWS_PER_STEP, line = width * 3;
    double *parts = malloc(count * steps * sizeof(double));
    Shrink shrink = {tiles, images, height, width, scale, across, down, .errors = parts};
    if (!parts || prepare(&shrink)) {
        free(parts);
        return 1;
    }
    int64_t row_bytes = (ROWS_PER_STEP * scale + down->taps) * line + SLACK;
    int failed = run_loop(shrink_rows, &shrink, count * steps, shrink.quad_words + SLACK + (row_bytes + 3) / 4, threads);
    for (int64_t t = 0; t < count; t++) {
        double total = 0;
        for (int64_t i = 0; i < steps; i++) total += parts[t * steps + i];
        errors[t] = total / (height * line);
    }
    free(shrink.offsets);
    free(parts);
    return failed;
}
