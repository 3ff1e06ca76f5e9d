// gates.py: the product with a gate straight to codes, one pass in each direction.

#include "kernels.h"

namespace {

class GatedCodes : public torch::autograd::Function<GatedCodes> {
 public:
  // code = round(clip(slope x - shift)), with a slope [N, C] for each image.
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& gate, const Tensor& step, Ends ends,
                        double offset) {
    const double p = number(step);
    const Tensor slopes = gate / p;
    Tensor codes = at::empty_like(x);
    const float shift = offset / p, lowest = ends[0], highest = ends[1];
    const int64_t images = x.size(0), channels = x.size(1), rows = x.size(2) * x.size(3);
    const float *values = x.const_data_ptr<float>(), *slope_of = slopes.const_data_ptr<float>();
    float* to = codes.data_ptr<float>();
    at::parallel_for(0, images * rows, std::max<int64_t>(kGrain / channels, 1), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float *__restrict in = values + row * channels, *__restrict slope = slope_of + row / rows * channels;
        float* __restrict out = to + row * channels;
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; ++c) out[c] = std::rint(clipped(in[c] * slope[c] - shift, lowest, highest));
      }
    });
    ctx->save_for_backward({x, gate, step});
    ctx->saved_data["ends"] = ends, ctx->saved_data["offset"] = offset;
    return codes;
  }

  // dx = m g slope; sum(m g x) over the places of an image [N, C]; sum(m g). low < slope x - shift < high is the mask m.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &gate = saved[1], &step = saved[2];
    const double p = number(step), offset = ctx->saved_data["offset"].toDouble();
    const auto ends = ctx->saved_data["ends"].to<Ends>();
    const float low = below(ends[0]), high = above(ends[1]), shift = offset / p;
    const Tensor grad = like(grads[0], x), slopes = gate / p;
    Tensor dx = at::empty_like(x), d_gate = at::empty_like(gate);
    const int64_t images = x.size(0), channels = x.size(1), rows = x.size(2) * x.size(3);
    const auto *values = x.const_data_ptr<float>(), *g = grad.const_data_ptr<float>(), *slope_of = slopes.const_data_ptr<float>();
    float *d_values = dx.data_ptr<float>(), *d_gate_of = d_gate.data_ptr<float>();
    std::vector<double> inside_sums(images), position_sums(images);
    at::parallel_for(0, images, std::max<int64_t>(kGrain / (rows * channels), 1), [&](int64_t first, int64_t last) {
      std::vector<float> some(channels), others(channels);
      std::vector<double> of_slope(channels);
      float *sums = some.data(), *q = others.data();
      for (int64_t image = first; image < last; ++image) {
        const float* __restrict slope = slope_of + image * channels;
        std::fill(of_slope.begin(), of_slope.end(), 0.0);
        for (int64_t start = image * rows, stop = start + rows; start < stop; start += kRowsPerSum) {
          std::fill(some.begin(), some.end(), 0.0f);
          std::fill(others.begin(), others.end(), 0.0f);
          for (int64_t row = start; row < std::min(start + kRowsPerSum, stop); ++row) {
            const float *__restrict in = values + row * channels, *__restrict up = g + row * channels;
            float* __restrict out = d_values + row * channels;
#pragma GCC ivdep
            for (int64_t c = 0; c < channels; ++c) {
              const float u = in[c] * slope[c] - shift, inside = (u > low) & (u < high) ? up[c] : 0.0f;
              out[c] = inside * slope[c];
              sums[c] += inside * in[c];
              q[c] += inside;
            }
          }
          for (int64_t c = 0; c < channels; ++c) of_slope[c] += sums[c], inside_sums[image] += q[c];
        }
        for (int64_t c = 0; c < channels; ++c) {
          d_gate_of[image * channels + c] = of_slope[c] / p;
          position_sums[image] += of_slope[c] * slope[c];
        }
      }
    });
    double d_step = 0.0;  // -sum(m g u) / p
    for (int64_t image = 0; image < images; ++image) d_step -= (position_sums[image] - inside_sums[image] * offset / p) / p;
    return {dx, d_gate, number_like(d_step, step), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor gated_codes(const Tensor& values, const Tensor& gate, const Tensor& step, Ends ends, double offset) {
  return GatedCodes::apply(values, gate, step, ends, offset);
}
