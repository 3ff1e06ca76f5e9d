import math

import pytest
import torch

from subfour.layers import quant_layers
from subfour.profit.dampening import Dampening, distance_to_centres
from subfour.quantizers import QUANTIZER_PAIRS, LSQWeight, QuantizerName
from tests.profit.quantized_networks import tiny


def test_a_case_by_hand():
    """S = 1, codes -2 .. 1: distances 0.3, 0.4, and none where the weight is clipped; the gradient draws to the centre."""
    quantizer = LSQWeight()
    quantizer.bits = 2
    with torch.no_grad():
        quantizer.step.fill_(1.0)
    weight = torch.tensor([0.3, -0.6, 5.0, -9.0], requires_grad=True)
    loss = distance_to_centres(weight, quantizer)
    assert loss.item() == pytest.approx(0.09 + 0.16)
    loss.backward()
    assert weight.grad.tolist() == pytest.approx([0.6, 0.8, 0, 0])
    assert quantizer.step.grad is None


@pytest.mark.parametrize("quantizer", QUANTIZER_PAIRS)
def test_weights_at_the_centres_of_their_bins_have_no_penalty(quantizer: QuantizerName):
    """Whatever the quantizer; elsewhere they have one."""
    model = tiny(3, quantizer=quantizer)
    dampening = Dampening(model, 0.5)
    dampening.share_done = 0.5
    assert dampening.penalty() > 1e-6
    with torch.no_grad():
        for layer in quant_layers(model).values():
            layer.weight.copy_(layer.weight_quantizer.bin_centres(layer.weight_quantizer.codes(layer.weight)))
    assert dampening.penalty() < 1e-9


def test_the_penalty_rises_by_a_cosine_and_counts_only_weights_that_train():
    """From 0 to the strength; outside its phases there is none."""
    model = tiny(3)
    dampening = Dampening(model, 0.5)
    assert dampening.penalty() == 0
    total = sum(distance_to_centres(layer.weight, layer.weight_quantizer).item() for layer in quant_layers(model).values())
    for progress in (0.0, 0.25, 0.5, 1.0):
        dampening.share_done = progress
        expected = 0.5 * (1 - math.cos(math.pi * progress)) / 2 * total
        assert dampening.penalty().item() == pytest.approx(expected, rel=1e-5)
    for layer in quant_layers(model).values():
        layer.weight.requires_grad_(False)
    assert dampening.penalty() == 0
