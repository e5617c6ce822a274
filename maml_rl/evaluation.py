"""Return after 0, 1, 2, ... gradient steps on held-out tasks, as in Figures 4 and 5 of Finn, Abbeel, Levine 2017."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from maml_rl.config import MetaConfig, require
from maml_rl.errors import NonFiniteError
from maml_rl.meta_rl import adapt_each, advantage_batches
from maml_rl.parallel import TaskThreads
from maml_rl.policies import Policy
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import Task, TaskVectorEnv, evaluation_tasks, task_space
from maml_rl.types import Params, Trajectories, laid_out, repeat


@dataclass(frozen=True)
class EvaluationConfig:
    """How a trained policy is evaluated."""

    tasks: int = 40
    """Held-out tasks (paper: 40)."""
    gradient_steps: int = 3
    """Gradient steps, with fresh episodes for each (paper: 3; navigation 4)."""
    episodes: int = 20
    """Episodes of each task for each gradient step (paper: 20; navigation 40)."""
    later_lr_factor: float = 0.5
    """Factor on the inner step size after the first gradient step (the paper's code: 0.5; ant direction 0.01)."""
    seed: int = 0
    """Seed of the held-out tasks and of everything random in the evaluation; no training draws from it."""
    validation_tasks: int = 20
    """Further held-out tasks, on which the step size is chosen for a policy that was trained without inner updates."""
    inner_lrs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    """Step sizes that it is chosen from (the paper: 0.1, navigation 0.5; random policy: half-cheetah 0.5, ant 1)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("tasks", self.tasks, self.tasks >= 2, "at least 2")
        require("gradient_steps", self.gradient_steps, self.gradient_steps >= 0, "at least 0")
        require("episodes", self.episodes, self.episodes >= 1, "at least 1")
        require("later_lr_factor", self.later_lr_factor, self.later_lr_factor > 0, "above 0")
        require("seed", self.seed, self.seed >= 0, "at least 0")
        require("validation_tasks", self.validation_tasks, self.validation_tasks >= 1, "at least 1")
        lrs = self.inner_lrs
        require("inner_lrs", str(lrs), len(lrs) > 0 and min(lrs) > 0, "one or more, each above 0")

    def inner_lr(self, trained: float, step: int) -> float:
        """Step size after `step` gradient steps, of a policy trained with step size `trained`."""
        return trained * (1.0 if step == 0 else self.later_lr_factor)

    def step_sizes(self, trained: float) -> list[float]:
        """Step size of each gradient step, of a policy trained with step size `trained`."""
        return [self.inner_lr(trained, step) for step in range(self.gradient_steps)]


def adaptation(
    policy: Policy,
    theta: Params,
    envs: TaskVectorEnv,
    tasks: Sequence[Task],
    meta: MetaConfig,
    config: EvaluationConfig,
    threads: TaskThreads,
    phase: Phase = Phase.EVALUATION,
) -> Iterator[tuple[Params, Trajectories]]:
    """Each task's parameters after 0, 1, ..., `gradient_steps` gradient steps, `[M, ...]`, and its episodes.

    One pair at a time, as they are sampled.

    Args:
        policy: The policy.
        theta: Parameters before adaptation.
        envs: Task-distributed sub-environments, any number of them.
        tasks: M tasks.
        meta: Settings of the inner update that the policy was trained for.
        config: Settings of the evaluation.
        threads: Threads that share the tasks.
        phase: Part of the run, which seeds resets and actions.
    """
    params = repeat(laid_out(theta), len(tasks))
    for step in range(config.gradient_steps + 1):
        draw = Draw(config.seed, phase, step=step)
        trajectories = collect(envs, policy, params, tasks, config.episodes, draw)
        yield params, trajectories
        if step < config.gradient_steps:
            batches, _ = advantage_batches(policy, trajectories, meta, threads)
            params = adapt_each(policy, params, batches, meta, threads, config.inner_lr(meta.inner_lr, step))


def task_returns(trajectories: Trajectories) -> NDArray[np.float64]:
    """Mean return of each task over its episodes, `[M]`."""
    means: torch.Tensor = trajectories.returns.double().mean(1)
    return means.cpu().numpy()


class Validation(NamedTuple):
    """The choice of a step size on validation tasks."""

    inner_lrs: tuple[float, ...]
    mean_returns: list[float | None]  # of each, over tasks and gradient steps from the first on; None: not finite

    @property
    def best(self) -> float:
        """The step size with the highest mean return.

        Raises:
            NonFiniteError: If none has a finite one.
        """
        finite = [(value, lr) for value, lr in zip(self.mean_returns, self.inner_lrs, strict=True) if value is not None]
        if not finite:
            raise NonFiniteError(f"returns after gradient steps of any of the sizes {self.inner_lrs} are not finite")
        return max(finite)[1]


def validate(
    policy: Policy,
    theta: Params,
    envs: TaskVectorEnv,
    meta: MetaConfig,
    config: EvaluationConfig,
    threads: TaskThreads,
    before_each: Callable[[], object] | None = None,
) -> Validation:
    """Mean return with each of `config.inner_lrs`, on validation tasks.

    A policy that was trained without inner updates has no step size of its own, so the comparison with it is fair only
    if it is given a good one, and honest only if that is chosen on other tasks than those of the evaluation.

    Args:
        policy: The policy.
        theta: Parameters before adaptation.
        envs: Task-distributed sub-environments, any number of them.
        meta: Settings of the inner update; its step size is not used.
        config: Settings of the evaluation, with at least one gradient step.
        threads: Threads that share the tasks.
        before_each: Called before each step size is tried; what it raises ends the choice.
    """
    tasks = evaluation_tasks(task_space(envs), config.validation_tasks, config.seed, Phase.VALIDATION)

    def mean_return(inner_lr: float) -> float | None:
        if before_each:
            before_each()
        settings = replace(meta, inner_lr=inner_lr)
        try:
            steps = adaptation(policy, theta, envs, tasks, settings, config, threads, Phase.VALIDATION)
            return float(np.mean([task_returns(trajectories) for _, trajectories in steps][1:]))
        except NonFiniteError:
            return None

    return Validation(config.inner_lrs, [mean_return(inner_lr) for inner_lr in config.inner_lrs])


def with_step_size(
    policy: Policy,
    theta: Params,
    envs: TaskVectorEnv,
    meta: MetaConfig,
    config: EvaluationConfig,
    threads: TaskThreads,
    before_each: Callable[[], object] | None = None,
) -> tuple[MetaConfig, Validation | None]:
    """Settings with the step size to adapt with, and how it was chosen; see `validate` for the arguments.

    It is that of training. A policy that was trained without inner updates has none, and gets the best on validation
    tasks.

    Raises:
        NonFiniteError: If none of the step sizes to choose from has a finite return.
    """
    if meta.inner_steps or not config.gradient_steps:
        return meta, None
    validation = validate(policy, theta, envs, meta, config, threads, before_each)
    return replace(meta, inner_lr=validation.best), validation
