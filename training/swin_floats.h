/* A window in float32, forward and backward, for CPUs with AVX2. Part of swin_block.c.
 *
 * Scores, and what attention mixes from them, are stored transposed, with the queries along the rows: softmax then needs no
 * sums within a vector, and the 12 columns of a head leave no vector half empty.
 */
#pragma once
#include <immintrin.h>

#include "floats.h"

typedef struct {
    float qkv[DIM][QKV], qkv_bias[QKV]; /* transposed; queries scaled */
    float proj[DIM][DIM], fc1[DIM][HIDDEN], fc2[HIDDEN][DIM];
    float bias[KINDS][HEADS][TOKENS][TOKENS]; /* with the mask of each kind of window */
} Packed;

/* Heads are read and written 16 columns at a time, of which 4 belong to what follows: hence SPARE rows. */
enum { SPARE = 1, WIDE = 16 };

typedef struct {
    float x[TOKENS][DIM], middle[TOKENS][DIM], out[TOKENS][DIM], product[TOKENS][DIM];
    float normal1[TOKENS][DIM], normal2[TOKENS][DIM], scale1[TOKENS], scale2[TOKENS];
    float norm1[TOKENS][DIM], norm2[TOKENS][DIM];
    float qkv[TOKENS + SPARE][QKV], query[DIM][TOKENS]; /* `query` is transposed */
    float weights[HEADS][TOKENS][TOKENS], inverse[HEADS][TOKENS]; /* e^score, and 1 / its sum over the keys */
    float mixed[DIM][TOKENS], attended[TOKENS][DIM];
    float hidden[TOKENS][HIDDEN], slope[TOKENS][HIDDEN];
    /* gradients */
    float d_out[TOKENS][DIM], d_middle[TOKENS][DIM], d_norm[TOKENS][DIM], d_hidden[TOKENS][HIDDEN];
    float d_attended[TOKENS + SPARE][DIM], d_mixed[DIM][TOKENS], d_scores[TOKENS][TOKENS];
    float d_query[DIM][TOKENS], d_qkv[TOKENS + SPARE][QKV];
} Scratch;

INLINE float *score_at(float scores[TOKENS][TOKENS], int query, int key) { return &scores[key][query]; }

static int prepare(void) { return 0; }

static unsigned begin(void) {
    unsigned status = _mm_getcsr();
    _mm_setcsr(status | 0x8040); /* subnormal numbers count as zero: they take a hundred times as long */
    return status;
}

static void end(unsigned status) { _mm_setcsr(status); }

/* ---- Layer norm ---- */

/* The sum of a vector in each of its places. */
INLINE vec spread_sum(vec v) {
    v += QUARTERS(v);
    v += PAIRS(v);
    return v + NEIGHBOURS(v);
}

enum { VECTORS = DIM / VECTOR_WIDTH };

static void normalise_rows(const float x[TOKENS][DIM], const float *weight, const float *bias, float normal[TOKENS][DIM],
                           float *scale, float out[TOKENS][DIM]) {
    for (int t = 0; t < TOKENS; t++) {
        vec v[VECTORS], total = all(0.0f), squares = all(0.0f);
        for (int i = 0; i < VECTORS; i++) total += v[i] = load(x[t] + VECTOR_WIDTH * i);
        vec mean = spread_sum(total) * (1.0f / DIM);
        for (int i = 0; i < VECTORS; i++) v[i] -= mean, squares += v[i] * v[i];
        scale[t] = 1.0f / __builtin_sqrtf(spread_sum(squares)[0] * (1.0f / DIM) + 1e-5f);
        for (int i = 0; i < VECTORS; i++) {
            int at = VECTOR_WIDTH * i;
            v[i] *= scale[t];
            store(normal[t] + at, v[i]);
            store(out[t] + at, v[i] * load(weight + at) + load(bias + at));
        }
    }
}

/* to = gradient + what goes through the layer norm; the gradients of its weight and bias are added up. */
static void normalise_back(const float d[TOKENS][DIM], const float normal[TOKENS][DIM], const float *scale,
                           const float *weight, float *d_weight, float *d_bias, const float through[TOKENS][DIM],
                           float to[TOKENS][DIM]) {
    float sum_weight[DIM] = {0}, sum_bias[DIM] = {0};
    for (int t = 0; t < TOKENS; t++) {
        vec g[VECTORS], n[VECTORS], total = all(0.0f), along = all(0.0f);
        for (int i = 0; i < VECTORS; i++) {
            int at = VECTOR_WIDTH * i;
            g[i] = load(d[t] + at), n[i] = load(normal[t] + at);
            store(sum_weight + at, load(sum_weight + at) + g[i] * n[i]);
            store(sum_bias + at, load(sum_bias + at) + g[i]);
            g[i] *= load(weight + at);
            total += g[i], along += g[i] * n[i];
        }
        total = spread_sum(total) * (1.0f / DIM), along = spread_sum(along) * (1.0f / DIM);
        for (int i = 0; i < VECTORS; i++)
            store(to[t] + VECTOR_WIDTH * i,
                  (g[i] - total - n[i] * along) * scale[t] + load(through[t] + VECTOR_WIDTH * i));
    }
    for (int c = 0; c < DIM; c++) d_weight[c] += sum_weight[c], d_bias[c] += sum_bias[c];
}

/* ---- Attention ---- */

/* Scores, transposed, to e^(score - highest of the query), in place; `inverse` gets 1 / sums. For `vectors` of queries. */
INLINE void exponentiate_columns(float scores[TOKENS][TOKENS], float *inverse, int first, int vectors) {
    vec highest[4], total[4];
    for (int v = 0; v < vectors; v++) highest[v] = load(scores[0] + first + v * VECTOR_WIDTH), total[v] = all(0.0f);
    for (int j = 1; j < TOKENS; j++)
        for (int v = 0; v < vectors; v++) highest[v] = larger(load(scores[j] + first + v * VECTOR_WIDTH), highest[v]);
    for (int j = 0; j < TOKENS; j++)
        for (int v = 0; v < vectors; v++) {
            float *at = scores[j] + first + v * VECTOR_WIDTH;
            vec e = exponential(load(at) - highest[v]);
            store(at, e);
            total[v] += e;
        }
    for (int v = 0; v < vectors; v++) store(inverse + first + v * VECTOR_WIDTH, 1.0f / total[v]);
}

static void exponentiate(float scores[TOKENS][TOKENS], float inverse[TOKENS]) {
    int i = 0;
    for (; i + 4 * VECTOR_WIDTH <= TOKENS; i += 4 * VECTOR_WIDTH) exponentiate_columns(scores, inverse, i, 4);
    if (i < TOKENS) exponentiate_columns(scores, inverse, i, TOKENS % (4 * VECTOR_WIDTH) / VECTOR_WIDTH);
}

static void attend(Scratch *s, const float bias[HEADS][TOKENS][TOKENS]) {
    transpose(s->qkv[0], QKV, s->query[0], TOKENS, TOKENS, DIM);
    for (int head = 0; head < HEADS; head++) {
        int c = head * HEAD;
        const float *key = s->qkv[0] + DIM + c, *value = s->qkv[0] + 2 * DIM + c;
        multiply(key, QKV, 1, s->query[c], TOKENS, s->weights[head][0], TOKENS, TOKENS, TOKENS, HEAD, bias[head][0],
                 TOKENS);
        exponentiate(s->weights[head], s->inverse[head]);
        multiply(value, 1, QKV, s->weights[head][0], TOKENS, s->mixed[c], TOKENS, HEAD, TOKENS, TOKENS, NULL, 0);
        for (int k = c; k < c + HEAD; k++)
            for (int i = 0; i < TOKENS; i++) s->mixed[k][i] *= s->inverse[head][i];
    }
}

/* s->d_scores: from the gradient of the weights to that of the scores, which is also added to `d_bias`. */
static void scores_back(Scratch *s, int head, const float along[TOKENS], float d_bias[TOKENS][TOKENS]) {
    for (int j = 0; j < TOKENS; j++)
        for (int i = 0; i < TOKENS; i++) {
            s->d_scores[j][i] = (s->d_scores[j][i] - along[i]) * s->weights[head][j][i];
            d_bias[j][i] += s->d_scores[j][i];
        }
}

static void attend_back(Scratch *s, float d_bias[HEADS][TOKENS][TOKENS]) {
    transpose(s->d_attended[0], DIM, s->d_mixed[0], TOKENS, TOKENS, DIM);
    for (int head = 0; head < HEADS; head++) {
        int c = head * HEAD;
        float along[TOKENS] = {0}; /* of a query: sum over keys of weight * its gradient */
        for (int k = c; k < c + HEAD; k++)
            for (int i = 0; i < TOKENS; i++) {
                s->d_mixed[k][i] *= s->inverse[head][i]; /* here, so that the weights need no division */
                along[i] += s->d_mixed[k][i] * s->mixed[k][i];
            }
        const float *key = s->qkv[0] + DIM + c, *value = s->qkv[0] + 2 * DIM + c;
        multiply(value, QKV, 1, s->d_mixed[c], TOKENS, s->d_scores[0], TOKENS, TOKENS, TOKENS, HEAD, NULL, 0);
        scores_back(s, head, along, d_bias[head]);
        multiply(key, 1, QKV, s->d_scores[0], TOKENS, s->d_query[c], TOKENS, HEAD, TOKENS, TOKENS, NULL, 0);
        /* Writes 4 columns too many, which what is written next corrects. */
        multiply(s->d_scores[0], TOKENS, 1, s->qkv[0] + c, QKV, s->d_qkv[0] + DIM + c, QKV, TOKENS, WIDE, TOKENS, NULL, 0);
    }
    transpose(s->d_mixed[0], TOKENS, s->d_attended[0], DIM, DIM, TOKENS);
    for (int head = 0; head < HEADS; head++) {
        int c = head * HEAD;
        multiply(s->weights[head][0], TOKENS, 1, s->d_attended[0] + c, DIM, s->d_qkv[0] + 2 * DIM + c, QKV, TOKENS, WIDE,
                 TOKENS, NULL, 0);
    }
    for (int c = 0; c < DIM; c++)
        for (int i = 0; i < TOKENS; i++) s->d_query[c][i] *= SCORE_SCALE;
    transpose(s->d_query[0], TOKENS, s->d_qkv[0], QKV, DIM, TOKENS);
}

/* ---- The block ---- */

static void run_window(const Packed *w, const Parameters *p, int kind, Scratch *s) {
    normalise_rows(s->x, p->norm1_weight, p->norm1_bias, s->normal1, s->scale1, s->norm1);
    MULTIPLY(s->norm1, w->qkv, s->qkv, TOKENS, QKV, DIM, w->qkv_bias, 0);
    attend(s, w->bias[kind]);
    MULTIPLY_TURNED(s->mixed, w->proj, s->product, TOKENS, DIM, DIM, NULL, 0);
    add_rows(s->x, s->product, p->proj_bias, s->middle);

    normalise_rows(s->middle, p->norm2_weight, p->norm2_bias, s->normal2, s->scale2, s->norm2);
    MULTIPLY(s->norm2, w->fc1, s->hidden, TOKENS, HIDDEN, DIM, p->fc1_bias, 0);
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < HIDDEN; c += VECTOR_WIDTH) {
            vec slope;
            store(s->hidden[t] + c, gelu(load(s->hidden[t] + c), &slope));
            store(s->slope[t] + c, slope);
        }
}

static void finish_window(const Packed *w, const Parameters *p, Scratch *s) {
    MULTIPLY(s->hidden, w->fc2, s->product, TOKENS, DIM, HIDDEN, NULL, 0);
    add_rows(s->middle, s->product, p->fc2_bias, s->out);
}

/* Add d^T x `right` to the gradient of a weight, and the sum of d's rows to that of its bias. */
INLINE void add_gradients(const float *d, int out, const float *right, int in, float *d_weight, float *d_bias) {
    multiply(d, 1, out, right, in, d_weight, in, out, in, TOKENS, d_weight, in);
    float sums[QKV] = {0}; /* of its own, so that GCC may keep it in registers: 5 to 10 % of the backward pass */
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < out; c++) sums[c] += d[t * out + c];
    for (int c = 0; c < out; c++) d_bias[c] += sums[c];
}

/* s->d_out -> s->d_out: from the gradient of the result to that of the input. */
static void run_window_back(const Packed *w, const Parameters *p, const Parameters *d, float (*d_bias)[TOKENS][TOKENS],
                            Scratch *s) {
    (void)w;
    const float(*qkv)[DIM] = (void *)p->qkv_weight, (*proj)[DIM] = (void *)p->proj_weight;
    const float(*fc1)[DIM] = (void *)p->fc1_weight, (*fc2)[HIDDEN] = (void *)p->fc2_weight;

    add_gradients(FLAT(s->d_out), DIM, FLAT(s->hidden), HIDDEN, d->fc2_weight, d->fc2_bias);
    MULTIPLY(s->d_out, fc2, s->d_hidden, TOKENS, HIDDEN, DIM, NULL, 0);
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < HIDDEN; c++) s->d_hidden[t][c] *= s->slope[t][c];
    add_gradients(FLAT(s->d_hidden), HIDDEN, FLAT(s->norm2), DIM, d->fc1_weight, d->fc1_bias);
    MULTIPLY(s->d_hidden, fc1, s->d_norm, TOKENS, DIM, HIDDEN, NULL, 0);
    normalise_back(s->d_norm, s->normal2, s->scale2, p->norm2_weight, d->norm2_weight, d->norm2_bias, s->d_out,
                   s->d_middle);

    transpose(s->mixed[0], TOKENS, s->attended[0], DIM, DIM, TOKENS);
    add_gradients(FLAT(s->d_middle), DIM, FLAT(s->attended), DIM, d->proj_weight, d->proj_bias);
    MULTIPLY(s->d_middle, proj, s->d_attended, TOKENS, DIM, DIM, NULL, 0);
    attend_back(s, d_bias);
    add_gradients(FLAT(s->d_qkv), QKV, FLAT(s->norm1), DIM, d->qkv_weight, d->qkv_bias);
    MULTIPLY(s->d_qkv, qkv, s->d_norm, TOKENS, DIM, QKV, NULL, 0);
    normalise_back(s->d_norm, s->normal1, s->scale1, p->norm1_weight, d->norm1_weight, d->norm1_bias, s->d_middle,
                   s->d_out);
}

/* ---- Weights ---- */

static void pack_weights(const Parameters *p, Packed *w) {
    transpose(p->qkv_weight, DIM, w->qkv[0], QKV, QKV, DIM);
    memcpy(w->qkv_bias, p->qkv_bias, sizeof w->qkv_bias);
    for (int c = 0; c < DIM; c++) {
        for (int i = 0; i < DIM; i++) w->qkv[i][c] *= SCORE_SCALE;
        w->qkv_bias[c] *= SCORE_SCALE;
    }
    transpose(p->proj_weight, DIM, w->proj[0], DIM, DIM, DIM);
    transpose(p->fc1_weight, DIM, w->fc1[0], HIDDEN, HIDDEN, DIM);
    transpose(p->fc2_weight, HIDDEN, w->fc2[0], DIM, DIM, HIDDEN);
}
