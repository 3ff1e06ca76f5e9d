// The kernels' names in Python, and which tensors they know: float32 on CPUs, without gaps in memory.

#include "kernels.h"

#include <ATen/autocast_mode.h>

namespace {

bool dense(const Tensor& values) {
  return values.scalar_type() == at::kFloat && values.is_cpu() &&
         (values.is_contiguous() || values.is_contiguous(at::MemoryFormat::ChannelsLast));
}

bool in_rows(const Tensor& values) { return dense(values) && values.is_contiguous(at::MemoryFormat::ChannelsLast); }

// Under autocast a layer computes in 16 bits.
bool computes_layer(const Tensor& codes, const Tensor& weight) {
  return dense(codes) && dense(weight) && !at::autocast::is_autocast_enabled(at::kCPU);
}

}  // namespace

using release = py::call_guard<py::gil_scoped_release>;  // as torch's own operations do

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("dense", &dense);
  m.def("in_rows", &in_rows);
  m.def("computes_layer", &computes_layer);
  m.def("codes_of", &codes_of, release());
  m.def("gated_codes", &gated_codes, release());
  m.def("quantized", &quantized, release());
  m.def("quantized_layer", &quantized_layer, release());
}
