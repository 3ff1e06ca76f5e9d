// weights.py, `quantize_ste` (ops/affine.py), and a whole layer on codes around them (folded.py, `quantized_layer`). For backward the layer
// keeps neither the quantized weight nor codes that it made itself but makes them once more, and gradients are written over one another.

#include "kernels.h"

namespace {

constexpr double kLargestRatio = 18446744073709551616.0;  // LARGEST_RATIO in ops/affine.py

struct Grid {
  float lowest, highest, offset, step;
  float low, high;  // strictly between them lies what has a gradient

  Grid(const Ends& ends, double offset_, double step_)
      : lowest(ends[0]), highest(ends[1]), offset(offset_), step(step_), low(below(ends[0])), high(above(ends[1])) {}
};

// value = round(clip((x - offset) / step)) * scale
Tensor rounded(const Tensor& x, const Grid& grid, float scale) {
  Tensor result = at::empty_like(x);
  const float* in = x.const_data_ptr<float>();
  float* out = result.data_ptr<float>();
  at::parallel_for(0, x.numel(), kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      out[i] = std::rint(clipped((in[i] - grid.offset) / grid.step, grid.lowest, grid.highest)) * scale;
  });
  return result;
}

// The sum of each output's weights, which lie in memory one after the other.
Tensor output_sums(const Tensor& weight, float factor) {
  const int64_t outputs = weight.size(0), count = weight.numel() / outputs;
  Tensor sums = at::empty({outputs}, weight.options());
  const float* in = weight.const_data_ptr<float>();
  float* out = sums.data_ptr<float>();
  at::parallel_for(0, outputs, std::max<int64_t>(kGrain / count, 1), [=](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      constexpr int64_t lanes = 16;
      float partial[lanes] = {};
      const float* of_output = in + o * count;
      const int64_t whole = count / lanes * lanes;
      for (int64_t i = 0; i < whole; i += lanes)
        for (int64_t lane = 0; lane < lanes; ++lane) partial[lane] += of_output[i + lane];
      for (int64_t i = whole; i < count; ++i) partial[i - whole] += of_output[i];
      float sum = 0.0f;
      for (float some : partial) sum += some;
      out[o] = sum * factor;
    }
  });
  return sums;
}

struct Products {
  double positions = 0.0, codes = 0.0;  // sum(m g u), sum(g k): u the position, k the code, m the mask
};

// Writes m g factor to `out`, which may be the gradient itself.
Products rounded_backward(const Tensor& grad, const Tensor& x, const Grid& grid, float factor, const Tensor& result) {
  const float *in = x.const_data_ptr<float>(), *g = grad.const_data_ptr<float>();
  float* out = result.data_ptr<float>();
  const int64_t count = x.numel(), parts = parts_of(count);
  std::vector<Products> partial(parts);
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      constexpr int64_t lanes = 16;
      for (int64_t start = count * part / parts, stop = count * (part + 1) / parts; start < stop; start += lanes * kRowsPerSum) {
        float of_positions[lanes] = {}, of_codes[lanes] = {};
        const int64_t end = std::min(start + lanes * kRowsPerSum, stop), whole = start + (end - start) / lanes * lanes;
        auto take = [&](int64_t i, int64_t lane) {
          const float upstream = g[i], u = (in[i] - grid.offset) / grid.step, inside = (u > grid.low) & (u < grid.high) ? upstream : 0.0f;
          const float clip = clipped(u, grid.lowest, grid.highest);
          out[i] = inside * factor;
          of_positions[lane] += inside * clip;
          of_codes[lane] += upstream * std::rint(clip);
        };
        for (int64_t i = start; i < whole; i += lanes)
#pragma GCC ivdep
          for (int64_t lane = 0; lane < lanes; ++lane) take(i + lane, lane);
        for (int64_t i = whole; i < end; ++i) take(i, i - whole);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          partial[part].positions += of_positions[lane];
          partial[part].codes += of_codes[lane];
        }
      }
    }
  });
  Products sums;
  for (const Products& some : partial) sums.positions += some.positions, sums.codes += some.codes;
  return sums;
}

class Quantized : public torch::autograd::Function<Quantized> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& values, const Tensor& step, Ends ends, double offset) {
    ctx->save_for_backward({values, step});
    ctx->saved_data["ends"] = ends, ctx->saved_data["offset"] = offset;
    return rounded(values, Grid(ends, offset, number(step)), 1.0f);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &values = saved[0], &step = saved[1];
    const double p = number(step), ratio = std::min(1.0 / p, kLargestRatio);
    const Grid grid(ctx->saved_data["ends"].to<Ends>(), ctx->saved_data["offset"].toDouble(), p);
    Tensor d_values = at::empty_like(values);
    const Products sums = rounded_backward(like(grads[0], values), values, grid, ratio, d_values);
    return {d_values, number_like(-sums.positions * ratio, step), Tensor(), Tensor()};
  }
};

// conv(codes, s c k) + bias + d sum(s k); without a stride it is a matrix product. s, c: scales of weight and input; k: weight codes;
// d: offset of the input. With an `input_step` values come in, and their codes are made here.
class QuantizedLayer : public torch::autograd::Function<QuantizedLayer> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& inputs, const Tensor& weight, const std::optional<Tensor>& bias,
                        const Tensor& step, const Tensor& scale, const Tensor& input_scale, const std::optional<Tensor>& input_step,
                        Ends ends, Ends input_ends, double offset, bool offset_trains, const Moves& moves) {
    const double s = number(scale), c = number(input_scale);
    const Tensor codes = input_step ? rounded(inputs, Grid(input_ends, offset, number(*input_step)), 1.0f) : inputs;
    const Tensor result = rounded(weight, Grid(ends, 0.0, number(step)), s * c);
    std::optional<Tensor> addend = bias;
    Tensor shift;
    if (offset != 0.0) {
      shift = output_sums(result, offset / c);
      addend = bias ? *bias + shift : shift;
    }
    ctx->save_for_backward(
        {inputs, weight, step, scale, input_scale, input_step.value_or(Tensor()), offset_trains ? shift : Tensor()});
    ctx->saved_data["ends"] = ends, ctx->saved_data["input_ends"] = input_ends, ctx->saved_data["offset"] = offset;
    ctx->saved_data["moves"] = moves, ctx->saved_data["bias"] = bias.has_value();
    if (moves.empty()) return at::linear(codes, result, addend);
    return at::conv2d(codes, result, addend, moves[0], moves[1], moves[2], moves[3][0]);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &inputs = saved[0], &weight = saved[1], &input_step = saved[5], &shift = saved[6], &grad = grads[0];
    const double p = number(saved[2]), s = number(saved[3]), c = number(saved[4]), offset = ctx->saved_data["offset"].toDouble();
    const Grid grid(ctx->saved_data["ends"].to<Ends>(), 0.0, p);
    const auto moves = ctx->saved_data["moves"].to<Moves>();
    const bool made_here = input_step.defined(), inputs_train = ctx->needs_input_grad(0) || made_here;
    const bool bias_trains = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2), summed = bias_trains || shift.defined();
    const Grid input_grid(ctx->saved_data["input_ends"].to<Ends>(), offset, made_here ? number(input_step) : 1.0);
    const Tensor codes = made_here ? rounded(inputs, input_grid, 1.0f) : inputs;
    const Tensor result = inputs_train ? rounded(weight, grid, s * c) : weight;
    Tensor d_codes, d_weight, d_bias;
    if (moves.empty()) {
      const Tensor rows = grad.reshape({-1, grad.size(-1)});
      if (inputs_train) d_codes = at::matmul(grad, result);
      d_weight = at::mm(rows.t(), codes.reshape({-1, codes.size(-1)}));
      if (summed) d_bias = rows.sum(0);
    } else {
      std::tie(d_codes, d_weight, d_bias) =
          at::convolution_backward(grad, codes, result, at::IntArrayRef{weight.size(0)}, moves[0], moves[1], moves[2], false, {0, 0},
                                   moves[3][0], {inputs_train, true, summed});
    }
    double of_shift = 0.0;  // what sum(g k) has of the offset, whose part of the output does not depend on c
    if (shift.defined()) {
      std::vector<int64_t> per_output(weight.dim(), 1);
      per_output[0] = -1;
      d_weight.add_((d_bias * (offset / c)).view(per_output));
      of_shift = at::dot(d_bias, shift).item<double>() / (s * c);
    }
    d_weight = like(d_weight, weight);
    const double ratio = std::min(s * c / p, kLargestRatio);
    const Products sums = rounded_backward(d_weight, weight, grid, ratio, d_weight);
    variable_list gradients(12);
    if (made_here) {
      d_codes = like(d_codes, inputs);
      const double input_ratio = std::min(1.0 / number(input_step), kLargestRatio);
      const Products of_inputs = rounded_backward(d_codes, inputs, input_grid, input_ratio, d_codes);
      gradients[6] = number_like(-of_inputs.positions * input_ratio, input_step);
    }
    gradients[0] = d_codes, gradients[1] = d_weight;
    if (bias_trains) gradients[2] = d_bias;
    gradients[3] = number_like(-sums.positions * ratio, saved[2]);
    gradients[4] = number_like(sums.codes * c, saved[3]);
    gradients[5] = number_like((sums.codes - of_shift) * s, saved[4]);
    return gradients;
  }
};

}  // namespace

Tensor quantized(const Tensor& values, const Tensor& step, Ends ends, double offset) {
  return Quantized::apply(values, step, ends, offset);
}

Tensor quantized_layer(const Tensor& inputs, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& step,
                       const Tensor& scale, const Tensor& input_scale, const std::optional<Tensor>& input_step, Ends ends,
                       Ends input_ends, double offset, bool offset_trains, const Moves& moves) {
  return QuantizedLayer::apply(inputs, weight, bias, step, scale, input_scale, input_step, ends, input_ends, offset, offset_trains,
                               moves);
}
