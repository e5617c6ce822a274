"""Evaluation of a run: its numbers, its table and its picture."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from maml_rl.checkpoint import load_checkpoint, save_checkpoint, write_json
from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig, adaptation, task_returns
from maml_rl.experiments.media.plots import draw_adaptation
from maml_rl.experiments.paper.published import paper_tasks
from maml_rl.experiments.presets.rl_presets import PRESETS
from maml_rl.experiments.report.sections import Reported, returns
from maml_rl.experiments.runs import evaluations as module
from maml_rl.experiments.runs.evaluations import (
    Evaluations,
    Overrides,
    announcement,
    current_evaluation,
    evaluate,
    remarks,
    table,
)
from maml_rl.experiments.runs.run import CHECKPOINT, EVALUATION, METRICS, RunConfig, file_of, load_config, load_run
from maml_rl.experiments.runs.training import train
from maml_rl.parallel import TaskThreads
from maml_rl.tasks import evaluation_tasks, task_space, vectorize

NAVIGATION, DIRECTION, VELOCITY = (
    PRESETS[name].config for name in ("navigation", "half-cheetah-dir", "half-cheetah-vel")
)


def shrunk(config: RunConfig, **meta: object) -> RunConfig:
    return replace(
        config,
        iterations=2,
        meta=replace(config.meta, **({"meta_batch_size": 2, "episodes": 3} | meta)),
        policy=PolicyConfig(hidden_sizes=(8, 8)),
        evaluation=EvaluationConfig(tasks=3, gradient_steps=2, episodes=3, later_lr_factor=0.2, seed=4),
    )


@pytest.fixture(scope="module")
def navigation(tmp_path_factory) -> Path:
    """A run on navigation. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "navigation"
    train(shrunk(NAVIGATION), out, threads=1)
    return out


@pytest.fixture(scope="module")
def evaluations(navigation) -> Evaluations:
    return evaluate(navigation, threads=1)


@pytest.fixture(scope="module")
def direction(tmp_path_factory) -> Path:
    """A run on the half-cheetah's two directions. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "direction"
    train(replace(shrunk(DIRECTION), iterations=1), out, threads=1)
    return out


# Numbers


def test_the_record_has_the_documented_keys_lengths_and_numbers(evaluations):
    record = json.loads(json.dumps(evaluations.record(), allow_nan=False))
    assert record["env_id"] == NAVIGATION.env_id
    assert record["gradient_steps"] == [0, 1, 2]
    assert record["num_tasks"] == 3
    assert record["episodes"] == 3
    assert record["seed"] == 4
    assert record["training_seed"] == 0
    assert record["iteration"] == 2
    assert record["env_steps"] == evaluations.run.progress.env_steps > 0
    for name in ("mean_return", "standard_error", "interval_95", "random_mean_return", "random_interval_95"):
        assert len(record[name]) == 3
    assert np.shape(record["task_returns"]) == (3, 3)
    assert np.shape(record["tasks"]) == (3, 2)
    assert (record["task_set"], record["strata"], record["interval_over"]) == ("held-out", None, "tasks")
    assert record["inner_lr"] == pytest.approx([NAVIGATION.meta.inner_lr, NAVIGATION.meta.inner_lr * 0.2])


def test_means_and_standard_errors_are_those_of_the_tasks(evaluations):
    record = evaluations.record()
    returns = np.array(record["task_returns"])
    np.testing.assert_array_equal(returns, evaluations.trained.returns)
    np.testing.assert_allclose(record["mean_return"], returns.mean(1))
    np.testing.assert_allclose(record["standard_error"], returns.std(1, ddof=1) / 3**0.5)
    for mean, (low, high) in zip(record["mean_return"], record["interval_95"], strict=True):
        assert low < mean < high
    np.testing.assert_allclose(record["random_mean_return"], evaluations.random.returns.mean(1))


def test_the_returns_are_those_of_adaptation_on_the_held_out_tasks(navigation, evaluations):
    with closing(vectorize(NAVIGATION.env_id, 9)) as envs:
        run = load_run(navigation, envs)
        config = run.config.evaluation
        tasks = evaluation_tasks(task_space(envs), 3, 4)
        sampled = [
            sampled
            for _, sampled in adaptation(run.policy, run.theta, envs, tasks, run.config.meta, config, TaskThreads(1))
        ]
    np.testing.assert_array_equal(evaluations.trained.tasks, tasks)
    np.testing.assert_array_equal(evaluations.trained.returns, [task_returns(s) for s in sampled])
    for episodes, trajectories in zip(evaluations.trained.episodes, sampled, strict=True):
        for episode, observations, mask in zip(
            episodes, trajectories.observations[:, 0], trajectories.mask[:, 0], strict=True
        ):
            np.testing.assert_array_equal(episode, observations[mask.bool()])


def test_trained_and_random_policy_meet_the_same_tasks_and_differ(evaluations):
    np.testing.assert_array_equal(evaluations.trained.tasks, evaluations.random.tasks)
    assert not np.array_equal(evaluations.trained.returns, evaluations.random.returns)


def test_the_random_policy_is_the_run_before_training(navigation, tmp_path):
    out = tmp_path / "untrained"
    run = train(replace(shrunk(NAVIGATION), iterations=1), out, threads=1)
    checkpoint = load_checkpoint(out / CHECKPOINT)
    with closing(vectorize(NAVIGATION.env_id, 9)) as envs:
        initial = load_run(navigation, envs).policy  # load_run builds its policy with the weights of the seed
    tensors = checkpoint.tensors | {name: value.detach() for name, value in initial.named_parameters()}
    assert run.theta.keys() <= tensors.keys()
    save_checkpoint(out / CHECKPOINT, checkpoint._replace(tensors=tensors))
    untrained = evaluate(out, threads=1)
    np.testing.assert_array_equal(untrained.trained.returns, untrained.random.returns)


def test_two_evaluations_are_equal_whatever_the_number_of_threads(navigation, evaluations):
    assert evaluate(navigation, threads=2).record() == evaluations.record()


def test_the_training_seed_does_not_change_the_evaluation(navigation, evaluations, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(navigation, out)
    checkpoint = load_checkpoint(out / CHECKPOINT)
    checkpoint.record["config"]["seed"] = 17
    save_checkpoint(out / CHECKPOINT, checkpoint)
    other = evaluate(out, threads=1)
    np.testing.assert_array_equal(other.trained.tasks, evaluations.trained.tasks)
    np.testing.assert_array_equal(other.trained.returns, evaluations.trained.returns)
    assert not np.array_equal(other.random.returns, evaluations.random.returns)  # its weights are those of the seed


def test_settings_given_by_the_user_replace_the_runs_own(navigation):
    record = evaluate(navigation, Overrides(2, 1, 4, 0.7, 5), threads=1).record()
    assert (record["num_tasks"], record["gradient_steps"], record["episodes"]) == (2, [0, 1], 4)
    assert record["seed"] == 5
    assert len(record["mean_return"]) == 2


def test_a_single_setting_leaves_the_others(navigation, evaluations):
    other = evaluate(navigation, Overrides(gradient_steps=0), threads=1)
    assert other.config == replace(evaluations.config, gradient_steps=0)
    np.testing.assert_array_equal(other.trained.returns, evaluations.trained.returns[:1])
    json.dumps(other.record(), allow_nan=False)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (Overrides(tasks=1), "tasks"),
        (Overrides(gradient_steps=-1), "gradient_steps"),
        (Overrides(episodes=0), "episodes"),
        (Overrides(later_lr_factor=0.0), "later_lr_factor"),
        (Overrides(seed=-1), "seed"),
    ],
)
def test_a_setting_outside_its_range_is_refused_and_named(navigation, overrides, name):
    with pytest.raises(InputError, match=f"^{name} must be"):
        evaluate(navigation, overrides, threads=1)


def test_a_device_that_is_not_there_is_refused(navigation):
    with pytest.raises(InputError, match="cuda:99"):
        evaluate(navigation, device="cuda:99")


def test_the_two_directions_occur_equally_often(direction):
    evaluations = evaluate(direction, Overrides(tasks=4, gradient_steps=1, episodes=2), threads=1)
    record = json.loads(json.dumps(evaluations.record(), allow_nan=False))
    assert sorted(record["tasks"]) == [0, 0, 1, 1]
    assert record["strata"] == record["tasks"]
    assert record["env_id"] == DIRECTION.env_id


@pytest.mark.parametrize("name", ["navigation", "direction", "pretrained"])
def test_the_progress_ends_at_the_number_of_episodes_announced(request, name, monkeypatch):
    class Bar(tqdm):
        """A bar that is remembered."""

        def close(self) -> None:
            counts.append((self.n, self.total))
            super().close()

    counts: list[tuple[int, int]] = []
    directory = request.getfixturevalue(name)
    monkeypatch.setattr(
        "maml_rl.experiments.runs.evaluations.tqdm",
        lambda *args, **settings: Bar(*args, **settings | {"disable": False}),
    )
    config, progress, _ = load_config(directory)
    evaluate(directory, threads=1)
    ((done, total), *_) = counts
    assert done == total > 0
    assert f"; {total:,} episodes, about " in announcement(directory, config, progress, config.evaluation)


# Runs without inner updates


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A run of multi-task TRPO on navigation. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    config = shrunk(NAVIGATION, inner_steps=0)
    chosen = replace(config.evaluation, validation_tasks=2, inner_lrs=(0.01, 0.4))
    train(replace(config, iterations=1, evaluation=chosen), out, threads=1)
    return out


def test_the_step_size_of_a_run_without_inner_updates_is_chosen_and_recorded(pretrained):
    evaluations = evaluate(pretrained, threads=1)
    record = json.loads(json.dumps(evaluations.record(), allow_nan=False))
    assert record["method"] == "pretrained"
    validation = record["validation"]
    assert (validation["tasks"], validation["inner_lrs"]) == (2, [0.01, 0.4])
    best = validation["inner_lrs"][int(np.argmax(validation["mean_returns"]))]
    assert record["inner_lr"] == pytest.approx([best, best * 0.2])
    with closing(vectorize(NAVIGATION.env_id, 9)) as envs:
        run = load_run(pretrained, envs)
        meta = replace(run.config.meta, inner_lr=best)
        tasks = evaluation_tasks(task_space(envs), 3, 4)
        sampled = [
            sampled
            for _, sampled in adaptation(
                run.policy, run.theta, envs, tasks, meta, run.config.evaluation, TaskThreads(1)
            )
        ]
    np.testing.assert_array_equal(evaluations.trained.returns, [task_returns(s) for s in sampled])


def test_the_step_size_of_maml_is_that_of_its_training(evaluations):
    record = evaluations.record()
    assert record["method"] == "maml"
    assert record["validation"] is None


def test_nothing_is_chosen_where_no_gradient_step_is_taken(pretrained):
    assert evaluate(pretrained, Overrides(gradient_steps=0), threads=1).record()["validation"] is None


def test_an_oracle_is_evaluated_with_the_task_in_its_observation(tmp_path):
    config = replace(shrunk(NAVIGATION, inner_steps=0), iterations=1, observe_task=True)
    train(config, tmp_path / "run", threads=1)
    evaluations = evaluate(tmp_path / "run", Overrides(gradient_steps=0), threads=1)
    assert evaluations.record()["method"] == "oracle"
    for task, episode in zip(evaluations.trained.tasks, evaluations.trained.episodes[0], strict=True):
        assert (episode[:, 2:] == task).all()
    draw_adaptation(evaluations, tmp_path / "run", tmp_path / "picture.png")


def test_a_run_of_no_iterations_is_the_random_initialisation(tmp_path):
    config = shrunk(NAVIGATION, inner_steps=0)
    train(replace(config, iterations=0), tmp_path / "run", threads=1)
    evaluations = evaluate(tmp_path / "run", Overrides(tasks=2, gradient_steps=1), threads=1)
    record = evaluations.record()
    assert (record["method"], record["iteration"], record["env_steps"]) == ("random", 0, 0)
    np.testing.assert_array_equal(evaluations.trained.returns, evaluations.random.returns)
    draw_adaptation(evaluations, tmp_path / "run", tmp_path / "picture.png")
    assert cells(table(evaluations))[0][-2:] == ["paper", "paper, random"]


# The paper's tasks


def test_a_run_is_evaluated_on_the_papers_tasks(navigation, evaluations):
    on_paper = evaluate(navigation, Overrides(gradient_steps=1), threads=1, task_set="paper")
    record = json.loads(json.dumps(on_paper.record(), allow_nan=False))
    assert (record["task_set"], record["num_tasks"], record["episodes"]) == ("paper", 40, 3)
    np.testing.assert_array_equal(on_paper.trained.tasks, paper_tasks(NAVIGATION.env_id))
    assert len(record["task_returns"][0]) == 40
    assert remarks(on_paper) == remarks(on_paper)[:1]
    assert "paper: on its own 40 tasks" in remarks(evaluations)[1]


def test_an_evaluation_on_the_papers_tasks_is_not_one_on_held_out_tasks(navigation, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(navigation, run)
    checkpoint = load_checkpoint(run / CHECKPOINT)
    checkpoint.record["config"]["evaluation"] |= {"tasks": 40, "gradient_steps": 0, "episodes": 1}
    save_checkpoint(run / CHECKPOINT, checkpoint)
    records = {task_set: evaluate(run, threads=1, task_set=task_set).record() for task_set in ("held-out", "paper")}
    config, progress, _ = load_config(run)
    for task_set, other in (("held-out", "paper"), ("paper", "held-out")):
        path = run / file_of(EVALUATION, task_set)
        assert current_evaluation(run, config, progress, task_set) is None
        write_json(path, records[other])
        assert current_evaluation(run, config, progress, task_set) is None
        write_json(path, records[task_set])
        assert current_evaluation(run, config, progress, task_set) == records[task_set]
    write_json(run / file_of(EVALUATION, "paper"), records["paper"] | {"tasks": records["held-out"]["tasks"]})
    assert current_evaluation(run, config, progress, "paper") is None


def test_the_step_size_for_the_papers_tasks_is_that_which_the_run_has_chosen(pretrained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    held_out = evaluate(run, threads=1).record()
    write_json(run / EVALUATION, held_out)
    monkeypatch.setattr(module, "with_step_size", None)  # would fail if it were called
    record = evaluate(run, threads=1, task_set="paper").record()
    assert record["validation"] == held_out["validation"]
    assert record["inner_lr"] == held_out["inner_lr"]


def test_other_environments_have_no_tasks_of_the_paper(tmp_path):
    config = replace(shrunk(NAVIGATION), env_id="maml_rl.envs:duan2016/BernoulliBandit-v0", iterations=0)
    train(config, tmp_path / "run", threads=1)
    with pytest.raises(InputError, match=r"the paper has no tasks of maml_rl.envs:duan2016/BernoulliBandit-v0"):
        evaluate(tmp_path / "run", threads=1, task_set="paper")


# The table


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_the_table_shows_the_run_beside_the_paper(evaluations):
    header, rule, *steps = cells(table(evaluations))
    assert header == ["gradient steps", "this run", "95 % interval", "random policy", "paper", "paper, random"]
    assert all(set(cell) == {"-"} for cell in rule)
    record = evaluations.record()
    paper, random = ("-40.4", "-11.7", "-3.3"), ("-82.7", "-58.0", "-53.8")
    for step, row in enumerate(steps):
        low, high = record["interval_95"][step]
        assert row == [
            str(step),
            f"{record['mean_return'][step]:.1f}",
            f"[{low:.1f}, {high:.1f}]",
            f"{record['random_mean_return'][step]:.1f}",
            paper[step],
            random[step],
        ]
    assert len(steps) == 3


def test_the_columns_of_the_table_are_aligned(evaluations):
    assert len({len(line) for line in table(evaluations).splitlines()}) == 1


def test_the_table_has_no_paper_numbers_for_other_environments(evaluations):
    config = replace(evaluations.run.config, env_id="other/Environment-v0")
    other = evaluations._replace(run=evaluations.run._replace(config=config))
    assert cells(table(other))[0] == ["gradient steps", "this run", "95 % interval", "random policy"]
    assert " - " not in table(other)


# The picture


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def check_picture(path: Path, coloured: tuple[bool, bool, bool] = (True, True, True)) -> None:
    """A PNG of plausible size with something in each of its three panels, in colour where that is so."""
    picture = pixels(path)
    height, width = picture.shape[:2]
    assert 1000 <= width <= 4000
    assert 300 <= height <= 2000
    for panel, colour in zip(np.array_split(picture, 3, axis=1), coloured, strict=True):
        assert 0.005 < (panel < 250).any(-1).mean() < 0.9
        assert (np.ptp(panel, axis=-1) > 60).any() == colour  # lines, not only frame and letters


def test_the_picture_of_navigation_shows_paths(navigation, evaluations, tmp_path):
    draw_adaptation(evaluations, navigation, tmp_path / "picture.png")
    check_picture(tmp_path / "picture.png")


def test_the_picture_of_the_half_cheetah_shows_returns_by_task(direction, tmp_path):
    evaluations = evaluate(direction, Overrides(tasks=4, gradient_steps=2, episodes=2), threads=1)
    draw_adaptation(evaluations, direction, tmp_path / "picture.png")
    check_picture(tmp_path / "picture.png")


def test_the_picture_depends_on_the_numbers(navigation, evaluations, tmp_path):
    trained = evaluations.trained._replace(returns=evaluations.trained.returns + np.array([[0.0], [40.0], [80.0]]))
    pictures = []
    for shown in (evaluations, evaluations, evaluations._replace(trained=trained)):
        draw_adaptation(shown, navigation, tmp_path / "picture.png")
        pictures.append(pixels(tmp_path / "picture.png"))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


@pytest.mark.parametrize(
    "tasks",
    [["reach", "push", "pull"], [None, 2.0, None], [[1.0], [1.0, 2.0], []], [{"a": (1, "b")}, {"a": 1}, {}]],
    ids=json.dumps,
)
def test_tasks_of_any_type_are_drawn_and_reported(navigation, evaluations, tmp_path, tasks):
    shown = evaluations._replace(trained=evaluations.trained._replace(tasks=tasks))
    draw_adaptation(shown, navigation, tmp_path / "picture.png")
    check_picture(tmp_path / "picture.png")
    run = shown.run
    body = returns(Reported(navigation, run.config, run.progress, shown.record())).body
    assert body.count("<title>") >= 3 * len(tasks)


@pytest.mark.parametrize("case", ["no metrics", "empty metrics", "only the header"])
def test_a_run_without_logged_rows_is_drawn(navigation, evaluations, tmp_path, case):
    """As after Ctrl-C in the first iteration."""
    header = (navigation / METRICS).read_text().splitlines()[0]
    if case != "no metrics":
        (tmp_path / METRICS).write_text("" if case == "empty metrics" else f"{header}\n")
    draw_adaptation(evaluations, tmp_path, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


@pytest.mark.parametrize("gradient_steps", [0, 1])
def test_few_gradient_steps_are_drawn(navigation, direction, tmp_path, gradient_steps):
    overrides, path = Overrides(tasks=2, gradient_steps=gradient_steps, episodes=2), tmp_path / "picture.png"
    draw_adaptation(evaluate(navigation, overrides, threads=1), navigation, path)
    check_picture(path)
    draw_adaptation(evaluate(direction, overrides, threads=1), direction, path)
    check_picture(path, (True, True, gradient_steps > 0))  # returns before adaptation are grey


@pytest.mark.parametrize("inner_steps", [0, 2])
def test_another_number_of_inner_steps_is_drawn(tmp_path, inner_steps):
    out = tmp_path / "run"
    train(replace(shrunk(NAVIGATION, inner_steps=inner_steps), iterations=1), out, threads=1)
    evaluations = evaluate(out, Overrides(tasks=2, gradient_steps=1, episodes=2), threads=1)
    draw_adaptation(evaluations, out, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
