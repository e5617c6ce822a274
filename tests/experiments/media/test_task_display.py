"""How tasks of all kinds of spaces are shown: in words, and as axes."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from maml_rl.experiments.media.task_display import are_places, components, task_names, task_quantity, task_text
from maml_rl.task_parts import plain
from maml_rl.tasks import sample_tasks

# In words


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (np.float32(0.123456), "task 0.123"),
        (np.array([0.5], np.float32), "task 0.5"),
        (np.array([0.5, -0.25]), "task 0.5, -0.25"),
        (np.int64(3), "task 3"),
        (np.arange(6), "task 0, 1, 2, … 6 in all"),
        (np.array([123456.7]), "task 123457"),
        (1e9, "task 1e+09"),
        (np.zeros((2, 2)), "task (0, 0), (0, 0)"),
        ("reach", "task reach"),
        ("(a)", "task (a)"),
        (None, "task none"),
        ((), "task none"),
        (True, "task true"),
        ((4, 0.3), "task 4, 0.3"),
        ({}, "task none"),
        (
            {"payload": np.float32(2.345678), "motors": np.array([1.0, 0.8]), "broken": False, "floor": "ice"},
            "payload 2.35, motors (1, 0.8), broken false, floor ice",
        ),
        ({"arm": {"left": np.array([1.0]), "right": None}}, "arm (left 1, right none)"),
        ("x" * 99, f"task {'x' * 39}…"),
        ({str(i): i for i in range(20)}, "0 0, 1 1, 2 2, 3 3, 4 4, 5 5, 6 6, … 20 in all"),
    ],
)
def test_a_task_is_described_in_a_few_words(task, text):
    assert task_text(task) == text


SPACES = {
    "number": spaces.Box(-1.0, 1.0, (), np.float32),
    "numbers": spaces.Box(-1.0, 1.0, (3,), np.float64),
    "matrix": spaces.Box(0, 255, (4, 5), np.uint8),
    "choice": spaces.Discrete(5, start=-2),
    "choices": spaces.MultiDiscrete([2, 3]),
    "switches": spaces.MultiBinary((2, 2)),
    "text": spaces.Text(8),
    "tuple": spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,)))),
    "dict": spaces.Dict(a=spaces.Box(0, 1, (2,)), b=spaces.Dict(c=spaces.Discrete(2), d=spaces.Text(3))),
    "sequence": spaces.Sequence(spaces.Box(0, 1, (2,))),
    "stacked sequence": spaces.Sequence(spaces.Discrete(3), stack=True),
    "graph": spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(2)),
    "either": spaces.OneOf((spaces.Discrete(3), spaces.Box(0, 1, (2,)))),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_tasks_of_every_space_are_described_and_drawn(space):
    tasks = sample_tasks(space, 30, 0)
    for task in tasks:
        text = task_text(task)
        assert len(text) < 200
        assert "\n" not in text
        assert "array" not in text
    returns = np.random.default_rng(0).normal(size=30)
    for axis in components([plain(task) for task in tasks], returns.tolist(), "task"):
        assert axis.places.shape == (30,)
        assert np.isfinite(axis.places).all()
        assert len(axis.ticks or ()) == len(axis.tick_names or ()) <= 12


def test_equal_names_of_tasks_are_numbered():
    env = gymnasium.make("maml_rl.envs:duan2016/TabularMDP-v0")
    tasks = [np.arange(20), np.arange(20), np.arange(1, 9)]
    names = task_names(gymnasium.make("CartPole-v1"), tasks)
    assert names == ["1: task 0, 1, 2, … 20 in all", "2: task 0, 1, 2, … 20 in all", "task 1, 2, 3, … 8 in all"]
    assert task_quantity(env) == "task"


def test_an_environment_of_this_package_names_its_own_tasks():
    env = gymnasium.make("maml_rl.envs:finn2017/HalfCheetahVel-v0")
    assert task_names(env, [np.array([0.5], np.float32)]) == ["goal velocity 0.50 m/s"]
    assert task_quantity(env) == "goal velocity (m/s)"


# As axes


def test_every_component_is_an_axis_and_what_explains_most_comes_first():
    generator = np.random.default_rng(0)
    tasks = [
        {"payload": p, "floor": f, "motors": m, "arm": {"broken": b}, "always": 1.0}
        for p, f, m, b in zip(
            generator.uniform(0, 1, 40).tolist(),
            generator.choice(["ice", "wood"], 40).tolist(),
            generator.uniform(0, 1, (40, 2)).tolist(),
            generator.choice([True, False, None], 40).tolist(),
            strict=True,
        )
    ]
    returns = [10.0 * (task["floor"] == "ice") + 8.0 * task["motors"][1] ** 2 for task in tasks]
    found = components(tasks, returns, "task")
    assert [axis.name for axis in found][:2] == ["floor", "motors[1]"]
    assert {axis.name for axis in found} == {"floor", "motors[1]", "payload", "motors[0]", "arm.broken"}
    assert found[0].explained > 0.6
    assert all(0 <= axis.explained < 0.3 for axis in found[2:])
    few = components(tasks[:24], returns[:24], "task")  # fewer than five for each of the five components
    assert [axis.name for axis in few][:2] == ["floor", "motors[1]"]
    assert all(axis.explained is None for axis in few)
    assert found[0].tick_names == ["ice", "wood"]
    (broken,) = (axis for axis in found if axis.name == "arm.broken")
    assert broken.tick_names == ["false", "none", "true"]
    for axis, task in zip(broken.places, tasks, strict=True):
        assert broken.tick_names[round(axis)] == {True: "true", False: "false", None: "none"}[task["arm"]["broken"]]


def test_an_irrelevant_component_explains_nothing_however_many_categories_it_has():
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        tasks = [
            {"a": a, "b": b}
            for a, b in zip(generator.choice(list("abcdef"), 20), generator.normal(size=20), strict=True)
        ]
        found = components([plain(task) for task in tasks], generator.normal(size=20).tolist(), "task")
        shares += [axis.explained for axis in found]
    assert np.mean(shares) < 0.1  # R² without adjustment would have 5 / 19 and 2 / 19


def test_a_single_number_has_one_axis_and_equal_whole_numbers_lie_next_to_each_other():
    (axis,) = components([[0.5], [0.7], [0.9]], [0.0, 1.0, 2.0], "goal velocity (m/s)")
    assert (axis.name, axis.ticks, axis.explained) == ("goal velocity (m/s)", None, None)
    np.testing.assert_array_equal(axis.places, [0.5, 0.7, 0.9])
    (axis,) = components([0, 1, 0, 1], [0.0] * 4, "direction")
    assert (axis.ticks, axis.tick_names) == ([0, 1], ["0", "1"])
    assert len(set(axis.places)) == 4
    np.testing.assert_array_equal(axis.places.round(), [0, 1, 0, 1])


def test_values_that_the_quantity_names_are_shown_by_their_names():
    (axis,) = components([1, 0, 1], [3.0, 1.0, 2.0], "direction (0 backward, 1 forward)")
    assert (axis.name, axis.ticks, axis.tick_names) == ("direction", [0, 1], ["backward", "forward"])
    assert task_text(1, "direction (0 backward, 1 forward)") == "direction forward"
    (axis,) = components([2, 0], [3.0, 1.0], "goal velocity (m/s)")
    assert (axis.name, axis.tick_names) == ("goal velocity (m/s)", ["0", "2"])


def test_tasks_that_are_all_the_same_have_an_axis_and_those_of_too_many_numbers_their_rank():
    (axis,) = components([{"a": 1.0}] * 3, [0.0, 1.0, 2.0], "task")
    assert (axis.name, axis.label) == ("a", "a")
    returns = np.random.default_rng(1).permutation(40).tolist()
    for tasks in (np.random.default_rng(0).normal(size=(40, 13)).tolist(), [f"task {i}" for i in range(40)]):
        (axis,) = components(tasks, returns, "task")
        assert (axis.name, axis.label, axis.explanation) == ("task", "rank of the task", "")
        np.testing.assert_array_equal(axis.places, np.add(returns, 1))


def test_only_goals_are_places():
    assert are_places([[0.1, 0.2], [0.3, 0.4]], "goal")
    assert [axis.name for axis in components([[0.1, 0.2], [0.3, 0.5]], [0, 1], "goal (m)")] == [
        "goal (m) x",
        "goal (m) y",
    ]
    assert not are_places([[0.1, 0.2]], "task")
    assert not are_places([{"a": 0.1, "b": 0.2}], "goal")
    assert not are_places([[0.1, 0.2, 0.3]], "goal")
    assert not are_places([[0.1, "a"]], "goal")
