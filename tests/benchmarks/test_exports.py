from pathlib import Path

import pytest
from bench_exports import size_row
from table import RESULTS, read_rows
from untrained_model import untrained_model

from subfour.export.formats import export_model

ROWS = {row["network"]: row for row in read_rows(RESULTS / "exports.csv")}
LARGEST_BYTES = {"torchvision/mobilenet_v2": 2_000_000, "torchvision/mobilenet_v3_large": 3_100_000}


@pytest.mark.parametrize("network", ROWS)
def test_a_file_is_as_large_as_the_cost_model_and_its_graph_say_within_3_percent(network: str):
    row = ROWS[network]
    size, graph = int(row["file_bytes"]), int(row["graph_bytes"])
    assert int(row["constant_bytes"]) + graph == size
    assert size <= 1.03 * (int(row["cost_model_bytes"]) + graph)
    assert size <= LARGEST_BYTES.get(network, size)


@pytest.mark.slow
def test_a_row_is_what_is_written_now():
    """Without the graph: how many digits its metadata have depends on the machine."""
    network = "torchvision/mobilenet_v3_small"
    now = size_row(network, export_model(untrained_model(network), Path(network)))
    for column in ("constant_bytes", "cost_model_bytes"):
        assert ROWS[network][column] == str(now[column])
