"""A training that can lead nowhere stops; one that only suffers from a narrower width does not."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from subfour.profit.collapse import ChanceGuard, CollapseError, check_parameters, check_ranges
from subfour.profit.method import FAILURE_FILE, ProfitRun
from subfour.quantizers import PACT, QUANTIZER_PAIRS, DuQ, DuQWeight, Quantizer, QuantizerName
from subfour.rundir import RunDirectory
from subfour.train.interruption import Interruption
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import Observer, outcome, train


def record(train_top1: float, raw: float, kind: str = "finetune", bits: int = 4, **changes: int) -> dict[str, Any]:
    widths = {"activation_bits": 4, "weight_bits": bits}
    return {"kind": kind, **widths, "epoch": 0, "epochs": 3, "train_top1": train_top1, "raw": {"top1": raw}, **changes}


def verdicts(*records: dict[str, Any], classes: int = 10) -> list[bool]:
    """Return of each epoch whether the guard stops it."""
    guard, found = ChanceGuard(torch.arange(100 * classes) % classes, classes, trained=1000), []
    for entry in records:
        try:
            guard.check(entry, rate="schedule.lr")
            found.append(False)
        except CollapseError:
            found.append(True)
        guard.remember(entry)
    return found


def test_chance_after_better_at_the_same_widths_is_a_collapse():
    assert verdicts(record(60, 55), record(10.5, 10), record(10, 11.7, epoch=1)) == [False, True, True]


def test_one_accuracy_at_chance_is_none():
    """Statistics that lag spoil validation, augmentation spoils training; neither alone says that nothing is left."""
    assert verdicts(record(60, 55), record(60, 10), record(9, 40), record(10, 12)) == [False] * 4


def test_a_network_that_had_learned_little_may_fall_back():
    """As in the first epochs of a float phase."""
    assert verdicts(record(30, 25, "float", 32), record(10, 10, "float", 32)) == [False, False]


def test_a_narrower_width_may_begin_at_chance():
    """As long as the phase that trains its weights mends it."""
    begins = [
        record(90, 88, bits=4),
        record(10, 10, "stabilize", 2, epochs=1),
        record(10, 10, bits=2),
        record(11, 10, bits=2, epoch=1),
    ]
    assert verdicts(*begins, record(40, 30, bits=2, epoch=2)) == [False] * 5
    assert verdicts(*begins, record(10, 10, bits=2, epoch=2)) == [False] * 4 + [True]


def test_chance_is_the_share_of_the_commonest_class():
    """A network that always gives one answer is at chance, however common that class is."""
    guard = ChanceGuard(torch.tensor([0] * 60 + [1] * 20 + [2] * 20), 3, trained=1000)
    assert guard.chance == 60
    guard.remember(record(90, 90))
    with pytest.raises(CollapseError, match=r"fell from 90.0 % to chance, 60.0 %, in epoch 1; .+ a lower schedule.lr"):
        guard.check(record(60, 60), rate="schedule.lr")


@pytest.mark.parametrize(("trained", "validation"), [(24, 8), (40, 10), (80, 20)])
def test_guesses_about_few_images_are_no_collapse(trained: int, validation: int):
    """Two classes, and a network that has learned nothing yet: in 20 epochs a coin is often far above chance, and below."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        guard = ChanceGuard(torch.arange(validation) % 2, 2, trained=trained)
        for _ in range(20):
            guessed, right = (
                100 * float((torch.rand(n, generator=generator) < 0.5).float().mean()) for n in (trained, validation)
            )
            guard.check(record(guessed, right), rate="schedule.lr")
            guard.remember(record(guessed, right))


def test_images_of_one_class_tell_nothing():
    guard = ChanceGuard(torch.zeros(50, dtype=torch.long), 2, trained=1000)
    guard.remember(record(100, 100))
    guard.check(record(100, 100), rate="schedule.lr")


@pytest.mark.slow
def test_no_real_run_is_stopped(finished: FinishedRun):
    """Here one of a few steps per epoch; `results/LOG.md` tells of larger ones."""
    metrics = RunDirectory(finished.folder).metrics()
    assert len(metrics) == finished.result["epochs"]
    guard = ChanceGuard(torch.arange(40) % 10, 10, trained=64)
    for entry in metrics:
        guard.check(entry, rate="schedule.lr")
        guard.remember(entry)


def calibrated(quantizer: Quantizer) -> nn.Module:
    quantizer.bits = 4
    quantizer.initialize(torch.linspace(-1, 2, 60).reshape(3, 20))
    return nn.ModuleDict({"layer": quantizer})


def set_alpha(quantizer: Any) -> None:
    quantizer.alpha.data.fill_(-1e-3)


def set_raw(quantizer: Any) -> None:
    quantizer.output_range_raw.data.fill_(-1e4)


def set_nan(quantizer: Any) -> None:
    quantizer.input_range_raw.data.view(-1)[0] = float("nan")


@pytest.mark.parametrize(
    ("make", "spoil", "message"),
    [
        (lambda: PACT("unsigned"), set_alpha, "the range of layer is at zero"),
        (lambda: DuQ("hswish"), set_raw, "the range of layer is at zero"),
        (lambda: DuQWeight((3, 1)), set_raw, "the range of layer is at zero"),
        (lambda: DuQWeight((3, 1)), set_nan, "the range of layer is not finite"),
    ],
)
def test_a_range_at_zero_or_not_finite_is_named(make: Callable[[], Quantizer], spoil: Callable[[Quantizer], None], message: str):
    model = calibrated(make())
    check_ranges(model, rate="schedule.lr")
    spoil(model["layer"])
    with pytest.raises(CollapseError, match=f"{message}; try a lower schedule.range-lr-scale or schedule.snap-lr"):
        check_ranges(model, rate="schedule.snap-lr")
    model["layer"].bits = 32
    check_ranges(model, rate="schedule.lr")  # it does not quantize


def test_one_dead_channel_is_no_collapse():
    """Weight decay empties some of every MobileNet."""
    model = calibrated(DuQWeight((3, 1)))
    model["layer"].output_range_raw.data[0] = -1e4
    check_ranges(model, rate="schedule.lr")


def test_a_parameter_that_is_not_finite_is_named_unless_it_rests():
    model = nn.Linear(2, 2)
    model.weight.data[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match=r"weight is not finite after epoch 3"):
        check_parameters(model, 2)
    model.weight.requires_grad_(False)
    check_parameters(model, 2)


class Saboteur(Observer):
    """Spoils the network after one step."""

    def __init__(self, run: ProfitRun, phase: int, spoil: Callable[[ProfitRun], None]) -> None:
        """Wait for the second epoch of a phase."""
        self.run, self.phase, self.spoil = run, phase, spoil

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Do it."""
        state = self.run.state
        if (state.phase, state.next_epoch, step) == (self.phase, 1, 0):
            self.spoil(self.run)


def fill(value: float) -> Callable[[ProfitRun], None]:
    def spoil(run: ProfitRun) -> None:
        for name, parameter in run.model.named_parameters():
            if name == "classifier.3.weight":
                parameter.data.fill_(value)

    return spoil


def pretend_it_was_good(run: ProfitRun) -> None:
    """Leave nothing but chance, after an accuracy that the tiny run never reaches."""
    fill(0.0)(run)
    run.chance.best[32, 32] = 90.0
    run.state.underway.hits = 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (fill(float("nan")), "the loss is nan in epoch 2, step 2; try a lower schedule.float-lr"),
        pytest.param(pretend_it_was_good, r"accuracy fell from 90.0 % to chance, 1\d\.\d %, in epoch 2", marks=pytest.mark.slow),
    ],
)
def test_a_collapse_keeps_the_last_good_checkpoint_and_says_why(
    finished: FinishedRun, tmp_path: Path, spoil: Callable[[ProfitRun], None], message: str
):
    """Not that of a step on the way; metrics.jsonl ends with what was seen, until the run goes on."""
    folder = tmp_path / "run"
    with pytest.raises(CollapseError, match=rf"^phase 1 of 23 \(float A32W32\): {message}.*; the epochs before it are kept$"):
        train(folder, finished.config, lambda run: Saboteur(run, 0, spoil), Interruption(0))
    (kept,) = (folder / "checkpoints").iterdir()
    assert kept.name.startswith("checkpoint-000001-")
    assert "step" not in kept.name
    good, last = RunDirectory(folder).metrics()
    assert (last["phase"], last["epoch"], "collapse" in good) == (0, 1, False)
    assert last["collapse"].startswith(message[:20].replace("\\", ""))
    train(folder, finished.config)
    assert outcome(folder) == outcome(finished.folder)


def test_the_guard_can_be_told_to_let_go(finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Chance goes on; what is not finite never does."""
    monkeypatch.setattr(
        "tests.profit.tiny_run.ProfitRun", lambda *args, **kwargs: ProfitRun(*args, **kwargs, collapse_guard=False)
    )
    config = replace(
        finished.config, schedule=replace(finished.config.schedule, finetune_epochs=0, stabilize_epochs=0, sample_epochs=0)
    )
    config = replace(config, teacher="none", method="none", snap=False)
    train(tmp_path / "chance", config, lambda run: Saboteur(run, 0, pretend_it_was_good))
    assert json.loads((tmp_path / "chance" / "result.json").read_text())["rows"]
    with pytest.raises(CollapseError, match="the loss is nan"):
        train(tmp_path / "nan", config, lambda run: Saboteur(run, 0, fill(float("nan"))))


def test_a_run_that_begins_quantized_knows_how_good_its_start_was():
    """Its first widths may have ruined it: nothing in its records was ever above chance."""
    labels = torch.arange(100) % 10
    for start, collapses in ((90.0, True), (20.0, False)):
        guard = ChanceGuard(labels, 10, trained=1000, start=start)
        with pytest.raises(CollapseError) if collapses else nullcontext():
            guard.check(
                {
                    "kind": "finetune",
                    "epoch": 1,
                    "epochs": 2,
                    "activation_bits": 2,
                    "weight_bits": 2,
                    "train_top1": 10.0,
                    "raw": {"top1": 10.0},
                },
                rate="schedule.lr",
            )


@pytest.mark.parametrize("quantizer", QUANTIZER_PAIRS)
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(32, 4), (4, 32)])
def test_every_quantizer_collapses_alike_where_the_rate_is_too_high(
    finished: FinishedRun, tmp_path: Path, quantizer: QuantizerName, weight_bits: int, activation_bits: int
):
    """Whether a range is learned or follows the values: the run says why, and can go on."""
    schedule = replace(finished.config.schedule, float_epochs=1, stabilize_epochs=0, sample_epochs=0, max_steps=3, lr=1e30)
    changes = {"quantizer": quantizer, "weight_bits": (weight_bits,), "activation_bits": (activation_bits,)}
    config = replace(finished.config, schedule=schedule, method="none", teacher="none", snap=False, **changes)
    where = rf"phase 2 of \d \(finetune A{activation_bits}W{weight_bits}\)"
    kept = "the epochs before it are kept, and the networks at the widths passed, in .+/models"
    with pytest.raises(CollapseError, match=f"{where}: .+ try a lower schedule.lr; {kept}$"):
        train(tmp_path, config)
    failure = RunDirectory(tmp_path).read_json(FAILURE_FILE)
    assert (failure["phase"], failure["epoch"]) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "where", "option"),
    [
        ({"float_lr": 1e30}, "float A32W32", "schedule.float-lr"),
        ({"float_lr": None, "lr": 1e30}, "float A32W32", "schedule.lr"),
        ({"lr": 1e30}, "finetune A4W32", "schedule.lr"),
        ({"snap_lr": 1e30}, "snap A4W4", "schedule.snap-lr"),
    ],
)
def test_the_advice_names_the_option_that_acts(
    finished: FinishedRun, tmp_path: Path, changes: dict[str, float | None], where: str, option: str
):
    """In metrics.jsonl as in the message."""
    epochs = {"float_epochs": 1, "finetune_epochs": 1, "stabilize_epochs": 0, "sample_epochs": 0, "max_steps": 3}
    schedule = replace(finished.config.schedule, **epochs, **changes)
    config = replace(finished.config, schedule=schedule, weight_bits=(4,), activation_bits=(4,), method="none", teacher="none")
    with pytest.raises(CollapseError, match=rf"\({where}\): .+; try a lower ([a-z-.]+ or )?{option}; the epochs before"):
        train(tmp_path, config)
    assert RunDirectory(tmp_path).metrics()[-1]["collapse"].endswith(option)
