// What gates.py computes: one pass in each direction. Memory and numbers are those of kernels.cpp.

#include <numeric>

#include "kernels.h"

// code = round(clip(slope x - shift)), with a slope [N, C] for each image.
at::Tensor gated(const at::Tensor& x, const at::Tensor& slopes, double shift_, double lowest_, double highest_) {
  auto result = at::empty_like(x);
  const float shift = shift_, lowest = lowest_, highest = highest_;
  const int64_t images = x.size(0), channels = x.size(1), rows = x.size(2) * x.size(3);
  const float *values = x.data_ptr<float>(), *slope_of = slopes.data_ptr<float>();
  float* codes = result.data_ptr<float>();
  at::parallel_for(0, images * rows, std::max<int64_t>(kGrain / channels, 1), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float *__restrict in = values + row * channels, *__restrict slope = slope_of + row / rows * channels;
      float* __restrict out = codes + row * channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) out[c] = std::rint(clipped(in[c] * slope[c] - shift, lowest, highest));
    }
  });
  return result;
}

// Returns dx = m g slope, sum(m g x) over the places of an image [N, C], and sum(m g); low < slope x - shift < high is the mask m.
std::tuple<at::Tensor, at::Tensor, double> gated_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& slopes,
                                                          double shift_, double low_, double high_) {
  auto dx = at::empty_like(x), d_slopes = at::empty_like(slopes);
  const float shift = shift_, low = low_, high = high_;
  const int64_t images = x.size(0), channels = x.size(1), rows = x.size(2) * x.size(3);
  const auto *values = x.data_ptr<float>(), *g = grad.data_ptr<float>(), *slope_of = slopes.data_ptr<float>();
  float *d_values = dx.data_ptr<float>(), *d_slope_of = d_slopes.data_ptr<float>();
  std::vector<double> sums(images);
  at::parallel_for(0, images, 1, [&](int64_t first, int64_t last) {
    std::vector<float> some(channels), all(channels);
    std::vector<double> of_slope(channels);
    float *p = some.data(), *q = all.data();
    for (int64_t image = first; image < last; ++image) {
      const float* __restrict slope = slope_of + image * channels;
      std::fill(all.begin(), all.end(), 0.0f);
      std::fill(of_slope.begin(), of_slope.end(), 0.0);
      for (int64_t start = image * rows, stop = start + rows; start < stop; start += kRowsPerSum) {
        std::fill(some.begin(), some.end(), 0.0f);
        for (int64_t row = start; row < std::min(start + kRowsPerSum, stop); ++row) {
          const float *__restrict in = values + row * channels, *__restrict up = g + row * channels;
          float* __restrict out = d_values + row * channels;
#pragma GCC ivdep
          for (int64_t c = 0; c < channels; ++c) {
            const float u = in[c] * slope[c] - shift, inside = (u > low) & (u < high) ? up[c] : 0.0f;
            out[c] = inside * slope[c];
            p[c] += inside * in[c];
            q[c] += inside;
          }
        }
        for (int64_t c = 0; c < channels; ++c) of_slope[c] += p[c];
      }
      for (int64_t c = 0; c < channels; ++c) {
        d_slope_of[image * channels + c] = of_slope[c];
        sums[image] += q[c];
      }
    }
  });
  return {dx, d_slopes, std::accumulate(sums.begin(), sums.end(), 0.0)};
}
