"""The MODEL of `subfour inspect` and `subfour cost`: a network's name, a run directory, or a model file."""

from pathlib import Path

from subfour.models.zoo import families, unknown_network


def check_model(model: str) -> None:
    """Check that a word is there as a run or a file, or begins as a network's name does.

    Raises:
        ValueError: it is none of the three; the message says so of all, because nobody knows which was meant.
    """
    if not Path(model).exists() and model.partition("/")[0] not in families():
        raise ValueError(f"{unknown_network(model)}; nor is there a run directory or a model file {model}")
