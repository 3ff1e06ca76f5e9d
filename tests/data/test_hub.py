import re
from pathlib import Path

import numpy as np
import pytest

from subfour.data.images import training_splits
from subfour.data.sources import load_images

from .builders import picture, typed_features, write_folder, write_parquet


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `datasets` off the network and out of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def test_a_data_set_of_parquet_files_is_read(tmp_path: Path):
    """As most of the hub's are stored."""
    for split in ("train", "validation"):
        write_parquet(tmp_path / "pets" / f"{split}.parquet", features=typed_features())
    data = load_images(f"hub:{tmp_path / 'pets'}")
    train, validation = training_splits(data)
    assert data.classes == ("cat", "dog")
    assert train.labels.tolist() == validation.labels.tolist() == [0, 1, 1]
    assert np.array_equal(np.asarray(train.image(1)), np.asarray(picture(seed=1)))
    assert train.where(1) == f"row 1 of train in hub:{tmp_path / 'pets'}"


def test_a_data_set_of_image_files_is_read(tmp_path: Path):
    """There the rows hold paths."""
    write_folder(tmp_path / "pets", splits=("train", "validation"))
    train, validation = training_splits(load_images(f"hub:{tmp_path / 'pets'}"))
    assert len(train) == len(validation) == 4
    assert np.array_equal(np.asarray(train.image(3)), np.asarray(picture(seed=11)))


def test_one_of_several_configurations_can_be_named(monkeypatch: pytest.MonkeyPatch):
    """Behind an @; a name without one asks for none."""
    import datasets

    asked: list[tuple[str, str | None]] = []

    def load(path: str, name: str | None) -> None:
        asked.append((path, name))
        raise ValueError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("owner/pets@small", "owner/pets"):
        with pytest.raises(ValueError, match="data: cannot load"):
            load_images(f"hub:{name}")
    assert asked == [("owner/pets", "small"), ("owner/pets", None)]


def test_a_data_set_that_cannot_be_loaded_is_named(tmp_path: Path):
    """With the reason that `datasets` gives."""
    name = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=rf"data: cannot load '{re.escape(name)}' through datasets \(.+\); check the name"):
        load_images(f"hub:{name}")
