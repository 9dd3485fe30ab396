/* The kernels of small networks, and the interpreter that runs a program of them in one call.

   A program is a table of `Op`s over memory that its owner keeps alive (rlx/engine/native_ops.py makes it; sizes,
   strides and addresses are data, so this file is compiled once a machine, not once a network).

   Rounding is part of the contract: results depend on this source and on LANES (and whether the CPU has fused
   multiply-add), not on the compiler. So: no -ffast-math, -ffp-contract=off, every fused multiply-add is written as
   MAC or FMA, and sums have a fixed order:
     products        each element is one chain of fused multiply-adds from the bias (or 0) on, k = 0, 1, 2, ...;
                     of few rows or columns LANES partial sums of whole vectors, pairwise, and a chain for the rest
     sums of rows    (of more than 16) 4 LANES partial sums (element i goes to partial sum i mod 4 LANES), then these, pairwise
     other sums      one chain
   exp, log, tanh and their kin are within 4 units in the last place (tests/engine/test_kernels.py); NaN and infinities
   are torch's. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
typedef int64_t i64;
typedef uint8_t u8;

/* -- the CPU's vectors ------------------------------------------------------------------------------------- */

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define TILE_ROWS 6 /* of a product held in registers, 6 x 4 vectors of 32 registers */
#define TILE_VECS 4
typedef __m512 vec;
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ALL(x) _mm512_set1_ps(x)
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define TOTAL(x) _mm512_reduce_add_ps(x) /* the same halves as `pairwise` */
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
#define TILE_ROWS 6
#define TILE_VECS 2
typedef __m256 vec;
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ALL(x) _mm256_set1_ps(x)
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#elif defined(__aarch64__)
#include <arm_neon.h>
#define LANES 4
#define TILE_ROWS 6
#define TILE_VECS 4
typedef float32x4_t vec;
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define ALL(x) vdupq_n_f32(x)
#define LOAD(p) vld1q_f32(p)
#define STORE(p, x) vst1q_f32(p, x)
#else
#define LANES 4
#define TILE_ROWS 4
#define TILE_VECS 2
typedef float vec __attribute__((vector_size(16)));
#define FMA(a, b, c) ((a) * (b) + (c))
#define ALL(x) ((vec){x, x, x, x})
static inline vec LOAD(const float *p) { vec v; memcpy(&v, p, 16); return v; }
static inline void STORE(float *p, vec v) { memcpy(p, &v, 16); }
#endif

#if defined(__FMA__) || defined(__aarch64__)
#define FUSED 1
#define MAC(a, b, c) __builtin_fmaf(a, b, c)
#else
#define FUSED 0
#define MAC(a, b, c) ((a) * (b) + (c))
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define TILE_COLS (TILE_VECS * LANES)
#define FLOATS(which, n) ((float *)__builtin_assume_aligned(scratch(which, (n) * sizeof(float)), 64))

/* Memory of this thread, one of two pieces, that the next call of scratch for that piece may use again. */
static void *scratch(int which, i64 bytes) {
    static _Thread_local void *memory[2];
    static _Thread_local i64 size[2];
    if (bytes > size[which]) {
        free(memory[which]);
        size[which] = (bytes + 4095) / 4096 * 4096;
        if (posix_memalign(&memory[which], 64, size[which])) abort();
    }
    return memory[which];
}

/* -- functions of one number ------------------------------------------------------------------------------- */

INLINE int32_t bits_of(float x) { int32_t i; memcpy(&i, &x, 4); return i; }
INLINE float float_of(int32_t i) { float x; memcpy(&x, &i, 4); return x; }
INLINE float power_of_two(int32_t k) { return float_of((k + 127) << 23); }

#define ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number, which its last bits hold */

/* x = k ln 2 + r with |r| <= ln 2 / 2; gives exp(r) - 1 = r + r^2 q(r), q by Cephes' expf (Moshier 1989). */
INLINE float reduced_expm1(float x, int32_t *k) {
    float shifted = MAC(x, 1.44269504088896341f, ROUND), whole = shifted - ROUND;
    *k = bits_of(shifted) - bits_of(ROUND);
    float r = MAC(whole, -2.12194440e-4f * -1.0f, MAC(whole, -0.693359375f, x));
    float q = 1.9875691500e-4f;
    q = MAC(q, r, 1.3981999507e-3f);
    q = MAC(q, r, 8.3334519073e-3f);
    q = MAC(q, r, 4.1665795894e-2f);
    q = MAC(q, r, 1.6666665459e-1f);
    q = MAC(q, r, 5.0000001201e-1f);
    return MAC(q, r * r, r);
}

INLINE float exp_(float x) {
    int32_t k;
    x = x < -104.0f ? -104.0f : x; /* a NaN stays */
    x = x > 88.8f ? 88.8f : x;
    float e = reduced_expm1(x, &k) + 1.0f;
    return e * power_of_two(k >> 1) * power_of_two(k - (k >> 1));
}

INLINE float expm1_(float x) {
    int32_t k;
    x = x < -30.0f ? -30.0f : x;
    x = x > 88.8f ? 88.8f : x;
    float e = reduced_expm1(x, &k), half = power_of_two(k - 1);
    return 2.0f * MAC(half, e, half - 0.5f);
}

INLINE float tanh_(float x) { /* (exp(2|x|) - 1) / (exp(2|x|) + 1) = h / (h + 1), h = (exp(2|x|) - 1) / 2 */
    int32_t k;
    float size = fabsf(x);
    size = size > 10.0f ? 10.0f : size;
    float e = reduced_expm1(size + size, &k), half = power_of_two(k - 1);
    float h = MAC(half, e, half - 0.5f);
    return copysignf(h / (h + 1.0f), x);
}

INLINE float log_(float x) { /* Cephes' logf: m 2^e with m in [sqrt(1/2), sqrt(2)) */
    float tiny = x < 1.17549435e-38f ? 8388608.0f : 1.0f, y = x * tiny;
    int32_t i = bits_of(y) - 0x3f3504f3, e = i >> 23;
    float m = float_of((i & 0x007fffff) + 0x3f3504f3) - 1.0f;
    float whole = (float)(e - (tiny != 1.0f ? 23 : 0)), q = 7.0376836292e-2f, square = m * m;
    q = MAC(q, m, -1.1514610310e-1f);
    q = MAC(q, m, 1.1676998740e-1f);
    q = MAC(q, m, -1.2420140846e-1f);
    q = MAC(q, m, 1.4249322787e-1f);
    q = MAC(q, m, -1.6668057665e-1f);
    q = MAC(q, m, 2.0000714765e-1f);
    q = MAC(q, m, -2.4999993993e-1f);
    q = MAC(q, m, 3.3333331174e-1f);
    float r = MAC(q * m, square, MAC(whole, -2.12194440e-4f, -0.5f * square)) + m;
    r = MAC(whole, 0.693359375f, r);
    r = x > 3.4028234e38f || x != x ? x : r;
    r = x < 0.0f ? float_of(0x7fc00000) : r;
    return x == 0.0f ? -float_of(0x7f800000) : r;
}

INLINE float log1p_(float u) { /* for u >= 0: log(1 + u), and what 1 + u lost */
    float w = 1.0f + u;
    return log_(w) - ((w - 1.0f) - u) / w;
}

INLINE float sigmoid_(float x) { return 1.0f / (1.0f + exp_(-x)); }
INLINE float softplus_(float x) { return x > 20.0f ? x : log1p_(exp_(x)); }
INLINE float minimum_(float x, float y) { return x != x ? x : y != y ? y : x < y ? x : y; }
INLINE float maximum_(float x, float y) { return x != x ? x : y != y ? y : x > y ? x : y; }

/* -- element by element ------------------------------------------------------------------------------------ */

/* Each: its name, the types of the result, of x, of y and z, and the result. */
#define ELEMENTS(X)                                                                                                    \
    X(abs_f, float, float, float, fabsf(x))                                                                            \
    X(exp_f, float, float, float, exp_(x))                                                                             \
    X(expm1_f, float, float, float, expm1_(x))                                                                         \
    X(log_f, float, float, float, log_(x))                                                                             \
    X(neg_f, float, float, float, -x)                                                                                  \
    X(relu_f, float, float, float, x < 0.0f ? 0.0f : x)                                                                \
    X(sigmoid_f, float, float, float, sigmoid_(x))                                                                     \
    X(silu_f, float, float, float, x * sigmoid_(x))                                                                    \
    X(softplus_f, float, float, float, softplus_(x))                                                                   \
    X(sqrt_f, float, float, float, __builtin_sqrtf(x))                                                                 \
    X(square_f, float, float, float, x * x)                                                                            \
    X(tanh_f, float, float, float, tanh_(x))                                                                           \
    X(add_f, float, float, float, x + y)                                                                               \
    X(sub_f, float, float, float, x - y)                                                                               \
    X(mul_f, float, float, float, x * y)                                                                               \
    X(div_f, float, float, float, x / y)                                                                               \
    X(addcmul_f, float, float, float, x + y * z)                                                                       \
    X(minimum_f, float, float, float, minimum_(x, y))                                                                  \
    X(maximum_f, float, float, float, maximum_(x, y))                                                                  \
    X(minimum_i, i64, i64, i64, x < y ? x : y)                                                                         \
    X(maximum_i, i64, i64, i64, x > y ? x : y)                                                                         \
    X(eq_f, u8, float, float, x == y)                                                                                  \
    X(ne_f, u8, float, float, x != y)                                                                                  \
    X(lt_f, u8, float, float, x < y)                                                                                   \
    X(le_f, u8, float, float, x <= y)                                                                                  \
    X(gt_f, u8, float, float, x > y)                                                                                   \
    X(ge_f, u8, float, float, x >= y)                                                                                  \
    X(not_b, u8, u8, u8, !x)                                                                                           \
    X(and_b, u8, u8, u8, x & y)                                                                                        \
    X(or_b, u8, u8, u8, x | y)                                                                                         \
    X(where_f, float, u8, float, x ? y : z)                                                                            \
    X(copy_f, float, float, float, x)                                                                                  \
    X(copy_b, u8, u8, u8, x)                                                                                           \
    X(copy_i, i64, i64, i64, x)                                                                                        \
    X(float_of_b, float, u8, u8, (float)x)                                                                             \
    X(float_of_i, float, i64, i64, (float)x)                                                                           \
    X(tanh_backward_f, float, float, float, x * (1.0f - y * y))                                                        \
    X(relu_backward_f, float, float, float, y <= 0.0f ? 0.0f : x)                                                      \
    X(sigmoid_backward_f, float, float, float, x * ((1.0f - y) * y))                                                   \
    X(softplus_backward_f, float, float, float, y > 20.0f ? x : x * sigmoid_(y))

/* n elements that lie side by side; the result may lie where an operand does. */
typedef void Elements(i64 n, void *out, const void *x, const void *y, const void *z);
#define EACH _Pragma("GCC ivdep") for (i64 i = 0; i < n; i++)
#define DEFINE(name, TO, TX, TY, value)                                                                                \
    static void name(i64 n, void *out, const void *x_, const void *y_, const void *z_) {                               \
        TO *o = out;                                                                                                   \
        const TX *a = x_;                                                                                              \
        const TY *b = y_, *c = z_;                                                                                     \
        (void)b, (void)c;                                                                                              \
        EACH { TX x = a[i]; TY y = b[i], z = c[i]; (void)y, (void)z, o[i] = value; }                                   \
    }
ELEMENTS(DEFINE)

#define ELEMENT(name, TO, TX, TY, value) {name, {sizeof(TO), sizeof(TX), sizeof(TY), sizeof(TY)}},
static const struct { Elements *run; int size[4]; } elements[] = {ELEMENTS(ELEMENT)};

/* -- sums and products ------------------------------------------------------------------------------------- */

INLINE float pairwise(float *partial, int n) {
    for (; n > 1; n /= 2)
        for (int i = 0; i < n / 2; i++) partial[i] = partial[i] + partial[n / 2 + i];
    return partial[0];
}

/* sum of f(x[i]) = x, or (x - mean)^2, in 4 LANES partial sums */
#define LANE_SUM(name, value)                                                                                          \
    static float name(const float *x_, i64 n, float mean) {                                                            \
        float partial[4 * LANES] = {0}, rest[4 * LANES] = {0};                                                         \
        i64 whole = n - n % (4 * LANES);                                                                               \
        (void)mean;                                                                                                    \
        for (i64 i = 0; i < whole; i += 4 * LANES)                                                                     \
            for (int j = 0; j < 4 * LANES; j++) { float x = x_[i + j]; partial[j] += value; }                          \
        for (i64 i = whole; i < n; i++) { float x = x_[i]; rest[i - whole] = value; }                                  \
        for (int j = 0; j < 4 * LANES; j++) partial[j] += rest[j];                                                     \
        return pairwise(partial, 4 * LANES);                                                                           \
    }
LANE_SUM(sum_of, x)
LANE_SUM(squares_of, (x - mean) * (x - mean))

/* C = first + A B in tiles of TILE_ROWS x TILE_COLS that stay in registers; `first` is one row. B's columns [j, j + w)
   lie side by side in `b`, padded to whole vectors; strides of A and C are free. */
#define TILE(ROWS, VECS)                                                                                               \
    static void tile_##ROWS##_##VECS(i64 K, const float *a, i64 row, i64 col, const float *b, i64 ldb, float *c,       \
                                     i64 crow, i64 ccol, i64 w, const float *first) {                                  \
        vec sum[ROWS][VECS];                                                                                           \
        UNROLL for (int r = 0; r < ROWS; r++)                                                                          \
            UNROLL for (int v = 0; v < VECS; v++) sum[r][v] = LOAD(first + v * LANES);                                 \
        for (i64 k = 0; k < K; k++) {                                                                                  \
            vec right[VECS];                                                                                           \
            UNROLL for (int v = 0; v < VECS; v++) right[v] = LOAD(b + k * ldb + v * LANES);                            \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                                    \
                vec left = ALL(a[r * row + k * col]);                                                                  \
                UNROLL for (int v = 0; v < VECS; v++) sum[r][v] = FMA(left, right[v], sum[r][v]);                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                                        \
            if (ccol == 1 && w == VECS * LANES) {                                                                      \
                UNROLL for (int v = 0; v < VECS; v++) STORE(c + r * crow + v * LANES, sum[r][v]);                      \
            } else {                                                                                                   \
                float out[VECS * LANES];                                                                               \
                UNROLL for (int v = 0; v < VECS; v++) STORE(out + v * LANES, sum[r][v]);                               \
                for (i64 j = 0; j < w; j++) c[r * crow + j * ccol] = out[j];                                           \
            }                                                                                                          \
        }                                                                                                              \
    }
#define TILES(VECS) TILE(1, VECS) TILE(2, VECS) TILE(3, VECS) TILE(4, VECS) TILE(5, VECS) TILE(6, VECS)
#define ROW_OF_TILES(VECS) {tile_1_##VECS, tile_2_##VECS, tile_3_##VECS, tile_4_##VECS, tile_5_##VECS, tile_6_##VECS}
typedef void Tile(i64, const float *, i64, i64, const float *, i64, float *, i64, i64, i64, const float *);
TILES(1) TILES(2)
#if TILE_VECS == 4
TILES(3) TILES(4)
static Tile *const tiles[4][6] = {ROW_OF_TILES(1), ROW_OF_TILES(2), ROW_OF_TILES(3), ROW_OF_TILES(4)};
#else
static Tile *const tiles[2][6] = {ROW_OF_TILES(1), ROW_OF_TILES(2)};
#endif

/* Columns [0, w) of a K-row matrix, side by side in rows of `ld`, padded with zeros. */
static void pack(const float *b, i64 row, i64 col, i64 K, i64 w, float *out, i64 ld) {
    typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
    i64 j = 0;
    for (i64 some = 0; row == 1 && some < K; some += 32) /* few rows of `out` at a time: they stay in the cache */
        for (j = 0; j + 4 <= w; j += 4) { /* transpose 4 x 4 blocks */
            const float *from = b + j * col;
            i64 k = some, end = K - some < 32 ? K : some + 32;
            for (; k + 4 <= end; k += 4) {
                four p = *(four *)(from + k), q = *(four *)(from + col + k);
                four r = *(four *)(from + 2 * col + k), s = *(four *)(from + 3 * col + k);
                four pr = __builtin_shufflevector(p, r, 0, 4, 1, 5), qs = __builtin_shufflevector(q, s, 0, 4, 1, 5);
                four pr2 = __builtin_shufflevector(p, r, 2, 6, 3, 7), qs2 = __builtin_shufflevector(q, s, 2, 6, 3, 7);
                *(four *)(out + k * ld + j) = __builtin_shufflevector(pr, qs, 0, 4, 1, 5);
                *(four *)(out + (k + 1) * ld + j) = __builtin_shufflevector(pr, qs, 2, 6, 3, 7);
                *(four *)(out + (k + 2) * ld + j) = __builtin_shufflevector(pr2, qs2, 0, 4, 1, 5);
                *(four *)(out + (k + 3) * ld + j) = __builtin_shufflevector(pr2, qs2, 2, 6, 3, 7);
            }
            for (; k < end; k++)
                for (i64 i = 0; i < 4; i++) out[k * ld + j + i] = from[i * col + k];
        }
    for (i64 k = 0; k < K; k++) {
        if (col == 1) memcpy(out + k * ld, b + k * row, w * sizeof(float));
        else for (i64 i = j; i < w; i++) out[k * ld + i] = b[k * row + i * col];
        for (i64 i = w; i < ld; i++) out[k * ld + i] = 0.0f;
    }
}

typedef struct { const float *p; i64 row, col; } Matrix;

#ifndef TOTAL
INLINE float TOTAL(vec x) {
    float partial[LANES];
    STORE(partial, x);
    return pairwise(partial, LANES);
}
#endif

#define FEW_ROWS 2
#define FEW_COLS 4

/* Four products of vectors, which do not wait for one another: out[i step] = first[i] + p_i q_i, for `some` of them. */
INLINE void four(const float *p, i64 next_p, const float *q, i64 next_q, const float *first, i64 next_first, float *out,
                 i64 step, i64 some, i64 K) {
    i64 whole = K - K % LANES;
    vec sum[4] = {ALL(0.0f), ALL(0.0f), ALL(0.0f), ALL(0.0f)};
    if (some == 4)
        for (i64 k = 0; k < whole; k += LANES)
            UNROLL for (int i = 0; i < 4; i++) sum[i] = FMA(LOAD(p + i * next_p + k), LOAD(q + i * next_q + k), sum[i]);
    else
        for (i64 k = 0; k < whole; k += LANES)
            for (int i = 0; i < some; i++) sum[i] = FMA(LOAD(p + i * next_p + k), LOAD(q + i * next_q + k), sum[i]);
    for (i64 i = 0; i < some; i++) {
        float rest = first ? first[i * next_first] : 0.0f;
        for (i64 k = whole; k < K; k++) rest = MAC(p[i * next_p + k], q[i * next_q + k], rest);
        out[i * step] = TOTAL(sum[i]) + rest;
    }
}

/* C = first + A B, one element after the other, where rows of A and columns of B lie side by side. */
static void dots(Matrix a, Matrix b, const float *first, float *c, i64 crow, i64 ccol, i64 M, i64 N, i64 K) {
    if (N <= FEW_COLS)
        for (i64 j = 0; j < N; j++)
            for (i64 i = 0; i < M; i += 4)
                four(a.p + i * a.row, a.row, b.p + j * b.col, 0, first ? first + j : NULL, 0, c + i * crow + j * ccol, crow,
                     M - i < 4 ? M - i : 4, K);
    else
        for (i64 i = 0; i < M; i++)
            for (i64 j = 0; j < N; j += 4)
                four(a.p + i * a.row, 0, b.p + j * b.col, b.col, first ? first + j : NULL, 1, c + i * crow + j * ccol, ccol,
                     N - j < 4 ? N - j : 4, K);
}

static void dense(Matrix a, Matrix b, const float *bias, float *c, i64 crow, i64 ccol, i64 M, i64 N, i64 K) {
    if ((M <= FEW_ROWS || N <= FEW_COLS) && K >= LANES && a.col == 1 && b.row == 1) {
        dots(a, b, bias, c, crow, ccol, M, N, K); /* laying B out anew would cost more than the product */
        return;
    }
    if (!bias && N < LANES && M > N && a.row == 1) { /* few columns, and A is a transposed matrix: C^T = B^T A^T fills lanes */
        Matrix left = {b.p, b.col, b.row}, right = {a.p, a.col, a.row};
        i64 swap = M; M = N; N = swap;
        swap = crow; crow = ccol; ccol = swap;
        a = left, b = right;
    }
    for (i64 j = 0; j < N; j += TILE_COLS) {
        i64 w = N - j < TILE_COLS ? N - j : TILE_COLS, vecs = (w + LANES - 1) / LANES, ldb = b.row;
        const float *side = b.p + j * b.col;
        float first[TILE_COLS] = {0};
        if (bias) memcpy(first, bias + j, w * sizeof(float));
        int apart = b.row % LANES || (uintptr_t)side % sizeof(vec); /* rows that begin within a line of the cache */
        if (b.col != 1 || w % LANES || (apart && M >= 16 * TILE_ROWS)) {
            float *packed = FLOATS(0, K * vecs * LANES);
            pack(side, b.row, b.col, K, w, packed, vecs * LANES);
            side = packed, ldb = vecs * LANES;
        }
        for (i64 i = 0; i < M; i += TILE_ROWS) {
            i64 rows = M - i < TILE_ROWS ? M - i : TILE_ROWS;
            tiles[vecs - 1][rows - 1](K, a.p + i * a.row, a.row, a.col, side, ldb, c + i * crow + j * ccol, crow, ccol, w,
                                      first);
        }
    }
}

/* -- products without what is zero for a whole batch -------------------------------------------------------- */

/* Many a unit of a trained layer of rectifiers sleeps for all rows of a batch: a column of zeros in what it gives and in
   its gradient. Without them a product has the same bits, since a chain of sums stays as it is where 0 x is added, as
   long as x is finite. */

#define MOST 4096    /* columns that are looked at */
#define WORTH 262144 /* multiplications of a product that is looked at */

/* Are the multiplications left out worth laying out the rest anew? x, y: the lengths of the other two sides. */
static int pays(i64 some, i64 all, i64 x, i64 y) { return (all - some) * x * y > 24 * some * (x + y); }

/* Which of n columns, side by side in rows of `ld`, hold anything but zeros: their numbers, and how many; n where it
   does not pay to know (x, y: see `pays`). */
static i64 awake(const float *p, i64 rows, i64 ld, i64 n, i64 x, i64 y, int *list) {
    uint32_t any[MOST];
    i64 count = 0;
    memset(any, 0, n * sizeof(uint32_t));
    for (i64 r = 0; r < rows; r++) {
        for (i64 j = 0; j < n; j++) any[j] |= (uint32_t)bits_of(p[r * ld + j]) << 1; /* without the sign */
        if ((r & (r + 1)) && r < rows - 1) continue; /* after rows 1, 2, 4, 8, ... */
        count = 0;
        for (i64 j = 0; j < n; j++) count += any[j] != 0;
        if (!pays(count, n, x, y)) return n;
    }
    for (i64 j = 0, i = 0; j < n; j++)
        if (any[j]) list[i++] = j;
    return count;
}

static int all_finite(Matrix m, i64 rows, i64 cols) {
    if (m.col != 1) { i64 swap = rows; rows = cols; cols = swap; m.row = m.col; }
    int32_t wild = 0;
    for (i64 r = 0; r < rows; r++)
        for (i64 j = 0; j < cols; j++) wild |= (bits_of(m.p[r * m.row + j]) & 0x7fffffff) >= 0x7f800000;
    return !wild;
}

/* out[o][i] = p[o outer + list[i] inner] */
static void choose(const float *p, i64 count, i64 outer, i64 inner, const int *list, i64 some, float *out) {
    for (i64 o = 0; o < count; o++)
        for (i64 i = 0; i < some; i++) out[o * some + i] = p[o * outer + list[i] * inner];
}

static void product(Matrix a, Matrix b, const float *bias, float *c, i64 crow, i64 ccol, i64 M, i64 N, i64 K) {
    int list[MOST];
    i64 some;
    int looks = M * N * K >= WORTH && M > FEW_ROWS && N > FEW_COLS && (b.col == 1 || b.row == 1);
    if (looks && a.col == 1 && K <= MOST) { /* terms of the sums: columns of A, with the rows of B */
        some = awake(a.p, M, a.row, K, M, N, list);
        if (some < K && all_finite(b, K, N)) {
            float *left = FLOATS(1, some * (M + N)), *right = left + some * M;
            choose(a.p, M, a.row, 1, list, some, left);
            if (b.row == 1) choose(b.p, N, b.col, 1, list, some, right);
            else for (i64 i = 0; i < some; i++) memcpy(right + i * N, b.p + list[i] * b.row, N * sizeof(float));
            Matrix fewer = {left, some, 1}, with = {right, b.row == 1 ? 1 : N, b.row == 1 ? some : 1};
            dense(fewer, with, bias, c, crow, ccol, M, N, some);
            return;
        }
    }
    if (looks && a.row == 1 && ccol == 1 && !bias && M <= MOST) { /* rows of the result: rows of A */
        some = awake(a.p, K, a.col, M, K, N, list);
        if (some < M && all_finite(b, K, N)) {
            float *left = FLOATS(1, some * (K + N)), *rows = left + some * K;
            choose(a.p, K, a.col, 1, list, some, left);
            Matrix fewer = {left, 1, some};
            dense(fewer, b, NULL, rows, N, 1, some, N, K);
            for (i64 i = 0, next = 0; i < M; i++)
                if (next < some && list[next] == i) memcpy(c + i * crow, rows + N * next++, N * sizeof(float));
                else memset(c + i * crow, 0, N * sizeof(float));
            return;
        }
    }
    if (looks && a.row == 1 && b.col == 1 && ccol == 1 && !bias && N <= MOST) { /* and its columns: columns of B */
        some = awake(b.p, K, b.row, N, K, M, list);
        if (some < N && all_finite(a, M, K)) {
            float *right = FLOATS(1, some * (K + M)), *columns = right + some * K;
            choose(b.p, K, b.row, 1, list, some, right);
            Matrix fewer = {right, some, 1};
            dense(a, fewer, NULL, columns, some, 1, M, some, K);
            for (i64 i = 0; i < M; i++) {
                memset(c + i * crow, 0, N * sizeof(float));
                for (i64 j = 0; j < some; j++) c[i * crow + list[j]] = columns[i * some + j];
            }
            return;
        }
    }
    dense(a, b, bias, c, crow, ccol, M, N, K);
}

/* -- the table --------------------------------------------------------------------------------------------- */

typedef struct {
    i64 code;
    i64 n[3];     /* lengths of three nested loops, the last one innermost */
    char *p[4];   /* the result and up to three operands (a second result is p[2]) */
    i64 s[4][3];  /* their strides in elements, for each loop */
    i64 k;        /* what else an operation needs */
} Op;

/* The others: name, and what runs them. */
#define OTHERS(X)                                                                                                      \
    X(product, run_product) X(sum, run_sum) X(count, run_count) X(amax, run_extreme) X(amin, run_extreme)              \
    X(argmax, run_extreme) X(std_mean, run_std_mean) X(log_softmax, run_softmax)                                       \
    X(log_softmax_backward, run_softmax) X(gather, run_indexed) X(scatter_add, run_indexed)

#define TEXT(name, ...) #name " "
#define CODE(name, ...) op_##name,
enum { ELEMENTS(CODE) FIRST_OTHER, BEFORE = FIRST_OTHER - 1, OTHERS(CODE) };

/* The names of the operations in order of their codes, and the shape of this build. */
EXPORT const char *rlx_operations(void) { return ELEMENTS(TEXT) OTHERS(TEXT); }
EXPORT i64 rlx_lanes(void) { return LANES; }
EXPORT i64 rlx_fused(void) { return FUSED; }

/* Rows of elements from one layout to another; steps in elements of `size` bytes. */
static void lay_out(int size, i64 rows, i64 cols, char *to, i64 row, i64 col, const char *from, i64 from_row,
                    i64 from_col) {
#define MOVE(type)                                                                                                     \
    for (i64 r = 0; r < rows; r++) {                                                                                   \
        type *out = (type *)to + r * row;                                                                              \
        const type *in = (const type *)from + r * from_row;                                                            \
        if (from_col) for (i64 c = 0; c < cols; c++) out[c * col] = in[c * from_col];                                  \
        else for (i64 c = 0; c < cols; c++) out[c * col] = *in;                                                        \
    }
    if (size == 1) MOVE(u8)
    else if (size == 4) MOVE(float)
    else MOVE(i64)
}

/* k: whether all operands lie side by side. Others are laid out so, a block of rows (or a part of one) at a time. */
static void run_elements(const Op *op) {
    if (op->k) {
        elements[op->code].run(op->n[2], op->p[0], op->p[1], op->p[2], op->p[3]);
        return;
    }
    enum { BLOCK = 256 };
    char buffer[4][BLOCK * sizeof(i64)];
    const int *size = elements[op->code].size;
    i64 rows = op->n[1], cols = op->n[2], wide = cols > BLOCK ? BLOCK : cols, high = BLOCK / wide, dense[4];
    for (int t = 0; t < 4; t++)
        dense[t] = !op->p[t] || ((cols == 1 || op->s[t][2] == 1) && (rows == 1 || op->s[t][1] == cols));
    for (i64 i = 0; i < op->n[0]; i++)
        for (i64 j = 0; j < rows; j += high)
            for (i64 k = 0; k < cols; k += wide) {
                i64 h = rows - j < high ? rows - j : high, w = cols - k < wide ? cols - k : wide;
                char *at[4], *place[4];
                for (int t = 0; t < 4; t++) {
                    const i64 *s = op->s[t];
                    at[t] = place[t] = op->p[t] + (i * s[0] + j * s[1] + k * s[2]) * size[t];
                    if (dense[t]) continue;
                    place[t] = buffer[t];
                    if (t && (!(j | k) || s[1] || (s[2] && wide < cols))) /* else it is there from the block before */
                        lay_out(size[t], h, w, place[t], w, 1, at[t], s[1], s[2]);
                }
                elements[op->code].run(h * w, place[0], place[1], place[2], place[3]);
                if (!dense[0]) lay_out(size[0], h, w, at[0], op->s[0][1], op->s[0][2], place[0], w, 1);
            }
}

INLINE float *element(const Op *op, int t, i64 i, i64 j, i64 k) {
    return (float *)op->p[t] + i * op->s[t][0] + j * op->s[t][1] + k * op->s[t][2];
}

/* Loops: kept, kept, reduced. k: what to divide by. */
static void run_sum(const Op *op) {
    const float *x = (float *)op->p[1];
    float *o = (float *)op->p[0], by = (float)op->k;
    i64 rows = op->n[2], cols = op->n[1], down = op->s[1][2], across = op->s[1][1];
    for (i64 i = 0; i < op->n[0]; i++) {
        const float *from = x + i * op->s[1][0];
        float *to = o + i * op->s[0][0];
        if (down == 1 && rows > 16) {
            for (i64 j = 0; j < cols; j++) to[j * op->s[0][1]] = sum_of(from + j * across, rows, 0.0f) / by;
            continue;
        }
        for (i64 j = 0; j < cols; j += 64) {
            i64 w = cols - j < 64 ? cols - j : 64;
            float sums[64] = {0};
            const float *p = from + j * across;
            if (across == 1 && w == 64)
                for (i64 r = 0; r < rows; r++, p += down)
                    for (int c = 0; c < 64; c++) sums[c] += p[c];
            else if (across == 1)
                for (i64 r = 0; r < rows; r++, p += down) for (i64 c = 0; c < w; c++) sums[c] += p[c];
            else
                for (i64 r = 0; r < rows; r++, p += down) for (i64 c = 0; c < w; c++) sums[c] += p[c * across];
            for (i64 c = 0; c < w; c++) to[(j + c) * op->s[0][1]] = sums[c] / by;
        }
    }
}

static void run_count(const Op *op) {
    for (i64 i = 0; i < op->n[0]; i++)
        for (i64 j = 0; j < op->n[1]; j++) {
            i64 sum = 0;
            const u8 *x = (u8 *)op->p[1] + i * op->s[1][0] + j * op->s[1][1];
            for (i64 r = 0; r < op->n[2]; r++) sum += x[r * op->s[1][2]];
            ((i64 *)op->p[0])[i * op->s[0][0] + j * op->s[0][1]] = sum;
        }
}

static void run_extreme(const Op *op) { /* of NaNs the first one is both largest and smallest, as torch has it */
    float sign = op->code == op_amin ? -1.0f : 1.0f;
    for (i64 i = 0; i < op->n[0]; i++)
        for (i64 j = 0; j < op->n[1]; j++) {
            const float *x = (float *)op->p[1] + i * op->s[1][0] + j * op->s[1][1];
            float best = x[0];
            i64 place = 0, at = i * op->s[0][0] + j * op->s[0][1];
            for (i64 r = 1; r < op->n[2]; r++) {
                float y = x[r * op->s[1][2]];
                int better = best == best && (sign * y > sign * best || y != y);
                best = better ? y : best, place = better ? r : place;
            }
            if (op->code == op_argmax) ((i64 *)op->p[0])[at] = place;
            else ((float *)op->p[0])[at] = best;
        }
}

/* p[0] the standard deviation, p[2] the mean of n[2] numbers side by side; k: the correction. */
static void run_std_mean(const Op *op) {
    const float *x = (float *)op->p[1];
    i64 n = op->n[2];
    float mean = sum_of(x, n, 0.0f) / (float)n, squares = squares_of(x, n, mean);
    i64 free_ = n - op->k;
    *(float *)op->p[0] = __builtin_sqrtf(squares / (float)(free_ > 0 ? free_ : 0));
    if (op->p[2]) *(float *)op->p[2] = mean;
}

/* Loops: other, other, along. Blocks of rows, with columns side by side: a few of them fill the lanes too. */
static void run_softmax(const Op *op) {
    enum { BLOCK = 64 };
    i64 n = op->n[2], backward = op->code == op_log_softmax_backward;
    float *x = FLOATS(0, 2 * n * BLOCK), *y = x + n * BLOCK, extreme[BLOCK], sum[BLOCK];
    for (i64 i = 0; i < op->n[0]; i++)
        for (i64 j = 0; j < op->n[1]; j += BLOCK) {
            i64 rows = op->n[1] - j < BLOCK ? op->n[1] - j : BLOCK;
            for (int t = 1; t <= 1 + backward; t++)
                lay_out(4, n, rows, (char *)(t == 1 ? x : y), BLOCK, 1, (char *)element(op, t, i, j, 0), op->s[t][2],
                        op->s[t][1]);
#define ROWS for (i64 r = 0; r < rows; r++)
#define CELLS for (float *p = x, *q = y; p < x + n * BLOCK; p += BLOCK, q += BLOCK) ROWS
            ROWS sum[r] = 0.0f, extreme[r] = x[r];
            if (backward) { /* grad - exp(y) sum grad */
                CELLS sum[r] += p[r];
                CELLS p[r] = p[r] - exp_(q[r]) * sum[r];
            } else { /* x - max - log sum exp(x - max) */
                CELLS extreme[r] = maximum_(extreme[r], p[r]);
                CELLS sum[r] += exp_(p[r] - extreme[r]);
                ROWS sum[r] = log_(sum[r]);
                CELLS p[r] = p[r] - extreme[r] - sum[r];
            }
            lay_out(4, n, rows, (char *)element(op, 0, i, j, 0), op->s[0][2], op->s[0][1], (char *)x, BLOCK, 1);
        }
}

/* Loops: other, other, along the index; k: length of the indexed dimension, which index values keep to.
   gather: out[.., c] = x[.., index[.., c]]; scatter_add: out[.., index[.., c]] += x[.., c] */
static void run_indexed(const Op *op) {
    for (i64 i = 0; i < op->n[0]; i++)
        for (i64 j = 0; j < op->n[1]; j++)
            for (i64 c = 0; c < op->n[2]; c++) {
                i64 at = ((i64 *)op->p[2])[i * op->s[2][0] + j * op->s[2][1] + c * op->s[2][2]];
                at = at < 0 ? 0 : at >= op->k ? op->k - 1 : at;
                if (op->code == op_gather) *element(op, 0, i, j, c) = *element(op, 1, i, j, at);
                else *element(op, 0, i, j, at) += *element(op, 1, i, j, c);
            }
}

/* n: batch, rows, columns; k the inner length; s[t]: batch, row, column; p[3] what a row begins with, or none. */
static void run_product(const Op *op) {
    for (i64 i = 0; i < op->n[0]; i++) {
        Matrix a = {element(op, 1, i, 0, 0), op->s[1][1], op->s[1][2]};
        Matrix b = {element(op, 2, i, 0, 0), op->s[2][1], op->s[2][2]};
        const float *bias = op->p[3] ? element(op, 3, i, 0, 0) : NULL;
        product(a, b, bias, element(op, 0, i, 0, 0), op->s[0][1], op->s[0][2], op->n[1], op->n[2], op->k);
    }
}

#define RUN(name, run) run,
static void (*const others[])(const Op *) = {OTHERS(RUN)};

EXPORT void rlx_run(const Op *op, i64 count) {
    for (const Op *end = op + count; op < end; op++)
        (op->code < FIRST_OTHER ? run_elements : others[op->code - FIRST_OTHER])(op);
}

/* -- a gradient step --------------------------------------------------------------------------------------- */

typedef struct { const char *from; char *to; i64 bytes, rows, size; } Feed; /* bytes a row; rows there are; bytes of `to` */

typedef struct {
    const Op *ops; i64 num_ops;
    const Feed *feeds; i64 num_feeds, rows;
    float *param, *grad, *m, *v;
    i64 size, optimizer; /* 0 Adam, 1 RMSprop, 2 RMSprop with epsilon inside the root */
    double beta1, beta2, eps, weight_decay, max_grad_norm;
} Step;

static void feed(const Feed *f, const i64 *index, i64 start, i64 rows) {
    if (!index) memcpy(f->to, f->from + start * f->bytes, f->size);
#define FEED(bytes)                                                                                                    \
    for (i64 r = 0; r < rows; r++) {                                                                                   \
        i64 i = index[r] < 0 ? 0 : index[r] >= f->rows ? f->rows - 1 : index[r];                                       \
        memcpy(f->to + r * (bytes), f->from + i * (bytes), bytes);                                                     \
    }
    else if (f->bytes == 4) FEED(4)
    else if (f->bytes == 8) FEED(8)
    else if (f->bytes == 16) FEED(16)
    else FEED(f->bytes)
}

/* One optimiser step with the gradient times `scale`; t counts from 1. See rlx/engine/optim.py for the equations. */
static void optimize(const Step *s, float scale, double lr, double t) {
    float *p = s->param, *m = s->m, *v = s->v;
    const float *g = s->grad;
    float eps = (float)s->eps, keep = (float)s->beta2, add = (float)(1.0 - s->beta2);
    i64 n = s->size;
    if (s->optimizer == 0) {
        float first = (float)(1.0 - s->beta1), root = (float)(1.0 / __builtin_sqrt(1.0 - pow(s->beta2, t)));
        float rate = (float)(lr / (1.0 - pow(s->beta1, t))), decay = (float)(1.0 - lr * s->weight_decay);
        EACH {
            float x = g[i] * scale;
            m[i] = MAC(x - m[i], first, m[i]);
            v[i] = MAC(x * x, add, v[i] * keep);
            p[i] = p[i] * decay - rate * (m[i] / MAC(__builtin_sqrtf(v[i]), root, eps));
        }
    } else {
        float rate = (float)lr, inside = s->optimizer == 2 ? eps : 0.0f, behind = s->optimizer == 2 ? 0.0f : eps;
        EACH {
            float x = g[i] * scale;
            v[i] = MAC(x * x, add, v[i] * keep);
            p[i] = p[i] - rate * (x / (__builtin_sqrtf(v[i] + inside) + behind));
        }
    }
}

/* Clip the gradient by its norm and take an optimiser step; the norm before. `grad` stays as it is. A norm that is not
   finite changes nothing. */
EXPORT double rlx_update(const Step *s, double lr, double t) {
    double norm = __builtin_sqrt((double)squares_of(s->grad, s->size, 0.0f));
    if (!(norm < INFINITY)) return norm;
    int clipped = s->max_grad_norm > 0 && norm > s->max_grad_norm;
    optimize(s, clipped ? (float)(s->max_grad_norm / (norm + 1e-6)) : 1.0f, lr, t);
    return norm;
}

/* With the rows `index`, or `rows` of them from `start` on, in the program's inputs. */
EXPORT double rlx_step(const Step *s, const i64 *index, i64 start, double lr, double t) {
    for (i64 i = 0; i < s->num_feeds; i++) feed(s->feeds + i, index, start, s->rows);
    rlx_run(s->ops, s->num_ops);
    return rlx_update(s, lr, t);
}

/* -- discounted sums ----------------------------------------------------------------------------------------- */

/* y_t = x_t + c_t y_{t+1}, each operation in the order of rlx/functional/returns.py: linear_recurrence. `y` holds x, the
   decays `c` are overwritten; [T, size] numbers each. */
EXPORT void rlx_recurrence(float *y, float *c, i64 T, i64 size) {
    for (i64 reach = size; reach < T * size; reach *= 2)
        for (i64 i = 0; i < T * size - reach; i++) {
            y[i] = MAC(c[i], c[i] == 0.0f ? 0.0f : y[i + reach], y[i]);
            c[i] = c[i] * c[i + reach];
        }
}

/* -- acting -------------------------------------------------------------------------------------------------- */

/* What the struct of environments that step in C begins with (see rlx/envs/quick/classic_control.c). */
typedef struct Lanes {
    i64 (*step)(struct Lanes *, const char *action); /* not 0 if an episode ended or a number is not finite */
    const float *obs; const double *reward; double *returns; /* a row for each lane */
    i64 lanes, obs_size, action_bytes;
} Lanes;

typedef struct {
    const Op *ops; i64 num_ops;                 /* obs_in, noise_in -> action_out */
    float *obs_in; char *noise_in; const char *action_out;
    i64 noise_bytes;                            /* of all lanes */
    Lanes *envs;
    float *obs, *raw; char *action; const char *noise; float *reward; /* a row for each time */
    const double *mean, *scale; double clip;    /* obs = (raw - mean) scale; NULL: as they are, and no `raw` */
    double env_seconds;                         /* that steps have taken, from one in 16 */
} Rollout;

INLINE double within(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* What the environments show now becomes the row of time t. */
static void observe(const Rollout *r, i64 t) {
    i64 size = r->envs->obs_size, all = r->envs->lanes * size;
    float *obs = r->obs + t * all;
    memcpy(r->mean ? r->raw + t * all : obs, r->envs->obs, all * sizeof(float));
    if (r->mean)
        for (i64 i = 0; i < all; i++)
            obs[i] = (float)within((r->envs->obs[i] - r->mean[i % size]) * r->scale[i % size], -r->clip, r->clip);
    memcpy(r->obs_in, obs, all * sizeof(float));
}

/* Act and step from time t on, `count` times or until an episode ends; how many steps that were. */
EXPORT i64 rlx_rollout(Rollout *r, i64 t, i64 count) {
    Lanes *e = r->envs;
    i64 action_bytes = e->lanes * e->action_bytes;
    for (i64 done = 0; done < count; done++, t++) {
        observe(r, t);
        memcpy(r->noise_in, r->noise + t * r->noise_bytes, r->noise_bytes);
        rlx_run(r->ops, r->num_ops);
        memcpy(r->action + t * action_bytes, r->action_out, action_bytes);
        double began = t % 16 ? 0.0 : now();
        i64 ended = e->step(e, r->action_out);
        if (began) r->env_seconds += 16.0 * (now() - began);
        float *reward = r->reward + t * e->lanes;
        for (i64 i = 0; i < e->lanes; i++) e->returns[i] += e->reward[i], reward[i] = (float)e->reward[i];
        if (ended) return done + 1;
    }
    return count;
}
