// The kernel's own source, compiled for the host and run thread by thread. It shows wrong indices and wrong sums;
// it does not show races.
struct Index { unsigned x, y, z; };
static thread_local Index threadIdx, blockIdx, blockDim;
#define __global__
#define __device__
#include KERNEL

extern "C" void run(unsigned blocks, unsigned patches, unsigned block, const void *images, const void *taps,
                    const void *corners, void *out, int size, int per_image) {
  blockDim = {block, 1, 1};
  for (unsigned y = 0; y < patches; y++)
    for (unsigned x = 0; x < blocks; x++)
      for (unsigned t = 0; t < block; t++) {
        blockIdx = {x, y, 0};
        threadIdx = {t, 0, 0};
        sample_patches((const Image *)images, (const Taps *)taps, (const int32_t *)corners, (uint8_t *)out, size, per_image);
      }
}
