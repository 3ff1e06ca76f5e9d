"""Properties of configurations. With many examples: `pytest tests/profit/test_config_properties.py --hypothesis-profile many`."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subfour.profit.config import RunConfig
from subfour.profit.plain import BEFORE
from tests.cli.command import error
from tests.profit.config_values import FIELDS, SECTIONS, configs, dotted
from tests.profit.field_values import JUNK

ON_THE_COMMAND_LINE = sorted(name for name, values in FIELDS.items() if values.of_text and name != "starting_weight_bits")

few = settings(max_examples=max(settings.default.max_examples // 5, 1))
"""For a test that every field has."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory that has nothing but a configuration, to be written."""
    return tmp_path_factory.mktemp("run")


def changed(name: str, value: object) -> dict[str, Any]:
    """Return the default configuration in JSON with one field changed."""
    data = RunConfig().to_json()
    section, _, field = name.rpartition(".")
    (data[section] if section else data)[field] = value
    return data


def pythonic(value: object) -> object:
    return tuple(map(pythonic, value)) if isinstance(value, list) else value


def contains(whole: object, part: object) -> bool:
    """Return whether every field of one JSON object has the same value in another."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and contains(whole[name], value) for name, value in part.items())
    return type(whole) is type(part) and whole == part


def test_every_field_has_its_values_here():
    assert sorted(FIELDS) == sorted(dotted(RunConfig().to_json()))


@given(configs())
def test_a_configuration_survives_json_with_its_digest(config: RunConfig):
    back = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert back == config
    assert back.digest == config.digest
    assert back.to_json() == config.to_json()


@pytest.mark.parametrize("name", FIELDS)
@few
@given(st.data())
def test_python_cannot_give_a_field_what_is_not_allowed(name: str, data: st.DataObject):
    section, _, field = name.rpartition(".")
    kind = SECTIONS[section] if section else RunConfig
    value = pythonic(data.draw(FIELDS[name].refused))
    given_at_bits = name == "profit.at_bits"  # a section does not know the widths
    with pytest.raises(ValueError, match=rf"^(\w+\.)?{field}: "):
        RunConfig(profit=kind(at_bits=value)) if given_at_bits else kind(**{field: value})


@pytest.mark.parametrize("name", FIELDS)
@few
@given(st.data())
def test_a_run_directory_cannot_give_a_field_what_is_not_allowed(name: str, run: Path, data: st.DataObject):
    """One line that names the field, exit code 2, from the file to the command line."""
    (run / "config.json").write_text(json.dumps(changed(name, data.draw(FIELDS[name].refused))))
    said = error("train", "--resume", run)
    assert said.startswith((f"{name}: ", f"{name.rpartition('.')[2]}: "))


@pytest.mark.parametrize("section", SECTIONS)
@few
@given(st.data())
def test_a_section_is_an_object(section: str, data: st.DataObject):
    value = data.draw(JUNK)
    with pytest.raises(ValueError, match=rf"^{section}[.:]"):
        RunConfig.from_json(changed(section, value))
    with pytest.raises(ValueError, match=rf"^{section}: "):
        RunConfig(**{section: value})


@pytest.mark.parametrize("name", [*FIELDS, *SECTIONS])
def test_a_field_that_is_missing_is_named_unless_it_came_later(name: str):
    data = RunConfig(engine="plain").to_json()
    section, _, field = name.rpartition(".")
    del (data[section] if section else data)[field]
    if name in BEFORE:
        assert RunConfig.from_json(data) == RunConfig(engine="plain")
        return
    with pytest.raises(ValueError, match=rf"^{name}: missing"):
        RunConfig.from_json(data)


@given(configs(), st.sampled_from(["", *SECTIONS]), st.text(), JUNK)
def test_a_field_too_many_is_an_error(config: RunConfig, section: str, name: str, value: object):
    data = config.to_json()
    part = data[section] if section else data
    if name not in part:
        part[name] = value
        with pytest.raises(ValueError, match=rf"^{section or 'config'}: .* is no field"):
            RunConfig.from_json(data)


@given(JUNK)
def test_what_is_no_configuration_at_all_is_an_error(data: object):
    with pytest.raises(ValueError, match=r"^\w+: "):
        RunConfig.from_json(data)  # type: ignore[arg-type]


@given(configs(), st.data())
def test_what_is_read_is_what_is_written_there_or_an_error(config: RunConfig, data: st.DataObject):
    """Junk in up to three places: no value is changed or dropped in silence."""
    values = config.to_json()
    for name in data.draw(st.lists(st.sampled_from([*FIELDS, *SECTIONS]), min_size=1, max_size=3)):
        section, _, field = name.rpartition(".")
        part = values[section] if section else values
        if isinstance(part, dict):
            part[field] = data.draw(JUNK)
    with contextlib.suppress(ValueError):
        assert contains(RunConfig.from_json(values).to_json(), values)


@given(st.sampled_from(ON_THE_COMMAND_LINE), st.data())
def test_the_command_line_cannot_give_a_field_what_is_not_allowed(name: str, data: st.DataObject):
    """Exit code 2 and one line, whatever the words."""
    option = name.removeprefix("parallel.").replace("_", "-")
    words = data.draw(FIELDS[name].refused_words)
    assert error("plan", "digits", f"--{option}", *words)
