"""The task as part of the observation, in every way in which environments are run."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError
from maml_rl.initial import build_policy, parameters
from maml_rl.observations import Part, in_rows
from maml_rl.processes import Processes
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.task_observation import TaskObservation, VectorTaskObservation
from maml_rl.tasks import TaskVectorEnv, assign_tasks, episode_limit, evaluation_tasks, groups, task_space, vectorize
from maml_rl.types import Trajectories, repeat

NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
DIRECTION = "maml_rl.envs:finn2017/HalfCheetahDir-v0"
VELOCITY = "maml_rl.envs:finn2017/HalfCheetahVel-v0"
WALK = "plain_environments:WalkForTests-v0"
CHOICE = "plain_environments:ChoiceForTests-v0"  # tasks are dicts


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Lets this process and those that it starts import `plain_environments`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "environments")


class Still(gymnasium.Env):
    """Observes samples of a given space, and has a given space of tasks."""

    def __init__(self, observation_space: spaces.Space, task_space: spaces.Space) -> None:
        self.observation_space, self.action_space, self.task_space = observation_space, spaces.Discrete(2), task_space
        self.task = task_space.sample()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return self.observation_space.sample(), {}

    def step(self, action: object) -> tuple:
        return self.observation_space.sample(), 0.0, False, False, {}


BOX = spaces.Box(-3.0, 3.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "task", "numbers"),
    [
        (spaces.Box(0.0, 2.0, (1,), np.float32), np.array([1.5], np.float32), [1.5]),
        (spaces.Discrete(2), 1, [0, 1]),
        (spaces.Discrete(3, start=-1), -1, [1, 0, 0]),
        (spaces.Dict({"a": spaces.Discrete(2), "b": BOX}), {"a": 0, "b": np.array([2, -1], np.float32)}, [1, 0, 2, -1]),
    ],
)
def test_the_flattened_task_follows_the_observation(space, task, numbers):
    env = TaskObservation(Still(BOX, space))
    env.task = task
    for observation in (env.reset()[0], env.step(0)[0]):
        np.testing.assert_array_equal(observation[2:], numbers)
        assert observation.dtype == np.float32
        assert env.observation_space.contains(observation)
    assert env.observation_space.shape == (2 + len(numbers),)
    np.testing.assert_array_equal(env.observation_space.low[:2], BOX.low)


def test_observations_of_more_dimensions_are_flattened():
    env = TaskObservation(Still(spaces.Box(0, 255, (2, 3), np.uint8), spaces.Box(-1, 1, (1,), np.float32)))
    assert env.observation_space.shape == (7,)
    assert env.observation_space.dtype == np.float32  # uint8 has no room for the task
    assert env.observation_space.contains(env.reset()[0])


def test_observation_and_task_are_parts_with_names():
    picture = spaces.Box(0, 255, (8, 9, 3), np.uint8)
    for space, kind in ((picture, True), (BOX, False)):
        found = TaskObservation(Still(space, BOX)).observation_space.parts
        assert found == (Part("observation", space.shape, kind), Part("task", (2,)))
    rows = in_rows(Still(spaces.Dict(place=BOX, eye=picture), BOX))
    assert [part.name for part in TaskObservation(rows).observation_space.parts] == ["place", "eye", "task"]
    with pytest.raises(InputError, match="already have a part named task"):
        TaskObservation(in_rows(Still(spaces.Dict(place=BOX, task=BOX), BOX)))


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (BOX, {"module": "own_networks:OfTask"}),
        (spaces.Box(0, 255, (8, 8, 1), np.uint8), {"hidden_sizes": (4,), "filters": (2,)}),
    ],
    ids=["own network", "picture"],
)
def test_a_network_of_parts_sees_the_task(space, settings):
    make = [lambda: TaskObservation(Still(space, BOX))]
    policy = build_policy(SyncVectorEnv(make), PolicyConfig(**settings), 0)
    seen = torch.zeros(2, int(np.prod(space.shape)) + 2)
    seen[1, -2:] = 1.0
    logits = policy(parameters(policy), seen).parameters()[0]
    assert not torch.allclose(logits[0], logits[1])


def test_a_task_that_is_assigned_is_observed_from_the_next_reset_on():
    env = TaskObservation(gymnasium.make(VELOCITY))
    env.unwrapped.task = np.array([1.25], np.float32)
    assert env.reset(seed=0)[0][-1] == 1.25
    env.unwrapped.task = np.array([0.5], np.float32)
    assert env.step(np.zeros(6, np.float32))[0][-1] == 1.25
    assert env.reset()[0][-1] == 0.5


def test_the_wrapper_keeps_the_convention():
    env = TaskObservation(gymnasium.make(NAVIGATION))
    env.task = goal = np.array([0.25, -0.5], np.float32)
    assert env.task_space == env.unwrapped.task_space
    np.testing.assert_array_equal(env.unwrapped.task, goal)
    np.testing.assert_array_equal(env.task, goal)
    again = gymnasium.make(env.spec)  # what a spec records can be made
    assert isinstance(again, TaskObservation)


def test_a_batch_keeps_the_convention():
    envs = vectorize(NAVIGATION, 2, observe_task=True)
    tasks = evaluation_tasks(task_space(envs), 2)
    for assign in (lambda: assign_tasks(envs, tasks), lambda: envs.set_attr("task", tasks)):
        assign()
        np.testing.assert_array_equal(envs.get_attr("task"), tasks)
        np.testing.assert_array_equal(envs.task, tasks)
        np.testing.assert_array_equal(envs.unwrapped.task, tasks)
    assert envs.task_space == envs.unwrapped.task_space
    assert episode_limit(envs) == 100
    assert envs.observation_space.contains(envs.reset(seed=0)[0])


def test_a_row_of_the_batch_equals_the_single_environment():
    envs, env = vectorize(DIRECTION, 3, observe_task=True), TaskObservation(gymnasium.make(DIRECTION))
    assign_tasks(envs, [0, 1, 1])
    env.task = 1
    observations, alone = envs.reset(seed=[5, 6, 7])[0], env.reset(seed=7)[0]
    assert envs.single_observation_space == env.observation_space
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, 6)).astype(np.float32)
    for action in actions:
        np.testing.assert_array_equal(observations[2], alone)
        np.testing.assert_array_equal(observations[:, -2:], [[1, 0], [0, 1], [0, 1]])
        observations, alone = envs.step(action)[0], env.step(action[2])[0]


def test_sub_environments_that_are_not_reset_keep_their_task():
    envs = vectorize(NAVIGATION, 3, observe_task=True)
    first, second = (evaluation_tasks(task_space(envs), 3, seed) for seed in (0, 1))
    assign_tasks(envs, first)
    envs.reset(seed=0)
    assign_tasks(envs, second)
    stepped = envs.step(np.zeros((3, 2), np.float32))[0]
    np.testing.assert_array_equal(stepped[:, 2:], np.float64(first))
    reset = envs.reset(options={"reset_mask": np.array([False, True, False])})[0]
    np.testing.assert_array_equal(reset[:, 2:], np.float64([first[0], second[1], first[2]]))
    np.testing.assert_array_equal(stepped[:, 2:], np.float64(first))  # arrays returned earlier do not change


def sampled(envs: TaskVectorEnv) -> Trajectories:
    policy = build_policy(envs, PolicyConfig(hidden_sizes=(8,)), seed=0)
    tasks = evaluation_tasks(task_space(envs), 3)
    return collect(envs, policy, repeat(parameters(policy), 3), tasks, 4, Draw(0, Phase.TRAINING))


def check_observed_tasks(envs: TaskVectorEnv) -> None:
    """Sampled observations end with the task."""
    trajectories = sampled(envs)
    space = task_space(envs)
    for m, task in enumerate(evaluation_tasks(space, 3)):
        flat = torch.from_numpy(spaces.flatten(space, task)).float()
        steps = trajectories.observations[m][trajectories.mask[m].bool()]
        assert (steps[:, -len(flat) :] == flat).all()
        assert len(steps) > len(flat)


@pytest.mark.parametrize("env_id", [NAVIGATION, DIRECTION])
def test_a_batch_is_sampled_with_its_tasks(env_id):
    check_observed_tasks(vectorize(env_id, 5, observe_task=True))


@pytest.mark.parametrize("env_id", [WALK, CHOICE])
def test_processes_observe_their_tasks(env_id):
    envs = vectorize(env_id, 2, Processes(2), observe_task=True)
    try:
        check_observed_tasks(envs)
    finally:
        envs.close()


def test_environments_in_turn_observe_their_tasks():
    gymnasium.register("StillForTests-v0", Still, max_episode_steps=4)
    try:
        envs = vectorize("StillForTests-v0", 2, observe_task=True, observation_space=BOX, task_space=spaces.Discrete(3))
    finally:
        del gymnasium.registry["StillForTests-v0"]
    assert isinstance(envs, SyncVectorEnv)
    check_observed_tasks(envs)


def test_sampling_is_the_same_with_any_number_of_sub_environments():
    few, many = (sampled(vectorize(DIRECTION, count, observe_task=True)) for count in (2, 12))
    for a, b in zip(few, many, strict=True):
        assert torch.equal(a, b)


def test_groups_that_are_sampled_side_by_side_observe_their_tasks():
    envs = vectorize(DIRECTION, 4, observe_task=True)
    parts = groups(envs)
    assert sum(part.num_envs for part in parts) == 4
    for part in parts:
        assert isinstance(part, VectorTaskObservation)
        assign_tasks(part, [1] * part.num_envs)
        assert (part.reset(seed=0)[0][:, -2:] == [0, 1]).all()


@pytest.mark.parametrize(
    ("observations", "tasks", "message"),
    [
        (spaces.Discrete(3), BOX, "observations must be in a Box"),
        (BOX, spaces.Sequence(BOX), "cannot be observed"),
        (BOX, spaces.Graph(BOX, None), "cannot be observed"),
    ],
)
def test_spaces_that_cannot_be_vectors_are_refused(observations, tasks, message):
    with pytest.raises(InputError, match=message):
        TaskObservation(Still(observations, tasks))


def test_a_custom_space_is_refused():
    class Words(spaces.Space):
        def sample(self, mask: None = None, probability: None = None) -> str:
            return "word"

    with pytest.raises(InputError, match="cannot be observed"):
        TaskObservation(Still(BOX, Words()))


def test_an_environment_without_tasks_is_refused():
    with pytest.raises(InputError, match="no task to observe"):
        TaskObservation(gymnasium.make("CartPole-v1"))
    with pytest.raises(InputError, match=r"MountainCarContinuous-v0: there is no task_space"):
        vectorize("MountainCarContinuous-v0", 2, observe_task=True)


def test_a_batch_that_resets_itself_is_refused():
    envs = SyncVectorEnv([lambda: Still(BOX, BOX)] * 2)
    with pytest.raises(InputError, match="resets itself"):
        VectorTaskObservation(envs)
