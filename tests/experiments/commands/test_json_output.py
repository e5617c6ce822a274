"""With --json a command prints one object and nothing else, whatever is printed while it works."""

import atexit
import json
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.experiments import __main__ as command
from maml_rl.experiments.commands import evaluate_metaworld
from maml_rl.experiments.runs.metaworld_protocol import MetaWorldEvaluation, Protocol, Success
from maml_rl.machine import Machine
from maml_rl.run import new_run, open_learner, save_run
from maml_rl.supervised.settings import NetworkConfig, SupervisedConfig, SupervisedEvaluation, TasksConfig

pytestmark = pytest.mark.usefixtures("quick_pictures")

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
    config = RLConfig(
        env_id="printing_environments:Loud-v0",
        meta=RLMeta(meta_batch_size=1, episodes=2),
        network=PolicyConfig((4,), standardise=False),
        evaluation=RLEvaluation(tasks=2, gradient_steps=1, episodes=2),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ENVIRONMENTS)
        supervised = SupervisedConfig(
            tasks=TasksConfig(family="function", function="printing_environments:tasks"),
            network=NetworkConfig(hidden_sizes=(4,)),
            evaluation=SupervisedEvaluation(tasks=2, gradient_steps=1),
        )
        for name, settings in {"run": config, "learner": supervised}.items():
            with open_learner(settings, Machine(processes=1, start_method="fork")) as learner:
                save_run(directory / name, new_run(learner, settings))
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
    assert object_of(done.stdout)["problem"] == "printing_environments:Loud-v0"
    for way in ("print", "kept", "first", "descriptor", "C"):
        for place in ("import", "init", "reset", "step", "close", "exit"):
            assert f"{way} {place}\n" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_one_object(run_command, runs, tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    for run in ("run", "learner"):
        (tmp_path / run).symlink_to(runs / run)
    descriptor = os.dup(1)
    quick = () if name == "check" or "learner" in COMMANDS[name] else ("--start-method=fork",)
    code, out, err = run_command(*COMMANDS[name], *quick, "--json")
    assert code == 0, err
    object_of(out)
    assert ("print tasks\n" if "learner" in COMMANDS[name] else "print init\n") in err
    assert os.fstat(1) == os.fstat(descriptor)  # as it was before
    os.close(descriptor)


def test_the_evaluation_on_metaworld_prints_one_object(run_command, monkeypatch):
    def evaluated(_: Path, protocol: Protocol) -> MetaWorldEvaluation:
        print("loading assets")
        os.write(1, b"from the simulator\n")
        return MetaWorldEvaluation("ML10", protocol, *[Success(0.5, float("nan"), {"reach": 0.5})] * 2)

    monkeypatch.setattr(evaluate_metaworld, "check_runs", lambda *_: None)
    monkeypatch.setattr(evaluate_metaworld, "evaluate_metaworld", evaluated)
    result = run_command("evaluate-metaworld", "run", "--json")
    assert object_of(result.out)["after_adaptation"]["mean_return"] is None  # JSON has no NaN
    assert "loading assets" in result.err


def test_the_commands_with_json_are_these_six():
    with_json = set()
    for name, of in command.COMMANDS.items():
        module = import_module(f"maml_rl.experiments.commands.{of.module}")
        kinds = [kind for kind in vars(module).values() if is_dataclass(kind) and kind.__module__ == module.__name__]
        if any(field.name == "json" for kind in kinds for field in fields(kind)):
            with_json.add(name)
    assert with_json == {"check", "evaluate", "compare", "adapt", "rl2", "evaluate-metaworld"}


def test_a_command_that_fails_prints_no_object(run_command, monkeypatch):
    def fails(*_: object) -> None:
        print("half of an answer")
        raise OSError("the disk is full")

    monkeypatch.setattr("maml_rl.checks.check_task_env", fails)
    result = run_command("check", "maml_rl.envs:finn2017/Navigation2D-v0", "--json")
    assert (result.code, result.out) == (2, "")
    assert result.err == "half of an answer\nmaml-rl: the disk is full\n"
