"""Size and exactness of exported networks at 224 pixels: results/exports.csv, results/exactness.csv.

python benchmarks/bench_exports.py [--networks NAME ...] [--images 4] [--qonnx-images 50]

MobileNet-v1, v2, v3-small and v3-large with 1,000 classes, A4W4, untrained, snapped. Each file is what `subfour export` writes:
its bytes stand beside the cost model's; torch, onnxruntime and OpenVINO run it on random pixels, end to end and part by part,
each part on the reference's codes. Those named by --qonnx are also exported as QONNX and run in qonnx's own executor.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exactness import RANDOM, qonnx_run, record_rows, rows_of
from table import RESULTS, provenance, read_rows, write_rows
from untrained_model import IMAGENET, untrained_model

from subfour.export.deployed import deployed_program
from subfour.export.formats import Exported, export_model
from subfour.export.runtime import RUNTIMES
from subfour.export.untrained import random_pixels
from subfour.export.verify import Verifier, snapped_run
from subfour.profit.model_file import TrainedModel

NETWORKS = (
    *("timm/mobilenetv1_100", "torchvision/mobilenet_v2"),
    *("torchvision/mobilenet_v3_small", "torchvision/mobilenet_v3_large"),
)
QONNX = ("torchvision/mobilenet_v2", "torchvision/mobilenet_v3_large")
TABLE = RESULTS / "exports.csv"
COLUMNS = [
    *("network", "widths", "pixels", "file_bytes", "constant_bytes", "graph_bytes", "cost_model_bytes", "over_cost_and_graph"),
    *("layers_and_sums", "proven_in_float32", "unclear_channels", "date", "cpu", "commit"),
]
BATCH = 4
THREADS = 1


def size_row(network: str, exported: Exported) -> dict[str, Any]:
    """Return how large a file is, and by how much it exceeds the cost model's figure and what the graph takes."""
    size, constants = len(exported.content), exported.constant_bytes
    assert constants is not None
    record = exported.record
    return {
        "network": network,
        "widths": f"A{record.activation_bits}W{record.weight_bits}",
        "pixels": record.preprocessing.image_size,
        "file_bytes": size,
        "constant_bytes": constants,
        "graph_bytes": size - constants,
        "cost_model_bytes": exported.cost_bytes,
        "over_cost_and_graph": f"{size / (exported.cost_bytes + size - constants) - 1:.4f}",
        "layers_and_sums": len(exported.bounds),
        "proven_in_float32": sum(bound.proven for bound in exported.bounds.values()),
        "unclear_channels": exported.unclear_channels,
        **provenance(),
    }


def compare(verifier: Verifier, images: int) -> None:
    """Show a verifier random images, and the first few part by part."""
    pixels = random_pixels(images, IMAGENET.image_size).numpy()
    for start in range(0, images, BATCH):
        batch = pixels[start : start + BATCH]
        expected = verifier.end_to_end(batch, np.zeros(len(batch), dtype=np.int64))
        if not start:
            verifier.layer_by_layer(batch, expected)


def verifier_of(trained: TrainedModel, exported: Exported) -> Verifier:
    """Return what compares a file: torch and both runtimes, or qonnx's executor alone."""
    program = deployed_program(trained.model, IMAGENET, trained.snapping)
    content = exported.content
    if exported.record.file_format == "qonnx":
        return Verifier(content, program, runs={"qonnx": qonnx_run(content, program)}, runtimes=())
    return Verifier(content, program, runs={"torch": snapped_run(program)}, runtimes=tuple(RUNTIMES), threads=THREADS)


def main() -> None:
    """Fill both tables; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--qonnx", nargs="*", default=QONNX)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--qonnx-images", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    for network in options.networks:
        trained = untrained_model(network)
        exported = export_model(trained, Path(network))
        row = size_row(network, exported)
        print(row, flush=True)
        write_rows(TABLE, COLUMNS, [*(old for old in read_rows(TABLE) if old["network"] != network), row])
        files = [(exported, options.images)]
        if network in options.qonnx:
            files.append((export_model(trained, Path(network), file_format="qonnx"), options.qonnx_images))
        for file, images in files:
            with torch.no_grad():
                verifier = verifier_of(trained, file)
                compare(verifier, images)
            record_rows(rows_of(network, file.record, verifier.comparisons, RANDOM))


if __name__ == "__main__":
    main()
