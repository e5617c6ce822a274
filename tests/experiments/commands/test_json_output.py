"""With --json a command prints one object and nothing else, whatever is printed while it works."""

import atexit
import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from maml_rl.config import MetaConfig, PolicyConfig
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.commands import arguments, cli
from maml_rl.experiments.runs import supervised_run as supervised_run
from maml_rl.experiments.runs.metaworld_protocol import MetaWorldEvaluation, Protocol, Success
from maml_rl.experiments.runs.run import RunConfig, new_run, save_run
from maml_rl.processes import Processes
from maml_rl.supervised.networks import ModelConfig
from maml_rl.supervised.sources import TasksConfig, task_source
from maml_rl.tasks import vectorize

COMMAND = Path(sys.executable).with_name("maml-rl")
ENVIRONMENTS = Path(__file__).parents[2] / "environments"  # holds printing_environments.py
TRUST = ("--trust-module", "printing_environments")
COMMANDS = {
    "check": ["check", "printing_environments:Loud-v0"],
    "evaluate": ["evaluate", "run", "--processes=2", *TRUST],
    "evaluate supervised": ["evaluate", "learner", *TRUST],
    "compare": ["compare", "run", "--processes=1", *TRUST],
    "adapt": ["adapt", "run", "--out=policy.zip", "--processes=2", *TRUST],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A directory with two untrained runs. Tests may evaluate them."""
    directory = tmp_path_factory.mktemp("runs")
    config = RunConfig(
        "printing_environments:Loud-v0",
        meta=MetaConfig(meta_batch_size=1, episodes=2),
        policy=PolicyConfig((4,), standardise=False),
        evaluation=EvaluationConfig(tasks=2, gradient_steps=1, episodes=2),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ENVIRONMENTS)
        with closing(vectorize(config.env_id, 1, Processes(1, "fork"))) as envs:
            save_run(directory / "run", new_run(config, envs))
        learner = supervised_run.SupervisedConfig(
            TasksConfig(family="function", function="printing_environments:tasks"),
            model=ModelConfig(hidden_sizes=(4,)),
            evaluation=supervised_run.EvaluationConfig(tasks=2, gradient_steps=1),
        )
        source = task_source(learner.tasks, None)
        supervised_run.save_run(directory / "learner", supervised_run.new_run(learner, source))
        atexit.unregister(sys.modules["printing_environments"].shout)
    return directory


def object_of(text: str) -> dict:
    """The one object that was printed, on one line."""
    assert text.count("\n") == 1
    record = json.loads(text)
    assert isinstance(record, dict)
    return record


def test_a_process_prints_one_object_whatever_its_environment_prints(runs):
    done = subprocess.run(
        [COMMAND, *COMMANDS["evaluate"], "--json"],
        cwd=runs,
        env=os.environ | {"PYTHONPATH": str(ENVIRONMENTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "env_id" in object_of(done.stdout)
    for way in ("print", "kept", "first", "descriptor", "C"):
        for place in ("import", "init", "reset", "step", "close", "exit"):
            assert f"{way} {place}\n" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_one_object(maml_rl, runs, tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    for run in ("run", "learner"):
        (tmp_path / run).symlink_to(runs / run)
    descriptor = os.dup(1)
    quick = () if name == "check" or "learner" in COMMANDS[name] else ("--start-method=fork",)
    code, out, err = maml_rl(*COMMANDS[name], *quick, "--json")
    assert code == 0, err
    object_of(out)
    assert ("print tasks\n" if "learner" in COMMANDS[name] else "print init\n") in err
    assert os.fstat(1) == os.fstat(descriptor)  # as it was before
    os.close(descriptor)


def test_the_evaluation_on_metaworld_prints_one_object(maml_rl, monkeypatch):
    def evaluated(_: Path, protocol: Protocol) -> MetaWorldEvaluation:
        print("loading assets")
        os.write(1, b"from the simulator\n")
        return MetaWorldEvaluation("ML10", protocol, *[Success(0.5, float("nan"), {"reach": 0.5})] * 2)

    monkeypatch.setattr(cli, "check_runs", lambda *_: None)
    monkeypatch.setattr(cli.metaworld_evaluation, "evaluate_metaworld", evaluated)
    result = maml_rl("evaluate-metaworld", "run", "--json")
    assert object_of(result.out)["after_adaptation"]["mean_return"] is None  # JSON has no NaN
    assert "loading assets" in result.err


def test_these_are_all_commands_with_json():
    kinds = [
        kind for kind in vars(arguments).values() if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
    ]
    with_json = {kind.__name__ for kind in kinds if "json" in {field.name for field in fields(kind)}}
    assert with_json == {"Check", "Evaluate", "Compare", "Adapt", "EvaluateMetaWorld"}


def test_a_command_that_fails_prints_no_object(maml_rl, monkeypatch):
    def fails(*_: object) -> None:
        print("half of an answer")
        raise OSError("the disk is full")

    monkeypatch.setattr("maml_rl.experiments.commands.checking.check_task_env", fails)
    result = maml_rl("check", "maml_rl.envs:finn2017/Navigation2D-v0", "--json")
    assert (result.code, result.out) == (2, "")
    assert result.err == "half of an answer\nmaml-rl: the disk is full\n"
