import pytest
import torch
from torch import Tensor, nn

from subfour.convert.calibrate import set_bits
from subfour.convert.rewrite import convert
from subfour.data.preprocess import normalize
from subfour.integer.build import build_program
from subfour.integer.execute import execute
from subfour.integer.program import Activate, Add, Flatten, Layer, Lookup, Multiply, Pool
from subfour.layers import quant_layers
from tests.convert.stock_networks import NAMES, NORMALIZATION, stock_network
from tests.integer.programs import PREPROCESSING, random_pixels, stock_programs
from tests.profit.quantized_networks import quantized


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_program_computes_what_the_converted_network_computes(name: str):
    """In float64, to the last digits: every layer is folded with what follows it, and nothing is left out."""
    model = quantized(stock_network(name), 4, image_size=32).double()
    program = build_program(model, PREPROCESSING, dtype=torch.float64)
    pixels = random_pixels()
    expected = model(normalize(pixels, PREPROCESSING).double())
    found = execute(program, pixels)[program.output]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert {layer.name for layer in program.operations if isinstance(layer, Layer)} == quant_layers(model).keys()


def test_a_program_has_the_operations_of_its_network():
    """One Lookup; a sum per skip; a product and a pool per squeeze-and-excitation, one more pool before the head."""
    operations = stock_programs("torchvision/mobilenet_v3_small").built.operations
    counts = {kind: sum(isinstance(operation, kind) for operation in operations) for kind in (Lookup, Layer, Add, Multiply, Pool)}
    assert counts == {Lookup: 1, Layer: 54, Add: 6, Multiply: 9, Pool: 10}
    assert {operation.function for operation in operations if isinstance(operation, Activate)} == {
        "relu",
        "hardswish",
        "hardsigmoid",
    }
    assert [operation.name for operation in operations if isinstance(operation, Flatten)] == ["classifier.0.flat"]


def test_the_image_s_table_is_normalisation_and_quantizer_in_one():
    """The code of each of 256 values of each channel."""
    programs = stock_programs("subfour/tiny_mobilenet_v3")
    (lookup,) = (operation for operation in programs.built.operations if isinstance(operation, Lookup))
    quantizer = quant_layers(programs.model)["features.0.0"].activation_quantizer
    for value in (0, 1, 128, 255):
        pixels = torch.full((1, 3, 1, 1), value, dtype=torch.uint8)
        assert torch.equal(lookup.table[:, value].float(), quantizer.codes(normalize(pixels, PREPROCESSING)).flatten())
    assert (lookup.qmin, lookup.qmax) == (-127, 127)
    assert lookup.table.abs().max() == 127


# What no program can say is refused by name.


class Net(nn.Module):
    """A stem, something, and a head."""

    def __init__(self, middle: nn.Module) -> None:
        """Make stem and head."""
        super().__init__()
        self.stem, self.middle, self.head = nn.Conv2d(3, 4, 3), middle, nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Compute it."""
        return self.head(self.middle(self.stem(images)).mean((2, 3)))


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), "middle_1: maxpool2d has no integer form; it cannot be exported"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), r"middle\.1: this batch norm does not follow a layer of its own"),
    ],
)
def test_an_operation_without_integer_form_is_named(middle: nn.Module, message: str):
    with pytest.raises(ValueError, match=message):
        build_program(quantized(Net(middle), 4), PREPROCESSING)


class Viewed(nn.Module):
    """Flattens by its own batch size, as many do."""

    def __init__(self, by: str) -> None:
        """Make its layers."""
        super().__init__()
        self.by, self.stem, self.pool, self.head = by, nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Compute it."""
        values = self.pool(torch.relu(self.stem(images)))
        return self.head(values.view(values.size(0) if self.by == "size" else values.shape[0], -1))


@pytest.mark.parametrize("by", ["size", "shape"])
@torch.no_grad()
def test_a_batch_size_that_a_network_reads_is_no_operation(by: str):
    model = quantized(Viewed(by), 4).double()
    program = build_program(model, PREPROCESSING, dtype=torch.float64)
    expected = model(normalize(random_pixels(), PREPROCESSING).double())
    torch.testing.assert_close(execute(program, random_pixels())[program.output], expected, rtol=1e-9, atol=1e-9)


class Twice(nn.Module):
    """Reads a layer's output before and behind its batch norm."""

    def __init__(self) -> None:
        """Make its layers."""
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Compute it."""
        values = self.stem(images)
        return self.head((values + self.norm(values)).mean((2, 3)))


def test_a_batch_norm_that_shares_its_layer_is_named():
    """It cannot be folded: the sum reads the layer without it."""
    with pytest.raises(ValueError, match="norm: this batch norm does not follow a layer of its own"):
        build_program(quantized(Twice(), 4), PREPROCESSING)


def test_a_layer_that_is_float_or_padded_with_zeros_is_named():
    model = stock_network("subfour/tiny_mobilenet_v3")
    convert(model, padding="zero", **NORMALIZATION)
    with pytest.raises(ValueError, match=r"^features\.0\.0: it is still float"):
        build_program(model, PREPROCESSING)
    set_bits(model, 4, 4)
    with pytest.raises(ValueError, match=r"^features\.1\.block\.1\.0: padding: it pads with 0\.0|^features\.\d\S*: padding"):
        build_program(model, PREPROCESSING)


class TwoHeads(nn.Module):
    """Computes a second head, and returns the first or both."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.both = both
        self.stem, self.first, self.second = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        pooled = self.stem(images).relu().mean((2, 3))
        first, second = self.first(pooled), self.second(pooled)
        return (first, second) if self.both else first


@pytest.mark.parametrize("both", [False, True])
def test_a_network_that_does_not_return_what_it_computes_last_is_refused(both: bool):
    """Else another head would be snapped, exported, and proven exact."""
    with pytest.raises(ValueError, match=r"the network returns .*first.*, and not second alone, which it computes last"):
        build_program(quantized(TwoHeads(both=both), 4, image_size=8), PREPROCESSING)


class LinearGate(nn.Module):
    """Squeeze-and-excitation of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        values = self.stem(images).relu()
        gate = self.gate(values.mean((2, 3))).sigmoid().reshape(-1, 4, 1, 1)
        return self.last((values * gate).mean((2, 3)))


def test_a_gate_of_linear_layers_is_refused_before_it_is_computed():
    with pytest.raises(ValueError, match="mul: its gate comes from a linear layer, which cannot be exported"):
        build_program(quantized(LinearGate(), 4, image_size=8), PREPROCESSING)
