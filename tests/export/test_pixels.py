import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subfour.data.preprocess import Preprocessing, normalize
from subfour.export.pixels import lines_of
from subfour.quantizers import ImageQuantizer

CHANNELS = st.tuples(*[st.floats(0, 1)] * 3)


def table_of(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Return the codes of all pixels under a normalisation."""
    preprocessing = Preprocessing(image_size=1, resize_size=1, interpolation="bilinear", mean=mean, std=std)
    quantizer = ImageQuantizer(mean, std)
    quantizer.bits = 8
    pixels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    return quantizer.codes(normalize(pixels, preprocessing))[0, :, 0].long().numpy()


@given(mean=CHANNELS, std=st.tuples(*[st.floats(0.05, 1)] * 3))
def test_lines_give_every_code_of_a_normalisation_in_float32(mean: tuple[float, ...], std: tuple[float, ...]):
    table = table_of(mean, std)
    lines = lines_of(table)
    if lines is not None:  # two pixels may lie so near to a tie that float32 has no room
        pixels = np.arange(256, dtype=np.float32)
        assert np.array_equal(np.rint(lines.slope[:, None] * pixels + lines.intercept[:, None]), table)


@pytest.mark.parametrize(
    ("mean", "std"), [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)]
)
def test_the_usual_normalisations_have_lines(mean: tuple[float, ...], std: tuple[float, ...]):
    assert lines_of(table_of(mean, std)) is not None


def test_a_table_that_is_no_line_has_none():
    table = table_of((0.5,) * 3, (0.5,) * 3)
    table[1, 128:] = table[1, 128]
    assert lines_of(table) is None
