"""Image files in ImageNet's layout: PATH/train/CLASS/FILE and PATH/val/CLASS/FILE.

Links are followed, to files and to folders: whoever laid them out chose the images, and a subset of a large set is often made
of links. What is neither a file nor a link to one (a pipe, a device) is refused, for nobody knows what reading it does.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from subfour.data.images import HELD_OUT, TRAINING, ImageData, Split
from subfour.data.index import FileNames, FolderIndex, folder_times, index_file, pack, read_index, write_index
from subfour.data.opening import FORMATS, open_image
from subfour.listing import listed

logger = logging.getLogger(__name__)

CONVERTIBLE = {".heic", ".heif", ".avif"}
"""Endings of photographs that telephones take and Pillow, by itself, does not read everywhere."""

LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}
"""What Windows, archives of macOS and network disks put into folders, in lower case; elsewhere such files are hidden."""


@dataclass(frozen=True, eq=False)
class FolderSplit(Split):
    """Image files, sorted by class and name."""

    folders: Mapping[int, str]
    """By label."""
    names: FileNames
    labels: Tensor

    def open(self, index: int) -> Image.Image:
        """Open the file."""
        return open_image(self.where(index))

    def where(self, index: int) -> str:
        """Return the file's path."""
        return os.path.join(self.folders[int(self.labels[index])], self.names[index])

    def digest(self) -> str:
        """Return a digest of the labels and the files' names."""
        return hashlib.sha256(self.labels.numpy().tobytes() + self.names.packed).hexdigest()


def load_folder(path: str) -> ImageData:
    """Return the images of a folder with `train` and one or more of `HELD_OUT`, and in each one folder per class.

    Classes are the folders' names, sorted; those of `train`, of which other splits may lack some. Hidden files and folders are
    ignored, and what systems leave behind; beside class folders also files that are no images. Left out with a warning: a second
    held-out split without class folders, as `test` often is, and folders that are no split. The names are kept for the next
    start; see `index.py`.

    Raises:
        ValueError: the path or every split's folder is missing; another split has a class that `train` has not; a class folder is
            empty or holds something that is no image; an image lies beside the class folders.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"data: there is no folder {root}; give the folder that holds train/ and val/")
    present = [name for name in (TRAINING, *HELD_OUT) if (root / name).is_dir()]
    for name in [name for name in HELD_OUT if name in present][1:]:
        if not any(entry.is_dir() for entry in _visible(root / name)):
            present.remove(name)
            logger.warning("data: %s has no class folders, and is left out", root / name)
    found = {name: _class_folders(root / name) for name in present}
    if not found:
        others = ", ".join(f"{name}/" for name in HELD_OUT if name != "val")
        raise ValueError(f"data: {root} holds neither train/ nor val/ ({others}); put the class folders under these")
    if unread := [entry.name for entry in _visible(root) if entry.is_dir() and entry.name not in (TRAINING, *HELD_OUT)]:
        logger.warning("data: %s holds folders that are no splits, and are not read: %s", root, listed(unread))
    first, *rest = found
    for other in rest:
        if strange := sorted(found[other].keys() - found[first].keys()):
            raise ValueError(f"data: {root / first} has no class {strange[0]!r}, but {other} has; add it there, or take it out")
        if lacking := sorted(found[first].keys() - found[other].keys()):
            logger.warning("data: %s has no images of %s: accuracy says nothing of them", root / other, listed(lacking))
    folders = {name: list(classes.values()) for name, classes in found.items()}
    classes = tuple(found[first])
    index = _index(root, classes, folders)
    splits = {
        name: _split(folders[name], [classes.index(there) for there in found[name]], index.counts[name], index.names[name])
        for name in folders
    }
    return ImageData(classes=index.classes, splits=splits)


def _index(root: Path, classes: tuple[str, ...], folders: Mapping[str, Sequence[Path]]) -> FolderIndex:
    """Return the names of all images, from the index where it still holds."""
    file, times = index_file(root), folder_times(folders)
    if (kept := read_index(file, times)) is not None:
        return kept
    packed = {split: [_image_names(folder) for folder in there] for split, there in folders.items()}
    index = FolderIndex(
        classes=classes,
        counts={split: [names.count(b"\0") for names in of_classes] for split, of_classes in packed.items()},
        names={split: FileNames(b"".join(of_classes)) for split, of_classes in packed.items()},
    )
    write_index(file, index, times)
    return index


def _split(folders: Sequence[Path], classes: Sequence[int], counts: Sequence[int], names: FileNames) -> FolderSplit:
    labels = torch.repeat_interleave(torch.tensor(classes), torch.tensor(counts, dtype=torch.long))
    return FolderSplit(folders=dict(zip(classes, map(str, folders), strict=True)), names=names, labels=labels)


def _class_folders(split: Path) -> dict[str, Path]:
    entries = _visible(split)
    endings = _image_endings() | CONVERTIBLE
    if broken := next((entry for entry in entries if entry.is_symlink() and not Path(entry.path).exists()), None):
        raise ValueError(f"data: {broken.path} is a link to nothing; bring back what it leads to, or remove it")
    if loose := next((entry for entry in entries if _ending(entry) in endings and not entry.is_dir()), None):
        raise ValueError(f"data: {loose.path} lies in no class; put it into a class folder, such as {split / 'cat'}")
    folders = {entry.name: split / entry.name for entry in entries if entry.is_dir()}
    if strange := next((name for name in folders if not name.isprintable()), None):
        raise ValueError(f"data: the name of class folder {strange!r} in {split} is not UTF-8, or not printable; rename it")
    if not folders:
        raise ValueError(f"data: {split} has no class folders; make one for each class, and put its images there")
    return folders


def _image_names(folder: Path) -> bytes:
    """Return the packed names of a class folder."""
    images = _visible(folder)
    endings = _image_endings()
    if not images:
        raise ValueError(f"data: class folder {folder} is empty; add images or remove the class from every split")
    if unread := [entry for entry in images if _ending(entry) in CONVERTIBLE]:
        raise ValueError(f"data: {unread[0].path}{_and_others(unread)} is of a format that is not read; convert it to JPEG")
    if strange := [entry for entry in images if _ending(entry) not in endings or not entry.is_file()]:
        name = f"{strange[0].path}{_and_others(strange)}"
        raise ValueError(f"data: {name} is not an image file; class folders hold nothing but images: remove it")
    return pack(entry.name for entry in images)


def _and_others(entries: Sequence[os.DirEntry[str]]) -> str:
    """Return how many entries beside the first one are like it."""
    return f" (as {len(entries) - 1} more in this folder)" if len(entries) > 1 else ""


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    # os.scandir: pathlib takes a minute over ImageNet's 1.3 million files.
    with os.scandir(folder) as entries:
        shown = (entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in LEFT_BEHIND)
        return sorted(shown, key=lambda entry: entry.name)


def _ending(entry: os.DirEntry[str]) -> str:
    return os.path.splitext(entry.name)[1].lower()


def _image_endings() -> set[str]:
    return {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
