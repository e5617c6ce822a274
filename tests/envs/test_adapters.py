"""Environments of other libraries, as task-distributed environments."""

import json
import pickle
import random
import re
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from maml_rl.checks import check_task_env
from maml_rl.envs.adapters import SampledTaskEnv
from maml_rl.envs.drawn_tasks import DrawnTasks, same
from maml_rl.errors import InputError
from maml_rl.processes import Processes
from maml_rl.task_parts import plain
from maml_rl.tasks import assign_tasks, evaluation_tasks, make, sample_tasks, task_space, vectorize

DRAWN = ["Goal", "Direction", "Velocity", "Number", "Gusty", "Named", "Legs", "Speeds", "Tampering", "Growing"]
DRAWN += ["Navigation", "VaribadPoint", "VaribadBandit"]
INDEXED = {"PearlPoint": 4, "PearlVelocity": 3, "PearlParameters": 3, "Macaw": 3, "PearlNumbered": 3}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Lets this process and those that it starts import `foreign_environments`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "environments")


def foreign(name: str) -> gymnasium.Env:
    return make(f"foreign_environments:foreign/{name}ForTests-v0")


@pytest.mark.parametrize("name", [*DRAWN, *INDEXED])
def test_the_environment_can_be_trained(name):
    assert check_task_env(foreign(name)) == []


@pytest.mark.parametrize("name", DRAWN)
def test_tasks_are_in_the_space_depend_only_on_the_seed_and_survive_json(name):
    space = foreign(name).unwrapped.task_space
    tasks = sample_tasks(space, 20, seed=3)
    assert isinstance(space, DrawnTasks)
    assert all(space.contains(task) for task in tasks)
    assert same(tasks, sample_tasks(space, 20, seed=3))
    assert not same(tasks, sample_tasks(space, 20, seed=4))
    assert same(tasks, space.from_jsonable(json.loads(json.dumps(space.to_jsonable(tasks)))))
    assert len({json.dumps(plain(task)) for task in tasks}) > 1


@pytest.mark.parametrize("name", DRAWN)
def test_copies_and_other_processes_draw_the_same_tasks(name):
    space = foreign(name).unwrapped.task_space
    expected = sample_tasks(space, 5, seed=0)
    assert same(sample_tasks(deepcopy(space), 5, seed=0), expected)
    assert same(sample_tasks(pickle.loads(pickle.dumps(space)), 5, seed=0), expected)
    assert pickle.loads(pickle.dumps(space)) == space == foreign(name).unwrapped.task_space


def test_integers_among_floats_stay_integers():
    tasks = sample_tasks(foreign("Speeds").unwrapped.task_space, 100, seed=0)
    assert {(type(task), task) for task in tasks} == {(float, 0.5), (float, 1.5), (float, 2.5), (int, 1), (float, 0.25)}


def test_an_environment_that_changes_its_task_changes_no_other_episode():
    env = foreign("Tampering")
    task = {"velocity": 1.0, "wind": [0.1, 0.0]}
    env.unwrapped.task = task
    rewards = []
    for _ in range(2):
        env.reset(seed=0)
        rewards.append(env.step(np.zeros(1, np.float32))[1])
    assert rewards[0] == rewards[1]
    assert task == {"velocity": 1.0, "wind": [0.1, 0.0]}


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
    interleaved = episode(env, lambda: (other.step(np.zeros(2, np.float32)), random.random(), np.random.random()))  # noqa: NPY002
    assert np.array_equal(alone, interleaved)
    assert len(np.unique(alone, axis=0)) == 4


def test_a_task_reaches_the_environment_at_the_next_reset():
    env = foreign("Velocity")
    task = {"velocity": 1.5, "wind": [0.25, 0.5]}
    env.reset(seed=0)
    before = env.unwrapped.env.task_now
    env.unwrapped.task = task
    assert env.unwrapped.env.task_now is before
    env.reset(seed=0)
    assert same(env.unwrapped.env.task_now, task)


def test_spaces_and_observations_are_those_of_gymnasium():
    env = foreign("Goal")
    assert env.observation_space == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert foreign("Direction").action_space == spaces.Discrete(3)
    observation, info = env.reset(seed=0)
    assert observation.dtype == np.float32  # the environment itself returns float64
    assert info == {}


def test_done_at_the_time_limit_is_a_truncation_and_any_other_a_termination():
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
    ("name", "expected"),
    [
        ("Unseeded", "equal seeds draw different tasks"),
        ("OwnType", "of type Velocity"),
        ("Without", "takes no task"),
        ("Columns", "has to return a list of one, got {'velocity': array"),
        ("PearlUnnamed", "give task_count"),  # nothing says that it takes indices
        ("PearlByChance", "other tasks each time it is built"),
        ("VaribadOther", "get_task"),
    ],
)
def test_an_environment_that_cannot_be_adapted_is_refused_in_one_line(name, expected):
    with pytest.raises(InputError) as raised:
        foreign(name)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


# Tasks by their index


@pytest.mark.parametrize("name", INDEXED)
def test_indices_are_a_discrete_space_and_each_is_evaluated_equally_often(name):
    env = foreign(name)
    space = env.unwrapped.task_space
    assert isinstance(space, spaces.Discrete)
    assert (space.n, space.start) == (INDEXED[name], 0)
    assert Counter(map(int, evaluation_tasks(space, 2 * INDEXED[name]))) == dict.fromkeys(range(INDEXED[name]), 2)
    for task in evaluation_tasks(space, INDEXED[name]):
        env.unwrapped.task = task
        env.reset(seed=0)
        theirs = env.unwrapped.env
        assert theirs.goal is theirs.goals[task] if name == "PearlPoint" else theirs.task_now is theirs.tasks[task]


def test_tasks_that_are_drawn_when_an_environment_is_built_are_always_the_same():
    first, second = (SampledTaskEnv("foreign_environments:PearlPoint", n_tasks=7) for _ in range(2))
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    third = SampledTaskEnv("foreign_environments:PearlPoint", n_tasks=7)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert same(first.env.goals, second.env.goals)
    assert same(first.env.goals, third.env.goals)
    assert first.task_space == second.task_space == third.task_space
    assert len({tuple(goal) for goal in first.env.goals}) == first.task_space.n == 7


def test_tasks_that_differ_between_processes_are_refused():
    with pytest.raises(InputError, match="have different tasks") as raised:
        vectorize("foreign_environments:foreign/PearlImportedForTests-v0", 2, Processes(2))
    assert "\n" not in str(raised.value)


def test_an_environment_with_both_conventions_follows_the_one_that_is_given():
    name = "foreign_environments:PearlParameters"
    assert SampledTaskEnv(name, n_tasks=5).task_space.n == 5
    assert SampledTaskEnv(name, task_count=1).task_space.n == 1
    env = SampledTaskEnv(name, convention="drawn")
    assert len({json.dumps(task) for task in env.task_space.to_jsonable(sample_tasks(env.task_space, 20, 0))}) == 20
    env.task = {"velocity": 1.25}
    env.reset(seed=0)
    assert env.env.task_now == {"velocity": 1.25}
    assert SampledTaskEnv("foreign_environments:PearlUnnamed", task_count=3).task_space.n == 3
    assert SampledTaskEnv("foreign_environments:PearlUnnamed", convention="indexed").task_space.n == 3


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("Goal", {"convention": "index"}, "convention must be one of drawn, indexed, got 'index'"),
        ("Goal", {"convention": "drawn", "task_count": 3}, "leave it out"),
        ("Goal", {"convention": "indexed"}, "has none of get_all_task_idx, num_tasks, n_tasks, tasks, goals"),
        ("PearlPoint", {"convention": "drawn"}, "draws no tasks"),
        ("PearlPoint", {"task_count": 0}, "at least 1, got 0"),
        ("PearlNumbered", {"num_tasks": 4}, "contradicts itself: len(tasks) is 3, num_tasks is 4"),
    ],
)
def test_a_convention_that_an_environment_does_not_follow_is_refused(name, given, expected):
    with pytest.raises((TypeError, ValueError), match=re.escape(expected)):
        SampledTaskEnv(f"foreign_environments:{name}", **given)


def test_indices_that_are_not_integers_are_refused():
    env = make("foreign_environments:foreign/PearlPointForTests-v0").unwrapped.env
    env.get_all_task_idx = lambda: ([0, 1], [0.5, 1.5])
    with pytest.raises(TypeError, match="which are no indices: give task_count"):
        SampledTaskEnv(lambda: env)


def test_a_wrapper_hides_none_of_the_environments_methods():
    theirs = foreign("Velocity").unwrapped.env
    env = SampledTaskEnv(lambda: gymnasium.wrappers.TimeLimit(theirs, 3))
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]
    assert isinstance(env.task_space, DrawnTasks)


def test_a_step_of_neither_interface_is_refused():
    env = SampledTaskEnv("foreign_environments:Goal")
    env.env.step = lambda _: "garage's EnvStep"
    env.reset(seed=0)
    with pytest.raises(ValueError, match="has to return"):
        env.step(np.zeros(2))
