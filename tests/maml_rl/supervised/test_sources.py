"""The tasks of a run, from its settings."""

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maml_rl.errors import InputError
from maml_rl.seeding import Phase
from maml_rl.supervised.few_shot import FewShot
from maml_rl.supervised.settings import Family, TasksConfig
from maml_rl.supervised.sources import task_source, training_batches, with_shots
from maml_rl.supervised.task_batches import FunctionTasks, Sinusoid


def test_a_meta_batch_depends_only_on_its_iteration() -> None:
    source = Sinusoid(4, 4)
    batches = training_batches(source, 3, 4, 0)
    passed = [next(batches) for _ in range(7)]
    for iteration in (1, 5):
        again = next(training_batches(source, 3, 4, iteration))
        assert all(torch.equal(a, b) for a, b in zip(again, passed[iteration], strict=True))
    expected = source.batch(3, Phase.TRAINING, range(20, 24))
    assert torch.equal(passed[5].support_x, expected.support_x)


def test_a_source_is_made_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert task_source(TasksConfig(shots=3, queries=2, observe_task=True), None) == Sinusoid(3, 2, observe_task=True)
    module = types.ModuleType("lines")
    module.line = lambda seed, index: [[seed]] * 4  # type: ignore[attr-defined]  # noqa: ARG005
    monkeypatch.setitem(sys.modules, "lines", module)
    source = task_source(TasksConfig("function", function="lines:line"), None)
    assert source == FunctionTasks(module.line)


def test_other_numbers_of_examples_leave_a_function_as_it_is() -> None:
    assert with_shots(Sinusoid(10, 7), 3, None) == Sinusoid(3, 7)
    assert with_shots(Sinusoid(10, 7), 3, 2) == Sinusoid(3, 2)
    tasks = FunctionTasks(lambda *_: [])
    assert with_shots(tasks, 3, 2) is tasks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "images"}, "the family images needs data, a directory with a folder of images for each class"),
        ({"family": "function", "function": "absent_module:f"}, "tasks.function 'absent_module:f' cannot be imported"),
        ({"family": "function", "function": "./a.py:f"}, "give module:function"),
        ({"family": "function", "function": "math:pi"}, "tasks.function 'math:pi' is not a function but 3.14"),
    ],
)
def test_an_invalid_source_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        task_source(TasksConfig(**settings), None)  # type: ignore[arg-type]
    assert "--" not in str(caught.value)


def test_a_function_belongs_to_its_family() -> None:
    for settings in ({"family": "function"}, {"function": "lines:line"}):
        with pytest.raises(InputError, match="function must be module:function for the family function, and None"):
            TasksConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        (
            "sinusoid",
            {"ways": 2},
            "ways is a setting of omniglot and mini-imagenet and images, not of the family",
        ),
        ("omniglot", {"image_size": 28}, "image_size is a setting of images, not"),
        ("mini-imagenet", {"split": "vinyals"}, "split is a setting of omniglot, not"),
        ("images", {"observe_task": True}, "observe_task is a setting of sinusoid, not"),
        ("images", {"split_seed": -1}, "split_seed must be at least 0"),
    ],
)
def test_settings_of_other_families_are_refused(family: Family, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        TasksConfig(family, **settings)


def test_the_classes_of_a_folder_are_divided_as_the_settings_say(tmp_path: Path) -> None:
    for name in "abcdefghijkl":
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("L", (4, 4), i).save(tmp_path / name / f"{i}.png")
    config = TasksConfig("images", ways=2, shots=1, queries=1, image_size=4, fractions=(0.5, 0.25, 0.25))
    source, other = (task_source(replace(config, split_seed=seed), str(tmp_path)) for seed in (0, 1))
    assert isinstance(source, FewShot)
    assert isinstance(other, FewShot)
    assert [len(classes) for classes in source.data.classes.values()] == [6, 3, 3]
    assert source.data.classes[Phase.TRAINING].keys() != other.data.classes[Phase.TRAINING].keys()
