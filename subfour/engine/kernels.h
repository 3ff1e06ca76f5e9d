// What the kernels share. Float32 on CPUs; what has channels in codes.cpp and gates.cpp is channels_last, rows of C channels. Each
// function is a node of autograd of its own, its gradient beside it; the head of each file says where its equations are.
#pragma once

#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Ends = std::vector<int64_t>;                // the smallest code and the largest
using Moves = std::vector<std::vector<int64_t>>;  // stride, padding, dilation and groups of a convolution; empty: a linear layer

constexpr int64_t kRowsPerSum = 256;  // float sums over so many rows, double beyond
constexpr int64_t kGrain = 16384;     // elements that are worth a thread

// Parts of a tensor that threads sum up apart: as many as there is work for.
inline int64_t parts_of(int64_t elements) { return std::clamp<int64_t>(elements / kGrain, 1, at::get_num_threads()); }

inline float clipped(float value, float low, float high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

// The neighbours of the ends of a grid: strictly between them is what lies inside (`just_outside` in ops/affine.py).
inline float below(int64_t lowest) { return std::nextafter(float(lowest), -std::numeric_limits<float>::infinity()); }
inline float above(int64_t highest) { return std::nextafter(float(highest), std::numeric_limits<float>::infinity()); }

inline double number(const Tensor& tensor) {
  TORCH_CHECK(tensor.dim() == 0, "a step or scale for the whole tensor is needed");
  return *tensor.const_data_ptr<float>();
}

inline Tensor number_like(double value, const Tensor& tensor) {
  Tensor result = at::empty(tensor.sizes(), tensor.options());
  *result.data_ptr<float>() = value;
  return result;
}

// A gradient in the memory order of the values.
inline Tensor like(const Tensor& grad, const Tensor& values) {
  return grad.strides() == values.strides() ? grad : at::empty_like(values).copy_(grad);
}

Tensor codes_of(const Tensor& values, const Tensor& gamma, const Tensor& beta, const Tensor& step, const Tensor& running_mean,
                const Tensor& running_var, bool of_batch, double momentum, double eps, const std::string& activation, Ends ends,
                double offset);

Tensor gated_codes(const Tensor& values, const Tensor& gate, const Tensor& step, Ends ends, double offset);

Tensor quantized(const Tensor& values, const Tensor& step, Ends ends, double offset);

Tensor quantized_layer(const Tensor& inputs, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& step,
                       const Tensor& scale, const Tensor& input_scale, const std::optional<Tensor>& input_step, Ends ends,
                       Ends input_ends, double offset, bool offset_trains, const Moves& moves);
