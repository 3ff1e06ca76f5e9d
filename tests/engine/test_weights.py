import torch
from hypothesis import given
from hypothesis import strategies as st

from subfour.engine.weights import scaled_weight
from subfour.ops import IntegerGrid, QuantParams, fake_quantize

sizes = st.floats(0.1, 3.0)


@given(st.integers(2, 8), st.tuples(sizes, sizes, sizes), st.booleans(), st.booleans(), st.integers(0, 99))
def test_a_scaled_weight_is_the_quantized_weight_times_the_scale(
    bits: int, constants: tuple[float, float, float], per_channel: bool, channels_last: bool, seed: int
):
    """With all four gradients, whatever the memory order of weight and gradient."""
    generator, grid = torch.Generator().manual_seed(seed), IntegerGrid.signed_narrow(bits)
    input_range, output_range, input_scale = constants
    weight = 2 * torch.randn(6, 4, 3, 3, generator=generator, dtype=torch.float64)
    weight = weight.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    outer = torch.randn(6, 4, 3, 3, generator=generator, dtype=torch.float64)
    shape = (6, 1, 1, 1) if per_channel else ()
    results = []
    for compute in (
        scaled_weight,
        lambda weight, params, input_scale: fake_quantize(weight, params) * input_scale,
    ):
        leaves = [
            weight.clone(),
            torch.full(shape, input_range / grid.qmax),
            torch.full(shape, output_range / grid.qmax),
            torch.tensor(input_scale),
        ]
        leaves = [leaf.double().requires_grad_() for leaf in leaves]
        result = compute(leaves[0], QuantParams(grid, leaves[1], leaves[2]), leaves[3])
        results.append((result, *torch.autograd.grad(result, leaves, outer)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
