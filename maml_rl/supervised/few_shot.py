"""N-way K-shot classification (5.2): which classes and images a task has, drawn for many tasks at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from maml_rl.errors import InputError
from maml_rl.seeding import Draw, Phase, uniforms
from maml_rl.supervised.images import SPLITS, ImageSplits
from maml_rl.supervised.task_batches import TaskBatch

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class FewShot:
    """Tasks of N classes with K support images and some query images of each, from the classes of the phase's split.

    The classes come in random order. The label of an image is the place of its class in that order, and says nothing
    across tasks. No image is in a task twice.
    """

    data: ImageSplits
    ways: int = 5  # classes of a task, N
    shots: int = 1  # support images of a class, K
    queries: int = 1  # query images of a class
    rotations: bool = False  # whether each class of a task is turned by 0, 90, 180 or 270 degrees, at random

    def __post_init__(self) -> None:
        """Raises InputError if a split has too few classes or a class too few images, or images cannot be turned."""
        if min(self.ways, self.shots, self.queries) < 1:
            raise InputError(
                f"a task needs at least 1 way, shot and query, got {self.ways}, {self.shots} and {self.queries}"
            )
        for phase, classes in self.data.classes.items():
            if phase != Phase.VALIDATION:  # few runs use this one
                self._check_ways(phase)
            for name, files in classes.items():
                if len(files) < self.shots + self.queries:
                    raise InputError(
                        f"{self.shots} shots and {self.queries} queries are too many: class {name!r} of "
                        f"{self.data.source} has {len(files)} images"
                    )
        height, width = self.data.form.size
        if self.rotations and height != width:
            raise InputError(f"only square images can be rotated, those of {self.data.source} are {height} x {width}")

    def _check_ways(self, phase: Phase) -> None:
        count = len(self.data.classes[phase])
        if count < self.ways:
            raise InputError(
                f"{self.ways} ways are too many: the {SPLITS[phase]} split of {self.data.source} "
                f"has {count} {'class' if count == 1 else 'classes'}"
            )

    def batch(self, seed: int, phase: Phase, indices: Sequence[int]) -> TaskBatch:
        """The tasks of these indices: images `[M, ways * shots, channels, height, width]`, float32 from 0 to 1, labels.

        Images of a class are next to each other, in support and query: label 0 first.

        Raises:
            InputError: If an image cannot be read, or the data have no split for the phase, or too few classes in it.
        """
        if phase not in self.data.classes:
            raise InputError(f"{self.data.source} has no classes for {phase.name.lower()}")
        self._check_ways(phase)
        images = self.data.images(phase)
        per_class = self.shots + self.queries
        numbers = uniforms(Draw(seed, phase), indices, self.ways * (2 + per_class))
        numbers = numbers.reshape(len(indices), self.ways, 2 + per_class)
        classes = distinct(numbers[..., 0], np.int64(len(images.counts)))  # [M, ways]
        chosen = distinct(numbers[..., 2:], images.counts[classes])  # [M, ways, per_class]
        pixels = images.pixels[images.starts[classes][..., None] + chosen]
        if self.rotations:
            pixels = turned(pixels, (4 * numbers[..., 1]).astype(np.int64))
        labels = torch.arange(self.ways).repeat(len(indices), 1)
        parts = []
        for part, count in ((pixels[:, :, : self.shots], self.shots), (pixels[:, :, self.shots :], self.queries)):
            x = part.reshape(len(indices), self.ways * count, *self.data.form.shape).astype(np.float32)
            x /= self.data.form.white
            parts += [torch.from_numpy(x), labels.repeat_interleave(count, 1)]
        return TaskBatch(*parts)


def distinct(numbers: NDArray[np.float64], count: Indices | np.int64) -> Indices:
    """Different integers from 0 to `count` - 1, each ordered choice as likely as any other.

    The i-th number picks a rank among the `count - i` integers that are left. Stepping over the taken integers that are
    not larger turns the rank into the integer.

    Args:
        numbers: Independent uniform numbers in [0, 1), `[..., k]`.
        count: How many integers there are, at least k: `[...]`, or one number for all.
    """
    picks = np.empty(numbers.shape, dtype=np.int64)
    for i in range(numbers.shape[-1]):
        pick = (numbers[..., i] * (count - i)).astype(np.int64)
        for taken in np.moveaxis(np.sort(picks[..., :i], axis=-1), -1, 0):
            pick += pick >= taken
        picks[..., i] = pick
    return picks


def turned(pixels: NDArray[np.uint8], quarters: Indices) -> NDArray[np.uint8]:
    """Square images `[..., k, channels, size, size]` turned anticlockwise by quarters `[...]`, the k alike."""
    result = pixels.copy()
    for quarter in (1, 2, 3):
        result[quarters == quarter] = np.rot90(pixels[quarters == quarter], quarter, axes=(-2, -1))
    return result
