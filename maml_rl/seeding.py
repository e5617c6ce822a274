"""Random numbers as a function of (seed, phase, iteration, purpose), never of stored generator state.

A run that is resumed at iteration i therefore draws the same numbers as the uninterrupted run. The numbers of a task
depend on its index, not on the number of threads, workers or other tasks.
"""

from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PHILOX_WORDS = 4  # 64-bit words that the generator makes for each value of its counter


class Phase(IntEnum):
    """Part of a run. Values are part of the results: never renumber."""

    TRAINING = 0
    EVALUATION = 1
    STANDARDISATION = 2
    INITIALISATION = 3
    VALIDATION = 4
    RECORDING = 5


class Purpose(IntEnum):
    """What random numbers are for. Values are part of the results: never renumber."""

    TASKS = 0
    RESETS = 1
    ACTIONS = 2
    PARAMS = 3
    MINIBATCHES = 4
    FEATURES = 5


class Draw(NamedTuple):
    """A place in a run at which random numbers are drawn."""

    seed: int  # of the run, not negative
    phase: Phase
    iteration: int = 0
    step: int = 0  # gradient step within the iteration

    def sequence(self, purpose: Purpose, index: int = 0) -> np.random.SeedSequence:
        """The source of randomness for a purpose; `index` distinguishes tasks."""
        return np.random.SeedSequence([self.seed, self.phase, self.iteration, self.step, purpose, index])

    def generator(self, purpose: Purpose, index: int = 0) -> np.random.Generator:
        """A generator over `sequence` of the same arguments."""
        return np.random.default_rng(self.sequence(purpose, index))

    def integers(self, purpose: Purpose, count: int, index: int = 0) -> list[int]:
        """Seeds below 2^31 for what is seeded by integers: environments and spaces."""
        return [int(word) >> 1 for word in self.sequence(purpose, index).generate_state(count)]


def uniforms(draw: Draw, indices: Sequence[int], count: int, stream: int = 0) -> NDArray[np.float64]:
    """Numbers in [0, 1) for each of many tasks, `[len(indices), count]`: a row is a function of the draw and its index.

    The generator is based on a counter (Philox), so row i starts at its own place in the sequence, and consecutive
    tasks come in one call: two nanoseconds a number, where a generator for each task costs 20 microseconds. Numbers are
    made from the generator's raw words, which NumPy promises never to change.

    Args:
        draw: Its seed and phase say which sequence.
        indices: Of the tasks, none negative.
        count: How many numbers for each task; another count gives other numbers.
        stream: Distinguishes sequences of the same draw.
    """
    key = draw.sequence(Purpose.TASKS, stream).generate_state(2, np.uint64)
    # One value of the counter makes four words. So row i starts at counter i * blocks, may leave its last words unused,
    # and ends where row i + 1 starts: consecutive indices come in one call.
    blocks = -(-count // _PHILOX_WORDS)
    rows = np.asarray(indices, dtype=np.int64)
    words = np.empty((len(rows), blocks * _PHILOX_WORDS), dtype=np.uint64)
    starts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1), len(rows)]
    for start, end in pairwise(starts if len(rows) else []):
        generator = np.random.Philox(counter=int(rows[start]) * blocks, key=key)
        words[start:end] = generator.random_raw((end - start) * blocks * _PHILOX_WORDS).reshape(end - start, -1)
    return np.asarray((words[:, :count] >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
