"""The tensors of a network by name: read from a run's file, loaded strictly, or without what conversion added."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from subfour.listing import listed
from subfour.models.weights import QUANTIZER
from subfour.tensor_file import unpack_tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a run's file by name.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return unpack_tensors(path)[0]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; restore it") from None


def load_model(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict strictly.

    Raises:
        ValueError: it belongs to another network; names the entries that do not fit.
    """
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise ValueError(f"weights: they are of another model; these entries do not fit: {listed(wrong)}")
    model.load_state_dict(dict(state))


def without_quantizers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a converted model's state without its quantizers: under stock names, what any tool loads as a float network."""
    return {name: value for name, value in state.items() if not QUANTIZER.search(name)}
