"""Whether executors compute what a program says, code by code: end to end, and layer by layer.

End to end, the answers of a file as it stands are compared: an image is exact when the accumulators of the last layer are the
reference's (no quantizer follows them, so there are no codes). A copy of the file whose codes are all outputs tells where the
first difference is.

Layer by layer, each part of the file between codes runs alone on the reference's codes, so that no difference is carried on. A
part's codes enter as floats through a QuantizeLinear of step 1: the runtime sees a quantized network and takes the kernels that
it takes in the whole file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from subfour.data.preprocess import Preprocessing, normalize
from subfour.data.sources import evaluation_images
from subfour.export.comparison import Comparison, Extent, Verification
from subfour.export.constants import check_constants
from subfour.export.deployed import batches_of, deployed_program
from subfour.export.formats import ONNX_WRITERS
from subfour.export.parts import cut_apart, with_outputs
from subfour.export.runtime import RUNTIMES, Arrays, Run, RuntimeName, read_file
from subfour.integer import reference
from subfour.integer.bounds import bounds
from subfour.integer.execute import accumulate, execute
from subfour.integer.lower import lower
from subfour.integer.measure import Snapping
from subfour.integer.program import IMAGE, Add, CodeSum, Layer, Lookup, Program, Quantize
from subfour.profit.model_file import TrainedModel

LAYER_IMAGES = 4
"""Images of the comparison layer by layer."""

PIXELS_AT_ONCE = 8 * 224**2
"""Of a batch. Comparing 8 images of a MobileNet-v2 at 224 pixels takes some 1.5 GB."""


class Reference:
    """The numbers that a program defines: integers alone where it is snapped, float64 where it is not."""

    def __init__(self, program: Program) -> None:
        """Lower the program, if it is snapped."""
        self.program = program
        self._lowered = lower(program) if program.snapped else None

    def __call__(self, pixels: NDArray[np.uint8]) -> Arrays:
        """Return codes and values by name, and each layer's accumulators as NAME.accumulators."""
        if self._lowered is not None:
            return reference.run(self._lowered.operations, self._lowered.arrays, pixels)
        with torch.no_grad():
            values = execute(self.program, torch.from_numpy(pixels))
            sums = {
                f"{layer.name}.accumulators": accumulate(layer, values[layer.inputs[0]])
                for layer in self.program.operations
                if isinstance(layer, Layer)
            }
        return {name: value.numpy() for name, value in (values | sums).items()}


def accumulators_of(layer: Layer, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the integers that a layer's values stand for: (value - addend) / multiplier, rounded.

    Where the multiplier is 0 a value stands for any, and value - addend is returned, rounded.
    """
    multiplier, addend = _constants(layer)
    integers: NDArray[np.float64] = np.rint((values - addend) / np.where(multiplier == 0, 1, multiplier))
    return integers


def different(layer: Layer, values: NDArray[Any], accumulators: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a layer's values stand for other accumulators; where the multiplier is 0, where they are another number.

    Args:
        layer: the layer.
        values: what an executor gave.
        accumulators: what the program gives.
    """
    multiplier, addend = _constants(layer)
    others = values.astype(np.float32) != addend.astype(np.float32)
    found: NDArray[np.bool_] = np.where(multiplier == 0, others, accumulators_of(layer, values) != accumulators)
    return found


def codes_in(quantizer: Quantize | Lookup, stored: NDArray[Any]) -> NDArray[np.int16]:
    """Return the codes that a file's integers stand for: without their zero point."""
    codes: NDArray[np.int16] = stored.astype(np.int16) + np.int16(quantizer.qmin)
    return codes


def _values(layer: Layer, accumulators: NDArray[Any]) -> NDArray[np.float64]:
    multiplier, addend = _constants(layer)
    values: NDArray[np.float64] = accumulators * multiplier + addend
    return values


def _constants(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return multiplier and addend, shaped to go with the layer's values."""
    shape = (-1,) if layer.linear else (-1, 1, 1)
    multiplier, addend = (values.detach().double().numpy().reshape(shape) for values in (layer.multiplier, layer.addend))
    return multiplier, addend


class Verifier:
    """Compares executors of one file with its program, batch by batch."""

    def __init__(
        self, content: bytes, program: Program, *, runs: Mapping[str, Run], runtimes: Sequence[RuntimeName], threads: int = 0
    ) -> None:
        """Open the file in each runtime.

        Args:
            content: of the file.
            program: that it was exported from.
            runs: executors that do not run the file as it is, from pixels to logits and perhaps codes, by name.
            runtimes: which to compare beside them.
            threads: for each; 0 leaves it to the runtime.

        Raises:
            ValueError: a runtime is not installed.
        """
        self.program, self.runtimes, self.threads = program, runtimes, threads
        self.model = onnx.load_from_string(content)
        self.reference = Reference(program)
        last = program.operations[-1]
        assert isinstance(last, Layer)
        self._last = last
        probed = with_outputs(self.model, [quantize.name for quantize in program.quantizers]).SerializeToString()
        self._answering: dict[str, Run] = dict(runs)
        self._probed: dict[str, Run] = {}
        for name in runtimes:
            self._answering[name], self._probed[name] = (RUNTIMES[name](file, threads) for file in (content, probed))
        self.largest = dict.fromkeys(
            (operation.name for operation in program.operations if isinstance(operation, Layer | Add | CodeSum)), 0
        )
        """Largest magnitude seen of each layer's accumulators and each sum's values."""
        self.comparisons = {name: Comparison() for name in (*runs, "reference", *runtimes)}

    def end_to_end(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Arrays:
        """Compare one batch, and return the reference's numbers.

        Args:
            pixels: uint8 [N, 3, H, W].
            labels: int64 [N].
        """
        expected = self.reference(pixels)
        for name, largest in self.largest.items():
            sums = f"{name}.accumulators"
            self.largest[name] = max(largest, int(np.abs(expected[sums if sums in expected else name]).max()))
        self._compare_answers("reference", _values(self._last, expected[f"{self._last.name}.accumulators"]), expected, labels)
        for name, run in self._answering.items():
            got = run({IMAGE: pixels})
            self._compare_answers(name, got[self.program.output], expected, labels)
            if name in self._probed:
                stored = self._probed[name]({IMAGE: pixels})
                got = {quantize.name: codes_in(quantize, stored[quantize.name]) for quantize in self.program.quantizers}
            self._compare_codes(name, got, expected)
            del got  # before the next executor's: each holds every code of the batch
        return expected

    def layer_by_layer(self, pixels: NDArray[np.uint8], expected: Arrays) -> None:
        """Compare every part of the file on its own.

        Args:
            pixels: a few images.
            expected: of them, from `end_to_end`.
        """
        operations = self.program.operations
        cuts = {operation.name: operation for operation in operations if isinstance(operation, Lookup | Quantize | Add)}
        feeds: Arrays = {IMAGE: pixels, **{f"{name}.fed": expected[name].astype(np.float32) for name in cuts}}
        layers = {operation.name: operation for operation in operations if isinstance(operation, Layer)}
        codes = {operation.name: operation for operation in operations if isinstance(operation, Lookup | Quantize)}
        for targets in (list(codes), list(layers)):  # apart: a layer whose value is asked for is not merged with its quantizer
            parts = cut_apart(self.model, cuts, expected, targets).SerializeToString()
            for runtime in self.runtimes:
                got = RUNTIMES[runtime](parts, self.threads)(feeds)
                comparison = self.comparisons[runtime]
                for target in targets:
                    if target in layers:
                        others = different(layers[target], got[target], expected[f"{target}.accumulators"])
                    else:
                        others = codes_in(codes[target], got[target]) != expected[target]
                    comparison.parts += 1
                    if others.any():
                        comparison.different_parts[target] = int(others.sum())

    def _compare_answers(self, name: str, logits: NDArray[Any], expected: Arrays, labels: NDArray[np.int64]) -> None:
        comparison = self.comparisons[name]
        same = ~different(self._last, logits, expected[f"{self._last.name}.accumulators"])
        comparison.images += len(labels)
        comparison.exact_images += int(same.all(axis=1).sum())
        comparison.correct += int((logits.argmax(axis=1) == labels).sum())

    def _compare_codes(self, name: str, got: Arrays, expected: Arrays) -> None:
        comparison = self.comparisons[name]
        before, comparison.different_codes = comparison.different_codes, {}
        for quantize in self.program.quantizers:
            different = before.get(quantize.name, 0)
            if quantize.name in got:
                codes = got[quantize.name]
                comparison.codes += codes.size
                different += int((codes != expected[quantize.name]).sum())
            if different:
                comparison.different_codes[quantize.name] = different


def verify_file(
    path: Path,
    trained: TrainedModel,
    source: str,
    *,
    split: str | None = None,
    images: int | None = None,
    runtimes: Sequence[RuntimeName] = ("onnxruntime", "openvino"),
    batch_size: int | None = None,
    threads: int = 0,
) -> Verification:
    """Compare an exported file with the run it came from.

    Args:
        path: of the file.
        trained: the run's model.
        source: digits, folder:PATH, parquet:PATH or hub:NAME.
        split: which one; None: the only one, else validation.
        images: the first so many; None: all.
        runtimes: that run the file.
        batch_size: images at once; None: as many as have `PIXELS_AT_ONCE`, but 50 at most, because every code of a batch is kept.
        threads: of each runtime; 0 leaves it to the runtime.

    Raises:
        ValueError: file, run and data do not fit each other, no image can be read, or a runtime is not installed; the message
            says which.
    """
    record, content = read_file(path)
    if record.network != trained.config.model:
        raise ValueError(f"run: it is of {trained.config.model}, {path} of {record.network}; name the run it was exported from")
    chosen = evaluation_images(source, tuple(record.classes), split)
    snapping = None if record.snapping is None else Snapping.from_json(record.snapping)
    program = deployed_program(trained.model, record.preprocessing, snapping)
    expected_model = ONNX_WRITERS[record.file_format](program).write(record)
    check_constants(onnx.load_from_string(content), expected_model, path=path)
    torch_run = snapped_run(program) if program.snapped else _trained_run(trained.model, record.preprocessing, program.output)
    verifier = Verifier(content, program, runs={"torch": torch_run}, runtimes=runtimes, threads=threads)
    indices = torch.arange(len(chosen))[:images]
    size = batch_size or min(50, max(1, PIXELS_AT_ONCE // record.preprocessing.image_size**2))
    batches = batches_of(chosen, record.preprocessing, indices, size, unreadable=trained.config.loading.unreadable)
    with torch.no_grad():
        for number, (pixels, read) in enumerate(batches):
            expected = verifier.end_to_end(pixels.numpy(), chosen.labels[read].numpy())
            if not number:
                few = {name: values[:LAYER_IMAGES] for name, values in expected.items()}
                verifier.layer_by_layer(pixels.numpy()[:LAYER_IMAGES], few)
        if not verifier.comparisons["reference"].images:
            raise ValueError(f"images: none of the {len(indices)} can be read; name more, or other data with --data")
    proofs = {} if snapping is None else bounds(program, snapping)
    extents = {name: Extent(verifier.largest[name], bound) for name, bound in proofs.items()}
    return Verification(record, verifier.comparisons, extents)


def _trained_run(model: nn.Module, preprocessing: Preprocessing, output: str) -> Run:
    """Return the fake-quantized network as it was trained, in float32."""

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return {output: model(normalize(torch.from_numpy(inputs[IMAGE]), preprocessing)).numpy()}

    return run


def snapped_run(program: Program) -> Run:
    """Return the snapped network as its phase evaluates it, in float32."""

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return {name: value.numpy() for name, value in execute(program, torch.from_numpy(inputs[IMAGE])).items()}

    return run
