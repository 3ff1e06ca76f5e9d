from pathlib import Path

import pytest

from tests.cli.command import error, printed


def test_the_page_lies_where_it_is_asked_for_and_so_do_its_figures(finished_run: Path, tmp_path: Path):
    out, figures = tmp_path / "new" / "page.html", tmp_path / "results" / "figures"
    text = printed("report", finished_run, "--out", out, "--figures", figures)
    assert text == f"{out}: 9 figures; open it in a browser\n"
    assert out.read_text().startswith("<!doctype html>")
    assert (figures / "f4-tradeoff.svg").exists()
    assert "../results/figures/f4-tradeoff.svg" in out.read_text()


def test_by_default_the_page_lies_in_the_run(interrupted: Path):
    printed("report", interrupted)
    assert (interrupted / "report.html").exists()


def test_mistakes_are_named(finished_run: Path, tmp_path: Path):
    assert error("report").startswith("run")
    assert error("report", tmp_path).startswith(f"{tmp_path}: not a run directory")
    assert error("report", finished_run, "--out", tmp_path).startswith(f"out: {tmp_path} is a folder; name a file")
    file = tmp_path / "file"
    file.touch()
    assert error("report", finished_run, "--out", file / "x.html").startswith(f"out: {file} is a file, and cannot hold others")
    assert error("report", finished_run, "--figures", file).startswith(f"figures: {file} is a file, and cannot hold others")


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json", "model.safetensors", "checkpoints/new"])
def test_no_page_is_written_over_what_a_run_holds(interrupted: Path, name: str):
    """Nor where its result will be: a run with one is finished."""
    out = interrupted / name
    held = out.read_bytes() if out.exists() else None
    assert error("report", interrupted, "--out", out).startswith(f"out: {out} belongs to a run, which would be damaged")
    assert (out.read_bytes() if out.exists() else None) == held
