import pytest

from subfour.analysis.stock import stock_workload
from subfour.analysis.workload import measure_workload
from subfour.convert.rewrite import convert
from tests.convert.stock_networks import NAMES, NORMALIZATION, stock_network


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_weights_has_the_workload_of_one_with(name: str):
    model = stock_network(name)
    convert(model, **NORMALIZATION)
    assert stock_workload(name, 64, num_classes=10) == measure_workload(model, 64)
