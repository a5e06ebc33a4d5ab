// Products and sums per second that the processor's vector units can do, in registers: bytes (AVX-512 VNNI) and FP32.
// usage: peak THREADS; prints "int8 GMAC/s" and "fp32 GMAC/s".
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STEPS 60000000L
#define SIXTEEN(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11) OP(12) OP(13) OP(14) OP(15)
#define BYTES(i) "vpdpbusd %%zmm30,%%zmm31,%%zmm" #i "\n"
#define FLOATS(i) "vfmadd231ps %%zmm30,%%zmm31,%%zmm" #i "\n"
#define USED "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", \
    "zmm12", "zmm13", "zmm14", "zmm15", "zmm30", "zmm31"

static void *bytes(void *nothing) {
    for (long step = 0; step < STEPS; step++) __asm__ volatile(SIXTEEN(BYTES)::: USED);
    return nothing;
}

static void *floats(void *nothing) {
    for (long step = 0; step < STEPS; step++) __asm__ volatile(SIXTEEN(FLOATS)::: USED);
    return nothing;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static double rate(void *(*work)(void *), int threads, double per_instruction) {
    pthread_t running[256];
    double start = seconds();
    for (int i = 0; i < threads; i++) pthread_create(running + i, 0, work, 0);
    for (int i = 0; i < threads; i++) pthread_join(running[i], 0);
    return threads * STEPS * 16.0 * per_instruction / (seconds() - start) / 1e9;
}

int main(int count, char **arguments) {
    int threads = count > 1 ? atoi(arguments[1]) : 1;
    if (threads < 1 || threads > 256) return 2;
    printf("%.1f %.1f\n", rate(bytes, threads, 64), rate(floats, threads, 16));
    return 0;
}
