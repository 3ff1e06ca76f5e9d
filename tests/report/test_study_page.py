"""The page says what is true of every row of a study."""

import csv
from pathlib import Path

import pytest

from subfour.models.zoo import Architecture
from subfour.report.study import StudyRow, by_network_and_widths
from subfour.report.study_page import write_study_page
from tests.report.outline import Outline
from tests.report.study_rows import config_of, rows_of_every_kind, study_row


@pytest.fixture
def rows(tmp_path: Path) -> list[StudyRow]:
    """A study."""
    return rows_of_every_kind(tmp_path)


def test_every_row_is_told_with_mean_and_spread(rows: list[StudyRow], tmp_path: Path):
    write_study_page(Path("mine.toml"), rows, tmp_path / "study.html", goals={"A4W4": 0.5, "A2W2": 5.0})
    page = Outline((tmp_path / "study.html").read_text())
    assert all(row.name in page.words for row in rows)
    assert "91.50 ± 0.71" in page.words
    assert "0.50 ± 0.50" in page.words
    assert "7 of 11 runs are finished, 1 diverged, 3 are missing." in page.words
    assert "seed 0 diverged" in page.words
    assert "the loss is nan" in page.words
    assert "Best at A4W4, tiny_mobilenet_v3" in page.words
    assert "duq-w4a4, best of 2" in page.words
    assert "1.50 ± 0.50 points ahead of lsq-w4a4" in page.words
    assert "0.50 points lost against float, goal 0.5 reached" in page.words
    assert "12.00 points lost against float, goal 5 missed" in page.words
    assert "late-w2a2 (seed 0, 1), half-w2a2 (seed 1). The command below goes on." in page.words
    assert f"subfour compare mine.toml --out {tmp_path}" in page.words


def test_the_figure_lies_beside_it_with_a_line_for_every_run(rows: list[StudyRow], tmp_path: Path):
    write_study_page(Path("mine.toml"), rows, tmp_path / "study.html")
    assert (tmp_path / "study_figures" / "rows.svg").read_text().count("duq-w4a4") == 1
    lines = list(csv.DictReader((tmp_path / "study_figures" / "rows.csv").open()))
    assert len(lines) == 11
    assert lines[2] == {
        "network": "tiny_mobilenet_v3",
        "widths": "A4W4",
        "row": "duq-w4a4",
        "seed": "0",
        "top1": "91.0",
        "lost": "1.0",
        "state": "finished",
    }
    assert [line["row"] for line in lines if line["state"] == "missing"] == ["late-w2a2", "late-w2a2", "half-w2a2"]


def test_without_float_rows_the_figure_shows_top1(tmp_path: Path):
    rows = [
        study_row(tmp_path, "duq", config_of(4), [91.0, 92.0]),
        study_row(tmp_path, "lsq", config_of(4, quantizer="lsq"), [80.0]),
    ]
    figure = write_study_page(Path("mine.toml"), rows, tmp_path / "study.html")
    assert figure.caption.startswith("Top-1 %.")
    assert "91.50 %" in Outline((tmp_path / "study.html").read_text()).words


def test_a_study_that_has_not_begun_has_a_page(tmp_path: Path):
    row = study_row(tmp_path, "duq", config_of(4), [], missing=[0])
    figure = write_study_page(Path("mine.toml"), [row], tmp_path / "study.html")
    page = Outline((tmp_path / "study.html").read_text())
    assert not figure.svg
    assert "0 of 1 runs are finished" in page.words
    assert "No run is finished yet." in page.words


def test_the_page_is_well_made(rows: list[StudyRow], tmp_path: Path):
    write_study_page(Path("<b>mine.toml"), rows, tmp_path / "study.html")
    page = Outline((tmp_path / "study.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1
    assert all(following <= heading + 1 for heading, following in zip(page.headings, page.headings[1:], strict=False))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert all((tmp_path / address).exists() for address in page.addresses if not address.startswith("#"))
    assert "<b>" not in (tmp_path / "study.html").read_text()


def test_networks_of_one_name_are_ranked_apart(tmp_path: Path):
    """By their size, their library and their images."""
    narrow, wide = (config_of(4, architecture=Architecture(width=width)) for width in (0.5, 1.0))
    rows = [study_row(tmp_path, "narrow", narrow, [80.0]), study_row(tmp_path, "wide", wide, [90.0])]
    titles = [title for title, _, _ in by_network_and_widths(rows)]
    assert titles == [f"tiny_mobilenet_v3 (subfour, width {width}, on digits)" for width in ("0.5", "1")]
    assert [title for title, _, _ in by_network_and_widths(rows[:1])] == ["tiny_mobilenet_v3"]
