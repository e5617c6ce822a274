"""What an observation is made of: its parts, some of which are pictures, in one row of numbers.

To the method an observation is a row of numbers, whatever its space: `RowObservation` lays it out, and `Rows` remembers
the parts for the policy. Nothing in this module imports PyTorch, because processes that run an environment import it.
"""

from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

LEAST_SIDE = 8
"""Pixels of the shorter side of a picture; anything smaller counts as a row of numbers."""
OBSERVATION, TASK = "observation", "task"
"""Names of the parts where a task is appended: of the observation, unless its parts have names, and of the task."""


class Part(NamedTuple):
    """A part of an observation: numbers next to each other in its row."""

    name: str  # its key in a Dict, after those of the Dicts around it and a dot; empty for a whole observation
    shape: tuple[int, ...]  # as the environment has it
    is_picture: bool = False

    @property
    def size(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    @property
    def channels_last(self) -> bool:
        """Whether a picture's axis of channels, the shorter of the first and the last axis, is the last."""
        return len(self.shape) == 3 and self.shape[2] <= self.shape[0]

    @property
    def seen(self) -> tuple[int, ...]:
        """Shape in which a network gets it: channels, height and width for a picture; as it is for any other part."""
        if not self.is_picture:
            return self.shape
        if len(self.shape) == 2:
            return (1, *self.shape)
        return (self.shape[2], *self.shape[:2]) if self.channels_last else self.shape


Parts = tuple[Part, ...]


class Rows(spaces.Box):
    """Rows of numbers `[n]` whose parts are known.

    Args:
        parts: The parts, in their order.
        box: Bounds and type of the row.
    """

    def __init__(self, parts: Iterable[Part], box: spaces.Box) -> None:
        super().__init__(box.low.reshape(-1), box.high.reshape(-1), dtype=box.dtype.type)
        self.parts = tuple(parts)


class RowObservation(gymnasium.ObservationWrapper[NDArray[Any], Any, Any], RecordConstructorArgs):
    """An environment whose observations are the rows that `gymnasium.spaces.flatten` makes of them.

    Args:
        env: An environment with observations that can be flattened (`row_space`).
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        space = row_space(env.observation_space)
        assert space is not None
        self.observation_space = space

    def observation(self, observation: Any) -> NDArray[Any]:
        """The row of an observation."""
        return row(self.env.observation_space, observation)


def in_rows(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment, with observations that are arrays: those of a Box stay as they are."""
    return env if isinstance(env.observation_space, spaces.Box) else RowObservation(env)


def row_space(space: spaces.Space[Any]) -> Rows | None:
    """The rows of a space's elements; None if Gymnasium does not flatten them to as many numbers each."""
    try:
        flat: object = spaces.flatten_space(space)
    except (NotImplementedError, ValueError):  # a custom Space
        return None
    return Rows(observation_parts(space), flat) if isinstance(flat, spaces.Box) else None


def row(space: spaces.Space[Any], observation: Any) -> NDArray[Any]:
    """An element of a space as a row of numbers."""
    return np.asarray(spaces.flatten(space, observation))


def observation_parts(space: spaces.Space[Any], name: str = "") -> Parts:
    """Parts of a space's elements, in the order in which they are flattened: that of a Dict's keys.

    Args:
        space: A space that Gymnasium can flatten.
        name: Name of the space, if it is a part of a larger one.
    """
    if isinstance(space, Rows):
        return space.parts
    inner: list[tuple[Any, spaces.Space[Any]]] = []
    if isinstance(space, spaces.Dict):
        inner = list(space.items())
    elif isinstance(space, spaces.Tuple):
        inner = list(enumerate(space))
    if inner:
        prefix = f"{name}." if name else ""
        return tuple(part for key, one in inner for part in observation_parts(one, f"{prefix}{key}"))
    if isinstance(space, spaces.Box):
        return (Part(name, space.shape, _is_picture(space)),)
    return (Part(name, (spaces.flatdim(space),)),)


def pictures_of(space: spaces.Space[Any]) -> list[Part]:
    """The parts of a space's elements that are pictures."""
    return [part for part in observation_parts(space) if part.is_picture]


def _is_picture(space: spaces.Box) -> bool:
    """Whether elements are pictures: bytes from 0 to 255, of height x width, with channels before or after them."""
    if space.dtype != np.uint8 or len(space.shape) not in (2, 3) or space.low.any() or (space.high != 255).any():
        return False
    channels, *sides = Part("", space.shape, is_picture=True).seen
    return min(sides) >= LEAST_SIDE and channels <= min(sides)
