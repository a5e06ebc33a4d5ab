// Multiply-adds per second that the processor's vector units can do, in registers: of bytes and of FP32.
// usage: peak THREADS; prints "int8 GMAC/s" and "fp32 GMAC/s"; 0 for bytes where it has no instruction for them.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STEPS 15000000L
#define ROUNDS 8  // the best of them: a peak is what nothing else disturbs
#define REPEAT12(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)
#define X86_USED "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
    "xmm14", "xmm15"

#if defined(__AVX512VNNI__)
#define BYTE_PRODUCTS 64.0
#define BYTES(i) "vpdpbusd %%zmm14,%%zmm15,%%zmm" #i "\n"
#elif defined(__AVXVNNI__)
#define BYTE_PRODUCTS 32.0
#define BYTES(i) "%{vex%} vpdpbusd %%ymm14,%%ymm15,%%ymm" #i "\n"
#elif defined(__ARM_FEATURE_DOTPROD)
#define BYTE_PRODUCTS 16.0
#define BYTES(i) "udot v" #i ".4s, v14.16b, v15.16b\n"
#else
#define BYTE_PRODUCTS 0.0
#define BYTES(i) ""
#endif

#if defined(__AVX512F__)
#define FLOAT_PRODUCTS 16.0
#define FLOATS(i) "vfmadd231ps %%zmm14,%%zmm15,%%zmm" #i "\n"
#elif defined(__FMA__)
#define FLOAT_PRODUCTS 8.0
#define FLOATS(i) "vfmadd231ps %%ymm14,%%ymm15,%%ymm" #i "\n"
#elif defined(__aarch64__)
#define FLOAT_PRODUCTS 4.0
#define FLOATS(i) "fmla v" #i ".4s, v14.4s, v15.4s\n"
#else
#error "no vector instructions that this program knows"
#endif

#if defined(__aarch64__)
#define USED "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v14", "v15"
#else
#define USED X86_USED
#endif

static void *bytes(void *nothing) {
    for (long step = 0; step < STEPS; step++) __asm__ volatile(REPEAT12(BYTES)::: USED);
    return nothing;
}

static void *floats(void *nothing) {
    for (long step = 0; step < STEPS; step++) __asm__ volatile(REPEAT12(FLOATS)::: USED);
    return nothing;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static double rate_once(void *(*work)(void *), int threads, double per_instruction) {
    pthread_t running[256];
    double start = seconds();
    for (int i = 0; i < threads; i++) pthread_create(running + i, 0, work, 0);
    for (int i = 0; i < threads; i++) pthread_join(running[i], 0);
    return threads * STEPS * 12.0 * per_instruction / (seconds() - start) / 1e9;
}

static double rate(void *(*work)(void *), int threads, double per_instruction) {
    double best = 0;
    for (int round = 0; round < ROUNDS && per_instruction > 0; round++) {
        double found = rate_once(work, threads, per_instruction);
        if (found > best) best = found;
    }
    return best;
}

int main(int count, char **arguments) {
    int threads = count > 1 ? atoi(arguments[1]) : 1;
    if (threads < 1 || threads > 256) return 2;
    printf("%.1f %.1f\n", rate(bytes, threads, BYTE_PRODUCTS), rate(floats, threads, FLOAT_PRODUCTS));
    return 0;
}
