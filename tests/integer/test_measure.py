from subfour.integer.measure import Snapping
from tests.integer.programs import stock_programs


def test_what_calibration_measures_survives_json():
    snapping = stock_programs("torchvision/mobilenet_v3_small").snapping
    assert Snapping.from_json(snapping.to_json()) == snapping
    assert set(snapping.positions.values()) == {1, 4, 64}
    assert all(isinstance(value, int) and value > 0 for value in snapping.accumulators.values())
