import pytest

from subfour.integer.program import IMAGE, Add, Program, readers
from tests.integer.programs import NETWORKS, Programs, stock_programs


def every_program(name: str) -> list[Program]:
    programs: Programs = stock_programs(name)
    return [programs.built, programs.snapped, programs.settled]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_value_is_made_once_and_before_it_is_read(name: str):
    """Operations are in the order they are computed, and nothing is computed for nobody."""
    for program in every_program(name):
        known = [IMAGE]
        for operation in program.operations:
            assert set(operation.inputs) <= set(known)
            known.append(operation.name)
        assert len(set(known)) == len(known)
        assert [name for name in known if not program.consumers(name)] == [program.output]
        assert program.named(program.output) is program.operations[-1]


def test_readers_see_through_nonlinearities():
    """A quantizer with what stands between it and the value; a pool, a product or a sum hides it."""
    program = stock_programs("subfour/tiny_mobilenet_v3").built

    def found(name: str) -> list[tuple[str, str | None]]:
        return [(quantize.name, function) for quantize, function in readers(program, name)]

    assert found("features.1.block.0.0") == [("features.1.block.1.0.input", "relu")]
    assert found("features.6.0") == []
    assert found("classifier.0") == [("classifier.3.input", "hardswish")]
    (skip,) = (operation for operation in program.operations if operation.name == "add")
    assert isinstance(skip, Add)
    assert found("add") == [("features.2.block.0.0.input", None)]
