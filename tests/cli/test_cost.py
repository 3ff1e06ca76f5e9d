import json
from pathlib import Path

import pytest

from tests.cli.command import error, printed

V2 = "torchvision/mobilenet_v2"


def test_json_has_the_promised_fields_and_the_sums_of_its_layers():
    cost = json.loads(printed("cost", V2, "--json"))
    assert list(cost) == [
        "model",
        "weight_bits",
        "activation_bits",
        "profile",
        "macs",
        "gbops",
        "size_mb",
        "peak_activation_mb",
        "layers",
    ]
    assert (cost["model"], cost["weight_bits"], cost["activation_bits"], cost["profile"]) == (V2, 4, 4, "ours")
    assert sum(layer["macs"] for layer in cost["layers"]) == cost["macs"] == 300_774_272
    assert sum(layer["gbops"] for layer in cost["layers"]) == pytest.approx(cost["gbops"])
    assert max(layer["activation_mb"] for layer in cost["layers"]) == cost["peak_activation_mb"]
    assert (f"{cost['gbops']:.4g}", f"{cost['size_mb']:.4g}") == ("9.49", "1.875")


def test_several_widths_are_a_list_in_their_order():
    costs = json.loads(printed("cost", V2, "--weight-bits", 32, 8, "--activation-bits", 32, 4, "--json"))
    assert [(cost["activation_bits"], cost["weight_bits"]) for cost in costs] == [(32, 32), (4, 8)]


def test_one_width_of_activations_goes_with_all_of_weights():
    costs = json.loads(printed("cost", V2, "--weight-bits", 8, 4, "--activation-bits", 8, "--json"))
    assert [(cost["activation_bits"], cost["weight_bits"]) for cost in costs] == [(8, 8), (8, 4)]


def test_the_profile_and_the_resolution_are_options():
    cost = json.loads(printed("cost", V2, "--profile", "uniform", "--resolution", 112, "--without-fetch", "--json"))
    assert {layer["input_bits"] for layer in cost["layers"]} == {4}
    assert cost["macs"] < 300_774_272 / 3.5


def test_the_table_has_a_line_per_layer_and_one_per_pair_of_widths():
    lines = printed("cost", V2, "--weight-bits", 32, 4, "--activation-bits", 32, 4).splitlines()
    gap = lines.index("")
    assert lines[0].startswith(f"{V2}, one image, profile ours")
    assert len(lines[2:gap]) == 53
    assert [line.split()[0] for line in lines[gap + 1 :]] == ["in", "widths", "float", "A4W4"]
    assert lines[-1].split()[1:4] == ["300,774,272", "9.49", "1.875"]


def test_a_run_and_its_model_file_cost_the_same_at_their_own_widths(finished_run: Path):
    run, file = (json.loads(printed("cost", path, "--json")) for path in (finished_run, finished_run / "model.safetensors"))
    assert (run.pop("model"), file.pop("model")) == (str(finished_run), str(finished_run / "model.safetensors"))
    assert run == file
    result = json.loads((finished_run / "result.json").read_text())
    assert run["size_mb"] == result["rows"][-1]["bytes"] / 1e6


def test_an_unfinished_run_has_a_cost(interrupted: Path):
    assert json.loads(printed("cost", interrupted, "--weight-bits", 32, "--activation-bits", 32, "--json"))["macs"] > 0


def test_claims_print_what_we_compute_beside_what_is_claimed():
    text = printed("cost", "--claims")
    assert all(figure in text for figure in ("37.66", "37.99", "63.80", "38.47", "39.53", "no, 2.3 % above"))
    assert [row["holds"] for row in json.loads(printed("cost", "--claims", "--json"))] == [True, True, True, False]


def test_mistakes_are_named():
    assert error("cost").startswith("model: name one, such as: subfour cost torchvision/mobilenet_v2")
    assert error("cost", V2, "--weight-bits", 1).startswith("weight_bits: 1 bits is not")
    assert error("cost", V2, "--resolution", 0).startswith("resolution: 0 is not possible")
    two_of_three = ("--weight-bits", 8, 5, 4, "--activation-bits", 8, 4)
    assert error("cost", V2, *two_of_three).startswith("activation_bits: 2 widths do not pair with 3")
    assert "did you mean torchvision/mobilenet_v2" in error("cost", "torchvision/mobilenetv2")
    assert error("cost", V2, "--weight-bits").startswith("weight_bits: none is named")
    for more in ([V2], ["--weight-bits", 4]):
        assert error("cost", *more, "--claims").startswith("claims: they are printed alone")
