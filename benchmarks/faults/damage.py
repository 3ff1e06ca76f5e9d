"""What happens to a file: truncated, bits flipped, blocks overwritten, swapped, appended, or something hostile in its place."""

import io
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import torch

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
