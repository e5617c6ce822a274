"""Environments of other libraries, as task-distributed environments."""

import json
import pickle
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.adapters import SampledTaskEnv
from maml_rl.checks import check_task_env
from maml_rl.errors import InputError
from maml_rl.processes import Processes
from maml_rl.tasks import assign_tasks, make, sample_tasks, task_space, vectorize

NAMES = ["Goal", "Direction", "Velocity", "Number", "Gusty", "Named", "Legs", "Speeds", "Tampering", "Growing"]
NAMES += ["Navigation", "VaribadPoint", "VaribadBandit"]
INDEXED = {"PearlPoint": 4, "PearlVelocity": 3, "PearlParameters": 3, "Macaw": 3, "PearlNumbered": 3}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Lets this process and those that it starts import `foreign_environments`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "environments")


def foreign(name: str) -> gymnasium.Env:
    return make(f"foreign_environments:foreign/{name}ForTests-v0")


def as_json(space: spaces.Space, tasks: list) -> str:
    return json.dumps(space.to_jsonable(tasks))


@pytest.mark.parametrize("name", NAMES)
def test_the_environment_is_one_that_can_be_trained(name):
    assert check_task_env(foreign(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_elements_of_the_space_a_function_of_its_seed_and_can_be_written(name):
    space = foreign(name).unwrapped.task_space
    tasks = sample_tasks(space, 20, seed=3)
    assert all(space.contains(task) for task in tasks)
    assert as_json(space, tasks) == as_json(space, sample_tasks(space, 20, seed=3))
    assert as_json(space, tasks) != as_json(space, sample_tasks(space, 20, seed=4))
    assert as_json(space, tasks) == as_json(space, space.from_jsonable(json.loads(as_json(space, tasks))))
    assert len({as_json(space, [task]) for task in tasks}) > 1
    flat = spaces.flatten(space, tasks[0])
    assert flat.size == {"Goal": 2, "Direction": 1, "Velocity": 3, "Number": 1, "Gusty": 2}[name]


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_other_processes_draw_the_same_tasks(name):
    space = foreign(name).unwrapped.task_space
    expected = as_json(space, sample_tasks(space, 5, seed=0))
    assert as_json(space, sample_tasks(deepcopy(space), 5, seed=0)) == expected
    assert as_json(space, sample_tasks(pickle.loads(pickle.dumps(space)), 5, seed=0)) == expected


def test_the_global_generators_stay_as_they_were():
    env = foreign("Gusty")
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    sample_tasks(env.unwrapped.task_space, 3, seed=0)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_environments_that_draw_from_the_global_generators_do_not_disturb_each_other():
    def episode(env: gymnasium.Env, between: Callable[[], object]) -> list:
        seen = [env.reset(seed=4)[0]]
        for _ in range(3):
            between()
            seen.append(env.step(np.zeros(2, np.float32))[0])
        return seen

    env, other = foreign("Gusty"), foreign("Gusty")
    other.reset(seed=0)
    alone = episode(env, lambda: None)
    beside = episode(env, lambda: (other.step(np.zeros(2, np.float32)), random.random(), np.random.random()))  # noqa: NPY002
    assert np.array_equal(alone, beside)
    assert len(np.unique(alone, axis=0)) == 4


def test_a_task_reaches_the_environment_at_the_next_reset_in_the_form_of_its_own():
    env = foreign("Velocity")
    task = {"velocity": np.asarray(1.5), "wind": np.array([0.25, 0.5])}
    env.reset(seed=0)
    before = env.unwrapped.env.task_now
    env.unwrapped.task = task
    assert env.unwrapped.env.task_now is before
    env.reset(seed=0)
    assert env.unwrapped.env.task_now == {"velocity": 1.5, "wind": [0.25, 0.5]}


def test_spaces_and_observations_are_those_of_gymnasium():
    env = foreign("Goal")
    assert env.observation_space == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert foreign("Direction").action_space == spaces.Discrete(3)
    observation, info = env.reset(seed=0)
    assert observation.dtype == np.float32  # the environment itself returns float64
    assert info == {}


def test_a_time_limit_among_done_is_a_truncation_and_an_end_is_not():
    env = SampledTaskEnv("foreign_environments:Direction", limit=3)
    env.reset(seed=0)
    flags = [env.step(0)[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]
    env = SampledTaskEnv("foreign_environments:Goal")
    env.task = np.zeros(2)
    env.reset(seed=0)
    env.env.state = np.zeros(2)
    assert env.step(np.zeros(2))[2:4] == (True, False)


def test_the_environment_runs_in_processes():
    envs = vectorize("foreign_environments:foreign/VelocityForTests-v0", 2, Processes(2))
    try:
        space = task_space(envs)
        tasks = sample_tasks(space, 2, seed=0)
        assign_tasks(envs, tasks)
        envs.reset(seed=[0, 1])
        observations, rewards, *_ = envs.step(np.zeros((2, 1), np.float32))
        np.testing.assert_allclose(
            rewards, [-abs(o[0] - t["velocity"]) for o, t in zip(observations, tasks, strict=True)]
        )
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [("Unseeded", "self.np_random"), ("Named", "numbers, arrays, or dicts"), ("Without", "neither set_task nor")],
)
def test_an_environment_that_cannot_be_adapted_is_refused_in_one_line(name, told):
    with pytest.raises(InputError) as raised:
        foreign(name)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_task_outside_the_space_is_refused_in_one_line():
    with pytest.raises(InputError, match="does not contain"):
        sample_tasks(foreign("Growing").unwrapped.task_space, 20, seed=0)


def test_a_step_of_neither_interface_is_told():
    env = SampledTaskEnv("foreign_environments:Goal")
    env.env.step = lambda _: "garage's EnvStep"
    env.reset(seed=0)
    with pytest.raises(ValueError, match="has to return"):
        env.step(np.zeros(2))
