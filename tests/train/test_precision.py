from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)
from torch.optim import SGD

from subfour.engine.folded import CodesOfBatchNorm, folded_network
from subfour.profit.instability_meter import InstabilityMeter
from subfour.train.precision import Precision
from tests.convert.stock_networks import stock_network
from tests.profit.quantized_networks import TINY, tiny

CPU = torch.device("cpu")


class Spy(nn.Conv2d):
    """A convolution that keeps the type it computed in."""

    computed: torch.dtype

    def forward(self, images: Tensor) -> Tensor:
        """Convolve."""
        output = super().forward(images)
        self.computed = output.dtype
        return output


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_convolutions_compute_in_it_and_the_output_is_float32(name: str, dtype: torch.dtype):
    spy = Spy(3, 4, 3)
    assert Precision(name, CPU).run(spy, torch.randn(2, 3, 8, 8)).dtype == torch.float32
    assert spy.computed == dtype


def test_weights_and_gradients_stay_float32():
    precision, model = Precision("bf16", CPU), nn.Linear(4, 2)
    precision.backward(precision.run(model, torch.randn(3, 4)).square().sum())
    before = model.weight.detach().clone()
    precision.step(SGD(model.parameters(), lr=0.1))
    assert model.weight.dtype == model.weight.grad.dtype == torch.float32
    assert not torch.equal(model.weight, before)


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="precision: fp16 is not possible on a CPU, where it has no loss scale; use bf16"):
        Precision("fp16", CPU)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_without_a_loss_scale_there_is_no_state(name: str):
    precision = Precision(name, CPU)
    assert precision.state() == {}
    precision.load_state({})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_loss_scale_goes_on_from_its_state():
    device = torch.device("cuda")
    precision, resumed = Precision("fp16", device), Precision("fp16", device)
    weight = nn.Parameter(torch.ones(1, device=device))
    precision.backward(weight.sum() * torch.inf)
    precision.step(SGD([weight], lr=1.0))
    resumed.load_state(precision.state())
    assert float(weight) == 1.0
    assert resumed.state() == precision.state() != Precision("fp16", device).state()


def test_quantizers_give_codes_of_float32_values():
    """In bf16, 8-bit codes of a real range would be off by one."""
    model = tiny(4, 8)
    quantizer = model.features[1].block[1][0].activation_quantizer
    values = torch.linspace(-1, 3, 1000).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        quantized = quantizer(values)
    assert quantized.dtype == torch.float32
    assert torch.equal(quantized, quantizer(values.float()))


def test_aiwq_is_measured_in_float32():
    """What an update moves is of the size of bf16's steps."""
    values = []
    for name in ("fp32", "bf16"):
        model = tiny(4, 8).train()
        torch.manual_seed(0)
        images = torch.randn(8, 3, 32, 32)
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        meter = InstabilityMeter(model, decay=0.9, corrected=True)
        with meter:
            for _ in range(2):
                Precision(name, CPU).run(model, images)
                with torch.no_grad():
                    first.weight.mul_(1.2)
        values.append(next(iter(meter.values().values())))
    assert values[0] > 1e-3
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_a_step_in_bf16_is_near_that_in_float32():
    gradients = []
    for name in ("fp32", "bf16"):
        model = stock_network(TINY).train()
        torch.manual_seed(0)
        images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
        precision = Precision(name, CPU)
        precision.backward(F.cross_entropy(precision.run(model, images), labels))
        gradients.append(model.classifier[-1].weight.grad.flatten())
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


def test_codes_are_made_in_float32_from_16_bits():
    """A batch norm straight to codes gives those of the same values in float32."""
    model = tiny(4).eval()
    network = folded_network(model)
    first = next(module for module in network.modules() if isinstance(module, CodesOfBatchNorm))
    seen: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].bfloat16()))
    with torch.no_grad():
        network(torch.randn(2, 3, 32, 32))
        handle.remove()
        assert torch.equal(first(seen[0]), first(seen[0].float()))


@pytest.mark.parametrize("engine", [lambda model: model, folded_network], ids=["plain", "folded"])
def test_a_quantized_step_in_bf16_is_near_that_in_float32(engine: Callable[[nn.Module], nn.Module]):
    gradients = []
    for name in ("fp32", "bf16"):
        model = tiny(4, 8).train()
        torch.manual_seed(0)
        images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
        precision = Precision(name, CPU)
        precision.backward(F.cross_entropy(precision.run(engine(model), images), labels))
        gradients.append(model.classifier[-1].weight.grad.flatten())
    assert F.cosine_similarity(*gradients, dim=0) > 0.95
