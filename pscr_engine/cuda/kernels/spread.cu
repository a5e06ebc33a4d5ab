// The spread over exemplars of each image's scores: float32 [B, M] -> float32 [B].
//
// Two launches instead of barriers: sums of squares in `lanes` strides per image, then one thread per image adds those up.
// In double, around the mean that the engine has computed already: for thousands of exemplars, float sums would show.

#include <math.h>
#include <stdint.h>

// Grid: (1, images); one thread per lane. `sums`: double [images, lanes, 2].
extern "C" __global__ void add_up_spread(const float *__restrict__ scores, const float *__restrict__ means,
                                         double *__restrict__ sums, int32_t exemplars) {
  const int image = blockIdx.y, lane = threadIdx.x, lanes = blockDim.x;
  const float *row = scores + (int64_t)image * exemplars;
  const double mean = means[image];
  double first = 0, second = 0;
  for (int i = lane; i < exemplars; i += lanes) {
    const double difference = row[i] - mean;
    first += difference;
    second += difference * difference;
  }
  double *out = sums + 2 * ((int64_t)image * lanes + lane);
  out[0] = first;
  out[1] = second;
}

// Grid: (ceil(images / block), 1).
extern "C" __global__ void finish_spread(const double *__restrict__ sums, float *__restrict__ deviations, int32_t images,
                                         int32_t lanes, int32_t exemplars) {
  const int image = blockIdx.x * blockDim.x + threadIdx.x;
  if (image >= images) return;
  double first = 0, second = 0;
  for (int lane = 0; lane < lanes; lane++) {
    first += sums[2 * ((int64_t)image * lanes + lane)];
    second += sums[2 * ((int64_t)image * lanes + lane) + 1];
  }
  // The given mean is a rounded one: what it is off by is taken out again.
  const double off = first / exemplars, variance = second / exemplars - off * off;
  deviations[image] = (float)sqrt(variance < 0 ? 0 : variance);
}
