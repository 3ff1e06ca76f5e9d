import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from subfour.data.images import evaluation_split, training_splits
from subfour.data.sources import load_images

from .builders import CIFAR10, encoded, picture, typed_features, write_parquet


def test_a_folder_gives_one_split_per_file(tmp_path: Path):
    """Named after the file, with class names from the metadata."""
    write_parquet(tmp_path / "train.parquet", features=typed_features())
    write_parquet(tmp_path / "validation.parquet", (1, 0), features=typed_features())
    data = load_images(f"parquet:{tmp_path}")
    train, validation = training_splits(data)
    assert data.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 1, 1]
    assert validation.labels.tolist() == [1, 0]
    assert np.array_equal(np.asarray(train.image(2)), np.asarray(picture(seed=2)))
    assert train.where(2) == f"row 2 of train in parquet:{tmp_path}"


def test_one_file_is_one_split(tmp_path: Path):
    """It needs no name in evaluation."""
    write_parquet(tmp_path / "held-back.parquet", features=typed_features())
    data = load_images(f"parquet:{tmp_path / 'held-back.parquet'}")
    assert tuple(data.splits) == ("held-back",)
    assert len(evaluation_split(data)) == 3


@pytest.mark.parametrize(("image", "label"), [("img", "label"), ("image", "labels"), ("img", "fine_label")])
def test_columns_are_found_by_name_where_there_is_no_metadata(tmp_path: Path, image: str, label: str):
    """Class names are then the numbers."""
    write_parquet(tmp_path / "train.parquet", (0, 2), image_column=image, label_column=label)
    data = load_images(f"parquet:{tmp_path}")
    assert data.classes == ("0", "1", "2")
    assert data.splits["train"].labels.tolist() == [0, 2]


def test_columns_are_found_by_type_whatever_their_name(tmp_path: Path):
    """The metadata knows better."""
    write_parquet(
        tmp_path / "train.parquet", image_column="photo", label_column="species", features=typed_features("photo", "species")
    )
    assert load_images(f"parquet:{tmp_path}").splits["train"].image(0).size == (12, 10)


def test_of_two_label_columns_the_usual_name_is_taken(tmp_path: Path):
    """CIFAR-100 has fine_label and coarse_label."""
    file = tmp_path / "train.parquet"
    features = {"coarse_label": {"_type": "ClassLabel", "names": ["pet"]}} | typed_features(label="fine_label")
    write_parquet(file, label_column="fine_label", features=features)
    table = parquet.read_table(file)
    parquet.write_table(table.append_column("coarse_label", pa.array([0, 0, 0])), file)
    assert load_images(f"parquet:{file}").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (
            "scan",
            "label",
            "image column: {file} has the columns scan, label, and which one it is cannot be told; name it image or img",
        ),
        (
            "image",
            "kind",
            "label column: {file} has the columns image, kind, and which one it is cannot be told; name it label or",
        ),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, image: str, label: str, message: str):
    """With the columns that are there."""
    file = tmp_path / "train.parquet"
    write_parquet(file, image_column=image, label_column=label)
    with pytest.raises(ValueError, match=re.escape(message.format(file=file))):
        load_images(f"parquet:{file}")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["x"], "label": [0]}, "image column: 'image' of {file} is string; store encoded images, or a struct of bytes"),
        (
            {"image": [{"bytes": b"x"}], "label": [0.5]},
            "label column: 'label' of {file} is double; store the classes as integers",
        ),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path: Path, columns: dict[str, list[object]], message: str):
    """With the type that it should have."""
    file = tmp_path / "train.parquet"
    parquet.write_table(pa.table(columns), file)
    with pytest.raises(ValueError, match=re.escape(message.format(file=file))):
        load_images(f"parquet:{file}")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_table_may_hold_names_and_encoded_files(tmp_path: Path, kind: pa.DataType):
    """As pandas writes them; classes are the names, sorted."""
    files = pa.array([encoded(picture(seed=seed)) for seed in range(3)], pa.binary())
    for split, names in (("train", ["dog", "ant", "cat"]), ("test", ["cat", "dog", None])):
        parquet.write_table(pa.table({"image": files, "label": pa.array(names).cast(kind)}), tmp_path / f"{split}.parquet")
    data = load_images(f"parquet:{tmp_path}")
    assert data.classes == ("ant", "cat", "dog")
    assert data.splits["train"].labels.tolist() == [2, 0, 1]
    assert np.array_equal(np.asarray(data.splits["train"].image(1)), np.asarray(picture(seed=1)))
    with pytest.raises(ValueError, match=r"label: row 2 of test in .+ has -1"):
        evaluation_split(data)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["cat", "owl"], "test in .+ has 'owl', and train has not"), ([0, 1], "train in .+ names them, test numbers them")],
)
def test_names_that_nobody_trains_and_numbers_beside_names_are_refused(tmp_path: Path, labels: list[object], message: str):
    for split, column in (("train", ["cat", "dog"]), ("test", labels)):
        parquet.write_table(pa.table({"image": [encoded(picture())] * 2, "label": column}), tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match=f"classes: {message}"):
        load_images(f"parquet:{tmp_path}")


@pytest.mark.parametrize("label", [-1, 2, None])
def test_a_label_that_is_no_class_is_named(tmp_path: Path, label: int | None):
    """A missing one is -1."""
    write_parquet(tmp_path / "test.parquet", (0, label), features=typed_features())
    shown = -1 if label is None else label
    with pytest.raises(ValueError, match=re.escape(f"label: row 1 of test in parquet:{tmp_path} has {shown}, but the 2 classes")):
        evaluation_split(load_images(f"parquet:{tmp_path}"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "it has neither bytes nor path"), (b"nonsense", "its format is not known"), (encoded(picture())[:120], "")],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, reason: str):
    """Whether it is empty, something else, or cut short."""
    write_parquet(tmp_path / "test.parquet", (0, 1), features=typed_features(), images=[encoded(picture()), content])
    split = load_images(f"parquet:{tmp_path}").splits["test"]
    split.image(0)
    with pytest.raises(ValueError, match=rf"image: cannot read row 1 of test in parquet:{re.escape(str(tmp_path))} \({reason}"):
        split.image(1)


def test_a_row_may_hold_a_path(tmp_path: Path):
    """As `datasets` stores images that lie in files."""
    picture().save(tmp_path / "a.png")
    table = pa.table({"image": [{"bytes": None, "path": str(tmp_path / "a.png")}] * 2, "label": [0, 1]})
    parquet.write_table(table, tmp_path / "test.parquet")
    assert load_images(f"parquet:{tmp_path}").splits["test"].image(1).size == (12, 10)


def test_different_class_names_are_refused(tmp_path: Path):
    """Else labels would change their meaning between splits."""
    write_parquet(tmp_path / "train.parquet", features=typed_features(names=("cat", "dog")))
    write_parquet(tmp_path / "validation.parquet", features=typed_features(names=("dog", "cat")))
    with pytest.raises(ValueError, match=r"classes: train and validation in parquet:.+ have different class names"):
        load_images(f"parquet:{tmp_path}")


def test_missing_and_broken_files_are_named(tmp_path: Path):
    """Each with what should be there."""
    with pytest.raises(ValueError, match=re.escape(f"data: there is no {tmp_path / 'x.parquet'}; give a .parquet file")):
        load_images(f"parquet:{tmp_path / 'x.parquet'}")
    with pytest.raises(ValueError, match=re.escape(f"data: {tmp_path} holds no .parquet file")):
        load_images(f"parquet:{tmp_path}")
    (tmp_path / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=re.escape(f"data: {tmp_path / 'train.parquet'} is not a parquet file (")):
        load_images(f"parquet:{tmp_path}")


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="the real images are not on this machine")
def test_real_cifar10_is_read():
    """50,000 and 5,000 images of 32x32 pixels in ten named classes."""
    data = load_images(f"parquet:{CIFAR10}")
    train, validation = training_splits(data)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert (len(train), len(validation)) == (50_000, 5_000)
    assert train.image(49_999).size == (32, 32)
    assert sorted(set(train.labels.tolist())) == list(range(10))


def write_paths(file: Path, *paths: str) -> None:
    rows = pa.array([{"bytes": None, "path": path} for path in paths], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    parquet.write_table(pa.table({"image": rows, "label": list(range(len(paths)))}), file)


def test_a_path_counts_from_the_folder_of_the_file_and_cannot_leave_it(tmp_path: Path):
    """Neither upwards, nor from the root, nor through a link: a table from elsewhere does not choose what is read here."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for folder in (tmp_path, inside):
        picture().save(folder / "image.png")
    (inside / "link.png").symlink_to(tmp_path / "image.png")
    paths = ["image.png", str(inside / "image.png"), "../image.png", str(tmp_path / "image.png"), "link.png"]
    write_paths(inside / "train.parquet", *paths)
    split = load_images(f"parquet:{inside}").splits["train"]
    for index in (0, 1):
        assert split.image(index).size == picture().size
    for index in (2, 3, 4):
        with pytest.raises(ValueError, match=r"image: cannot read row \d of train in parquet:.+ \(its path .+ leaves .+inside\)"):
            split.image(index)


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": [1]}}'])
def test_metadata_that_make_no_sense_are_as_good_as_none(tmp_path: Path, metadata: bytes):
    write_parquet(tmp_path / "train.parquet")
    table = parquet.read_table(tmp_path / "train.parquet").replace_schema_metadata({"huggingface": metadata})
    parquet.write_table(table, tmp_path / "train.parquet")
    assert load_images(f"parquet:{tmp_path}").classes == ("0", "1")


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
)
def test_labels_of_every_integer_type_are_read(tmp_path: Path, kind: pa.DataType):
    """A missing one is -1, also where the type has no sign."""
    file = tmp_path / "test.parquet"
    write_parquet(file, (0, 1, None), features=typed_features())
    table = parquet.read_table(file)
    parquet.write_table(table.set_column(1, "label", table["label"].cast(kind)), file)
    assert load_images(f"parquet:{file}").splits["test"].labels.tolist() == [0, 1, -1]


def test_a_label_beyond_int64_is_named(tmp_path: Path):
    file = tmp_path / "test.parquet"
    write_parquet(file, (0, 1), features=typed_features())
    labels = pa.array([0, 2**64 - 2], pa.uint64())
    parquet.write_table(parquet.read_table(file).set_column(1, "label", labels), file)
    with pytest.raises(ValueError, match=r"label: row 1 of test .+ has -2, but the 2 classes are"):
        evaluation_split(load_images(f"parquet:{file}"))


@pytest.mark.parametrize("suffix", ["", "-b4aaeceff1d90ecb"])
def test_the_parts_of_a_split_follow_one_another(tmp_path: Path, suffix: str):
    """As the hub names them, in the order of their numbers; one of them alone is a split too."""
    for number, labels in enumerate([(0, 1), (1,), (0, 0)]):
        write_parquet(tmp_path / f"train-0000{number}-of-00003{suffix}.parquet", labels, features=typed_features())
    write_parquet(tmp_path / f"test-00000-of-00001{suffix}.parquet", (1, 0), features=typed_features())
    train, held_out = training_splits(load_images(f"parquet:{tmp_path}"))
    assert train.labels.tolist() == [0, 1, 1, 0, 0]
    assert held_out.labels.tolist() == [1, 0]
    assert np.array_equal(np.asarray(train.image(4)), np.asarray(picture(seed=1)))
    (alone,) = tmp_path.glob("train-00001-*")
    assert load_images(f"parquet:{alone}").splits["train"].labels.tolist() == [1]


def test_a_split_with_a_missing_part_is_refused(tmp_path: Path):
    """And one that is there twice."""
    write_parquet(tmp_path / "train-00001-of-00002.parquet")
    message = r"data: train in .+ is train-00001-of-00002.parquet; a split is one file, or all of train-NUMBER-of-COUNT"
    with pytest.raises(ValueError, match=message):
        load_images(f"parquet:{tmp_path}")
    write_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="a split is one file"):
        load_images(f"parquet:{tmp_path}")


def test_parts_with_different_columns_are_refused(tmp_path: Path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet")
    write_parquet(tmp_path / "train-00001-of-00002.parquet", label_column="labels")
    with pytest.raises(ValueError, match=r"data: the files of train in .+ differ in their columns"):
        load_images(f"parquet:{tmp_path}")
