import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maml_rl.errors import InputError
from maml_rl.seeding import Phase
from maml_rl.supervised.images import (
    ImageFile,
    ImageForm,
    ImageSplits,
    archived_files,
    decoded,
    folder_classes,
    image_file,
)


def file(image: Image.Image, name: str = "a.png") -> ImageFile:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return ImageFile(name, buffer.getvalue)


def binary(rows: list[list[int]]) -> Image.Image:
    return Image.fromarray(255 * np.array(rows, dtype=np.uint8)).convert("1")


def test_a_binary_image_is_zeros_and_ones_with_ink_as_one() -> None:
    image = file(binary([[1, 0], [1, 1]]))  # paper is 1 in the file
    assert ImageForm((2, 2), "binary", inverted=True).decode(image).tolist() == [[[0, 1], [0, 0]]]
    assert ImageForm((2, 2), "binary").decode(image).tolist() == [[[1, 0], [1, 1]]]


def test_a_binary_image_is_resized_to_its_nearest_pixels() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (105, 105))
    found = ImageForm((28, 28), "binary").decode(file(binary(rows.tolist())))
    # Output pixel i covers the input from 3.75 i on; its middle, 3.75 (i + 1/2), lies in input pixel floor of that.
    middle = (3.75 * (np.arange(28) + 0.5)).astype(int)
    np.testing.assert_array_equal(found[0], rows[np.ix_(middle, middle)])


def test_a_grey_image_has_grey_where_black_and_white_meet() -> None:
    image = file(binary([[0, 1] * 4] * 8))
    grey = ImageForm((4, 4), "grey", inverted=True)
    found = grey.decode(image)
    assert found.shape == (1, 4, 4)
    assert grey.white == 255
    assert (np.abs(found.astype(int) - 127) < 30).all()  # half of every pixel is ink
    assert ImageForm((8, 8), "grey", inverted=True).decode(image)[0, 0].tolist() == [255, 0] * 4


def test_a_colour_image_has_its_channels_first() -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        ImageForm((3, 4), "rgb").decode(file(Image.fromarray(array))), array.transpose(2, 0, 1)
    )
    grey = Image.fromarray(array).convert("L")
    assert ImageForm((3, 4), "rgb").decode(file(grey)).tolist() == [np.asarray(grey).tolist()] * 3
    assert ImageForm((2, 5), "rgb").decode(file(grey)).shape == (3, 2, 5)


def test_images_are_decoded_class_after_class() -> None:
    colours = [(number, number, number) for number in range(5)]
    images = [file(Image.new("RGB", (2, 2), colour)) for colour in colours]
    found = decoded({"a": images[:2], "b": images[2:]}, ImageForm((2, 2), "grey"))
    assert found.pixels.dtype == np.uint8
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert (found.starts.tolist(), found.counts.tolist()) == ([0, 2], [2, 3])


def test_images_are_decoded_once() -> None:
    reads = []
    image = file(Image.new("L", (2, 2)))
    counted = ImageFile("a.png", lambda: reads.append(1) or image.read())  # type: ignore[func-returns-value]
    data = ImageSplits("those", ImageForm((2, 2), "grey"), {Phase.TRAINING: {"a": [counted] * 3}})
    assert reads == []
    first = data.images(Phase.TRAINING)
    assert data.images(Phase.TRAINING) is first
    assert len(reads) == 3


@pytest.mark.parametrize("cut", [0, 20, 60, 200])
def test_an_unreadable_image_is_named(tmp_path: Path, cut: int) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    (tmp_path / "broken.png").write_bytes(file(noise).read()[:cut])
    with pytest.raises(
        InputError, match=r"the image .*broken.png cannot be read \(.*\): replace or remove it"
    ) as error:
        ImageForm((9, 9), "rgb").decode(image_file(tmp_path / "broken.png"))
    assert "\n" not in str(error.value)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.png cannot be read \(.*No such file"):
        ImageForm((9, 9), "rgb").decode(image_file(tmp_path / "gone.png"))


def test_folders_are_classes_and_other_files_are_left_out(tmp_path: Path) -> None:
    for name in (
        "b/2.PNG",
        "b/1.jpg",
        "a/1.png",
        "a/._1.png",
        "a/notes.txt",
        ".hidden/1.png",
        "empty/notes.txt",
        "c.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = folder_classes(tmp_path)
    assert {name: [Path(image.name).name for image in images] for name, images in found.items()} == {
        "a": ["1.png"],
        "b": ["1.jpg", "2.PNG"],
    }
    assert list(found) == ["a", "b"]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent cannot be read as a directory of images \(No such file"):
        folder_classes(tmp_path / "absent")


def test_an_archive_holds_its_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("s/b/1.png", "s/a/2.png", "__MACOSX/s/a/2.png", "s/a/readme.txt"):
            archive.writestr(name, name)
    found = list(archived_files(tmp_path / "a.zip"))
    assert [name for name, _ in found] == ["s/a/2.png", "s/b/1.png"]
    assert [image.read() for _, image in found] == [b"s/a/2.png", b"s/b/1.png"]
    assert found[0][1].name == f"{tmp_path / 'a.zip'}/s/a/2.png"


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match=r"a.zip cannot be read as a zip archive .*: download it again"):
        list(archived_files(tmp_path / "a.zip"))


def test_splits_share_no_class() -> None:
    image = file(Image.new("L", (2, 2)))
    with pytest.raises(InputError, match="those: class 'a' is in training and test; splits must share no class"):
        ImageSplits(
            "those", ImageForm((2, 2), "grey"), {Phase.TRAINING: {"a": [image]}, Phase.EVALUATION: {"a": [image]}}
        )


def test_grey_of_sixteen_bits_keeps_its_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 16448, 65535]], np.uint16)).save(tmp_path / "grey.png")
    form = ImageForm((1, 3), "grey")
    assert form.decode(ImageFile("grey.png", (tmp_path / "grey.png").read_bytes)).tolist() == [[[0, 64, 255]]]


def test_an_oversized_image_is_named(monkeypatch, tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(InputError, match=r"the image large.png cannot be read"):
        ImageForm((4, 4), "grey").decode(ImageFile("large.png", (tmp_path / "large.png").read_bytes))


def test_transparent_pixels_are_white(tmp_path):
    ink = np.zeros((2, 2, 4), np.uint8)  # black everywhere
    ink[0, 0, 3] = 255  # and seen in one pixel
    Image.fromarray(ink, "RGBA").save(tmp_path / "ink.png")
    for colours in ("binary", "grey", "rgb"):
        pixels = ImageForm((2, 2), colours).decode(image_file(tmp_path / "ink.png"))
        np.testing.assert_array_equal(pixels[0] > 0, [[False, True], [True, True]])


def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path):
    photograph = Image.fromarray(np.array([[0, 255]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter clockwise
    photograph.save(tmp_path / "photograph.png", exif=exif)
    pixels = ImageForm((2, 1), "grey").decode(image_file(tmp_path / "photograph.png"))
    np.testing.assert_array_equal(pixels, [[[0], [255]]])
