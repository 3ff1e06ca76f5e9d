"""The index makes a second start fast and never shows anything but what the folder holds."""

import os
import shutil
import time
from pathlib import Path

import pytest

from subfour.data import folder as folder_module
from subfour.data.images import Split
from subfour.data.index import FileNames, index_file, pack
from subfour.data.sources import load_images

from .builders import write_folder

NAMES = ["a.png", "b\n.png", "\udce9.png", "a b.png", "é.png"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder that has not changed for an hour."""
    write_folder(tmp_path / "images", images=3)
    age(tmp_path / "images")
    return tmp_path / "images"


def age(root: Path) -> None:
    hour_ago = time.time() - 3600
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            os.utime(path, (hour_ago, hour_ago))


def files_of(root: Path) -> dict[str, list[tuple[str, int]]]:
    splits: dict[str, Split] = dict(load_images(f"folder:{root}").splits)
    return {
        name: [(split.where(index), int(split.labels[index])) for index in range(len(split))] for name, split in splits.items()
    }


def listings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows with every class folder that is listed."""
    listed: list[Path] = []
    names = folder_module._image_names

    def counted(folder: Path) -> bytes:
        listed.append(folder)
        return names(folder)

    monkeypatch.setattr(folder_module, "_image_names", counted)
    return listed


def test_packed_names_are_the_names():
    """Whatever bytes they are of."""
    names = FileNames(pack(NAMES))
    assert len(names) == len(NAMES)
    assert [names[index] for index in range(len(NAMES))] == NAMES
    assert len(FileNames(b"")) == 0


def test_the_second_start_lists_nothing_and_finds_the_same(images: Path, monkeypatch: pytest.MonkeyPatch):
    listed = listings(monkeypatch)
    first = files_of(images)
    assert len(listed) == 4
    assert index_file(images).exists()
    assert files_of(images) == first
    assert len(listed) == 4


@pytest.mark.parametrize("change", ["add", "remove", "rename", "class"])
def test_a_change_is_seen(images: Path, monkeypatch: pytest.MonkeyPatch, change: str):
    before = files_of(images)
    cat = images / "train" / "cat"
    if change == "add":
        shutil.copy(cat / "0.png", cat / "00.png")
    elif change == "remove":
        (cat / "0.png").unlink()
    elif change == "rename":
        (cat / "0.png").rename(cat / "9.png")
    else:
        write_folder(images, classes=["fox"], images=1)
    after = files_of(images)
    assert after != before
    monkeypatch.setattr(folder_module, "read_index", lambda file, times: None)
    assert files_of(images) == after


def test_a_folder_that_changed_just_now_is_not_kept(tmp_path: Path):
    """What came to it in the same tick of the clock would not show."""
    write_folder(tmp_path / "images")
    files_of(tmp_path / "images")
    assert not index_file(tmp_path / "images").exists()


@pytest.mark.parametrize("place", [0, 40, -2])
def test_a_damaged_index_is_made_anew(images: Path, monkeypatch: pytest.MonkeyPatch, place: int):
    expected, file = files_of(images), index_file(images)
    whole = bytearray(file.read_bytes())
    listed = listings(monkeypatch)
    damaged = whole.copy()
    damaged[place] ^= 4
    for content in (damaged, whole[:place], b""):
        file.write_bytes(content)
        listed.clear()
        assert files_of(images) == expected
        assert len(listed) == 4
        assert file.read_bytes() == whole


def test_where_nothing_can_be_kept_the_images_are_there_all_the_same(
    images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    expected = files_of(images)
    (images.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(images.parent / "file"))
    assert files_of(images) == expected
    assert "the index of the images cannot be kept (Not a directory)" in caplog.text
