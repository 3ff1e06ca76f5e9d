"""The folded engine's functions in C++, compiled where it runs: fewer passes over each tensor, fewer calls, less memory.

They compute what the Python files of the same names and `ops/affine.py` define, for float32 on CPUs; anything else falls back to
those. The compiler is called once, by torch, and the result kept in torch's cache of extensions: about two minutes. Without a
compiler the engine is the folded one, and a warning says so.
"""

import hashlib
import logging
from functools import cache
from pathlib import Path

from torch import Tensor

from subfour.engine.codes import Behind, Statistics, codes_of
from subfour.engine.folded import TORCH, CodesLayer, Operations, quantized_layer
from subfour.engine.gates import gated_codes
from subfour.environment import cpu_model
from subfour.layers import QuantConv2d
from subfour.ops import QuantParams, quantize_ste

logger = logging.getLogger(__name__)

SOURCES = ("kernels.cpp", "codes.cpp", "gates.cpp", "weights.cpp")

FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]


@cache
def compiled_operations() -> Operations:
    """Return the compiled operations; those of torch, with a warning, where nothing can be compiled."""
    # With CUDA's compiler on a machine without a GPU, importing says that no CUDA is found: nobody asked for it.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.cpp_extension import load  # noqa: PLC0415 (slow to import, and it looks for a compiler)

    logger.info("engine: loading the kernels; the first time they are compiled, which takes a minute or two")
    try:
        kernels = load(
            f"subfour_kernels_{_machine()}", [str(Path(__file__).with_name(name)) for name in SOURCES], extra_cflags=FLAGS
        )
    except (OSError, RuntimeError, ImportError) as error:
        logger.warning("engine: compiled is not possible here, folded is used: %s", error)
        return TORCH

    def codes(values: Tensor, gamma: Tensor, beta: Tensor, statistics: Statistics, behind: Behind) -> Tensor:
        if not kernels.in_rows(values):
            return codes_of(values, gamma, beta, statistics, behind)
        params = behind.params
        return kernels.codes_of(  # type: ignore[no-any-return]
            values,
            gamma,
            beta,
            params.pre_scale,
            statistics.running_mean,
            statistics.running_var,
            statistics.of_batch,
            statistics.momentum,
            statistics.eps,
            behind.activation,
            _ends(params),
            params.offset,
        )

    def on_codes(layer: CodesLayer, inputs: Tensor, params: QuantParams) -> Tensor:
        if params.scale.dim() or not kernels.computes_layer(inputs, layer.weight):
            return quantized_layer(layer, inputs, params)
        of_input = layer.input_params
        return kernels.quantized_layer(  # type: ignore[no-any-return]
            inputs,
            layer.weight,
            layer.bias,
            params.pre_scale,
            params.scale,
            of_input.scale,
            None if layer.takes_codes else of_input.pre_scale,
            _ends(params),
            _ends(of_input),
            of_input.offset,
            not layer.normalized,
            _moves(layer),
        )

    def quantize(values: Tensor, params: QuantParams) -> Tensor:
        if not kernels.dense(values):
            return quantize_ste(values, params)
        return kernels.quantized(values, params.pre_scale, _ends(params), params.offset)  # type: ignore[no-any-return]

    def gated(values: Tensor, gate: Tensor, params: QuantParams) -> Tensor:
        if not (kernels.in_rows(values) and kernels.dense(gate) and gate.shape == (*values.shape[:2], 1, 1)):
            return gated_codes(values, gate, params)
        return kernels.gated_codes(values, gate, params.pre_scale, _ends(params), params.offset)  # type: ignore[no-any-return]

    return Operations(codes, on_codes, quantize, gated)


def _machine() -> str:
    """Return a name of this processor: what is compiled for one must not run on another that shares the cache."""
    return hashlib.sha256(cpu_model().encode()).hexdigest()[:8]


def _ends(params: QuantParams) -> tuple[int, int]:
    """Return the smallest code and the largest."""
    return params.lowest, params.highest


def _moves(layer: CodesLayer) -> tuple[tuple[int, ...], ...]:
    """Return how a convolution moves over its input; nothing: a linear layer."""
    if not isinstance(layer, QuantConv2d):
        return ()
    assert not isinstance(layer.padding, str)
    return layer.stride, layer.padding, layer.dilation, (layer.groups,)
