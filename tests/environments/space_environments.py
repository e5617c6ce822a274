"""Environments of two steps with any spaces, and a wrapper as the documentation has it; processes can import them."""

import json
import zlib
from copy import deepcopy

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space

OBSERVATIONS = Box(-1.0, 1.0, (2,), np.float32)
ACTIONS = Box(-1.0, 1.0, (1,), np.float32)
TASKS = Box(-1.0, 1.0, (1,), np.float32)


class Spaces(gymnasium.Env):
    """Observes at random; the reward is how near an action is to a number that every part of the task decides."""

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
