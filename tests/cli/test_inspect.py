import json
from pathlib import Path

import pytest

from tests.cli.command import error, printed


@pytest.mark.parametrize(
    ("model", "layers", "negative_pads"),
    [
        ("torchvision/mobilenet_v2", 53, 0),
        ("torchvision/mobilenet_v3_small", 54, 9),
        ("torchvision/mobilenet_v3_large", 64, 10),
        ("subfour/mobilenet_v1", 28, 0),
        ("timm/mobilenetv1_100", 28, 0),
        ("timm/mobilenetv3_small_050", 54, 9),
        ("timm/mnasnet_small", 67, 0),
        ("timm/efficientnet_lite0", 50, 0),
        ("timm/mobilenetv4_conv_small", 47, 0),
    ],
)
def test_a_network_by_name_lists_every_layer(model: str, layers: int, negative_pads: int):
    rows = json.loads(printed("inspect", model, "--json"))
    assert len(rows) == layers
    assert [row["pad_value"] for row in rows].count(-0.375) == negative_pads
    assert all({"name", "kind", "weight_bits", "input_bits", "quantizer", "pad_value"} <= row.keys() for row in rows)


def test_a_network_takes_widths_quantizer_and_padding():
    options = ["--weight-bits", 3, "--activation-bits", 5, "--quantizer", "pact-sawb", "--padding", "zero"]
    rows = json.loads(printed("inspect", "subfour/tiny_mobilenet_v3", *options, "--json"))
    assert {row["weight_bits"] for row in rows} == {3}
    assert {row["input_bits"] for row in rows if row["kind"] not in ("stem", "se")} == {5}
    assert {row["pad_value"] for row in rows} == {0}
    assert rows[1]["quantizer"].startswith("PACT")


def test_in_float_no_share_of_the_weights_is_at_code_0():
    rows = json.loads(printed("inspect", "subfour/tiny_mobilenet_v3", "--weight-bits", 32, "--json"))
    assert {row["zero_share"] for row in rows} == {None}


def test_a_run_and_its_model_file_list_the_same(finished_run: Path):
    rows = json.loads(printed("inspect", finished_run, "--json"))
    assert rows == json.loads(printed("inspect", finished_run / "model.safetensors", "--json"))
    assert len(rows) == 24
    assert {row["weight_bits"] for row in rows} == {4}


def test_the_table_has_a_line_per_layer_that_says_why(finished_run: Path):
    title, headings, *rows = printed("inspect", finished_run).splitlines()
    assert title.startswith(f"{finished_run}: 24 quantized layers")
    assert headings.split() == ["name", "kind", "W", "A", "quantizer", "pad", "zeros", "why"]
    assert len(rows) == 24
    assert rows[1].split()[:6] == ["features.1.block.0.0", "depthwise", "4", "4", "DuQ", "hswish"]
    assert rows[1].endswith("Hardswish features.0.2: never below -3/8")


@pytest.mark.parametrize(
    "option", [["--weight-bits", "8"], ["--activation-bits", "8"], ["--quantizer", "duq"], ["--padding", "negative"]]
)
def test_what_a_run_has_of_its_own_cannot_be_given(finished_run: Path, option: list[str]):
    name = option[0].removeprefix("--").replace("-", "_")
    assert error("inspect", finished_run, *option).startswith(f"{name}: {finished_run} has its own, which cannot be changed")


@pytest.mark.parametrize("bits", [0, 1, 9, 31])
def test_widths_are_2_to_8_or_32(bits: int):
    assert error("inspect", "torchvision/mobilenet_v2", "--weight-bits", bits).startswith(f"weight_bits: {bits} bits is not")


def test_an_unknown_network_suggests_near_ones():
    assert "did you mean torchvision/mobilenet_v2" in error("inspect", "torchvision/mobilenetv2")


@pytest.mark.parametrize("command", ["inspect", "cost"])
def test_what_may_be_a_path_is_looked_for_as_one(command: str, here: Path):
    for word in ("nowhere", "runs/nowhere"):
        message = error(command, word)
        assert message.startswith(f"model: {word!r} is not known; ")
        assert message.endswith(f"; nor is there a run directory or a model file {word}")
    assert "did you mean subfour/mobilenet_v1" in error(command, "mobilenet_v1")
    Path("results").mkdir()
    assert error(command, "results").startswith("results: not a run directory, it has no config.json")


def test_a_layer_that_cannot_be_quantized_is_named():
    assert error("inspect", "torchvision/vit_b_16").startswith("class_token: VisionTransformer would stay float")
