from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from subfour.data.preprocess import Preprocessing
from subfour.layers import QuantConv2d, quant_layers
from subfour.models import build_model
from subfour.models.weights import float_file
from subfour.models.zoo import Architecture
from subfour.profit.beginning import begin_run
from subfour.profit.config import LoadingConfig, RunConfig
from subfour.profit.run import go_on
from subfour.profit.session import prepare_session
from subfour.quantizers import COEFFICIENTS
from tests.profit.tiny_run import same, sized


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


def test_freezing_by_no_sample_is_said(config: RunConfig, caplog: pytest.LogCaptureFixture):
    """One step of sampling compares nothing; two do, and so does a run that freezes nothing."""
    for epochs, method, said in ((1, "profit", True), (2, "profit", False), (1, "none", False)):
        caplog.clear()
        schedule = replace(config.schedule, sample_epochs=epochs, max_steps=None)
        prepare_session(replace(config, method=method, schedule=schedule))
        assert ("in the order of their names" in caplog.text) == said


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


def test_whether_it_can_be_snapped_is_asked_at_the_widths_it_will_have(config: RunConfig, monkeypatch: pytest.MonkeyPatch):
    """A quantizer need not know of any other."""
    monkeypatch.delitem(COEFFICIENTS, 8)
    prepare_session(replace(config, quantizer="pact-sawb", weight_bits=(3,), activation_bits=(3,), snap=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"padding": "zero"}, "padding: it pads with 0.0"),
        ({"quantizer": "uniq"}, "quantizer: uniq has no integer form"),
        ({"skip_bits": 8}, "skip"),
        ({"activation_bits": (32,)}, "W3, A32: it stays float in part"),
    ],
)
def test_a_network_that_trains_and_cannot_be_exported_is_said_to_be_one(
    config: RunConfig, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], words: str
):
    prepare_session(replace(config, snap=False, **changes))
    said = [message for message in caplog.messages if message.startswith("export: this network trains, but cannot be exported")]
    assert len(said) == bool(words)
    assert not said or words in said[0]


def test_weights_in_a_file_are_normalised_as_it_says_or_as_asked(
    config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A file of ours says it; of another it is unknown, which is a warning, and of the data where nothing is asked."""
    built = build_model(config.model, num_classes=10).model.state_dict()
    known = Preprocessing(image_size=40, resize_size=50, interpolation="bicubic", mean=(0.5,) * 3, std=(0.25,) * 3)
    (tmp_path / "ours.safetensors").write_bytes(float_file(built, known))
    save_file(built, tmp_path / "another.safetensors")

    def prepared(file: str, **loading: Any) -> Preprocessing:
        caplog.clear()
        asked = replace(config, weights=str(tmp_path / file), loading=replace(config.loading, **loading))
        return prepare_session(asked).data.preprocessing

    assert prepared("ours.safetensors", image_size=None) == known
    assert prepared("ours.safetensors", image_size=None, interpolation="bilinear") == replace(known, interpolation="bilinear")
    assert not caplog.text
    of_data = prepared("another.safetensors")
    assert of_data == prepare_session(config).data.preprocessing
    assert "another.safetensors does not say how its images were normalised; here they are by their own mean (0." in caplog.text
    constants = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert prepared("another.safetensors", **constants, resize_size=36) == replace(of_data, **constants, resize_size=36)
    assert not caplog.text
    with pytest.raises(ValueError, match=r"loading\.resize_size: 20 is less than image_size 32"):
        prepared("another.safetensors", resize_size=20)


def test_the_teacher_of_a_run_that_goes_on_is_that_of_its_beginning(config: RunConfig, tmp_path: Path):
    """Its file is read again; a better epoch under the same name would be another run."""
    file = tmp_path / "teacher.safetensors"
    save_file(build_model("subfour/mobilenet_v1", num_classes=10).model.state_dict(), file)
    session = prepare_session(replace(config, teacher="subfour/mobilenet_v1", teacher_weights=str(file)))
    run = begin_run(session, tmp_path / "run")
    go_on(run, session.config)
    save_file(build_model("subfour/mobilenet_v1", num_classes=10).model.state_dict(), file)
    with pytest.raises(ValueError, match=r"teacher_weights: .* are not those that taught when .*run began; bring them back"):
        go_on(run, session.config)
