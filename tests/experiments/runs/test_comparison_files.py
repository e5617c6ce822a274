"""Stored comparisons: read as they were written, or refused in one line."""

from dataclasses import asdict
from pathlib import Path

import pytest

from maml_rl.checkpoint import write_json
from maml_rl.errors import InputError
from maml_rl.experiments.paper.results_page import page
from maml_rl.experiments.runs.comparison_files import (
    COMPARISON,
    ComparedRun,
    Comparison,
    Estimate,
    Method,
    MethodCurve,
    PaperPoint,
    comparison_heading,
    comparison_remarks,
    comparison_table,
    csv_text,
    read_comparison,
    stored_runs,
    write_comparison,
)

_VALUES = [Estimate(-1.0, -2.0, None), Estimate(3.5, 3.0, 4.0)]
_RUN = ComparedRun(
    directory="runs/a",
    seed=0,
    iterations=3,
    env_steps=700,
    seconds=1.5,
    machines=[{"processor": "Abacus", "cores": 2}],
    command="maml-rl train navigation",
    inner_lr={"": [0.5]},
    values={"": [[-1.0, None], [3.0, 4.0]]},
)
COMPARED = Comparison(
    problem="maml_rl.envs:finn2017/Navigation2D-v0",
    name="navigation",
    quantity="return",
    conditions=[""],
    gradient_steps=1,
    task_set="held-out",
    num_tasks=2,
    episodes=3,
    seed=0,
    tasks=[[0.1, 0.2], [0.3, -0.2]],
    strata=[0, 1],
    methods=[Method("maml", "maml", "tasks", [MethodCurve("", _VALUES, _VALUES, [PaperPoint(1, 2.0, None)])], [_RUN])],
)


def used(path: Path) -> None:
    """Reads a comparison, and shows it in every form."""
    compared = read_comparison(path)
    comparison_heading(compared), comparison_table(compared), comparison_remarks(compared), csv_text(compared)
    page(path.parents[1])
    assert stored_runs(path) == compared.directories


def test_a_comparison_is_read_as_it_was_written(tmp_path):
    files = write_comparison(COMPARED, tmp_path, lambda _, path: path.write_text("a picture"))
    assert [path.name for path in files] == ["comparison.json", "comparison.csv", "comparison.png"]
    assert read_comparison(files[0]) == COMPARED
    assert stored_runs(files[0]) == {"runs/a"}
    assert stored_runs(tmp_path / "absent.json") == set()


def test_a_hostile_comparison_is_refused_in_one_line(tmp_path, check_reader):
    (tmp_path / "navigation").mkdir()
    check_reader(tmp_path / "navigation" / COMPARISON, asdict(COMPARED), used)


def test_a_hostile_comparison_has_no_runs(tmp_path, hostile_content):
    for name, content in hostile_content.items():
        (tmp_path / COMPARISON).write_bytes(content)
        assert stored_runs(tmp_path / COMPARISON) == set(), name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quantity": "beauty"}, "a known quantity"),
        ({"conditions": []}, "it should have conditions"),
        ({"conditions": ["", "5-shot"]}, "'maml' should have a run, and for each condition values"),
        ({"gradient_steps": 0}, "values for 0 to 0 gradient steps"),
        ({"gradient_steps": 10**9}, "a method should have values for all of its 1000000000 gradient steps"),
        ({"methods": []}, "a method should have values"),
        ({"methods": [asdict(COMPARED.methods[0]) | {"runs": []}]}, "'maml' should have a run"),
    ],
)
def test_values_that_do_not_fit_together_are_named_in_one_line(tmp_path, changes, expected):
    write_json(tmp_path / COMPARISON, asdict(COMPARED) | changes)
    with pytest.raises(InputError, match=expected) as refused:
        read_comparison(tmp_path / COMPARISON)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("remove it, or compare the runs again with maml-rl compare")
