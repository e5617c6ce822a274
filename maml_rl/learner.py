"""Common interface of both kinds of learning for training, evaluation, comparison and display: `Learner` and
`Curve`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.config import EvaluationConfig, MetaConfig
from maml_rl.errors import NonFiniteError
from maml_rl.statistics import Mean, mean_with_interval
from maml_rl.types import Params, State


class Metrics(NamedTuple):
    """Quantities to log for one meta-iteration; docs/metrics.md explains each."""

    values: dict[str, float]
    by_task: dict[str, Tensor]  # [M]   each task's contribution to those that are means over tasks


class Quantity(NamedTuple):
    """How a quantity is named and formatted."""

    unit: str
    scale: float  # of a value, for the unit
    digits: int  # after the decimal point
    higher_is_better: bool

    def text(self, value: float) -> str:
        """A value as tables show it, without its unit."""
        return f"{value * self.scale:.{self.digits}f}"


QUANTITIES = {
    "return": Quantity("", 1.0, 1, higher_is_better=True),
    "accuracy": Quantity("%", 100.0, 2, higher_is_better=True),
    "squared error": Quantity("", 1.0, 3, higher_is_better=False),
    "loss": Quantity("nats", 1.0, 3, higher_is_better=False),
}
"""By name. The unit of a return is that of the environment's rewards."""


class Validation(NamedTuple):
    """The choice of a step size on validation tasks, for a run that was trained without inner updates."""

    tasks: int
    inner_lrs: tuple[float, ...]
    scores: list[float | None]  # of each: mean over tasks and gradient steps from the first on; None: not finite
    higher_is_better: bool

    @property
    def best(self) -> float:
        """The step size with the best score.

        Raises:
            NonFiniteError: If none has a finite one.
        """
        finite = [(value, lr) for value, lr in zip(self.scores, self.inner_lrs, strict=True) if value is not None]
        if not finite:
            raise NonFiniteError(f"no result is finite after gradient steps of any of the sizes {self.inner_lrs}")
        if self.higher_is_better:
            return max(finite)[1]
        return min(finite, key=lambda pair: pair[0])[1]


AnyMeta = TypeVar("AnyMeta", bound=MetaConfig)


def validated(
    meta: AnyMeta, evaluation: EvaluationConfig, score: Callable[[AnyMeta], float], *, higher_is_better: bool
) -> tuple[AnyMeta, Validation | None]:
    """Settings with the step size to adapt with, and how it was chosen.

    The step size is that of training. A run that was trained without inner updates has none. Comparing with it is fair
    only if it gets a good step size, and honest only if that is chosen on tasks other than those of the evaluation.

    Args:
        meta: Settings of the training.
        evaluation: Settings of the evaluation, with the step sizes to choose from.
        score: What adaptation with some settings achieves on the validation tasks.
        higher_is_better: Whether the highest score is the best.

    Raises:
        NonFiniteError: If no step size has a finite score.
    """
    if meta.inner_steps or not evaluation.gradient_steps:
        return meta, None

    def finite_score(inner_lr: float) -> float | None:
        try:
            value = score(replace(meta, inner_lr=inner_lr))
        except NonFiniteError:
            return None
        return value if math.isfinite(value) else None

    scores = [finite_score(inner_lr) for inner_lr in evaluation.inner_lrs]
    validation = Validation(evaluation.validation_tasks, evaluation.inner_lrs, scores, higher_is_better)
    return replace(meta, inner_lr=validation.best), validation


class Curve(NamedTuple):
    """A quantity by number of gradient steps and held-out task."""

    of: str  # whose: THIS_RUN, RANDOM, or the name of a baseline
    quantity: str  # a key of QUANTITIES
    values: NDArray[np.float64]  # [S + 1, M]   after 0, 1, ..., S gradient steps; not finite where a task diverged
    inner_lr: tuple[float, ...] = ()  # [S]   step size of each gradient step; empty where step sizes are learned
    condition: str = ""  # under which it was measured, such as "5-shot"; empty if there is only one
    tasks: Sequence[Any] = ()  # [M]   as JSON values; empty where their index says all
    strata: Sequence[int] | None = None  # [M]   of each task, where they cover a finite space (`maml_rl.tasks.strata`)
    validation: Validation | None = None  # how the step size was chosen, where training had none

    @property
    def gradient_steps(self) -> int:
        """Gradient steps after the first value, S."""
        return len(self.values) - 1

    @property
    def name(self) -> str:
        """Whose it is, and under which condition."""
        return f"{self.of}, {self.condition}" if self.condition else self.of

    def means(self) -> list[Mean]:
        """Mean over tasks by gradient step, with its uncertainty over tasks; not finite where a task diverged."""
        with np.errstate(invalid="ignore", over="ignore"):
            return [mean_with_interval(values, self.strata) for values in self.values]

    def medians(self) -> NDArray[np.float64]:
        """Median over tasks by gradient step; what is not a number counts as the largest."""
        middle: NDArray[np.float64] = np.median(np.where(np.isnan(self.values), np.inf, self.values), axis=1)
        return middle

    def diverged(self) -> NDArray[np.float64]:
        """Share of tasks that are not finite, or worse than any task before adaptation, by gradient step."""
        share: NDArray[np.float64] = 1.0 - (self.values <= self.values[0].max()).mean(1)
        return share


THIS_RUN = "this run"
RANDOM = "random policy"


Settings = TypeVar("Settings", bound=EvaluationConfig, contravariant=True)
Advance = Callable[[float], object]
"""Takes the share of some work that has been done since its last call."""


class Learner(Protocol[Settings]):
    """A task distribution, a network, and a method that trains the network on the tasks.

    There are two: `RLLearner` (`maml_rl.reinforcement`) and `SupervisedLearner` (`maml_rl.supervised`). `MimicLearner`
    (`maml_rl.actor_mimic`) is an `RLLearner` with experts in place of rewards. Functions that need one kind, for
    example to adapt a policy to one task, take it by its own name. Use a learner as a context manager, or close it.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees what the learner holds, such as environments."""
        return  # nothing, if it holds nothing

    @property
    def constants(self) -> Params:
        """Tensors of the network that training never changes, such as statistics of observations."""
        ...

    @property
    def advice(self) -> Sequence[str]:
        """What a user should know before training, a line each."""
        ...

    def initial(self) -> State:
        """The state before the first iteration."""
        ...

    def iterate(self, state: State) -> tuple[State, Metrics]:
        """One meta-iteration, a function of the state alone.

        Raises:
            NonFiniteError: If a quantity is not finite; names iteration and quantity.
        """
        ...

    def summary(self, values: Mapping[str, float]) -> str:
        """What a progress bar shows of an iteration's metrics."""
        ...

    def evaluate(self, state: State, config: Settings, advance: Advance = lambda _: None) -> list[Curve]:
        """Results of the state on held-out tasks after each number of gradient steps; the main quantity comes first.

        Args:
            state: The state that training has reached.
            config: Settings, of this kind of learning.
            advance: Called with the share of the work that has been done since the last call.
        """
        ...


AnyLearner = Learner[Any]
"""A learner of either kind."""
