"""Meta-World's meta-learning benchmarks as task-distributed environments.

Yu et al. 2019 (arXiv 1910.10897) define the benchmarks, McLean et al. 2025 (arXiv 2505.11289) the release 3 that is
used here. Needs the package metaworld, which comes with the extra `metaworld` and is imported with this module only.
"""

from functools import cache
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Discrete

from maml_rl.envs.batched import Array

try:
    import metaworld
except ModuleNotFoundError as error:
    raise DependencyNotInstalled(f"{error}: pip install 'maml-rl[metaworld]'") from error


class MetaWorld(gymnasium.Env[Array, Array]):
    """A Sawyer arm at a table with objects, which has to discover which task to do, or where its goal is.

    ## Description

    The environments, goals, rewards and physics are Meta-World's own (release 3, reward version 2). In ML1 the tasks
    are 50 goals of one manipulation such as reaching or pushing; in ML10 they are 10 manipulations with 50 goals
    each. The tasks of the split `test` are other goals of the same manipulation in ML1, and 5 other manipulations
    with 50 goals each in ML10. All episodes of a task begin in the same way: `reset` draws nothing, and its seed has
    no effect.

    ## Action space

    `Box(-1, 1, (4,), float32)`, clipped: displacement of the gripper in x, y, z in units of 1 cm, and the force that
    closes it.

    ## Observation space

    `Box((39,), float64)`: position of the gripper (x, y, z in m), its opening from 0 to 1, position and quaternion of
    up to two objects (14, zeros where there are fewer); the same 18 numbers one step earlier; and three zeros, where
    Meta-World's multi-task benchmarks have the goal. Neither the goal nor the manipulation is observed.

    ## Task

    `Discrete(50 n)` for n manipulations: task i is goal i // n of manipulation i % n, in Meta-World's order, so that
    the first n tasks are of n different manipulations.

    ## Rewards

    Meta-World's shaped reward, from 0 to 10 in each step. `info` holds its terms and `success`, 1.0 in steps in which
    the goal is reached; an episode counts as solved if one of its steps does.

    ## Episode end

    Never terminates; truncated after 500 steps of 0.0125 s.

    ## Arguments

    - `benchmark`: `"ML10"`, `"ML25"`, `"ML45"`, or for ML1 the manipulation's name in Meta-World, such as `"reach-v3"`.
    - `split`: `"train"` or `"test"`.
    - `seed`: seed from which Meta-World draws the goals of both splits.
    - `render_mode`: `"rgb_array"` or None.

    Raises ValueError if there is no such benchmark or split.

    An environment keeps the physics of each manipulation that it has run: about 25 MB, loaded in 0.2 s. A process draws
    the goals once, which takes about 1 s for each manipulation of both splits.

    ## Version history

    - v3: Meta-World's release 3.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(
        self,
        benchmark: str,
        split: Literal["train", "test"] = "train",
        seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}")
        source = _benchmark(benchmark, seed)
        self._classes = source.train_classes if split == "train" else source.test_classes
        tasks = source.train_tasks if split == "train" else source.test_tasks
        goals = [[task for task in tasks if task.env_name == name] for name in self._classes]
        self._tasks = [task for tasks_of_one_goal in zip(*goals, strict=True) for task in tasks_of_one_goal]
        self.task_space = Discrete(len(self._tasks))
        self.render_mode = render_mode
        self._task = 0
        self._arms: dict[str, Any] = {}
        self._arm = self._arm_for(self._tasks[0].env_name)
        self.observation_space = self._arm.observation_space
        self.action_space = self._arm.action_space

    def _arm_for(self, name: str) -> Any:
        if name not in self._arms:
            self._arms[name] = self._classes[name](render_mode=self.render_mode)
        return self._arms[name]

    @property
    def task(self) -> int:
        """The task, as of the next `reset`.

        Raises:
            ValueError: On assignment, if the task is not in `task_space`.
        """
        return self._task

    @task.setter
    def task(self, task: int) -> None:
        if not self.task_space.contains(task):
            raise ValueError(f"task {task!r} is not in the task space {self.task_space}")
        self._task = int(task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begins an episode with the assigned task."""
        super().reset(seed=seed)
        task = self._tasks[self._task]
        self._arm = self._arm_for(task.env_name)
        self._arm.set_task(task)
        observation, info = self._arm.reset()
        return observation, info

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Takes one step; `info` holds the terms of the reward and `success`."""
        observation, reward, terminated, truncated, info = self._arm.step(np.clip(action, -1.0, 1.0))
        return observation, float(reward), terminated, truncated, info

    def render(self) -> Any:
        """Picture `[height, width, 3]` in mode `rgb_array`, else None."""
        return self._arm.render()

    def close(self) -> None:
        """Frees what drawing has allocated."""
        for arm in self._arms.values():
            arm.close()


@cache
def _benchmark(name: str, seed: int) -> Any:
    """Classes and tasks of a benchmark; drawing the goals resets every environment 50 times, so it is done once."""
    if name in metaworld.ML1.ENV_NAMES:
        return metaworld.ML1(name, seed=seed)
    if name in ("ML10", "ML25", "ML45"):
        return getattr(metaworld, name)(seed=seed)
    raise ValueError(f"there is no benchmark {name!r}: expected ML10, ML25, ML45 or a manipulation such as 'reach-v3'")
