"""Tasks as a user may type them."""

import json

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space, Tuple

from maml_rl.errors import InputError
from maml_rl.experiments.runs.task_input import read_task, read_tasks, task_list


@pytest.mark.parametrize(
    ("space", "text", "task"),
    [
        (Box(0, 2, (1,), np.float32), "1.5", np.array([1.5], np.float32)),
        (Box(0, 2, (1,), np.float32), "[1.5]", np.array([1.5], np.float32)),
        (Box(-1, 1, (2,), np.float32), "0.3,-0.2", np.array([0.3, -0.2], np.float32)),
        (Box(-1, 1, (2,), np.float32), " [0.3, -0.2] ", np.array([0.3, -0.2], np.float32)),
        (Box(-1, 1, (2, 2), np.float64), "[[0, 1], [1, 0]]", np.eye(2)[::-1]),
        (Box(-1, 1, (), np.float64), "1", np.array(1.0)),
        (Discrete(2), "1", np.int64(1)),
        (Discrete(2, start=-1), "-1", np.int64(-1)),
        (MultiDiscrete([3, 4]), "2,3", np.array([2, 3])),
    ],
)
def test_a_task_is_read_as_it_is_typed(space, text, task):
    read = read_task(space, text)
    assert space.contains(read)
    np.testing.assert_array_equal(read, task)
    assert read.dtype == task.dtype


def test_tasks_of_several_parts_are_read_from_json():
    space = Dict({"mass": Box(0, 5, (1,), np.float32), "way": Tuple((Discrete(2), Box(-1, 1, (2,), np.float64)))})
    task = read_task(space, '{"mass": [2.5], "way": [1, [0.5, -0.5]]}')
    assert space.contains(task)
    assert task["mass"].tolist() == [2.5]
    assert task["way"][0] == 1
    assert task["way"][1].tolist() == [0.5, -0.5]


ANY = [Box(0, 2, (1,), np.float32), Discrete(2), Dict({"a": Discrete(2)}), Tuple((Discrete(2), Discrete(2)))]


TYPED = ["", "forward", "1.5.2", "[", "[1", "0.5,", "[]", "[[], []]", "1,2,3", "3", "-1", "300", "1e999", "NaN", "null"]
TYPED += ['"1"', "true,false,true", "{}", '{"a": 7}', '{"b": 1}', "--seed"]
TYPED += ["[" * 50_000, "9" * 5_000, "Infinity", "[1e999]", '"\\ud800"']


@pytest.mark.parametrize("space", [*ANY, Box(-1, 1, (2,), np.int8), MultiDiscrete([3, 4])])
@pytest.mark.parametrize("text", TYPED, ids=lambda text: text[:20])
def test_anything_else_is_refused_in_one_line(space: Space, text: str):
    with pytest.raises(InputError, match=r"^task ") as refusal:
        read_task(space, text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) > 30


@pytest.mark.parametrize("space", [Discrete(2), MultiDiscrete([3]), Box(0, 3, (1,), np.int64)])
def test_a_fraction_is_not_an_integer(space):
    with pytest.raises(InputError, match=r"0\.5 is not in the task space"):
        read_task(space, "0.5")


LEG = Dict(payload=Box(0, 5, ()), motors=Box(0, 2, (3,)), joint=Dict(broken=Discrete(4)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"payload": 20.0}, "; payload 20.0 is not in Box(0.0, 5.0, (), float32): give"),
        ({"motors": [1, 1]}, "; motors [1, 1] is not in Box(0.0, 2.0, (3,), float32): give"),
        ({"joint": {"broken": 1.5}}, "; broken 1.5 is not in Discrete(4): give"),
        ({"payload": None, "paylod": 2.0}, "; payload missing; paylod unknown: give"),
        ({"gravity": 2.0}, "; gravity unknown: give"),
    ],
)
def test_the_message_names_the_part_of_a_task_that_is_wrong_and_no_key_is_ignored(changes, expected):
    right = {"payload": 2.0, "motors": [1, 1, 1], "joint": {"broken": 3}}
    assert LEG.contains(read_task(LEG, json.dumps(right)))
    wrong = {key: value for key, value in {**right, **changes}.items() if value is not None}
    with pytest.raises(InputError) as refusal:
        read_task(LEG, json.dumps(wrong))
    assert expected in str(refusal.value)


def test_tasks_of_a_list_may_be_beyond_the_bounds_but_have_the_form_of_a_task():
    space = Dict(mass=Box(0, 5, (1,), np.float32), joint=Discrete(4))
    near, far = read_tasks(space, [{"mass": [1.5], "joint": 0}, {"mass": [-7.5], "joint": 3}], "my.json")
    assert space.contains(near)
    assert not space.contains(far)
    assert (far["mass"].tolist(), far["mass"].dtype, far["joint"]) == ([-7.5], np.float32, 3)
    for wrong, expected in (
        ({"mass": [1.5], "joint": 4}, r"joint 4 is not in Discrete\(4\)"),
        ({"mass": [1.5, 2.0], "joint": 0}, r"mass \[1.5, 2.0\] is not in Box"),
        ({"mass": [1.5]}, "joint missing"),
        ([1.5], "does not have the form of the task space"),
    ):
        with pytest.raises(InputError, match=rf"^my.json: task 2, .*{expected}.*give one such as {{") as refusal:
            read_tasks(space, [{"mass": [1.5], "joint": 0}, wrong], "my.json")
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", ["[[0.5]]", "{}", "[1, NaN]", "[[0.5], ", "0.5"])
def test_a_file_of_tasks_holds_a_list_of_two_or_more(tmp_path, content):
    path = tmp_path / "my.json"
    with pytest.raises(InputError, match="there is no file"):
        task_list(path)
    path.write_text(content)
    with pytest.raises(InputError, match=r"^.*my.json ") as refusal:
        task_list(path)
    assert "\n" not in str(refusal.value)
