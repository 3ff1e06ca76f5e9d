"""How long a folder of very many images takes to start, and how much memory: a synthetic tree of hard links to one image.

python benchmarks/bench_index.py [--images 1000000] [--classes 1000]

Prints seconds and growth of the peak memory for a first start, which lists the tree, and for a second one from the index; each
in a process of its own. The file system's caches are as they happen to be.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from subfour.data.sources import load_images

HELD_OUT_IMAGES = 1
"""Per class."""


def make_tree(root: Path, images: int, classes: int) -> None:
    """Write an image per class and link it as often as asked; nothing in the tree looks as if it had just changed."""
    for label in range(classes):
        original = root / "originals" / f"{label}.png"  # ext4 allows 65,000 links of a file
        original.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(original)
        for split, count in (("train", images // classes), ("val", HELD_OUT_IMAGES)):
            folder = root / "tree" / split / f"n{label:08}"
            folder.mkdir(parents=True)
            for number in range(count):
                os.link(original, folder / f"n{label:08}_{number:06}.png")
            os.utime(folder, (0, 0))


def start(tree: Path) -> str:
    """Return how long it takes to know the images of a tree, and by how much the peak memory grows, in a new process."""
    read, write = os.pipe()
    if os.fork() == 0:
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        split = load_images(f"folder:{tree}").splits["train"]
        seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(write, f"{len(split):,} images, {seconds:.2f} s, {(after - before) / 1024:.0f} MB".encode())
        os._exit(0)
    os.wait()
    return os.read(read, 1000).decode()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        make_tree(root, options.images, options.classes)
        for what in ("first start", "second start"):
            print(f"{what}: {start(root / 'tree')}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
