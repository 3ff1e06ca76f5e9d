"""Networks by name, changed as asked, with weights that fit or an error that says what does not."""

import logging
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as torchvision_models

from subfour.data.preprocess import Preprocessing
from subfour.models.weights import load_weights
from subfour.models.zoo import Architecture, build_model

State = dict[str, torch.Tensor]

TINY = "subfour/tiny_mobilenet_v3"


def build(name: str = TINY, num_classes: int = 10, **options: Any) -> nn.Module:
    return build_model(name, num_classes=num_classes, **options).model


def same_state(first: nn.Module, second: nn.Module, *, but: str = "nothing") -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[key]) for key, value in first.state_dict().items() if not key.startswith(but))


@pytest.mark.parametrize(
    "name",
    [
        *("torchvision/mobilenet_v2", "torchvision/mobilenet_v3_small", "torchvision/mobilenet_v3_large", "torchvision/resnet18"),
        *("timm/mobilenetv3_small_050", "timm/mobilenetv3_small_050.lamb_in1k", "subfour/mobilenet_v1", TINY),
    ],
)
def test_a_named_network_has_the_head_asked_for(name: str):
    """Torchvision, timm with and without a tag, and our own."""
    built = build_model(name, num_classes=7)
    assert built.model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert built.preprocessing is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("torchvision/mobilenetv3_large", "torchvision/mobilenet_v3_large"),
        ("timm/mobilenetv3_smal_050", "timm/mobilenetv3_small_050"),
        ("mobilenet_v2", "torchvision/mobilenet_v2"),
        ("subfour/tiny", "subfour/tiny_mobilenet_v3"),
        ("???", "use torchvision/NAME, timm/NAME, subfour/mobilenet_v1 or"),
    ],
)
def test_an_unknown_name_is_an_error_that_suggests_a_near_one(name: str, near: str):
    """Or the families, if nothing is near."""
    with pytest.raises(ValueError, match=r"^model: ") as error:
        build(name)
    assert near in str(error.value)


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v2", "torchvision/mobilenet_v3_small", "subfour/mobilenet_v1", TINY])
def test_width_and_dropout_reach_the_network(name: str):
    """Half the stem's channels; the dropout before the head."""
    stock, changed = build(name), build(name, architecture=Architecture(width=0.5, dropout=0.4))
    stock_stem, stem = (next(m for m in model.modules() if isinstance(m, nn.Conv2d)) for model in (stock, changed))
    assert stem.out_channels == stock_stem.out_channels // 2
    assert [module.p for module in changed.modules() if isinstance(module, nn.Dropout)] == [0.4]


def test_dropout_reaches_timms_networks():
    """They keep it as a number."""
    assert build("timm/mobilenetv3_small_050", architecture=Architecture(dropout=0.4)).drop_rate == 0.4


def test_a_change_a_network_cannot_make_is_an_error():
    """With the way out."""
    with pytest.raises(ValueError, match=r"width: 0.5 is not possible for timm/mobilenetv2_100; timm names each width"):
        build("timm/mobilenetv2_100", architecture=Architecture(width=0.5))
    with pytest.raises(ValueError, match=r"architecture.width, architecture.dropout: torchvision/resnet18 keeps its own"):
        build("torchvision/resnet18", architecture=Architecture(dropout=0.1))


def test_strides_replace_those_of_the_strided_convolutions_in_order():
    """Pads stay, so a 32x32 image leaves a larger map."""
    model = build("torchvision/mobilenet_v2", architecture=Architecture(strides=(1, 1, 2, 2, 2)))
    stock = build("torchvision/mobilenet_v2")
    strides, pads = (
        [[getattr(m, field) for m in network.modules() if isinstance(m, nn.Conv2d)] for network in (stock, model)]
        for field in ("stride", "padding")
    )
    assert [new for old, new in zip(*strides, strict=True) if old == (2, 2)] == [(1, 1), (1, 1), (2, 2), (2, 2), (2, 2)]
    assert all(new == (1, 1) for old, new in zip(*strides, strict=True) if old == (1, 1))
    assert pads[0] == pads[1]
    assert model.eval().features(torch.zeros(1, 3, 32, 32)).shape[2:] == (4, 4)


def test_a_wrong_number_of_strides_is_an_error_with_the_right_one():
    """Named."""
    with pytest.raises(ValueError, match=r"strides: \(1, 2\) has 2 values, but the network has 5 strided convolutions; give 5"):
        build("torchvision/mobilenet_v2", architecture=Architecture(strides=(1, 2)))


@pytest.mark.parametrize(
    "fields", [{"width": 0.0}, {"width": float("nan")}, {"width": 1e308}, {"strides": (0, 1)}, {"dropout": 1.0}]
)
def test_an_impossible_architecture_is_an_error_that_names_the_field(fields: dict[str, Any]):
    """Before anything is built."""
    with pytest.raises(ValueError, match=rf"^architecture\.{next(iter(fields))}: .* not possible"):
        Architecture(**fields)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str):
    """Bit for bit, from either format."""
    trained, path = build(), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), path)
    assert same_state(trained, build(weights=str(path)))


def averaged(state: State) -> dict[str, Any]:
    """Return a state as torch's AveragedModel has it."""
    return {"n_averaged": torch.tensor(7)} | {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {"state_dict_ema": state, "state_dict": {key: value * 0 for key, value in state.items()}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        lambda state: {"model": {key: value * 0 for key, value in state.items()}, "model_ema": averaged(state)},
        lambda state: {"state_dict": state, "args": Namespace(lr=0.1, data="here")},
        lambda state: {"model_state_dict": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        lambda state: {"net": state},
    ],
)
@pytest.mark.parametrize("ending", [".pth", ".pth.tar"])
def test_wrappers_of_training_scripts_are_taken_off(tmp_path: Path, wrap: Callable[[State], dict[str, Any]], ending: str):
    """Averaged weights come first; a file older than the step counter of batch norm fits."""
    trained, path = build(), tmp_path / f"checkpoint{ending}"
    torch.save(wrap(trained.state_dict()), path)
    assert same_state(trained, build(weights=str(path)))


def test_a_name_of_the_network_is_no_wrapper():
    """One that holds another as `model` has that name before all of its own."""
    inner = nn.Linear(2, 2)
    network = nn.ModuleDict({"model": inner})
    state = {name: value + 1 for name, value in network.state_dict().items()}
    for wrap in ("", "module.", "_orig_mod."):
        load_weights(network, {f"{wrap}{name}": value for name, value in state.items()}, rehead=False)
        assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_a_head_of_another_size_starts_anew_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Everything else is loaded."""
    trained, path = build(num_classes=1000), tmp_path / "weights.pth"
    torch.save(trained.state_dict(), path)
    with caplog.at_level(logging.INFO, "subfour"):
        model = build(weights=str(path))
    assert "re-headed: classifier.3 has 1000 classes in the weights and starts anew with 10" in caplog.text
    assert model.classifier[3].out_features == 10
    assert same_state(model, trained, but="classifier.3")


def test_a_teachers_head_may_not_start_anew(tmp_path: Path):
    """A teacher with a random head teaches nothing."""
    path = tmp_path / "weights.pth"
    torch.save(build(num_classes=1000).state_dict(), path)
    with pytest.raises(ValueError, match=r"of another shape: classifier.3.weight, classifier.3.bias$"):
        build(weights=str(path), rehead=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {key: value for key, value in state.items() if key != "features.0.0.weight"},
            "missing: features.0.0.weight$",
        ),
        (lambda state: state | {"features.9.weight": torch.zeros(1)}, "unexpected: features.9.weight$"),
        (lambda state: state | {"classifier.0.bias": torch.zeros(1)}, "of another shape: classifier.0.bias$"),
        (
            lambda state: {key: value for key, value in state.items() if not key.startswith("classifier.3")},
            "missing: classifier.3.weight",
        ),
        (
            lambda state: {"backbone." + key: value for key, value in state.items()},
            r"and \d+ more; unexpected: backbone.classifier.0",
        ),
    ],
)
def test_weights_that_do_not_fit_are_an_error_that_names_the_keys(tmp_path: Path, change: Callable[[State], State], message: str):
    """Missing, unexpected, or of another shape."""
    path = tmp_path / "weights.safetensors"
    save_file(change(build().state_dict()), path)
    with pytest.raises(ValueError, match=message):
        build(weights=str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "is no file; use none, pretrained"),
        ("weights.onnx", b"", "must end with one of .safetensors, .pth, .pt,"),
        ("weights.safetensors", b"junk", "cannot be read"),
        ("weights.pth", b"junk", "cannot be read"),
        ("empty.pth", b"", "cannot be read"),
    ],
)
def test_a_file_that_is_no_weights_is_an_error(tmp_path: Path, name: str, content: bytes | None, message: str):
    """Absent, of another format, or damaged."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build(weights=str(path))


@pytest.mark.parametrize("content", [nn.Linear(1, 1), [torch.zeros(1)], {"epoch": 3}])
def test_a_checkpoint_without_a_state_dict_is_an_error(tmp_path: Path, content: object):
    """A pickled module is never unpickled."""
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"cannot be read|something else than named tensors"):
        build(weights=str(tmp_path / "weights.pth"))


def test_pretrained_torchvision_weights_bring_their_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From torch.hub's folder, where a download would have put the file."""
    donor = torchvision_models.mobilenet_v3_small()
    url = torchvision_models.get_model_weights("mobilenet_v3_small").DEFAULT.url
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(donor.state_dict(), folder / Path(url).name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    built = build_model("torchvision/mobilenet_v3_small", num_classes=10, weights="pretrained")
    assert same_state(built.model, donor, but="classifier.3")
    assert built.preprocessing == Preprocessing(
        image_size=224, resize_size=256, interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )


def test_pretrained_timm_weights_bring_their_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From the Hugging Face cache, where a download would have put the file."""
    donor = timm.create_model("mobilenetv3_small_050")
    record = timm.get_pretrained_cfg("mobilenetv3_small_050")
    folder = tmp_path / f"models--{record.hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(donor.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    built = build_model("timm/mobilenetv3_small_050", num_classes=10, weights="pretrained")
    assert same_state(built.model, donor, but="classifier")
    assert built.preprocessing == Preprocessing(
        image_size=224, resize_size=256, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )


@pytest.mark.parametrize("name", ["timm/mobilenetv2_035", "subfour/mobilenet_v1"])
def test_a_network_without_pretrained_weights_is_an_error(name: str):
    """Named, with the way out."""
    with pytest.raises(ValueError, match=f"weights: there are no pretrained weights for {name}; use none, or a file"):
        build(name, weights="pretrained")
