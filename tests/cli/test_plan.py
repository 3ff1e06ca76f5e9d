import json
from pathlib import Path

import pytest

from tests.cli.command import ONE_STEP, error, printed, subfour


def test_json_is_a_list_of_phases():
    phases = json.loads(printed("plan", "imagenet-mobilenet-v2", "--json"))
    assert len(phases) == 22
    assert sum(phase["epochs"] for phase in phases) == 200
    assert all(list(phase) == ["kind", "weight_bits", "activation_bits", "frozen", "epochs"] for phase in phases)
    assert [phase["frozen"] for phase in phases[-6:]] == ["0", "0", "0", "1/3", "2/3", "0"]
    assert phases[-5] == {"kind": "sample", "weight_bits": 4, "activation_bits": 4, "frozen": "0", "epochs": 5}


def test_the_table_has_a_line_per_phase():
    title, headings, *rows = printed("plan", "imagenet-mobilenet-v2").splitlines()
    assert title == "imagenet-mobilenet-v2: 22 phases, 200 epochs, torchvision/mobilenet_v2"
    assert headings.split() == ["phase", "kind", "weight", "bits", "activation", "bits", "frozen", "epochs"]
    assert rows[0].split() == ["1", "float", "32", "32", "0", "15"]
    assert rows[20].split() == ["21", "finetune", "4", "4", "2/3", "15"]
    assert len(rows) == 22


def test_options_change_the_plan():
    words = [
        "--weight-bits",
        "8",
        "5",
        "4",
        "3",
        "--activation-bits",
        "8",
        "5",
        "4",
        "3",
        "--profit.fractions",
        "1/4",
        "1/2",
        "3/4",
    ]
    phases = json.loads(printed("plan", "digits", *words, "--json"))
    assert [phase["frozen"] for phase in phases if phase["frozen"] != "0"] == ["1/4", "1/2", "3/4"]
    assert phases[-1]["weight_bits"] == phases[-1]["activation_bits"] == 3


def test_the_float_control_has_the_epochs_of_the_quantized_run():
    """A lone 32 stands for as many widths as the recipe has; there are no constants to snap in float."""
    control = json.loads(printed("plan", "digits", "--weight-bits", 32, "--activation-bits", 32, "--keep-phases", "--json"))
    phases = json.loads(printed("plan", "digits", "--no-snap", "--json"))
    assert [(phase["kind"], phase["epochs"]) for phase in control] == [(phase["kind"], phase["epochs"]) for phase in phases]
    assert {phase["weight_bits"] for phase in control} == {phase["activation_bits"] for phase in control} == {32}


def test_the_snap_phase_is_an_option():
    """On in this recipe, off in the paper's; it comes last and once."""
    kinds = [phase["kind"] for phase in json.loads(printed("plan", "digits", "--json"))]
    assert (kinds[-1], kinds.count("snap"), len(kinds)) == ("snap", 1, 23)
    without = [phase["kind"] for phase in json.loads(printed("plan", "digits", "--no-snap", "--json"))]
    assert without == kinds[:-1]
    assert json.loads(printed("plan", "imagenet-mobilenet-v2", "--snap", "--json"))[-1]["kind"] == "snap"
    assert error("plan", "digits", "--schedule.snap-epochs", 0).startswith("schedule.snap_epochs: 0 leaves the snap phase out")


@pytest.mark.parametrize("method", ["none", "dampening"])
@pytest.mark.parametrize("options", [["--profit.fractions", "1/4", "1/2", "3/4"], ["--profit.at-bits", 8]])
def test_a_rival_has_as_many_epochs_as_progressive_freezing(method: str, options: list[str | int]):
    """Of any fractions, at any width: else nothing could be compared with it."""
    profit, rival = (json.loads(printed("plan", "digits", *options, *words, "--json")) for words in ([], ["--method", method]))
    assert [phase | {"frozen": "0"} for phase in profit] == rival
    assert profit != rival != json.loads(printed("plan", "digits", "--method", method, "--json"))


def test_keeping_phases_repeats_no_other_width():
    words = ("plan", "digits", "--weight-bits", 32, 4, "--keep-phases", "--json")
    assert [phase["weight_bits"] for phase in json.loads(printed(*words))].count(4) == len(
        [phase for phase in json.loads(printed("plan", "digits", "--weight-bits", 4, "--json")) if phase["weight_bits"] == 4]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep-phases"], "keep_phases: no width is 32, so that there are no float phases to keep; leave it out"),
        (["--weight-bits", 8, 8, 4, 32, "--keep-phases"], "weight_bits: 8 8 4 32 must fall"),
        (["--weight-bits", 8, 8, 4, "--activation-bits", 32, "--no-snap", "--keep-phases"], "weight_bits: 8 8 4 must fall"),
        (
            ["--method", "none", "--profit.covers", "weights+ranges"],
            "profit.covers: 'weights+ranges' is not read with --method none",
        ),
        (["--method", "dampening", "--profit.covers", "weights+ranges"], "profit.covers: 'weights+ranges' is not read with"),
        (["--oscillation.dampening", 3], "oscillation.dampening: 3.0 is not read with --method profit"),
        (
            ["--method", "dampening", "--oscillation.momentum", 0.5],
            "oscillation.momentum: 0.5 is not read with --method dampening",
        ),
        (["--teacher", "none", "--distill.weight", 2], "distill.weight: 2.0 is not read with --teacher none; leave it out"),
        (
            ["--teacher", "torchvision/resnet18", "--distill.weight", 0],
            "teacher: 'torchvision/resnet18' is not read with --distill.weight 0; leave it out",
        ),
        (["--calibration-batches", 2**31], "calibration_batches: 2147483648 is not possible; use 2147483647 at most"),
        (
            ["--profit.fractions"],
            "profit.fractions: none is named, so that nothing would be frozen; name some",
        ),
        (["--quantizer", "uniq"], "snap: uniq has no integer form, so that nothing can be snapped; add --no-snap"),
    ],
)
def test_what_would_be_ignored_is_refused(words: list[str | int], message: str):
    assert error("plan", "digits", *words).startswith(message)


def test_the_control_of_a_continued_run_has_its_epochs(finished_run: Path, tmp_path: Path):
    """One block of float phases for each block of widths, not one for each of the recipe's."""
    floating = ["train", "digits", *ONE_STEP, "--weight-bits", 32, "--activation-bits", 32, "--out", tmp_path / "float"]
    subfour(*floating)
    plans = [
        json.loads(printed("plan", "digits", "--from", tmp_path / "float", *words, "--json"))
        for words in (
            ["--weight-bits", 4, "--activation-bits", 4, "--no-snap"],
            ["--weight-bits", 32, "--activation-bits", 32, "--keep-phases", "--no-snap"],
        )
    ]
    assert [(phase["kind"], phase["epochs"]) for phase in plans[0]] == [(phase["kind"], phase["epochs"]) for phase in plans[1]]


def test_the_paper_s_schedule_of_a_recipe_is_one_option():
    """The ImageNet recipes have it anyhow."""
    for recipe, same in (("digits", "digits-paper"), ("imagenet-mobilenet-v2", "imagenet-mobilenet-v2")):
        for words in (["--recipe", "paper"], ["--recipe=paper"]):
            assert printed("plan", recipe, "--json", *words) == printed("plan", same, "--json")
    assert printed("plan", "digits", "--json") != printed("plan", "digits-paper", "--json")
    assert error("plan", "digits", "--recipe", "papers").startswith("recipe: --recipe papers is not possible; use --recipe paper")
    assert error("plan", "mine.py:mine", "--recipe", "paper").startswith("recipe: mine.py:mine has no schedule of the paper's")


@pytest.mark.parametrize("option", ["--out", "--resume"])
def test_a_plan_goes_nowhere(option: str):
    assert error("plan", "digits", option, "run").startswith(f"option: there is no {option}")


def test_the_plan_of_a_continued_run_starts_at_its_width(finished_run: Path):
    phases = json.loads(printed("plan", "digits", "--from", finished_run, "--weight-bits", 3, "--activation-bits", 3, "--json"))
    assert [(phase["activation_bits"], phase["weight_bits"]) for phase in phases] == [(3, 4)] * 3 + [(3, 3)] * 7


def test_a_continued_run_without_widths_is_told_how_to_name_some(finished_run: Path):
    message = error("plan", "digits", "--from", finished_run)
    assert message.startswith(f"weight_bits: 8 is wider than the 4 bits that {finished_run} ended with; name narrower ones")
    assert message.endswith("such as --weight-bits 3 --activation-bits 3")
