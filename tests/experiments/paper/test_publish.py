"""Copies of runs for the repository."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maml_rl.checkpoint import write_json
from maml_rl.config import PolicyConfig, RLConfig, RLMeta
from maml_rl.experiments.paper import publish
from maml_rl.experiments.runs.evaluations import EVALUATION, Evaluation, TaskSet, file_of, settings_with
from maml_rl.experiments.runs.training import train
from maml_rl.learner import THIS_RUN, Curve
from maml_rl.machine import Machine
from maml_rl.run import CHECKPOINT, CONFIG, METRICS, load_run
from maml_rl.supervised.settings import NetworkConfig, SupervisedConfig, SupervisedMeta, TasksConfig

ONE = Machine(threads=1)
RANDOM = RLConfig(env_id="maml_rl.envs:finn2017/Navigation2D-v0", iterations=0)


def evaluated(run: Path, iteration: int, task_set: TaskSet = "held-out") -> None:
    """Stores an evaluation of a run with made-up numbers."""
    loaded = load_run(run)
    settings = settings_with(loaded.config, {}, task_set)
    is_policy = isinstance(loaded.config, RLConfig)
    values, tasks = np.zeros((settings.gradient_steps + 1, settings.tasks)), range(settings.tasks if is_policy else 0)
    curve = Curve(THIS_RUN, "return" if is_policy else "squared error", values, tasks=tasks)
    about = (loaded.config, loaded.config.problem, loaded.config.seed, iteration, loaded.progress.env_steps, 0.0)
    write_json(run / file_of(EVALUATION, task_set), Evaluation(*about, settings, task_set, [curve], {}).to_json())


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publishes runs into this test's directory."""
    monkeypatch.setattr(publish, "TRAINED", tmp_path / "trained")

    def run(*arguments: object) -> Path:
        publish.main([*map(str, arguments)])
        return tmp_path / "trained"

    return run


def logged(run: Path) -> list[int]:
    with (run / METRICS).open(newline="") as file:
        return [int(float(row["iteration"])) for row in csv.DictReader(file)]


def test_a_policy_is_copied_whole_and_its_log_thinned(tmp_path, published):
    small = RLConfig(
        env_id="maml_rl.envs:finn2017/Navigation2D-v0",
        iterations=7,
        meta=RLMeta(meta_batch_size=2, episodes=2),
        network=PolicyConfig(hidden_sizes=(4,)),
    )
    run = tmp_path / "run"
    train(small, run, ONE)
    evaluated(run, 7)
    out = published(run, "--name", "copy", "--rows", 3) / "copy"
    assert {path.name for path in out.iterdir()} == {CHECKPOINT, CONFIG, METRICS, EVALUATION, "machines.json"}
    original, copy = load_run(run), load_run(out)
    assert (copy.config, copy.progress, copy.state.iteration) == (original.config, original.progress, 7)
    for ours, theirs in ((copy.state.meta, original.state.meta), (copy.constants, original.constants)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert logged(out) == [1, 4, 7]


def test_a_network_is_copied_without_optimizer_state_and_without_the_place_of_its_data(tmp_path, published):
    run = tmp_path / "run"
    config = SupervisedConfig(
        tasks=TasksConfig("sinusoid", shots=2, queries=2),
        data="/somewhere/here",
        iterations=4,
        log_every=1,
        meta=SupervisedMeta(meta_batch_size=2),
        network=NetworkConfig("mlp", hidden_sizes=(4,)),
    )
    train(config, run, ONE)
    evaluated(run, 4)
    out = published(run) / "run"
    assert json.loads((out / CONFIG).read_text())["data"] is None
    original, copy = load_run(run), load_run(out)
    assert copy.config.data is None
    assert (bool(original.state.optimizer), bool(copy.state.optimizer)) == (True, False)
    assert all(torch.equal(value, original.state.meta[name]) for name, value in copy.state.meta.items())
    assert logged(out) == [1, 2, 3, 4]


def test_a_random_run_has_no_log_and_is_copied(tmp_path, published):
    run = tmp_path / "random"
    train(RANDOM, run, ONE)
    evaluated(run, 0)
    out = published(run, "--rows", 3) / "random"
    assert (out / METRICS).read_bytes() == (run / METRICS).read_bytes()
    assert load_run(out).state.iteration == 0


def test_an_evaluation_on_the_papers_tasks_is_copied_if_it_is_current(tmp_path, published, capsys):
    run = tmp_path / "run"
    train(RANDOM, run, ONE)
    evaluated(run, 0)
    evaluated(run, 0, "paper")
    copied = published(run) / "run" / "evaluation-paper.json"
    assert copied.read_bytes() == (run / "evaluation-paper.json").read_bytes()
    evaluated(run, 7, "paper")
    with pytest.raises(SystemExit):
        published(run)
    assert f"was not evaluated as it is now: maml-rl evaluate {run} --tasks paper" in capsys.readouterr().err


def test_a_run_that_was_not_evaluated_is_refused(tmp_path, published, capsys):
    train(RANDOM, tmp_path / "run", ONE)
    with pytest.raises(SystemExit):
        published(tmp_path / "run")
    assert f"was not evaluated as it is now: maml-rl evaluate {tmp_path / 'run'}" in capsys.readouterr().err
    assert not (tmp_path / "trained").exists()
