"""The page says what is true of every kind of run."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from subfour.report.page import write_report
from tests.report.outline import Outline
from tests.report.study_rows import config_of, write_run

Runs = Callable[[str], Path]

FIGURES = (
    *("f1-profit", "f2-quantizers", "f3-levels", "f4-tradeoff"),
    *("aiwq", "freezing", "errors", "codes", "ranges", "cost"),
)


def page_of(out: Path, *runs: Path) -> Outline:
    write_report(runs, out)
    return Outline(out.read_text())


def test_a_finished_run_with_two_others_has_every_figure_as_svg_and_csv(run: Runs, tmp_path: Path):
    page = page_of(tmp_path / "page.html", run("finished"), run("none"), run("pact"))
    files = {file.name for file in (tmp_path / "page_figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "csv")}
    assert set(FIGURES) <= set(page.ids)
    for name in FIGURES:
        rows = list(csv.reader((tmp_path / "page_figures" / f"{name}.csv").open()))
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}


def test_the_page_is_well_made(run: Runs, tmp_path: Path):
    """Ids once, headings without a gap, links inside the page or to its figures, and not one address elsewhere."""
    page = page_of(tmp_path / "page.html", run("finished"), run("none"))
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1
    assert all(following <= heading + 1 for heading, following in zip(page.headings, page.headings[1:], strict=False))
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids
        elif not address.startswith("data:image/png;base64,"):
            assert (tmp_path / address).is_file()
    assert not re.search(r'(src|href|url\()\s*=?\s*["\']?(https?:)?//', (tmp_path / "page.html").read_text())


def test_the_numbers_are_those_of_the_run(run: Runs, tmp_path: Path):
    page = page_of(tmp_path / "page.html", run("finished"))
    result = json.loads((run("finished") / "result.json").read_text())
    for row in result["rows"]:
        assert f"{row['averaged']['top1']:.2f}" in page.words
    assert f"{result['rows'][-1]['bytes'] / 1e3:.3g} kB" in page.words
    layers = json.loads((run("finished") / "sensitivity.json").read_text())
    with (tmp_path / "page_figures" / "aiwq.csv").open() as file:
        shown = [(row["layer"], float(row["aiwq"]), row["frozen_from_phase"]) for row in csv.DictReader(file)]
    phases = ["" if layer["frozen_in_phase"] is None else str(layer["frozen_in_phase"] + 1) for layer in layers]
    assert shown == [(layer["name"], layer["aiwq"], phase) for layer, phase in zip(layers, phases, strict=True)]


def test_the_command_that_began_the_run_is_shown_as_one_types_it(run: Runs, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run("float"), folder)
    environment = json.loads((folder / "environment.json").read_text())
    environment["command"] = "/somewhere/bin/subfour train digits --data 'folder:my photographs'"
    (folder / "environment.json").write_text(json.dumps(environment))
    assert "subfour train digits --data 'folder:my photographs'" in page_of(tmp_path / "page.html", folder).words


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("none", ["with nothing frozen", "This run froze nothing", "Give a run with the other --method"]),
        pytest.param("pact", ["Negative inputs become 0", "pact-sawb quantizers"], marks=pytest.mark.slow),
        ("float", ["Nothing is quantized in this network", "a float network"]),
        pytest.param(
            "nan", ["then training collapsed", "Training collapsed", "The run has no model yet"], marks=pytest.mark.slow
        ),
    ],
)
def test_what_is_special_about_a_run_is_said(run: Runs, tmp_path: Path, name: str, phrases: list[str]):
    page = page_of(tmp_path / "page.html", run(name))
    assert [phrase for phrase in phrases if phrase not in page.words] == []


def test_a_run_that_was_cut_off_says_where_it_stands_and_how_to_go_on(cut_off: Path, tmp_path: Path):
    page = page_of(tmp_path / "page.html", cut_off)
    assert "20 of 31 epochs are done. It stands in phase" in page.words
    assert f"subfour train --resume {cut_off}" in page.words
    assert "No layer is sampled yet" in page.words


def test_a_run_that_has_not_begun_has_a_page(cut_off: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(cut_off, folder)
    (folder / "metrics.jsonl").unlink()
    page = page_of(tmp_path / "page.html", folder)
    assert "None of its 31 epochs is done" in page.words
    assert "No epoch is done yet" in page.words


def test_a_run_from_before_ranges_were_logged_says_so(cut_off: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(cut_off, folder)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:-1]]
    lines = [json.dumps({key: value for key, value in record.items() if key != "ranges"}) for record in records]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, ""]))
    assert "before ranges were logged" in page_of(tmp_path / "page.html", folder).words


def test_a_run_without_its_model_and_images_says_so_and_goes_on(run: Runs, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run("finished"), folder)
    (folder / "model.safetensors").write_bytes(b"")
    page = page_of(tmp_path / "page.html", folder)
    assert "cannot be read" in page.words
    assert not (tmp_path / "page_figures" / "f3-levels.svg").exists()
    assert (tmp_path / "page_figures" / "aiwq.svg").exists()


@pytest.mark.slow
def test_of_200_layers_the_figures_show_some_and_the_tables_all(run: Runs, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run("finished"), folder)
    layers = json.loads((folder / "sensitivity.json").read_text())
    many = [{**layers[0], "name": f"stages.{index}.conv", "aiwq": 1 / (index + 1)} for index in range(200)]
    (folder / "sensitivity.json").write_text(json.dumps(many))
    page = page_of(tmp_path / "page.html", folder)
    assert "60 of 200 layers; the table has all" in page.words
    assert len((tmp_path / "page_figures" / "aiwq.csv").read_text().splitlines()) == 201


def test_a_name_cannot_break_out_of_the_page(run: Runs, tmp_path: Path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(run("float"), folder)
    page_of(tmp_path / "page.html", folder)
    assert "<img src=x" not in (tmp_path / "page.html").read_text()


def test_points_are_lost_against_the_better_of_float_phase_and_float_control(run: Runs, tmp_path: Path):
    control = tmp_path / "control"
    shutil.copytree(run("float"), control)
    result = json.loads((control / "result.json").read_text())
    result["rows"][-1]["averaged"]["top1"] = 99.5
    (control / "result.json").write_text(json.dumps(result))
    last = json.loads((run("finished") / "result.json").read_text())["rows"][-1]["averaged"]["top1"]
    page = page_of(tmp_path / "page.html", run("finished"), control)
    assert f"float control 99.50 %, {99.5 - last:.2f} points lost" in page.words
    config = json.loads((control / "config.json").read_text())
    config["architecture"]["width"] = 2.0
    (control / "config.json").write_text(json.dumps(config))
    assert "float control" not in page_of(tmp_path / "page.html", run("finished"), control).words


def test_the_page_says_what_began_the_run_and_where_it_went_on(run: Runs, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run("finished"), folder)
    environment = json.loads((folder / "environment.json").read_text())
    later = environment | {"date": "2031-01-02", "git": {"commit": "abc1234", "dirty": False}}
    for command, words in {
        "/bin/subfour train digits": "subfour train digits",
        "/lib/subfour/__main__.py train digits": "subfour train digits",
        "examples/02.py runs/a": "python examples/02.py runs/a",
    }.items():
        (folder / "environment.json").write_text(json.dumps(environment | {"command": command, "resumed": [later]}))
        page = page_of(tmp_path / "page.html", folder)
        assert words in page.words
        assert "gone on 2031-01-02commit abc1234" in page.words


def test_a_run_without_training_has_a_page(tmp_path: Path):
    write_run(tmp_path / "run", config_of(4, quantizer="affine", method="data-free"), top1=90.0)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    page = page_of(tmp_path / "page.html", tmp_path / "run")
    assert "affine quantizers, trained with no data" in page.words
    assert "Nothing trains in this run" in page.words
    assert "90.00 %" in page.words
