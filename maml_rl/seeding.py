"""Random numbers as a function of (seed, phase, iteration, purpose), never of stored generator state.

So a run resumed at iteration i draws what the uninterrupted run drew, and what one task draws depends on its index
and not on the number of threads, workers or other tasks.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np


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
    INTERVALS = 4


class Draw(NamedTuple):
    """A place in a run at which random numbers are drawn."""

    seed: int  # of the run, not negative
    phase: Phase
    iteration: int = 0
    step: int = 0  # gradient step within the iteration

    def sequence(self, purpose: Purpose, index: int = 0) -> np.random.SeedSequence:
        """The source of randomness for a purpose; `index` tells tasks apart."""
        return np.random.SeedSequence([self.seed, self.phase, self.iteration, self.step, purpose, index])

    def generator(self, purpose: Purpose, index: int = 0) -> np.random.Generator:
        """A generator over `sequence` of the same arguments."""
        return np.random.default_rng(self.sequence(purpose, index))

    def integers(self, purpose: Purpose, count: int, index: int = 0) -> list[int]:
        """Seeds below 2^31 for what is seeded by integers: environments and spaces."""
        return [int(word) >> 1 for word in self.sequence(purpose, index).generate_state(count)]
