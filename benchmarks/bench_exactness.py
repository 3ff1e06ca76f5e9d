"""Whether trained networks compute in every executor what they were trained to compute: results/exactness.csv.

python benchmarks/bench_exactness.py [MODEL ...] [--data parquet:cifar10] [--images N] [--qonnx-images 50]

Models are those of results/models that were trained on CIFAR-10, or the ones named. Each is exported snapped and not snapped, and
torch, onnxruntime and OpenVINO are compared with the reference as `subfour verify` does it, on all validation images or the
first of them. Snapped and as QONNX, it is run by qonnx's own executor too.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from exactness import qonnx_run, record_rows, rows_of
from record import without_folders
from table import RESULTS

from subfour.data.images import Split, evaluation_split
from subfour.data.sources import load_images
from subfour.export.deployed import batches_of, deployed_program
from subfour.export.formats import export_model
from subfour.export.verify import Verifier, verify_file
from subfour.integer.measure import Snapping
from subfour.profit.model_file import TrainedModel, read_model

MODELS = sorted((RESULTS / "models").glob("cifar10-*.safetensors"))
THREADS = 1
BATCH = 10
"""Images at once in qonnx's executor, whose values are all kept."""


def measured(trained: TrainedModel, data: str, *, snap: bool) -> str | None:
    """Return the images that snapping is measured on, if it is."""
    return data if snap and trained.snapping is None else None


def verify_runtimes(model: Path, trained: TrainedModel, data: str, images: int | None, *, snap: bool) -> None:
    """Record what torch and both runtimes compute."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(export_model(trained, model, snap=snap, data=measured(trained, data, snap=snap)).content)
        found = verify_file(file, trained, data, images=images, threads=THREADS)
    record_rows(rows_of(model.stem, found.record, found.comparisons, without_folders(data)))


@torch.no_grad()
def verify_qonnx(model: Path, trained: TrainedModel, split: Split, data: str, images: int) -> None:
    """Record what qonnx's own executor computes."""
    exported = export_model(trained, model, file_format="qonnx", snap=True, data=measured(trained, data, snap=True))
    preprocessing, snapping = exported.record.preprocessing, exported.record.snapping
    assert snapping is not None
    program = deployed_program(trained.model, preprocessing, Snapping.from_json(snapping))
    verifier = Verifier(exported.content, program, runs={"qonnx": qonnx_run(exported.content, program)}, runtimes=())
    for pixels, read in batches_of(split, preprocessing, torch.arange(len(split))[:images], BATCH):
        verifier.end_to_end(pixels.numpy(), split.labels[read].numpy())
    record_rows(rows_of(model.stem, exported.record, verifier.comparisons, without_folders(data)))


def main() -> None:
    """Fill the table; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path, default=MODELS)
    parser.add_argument("--data", default="parquet:cifar10")
    parser.add_argument("--images", type=int)
    parser.add_argument("--qonnx-images", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    split = evaluation_split(load_images(options.data))
    for model in options.models:
        trained = read_model(model)
        for snap in (True, False):
            verify_runtimes(model, trained, options.data, options.images, snap=snap)
        verify_qonnx(model, trained, split, options.data, options.qonnx_images)


if __name__ == "__main__":
    main()
