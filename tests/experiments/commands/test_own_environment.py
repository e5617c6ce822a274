"""Training in a custom environment, as a command in its own process group: results, crashes, interruptions."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

import maml_rl.checks
import maml_rl.experiments.commands.check
import maml_rl.waiting
from maml_rl.run import CHECKPOINT, CONFIG, load_run
from maml_rl.waiting import reporting_waits

pytestmark = pytest.mark.usefixtures("quick_pictures", "quick_critic")

COMMAND = Path(sys.executable).with_name("maml-rl")
ENVIRONMENTS = Path(__file__).parents[2] / "environments"  # holds plain_environments.py
SMALL = ("--meta.meta-batch-size=3", "--meta.episodes=2", "--network.hidden-sizes", "8", "8", "--threads=1")


def env_id(name: str) -> str:
    return f"plain_environments:{name}ForTests-v0"


def start(*arguments: object, cwd: Path) -> subprocess.Popen:
    """Starts the command in its own process group, as a terminal does."""
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ENVIRONMENTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def finished(*arguments: object, cwd: Path) -> str:
    """Output of the command, which has to succeed."""
    child = start(*arguments, cwd=cwd)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    return out


@pytest.fixture
def command(run_command, monkeypatch) -> Callable[..., Any]:
    """Runs the command in this process, where the environments of the tests can be imported."""
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    return run_command


@pytest.fixture
def done(command) -> Callable[..., str]:
    """Output of the command in this process, which has to succeed."""

    def run(*arguments: object) -> str:
        code, out, err = command(*arguments)
        assert code == 0, err
        return out

    return run


def theta(run: Path) -> dict[str, torch.Tensor]:
    return load_run(run).state.meta


def assert_equal(a: Path, b: Path) -> None:
    first, second = theta(a), theta(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of two iterations in one process. No test changes its directory."""
    cwd = tmp_path_factory.mktemp("trained")
    train = ("train", "--env-id", env_id("Walk"), "--preset", "navigation", "--iterations=2", *SMALL)
    out = finished(*train, "--out=run", "--processes=1", cwd=cwd)
    assert out.endswith("next: maml-rl evaluate run\n")
    return cwd / "run"


@pytest.mark.parametrize("how", [["--processes=2"], ["--processes", "9", "--start-method=fork"]])
def test_neither_the_number_nor_the_start_method_of_processes_changes_a_run(trained, tmp_path, done, how):
    train = ("train", "navigation", "--env-id", env_id("Walk"), "--iterations=2", *SMALL)
    done(*train, "--out=run", *how)
    assert_equal(tmp_path / "run", trained)
    assert (tmp_path / "run" / CONFIG).read_bytes() == (trained / CONFIG).read_bytes()


def test_a_run_is_resumed_in_other_processes_bit_for_bit(trained, tmp_path, done):
    train = ("train", f"--env-id={env_id('Walk')}", "--preset=navigation", *SMALL, "--out=run")
    done(*train, "--iterations=1")
    done("train", "--resume", "run", "--iterations=2", "--processes=2", "--start-method=fork")
    assert_equal(tmp_path / "run", trained)


def test_an_evaluation_has_the_same_numbers_in_any_number_of_processes(trained, done):
    evaluate = ("evaluate", trained, "--tasks=3", "--episodes=2", "--gradient-steps=1", "--json")
    one, three = done(*evaluate, "--processes=1"), done(*evaluate, "--processes=3", "--start-method=fork")
    assert json.loads(one) == json.loads(three)


def test_tasks_that_are_dicts_and_actions_that_begin_at_one_are_trained_and_evaluated(tmp_path, done):
    train = ("train", "--env-id", env_id("Choice"), "--preset", "navigation", "--iterations=1", *SMALL)
    done(*train, "--out=run", "--processes=2")
    done("evaluate", "run", "--tasks=2", "--episodes=2", "--gradient-steps=1", "--processes=2")
    assert (tmp_path / "run" / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    tasks = json.loads((tmp_path / "run" / "evaluation.json").read_text())["tasks"]
    assert [list(task) for task in tasks] == [["goal"], ["goal"]]


# What goes wrong in an environment


def test_an_exception_is_reported_with_traceback_and_task_and_the_run_is_kept(tmp_path, command):
    train = ("train", "--env-id", env_id("Failing"), "--preset", "navigation", "--iterations=2", *SMALL)
    code, out, err = command(*train, "--out=run", "--network.no-standardise", "--processes=2")
    assert (code, out) == (1, "")
    trace, _, line = err.rstrip().rpartition("\n")
    assert "Traceback" in trace
    assert "plain_environments.py" in trace
    assert line.startswith("maml-rl: training stopped: process ")
    for expected in ("(task [", "raised plain_environments.UnpicklableError: 100 % broken: %s %d", "--resume run"):
        assert expected in line
    assert load_run(tmp_path / "run").state.iteration == 0


def wait_for(condition: Callable[[], object], child: subprocess.Popen | None) -> None:
    """Waits for something that happens while a child runs, or after it."""
    end = time.monotonic() + 300
    while not condition() and (child is None or child.poll() is None) and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def running(group: int) -> set[int]:
    """Processes of a group that have not ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                found.add(int(path.parent.name))
    return found


class Training:
    """A long run with one finished iteration, in two worker processes that have not imported PyTorch."""

    def __init__(self, cwd: Path) -> None:
        (cwd / "pids").mkdir()
        train = ("train", "--env-id", env_id("Slow"), "--preset", "navigation", "--iterations=100000", *SMALL)
        self.child = start(*train, "--out=run", "--processes=2", "--checkpoint-every=1", cwd=cwd)
        self.run = cwd / "run"
        wait_for(lambda: (self.run / CHECKPOINT).exists() and load_run(self.run).state.iteration >= 1, self.child)
        self.pids = [int(path.name) for path in (cwd / "pids").iterdir()]
        assert len(self.pids) == 2
        assert {self.child.pid, *self.pids} <= running(self.child.pid)

    def end(self) -> str:
        """Its error output, once it and its processes have ended."""
        out, err = self.child.communicate(timeout=300)
        assert out == ""
        wait_for(lambda: not running(self.child.pid), None)
        return err


@pytest.fixture
def training(tmp_path) -> Iterator[Training]:
    """Starts such a run, even where this process ignores SIGINT, as in the background."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("finds processes in /proc")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Training(tmp_path)
    yield run
    signal.signal(signal.SIGINT, before)
    run.child.kill()
    run.child.wait()


def test_a_killed_process_is_reported_in_one_line_with_its_task_and_the_run_is_kept(training, done):
    os.kill(training.pids[0], signal.SIGKILL)
    err = training.end()
    assert training.child.returncode == 1
    lines = [line for line in err.splitlines() if not line.startswith(("iteration ", "warning: a task has 2 episodes"))]
    assert len(lines) == 1
    for expected in ("maml-rl: training stopped: process ", "(task [", "killed by SIGKILL", "--resume run"):
        assert expected in lines[0]
    iteration = load_run(training.run).state.iteration
    assert iteration >= 1
    done("train", "--resume", "run", f"--iterations={iteration + 1}", "--processes=1")


@pytest.mark.parametrize("stop", ["Ctrl-C", "SIGTERM", "SIGTERM to all"])
def test_an_interruption_saves_the_run_and_leaves_no_process_behind(training, stop):
    if stop == "SIGTERM":
        training.child.terminate()
    else:
        os.killpg(training.child.pid, signal.SIGINT if stop == "Ctrl-C" else signal.SIGTERM)
    err = training.end()
    assert training.child.returncode == 130
    assert "Traceback" not in err
    assert "interrupted; the finished iterations are saved, resume with: maml-rl train --resume run\n" in err
    assert load_run(training.run).state.iteration >= 1


def test_no_process_outlives_a_run_that_is_killed(training):
    training.child.kill()
    training.end()
    assert load_run(training.run / CHECKPOINT).state.iteration >= 1


# Environments of other libraries


def foreign_id(name: str) -> str:
    return f"foreign_environments:foreign/{name}ForTests-v0"


@pytest.mark.parametrize("name", ["PearlPoint", "PearlVelocity", "VaribadBandit", "Navigation"])
def test_environments_of_other_libraries_are_checked_and_trained(command, name):
    checked = command("check", foreign_id(name))
    assert (checked.code, checked.err) == (0, "")
    assert checked.out.startswith(f"{foreign_id(name)}: nothing to fix\n")
    train = ("train", "--env-id", foreign_id(name), "--preset", "navigation", "--iterations=1", *SMALL)
    code, _, err = command(*train, "--out=run", "--processes=2", "--start-method=fork")
    assert code == 0, err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "typed", "shown"),
    [
        ("Legs", '[4, 0.25, {"mass": 1}, ["walk", true]]', [4, 0.25, {"mass": 1.0}, ["walk", True]]),
        ("Named", '"pull"', "pull"),
        ("PearlPoint", "2", 2),
    ],
)
def test_every_command_takes_tasks_of_any_type(command, tmp_path, name, typed, shown):
    evaluation = ("--evaluation.tasks=3", "--evaluation.episodes=2", "--evaluation.gradient-steps=1")
    train = ("--env-id", foreign_id(name), "--preset=navigation", "--iterations=1", *SMALL, *evaluation)
    quick = ("--processes=1", "--start-method=fork", "--threads=1")
    steps = [
        ("train", *train, "--out=run", *quick),
        ("evaluate", "run", "--record", *quick),
        ("adapt", "run", "--task", typed, "--out=policy.zip", "--json", *quick),
        ("visualize", "run", *quick),
    ]
    for arguments in steps:
        code, out, err = command(*arguments)
        assert code == 0, err
        assert "Traceback" not in err
        if arguments[0] == "adapt":
            assert json.loads(out)["task"] == shown
    assert (tmp_path / "run" / "report.html").exists()


def test_an_oracle_observes_tasks_of_numbers_and_refuses_others(command):
    oracle = ("--preset=navigation-oracle", "--iterations=1", *SMALL, "--processes=1")
    code, _, err = command("train", "--env-id", foreign_id("VaribadPoint"), *oracle, "--out=point")
    assert code == 0, err
    code, out, err = command("train", "--env-id", foreign_id("Named"), *oracle, "--out=named")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is no number" in err


# Bad input


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--iterations", "1"], ["needs a preset", "1 (see maml-rl presets)"]),
        (["train", "--env", env_id("Walk")], ["for --env, perhaps you meant --env-id"]),
        (["train", "custom"], ["--env-id module:My-v0"]),
        (["train", "--env-id", env_id("Walk"), "--preset"], ["--preset", "see maml-rl presets"]),
        (["train", "--env-id", env_id("Walk"), "--preset", "navigatoin"], ["'navigatoin'", "navigation"]),
        (["train", "navigation", "--env-id", "plain_environments:WalkFortests-v0"], [env_id("Walk")]),
        (["train", "navigation", "--env-id", "no_such_module:Walk-v0"], ["no_such_module", "installed"]),
        (["train", "navigation", "--env-id", env_id("EndlessWalk")], ["max_episode_steps"]),
        (
            ["train", "navigation", "--env-id", env_id("WithoutTask")],
            ["attribute task", "the next reset"],
        ),
        (["train", "navigation", "--env-id", env_id("Outside")], ["task_space", "array([7.]", "contains"]),
        (["train", "navigation", "--env-id", env_id("Walk"), "--processes", "0"], ["processes", "at least 1"]),
        (["train", "navigation", "--env-id", env_id("Walk"), "--start-method", "thread"], ["start-method", "spawn"]),
        (["check", "plain_environments:WalkFortests-v0"], [env_id("Walk")]),
        (["check", "no_such_module:Walk-v0"], ["no_such_module", "installed"]),
        (["check"], ["check needs an ENV_ID"]),
    ],
    ids=lambda value: " ".join(value) if "check" in value or "train" in value else "",
)
def test_a_bad_input_is_reported_in_one_line(command, arguments, expected):
    small = (
        (*SMALL, "--iterations=1", "--network.no-standardise", "--meta.episodes=5")
        if arguments[:2] == ["train", "navigation"]
        else ()
    )
    code, out, err = command(*arguments, *small)
    assert code == 2
    assert out == ""
    assert err.startswith("maml-rl: ")
    assert err.count("\n") == 1
    for text in expected:
        assert text in err


# maml-rl check


def test_a_check_reports_findings_as_a_list_or_as_json(command):
    code, out, err = command("check", env_id("WithoutTask"))
    assert (code, err) == (2, "")
    assert out.splitlines()[0] == f"{env_id('WithoutTask')}: 1 finding"
    assert out.splitlines()[1].startswith("- error: there is no attribute task")
    code, out, err = command("check", env_id("WithoutTask"), "--json")
    assert (code, err) == (2, "")
    record = json.loads(out)
    assert record["env_id"] == env_id("WithoutTask")
    assert [finding["level"] for finding in record["findings"]] == ["error"]


def test_check_breaks_no_option_at_its_hyphens(command):
    code, out, _ = command("check", env_id("EndlessWalk"))
    assert code == 2
    assert "set max_episode_steps" in out


def test_a_check_with_warnings_only_is_passed(command):
    code, out, err = command("check", env_id("Eager"))
    assert (code, err) == (0, "")
    assert "- warning: " in out
    assert "- error: " not in out
    code, out, err = command("check", env_id("Walk"))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{env_id('Walk')}: nothing to fix"
    assert [line[:8] for line in out.splitlines()[1:] if line.startswith("-")] == ["- note: "]


def test_a_check_that_hangs_says_so(command, monkeypatch):
    is_reported = Event()
    monkeypatch.setattr(maml_rl.experiments.commands.check, "reporting_waits", lambda what: reporting_waits(what, 1e-3))
    monkeypatch.setattr(maml_rl.checks, "check_task_env", lambda _: [] if is_reported.wait(60) else None)
    report = maml_rl.waiting.report_waiting

    def reported(what: str, seconds: float) -> None:
        report(what, seconds)
        is_reported.set()

    monkeypatch.setattr(maml_rl.waiting, "report_waiting", reported)
    _, out, err = command("check", env_id("Walk"))
    assert out.startswith(f"{env_id('Walk')}: nothing to fix\n")
    assert f"maml-rl: the check of {env_id('Walk')} has not ended for 0.001 s: is it hanging?" in err
