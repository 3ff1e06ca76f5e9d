import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from subfour.convert.calibrate import set_bits
from subfour.data.preprocess import Preprocessing
from subfour.layers import QuantConv2d, quant_layers
from subfour.models import build_model
from subfour.models.zoo import Architecture
from subfour.profit.config import LoadingConfig, RunConfig
from subfour.profit.session import TEACHER_FILE, WEIGHTS_FILE, DataRecord, choose_device, continued, prepare_session
from subfour.profit.state import without_quantizers
from subfour.rundir import RunDirectory
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import same, tiny_config, write_images


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Return the tiny run's configuration, with images of its own."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "digits", per_class=5)
    return tiny_config(folder / "digits")


def sized(config: RunConfig, image_size: int | None) -> RunConfig:
    return replace(config, loading=replace(config.loading, image_size=image_size))


def test_a_session_is_a_function_of_its_configuration(config: RunConfig):
    """The same weights, data and order; another seed, other weights."""
    torch.manual_seed(1)
    one = prepare_session(config)
    torch.manual_seed(2)
    other = prepare_session(config)
    assert one.data == other.data
    assert all(same(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())
    assert torch.equal(next(one.training.epoch(3, 1))[0], next(other.training.epoch(3, 1))[0])
    third = prepare_session(replace(config, seed=1)).model
    assert not torch.equal(third.state_dict()["features.0.0.weight"], one.model.state_dict()["features.0.0.weight"])


def test_the_network_is_converted_and_in_channels_last_order(config: RunConfig):
    """At 32/32 bits, with as many classes as the data."""
    session = prepare_session(config)
    layers = quant_layers(session.model)
    assert {layer.weight_quantizer.bits for layer in layers.values()} == {32}
    assert layers["features.2.block.0.0"].weight.is_contiguous(memory_format=torch.channels_last)
    assert layers["classifier.3"].out_features == len(session.data.classes) == 10
    assert session.training.steps_per_epoch == 1
    assert session.validation.images == 10
    assert session.outside_teacher is None


def test_normalisation_and_size_come_from_the_data_and_the_option(config: RunConfig):
    """Without a weights record; 224 pixels if no size is asked for."""
    preprocessing = prepare_session(config).data.preprocessing
    assert (preprocessing.image_size, preprocessing.resize_size) == (32, 32)
    assert len(set(preprocessing.mean)) == 1
    assert 0.2 < preprocessing.mean[0] < 0.4
    assert prepare_session(sized(config, None)).data.preprocessing.image_size == 224


def test_the_record_of_classes_and_preprocessing_survives_json():
    """Types included."""
    preprocessing = Preprocessing(
        image_size=224, resize_size=256, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    record = DataRecord(classes=("cat", "dog"), preprocessing=preprocessing)
    assert DataRecord.from_json(record.to_json()) == record


def test_an_outside_teacher_is_frozen_and_has_its_own_weights(config: RunConfig, tmp_path: Path):
    """Loaded from a file here; a head that does not fit is an error, for a teacher may not learn."""
    network = build_model("subfour/mobilenet_v1", num_classes=10, architecture=Architecture(width=1.0)).model
    save_file(network.state_dict(), tmp_path / "teacher.safetensors")
    taught = replace(config, teacher="subfour/mobilenet_v1", teacher_weights=str(tmp_path / "teacher.safetensors"))
    teacher = prepare_session(taught).outside_teacher
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(teacher(images), network.eval()(images), atol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    save_file(build_model("subfour/mobilenet_v1", num_classes=7).model.state_dict(), tmp_path / "teacher.safetensors")
    with pytest.raises(ValueError, match="teacher: weights: they are of another network"):
        prepare_session(taught)
    assert prepare_session(replace(config, teacher="none")).outside_teacher is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: replace(config, device="tpu"), "device: 'tpu' is not possible; use auto, cpu or cuda"),
        (lambda config: replace(config, device="mps"), "device: mps has no float64"),
        (lambda config: replace(config, model="subfour/tiny"), "model: 'subfour/tiny' is not known"),
        (lambda config: replace(config, weights="missing.pth"), "weights: 'missing.pth' is no file"),
        (lambda config: replace(config, data="digit"), "data: 'digit' is not a source"),
        (lambda config: replace(config, teacher="resnet101"), "teacher: model: 'resnet101' is not known"),
    ],
)
def test_what_does_not_fit_is_named(config: RunConfig, change: Callable[[RunConfig], RunConfig], message: str):
    """One line, with the option."""
    with pytest.raises(ValueError, match=message):
        prepare_session(change(config))


def test_devices():
    """The one there is, by name or by itself."""
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


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


def test_images_are_read_as_the_loading_options_say(config: RunConfig):
    """No augmentation: the same images whatever the epoch, in another order."""
    plain = prepare_session(replace(config, loading=LoadingConfig(image_size=32, augment="none", workers=0)))
    first, second = (next(plain.training.epoch(0, epoch)) for epoch in (0, 1))
    assert not torch.equal(first[0], second[0])
    assert plain.training.augment == "none"


def test_padding_is_as_asked(config: RunConfig):
    """-3/8 or 0."""
    for padding, values in (("negative", {0.0, -0.375}), ("zero", {0.0})):
        layers = quant_layers(prepare_session(replace(config, padding=padding, snap=False)).model).values()
        assert {layer.pad_value for layer in layers if isinstance(layer, QuantConv2d)} == values


@pytest.mark.parametrize("option", ["weight_bits", "activation_bits"])
def test_a_continued_run_never_widens(finished: FinishedRun, option: str):
    """Without widths of its own it would go from 3 or 4 bits back to the recipe's 8."""
    narrow = replace(finished.config, weight_bits=(2,), activation_bits=(2,))
    with pytest.raises(ValueError, match=rf"{option}: 8 is wider than the \d bits that .* ended with"):
        continued(replace(narrow, **{option: (8, 2)}), str(finished.folder))


def test_an_epoch_of_few_steps_is_warned_of_with_a_batch_size_that_helps(config: RunConfig, caplog: pytest.LogCaptureFixture):
    """But not where the user wants few steps, nor where there are enough."""
    whole = replace(config, schedule=replace(config.schedule, max_steps=None, batch_size=1000))
    session = prepare_session(whole)
    images = len(session.training.split)
    assert f"schedule.batch_size: {images} training images are 1 step(s) of {images} an epoch" in caplog.text
    advised = int(caplog.text.rsplit("try ", 1)[1])
    caplog.clear()
    prepare_session(replace(whole, schedule=replace(whole.schedule, batch_size=advised)))
    prepare_session(replace(whole, schedule=replace(whole.schedule, max_steps=1)))
    assert not caplog.text
