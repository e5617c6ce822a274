"""Supervised tasks: few examples to adapt to (support), and others to evaluate the adapted model on (query).

A task is a function of (seed, phase, index), the same on every call and platform, whatever other tasks are drawn with
it. The phases (training, validation, evaluation) draw from separate sequences. Letters in shapes: M tasks, S support
and Q query examples of each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maml_rl.errors import InputError
from maml_rl.seeding import Draw, Phase, Purpose, uniforms

Array = NDArray[np.float64]


class TaskBatch(NamedTuple):
    """Examples of M tasks: inputs x, and targets y, which are numbers `[..., outputs]` or labels (int64, no axis)."""

    support_x: Tensor  # [M, S, ...]
    support_y: Tensor  # [M, S, outputs], or [M, S] for labels
    query_x: Tensor  # [M, Q, ...]
    query_y: Tensor  # [M, Q, outputs], or [M, Q] for labels


def chunks(tasks: TaskBatch, size: int) -> list[TaskBatch]:
    """The tasks, `size` at a time and in their order; the last may be fewer."""
    parts = [torch.split(examples, size) for examples in tasks]
    return [TaskBatch(*examples) for examples in zip(*parts, strict=True)]


class TaskSource(Protocol):
    """A distribution of supervised tasks: anything with this method."""

    def batch(self, seed: int, phase: Phase, indices: Sequence[int]) -> TaskBatch:
        """The tasks of these indices, each a function of `(seed, phase, index)`.

        Many small tasks are drawn fastest in blocks of thousands of consecutive indices.
        """
        ...


@dataclass(frozen=True)
class Sinusoid:
    """Regression of y = amplitude sin(x - shift) (5.1), amplitude ~ U[0.1, 5], shift ~ U[0, pi], x ~ U[-5, 5].

    Amplitude and shift depend on the index alone, not on the number of examples.
    """

    shots: int = 10  # support examples of a task, K
    queries: int = 10
    observe_task: bool = False  # whether x ends with amplitude and shift, as the paper's oracle has it

    def __post_init__(self) -> None:
        if self.shots < 1 or self.queries < 1:
            raise InputError(f"a task needs at least 1 shot and 1 query, got {self.shots} and {self.queries}")

    def parameters(self, seed: int, phase: Phase, indices: Sequence[int]) -> tuple[Array, Array]:
        """Amplitude and shift (radians) of each task, each `[M]`."""
        amplitude, shift = uniforms(Draw(seed, phase), indices, 2, stream=0).T
        return 0.1 + 4.9 * amplitude, np.pi * shift

    def batch(self, seed: int, phase: Phase, indices: Sequence[int]) -> TaskBatch:
        """The tasks of these indices: x `[M, S, 1]`, or `[M, S, 3]` with `observe_task`, and y `[M, S, 1]`, float32."""
        amplitude, shift = (value[:, None] for value in self.parameters(seed, phase, indices))
        examples = []
        for stream, count in ((1, self.shots), (2, self.queries)):
            x = 10.0 * uniforms(Draw(seed, phase), indices, count, stream) - 5.0
            inputs = [x, np.broadcast_to(amplitude, x.shape), np.broadcast_to(shift, x.shape)]
            seen = np.stack(inputs, -1) if self.observe_task else x[..., None]
            examples += [_float(seen), _float((amplitude * np.sin(x - shift))[..., None])]
        return TaskBatch(*examples)


RegressionTask = Callable[[int, int], Sequence[ArrayLike]]
"""(seed, index) -> support_x, support_y, query_x, query_y of one task: arrays with one row an example."""


@dataclass(frozen=True)
class FunctionTasks:
    """Regression tasks from a function of `(seed, index)`, which returns the four arrays of one task.

    The seed that the function receives depends on the run's seed and the phase, so tasks that it makes from it, for
    example with `np.random.default_rng([seed, index])`, differ between training and evaluation.
    """

    function: RegressionTask

    def batch(self, seed: int, phase: Phase, indices: Sequence[int]) -> TaskBatch:
        """The tasks of these indices, stacked, float32.

        Raises:
            InputError: If the function returns anything but four arrays of the same shapes for every task, with x and y
                of the same length, and finite numbers.
        """
        own_seed = Draw(seed, phase).integers(Purpose.TASKS, 1)[0]
        tasks = [self._task(own_seed, index) for index in indices]
        for index, task in zip(indices, tasks, strict=True):
            if (got := [a.shape for a in task]) != (expected := [a.shape for a in tasks[0]]):
                raise InputError(
                    f"every task needs arrays of the same shapes: task {indices[0]} has {_shapes(expected)}, "
                    f"task {index} has {_shapes(got)}"
                )
        return TaskBatch(*(_float(np.stack(arrays)) for arrays in zip(*tasks, strict=True)))

    def _task(self, seed: int, index: int) -> list[Array]:
        """The arrays of one task, one column where the function gave none."""
        returned = self.function(seed, index)
        try:
            arrays = [np.asarray(value, dtype=np.float64) for value in returned]
        except (TypeError, ValueError) as error:
            raise InputError(f"task {index}: its arrays cannot be read as numbers ({error})") from error
        arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
        if len(arrays) != len(TaskBatch._fields) or not all(array.ndim and len(array) for array in arrays):
            raise InputError(
                f"task {index}: the function must return support_x, support_y, query_x and query_y with one row an "
                f"example, got {len(arrays)} arrays of shapes {_shapes([array.shape for array in arrays])}"
            )
        for name, array in zip(TaskBatch._fields, arrays, strict=True):
            if not np.isfinite(array).all():
                raise InputError(f"task {index}: {name} has a number that is not finite")
        support_x, support_y, query_x, query_y = (array.shape for array in arrays)
        if (
            (support_x[0], query_x[0]) != (support_y[0], query_y[0])
            or support_x[1:] != query_x[1:]
            or support_y[1:] != query_y[1:]
        ):
            raise InputError(
                f"task {index}: x and y need as many rows, support and query as many columns, "
                f"got {_shapes([array.shape for array in arrays])}"
            )
        return arrays


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)


def _float(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
