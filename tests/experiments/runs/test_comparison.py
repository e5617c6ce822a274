"""The comparison of runs: which are one method, which evaluations are used, and what is refused."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.config import Adam, PolicyConfig, RLConfig, RLEvaluation
from maml_rl.errors import InputError
from maml_rl.experiments.media.plots import draw_comparison
from maml_rl.experiments.paper.published import paper_tasks, published
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs import comparison as module
from maml_rl.experiments.runs.comparison import compare, problem_name
from maml_rl.experiments.runs.comparison_files import (
    COMPARISON,
    Comparison,
    Estimate,
    comparison_heading,
    comparison_remarks,
    comparison_table,
    csv_text,
    read_comparison,
    write_comparison,
)
from maml_rl.experiments.runs.evaluating import evaluate
from maml_rl.experiments.runs.evaluations import EVALUATION, PICTURE
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
from maml_rl.run import CHECKPOINT
from maml_rl.statistics import interquartile_mean, interval, mean
from maml_rl.supervised.settings import NetworkConfig, SupervisedConfig

ONE = Machine(threads=1)


class AskedError(Exception):
    """Raised instead of evaluating."""


EVALUATED = RLEvaluation(
    tasks=3, gradient_steps=2, episodes=3, later_lr_factor=0.5, validation_tasks=2, inner_lrs=(0.1, 0.5)
)
PAPER = "maml_rl.envs:finn2017/Navigation2D-v0"


def wave(preset: str, **settings: object) -> SupervisedConfig:
    config = PRESETS[preset].config
    return replace(
        config,
        iterations=1,
        meta=replace(config.meta, meta_batch_size=2),
        network=NetworkConfig("mlp", hidden_sizes=(4,)),
        evaluation=replace(config.evaluation, tasks=5, gradient_steps=2, validation_tasks=2, shots=(5, 10)),
        **settings,
    )


def shrunk(preset: str) -> RLConfig:
    config = PRESETS[preset].config
    return replace(
        config,
        iterations=min(config.iterations, 1),
        meta=replace(config.meta, meta_batch_size=2, episodes=3),
        network=PolicyConfig(hidden_sizes=(8,)),
        evaluation=replace(EVALUATED, gradient_steps=min(config.evaluation.gradient_steps, 2)),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Two runs of MAML and one of each baseline, evaluated. No test changes their directories."""
    root = tmp_path_factory.mktemp("runs")
    methods = ("navigation", "navigation-pretrained", "navigation-oracle", "navigation-random")
    paths = {name: root / name for name in (*methods, "navigation-seed1")}
    for name in methods:
        train(shrunk(name), paths[name], ONE)
    train(replace(shrunk("navigation"), seed=1, num_envs=2, checkpoint_every=3), paths["navigation-seed1"], ONE)
    compare(list(paths.values()), machine=ONE)
    return paths


@pytest.fixture(scope="module")
def waves(tmp_path_factory) -> dict[str, Path]:
    """A run on sinusoids with its baselines, evaluated. No test changes their directories."""
    root = tmp_path_factory.mktemp("waves")
    for name in ("sinusoid-pretrained", "sinusoid-oracle", "sinusoid"):
        train(wave(name), root / name, ONE)
    paths = {name: root / name for name in ("sinusoid", "sinusoid-pretrained", "sinusoid-oracle")}
    compare(list(paths.values()), machine=ONE)
    return paths


@pytest.fixture
def copied(runs, tmp_path) -> Callable[[str], Path]:
    """Copies a run, to be changed."""

    def copy(name: str, as_name: str = "copy") -> Path:
        shutil.copytree(runs[name], tmp_path / as_name)
        return tmp_path / as_name

    return copy


@pytest.fixture
def unevaluated(monkeypatch) -> list[Path]:
    """Directories whose evaluation was requested. Evaluating raises AskedError instead."""
    asked: list[Path] = []

    def ask(directory: Path, **_: object) -> None:
        asked.append(directory)
        raise AskedError

    monkeypatch.setattr(module, "evaluate", ask)
    return asked


def rewrite(directory: Path, **config: object) -> None:
    """Changes settings in a run's checkpoint."""
    checkpoint = load_checkpoint(directory / CHECKPOINT)
    checkpoint.record["config"].update(config)
    save_checkpoint(directory / CHECKPOINT, checkpoint)


def refused(*directories: Path, **settings: object) -> str:
    with pytest.raises(InputError) as raised:
        compare(directories, **settings)
    message = str(raised.value)
    assert "\n" not in message
    return message


# Methods and their numbers


def test_runs_that_differ_only_by_their_seed_are_one_method_in_the_papers_order(runs):
    comparison = compare(list(runs.values())[::-1])
    assert [method.label for method in comparison.methods] == ["maml", "pretrained", "oracle", "random"]
    assert [run.seed for run in comparison.methods[0].runs] == [0, 1]
    assert (comparison.gradient_steps, comparison.conditions) == (2, [""])


def test_tasks_from_a_file_replace_the_held_out_ones_for_all_runs(runs, tmp_path):
    far = [[2.0, 1.0], [-1.5, 0.5], [0.1, 0.2]]
    path = tmp_path / "far.json"
    path.write_text(json.dumps(far))
    names = ("navigation", "navigation-pretrained")
    stored = {name: (runs[name] / EVALUATION).read_bytes() for name in names}
    comparison = compare([runs[name] for name in names], tasks=path, machine=ONE)
    assert (comparison.task_set, comparison.num_tasks) == ("given", 3)
    np.testing.assert_allclose(comparison.tasks, far)
    assert not any(method.curves[0].paper for method in comparison.methods)  # its values are of other tasks
    for name, method in zip(names, comparison.methods, strict=True):
        expected = evaluate(runs[name], machine=ONE, tasks=path).main_curves()[0].values
        np.testing.assert_array_equal(method.runs[0].values[""], expected)
    assert {name: (runs[name] / EVALUATION).read_bytes() for name in names} == stored


def test_numbers_are_those_of_the_evaluations(runs):
    comparison = compare(list(runs.values()))
    assert (comparison.problem, comparison.name, comparison.num_tasks) == (PAPER, "navigation", 3)
    maml = comparison.methods[0]
    stored = [json.loads((runs[name] / EVALUATION).read_text()) for name in ("navigation", "navigation-seed1")]
    returns = np.array([record["curves"][0]["values"] for record in stored])  # [seeds, steps, tasks]
    np.testing.assert_array_equal([run.values[""] for run in maml.runs], returns)
    for estimates, statistic in ((maml.curves[0].mean, mean), (maml.curves[0].interquartile_mean, interquartile_mean)):
        assert estimates == [Estimate(*interval(returns[:, step], statistic)) for step in range(3)]
    paper = published(shrunk("navigation"))
    assert [(p.gradient_steps, p.value, p.error) for p in maml.curves[0].paper] == [(s, *paper[s]) for s in range(3)]


def test_a_method_does_not_depend_on_what_it_is_compared_with(runs):
    assert compare([runs["navigation-pretrained"]]).methods == compare(list(runs.values())).methods[1:2]


def test_an_oracle_takes_no_gradient_steps(runs):
    methods = compare(list(runs.values())).methods
    assert [len(method.curves[0].mean) for method in methods] == [3, 3, 1, 3]
    assert compare([runs["navigation-oracle"]]).gradient_steps == 0


def test_fewer_gradient_steps_are_the_first_of_more(runs):
    all_steps, one_step = (compare([runs["navigation"]], steps).methods[0] for steps in (2, 1))
    assert one_step.curves[0].mean == all_steps.curves[0].mean[:2]
    assert one_step.runs[0].inner_lr[""] == all_steps.runs[0].inner_lr[""][:1]


def test_the_origin_of_a_run_is_known(runs):
    run = compare([runs["navigation-seed1"]]).methods[0].runs[0]
    assert run.command.startswith("maml-rl train navigation ")
    assert "--seed 1" in run.command
    assert run.env_steps > 0
    assert run.seconds > 0
    assert run.machines[0]["processor"]


def test_runs_with_other_settings_are_separate_methods_named_by_what_differs(runs, copied):
    other = copied("navigation")
    meta = load_checkpoint(other / CHECKPOINT).record["config"]["meta"]
    rewrite(other, meta=meta | {"discount": 0.5})
    comparison = compare([runs["navigation"], other])
    assert [method.label for method in comparison.methods] == ["maml (discount 0.99)", "maml (discount 0.5)"]


def test_labels_of_methods_with_different_rules_have_the_rule_and_what_differs_under_it(runs, copied):
    directories = [runs["navigation"], copied("navigation"), copied("navigation-seed1", "other")]
    meta = load_checkpoint(directories[1] / CHECKPOINT).record["config"]["meta"]
    for run, lr in zip(directories[1:], (0.1, 0.2), strict=True):
        rewrite(run, meta=meta | {"step": asdict(Adam(lr=lr))})
    labels = {method.label for method in compare(directories).methods}
    assert labels == {"maml (step trust-region)", "maml (step adam, step.lr 0.1)", "maml (step adam, step.lr 0.2)"}


def test_each_of_finitely_many_tasks_keeps_its_share(copied):
    run = copied("navigation")
    record = json.loads((run / EVALUATION).read_text())
    record |= {"tasks": [0, 1, 0, 1], "strata": [0, 1, 0, 1], "settings": record["settings"] | {"tasks": 4}}
    for curve in record["curves"]:
        curve["values"] = [[0.0, 10.0, 0.0, 10.0]] * 3
    (run / EVALUATION).write_text(json.dumps(record))
    evaluation = load_checkpoint(run / CHECKPOINT).record["config"]["evaluation"]
    rewrite(run, evaluation=evaluation | {"tasks": 4})
    assert compare([run]).methods[0].curves[0].mean[0] == Estimate(5.0, 5.0, 5.0)


def test_from_three_seeds_on_an_interval_is_over_seeds_and_tasks_and_the_table_says_which(runs, copied):
    third = copied("navigation-seed1")
    rewrite(third, seed=2)
    record = json.loads((third / EVALUATION).read_text())
    (third / EVALUATION).write_text(json.dumps(record | {"training_seed": 2}))
    two, three = (compare([runs["navigation"], runs["navigation-seed1"], *more]) for more in ([], [third]))
    assert two.methods[0].interval_over == "tasks"
    assert three.methods[0].interval_over == "seeds and tasks"
    assert "seeds and tasks" not in comparison_table(two)
    assert "seeds and tasks" in comparison_table(three)
    assert "over tasks only: it says nothing about other seeds" in comparison_remarks(two)[0]
    assert comparison_remarks(three)[0] == "[95 % interval]"
    rows = list(csv.DictReader(io.StringIO(csv_text(three))))
    assert {(row["tasks"], row["interval_over"]) for row in rows} == {("held-out", "seeds and tasks")}


# Supervised runs


def test_supervised_runs_are_compared_under_each_condition_that_all_have(waves):
    comparison = compare(list(waves.values()))
    assert (comparison.problem, comparison.name, comparison.quantity) == ("sinusoid", "sinusoid", "squared error")
    assert [method.label for method in comparison.methods] == ["maml", "pretrained", "oracle"]
    assert (comparison.conditions, comparison.gradient_steps) == (["5-shot", "10-shot"], 2)
    for method, directory in zip(comparison.methods, waves.values(), strict=True):
        values = json.loads((directory / EVALUATION).read_text())["curves"][1]["values"]
        assert method.runs[0].values["10-shot"] == values
        assert method.curve("10-shot").mean[1] == Estimate(
            *interval(np.array(values, np.float32).astype(np.float64)[None, 1], mean)
        )
    assert [point.gradient_steps for point in comparison.methods[0].curve("5-shot").paper] == [1]
    first, second = comparison_table(comparison).split("\n\n10-shot\n\n")
    assert first.startswith("5-shot\n\n")
    assert "iterations" in first
    assert ("paper" in first, "paper" in second) == (True, False)
    assert comparison_heading(comparison) == "sinusoid: mean squared error on 5 held-out tasks"
    assert len(comparison_remarks(comparison)) == 1


def test_supervised_runs_without_a_common_condition_or_with_other_tasks_are_refused(waves, tmp_path):
    train(wave("sinusoid", seed=3), tmp_path / "other", ONE)
    evaluation = load_checkpoint(tmp_path / "other" / CHECKPOINT).record["config"]["evaluation"]
    rewrite(tmp_path / "other", evaluation=evaluation | {"shots": [7]})
    assert "evaluate them with the same --shots" in refused(waves["sinusoid"], tmp_path / "other", machine=ONE)
    rewrite(tmp_path / "other", evaluation=evaluation | {"queries": 7})
    assert "has queries 100, " in refused(waves["sinusoid"], tmp_path / "other")


def test_a_policy_is_not_compared_with_a_network(runs, waves):
    message = refused(runs["navigation"], waves["sinusoid"])
    assert "is a run of reinforcement learning" in message
    assert message.endswith("of supervised learning: they cannot be compared")


def test_an_error_that_is_not_finite_is_compared_and_shown_as_unknown(waves, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(waves["sinusoid"], run)
    record = json.loads((run / EVALUATION).read_text())
    record["curves"][0]["values"][2][1] = None
    (run / EVALUATION).write_text(json.dumps(record | {"baselines": {}}))
    comparison = compare([run])
    assert comparison.methods[0].curves[0].mean[2] == Estimate(None, None, None)
    assert "- [-, -]" in comparison_table(comparison)
    write_comparison(comparison, tmp_path, lambda *_: None)
    assert read_comparison(tmp_path / COMPARISON) == comparison


# The paper's tasks


def test_runs_are_compared_on_the_papers_tasks_and_not_evaluated_again(copied, monkeypatch, tmp_path):
    run = copied("navigation-pretrained")
    before = (run / EVALUATION).read_bytes()
    comparison = compare([run], task_set="paper", machine=ONE)
    assert (comparison.task_set, comparison.num_tasks) == ("paper", 40)
    np.testing.assert_array_equal(comparison.tasks, paper_tasks(PAPER))
    assert (run / EVALUATION).read_bytes() == before
    assert (run / "evaluation-paper.json").exists()
    monkeypatch.setattr(module, "evaluate", None)  # would fail if it were called
    assert compare([run], task_set="paper") == comparison
    assert compare([run]).task_set == "held-out"
    assert len(comparison_remarks(comparison)) == 1
    assert "--tasks paper" in comparison_remarks(compare([run]))[1]
    names = {path.name for path in write_comparison(comparison, tmp_path / "results", draw_comparison)}
    assert names == {"comparison-paper.json", "comparison-paper.csv", "comparison-paper.png"}


def test_the_paper_has_no_tasks_of_other_environments(copied, unevaluated):
    run = copied("navigation")
    rewrite(run, env_id="maml_rl.envs:duan2016/BernoulliBandit-v0")
    assert "the paper has no tasks of maml_rl.envs:duan2016/BernoulliBandit-v0" in refused(run, task_set="paper")
    assert unevaluated == []


# Stored evaluations


def test_a_current_evaluation_is_not_made_again(runs, unevaluated):
    compare(list(runs.values()))
    assert unevaluated == []


def test_a_missing_evaluation_is_made_and_stored(runs, copied):
    run = copied("navigation-pretrained")
    (run / EVALUATION).unlink()
    assert compare([run]).methods[0].curves[0].mean
    assert (run / PICTURE).read_bytes() == (runs["navigation-pretrained"] / PICTURE).read_bytes()
    assert json.loads((run / EVALUATION).read_text()) == json.loads(
        (runs["navigation-pretrained"] / EVALUATION).read_text()
    )


@pytest.mark.parametrize(
    "change", [{"iteration": 0}, {"training_seed": 1}, {"task_set": "paper"}, {"settings": {"episodes": 40}}]
)
def test_an_evaluation_of_something_else_is_made_again(copied, unevaluated, change):
    run = copied("navigation")
    record = json.loads((run / EVALUATION).read_text())
    settings = {"settings": record["settings"] | change.pop("settings", {})}
    (run / EVALUATION).write_text(json.dumps(record | change | settings))
    with pytest.raises(AskedError):
        compare([run])
    assert unevaluated == [run]


# Refused


def test_runs_of_different_environments_are_refused(runs, copied):
    other = copied("navigation")
    rewrite(other, env_id="maml_rl.envs:finn2017/AntVel-v0")
    message = refused(runs["navigation"], other)
    assert str(other) in message
    assert "AntVel" in message


def test_runs_with_other_held_out_tasks_are_refused(runs, copied):
    other = copied("navigation-seed1")
    evaluation = load_checkpoint(other / CHECKPOINT).record["config"]["evaluation"]
    rewrite(other, evaluation=evaluation | {"seed": 9})
    assert "has evaluation.seed 0" in refused(runs["navigation"], other)


def test_more_gradient_steps_than_a_run_has_are_refused(runs):
    message = refused(runs["navigation-oracle"], runs["navigation"], gradient_steps=3)
    assert "at most 2 gradient steps, 3 were requested" in message
    assert str(runs["navigation"]) in message
    assert "at least 0" in refused(runs["navigation"], gradient_steps=-1)


def test_the_same_run_twice_is_refused(runs, copied):
    copy = copied("navigation")
    assert str(copy) in refused(runs["navigation"], copy)


def test_a_directory_without_a_run_is_refused(runs, tmp_path):
    assert str(tmp_path) in refused(runs["navigation"], tmp_path)
    assert "at least one run" in refused()


@pytest.mark.parametrize("content", ["{", "[1, 2]"])
def test_a_damaged_evaluation_is_refused(copied, content):
    run = copied("navigation")
    (run / EVALUATION).write_text(content)
    message = refused(run)
    assert str(run / EVALUATION) in message
    assert "remove it" in message


# Table, csv and picture


@pytest.fixture(scope="module")
def comparison(runs) -> Comparison:
    return compare(list(runs.values()))


def test_the_table_shows_each_method_next_to_the_paper(comparison):
    text = comparison_table(comparison)
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split()[0] for line in lines[2:]] == [
        word for name in ("maml", "pretrained", "oracle", "random") for word in (name, "interquartile", "paper")
    ]
    found = comparison.methods[0].curves[0].mean[1]
    assert f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]" in lines[2]
    assert lines[4].split() == ["paper", "-40.4", "-11.7", "-3.3"]
    assert lines[10].split() == ["paper", "-2.3", "-", "-"]
    assert comparison_heading(comparison) == f"{PAPER}: mean return on 3 held-out tasks, 3 episodes each"


def test_the_csv_has_a_row_for_each_method_and_step(comparison):
    rows = list(csv.DictReader(io.StringIO(csv_text(comparison))))
    assert [(row["method"], row["gradient_steps"]) for row in rows] == [
        *[("maml", str(step)) for step in range(3)],
        *[("pretrained", str(step)) for step in range(3)],
        ("oracle", "0"),
        *[("random", str(step)) for step in range(3)],
    ]
    first = comparison.methods[0].curves[0]
    assert float(rows[1]["mean"]) == first.mean[1].value
    assert float(rows[1]["interquartile_mean_high"]) == first.interquartile_mean[1].high
    assert (rows[1]["paper"], rows[1]["paper_error"]) == ("-11.68", "1.12")
    assert rows[0]["seeds"] == "2"


def test_an_environment_that_is_not_in_the_paper_is_compared_too(comparison):
    methods = [replace(m, curves=[replace(curve, paper=[]) for curve in m.curves]) for m in comparison.methods]
    other = replace(comparison, methods=methods)
    assert "paper" in comparison_table(comparison)
    assert "paper" not in comparison_table(other)
    assert csv_text(other).splitlines()[1].endswith(",,")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (RLConfig(env_id=PAPER), "navigation"),
        (RLConfig(env_id="module:My-v0"), "My-v0"),
        (RLConfig(env_id="maml_rl.envs:rothfuss2019/AntDir-v0"), "AntDir-v0"),
        (RLConfig(env_id="My-v0"), "My-v0"),
        (PRESETS["sinusoid"].config, "sinusoid"),
        (PRESETS["omniglot-5way-1shot"].config, "omniglot-5-way"),
    ],
)
def test_a_problem_has_the_papers_name_or_the_last_part_of_its_own(config, name):
    assert problem_name(config) == name
