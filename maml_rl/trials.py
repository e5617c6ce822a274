"""Trials: several episodes of one task in a row, as an agent with a memory sees them (Duan et al. 2016, section 2.2).

To the agent a trial is one long episode. It observes its last action and what came of it, and must find out from that
which task it has. So an ordinary algorithm for recurrent policies, trained on trials, learns to adapt (RL^2).
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from maml_rl.errors import InputError, one_line
from maml_rl.tasks import episode_limit

_Array = NDArray[Any]


class Trial(VectorWrapper[_Array, Any, Any, Any, Any]):
    """Sub-environments whose episode is a trial: `episodes` episodes of one task.

    An observation is the environment's own, then the last action, the last reward and whether it ended an episode, in
    one vector of float32. A Discrete action is one-hot, one of a Box clipped to its bounds, as it was carried out. All
    of these are 0 at the beginning of a trial.

    When an episode within a trial ends, the next one begins in the same step: the observation is its first one, with
    the end marked. The end of the last one ends the trial, as `terminated` even if a time limit ended it, since nothing
    follows that its value could stand for. A trial that has ended waits for `reset`, as the environment's episodes do.
    `info` holds the environment's terms.

    Args:
        envs: Sub-environments that do not reset themselves, as `maml_rl.tasks.vectorize` makes them.
        episodes: Episodes of a trial, n.
        reward_scale: Factor on the reward in the observation; the reward to learn from stays as it is.
        signals: Whether the last action, the last reward and the end are observed.

    Raises:
        InputError: If the sub-environments reset themselves, there is less than one episode, or an observation or an
            action cannot be made a vector.
    """

    def __init__(
        self, envs: VectorEnv[Any, Any, Any], episodes: int, reward_scale: float = 1.0, signals: bool = True
    ) -> None:
        super().__init__(envs)
        if envs.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED:
            raise InputError(f"{one_line(envs)} resets itself: use maml_rl.tasks.vectorize with processes")
        if episodes < 1:
            raise InputError(f"a trial needs at least 1 episode, got {episodes}")
        self.episodes, self.reward_scale, self.signals = episodes, reward_scale, signals
        self._actions = envs.single_action_space
        sizes = [_size(space) for space in (envs.single_observation_space, self._actions)]
        size = sum(sizes) + 2 if signals else sizes[0]
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)
        self._action_size = sizes[1]
        self.episode: NDArray[np.int64] = np.zeros(envs.num_envs, np.int64)
        """Which episode of its trial each sub-environment is in, from 0, `[num_envs]`; n once the trial has ended."""

    @property
    def steps(self) -> int:
        """Steps of a trial whose episodes all last until their time limit.

        Raises:
            InputError: If there is no time limit.
        """
        return self.episodes * episode_limit(self.env)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[_Array, dict[str, Any]]:
        """Begins a trial with the assigned task in every sub-environment, or in those of `options["reset_mask"]`."""
        observations, info = self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        self.episode[mask] = 0
        return self._observed(observations, np.zeros((self.num_envs, self._action_size + 2))), info

    def step(self, actions: Any) -> tuple[_Array, Any, Any, Any, dict[str, Any]]:
        """Takes one step of each trial that is running."""
        running = self.episode < self.episodes
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        ended = (terminated | truncated) & running
        self.episode[ended] += 1
        over = self.episode >= self.episodes
        if (follows := ended & ~over).any():
            observations, _ = self.env.reset(options={"reset_mask": follows})
        signals = [self._carried_out(actions), self.reward_scale * rewards[:, None], ended[:, None]]
        observed = self._observed(observations, np.concatenate(signals, axis=1))
        return observed, rewards, over, np.zeros_like(over), info

    def _observed(self, observations: Any, signals: _Array) -> _Array:
        flat = _flat(self.env.single_observation_space, observations)
        return (np.concatenate([flat, signals], axis=1) if self.signals else flat).astype(np.float32)

    def _carried_out(self, actions: Any) -> _Array:
        if isinstance(self._actions, spaces.Box):
            actions = np.clip(actions, self._actions.low, self._actions.high)
        return _flat(self._actions, actions)


def _size(space: spaces.Space[Any]) -> int:
    """Numbers in the vector of an element of a space.

    Raises:
        InputError: If `gymnasium.spaces.flatten` makes no vector of it.
    """
    try:
        return spaces.flatdim(space)
    except (NotImplementedError, ValueError) as error:
        raise InputError(f"a trial needs observations and actions that are vectors, not {one_line(space)}") from error


def _flat(space: spaces.Space[Any], batch: Any) -> _Array:
    """Vectors `[n, size]` of a batch of elements of a space."""
    if isinstance(space, spaces.Box):
        return np.asarray(batch).reshape(len(batch), -1)
    if isinstance(space, spaces.Discrete):
        return np.asarray(np.eye(int(space.n))[np.asarray(batch) - space.start])
    return np.stack([np.asarray(spaces.flatten(space, element)) for element in batch])
