"""Environments as other libraries define them; the tests let processes import this module."""

import random

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from maml_rl.envs.adapters import SampledTaskEnv


class GymBox:
    """Gym's Box, which Gymnasium does not know."""

    def __init__(self, low: float, high: float, shape: tuple, dtype: type) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.low, self.high = np.full(shape, low, dtype), np.full(shape, high, dtype)


class GymDiscrete:
    """Gym's Discrete."""

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
    """As in learn2learn: dicts of integers, `set_task`, a generator from `seed`; `done` includes the time limit."""

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
        self.v = self.v + 0.1 * action + 0.01 * self.task_now.get("wind", [0.0])[0]
        return self.v, float(-abs(self.v[0] - self.task_now["velocity"])), False, False, {}


class Number(Velocity):
    """Tasks are Python integers. Its `seed` is a number too, not a method."""

    seed = 3

    def sample_tasks(self, num_tasks: int) -> list:
        return self.np_random.integers(1, 5, num_tasks).tolist()

    def reset_task(self, task: int) -> None:
        assert type(task) is int
        self.task_now = {"velocity": task}


class Gusty(Goal):
    """Draws everything from Python's and NumPy's global generators, also during an episode."""

    def sample_tasks(self, n_tasks: int) -> np.ndarray:
        return np.array([[random.uniform(-1.0, 1.0), random.gauss(0.0, 1.0)] for _ in range(n_tasks)])

    def step(self, action: np.ndarray) -> tuple:
        return super().step(action + random.gauss(0.0, 0.1) + np.random.normal(0.0, 0.1, 2))  # noqa: NPY002


class Unseeded(Velocity):
    """Tasks from a generator that cannot be seeded."""

    def sample_tasks(self, num_tasks: int) -> list:
        return np.random.default_rng().uniform(0.0, 2.0, num_tasks).tolist()


class Named(Velocity):
    """Tasks that are names."""

    def sample_tasks(self, num_tasks: int) -> list:
        return self.np_random.choice(["reach", "push", "pull"], num_tasks).tolist()

    def reset_task(self, task: str) -> None:
        assert type(task) is str
        self.task_now = {"velocity": len(task)}


class Legs(Velocity):
    """Tasks of several types: a number of legs, their length, what is carried if anything, and a name."""

    def sample_tasks(self, num_tasks: int) -> list:
        return [self._draw() for _ in range(num_tasks)]

    def _draw(self) -> tuple:
        load = None if self.np_random.random() < 0.5 else {"mass": np.float32(self.np_random.random())}
        return int(self.np_random.integers(3, 6)), float(self.np_random.normal(0.3, 0.02)), load, ["walk", True]

    def reset_task(self, task: tuple) -> None:
        legs, length, load, (name, slow) = task
        assert (type(task), type(name), type(slow)) == (tuple, str, bool)
        assert load is None or type(load["mass"]) is np.float32
        mass = float(load["mass"]) if load else 0.0
        self.task_now = {"velocity": length * len(range(legs)) - 0.1 * mass}  # a float has no range


class Speeds(Velocity):
    """Tasks are floats, except one that is written without a decimal point."""

    speeds = (0.5, 1.5, 2.5, 1, 0.25)

    def sample_tasks(self, num_tasks: int) -> list:
        return random.choices(self.speeds, k=num_tasks)

    def reset_task(self, task: float) -> None:
        assert task in self.speeds
        self.task_now = {"velocity": task}


class Tampering(Velocity):
    """Changes the task that it is given."""

    def reset_task(self, task: dict) -> None:
        super().reset_task(task)
        task["velocity"] += 1.0


class OwnType(Velocity):
    """Tasks of a custom class."""

    def sample_tasks(self, num_tasks: int) -> list:
        return [{"goal": Velocity()}] * num_tasks


class Without(gymnasium.Env):
    """An environment that takes no task."""

    observation_space, action_space = Velocity.observation_space, Discrete(2)


class Columns(Velocity):
    """Many tasks in one dict of arrays."""

    def sample_tasks(self, num_tasks: int) -> dict:
        return {"velocity": self.np_random.uniform(0.0, 2.0, num_tasks)}

    def reset_task(self, task: object) -> None:
        pass


class Growing(Velocity):
    """Tasks whose shape varies."""

    def sample_tasks(self, num_tasks: int) -> list:
        return [np.zeros(self.np_random.integers(1, 9)) for _ in range(num_tasks)]

    def reset_task(self, task: np.ndarray) -> None:
        self.task_now = {"velocity": len(task)}


class Anything(Velocity):
    """Takes any task, and keeps what it was given."""

    def sample_tasks(self, num_tasks: int) -> list:
        return self.np_random.random(num_tasks).tolist()

    def reset_task(self, task: object) -> None:
        self.received, self.task_now = task, {"velocity": 0.0}


class Watched(SampledTaskEnv):
    """Shows what its environment was given."""

    @property
    def received(self) -> object:
        return self.env.received


# PEARL, rlkit and MACAW: tasks by their index


class PearlPoint:
    """As PEARL's point robot: `reset_task(idx)` calls `reset`, even in `__init__`, before the spaces exist."""

    def __init__(self, n_tasks: int = 4) -> None:
        self.goals = [np.random.uniform(-1.0, 1.0, 2) for _ in range(n_tasks)]  # noqa: NPY002
        self.reset_task(0)
        self.observation_space = GymBox(-np.inf, np.inf, (2,), np.float32)
        self.action_space = GymBox(-1.0, 1.0, (2,), np.float32)

    def get_all_task_idx(self) -> range:
        return range(len(self.goals))

    def reset_task(self, idx: int) -> None:
        assert type(idx) is int
        self.goal = self.goals[idx]
        self.reset()

    def reset(self) -> np.ndarray:
        self.state = np.random.uniform(-1.0, 1.0, 2)  # noqa: NPY002
        return self.state

    def step(self, action: np.ndarray) -> tuple:
        self.state = self.state + 0.1 * np.clip(action, -1.0, 1.0)
        return np.copy(self.state), -np.linalg.norm(self.state - self.goal), False, {}


class PearlVelocity(Velocity):
    """As PEARL's half-cheetah: `sample_tasks` only makes the list, from which `reset_task(idx)` takes; old `seed`."""

    def __init__(self, n_tasks: int = 3) -> None:
        self.seed()
        self.tasks = self.sample_tasks(n_tasks)

    def seed(self, seed: int | None = None) -> list:
        self.random_state = np.random.RandomState(seed)
        return [seed]

    def sample_tasks(self, num_tasks: int) -> list:
        np.random.seed(1337)  # noqa: NPY002, as theirs does: it draws the same tasks each time
        return [{"velocity": velocity} for velocity in np.random.uniform(0.0, 3.0, num_tasks)]  # noqa: NPY002

    def get_all_task_idx(self) -> range:
        return range(len(self.tasks))

    def reset_task(self, idx: int) -> None:
        self.task_now = self.tasks[idx]
        self.reset()

    def reset(self) -> np.ndarray:
        self.v = self.random_state.normal(0.0, 0.1, 1).astype(np.float32)
        return self.v

    def step(self, action: np.ndarray) -> tuple:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, info


class PearlParameters(PearlVelocity):
    """As PEARL's walker: there is also a `set_task(task)`, which `reset_task(idx)` calls."""

    def sample_tasks(self, num_tasks: int) -> list:
        return [{"velocity": velocity} for velocity in np.random.uniform(0.0, 3.0, num_tasks)]  # noqa: NPY002

    def set_task(self, task: dict) -> None:
        self.task_now = task

    def reset_task(self, idx: int) -> None:
        self.set_task(self.tasks[idx])
        self.reset()


class Macaw(Velocity):
    """As in MACAW: tasks are given, `set_task(task)` takes one and `set_task_idx(idx)` its index."""

    def __init__(self, tasks: tuple = ({"velocity": 0.5}, {"velocity": 1.0}, {"velocity": 1.5})) -> None:
        self.tasks = list(tasks)

    def set_task(self, task: dict) -> None:
        self.task_now = task
        self.reset()

    def set_task_idx(self, idx: int) -> None:
        self.set_task(self.tasks[idx])


class PearlUnnamed(PearlVelocity):
    """No list of indices and no parameter named like an index, but a count in addition to the list."""

    get_all_task_idx = None

    def __init__(self, num_tasks: int = 3) -> None:
        super().__init__()
        self.num_tasks = num_tasks

    def reset_task(self, which: int) -> None:
        super().reset_task(which)


class PearlNumbered(PearlUnnamed):
    """The same with a parameter that is named like an index."""

    def reset_task(self, task_id: int) -> None:
        super().reset_task(task_id)


class PearlByChance(PearlVelocity):
    """Other tasks in each environment, from a generator that cannot be seeded."""

    def sample_tasks(self, num_tasks: int) -> list:
        return [{"velocity": velocity} for velocity in np.random.default_rng().uniform(0.0, 3.0, num_tasks)]


class PearlImported(PearlVelocity):
    """Other tasks in each process, drawn when the module is imported."""

    drawn = np.random.default_rng().uniform(0.0, 3.0, 3).tolist()

    def sample_tasks(self, num_tasks: int) -> list:
        return [{"velocity": velocity} for velocity in self.drawn]


# varibad


class VaribadPoint(Goal):
    """`sample_task` draws one task, `set_task` and `reset_task` take it, `get_task` returns it."""

    sample_tasks = None

    def sample_task(self) -> np.ndarray:
        return np.array([random.uniform(-1.0, 1.0) for _ in range(2)])

    def get_task(self) -> np.ndarray:
        return self.goal

    def reset_task(self, task: np.ndarray | None = None) -> np.ndarray:
        self.set_task(self.sample_task() if task is None else task)
        return self.goal


class VaribadBandit:
    """Only `reset_task(task=None)`, which draws, and `get_task`. `num_tasks` does not mean that tasks are indices."""

    observation_space = GymBox(0.0, 1.0, (2,), np.float64)
    action_space = GymDiscrete(3)
    num_tasks = 64

    def reset_task(self, task: np.ndarray | None = None) -> np.ndarray:
        self.means = np.array([random.gauss(0.0, 1.0) for _ in range(3)]) if task is None else np.copy(task)
        return self.get_task()

    def get_task(self) -> np.ndarray:
        return np.copy(self.means)

    def reset(self) -> np.ndarray:
        return np.zeros(2)

    def step(self, action: int) -> tuple:
        return np.zeros(2), random.gauss(self.means[action], 0.1), False, {"task": self.get_task()}


class VaribadOther(VaribadBandit):
    """`get_task` returns something other than what `reset_task` takes."""

    def get_task(self) -> np.ndarray:
        return 2.0 * self.means


# pytorch-maml-rl


class Navigation(PearlPoint):
    """Dicts of arrays from `np_random`, which `seed` seeds; the task is the info of a step; `reset` has an argument."""

    get_all_task_idx = None
    observation_space = GymBox(-np.inf, np.inf, (2,), np.float32)
    action_space = GymBox(-1.0, 1.0, (2,), np.float32)

    def __init__(self, task: dict | None = None) -> None:
        self.seed()
        self.reset_task(task or {"goal": np.zeros(2)})

    def seed(self, seed: int | None = None) -> list:
        self.np_random = np.random.RandomState(seed)
        return [seed]

    def sample_tasks(self, num_tasks: int) -> list:
        return [{"goal": goal} for goal in self.np_random.uniform(-0.5, 0.5, (num_tasks, 2))]

    def reset_task(self, task: dict) -> None:
        self.task_now = task
        self.goal = task["goal"]

    def reset(self, env: bool = True) -> np.ndarray:
        self.state = np.zeros(2, np.float32)
        return self.state

    def step(self, action: np.ndarray) -> tuple:
        observation, reward, done, _ = super().step(action)
        return observation, reward, done, self.task_now


_DRAWN = [Goal, Direction, Velocity, Number, Gusty, Named, Legs, Speeds, Tampering, Growing, Navigation]
_DRAWN += [VaribadPoint, VaribadBandit]
_INDEXED = [PearlPoint, PearlVelocity, PearlParameters, Macaw, PearlNumbered]
_WRONG = [Unseeded, Without, OwnType, Columns, PearlUnnamed, PearlByChance, PearlImported, VaribadOther]
for _class in (*_DRAWN, *_INDEXED, *_WRONG, Anything):
    gymnasium.register(
        f"foreign/{_class.__name__}ForTests-v0",
        entry_point="foreign_environments:Watched" if _class is Anything else "maml_rl.envs.adapters:SampledTaskEnv",
        max_episode_steps=8,
        kwargs={"env": f"foreign_environments:{_class.__name__}"},
    )
