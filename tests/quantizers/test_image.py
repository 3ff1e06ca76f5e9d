import pytest
import torch

from subfour.quantizers import ImageQuantizer

CIFAR10 = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("mean", "std", "largest"),
    [
        ([0.5] * 3, [0.5] * 3, 1.0),
        ([0.25], [0.5], 1.5),  # white: 0.75 / 0.5
        ([0.75], [0.25], 3.0),  # black: 0.75 / 0.25
        (*CIFAR10, 2.1265),  # second channel, white: 0.5178 / 0.2435
        (*IMAGENET, 2.64),  # third channel, white: 0.594 / 0.225
    ],
)
def test_the_range_is_the_largest_pixel(mean: list[float], std: list[float], largest: float):
    """Of any channel, black or white, on paper."""
    torch.testing.assert_close(ImageQuantizer(mean, std).image_range, torch.tensor(largest), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("mean", "std"), [CIFAR10, IMAGENET])
def test_no_pixel_is_clipped(mean: list[float], std: list[float]):
    """Each of the 3 x 256 values is within half a step of its own."""
    ours = ImageQuantizer(mean, std)
    ours.bits = 8
    pixels = (torch.arange(256) / 255 - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]
    step = ours.image_range / 127
    assert (ours(pixels) - pixels).abs().max() <= step / 2 * (1 + 1e-5)


def test_the_range_is_neither_calibrated_nor_learned():
    """It is part of the state, and calibration leaves it."""
    ours = ImageQuantizer(*IMAGENET)
    before = ours.image_range.clone()
    ours.initialize(torch.full((10,), 100.0))
    assert ours.image_range.equal(before)
    assert list(ours.parameters()) == []
    assert list(ours.state_dict()) == ["image_range"]


def test_mean_and_std_of_different_lengths_are_refused():
    """One of each per channel."""
    with pytest.raises(ValueError, match="zip"):
        ImageQuantizer([0.5, 0.5], [0.5])
