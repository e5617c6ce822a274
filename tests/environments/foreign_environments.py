"""Environments as other libraries define them; the tests let processes import this module."""

import random

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class GymBox:
    """A Box of Gym, which is none of Gymnasium's."""

    def __init__(self, low: float, high: float, shape: tuple, dtype: type) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.low, self.high = np.full(shape, low, dtype), np.full(shape, high, dtype)


class GymDiscrete:
    """A Discrete of Gym."""

    def __init__(self, n: int) -> None:
        self.n, self.shape, self.dtype = n, (), np.dtype(np.int64)


class Goal:
    """As in ProMP: an array as task, `set_task`, NumPy's global generator, Gym's old interface and spaces."""

    observation_space = GymBox(-np.inf, np.inf, (2,), np.float32)
    action_space = GymBox(-1.0, 1.0, (2,), np.float32)

    def sample_tasks(self, n_tasks: int) -> np.ndarray:
        return np.random.uniform(-1.0, 1.0, (n_tasks, 2))  # noqa: NPY002

    def set_task(self, task: np.ndarray) -> None:
        assert isinstance(task, np.ndarray)
        assert task.dtype == np.float64
        self.goal = task

    def reset(self) -> np.ndarray:
        self.state = np.random.normal(0.0, 0.1, 2)  # noqa: NPY002
        return self.state

    def step(self, action: np.ndarray) -> tuple:
        self.state = self.state + 0.1 * np.clip(action, -1.0, 1.0)
        distance = np.linalg.norm(self.state - self.goal)
        return self.state, -distance, bool(distance < 0.05), {}


class Direction:
    """As in learn2learn: dicts of integers, `set_task`, a generator from `seed`; the time limit is among `done`."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = GymDiscrete(3)
    task_type = int

    def __init__(self, limit: int = 8) -> None:
        self.limit = limit
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.np_random = np.random.RandomState(seed)

    def sample_tasks(self, num_tasks: int) -> list:
        return [{"direction": int(d)} for d in 2 * self.np_random.binomial(1, 0.5, num_tasks) - 1]

    def set_task(self, task: dict) -> None:
        assert type(task["direction"]) is int
        self.direction = task["direction"]

    def reset(self) -> np.ndarray:
        self.x, self.steps = self.np_random.normal(0.0, 0.1, 1), 0
        return self.x

    def step(self, action: int) -> tuple:
        self.x, self.steps = self.x + 0.1 * (action - 1), self.steps + 1
        return self.x, self.direction * 0.1 * (action - 1), self.steps == self.limit, {"TimeLimit.truncated": True}


class Velocity(gymnasium.Env):
    """As in later libraries: dicts of floats and lists, `reset_task`, Gymnasium's interface and generator."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def sample_tasks(self, num_tasks: int) -> list:
        return [{"velocity": v, "wind": [0.1 * v, 0.0]} for v in self.np_random.uniform(0.0, 2.0, num_tasks).tolist()]

    def reset_task(self, task: dict) -> None:
        assert type(task["velocity"]) is float
        assert type(task["wind"]) is list
        self.task_now = task

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.v = self.np_random.normal(0.0, 0.1, 1).astype(np.float32)
        return self.v, {}

    def step(self, action: np.ndarray) -> tuple:
        self.v = self.v + 0.1 * action
        return self.v, float(-abs(self.v[0] - self.task_now["velocity"])), False, False, {}


class Number(Velocity):
    """Tasks that are numbers of Python."""

    def sample_tasks(self, num_tasks: int) -> list:
        return self.np_random.integers(1, 5, num_tasks).tolist()

    def reset_task(self, task: int) -> None:
        assert type(task) is int
        self.task_now = {"velocity": task}


class Gusty(Goal):
    """Everything from the global generators, Python's and NumPy's, also while an episode runs."""

    def sample_tasks(self, n_tasks: int) -> np.ndarray:
        return np.array([[random.uniform(-1.0, 1.0), random.gauss(0.0, 1.0)] for _ in range(n_tasks)])

    def step(self, action: np.ndarray) -> tuple:
        return super().step(action + random.gauss(0.0, 0.1) + np.random.normal(0.0, 0.1, 2))  # noqa: NPY002


class Unseeded(Velocity):
    """Tasks from a generator that nobody can seed."""

    def sample_tasks(self, num_tasks: int) -> list:
        return np.random.default_rng().uniform(0.0, 2.0, num_tasks).tolist()


class Named(Velocity):
    """Tasks that are names."""

    def sample_tasks(self, num_tasks: int) -> list:
        return ["reach"] * num_tasks


class Without(gymnasium.Env):
    """An environment that takes no task."""

    observation_space, action_space = Velocity.observation_space, Discrete(2)


class Growing(Velocity):
    """Tasks whose shape is not always the same."""

    def sample_tasks(self, num_tasks: int) -> list:
        return [np.zeros(self.np_random.integers(1, 9)) for _ in range(num_tasks)]


for _class in (Goal, Direction, Velocity, Number, Gusty, Unseeded, Named, Without, Growing):
    gymnasium.register(
        f"foreign/{_class.__name__}ForTests-v0",
        entry_point="envs.adapters:SampledTaskEnv",
        max_episode_steps=8,
        kwargs={"env": f"foreign_environments:{_class.__name__}"},
    )
