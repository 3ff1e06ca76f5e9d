import pytest
import torch
import training_rivals as rivals
from torch import nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.layers import quant_layers
from tests.convert.stock_networks import random_images, stock_network
from tests.profit.quantized_networks import TINY, quantized


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_trains_every_layer_on_few_levels(name: str):
    """Its weights take at most 15 values, and weights and steps have gradients."""
    if name in rivals.missing():
        pytest.skip(f"needs {rivals.missing()[name]}")
    network = rivals.rival_network(stock_network(TINY), name).train()
    F.cross_entropy(network(random_images(4, 32)), torch.arange(4)).backward()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == len(quant_layers(quantized(stock_network(TINY), 4)))
    assert all(layer.weight.grad is not None and layer.weight.grad.isfinite().all() for layer in layers)
    for module in network.modules():
        if isinstance(module, rivals.RivalLayer):
            assert module.weights(module.layer.weight).unique().numel() <= 15
            assert all(parameter.grad is not None for parameter in module.weights.parameters() if parameter.requires_grad)


def test_the_eager_duq_computes_what_ours_does():
    """The same function, so that only the way it is computed is compared."""
    eager = rivals.EagerDuQ(0, 15, -0.375)
    model = quantized(stock_network(TINY), 4)
    quantizer = next(layer.activation_quantizer for layer in quant_layers(model).values() if layer.activation_quantizer.offset)
    with torch.no_grad():
        eager.a.copy_(quantizer.input_range_raw)
        eager.c.copy_(quantizer.output_range_raw)
    values = torch.linspace(-0.375, 3.0, 1000)
    torch.testing.assert_close(eager(values), quantizer(values), rtol=1e-5, atol=1e-5)
