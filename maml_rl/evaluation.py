"""Return after 0, 1, 2, ... gradient steps on held-out tasks, as in Figures 4 and 5 of Finn, Abbeel, Levine 2017."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from maml_rl.config import RLEvaluation, RLMeta
from maml_rl.errors import NonFiniteError
from maml_rl.learner import Validation, validated
from maml_rl.meta_rl import adapt_each, advantage_batches
from maml_rl.parallel import TaskThreads, mean_over_tasks
from maml_rl.policies import Policy, policy_rates
from maml_rl.ranks import ALONE, Ranks, Share
from maml_rl.rates import theta
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import Task, TaskVectorEnv, evaluation_tasks, task_space
from maml_rl.types import Params, Trajectories, laid_out, repeat


class SeededTasks(NamedTuple):
    """Tasks to adapt to, and the indices that seed their episodes, together with the evaluation's seed.

    Some of an evaluation's tasks have the same episodes without the others, if they keep their indices.
    """

    tasks: Sequence[Task]  # M
    indices: Sequence[int] | Share | None = None  # [M]   each task's own; 0 to M - 1 if None; a share of more tasks
    phase: Phase = Phase.EVALUATION

    def of_rank(self, ranks: Ranks) -> "SeededTasks":
        """One rank's share of all tasks of an evaluation.

        Raises:
            InputError: If there are more ranks than tasks.
        """
        count = len(self.tasks)
        share = ranks.share(count, f"an evaluation on {count} task{'' if count == 1 else 's'}", "take more tasks")
        return self if share is None else self._replace(tasks=share.of(self.tasks), indices=share)


def adaptation(
    policy: Policy,
    meta: Params,
    envs: TaskVectorEnv,
    task_set: SeededTasks,
    config: RLMeta,
    evaluation: RLEvaluation,
    threads: TaskThreads,
) -> Iterator[tuple[Params, Trajectories]]:
    """Each task's parameters after 0, 1, ..., `gradient_steps` gradient steps, `[M, ...]`, and its episodes.

    Yields one pair at a time, as they are sampled.

    Args:
        policy: The policy.
        meta: Meta-parameters: theta, and step sizes where they are learned.
        envs: Task-distributed sub-environments, any number of them.
        task_set: M tasks.
        config: Settings of the inner update that the policy was trained for.
        evaluation: Settings of the evaluation; its `later_lr_factor` multiplies learned step sizes as well. Gradient
            steps use the first `step_episodes` of each task's episodes.
        threads: Threads that share the tasks.
    """
    tasks, indices, phase = task_set
    share = indices if isinstance(indices, Share) else None
    meta = laid_out(meta)
    rates = policy_rates(policy, theta(meta), config)
    params = share.repeated(theta(meta)) if share else repeat(theta(meta), len(tasks))
    for step in range(evaluation.gradient_steps + 1):
        draw = Draw(evaluation.seed, phase, step=step)
        trajectories = collect(envs, policy, params, tasks, evaluation.episodes, draw, indices)
        yield params, trajectories
        if step < evaluation.gradient_steps:
            used = Trajectories(*(values[:, : evaluation.step_episodes] for values in trajectories))
            batches, _ = advantage_batches(policy, used, config, threads)
            of_step = rates.at(meta, step, evaluation.factor(step, config.inner_steps))
            params = adapt_each(policy, params, batches, config, of_step, threads)
            params = share.placed(params) if share else params


def returns_by_step(steps: Iterable[tuple[Params, Trajectories]], ranks: Ranks = ALONE) -> NDArray[np.float64]:
    """Mean return of the tasks of all ranks after 0, 1, ... gradient steps, `[S + 1, M]`.

    Args:
        steps: `adaptation` to the tasks of this rank.
        ranks: The ranks.

    Raises:
        NonFiniteError: If something is not finite on any of the ranks.
    """
    outcome: NDArray[np.float64] | NonFiniteError
    try:
        outcome = np.stack([task_returns(trajectories) for _, trajectories in steps])
    except NonFiniteError as error:  # the other ranks have to know of it
        outcome = error
    outcomes = ranks.gather_objects(outcome)
    for found in outcomes:
        if isinstance(found, NonFiniteError):
            raise found
    return np.concatenate([found for found in outcomes if not isinstance(found, NonFiniteError)], axis=1)


def task_returns(trajectories: Trajectories) -> NDArray[np.float64]:
    """Mean return of each task over its episodes, `[M]`."""
    means: torch.Tensor = trajectories.returns.double().mean(1)
    return means.cpu().numpy()


def with_step_size(
    policy: Policy,
    meta: Params,
    envs: TaskVectorEnv,
    config: RLMeta,
    evaluation: RLEvaluation,
    threads: TaskThreads,
    ranks: Ranks = ALONE,
) -> tuple[RLMeta, Validation | None]:
    """Settings with the step size to adapt with, and how it was chosen if training had none; see `validated`.

    A step size is scored by the mean return over validation tasks and gradient steps, from the first on.

    Args:
        policy: The policy.
        meta: Meta-parameters.
        envs: Task-distributed sub-environments, any number of them.
        config: Settings of the inner update that the policy was trained for.
        evaluation: Settings of the evaluation.
        threads: Threads that share the tasks.
        ranks: Ranks that share the tasks; all of them have to call this.

    Raises:
        InputError: If there are more ranks than tasks.
        NonFiniteError: If none of the step sizes to choose from has a finite return.
    """

    def mean_return(settings: RLMeta) -> float:
        tasks = evaluation_tasks(task_space(envs), evaluation.validation_tasks, evaluation.seed, Phase.VALIDATION)
        task_set = SeededTasks(tasks, phase=Phase.VALIDATION).of_rank(ranks)
        steps = adaptation(policy, meta, envs, task_set, settings, evaluation, threads)
        returns = returns_by_step(steps, ranks)[1:]  # [gradient steps, M]
        return float(mean_over_tasks(torch.from_numpy(returns.mean(0)).unbind()))

    return validated(config, evaluation, mean_return, higher_is_better=True)
