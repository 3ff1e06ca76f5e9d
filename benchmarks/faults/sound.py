"""One sound file of every kind."""

import random
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet

from faults.strangers import strangers
from subfour.cli import main as command_line
from subfour.models.zoo import build_model

SMALL_RUN = shlex.split(
    "--schedule.max-steps 1 --schedule.float-epochs 1 --schedule.finetune-epochs 1 --schedule.stabilize-epochs 1 --no-snap "
    "--schedule.sample-epochs 1 --average.reestimate-batches 1 --calibration-batches 1 --loading.workers 0 "
    "--schedule.batch-size 4 --weight-bits 4 --activation-bits 32 --loading.image-size 32"
)

TRAINED = Path(__file__).parents[2] / "results" / "models" / "digits-w4a4.safetensors"

NETWORK = "subfour/tiny_mobilenet_v3"


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
    shutil.copy(TRAINED, folder / "trained.safetensors")
    command_line.main(["export", str(TRAINED), "--out", str(folder / "model.onnx")])
    (folder / "strangers").mkdir()
    for file, content in strangers(folder / "model.onnx").items():
        (folder / "strangers" / file).write_bytes(content)
