// codes.py: batch norm, activation and quantizer, in one pass forward after the statistics and two backward.

#include "kernels.h"

namespace {

enum Kind : int64_t { kLinear = 0, kHardswish = 1 };

inline float hardswish(float y) { return y * clipped(y + 3.0f, 0.0f, 6.0f) / 6.0f; }

inline float hardswish_slope(float y) {
  float slope = y / 3.0f + 0.5f;
  slope = y < -3.0f ? 0.0f : slope;
  return y > 3.0f ? 1.0f : slope;
}

// How a channel's values become positions on the code axis, or what enters h-swish: [5, C], kept for backward.
struct Channels {
  const float *slope, *intercept, *mean, *inverse_std, *scale;
  int64_t count;

  explicit Channels(const Tensor& rows) : count(rows.size(1)) {
    const float* first = rows.const_data_ptr<float>();
    slope = first, intercept = first + count, mean = first + 2 * count, inverse_std = first + 3 * count, scale = first + 4 * count;
  }
};

// With `divisor` the step where scale and shift of the batch norm take it in, else 1.
Tensor channels_of(const Tensor& gamma, const Tensor& beta, const Tensor& mean, const Tensor& variance, double eps, double offset,
                   double divisor) {
  const int64_t count = gamma.numel();
  Tensor rows = at::empty({5, count}, gamma.options());
  float* to = rows.data_ptr<float>();
  const auto *g = gamma.const_data_ptr<float>(), *b = beta.const_data_ptr<float>();
  const auto *m = mean.const_data_ptr<float>(), *v = variance.const_data_ptr<float>();
  for (int64_t c = 0; c < count; ++c) {
    const float inverse_std = 1.0 / std::sqrt(double(v[c]) + eps), scale = g[c] / divisor, slope = scale * inverse_std;
    to[c] = slope;
    to[count + c] = (b[c] - offset) / divisor - double(m[c]) * slope;
    to[2 * count + c] = m[c];
    to[3 * count + c] = inverse_std;
    to[4 * count + c] = scale;
  }
  return rows;
}

// The ends within which a gradient passes, both left out, and the largest code before rounding.
struct Bounds {
  float low, high, lowest, top, offset, step;
};

template <Kind kind>
inline float masked(float grad, float y, const Bounds ends) {
  if (kind == kLinear) return (y > ends.low) & (y < ends.high) ? grad : 0.0f;
  const float activated = hardswish(y);
  return (activated > ends.low) & (activated < ends.high) ? grad : 0.0f;
}

template <Kind kind>
inline float slope_at(float y) {
  return kind == kLinear ? 1.0f : hardswish_slope(y);
}

template <Kind kind>
void write_codes(const float* x, float* codes, int64_t rows, const Channels& per, const Bounds ends) {
  const int64_t channels = per.count;
  at::parallel_for(0, rows, std::max<int64_t>(kGrain / channels, 1), [&, ends](int64_t begin, int64_t end) {
    const float *slope = per.slope, *intercept = per.intercept;
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
Sums summed(const float* x, const float* g, int64_t rows, const Channels& per, const Bounds ends) {
  const int64_t channels = per.count, parts = parts_of(rows * channels);
  std::vector<Sums> partial(parts);
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      Sums& sums = partial[part];
      sums.grad.assign(channels, 0.0);
      sums.grad_xhat.assign(channels, 0.0);
      std::vector<float> plain(channels), times_x(channels), other(channels);
      float *p = plain.data(), *q = times_x.data(), *o = other.data();
      const float *slope = per.slope, *intercept = per.intercept, *mean = per.mean;
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
void write_gradient(const float* x, const float* g, float* dx, int64_t rows, const Channels& per, const Bounds ends,
                    const Sums* sums, float factor) {
  const int64_t channels = per.count;
  // dx = slope (passed - mean(passed) - xhat mean(passed xhat)) = gain passed + a + b x
  std::vector<float> gain(channels), constant(channels), linear(channels);
  for (int64_t c = 0; c < channels; ++c) {
    gain[c] = per.slope[c] * factor;
    const double mean_grad = sums ? sums->grad[c] / rows : 0.0, mean_xhat = sums ? sums->grad_xhat[c] / rows : 0.0;
    linear[c] = -gain[c] * mean_xhat * per.inverse_std[c];
    constant[c] = -gain[c] * mean_grad - double(linear[c]) * per.mean[c];
  }
  at::parallel_for(0, rows, std::max<int64_t>(kGrain / channels, 1), [&, ends](int64_t begin, int64_t end) {
    const float *slope = per.slope, *intercept = per.intercept;
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

// Whether the activation ends below the largest code: decided once, in double, because in float32 the two may be the same.
bool saturates(const std::string& activation, double step, int64_t highest) { return activation == "relu6" && 6.0 / step < highest; }

Bounds bounds_of(Kind kind, const std::string& activation, double step, const Ends& codes, double offset) {
  const int64_t lowest = codes[0], highest = codes[1];
  if (kind == kHardswish)  // u > lowest is v > lowest p + d
    return {float(step * lowest + offset), float(step * highest + offset), float(lowest), float(highest), float(offset), float(step)};
  const float low = activation == "identity" ? below(lowest) : 0.0f;
  if (saturates(activation, step, highest))
    return {low, float(6.0 / step), float(lowest), float(6.0 / step), float(offset), float(step)};
  return {low, above(highest), float(lowest), float(highest), float(offset), float(step)};
}

class CodesOf : public torch::autograd::Function<CodesOf> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& step,
                        const Tensor& running_mean, const Tensor& running_var, bool of_batch, double momentum, double eps,
                        const std::string& activation, Ends code_ends, double offset) {
    const Kind kind = activation == "hardswish" ? kHardswish : kLinear;
    Tensor mean = running_mean, variance = running_var;
    if (of_batch) std::tie(mean, variance) = at::batch_norm_update_stats(x, running_mean, running_var, momentum);
    const double p = number(step);
    const Tensor rows = channels_of(gamma, beta, mean, variance, eps, kind == kLinear ? offset : 0.0, kind == kLinear ? p : 1.0);
    const Bounds ends = bounds_of(kind, activation, p, code_ends, offset);
    Tensor codes = at::empty_like(x);
    auto write = kind == kLinear ? write_codes<kLinear> : write_codes<kHardswish>;
    write(x.const_data_ptr<float>(), codes.data_ptr<float>(), x.numel() / gamma.numel(), Channels(rows), ends);
    ctx->save_for_backward({x, rows, step});
    ctx->saved_data["of_batch"] = of_batch;
    ctx->saved_data["hardswish"] = kind == kHardswish;
    ctx->saved_data["saturates"] = saturates(activation, p, code_ends[1]);
    ctx->saved_data["ends"] = std::vector<double>{ends.low, ends.high, ends.lowest, ends.top, ends.offset, ends.step};
    return codes;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &step = saved[2];
    const Channels per(saved[1]);
    const auto e = ctx->saved_data["ends"].toDoubleVector();
    const Bounds ends{float(e[0]), float(e[1]), float(e[2]), float(e[3]), float(e[4]), float(e[5])};
    const bool linear = !ctx->saved_data["hardswish"].toBool();
    const int64_t rows = x.numel() / per.count;
    const Tensor grad = like(grads[0], x);
    Tensor dx = at::empty_like(x), d_gamma = at::empty({per.count}, x.options()), d_beta = at::empty_like(d_gamma);
    const auto *in = x.const_data_ptr<float>(), *g = grad.const_data_ptr<float>();
    const Sums sums = (linear ? summed<kLinear> : summed<kHardswish>)(in, g, rows, per, ends);
    auto write = linear ? write_gradient<kLinear> : write_gradient<kHardswish>;
    write(in, g, dx.data_ptr<float>(), rows, per, ends, ctx->saved_data["of_batch"].toBool() ? &sums : nullptr,
          linear ? 1.0f : 1.0f / ends.step);
    const double p = ends.step;
    double d_step = linear ? (ctx->saved_data["saturates"].toBool() ? -sums.beyond * ends.high / p : 0.0) : -sums.beyond / (p * p);
    for (int64_t c = 0; c < per.count; ++c) {
      d_gamma.data_ptr<float>()[c] = sums.grad_xhat[c] / p;
      d_beta.data_ptr<float>()[c] = sums.grad[c] / p;
      const double shift = per.intercept[c] + double(per.mean[c]) * per.slope[c];
      if (linear) d_step -= (sums.grad_xhat[c] * per.scale[c] + sums.grad[c] * shift) / p;
    }
    variable_list gradients(12);
    gradients[0] = dx, gradients[1] = d_gamma, gradients[2] = d_beta, gradients[3] = number_like(d_step, step);
    return gradients;
  }
};

}  // namespace

Tensor codes_of(const Tensor& values, const Tensor& gamma, const Tensor& beta, const Tensor& step, const Tensor& running_mean,
                const Tensor& running_var, bool of_batch, double momentum, double eps, const std::string& activation, Ends ends,
                double offset) {
  return CodesOf::apply(values, gamma, beta, step, running_mean, running_var, of_batch, momentum, eps, activation, ends, offset);
}
