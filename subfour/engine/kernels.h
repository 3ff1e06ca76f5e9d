// What the kernels share.
#pragma once

#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <cmath>
#include <vector>

constexpr int64_t kRowsPerSum = 256;  // float sums over so many rows, double beyond
constexpr int64_t kGrain = 16384;     // elements that are worth a thread

inline float clipped(float value, float low, float high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

at::Tensor gated(const at::Tensor& x, const at::Tensor& slopes, double shift, double lowest, double highest);

std::tuple<at::Tensor, at::Tensor, double> gated_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& slopes,
                                                          double shift, double low, double high);
