"""Tasks of other libraries' environments keep their values and types wherever they go."""

import json
import math
import pickle
from collections import namedtuple
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import Error
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maml_rl.envs.drawn_tasks import DrawnTasks, IndexedTasks, decode, encode, same
from maml_rl.errors import InputError
from maml_rl.experiments.runs.task_input import read_task
from maml_rl.processes import Processes
from maml_rl.task_observation import TaskObservation
from maml_rl.task_parts import plain
from maml_rl.tasks import TaskVectorEnv, assign_tasks, sample_tasks, vectorize


@pytest.fixture(scope="module")
def anything() -> Iterator[str]:
    """An environment that takes any task, which this process and those that it starts can import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "environments")
        yield "foreign_environments:foreign/AnythingForTests-v0"


def dtypes() -> st.SearchStrategy[np.dtype]:
    kinds = (arrays.scalar_dtypes(), arrays.unicode_string_dtypes(), arrays.byte_string_dtypes())
    return st.one_of(*kinds).filter(lambda dtype: dtype.itemsize > 0).map(lambda dtype: dtype.newbyteorder("="))


def numpy_scalars() -> st.SearchStrategy[Any]:
    found = dtypes().flatmap(lambda dtype: arrays.arrays(dtype, ()).map(lambda array: array[()]))
    return st.one_of(found, st.sampled_from([np.longdouble("0.1"), np.str_(""), np.float32(0.1), np.float16(-0.0)]))


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    numpy_scalars(),
    dtypes().flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=2, min_side=0))),
)
KEYS = st.one_of(st.text(max_size=5), st.integers(), st.none(), st.tuples(st.booleans(), st.text(max_size=2)))
TASKS = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.lists(parts, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5), parts, max_size=3),
        st.dictionaries(KEYS, parts, max_size=3),
        st.fixed_dictionaries({"__type__": parts}),  # what the JSON form itself uses
    ),
    max_leaves=6,
)


def identical(a: Any, b: Any) -> bool:
    """Whether two tasks are equal in value and type, however deep; NaN is equal to NaN, and 0.0 not to -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return identical(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(identical(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and all(map(identical, a.ravel(), b.ravel()))
    if isinstance(a, np.generic) and a.dtype.kind == "c":
        return identical(a.real, b.real) and identical(a.imag, b.imag)
    if isinstance(a, (float, np.floating)):
        return bool((np.isnan(a) and np.isnan(b)) or (a == b and np.signbit(a) == np.signbit(b)))
    if isinstance(a, (np.datetime64, np.timedelta64)):
        return a.dtype == b.dtype and bool((np.isnat(a) and np.isnat(b)) or a == b)
    return bool(a == b)


MIXED = [
    (4, 0.3),
    [0.5, 1, True, None, "reach"],
    {"goal": np.array([0.1, -0.0], np.float32), "legs": (4, np.int8(3)), "payload": None, "motors": [{"left": 1.0}]},
    {1: "one", (2, "two"): math.nan, "__type__": "tuple"},
    np.float64(0.5),
    np.zeros((2, 0), np.uint8),
    np.array(["reach", "push"]),
]


def through_json(space: DrawnTasks, task: Any) -> Any:
    (found,) = space.from_jsonable(json.loads(json.dumps(space.to_jsonable([task]), allow_nan=False)))
    return found


@given(TASKS)
@settings(deadline=None)
def test_json_keeps_value_and_type_of_every_part(task):
    before = deepcopy(task)
    found = decode(json.loads(json.dumps(encode(task), allow_nan=False)))
    assert identical(found, task)
    assert identical(task, before)
    assert same(found, task)


@given(TASKS, TASKS)
@settings(deadline=None)
@example(1, 1.0)
@example(1, True)
@example((1,), [1])
@example(np.float64(1), 1.0)
@example(0.0, -0.0)
@example({"a": 1, "b": 2}, {"a": 1, "b": 2})
def test_two_tasks_are_the_same_exactly_if_values_and_types_are_equal(a, b):
    assert same(a, b) == identical(a, b)


@pytest.mark.parametrize("task", MIXED, ids=repr)
def test_a_drawn_task_is_a_copy_and_survives_json_and_pickling(task):
    space = DrawnTasks(lambda _: task)
    (drawn,) = sample_tasks(space, 1, seed=3)
    assert identical(drawn, task)
    assert drawn is not task or not isinstance(task, (list, dict, np.ndarray))
    assert identical(through_json(space, drawn), task)
    assert identical(pickle.loads(pickle.dumps(drawn)), task)
    json.dumps(plain(drawn))


@pytest.fixture(scope="module")
def in_processes(anything) -> Iterator[TaskVectorEnv]:
    envs = vectorize(anything, 2, Processes(2))
    yield envs
    envs.close()


@pytest.fixture(scope="module")
def in_turn(anything) -> Iterator[TaskVectorEnv]:
    envs = gymnasium.make_vec(anything, 2, vectorization_mode="sync")
    yield envs
    envs.close()


@pytest.fixture(scope="module")
def alone(anything) -> gymnasium.Env:
    return gymnasium.make(anything, disable_env_checker=True)


@given(TASKS)
@settings(deadline=None)
def test_a_task_reaches_a_single_environment_as_it_is(alone, task):
    alone.unwrapped.task = task
    alone.reset(seed=0)
    assert identical(alone.unwrapped.received, task)


@pytest.mark.parametrize("kind", ["in_turn", "in_processes"])
def test_a_task_reaches_each_of_several_environments_as_it_is(kind, request):
    envs = request.getfixturevalue(kind)

    @given(TASKS, TASKS)
    @settings(deadline=None, max_examples=60)
    @example(MIXED, tuple(MIXED))
    def check(first, second):
        assign_tasks(envs, [first, second])
        envs.reset(seed=[0, 1])
        assert identical(list(envs.call("received")), [first, second])

    check()


def test_unknown_types_are_refused_with_the_reason():
    class Own(dict):
        pass

    objects = (object(), {1, 2}, Own(a=1), namedtuple("Goal", "x")(1), 1j)
    for part in (*objects, np.array([None]), np.ma.array([1]), np.zeros(1, ">f8"), np.zeros(1, "f8,i4")):
        for task in (part, [part], {"a": (part,)}):
            with pytest.raises(TypeError, match="tasks have to consist of None, Booleans, numbers"):
                DrawnTasks(lambda _, task=task: task)
            assert not DrawnTasks(lambda _: 0).contains(task)


def drawn_from(*tasks: Any) -> DrawnTasks:
    """Draws each of these tasks in turn, with the seeds 0, 1, ..."""
    return DrawnTasks(lambda seed: tasks[seed % len(tasks)])


def test_equal_seeds_that_draw_different_types_are_refused():
    found: list[Any] = []

    def draw(seed: int) -> float:
        found.append(seed)
        return 1 if len(found) > 10 else 1.0

    with pytest.raises(ValueError, match="equal seeds draw different tasks"):
        DrawnTasks(draw)


def test_a_rare_unknown_type_is_refused_when_it_is_drawn():
    space = DrawnTasks(lambda seed: object() if seed >= 10 else seed)
    with pytest.raises(InputError, match="tasks have to consist of None") as raised:
        sample_tasks(space, 1, seed=0)
    assert "\n" not in str(raised.value)


def test_spaces_that_draw_the_same_are_equal():
    assert drawn_from(1, 2) == drawn_from(1, 2)
    assert drawn_from(1, 2) != drawn_from(1.0, 2)
    assert drawn_from(1, 2) != spaces.Discrete(2)


def test_a_mask_is_refused():
    with pytest.raises(Error, match="no mask"):
        drawn_from(1).sample(mask=np.ones(1, np.int8))


# What a person types


@pytest.mark.parametrize(
    ("drawn", "text", "expected"),
    [
        ([0.5, 1.5], "2", 2.0),
        ([0.5, 1, 1.5], "2", 2),
        ([0.5, 1, 1.5], "2.0", 2.0),
        ([(4, 0.3)], "5,0.25", (5, 0.25)),
        ([(4, 0.3)], "[5, 1]", (5, 1.0)),
        ([np.array([0.1, 0.2], np.float32)], "1, 0.1", np.array([1, 0.1], np.float32)),
        ([np.float64(0.5)], "1", np.float64(1)),
        ([np.int8(1)], "3", np.int8(3)),
        ([{"mass": np.float32(1), "name": "a", "load": [True]}], '{"name": "b", "mass": 2, "load": [false]}', None),
        ([{1: 0.5}], '{"1": 2}', {1: 2.0}),
        (["reach", None], "null", None),
        (["reach", None], '"push"', "push"),
        ([np.str_("reach")], '"to push"', np.str_("to push")),
        ([*[2.0] * 30, None], "null", None),  # a rare one
    ],
)
def test_a_typed_task_has_the_types_of_drawn_ones(drawn, text, expected):
    if isinstance(drawn[0], dict) and "mass" in drawn[0]:
        expected = {"mass": np.float32(2), "name": "b", "load": [False]}
    assert identical(read_task(drawn_from(*drawn), text), expected)


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        (1, "1.5"),
        (1, "true"),
        (True, "1"),
        (1.0, '"a"'),
        (np.int8(1), "300"),
        (np.int8(1), "1.5"),
        (np.int64(1), "true"),
        (np.uint8(1), "-1"),
        (np.array([0.1, 0.2]), "1,2,3"),
        (np.array([1, 2]), "1,2.5"),
        ((4, 0.3), "4"),
        ([1.0], "[[1]]"),
        ({"mass": 1.0}, '{"mas": 1.0}'),
        ({"mass": 1.0}, "1.0"),
        ("reach", "1"),
        (None, "0"),
    ],
)
def test_a_typed_task_of_another_form_is_refused_in_one_line(drawn, text):
    with pytest.raises(InputError, match="is not in the task space") as raised:
        read_task(drawn_from(drawn), text)
    assert "\n" not in str(raised.value)
    assert json.dumps(plain(drawn)) in str(raised.value)


@given(TASKS)
@settings(deadline=None, max_examples=50)
def test_plain_tasks_are_json(task):
    json.dumps(plain(task))


def test_plain_tasks_are_what_people_read():
    expected = {"goal": [0.5, 0.0], "legs": [4, 3], "payload": None, "motors": [{"left": 1.0}], "1": "now"}
    task = {"goal": np.array([0.5, 0.0]), "legs": (4, np.int8(3)), "payload": None, "motors": [{"left": 1.0}], 1: "now"}
    assert identical(plain(task), expected)


# Tasks as observations


@pytest.mark.parametrize(
    ("task", "numbers"),
    [
        (1.5, [1.5]),
        (np.float32(1.5), [1.5]),
        ((4, 0.5), [4, 0.5]),
        ({"b": [1, True], "a": np.array([[2.0, 3.0]])}, [2, 3, 1, 1]),
        ({"b": 1, "a": {"c": np.array(5)}}, [5, 1]),
    ],
)
def test_tasks_of_numbers_are_flattened_in_the_order_of_their_names(task, numbers):
    space = drawn_from(task)
    assert spaces.flatten_space(space) == spaces.Box(-np.inf, np.inf, (len(numbers),), np.float64)
    assert spaces.flatdim(space) == len(numbers)
    assert spaces.flatten(space, task).tolist() == numbers
    assert space.is_np_flattenable


class Still(gymnasium.Env):
    """Does nothing, with tasks of a space of choice."""

    observation_space, action_space = spaces.Box(0.0, 1.0, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, task_space: DrawnTasks) -> None:
        self.task_space, self.task = task_space, task_space.examples[0]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return np.zeros(1, np.float32), {}


def test_an_observation_ends_with_the_numbers_of_the_task():
    env = TaskObservation(Still(drawn_from((4, 0.5))))
    env.unwrapped.task = (3, 0.25)
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation, np.array([0, 3, 0.25], np.float32))


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (["reach"], "'reach' is no number"),
        ([None], "None is no number"),
        ([1.0, None], "None is no number"),
        ([[1.0], [1.0, 2.0]], "numbers in different places"),
        ([{"a": 1.0}, {"b": 1.0}], "numbers in different places"),
        ([np.zeros((2, 2)), np.zeros(3)], "numbers in different places"),
        ([np.array([1j])], "is no number"),
        ([10**400], "is no number"),
    ],
)
def test_tasks_that_are_not_a_fixed_set_of_numbers_cannot_be_observed(drawn, reason):
    with pytest.raises(InputError, match=reason) as raised:
        TaskObservation(Still(drawn_from(*drawn)))
    assert "cannot be observed" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not drawn_from(*drawn).is_np_flattenable


def test_a_task_of_another_form_is_refused_when_it_is_observed():
    with pytest.raises(ValueError, match="numbers in different places"):
        spaces.flatten(drawn_from((1, 2)), (1, 2, 3))


# Tasks by their index


def test_indexed_tasks_are_a_discrete_space_that_is_equal_where_the_tasks_are():
    space = IndexedTasks([2, 3, 4], [{"velocity": np.float64(1.0)}])
    assert space == IndexedTasks([2, 3, 4], [{"velocity": np.float64(1.0)}])
    assert space != IndexedTasks([2, 3, 4], [{"velocity": 1.0}])
    assert space != IndexedTasks([3, 4, 5], [{"velocity": np.float64(1.0)}])
    assert space != spaces.Discrete(3, start=2)
    assert pickle.loads(pickle.dumps(space)) == deepcopy(space) == space
    assert {int(task) for task in sample_tasks(space, 50, seed=0)} == {2, 3, 4}
    assert spaces.flatten(space, 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize("indices", [[], [0, 2], [1, 1]])
def test_indices_with_gaps_are_refused(indices):
    with pytest.raises(ValueError, match="in a row"):
        IndexedTasks(indices)


def test_tasks_that_cannot_be_compared_are_taken():
    assert IndexedTasks([0], [object()]) == IndexedTasks([0], [object()])
