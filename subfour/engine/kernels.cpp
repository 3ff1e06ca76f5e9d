// What codes.py, weights.py and quantize_ste (ops/affine.py) compute, in one or two passes over each tensor. The equations are
// there; the names are theirs. Float32 on CPUs; activations are channels_last, so that a tensor is rows of C channels.

#include "kernels.h"

namespace {

enum Kind : int64_t { kLinear = 0, kHardswish = 1 };

inline float hardswish(float y) { return y * clipped(y + 3.0f, 0.0f, 6.0f) / 6.0f; }

inline float hardswish_slope(float y) {
  float slope = y / 3.0f + 0.5f;
  slope = y < -3.0f ? 0.0f : slope;
  return y > 3.0f ? 1.0f : slope;
}

// How a channel's values become positions on the code axis, or what enters h-swish.
struct Channels {
  std::vector<float> slope, intercept, mean, inverse_std;

  Channels(const at::Tensor& scale, const at::Tensor& shift, const at::Tensor& mean_, const at::Tensor& inverse_std_) {
    const int64_t channels = scale.numel();
    const auto *s = scale.data_ptr<float>(), *t = shift.data_ptr<float>();
    const auto *m = mean_.data_ptr<float>(), *i = inverse_std_.data_ptr<float>();
    mean.assign(m, m + channels);
    inverse_std.assign(i, i + channels);
    slope.resize(channels);
    intercept.resize(channels);
    for (int64_t c = 0; c < channels; ++c) {
      slope[c] = s[c] * i[c];
      intercept[c] = t[c] - m[c] * slope[c];
    }
  }
};

// The ends within which a gradient passes, both left out, and the largest code before rounding.
struct Ends {
  float low, high, lowest, top, offset, step;
};

template <Kind kind>
inline float masked(float grad, float y, const Ends ends) {
  if (kind == kLinear) return (y > ends.low) & (y < ends.high) ? grad : 0.0f;
  const float activated = hardswish(y);
  return (activated > ends.low) & (activated < ends.high) ? grad : 0.0f;
}

template <Kind kind>
inline float slope_at(float y) {
  return kind == kLinear ? 1.0f : hardswish_slope(y);
}

template <Kind kind>
void write_codes(const float* x, float* codes, int64_t rows, const Channels& per, const Ends ends) {
  const int64_t channels = per.slope.size();
  at::parallel_for(0, rows, std::max<int64_t>(kGrain / channels, 1), [&, ends](int64_t begin, int64_t end) {
    const float *slope = per.slope.data(), *intercept = per.intercept.data();
    for (int64_t row = begin; row < end; ++row) {
      const float* __restrict in = x + row * channels;
      float* __restrict out = codes + row * channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) {
        const float y = in[c] * slope[c] + intercept[c];
        const float position = kind == kLinear ? y : (hardswish(y) - ends.offset) / ends.step;
        out[c] = std::rint(clipped(position, ends.lowest, ends.top));
      }
    }
  });
}

// Sums over all rows: of the gradient g m act' per channel, of the same times xhat, and the two that the step needs.
struct Sums {
  std::vector<double> grad, grad_xhat;
  double beyond = 0.0;  // linear: g where u > the largest; h-swish: g m (v - d)
};

template <Kind kind>
Sums summed(const float* x, const float* g, int64_t rows, const Channels& per, const Ends ends) {
  const int64_t channels = per.slope.size(), parts = at::get_num_threads();
  std::vector<Sums> partial(parts);
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      Sums& sums = partial[part];
      sums.grad.assign(channels, 0.0);
      sums.grad_xhat.assign(channels, 0.0);
      std::vector<float> plain(channels), times_x(channels), other(channels);
      float *p = plain.data(), *q = times_x.data(), *o = other.data();
      const float *slope = per.slope.data(), *intercept = per.intercept.data(), *mean = per.mean.data();
      for (int64_t start = rows * part / parts, stop = rows * (part + 1) / parts; start < stop; start += kRowsPerSum) {
        std::fill(plain.begin(), plain.end(), 0.0f);
        std::fill(times_x.begin(), times_x.end(), 0.0f);
        std::fill(other.begin(), other.end(), 0.0f);
        for (int64_t row = start; row < std::min(start + kRowsPerSum, stop); ++row) {
          const float *__restrict in = x + row * channels, *__restrict grad = g + row * channels;
#pragma GCC ivdep
          for (int64_t c = 0; c < channels; ++c) {
            const float y = in[c] * slope[c] + intercept[c], inside = masked<kind>(grad[c], y, ends);
            const float passed = inside * slope_at<kind>(y);
            p[c] += passed;
            q[c] += passed * (in[c] - mean[c]);
            o[c] += kind == kLinear ? (y > ends.high ? grad[c] : 0.0f) : inside * (hardswish(y) - ends.offset);
          }
        }
        for (int64_t c = 0; c < channels; ++c) {
          sums.grad[c] += p[c];
          sums.grad_xhat[c] += double(q[c]) * per.inverse_std[c];
          sums.beyond += o[c];
        }
      }
    }
  });
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t c = 0; c < channels; ++c) {
      partial[0].grad[c] += partial[part].grad[c];
      partial[0].grad_xhat[c] += partial[part].grad_xhat[c];
    }
    partial[0].beyond += partial[part].beyond;
  }
  return partial[0];
}

template <Kind kind>
void write_gradient(const float* x, const float* g, float* dx, int64_t rows, const Channels& per, const Ends ends,
                    const Sums* sums, float factor) {
  const int64_t channels = per.slope.size();
  // dx = slope (passed - mean(passed) - xhat mean(passed xhat)) = gain passed + a + b x
  std::vector<float> gain(channels), constant(channels), linear(channels);
  for (int64_t c = 0; c < channels; ++c) {
    gain[c] = per.slope[c] * factor;
    const double mean_grad = sums ? sums->grad[c] / rows : 0.0, mean_xhat = sums ? sums->grad_xhat[c] / rows : 0.0;
    linear[c] = -gain[c] * mean_xhat * per.inverse_std[c];
    constant[c] = -gain[c] * mean_grad - double(linear[c]) * per.mean[c];
  }
  at::parallel_for(0, rows, std::max<int64_t>(kGrain / channels, 1), [&, ends](int64_t begin, int64_t end) {
    const float *slope = per.slope.data(), *intercept = per.intercept.data();
    const float *up = gain.data(), *a = constant.data(), *b = linear.data();
    for (int64_t row = begin; row < end; ++row) {
      const float *__restrict in = x + row * channels, *__restrict grad = g + row * channels;
      float* __restrict out = dx + row * channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) {
        const float y = in[c] * slope[c] + intercept[c];
        out[c] = up[c] * masked<kind>(grad[c], y, ends) * slope_at<kind>(y) + a[c] + b[c] * in[c];
      }
    }
  });
}

Ends ends_of(int64_t kind, double low, double high, double lowest, double top, double offset, double step) {
  return Ends{float(low), float(high), float(lowest), float(top), float(offset), float(step)};
}

}  // namespace

at::Tensor codes_forward(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, const at::Tensor& mean,
                         const at::Tensor& inverse_std, int64_t kind, std::vector<double> e) {
  auto codes = at::empty_like(x);
  const Channels per(scale, shift, mean, inverse_std);
  const Ends ends = ends_of(kind, e[0], e[1], e[2], e[3], e[4], e[5]);
  const int64_t rows = x.numel() / scale.numel();
  auto write = kind == kLinear ? write_codes<kLinear> : write_codes<kHardswish>;
  write(x.data_ptr<float>(), codes.data_ptr<float>(), rows, per, ends);
  return codes;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, double> codes_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, const at::Tensor& mean,
    const at::Tensor& inverse_std, bool of_batch, int64_t kind, std::vector<double> e) {
  auto dx = at::empty_like(x);
  const Channels per(scale, shift, mean, inverse_std);
  const Ends ends = ends_of(kind, e[0], e[1], e[2], e[3], e[4], e[5]);
  const int64_t rows = x.numel() / scale.numel();
  const auto *in = x.data_ptr<float>(), *g = grad.data_ptr<float>();
  const Sums sums = (kind == kLinear ? summed<kLinear> : summed<kHardswish>)(in, g, rows, per, ends);
  auto write = kind == kLinear ? write_gradient<kLinear> : write_gradient<kHardswish>;
  write(in, g, dx.data_ptr<float>(), rows, per, ends, of_batch ? &sums : nullptr, kind == kLinear ? 1.0f : 1.0f / ends.step);
  auto d_scale = at::empty_like(scale), d_shift = at::empty_like(shift);
  for (int64_t c = 0; c < scale.numel(); ++c) {
    d_scale.data_ptr<float>()[c] = sums.grad_xhat[c];
    d_shift.data_ptr<float>()[c] = sums.grad[c];
  }
  return {dx, d_scale, d_shift, sums.beyond};
}

// value = round(clip((x - offset) / step)) * scale: weights with offset 0, codes with scale 1.
at::Tensor rounded(const at::Tensor& x, double offset_, double step_, double lowest_, double highest_, double scale_) {
  auto result = at::empty_like(x);
  const float offset = offset_, step = step_, lowest = lowest_, highest = highest_, scale = scale_;
  const float* in = x.data_ptr<float>();
  float* out = result.data_ptr<float>();
  at::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = std::rint(clipped((in[i] - offset) / step, lowest, highest)) * scale;
  });
  return result;
}

// Returns dx = m g factor, sum(m g u) and sum(g k): u the position, k the code, m the mask low < u < high.
std::tuple<at::Tensor, double, double> rounded_backward(const at::Tensor& grad, const at::Tensor& x, double factor_,
                                                        std::vector<double> e) {
  auto dx = at::empty_like(x);
  const Ends ends = ends_of(kLinear, e[0], e[1], e[2], e[3], e[4], e[5]);
  const float factor = factor_;
  const float *in = x.data_ptr<float>(), *g = grad.data_ptr<float>();
  float* out = dx.data_ptr<float>();
  const int64_t count = x.numel(), parts = at::get_num_threads();
  std::vector<double> positions(parts, 0.0), codes(parts, 0.0);
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      constexpr int64_t lanes = 16;
      for (int64_t start = count * part / parts, stop = count * (part + 1) / parts; start < stop; start += lanes * kRowsPerSum) {
        float of_positions[lanes] = {}, of_codes[lanes] = {};
        const int64_t end = std::min(start + lanes * kRowsPerSum, stop), whole = start + (end - start) / lanes * lanes;
        auto take = [&](int64_t i, int64_t lane) {
          const float u = (in[i] - ends.offset) / ends.step, inside = (u > ends.low) & (u < ends.high) ? g[i] : 0.0f;
          const float clip = clipped(u, ends.lowest, ends.top);
          out[i] = inside * factor;
          of_positions[lane] += inside * clip;
          of_codes[lane] += g[i] * std::rint(clip);
        };
        for (int64_t i = start; i < whole; i += lanes)
          for (int64_t lane = 0; lane < lanes; ++lane) take(i + lane, lane);
        for (int64_t i = whole; i < end; ++i) take(i, i - whole);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          positions[part] += of_positions[lane];
          codes[part] += of_codes[lane];
        }
      }
    }
  });
  double sum_positions = 0.0, sum_codes = 0.0;
  for (int64_t part = 0; part < parts; ++part) {
    sum_positions += positions[part];
    sum_codes += codes[part];
  }
  return {dx, sum_positions, sum_codes};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("codes_forward", &codes_forward);
  m.def("codes_backward", &codes_backward);
  m.def("gated", &gated);
  m.def("gated_backward", &gated_backward);
  m.def("rounded", &rounded);
  m.def("rounded_backward", &rounded_backward);
}
