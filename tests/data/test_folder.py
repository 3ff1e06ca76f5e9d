import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subfour.data.images import evaluation_split, training_splits
from subfour.data.sources import evaluation_images, load_images

from .builders import picture, write_folder


def test_images_are_sorted_by_class_and_name(tmp_path: Path):
    """The order does not depend on the file system."""
    write_folder(tmp_path, classes=("dog", "ant", "cat"))
    data = load_images(f"folder:{tmp_path}")
    train, validation = training_splits(data)
    assert data.classes == ("ant", "cat", "dog")
    assert train.labels.tolist() == validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [Path(train.where(index)).relative_to(tmp_path).as_posix() for index in range(3)] == [
        "train/ant/0.png",
        "train/ant/1.png",
        "train/cat/0.png",
    ]
    assert np.array_equal(np.asarray(train.image(4)), np.asarray(picture(seed=0)))


@pytest.mark.parametrize("names", [("train", "val"), ("train", "validation"), ("train", "valid", "test"), ("val",)])
def test_splits_keep_their_folders_names(tmp_path: Path, names: tuple[str, ...]):
    """One split is enough for evaluation."""
    write_folder(tmp_path, names)
    data = load_images(f"folder:{tmp_path}")
    assert tuple(data.splits) == names
    assert len(evaluation_split(data)) == 4


def test_a_test_split_without_classes_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Loose images of a competition, that nobody may evaluate on; where nothing else is held out they are an error."""
    write_folder(tmp_path)
    (tmp_path / "test").mkdir()
    picture().save(tmp_path / "test" / "0001.png")
    assert tuple(load_images(f"folder:{tmp_path}").splits) == ("train", "val")
    assert f"data: {tmp_path / 'test'} has no class folders, and is left out" in caplog.text
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(ValueError, match=r"0001\.png lies in no class"):
        load_images(f"folder:{tmp_path}")


def test_hidden_files_and_folders_are_ignored(tmp_path: Path):
    """What file managers and notebooks leave behind is no class and no image."""
    write_folder(tmp_path)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "cat" / "Thumbs.db").write_text("x")
    (tmp_path / "train" / "desktop.ini").write_text("x")
    (tmp_path / "train" / "@eaDir").mkdir()
    (tmp_path / "train" / "cat" / "@eaDir").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "train" / "README.md").write_text("x")
    data = load_images(f"folder:{tmp_path}")
    assert data.classes == ("cat", "dog")
    assert len(data.splits["train"]) == 4


def test_a_photograph_taken_upright_is_read_upright(tmp_path: Path):
    """Telephones store it sideways, and say so in its EXIF orientation."""
    write_folder(tmp_path)
    image = picture(width=12, height=10)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    image.save(tmp_path / "train" / "cat" / "0.png", exif=exif)
    read = load_images(f"folder:{tmp_path}").splits["train"].image(0)
    assert np.array_equal(np.asarray(read), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("content", [b"", b"this is no image", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None):
    """Whether it is empty, something else, or cut short."""
    write_folder(tmp_path)
    file = tmp_path / "train" / "cat" / "1.png"
    file.write_bytes(file.read_bytes()[:120] if content is None else content)
    split = load_images(f"folder:{tmp_path}").splits["train"]
    with pytest.raises(ValueError, match=rf"image: cannot read {re.escape(str(file))} \(.+\); repair or replace it"):
        split.image(1)


def test_a_program_is_no_image(tmp_path: Path):
    """Pillow would have Ghostscript run an EPS file, whatever its name."""
    write_folder(tmp_path)
    file = tmp_path / "train" / "cat" / "0.png"
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    with pytest.raises(ValueError, match=r"0.png \(its format is not known\)"):
        load_images(f"folder:{tmp_path}").splits["train"].image(0)
    file.rename(file.with_suffix(".eps"))
    with pytest.raises(ValueError, match=r"0\.eps is not an image file"):
        load_images(f"folder:{tmp_path}")


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_named(tmp_path: Path, side: int):
    """From Pillow's limit on, not only from its double; the file itself is small."""
    write_folder(tmp_path)
    file = tmp_path / "train" / "cat" / "0.png"
    Image.new("1", (side, side)).save(file)
    assert file.stat().st_size < 100_000
    with pytest.raises(ValueError, match=rf"image: cannot read {re.escape(str(file))} \(Image size .+ decompression bomb"):
        load_images(f"folder:{tmp_path}").splits["train"].image(0)


def test_links_are_followed_and_what_is_no_file_is_refused(tmp_path: Path):
    """A subset made of links is a folder like any other; a pipe would be read for ever, a broken link never."""
    write_folder(tmp_path / "all")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "some" / split / name).mkdir(parents=True)
            (tmp_path / "some" / split / name / "0.png").symlink_to(tmp_path / "all" / split / name / "0.png")
    train = load_images(f"folder:{tmp_path / 'some'}").splits["train"]
    assert np.array_equal(np.asarray(train.image(1)), np.asarray(picture(seed=10)))
    pipe = tmp_path / "some" / "train" / "cat" / "1.png"
    for make in (lambda: os.mkfifo(pipe), lambda: pipe.symlink_to(tmp_path / "nowhere.png"), pipe.mkdir):
        make()
        with pytest.raises(ValueError, match=re.escape(f"data: {pipe} is not an image file")):
            load_images(f"folder:{tmp_path / 'some'}")
        pipe.rmdir() if pipe.is_dir() else pipe.unlink()


def test_an_image_of_16_bits_is_named(tmp_path: Path):
    """Pillow would make it white."""
    write_folder(tmp_path)
    file = tmp_path / "val" / "dog" / "0.png"
    picture().convert("I;16").save(file)
    with pytest.raises(ValueError, match=rf"cannot read {re.escape(str(file))} \(image mode: I;16 has more than 8 bits"):
        load_images(f"folder:{tmp_path}").splits["val"].image(2)


def test_a_missing_path_is_named(tmp_path: Path):
    """Before anything else."""
    with pytest.raises(ValueError, match=re.escape(f"data: there is no folder {tmp_path / 'nowhere'}; give the folder")):
        load_images(f"folder:{tmp_path / 'nowhere'}")


def test_class_folders_without_splits_are_refused(tmp_path: Path):
    """A class is not taken for a split."""
    write_folder(tmp_path, splits=("daisy", "rose"))
    with pytest.raises(ValueError, match=re.escape(f"data: {tmp_path} holds neither train/ nor val/")):
        load_images(f"folder:{tmp_path}")


def test_a_class_that_nobody_trains_is_an_error(tmp_path: Path):
    """The split and its missing class are named."""
    write_folder(tmp_path, classes=("ant", "cat", "dog"))
    shutil.rmtree(tmp_path / "train" / "cat")
    with pytest.raises(ValueError, match=re.escape(f"data: {tmp_path / 'train'} has no class 'cat', but val has; add it there")):
        load_images(f"folder:{tmp_path}")


def test_a_rare_class_may_have_no_image_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The other classes keep their labels, from the index too."""
    write_folder(tmp_path, classes=("ant", "cat", "dog"))
    shutil.rmtree(tmp_path / "val" / "cat")
    for _ in range(2):
        caplog.clear()
        data = load_images(f"folder:{tmp_path}")
        assert data.classes == ("ant", "cat", "dog")
        validation = data.splits["val"]
        assert validation.labels.tolist() == [0, 0, 2, 2]
        assert Path(validation.where(2)) == tmp_path / "val" / "dog" / "0.png"
        assert f"data: {tmp_path / 'val'} has no images of cat: accuracy says nothing of them" in caplog.text


def test_folders_that_are_no_splits_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A split under another name would be missed without a word."""
    write_folder(tmp_path, splits=("train", "val", "holdout"))
    assert tuple(load_images(f"folder:{tmp_path}").splits) == ("train", "val")
    assert f"data: {tmp_path} holds folders that are no splits, and are not read: holdout" in caplog.text


def test_an_empty_class_folder_is_named(tmp_path: Path):
    """A hidden file does not fill it."""
    write_folder(tmp_path)
    (tmp_path / "val" / "emu").mkdir()
    (tmp_path / "train" / "emu").mkdir()
    (tmp_path / "train" / "emu" / ".DS_Store").write_text("x")
    with pytest.raises(ValueError, match=re.escape(f"data: class folder {tmp_path / 'train' / 'emu'} is empty; add images")):
        load_images(f"folder:{tmp_path}")


@pytest.mark.parametrize("name", ["film.mov", "more"])
def test_what_is_no_image_in_a_class_folder_is_named(tmp_path: Path, name: str):
    """Before training starts, not hours into it; a nested folder would be missed silently."""
    write_folder(tmp_path)
    stray = tmp_path / "train" / "dog" / name
    stray.mkdir()
    with pytest.raises(ValueError, match=re.escape(f"data: {stray} is not an image file")):
        load_images(f"folder:{tmp_path}")
    (stray.parent / "zoo.xmp").touch()
    with pytest.raises(ValueError, match=re.escape(f"data: {stray} (as 1 more in this folder) is not an image file")):
        load_images(f"folder:{tmp_path}")


def test_a_single_class_is_nothing_to_train(tmp_path: Path):
    """But a network of several classes can be evaluated on it."""
    write_folder(tmp_path, classes=("cat",))
    data = load_images(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="classes: the data has only cat; training needs two or more"):
        training_splits(data)
    assert evaluation_images(f"folder:{tmp_path}", ("ant", "cat")).labels.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["1.jpg", "1.PNG", "1.heic"])
def test_an_image_beside_the_class_folders_is_refused(tmp_path: Path, name: str):
    """It would be left out silently; and where there is nothing else, what is missing is said too."""
    write_folder(tmp_path)
    loose = tmp_path / "val" / name
    loose.touch()
    with pytest.raises(ValueError, match=re.escape(f"data: {loose} lies in no class; put it into a class folder")):
        load_images(f"folder:{tmp_path}")
    loose.unlink()
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / split)
        (tmp_path / split).mkdir()
    with pytest.raises(ValueError, match=re.escape(f"data: {tmp_path / 'train'} has no class folders; make one for each class")):
        load_images(f"folder:{tmp_path}")


def test_a_photograph_that_has_to_be_converted_is_not_to_be_removed(tmp_path: Path):
    write_folder(tmp_path)
    photograph = tmp_path / "train" / "cat" / "IMG_1.HEIC"
    photograph.touch()
    with pytest.raises(ValueError, match=re.escape(f"data: {photograph} is of a format that is not read; convert it to JPEG")):
        load_images(f"folder:{tmp_path}")


def test_a_class_folder_that_leads_nowhere_or_has_no_name_is_refused(tmp_path: Path):
    """As a link of whose disk is not there: without a word, the class would be gone from every split."""
    write_folder(tmp_path)
    broken = tmp_path / "train" / "cow"
    broken.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=re.escape(f"data: {broken} is a link to nothing")):
        load_images(f"folder:{tmp_path}")
    broken.unlink()
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"train", b"\xe9t\xe9"))
    with pytest.raises(ValueError, match=r"data: the name of class folder '.udce9t.udce9' in .*train is not UTF-8"):
        load_images(f"folder:{tmp_path}")


@pytest.mark.parametrize("raised", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_a_machine_in_need_is_no_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception):
    """Else a run that leaves out what cannot be read would leave out sound images, and other ones the next time."""
    write_folder(tmp_path)
    split = load_images(f"folder:{tmp_path}").splits["train"]

    def fail(path: str) -> None:
        raise raised

    monkeypatch.setattr("subfour.data.folder.open_image", fail)
    with pytest.raises(type(raised)):
        split.image(0)
