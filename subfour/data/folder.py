"""Image files in ImageNet's layout: PATH/train/CLASS/FILE and PATH/val/CLASS/FILE."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from subfour.data.images import HELD_OUT, TRAINING, ImageData, Split


@dataclass(frozen=True, eq=False)
class FolderSplit(Split):
    """Image files, sorted by class and name."""

    files: tuple[str, ...]
    labels: Tensor

    def open(self, index: int) -> Image.Image:
        """Open the file."""
        return Image.open(self.files[index])

    def where(self, index: int) -> str:
        """Return the file's path."""
        return self.files[index]


def load_folder(path: str) -> ImageData:
    """Return the images of a folder with `train`, `val` (or `validation`) or `test`, and in each one folder per class.

    Classes are the folders' names, sorted. Hidden files and folders are ignored; nothing else is.

    Raises:
        ValueError: the path, a split's folder or a class is missing; a class folder is empty or holds something that is no image.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"data: there is no folder {root}; give the folder that holds train/ and val/")
    found = {name: _class_folders(root / name) for name in (TRAINING, *HELD_OUT) if (root / name).is_dir()}
    if not found:
        raise ValueError(f"data: {root} holds neither train/ nor val/ (validation/, test/); put the class folders under these")
    first, *others = found
    for other in others:
        different = sorted(found[first].keys() ^ found[other].keys())
        if different:
            lacking = other if different[0] in found[first] else first
            raise ValueError(f"data: {root / lacking} has no class {different[0]!r}; every split needs the same class folders")
    return ImageData(classes=tuple(found[first]), splits={name: _read_split(classes) for name, classes in found.items()})


def _class_folders(split: Path) -> dict[str, Path]:
    return {entry.name: split / entry.name for entry in _visible(split) if entry.is_dir()}


def _read_split(classes: dict[str, Path]) -> FolderSplit:
    files: list[str] = []
    labels: list[int] = []
    formats = Image.registered_extensions()
    for label, folder in enumerate(classes.values()):
        images = _visible(folder)
        if not images:
            raise ValueError(f"data: class folder {folder} is empty; add images or remove the class from every split")
        for entry in images:
            if os.path.splitext(entry.name)[1].lower() not in formats:
                raise ValueError(f"data: {entry.path} is not an image file; class folders hold nothing but images: remove it")
        files += [entry.path for entry in images]
        labels += [label] * len(images)
    return FolderSplit(files=tuple(files), labels=torch.tensor(labels))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    # os.scandir: pathlib takes a minute over ImageNet's 1.3 million files.
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
