"""A run that goes on from the final weights of another, at fewer bits: what may change between the two, and what carries over."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from subfour.convert.equalize import equalize
from subfour.convert.policy import make_policy
from subfour.data.preprocess import Preprocessing
from subfour.profit.config import RunConfig, config_in
from subfour.profit.conversion import convert_for
from subfour.profit.data_record import DataRecord, data_in
from subfour.profit.state_dict import load_model, read_tensors, without_quantizers
from subfour.rundir import RunDirectory

WEIGHTS_FILE = "weights.safetensors"
"""Final averaged state of a run, in float: what a run continued from it starts with. A float run's has stock names, and can be
the weights of any other run, or of a teacher."""

TEACHER_FILE = "teacher.safetensors"
"""The float network at the end of its phase, when it teaches itself."""


def continued(config: RunConfig, from_run: str) -> RunConfig:
    """Return the configuration of a run that goes on from another one's final weights.

    Raises:
        ValueError: the earlier run is not finished, is of another network, or has no float network left to teach.
    """
    earlier = config_of(from_run)
    if not (Path(from_run) / WEIGHTS_FILE).exists():
        raise ValueError(f"from: {from_run} is not finished; finish it with: subfour train --resume {from_run}")
    was_float = earlier.ends_float
    if config.method == "data-free" and not was_float:
        raise ValueError(
            f"method: data-free corrects a float network, and {from_run} ended with {earlier.weight_bits[-1]}-bit weights and "
            f"{earlier.activation_bits[-1]}-bit activations; continue a float run, or use another method"
        )
    quantization: tuple[str, ...] = () if was_float else ("quantizer", "weight_granularity", "batchnorm", "skip_bits")
    if earlier.start == "dfq" or not was_float:
        quantization = (*quantization, "start")
    for name in ("model", "architecture", "padding", *quantization):
        if getattr(earlier, name) != getattr(config, name):
            raise ValueError(f"{name}: {getattr(config, name)} differs from {getattr(earlier, name)} in {from_run}; use the same")
    example = f"--weight-bits {min(3, earlier.weight_bits[-1])} --activation-bits {min(3, earlier.activation_bits[-1])}"
    for name in ("weight_bits", "activation_bits"):
        reached, asked = getattr(earlier, name)[-1], getattr(config, name)[0]
        if asked > reached:
            raise ValueError(
                f"{name}: {asked} is wider than the {reached} bits that {from_run} ended with; "
                f"name narrower ones, such as {example}"
            )
    if config.teacher == "self" and not was_float and not (Path(from_run) / TEACHER_FILE).exists():
        raise ValueError(f"teacher: self is the float network, which {from_run} did not keep; use none, or another network")
    return replace(config, from_run=from_run, starting_weight_bits=earlier.weight_bits[-1], weights="none")


def continue_from(run: str, config: RunConfig, model: nn.Module, preprocessing: Preprocessing) -> None:
    """Convert a network and load the final weights of the run that it continues.

    Raises:
        ValueError: a float run padded its h-swish outputs with another value than the quantizers now asked for.
    """
    earlier, start = config_of(run), read_tensors(Path(run) / WEIGHTS_FILE)
    pads = [rule.pad_value for rule in make_policy(model, quantizer=earlier.quantizer, padding=earlier.padding)]
    if earlier.ends_float:  # it never used its quantizers, which may be others
        load_model(model, without_quantizers(start))
        if config.start != earlier.start:
            equalize(model)
    if pads != [rule.pad_value for rule in convert_for(config, model, preprocessing)]:
        raise ValueError(
            f"quantizer: {config.quantizer} pads h-swish outputs in another way than {earlier.quantizer}, with which {run} "
            "trained its float network; continue one of the same padding, or use --padding zero for both"
        )
    if not earlier.ends_float:
        load_model(model, start)


def config_of(run: str) -> RunConfig:
    """Return the configuration of a run.

    Raises:
        ValueError: there is no run in that folder.
    """
    return config_in(_opened(run))


def data_of(run: str) -> DataRecord:
    """Return what the network of a run knows of its data.

    Raises:
        ValueError: there is no run in that folder.
    """
    return data_in(_opened(run))


def _opened(run: str) -> RunDirectory:
    """Return the run that another one continues; a relative path is one from the present folder, when resumed too."""
    try:
        return RunDirectory.open(Path(run))
    except ValueError as error:
        raise ValueError(f"from: {error}; seen from {Path.cwd()}") from None
