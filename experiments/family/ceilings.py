"""What adaptation could reach at best: a planner that knows p(T) acts after K uniformly random episodes.

If the posterior of a task is known in closed form, no policy that has seen the same episodes returns more on average
than one that is best for the posterior. In a bandit, it pulls the arm with the highest posterior mean. In a finite
process, it plans on the posterior means of rewards and transitions. This plan ignores that the transitions stay
uncertain over the episode, which a fixed plan of ten steps can hardly use.

It is the ceiling of an adaptation on uniformly random episodes. A meta-learned policy may explore better than that.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.bandits import Bandit
from maml_rl.envs.tabular import TabularMDP
from maml_rl.tasks import Task, assign_tasks

Floats = NDArray[np.float64]


class _Episodes(NamedTuple):
    """Random episodes of M tasks, the k-th of each in row k."""

    states: NDArray[np.int64]  # [K, T + 1, M]   index of the largest component of the observation
    actions: NDArray[np.int64]  # [K, T, M]
    rewards: Floats  # [K, T, M]


def planned_returns(env_id: str, tasks: Sequence[Task], episodes: Sequence[int], seed: int = 0) -> Floats | None:
    """Expected return of the planner in each task after each number of random episodes, `[len(episodes), M]`.

    With 0 episodes it knows only the prior, under which all actions are alike. The returns are exact given the
    episodes.

    Args:
        env_id: An environment.
        tasks: M of its tasks.
        episodes: Numbers of random episodes, K.
        seed: Seed of the episodes.

    Returns:
        None if no posterior is known for the environment's tasks.
    """
    envs: Any = gymnasium.make_vec(env_id, len(tasks))
    mdp, horizon = getattr(envs, "mdp", None), envs.spec.max_episode_steps
    stacked = np.asarray(tasks, np.float64)
    try:
        if isinstance(mdp, Bandit) and mdp.rewards == "bernoulli":
            seen = _random_episodes(envs, tasks, max(episodes), horizon, seed)
            return np.stack([_bandit(seen, k, stacked, horizon) for k in episodes])
        if isinstance(mdp, TabularMDP):
            seen = _random_episodes(envs, tasks, max(episodes), horizon, seed)
            return np.stack([_process(seen, k, stacked, horizon, mdp.reward_std) for k in episodes])
        return None
    finally:
        envs.close()


def _random_episodes(envs: Any, tasks: Sequence[Task], count: int, horizon: int, seed: int) -> _Episodes:
    """Episodes under a uniform policy."""
    rng = np.random.default_rng(seed)
    assign_tasks(envs, tasks)
    shape, actions = (count, horizon, len(tasks)), envs.single_action_space.n
    states = np.zeros((count, horizon + 1, len(tasks)), np.int64)
    chosen, rewards = rng.integers(0, actions, shape), np.zeros(shape)
    for k in range(count):
        states[k, 0] = envs.reset(seed=[int(s) for s in rng.integers(2**31, size=len(tasks))])[0].argmax(1)
        for t in range(horizon):
            observations, rewards[k, t], *_ = envs.step(chosen[k, t])
            states[k, t + 1] = observations.argmax(1)
    return _Episodes(states, chosen, rewards)


def _bandit(seen: _Episodes, k: int, means: Floats, pulls: int) -> Floats:
    """Return of the arm with the highest posterior mean: (wins + 1) / (pulls + 2) under the prior U(0, 1)."""
    rows = np.broadcast_to(np.arange(len(means)), seen.actions[:k].shape)
    count, wins = np.zeros_like(means), np.zeros_like(means)
    np.add.at(count, (rows, seen.actions[:k]), 1.0)
    np.add.at(wins, (rows, seen.actions[:k]), seen.rewards[:k])
    best = ((wins + 1) / (count + 2)).argmax(1)
    returns: Floats = pulls * means[np.arange(len(means)), best]
    return returns


def _process(seen: _Episodes, k: int, processes: Floats, horizon: int, reward_std: float) -> Floats:
    """Return of the plan that is best for the posterior means, in the true processes `[M, S, A, S + 1]`.

    Transitions have the prior Dirichlet(1, ..., 1), so their means are (count + 1) / (n + S); mean rewards have the
    prior N(1, 1) and normal noise, so theirs are (1 + sum / std²) / (1 + n / std²).
    """
    chances, rewards = processes[..., :-1], processes[..., -1]
    index = np.broadcast_to(np.arange(len(processes)), seen.actions[:k].shape)
    place = (index, seen.states[:k, :-1], seen.actions[:k])
    count, total = np.zeros_like(chances), np.zeros_like(rewards)
    np.add.at(count, (*place, seen.states[:k, 1:]), 1.0)
    np.add.at(total, place, seen.rewards[:k])
    visits = count.sum(-1)
    believed = (count + 1) / (visits[..., None] + chances.shape[-1])
    expected = (1 + total / reward_std**2) / (1 + visits / reward_std**2)
    planned = np.zeros(rewards.shape[:2])
    actual = np.zeros_like(planned)
    for _ in range(horizon):  # backward induction: the plan by what is believed, its value by what is true
        values = expected + np.einsum("msan,mn->msa", believed, planned)
        action = values.argmax(-1)[..., None]
        planned = np.take_along_axis(values, action, -1)[..., 0]
        values = rewards + np.einsum("msan,mn->msa", chances, actual)
        actual = np.take_along_axis(values, action, -1)[..., 0]
    start: Floats = actual[:, 0]  # every episode begins in state 0
    return start
