"""What the documents say is so: commands parse, options, files and names exist, tables agree with the code."""

import ast
import dataclasses
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from subfour.cli.arguments import parse
from subfour.cli.benchmark import BenchmarkOptions
from subfour.cli.compare import CompareOptions
from subfour.cli.cost import CostOptions
from subfour.cli.evaluate import EvaluateOptions
from subfour.cli.export import ExportOptions
from subfour.cli.inspect import InspectOptions
from subfour.cli.launch import Launch
from subfour.cli.main import COMMANDS, main
from subfour.cli.plan import PlanOptions
from subfour.cli.predict import PredictOptions
from subfour.cli.recipe_arguments import resolved
from subfour.cli.report import ReportOptions
from subfour.cli.sensitivity import SensitivityOptions
from subfour.cli.train import Output, ResumeOptions, Safeguards, TrainOptions
from subfour.cli.verify import VerifyOptions
from subfour.models.zoo import TORCHVISION_MOBILENETS
from subfour.profit.config import RunConfig
from subfour.profit.phases import build_phases
from subfour.recipes import RECIPES, load_recipe
from tests.cli.test_arguments import UNPREFIXED
from tests.convert.stock_networks import NAMES, TIMM_PATTERNS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "subfour"
NAMES_OF_DOCUMENTS = ("README.md", "ARCHITECTURE.md", "PAPER.md", "CONTRIBUTING.md", "CHANGELOG.md")
DOCUMENTS = {name: (ROOT / name).read_text() for name in NAMES_OF_DOCUMENTS} | {
    f"docs/{file.name}": file.read_text() for file in sorted((ROOT / "docs").glob("*.md"))
}
README, PAPER, CONTRIBUTING = (DOCUMENTS[name] for name in ("README.md", "PAPER.md", "CONTRIBUTING.md"))

FOLDERS = ("subfour", "tests", "examples", "benchmarks", ".ci")
"""Of the repository: a path in a document that begins with one must exist."""

PLAIN_OPTIONS = {
    "plan": PlanOptions,
    "evaluate": EvaluateOptions,
    "inspect": InspectOptions,
    "sensitivity": SensitivityOptions,
    "compare": CompareOptions,
    "cost": CostOptions,
    "report": ReportOptions,
    "export": ExportOptions,
    "verify": VerifyOptions,
    "predict": PredictOptions,
    "benchmark": BenchmarkOptions,
}

NEED_FILES = {"evaluate", "sensitivity", "export", "verify", "predict", "benchmark"}
"""Commands that read what others have written, or write."""


def section(document: str, title: str) -> str:
    return re.split(r"\n###? ", document.partition(f"# {title}\n")[2])[0]


def table(text: str) -> list[list[str]]:
    """Return the cells of a table, without its head."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def spans(text: str) -> list[str]:
    """Return what stands between backticks, fenced blocks left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def shell_commands() -> list[str]:
    """Return the command lines of every fenced sh block, without their comments."""
    blocks = [block for text in DOCUMENTS.values() for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def parse_training(words: list[str]) -> RunConfig | None:
    """Read the options of `subfour train`, without training; None for a run that is resumed. Without a recipe: of digits."""
    if "--resume" in words:
        parse(ResumeOptions, words, prog="subfour train")
        return None
    recipe = load_recipe("digits" if words[0].startswith("-") else words.pop(0))
    options = parse(TrainOptions, words, prog="subfour train", default=TrainOptions(config=recipe))
    return resolved(options.config, recipe)


def exit_code(words: list[str]) -> int | str:
    """Run a command of subfour in this process."""
    try:
        main(words)
    except SystemExit as stop:
        return stop.code or 0
    return 0


def options_of(part: Any, prefix: str = "--") -> dict[str, Any]:
    """Return every option that a dataclass gives, with its default."""
    options: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        section = "--" if field.name in UNPREFIXED else prefix
        name = f"{section}{'from' if field.name == 'from_run' else field.name.replace('_', '-')}"
        default = getattr(part, field.name, None)
        options |= options_of(default, f"{name}.") if dataclasses.is_dataclass(default) else {name: default}
    return options


RUN_OPTIONS = options_of(RunConfig())
OTHER_OPTIONS = {
    name
    for part in (TrainOptions, Launch, Output, Safeguards, ResumeOptions, *PLAIN_OPTIONS.values())
    for name in options_of(part)
}


@cache
def names_in(file: Path) -> set[str]:
    """Return every function, class, method, field and constant of a file, by dotted name."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], scope: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(f"{scope}{node.name}")
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{scope}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(f"{scope}{target.id}" for target in targets if isinstance(target, ast.Name))

    visit(ast.parse(file.read_text()).body, "")
    return found


@pytest.mark.parametrize("line", shell_commands())
def test_a_command_in_a_document_parses(line: str, capsys: pytest.CaptureFixture[str]):
    """`plan`, and `inspect` and `cost` of a stock network run; what would train, write or needs a run is parsed only."""
    program, *words = shlex.split(line)
    if program != "subfour":
        assert line == "source .venv/bin/activate"
        return
    if words[0] == "train":
        config = parse_training(words[1:])
        assert config is None or build_phases(config)
    elif words[0] in NEED_FILES or any(word.startswith("runs/") for word in words) or words[-1].endswith(".toml"):
        parse(PLAIN_OPTIONS[words[0]], words[1:], prog="subfour")
    else:
        assert exit_code(words) == 0
        assert capsys.readouterr().out


def test_the_documents_show_every_command():
    assert {line.split()[1] for line in shell_commands() if line.startswith("subfour ")} == {*COMMANDS, "--help"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_option_in_a_document_exists_and_takes_the_value_shown(name: str):
    for span in spans(DOCUMENTS[name]):
        if span.startswith("--"):
            words = shlex.split(span)
            assert re.sub(r"(--|\.)no-", r"\1", words[0]) in {*RUN_OPTIONS, *OTHER_OPTIONS, "--path"}, span
            if len(words) > 1:
                parse_training(["digits", *words])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_link_or_path_in_a_document_leads_somewhere(name: str):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", DOCUMENTS[name])
    paths = [span for span in spans(DOCUMENTS[name]) if span.split("/")[0] in FOLDERS and " " not in span]
    pictures = re.findall(r'<img src="([^"]+)"', DOCUMENTS[name])
    beside = (ROOT / name).parent
    assert [link for link in links + pictures if "://" not in link and not (beside / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_leads_to_every_document():
    assert [name for name in DOCUMENTS if name != "README.md" and f"]({name})" not in README] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_ascii(name: str):
    assert DOCUMENTS[name].isascii()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_make_target_in_a_document_exists(name: str):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:^ +|`)make (\w+)", DOCUMENTS[name], re.MULTILINE)
    assert {target for target in named if target not in targets} == set()


def test_the_readme_lists_every_recipe_with_its_phases_and_epochs():
    rows = {row[0].strip("`"): row[3] for row in table(section(README, "Recipes"))}
    plans = {name: build_phases(make()) for name, make in RECIPES.items()}
    assert rows == {name: f"{len(phases)}, {sum(phase.epochs for phase in phases)}" for name, phases in plans.items()}


def test_the_readme_lists_the_networks_that_are_tested():
    rows = {family.strip("`/"): set(spans(networks)) for family, networks in table(section(README, "Networks"))}
    ours = {name.partition("/")[2] for name in NAMES if name.startswith("subfour/")}
    assert rows == {"torchvision": set(TORCHVISION_MOBILENETS), "timm": set(TIMM_PATTERNS), "subfour": ours}


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([\w/]+\.py:[\w.]+)`", PAPER))))
def test_a_name_in_paper_md_exists(place: str):
    path, _, name = place.partition(":")
    assert name in names_in(PACKAGE / path)


@pytest.mark.parametrize("row", table(section(PAPER, "Where we differ, with a switch")), ids=lambda row: row[3].strip("`"))
def test_a_default_in_paper_md_is_the_default(row: list[str]):
    default = RUN_OPTIONS[row[3].strip("`")]
    assert row[4] == (" ".join(map(str, default)) if isinstance(default, tuple) else str(default))


def test_contributing_names_the_tools_that_make_runs():
    tools = {row[0] for row in table(section(CONTRIBUTING, "Set up"))}
    recipes = re.findall(r"\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text())
    assert tools == {tool for tool in recipes if tool not in ("python", "subfour")}


def test_the_names_in_contributing_are_in_use():
    source = " ".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    names = [name for row in table(section(CONTRIBUTING, "Conventions")) for name in spans(row[1])]
    assert [name for name in names if not re.search(rf"\b{name}\b", source)] == []


def test_the_recipe_in_contributing_works(tmp_path: Path):
    file = tmp_path / "flowers.py"
    file.write_text(re.search(r"```python\n(.*?)```", CONTRIBUTING, re.DOTALL)[1])
    assert build_phases(load_recipe(f"{file}:flowers"))


def test_the_changelog_begins_with_this_version():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert re.search(r"^## (\S+?),", DOCUMENTS["CHANGELOG.md"], re.MULTILINE)[1] == version
