import csv
import json
import logging
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from subfour.cli import compare, train
from subfour.cli.study import read_study, same_run
from subfour.cli.study_progress import State, seconds_left
from subfour.recipes import load_recipe
from tests.cli.command import error, printed, subfour
from tests.cli.studies import FLOAT, QUANTIZED, study_row, write_study


def test_the_plan_lists_every_run_and_its_time_and_trains_nothing(study: Path):
    plan = json.loads(printed("compare", study, "--dry-run", "--json"))
    assert [(run["row"], run["seed"], run["state"], run["epochs"]) for run in plan["runs"]] == [
        ("float", 0, "new", 1),
        ("float", 1, "new", 1),
        ("lsq-w3a4", 1, "new", 10),
    ]
    assert (plan["seconds"], plan["seconds_from"]) == (30 * 12, "seconds_per_epoch")
    command = shlex.split(plan["runs"][2]["command"])
    assert command[-2:] == ["--out", "runs/small/lsq-w3a4/seed-1"]
    assert "3 runs, 0:06:00 of training left (at 30 s an epoch, as the study says)" in printed("compare", study, "--dry-run")
    assert not Path("runs").exists()


def test_a_study_that_does_not_say_how_long_an_epoch_takes_has_no_time(study: Path):
    study.write_text(study.read_text().replace("seconds_per_epoch = 30", ""))
    plan = json.loads(printed("compare", study, "--dry-run", "--json"))
    assert [plan["seconds"], plan["seconds_from"], *(run["seconds"] for run in plan["runs"])] == [None] * 5
    assert "of an unknown time: no run is finished" in printed("compare", study, "--dry-run")


def test_the_time_left_is_that_of_finished_runs_with_the_same_network_and_steps(study: Path):
    printed("compare", study, "--out", "out")
    for seed, seconds in ((0, 10.0), (1, 20.0)):
        file = Path(f"out/float/seed-{seed}/result.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": seconds}))
    shutil.rmtree("out/lsq-w3a4")
    plan = json.loads(printed("compare", study, "--out", "out", "--dry-run", "--json"))
    assert (plan["seconds"], plan["seconds_from"]) == (10 * 15, "finished runs")
    assert "3 runs, 0:02:30 of training left (as the finished ones)" in printed("compare", study, "--out", "out", "--dry-run")
    more = study_row("long", f"{FLOAT} --schedule.max-steps 9", [0]) + study_row("short", FLOAT, [7])
    study.write_text(study.read_text() + more)
    file = Path("out/long/seed-0/result.json")
    file.parent.mkdir(parents=True)
    (file.parent / "config.json").write_text("{}")
    file.write_text(json.dumps(json.loads(Path("out/float/seed-0/result.json").read_text()) | {"seconds": 600.0}))
    states: list[State] = ["finished", "finished", "diverged", "finished", "new"]
    assert seconds_left(read_study(study, Path("out")), states) == [0, 0, 0, 0, 15]


def test_a_study_runs_is_skipped_when_done_and_goes_on_where_it_was(study: Path):
    """Each run is a run directory; the table has a row per row, in CSV and JSON alike."""
    outcome = subfour("compare", study, "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    table = json.loads(outcome.out)
    assert [(line["row"], line["widths"], line["seeds"]) for line in table] == [("float", "A32W32", 2), ("lsq-w3a4", "A4W3", 1)]
    result = json.loads(Path("out/lsq-w3a4/seed-1/result.json").read_text())
    floating = json.loads(Path("out/float/seed-1/result.json").read_text())
    assert (result["quantizer"], result["method"], result["seed"]) == ("lsq", "dampening", 1)
    assert table[1]["top1"] == result["rows"][-1]["averaged"]["top1"]
    assert table[1]["lost"] == floating["rows"][-1]["averaged"]["top1"] - table[1]["top1"]
    page = Path("out/study.html").read_text()
    assert "3 of 3 runs are finished, 0 diverged, 0 are missing." in page
    assert "subfour train digits --schedule.max-steps 1" in page
    assert Path("out/study_figures/rows.svg").exists()
    lines = list(csv.DictReader(Path("out/table.csv").read_text().splitlines()))
    assert [{key: str(value) if value is not None else "" for key, value in line.items()} for line in table] == lines
    before = Path("out/float/seed-0/metrics.jsonl").stat().st_mtime_ns
    Path("out/lsq-w3a4/seed-1/result.json").unlink()
    plan = json.loads(printed("compare", study, "--out", "out", "--dry-run", "--json"))
    assert [run["state"] for run in plan["runs"]] == ["finished", "finished", "unfinished"]
    assert plan["seconds"] == 0  # all of its epochs are done
    again = json.loads(subfour("compare", study, "--out", "out", "--json").out)
    assert [line | {"minutes": 0} for line in again] == [line | {"minutes": 0} for line in table]
    assert Path("out/float/seed-0/metrics.jsonl").stat().st_mtime_ns == before


def test_a_run_that_diverges_is_a_row_and_does_not_stop_the_others(tmp_path: Path, photographs: Path):
    rows = study_row("wild", "--schedule.float-lr 1e30 --schedule.max-steps 3", [0]) + study_row("float", FLOAT, [0])
    study = write_study(tmp_path / "wild.toml", photographs, rows)
    out = tmp_path / "out"
    table = json.loads(subfour("compare", study, "--out", out, "--json").out)
    assert [(line["row"], line["seeds"], line["diverged"]) for line in table] == [("wild", 0, 1), ("float", 1, 0)]
    assert (table[0]["top1"], table[0]["widths"]) == (None, None)
    assert "try a lower schedule.float-lr" in (out / "wild/seed-0/diverged.json").read_text()
    assert "try a lower schedule.float-lr" in (out / "study.html").read_text()
    printed("compare", study, "--out", out)  # and is not tried again


def test_a_run_that_cannot_start_does_not_stop_the_others(tmp_path: Path, photographs: Path):
    """Nothing is left of it, so that it is tried again; the end names it."""
    rows = study_row("taught", "--teacher subfour/mobilenet_v1 --teacher-weights none.pth", [0]) + study_row("float", FLOAT, [0])
    study, out = write_study(tmp_path / "small.toml", photographs, rows), tmp_path / "out"
    outcome = subfour("compare", study, "--out", out, "--json")
    assert outcome.code == 2
    assert [(line["row"], line["seeds"], line["missing"]) for line in json.loads(outcome.out)] == [
        ("taught", 0, 1),
        ("float", 1, 0),
    ]
    assert "study: taught, seed 0: teacher: " in outcome.err
    assert not (out / "taught").exists()


def test_a_run_that_went_on_elsewhere_is_the_same_run(study: Path, photographs: Path):
    """Where its images lie now, and who decodes them, decides no weight."""
    printed("compare", study, "--out", "out")
    folder = Path("elsewhere", photographs.name)
    folder.parent.mkdir()
    folder.symlink_to(photographs)
    study.write_text(study.read_text().replace(str(photographs), str(folder)).replace("--loading.workers 0", ""))
    plan = json.loads(printed("compare", study, "--out", "out", "--dry-run", "--json"))
    assert {run["state"] for run in plan["runs"]} == {"finished"}


def test_what_goes_on_from_a_row_has_its_images(study: Path, photographs: Path):
    """So the page says of every row on what it was trained."""
    data = f"--data folder:{photographs}"
    study.write_text(study.read_text().replace(data, "").replace(FLOAT, f"{FLOAT} {data}"))
    assert {run.config.data for run in read_study(study, Path("out")).runs} == {f"folder:{photographs}"}


@pytest.mark.parametrize(
    ("there", "now"),
    [
        ("{out}/float/seed-{seed} --weight-bits 3", "{out}/float/seed-0 --weight-bits 3"),
        ("--padding zero", "--padding zero --weights w.pth"),
    ],
)
def test_a_run_that_started_elsewhere_is_another_run(study: Path, there: str, now: str):
    """The table would say of it what is not so."""
    printed("compare", study, "--out", "out")
    Path("w.pth").touch()
    study.write_text(study.read_text().replace(there, now, 1))
    assert "holds a run with other options" in error("compare", study, "--out", "out", "--dry-run")


@pytest.mark.slow
def test_every_run_has_the_threads_of_the_study(study: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    train = compare.train.run

    def resumed(words: list[str]) -> None:
        seen.append(torch.get_num_threads())
        train(words)
        torch.set_num_threads(torch.get_num_threads() + 1)  # as a run does that was begun with more

    monkeypatch.setattr(compare.train, "run", resumed)
    printed("compare", study, "--out", "out")
    assert len(seen) == 3
    assert len({*seen}) == 1


def test_after_each_run_the_page_says_what_is_known(study: Path, monkeypatch: pytest.MonkeyPatch):
    pages: list[str] = []

    def interrupted(words: list[str]) -> None:
        pages.append(Path("out/study.html").read_text())
        if len(pages) == 2:
            raise KeyboardInterrupt
        train(words)

    train = compare.train.run
    monkeypatch.setattr(compare.train, "run", interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"^go on with: subfour compare {study} --out out$"):
        compare.run([str(study), "--out", "out"])
    assert [f"{done} of 3 runs are finished" in page for done, page in enumerate(pages)] == [True, True]
    assert "1 of 3 runs are finished, 0 diverged, 2 are missing." in Path("out/study.html").read_text()


def test_rows_of_another_study_are_left_out_with_a_word(study: Path, caplog: pytest.LogCaptureFixture):
    printed("compare", study, "--out", "out")
    Path("out/lsq-w3a4").rename("out/of-another")
    with caplog.at_level(logging.WARNING):
        printed("compare", study, "--out", "out")
    assert "out: out holds rows that this study has not, and table and page leave them out: of-another" in caplog.text


def test_runs_of_other_images_are_not_taken_for_those_of_a_study(study: Path, tmp_path: Path):
    """Wherever they lie, images are known by their name."""
    config = replace(load_recipe("digits"), data="folder:here/photos")
    assert same_run(config, replace(config, data="folder:/there/photos/"))
    assert not same_run(config, replace(config, data="folder:here/photos-2"))


def test_a_directory_with_other_options_is_refused(study: Path):
    printed("compare", study, "--out", "out")
    study.write_text(study.read_text().replace("--method dampening", "--method none"))
    assert error("compare", study, "--out", "out").startswith("study: out/lsq-w3a4/seed-1 holds a run with other options")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[row]", "study: .* is not TOML"),
        ('recipe = "digits"', r"needs at least one \[\[row\]\]"),
        ('[[row]]\nname = "a"\n', "row a: no recipe is named"),
        ('[[row]]\nrecipe = "digits"\n', "each with a name of its own"),
        ('recipe = "digits"\n[[row]]\nname = "a"\n[[row]]\nname = "a"', "each with a name of its own"),
        (
            'recipe = "digits"\n[[row]]\nname = "a"\nseed = 3',
            "row a: there is no key 'seed'; there are float_rows, name, options",
        ),
        ('recipes = "digits"', "there is no key 'recipes'"),
        ('recipe = "digits"\n[row]\nname = "a"', r"row: {'name': 'a'} is not possible; use \[\[row\]\], once or more"),
        ('recipe = "digits"\n[[row]]\nname = "a"\nseeds = 3', "row a: seeds: 3 is not possible; use a list of whole numbers"),
        ('recipe = "digits"\n[[row]]\nname = "a"\nseeds = []', r"row a: seeds: \[\] is not possible"),
        ('recipe = "digits"\n[[row]]\nname = "a"\nseeds = [0, 0]', r"row a: seeds: \[0, 0\] is not possible"),
        (
            'recipe = "digits"\nseconds_per_epoch = [1]\n[[row]]\nname = "a"',
            r"seconds_per_epoch: .* use a number",
        ),
        (
            'recipe = "digits"\nfloat_rows = "float"\n[[row]]\nname = "a"',
            "float_rows: .* use a list of names",
        ),
        ('recipe = "digits"\n[[row]]\nname = "../a"', "a name of its own that can be a folder's"),
        ('recipe = "digits"\ngoals = {A4W4 = "few"}\n[[row]]\nname = "a"', "goals: .* use a table of widths and points"),
        ('recipe = "digits"\ngoals = {W4A4 = 0.5}\n[[row]]\nname = "a"', "goals: no row ends at 'W4A4'; rows end at A4W4"),
        ('recipe = "digits"\nseconds_per_epoch = true\n[[row]]\nname = "a"', "seconds_per_epoch: True .* use a number"),
        ('recipe = "digits"\nseconds_per_epoch = -5\n[[row]]\nname = "a"', "seconds_per_epoch: -5 .* use more than 0"),
        ('recipe = "digits"\nseconds_per_epoch = inf\n[[row]]\nname = "a"', "seconds_per_epoch: inf .* use a number"),
        ('recipe = "digits"\noptions = "--seed 7"\n[[row]]\nname = "a"', r"row a: options: --seed is not read here; write seeds"),
        ('recipe = "digit"\n[[row]]\nname = "a"', "row a: recipe: there is no recipe 'digit'; did you mean digits"),
        ('recipe = "digits"\n[[row]]\nname = "a"\noptions = "--weight-bits 9"', "row a: .*9 bits is not possible"),
        ('recipe = "digits"\n[[row]]\nname = "a"\noptions = "--quantiser lsq"', "row a: option: .* did you mean --quantizer"),
        ('recipe = "digits"\nfloat_rows = ["b"]\n[[row]]\nname = "a"', "float_rows names 'b', which is no row"),
        (
            'recipe = "digits"\nfloat_rows = ["a"]\n[[row]]\nname = "a"\n[[row]]\nname = "b"\noptions = "--architecture.width 2"',
            "row b: float_rows names 'a', which is another network, or of other images; name rows of its own",
        ),
        (
            'recipe = "digits"\nfloat_rows = ["a"]\n[[row]]\nname = "a"\n[[row]]\nname = "b"\noptions = "--data folder:b"',
            "row b: float_rows names 'a', which is another network, or of other images",
        ),
    ],
)
def test_a_bad_study_is_refused_before_anything_runs(tmp_path: Path, text: str, message: str):
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_study(tmp_path / "study.toml", tmp_path / "out")
    assert error("compare", tmp_path / "study.toml")
    assert not (tmp_path / "out").exists()


def test_a_study_that_is_no_file_is_refused(tmp_path: Path):
    assert error("compare", tmp_path / "no.toml").startswith(f"study: there is no file {tmp_path / 'no.toml'}; name a TOML file")
    assert error("compare", tmp_path).startswith(f"study: {tmp_path} is a folder; name a TOML file")


def test_a_study_whose_folder_is_a_file_is_refused(study: Path):
    assert error("compare", study, "--out", study).startswith(f"out: {study} is a file, and cannot hold others")


@pytest.mark.slow
def test_what_was_to_start_from_a_run_that_diverged_has_diverged_too(tmp_path: Path, photographs: Path):
    """And does not stop the others; nor is it tried again."""
    wild = "--schedule.float-lr 1e30 --schedule.max-steps 3 --padding zero"
    rows = study_row("float", f"{FLOAT} {wild}", [0]) + study_row("w3a4", QUANTIZED, [0])
    rows += study_row("w2a4", "--from {out}/w3a4/seed-{seed} --weight-bits 2 --activation-bits 4", [0])
    rows += study_row("calm", FLOAT, [0])
    study = write_study(tmp_path / "wild.toml", photographs, rows)
    out = tmp_path / "out"
    for _ in range(2):
        table = json.loads(subfour("compare", study, "--out", out, "--json").out)
        assert [(line["row"], line["diverged"]) for line in table] == [("float", 1), ("w3a4", 1), ("w2a4", 1), ("calm", 0)]
    assert json.loads((out / "w3a4/seed-0/diverged.json").read_text()) == {"reason": f"its start diverged: {out}/float/seed-0"}
    assert "its start diverged" in (out / "study.html").read_text()


def test_a_row_whose_code_fails_does_not_stop_the_others(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    """As a quantizer of another package might; a full disk stops all."""
    rows = study_row("broken", f"{FLOAT} --schedule.momentum 0.5", [0]) + study_row("float", FLOAT, [0])
    study, out = write_study(tmp_path / "small.toml", photographs, rows), tmp_path / "out"
    run, raised = train.run, [KeyError("bits"), OSError(28, "No space left on device")]

    def fail(words: list[str]) -> None:
        if "0.5" in words:
            raise raised[0]
        run(words)

    monkeypatch.setattr(compare.train, "run", fail)
    outcome = subfour("compare", study, "--out", out, "--json")
    assert outcome.code == 2
    assert [(line["row"], line["seeds"]) for line in json.loads(outcome.out)] == [("broken", 0), ("float", 1)]
    assert "study: broken, seed 0: KeyError: 'bits'" in outcome.err
    assert "Traceback" in outcome.err
    del raised[0]
    stopped = subfour("compare", study, "--out", out)
    assert (stopped.code, stopped.err) == (2, "subfour: No space left on device\n")
