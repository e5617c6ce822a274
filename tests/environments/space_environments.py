"""Environments with arbitrary spaces, which worker processes can import."""

import json
import zlib
from collections.abc import Sequence
from copy import deepcopy

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space

from maml_rl.envs.batched import TaskMDP

OBSERVATIONS = Box(-1.0, 1.0, (2,), np.float32)
ACTIONS = Box(-1.0, 1.0, (1,), np.float32)
TASKS = Box(-1.0, 1.0, (1,), np.float32)


class Still(TaskMDP):
    """A process that stands still; the reward is how near an action is to the sum of the task."""

    def __init__(self, tasks: Space = TASKS, observations: Space = ACTIONS) -> None:
        self.observation_space, self.action_space, self.task_space = observations, ACTIONS, tasks

    def initial(self, generators: Sequence[np.random.Generator]) -> np.ndarray:
        return np.stack([generator.uniform(-1, 1, 1) for generator in generators])

    def transition(self, states: np.ndarray, actions: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return states

    def observation(self, states: np.ndarray) -> np.ndarray:
        return states.astype(np.float32)

    def reward_terms(self, states: np.ndarray, actions: np.ndarray, next_states: np.ndarray, tasks: np.ndarray) -> dict:
        weights = np.arange(1, tasks[0].size + 1)
        return {"distance": -np.abs(actions[:, 0] - tasks.reshape(len(tasks), -1) @ weights)}


class Spaces(gymnasium.Env):
    """Observes at random; the reward is how near an action is to a number that depends on every part of the task."""

    def __init__(
        self,
        observations: Space = OBSERVATIONS,
        actions: Space = ACTIONS,
        tasks: Space = TASKS,
        steps: int | None = None,
    ) -> None:
        self.observation_space, self.action_space, self.task_space = map(deepcopy, (observations, actions, tasks))
        self.task = self.task_space.sample()
        self.steps = steps

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.goal = zlib.crc32(json.dumps(self.task_space.to_jsonable([self.task])).encode()) / 2**32
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.taken = 0
        return self.observation_space.sample(), {}

    def step(self, action: object) -> tuple:
        assert self.action_space.contains(np.asarray(action) if isinstance(self.action_space, Box) else action), action
        self.taken += 1
        reward = -abs(float(np.sum(action)) - self.goal)
        return self.observation_space.sample(), reward, False, self.taken == self.steps, {}


PICTURES = Box(0, 255, (8, 8, 1), np.uint8)
gymnasium.register("OfPictures-v0", "space_environments:Spaces", max_episode_steps=3, kwargs={"observations": PICTURES})
