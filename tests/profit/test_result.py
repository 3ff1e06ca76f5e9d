import json

import pytest
import torch
from safetensors.torch import load_file

from subfour.analysis.cost import model_bytes
from subfour.convert.calibrate import set_bits
from subfour.layers import quant_layers
from subfour.profit.continuation import WEIGHTS_FILE
from subfour.profit.model_file import evaluate_model, read_model
from subfour.profit.result import MODELS
from subfour.profit.session import prepare_session
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import FIRST_FROZEN, SECOND_FROZEN


def test_the_result_says_what_was_run(finished: FinishedRun):
    """Recipe, seed, commit, model, quantizer, method, final widths, epochs, time."""
    result = json.loads((finished.folder / "result.json").read_text())
    assert result == finished.result
    expected = {"recipe": "digits", "seed": 0, "model": "subfour/tiny_mobilenet_v3", "quantizer": "duq", "method": "profit"}
    expected |= {"weight_bits": 3, "activation_bits": 4, "epochs": 34, "threads": 1, "classes": list("0123456789")}
    assert {key: result[key] for key in expected} == expected
    git = json.loads((finished.folder / "environment.json").read_text())["git"] or {}
    assert (result["commit"], result["dirty"]) == (git.get("commit"), git.get("dirty"))
    assert result["seconds"] > 0
    assert result["padding_top1"].keys() == {"before", "after", "after_float"}
    assert result["padding_top1"]["after_float"] == result["rows"][0]["averaged"]["top1"]


def test_one_row_per_pair_of_widths_and_one_for_the_snapped_network(finished: FinishedRun):
    """Activations first, as the run went; raw and averaged weights, top-1 and top-5, size at that width."""
    rows = finished.result["rows"]
    assert [row["widths"] for row in rows] == ["A32W32", "A8W32", "A5W32", "A4W32", "A4W8", "A4W5", "A4W3", "A4W3"]
    assert [row["snapped"] for row in rows] == [False] * 7 + [True]
    model = prepare_session(finished.config).model
    for row in rows:
        set_bits(model, row["weight_bits"], row["activation_bits"])
        assert row["bytes"] == model_bytes(model)
        for weights in ("raw", "averaged"):
            assert row[weights].keys() == {"top1", "top5", "loss", "images"}
            assert 0 <= row[weights]["top1"] <= row[weights]["top5"] <= 100
    assert [row["bytes"] for row in rows] == sorted((row["bytes"] for row in rows), reverse=True)


def test_the_last_row_before_snapping_is_after_re_estimation_and_shows_before(finished: FinishedRun):
    """Batch-norm statistics were computed anew for both sets of weights, and stood still from then on."""
    *others, last, snapped = finished.result["rows"]
    assert all("before_reestimation" not in row for row in (*others, snapped))
    assert last["before_reestimation"].keys() == {"raw", "averaged"}
    weights = load_file(finished.folder / WEIGHTS_FILE)
    assert {int(value) for name, value in weights.items() if name.endswith("num_batches_tracked")} == {2}


def test_every_row_is_the_end_of_its_widths(finished: FinishedRun):
    """The last epoch, not the best."""
    metrics = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    ends = {(f"A{record['activation_bits']}W{record['weight_bits']}", record["kind"] == "snap"): record for record in metrics}
    for row in finished.result["rows"]:
        shown, end = row.get("before_reestimation", row), ends[row["widths"], row["snapped"]]
        assert (shown["raw"], shown["averaged"]) == (end["raw"], end["averaged"])


def test_the_sensitivity_table(finished: FinishedRun):
    """Sampled layers, the most unstable first, with the phase that froze each first."""
    rows = json.loads((finished.folder / "sensitivity.json").read_text())
    layers = quant_layers(prepare_session(finished.config).model)
    assert all(list(row) == ["name", "kind", "aiwq", "dropped", "frozen_in_phase"] for row in rows)
    assert [row["kind"] for row in rows] == [layers[row["name"]].kind for row in rows]
    assert {row["kind"] for row in rows} == {"stem", "depthwise", "pointwise"}
    ranks = [(row["dropped"] < 1, -row["aiwq"], row["name"]) for row in rows]
    assert ranks == sorted(ranks)
    assert [row["frozen_in_phase"] for row in rows] == [FIRST_FROZEN] * 5 + [SECOND_FROZEN] * 5 + [None] * 6
    assert any(row["aiwq"] > 0 for row in rows)


def test_the_final_weights_are_the_averaged_ones(finished: FinishedRun):
    """In float, quantizer state included, and those in the model when the run ends."""
    weights = load_file(finished.folder / WEIGHTS_FILE)
    run = finished.recorder.run
    assert weights.keys() == run.average.state.keys()
    assert all(torch.equal(weights[name], value) for name, value in run.average.state.items())
    assert all(torch.equal(weights[name], value) for name, value in run.model.state_dict().items())


def test_every_pair_of_widths_leaves_a_network_that_stands_alone(finished: FinishedRun):
    """With the accuracy of its row, where nothing was computed anew behind it; the last one is the run's own model file."""
    files = {file.stem: file for file in (finished.folder / MODELS).iterdir()}
    assert files.keys() == {"A32W32", "A8W32", "A5W32", "A4W32", "A4W8", "A4W5", "A4W3"}
    rows = {row["widths"]: row for row in finished.result["rows"][:-1]}
    for widths, file in files.items():
        trained = read_model(file)
        assert (trained.weight_bits, trained.activation_bits) == (rows[widths]["weight_bits"], rows[widths]["activation_bits"])
        assert trained.snapping is None
        accuracy = evaluate_model(trained, "digits", device="cpu")
        assert accuracy.top1 == pytest.approx(rows[widths]["averaged"]["top1"], abs=0.3)
        assert accuracy.loss == pytest.approx(rows[widths]["averaged"]["loss"], abs=0.01)
