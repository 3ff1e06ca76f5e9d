"""The whole run: what each phase changes and what it leaves."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from subfour.convert.calibrate import set_bits
from subfour.layers import quant_layers
from subfour.profit.config import AverageConfig, RunConfig
from subfour.profit.continuation import TEACHER_FILE, WEIGHTS_FILE, continued
from subfour.profit.method import FAILURE_FILE, ProfitRun
from subfour.profit.model_file import evaluate_model, read_model
from subfour.profit.phases import build_phases
from subfour.profit.session import prepare_session
from subfour.profit.state import part
from subfour.quantizers import DuQWeight, QuantizerName
from subfour.rundir import RunDirectory
from subfour.train.checkpoint import CheckpointStore
from subfour.train.evaluation import evaluate
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import FIRST_FROZEN, SECOND_FROZEN, SNAP, Observer, Recorder, outcome, same, train


def short(config: RunConfig, **changes: object) -> RunConfig:
    """Return a configuration with one epoch per phase."""
    schedule = replace(config.schedule, float_epochs=1, finetune_epochs=1, sample_epochs=1, snap_epochs=1)
    return replace(config, schedule=schedule, **changes)


def weights_of(names: list[str]) -> set[str]:
    return {f"{name}.weight" for name in names}


def test_the_run_goes_through_its_plan(finished: FinishedRun):
    """23 phases, each once, in order."""
    assert [record.phase for record in finished.recorder.phases] == build_phases(finished.config)
    assert len(finished.recorder.phases) == 23


def test_frozen_weights_are_bit_identical_while_all_others_move(finished: FinishedRun):
    """Over the whole phase: the most unstable third, then two thirds; batch norm and ranges of frozen layers go on."""
    order = [row["name"] for row in json.loads((finished.folder / "sensitivity.json").read_text())]
    every_weight = weights_of(list(quant_layers(finished.recorder.run.model)))
    assert len(order) == 16
    for index, count in ((FIRST_FROZEN, 5), (SECOND_FROZEN, 10)):
        record = finished.recorder.phases[index]
        assert record.frozen == order[:count]
        assert every_weight - record.moved() == weights_of(record.frozen)
        parameters = {name for name, _ in finished.recorder.run.model.named_parameters()}
        assert parameters - record.trains == weights_of(record.frozen)
    assert [index for index, record in enumerate(finished.recorder.phases) if record.frozen] == [FIRST_FROZEN, SECOND_FROZEN]


def test_stabilize_phases_change_no_weight(finished: FinishedRun):
    """Batch norm, biases and ranges do; elsewhere every weight moves. No range moves before its width begins."""
    every_weight = weights_of(list(quant_layers(finished.recorder.run.model)))
    norms = {name for name in finished.recorder.phases[0].before if ".running_" in name}
    ranges = {name for name in finished.recorder.phases[0].before if name.endswith("_raw")}
    for record in finished.recorder.phases:
        moved, phase = record.moved(), record.phase
        # Snapping goes on from the averaged state, and the rest of its phase moves neither weights nor statistics.
        if phase.kind == "snap":
            continue
        assert norms <= moved
        if phase.kind == "stabilize":
            assert not moved & every_weight
        elif not record.frozen:
            assert every_weight <= moved
        quantized = {name for name in ranges if not record.before[name].isnan()}
        assert moved & ranges <= quantized
        assert bool(moved & ranges) == bool(quantized)  # not all: the network is hardly trained, and some see no gradient


def test_the_snap_phase_starts_from_the_average_and_trains_no_weight(finished: FinishedRun):
    """Weights and statistics are those of the averaged network before it; scales, shifts, biases and ranges move."""
    before, record = finished.recorder.phases[SNAP - 1 :]
    averaged = finished.copies[SNAP - 1, 0]
    tensors = part(CheckpointStore(averaged / "checkpoints").load_newest().tensors, "average")
    assert all(torch.equal(value, tensors[name]) for name, value in record.before.items())
    assert all(torch.equal(value, tensors[name]) for name, value in record.averaged.items())
    assert any(not torch.equal(value, tensors[name]) for name, value in before.after.items())
    still = weights_of(list(quant_layers(finished.recorder.run.model)))
    still |= {name for name in record.before if ".running_" in name or name.endswith("num_batches_tracked")}
    assert not record.moved() & still
    assert {name.rpartition(".")[2] for name in record.moved()} == {"weight", "bias", "input_range_raw", "output_range_raw"}
    rates = [line["lr"] for line in RunDirectory(finished.folder).metrics() if line["kind"] == "snap"]
    assert rates == pytest.approx([0.001, 0.0005], rel=0.01)


def test_nothing_is_averaged_while_snapping(finished: FinishedRun):
    """In no epoch: what snapping trains is what is evaluated and deployed. Before it, the average is another network."""
    for checkpoint, moved in ((finished.copies[SNAP, 0], False), (finished.copies[SNAP - 1, 0], True)):
        tensors = CheckpointStore(checkpoint / "checkpoints").load_newest().tensors
        averaged, trained = part(tensors, "average"), part(tensors, "model")
        assert any(not torch.equal(value, averaged[name]) for name, value in trained.items()) == moved
    lines = [line for line in RunDirectory(finished.folder).metrics() if line["kind"] == "snap"]
    assert len(lines) == 2
    assert all(line["raw"] == line["averaged"] for line in lines)


def test_a_resumed_snap_phase_measures_nothing_again(finished: FinishedRun):
    """What was measured is in every checkpoint of the phase, and in the model file."""
    store = CheckpointStore(finished.copies[SNAP, 0] / "checkpoints")
    state = store.load_newest().state
    assert (state["phase"], state["next_epoch"]) == (SNAP, 1)
    assert state["snapping"] == finished.recorder.run.state.snapping
    assert CheckpointStore(finished.copies[SNAP - 1, 0] / "checkpoints").load_newest().state["snapping"] is None
    snapping = read_model(finished.folder).snapping
    assert snapping.to_json() == state["snapping"]


def test_ranges_have_no_value_until_their_width_begins(finished: FinishedRun):
    """And none is left without at the end."""
    for record in finished.recorder.phases:
        for name, value in record.before.items():
            if name.endswith("_raw"):
                bits = record.phase.weight_bits if ".weight_quantizer." in name else record.phase.activation_bits
                assert bool(value.isnan()) == (bits == 32), name
    assert not any(value.isnan().any() for value in finished.recorder.phases[-1].after.values())


def test_weight_ranges_are_fitted_anew_only_below_four_bits(finished: FinishedRun):
    """When the width begins, to the weights as they are then; in no other phase of that width."""
    refitted = []
    for index, (before, record) in enumerate(zip(finished.recorder.phases, finished.recorder.phases[1:], strict=False), start=1):
        names = [name for name in record.before if ".weight_quantizer." in name and not before.after[name].isnan()]
        if record.phase.kind == "snap":  # starts from the averaged state
            continue
        changed = [name for name in names if not torch.equal(before.after[name], record.before[name])]
        if changed:
            assert changed == names
            refitted.append(index)
    assert refitted == [16]
    record = finished.recorder.phases[16]
    for name in quant_layers(finished.recorder.run.model):
        fitted = DuQWeight()
        fitted.bits = 3
        fitted.initialize(record.before[f"{name}.weight"])
        assert torch.equal(fitted.input_range_raw, record.before[f"{name}.weight_quantizer.input_range_raw"])


def test_the_average_restarts_when_a_width_changes(finished: FinishedRun):
    """From the raw weights; within a width it goes on, until snapping starts from it."""
    phases = finished.recorder.phases
    for index, record in enumerate(phases):
        begins = index == 0 or record.phase.widths != phases[index - 1].phase.widths or record.phase.kind == "snap"
        equal = all(same(value, record.before[name]) for name, value in record.averaged.items())
        assert equal == begins
        assert {name for name, value in record.averaged.items() if value.isnan().any()} == {
            name for name, value in record.before.items() if value.isnan().any()
        }


def test_the_teacher_is_the_float_network_and_never_changes(finished: FinishedRun):
    """The average at the end of the float phase, under stock names: as starting weights it scores what the float row says."""
    session = prepare_session(replace(finished.config, weights=str(finished.folder / TEACHER_FILE)))
    assert asdict(evaluate(session.model, session.validation)) == finished.result["rows"][0]["averaged"]
    for copy in finished.copies.values():
        assert (copy / TEACHER_FILE).read_bytes() == (finished.folder / TEACHER_FILE).read_bytes()
    teacher = finished.recorder.run.teacher
    state = teacher.network.state_dict()
    assert all(same(value, state[name]) for name, value in load_file(finished.folder / TEACHER_FILE).items())
    assert not any(module.training for module in teacher.network.modules())


def test_metrics_have_one_line_per_epoch(finished: FinishedRun):
    """In order, with the rate of the weights, which starts anew in each phase and is constant while AIWQ is sampled."""
    metrics = RunDirectory(finished.folder).metrics()
    phases = build_phases(finished.config)
    assert [(record["phase"], record["epoch"]) for record in metrics] == [
        (index, epoch) for index, phase in enumerate(phases) for epoch in range(phase.epochs)
    ]
    for record in metrics:
        phase = phases[record["phase"]]
        assert {key: record[key] for key in phase.to_json()} == phase.to_json()
        assert record["raw"]["images"] == record["averaged"]["images"] == 40
        assert record["frozen_layers"] == {FIRST_FROZEN: 5, SECOND_FROZEN: 10}.get(record["phase"], 0)
        if phase.kind in ("stabilize", "sample"):
            assert record["lr"] == pytest.approx(0.05)
    assert [record["lr"] for record in metrics[:2]] == pytest.approx([0.01, 0.1])
    assert [record["seconds"] for record in metrics] == sorted(record["seconds"] for record in metrics)


def test_a_run_of_the_other_quantizer_without_profit(finished: FinishedRun, tmp_path: Path):
    """The control: the same kinds of phases, nothing frozen, every weight moves; the file evaluates to the result."""
    config = short(finished.config, quantizer="pact-sawb", method="none", weight_bits=(2,), activation_bits=(4,), teacher="none")
    # PACT's clip decays and steps at the rate of ranges: with the short run's rates it would fall to 0, where the guard stops it.
    config = replace(config, schedule=replace(config.schedule, range_lr_scale=0.001))
    recorders: list[Recorder] = []

    def watch(run: ProfitRun) -> Recorder:
        recorders.append(Recorder(run, {}))
        return recorders[0]

    result = train(tmp_path / "run", config, watch)
    assert [record.phase.kind for record in recorders[0].phases] == [
        *("float", "stabilize", "finetune", "stabilize"),
        *("stabilize", "sample", "finetune", "finetune", "finetune", "stabilize", "snap"),
    ]
    every_weight = weights_of(list(quant_layers(recorders[0].run.model)))
    for record in recorders[0].phases:
        assert not record.frozen
        assert (record.moved() & every_weight) == (set() if record.phase.kind in ("stabilize", "snap") else every_weight)
    assert result["padding_top1"] == {}  # PACT has no negative codes, so nothing is padded with -3/8
    assert not (tmp_path / "run" / TEACHER_FILE).exists()
    assert all(row["frozen_in_phase"] is None for row in json.loads((tmp_path / "run" / "sensitivity.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantizer", "method", "changes"),
    [
        ("lsq", "iterative-freezing", {"weight_granularity": "channel"}),
        ("lsq-plus", "dampening", {"skip_bits": 5, "snap": False}),
        ("dsq", "random-order", {"start": "dfq", "snap": False}),
        ("affine", "none", {}),
        ("uniq", "reversed-order", {"snap": False}),
        ("duq", "none", {"weight_granularity": "channel", "batchnorm": "fused"}),
    ],
)
def test_every_rival_trains_is_saved_and_resumes_bit_identical(
    finished: FinishedRun, tmp_path: Path, quantizer: QuantizerName, method: str, changes: dict[str, Any]
):
    """From a copy made in the middle of a phase, at the width where the method acts; the file evaluates to the result."""
    config = replace(finished.config, quantizer=quantizer, method=method, **changes, weight_bits=(4, 3), activation_bits=(4,))
    config = replace(config, schedule=replace(config.schedule, float_epochs=1, finetune_epochs=1))
    sampling = next(index for index, phase in enumerate(build_phases(config)) if phase.kind == "sample")
    moments = {(sampling, 0): tmp_path / "within", (sampling + 1, 0): tmp_path / "after"}
    recorders: list[Recorder] = []

    def watch(run: ProfitRun) -> Recorder:
        recorders.append(Recorder(run, moments))
        return recorders[0]

    result = train(tmp_path / "run", config, watch)
    for folder in moments.values():
        train(folder, config)
        assert outcome(folder) == outcome(tmp_path / "run")
    read = evaluate_model(read_model(tmp_path / "run"), config.data, batch_size=config.schedule.batch_size)
    assert asdict(read) == result["rows"][-1]["averaged"]
    frozen = [len(record.frozen) for record in recorders[0].phases if record.frozen]
    assert frozen == ([5, 10] if method.endswith("order") else [])


def test_a_continued_run_keeps_its_teacher_and_its_average(finished: FinishedRun, tmp_path: Path):
    """It begins as the earlier run ended, in float is taught by that run's float network, and samples anew.

    The average goes on, but for ranges that are fitted anew: a mean of those of two widths fits neither.
    """
    changes = {"weight_bits": (2,), "activation_bits": (3,), "average": AverageConfig(decay=0.9, restart=False)}
    config = continued(short(finished.config, **changes), str(finished.folder))
    recorders: list[Recorder] = []

    def watch(run: ProfitRun) -> Recorder:
        recorders.append(Recorder(run, {}))
        return recorders[0]

    result = train(tmp_path / "run", config, watch)
    assert (tmp_path / "run" / TEACHER_FILE).read_bytes() == (finished.folder / TEACHER_FILE).read_bytes()
    final = load_file(finished.folder / WEIGHTS_FILE)
    first = recorders[0].phases[0]
    assert all(torch.equal(value, final[name]) for name, value in first.before.items())
    assert [row["widths"] for row in result["rows"]] == ["A3W3", "A3W2", "A3W2"]
    assert result["padding_top1"] == {}  # measured when the weights were new
    for record in recorders[0].phases[1:-1]:
        assert not all(same(value, record.before[name]) for name, value in record.averaged.items())  # no restart
    refitted = next(record for record in recorders[0].phases if record.phase.weight_bits == 2)
    ranges = [name for name in refitted.before if ".weight_quantizer." in name]
    assert ranges
    assert all(torch.equal(refitted.averaged[name], refitted.before[name]) for name in ranges)
    assert len(result["rows"]) == 3


def test_a_run_that_begins_quantized_is_looked_at_as_it_was(finished: FinishedRun, tmp_path: Path):
    """At the widths that the earlier one ended with, before it was snapped: its start is no float network."""
    config = continued(short(finished.config, weight_bits=(2,), activation_bits=(3,)), str(finished.folder))
    session = prepare_session(config)
    run = ProfitRun(session, RunDirectory.create(tmp_path / "run", config.to_json()), Observer())
    set_bits(session.model, finished.config.weight_bits[-1], finished.config.activation_bits[-1])
    assert run.state.start_top1 == run.examiner.accuracy(session.model).top1


def test_a_teacher_that_got_lost_is_not_replaced_by_what_it_taught(finished: FinishedRun, tmp_path: Path):
    folder = shutil.copytree(finished.copies[SNAP - 1, 0], tmp_path / "run")
    (folder / TEACHER_FILE).unlink()
    with pytest.raises(ValueError, match=f"^{folder / TEACHER_FILE}: "):
        train(folder, finished.config)
    assert not (folder / TEACHER_FILE).exists()


@pytest.mark.slow
def test_a_run_that_stops_at_a_loss_that_is_not_finite_leaves_word_until_it_goes_on(finished: FinishedRun, tmp_path: Path):
    """The next try finds the first phase done or not; either way the word of the last one is gone before it trains."""
    folder = tmp_path / "run"
    wild = replace(finished.config, schedule=replace(finished.config.schedule, float_lr=1e30))
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="phase 1 of 23"):
            train(folder, wild)
        failure = RunDirectory(folder).read_json(FAILURE_FILE)
        assert (failure["phase"], failure["epoch"]) == (0, 0)
        assert "try a lower schedule.float-lr" in failure["error"]
    RunDirectory(folder).write_json("config.json", finished.config.to_json())
    train(folder, finished.config)
    assert not (folder / FAILURE_FILE).exists()
