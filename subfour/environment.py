"""The environment of a run, on which its numbers may depend beside its config: machine, versions, commit, command line.

environment.json is that in which the run began; those in which it went on follow under `resumed`.
"""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from subfour.plugins import distributions
from subfour.rundir import JSON, RunDirectory

ENVIRONMENT_FILE = "environment.json"

RECORDED_PACKAGES = ("subfour", "torch", "torchvision", "timm", "numpy", "pillow", "datasets", "scikit-learn", "safetensors")
"""Packages whose version can change what a run gives, beside those that bring quantizers or networks."""

INSTRUCTION_SETS = ("avx512_vnni", "avx_vnni", "avx512bw", "avx2")
"""Of x86, for integers, the widest first."""


def environment() -> dict[str, JSON]:
    """Return the environment of this process, as plain values.

    Nothing is imported to ask its version.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "git": _git_state(Path(__file__).parent.parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in (*RECORDED_PACKAGES, *sorted(distributions()))},
    }


def note_resumption(run: RunDirectory) -> None:
    """Add to environment.json in what environment the run goes on, which may be another commit or machine."""
    known = run.read_json(ENVIRONMENT_FILE)
    run.write_json(ENVIRONMENT_FILE, known | {"resumed": [*known.get("resumed", []), environment()]})


def commits(run: RunDirectory) -> list[str]:
    """Return the commits that the run was computed by, in order, each once; none where no git checkout did it."""
    known = run.read_json(ENVIRONMENT_FILE)
    states = [place["git"] for place in (known, *known.get("resumed", []))]
    return list(dict.fromkeys(state["commit"] for state in states if state))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """Return the processor's name, and on x86 which integer instructions it has: runtimes take other kernels with others."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    sets = [name for name in INSTRUCTION_SETS if name in flags][:1]
    return ", ".join([models[0] if models else platform.processor() or platform.machine(), *sets])


def _git_state(tree: Path) -> dict[str, JSON] | None:
    """Return commit and whether tracked files differ from it; None if `tree` is not the top of a git checkout."""
    if not (tree / ".git").exists():  # an installed package may lie inside somebody else's repository
        return None
    describe = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        commit = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty")}


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
