"""Task distributions: which environments are accepted, and which tasks are drawn."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from maml_rl.checks import check_task_env
from maml_rl.errors import InputError
from maml_rl.requirements import time_limit
from maml_rl.seeding import Draw, Phase
from maml_rl.task_parts import without_bounds
from maml_rl.tasks import (
    admit_beyond,
    assign_tasks,
    episode_limit,
    evaluation_tasks,
    make,
    resets_itself,
    sample_tasks,
    strata,
    task_space,
    training_tasks,
    vectorize,
)

NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
VELOCITY = "maml_rl.envs:finn2017/HalfCheetahVel-v0"
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Plain(gymnasium.Env):
    """An environment that follows the convention without any code of ours."""

    def __init__(self, observation_space: spaces.Space = BOX, action_space: spaces.Space = BOX) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.task_space = spaces.Discrete(3)
        self.task = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: object) -> tuple:
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture
def register():
    """Registers an environment for one test."""
    registered = []

    def register(name: str, **settings: object) -> str:
        gymnasium.register(id=name, **({"entry_point": Plain, "max_episode_steps": 10} | settings))
        registered.append(name)
        return name

    yield register
    for name in registered:
        del gymnasium.registry[name]


def refused(env_id: str, **settings: object) -> str:
    """Message with which an environment is refused: one line that names it."""
    with pytest.raises(InputError) as raised:
        vectorize(env_id, 2, **settings)
    message = str(raised.value)
    assert "\n" not in message
    assert env_id in message
    return message


@pytest.mark.parametrize("env_id", [NAVIGATION, VELOCITY, "maml_rl.envs:finn2017/HalfCheetahDir-v0"])
def test_registered_environments_are_accepted(env_id):
    envs = vectorize(env_id, 3)
    assert envs.num_envs == 3
    assert task_space(envs) == gymnasium.make(env_id).unwrapped.task_space
    assert episode_limit(envs) == gymnasium.make(env_id).spec.max_episode_steps
    assert not resets_itself(envs)


def test_any_environment_that_follows_the_convention_is_accepted(register):
    envs = vectorize(register("PlainForTests-v0"), 3)
    assert isinstance(envs, SyncVectorEnv)
    assert task_space(envs) == spaces.Discrete(3)
    assert episode_limit(envs) == 10
    assert resets_itself(envs)
    assign_tasks(envs, [2, 0, 1])
    assert envs.get_attr("task") == (2, 0, 1)


def test_settings_reach_the_environment(register):
    envs = vectorize(register("PlainForTests-v0"), 2, observation_space=spaces.Box(0, 1, (5,)))
    assert envs.single_observation_space.shape == (5,)
    assert vectorize(VELOCITY, 2, goal="direction").task_space == spaces.Discrete(2)


@pytest.mark.parametrize(
    ("env_id", "nearest"),
    [
        ("maml_rl.envs:finn2017/HalfCheetaVel-v0", "finn2017/HalfCheetahVel-v0"),
        # With its module: a user pastes the id into a new process, where nothing has imported `maml_rl.envs` yet.
        ("maml_rl.envs:finn2017/Navigation-v0", NAVIGATION),
        ("maml_rl.envs:finn2017/HalfCheetahVel-v7", "finn2017/HalfCheetahVel-v0"),
        ("maml_rl.envs:finn/HalfCheetahVel-v0", "finn2017/HalfCheetahVel-v0"),
        ("CartPole-v9", "CartPole-v1"),
    ],
)
def test_an_unknown_id_is_refused_and_the_nearest_are_named(env_id, nearest):
    assert nearest in refused(env_id).partition("nearest ids are")[2]


def test_an_id_without_a_module_is_answered_with_how_to_name_one():
    remedy = "if your own module registers it, name that module in front: my_module:Mine-v0"
    assert refused("Mine-v0").endswith(remedy)
    assert remedy.partition(":")[0] not in refused("maml_rl.envs:finn2017/Mine-v0")


@pytest.mark.parametrize("env_id", ["no_such_module:Foo-v0", "", "-", "a:b:c", "maml_rl.envs:nothing like it"])
def test_an_invalid_id_is_refused(env_id):
    refused(env_id)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])  # batched by Gymnasium, and not
def test_an_environment_without_task_space_is_refused_with_what_it_needs(env_id):
    message = refused(env_id)
    assert "task_space" in message
    assert "gymnasium.Space" in message
    assert "next reset" in message


def test_an_environment_without_a_time_limit_is_refused(register):
    assert "max_episode_steps" in refused(register("EndlessForTests-v0", max_episode_steps=None))


@pytest.mark.parametrize("space", [spaces.Graph(BOX, None), spaces.Dict({"a": spaces.Sequence(BOX)})])
def test_observations_that_cannot_be_flattened_are_refused(register, space):
    message = refused(register("PlainForTests-v0"), observation_space=space)
    assert "flatten" in message
    assert str(space) in message


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Dict({"a": BOX}), spaces.Tuple([BOX])])
def test_actions_that_have_no_distribution_are_refused(register, space):
    message = refused(register("PlainForTests-v0"), action_space=space)
    assert "Discrete" in message
    assert str(space) in message


def test_an_environment_that_is_refused_is_closed(register):
    made, closed = [], []

    class Closing(Plain):
        def __init__(self, **settings: object) -> None:
            super().__init__(**settings)
            made.append(self)

        def close(self) -> None:
            closed.append(self)

    refused(register("ClosingForTests-v0", entry_point=Closing), action_space=spaces.Text(3))
    assert made == closed != []


@pytest.mark.parametrize("limit", [20, 300])
def test_a_time_limit_among_the_settings_is_the_episode_limit(limit):
    assert episode_limit(vectorize(NAVIGATION, 2, max_episode_steps=limit)) == limit


def limited(inner: int) -> gymnasium.Env:
    return TimeLimit(Plain(), inner)


@pytest.mark.parametrize(
    ("registered", "inner", "given", "limit"),
    [(None, 7, None, 7), (20, 7, None, 7), (5, 7, None, 5), (20, 7, 3, 3), (20, 7, 30, 7), (None, None, 6, 6)],
)
def test_the_time_limit_is_the_shortest_of_all_and_may_be_given(register, registered, inner, given, limit):
    entry = {"entry_point": limited, "kwargs": {"inner": inner}} if inner else {}
    env_id = register("LimitedForTests-v0", max_episode_steps=registered, **entry)
    envs = vectorize(env_id, 2, max_episode_steps=given)
    assert episode_limit(envs) == limit
    assert time_limit(make(env_id, given)) == limit
    assert not [f for f in check_task_env(make(env_id, given)) if "time limit" in f.text]
    envs.reset(seed=0)
    truncated = [envs.step(envs.action_space.sample())[3].all() for _ in range(limit)]
    assert truncated == [False] * (limit - 1) + [True]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_time_limit_below_one_is_refused(limit):
    for way in (lambda: make(NAVIGATION, limit), lambda: vectorize(NAVIGATION, 2, max_episode_steps=limit)):
        with pytest.raises(InputError, match="max_episode_steps must be at least 1"):
            way()


@pytest.mark.parametrize(
    "settings",
    [
        {"observation_space": spaces.Graph(BOX, None)},
        {"observation_space": spaces.Dict({"a": BOX, "b": spaces.Graph(BOX, None)})},
        {"action_space": spaces.Text(3)},
        {"action_space": spaces.Dict({"a": BOX})},
        {"max_episode_steps": -1},
    ],
    ids=str,
)
def test_a_refusal_is_an_error_of_the_check_in_the_same_words(register, settings):
    limit = {"max_episode_steps": None} if "max_episode_steps" in settings else {}
    env_id = register("RefusedForTests-v0", **limit)
    spaces_of = {name: space for name, space in settings.items() if name not in limit}
    message = refused(env_id, **spaces_of)
    errors = [finding.text for finding in check_task_env(make(env_id, **spaces_of)) if finding.level == "error"]
    assert message == f"{env_id}: {errors[0]}"


SPACES = {
    "goal": spaces.Box(-0.5, 0.5, (2,), np.float32),
    "velocity": spaces.Box(0.0, 2.0, (1,), np.float32),
    "direction": spaces.Discrete(2),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


@every_space
def test_tasks_are_elements_of_the_space_and_a_function_of_the_seed(space):
    tasks = sample_tasks(space, 30, seed=3)
    assert len(tasks) == 30
    assert all(space.contains(task) for task in tasks)
    np.testing.assert_array_equal(tasks, sample_tasks(space, 30, seed=3))
    assert not np.array_equal(tasks, sample_tasks(space, 30, seed=4))
    assert len(np.unique(tasks, axis=0)) > 1


@every_space
def test_fewer_tasks_are_the_first_of_more(space):
    np.testing.assert_array_equal(sample_tasks(space, 30, seed=3)[:7], sample_tasks(space, 7, seed=3))


@every_space
def test_sampling_tasks_does_not_change_the_space(space):
    space.seed(8)
    expected = [space.sample() for _ in range(4)]
    space.seed(8)
    drawn = []
    for seed in range(4):
        sample_tasks(space, 3, seed=seed)
        drawn.append(space.sample())
    np.testing.assert_array_equal(drawn, expected)


def test_a_custom_distribution_is_a_space_with_its_own_sample():
    class Biased(spaces.Discrete):
        def sample(self, **_: object) -> np.int64:
            return np.int64(self.np_random.random() < 0.9)

    assert np.mean(sample_tasks(Biased(2), 400, seed=0)) == pytest.approx(0.9, abs=3 * (0.09 / 400) ** 0.5)


@every_space
def test_training_tasks_are_a_function_of_the_place_in_the_run(space):
    draw = Draw(1, Phase.TRAINING, iteration=5)
    np.testing.assert_array_equal(training_tasks(space, 40, draw), training_tasks(space, 40, draw))
    for other in (draw._replace(seed=2), draw._replace(iteration=6), draw._replace(phase=Phase.EVALUATION)):
        assert not np.array_equal(training_tasks(space, 40, draw), training_tasks(space, 40, other))


@pytest.mark.parametrize("name", ["goal", "velocity"])
def test_evaluation_tasks_are_a_function_of_their_seed(name):
    space = SPACES[name]
    tasks = evaluation_tasks(space, 40, 3)
    assert all(space.contains(task) for task in tasks)
    np.testing.assert_array_equal(tasks, evaluation_tasks(space, 40, 3))
    assert not np.array_equal(tasks, evaluation_tasks(space, 40, 4))
    np.testing.assert_array_equal(evaluation_tasks(space, 40), evaluation_tasks(space, 40, 0))


@pytest.mark.parametrize("start", [0, -1])
@pytest.mark.parametrize("count", [1, 4, 40, 41])
def test_evaluation_has_each_of_finitely_many_tasks_equally_often(start, count):
    space = spaces.Discrete(3, start=start)
    tasks = evaluation_tasks(space, count)
    assert len(tasks) == count
    assert all(space.contains(task) for task in tasks)
    occurrences = [sum(task == start + i for task in tasks) for i in range(3)]
    assert max(occurrences) - min(occurrences) <= 1


class Indexed(spaces.Discrete):
    """A kind of Discrete that draws as Gymnasium's does."""


class OftenZero(spaces.Discrete):
    """A kind of Discrete whose tasks are not equally likely."""

    def sample(self, mask: None = None, probability: None = None) -> np.int64:
        return np.int64(self.np_random.random() < 0.1)


class PlusOrMinusOne(spaces.Box):
    """A space that draws -1 or 1 at random, as a direction of other libraries is."""

    def __init__(self) -> None:
        super().__init__(-1.0, 1.0, (), np.float32)

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        return np.asarray(self.np_random.choice([-1.0, 1.0]), np.float32)


def test_tasks_are_strata_where_the_space_gives_each_its_share():
    # 41 tasks of 3: the first two occur once more often than the third; of 4 the second and the third occur once.
    space = spaces.Discrete(3, start=5)
    for count in (3, 4, 41):
        tasks = evaluation_tasks(space, count)
        assert strata(space, tasks) == [int(task) for task in tasks]
    assert strata(space, evaluation_tasks(space, 2)) is None  # chosen at random
    assert strata(spaces.Discrete(2), [1, 0, 1]) == [1, 0, 1]
    assert strata(Indexed(2), evaluation_tasks(Indexed(2), 5)) == [0, 1, 0, 1, 0]


def test_tasks_that_repeat_by_chance_are_not_strata():
    space = PlusOrMinusOne()
    tasks = evaluation_tasks(space, 40)
    assert {float(task) for task in tasks} == {-1.0, 1.0}
    assert strata(space, tasks) is None
    tasks = evaluation_tasks(OftenZero(2), 40)
    assert 0 < sum(tasks) < 15
    assert strata(OftenZero(2), tasks) is None
    assert strata(spaces.MultiDiscrete([2]), [np.array([0]), np.array([0]), np.array([1]), np.array([1])]) is None


def test_the_seed_chooses_among_many_tasks_and_validation_tasks_differ():
    space = spaces.Discrete(50, start=5)
    held_out, other = ({int(task) for task in evaluation_tasks(space, 20, seed)} for seed in (0, 1))
    validation = {int(task) for task in evaluation_tasks(space, 20, 0, Phase.VALIDATION)}
    assert len(held_out) == len(validation) == 20
    assert held_out != other
    assert held_out.isdisjoint(validation)
    assert {*range(5, 55)} >= held_out | validation


@pytest.mark.parametrize("name", ["goal", "velocity"])
def test_no_training_draws_an_evaluation_task_whatever_its_seed(name):
    held_out = {task.tobytes() for task in evaluation_tasks(SPACES[name], 40)}
    assert len(held_out) == 40
    for seed in range(51):
        own = held_out | {task.tobytes() for task in evaluation_tasks(SPACES[name], 40, seed)}
        for iteration in range(3):
            trained = training_tasks(SPACES[name], 40, Draw(seed, Phase.TRAINING, iteration))
            assert own.isdisjoint(task.tobytes() for task in trained)


@pytest.mark.parametrize("name", ["goal", "velocity"])
def test_validation_tasks_are_neither_evaluation_nor_training_tasks_whatever_the_seeds(name):
    validation = {task.tobytes() for task in evaluation_tasks(SPACES[name], 20, 0, Phase.VALIDATION)}
    assert len(validation) == 20
    for seed in range(51):
        others = evaluation_tasks(SPACES[name], 40, seed) + training_tasks(SPACES[name], 40, Draw(seed, Phase.TRAINING))
        assert validation.isdisjoint(task.tobytes() for task in others)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "import gymnasium\n\nclass E(gymnasium.Env):\n    def __init__(self):\n        raise OSError('no robot')\n"
            "gymnasium.register('Broken-v0', E)\n",
            r"cannot be made \(OSError: no robot; .*broken_env.py, line 5\)",
        ),
        ("robot = undefined\n", r"cannot be imported \(name 'undefined' is not defined; .*broken_env.py, line 1\)"),
    ],
)
def test_an_exception_in_the_authors_code_is_reported_with_its_place(monkeypatch, tmp_path, source, expected):
    (tmp_path / "broken_env.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_env", raising=False)
    monkeypatch.delitem(gymnasium.registry, "Broken-v0", raising=False)
    with pytest.raises(InputError, match=expected):
        make("broken_env:Broken-v0")


def test_a_batch_takes_tasks_beyond_its_distribution_once_it_may() -> None:
    beyond, shapeless = np.array([2.0, -3.0], np.float32), np.array([2.0], np.float32)
    envs = vectorize("maml_rl.envs:finn2017/Navigation2D-v0", 2)
    with pytest.raises(ValueError, match="not in the task space"):
        assign_tasks(envs, [beyond, beyond])
    admit_beyond(envs)
    assign_tasks(envs, [beyond, beyond])
    np.testing.assert_array_equal(envs.get_attr("task"), [beyond, beyond])
    assert task_space(envs) == spaces.Box(-0.5, 0.5, (2,), np.float32)
    with pytest.raises(ValueError, match="not in the task space"):
        assign_tasks(envs, [shapeless, shapeless])
    envs.close()


def test_only_real_numbers_lose_their_bounds() -> None:
    whole = spaces.Box(0, 3, (1,), np.int64)
    space = spaces.Dict(mass=spaces.Box(0, 1, (2,)), joint=spaces.Discrete(3), pair=spaces.Tuple([whole, Indexed(2)]))
    wide = without_bounds(space)
    assert isinstance(wide, spaces.Dict)
    assert wide["mass"] == spaces.Box(-np.inf, np.inf, (2,))
    assert wide["joint"] == spaces.Discrete(3)
    assert list(wide["pair"]) == [whole, Indexed(2)]
    assert without_bounds(PlusOrMinusOne()) == PlusOrMinusOne()  # whose elements its author chose
