import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from subfour.data.preprocess import Preprocessing
from subfour.integer.network import SnappedNetwork
from subfour.layers import quant_layers
from subfour.models import build_model
from subfour.profit.config import RunConfig
from subfour.profit.data_record import DataRecord
from subfour.profit.model_file import FORMAT, MODEL_FILE, evaluate_model, pack_model, read_model
from subfour.quantizers import QUANTIZER_PAIRS, Granularity, QuantizerName
from subfour.tensor_file import DIGEST, METADATA, pack_tensors
from tests.convert.stock_networks import NORMALIZATION, random_images
from tests.profit.conftest import FinishedRun
from tests.profit.quantized_networks import TINY, quantized, tiny

RESULTS = Path(__file__).parents[2] / "results" / "models"

DATA = DataRecord(
    classes=tuple("0123456789"),
    preprocessing=Preprocessing(image_size=32, resize_size=32, interpolation="bilinear", **NORMALIZATION),
)


def config_of(quantizer: QuantizerName = "duq", model: str = TINY) -> RunConfig:
    return RunConfig(model=model, weights="none", data="digits", quantizer=quantizer)


def trained_a_little(model: nn.Module) -> nn.Module:
    """Move weights and ranges off the values they were calibrated to; averaged weights fit no range exactly either."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    model.train().to(memory_format=torch.channels_last)
    for _ in range(3):
        optimizer.zero_grad()
        model(random_images(4, 32)).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        for layer in quant_layers(model).values():
            layer.weight.mul_(1.01)
    return model.eval()


def contents(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what the metadata say, and the tensors."""
    with safe_open(file, framework="pt") as opened:
        (record,) = opened.metadata().values()
        return json.loads(record), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def rewrite(file: Path, tensors: Mapping[str, Tensor] = {}, **changes: object) -> None:
    """Write a file again with other metadata or further tensors."""
    record, own = contents(file)
    del record[DIGEST]
    file.write_bytes(pack_tensors({**own, **tensors}, record | changes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a sound model file."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack_model(tiny(4), config_of(), DATA, weight_bits=4, activation_bits=4))
    return path


PER_CHANNEL = [name for name, method in QUANTIZER_PAIRS.items() if method.per_channel]


@pytest.mark.parametrize(
    ("quantizer", "granularity"),
    [*((name, "layer") for name in QUANTIZER_PAIRS), *((name, "channel") for name in PER_CHANNEL)],
)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_evaluation_from_codes_equals_evaluation_from_floats(
    tmp_path: Path, quantizer: QuantizerName, granularity: Granularity, bits: int
):
    """Every quantized weight and every logit, bit for bit."""
    model = trained_a_little(tiny(bits, quantizer=quantizer, weight_granularity=granularity))
    config = replace(config_of(quantizer), weight_granularity=granularity)
    packed = pack_model(model, config, DATA, weight_bits=bits, activation_bits=bits)
    (tmp_path / "model.safetensors").write_bytes(packed)
    read = read_model(tmp_path / "model.safetensors")
    assert (read.weight_bits, read.activation_bits) == (bits, bits)
    images = random_images(16, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(read.model(images), model(images))
        maps = model.features[:3](images)  # at 2 bits a random network may give every image the same logits
        assert torch.equal(read.model.features[:3](images), maps)
    ours = quant_layers(read.model)
    for name, layer in quant_layers(model).items():
        assert torch.equal(ours[name].quantized_weight(), layer.quantized_weight()), name
        rows = ours[name].quantized_weight().flatten(1) if granularity == "channel" else [ours[name].quantized_weight()]
        assert all(row.unique().numel() <= layer.weight_quantizer.grid.num_levels <= 2**bits for row in rows)
        assert ours[name].activation_quantizer.bits == layer.activation_quantizer.bits
    assert not torch.equal(maps[0], maps[1])


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_weights_with_a_fused_batch_norm_are_read_back_bit_for_bit(tmp_path: Path, granularity: Granularity):
    """Their codes are those of the weight times the gain."""
    model = trained_a_little(tiny(4, weight_granularity=granularity, batchnorm="fused"))
    config = replace(config_of(), weight_granularity=granularity, batchnorm="fused")
    (tmp_path / "model").write_bytes(pack_model(model, config, DATA, weight_bits=4, activation_bits=4))
    read = read_model(tmp_path / "model").model
    with torch.no_grad():
        assert torch.equal(read(random_images()), model(random_images()))
    for name, layer in quant_layers(read).items():
        assert torch.equal(layer.quantized_weight(), quant_layers(model)[name].quantized_weight())


@pytest.mark.parametrize("activation_bits", [4, 32])
def test_float_weights_stay_float(tmp_path: Path, activation_bits: int):
    """The float control's file, and that of a run that only quantized activations."""
    model = trained_a_little(tiny(32, activation_bits))
    (tmp_path / "model").write_bytes(pack_model(model, config_of(), DATA, weight_bits=32, activation_bits=activation_bits))
    with torch.no_grad():
        assert torch.equal(read_model(tmp_path / "model").model(random_images()), model(random_images()))


def test_a_file_stands_alone(file: Path):
    """Configuration, class names and preprocessing come back; every tensor is a code or a float."""
    read = read_model(file)
    assert (read.config, read.data) == (config_of(), DATA)
    assert [rule.name for rule in read.rules] == list(quant_layers(read.model))
    assert not read.model.training
    dtypes = {name: tensor.dtype for name, tensor in contents(file)[1].items()}
    coded = {name for name, dtype in dtypes.items() if dtype == torch.int8}
    assert coded == {f"{name}.weight" for name in quant_layers(read.model)}
    assert set(dtypes.values()) == {torch.int8, torch.float32, torch.int64}


def test_a_four_bit_network_is_under_five_megabytes(tmp_path: Path):
    """Torchvision's v3-small with 10 classes is 6.16 MB in float."""
    name = "torchvision/mobilenet_v3_small"
    model = quantized(build_model(name, num_classes=10).model, 4, image_size=64)
    packed = pack_model(model, config_of(model=name), DATA, weight_bits=4, activation_bits=4)
    assert 1.5e6 < len(packed) < 2e6
    assert len(save(model.state_dict())) > 6e6
    (tmp_path / "model.safetensors").write_bytes(packed)
    with torch.no_grad():
        assert torch.equal(read_model(tmp_path / "model.safetensors").model(random_images()), model(random_images()))


def test_the_same_model_gives_the_same_bytes(file: Path):
    """A committed file can be made again."""
    model = tiny(4).to(memory_format=torch.channels_last)
    for _ in range(10):
        assert pack_model(model, config_of(), DATA, weight_bits=4, activation_bits=4) == file.read_bytes()


def test_every_truncation_is_a_value_error(file: Path):
    """Named, at any length."""
    whole = file.read_bytes()
    for size in [*range(0, 2000, 97), *range(2000, len(whole), 5003), len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model: .*model.safetensors is damaged or not a safetensors file"):
            read_model(file)


def test_every_flipped_bit_is_a_value_error(file: Path):
    """In the header, in the metadata and in the codes, where nothing else would notice."""
    whole = file.read_bytes()
    for place in [*range(0, 2000, 61), *range(2000, len(whole), 997), len(whole) - 1]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"model: .*model.safetensors"):
            read_model(file)


def test_a_file_from_before_there_was_a_checksum_is_read(file: Path):
    """As those in `results/` are; but not one whose checksum has lost its name."""
    record, tensors = contents(file)
    digest = record.pop(DIGEST)
    save_file(tensors, file, {METADATA: json.dumps(record)})
    assert read_model(file).weight_bits == 4
    save_file(tensors, file, {METADATA: json.dumps(record | {"sha356": digest})})
    with pytest.raises(ValueError, match=r"its metadata have \['sha356'\], which this version does not know"):
        read_model(file)


def test_a_network_too_large_for_its_file_is_never_built(file: Path):
    """A few bytes could ask for more memory than there is."""
    rewrite(file, config=replace(config_of(), architecture=replace(config_of().architecture, width=15.0)).to_json())
    with pytest.raises(ValueError, match=r"does not hold what it should \(its network has \d+ parameters, the file holds \d+"):
        read_model(file)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04 a zip, as torch.save writes", b"{}", b"\xff" * 100])
def test_a_file_of_another_kind_is_a_value_error(file: Path, content: bytes):
    """Pickles above all: nothing is executed."""
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
        read_model(file)


def test_a_file_of_another_program_is_a_value_error(file: Path):
    """Its format is named, and the one expected; plain weights have none."""
    save_file({"weight": torch.ones(3)}, file)
    with pytest.raises(ValueError, match=r"holds plain weights, no model; give the run directory or its model\.safetensors"):
        read_model(file)
    save_file({"weight": torch.ones(3)}, file, {METADATA: json.dumps({"format": "subfour model 2"})})
    with pytest.raises(ValueError, match=f"its format is 'subfour model 2', not '{FORMAT}'"):
        read_model(file)


def test_a_file_that_is_not_of_its_model_is_a_value_error(file: Path):
    """Tensors that do not fit the network in the metadata are named; so is a network that does not exist."""
    other = replace(config_of(), architecture=replace(config_of().architecture, width=2.0))
    rewrite(file, config=other.to_json())
    with pytest.raises(ValueError, match="they are of another model; these entries do not fit: "):
        read_model(file)
    rewrite(file, config=config_of(model="subfour/tiny").to_json())
    with pytest.raises(ValueError, match="model: 'subfour/tiny' is not known"):
        read_model(file)
    rewrite(file, config={})
    with pytest.raises(ValueError, match="recipe: missing from the configuration; restore it"):
        read_model(file)


def test_codes_that_belong_to_no_layer_are_a_value_error(file: Path):
    """Not ignored, and no crash."""
    rewrite(file, {"features.9.weight": torch.ones(3, dtype=torch.int8)})
    with pytest.raises(ValueError, match=r"these entries do not fit: features\.9\.weight"):
        read_model(file)


def test_there_is_no_such_model(tmp_path: Path, finished: FinishedRun):
    """A missing file, a folder that is no run, and a run that is not finished, with what to type."""
    with pytest.raises(ValueError, match="model: there is no file"):
        read_model(tmp_path / "missing")
    with pytest.raises(ValueError, match="not a run directory"):
        read_model(tmp_path)
    unfinished = next(iter(finished.copies.values()))
    with pytest.raises(ValueError, match=f"is not finished; finish it with: subfour train --resume {unfinished}"):
        read_model(unfinished)


def test_a_run_and_its_file_evaluate_to_its_result(finished: FinishedRun, tmp_path: Path):
    """The last row of result.json, that of the snapped network, exactly, from the folder or from a copy of the file alone."""
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes((finished.folder / MODEL_FILE).read_bytes())
    expected = finished.result["rows"][-1]["averaged"]
    for path in (finished.folder, copy):
        accuracy = evaluate_model(read_model(path), finished.config.data, batch_size=finished.config.schedule.batch_size)
        assert (accuracy.top1, accuracy.top5, accuracy.images) == (expected["top1"], expected["top5"], 40)
        assert accuracy.loss == expected["loss"]
    assert finished.result["rows"][-1]["snapped"]
    assert isinstance(read_model(copy).network, SnappedNetwork)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_committed_file_can_be_read_whatever_version_wrote_it(path: Path):
    """Earlier ones know nothing of snapping, and their network is the model."""
    read = read_model(path)
    if "snapping" not in contents(path)[0]:
        assert read.snapping is None
        assert not read.config.snap
        assert read.network is read.model
    with torch.no_grad():
        size = read.data.preprocessing.image_size
        assert read.network(random_images(2, size)).shape == (2, len(read.data.classes))


def test_a_network_that_is_not_snapped_is_its_model(file: Path):
    """Snapping is in the file or not at all."""
    assert read_model(file).snapping is None
    rewrite(file, snapping={"accumulators": {}, "largest": {}, "positions": {}})
    read = read_model(file)
    assert isinstance(read.network, SnappedNetwork)
    assert not read.network.training
    assert read.network.model is read.model
