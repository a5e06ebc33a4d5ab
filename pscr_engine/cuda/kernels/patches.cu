// Patches of a batch of decoded images of any sizes, in one launch: uint8 HWC images -> uint8 [patches, P, P, 3].
//
// Each thread writes four consecutive bytes of a patch, so a warp writes 128 and reads as many from one or two rows of
// the image: both coalesced. An image with a side below P is enlarged on the fly, as Pillow's bilinear resize does it,
// to the bit: first along rows, rounded to 8 bits, then along columns, both with integer weights.

#include <stdint.h>

// Where an image is, and how it is enlarged. The same layout as pscr_engine/cuda/sampler.py's IMAGE.
struct Image {
  uint64_t pixels;  // device address of row 0
  int64_t pitch;    // bytes from row to row
  int64_t columns;  // index of the first horizontal Taps; -1 if the image is taken as it is
  int64_t rows;     // index of the first vertical Taps
};

// The weighted pixels that one enlarged pixel is made of: at most three when enlarging.
struct Taps {
  int32_t first;
  int32_t weights[3];  // in 1/2^22; unused ones are 0
};

static const int kBits = 22;  // as in Pillow: 32 bits less 8 of the pixel and 2 of slack

__device__ static uint8_t rounded(int32_t sum) {
  int32_t value = sum >> kBits;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

// Channel `c` at column `x` of the enlarged row that is made of the image's row `y`.
__device__ static uint8_t across(const Image &image, const Taps *taps, int y, int x, int c) {
  const Taps &column = taps[image.columns + x];
  const uint8_t *pixel = (const uint8_t *)image.pixels + y * image.pitch + 3 * (int64_t)column.first + c;
  int32_t sum = 1 << (kBits - 1);
  for (int i = 0; i < 3; i++)
    if (column.weights[i]) sum += column.weights[i] * (int32_t)pixel[3 * i];
  return rounded(sum);
}

__device__ static uint8_t value_at(const Image &image, const Taps *taps, int y, int x, int c) {
  if (image.columns < 0) return ((const uint8_t *)image.pixels)[y * image.pitch + 3 * (int64_t)x + c];
  const Taps &row = taps[image.rows + y];
  int32_t sum = 1 << (kBits - 1);
  for (int i = 0; i < 3; i++)
    if (row.weights[i]) sum += row.weights[i] * (int32_t)across(image, taps, row.first + i, x, c);
  return rounded(sum);
}

// Grid: (ceil(P·P·3 / 4 / block), patches). `corners`: top and left of every patch, D after another per image.
extern "C" __global__ void sample_patches(const Image *__restrict__ images, const Taps *__restrict__ taps,
                                          const int32_t *__restrict__ corners, uint8_t *__restrict__ out, int32_t size,
                                          int32_t per_image) {
  const int row_bytes = 3 * size, patch_bytes = row_bytes * size;
  const int start = 4 * (blockIdx.x * blockDim.x + threadIdx.x), patch = blockIdx.y;
  if (start >= patch_bytes) return;
  const Image image = images[patch / per_image];
  const int top = corners[2 * patch], left = corners[2 * patch + 1];
  uint8_t bytes[4];
  const int count = patch_bytes - start < 4 ? patch_bytes - start : 4;
  for (int i = 0; i < count; i++) {
    const int y = (start + i) / row_bytes, byte = (start + i) % row_bytes;
    bytes[i] = value_at(image, taps, top + y, left + byte / 3, byte % 3);
  }
  uint8_t *target = out + (int64_t)patch * patch_bytes + start;
  if (count == 4 && ((uintptr_t)target & 3) == 0) {
    *(uint32_t *)target = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
  } else {
    for (int i = 0; i < count; i++) target[i] = bytes[i];
  }
}
