"""The page about supervised tasks: its code runs, on small data sets of the forms that it describes."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "supervised.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
SPLITS = ROOT / "maml_rl" / "supervised" / "omniglot_splits.csv"


def save(path: Path, image: Image.Image, copies: int) -> None:
    """Saves the image as this many files in a new folder."""
    path.mkdir(parents=True)
    image.save(path / "00.png")
    for i in range(1, copies):
        (path / f"{i:02}.png").symlink_to("00.png")


@pytest.fixture
def data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small data sets in the current directory, where the page expects them."""
    monkeypatch.chdir(tmp_path)
    with SPLITS.open(encoding="utf-8", newline="") as file:
        for i, row in enumerate(csv.DictReader(file)):
            folder = "images_background" if i % 2 else "images_evaluation"
            save(tmp_path / "omniglot" / folder / row["character"], Image.new("1", (105, 105), 1), 2)
    for split, classes in (("train", 64), ("val", 16), ("test", 20)):
        for i in range(classes):
            save(tmp_path / "mini-imagenet" / split / f"{split}{i}", Image.new("RGB", (8, 8), (i, i, i)), 16)
    rng = np.random.default_rng(0)
    for i in range(12):
        leaf = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        save(tmp_path / "leaves" / f"tree{i}", leaf, 6)


@pytest.mark.usefixtures("data_sets")
def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert re.fullmatch(r"transductive: accuracy [01]\.\d\d\nsupport: accuracy [01]\.\d\d\n", capsys.readouterr().out)
