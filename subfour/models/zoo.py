"""Every network by name: torchvision's, timm's, ours, other packages'; built to size, changed where asked, loaded where asked.

    torchvision/NAME     any classification network; the MobileNets take a width and a dropout
    timm/NAME            any network of timm, with or without a tag for its weights (mobilenetv3_small_100.lamb_in1k)
    subfour/NAME         mobilenet_v1, tiny_mobilenet_v3
    DISTRIBUTION/NAME    of another installed package (plugins.py)

Weights come from the library that made them or from a file (weights.py), always into the network of the size asked for. The
only file that knows torchvision's and timm's ways of building; both take seconds to import, which is done only when one of
their networks is asked for.
"""

import difflib
import inspect
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from subfour.annotations import check_types
from subfour.data.preprocess import Preprocessing
from subfour.models.mobilenet_v1 import MobileNetV1
from subfour.models.tiny import tiny_mobilenet_v3
from subfour.models.weights import load_weights, read_weights
from subfour.plugins import load_plugin, plugins

logger = logging.getLogger(__name__)

OUR_FAMILIES = ["subfour", "torchvision", "timm"]

OURS = {"mobilenet_v1": MobileNetV1, "tiny_mobilenet_v3": tiny_mobilenet_v3}

TORCHVISION_MOBILENETS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")


LARGEST_WIDTH = 16
"""Four times wider than any published one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Changes to a stock network."""

    width: float = 1.0
    """Multiplies every channel count; for timm's networks choose another name instead."""
    strides: tuple[int, ...] = ()
    """Replaces, in order, the strides of the strided convolutions; pads and skips stay. Empty: the network's own."""
    dropout: float | None = None
    """Dropout probability before the head. None: the network's own."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self)
        if not 0 < self.width < LARGEST_WIDTH:
            raise ValueError(
                f"architecture.width: {self.width} is not possible; use a number below {LARGEST_WIDTH}, 1 for the network's own"
            )
        if any(stride < 1 for stride in self.strides):
            raise ValueError(f"architecture.strides: {self.strides} is not possible; every stride is 1 or more")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"architecture.dropout: {self.dropout} is not possible; use 0 or more and less than 1")


STOCK = Architecture()
"""The network as its authors made it."""


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A float network and what its weights expect of an image."""

    model: nn.Module
    preprocessing: Preprocessing | None
    """From the record of pretrained weights, or of a file that says it; else None."""


def build_model(
    name: str, *, num_classes: int, weights: str = "none", architecture: Architecture = STOCK, rehead: bool = True
) -> FloatModel:
    """Build a float network.

    Random weights come from torch's global generator: seed it around the call. Pretrained weights are downloaded once and kept
    where torch.hub and the Hugging Face hub keep them.

    >>> import torch
    >>> build_model("subfour/tiny_mobilenet_v3", num_classes=10).model(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])

    Args:
        name: `torchvision/NAME`, `timm/NAME`, `subfour/NAME`, or `DISTRIBUTION/NAME` of another package.
        num_classes: size of the head.
        weights: `none`, `pretrained`, or the path of a file; see `read_weights`.
        architecture: changes to the network.
        rehead: whether a head of another size than the weights' may start anew; a teacher's may not.

    Raises:
        ValueError: the name is unknown, the network cannot be changed that way, or the weights do not fit it or cannot be had.
    """
    model = _build(name, num_classes, architecture)
    if architecture.strides:
        _set_strides(model, architecture.strides)
    preprocessing = None
    if weights == "pretrained":
        try:
            state, preprocessing = _pretrained(name)
        except OSError as error:  # of torch.hub and of the Hugging Face hub
            reason = getattr(error, "reason", error)
            raise ValueError(
                f"weights: those of {name} cannot be downloaded ({reason}); check the connection, or name a file"
            ) from error
        load_weights(model, state, rehead=rehead)
    elif weights != "none":
        state, preprocessing = read_weights(Path(weights))
        load_weights(model, state, rehead=rehead)
    return FloatModel(model, preprocessing)


def _build(name: str, num_classes: int, architecture: Architecture) -> nn.Module:
    """Return the network with random weights and its own strides."""
    check_known(name)
    family, _, network = name.partition("/")
    width = architecture.width
    dropout = {} if architecture.dropout is None else {"dropout": architecture.dropout}
    model: nn.Module
    if family == "subfour":
        model = OURS[network](num_classes, width=width, **dropout)
    elif family == "timm":
        import timm  # noqa: PLC0415 (slow to import)

        if width != 1:
            raise ValueError(
                f"architecture.width: {width} is not possible for {name}; timm names each width, as in timm/mobilenetv2_050"
            )
        model = timm.create_model(network, num_classes=num_classes, drop_rate=architecture.dropout)
    elif network in TORCHVISION_MOBILENETS:
        model = _torchvision().get_model(network, num_classes=num_classes, width_mult=width, **dropout)
    elif family == "torchvision":
        if width != 1 or dropout:
            raise ValueError(
                f"architecture.width, architecture.dropout: {name} keeps its own; "
                f"of torchvision, {', '.join(TORCHVISION_MOBILENETS)} take them"
            )
        model = _torchvision().get_model(network, num_classes=num_classes)
    else:
        model = _of_another_package(name, num_classes, dropout if width == 1 else {"width": width, **dropout})
    return model


def _of_another_package(name: str, num_classes: int, changes: dict[str, float]) -> nn.Module:
    """Return what the package's function or class makes of the number of classes, and of the changes asked for."""
    make = load_plugin("models", name)
    if not callable(make):
        raise ValueError(f"model: {name} is of type {type(make).__name__}; its package must name a class or a function")
    taken = inspect.signature(make).parameters
    if missing := [change for change in changes if change not in taken]:
        raise ValueError(f"architecture.{missing[0]}: {name} keeps its own; it takes {', '.join(taken)}")
    model = make(num_classes, **changes)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {name} returns a {type(model).__name__}; its package must name what returns a torch.nn.Module")
    return model


def _torchvision() -> Any:
    """Return torchvision's networks."""
    from torchvision import models  # noqa: PLC0415 (slow to import)

    return models


def _known_networks(family: str) -> Collection[str]:
    """Return the names of a family's networks, without the family; none for an unknown family."""
    if family == "subfour":
        return OURS
    if family == "torchvision":
        names: list[str] = _torchvision().list_models(module=_torchvision())
        return names
    if family == "timm":
        import timm  # noqa: PLC0415 (slow to import)

        return [*timm.list_models(), *timm.list_pretrained()]
    return [known.partition("/")[2] for known in plugins("models") if known.startswith(f"{family}/")]


def families() -> list[str]:
    """Return what names of networks begin with. Where a name means several networks, the one of the first family is suggested."""
    return [*OUR_FAMILIES, *dict.fromkeys(known.partition("/")[0] for known in plugins("models"))]


def check_known(name: str) -> None:
    """Raise ValueError unless there is a network of this name.

    Args:
        name: as `build_model` takes it.
    """
    family, _, network = name.partition("/")
    if network not in _known_networks(family):
        raise ValueError(unknown_network(name))


def unknown_network(name: str) -> str:
    """Return the message for a name that is not known, with the nearest known ones."""
    family, _, network = name.rpartition("/")
    asked = [family] if family in families() else families()
    known = {network: f"{family}/{network}" for family in reversed(asked) for network in _known_networks(family)}
    near = [known[network] for network in difflib.get_close_matches(network, known)]
    ours = " or ".join(f"subfour/{network}" for network in OURS)
    advice = f"did you mean {' or '.join(near)}?" if near else f"use torchvision/NAME, timm/NAME, {ours}"
    return f"model: {name!r} is not known; {advice}"


def _set_strides(model: nn.Module, strides: tuple[int, ...]) -> None:
    """Replace the strides of the strided convolutions, in place and in the model's own order."""
    strided = [module for module in model.modules() if isinstance(module, nn.Conv2d) and max(module.stride) > 1]
    if len(strided) != len(strides):
        raise ValueError(
            f"architecture.strides: {strides} has {len(strides)} values, but the network has {len(strided)} strided "
            f"convolutions; give {len(strided)}, or none to keep its own"
        )
    for conv, stride in zip(strided, strides, strict=True):
        conv.stride = (stride, stride)


def _pretrained(name: str) -> tuple[dict[str, Tensor], Preprocessing]:
    """Return the library's weights for a known network and what they expect of an image."""
    family, _, network = name.partition("/")
    if family == "torchvision":
        record = _torchvision().get_model_weights(network).DEFAULT
        preset = record.transforms()
        preprocessing = Preprocessing(
            image_size=preset.crop_size[0],
            resize_size=preset.resize_size[0],
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )
        return record.get_state_dict(check_hash=True), preprocessing
    if family == "timm":
        import timm  # noqa: PLC0415 (slow to import)

        record = timm.get_pretrained_cfg(network)
        if record is not None and record.has_weights:
            if record.crop_mode != "center":
                logger.warning("%s was evaluated with crop mode %s; a centre crop is used", name, record.crop_mode)
            image_size = record.input_size[-1]
            preprocessing = Preprocessing(
                image_size=image_size,
                resize_size=math.floor(image_size / record.crop_pct),
                interpolation=record.interpolation,  # type: ignore[arg-type]  # checked there
                mean=record.mean,
                std=record.std,
            )
            # A whole network, because timm renames the keys of some files as it loads them.
            return timm.create_model(network, pretrained=True).state_dict(), preprocessing
    raise ValueError(f"weights: there are no pretrained weights for {name}; use none, or a file")
