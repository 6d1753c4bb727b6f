/* Convolutions and layer norms of the network on a CPU, for images [B, H, W, C]. A convolution is a product of matrices for
 * each row of its kernel: the pixels under a row of the kernel lie one after the other in memory, so no copy of the image is
 * made but for three padded rows per thread. swinir/network/compiled_network.py packs the weights and checks the arguments.
 */
#define _GNU_SOURCE /* for tiles.h */
#include "threads.h"
#include "tiles.h"

#define ROWS_PER_STEP 4   /* output rows that a thread takes at a time */
#define PIXELS_PER_TILE 48 /* pixels of a row whose sums stay in the first-level cache; a multiple of 6 and 8 */
#define PIXELS_PER_SQUARE 64 /* the same on tiles, where the weights come from the second-level cache for each */
#define TOKENS_PER_STEP 256

typedef struct {
    int64_t inputs, outputs;   /* channels; outputs before the shuffle */
    int64_t kernel;            /* 1 or 3: side in pixels, padded with zeros */
    int64_t upsample;          /* each source pixel is repeated so often in both directions */
    int64_t shuffle;           /* side of the square of output pixels that the channels of a pixel become */
    int64_t on_tiles;          /* 1 if the weights are packed for tiles.h, with a part for each kernel row */
    float slope;               /* of negative values (leaky ReLU); 1 for a linear layer */
    const void *weight;        /* float [kernel row][panel][kernel * inputs][PANEL]; outputs in the order row, column, channel */
    const float *bias;
} Convolution;

typedef struct {
    const Convolution *layer;
    int64_t height, width;         /* of the image under the kernel */
    int64_t out_height, out_width; /* of the part that is kept, before the shuffle */
    const float *source;
    const float *residual;   /* [B, H, W, outputs], added to the result; NULL: none. Not with a shuffle */
    float *out;
} Pass;

static inline float *row_of(const Pass *p, float *scratch, int64_t y) {
    return scratch + (y + 3) % 3 * padded((p->width + 2) * p->layer->inputs);
}

/* Copy row y of an image, with a pixel of zeros at each end, into its place in the scratch memory. */
static void load_row(const Pass *p, int64_t image, int64_t y, float *scratch) {
    const Convolution *l = p->layer;
    int64_t depth = l->inputs, u = l->upsample;
    float *row = row_of(p, scratch, y);
    if (y < 0 || y >= p->height) {
        memset(row, 0, (p->width + 2) * depth * sizeof(float));
        return;
    }
    memset(row, 0, depth * sizeof(float));
    memset(row + (p->width + 1) * depth, 0, depth * sizeof(float));
    int64_t first = (image * (p->height / u) + y / u) * (p->width / u);
    row += depth;
    if (u == 1)
        memcpy(row, p->source + first * depth, p->width * depth * sizeof(float));
    else
        for (int64_t x = 0; x < p->width; x++)
            memcpy(row + x * depth, p->source + (first + x / u) * depth, depth * sizeof(float));
}

/* Write the results of `count` pixels from (x, y) on. */
static void write_pixels(const Pass *p, int64_t image, int64_t y, int64_t x, int64_t count, float *sums) {
    const Convolution *l = p->layer;
    int64_t pitch = padded(l->outputs), s = l->shuffle, run = l->outputs / s;
    if (l->slope != 1.0f)
        for (int64_t i = 0; i < count * pitch; i++) sums[i] = sums[i] > 0 ? sums[i] : sums[i] * l->slope;
    if (p->residual) {
        const float *residual = p->residual + ((image * p->height + y) * p->width + x) * l->outputs;
        for (int64_t i = 0; i < count; i++)
            for (int64_t c = 0; c < l->outputs; c++) sums[i * pitch + c] += residual[i * l->outputs + c];
    }
    for (int64_t down = 0; down < s; down++) {
        float *out = p->out + (((image * p->out_height + y) * s + down) * p->out_width + x) * run;
        if (run == 3)
            for (int64_t i = 0; i < count; i++) memcpy(out + i * 3, sums + i * pitch + down * 3, 3 * sizeof(float));
        else
            for (int64_t i = 0; i < count; i++) memcpy(out + i * run, sums + i * pitch + down * run, run * sizeof(float));
    }
}

static void convolve_rows(void *work, int64_t index, float *scratch) {
    const Pass *p = work;
    const Convolution *l = p->layer;
    int64_t steps = (p->out_height + ROWS_PER_STEP - 1) / ROWS_PER_STEP, image = index / steps, reach = l->kernel / 2;
    int64_t first = index % steps * ROWS_PER_STEP, end = first + ROWS_PER_STEP, pitch = padded(l->outputs);
    int64_t depth = l->kernel * l->inputs;
    float *sums = scratch + 3 * padded((p->width + 2) * l->inputs);
    if (end > p->out_height) end = p->out_height;
    for (int64_t y = first; y < end; y++) {
        for (int64_t other = y == first ? y - reach : y + reach; other <= y + reach; other++) load_row(p, image, other, scratch);
        for (int64_t x = 0; x < p->out_width; x += PIXELS_PER_TILE) {
            int64_t count = p->out_width - x < PIXELS_PER_TILE ? p->out_width - x : PIXELS_PER_TILE;
            for (int64_t k = 0; k < l->kernel; k++)
                multiply_matrix(row_of(p, scratch, y + k - reach) + (x + 1 - reach) * l->inputs, l->inputs, count, depth,
                                (const float *)l->weight + k * depth * pitch, pitch, k ? sums : l->bias, k ? pitch : 0, sums, pitch, WRITE);
            write_pixels(p, image, y, x, count, sums);
        }
    }
}

/* ---- On tiles ---- */

/* Values of a row: reading stops up to PIXELS_PER_SQUARE pixels and a tile's depth after its last pixel. */
static inline int64_t count_row_halves(const Pass *p) {
    return padded_depth((p->width + 2 + PIXELS_PER_SQUARE) * p->layer->inputs + TILE_DEPTH);
}

static inline Halves halves_of_row(const Pass *p, float *scratch, int64_t y) {
    int64_t count = count_row_halves(p);
    half *row = (half *)scratch + (y + 3) % 3 * 2 * count;
    return (Halves){row, row + count};
}

static void split_row(const Pass *p, int64_t image, int64_t y, float *scratch) {
    const Convolution *l = p->layer;
    int64_t depth = l->inputs, u = l->upsample;
    Halves row = halves_of_row(p, scratch, y);
    if (y < 0 || y >= p->height) {
        memset(row.high, 0, 2 * count_row_halves(p) * sizeof(half));
        return;
    }
    int64_t first = (image * (p->height / u) + y / u) * (p->width / u);
    if (u == 1)
        split_values(p->source + first * depth, p->width * depth, row, depth);
    else
        for (int64_t x = 0; x < p->width; x++)
            split_values(p->source + (first + x / u) * depth, depth, row, (x + 1) * depth);
}

static void convolve_rows_on_tiles(void *work, int64_t index, float *scratch) {
    const Pass *p = work;
    const Convolution *l = p->layer;
    int64_t steps = (p->out_height + ROWS_PER_STEP - 1) / ROWS_PER_STEP, image = index / steps, reach = l->kernel / 2;
    int64_t first = index % steps * ROWS_PER_STEP, end = first + ROWS_PER_STEP, pitch = padded(l->outputs);
    int64_t depth_steps = padded_depth(l->kernel * l->inputs) / TILE_DEPTH;
    float *sums = scratch + 3 * count_row_halves(p);
    if (end > p->out_height) end = p->out_height;
    begin_tiles();
    for (int64_t y = first; y < end; y++) {
        for (int64_t other = y == first ? y - reach : y + reach; other <= y + reach; other++) split_row(p, image, other, scratch);
        for (int64_t x = 0; x < p->out_width; x += PIXELS_PER_SQUARE) {
            int64_t count = p->out_width - x < PIXELS_PER_SQUARE ? p->out_width - x : PIXELS_PER_SQUARE;
            Halves left[3];
            for (int64_t k = 0; k < l->kernel; k++) {
                Halves row = halves_of_row(p, scratch, y + k - reach);
                int64_t at = (x + 1 - reach) * l->inputs;
                left[k] = (Halves){row.high + at, row.low + at};
            }
            multiply_tiles(left, l->kernel, l->inputs, padded(count), depth_steps, l->weight, pitch, sums, pitch);
            for (int64_t i = 0; i < count; i++)
                for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH)
                    store(sums + i * pitch + c, load(sums + i * pitch + c) + load(l->bias + c));
            write_pixels(p, image, y, x, count, sums);
        }
    }
    end_tiles();
}

/* Run a convolution over `batch` images of height x width pixels, counted after the upsampling; keeps out_height x out_width
 * of them. Returns 0, or 1 when memory ran out. `out` must not overlap `source`, but may be `residual`. */
int run_convolution(const Convolution *layer, int64_t batch, int64_t height, int64_t width, int64_t out_height,
                    int64_t out_width, const float *source, const float *residual, float *out,
                    int64_t threads) {
    Pass pass = {layer, height, width, out_height, out_width, source, residual, out};
    int64_t steps = (out_height + ROWS_PER_STEP - 1) / ROWS_PER_STEP;
    if (layer->on_tiles)
        return run_loop(convolve_rows_on_tiles, &pass, batch * steps,
                        3 * count_row_halves(&pass) + PIXELS_PER_SQUARE * padded(layer->outputs), threads);
    int64_t scratch = 3 * padded((width + 2) * layer->inputs) + PIXELS_PER_TILE * padded(layer->outputs);
    return run_loop(convolve_rows, &pass, batch * steps, scratch, threads);
}

typedef struct {
    const float *source, *weight, *bias;
    float *out;
    int64_t rows, dim;
} Norm;

static void normalise_rows(void *work, int64_t index, float *scratch) {
    const Norm *n = work;
    int64_t first = index * TOKENS_PER_STEP, end = first + TOKENS_PER_STEP, pitch = padded(n->dim);
    if (end > n->rows) end = n->rows;
    for (int64_t row = first; row < end; row++) {
        memcpy(scratch, n->source + row * n->dim, n->dim * sizeof(float));
        normalise(scratch, 1, n->dim, n->weight, n->bias, scratch + pitch);
        memcpy(n->out + row * n->dim, scratch + pitch, n->dim * sizeof(float));
    }
}

/* Run a layer norm over [rows, dim]; its weight and bias are padded to PANEL, and `out` may be `source`. Returns 0, or 1 when memory ran out. */
int run_layer_norm(const float *source, int64_t rows, int64_t dim, const float *weight, const float *bias, float *out,
                   int64_t threads) {
    Norm norm = {source, weight, bias, out, rows, dim};
    return run_loop(normalise_rows, &norm, (rows + TOKENS_PER_STEP - 1) / TOKENS_PER_STEP, 2 * padded(dim), threads);
}
