/* Flat and neutral areas of images [N, H, W, 3] in 0..1 on a CPU: the weights by which `blend_tile` mixes tiles.
 * swinir/inference/pixel_rules.py has the same rules in NumPy and says what they are for; compiled_tiles.py calls find_areas.
 */
#include "threads.h"
#include "vectors.h"

#define SLACK 64 /* bytes behind each row that vectors may read or write */

typedef uint8_t loose_bytes __attribute__((vector_size(4 * VECTOR_WIDTH), aligned(1), may_alias));

typedef struct {
    const float *images;
    int64_t height, width, radius, ramp;
    float tolerance; /* of neutral pixels; negative: flat areas */
    float *weights;  /* [tiles][height][width] */
    uint8_t *found;  /* [tiles] */
} Areas;

static inline void join(int32_t *out, const float *a, const float *b, int64_t count) {
    for (int64_t i = 0; i < count; i++) { /* bits, not values: images have neither NaN nor -0 */
        int32_t left, right;
        memcpy(&left, a + i, 4);
        memcpy(&right, b + i, 4);
        out[i] |= left ^ right;
    }
}

/* Write for each pixel of a row 1 if one of its four neighbours has another colour, else 0. */
static void mark_edges(const Areas *s, const float *row, int64_t y, int32_t *differs, uint8_t *out) {
    int64_t line = s->width * 3;
    memset(differs, 0, line * sizeof(int32_t));
    if (y > 0) join(differs, row, row - line, line);
    if (y < s->height - 1) join(differs, row, row + line, line);
    join(differs, row, row + 3, line - 3);
    join(differs + 3, row + 3, row, line - 3);
    for (int64_t x = 0; x < s->width; x++) out[x] = (differs[3 * x] | differs[3 * x + 1] | differs[3 * x + 2]) != 0;
}

/* Write for each pixel of a row 1 if its channels differ by more than the tolerance, else 0. */
static void mark_colours(const Areas *s, const float *row, int32_t *differs, uint8_t *out) {
    int64_t line = s->width * 3;
    for (int64_t i = 0; i < line - 1; i++) differs[i] = fabsf(row[i] - row[i + 1]) > s->tolerance;
    for (int64_t x = 0; x < s->width; x++) out[x] = differs[3 * x] | differs[3 * x + 1];
}

/* to |= from; `from` may be `to` and some bytes further. */
static inline void join_bytes(uint8_t *to, const uint8_t *from, int64_t count) {
    for (int64_t i = 0; i < count; i += sizeof(loose_bytes))
        *(loose_bytes *)(to + i) = *(const loose_bytes *)(to + i) | *(const loose_bytes *)(from + i);
}

/* Spread marks to the box of `radius` around each, which doubles until it is complete. Rows have a margin of `radius` on both sides,
 * and there are `radius` rows above and below. The box of a pixel starts where the pixel was without its margins. */
static void spread(uint8_t *marks, int64_t height, int64_t width, int64_t pitch, int64_t radius) {
    int64_t box = 2 * radius + 1, rows = height + 2 * radius;
    for (int64_t covered = 1, step; covered < box; covered += step) {
        step = covered < box - covered ? covered : box - covered;
        for (int64_t y = radius; y < height + radius; y++) join_bytes(marks + y * pitch, marks + y * pitch + step, width + 2 * radius);
    }
    for (int64_t covered = 1, step; covered < box; covered += step) {
        step = covered < box - covered ? covered : box - covered;
        for (int64_t y = 0; y + step < rows; y++) join_bytes(marks + y * pitch, marks + (y + step) * pitch, width);
    }
}

/* Write the share of pixels that are not marked in the box of `ramp` around each pixel, cut at the borders. */
static void average(const Areas *s, const uint8_t *marks, int64_t pitch, int32_t *columns, int32_t *totals, float *weights) {
    int64_t height = s->height, width = s->width, ramp = s->ramp;
    memset(columns, 0, width * sizeof(int32_t));
    for (int64_t y = -ramp; y < height; y++) {
        if (y + ramp < height)
            for (int64_t x = 0; x < width; x++) columns[x] += 1 - marks[(y + ramp) * pitch + x];
        if (y - ramp - 1 >= 0)
            for (int64_t x = 0; x < width; x++) columns[x] -= 1 - marks[(y - ramp - 1) * pitch + x];
        if (y < 0) continue;
        int64_t top = y > ramp ? y - ramp : 0, bottom = y + ramp + 1 < height ? y + ramp + 1 : height;
        totals[0] = 0;
        for (int64_t x = 0; x < width; x++) totals[x + 1] = totals[x] + columns[x];
        for (int64_t x = 0; x < width; x++) {
            int64_t left = x > ramp ? x - ramp : 0, right = x + ramp + 1 < width ? x + ramp + 1 : width;
            int32_t total = totals[right] - totals[left];
            weights[y * width + x] = total ? (double)total / (double)((right - left) * (bottom - top)) : 0.0f;
        }
    }
}

static int64_t row_pitch(const Areas *s) { return s->width + 2 * s->radius + SLACK; }

static int64_t mark_rows(const Areas *s) { return s->height + 2 * s->radius; }

static void find_in_tile(void *work, int64_t tile, float *scratch) {
    const Areas *s = work;
    int64_t height = s->height, width = s->width, radius = s->radius, pitch = row_pitch(s), holds = 0;
    int32_t *differs = (int32_t *)scratch, *totals = differs + 3 * width;
    uint8_t *marks = (uint8_t *)(totals + width + 1);
    memset(marks, 0, mark_rows(s) * pitch);
    for (int64_t y = 0; y < height; y++) {
        const float *row = s->images + (tile * height + y) * width * 3;
        uint8_t *out = marks + (y + radius) * pitch + radius;
        if (s->tolerance < 0) mark_edges(s, row, y, differs, out);
        else mark_colours(s, row, differs, out);
    }
    spread(marks, height, width, pitch, radius);
    for (int64_t y = 0; y < height && !holds; y++) holds = memchr(marks + y * pitch, 0, width) != NULL;
    s->found[tile] = holds;
    float *weights = s->weights + tile * height * width;
    if (holds) average(s, marks, pitch, differs, totals, weights);
    else memset(weights, 0, height * width * sizeof(float));
}

/* Write the weights [tiles, height, width] of flat areas, or of neutral ones if `tolerance` is not negative, and for each tile
 * whether it has any. Pixels whose box of `radius` has no other colour (no colour) count; `ramp` is the radius of the mean over them.
 * Returns 1 without memory. */
int find_areas(const float *images, int64_t tiles, int64_t height, int64_t width, float tolerance, int64_t radius, int64_t ramp,
               float *weights, uint8_t *found, int64_t threads) {
    Areas areas = {images, height, width, radius, ramp, tolerance, weights, found};
    int64_t marks_bytes = mark_rows(&areas) * row_pitch(&areas) + SLACK;
    return run_loop(find_in_tile, &areas, tiles, 4 * width + 1 + (marks_bytes + 3) / 4, threads);
}
