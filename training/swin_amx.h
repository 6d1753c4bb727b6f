/* A window in bfloat16 and float32, forward and backward, for CPUs with AMX. Part of swin_block.c.
 *
 * Matrix products are bfloat16 (amx.h); layer norms, softmax, GELU and the residual path are float32.
 */
#pragma once
#include "amx.h"

enum { DIM_K = 64, QKV_K = 160 }; /* depths of products, padded with zeros to multiples of 32 */

typedef struct {
    /* For y = x W^T: pairs of W^T. For dx = dy W: pairs of W. */
    pair qkv[DIM_K / 2][QKV], qkv_back[QKV_K / 2][DIM];
    pair proj[DIM_K / 2][DIM], proj_back[DIM_K / 2][DIM];
    pair fc1[DIM_K / 2][HIDDEN], fc1_back[HIDDEN / 2][DIM];
    pair fc2[HIDDEN / 2][DIM], fc2_back[DIM_K / 2][HIDDEN];
    float bias[KINDS][HEADS][TOKENS][TOKENS]; /* with the mask of each kind of window */
} Packed;

typedef struct {
    float x[TOKENS][DIM], middle[TOKENS][DIM], out[TOKENS][DIM], product[TOKENS][DIM];
    float normal1[TOKENS][DIM], normal2[TOKENS][DIM], scale1[TOKENS], scale2[TOKENS];
    float qkv[TOKENS][QKV], scores[TOKENS][TOKENS], mixed[TOKENS][16], attended[TOKENS][DIM];
    float hidden[TOKENS][HIDDEN], slope[TOKENS][HIDDEN];
    half norm1_rows[TOKENS][DIM_K], norm2_rows[TOKENS][DIM_K], attended_rows[TOKENS][DIM_K], hidden_rows[TOKENS][HIDDEN];
    pair norm1_pairs[TOKENS / 2][DIM], norm2_pairs[TOKENS / 2][DIM], attended_pairs[TOKENS / 2][DIM];
    pair hidden_pairs[TOKENS / 2][HIDDEN];
    half query[HEADS][TOKENS][32], key[HEADS][TOKENS][32], value[HEADS][TOKENS][32];
    pair query_pairs[HEADS][TOKENS / 2][16], key_pairs[HEADS][TOKENS / 2][16], value_pairs[HEADS][TOKENS / 2][16];
    pair key_turned[16][TOKENS], value_turned[16][TOKENS];
    half weights[HEADS][TOKENS][TOKENS];
    pair weight_pairs[HEADS][TOKENS / 2][TOKENS];
    /* gradients */
    float d_out[TOKENS][DIM], d_middle[TOKENS][DIM], d_norm[TOKENS][DIM], d_attended[TOKENS][DIM];
    float d_hidden[TOKENS][HIDDEN], d_qkv[TOKENS][QKV], d_query[TOKENS][16], d_turned[16][TOKENS], back[TOKENS][16];
    half d_rows[TOKENS][DIM_K], d_hidden_rows[TOKENS][HIDDEN], d_qkv_rows[TOKENS][QKV_K];
    pair d_pairs[TOKENS / 2][DIM], d_hidden_pairs[TOKENS / 2][HIDDEN], d_qkv_pairs[TOKENS / 2][QKV];
    pair d_turned_rows[QKV][TOKENS / 2], query_turned[16][TOKENS / 2];
    half d_mixed[TOKENS][32], d_scores[TOKENS][TOKENS];
    pair d_mixed_pairs[TOKENS / 2][16], d_score_pairs[TOKENS / 2][TOKENS];
} Scratch;

INLINE float *score_at(float scores[TOKENS][TOKENS], int query, int key) { return &scores[query][key]; }

static int prepare(void) { return allow_amx(); }

static unsigned begin(void) {
    unsigned status = _mm_getcsr();
    _mm_setcsr(status | 0x8040); /* subnormal numbers count as zero: they take a hundred times as long */
    configure_tiles();
    return status;
}

static void end(unsigned status) {
    _tile_release();
    _mm_setcsr(status);
}

/* ---- Layer norm ---- */

static void normalise(const float x[TOKENS][DIM], const float *weight, const float *bias, float normal[TOKENS][DIM],
                      float *scale, half rows[TOKENS][DIM_K], pair pairs[TOKENS / 2][DIM]) {
    __m512 w[3], b[3];
    for (int i = 0; i < 3; i++) w[i] = _mm512_loadu_ps(weight + 16 * i), b[i] = _mm512_loadu_ps(bias + 16 * i);
    for (int t = 0; t < TOKENS; t += 2) {
        float result[2][DIM];
        for (int o = 0; o < 2; o++) {
            const float *row = x[t + o];
            __m512 v[3] = {_mm512_loadu_ps(row), _mm512_loadu_ps(row + 16), _mm512_loadu_ps(row + 32)};
            float mean = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(v[0], v[1]), v[2])) / DIM;
            __m512 squares = zeros();
            for (int i = 0; i < 3; i++) {
                v[i] = _mm512_sub_ps(v[i], _mm512_set1_ps(mean));
                squares = _mm512_fmadd_ps(v[i], v[i], squares);
            }
            scale[t + o] = 1.0f / __builtin_sqrtf(_mm512_reduce_add_ps(squares) / DIM + 1e-5f);
            for (int i = 0; i < 3; i++) {
                v[i] = _mm512_mul_ps(v[i], _mm512_set1_ps(scale[t + o]));
                _mm512_storeu_ps(normal[t + o] + 16 * i, v[i]);
                _mm512_storeu_ps(result[o] + 16 * i, _mm512_fmadd_ps(v[i], w[i], b[i]));
            }
        }
        split(result[0], result[1], DIM, rows[t], rows[t + 1], pairs[t / 2], NULL);
    }
}

/* to = gradient + what goes through the layer norm; the gradients of its weight and bias are added up. */
static void normalise_back(const float d[TOKENS][DIM], const float normal[TOKENS][DIM], const float *scale,
                           const float *weight, float *d_weight, float *d_bias, const float through[TOKENS][DIM],
                           float to[TOKENS][DIM]) {
    __m512 sum_weight[3], sum_bias[3];
    for (int i = 0; i < 3; i++)
        sum_weight[i] = _mm512_loadu_ps(d_weight + 16 * i), sum_bias[i] = _mm512_loadu_ps(d_bias + 16 * i);
    for (int t = 0; t < TOKENS; t++) {
        __m512 g[3], n[3], sum = zeros(), along = zeros();
        for (int i = 0; i < 3; i++) {
            g[i] = _mm512_loadu_ps(d[t] + 16 * i);
            n[i] = _mm512_loadu_ps(normal[t] + 16 * i);
            sum_weight[i] = _mm512_fmadd_ps(g[i], n[i], sum_weight[i]);
            sum_bias[i] = _mm512_add_ps(sum_bias[i], g[i]);
            g[i] = _mm512_mul_ps(g[i], _mm512_loadu_ps(weight + 16 * i));
            sum = _mm512_add_ps(sum, g[i]);
            along = _mm512_fmadd_ps(g[i], n[i], along);
        }
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / DIM);
        __m512 mean_along = _mm512_set1_ps(_mm512_reduce_add_ps(along) / DIM);
        for (int i = 0; i < 3; i++) {
            __m512 v = _mm512_fnmadd_ps(n[i], mean_along, _mm512_sub_ps(g[i], mean));
            v = _mm512_fmadd_ps(v, _mm512_set1_ps(scale[t]), _mm512_loadu_ps(through[t] + 16 * i));
            _mm512_storeu_ps(to[t] + 16 * i, v);
        }
    }
    for (int i = 0; i < 3; i++)
        _mm512_storeu_ps(d_weight + 16 * i, sum_weight[i]), _mm512_storeu_ps(d_bias + 16 * i, sum_bias[i]);
}

/* ---- Attention ---- */

static const __mmask16 HEAD_LANES = (1 << HEAD) - 1;

/* A head's 12 columns of two rows -> rows of 32 (zeros behind) and pairs of 16. */
INLINE void split_head(__m512 even, __m512 odd, half rows[2][32], pair *pairs) {
    _mm256_storeu_si256((__m256i *)rows[0], (__m256i)_mm512_cvtneps_pbh(even));
    _mm256_storeu_si256((__m256i *)rows[1], (__m256i)_mm512_cvtneps_pbh(odd));
    store_pairs(even, odd, pairs);
}

static void split_heads(Scratch *s, const float *bias) {
    for (int part = 0; part < 3; part++)
        for (int head = 0; head < HEADS; head++) {
            half(*rows)[32] = part == 0 ? s->query[head] : part == 1 ? s->key[head] : s->value[head];
            pair(*pairs)[16] = part == 0 ? s->query_pairs[head] : part == 1 ? s->key_pairs[head] : s->value_pairs[head];
            int column = part * DIM + head * HEAD;
            __m512 b = _mm512_maskz_loadu_ps(HEAD_LANES, bias + column);
            for (int t = 0; t < TOKENS; t += 2) {
                __m512 even = _mm512_maskz_loadu_ps(HEAD_LANES, s->qkv[t] + column);
                __m512 odd = _mm512_maskz_loadu_ps(HEAD_LANES, s->qkv[t + 1] + column);
                split_head(_mm512_add_ps(even, b), _mm512_add_ps(odd, b), rows + t, pairs[t / 2]);
            }
        }
}

/* Softmax of one row of scores, in place in `v`. */
INLINE void softmax_row(const float *scores, const float *bias, __m512 v[4]) {
    for (int i = 0; i < 4; i++)
        v[i] = _mm512_fmadd_ps(_mm512_loadu_ps(scores + 16 * i), _mm512_set1_ps(SCORE_SCALE),
                               _mm512_loadu_ps(bias + 16 * i));
    __m512 most = _mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3]));
    __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (int i = 0; i < 4; i++) v[i] = exponential(_mm512_sub_ps(v[i], highest));
    __m512 total = _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
    __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
    for (int i = 0; i < 4; i++) v[i] = _mm512_mul_ps(v[i], inverse);
}

INLINE void store_score_rows(const __m512 a[4], const __m512 b[4], half *even, half *odd, pair *pairs) {
    for (int i = 0; i < 4; i += 2) {
        _mm512_storeu_si512(even + 16 * i, two_halves(a[i], a[i + 1]));
        _mm512_storeu_si512(odd + 16 * i, two_halves(b[i], b[i + 1]));
    }
    for (int i = 0; i < 4; i++) store_pairs(a[i], b[i], pairs + 16 * i);
}

static void attend(Scratch *s, const float bias[HEADS][TOKENS][TOKENS]) {
    for (int head = 0; head < HEADS; head++) {
        transpose(s->key[head], 64, s->key_turned, sizeof s->key_turned[0], TOKENS, 16);
        MULTIPLY(s->query[head], s->key_turned, s->scores, 4, 4, 1, 0);
        for (int t = 0; t < TOKENS; t += 2) {
            __m512 even[4], odd[4];
            softmax_row(s->scores[t], bias[head][t], even);
            softmax_row(s->scores[t + 1], bias[head][t + 1], odd);
            store_score_rows(even, odd, s->weights[head][t], s->weights[head][t + 1], s->weight_pairs[head][t / 2]);
        }
        MULTIPLY(s->weights[head], s->value_pairs[head], s->mixed, 4, 1, 2, 0);
        for (int t = 0; t < TOKENS; t++)
            _mm512_mask_storeu_ps(s->attended[t] + head * HEAD, HEAD_LANES, _mm512_loadu_ps(s->mixed[t]));
    }
    for (int t = 0; t < TOKENS; t += 2)
        split(s->attended[t], s->attended[t + 1], DIM, s->attended_rows[t], s->attended_rows[t + 1],
              s->attended_pairs[t / 2], NULL);
}

/* Gradient of one head's scores: to the position bias as it is, scaled to rows and pairs. */
static void scores_back(Scratch *s, int head, const float *along, float d_bias[TOKENS][TOKENS]) {
    for (int t = 0; t < TOKENS; t += 2) {
        __m512 d[2][4];
        for (int o = 0; o < 2; o++)
            for (int i = 0; i < 4; i++) {
                __m256i stored = _mm256_loadu_si256((const __m256i *)(s->weights[head][t + o] + 16 * i));
                __m512 weight = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(stored), 16);
                __m512 v = _mm512_sub_ps(_mm512_loadu_ps(s->scores[t + o] + 16 * i), _mm512_set1_ps(along[t + o]));
                v = _mm512_mul_ps(v, weight);
                float *sum = d_bias[t + o] + 16 * i;
                _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), v));
                d[o][i] = _mm512_mul_ps(v, _mm512_set1_ps(SCORE_SCALE));
            }
        store_score_rows(d[0], d[1], s->d_scores[t], s->d_scores[t + 1], s->d_score_pairs[t / 2]);
    }
}

/* [16][TOKENS] -> 12 columns of d_qkv. */
static void place_turned(Scratch *s, int column) {
    transpose(s->d_turned, sizeof s->d_turned[0], s->back, sizeof s->back[0], 16, TOKENS);
    for (int t = 0; t < TOKENS; t++)
        _mm512_mask_storeu_ps(s->d_qkv[t] + column, HEAD_LANES, _mm512_loadu_ps(s->back[t]));
}

static void attend_back(Scratch *s, float d_bias[HEADS][TOKENS][TOKENS]) {
    for (int head = 0; head < HEADS; head++) {
        float along[TOKENS]; /* sum over keys of weight * its gradient */
        for (int t = 0; t < TOKENS; t += 2) {
            __m512 d[2];
            for (int o = 0; o < 2; o++) {
                d[o] = _mm512_maskz_loadu_ps(HEAD_LANES, s->d_attended[t + o] + head * HEAD);
                __m512 was = _mm512_maskz_loadu_ps(HEAD_LANES, s->attended[t + o] + head * HEAD);
                along[t + o] = _mm512_reduce_add_ps(_mm512_mul_ps(d[o], was));
            }
            split_head(d[0], d[1], s->d_mixed + t, s->d_mixed_pairs[t / 2]);
        }
        transpose(s->d_mixed_pairs, 64, s->query_turned, sizeof s->query_turned[0], TOKENS / 2, 16);
        MULTIPLY(s->query_turned, s->weight_pairs[head], s->d_turned, 1, 4, 2, 0);
        place_turned(s, 2 * DIM + head * HEAD);
        transpose(s->value[head], 64, s->value_turned, sizeof s->value_turned[0], TOKENS, 16);
        MULTIPLY(s->d_mixed, s->value_turned, s->scores, 4, 4, 1, 0);
        scores_back(s, head, along, d_bias[head]);
        MULTIPLY(s->d_scores, s->key_pairs[head], s->d_query, 4, 1, 2, 0);
        for (int t = 0; t < TOKENS; t++)
            _mm512_mask_storeu_ps(s->d_qkv[t] + head * HEAD, HEAD_LANES, _mm512_loadu_ps(s->d_query[t]));
        transpose(s->query_pairs[head], 64, s->query_turned, sizeof s->query_turned[0], TOKENS / 2, 16);
        MULTIPLY(s->query_turned, s->d_score_pairs, s->d_turned, 1, 4, 2, 0);
        place_turned(s, DIM + head * HEAD);
    }
}

/* ---- The block ---- */

static void run_window(const Packed *w, const Parameters *p, int kind, Scratch *s) {
    normalise(s->x, p->norm1_weight, p->norm1_bias, s->normal1, s->scale1, s->norm1_rows, s->norm1_pairs);
    MULTIPLY(s->norm1_rows, w->qkv, s->qkv, 4, 9, 2, 0);
    split_heads(s, p->qkv_bias);
    attend(s, w->bias[kind]);
    MULTIPLY(s->attended_rows, w->proj, s->product, 4, 3, 2, 0);
    add_rows(s->x, s->product, p->proj_bias, s->middle);

    normalise(s->middle, p->norm2_weight, p->norm2_bias, s->normal2, s->scale2, s->norm2_rows, s->norm2_pairs);
    MULTIPLY(s->norm2_rows, w->fc1, s->hidden, 4, 6, 2, 0);
    for (int t = 0; t < TOKENS; t += 2) {
        for (int o = 0; o < 2; o++)
            for (int c = 0; c < HIDDEN; c += 16) {
                __m512 slope, z = _mm512_add_ps(_mm512_loadu_ps(s->hidden[t + o] + c), _mm512_loadu_ps(p->fc1_bias + c));
                _mm512_storeu_ps(s->hidden[t + o] + c, gelu(z, &slope));
                _mm512_storeu_ps(s->slope[t + o] + c, slope);
            }
        split(s->hidden[t], s->hidden[t + 1], HIDDEN, s->hidden_rows[t], s->hidden_rows[t + 1], s->hidden_pairs[t / 2],
              NULL);
    }
}

static void finish_window(const Packed *w, const Parameters *p, Scratch *s) {
    MULTIPLY(s->hidden_rows, w->fc2, s->product, 4, 3, 3, 0);
    add_rows(s->middle, s->product, p->fc2_bias, s->out);
}

/* s->d_out -> s->d_out: from the gradient of the result to that of the input. */
static void run_window_back(const Packed *w, const Parameters *p, const Parameters *d, float (*d_bias)[TOKENS][TOKENS],
                            Scratch *s) {
    float(*qkv)[DIM] = (void *)d->qkv_weight, (*proj)[DIM] = (void *)d->proj_weight;
    float(*fc1)[DIM] = (void *)d->fc1_weight, (*fc2)[HIDDEN] = (void *)d->fc2_weight;

    for (int t = 0; t < TOKENS; t += 2)
        split(s->d_out[t], s->d_out[t + 1], DIM, s->d_rows[t], s->d_rows[t + 1], s->d_pairs[t / 2], d->fc2_bias);
    transpose(s->d_pairs, sizeof s->d_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2, DIM);
    MULTIPLY(s->d_turned_rows, s->hidden_pairs, fc2, 3, 6, 2, 1);
    MULTIPLY(s->d_rows, w->fc2_back, s->d_hidden, 4, 6, 2, 0);
    for (int t = 0; t < TOKENS; t += 2) {
        for (int o = 0; o < 2; o++)
            for (int c = 0; c < HIDDEN; c++) s->d_hidden[t + o][c] *= s->slope[t + o][c];
        split(s->d_hidden[t], s->d_hidden[t + 1], HIDDEN, s->d_hidden_rows[t], s->d_hidden_rows[t + 1],
              s->d_hidden_pairs[t / 2], d->fc1_bias);
    }
    transpose(s->d_hidden_pairs, sizeof s->d_hidden_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2,
              HIDDEN);
    MULTIPLY(s->d_turned_rows, s->norm2_pairs, fc1, 6, 3, 2, 1);
    MULTIPLY(s->d_hidden_rows, w->fc1_back, s->d_norm, 4, 3, 3, 0);
    normalise_back(s->d_norm, s->normal2, s->scale2, p->norm2_weight, d->norm2_weight, d->norm2_bias, s->d_out,
                   s->d_middle);

    for (int t = 0; t < TOKENS; t += 2)
        split(s->d_middle[t], s->d_middle[t + 1], DIM, s->d_rows[t], s->d_rows[t + 1], s->d_pairs[t / 2], d->proj_bias);
    transpose(s->d_pairs, sizeof s->d_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2, DIM);
    MULTIPLY(s->d_turned_rows, s->attended_pairs, proj, 3, 3, 2, 1);
    MULTIPLY(s->d_rows, w->proj_back, s->d_attended, 4, 3, 2, 0);
    attend_back(s, d_bias);
    for (int t = 0; t < TOKENS; t += 2)
        split(s->d_qkv[t], s->d_qkv[t + 1], QKV, s->d_qkv_rows[t], s->d_qkv_rows[t + 1], s->d_qkv_pairs[t / 2],
              d->qkv_bias);
    transpose(s->d_qkv_pairs, sizeof s->d_qkv_pairs[0], s->d_turned_rows, sizeof s->d_turned_rows[0], TOKENS / 2, QKV);
    MULTIPLY(s->d_turned_rows, s->norm1_pairs, qkv, 9, 3, 2, 1);
    MULTIPLY(s->d_qkv_rows, w->qkv_back, s->d_norm, 4, 3, 5, 0);
    normalise_back(s->d_norm, s->normal1, s->scale1, p->norm1_weight, d->norm1_weight, d->norm1_bias, s->d_middle,
                   s->d_out);
}

/* ---- Weights ---- */

static half to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (half)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* W [out][in] -> pairs of W^T [in / 2][out], and pairs of W [out / 2][in]. */
static void pack(const float *weight, int out, int in, pair *forward, pair *back) {
    for (int k = 0; k < in / 2; k++)
        for (int n = 0; n < out; n++)
            forward[k * out + n] = to_half(weight[n * in + 2 * k]) | (pair)to_half(weight[n * in + 2 * k + 1]) << 16;
    for (int k = 0; k < out / 2; k++)
        for (int n = 0; n < in; n++)
            back[k * in + n] = to_half(weight[2 * k * in + n]) | (pair)to_half(weight[(2 * k + 1) * in + n]) << 16;
}

static void pack_weights(const Parameters *p, Packed *w) {
    pack(p->qkv_weight, QKV, DIM, w->qkv[0], w->qkv_back[0]);
    pack(p->proj_weight, DIM, DIM, w->proj[0], w->proj_back[0]);
    pack(p->fc1_weight, HIDDEN, DIM, w->fc1[0], w->fc1_back[0]);
    pack(p->fc2_weight, DIM, HIDDEN, w->fc2[0], w->fc2_back[0]);
}
