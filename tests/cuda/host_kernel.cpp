// The kernels' own sources, compiled for the host and run thread by thread. It shows wrong indices and wrong sums;
// it does not show races.
#include <string.h>

struct Index { unsigned x, y, z; };
static thread_local Index threadIdx, blockIdx, blockDim;
#define __global__
#define __device__
#include PATCHES
#include SPREAD

template <typename Kernel> static void run(unsigned gx, unsigned gy, unsigned block, Kernel kernel) {
  blockDim = {block, 1, 1};
  for (unsigned y = 0; y < gy; y++)
    for (unsigned x = 0; x < gx; x++)
      for (unsigned t = 0; t < block; t++) {
        blockIdx = {x, y, 0};
        threadIdx = {t, 0, 0};
        kernel();
      }
}

template <typename T> static T value(void **parameters, int index) { return *(T *)parameters[index]; }

// What a launch of `name` does. `parameters` point to the arguments. 0, or 1 for an unknown kernel.
extern "C" int run_kernel(const char *name, unsigned gx, unsigned gy, unsigned block, void **p) {
  if (!strcmp(name, "sample_patches")) {
    run(gx, gy, block, [&] {
      sample_patches(value<const Image *>(p, 0), value<const Taps *>(p, 1), value<const int32_t *>(p, 2),
                     value<uint8_t *>(p, 3), value<int32_t>(p, 4), value<int32_t>(p, 5));
    });
  } else if (!strcmp(name, "add_up_spread")) {
    run(gx, gy, block, [&] {
      add_up_spread(value<const float *>(p, 0), value<const float *>(p, 1), value<double *>(p, 2), value<int32_t>(p, 3));
    });
  } else if (!strcmp(name, "finish_spread")) {
    run(gx, gy, block, [&] {
      finish_spread(value<const double *>(p, 0), value<float *>(p, 1), value<int32_t>(p, 2), value<int32_t>(p, 3),
                    value<int32_t>(p, 4));
    });
  } else {
    return 1;
  }
  return 0;
}

// The same for arguments packed one after another, each aligned to its size.
extern "C" int run_packed(const char *name, unsigned gx, unsigned gy, unsigned block, const char *packed) {
  const char *signature = !strcmp(name, "sample_patches")  ? "PPPPii"
                          : !strcmp(name, "add_up_spread") ? "PPPi"
                          : !strcmp(name, "finish_spread") ? "PPiii"
                                                           : "";
  void *parameters[8];
  int count = 0;
  size_t at = 0;
  for (; signature[count]; count++) {
    const size_t size = signature[count] == 'P' ? 8 : 4;
    at = (at + size - 1) / size * size;
    parameters[count] = (void *)(packed + at);
    at += size;
  }
  return run_kernel(name, gx, gy, block, parameters);
}
