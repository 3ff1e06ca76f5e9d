import re
from pathlib import Path

import numpy as np
import pytest
import torch

from subfour.data.images import training_splits
from subfour.data.sources import load_images

from .builders import write_folder, write_parquet


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("digit", " (did you mean 'digits'?)"),
        ("digits:all", " (did you mean 'digits'?)"),
        ("foldr:/data/imagenet", " (did you mean 'folder:/data/imagenet'?)"),
        ("parquet", " (did you mean 'parquet:...'?)"),
        ("hub:", " (did you mean 'hub:...'?)"),
        ("/data/imagenet", ""),
        ("", ""),
    ],
)
def test_an_unknown_source_gets_the_near_one(spec: str, hint: str):
    """And all that exist."""
    message = f"data: {spec!r} is not a source{hint}; use digits, folder:PATH, parquet:PATH or hub:NAME"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_images(spec)


def test_a_place_may_hold_a_colon_and_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only the first colon divides, and ~ is the user's home."""
    write_folder(tmp_path / "a:b")
    write_parquet(tmp_path / "train.parquet")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_images(f"folder:{tmp_path}/a:b").classes == ("cat", "dog")
    assert set(load_images("parquet:~/train.parquet").splits) == {"train"}


def test_digits_are_the_1797_of_scikit_learn_in_two_stratified_splits():
    """The whole grey range is used, and validation holds one fifth of each digit."""
    train, validation = training_splits(load_images("digits"))
    assert len(train) + len(validation) == 1797
    for label in range(10):
        share = int((validation.labels == label).sum()) / int((train.labels == label).sum())
        assert share == pytest.approx(0.25, abs=0.02)
    pixels = np.stack([np.asarray(validation.image(index)) for index in range(len(validation))])
    assert pixels.shape[1:] == (8, 8, 3)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert train.labels.dtype == torch.int64
    assert train.where(3) == "digit 3"
