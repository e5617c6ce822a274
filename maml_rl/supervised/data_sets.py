"""Few-shot data sets as their authors distribute them, and any directory of images by class. Nothing is downloaded."""

import csv
import io
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from maml_rl.errors import InputError
from maml_rl.seeding import Draw, Phase, uniforms
from maml_rl.supervised.images import (
    SUFFIXES,
    ImageClasses,
    ImageFile,
    ImageForm,
    ImageSplits,
    archived_files,
    folder_classes,
    image_file,
)
from maml_rl.supervised.settings import Colours

FOLDERS = {Phase.TRAINING: "train", Phase.VALIDATION: "val", Phase.EVALUATION: "test"}
OMNIGLOT_SETS = ("images_background", "images_evaluation")
OMNIGLOT_URL = "https://github.com/brendenlake/omniglot/tree/master/python"
MINI_IMAGENET_URL = "https://github.com/twitter-archive/meta-learning-lstm/tree/master/data/miniImagenet"
MINI_IMAGENET_CLASSES = {Phase.TRAINING: 64, Phase.VALIDATION: 16, Phase.EVALUATION: 20}


def omniglot(
    directory: str | Path, inputs: Literal["binary", "grey"] = "binary", split: Literal["random", "vinyals"] = "random"
) -> ImageSplits:
    """Omniglot (Lake, Salakhutdinov, Tenenbaum 2015): 1623 characters, 20 drawings of each; 28 x 28, ink is 1.

    Args:
        directory: Where `images_background` and `images_evaluation` are, as archives (.zip) or extracted.
        inputs: "binary" as the paper has them, every pixel the nearest one of the drawing; or "grey", smoothed.
        split: "random": 1100 characters to train on, 100 for validation and 423 to test, as the paper divides them,
            drawn once for this package; or "vinyals", by alphabets (Vinyals et al. 2016): 1028, 172 and 423. Both are
            in `omniglot_splits.csv`.

    Raises:
        InputError: If the data are missing or are not Omniglot, or there are no such inputs or split.
    """
    root, form = Path(directory), ImageForm((28, 28), inputs, inverted=True)
    if split not in ("random", "vinyals"):
        raise InputError(f"split must be random or vinyals, got {split!r}")
    found: dict[str, list[ImageFile]] = {}
    for name in OMNIGLOT_SETS:
        found |= _omniglot_characters(root, name)
    table = (files("maml_rl.supervised") / "omniglot_splits.csv").read_text(encoding="utf-8")
    places = {row["character"]: row[split] for row in csv.DictReader(table.splitlines())}
    absent = [character for character in places if character not in found]
    if absent or len(found) > len(places):
        other = absent[0] if absent else next(character for character in found if character not in places)
        raise InputError(
            f"{root} does not hold Omniglot as published: {len(places) - len(absent)} of its {len(places)} characters "
            f"are there, {other} {'is not' if absent else 'is not one of them'}; get both archives from {OMNIGLOT_URL}"
        )
    classes = {phase: {c: found[c] for c in places if places[c] == name} for phase, name in FOLDERS.items()}
    return ImageSplits(f"Omniglot in {root}", form, classes)


def _omniglot_characters(root: Path, name: str) -> dict[str, list[ImageFile]]:
    """Drawings of each character, alphabet/character, of one of the two sets."""
    archive, folder = root / f"{name}.zip", root / name
    if not folder.is_dir() and not archive.is_file():
        raise InputError(
            f"there is no Omniglot in {root}: download {' and '.join(f'{n}.zip' for n in OMNIGLOT_SETS)} from "
            f"{OMNIGLOT_URL} and put both there, packed or extracted ({name} is missing)"
        )
    characters: dict[str, list[ImageFile]] = {}
    if folder.is_dir():
        for alphabet in sorted(path for path in folder.iterdir() if path.is_dir()):
            characters |= {f"{alphabet.name}/{c}": images for c, images in folder_classes(alphabet).items()}
        return characters
    for path, image in archived_files(archive):
        characters.setdefault("/".join(path.split("/")[-3:-1]), []).append(image)
    return characters


def mini_imagenet(directory: str | Path) -> ImageSplits:
    """MiniImagenet with the split of Ravi and Larochelle (2017): 64, 16 and 20 classes, 600 images of each, 84 x 84.

    Images of another size are resized when they are read.

    Args:
        directory: Either with `train`, `val` and `test`, each with a folder of images for each class; or with
            `train.csv`, `val.csv` and `test.csv` (columns filename and label), and the images they name next to them,
            in `images`, or in folders by label.

    Raises:
        InputError: If the data are missing or are not MiniImagenet.
    """
    root = Path(directory)
    if all((root / f"{name}.csv").is_file() for name in FOLDERS.values()):
        classes = {phase: _listed(root, root / f"{name}.csv") for phase, name in FOLDERS.items()}
    elif all((root / name).is_dir() for name in FOLDERS.values()):
        classes = {phase: folder_classes(root / name) for phase, name in FOLDERS.items()}
    else:
        raise InputError(
            f"there is no MiniImagenet in {root}: download train.csv, val.csv and test.csv from {MINI_IMAGENET_URL}, "
            "the images they name from https://image-net.org (ILSVRC 2012), and put the csv files there and the images "
            "in a folder images next to them, or all in folders train, val and test by class"
        )
    counts = {phase: len(found) for phase, found in classes.items()}
    if counts != MINI_IMAGENET_CLASSES:
        raise InputError(
            f"{root} does not hold MiniImagenet, whose train, val and test have 64, 16 and 20 classes: found "
            f"{', '.join(map(str, counts.values()))}; for your own images set the family to images"
        )
    return ImageSplits(f"MiniImagenet in {root}", ImageForm((84, 84), "rgb"), classes)


def _listed(root: Path, listing: Path) -> dict[str, list[ImageFile]]:
    """Images of each label of a csv file."""
    classes: dict[str, list[ImageFile]] = {}
    try:
        text = listing.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{listing} is not UTF-8 text ({error}): download it again") from error
    with io.StringIO(text, newline="") as file:
        rows = csv.DictReader(file)
        if not {"filename", "label"} <= set(rows.fieldnames or ()):
            raise InputError(f"{listing} needs the columns filename and label, has {', '.join(rows.fieldnames or ())}")
        for row in rows:
            if not row["filename"] or not row["label"]:
                raise InputError(f"{listing}, line {rows.line_num}, needs a filename and a label: download it again")
            places = [root / "images", root, root / row["label"], root / "images" / row["label"]]
            path = next((place / row["filename"] for place in places if (place / row["filename"]).is_file()), None)
            if path is None:
                raise InputError(f"{listing} names {row['filename']}, which is neither in {root / 'images'} nor {root}")
            classes.setdefault(row["label"], []).append(image_file(path))
    return {label: sorted(classes[label], key=lambda file: file.name) for label in sorted(classes)}


def image_folder(
    directory: str | Path,
    size: tuple[int, int] = (84, 84),
    colours: Colours = "rgb",
    fractions: Sequence[float] = (0.64, 0.16, 0.2),
    seed: int = 0,
) -> ImageSplits:
    """Any images, a folder for each class.

    Args:
        directory: Either with `train`, `val` and `test`, each with folders of images, or with the folders themselves,
            whose classes are then divided at random.
        size: Height and width that images are resized to, pixels.
        colours: "rgb", "grey" or "binary".
        fractions: Shares of the classes for training, validation and test, where there are no such directories.
        seed: Seed of the division.

    Raises:
        InputError: If there are no such folders, or a fraction leaves a split without classes.
    """
    root = Path(directory)
    form = ImageForm(size, colours)
    if any((root / name).is_dir() for name in FOLDERS.values()):
        for name in FOLDERS.values():
            if not (root / name).is_dir():
                raise InputError(f"{root} needs all of train, val and test, but has no {name}")
        classes: dict[Phase, ImageClasses] = {p: folder_classes(root / name) for p, name in FOLDERS.items()}
    else:
        found = folder_classes(root)
        if not found:
            known = ", ".join(SUFFIXES)
            raise InputError(
                f"{root} has no folder with images ({known}): put the images of each class into a separate folder"
            )
        classes = _divided(found, fractions, seed, root)
    return ImageSplits(str(root), form, classes)


def _divided(found: ImageClasses, fractions: Sequence[float], seed: int, root: Path) -> dict[Phase, ImageClasses]:
    """Classes shared out at random, in the order of their names within each split."""
    if len(fractions) != len(FOLDERS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions must be three numbers above 0 that add up to 1, got {list(fractions)}")
    order = np.argsort(uniforms(Draw(seed, Phase.INITIALISATION), [0], len(found))[0], kind="stable")
    bounds = np.round(np.cumsum([0.0, *fractions]) * len(found)).astype(int)
    names = list(found)
    shares = [sorted(names[i] for i in order[a:b]) for a, b in pairwise(bounds)]
    if not all(shares):
        raise InputError(f"{root} has {len(found)} classes, too few to divide into fractions {list(fractions)}")
    return {phase: {name: found[name] for name in share} for phase, share in zip(FOLDERS, shares, strict=True)}
