/* The forward pass of the compact 4x networks (2 groups of 4 Swin blocks, 48 channels, 4 heads, window 8), for WebAssembly.

   `python -m scripts.preview_wasm` compiles it to gateway/static/preview.wasm; gateway/static/preview-worker.js runs it.
   It needs no libc. The vectors are those of GCC and Clang, so that a test compiles the same source for this machine and
   compares it with swinir/network, whose formulas it follows (SwinIR eq. 1 to 8).

   Tokens are [H, W, C] in image order. A block gathers the 64 tokens of a window, works on them in place and scatters
   them back; the cyclic shift is part of the addresses. A convolution reads three runs of 3 * C adjacent numbers per
   pixel from an image with a border of zeros, so it is the same product as a linear layer. */

#include <stdint.h>

#define EXPORT __attribute__((visibility("default"), used))
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(16), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(16), aligned(4)));

enum {
  MAX_SIDE = 128, /* of a tile in pixels, a multiple of the window */
  GROUPS = 2, DEPTH = 4, C = 48, HEADS = 4, HEAD = C / HEADS, HIDDEN = 2 * C, WINDOW = 8, TOKENS = WINDOW * WINDOW,
  TABLE = (2 * WINDOW - 1) * (2 * WINDOW - 1), SCALE = 4, RGB = 3, MAX_PIXELS = MAX_SIDE * MAX_SIDE,
  MAX_PADDED = (MAX_SIDE + 2) * (MAX_SIDE + 2)
};

/* Mean of DIV2K (swinir.network.swinir.RGB_MEAN). */
static const float MEAN[RGB] = {0.4488f, 0.4371f, 0.4040f};

typedef struct { float weight[C], bias[C]; } Norm;
typedef struct { float weight[9 * C * C], bias[C]; } Conv;
typedef struct {
  Norm norm1;
  float table[TABLE * HEADS];
  float qkv[C * 3 * C], qkv_bias[3 * C], proj[C * C], proj_bias[C];
  Norm norm2;
  float fc1[C * HIDDEN], fc1_bias[HIDDEN], fc2[HIDDEN * C], fc2_bias[C];
} Block;

/* The order of the weights file (swinir/preview_weights.py): products are [in, out], convolutions [ky, kx, in, out]. */
typedef struct {
  float first[9 * RGB * C], first_bias[C];
  Norm embed;
  struct { Block blocks[DEPTH]; Conv conv; } groups[GROUPS];
  Norm norm;
  Conv after_body, upsample;
} Weights;

static Weights weights;
static uint16_t halves[sizeof(Weights) / sizeof(float)];
static uint8_t rgb[MAX_PIXELS * RGB];
static uint8_t rgba[MAX_PIXELS * SCALE * SCALE * 4];
static float bias[GROUPS * DEPTH][HEADS][TOKENS][TOKENS];
static float mask[4][TOKENS][TOKENS]; /* of windows inside, at the right edge, at the bottom, in the corner */
static float shallow[MAX_PIXELS * C], tokens[MAX_PIXELS * C], kept[MAX_PIXELS * C], padded[MAX_PADDED * C];

EXPORT uint16_t *weights_at(void) { return halves; }
EXPORT int weights_count(void) { return sizeof(Weights) / sizeof(float); }
EXPORT uint8_t *input_at(void) { return rgb; }
EXPORT uint8_t *output_at(void) { return rgba; }

/* Stays in the module, so that a test can tell whether it was built from this source. */
#ifndef SOURCE_SHA256
#define SOURCE_SHA256 ""
#endif
EXPORT const char *source_sha256(void) { return SOURCE_SHA256; }

INLINE vec splat(float x) { return (vec){x, x, x, x}; }
INLINE vec load(const float *at) { return *(const vec *)at; }
INLINE void store(float *at, vec x) { *(vec *)at = x; }
INLINE vec choose(ivec yes, vec a, vec b) { return (vec)(((ivec)a & yes) | ((ivec)b & ~yes)); }
INLINE float sum(vec x) { return (x[0] + x[1]) + (x[2] + x[3]); }

/* exp(x), relative error below 1e-6; 1e-38 below -87. 12582912 = 1.5 * 2^23 rounds to a whole number in its low bits. */
INLINE vec exp4(vec x) {
  x = choose(x < splat(-87.0f), splat(-87.0f), x);
  vec shifted = x * splat(1.44269504f) + splat(12582912.0f);
  vec whole = shifted - splat(12582912.0f);
  vec r = x - whole * splat(0.693359375f) + whole * splat(2.12194440e-4f); /* ln 2 in two parts */
  vec p = splat(1.0f / 720) * r + splat(1.0f / 120);
  p = p * r + splat(1.0f / 24);
  p = p * r + splat(1.0f / 6);
  p = p * r + splat(0.5f);
  p = p * r + splat(1.0f);
  p = p * r + splat(1.0f);
  return (vec)((ivec)p + ((ivec)shifted << 23));
}

/* x * (1 + erf(x / sqrt 2)) / 2; erf by Abramowitz and Stegun 7.1.26, error below 1.5e-7. */
INLINE vec gelu4(vec x) {
  vec z = x * splat(0.70710678f);
  vec a = choose(z < splat(0.0f), -z, z);
  vec u = splat(1.0f) / (splat(1.0f) + splat(0.3275911f) * a);
  vec p = splat(1.061405429f) * u + splat(-1.453152027f);
  p = p * u + splat(1.421413741f);
  p = p * u + splat(-0.284496736f);
  p = p * u + splat(0.254829592f);
  vec e = splat(1.0f) - p * u * exp4(-a * a);
  return splat(0.5f) * x * (splat(1.0f) + choose(z < splat(0.0f), -e, e));
}

/* Where a product reads its input: `runs` runs of `length` numbers per token. */
typedef struct { const float *at; int token_stride, runs, run_stride, length; } Input;

/* out[4 tokens][4 * nv columns] from column `n` on. */
INLINE void product_4(Input in, const float *w, int columns, const float *b, float *out, int out_stride, int n, int nv) {
  vec acc[4][3];
  for (int t = 0; t < 4; t++)
    for (int v = 0; v < nv; v++) acc[t][v] = b ? load(b + n + 4 * v) : splat(0.0f);
  for (int run = 0; run < in.runs; run++) {
    const float *x = in.at + run * in.run_stride, *row = w + run * in.length * columns + n;
    for (int k = 0; k < in.length; k++, row += columns) {
      vec wv[3];
      for (int v = 0; v < nv; v++) wv[v] = load(row + 4 * v);
      for (int t = 0; t < 4; t++) {
        vec xt = splat(x[t * in.token_stride + k]);
        for (int v = 0; v < nv; v++) acc[t][v] += xt * wv[v];
      }
    }
  }
  for (int t = 0; t < 4; t++)
    for (int v = 0; v < nv; v++) store(out + t * out_stride + n + 4 * v, acc[t][v]);
}

/* out[count][columns] = in * w + b; count is a multiple of 4, columns of 4. */
static void product(Input in, const float *w, int columns, const float *b, float *out, int out_stride, int count) {
  for (int t = 0; t < count; t += 4, in.at += 4 * in.token_stride, out += 4 * out_stride) {
    int n = 0;
    for (; n + 8 <= columns; n += 8) product_4(in, w, columns, b, out, out_stride, n, 2);
    if (n < columns) product_4(in, w, columns, b, out, out_stride, n, 1);
  }
}

static void linear(const float *x, int length, const float *w, int columns, const float *b, float *out) {
  product((Input){x, length, 1, 0, length}, w, columns, b, out, columns, TOKENS);
}

static void normalize(const float *x, const Norm *norm, float *out, int count) {
  for (int t = 0; t < count; t++, x += C, out += C) {
    vec total = splat(0.0f), squares = splat(0.0f);
    for (int c = 0; c < C; c += 4) total += load(x + c);
    vec mean = splat(sum(total) / C);
    for (int c = 0; c < C; c += 4) { vec d = load(x + c) - mean; squares += d * d; }
    vec scale = splat(1.0f / __builtin_sqrtf(sum(squares) / C + 1e-5f));
    for (int c = 0; c < C; c += 4) store(out + c, (load(x + c) - mean) * scale * load(norm->weight + c) + load(norm->bias + c));
  }
}

/* out[H * W][C] = 3x3 convolution of x[H * W][channels], with zeros around the image. */
static void convolve(const float *x, int channels, const float *w, const float *b, float *out, int height, int width) {
  int row = (width + 2) * channels;
  for (int i = 0; i < row; i++) padded[i] = padded[(height + 1) * row + i] = 0.0f;
  for (int y = 0; y < height; y++) {
    float *to = padded + (y + 1) * row;
    for (int c = 0; c < channels; c++) to[c] = to[(width + 1) * channels + c] = 0.0f;
    for (int i = 0; i < width * channels; i++) to[channels + i] = x[y * width * channels + i];
  }
  for (int y = 0; y < height; y++) {
    Input in = {padded + y * row, channels, 3, row, 3 * channels};
    product(in, w, C, b, out + y * width * C, C, width);
  }
}

/* attended[64][C] of one window. `extra` is the mask of a window whose pixels are not all neighbours; 0 if they are. */
static void attend(const float *qkv, const float (*biases)[TOKENS][TOKENS], const float (*extra)[TOKENS], float *attended) {
  static float keys[HEAD][TOKENS], scores[TOKENS][TOKENS], values[TOKENS][HEAD];
  const vec scale = splat(0.28867513f); /* 1 / sqrt 12 */
  for (int head = 0; head < HEADS; head++) {
    const float *q = qkv + head * HEAD;
    for (int t = 0; t < TOKENS; t++)
      for (int i = 0; i < HEAD; i++) {
        keys[i][t] = q[t * 3 * C + C + i];
        values[t][i] = q[t * 3 * C + 2 * C + i];
      }
    product((Input){q, 3 * C, 1, 0, HEAD}, keys[0], TOKENS, 0, scores[0], TOKENS, TOKENS);
    for (int t = 0; t < TOKENS; t++) {
      float *row = scores[t];
      vec most = splat(-1e30f), total = splat(0.0f);
      for (int k = 0; k < TOKENS; k += 4) {
        vec s = load(row + k) * scale + load(biases[head][t] + k);
        if (extra) s += load(extra[t] + k);
        store(row + k, s);
        most = choose(s > most, s, most);
      }
      float top = most[0];
      for (int i = 1; i < 4; i++) top = most[i] > top ? most[i] : top;
      for (int k = 0; k < TOKENS; k += 4) {
        vec e = exp4(load(row + k) - splat(top));
        store(row + k, e);
        total += e;
      }
      vec share = splat(1.0f / sum(total));
      for (int k = 0; k < TOKENS; k += 4) store(row + k, load(row + k) * share);
    }
    product((Input){scores[0], TOKENS, 1, 0, TOKENS}, values[0], HEAD, 0, attended + head * HEAD, C, TOKENS);
  }
}

/* One Swin layer (SwinIR eq. 6 to 8) over all windows, in place. */
static void run_block(const Block *block, const float (*biases)[TOKENS][TOKENS], int shift, int height, int width) {
  static float x[TOKENS * C], y[TOKENS * C], wide[TOKENS * 3 * C];
  for (int top = 0; top < height; top += WINDOW)
    for (int left = 0; left < width; left += WINDOW) {
      float *at[TOKENS];
      for (int t = 0; t < TOKENS; t++) {
        int row = (top + t / WINDOW + shift) % height, column = (left + t % WINDOW + shift) % width;
        at[t] = tokens + (row * width + column) * C;
        for (int c = 0; c < C; c += 4) store(x + t * C + c, load(at[t] + c));
      }
      int kind = shift ? 2 * (top + WINDOW == height) + (left + WINDOW == width) : 0;
      normalize(x, &block->norm1, y, TOKENS);
      linear(y, C, block->qkv, 3 * C, block->qkv_bias, wide);
      attend(wide, biases, kind ? mask[kind] : 0, y);
      linear(y, C, block->proj, C, block->proj_bias, wide);
      for (int i = 0; i < TOKENS * C; i += 4) store(x + i, load(x + i) + load(wide + i));
      normalize(x, &block->norm2, y, TOKENS);
      linear(y, C, block->fc1, HIDDEN, block->fc1_bias, wide);
      for (int i = 0; i < TOKENS * HIDDEN; i += 4) store(wide + i, gelu4(load(wide + i)));
      linear(wide, HIDDEN, block->fc2, C, block->fc2_bias, y);
      for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < C; c += 4) store(at[t] + c, load(x + t * C + c) + load(y + t * C + c));
    }
}

static float from_half(uint16_t half) {
  union { uint32_t bits; float number; } value = {(uint32_t)(half & 0x7fff) << 13};
  value.number *= 0x1p112f; /* the exponents' biases differ by 112 */
  value.bits |= (uint32_t)(half & 0x8000) << 16;
  return value.number;
}

/* Read the weights from `weights_at`, float16, and lay out the biases and masks of the windows. */
EXPORT void prepare(void) {
  float *to = (float *)&weights;
  for (int i = 0; i < weights_count(); i++) to[i] = from_half(halves[i]);
  for (int a = 0; a < TOKENS; a++)
    for (int b = 0; b < TOKENS; b++) {
      int ay = a / WINDOW, ax = a % WINDOW, by = b / WINDOW, bx = b % WINDOW;
      int index = (ay - by + WINDOW - 1) * (2 * WINDOW - 1) + ax - bx + WINDOW - 1;
      for (int i = 0; i < GROUPS * DEPTH; i++)
        for (int head = 0; head < HEADS; head++)
          bias[i][head][a][b] = weights.groups[i / DEPTH].blocks[i % DEPTH].table[index * HEADS + head];
      int across = (ax >= WINDOW / 2) != (bx >= WINDOW / 2), down = (ay >= WINDOW / 2) != (by >= WINDOW / 2);
      for (int kind = 0; kind < 4; kind++)
        mask[kind][a][b] = ((kind & 1) && across) || ((kind & 2) && down) ? -100.0f : 0.0f;
    }
}

INLINE uint8_t to_level(float x) { return x <= 0.0f ? 0 : x >= 1.0f ? 255 : (uint8_t)__builtin_rintf(x * 255.0f); }

/* Upscale the RGB pixels at `input_at` [height, width, 3] to RGBA at `output_at` [4 * height, 4 * width, 4].
   Sides are multiples of 8, at most 128; otherwise nothing is done and 0 is returned. */
EXPORT int upscale(int height, int width) {
  if (height < WINDOW || width < WINDOW || height > MAX_SIDE || width > MAX_SIDE || height % WINDOW || width % WINDOW) return 0;
  int pixels = height * width, count = pixels * C;
  for (int i = 0; i < pixels * RGB; i++) kept[i] = rgb[i] / 255.0f - MEAN[i % RGB];
  convolve(kept, RGB, weights.first, weights.first_bias, shallow, height, width);
  normalize(shallow, &weights.embed, tokens, pixels);
  for (int group = 0; group < GROUPS; group++) {
    for (int i = 0; i < count; i++) kept[i] = tokens[i];
    for (int i = 0; i < DEPTH; i++)
      run_block(&weights.groups[group].blocks[i], (const float(*)[TOKENS][TOKENS])bias[group * DEPTH + i], i % 2 ? WINDOW / 2 : 0, height, width);
    const Conv *conv = &weights.groups[group].conv;
    convolve(tokens, C, conv->weight, conv->bias, tokens, height, width);
    for (int i = 0; i < count; i++) tokens[i] += kept[i];
  }
  normalize(tokens, &weights.norm, tokens, pixels);
  convolve(tokens, C, weights.after_body.weight, weights.after_body.bias, tokens, height, width);
  for (int i = 0; i < count; i++) tokens[i] += shallow[i];
  convolve(tokens, C, weights.upsample.weight, weights.upsample.bias, tokens, height, width);
  for (int y = 0; y < height * SCALE; y++)
    for (int x = 0; x < width * SCALE; x++) {
      const float *from = tokens + ((y / SCALE) * width + x / SCALE) * C + (y % SCALE) * SCALE + x % SCALE;
      uint8_t *to = rgba + (y * width * SCALE + x) * 4;
      for (int c = 0; c < RGB; c++) to[c] = to_level(from[c * SCALE * SCALE] + MEAN[c]);
      to[3] = 255;
    }
  return 1;
}
