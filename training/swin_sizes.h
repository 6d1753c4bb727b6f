/* Sizes and arguments of the block, for both kinds of arithmetic. Part of swin_block.c. */
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { DIM = 48, HEADS = 4, HEAD = 12, HIDDEN = 96, QKV = 3 * DIM, KINDS = 4 };

/* Rows of a window with padding: 64 for AMX's tiles; in float32 49 rows take 56. -DWINDOW is the side of a window. */
#ifdef SWIN_AMX
enum { TOKENS = 64 };
#else
enum { TOKENS = (WINDOW * WINDOW + 7) / 8 * 8 };
#endif

static const float SCORE_SCALE = 0.28867513f; /* HEAD ** -0.5 */

/* Parameters, or their gradients, as PyTorch holds them: float32, [out][in]. */
typedef struct {
    float *norm1_weight, *norm1_bias, *qkv_weight, *qkv_bias, *proj_weight, *proj_bias;
    float *norm2_weight, *norm2_bias, *fc1_weight, *fc1_bias, *fc2_weight, *fc2_bias;
    float *position_bias; /* [HEADS][window^2][window^2] */
} Parameters;

typedef struct {
    int64_t batch, height, width, window, shifted;
} Shape;

/* Add `bias` to the sum of two matrices. */
INLINE void add_rows(const float a[TOKENS][DIM], const float b[TOKENS][DIM], const float *bias, float to[TOKENS][DIM]) {
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < DIM; c++) to[t][c] = a[t][c] + b[t][c] + bias[c];
}
