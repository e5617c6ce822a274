"""Images by class: where their files are, and their pixels, decoded once and kept as bytes."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from maml_rl.errors import InputError
from maml_rl.processes import available_cores
from maml_rl.seeding import Phase
from maml_rl.supervised.settings import Colours

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
SPLITS = {Phase.TRAINING: "training", Phase.VALIDATION: "validation", Phase.EVALUATION: "test"}


_NO_IMAGE = (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError)
_NO_FILE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # an encrypted archive: RuntimeError


class ImageFile(NamedTuple):
    """An encoded image."""

    name: str  # as messages show it
    read: Callable[[], bytes]


ImageClasses = Mapping[str, Sequence[ImageFile]]
"""Files of each class, by the class's name. Tasks depend on the order of both."""


@dataclass(frozen=True)
class ImageForm:
    """What decoded images are like."""

    size: tuple[int, int]  # height and width, pixels; files of another size are resized
    colours: Colours
    inverted: bool = False  # whether dark is 1, for ink on paper

    def __post_init__(self) -> None:
        """Raises InputError for a size without pixels, or unknown colours."""
        if min(self.size) < 1:
            raise InputError(f"images need at least 1 x 1 pixels, got {self.size[0]} x {self.size[1]}")
        if self.colours not in get_args(Colours):
            raise InputError(f"colours must be one of {', '.join(get_args(Colours))}, got {self.colours!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (3 if self.colours == "rgb" else 1, *self.size)

    @property
    def white(self) -> int:
        """The largest value of a stored pixel, which is 1.0 in a task."""
        return 1 if self.colours == "binary" else 255

    def decode(self, file: ImageFile) -> NDArray[np.uint8]:
        """Pixels of one image, `[channels, height, width]`, from 0 to `white`.

        A binary image is resized by taking the nearest pixel, the only way without grey values; others by Lanczos.
        Transparent pixels become white, and photographs are turned upright (EXIF).

        Raises:
            InputError: If it cannot be read.
        """
        mode = {"binary": "1", "grey": "L", "rgb": "RGB"}[self.colours]
        try:
            with Image.open(io.BytesIO(file.read())) as image:
                upright = _of_eight_bits(ImageOps.exif_transpose(image))
                pixels = _opaque(upright).convert(mode, dither=Image.Dither.NONE)
        except (*_NO_IMAGE, *_NO_FILE) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = "unknown format" if isinstance(error, UnidentifiedImageError) else reason
            raise InputError(f"the image {file.name} cannot be read ({reason}): replace or remove it") from error
        if pixels.size != self.size[::-1]:
            way = Image.Resampling.NEAREST if mode == "1" else Image.Resampling.LANCZOS
            pixels = pixels.resize(self.size[::-1], way)
        array = np.asarray(pixels, dtype=np.uint8).reshape(*self.size, -1).transpose(2, 0, 1)
        return np.asarray(self.white - array if self.inverted else array, dtype=np.uint8)


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """The image, scaled if its grey has 16 bits, which Pillow would cut off at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image, np.float64) / 257, 0, 255).round().astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """The image on white, if parts of it are transparent."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


class DecodedImages(NamedTuple):
    """Images of all classes of a split, one class after the other."""

    pixels: NDArray[np.uint8]  # [images, channels, height, width]
    starts: NDArray[np.int64]  # [classes]   index of each class's first image
    counts: NDArray[np.int64]  # [classes]   images of each class


def decoded(classes: ImageClasses, form: ImageForm) -> DecodedImages:
    """All images of the classes, decoded in as many threads as there are cores.

    Raises:
        InputError: If one cannot be read.
    """
    files = [file for images in classes.values() for file in images]
    pixels = np.empty((len(files), *form.shape), dtype=np.uint8)
    with ThreadPoolExecutor(available_cores()) as pool:
        for row, image in zip(pixels, pool.map(form.decode, files, chunksize=64), strict=True):
            row[...] = image
    counts = np.array([len(images) for images in classes.values()], dtype=np.int64)
    return DecodedImages(pixels, np.cumsum(counts) - counts, counts)


@dataclass(frozen=True)
class ImageSplits:
    """Classes to train on, to choose settings by and to evaluate on; a split's images are decoded when first used."""

    source: str  # as messages name it
    form: ImageForm
    classes: Mapping[Phase, ImageClasses]
    _decoded: dict[Phase, DecodedImages] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises InputError if a class is in two splits."""
        seen: dict[str, Phase] = {}
        for phase, classes in self.classes.items():
            for name in classes:
                if name in seen:
                    raise InputError(
                        f"{self.source}: class {name!r} is in {SPLITS[seen[name]]} and {SPLITS[phase]}; splits must "
                        "share no class"
                    )
                seen[name] = phase

    def images(self, phase: Phase) -> DecodedImages:
        """The decoded images of a split.

        Raises:
            InputError: If one cannot be read.
        """
        if phase not in self._decoded:
            self._decoded[phase] = decoded(self.classes[phase], self.form)
        return self._decoded[phase]


def folder_classes(directory: Path) -> dict[str, list[ImageFile]]:
    """Images by folder of a directory, in the order of their names; folders without images are left out.

    Raises:
        InputError: If the directory cannot be listed.
    """
    try:
        folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = {folder.name: [image_file(path) for path in _image_paths(folder)] for folder in folders}
    except OSError as error:
        raise InputError(f"{directory} cannot be read as a directory of images ({error.strerror})") from error
    return {name: files for name, files in found.items() if files}


def _image_paths(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def image_file(path: Path) -> ImageFile:
    """The image at a path."""
    return ImageFile(str(path), path.read_bytes)


def archived_files(path: Path) -> Iterator[tuple[str, ImageFile]]:
    """Images of a zip archive, with their names in it, in the order of the names.

    Raises:
        InputError: If it is not a readable archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a zip archive ({error}): download it again") from error
    for name in sorted(archive.namelist()):
        if name.lower().endswith(SUFFIXES) and not name.startswith("__MACOSX"):
            yield name, ImageFile(f"{path}/{name}", lambda name=name: archive.read(name))  # type: ignore[misc]
