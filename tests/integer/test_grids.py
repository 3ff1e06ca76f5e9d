import torch
from hypothesis import given
from hypothesis import strategies as st

from subfour.integer.grids import LARGEST_CUT, channel_grid, odd_step


@given(value=st.floats(0.01, 2.0**15))
def test_an_odd_step_covers_the_range_and_is_as_narrow_as_it_can_be(value: float):
    """A thirty-second of the range may be cut; no odd integer between does."""
    real = torch.tensor(value, dtype=torch.float64)
    step = float(odd_step(real))
    assert step % 2 == 1
    assert step >= value * (1 - LARGEST_CUT)
    assert step == 1 or step - 2 < value * (1 - LARGEST_CUT) or step - value <= 1


def test_the_grid_of_a_channel_leaves_room_for_products():
    """As many bits as the accumulators leave of 24, 4 to 12; a power of two."""
    multiplier = torch.tensor([0.75, 0.1, 3.0, 0.0], dtype=torch.float64)
    for largest, bits in ((1, 12), (2**11, 11), (2**14, 8), (2**30, 4)):
        grid = channel_grid(multiplier, largest)
        assert torch.equal(torch.log2(grid), torch.log2(grid).round())
        scaled = multiplier[:3] / grid[:3]
        assert (2 ** (bits - 1) <= scaled).all()
        assert (scaled < 2**bits).all()
