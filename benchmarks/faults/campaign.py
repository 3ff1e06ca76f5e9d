"""Each case in a process of its own, and how it ended."""

import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from faults.sound import sound_files
from faults.targets import TARGETS, Target
from subfour.data.sources import load_images

OUTCOMES = ("refused", "recovered", "harmless", "unnoticed", "silent", "traceback", "executed")

FORBIDDEN = ("silent", "traceback", "executed")

SECONDS_PER_CASE = 120

BYTES_PER_CASE = 8 * 1024**3


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
        file.write_bytes(target.damage(file.read_bytes(), mark, rng))
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


def campaign(cases: int, seed: int, work: Path, *, only: str = "") -> dict[str, Counter[str]]:
    """Run it, and return the outcomes by target.

    Args:
        cases: at least so many, shared among the targets.
        seed: of the damages.
        work: an empty folder.
        only: targets with this in their name.
    """
    targets = [target for target in TARGETS if only in target.name]
    sound_folder = work / "sound"

    def prepare() -> int:
        sound_files(sound_folder)
        return 0

    if in_child(prepare):  # this process starts no thread but an allocator's, which its children would miss
        raise RuntimeError("the sound files could not be made")
    counts: dict[str, Counter[str]] = {}
    shares = sum(target.share for target in targets)
    for target in targets:
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
