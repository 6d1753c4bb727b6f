/* bfloat16, the upper half of a float32: types, conversions and products of pairs. AVX512-BF16 has an instruction for the products
 * (VDPBF16PS). On other processors the same steps take several, so that they can be tested there; they are not used.
 */
#ifndef BFLOAT16_H
#define BFLOAT16_H
#include "vectors.h"

typedef uint16_t half; /* a bfloat16: the upper half of a float32 */
typedef int32_t pair;  /* two of them: of neighbouring columns of the left matrix, of neighbouring rows of the right one */
typedef half halves __attribute__((vector_size(2 * VECTOR_WIDTH)));
typedef half loose_halves __attribute__((vector_size(2 * VECTOR_WIDTH), aligned(2), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * VECTOR_WIDTH)));
typedef int32_t loose_pairs __attribute__((vector_size(4 * VECTOR_WIDTH), aligned(2), may_alias));

#if defined(__AVX512BF16__) && VECTOR_WIDTH == 16
#include <immintrin.h>
static inline vec dot(vec sum, ivec a, ivec b) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
}
static inline halves narrow(vec v) { return (halves)_mm512_cvtneps_pbh((__m512)v); }
static inline words to_words(halves v) { return (words)_mm512_cvtepu16_epi32((__m256i)v); } /* GCC 12 takes three instructions */
#else
static inline vec dot(vec sum, ivec a, ivec b) {
    vec even = (vec)(a << 16) * (vec)(b << 16);
    return sum + even + (vec)(a & (int32_t)0xffff0000) * (vec)(b & (int32_t)0xffff0000);
}
static inline halves narrow(vec v) { /* to the nearest, to even from the middle */
    words bits = (words)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    words is_nan = (words)(v != v), quiet = bits >> 16 | 64;
    return __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), halves);
}
static inline words to_words(halves v) { return __builtin_convertvector(v, words); }
#endif

static inline pair load_pair(const half *p) {
    pair found;
    memcpy(&found, p, sizeof found);
    return found;
}
static inline void store_halves(half *p, halves v) { *(loose_halves *)p = v; }
static inline words extend(const half *p) { return to_words(*(const loose_halves *)p); }
#endif
