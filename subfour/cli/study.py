"""A study: rows of runs that are compared, read from a TOML file.

    recipe = "cifar10-mobilenet-v2"         of every row that names none
    options = "--teacher none"              of every row, before its own: those of `subfour train`
    seconds_per_epoch = 8.0                 for the estimate, until runs have been timed
    goals = {A4W4 = 0.5, A3W3 = 1.5}        points below float that the best row of some widths should not lose; none if left out
    float_rows = ["float"]                  points are lost against the best of these, of the same seed; a row may have its own

    [[row]]
    name = "duq-w4a4"                       also the folder of its runs, OUT/NAME/seed-SEED
    options = "--from {out}/float/seed-{seed} --weight-bits 4 --activation-bits 4"
    seeds = [0, 1, 2]                       [0] if left out

`{out}` and `{seed}` stand for the folder and the seed. A run that continues another comes after it.
"""

import math
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from subfour.cli.arguments import parse
from subfour.cli.recipe_arguments import RecipeOptions, resolved
from subfour.ops import widths_name
from subfour.profit.alike import data_name, network_and_images
from subfour.profit.config import RunConfig
from subfour.profit.phases import build_phases
from subfour.recipes import load_recipe

TEXT, NUMBER, NAMES, GOALS = "a text", "a number", "a list of names", "a table of widths and points, such as {A4W4 = 0.5}"
SEEDS = "a list of whole numbers, each another"

STUDY_KEYS = {
    "recipe": TEXT,
    "options": TEXT,
    "seconds_per_epoch": NUMBER,
    "goals": GOALS,
    "float_rows": NAMES,
    "row": "[[row]], once or more",
}
ROW_KEYS = {"name": TEXT, "recipe": TEXT, "options": TEXT, "seeds": SEEDS, "float_rows": NAMES}
"""Key -> what it holds."""


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """What a row may set: every field of the recipe."""

    config: RecipeOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRun:
    """One run of a study."""

    row: str
    seed: int
    config: RunConfig
    path: Path
    """Its run directory."""
    arguments: tuple[str, ...]
    """Of `subfour train`."""
    epochs: int

    @property
    def command(self) -> str:
        """What a shell can be given."""
        return f"subfour train {shlex.join(self.arguments)}"

    def continues(self, other: "StudyRun") -> bool:
        """Return whether this run starts from what the other one leaves."""
        return self.config.from_run is not None and Path(self.config.from_run) == other.path


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What is compared, in the order in which it runs."""

    runs: tuple[StudyRun, ...]
    float_rows: Mapping[str, Sequence[str]]
    """Row -> the rows whose best it loses points against."""
    seconds_per_epoch: float | None
    """None: the file does not say."""
    goals: Mapping[str, float]
    """Widths, such as A4W4 -> points of top-1 below float that their best row should not lose."""


def read_study(file: Path, out: Path) -> Study:
    """Read a study and resolve the configuration of each of its runs.

    Args:
        file: TOML.
        out: folder of its runs.

    Raises:
        ValueError: the file, a key, an option or a recipe is not what it should be; names file and row.
    """
    if not file.is_file():
        found = f"{file} is a folder" if file.is_dir() else f"there is no file {file}"
        raise ValueError(f"study: {found}; name a TOML file, such as benchmarks/study_cifar10.toml")
    try:
        text = tomllib.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"study: {file} is not TOML ({error})") from None
    _check_keys(text, STUDY_KEYS, f"study: {file}")
    for number, row in enumerate(text.get("row", []), start=1):
        _check_keys(row, ROW_KEYS, f"study: {file}, row {row.get('name', number)}")
    rows = text.get("row", [])
    names = [row.get("name") for row in rows]
    if not rows or len(set(names)) != len(names) or not all(name and Path(name).name == name for name in names):
        raise ValueError(f"study: {file} needs at least one [[row]], each with a name of its own that can be a folder's")
    float_rows = {row["name"]: row.get("float_rows", text.get("float_rows", [])) for row in rows}
    if unknown := [name for references in float_rows.values() for name in references if name not in names]:
        raise ValueError(f"study: {file}: float_rows names {unknown[0]!r}, which is no row")
    runs: list[StudyRun] = []
    for row in rows:
        runs += _runs(row, text, f"study: {file}, row {row['name']}", out, {run.path: run.config.data for run in runs})
    _check_float_rows(runs, float_rows, f"study: {file}")
    seconds_per_epoch, goals = text.get("seconds_per_epoch"), text.get("goals", {})
    if seconds_per_epoch is not None and not 0 < seconds_per_epoch < math.inf:
        raise ValueError(
            f"study: {file}: seconds_per_epoch: {seconds_per_epoch} is not possible; use more than 0, or leave it out"
        )
    widths = [widths_name(run.config.weight_bits[-1], run.config.activation_bits[-1]) for run in runs]
    if unknown := [name for name in goals if name not in widths]:
        raise ValueError(f"study: {file}: goals: no row ends at {unknown[0]!r}; rows end at {', '.join(dict.fromkeys(widths))}")
    return Study(runs=tuple(runs), float_rows=float_rows, seconds_per_epoch=seconds_per_epoch, goals=goals)


def _check_float_rows(runs: Sequence[StudyRun], float_rows: Mapping[str, Sequence[str]], where: str) -> None:
    """Raise where a row would lose points against another network, or one of other images."""
    networks = {run.row: network_and_images(run.config) for run in runs}
    for row, references in float_rows.items():
        for name in references:
            if networks[name] != networks[row]:
                raise ValueError(
                    f"{where}, row {row}: float_rows names {name!r}, which is another network, or of other images; name rows of "
                    "its own, or none: []"
                )


def _runs(
    row: Mapping[str, Any], study: Mapping[str, Any], where: str, out: Path, data: Mapping[Path, str]
) -> Iterator[StudyRun]:
    """Yield the runs of a row, one per seed; what goes on from a run takes its data along, of which `data` knows."""
    name, recipe_name = row["name"], row.get("recipe", study.get("recipe"))
    if not isinstance(recipe_name, str):
        raise ValueError(f"{where}: no recipe is named, neither here nor for all rows")
    if any(word.partition("=")[0] == "--seed" for options in (study, row) for word in options.get("options", "").split()):
        raise ValueError(f"{where}: options: --seed is not read here; write seeds = [...]")
    for seed in row.get("seeds", [0]):
        options = f"{study.get('options', '')} {row.get('options', '')} --seed {seed}"
        options = options.replace("{out}", shlex.quote(str(out))).replace("{seed}", str(seed))
        try:
            recipe, words = load_recipe(recipe_name), shlex.split(options)
            parsed = parse(RowOptions, words, prog=f"subfour train {recipe_name}", default=RowOptions(config=recipe))
            config = resolved(parsed.config, recipe)
            if config.from_run is not None and config.data == recipe.data:
                config = replace(config, data=data.get(Path(config.from_run), config.data))
            epochs = sum(phase.epochs for phase in build_phases(config))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        path = out / name / f"seed-{seed}"
        yield StudyRun(
            row=name, seed=seed, config=config, path=path, arguments=(recipe_name, *words, "--out", str(path)), epochs=epochs
        )


def same_run(asked: RunConfig, there: RunConfig) -> bool:
    """Return whether a run directory holds the run a study asks for.

    What follows from the run it continues is left out, and so is what decides no weight, such as where the images lie. Images,
    runs and files of weights are known by their names, because a study may move.
    """
    if _start(asked) != _start(there) or (asked.from_run is None and data_name(asked.data) != data_name(there.data)):
        return False
    inherited = replace(there, from_run=asked.from_run, weights=asked.weights, starting_weight_bits=asked.starting_weight_bits)
    return inherited.digest == asked.digest


def _start(config: RunConfig) -> tuple[str, ...]:
    """Return the names of what a run starts from: row and seed of another, or a file of weights."""
    return (Path(config.weights).name,) if config.from_run is None else Path(config.from_run).parts[-2:]


def _check_keys(table: Mapping[str, Any], known: Mapping[str, str], where: str) -> None:
    if unknown := sorted(table.keys() - known.keys()):
        raise ValueError(f"{where}: there is no key {unknown[0]!r}; there are {', '.join(sorted(known))}")
    for key, value in table.items():
        if not _holds(known[key], value):
            raise ValueError(f"{where}: {key}: {value!r} is not possible; use {known[key]}")


def _holds(kind: str, value: object) -> bool:
    """Return whether a value is of a kind that a key may hold."""
    if kind == GOALS:
        return isinstance(value, dict) and all(_holds(NUMBER, points) for points in value.values())
    if kind == TEXT:
        return isinstance(value, str)
    if kind == NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, list):
        return False
    if kind == SEEDS:
        return bool(value) and all(type(seed) is int for seed in value) and len({*value}) == len(value)
    return all(isinstance(entry, str if kind == NAMES else dict) for entry in value)
