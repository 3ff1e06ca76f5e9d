import pytest
from torch import Tensor, nn

from subfour.integer.build import build_program
from subfour.integer.structure import check_structure
from tests.integer.programs import PREPROCESSING
from tests.profit.quantized_networks import quantized


class Fork(nn.Module):
    """A layer read by a quantizer directly, and by another through h-swish."""

    def __init__(self) -> None:
        """Make its layers."""
        super().__init__()
        self.stem, self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.act = nn.Hardswish()

    def forward(self, images: Tensor) -> Tensor:
        """Compute it."""
        values = self.stem(images)
        return self.one(values) + self.other(self.act(values))


class CurvedSum(nn.Module):
    """A sum that enters h-swish."""

    def __init__(self) -> None:
        """Make its layers."""
        super().__init__()
        self.stem, self.one, self.other, self.head = (nn.Conv2d(3 if i == 0 else 4, 4, 1) for i in range(4))
        self.act = nn.Hardswish()

    def forward(self, images: Tensor) -> Tensor:
        """Compute it."""
        values = self.stem(images)
        return self.head(self.act(self.one(values) + self.other(values)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Fork(), "stem: it feeds quantizers with and without h-swish between; it cannot be snapped"),
        (CurvedSum(), "add: a sum, or a part of one, enters h-swish; it cannot be snapped"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)),
            "1: it takes 0, which is no ReLU or h-swish output of a layer; it cannot be snapped",
        ),
    ],
)
def test_what_cannot_be_snapped_is_named(model: nn.Module, message: str):
    program = build_program(quantized(model, 4), PREPROCESSING)
    with pytest.raises(ValueError, match=message):
        check_structure(program)
