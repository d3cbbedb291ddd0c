/* The floor: three ensembles by hand-written C, to measure the engine against.

   Chains run in blocks whose state stays in the first-level cache over all steps; the loops over
   the chains of a block are vectorised, by the compiler or, where it would not, by intrinsics of
   AVX-512 (without AVX-512: the plain loops below them). The random words are those of
   thalweg.random, so that a chain draws the same samples here and there.

   Compiled for one type and one number of samples (floor.py has the line):
     -DREAL_IS_DOUBLE=0|1  -DSAMPLES=n  -DBLOCK=chains
   Usage: floor WORK CHAINS STEPS THREADS KEY0 KEY1 STEP_SIZE DATA
     WORK  mueller      Euler-Maruyama for dX = -grad V dt + sqrt(2) dW, V the Mueller-Brown
                        potential with A1 = -200, times .05, from its deepest minimum until the disc
                        of radius .2 about the right one
           quadratics   SGD on f_i = k (x - c)^2/2 + l (y - d)^2/2, rows (k, l, c, d), from 0;
                        by gathers
           regression   SGD on 1 - exp(-(b.x - y)^2/2), d = 10, rows (x, y, 0, 0, 0, 0, 0)
                        and, after them, the start; by whole rows and transposed sums
           quadratics-rows, quadratics-select (up to four samples, the table in one register),
           regression-gathers   the same in other ways, for information
     DATA  SAMPLES rows ("-" without)
   Prints CPU and wall seconds, exits, the total of steps before the exit, and means. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifndef REAL_IS_DOUBLE
#define REAL_IS_DOUBLE 0
#endif
#ifndef SAMPLES
#define SAMPLES 4
#endif
#ifndef BLOCK
#define BLOCK 128
#endif
#define DOUBLE REAL_IS_DOUBLE
#define EACH_CHAIN for (int j = 0; j < BLOCK; j++)
#define ALIGNED __attribute__((aligned(64)))
#define INLINE static inline __attribute__((always_inline))
#define MAX_DIMENSION 10
#define ROW 16 /* of the regression's data: ten features, the response, padding */

#if REAL_IS_DOUBLE
typedef double real;
typedef int64_t integer;
#define BITS 52
#define BIAS 1023
#else
typedef float real;
typedef int32_t integer;
#define BITS 23
#define BIAS 127
#endif

typedef struct {
  uint32_t first, second;
} pair;

INLINE uint32_t rotated(uint32_t x, int distance) { return x << distance | x >> (32 - distance); }

/* Salmon et al. (2011), 20 rounds; thalweg.random.threefry2x32. */
INLINE pair threefry(uint32_t k0, uint32_t k1, uint32_t x, uint32_t y) {
  const uint32_t schedule[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
  const int distances[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  x += schedule[0];
  y += schedule[1];
#pragma GCC unroll 5
  for (int group = 0; group < 5; group++) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      x += y;
      y = rotated(y, distances[group % 2][i]) ^ x;
    }
    x += schedule[(group + 1) % 3];
    y += schedule[(group + 2) % 3] + group + 1;
  }
  return (pair){x, y};
}

/* floor(n u), u of 64 bits. */
INLINE uint32_t below(pair words, uint32_t n) {
  return ((uint64_t)words.first * n + ((uint64_t)words.second * n >> 32)) >> 32;
}

INLINE real from_bits(integer bits) {
  real x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

INLINE integer to_bits(real x) {
  integer bits;
  memcpy(&bits, &x, sizeof x);
  return bits;
}

/* 2^t for t >= -BIAS + 1: minimax polynomials on [-1/2, 1/2], error 8e-8 and 3e-18. */
INLINE real power_of_two(real t) {
  real whole = DOUBLE ? rint(t) : rintf(t), r = t - whole, p;
  if (DOUBLE) {
    p = 4.43552972940260675e-10;
    p = p * r + 7.07408952597472596e-9;
    p = p * r + 1.01781963847930944e-7;
    p = p * r + 1.32154331875491067e-6;
    p = p * r + 1.52527334938826936e-5;
    p = p * r + 1.54035304623076735e-4;
    p = p * r + 1.33335581467859517e-3;
    p = p * r + 9.61812910758851141e-3;
    p = p * r + 5.55041086648199375e-2;
    p = p * r + 2.40226506959101557e-1;
    p = p * r + 6.9314718055994533e-1;
    p = p * r + 1;
  } else {
    p = (real)1.32763501991218722e-3;
    p = p * r + (real)9.67554035736941012e-3;
    p = p * r + (real)5.55071365019944866e-2;
    p = p * r + (real)2.40221197481669868e-1;
    p = p * r + (real)6.9314696683416614e-1;
    p = p * r + (real)1.00000007164717688;
  }
  return from_bits(to_bits(p) + ((integer)whole << BITS));
}

/* -2 log u for 0 < u < 1: m in [2/3, 4/3), errors 4e-8 and 1e-18 of the logarithm of m. */
INLINE real minus_two_log(real u) {
  const integer two_thirds = DOUBLE ? (integer)0x3FE5555555555555LL : (integer)0x3F2AAAAB;
  integer exponent = (to_bits(u) - two_thirds) >> BITS;
  real m = from_bits(to_bits(u) - (exponent << BITS)), f = m - 1, log_m;
  if (DOUBLE) {
    real s = f / (2 + f), w = s * s, q = 1.47993039890612941e-1;
    q = q * w + 1.53137327738169139e-1;
    q = q * w + 1.81835760339118693e-1;
    q = q * w + 2.22221983623073594e-1;
    q = q * w + 2.85714287442944813e-1;
    q = q * w + 3.9999999999406812e-1;
    q = q * w + 6.66666666666673548e-1;
    log_m = s * (2 + w * q);
  } else {
    real q = (real)1.38176369466803918e-1;
    q = q * f - (real)1.51223971941449212e-1;
    q = q * f + (real)1.4042802501667032e-1;
    q = q * f - (real)1.64722884117369603e-1;
    q = q * f + (real)2.0007893753285604e-1;
    q = q * f - (real)2.50042393706347893e-1;
    q = q * f + (real)3.33332663062793926e-1;
    log_m = f * (1 + f * (f * q - (real).5));
  }
  return -2 * (log_m + (real)exponent * (real).693147180559945309417);
}

/* Two normals by Box and Muller; sine and cosine by Taylor polynomials of half the angle. */
INLINE void normals(pair words, real *one, real *other) {
  real u = DOUBLE ? ((real)words.first + (real).5) * (real)0x1p-32
                  : ((real)(int32_t)(words.first >> 9) + (real).5) * (real)0x1p-23;
  real radius = DOUBLE ? sqrt(minus_two_log(u)) : sqrtf(minus_two_log(u));
  real half = (real)(int32_t)words.second * (real)(0x1p-32 * 3.14159265358979323846);
  real square = half * half, sine, cosine;
  if (DOUBLE) {
    sine = 1.0 / 51090942171709440000.0, cosine = 1.0 / 2432902008176640000.0;
    sine = sine * square - 1.0 / 121645100408832000.0;
    cosine = cosine * square - 1.0 / 6402373705728000.0;
    sine = sine * square + 1.0 / 355687428096000.0;
    cosine = cosine * square + 1.0 / 20922789888000.0;
    sine = sine * square - 1.0 / 1307674368000.0;
    cosine = cosine * square - 1.0 / 87178291200.0;
    sine = sine * square + 1.0 / 6227020800.0;
    cosine = cosine * square + 1.0 / 479001600.0;
  } else {
    sine = 0, cosine = 0;
  }
  sine = sine * square - (real)(1.0 / 39916800);
  cosine = cosine * square - (real)(1.0 / 3628800);
  sine = sine * square + (real)(1.0 / 362880);
  cosine = cosine * square + (real)(1.0 / 40320);
  sine = sine * square - (real)(1.0 / 5040);
  cosine = cosine * square - (real)(1.0 / 720);
  sine = sine * square + (real)(1.0 / 120);
  cosine = cosine * square + (real)(1.0 / 24);
  sine = sine * square - (real)(1.0 / 6);
  cosine = cosine * square - (real).5;
  sine = (sine * square + 1) * half;
  cosine = cosine * square + 1;
  *one = radius * (2 * sine * cosine);
  *other = radius * (1 - 2 * sine * sine);
}

typedef struct {
  uint32_t k0, k1; /* of the words: derived key number 0 */
  int32_t steps;
  real step_size;
  const real *data;
} setting;

/* .05 A exp(a dx^2 + b dx dy + c dy^2), and its gradient added to (gx, gy). */
INLINE void term(real x, real y, double A, double a, double b, double c, double cx, double cy,
                 real *gx, real *gy) {
  const double log2_e = 1.44269504088896340736;
  real dx = x - (real)cx, dy = y - (real)cy;
  real t = dx * ((real)(a * log2_e) * dx + (real)(b * log2_e) * dy) + (real)(c * log2_e) * dy * dy;
  if (a < 0) t = t > -BIAS + 1 ? t : -BIAS + 1; /* or the exponent would wrap */
  real e = (real)(.05 * A) * power_of_two(t);
  *gx += e * ((real)(2 * a) * dx + (real)b * dy);
  *gy += e * ((real)(2 * c) * dy + (real)b * dx);
}

static void mueller(const setting *s, uint32_t first, real (*state)[BLOCK], int32_t *exit_step) {
  const real dt = s->step_size, noise = sqrt(2 * (double)dt);
  real ALIGNED x[BLOCK], y[BLOCK];
  int32_t ALIGNED left[BLOCK];
  EACH_CHAIN x[j] = (real)-.5582236346, y[j] = (real)1.4417258418, left[j] = -1;
  for (int32_t k = 0; k < s->steps; k++) {
#pragma GCC ivdep
    EACH_CHAIN {
      real gx = 0, gy = 0, one, other;
      term(x[j], y[j], -200, -1, 0, -10, 1, 0, &gx, &gy);
      term(x[j], y[j], -100, -1, 0, -10, 0, .5, &gx, &gy);
      term(x[j], y[j], -170, -6.5, 11, -6.5, -.5, 1.5, &gx, &gy);
      term(x[j], y[j], 15, .7, .6, .7, -1, 1, &gx, &gy);
      normals(threefry(s->k0, s->k1, first + j, k), &one, &other);
      int running = left[j] < 0;
      real nx = x[j] - dt * gx + noise * one, ny = y[j] - dt * gy + noise * other;
      x[j] = running ? nx : x[j];
      y[j] = running ? ny : y[j];
      real dx = x[j] - (real).6234994049, dy = y[j] - (real).0280377585;
      int inside = dx * dx + dy * dy <= (real).04;
      left[j] = running & inside ? k + 1 : left[j];
    }
  }
  memcpy(state[0], x, sizeof x);
  memcpy(state[1], y, sizeof y);
  memcpy(exit_step, left, sizeof left);
}

/* First entries of the rows that the chains of a block draw at step k. */
INLINE void draw(const setting *s, uint32_t first, int32_t k, int32_t width, int32_t *start) {
#pragma GCC ivdep
  EACH_CHAIN start[j] = width * (int32_t)below(threefry(s->k0, s->k1, first + j, k), SAMPLES);
}

/* The factor eta r exp(-r^2/2) of the gradient, in the place of the residuals. */
INLINE void weigh(real eta, real *residual, int count) {
  for (int j = 0; j < count; j++) {
    real t = (real)-.72134752044448170368 * residual[j] * residual[j];
    t = t > -BIAS + 1 ? t : -BIAS + 1;
    residual[j] *= eta * power_of_two(t);
  }
}

#if defined(__AVX512F__) && !REAL_IS_DOUBLE

/* Column c of the rows of sixteen chains. */
INLINE void by_gathers(const real *rows, const int32_t *start, __m512 column[4]) {
  __m512i index = _mm512_load_si512(start);
  for (int c = 0; c < 4; c++) column[c] = _mm512_i32gather_ps(index, rows + c, 4);
}

INLINE __m512 low(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

INLINE __m512 high(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

INLINE void by_rows(const real *rows, const int32_t *start, __m512 column[4]) {
  __m512 of[4]; /* chains i, i + 4, i + 8, i + 12 */
  for (int i = 0; i < 4; i++) {
    of[i] = _mm512_castps128_ps512(_mm_load_ps(rows + start[i]));
    of[i] = _mm512_insertf32x4(of[i], _mm_load_ps(rows + start[i + 4]), 1);
    of[i] = _mm512_insertf32x4(of[i], _mm_load_ps(rows + start[i + 8]), 2);
    of[i] = _mm512_insertf32x4(of[i], _mm_load_ps(rows + start[i + 12]), 3);
  }
  __m512 a = _mm512_unpacklo_ps(of[0], of[1]), b = _mm512_unpacklo_ps(of[2], of[3]);
  __m512 c = _mm512_unpackhi_ps(of[0], of[1]), d = _mm512_unpackhi_ps(of[2], of[3]);
  column[0] = low(a, b), column[1] = high(a, b), column[2] = low(c, d), column[3] = high(c, d);
}

INLINE void by_selects(const real *rows, const int32_t *start, __m512 column[4]) {
  __m512 table = _mm512_load_ps(rows);
  __m512i index = _mm512_load_si512(start);
  for (int c = 0; c < 4; c++)
    column[c] = _mm512_permutexvar_ps(_mm512_add_epi32(index, _mm512_set1_epi32(c)), table);
}

typedef void fetch(const real *, const int32_t *, __m512 *);

INLINE void quadratics_by(fetch *fetch, const setting *s, uint32_t first, real (*state)[BLOCK]) {
  real ALIGNED x[BLOCK] = {0}, y[BLOCK] = {0};
  int32_t ALIGNED start[BLOCK];
  const __m512 eta = _mm512_set1_ps(s->step_size);
  for (int32_t k = 0; k < s->steps; k++) {
    draw(s, first, k, 4, start);
    for (int j = 0; j < BLOCK; j += 16) {
      __m512 row[4], at_x = _mm512_load_ps(x + j), at_y = _mm512_load_ps(y + j);
      fetch(s->data, start + j, row);
      _mm512_store_ps(x + j, at_x - eta * row[0] * (at_x - row[2]));
      _mm512_store_ps(y + j, at_y - eta * row[1] * (at_y - row[3]));
    }
  }
  memcpy(state[0], x, sizeof x);
  memcpy(state[1], y, sizeof y);
}

static void quadratics(const setting *s, uint32_t first, real (*state)[BLOCK], int32_t *exit_step) {
  quadratics_by(by_gathers, s, first, state);
}

static void quadratics_rows(const setting *s, uint32_t first, real (*state)[BLOCK],
                            int32_t *exit_step) {
  quadratics_by(by_rows, s, first, state);
}

static void quadratics_select(const setting *s, uint32_t first, real (*state)[BLOCK],
                              int32_t *exit_step) {
  quadratics_by(by_selects, s, first, state);
}

static void regression_gathers(const setting *s, uint32_t first, real (*state)[BLOCK],
                               int32_t *exit_step) {
  real ALIGNED beta[10][BLOCK], residual[16];
  int32_t ALIGNED start[BLOCK];
  for (int i = 0; i < 10; i++) EACH_CHAIN beta[i][j] = s->data[SAMPLES * ROW + i];
  for (int32_t k = 0; k < s->steps; k++) {
    draw(s, first, k, ROW, start);
    for (int j = 0; j < BLOCK; j += 16) {
      __m512i index = _mm512_load_si512(start + j);
      __m512 feature[10], sum = -_mm512_i32gather_ps(index, s->data + 10, 4);
      for (int i = 0; i < 10; i++) {
        feature[i] = _mm512_i32gather_ps(index, s->data + i, 4);
        sum += feature[i] * _mm512_load_ps(beta[i] + j);
      }
      _mm512_store_ps(residual, sum);
      weigh(s->step_size, residual, 16);
      __m512 factor = _mm512_load_ps(residual);
      for (int i = 0; i < 10; i++)
        _mm512_store_ps(beta[i] + j, _mm512_load_ps(beta[i] + j) - factor * feature[i]);
    }
  }
  memcpy(state, beta, sizeof beta);
}

INLINE __m512 added(__m512 a, __m512 b) {
  return _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
}

INLINE __m512 joined(__m512 a, __m512 b) {
  return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
}

/* A chain a register: the coefficients, -1 for the response, zeros. */
static void regression(const setting *s, uint32_t first, real (*state)[BLOCK], int32_t *exit_step) {
  real ALIGNED beta[BLOCK][ROW] = {0}, residual[BLOCK];
  int32_t ALIGNED start[BLOCK];
  EACH_CHAIN memcpy(beta[j], s->data + SAMPLES * ROW, 10 * sizeof(real)), beta[j][10] = -1;
  for (int32_t k = 0; k < s->steps; k++) {
    draw(s, first, k, ROW, start);
    for (int j = 0; j < BLOCK; j += 16) {
      __m512 four[4]; /* in each quarter of a register its part of the sums of four chains */
      for (int q = 0; q < 4; q++) {
        __m512 product[4];
        for (int i = 0; i < 4; i++) {
          int chain = j + 4 * q + i;
          product[i] = _mm512_load_ps(beta[chain]) * _mm512_load_ps(s->data + start[chain]);
        }
        four[q] = added(added(product[0], product[2]), added(product[1], product[3]));
      }
      _mm512_store_ps(residual + j, joined(joined(four[0], four[1]), joined(four[2], four[3])));
    }
    weigh(s->step_size, residual, BLOCK);
    EACH_CHAIN {
      __m512 row = _mm512_load_ps(s->data + start[j]), factor = _mm512_set1_ps(residual[j]);
      _mm512_store_ps(beta[j], _mm512_mask3_fnmadd_ps(factor, row, _mm512_load_ps(beta[j]), 0x3ff));
    }
  }
  EACH_CHAIN for (int i = 0; i < 10; i++) state[i][j] = beta[j][i];
}

#else

static void quadratics(const setting *s, uint32_t first, real (*state)[BLOCK], int32_t *exit_step) {
  real ALIGNED x[BLOCK] = {0}, y[BLOCK] = {0};
  int32_t ALIGNED start[BLOCK];
  for (int32_t k = 0; k < s->steps; k++) {
    draw(s, first, k, 4, start);
    EACH_CHAIN {
      const real *row = s->data + start[j];
      x[j] -= s->step_size * row[0] * (x[j] - row[2]);
      y[j] -= s->step_size * row[1] * (y[j] - row[3]);
    }
  }
  memcpy(state[0], x, sizeof x);
  memcpy(state[1], y, sizeof y);
}

static void regression(const setting *s, uint32_t first, real (*state)[BLOCK], int32_t *exit_step) {
  real ALIGNED beta[10][BLOCK], residual[BLOCK];
  int32_t ALIGNED start[BLOCK];
  for (int i = 0; i < 10; i++) EACH_CHAIN beta[i][j] = s->data[SAMPLES * ROW + i];
  for (int32_t k = 0; k < s->steps; k++) {
    draw(s, first, k, ROW, start);
    EACH_CHAIN residual[j] = -s->data[start[j] + 10];
    for (int i = 0; i < 10; i++) EACH_CHAIN residual[j] += beta[i][j] * s->data[start[j] + i];
    weigh(s->step_size, residual, BLOCK);
    for (int i = 0; i < 10; i++) EACH_CHAIN beta[i][j] -= residual[j] * s->data[start[j] + i];
  }
  memcpy(state, beta, sizeof beta);
}

#endif

typedef void advance(const setting *, uint32_t, real (*)[BLOCK], int32_t *);

static const struct {
  const char *name;
  advance *advance;
  int dimension, row, extra;
} WORKS[] = {
    {"mueller", mueller, 2, 0, 0},
    {"quadratics", quadratics, 2, 4, 0},
    {"regression", regression, 10, ROW, 10},
#if defined(__AVX512F__) && !REAL_IS_DOUBLE
    {"quadratics-rows", quadratics_rows, 2, 4, 0},
    {"quadratics-select", quadratics_select, 2, 4, 0},
    {"regression-gathers", regression_gathers, 10, ROW, 10},
#endif
};

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *checked(void *memory) {
  if (!memory) fprintf(stderr, "no memory\n"), exit(1);
  return memory;
}

static real *read_data(const char *path, size_t count) {
  real *data = checked(aligned_alloc(64, (count * sizeof(real) + 63) / 64 * 64 + 64));
  FILE *file = fopen(path, "rb");
  if (!file || fread(data, sizeof(real), count, file) != count)
    fprintf(stderr, "%s does not hold %zu numbers\n", path, count), exit(1);
  fclose(file);
  return data;
}

int main(int argc, char **argv) {
  if (argc != 9) return fprintf(stderr, "see the head of floor.c\n"), 2;
  unsigned work = 0;
  while (work < sizeof WORKS / sizeof *WORKS && strcmp(WORKS[work].name, argv[1])) work++;
  if (work == sizeof WORKS / sizeof *WORKS) return fprintf(stderr, "no work %s\n", argv[1]), 2;
  const int chains = atoi(argv[2]), threads = atoi(argv[4]), dimension = WORKS[work].dimension;
  const int blocks = (chains + BLOCK - 1) / BLOCK;
  const pair key = threefry(strtoul(argv[5], 0, 10), strtoul(argv[6], 0, 10), 0, 0);
  const size_t numbers = (size_t)WORKS[work].row * SAMPLES + WORKS[work].extra;
  const setting s = {key.first, key.second, atoi(argv[3]), atof(argv[7]),
                     numbers ? read_data(argv[8], numbers) : 0};
  real(*state)[MAX_DIMENSION][BLOCK] = checked(aligned_alloc(64, blocks * sizeof *state));
  int32_t(*exit_step)[BLOCK] = checked(aligned_alloc(64, blocks * sizeof *exit_step));
  memset(exit_step, 255, blocks * sizeof *exit_step);

  double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int b = 0; b < blocks; b++)
    WORKS[work].advance(&s, b * BLOCK, state[b], exit_step[b]);
  cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  wall = seconds(CLOCK_MONOTONIC) - wall;

  double exits = 0, taken = 0, sum[MAX_DIMENSION] = {0};
  for (int c = 0; c < chains; c++) {
    int32_t left = exit_step[c / BLOCK][c % BLOCK];
    exits += left >= 0;
    taken += left >= 0 ? left : s.steps;
    for (int i = 0; i < dimension; i++) sum[i] += state[c / BLOCK][i][c % BLOCK];
  }
  printf("{\"cpu\": %.9f, \"wall\": %.9f, \"exits\": %.0f, \"steps_taken\": %.0f, \"means\": [",
         cpu, wall, exits, taken);
  for (int i = 0; i < dimension; i++) printf("%s%.9g", i ? ", " : "", sum[i] / chains);
  printf("]}\n");
  return 0;
}
