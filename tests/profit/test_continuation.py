import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from subfour.convert.calibrate import set_bits
from subfour.layers import quant_layers
from subfour.models.zoo import Architecture
from subfour.profit.config import RunConfig
from subfour.profit.continuation import TEACHER_FILE, WEIGHTS_FILE, continued
from subfour.profit.self_teacher import float_network
from subfour.profit.session import prepare_session
from subfour.profit.state_dict import read_tensors, without_quantizers
from subfour.rundir import RunDirectory
from subfour.train.average import WeightAverage
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import same, sized


def test_a_continued_run_starts_from_the_final_weights(finished: FinishedRun):
    """Ranges included, and its images are prepared as before; another size can be asked for."""
    config = continued(replace(finished.config, weight_bits=(2,), activation_bits=(3,)), str(finished.folder))
    assert (config.from_run, config.starting_weight_bits, config.weights) == (str(finished.folder), 3, "none")
    session = prepare_session(config)
    final = load_file(finished.folder / WEIGHTS_FILE)
    assert all(torch.equal(value, final[name]) for name, value in session.model.state_dict().items())
    set_bits(session.model, 3, 4)
    assert all(layer.weight_quantizer.initialized for layer in quant_layers(session.model).values())
    assert session.data == prepare_session(finished.config).data
    larger = prepare_session(sized(config, 48)).data.preprocessing
    assert (larger.image_size, larger.mean) == (48, session.data.preprocessing.mean)


def test_a_run_is_continued_only_by_one_of_its_kind(finished: FinishedRun, tmp_path: Path):
    """The same network, quantizer and padding; finished; with a teacher left."""
    config = finished.config
    for change in ({"model": "torchvision/mobilenet_v2"}, {"quantizer": "pact-sawb"}, {"padding": "zero"}):
        with pytest.raises(ValueError, match=f"^{next(iter(change))}: .* differs from .* in {finished.folder}"):
            continued(replace(config, **change), str(finished.folder))
    with pytest.raises(ValueError, match=r"^architecture: "):
        continued(replace(config, architecture=Architecture(width=2.0)), str(finished.folder))
    unfinished = next(iter(finished.copies.values()))
    with pytest.raises(ValueError, match=f"from: {unfinished} is not finished; .* subfour train --resume {unfinished}"):
        continued(config, str(unfinished))
    with pytest.raises(ValueError, match="not a run directory"):
        continued(config, str(tmp_path))


def test_self_means_the_float_network_of_the_run_that_is_continued(finished: FinishedRun, tmp_path: Path):
    """A run that kept none cannot teach, unless it is float itself."""
    assert (finished.folder / TEACHER_FILE).exists()
    for widths, taught in (((4,), False), ((32,), True)):
        earlier = RunDirectory.create(
            tmp_path / f"{widths[0]}", replace(finished.config, weight_bits=widths, activation_bits=widths).to_json()
        )
        (earlier.path / WEIGHTS_FILE).touch()
        narrower = replace(finished.config, weight_bits=(3,), activation_bits=(3,))
        if taught:
            continued(narrower, str(earlier.path))
        else:
            with pytest.raises(ValueError, match=f"teacher: self is the float network, which {earlier.path} did not keep"):
                continued(narrower, str(earlier.path))
            continued(replace(narrower, teacher="none"), str(earlier.path))


def test_a_float_run_is_continued_by_any_quantizer_of_its_padding(config: RunConfig, tmp_path: Path):
    """One float network for all rows of a study; where h-swish outputs are padded in another way it is another network."""
    floating = replace(config, weight_bits=(32,), activation_bits=(32,), quantizer="lsq")
    session = prepare_session(floating)
    RunDirectory.create(tmp_path / "run", floating.to_json(), {"data.json": session.data.to_json()})
    state = {name: value.contiguous() for name, value in session.model.state_dict().items()}
    save_file(state, tmp_path / "run" / WEIGHTS_FILE)
    for quantizer in ("lsq", "affine", "uniq", "pact-sawb"):
        asked = replace(config, quantizer=quantizer, weight_bits=(4,), activation_bits=(4,), seed=7, snap=False)
        begun = prepare_session(continued(asked, str(tmp_path / "run"))).model.state_dict()
        assert all(same(begun[name], value) for name, value in without_quantizers(state).items())
    for quantizer in ("duq", "lsq-plus", "dsq"):
        with pytest.raises(ValueError, match=f"quantizer: {quantizer} pads h-swish outputs in another way than lsq"):
            prepare_session(continued(replace(asked, quantizer=quantizer), str(tmp_path / "run")))


def test_a_float_control_is_continued_with_itself_as_teacher(config: RunConfig, tmp_path: Path):
    """Not with what it was at the end of its float phase, before it was trained on."""
    narrower = float_run(config, tmp_path / "run", tuple("0123456789"))
    (tmp_path / "run" / TEACHER_FILE).write_bytes(b"of an earlier phase")
    session = prepare_session(narrower)
    average = WeightAverage(session.model, 0.5)
    file = float_network(narrower, average, session.data.preprocessing)
    assert unpacked(file, tmp_path).keys() == without_quantizers(average.state).keys()


def unpacked(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    (folder / "packed.safetensors").write_bytes(content)
    return read_tensors(folder / "packed.safetensors")


def float_run(config: RunConfig, folder: Path, classes: tuple[str, ...]) -> RunConfig:
    """Return the configuration of a quantized run that continues a float one of these classes."""
    floating = replace(config, weight_bits=(32,), activation_bits=(32,))
    session = prepare_session(floating)
    RunDirectory.create(folder, floating.to_json(), {"data.json": replace(session.data, classes=classes).to_json()})
    save_file({name: value.contiguous() for name, value in session.model.state_dict().items()}, folder / WEIGHTS_FILE)
    return continued(replace(config, weight_bits=(4,), activation_bits=(4,), snap=False), str(folder))


def test_a_continued_run_keeps_the_meaning_of_its_classes(config: RunConfig, tmp_path: Path):
    """By name: its teacher knows them in the order of the earlier run."""
    reversed_names = tuple("9876543210")
    session = prepare_session(float_run(config, tmp_path / "run", reversed_names))
    plain = prepare_session(config)
    assert session.data.classes == reversed_names
    for split, before in ((session.training.split, plain.training.split), (session.validation.split, plain.validation.split)):
        assert torch.equal(split.labels, 9 - before.labels)
        assert split.digest() != before.digest()


def test_a_run_is_not_continued_on_classes_it_does_not_know(config: RunConfig, tmp_path: Path):
    names = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "yak", "zebra", "wolf")
    folder = shutil.copytree(config.data.partition(":")[2], tmp_path / "images")
    for split in ("train", "val"):
        (folder / split / "7").rename(folder / split / "seven")
    moved = replace(config, data=f"folder:{folder}")
    with pytest.raises(ValueError, match=r"data: .*images has a class '0', which the model does not know"):
        prepare_session(float_run(moved, tmp_path / "run", names))
    gone = replace(moved, from_run=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"from: .*gone: not a run directory, .*; seen from "):
        prepare_session(gone)


@pytest.mark.parametrize("option", ["weight_bits", "activation_bits"])
def test_a_continued_run_never_widens(finished: FinishedRun, option: str):
    """Without widths of its own it would go from 3 or 4 bits back to the recipe's 8."""
    narrow = replace(finished.config, weight_bits=(2,), activation_bits=(2,))
    with pytest.raises(ValueError, match=rf"{option}: 8 is wider than the \d bits that .* ended with"):
        continued(replace(narrow, **{option: (8, 2)}), str(finished.folder))
