/* The last steps of restored tiles [N, H, W, 3] on a CPU: flat and neutral areas, rounding, and what the values span.
 * swinir/inference/compiled_tiles.py calls these functions and checks their arguments.
 */
#include "threads.h"
#include "vectors.h"

#define FLOATS_PER_STEP 65536 /* of a tile, that a thread takes at a time */
#define ROWS_PER_STEP 8       /* rows of the input */

typedef uint8_t bytes __attribute__((vector_size(VECTOR_WIDTH)));

typedef struct {
    float low, high;
    int64_t outside; /* values further than half a level outside 0..255 */
} Range;

typedef struct {
    const float *values;
    int64_t tile_floats, steps;
    uint8_t *bytes;
    uint16_t *words; /* NULL: none */
    Range *ranges;    /* [tiles][steps] */
} Rounding;


/* Round halves to even by the bits that the addition drops; for values of 0 to 2^22. */
static inline ivec round_vec(vec v) { return (ivec)(v + 12582912.0f) - (ivec)all(12582912.0f); }

static inline vec clamp_vec(vec v, float highest) { return smaller(larger(v, all(0)), all(highest)); }

static void round_part(void *work, int64_t index, float *scratch) {
    const Rounding *s = work;
    int64_t start = index % s->steps * FLOATS_PER_STEP, count = s->tile_floats - start;
    int64_t offset = index / s->steps * s->tile_floats + start;
    if (count > FLOATS_PER_STEP) count = FLOATS_PER_STEP;
    vec low = all(INFINITY), high = all(-INFINITY);
    ivec invalid = {0}, outside = {0}, used = {0}, positions;
    for (int i = 0; i < VECTOR_WIDTH; i++) positions[i] = i;
    for (int64_t i = 0; i < count; i += VECTOR_WIDTH) {
        float tail[VECTOR_WIDTH] = {0};
        int64_t rest = count - i < VECTOR_WIDTH ? count - i : VECTOR_WIDTH;
        const float *at = s->values + offset + i;
        if (rest < VECTOR_WIDTH) { /* the last value again in the floats that are left */
            for (int64_t k = 0; k < VECTOR_WIDTH; k++) tail[k] = at[k < rest ? k : rest - 1];
            at = tail;
        }
        vec raw = load(at), v = raw * 255.0f;
        invalid |= raw != raw;
        low = smaller(raw, low);
        high = larger(raw, high);
        used = positions < (int32_t)rest;
        outside -= ((v < all(-0.5f)) | (v > all(255.5f))) & used;
        bytes levels = __builtin_convertvector(round_vec(clamp_vec(v, 255.0f)), bytes);
        memcpy(s->bytes + offset + i, &levels, rest == VECTOR_WIDTH ? VECTOR_WIDTH : rest);
        if (s->words) {
            ivec deep = round_vec(clamp_vec(raw * 65535.0f, 65535.0f));
            for (int64_t k = 0; k < rest; k++) s->words[offset + i + k] = deep[k];
        }
    }
    Range *range = s->ranges + index;
    *range = (Range){low[0], high[0], 0};
    for (int k = 0; k < VECTOR_WIDTH; k++) {
        if (low[k] < range->low) range->low = low[k];
        if (high[k] > range->high) range->high = high[k];
        range->outside += outside[k];
    }
    for (int k = 0; k < VECTOR_WIDTH; k++)
        if (invalid[k]) range->low = range->high = NAN;
}

/* Write values [tiles, tile_floats] times 255, clamped and rounded, to `bytes` and, times 65535 instead, to `words`. Write for each
 * tile its extremes (both NaN if it has a NaN) and how many values are outside. Returns 1 without memory. */
int round_tiles(const float *values, int64_t tiles, int64_t tile_floats, uint8_t *bytes, uint16_t *words, float *extremes,
                int64_t *outside, int64_t threads) {
    int64_t steps = (tile_floats + FLOATS_PER_STEP - 1) / FLOATS_PER_STEP;
    Range *ranges = malloc(tiles * steps * sizeof(Range));
    if (!ranges) return 1;
    Rounding rounding = {values, tile_floats, steps, bytes, words, ranges};
    int failed = run_loop(round_part, &rounding, tiles * steps, 0, threads);
    for (int64_t t = 0; t < tiles; t++) {
        float low = INFINITY, high = -INFINITY;
        outside[t] = 0;
        for (int64_t i = t * steps; i < (t + 1) * steps; i++) {
            int invalid = low != low || ranges[i].low != ranges[i].low;
            low = invalid ? NAN : ranges[i].low < low ? ranges[i].low : low;
            high = invalid ? NAN : ranges[i].high > high ? ranges[i].high : high;
            outside[t] += ranges[i].outside;
        }
        extremes[2 * t] = low, extremes[2 * t + 1] = high;
    }
    free(ranges);
    return failed;
}

typedef struct {
    float *tile;
    const float *image, *weights;
    int64_t height, width, scale, to_grey;
} Blend;

static inline float mix(float from, float to, float weight) { /* exact at both ends */
    return weight < 0.5f ? from + weight * (to - from) : to - (to - from) * (1.0f - weight);
}

static void blend_rows(void *work, int64_t index, float *scratch) {
    const Blend *b = work;
    int64_t y = index, s = b->scale;
    for (int64_t x = 0; x < b->width; x++) {
        float weight = b->weights[y * b->width + x];
        if (weight == 0.0f) continue;
        const float *colour = b->image + (y * b->width + x) * 3;
        for (int64_t down = 0; down < s; down++) {
            float *pixel = b->tile + (((y * s + down) * b->width + x) * s) * 3;
            for (int64_t i = 0; i < s; i++, pixel += 3) {
                float grey = pixel[0] * 0.299f + pixel[1] * 0.587f + pixel[2] * 0.114f;
                for (int c = 0; c < 3; c++) pixel[c] = mix(pixel[c], b->to_grey ? grey : colour[c], weight);
            }
        }
    }
}

/* Mix a tile [height * scale, width * scale, 3] with the colours of its image [height, width, 3], or with its own luminance if
 * `to_grey`, by weights [height, width]. */
int blend_tile(float *tile, const float *image, const float *weights, int64_t height, int64_t width, int64_t scale,
               int64_t to_grey, int64_t threads) {
    Blend blend = {tile, image, weights, height, width, scale, to_grey};
    return run_loop(blend_rows, &blend, height, 0, threads);
}
