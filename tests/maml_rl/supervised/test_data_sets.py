import csv
import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maml_rl.errors import InputError
from maml_rl.seeding import Phase
from maml_rl.supervised.data_sets import image_folder, mini_imagenet, omniglot
from maml_rl.supervised.few_shot import FewShot
from maml_rl.supervised.images import ImageSplits

PHASES = (Phase.TRAINING, Phase.VALIDATION, Phase.EVALUATION)
REAL = os.environ.get("MAML_RL_OMNIGLOT")


def png(path: Path, value: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).convert(mode).save(path)


def write_classes(directory: Path, classes: Mapping[str, int]) -> None:
    """Writes folders of classes with this many images each."""
    for value, (name, count) in enumerate(classes.items()):
        for i in range(count):
            png(directory / name / f"{i}.png", value)


def names(data: ImageSplits) -> list[list[str]]:
    return [list(data.classes[phase]) for phase in PHASES]


def splits() -> list[dict[str, str]]:
    text = (files("maml_rl.supervised") / "omniglot_splits.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture(scope="module")
def small_omniglot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All characters of Omniglot, two blank drawings of each, as archives."""
    root = tmp_path_factory.mktemp("omniglot")
    png(root / "drawing.png", 255, (105, 105), "1")
    drawing = (root / "drawing.png").read_bytes()
    with (
        zipfile.ZipFile(root / "images_background.zip", "w") as first,
        zipfile.ZipFile(root / "images_evaluation.zip", "w") as second,
    ):
        for i, row in enumerate(splits()):
            archive, name = (first, "images_background") if i < 964 else (second, "images_evaluation")
            for j in (1, 2):
                archive.writestr(f"{name}/{row['character']}/{i:04}_{j:02}.png", drawing)
    return root


def test_the_splits_divide_the_characters_as_published() -> None:
    rows = splits()
    assert len({row["character"] for row in rows}) == 1623
    assert Counter(row["random"] for row in rows) == {"train": 1100, "val": 100, "test": 423}
    assert Counter(row["vinyals"] for row in rows) == {"train": 1028, "val": 172, "test": 423}
    # Vinyals et al.'s goes by alphabets, all but one of them whole.
    alphabets = {(row["character"].split("/")[0], row["vinyals"]) for row in rows}
    assert {name for name, split in alphabets if split == "val"} == {
        "Armenian",
        "Bengali",
        "Early_Aramaic",
        "Hebrew",
        "Mkhedruli_(Georgian)",
    }
    assert {name for name, count in Counter(name for name, _ in alphabets).items() if count > 1} == {"Gurmukhi"}


@pytest.mark.parametrize("split", ["random", "vinyals"])
def test_omniglot_is_read_from_its_archives(small_omniglot: Path, split: str) -> None:
    data = omniglot(small_omniglot, split=split)  # type: ignore[arg-type]
    expected = {row["character"]: row[split] for row in splits()}
    for phase, name in zip(PHASES, ("train", "val", "test"), strict=True):
        assert set(data.classes[phase]) == {c for c, place in expected.items() if place == name}
    assert data.form.shape == (1, 28, 28)
    assert all(len(images) == 2 for images in data.classes[Phase.EVALUATION].values())
    batch = FewShot(data, rotations=True).batch(0, Phase.VALIDATION, range(3))
    assert batch.support_x.shape == (3, 5, 1, 28, 28)
    assert not batch.support_x.any()  # paper is 0


def test_omniglot_is_read_from_folders_too(small_omniglot: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(small_omniglot / "images_background.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "images_evaluation.zip").symlink_to(small_omniglot / "images_evaluation.zip")
    assert names(omniglot(tmp_path)) == names(omniglot(small_omniglot))
    first = next(iter(omniglot(tmp_path).classes[Phase.TRAINING].values()))
    assert [Path(image.name).name[-7:] for image in first] == ["_01.png", "_02.png"]


def test_missing_omniglot_is_reported_in_one_line_that_says_what_to_download(
    small_omniglot: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        omniglot(tmp_path)
    assert str(error.value) == (
        f"there is no Omniglot in {tmp_path}: download images_background.zip and images_evaluation.zip from "
        "https://github.com/brendenlake/omniglot/tree/master/python and put both there, packed or extracted "
        "(images_background is missing)"
    )
    (tmp_path / "images_background.zip").symlink_to(small_omniglot / "images_background.zip")
    with pytest.raises(InputError, match=r"\(images_evaluation is missing\)"):
        omniglot(tmp_path)


def test_settings_that_omniglot_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="split must be random or vinyals, got 'lake'"):
        omniglot(tmp_path, split="lake")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="colours must be one of binary, grey, rgb, got 'gray'"):
        omniglot(tmp_path, inputs="gray")  # type: ignore[arg-type]


def test_a_directory_of_another_data_set_is_not_omniglot(tmp_path: Path) -> None:
    write_classes(tmp_path / "images_background" / "Klingon", {"character01": 2})
    (tmp_path / "images_evaluation").mkdir()
    with pytest.raises(InputError, match=r"0 of its 1623 characters are there, .*Magi/character01 is not; get both"):
        omniglot(tmp_path)


def test_omniglot_with_a_character_too_many_is_refused(small_omniglot: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(small_omniglot / "images_background.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "images_evaluation.zip").symlink_to(small_omniglot / "images_evaluation.zip")
    write_classes(tmp_path / "images_background" / "Klingon", {"character01": 2})
    with pytest.raises(InputError, match="Klingon/character01 is not one of them"):
        omniglot(tmp_path)


@pytest.mark.skipif(not REAL, reason="MAML_RL_OMNIGLOT does not name a directory with Omniglot's archives")
def test_the_real_omniglot_has_twenty_drawings_of_each_character() -> None:
    data = omniglot(REAL or "")
    assert sum(map(len, data.classes.values())) == 1623
    assert {len(images) for classes in data.classes.values() for images in classes.values()} == {20}
    batch = FewShot(data, ways=20, shots=5, queries=15, rotations=True).batch(0, Phase.EVALUATION, range(4))
    assert batch.query_x.unique().tolist() == [0.0, 1.0]
    assert 0.05 < batch.query_x.mean() < 0.12  # the share of ink
    assert len(torch.unique(torch.cat([batch.support_x, batch.query_x], 1)[0], dim=0)) > 380  # drawings differ
    grey = FewShot(omniglot(REAL or "", inputs="grey"), rotations=True).batch(0, Phase.EVALUATION, range(4))
    assert len(grey.query_x.unique()) > 50
    assert 0.05 < grey.query_x.mean() < 0.12


def write_mini_imagenet(root: Path, counts: tuple[int, int, int] = (64, 16, 20)) -> None:
    """The folders of MiniImagenet with two images in each class."""
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        write_classes(root / split, {f"n{split}{i:02}": 2 for i in range(count)})


def test_mini_imagenet_is_read_from_folders_by_class(tmp_path: Path) -> None:
    write_mini_imagenet(tmp_path)
    data = mini_imagenet(tmp_path)
    assert [len(found) for found in names(data)] == [64, 16, 20]
    batch = FewShot(data).batch(0, Phase.EVALUATION, [0])
    assert batch.support_x.shape == (1, 5, 3, 84, 84)
    values = (batch.support_x[0, :, 0, 0, 0] * 255).round()  # each image holds its class's number
    assert len(values.unique()) == 5
    assert torch.equal(values, (batch.query_x[0, :, 2, 83, 83] * 255).round())


@pytest.mark.parametrize("place", ["images", ".", "{label}", "images/{label}"])
def test_mini_imagenet_is_read_from_its_lists(tmp_path: Path, place: str) -> None:
    for split, count in (("train", 64), ("val", 16), ("test", 20)):
        lines = ["filename,label"]
        for i in range(count):
            label = f"n{split}{i:02}"
            for j in range(2):
                lines.append(f"{label}{j}.jpg,{label}")
                png(tmp_path / place.format(label=label) / f"{label}{j}.jpg", 100 + i)
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    data = mini_imagenet(tmp_path)
    assert [len(found) for found in names(data)] == [64, 16, 20]
    assert names(data)[1][:2] == ["nval00", "nval01"]
    x = FewShot(data).batch(0, Phase.VALIDATION, [0]).support_x[0, :, 0, 0, 0] * 255
    assert x.round().unique().numel() == 5
    assert x.min() >= 100
    assert x.max() < 116.5


def test_a_listed_image_that_is_missing_is_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("filename,label\nn1.jpg,n1\n")
    with pytest.raises(InputError, match=r"train.csv names n1.jpg, which is neither in .*images nor"):
        mini_imagenet(tmp_path)
    (tmp_path / "train.csv").write_text("file,class\nn1.jpg,n1\n")
    with pytest.raises(InputError, match=r"train.csv needs the columns filename and label, has file, class"):
        mini_imagenet(tmp_path)
    (tmp_path / "train.csv").write_text("filename,label\nn1.jpg\n")
    with pytest.raises(InputError, match=r"train.csv, line 2, needs a filename and a label"):
        mini_imagenet(tmp_path)
    (tmp_path / "train.csv").write_bytes("filename,label\nn1.jpg,é\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"train.csv is not UTF-8 text"):
        mini_imagenet(tmp_path)


def test_missing_mini_imagenet_is_reported_in_one_line_that_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=f"there is no MiniImagenet in {tmp_path}: download train.csv.*image-net.org"
    ) as e:
        mini_imagenet(tmp_path)
    assert "\n" not in str(e.value)


def test_a_directory_of_another_data_set_is_not_mini_imagenet(tmp_path: Path) -> None:
    write_mini_imagenet(tmp_path, (3, 2, 2))
    with pytest.raises(InputError, match="have 64, 16 and 20 classes: found 3, 2, 2; for your own images set"):
        mini_imagenet(tmp_path)


def test_any_folder_of_images_by_class_is_a_data_set(tmp_path: Path) -> None:
    write_classes(tmp_path, {f"class{i}": 3 for i in range(10)})
    data = image_folder(tmp_path, (5, 7), "grey", fractions=(0.5, 0.2, 0.3))
    assert [len(found) for found in names(data)] == [5, 2, 3]
    assert sorted(chain(*names(data))) == [f"class{i}" for i in range(10)]
    batch = FewShot(data, ways=2, shots=1, queries=2).batch(0, Phase.TRAINING, range(4))
    assert batch.query_x.shape == (4, 4, 1, 5, 7)
    assert names(image_folder(tmp_path, fractions=(0.5, 0.2, 0.3))) == names(data)
    assert names(image_folder(tmp_path, fractions=(0.5, 0.2, 0.3), seed=1)) != names(data)
    assert names(data)[0] == ["class0", "class2", "class6", "class7", "class9"]


def test_a_folder_with_its_own_splits_keeps_them(tmp_path: Path) -> None:
    for split, classes in (("train", "ab"), ("val", "cd"), ("test", "ef")):
        write_classes(tmp_path / split, dict.fromkeys(classes, 2))
    assert names(image_folder(tmp_path)) == [["a", "b"], ["c", "d"], ["e", "f"]]
    write_classes(tmp_path / "test", {"a": 2})
    with pytest.raises(InputError, match="class 'a' is in training and test"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("classes", "settings", "message"),
    [
        ({}, {}, "has no folder with images"),
        ({"train/a": 2}, {}, "needs all of train, val and test, but has no val"),
        ({"a": 1, "b": 1}, {}, "has 2 classes, too few to divide"),
        ({"a": 1, "b": 1, "c": 1}, {"fractions": (0.5, 0.5, 0.5)}, "three numbers above 0 that add up to 1"),
        ({"a": 1, "b": 1, "c": 1}, {"fractions": (0.5, 0.5)}, "three numbers above 0 that add up to 1"),
        ({"a": 1, "b": 1, "c": 1}, {"size": (0, 3)}, "at least 1 x 1 pixels, got 0 x 3"),
    ],
)
def test_unusable_folders_are_refused_with_the_reason(
    tmp_path: Path, classes: dict[str, int], settings: dict[str, tuple[float, ...]], message: str
) -> None:
    write_classes(tmp_path, classes)
    with pytest.raises(InputError, match=message):
        image_folder(tmp_path, **settings)  # type: ignore[arg-type]


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 20, "b": 3, "c": 20})
    data = image_folder(tmp_path, fractions=(0.34, 0.33, 0.33))
    with pytest.raises(InputError, match=r"1 shots and 15 queries are too many: class 'b' of .* has 3 images"):
        FewShot(data, ways=1, shots=1, queries=15)


def test_a_broken_image_among_many_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, dict.fromkeys("abc", 2))
    (tmp_path / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = image_folder(tmp_path, fractions=(0.34, 0.33, 0.33))
    (phase,) = (phase for phase in PHASES if "b" in data.classes[phase])
    with pytest.raises(InputError, match=r"b/1\.png cannot be read"):
        FewShot(data, ways=1).batch(0, phase, [0])


def test_pixels_are_kept_as_bytes(tmp_path: Path) -> None:
    write_classes(tmp_path, dict.fromkeys("abc", 2))
    data = image_folder(tmp_path, (8, 8), fractions=(0.34, 0.33, 0.33))
    assert data.images(Phase.TRAINING).pixels.nbytes == 2 * 3 * 8 * 8
    assert data.images(Phase.TRAINING).pixels.dtype == np.uint8
