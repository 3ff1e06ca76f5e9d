"""The integers next to a tie, where a runtime that rounds once more than it should gives another code."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from subfour.export.portable import PortableWriter
from subfour.export.runtime import RUNTIMES, RuntimeName
from subfour.integer.grids import LARGEST_STEP, TIE_BITS
from subfour.integer.program import IMAGE, Add, Flatten, Layer, Lookup, Operation, Program, Quantize
from tests.export.files import record_for
from tests.integer.programs import PREPROCESSING, random_pixels


def program_of(values: np.ndarray, quantize: Quantize, *, skip: bool) -> Program:
    """Return a program whose logits are the codes of given integers n, which a layer has as its addends.

    With a skip around the quantizer of step m, they are round((n + 2 m code) / (3 m)), which is that code again.
    """
    channels, size = len(values), PREPROCESSING.image_size
    constants = {"weight_bits": 4, "integer": True}
    ones, zeros, identity = torch.ones(channels), torch.zeros(channels), torch.eye(channels)
    nothing = torch.zeros(channels, 3, size, size)
    addend = torch.from_numpy(values).float()
    operations: list[Operation] = [
        Lookup(name="pixels", inputs=(IMAGE,), table=torch.arange(256).expand(3, 256) - 128, qmin=-128, qmax=127),
        Layer(name="first", inputs=("pixels",), codes=nothing, multiplier=ones, addend=addend, **constants),
        quantize,
    ]
    last = quantize.name
    if skip:
        step, kernel = quantize.step, identity.view(channels, channels, 1, 1)
        operations += [
            Layer(name="branch", inputs=(last,), codes=kernel, multiplier=2 * step * ones, addend=zeros, **constants),
            Add(name="sum", inputs=("first", "branch")),
            replace(quantize, name="again", inputs=("sum",), step=3 * step),
        ]
        last = "again"
    operations += [
        Flatten(name="flat", inputs=(last,)),
        Layer(name="last", inputs=("flat",), codes=identity, multiplier=ones, addend=zeros, **constants),
    ]
    return Program(operations=tuple(operations), snapped=True)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_codes_next_to_ties_are_right_with_the_widest_step(bits: int, signed: bool, skip: bool, runtime: RuntimeName):
    step = int(min(2.0 ** (TIE_BITS - bits), LARGEST_STEP)) - 1
    qmax = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    qmin = -qmax if signed else 0
    ties = np.arange(qmin, qmax) + 0.5
    values = np.concatenate([np.floor(ties * step), np.ceil(ties * step)])
    quantize = Quantize(
        name="codes", inputs=("first",), step=torch.tensor(float(step)), offset=0.0, qmin=qmin, qmax=qmax, bits=bits
    )
    program = program_of(values, quantize, skip=skip)
    classes = tuple(map(str, range(len(values))))
    content = PortableWriter(program).write(record_for(program, classes=classes)).SerializeToString()
    codes = RUNTIMES[runtime](content, 1)({IMAGE: random_pixels(1).numpy()})["last"]
    assert np.array_equal(codes[0], np.floor((2 * values + step) / (2 * step)))
