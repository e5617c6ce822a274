"""Copies of runs for the repository."""

import csv
import json
from pathlib import Path

import pytest
import torch

from maml_rl.checkpoint import load_checkpoint
from maml_rl.config import MetaConfig, PolicyConfig
from maml_rl.experiments.paper import publish
from maml_rl.experiments.runs.run import CHECKPOINT, CONFIG, EVALUATION, METRICS, RunConfig, load_config
from maml_rl.experiments.runs.supervised_run import SupervisedConfig
from maml_rl.experiments.runs.supervised_run import load_config as load_supervised
from maml_rl.experiments.runs.supervised_training import train as train_supervised
from maml_rl.experiments.runs.training import train
from maml_rl.supervised.config import MethodConfig
from maml_rl.supervised.networks import ModelConfig
from maml_rl.supervised.sources import TasksConfig


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publishes runs into a directory of this test's."""
    monkeypatch.setattr(publish, "TRAINED", tmp_path / "trained")

    def run(*arguments: object) -> Path:
        publish.main([*map(str, arguments)])
        return tmp_path / "trained"

    return run


def logged(run: Path) -> list[int]:
    with (run / METRICS).open(newline="") as file:
        return [int(float(row["iteration"])) for row in csv.DictReader(file)]


def test_a_policy_is_copied_whole_and_its_log_thinned(tmp_path, published):
    small = RunConfig(
        env_id="maml_rl.envs:finn2017/Navigation2D-v0",
        iterations=7,
        meta=MetaConfig(meta_batch_size=2, episodes=2),
        policy=PolicyConfig(hidden_sizes=(4,)),
    )
    run = tmp_path / "run"
    train(small, run, threads=1)
    (run / EVALUATION).write_text('{"iteration": 7}')
    out = published(run, "--name", "copy", "--rows", 3) / "copy"
    assert {path.name for path in out.iterdir()} == {CHECKPOINT, CONFIG, METRICS, EVALUATION, "machines.json"}
    assert load_config(out)[:2] == load_config(run)[:2]
    assert all(torch.equal(v, load_config(out)[2][n]) for n, v in load_config(run)[2].items())
    assert logged(out) == [1, 4, 7]


def test_a_network_is_copied_without_moments_and_without_the_place_of_its_data(tmp_path, published):
    run = tmp_path / "run"
    config = SupervisedConfig(
        TasksConfig("sinusoid", shots=2, queries=2),
        data="/somewhere/here",
        iterations=4,
        log_every=1,
        method=MethodConfig(meta_batch_size=2),
        model=ModelConfig("mlp", hidden_sizes=(4,)),
    )
    train_supervised(config, run, threads=1)
    (run / EVALUATION).write_text('{"iteration": 4}')
    out = published(run) / "run"
    assert load_supervised(out)[0].data is None
    assert json.loads((out / CONFIG).read_text())["data"] is None
    original, copy = (load_checkpoint(directory / CHECKPOINT).tensors for directory in (run, out))
    assert {name for name in original if name not in copy} == {"adam.first", "adam.second"}
    assert all(torch.equal(value, original[name]) for name, value in copy.items())
    assert logged(out) == [1, 2, 3, 4]


def test_a_random_run_has_no_log_and_is_copied(tmp_path, published):
    run = tmp_path / "random"
    train(RunConfig(env_id="maml_rl.envs:finn2017/Navigation2D-v0", iterations=0), run, threads=1)
    (run / EVALUATION).write_text('{"iteration": 0}')
    out = published(run, "--rows", 3) / "random"
    assert (out / METRICS).read_bytes() == (run / METRICS).read_bytes()
    assert load_config(out)[1].iteration == 0


def test_an_evaluation_on_the_papers_tasks_is_copied_if_it_is_of_the_run_as_it_is(tmp_path, published, capsys):
    run = tmp_path / "run"
    train(RunConfig(env_id="maml_rl.envs:finn2017/Navigation2D-v0", iterations=0), run, threads=1)
    for name in (EVALUATION, "evaluation-paper.json"):
        (run / name).write_text('{"iteration": 0}')
    assert (published(run) / "run" / "evaluation-paper.json").read_text() == '{"iteration": 0}'
    (run / "evaluation-paper.json").write_text('{"iteration": 7}')
    with pytest.raises(SystemExit):
        published(run)
    assert f"was not evaluated as it is now: maml-rl evaluate {run} --tasks paper" in capsys.readouterr().err


def test_a_run_that_was_not_evaluated_is_refused(tmp_path, published, capsys):
    train(RunConfig(env_id="maml_rl.envs:finn2017/Navigation2D-v0", iterations=0), tmp_path / "run", threads=1)
    with pytest.raises(SystemExit):
        published(tmp_path / "run")
    assert f"was not evaluated as it is now: maml-rl evaluate {tmp_path / 'run'}" in capsys.readouterr().err
    assert not (tmp_path / "trained").exists()
