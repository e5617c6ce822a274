"""Environments as others write them, without any code of this package; the tests let processes import this module."""

import multiprocessing
import os
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TimeLimit


class Walk(gymnasium.Env):
    """A point on a line that is pulled to its task; it ends early at the far side, and then must not be stepped.

    It returns the same array every time, and infos that can be neither pickled nor batched. It writes its process id
    into the directory `pids` if that exists.
    """

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    task_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, seconds: float = 0.0) -> None:
        self.task = np.zeros(1, np.float32)
        self.seconds = seconds
        self.running = False
        if multiprocessing.parent_process() is not None:
            self.note_process()

    def note_process(self) -> None:
        if Path("pids").is_dir():
            (Path("pids") / str(os.getpid())).touch()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.goal = self.task
        self.state = np.array([self.np_random.normal(0.0, 0.3), 0.0])
        self.running = True
        return self.state, {"anything": lambda: None, "nested": {"deep": {"a": 1}}}

    def step(self, action: np.ndarray) -> tuple:
        assert self.running, "stepped after the end of an episode"
        assert self.action_space.contains(action)
        time.sleep(self.seconds)
        self.state += [0.3 * action[0], 1.0]
        terminated = bool(self.state[0] > 0.8)
        self.running = not terminated and self.state[1] < 10
        info = {"nested": {"deep": self}, "number": np.float32(self.state[1]), "shape": np.zeros(int(self.state[1]))}
        return self.state, np.float32(-abs(self.state[0] - self.goal[0])), terminated, False, info


class Choice(Walk):
    """Walk with two actions, 1 and 2, and tasks that are dicts."""

    action_space = Discrete(2, start=1)
    task_space = gymnasium.spaces.Dict({"goal": Walk.task_space})

    def __init__(self) -> None:
        super().__init__()
        self.task = {"goal": np.zeros(1, np.float32)}

    def reset(self, **kwargs: object) -> tuple:
        result = super().reset(**kwargs)
        self.goal = self.task["goal"]
        return result

    def step(self, action: int) -> tuple:
        assert self.action_space.contains(action)
        self.action_space = Walk.action_space
        result = super().step(np.array([2 * action - 3], np.float32))
        self.action_space = Choice.action_space
        return result


class UnpicklableError(Exception):
    """An exception that cannot be sent to another process, as many libraries have."""

    def __init__(self, message: str, handle: object) -> None:
        super().__init__(message)
        self.handle = handle


class Failing(Walk):
    """Walk that fails in its third step if its task is above 0, in the way that is named."""

    def __init__(self, way: str = "raise", tasks_above: float = 0.0) -> None:
        super().__init__()
        self.way, self.tasks_above = way, tasks_above
        if multiprocessing.parent_process() is not None:
            if way == "construct":
                raise RuntimeError("the port is in use")
            if way == "exit at once":
                sys.exit(4)
            if way == "hang at once":
                time.sleep(600.0)

    def reset(self, **kwargs: object) -> tuple:
        if self.way == "hang in reset" and self.task[0] > self.tasks_above:
            time.sleep(600.0)
        return super().reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.state[1] == 3 and self.goal[0] > self.tasks_above:
            if self.way == "raise":
                raise UnpicklableError("100 % broken: %s %d", lambda: None)
            if self.way == "lines":
                raise ValueError("the leg is broken:\n  buy a new one")
            if self.way == "exit":
                sys.exit(3)
            if self.way == "hang in step":
                time.sleep(600.0)
            if self.way == "shape":
                return np.zeros(5), reward, False, False, info
            if self.way == "reward":
                return observation, None, False, False, info
        return observation, reward, terminated, truncated, info


class WithoutTorch(Walk):
    """Walk that cannot be built in a worker process where PyTorch has been imported."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        assert multiprocessing.parent_process() is None or "torch" not in sys.modules, "torch was imported"


class WithoutTask(gymnasium.Env):
    """An environment with a task_space but no task."""

    observation_space, action_space, task_space = Walk.observation_space, Walk.action_space, Walk.task_space


class Outside(Walk):
    """Walk whose task_space draws values that it does not contain."""

    class Tasks(Box):
        """A Box that draws beyond its bounds."""

        def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
            return np.array([7.0], np.float32)

    task_space = Tasks(-1.0, 1.0, (1,), np.float32)


class Eager(Walk):
    """Walk that applies a new task at once, in the middle of an episode."""

    goal = property(lambda self: self.task, lambda *_: None)


def limited() -> gymnasium.Env:
    """Walk with its own wrapper for the time limit."""
    return TimeLimit(Walk(), max_episode_steps=4)


for _class in (Walk, Choice, Eager, Failing, WithoutTask, Outside):
    gymnasium.register(f"{_class.__name__}ForTests-v0", f"plain_environments:{_class.__name__}", max_episode_steps=10)
gymnasium.register("SlowForTests-v0", "plain_environments:WithoutTorch", max_episode_steps=10, kwargs={"seconds": 0.01})
gymnasium.register("EndlessWalkForTests-v0", "plain_environments:Walk")
gymnasium.register("LimitedWalkForTests-v0", "plain_environments:limited")
