"""ARCHITECTURE.md says what is there: every file, who imports which library, the contracts, the files of a run."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "subfour"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
INDENT = 2


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def listed_files() -> list[str]:
    """Return the paths in the layout tree; a folder stands for its __init__.py."""
    files, folders = [], []
    for line in section("Layout").splitlines():
        if entry := re.fullmatch(r"    ( *)([\w.]+/?) +\S.*", line):
            depth = len(entry[1]) // INDENT
            folders[depth:] = [entry[2]]
            path = "".join(folders[: depth + 1])
            files.append(path + "__init__.py" if path.endswith("/") else path)
    return files


def table(title: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def imports(file: Path) -> set[str]:
    """Return the top-level packages that a file imports, also inside functions."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.append(node.module)
    return {module.partition(".")[0] for module in modules}


def test_the_layout_lists_every_file_once_and_no_other():
    there = sorted(str(file.relative_to(ROOT)) for file in PACKAGE.rglob("*.py"))
    assert sorted(listed_files()) == there


@pytest.mark.parametrize(("library", "importers"), table("Dependency rules"))
def test_a_library_is_imported_where_the_table_says_and_nowhere_else(library: str, importers: str):
    places = re.findall(r"`(.+?)`", importers)
    files = [str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if library in imports(file)]
    assert [file for file in files if not file.startswith(tuple(places))] == []
    assert [place for place in places if not any(file.startswith(place) for file in files)] == []


def test_the_contracts_of_import_linter_are_the_rules_listed():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rules = re.findall(r"^- ([^:\n]+)", section("Dependency rules"), re.MULTILINE)
    assert rules == [contract["name"] for contract in contracts]
    column = [layer.removeprefix("subfour.") for layer in contracts[0]["layers"]]
    assert " <- ".join(reversed(column)) in section("Dependency rules")


@pytest.mark.parametrize("name", [row[0].strip("`/") for row in table("A run directory")])
def test_a_file_of_the_run_directory_is_written_by_the_package(name: str):
    assert any(f'"{name}"' in file.read_text() for file in PACKAGE.rglob("*.py"))


def test_no_file_is_named_after_nothing():
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [file for file in PACKAGE.rglob("*.py") if file.stem in vague] == []
