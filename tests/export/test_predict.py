import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subfour.data.preprocess import evaluation_pixels
from subfour.export.predict import predict
from subfour.export.runtime import Deployed, open_file
from tests.export.files import CLASSES, content_of
from tests.integer.programs import PREPROCESSING

TINY = "subfour/tiny_mobilenet_v3"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    path = tmp_path_factory.mktemp("deployed") / "model.onnx"
    path.write_bytes(content_of(TINY, snapped=True))
    return open_file(path, threads=1)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_guesses_are_the_softmax_of_the_logits_in_order(deployed: Deployed, photograph: Path):
    with Image.open(photograph) as image:
        logits = deployed.logits(evaluation_pixels(image, PREPROCESSING)[None])[0].astype(float)
    ((*guesses,),) = predict(deployed, [photograph], top=len(CLASSES))
    order = sorted(range(len(CLASSES)), key=lambda index: -logits[index])
    assert [guess.name for guess in guesses] == [CLASSES[index] for index in order]
    assert sum(guess.probability for guess in guesses) == pytest.approx(1)
    first, last = logits[order[0]], logits[order[-1]]
    assert guesses[0].probability / guesses[-1].probability == pytest.approx(math.exp(first - last))


def test_each_image_has_as_many_guesses_as_asked_for(deployed: Deployed, photograph: Path):
    assert [len(row) for row in predict(deployed, [photograph] * 2, top=3)] == [3, 3]
    assert len(predict(deployed, [photograph], top=99)[0]) == len(CLASSES)


def test_an_image_that_cannot_be_read_is_named(deployed: Deployed, photograph: Path):
    missing = photograph.with_name("missing.png")
    with pytest.raises(ValueError, match="image: there is no file"):
        predict(deployed, [missing])
    missing.write_text("no image")
    with pytest.raises(ValueError, match=r"missing\.png is none of BMP, GIF, JPEG"):
        predict(deployed, [missing])
    photograph.write_bytes(photograph.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"photograph\.png cannot be read"):
        predict(deployed, [photograph])


def test_no_other_format_is_opened_whatever_the_name_says(deployed: Deployed, photograph: Path):
    """EPS is a program, which Pillow would have Ghostscript run."""
    Image.new("RGB", (8, 8)).save(photograph, "EPS")
    with pytest.raises(ValueError, match=r"photograph\.png is none of BMP"):
        predict(deployed, [photograph])


def test_images_have_the_pixel_limit_of_training(deployed: Deployed, photograph: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow only warns between its limit and twice that."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(ValueError, match=r"photograph\.png cannot be read \(Image size \(2400 pixels\) exceeds limit"):
        predict(deployed, [photograph])


def test_an_image_that_resizing_would_blow_up_is_refused(deployed: Deployed, photograph: Path):
    Image.new("RGB", (1, 60_000)).save(photograph)
    monstrous = replace(deployed.record.preprocessing, resize_size=256)
    with pytest.raises(ValueError, match=r"image size: 1x60000 would become 256x15360000, too large; crop it"):
        predict(replace(deployed, record=replace(deployed.record, preprocessing=monstrous)), [photograph])


def test_whatever_a_decoder_raises_is_one_line(deployed: Deployed, photograph: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow's for WebP ends with EOFError where a frame does not decode."""

    def fail(*arguments: object) -> None:
        raise EOFError("failed to decode next frame")

    monkeypatch.setattr("subfour.export.predict.evaluation_pixels", fail)
    with pytest.raises(ValueError, match=r"photograph\.png cannot be read \(failed to decode next frame\)"):
        predict(deployed, [photograph])
