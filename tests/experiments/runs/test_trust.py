"""Whose code a command runs: a module that a stranger's run names is not imported."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_rl.checkpoint import Checkpoint, save_checkpoint
from maml_rl.config import PolicyConfig, RLConfig
from maml_rl.errors import InputError
from maml_rl.run import CHECKPOINT, Run, load_run, new_run, open_learner, save_run
from maml_rl.supervised.settings import SupervisedConfig, TasksConfig
from maml_rl.tasks import registration

COMMAND = Path(sys.executable).with_name("maml-rl")
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
SMALL = RLConfig(env_id=NAVIGATION, iterations=0, network=PolicyConfig((4,), standardise=False))
LEAVES_A_TRACE = "from pathlib import Path\n(Path(__file__).parent / f'{__name__}.trace').touch()\n"
COMMANDS = {
    "evaluate": ["evaluate", "run"],
    "evaluate as JSON": ["evaluate", "run", "--json"],
    "compare": ["compare", "run"],
    "compare with another": ["compare", "own", "run"],
    "adapt": ["adapt", "run", "--out", "policy.zip"],
    "view": ["view", "run"],
    "visualize": ["visualize", "run"],
    "resume": ["train", "--resume", "run"],
    "evaluate-metaworld": ["evaluate-metaworld", "run"],
}


@pytest.fixture(scope="module")
def small() -> Run:
    with open_learner(SMALL) as learner:
        return new_run(learner, SMALL)


@pytest.fixture
def command(run_command, monkeypatch, tmp_path, small) -> Callable[..., Any]:
    """The command in a directory with a run and, next to it, the module that the run names, both from a stranger."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    save_run(tmp_path / "own", small)
    save_run(tmp_path / "run", small._replace(config=replace(SMALL, env_id="strange:Strange-v0")))
    (tmp_path / "strange.py").write_text(LEAVES_A_TRACE)

    def run(*arguments: object) -> Any:
        sys.modules.pop("strange", None)
        importlib.invalidate_caches()
        return run_command(*arguments)

    return run


def supervised(directory: Path, function: str) -> None:
    """Stores a checkpoint with the settings of a supervised run."""
    config = SupervisedConfig(tasks=TasksConfig(family="function", function=function))
    directory.mkdir()
    record = {"kind": "supervised", "iteration": 0, "progress": {}, "config": asdict(config)}
    save_checkpoint(directory / CHECKPOINT, Checkpoint({"weight": torch.zeros(1)}, record))


def imported(directory: Path) -> bool:
    """Whether the module was imported since this was last asked."""
    trace = directory / "strange.trace"
    was_there = trace.exists()
    trace.unlink(missing_ok=True)
    return was_there


def check_refused(result: Any, directory: Path) -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("maml-rl: ")
    assert result.err.count("\n") == 1
    for text in ("the module strange", str(directory / "strange.py"), "run its code", "--trust-module strange"):
        assert text in result.err
    assert not imported(directory)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_the_module_that_a_run_names(command, tmp_path, name):
    check_refused(command(*COMMANDS[name]), tmp_path)


@pytest.mark.parametrize("name", ["evaluate", "visualize", "resume"])
def test_no_command_imports_the_task_function_that_a_run_names(command, tmp_path, name):
    supervised(tmp_path / "learner", "strange:tasks")
    check_refused(command(*("learner" if part == "run" else part for part in COMMANDS[name])), tmp_path)


@pytest.mark.parametrize("name", ["evaluate", "adapt", "resume"])
def test_no_command_imports_the_network_that_a_run_names(command, tmp_path, small, name):
    network = replace(SMALL.network, module="strange:Net")
    save_run(tmp_path / "run", small._replace(config=replace(SMALL, network=network)))
    assert load_run(tmp_path / "run").rl_config.network.module == "strange:Net"  # reading it imports nothing
    check_refused(command(*COMMANDS[name]), tmp_path)


@pytest.mark.parametrize("name", ["evaluate", "visualize"])
def test_the_module_of_a_baseline_is_not_imported_either(command, tmp_path, name):
    (tmp_path / "mine.py").write_text("")
    supervised(tmp_path / "learner", "mine:tasks")
    supervised(tmp_path / "learner-oracle", "strange:tasks")
    arguments = ["learner" if part == "run" else part for part in COMMANDS[name]]
    command(*arguments, "--trust-module", "mine")  # tasks of another function are others, and are not compared with
    assert not imported(tmp_path)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "compare with another"])
def test_an_option_lets_a_module_in_and_later_commands_remember_it(command, tmp_path, name):
    command(*COMMANDS[name], "--trust-module", "strange")
    assert imported(tmp_path)
    command("evaluate", "run")
    assert imported(tmp_path)


@pytest.mark.parametrize("module", ["envs.strange", "experiments.strange"])
def test_packages_named_like_folders_of_this_one_are_the_users(command, monkeypatch, tmp_path, small, module):
    monkeypatch.syspath_prepend(tmp_path)  # as python -m does
    package = tmp_path / module.partition(".")[0]
    package.mkdir()
    (package / "__init__.py").write_text(LEAVES_A_TRACE)
    (package / "strange.py").touch()
    trace = package / f"{package.name}.trace"
    save_run(tmp_path / "run", small._replace(config=replace(SMALL, env_id=f"{module}:Strange-v0")))
    assert f"the module {package.name} in {package / '__init__.py'}" in command("evaluate", "run").err
    assert not trace.exists()
    command("evaluate", "run", "--trust-module", module)
    assert trace.exists()
    for name in (package.name, module):
        sys.modules.pop(name, None)


def test_several_modules_are_let_in_by_several_options(command, tmp_path):
    command("compare", "--trust-module", "other.part", "--trust-module", "strange", "run")
    assert imported(tmp_path)


@pytest.mark.parametrize("arguments", [["check", "strange:X-v0"], ["train", "navigation", "--env-id", "strange:X-v0"]])
def test_a_module_that_the_user_named_is_remembered(command, tmp_path, arguments):
    assert command(*arguments).code == 2  # it has no such environment
    assert imported(tmp_path)
    command("evaluate", "run")
    assert imported(tmp_path)


def test_a_function_of_tasks_that_the_user_named_is_remembered(command, tmp_path):
    command("train", "sinusoid", "--tasks.family", "function", "--tasks.function", "strange:tasks", "--out", "r")
    assert imported(tmp_path)
    supervised(tmp_path / "learner", "strange:tasks")
    command("evaluate", "learner")
    assert imported(tmp_path)


def test_a_module_of_the_same_name_in_another_place_is_another_one(command, tmp_path, monkeypatch):
    command("check", "strange:Strange-v0")
    assert imported(tmp_path)
    download = tmp_path / "download"
    download.mkdir()
    (download / "strange.py").write_text(LEAVES_A_TRACE)
    monkeypatch.chdir(download)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    check_refused(command("evaluate", tmp_path / "run"), download)


def test_a_run_cannot_bring_its_own_list_of_trusted_modules(command, tmp_path, monkeypatch):
    command("check", "strange:Strange-v0")
    assert imported(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    for place in (tmp_path, tmp_path / "run"):
        shutil.copytree(tmp_path / "state" / "maml-rl", place / "maml-rl")
    check_refused(command("evaluate", "run"), tmp_path)


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("place", ["a file", "no home", "a relative home"])
def test_without_a_place_to_remember_the_option_is_needed_again(command, tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file") if place == "a file" else "")
    monkeypatch.setattr(Path, "home", no_home if place == "no home" else lambda: Path("home"))
    command("evaluate", "run", "--trust-module", "strange")
    assert imported(tmp_path)
    check_refused(command("evaluate", "run"), tmp_path)


def test_a_relative_place_is_ignored_since_a_run_could_bring_it(command, tmp_path, monkeypatch):
    command("evaluate", "run", "--trust-module", "strange")
    assert imported(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for relative in ("state", "./state", "~"):
        monkeypatch.setenv("XDG_STATE_HOME", relative)
        check_refused(command("evaluate", "run"), tmp_path)


def test_trusted_modules_are_stored_in_the_home_directory_by_default(command, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    command("check", "strange:Strange-v0")
    (remembered,) = (tmp_path / "home" / ".local" / "state" / "maml-rl" / "trusted-modules").iterdir()
    assert remembered.read_text() == f"{tmp_path / 'strange.py'}\n"
    assert imported(tmp_path)
    remembered.unlink()
    check_refused(command("evaluate", "run"), tmp_path)


@pytest.mark.parametrize(
    ("answer", "expected"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_terminal_is_asked(command, tmp_path, monkeypatch, answer, expected):
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    result = command("evaluate", "run")
    assert f"run names the module strange in {tmp_path / 'strange.py'}" in result.err
    assert "Import it? [y/N]" in result.err
    assert imported(tmp_path) is expected
    assert ("--trust-module" in result.err) is not expected


def test_the_module_of_a_run_to_start_from_is_not_imported(command, tmp_path):
    start = ("--start-from", "run", "--network.hidden-sizes", "4", "--iterations", "0", "--out", "started")
    result = command("train", "navigation", *start, "--meta.meta-batch-size", "1", "--meta.episodes", "1")
    assert result.code == 0, result.err
    assert not imported(tmp_path)


@pytest.mark.parametrize(
    "env_id", ["../strange:X", "a b:X", "strange.:X", ".strange:X", "strange\0:X", "st/range:X", "maml_rl./:X"]
)
def test_an_invalid_module_name_is_refused(command, tmp_path, small, env_id):
    save_run(tmp_path / "run", small._replace(config=replace(SMALL, env_id=env_id)))
    result = command("evaluate", "run")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "is not the name of a module" in result.err
    assert not imported(tmp_path)


def test_nothing_but_named_modules_is_taken_from_the_current_directory(tmp_path, small):
    """Not even what this package, or one that it uses, imports where it is installed."""
    save_run(tmp_path / "run", small)
    own = ("maml_rl", "envs", "experiments", "tests")
    for name in ("cv2", "tensorflow", "pandas", "ale_py", "pygame", "IPython", *own):
        (tmp_path / f"{name}.py").write_text(LEAVES_A_TRACE)
    done = subprocess.run(
        [COMMAND, "train", "--resume", "run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.trace")) == []


def test_in_python_the_caller_decides(tmp_path, monkeypatch):
    (tmp_path / "strange.py").write_text(LEAVES_A_TRACE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("strange", None)
    with pytest.raises(InputError, match="there is no environment"):
        registration("strange:Strange-v0")
    assert imported(tmp_path)
