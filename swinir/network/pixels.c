/* The last steps of restored tiles [N, H, W, 3] on a CPU: flat and neutral areas, rounding, and what the values span.
 * swinir/inference/compiled_tiles.py calls these functions and checks their arguments.
 */
#include "threads.h"
#include "vectors.h"

#define FLOATS_PER_STEP 65536 /* of a tile, that a thread takes at a time */
#define FLOATS_PER_BLOCK 4096 /* of a step: what is read twice stays in the first cache */
#define ROWS_PER_STEP 8       /* rows of the input */
#define GROUP (4 * VECTOR_WIDTH)

typedef struct {
    float low, high;
    int64_t outside; /* values further than half a level outside 0..255 */
} Range;

typedef struct {
    vec low, high;
    ivec invalid;
} Span;

typedef struct {
    const float *values;
    int64_t tile_floats, steps;
    uint8_t *bytes;
    uint16_t *words; /* NULL: none */
    Range *ranges;    /* [tiles][steps] */
} Rounding;

static inline void round_group(const float *values, uint8_t *bytes, Span *span) {
    Integers levels;
    for (int i = 0; i < 4; i++) {
        vec raw = load(values + i * VECTOR_WIDTH);
        span->invalid |= raw != raw;
        span->low = smaller(raw, span->low);
        span->high = larger(raw, span->high);
        levels.parts[i] = round_vec(smaller(raw * 255.0f, all(255.0f)));
    }
    store_bytes(bytes, levels);
}

static void round_words(const float *values, uint16_t *words, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float value = values[i] * 65535.0f;
        words[i] = value > 0.0f ? rintf(value < 65535.0f ? value : 65535.0f) : 0.0f;
    }
}

static int64_t count_outside(const float *values, int64_t count) {
    int64_t found = 0, i = 0;
    ivec outside = {0};
    for (; i + VECTOR_WIDTH <= count; i += VECTOR_WIDTH) {
        vec v = load(values + i) * 255.0f;
        outside -= (v < all(-0.5f)) | (v > all(255.5f));
    }
    for (int k = 0; k < VECTOR_WIDTH; k++) found += outside[k];
    for (; i < count; i++) found += values[i] * 255.0f < -0.5f || values[i] * 255.0f > 255.5f;
    return found;
}

/* Round a block and widen the range of its step, whose extremes become NaN and stay so if a value is NaN. */
static void round_block(const float *values, uint8_t *bytes, int64_t count, Range *range) {
    Span span = {all(INFINITY), all(-INFINITY), {0}};
    int64_t i = 0;
    for (; i + GROUP <= count; i += GROUP) round_group(values + i, bytes + i, &span);
    if (i < count) { /* the last value again in the floats that are left */
        float tail[GROUP];
        uint8_t levels[GROUP];
        for (int64_t k = 0; k < GROUP; k++) tail[k] = values[i + k < count ? i + k : count - 1];
        round_group(tail, levels, &span);
        memcpy(bytes + i, levels, count - i);
    }
    float low = -largest(-span.low), high = largest(span.high);
    if (low * 255.0f < -0.5f || high * 255.0f > 255.5f) range->outside += count_outside(values, count);
    int invalid = range->low != range->low;
    for (int k = 0; k < VECTOR_WIDTH; k++) invalid |= span.invalid[k];
    range->low = invalid ? NAN : low < range->low ? low : range->low;
    range->high = invalid ? NAN : high > range->high ? high : range->high;
}

static void round_part(void *work, int64_t index, float *scratch) {
    const Rounding *s = work;
    int64_t start = index % s->steps * FLOATS_PER_STEP, count = s->tile_floats - start;
    int64_t offset = index / s->steps * s->tile_floats + start;
    if (count > FLOATS_PER_STEP) count = FLOATS_PER_STEP;
    Range *range = s->ranges + index;
    *range = (Range){INFINITY, -INFINITY, 0};
    for (int64_t i = 0; i < count; i += FLOATS_PER_BLOCK) {
        int64_t length = count - i < FLOATS_PER_BLOCK ? count - i : FLOATS_PER_BLOCK;
        round_block(s->values + offset + i, s->bytes + offset + i, length, range);
        if (s->words) round_words(s->values + offset + i, s->words + offset + i, length);
    }
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

/* Mix floats of a row with colours by weights. */
static void mix_floats(float *pixels, const float *colours, const float *weights, int64_t count) {
    int64_t i = 0;
    for (; i + VECTOR_WIDTH <= count; i += VECTOR_WIDTH) {
        vec from = load(pixels + i), to = load(colours + i), weight = load(weights + i), step = to - from;
        store(pixels + i, choose(weight < 0.5f, from + weight * step, to - step * (1.0f - weight)));
    }
    for (; i < count; i++) pixels[i] = mix(pixels[i], colours[i], weights[i]);
}

/* Write each luminance three times. */
static void repeat_luminance(const float *pixels, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += 3)
        out[i] = out[i + 1] = out[i + 2] = pixels[i] * 0.299f + pixels[i + 1] * 0.587f + pixels[i + 2] * 0.114f;
}

static void blend_rows(void *work, int64_t index, float *scratch) {
    const Blend *b = work;
    int64_t y = index, s = b->scale, line = b->width * s * 3;
    const float *row_weights = b->weights + y * b->width, *image = b->image + y * b->width * 3;
    float *colours = scratch, *weights = scratch + line; /* of a row of the tile */
    for (int64_t x = 0, end; x < b->width; x = end) { /* from a pixel that changes to the next that does not */
        end = x + 1;
        if (row_weights[x] == 0.0f) continue;
        while (end < b->width && row_weights[end] != 0.0f) end++;
        int64_t count = 0;
        for (int64_t column = x; column < end; column++)
            for (int64_t i = 0; i < s; i++, count += 3)
                for (int c = 0; c < 3; c++) colours[count + c] = image[column * 3 + c], weights[count + c] = row_weights[column];
        float *pixels = b->tile + y * s * line + x * s * 3;
        for (int64_t down = 0; down < s; down++, pixels += line) {
            if (b->to_grey) repeat_luminance(pixels, count, colours);
            mix_floats(pixels, colours, weights, count);
        }
    }
}

/* Mix a tile [height * scale, width * scale, 3] with the colours of its image [height, width, 3], or with its own luminance if
 * `to_grey`, by weights [height, width]. */
int blend_tile(float *tile, const float *image, const float *weights, int64_t height, int64_t width, int64_t scale,
               int64_t to_grey, int64_t threads) {
    Blend blend = {tile, image, weights, height, width, scale, to_grey};
    return run_loop(blend_rows, &blend, height, 2 * width * scale * 3, threads);
}
