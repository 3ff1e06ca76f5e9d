"""Programs as files: each is written once and only read."""

from functools import cache

import numpy as np
import onnx
import torch
from torch import nn

from subfour.export.formats import ONNX_WRITERS
from subfour.export.record import FileFormat, Record
from subfour.export.runtime import RUNTIMES
from subfour.export.seal import seal
from subfour.export.verify import Verifier
from subfour.integer.program import Program
from subfour.layers import quant_layers
from subfour.quantizers import QuantizerName
from subfour.seeding import derive_seed
from tests.convert.stock_networks import stock_network
from tests.integer.programs import PREPROCESSING, programs_of, random_pixels, stock_programs
from tests.profit.quantized_networks import quantized

TINY = "subfour/tiny_mobilenet_v3"

CLASSES = tuple(f"class {number}" for number in range(10))


def record_for(program: Program, *, file_format: FileFormat = "onnx", classes: tuple[str, ...] = CLASSES) -> Record:
    """Return the record of a file without a run."""
    return Record(
        file_format=file_format,
        version="0.1.0",
        network=TINY,
        architecture={"width": 1.0, "strides": [], "dropout": None},
        classes=classes,
        preprocessing=PREPROCESSING,
        weight_bits=4,
        activation_bits=4,
        snapping={} if program.snapped else None,
        accuracy=None,
    )


@cache
def turned_program(quantizer: QuantizerName, bits: int, *, snapped: bool, name: str = TINY) -> Program:
    """Return the program of a network whose channels all have their least weight code, and one in ten a negative gain."""
    network = quantized(with_negative_gains(stock_network(name)), bits, quantizer=quantizer, image_size=PREPROCESSING.image_size)
    with torch.no_grad():
        for layer in quant_layers(network).values():
            params = layer.weight_quantizer.params()
            layer.weight.flatten(1)[:, 0] = params.lowest * params.pre_scale
    programs = programs_of(network)
    return programs.settled if snapped else programs.built


def with_negative_gains(model: nn.Module) -> nn.Module:
    """Change a network and return it."""
    generator = torch.Generator().manual_seed(derive_seed("gains"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.mul_(1 - 2 * (torch.rand(len(module.weight), generator=generator) < 0.1).float())
    return model


@cache
def program_of(name: str, *, snapped: bool) -> Program:
    """Return a stock network's program as files hold it."""
    programs = stock_programs(name)
    return programs.settled if snapped else programs.built


@cache
def model_of(name: str, *, snapped: bool, file_format: FileFormat = "onnx") -> onnx.ModelProto:
    """Return a stock network's file."""
    program = program_of(name, snapped=snapped)
    return ONNX_WRITERS[file_format](program).write(record_for(program, file_format=file_format))


def content_of(name: str, *, snapped: bool, file_format: FileFormat = "onnx") -> bytes:
    """Return the file's bytes."""
    return seal(model_of(name, snapped=snapped, file_format=file_format).SerializeToString())


def verified(program: Program, content: bytes) -> Verifier:
    """Return a verifier that has seen two images, end to end and part by part; torch is left out."""
    pixels = random_pixels().numpy()
    runs = {"torch": lambda _: {program.output: np.zeros((2, len(CLASSES)))}}
    verifier = Verifier(content, program, runs=runs, runtimes=tuple(RUNTIMES), threads=1)
    verifier.layer_by_layer(pixels, verifier.end_to_end(pixels, np.zeros(2, dtype=np.int64)))
    return verifier
