"""The comparison of runs: which are one method, which evaluations are used, and what is refused."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.media.plots import draw_comparison
from maml_rl.experiments.paper.published import paper_returns, paper_tasks
from maml_rl.experiments.presets.rl_presets import PRESETS
from maml_rl.experiments.runs import comparison as module
from maml_rl.experiments.runs.comparison import compare, task_name
from maml_rl.experiments.runs.comparison_files import csv_text, remarks, table, write_comparison
from maml_rl.experiments.runs.run import CHECKPOINT, EVALUATION, PICTURE, RunConfig
from maml_rl.experiments.runs.training import train
from maml_rl.statistics import interquartile_mean, interval, mean


class AskedError(Exception):
    """In place of an evaluation."""


EVALUATED = EvaluationConfig(
    tasks=3, gradient_steps=2, episodes=3, later_lr_factor=0.5, validation_tasks=2, inner_lrs=(0.1, 0.5)
)
PAPER = "maml_rl.envs:finn2017/Navigation2D-v0"


def shrunk(preset: str) -> RunConfig:
    config = PRESETS[preset].config
    return replace(
        config,
        iterations=min(config.iterations, 1),
        meta=replace(config.meta, meta_batch_size=2, episodes=3),
        policy=PolicyConfig(hidden_sizes=(8,)),
        evaluation=replace(EVALUATED, gradient_steps=min(config.evaluation.gradient_steps, 2)),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Two runs of MAML and one of each baseline, evaluated. No test changes their directories."""
    root = tmp_path_factory.mktemp("runs")
    methods = ("navigation", "navigation-pretrained", "navigation-oracle", "navigation-random")
    paths = {name: root / name for name in (*methods, "navigation-seed1")}
    for name in methods:
        train(shrunk(name), paths[name], threads=1)
    train(replace(shrunk("navigation"), seed=1, num_envs=2, checkpoint_every=3), paths["navigation-seed1"], threads=1)
    compare(list(paths.values()), threads=1)
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
    """Directories that are evaluated in place of being evaluated."""
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


def test_runs_that_differ_by_their_seed_only_are_one_method_in_the_papers_order(runs):
    comparison = compare(list(runs.values())[::-1])
    assert [group.label for group in comparison.methods] == ["maml", "pretrained", "oracle", "random"]
    assert [run.config.seed for run in comparison.methods[0].runs] == [0, 1]
    assert comparison.gradient_steps == 2


def test_numbers_are_those_of_the_evaluations(runs):
    record = json.loads(json.dumps(compare(list(runs.values())).record(), allow_nan=False))
    assert (record["env_id"], record["task"], record["num_tasks"]) == (PAPER, "navigation", 3)
    maml = record["methods"][0]
    returns = np.array(
        [
            json.loads((runs[name] / EVALUATION).read_text())["task_returns"]
            for name in ("navigation", "navigation-seed1")
        ]
    )  # [seeds, steps, tasks]
    np.testing.assert_array_equal([run["task_returns"] for run in maml["runs"]], returns)
    for name, statistic in (("mean_return", mean), ("interquartile_mean", interquartile_mean)):
        assert maml[name] == [interval(returns[:, step], statistic)._asdict() for step in range(3)]
    paper = paper_returns(PAPER)
    assert maml["paper"] == [paper[step]._asdict() for step in range(3)]


def test_a_method_does_not_depend_on_what_it_is_compared_with(runs):
    alone = compare([runs["navigation-pretrained"]]).record()["methods"]
    assert alone == compare(list(runs.values())).record()["methods"][1:2]


def test_an_oracle_takes_no_gradient_steps(runs):
    record = compare(list(runs.values())).record()
    assert [len(group["mean_return"]) for group in record["methods"]] == [3, 3, 1, 3]
    assert compare([runs["navigation-oracle"]]).gradient_steps == 0


def test_fewer_gradient_steps_are_the_first_of_more(runs):
    all_steps, one_step = (compare([runs["navigation"]], steps).record()["methods"][0] for steps in (2, 1))
    assert one_step["mean_return"] == all_steps["mean_return"][:2]
    assert one_step["runs"][0]["inner_lr"] == all_steps["runs"][0]["inner_lr"][:1]


def test_where_a_run_comes_from_is_told(runs):
    run = compare([runs["navigation-seed1"]]).record()["methods"][0]["runs"][0]
    assert run["command"].startswith("maml-rl train navigation ")
    assert "--seed 1" in run["command"]
    assert run["env_steps"] > 0
    assert run["seconds"] > 0
    assert run["machines"][0]["processor"]


def test_runs_of_other_settings_are_methods_of_their_own_named_by_what_differs(runs, copied):
    other = copied("navigation")
    meta = load_checkpoint(other / CHECKPOINT).record["config"]["meta"]
    rewrite(other, meta=meta | {"discount": 0.5})
    comparison = compare([runs["navigation"], other])
    assert [group.label for group in comparison.methods] == ["maml (meta.discount 0.99)", "maml (meta.discount 0.5)"]


def test_of_finitely_many_tasks_each_keeps_its_share(copied):
    run = copied("navigation")
    record = json.loads((run / EVALUATION).read_text())
    record |= {
        "num_tasks": 4,
        "tasks": [0, 1, 0, 1],
        "strata": [0, 1, 0, 1],
        "task_returns": [[0.0, 10.0, 0.0, 10.0]] * 3,
    }
    (run / EVALUATION).write_text(json.dumps(record))
    evaluation = load_checkpoint(run / CHECKPOINT).record["config"]["evaluation"]
    rewrite(run, evaluation=evaluation | {"tasks": 4})
    assert compare([run]).record()["methods"][0]["mean_return"][0] == {"value": 5.0, "low": 5.0, "high": 5.0}


def test_from_three_seeds_on_an_interval_is_over_seeds_and_tasks_and_the_table_says_which(runs, copied):
    third = copied("navigation-seed1")
    rewrite(third, seed=2)
    record = json.loads((third / EVALUATION).read_text())
    (third / EVALUATION).write_text(json.dumps(record | {"training_seed": 2}))
    two, three = (compare([runs["navigation"], runs["navigation-seed1"], *more]).record() for more in ([], [third]))
    assert two["methods"][0]["interval_over"] == "tasks"
    assert three["methods"][0]["interval_over"] == "seeds and tasks"
    assert "seeds and tasks" not in table(two)
    assert "seeds and tasks" in table(three)
    assert "of these very runs and not of other seeds" in remarks(two)[0]
    assert remarks(three)[0] == "[95 % interval]"
    rows = list(csv.DictReader(io.StringIO(csv_text(three))))
    assert {(row["tasks"], row["interval_over"]) for row in rows} == {("held-out", "seeds and tasks")}


# The paper's tasks


def test_runs_are_compared_on_the_papers_tasks_and_not_evaluated_again(copied, monkeypatch, tmp_path):
    run = copied("navigation-pretrained")
    before = (run / EVALUATION).read_bytes()
    record = compare([run], threads=1, task_set="paper").record()
    assert (record["task_set"], record["num_tasks"]) == ("paper", 40)
    np.testing.assert_array_equal(record["tasks"], paper_tasks(PAPER))
    assert (run / EVALUATION).read_bytes() == before
    assert (run / "evaluation-paper.json").exists()
    monkeypatch.setattr(module, "evaluate", None)  # would fail if it were called
    assert compare([run], threads=1, task_set="paper").record() == record
    assert compare([run], threads=1).record()["task_set"] == "held-out"
    assert len(remarks(record)) == 1
    assert "--tasks paper" in remarks(compare([run], threads=1).record())[1]
    names = {path.name for path in write_comparison(record, tmp_path / "results")}
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
    assert compare([run]).record()["methods"][0]["mean_return"]
    assert (run / PICTURE).read_bytes() == (runs["navigation-pretrained"] / PICTURE).read_bytes()
    assert json.loads((run / EVALUATION).read_text()) == json.loads(
        (runs["navigation-pretrained"] / EVALUATION).read_text()
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("navigation", {"iteration": 0}),
        ("navigation", {"seed": 1}),
        ("navigation", {"task_set": "paper"}),
        ("navigation", {"episodes": 40}),
        ("navigation", {"inner_lr": [0.5, 0.5]}),
        ("navigation-pretrained", {"validation": None}),
        ("navigation-pretrained", {"validation": {"tasks": 2, "inner_lrs": [0.1, 0.2], "mean_returns": [1.0, 2.0]}}),
    ],
)
def test_an_evaluation_of_something_else_is_made_again(copied, unevaluated, name, change):
    run = copied(name)
    record = json.loads((run / EVALUATION).read_text())
    (run / EVALUATION).write_text(json.dumps(record | change))
    with pytest.raises(AskedError):
        compare([run])
    assert unevaluated == [run]


def test_an_evaluation_of_fewer_gradient_steps_is_made_again(copied, unevaluated):
    run = copied("navigation")
    record = json.loads((run / EVALUATION).read_text())
    by_step = ("gradient_steps", "mean_return", "standard_error", "interval_95", "random_mean_return")
    for name in (*by_step, "random_interval_95", "task_returns", "inner_lr"):
        record[name] = record[name][:-1]
    (run / EVALUATION).write_text(json.dumps(record))
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
    assert "of seed 9" in refused(runs["navigation"], other)


def test_more_gradient_steps_than_a_run_has_are_refused(runs):
    message = refused(runs["navigation-oracle"], runs["navigation"], gradient_steps=3)
    assert "at most 2 gradient steps, 3 were asked for" in message
    assert str(runs["navigation"]) in message
    assert "at least 0" in refused(runs["navigation"], gradient_steps=-1)


def test_the_same_run_twice_is_refused(runs, copied):
    copy = copied("navigation")
    assert str(copy) in refused(runs["navigation"], copy)


def test_what_is_no_run_is_refused(runs, tmp_path):
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
def record(runs) -> dict:
    return compare(list(runs.values())).record()


def test_the_table_shows_each_method_beside_the_paper(record):
    text = table(record)
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split()[0] for line in lines[2:]] == [
        word for name in ("maml", "pretrained", "oracle", "random") for word in (name, "interquartile", "paper")
    ]
    interval = record["methods"][0]["mean_return"][1]
    assert f"{interval['value']:.1f} [{interval['low']:.1f}, {interval['high']:.1f}]" in lines[2]
    assert lines[4].split() == ["paper", "-40.4", "-11.7", "-3.3"]
    assert lines[10].split() == ["paper", "-2.3", "-", "-"]


def test_the_csv_has_a_row_for_each_method_and_step(record):
    rows = list(csv.DictReader(io.StringIO(csv_text(record))))
    assert [(row["method"], row["gradient_steps"]) for row in rows] == [
        *[("maml", str(step)) for step in range(3)],
        *[("pretrained", str(step)) for step in range(3)],
        ("oracle", "0"),
        *[("random", str(step)) for step in range(3)],
    ]
    first = record["methods"][0]
    assert float(rows[1]["mean_return"]) == first["mean_return"][1]["value"]
    assert float(rows[1]["interquartile_mean_high"]) == first["interquartile_mean"][1]["high"]
    assert (rows[1]["paper_mean"], rows[1]["paper_standard_error"]) == ("-11.68", "1.12")
    assert rows[0]["seeds"] == "2"


def test_an_environment_that_the_paper_lacks_is_compared_too(record):
    methods = [group | {"paper": []} for group in record["methods"]]
    other = record | {"methods": methods}
    assert "paper" in table(record)
    assert "paper" not in table(other)
    assert csv_text(other).splitlines()[1].endswith(",,")


def test_the_picture_is_drawn(record, tmp_path):
    draw_comparison(record, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=-1) > 60).any()


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        (PAPER, "navigation"),
        ("module:My-v0", "My-v0"),
        ("maml_rl.envs:rothfuss2019/AntDir-v0", "AntDir-v0"),
        ("My-v0", "My-v0"),
    ],
)
def test_a_task_has_the_papers_name_or_that_of_its_id(env_id, name):
    assert task_name(env_id) == name
