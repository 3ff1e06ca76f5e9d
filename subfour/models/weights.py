"""Weights from a file, and into a network: a head of another size stays as initialised, what else does not fit is an error."""

import logging
import pickle
import re
from argparse import Namespace
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

from subfour.data.preprocess import Preprocessing
from subfour.listing import listed
from subfour.tensor_file import pack_tensors, unpack_tensors

logger = logging.getLogger(__name__)

QUANTIZER = re.compile(r"\b(weight|activation|skip)_quantizer\.")
"""In names of what subfour's own quantized networks hold beside weights."""

CHECKPOINT_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")
"""Entries of a training checkpoint that hold the weights; averaged weights are preferred, as in timm."""

WRAPPED_NAMES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before every name."""

ENDINGS = (".safetensors", ".pth", ".pt", ".tar", ".ckpt", ".bin")
""".tar as in timm's model_best.pth.tar, .ckpt of Lightning."""

PREPROCESSING = "preprocessing"
"""Entry of the record of a file of ours: how the images of its weights were prepared."""


def float_file(tensors: Mapping[str, Tensor], preprocessing: Preprocessing) -> bytes:
    """Return the bytes of a file of float weights, which says how their images were prepared; see `preprocessing_in`."""
    return pack_tensors(tensors, {PREPROCESSING: asdict(preprocessing)})


def preprocessing_in(record: Mapping[str, Any]) -> Preprocessing | None:
    """Return how the images of weights were prepared, where their file says so.

    Raises:
        ValueError: what it says is not possible.
    """
    if PREPROCESSING not in record:
        return None
    try:
        return Preprocessing.from_json(record[PREPROCESSING])
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{PREPROCESSING}: {error}") from None


def read_weights(path: Path) -> tuple[dict[str, Tensor], Preprocessing | None]:
    """Return the weights in a file, by name, without wrappers of training scripts; and what a file of ours says of images."""
    endings = ", ".join(ENDINGS)
    if not path.is_file():
        raise ValueError(f"weights: {str(path)!r} is no file; use none, pretrained, or a file that ends with one of {endings}")
    if path.suffix not in ENDINGS:
        raise ValueError(f"weights: {str(path)!r} must end with one of {endings}")
    preprocessing = None
    state: Any
    try:
        if path.suffix == ".safetensors":
            state, record = unpack_tensors(path)
            preprocessing = preprocessing_in(record)
        else:
            with safe_globals([Namespace]):  # the options in checkpoints of torchvision's and timm's scripts: plain values
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message advises to run what is in the file
        raise ValueError(
            f"weights: {str(path)!r} cannot be read: it is damaged, or holds code, which is not run; save a plain state dict"
        ) from error
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise ValueError(f"weights: {str(path)!r} cannot be read: {error}") from error
    if isinstance(state, dict):
        state = next((state[wrapper] for wrapper in CHECKPOINT_WRAPPERS if isinstance(state.get(wrapper), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {str(path)!r} holds something else than named tensors; save a state dict")
    weights: dict[str, Tensor] = {key: value for key, value in state.items() if key != "n_averaged"}  # AveragedModel's counter
    return weights, preprocessing


def unwrapped(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Return weights without what wrappers put before every name, as long as none is a name of the network itself.

    Args:
        state: of a file.
        own: names of the network.
    """
    while not state.keys() & set(own):
        prefix = next((prefix for prefix in WRAPPED_NAMES if state and all(key.startswith(prefix) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_weights(model: nn.Module, state: dict[str, Tensor], *, rehead: bool) -> None:
    """Load weights in place; with `rehead`, a head of another size keeps its initial values."""
    own = model.state_dict()
    state = unwrapped(state, own)
    head = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
    head_keys = own.keys() & {f"{head}.weight", f"{head}.bias"}
    if rehead and all(key in state and own[key].shape[1:] == state[key].shape[1:] for key in head_keys):
        classes, file_classes = len(own[f"{head}.weight"]), len(state[f"{head}.weight"])
        if classes != file_classes:
            logger.info("re-headed: %s has %d classes in the weights and starts anew with %d", head, file_classes, classes)
            state = state | {key: own[key] for key in head_keys}
    misfits = {
        # Files older than batch norm's step counter lack it; it counts from zero then.
        "missing": [key for key in own if key not in state and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    if any(misfits.values()):
        if any(QUANTIZER.search(key) for key in state):
            raise ValueError(
                "weights: they are of a quantized network, where a float one is to start; continue its run with --from RUN"
            )
        entries = "; ".join(f"{what}: {listed(keys)}" for what, keys in misfits.items() if keys)
        raise ValueError(f"weights: they are of another network: {entries}")
    model.load_state_dict(state, strict=False)
