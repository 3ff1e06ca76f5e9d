import csv
from importlib.resources import files

from subfour.analysis.cost import network_cost
from subfour.analysis.published import published_results
from subfour.analysis.stock import stock_workload


def test_every_number_has_a_source():
    rows = list(csv.DictReader(files("subfour.analysis").joinpath("published.csv").read_text().splitlines()))
    assert len(rows) == len(published_results()) > 20
    assert all(len(row["source"]) > 8 and 40 < float(row["top1"]) < 80 for row in rows)


def test_costs_are_ours_counted_as_the_paper_counts_others():
    row = next(row for row in published_results() if (row.network, row.method) == ("mobilenet_v2", "BASQ"))
    cost = network_cost(stock_workload("torchvision/mobilenet_v2", 224), weight_bits=4, activation_bits=4, profile="uniform")
    assert (row.gbops, row.megabytes) == (cost.bops / 1e9, cost.bytes / 1e6)
