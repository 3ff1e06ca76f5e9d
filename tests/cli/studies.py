"""Studies of a few short runs."""

import shlex
from pathlib import Path

from tests.cli.command import ONE_STEP

FLOAT = "--weight-bits 32 --activation-bits 32 --padding zero"
QUANTIZED = "--from {out}/float/seed-{seed} --weight-bits 3 --activation-bits 4 --padding zero"


def write_study(file: Path, photographs: Path, rows: str, more: str = "") -> Path:
    options = f"{shlex.join(ONE_STEP)} --data folder:{photographs}"
    file.write_text(f'recipe = "digits"\noptions = "{options}"\nseconds_per_epoch = 30\n{more}\n{rows}')
    return file


def study_row(name: str, options: str, seeds: list[int]) -> str:
    return f'[[row]]\nname = "{name}"\noptions = "{options}"\nseeds = {seeds}\n'
