/* One Swin block (SwinIR eq. 6-8) on a CPU, window by window. All data of a window stays in the processor's cache; only
 * the result of the block is written to memory. swinir/network/packing.py packs the weights. The scale of the attention is part
 * of the query's weights. Arguments are not checked here; the callers check them.
 */
#define _GNU_SOURCE /* for syscall() */
#include <pthread.h>
#include <stdlib.h>

#include "vectors.h"

#define WINDOWS_PER_STEP 2 /* windows that a thread takes at a time */
#define MAX_THREADS 64

enum { FLOAT32, BFLOAT16, BFLOAT16X3 }; /* products */

typedef struct {
    int64_t dim, heads, head_dim, window_tokens, hidden, products; /* the last: how it multiplies, and the weights are packed */
    const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias;
    const float *qkv_weight, *qkv_bias, *proj_weight, *proj_bias;
    const float *fc1_weight, *fc1_bias, *fc2_weight, *fc2_bias;
} Block;

typedef struct {
    int64_t first, end; /* windows */
    const float *bias;  /* [heads, N, N padded to PANEL]; the padding is far below zero */
} Kind;

typedef struct {
    const Block *block;
    const Kind *kinds;
    int64_t kind_count, windows;
    const float *tokens;
    const int64_t *gather;
    float *out;
    int64_t next; /* first window that no thread has taken */
    int failed;
    const int64_t *scatter; /* place of each token's result; NULL: in order */
} Work;

/* Softmax of each row without the division; returns 1 / sum of each row. */
static void exponentiate(float *scores, int64_t rows, int64_t pitch, float *inverse) {
    for (int64_t r = 0; r < rows; r++, scores += pitch) {
        vec maxima = load(scores);
        for (int64_t c = VECTOR_WIDTH; c < pitch; c += VECTOR_WIDTH) maxima = larger(load(scores + c), maxima);
        float highest = largest(maxima);
        vec total = all(0);
        for (int64_t c = 0; c < pitch; c += VECTOR_WIDTH) {
            vec value = exp_vec(load(scores + c) - highest);
            total += value;
            store(scores + c, value);
        }
        inverse[r] = 1.0f / sum(total);
    }
}

typedef struct {
    float *x, *normal, *qkv, *attended, *hidden, *keys, *values, *scores, *inverse, *mixed, *tiles;
} Scratch;

static void attend(const Block *b, const float *bias, const Scratch *s) {
    int64_t n = b->window_tokens, d = b->head_dim, wide = padded(3 * b->dim), across = padded(n), deep = padded(d);
    for (int64_t head = 0; head < b->heads; head++) {
        const float *query = s->qkv + head * d, *key = query + b->dim, *value = key + b->dim;
        for (int64_t j = 0; j < n; j++) {
            float *panel = s->keys + j / PANEL * PANEL * d + j % PANEL;
            for (int64_t k = 0; k < d; k++) panel[k * PANEL] = key[j * wide + k];
            for (int64_t k = 0; k < d; k++) s->values[k / PANEL * PANEL * n + j * PANEL + k % PANEL] = value[j * wide + k];
        }
        multiply_matrix(query, wide, n, d, s->keys, across, bias + head * n * across, across, s->scores, across, WRITE);
        exponentiate(s->scores, n, across, s->inverse);
        static const float zeros[1024];
        multiply_matrix(s->scores, across, n, n, s->values, deep, zeros, 0, s->mixed, deep, WRITE);
        for (int64_t j = 0; j < n; j++)
            for (int64_t k = 0; k < d; k++)
                s->attended[j * padded(b->dim) + head * d + k] = s->mixed[j * deep + k] * s->inverse[j];
    }
}

/* 1 also compiles blocks with products in bfloat16: where there is an instruction for it, or where a test asks for it. */
#ifndef HAS_BFLOAT16
#if defined(__AVX512BF16__) && VECTOR_WIDTH == 16
#define HAS_BFLOAT16 1
#else
#define HAS_BFLOAT16 0
#endif
#endif
/* The same for products on the tiles of AMX. */
#ifndef HAS_TILES
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && VECTOR_WIDTH == 16
#define HAS_TILES 1
#else
#define HAS_TILES 0
#endif
#endif
#if HAS_BFLOAT16
#include "fused_bfloat16.h"
#endif

/* Return whether this library runs blocks whose weights are packed in bfloat16. */
int has_bfloat16(void) { return HAS_BFLOAT16; }

#if HAS_TILES
#include "fused_tiles.h"
#endif

/* Return whether this library and the processor multiply on tiles. */
int has_tiles(void) {
#if HAS_TILES
    return !allow_tiles();
#else
    return 0;
#endif
}

static void run_in_floats(const Block *b, const float *bias, const Scratch *s) {
    int64_t n = b->window_tokens, dim = b->dim, pitch = padded(dim), hidden = padded(b->hidden);

    normalise(s->x, n, dim, b->norm1_weight, b->norm1_bias, s->normal);
    multiply_matrix(s->normal, pitch, n, dim, b->qkv_weight, padded(3 * dim), b->qkv_bias, 0, s->qkv, padded(3 * dim), WRITE);
    attend(b, bias, s);
    multiply_matrix(s->attended, pitch, n, dim, b->proj_weight, pitch, b->proj_bias, 0, s->x, pitch, ADD);

    normalise(s->x, n, dim, b->norm2_weight, b->norm2_bias, s->normal);
    multiply_matrix(s->normal, pitch, n, dim, b->fc1_weight, hidden, b->fc1_bias, 0, s->hidden, hidden, GELU);
    multiply_matrix(s->hidden, hidden, n, b->hidden, b->fc2_weight, pitch, b->fc2_bias, 0, s->x, pitch, ADD);
}

static void run_window(const Work *work, int64_t window, const Scratch *s) {
    const Block *b = work->block;
    int64_t n = b->window_tokens, dim = b->dim, pitch = padded(dim);
    const Kind *kind = work->kinds;
    while (window >= kind->end) kind++;
    const int64_t *gather = work->gather + window * n;
    for (int64_t j = 0; j < n; j++) {
        memcpy(s->x + j * pitch, work->tokens + gather[j] * dim, dim * sizeof(float));
        memset(s->x + j * pitch + dim, 0, (pitch - dim) * sizeof(float)); /* a NaN of the previous window may be left here */
    }

    switch (b->products) {
#if HAS_BFLOAT16
    case BFLOAT16: run_in_halves(b, kind->bias, s); break;
#endif
#if HAS_TILES
    case BFLOAT16X3: run_on_tiles(b, kind->bias, s); break;
#endif
    default: run_in_floats(b, kind->bias, s);
    }

    for (int64_t j = window * n; j < (window + 1) * n; j++)
        memcpy(work->out + (work->scatter ? work->scatter[j] : j) * dim, s->x + (j - window * n) * pitch, dim * sizeof(float));
}

static void *run_thread(void *argument) {
    Work *work = argument;
    const Block *b = work->block;
    int64_t n = b->window_tokens, pitch = padded(b->dim), across = padded(n), deep = padded(b->head_dim);
    int64_t sizes[] = {n * pitch, n * pitch, n * padded(3 * b->dim), n * pitch, n * padded(b->hidden),
                       across * b->head_dim, n * deep, n * across, across, n * deep, 0};
#if HAS_TILES
    if (b->products == BFLOAT16X3) sizes[10] = place_tiles(b, NULL, NULL);
#endif
    int64_t total = 0;
    for (int i = 0; i < 11; i++) total += padded(sizes[i]);
    float *memory = aligned_alloc(64, total * sizeof(float));
    if (!memory) {
        __atomic_store_n(&work->failed, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    memset(memory, 0, total * sizeof(float)); /* the padding of keys and values stays zero */
    float *parts[11], *part = memory;
    for (int i = 0; i < 11; part += padded(sizes[i++])) parts[i] = part;
    Scratch scratch = {parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7], parts[8], parts[9], parts[10]};
#if HAS_TILES
    if (b->products == BFLOAT16X3) begin_tiles();
#endif
    for (;;) {
        int64_t window = __atomic_fetch_add(&work->next, WINDOWS_PER_STEP, __ATOMIC_RELAXED);
        if (window >= work->windows) break;
        for (int i = 0; i < WINDOWS_PER_STEP && window + i < work->windows; i++) run_window(work, window + i, &scratch);
    }
#if HAS_TILES
    if (b->products == BFLOAT16X3) end_tiles();
#endif
    free(memory);
    return NULL;
}

/* Run the block over all windows; returns 0, or 1 when memory ran out or this library does not have the products. `tokens` and
 * `out` must not overlap, unless `gather` is also `scatter`: a window is read before its result is written. */
int run_swin_block(const Block *block, const Kind *kinds, int64_t kind_count, const float *tokens, const int64_t *gather,
                   const int64_t *scatter, float *out, int64_t threads) {
    if ((block->products == BFLOAT16 && !HAS_BFLOAT16) || (block->products == BFLOAT16X3 && !HAS_TILES)) return 1;
    Work work = {block, kinds, kind_count, kinds[kind_count - 1].end, tokens, gather, out, 0, 0, scatter};
    pthread_t others[MAX_THREADS];
    int64_t started = 0;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    while (started < threads - 1 && !pthread_create(&others[started], NULL, run_thread, &work)) started++;
    run_thread(&work);
    while (started) pthread_join(others[--started], NULL);
    return work.failed;
}
