"""What `subfour train` refuses. A start that fails leaves nothing behind: the mended command can be given the same --out."""

import re
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models._api import WeightsEnum

from tests.cli.command import ONE_STEP, SHORT, error, train, widths
from tests.data.builders import write_folder


def refused(*words: object) -> str:
    message = error("train", "digits", *SHORT, *words, "--out", "run")
    assert not Path("run").exists()
    return message


def test_bad_data_are_refused(here: Path):
    write_folder(here / "photos")
    source = f"folder:{here / 'photos'}"
    assert refused("--data", "folder:nowhere").startswith("data: there is no folder nowhere")
    assert refused("--data", f"{source}/train").startswith(f"data: {here / 'photos' / 'train'} holds neither train/ nor val/")
    image = here / "photos" / "train" / "cat" / "0.png"
    image.write_bytes(image.read_bytes()[:100])
    assert refused("--data", source).startswith(f"image: cannot read {image}")
    image.unlink()
    (here / "photos" / "train" / "cat" / "1.png").unlink()
    assert refused("--data", source).startswith(f"data: class folder {image.parent} is empty")
    write_folder(here / "unsplit", splits=["train"])
    assert refused("--data", "folder:unsplit").startswith("split: the data has train, but none of validation, val, valid")


def test_bad_weights_are_refused(here: Path, finished_run: Path, photographs: Path):
    resnet = ["--data", f"folder:{photographs}", "--model", "torchvision/resnet18", "--weights"]
    assert refused(*resnet, "nowhere.pth").startswith("weights: 'nowhere.pth' is no file")
    message = refused(*resnet, finished_run / "teacher.safetensors")
    assert re.fullmatch(r"weights: they are of another network: missing: (\S+, ){2}\S+ and \d+ more; unexpected: .*", message)
    for quantized in ("model.safetensors", "weights.safetensors"):
        message = refused("--weights", finished_run / quantized)
        assert message.startswith("weights: they are of a quantized network, ")
        assert message.endswith("continue its run with --from RUN")
    Path("truncated.safetensors").write_bytes((finished_run / "weights.safetensors").read_bytes()[:5000])
    assert refused(*resnet, "truncated.safetensors").startswith("weights: 'truncated.safetensors' cannot be read")
    torch.save(resnet18(num_classes=7).state_dict(), "seven.pth")
    teacher = ["--teacher", "torchvision/resnet18", "--teacher-weights", "seven.pth"]
    assert refused("--data", f"folder:{photographs}", *teacher).startswith("teacher: weights: they are of another network")
    assert refused("--weights", "pretrained").startswith("weights: there are no pretrained weights for subfour/tiny_mobilenet_v3")


class Code:
    """Something that would run when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Create a file."""
        return (open, ("ran", "w"))  # type: ignore[return-value]


def test_weights_that_hold_code_are_refused_and_it_does_not_run(here: Path, photographs: Path):
    torch.save({"weight": Code()}, "code.pth")
    message = refused("--data", f"folder:{photographs}", "--model", "torchvision/resnet18", "--weights", "code.pth")
    assert (
        message == "weights: 'code.pth' cannot be read: it is damaged, or holds code, which is not run; save a plain state dict"
    )
    assert not Path("ran").exists()


def test_a_failed_download_is_one_line(here: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: WeightsEnum, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    words = ["--data", f"folder:{photographs}", "--model", "torchvision/mobilenet_v2", "--weights", "pretrained"]
    assert refused(*words) == (
        "weights: those of torchvision/mobilenet_v2 cannot be downloaded (Name or service not known); check the connection, or "
        "name a file"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(here: Path):
    assert refused("--device", "cuda").startswith("device: 'cuda' is not available here")


def test_what_cannot_be_snapped_is_refused(here: Path, photographs: Path):
    """Before anything trains; where no phase snaps, nothing is to refuse."""
    zero = ["--data", f"folder:{photographs}", "--padding", "zero"]
    message = refused(*zero)
    assert re.match(r"snap: features\.\S+: padding: it pads with 0\.0, which is no code of its input; ", message)
    assert message.endswith("train with --padding negative; with --no-snap it trains, but cannot be exported")
    assert widths(train(*zero, "--weight-bits", 32, "--activation-bits", 32)) == ["float"]


def test_images_too_small_to_train_are_refused(here: Path):
    assert refused("--loading.image-size", 0).startswith("loading.image_size: 0 is not possible")


def test_an_occupied_directory_is_refused(finished_run: Path, here: Path):
    assert f"--out {finished_run}: it holds a run with another config: " in error("train", "digits", "--out", finished_run)
    same = error("train", "digits", *ONE_STEP, "--schedule.max-steps", 2, "--out", finished_run)
    assert same.startswith(f"--out {finished_run}: it holds this very run, finished; use --resume")
    Path("file").touch()
    assert error("train", "digits", "--out", "file/run") == "--out file/run: file is a file; choose another --out"


def test_a_run_continues_a_finished_one_of_its_network_only(finished_run: Path, interrupted: Path, here: Path):
    assert refused("--from", "nowhere").startswith("from: nowhere: not a run directory")
    assert refused("--from", interrupted).startswith(f"from: {interrupted} is not finished; finish it with: subfour train")
    damaged = shutil.copytree(finished_run, here / "damaged")
    (damaged / "weights.safetensors").write_bytes(b"junk")
    assert refused("--from", damaged).startswith(f"{damaged}/weights.safetensors: damaged or not a safetensors file")
    assert refused("--from", finished_run, "--weights", "a.pth").startswith("weights: 'a.pth' is not read with --from")
    assert refused("--from", finished_run, "--model", "torchvision/mobilenet_v2").startswith("model: torchvision/mobilenet_v2")
    at_once = ["--method", "data-free", "--weight-bits", 3, "--activation-bits", 3]
    assert refused("--from", finished_run, *at_once).startswith(
        f"method: data-free corrects a float network, and {finished_run} ended"
    )
