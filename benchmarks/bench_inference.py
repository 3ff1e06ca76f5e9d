"""How fast exported networks run, beside float and the int8 rivals: results/inference.csv; and where OpenVINO spends the time.

python benchmarks/bench_inference.py [--repeats 30] [--batches 1 16] [--networks NAME ...] [--profile]

MobileNet-v2 and v3-large at 224 pixels and 1,000 classes, A4W4, untrained, snapped; one core. Medians of interleaved runs, over
onnxruntime's float. Rivals: float and onnxruntime's static int8 (QDQ) in onnxruntime and in OpenVINO, float computed by OpenVINO
in bfloat16, its own choice where the processor has it, and ExecuTorch with XNNPACK's int8 kernels where it is installed.
"""

import argparse
import os
from collections import defaultdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from table import RESULTS, provenance, read_rows, write_rows
from untrained_model import IMAGENET, untrained_model

from subfour.data.preprocess import normalize
from subfour.export.benchmark import float_onnx, static_int8, time_batch
from subfour.export.formats import export_model
from subfour.export.runtime import OPENVINO_OPTIONS, RUNTIMES, Run, run_openvino
from subfour.export.untrained import random_pixels
from subfour.integer.program import IMAGE
from subfour.models import build_model

NETWORKS = ("torchvision/mobilenet_v2", "torchvision/mobilenet_v3_large")
THREADS = 1
TABLE = RESULTS / "inference.csv"
COLUMNS = ["network", "batch", "executor", "ratio", "milliseconds", "repeats", "threads", "versions", "date", "cpu", "commit"]


def executorch_int8(name: str, batch: int) -> Run | None:
    """Return the stock network in ExecuTorch on XNNPACK's int8 kernels, or None where it is not installed."""
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
        from executorch.exir import to_edge_transform_and_lower
        from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    except ImportError as error:
        print(f"ExecuTorch is left out: {error}")
        return None
    network = build_model(name, num_classes=1000).model.eval()
    images = normalize(random_pixels(batch, IMAGENET.image_size), IMAGENET).contiguous()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(network, (images,)).module(), quantizer)
    prepared(images)
    lowered = to_edge_transform_and_lower(
        torch.export.export(convert_pt2e(prepared), (images,)), partitioner=[XnnpackPartitioner()]
    )
    buffer = lowered.to_executorch().buffer
    module = _load_for_executorch_from_buffer(buffer)

    def run(_: object) -> dict[str, Any]:
        assert buffer  # the module reads it, but does not keep it alive
        return {"logits": module.forward((images,))[0].numpy()}

    return run


def profile(content: bytes, batch: int, repeats: int) -> dict[str, float]:
    """Return the milliseconds of one run that OpenVINO spends per kind of node and kernel."""
    import openvino

    core = openvino.Core()
    options = {**OPENVINO_OPTIONS, "INFERENCE_NUM_THREADS": THREADS, "PERF_COUNT": True}
    request = core.compile_model(core.read_model(content), "CPU", options).create_infer_request()
    pixels = random_pixels(batch, IMAGENET.image_size).numpy()
    spent: dict[str, float] = defaultdict(float)
    for _ in range(repeats):
        request.infer({IMAGE: pixels})
        for node in request.get_profiling_info():
            spent[f"{node.node_type} {node.exec_type}"] += node.real_time.total_seconds() * 1000 / repeats
    return dict(sorted(spent.items(), key=lambda entry: -entry[1])[:12])


def main() -> None:
    """Print one row per executor; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # ExecuTorch has no option for its threads
    installed = {package.name: package.version for package in metadata.distributions()}
    versions = " ".join(
        f"{name} {installed[name]}" for name in ("onnxruntime", "openvino", "torch", "executorch") if name in installed
    )
    shared = {"repeats": options.repeats, "threads": THREADS, "versions": versions, **provenance()}
    print(shared, "load", os.getloadavg()[0])
    rows: list[dict[str, Any]] = []
    for network in options.networks:
        exported = export_model(untrained_model(network), Path(network))
        record, content = exported.record, exported.content
        float_model = float_onnx(record)
        files = {"float": float_model, "int8": static_int8(float_model, record), "subfour": content}
        print(f"{network}: {len(content):,} bytes")
        for batch in options.batches:
            runs = {
                f"{kind} in {runtime}": opened(file, THREADS)
                for kind, file in files.items()
                for runtime, opened in RUNTIMES.items()
            }
            runs["bfloat16 in openvino"] = run_openvino(float_model, THREADS, precision="bf16")
            if (rival := executorch_int8(network, batch)) is not None:
                runs["int8 in executorch"] = rival
            for timing in time_batch(runs, record, batch=batch, repeats=options.repeats):
                print(f"{network}  batch {batch:2}  {timing.executor:24} {timing.milliseconds:8.2f} ms  {timing.ratio:5.2f}")
                measured = {"milliseconds": f"{timing.milliseconds:.2f}", "ratio": f"{timing.ratio:.2f}"}
                rows.append({"network": network, "batch": batch, "executor": timing.executor, **measured, **shared})
            if options.profile:
                for kind in ("int8", "subfour"):
                    print(f"{kind} in openvino, ms by kernel:", profile(files[kind], batch, options.repeats))
    renewed = {(row["network"], str(row["batch"])) for row in rows}
    others = [row for row in read_rows(TABLE) if (row["network"], row["batch"]) not in renewed]
    write_rows(TABLE, COLUMNS, [*others, *rows])


if __name__ == "__main__":
    main()
