"""A campaign of damaged files, with counts; the totals go to results/faults.csv.

python benchmarks/bench_faults.py [--cases 1200] [--seed 0]

Checkpoints, configs, model files, weights, parquet files, images and folder indexes are truncated, have bits flipped, blocks
overwritten, swapped or appended, or are replaced by something hostile. Each case is read in a process of its own, as the package
reads it, with a limit on memory and time, and ends in one of these ways:

    refused     one line that says what is wrong
    recovered   the checkpoint before is used
    harmless    what was read is what was written
    unnoticed   another image, label, class name or weight, in a foreign format that keeps no checksum of it
    silent      something else was read, and nobody said so                     must be 0
    traceback   an error of ours, a crash, a hang, or a message of several lines  must be 0
    executed    a file that was read has run something                          must be 0
"""

import argparse
import csv
import hashlib
import io
import os
import pickle
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet

from subfour.cli import main as command_line
from subfour.data.index import index_file
from subfour.data.sources import load_images
from subfour.models.zoo import build_model
from subfour.profit.model_file import read_model
from subfour.rundir import environment
from subfour.train.checkpoint import CheckpointStore

TOTALS = Path(__file__).parent.parent / "results" / "faults.csv"

OUTCOMES = ("refused", "recovered", "harmless", "unnoticed", "silent", "traceback", "executed")

FORBIDDEN = ("silent", "traceback", "executed")

SECONDS_PER_CASE = 120

BYTES_PER_CASE = 8 * 1024**3

SMALL_RUN = shlex.split(
    "--schedule.max-steps 1 --schedule.float-epochs 1 --schedule.finetune-epochs 1 --schedule.stabilize-epochs 1 --no-snap "
    "--schedule.sample-epochs 1 --average.reestimate-batches 1 --calibration-batches 1 --loading.workers 0 "
    "--schedule.batch-size 4 --weight-bits 4 --activation-bits 32 --loading.image-size 32"
)

NETWORK = "subfour/tiny_mobilenet_v3"


DAMAGES = (*("bit",) * 3, "bits", "truncated", "block", "swapped", "appended", "foreign", "hostile", "oversized")


def damaged(whole: bytes, mark: Path, rng: random.Random) -> bytes:
    """Return content with some damage.

    Args:
        whole: the sound content.
        mark: a file that hostile content would make, if it ran.
        rng: decides.
    """
    data = bytearray(whole)
    place, size = rng.randrange(len(data)), rng.randint(1, max(1, len(data) // 8))
    kind = rng.choice(DAMAGES)
    if kind == "truncated":
        return bytes(data[:place])
    if kind == "bit":
        near = rng.randrange(min(len(data), 1024))  # half of the time near the head, where the structure is
        data[rng.choice([near, place])] ^= 1 << rng.randrange(8)
    elif kind == "bits":
        for _ in range(20):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "block":
        data[place : place + size] = bytes(len(data[place : place + size]))
    elif kind == "swapped":
        data = data[place:] + data[:place]
    elif kind == "appended":
        data += rng.randbytes(size)
    elif kind == "foreign":
        return rng.choice([b"", b"\0" * 64, rng.randbytes(1000), b"[" * 100_000, b'{"a":' * 100_000])
    elif kind == "hostile":
        return rng.choice(hostile(mark))
    else:  # the sizes at the head of a safetensors file, at the tail of a parquet file
        huge = rng.choice([2**31, 2**40, 2**63 - 1]).to_bytes(8, "little")
        data[:8], data[-8:-4] = huge, huge[:4]
    return bytes(data)


class Trap:
    """Leaves a mark when a pickle of it is loaded."""

    def __init__(self, mark: Path) -> None:
        """Name the mark."""
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.mark,)


def hostile(mark: Path) -> list[bytes]:
    """Return files that would make the mark: a pickle, torch's zip around one, and a program in PostScript."""
    buffer = io.BytesIO()
    torch.save({"weight": Trap(mark)}, buffer)
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n({mark}) (w) file closefile\nshowpage\n"
    return [pickle.dumps(Trap(mark)), buffer.getvalue(), postscript.encode()]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of file that can be damaged."""

    name: str
    share: int
    """Of the cases, relative to the others."""
    choose: Callable[[Path, random.Random], list[Path]]
    """Which files are damaged, in a copy of the sound folder."""
    read: Callable[[Path], object]
    """What the package makes of the copy."""
    recovers: bool = False
    """Whether another file may take the place of the damaged one."""
    checked: bool = True
    """Whether the format tells every change."""


def sound_files(folder: Path) -> None:
    """Write one of everything."""
    for split, count in (("train", 4), ("val", 2)):
        for label in range(2):
            place = folder / "images" / split / "ab"[label]
            place.mkdir(parents=True)
            for number, ending in zip(range(count), ("png", "jpg", "gif", "bmp"), strict=False):
                pixels = random.Random(f"{split}{label}{number}").randbytes(24 * 20 * 3)
                Image.frombytes("RGB", (24, 20), pixels).save(place / f"{number}.{ending}")
    data = f"folder:{folder / 'images'}"
    command_line.main(["train", "digits", *SMALL_RUN, "--data", data, "--out", str(folder / "run")])
    shutil.copy(folder / "run" / "model.safetensors", folder)
    (folder / "run" / "result.json").unlink()  # as if it had been killed while it wrote its results
    torch.save(build_model(NETWORK, num_classes=2, weights="none").model.state_dict(), folder / "weights.pth")
    encoded = [file.read_bytes() for file in sorted((folder / "images" / "val").rglob("*.*"))]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    column = pa.array([{"bytes": content, "path": None} for content in encoded], kind)
    table = pa.table({"image": column, "label": [0, 0, 1, 1]})
    parquet.write_table(table, folder / "validation.parquet", write_page_checksum=True)


def checkpoints(folder: Path) -> list[Path]:
    """Return the files of the run, the newest last."""
    return sorted((folder / "run" / "checkpoints").iterdir())


def images(folder: Path) -> list[Path]:
    """Return the image files."""
    return sorted((folder / "images").rglob("*.*"))


def digest(*parts: object) -> str:
    """Return something that differs when one of the parts does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def tensors_digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return a digest of names, types, shapes and values."""
    return digest([(name, value.dtype, value.shape, value.flatten().tolist()) for name, value in tensors.items()])


def read_newest(folder: Path) -> str:
    """Return what the newest checkpoint holds."""
    checkpoint = CheckpointStore(folder / "run" / "checkpoints").load_newest()
    assert checkpoint is not None
    return digest(checkpoint.number, checkpoint.state, tensors_digest(checkpoint.tensors))


def resume(folder: Path) -> str:
    """Return the model file of the run when it has gone on."""
    try:
        command_line.main(["train", "--resume", str(folder / "run")])
    except SystemExit as stop:
        if stop.code != 0:
            raise ValueError("refused by the command line") from None
    return digest((folder / "run" / "model.safetensors").read_bytes())


def read_model_file(folder: Path) -> str:
    """Return the model."""
    trained = read_model(folder / "model.safetensors")
    return digest(tensors_digest(trained.model.state_dict()), trained.config, trained.data, trained.weight_bits)


def read_weights(folder: Path) -> str:
    """Return a network that starts from the weights."""
    model = build_model(NETWORK, num_classes=2, weights=str(folder / "weights.pth")).model
    return tensors_digest(model.state_dict())


def read_images(source: str) -> str:
    """Return class names, labels and pixels of a source."""
    data = load_images(source)
    splits = {
        name: [(int(split.labels[index]), split.image(index).tobytes()) for index in range(len(split))]
        for name, split in data.splits.items()
    }
    return digest(data.classes, splits)


def read_folder(folder: Path) -> str:
    """Return the images."""
    return read_images(f"folder:{folder / 'images'}")


TARGETS = [
    Target(name="newest checkpoint", share=10, choose=lambda f, _: checkpoints(f)[-1:], read=read_newest, recovers=True),
    Target(name="every checkpoint", share=10, choose=lambda f, _: checkpoints(f), read=read_newest),
    Target(name="every checkpoint, resumed", share=3, choose=lambda f, _: checkpoints(f), read=resume),
    Target(name="config.json, resumed", share=7, choose=lambda f, _: [f / "run" / "config.json"], read=resume),
    Target(name="model file", share=15, choose=lambda f, _: [f / "model.safetensors"], read=read_model_file),
    Target(name="weights.pth", share=8, choose=lambda f, _: [f / "weights.pth"], read=read_weights, checked=False),
    Target(
        name="parquet",
        share=15,
        choose=lambda f, _: [f / "validation.parquet"],
        read=lambda f: read_images(f"parquet:{f / 'validation.parquet'}"),
        checked=False,
    ),
    Target(name="image", share=25, choose=lambda f, rng: [rng.choice(images(f))], read=read_folder, checked=False),
    Target(name="folder index", share=7, choose=lambda f, _: [index_file(f / "images")], read=read_folder),
]


def in_child(work: Callable[[], int]) -> int:
    """Run something in a process of its own, in silence and within limits, and return its exit code."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS_PER_CASE)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES_PER_CASE, BYTES_PER_CASE))
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        try:
            os._exit(work())
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome_of(target: Target, folder: Path, sound: str, rng: random.Random) -> tuple[str, str]:
    """Damage a copy of the sound folder, read it in a process of its own, and return how that ended and what was said."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    mark = folder / "executed"
    if target.name == "folder index":
        make_index(folder)
    for file in target.choose(folder, rng):
        file.write_bytes(damaged(file.read_bytes(), mark, rng))
    code, text = read(target, folder)
    if mark.exists():
        return "executed", text
    if code == 1:
        return "refused", text
    if code != 0:
        return "traceback", f"exit code {code}: {text}"
    if text == sound:
        return "harmless", text
    if target.recovers:
        return "recovered", text
    return "silent" if target.checked else "unnoticed", text


def make_index(folder: Path) -> None:
    """Have the index of the images kept, as if they had lain there for an hour."""
    for place in (folder / "images").rglob("*"):
        os.utime(place, (0, 0))
    load_images(f"folder:{folder / 'images'}")


def read(target: Target, folder: Path) -> tuple[int, str]:
    """Return 0 and what was read, 1 and one line of refusal, or another exit code and what went wrong."""
    said = folder / "said"

    def work() -> int:
        try:
            said.write_text(str(target.read(folder)))
        except (ValueError, OSError) as error:  # what the command line prints in one line
            said.write_text(str(error))
            return 1
        except BaseException as error:
            said.write_text(f"{type(error).__name__}: {error}")
            return 2
        return 0

    code = in_child(work)
    return code, said.read_text(errors="replace") if said.exists() else ""


def campaign(cases: int, seed: int, work: Path) -> dict[str, Counter[str]]:
    """Run it, and return the outcomes by target."""
    sound_folder = work / "sound"

    def prepare() -> int:
        sound_files(sound_folder)
        return 0

    if in_child(prepare):  # this process starts no thread, which its children would miss
        raise RuntimeError("the sound files could not be made")
    counts: dict[str, Counter[str]] = {}
    shares = sum(target.share for target in TARGETS)
    for target in TARGETS:
        counts[target.name] = Counter()
        code, sound = read(target, Path(shutil.copytree(sound_folder, work / "case")))
        assert code == 0, sound
        shutil.rmtree(work / "case")
        for case in range(-(-cases * target.share // shares)):
            folder = work / "case"
            shutil.copytree(sound_folder, folder)
            outcome, said = outcome_of(target, folder, sound, random.Random(f"{seed} {target.name} {case}"))
            counts[target.name][outcome] += 1
            if outcome in FORBIDDEN:
                print(f"{target.name}, case {case}: {outcome}: {said[:500]}", file=sys.stderr)
            shutil.rmtree(folder)
        print(target.name, dict(counts[target.name]), flush=True)
    return counts


def record(name: str, counts: dict[str, Counter[str]], seed: int) -> None:
    """Replace the rows of a campaign in results/faults.csv."""
    old = list(csv.DictReader(TOTALS.open())) if TOTALS.exists() else []
    machine = environment()
    git = machine["git"] or {}
    shared = {"campaign": name, "seed": seed, "date": datetime.now(UTC).date().isoformat(), "cpu": machine["cpu"]}
    shared |= {"commit": git.get("commit") if isinstance(git, dict) else None}
    rows = [
        shared | {"target": target, "cases": count.total()} | {outcome: count[outcome] for outcome in OUTCOMES}
        for target, count in counts.items()
    ]
    with TOTALS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([row for row in old if row["campaign"] != name] + rows)


def main() -> None:
    """Run the campaign and record it; exit with 1 if something happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        counts = campaign(options.cases, options.seed, Path(work))
    record("damages", counts, options.seed)
    total = sum(counts.values(), Counter())
    print(f"{total.total()} cases: {dict(total)}")
    sys.exit(any(total[outcome] for outcome in FORBIDDEN))


if __name__ == "__main__":
    main()
