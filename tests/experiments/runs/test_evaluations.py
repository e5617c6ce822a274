"""Stored evaluations: writing, reading, and whether they are current."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maml_rl.checkpoint import write_json
from maml_rl.config import RLConfig
from maml_rl.errors import InputError
from maml_rl.experiments.paper.published import paper_tasks
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs.evaluation_tables import heading, remarks, table
from maml_rl.experiments.runs.evaluations import (
    EVALUATION,
    PICTURE,
    Evaluation,
    TaskSet,
    current_evaluation,
    file_of,
    is_kept,
    read_evaluation,
    settings_with,
    stored_evaluation,
    stored_validation,
    why_again,
    write_evaluation,
)
from maml_rl.json_values import json_text
from maml_rl.learner import RANDOM, THIS_RUN, Curve, Validation
from maml_rl.run import Progress, Run, load_run, save_run
from maml_rl.supervised.settings import SupervisedConfig
from maml_rl.task_parts import plain
from maml_rl.types import State

NAVIGATION, PRETRAINED, SINUSOID = (PRESETS[n].config for n in ("navigation", "navigation-pretrained", "sinusoid"))


def run_of(config: RLConfig | SupervisedConfig, iteration: int = 5) -> Run:
    """A run without tensors."""
    return Run(config, State({}, {}, iteration), {}, Progress(1.5, 700 if isinstance(config, RLConfig) else 0))


def made(run: Run, task_set: TaskSet = "held-out", **given: object) -> Evaluation:
    """An evaluation with made-up numbers."""
    settings, config = settings_with(run.config, given, task_set), run.config
    shape = (settings.gradient_steps + 1, settings.tasks)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32).astype(np.float64)
    values += isinstance(config, RLConfig) / 3  # which has more digits
    inner_lr, validation = (0.1,) * settings.gradient_steps, None
    if config.meta.inner_steps == 0:
        lrs = settings.inner_lrs
        validation = Validation(settings.validation_tasks, lrs, [0.0] * (len(lrs) - 1) + [1.0], higher_is_better=True)
    curves = [Curve(THIS_RUN, "squared error", values, inner_lr, f"{s}-shot") for s in (10, 5)]
    if isinstance(config, RLConfig):
        tasks = paper_tasks(config.env_id) if task_set == "paper" else range(settings.tasks)
        about = (inner_lr, "", tuple(map(plain, tasks)), None, validation)
        curves = [Curve(THIS_RUN, "return", values, *about), Curve(RANDOM, "return", values - 1, *about)]
    about = (config.problem, config.seed, run.state.iteration, run.progress.env_steps, run.progress.seconds)
    return Evaluation(config, *about, settings, task_set, curves, {})


def store(directory: Path, evaluation: Evaluation, **changes: object) -> Path:
    path = directory / file_of(EVALUATION, evaluation.task_set)
    write_json(path, evaluation.to_json() | changes)
    return path


@pytest.fixture
def directory(tmp_path) -> Path:
    """A run on sinusoids, next to which baselines are looked for."""
    save_run(tmp_path / "run", run_of(SINUSOID))
    return tmp_path / "run"


@pytest.mark.parametrize("config", [NAVIGATION, PRETRAINED, SINUSOID], ids=["maml", "pretrained", "sinusoid"])
def test_an_evaluation_is_read_as_it_was_stored(config, tmp_path):
    evaluation = made(run_of(config))
    read = read_evaluation(store(tmp_path, evaluation), config)
    assert read._replace(curves=[]) == evaluation._replace(curves=[])
    for ours, theirs in zip(read.curves, evaluation.curves, strict=True):
        np.testing.assert_array_equal(ours.values, theirs.values)
        assert ours._replace(values=None, tasks=(*ours.tasks,)) == theirs._replace(values=None)
    assert read.to_json() == evaluation.to_json()


def test_values_that_are_not_finite_are_read_as_nan_and_float32_values_have_few_digits(tmp_path):
    evaluation = made(run_of(SINUSOID))
    values = evaluation.curves[0].values.copy()
    values[1, :2] = np.inf, np.nan
    changed = evaluation._replace(curves=[evaluation.curves[0]._replace(values=values)])
    path = store(tmp_path, changed)
    written = json.loads(path.read_text())["curves"][0]
    assert (written["values"][1][:2], written["mean"][1]) == ([None, None], None)
    assert all(len(repr(abs(value))) <= 16 for value in written["values"][0])
    (read,) = read_evaluation(path, SINUSOID).curves
    assert np.isnan(read.values[1, :2]).all()
    np.testing.assert_array_equal(read.values[0], values[0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"settings": {}}, None),
        ({"settings": {"tasks": 1}}, "settings: tasks must be at least 2"),
        ({"settings": {"unknown": 1}}, "settings: 'unknown' is unknown"),
        ({"gradient_steps": [0, 2]}, "gradient steps 0 to 3"),
        ({"tasks": [1, 2]}, "40 tasks"),
        ({"strata": [0]}, "40 tasks"),
        ({"strata": []}, "40 tasks"),
        ({"curves": []}, "first curve should be of this run"),
        ({"curves": None}, "curves should be a list"),
    ],
)
def test_a_damaged_evaluation_is_refused_in_one_line(tmp_path, changes, expected):
    evaluation = made(run_of(NAVIGATION), later_lr_factor=0.5, episodes=20)
    path = store(tmp_path, evaluation, **changes)
    if expected is None:
        assert read_evaluation(path, NAVIGATION).settings == evaluation.settings
        return
    with pytest.raises(InputError, match=expected) as refused:
        read_evaluation(path, NAVIGATION)
    assert str(refused.value).endswith("remove it, to evaluate the run again")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"of": RANDOM}, "first curve should be of this run"),
        ({"quantity": "beauty"}, "quantities should be among return, accuracy"),
        ({"values": [[0.0] * 40] * 3}, "'this run' should have values of 40 tasks for gradient steps 0 to 3"),
        ({"values": [[0.0] * 39] * 4}, "'this run' should have values of 40 tasks"),
        ({"mean": [0.0]}, "'this run' should have values of 40 tasks"),
        ({"inner_lr": [0.1]}, "a step size above 0 for each gradient step"),
        ({"inner_lr": [0.1, 0.0, 0.1]}, "a step size above 0 for each gradient step"),
        (
            {"validation": {"tasks": 1, "inner_lrs": [0.1], "scores": [], "higher_is_better": True}},
            "a score of each step size",
        ),
    ],
)
def test_a_damaged_curve_is_refused_in_one_line(tmp_path, change, expected):
    evaluation = made(run_of(NAVIGATION))
    first, *others = evaluation.to_json()["curves"]
    path = store(tmp_path, evaluation, curves=[first | change, *others])
    with pytest.raises(InputError, match=expected):
        read_evaluation(path, NAVIGATION)


@pytest.mark.parametrize("config", [NAVIGATION, SINUSOID], ids=["maml", "sinusoid"])
def test_an_evaluation_is_current_if_it_is_of_the_last_checkpoint_and_the_runs_own_settings(config, tmp_path):
    run = run_of(config)
    save_run(tmp_path, run)
    assert (stored_evaluation(tmp_path, run), current_evaluation(tmp_path, run)) == (None, None)
    assert why_again(None, tmp_path, run) == "it has no evaluation"
    store(tmp_path, made(run))
    assert current_evaluation(tmp_path, run) is not None
    others = (run._replace(state=run.state._replace(iteration=6)), run._replace(config=replace(config, seed=3)))
    for other in others:
        stored = stored_evaluation(tmp_path, other)
        assert why_again(stored, tmp_path, other, any_settings=True) == "its evaluation is of another checkpoint"
        assert current_evaluation(tmp_path, other) is None
    fewer = made(run, tasks=3)
    assert why_again(fewer, tmp_path, run).startswith("its evaluation, 3 tasks x ")
    assert why_again(fewer, tmp_path, run).endswith(", has other settings")
    assert why_again(fewer, tmp_path, run, any_settings=True) == ""
    more = config.evaluation.gradient_steps + 1
    assert f"has {more - 1} gradient steps" in why_again(fewer, tmp_path, run, any_settings=True, gradient_steps=more)


def test_the_shots_of_the_training_are_the_runs_own(directory):
    config = replace(SINUSOID, evaluation=replace(SINUSOID.evaluation, shots=()))
    run = run_of(config)
    assert why_again(made(run, shots=(10,)), directory, run) == ""
    assert "has other settings" in why_again(made(run, shots=(9,)), directory, run)


def test_an_evaluation_is_current_only_with_the_current_baselines(directory):
    run = load_run(directory)
    assert why_again(made(run)._replace(baselines={"oracle": 3}), directory, run).startswith(
        "its evaluation is of other checkpoints of the runs it is compared with"
    )
    save_run(directory.with_name("run-oracle"), run)
    assert why_again(made(run)._replace(baselines={"oracle": 5}), directory, run) == ""
    other_family = replace(SINUSOID, tasks=replace(SINUSOID.tasks, family="function", function="a:b"))
    save_run(directory.with_name("run-oracle"), run_of(other_family))
    assert why_again(made(run), directory, run) == ""


def test_an_evaluation_on_the_papers_tasks_is_not_one_on_held_out_tasks(tmp_path):
    run = run_of(NAVIGATION)
    evaluations = {task_set: made(run, task_set) for task_set in ("held-out", "paper")}
    store(tmp_path, evaluations["held-out"])
    assert current_evaluation(tmp_path, run, "paper") is None
    path = store(tmp_path, evaluations["paper"])
    assert current_evaluation(tmp_path, run, "paper") is not None
    assert path.name == "evaluation-paper.json"
    for other in (evaluations["held-out"].to_json(), {"tasks": evaluations["held-out"].to_json()["tasks"]}):
        write_json(path, evaluations["paper"].to_json() | other)
        assert current_evaluation(tmp_path, run, "paper") is None


def test_an_evaluation_with_the_runs_own_settings_is_not_replaced_by_one_with_others(tmp_path):
    run = run_of(NAVIGATION)
    own, other = made(run), made(run, episodes=3)
    assert not is_kept(tmp_path, run, other)
    store(tmp_path, other)
    assert not is_kept(tmp_path, run, other)
    store(tmp_path, own)
    assert is_kept(tmp_path, run, other)
    assert not is_kept(tmp_path, run, own)


def test_the_chosen_step_size_is_read_for_a_run_that_has_none(tmp_path):
    run = run_of(PRETRAINED)
    assert stored_validation(tmp_path, run) is None
    store(tmp_path, made(run))
    assert stored_validation(tmp_path, run).best == PRETRAINED.evaluation.inner_lrs[-1]
    store(tmp_path, made(run_of(NAVIGATION)))
    assert stored_validation(tmp_path, run_of(NAVIGATION)) is None


def test_a_picture_that_cannot_be_drawn_leaves_the_evaluation_as_it_was(tmp_path):
    def fail(_: Path) -> None:
        raise OSError("no space left")

    run = run_of(NAVIGATION)
    write_evaluation(tmp_path, made(run), lambda path: path.write_text("a picture"))
    before = (tmp_path / EVALUATION).read_bytes()
    with pytest.raises(OSError, match="no space"):
        write_evaluation(tmp_path, made(run, tasks=3), fail)
    assert (tmp_path / EVALUATION).read_bytes() == before
    assert (tmp_path / PICTURE).read_text() == "a picture"


@pytest.mark.parametrize("config", [PRETRAINED, SINUSOID], ids=["pretrained", "sinusoid"])
def test_a_hostile_evaluation_is_refused_in_one_line(config, tmp_path, check_reader):
    def used(path: Path) -> None:
        evaluation = read_evaluation(path, config)
        heading(evaluation), table(evaluation), remarks(evaluation), evaluation.to_json()

    evaluation = made(run_of(config), tasks=2, gradient_steps=1, inner_lrs=(0.1, 0.2))
    evaluation.curves[0].values[1, 0] = np.nan
    changed = evaluation._replace(curves=evaluation.curves[:1], baselines={"oracle": 2})
    check_reader(tmp_path / EVALUATION, json.loads(json_text(changed.to_json())), used)
