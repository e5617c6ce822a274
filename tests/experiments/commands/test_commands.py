"""The command maml-rl: a few cases in a separate process, all others in this one."""

import csv
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from maml_rl import reinforcement
from maml_rl.checkpoint import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, load_checkpoint, save_checkpoint
from maml_rl.config import Adam
from maml_rl.errors import NonFiniteEnvironmentError, NonFiniteError
from maml_rl.experiments.__main__ import COMMANDS
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs import training
from maml_rl.run import CHECKPOINT, CONFIG, METRICS, load_run

pytestmark = pytest.mark.usefixtures("quick_pictures")

ROOT = Path(__file__).parents[3]
COMMAND = Path(sys.executable).with_name("maml-rl")
SHRUNK = ("--meta.meta-batch-size=3", "--meta.episodes=5", "--network.hidden-sizes", "8", "8", "--threads=1")
SHRUNK_EVALUATION = ("--tasks=3", "--episodes=5", "--gradient-steps=2", "--threads=1")


def process(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> SimpleNamespace:
    """Runs the installed command in a separate process."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )
    return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)


def content(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a directory, with when it was written."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def rows(run: Path) -> list[dict[str, str]]:
    if not (run / METRICS).exists():
        return []
    with (run / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def check_refused(result: Any, *expected: str) -> None:
    """Checks for exit code 2, nothing on stdout and one line on stderr with these texts."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("maml-rl: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1
    assert len(result.err.removeprefix("maml-rl: ").strip()) > 10
    assert not any(frame in result.err for frame in ("│", "──", "---"))  # frames of the parser's boxes
    for text in expected:
        assert text in result.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run trained by the command. No test changes its directory."""
    cwd = tmp_path_factory.mktemp("trained")
    result = process("train", "navigation", "--iterations=2", *SHRUNK, cwd=cwd)
    assert result.code == 0, result.err
    assert "maml-rl evaluate runs/navigation" in result.out.splitlines()[-1]  # what to do next
    assert "iteration 2/2" in result.err
    return cwd / "runs" / "navigation"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run, to be changed."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


# From end to end


def test_a_trained_run_is_evaluated_as_one_json_object_and_nothing_is_written(run_command, trained, tmp_path):
    before = content(trained)
    result = run_command("evaluate", trained, *SHRUNK_EVALUATION, "--json")
    assert result.code == 0, result.err
    assert result.err == ""
    assert result.out.count("\n") == 1
    record = json.loads(result.out)
    assert record["problem"] == PRESETS["navigation"].config.env_id
    assert record["gradient_steps"] == [0, 1, 2]
    assert [curve["of"] for curve in record["curves"]] == ["this run", "random policy"]
    for curve in record["curves"]:
        assert len(curve["mean"]) == len(curve["standard_error"]) == 3
    assert record["settings"]["tasks"] == 3
    assert content(trained) == before
    assert list(trained.parent.iterdir()) == [trained]
    assert not list(tmp_path.iterdir())


def test_a_baseline_is_trained_and_its_step_size_chosen(run_command):
    few = "--evaluation.validation-tasks=2"
    trained = run_command("train", "navigation-pretrained", "--iterations=1", few, *SHRUNK)
    assert trained.code == 0, trained.err
    sizes = ("--tasks=2", "--episodes=2", "--gradient-steps=1", "--threads=1")
    result = run_command("evaluate", "runs/navigation-pretrained", *sizes)
    assert result.code == 0, result.err
    assert "the best on validation tasks" in result.out
    assert "no inner updates" in run_command("presets").out


def test_runs_are_compared_as_table_files_and_json(run_command, run, tmp_path):
    checkpoint = load_checkpoint(run / CHECKPOINT)
    checkpoint.record["config"]["evaluation"] |= {"tasks": 3, "episodes": 3, "gradient_steps": 2}
    save_checkpoint(run / CHECKPOINT, checkpoint)
    result = run_command("compare", run, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["name"] == "navigation"
    assert not (tmp_path / "results").exists()
    result = run_command("compare", run)
    assert result.code == 0, result.err
    assert "paper" in result.out
    written = {path.name for path in (tmp_path / "results" / "navigation").iterdir()}
    assert written == {"comparison.json", "comparison.csv", "comparison.png"}
    assert run_command("compare", run).out.endswith("comparison.csv, comparison.png\n")  # of the same runs: replaced
    kept = tmp_path / "results" / "navigation" / "comparison.json"
    record = json.loads(kept.read_text())
    record["methods"][0]["runs"].append(record["methods"][0]["runs"][0] | {"directory": "another"})
    kept.write_text(json.dumps(record))
    assert "also covers other runs and was left unchanged" in run_command("compare", run).out
    assert json.loads(kept.read_text()) == record
    assert run_command("compare", run, "--out", "there", "--gradient-steps", "1").code == 0
    assert json.loads((tmp_path / "there" / "comparison.json").read_text())["gradient_steps"] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # the parser draws other boxes in each
def test_a_bad_input_is_reported_in_one_line_without_traceback(tmp_path, encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = process("train", "navigation", "--meta.inner-lr", "much", cwd=tmp_path, env=environment)
    check_refused(result, "--meta.inner-lr", "'much'")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def interruptible():
    """Lets a child be interrupted even where this process ignores SIGINT, as in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_saves_the_run_says_how_to_resume_it_and_it_resumes(tmp_path, run_command):
    command = [COMMAND, "train", "navigation", "--iterations=100000", "--out=run", *SHRUNK]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 300
        while len(rows(tmp_path / "run")) < 2 and child.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=300)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "interrupted; the finished iterations are saved, resume with: maml-rl train --resume run\n" in err
    finished = load_run(tmp_path / "run").state.iteration
    assert finished >= 1
    logged = [int(row["iteration"]) for row in rows(tmp_path / "run")]
    assert logged == list(range(1, len(logged) + 1))
    assert len(logged) - finished in (0, 1)  # the interruption may come between a row and the end of its iteration

    result = run_command("train", "--resume", "run", f"--iterations={finished + 1}", "--threads=1")
    assert result.code == 0, result.err
    assert load_run(tmp_path / "run").state.iteration == finished + 1
    assert [int(row["iteration"]) for row in rows(tmp_path / "run")] == list(range(1, finished + 2))


# presets


def test_presets_lists_every_preset_with_its_source(run_command):
    result = run_command("presets")
    assert result.code == 0
    assert result.err == ""
    for name, preset in PRESETS.items():
        assert f"\n{name}\n" in f"\n{result.out}"
        for text in (preset.source, preset.task, preset.expected):
            assert text in result.out


# train


def test_options_reach_the_run_and_presets_are_the_defaults(run_command, tmp_path):
    result = run_command(
        "train", "navigation", *SHRUNK, "--iterations=1", "--meta.inner-lr", "0.25", "--seed", "3", "--out", "my run"
    )
    assert result.code == 0, result.err
    config = load_run(tmp_path / "my run").config
    preset = PRESETS["navigation"].config
    assert (config.meta.inner_lr, config.seed, config.iterations) == (0.25, 3, 1)
    assert config.network.hidden_sizes == (8, 8)
    assert config.meta.step == preset.meta.step
    assert config.evaluation == preset.evaluation
    assert [path.name for path in tmp_path.iterdir()] == ["my run"]


@pytest.mark.parametrize("form", [["--resume", "run"], ["--resume=run"], ["--iterations=3", "--resume", "run"]])
def test_a_run_is_resumed(run_command, run, form):
    result = run_command("train", *form, *([] if "--iterations=3" in form else ["--iterations", "3"]), "--threads=1")
    assert result.code == 0, result.err
    assert load_run(run).state.iteration == 3
    assert result.out.startswith("3 iterations")
    assert "maml-rl evaluate run" in result.out


@pytest.mark.usefixtures("run")
def test_resuming_a_finished_run_says_that_it_is_finished(run_command):
    result = run_command("train", "--resume", "run", "--threads=1")
    assert result.code == 0, result.err
    assert result.out.startswith("run is finished, with 2 iterations; --iterations N ")


def test_divergence_is_reported_in_one_line_that_says_what_to_do(run_command, tmp_path):
    result = run_command("train", "navigation", *SHRUNK, "--meta.inner-lr=1e30", "--network.standardise", "--out=run")
    assert result.code == 2
    assert result.err.startswith("maml-rl: ")
    assert result.err.count("\n") == 1
    assert "iteration 1:" in result.err
    assert "--meta.inner-lr" in result.err
    assert "--network.standardise" not in result.err
    assert "maml-rl check maml_rl.envs:finn2017/Navigation2D-v0" in result.err
    assert load_run(tmp_path / "run").state.iteration == 0


def test_divergence_on_raw_observations_names_standardisation(run_command):
    result = run_command("train", "navigation", *SHRUNK, "--meta.inner-lr=1e30", "--out=run")
    assert result.code == 2
    assert "--network.standardise --network.observation-clip 10" in result.err
    assert "at the network's input" in result.err


def test_an_environment_without_a_preset_gets_the_custom_preset(run_command, tmp_path):
    env_id = "maml_rl.envs:finn2017/HalfCheetahDir-v0"
    result = run_command("train", "--env-id", env_id, "--iterations=0", *SHRUNK, "--out=run")
    assert result.code == 0, result.err
    config = load_run(tmp_path / "run").config
    preset = PRESETS["custom"].config
    assert config.env_id == env_id
    assert config.meta == replace(preset.meta, meta_batch_size=3, episodes=5)
    assert config.network == replace(preset.network, hidden_sizes=(8, 8))


@pytest.mark.parametrize(("episodes", "expected"), [(1, "1 episode of"), (4, "4 episodes of"), (5, None)])
def test_too_few_episodes_for_the_baseline_are_warned_about_once(run_command, run, episodes, expected):
    small = ("--meta.meta-batch-size=2", "--network.hidden-sizes", "8", "--threads=1", "--iterations=1")
    commands = [
        ["train", "navigation", *small, f"--meta.episodes={episodes}", "--out=few"],
        ["evaluate", run, "--tasks=2", "--gradient-steps=1", f"--episodes={episodes}", "--json"],
        ["adapt", run, "--gradient-steps=1", f"--episodes={episodes}", "--out=p.zip", "--json"],
    ]
    for command in commands:
        result = run_command(*command)
        assert result.code == 0, result.err
        warnings = [line for line in result.err.splitlines() if line.startswith("warning")]
        assert len(warnings) == (expected is not None), command
        for line in warnings:
            assert f"{expected} at most 100 steps for the 8 weights of the baseline" in line
            assert "use at least 5 episodes" in line
        assert result.out.count("\n") <= 2


def test_the_rule_of_the_meta_step_is_chosen_with_its_own_settings(run_command, tmp_path):
    small = (*SHRUNK, "--iterations=0", "--meta.learned-lr=parameter", "--meta.adapted=last-layer")
    result = run_command("train", "navigation", *small, "--meta.step", "adam", "--meta.step.lr", "0.01", "--out=run")
    assert result.code == 0, result.err
    meta = load_run(tmp_path / "run").config.meta
    assert meta.step == Adam(lr=0.01)
    assert (meta.learned_lr, meta.adapted) == ("parameter", "last-layer")
    again = run_command("train", "navigation", *small, "--out=run", "--resume-if-exists")
    check_refused(again, "--meta.step is adam there and trust-region here")


def test_an_inner_loss_in_the_working_directory_is_found_and_its_module_remembered(run_command, tmp_path):
    (tmp_path / "losses.py").write_text(
        "from maml_rl.objectives import reinforce\n\n\n"
        "def mine(policy, params, batch):\n"
        "    return 2 * reinforce(policy(params, batch.observations), batch)\n"
    )
    mine = ("--meta.inner-objective", "losses:mine", "--iterations=1", "--out=run")
    result = run_command("train", "navigation", *SHRUNK, *mine)
    assert result.code == 0, result.err
    assert run_command("evaluate", "run", *SHRUNK_EVALUATION, "--json").code == 0


def test_few_calls_lead_from_the_command_line_to_the_meta_iteration(run_command, monkeypatch):
    stack: list[str] = []

    def look(*_: object) -> None:
        frames = [frame for frame in inspect.stack()[1:] if Path(frame.filename).is_relative_to(ROOT)]
        others = (ROOT / "tests", Path(sys.prefix))
        ours = [f for f in frames if not any(Path(f.filename).is_relative_to(other) for other in others)]
        stack.extend(frame.function for frame in ours)
        raise NonFiniteError("iteration 1: looked at")

    monkeypatch.setattr(reinforcement, "meta_iteration", look)
    assert run_command("train", "navigation", *SHRUNK, "--iterations=1").code == 2
    assert stack == ["iterate", "training_loop", "train", "_run_one", "run", "main"]


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["--help"], ["tyro", "torch", "numpy", "gymnasium", "matplotlib", "mujoco"]),
        (["presets"], ["tyro", "torch", "numpy", "gymnasium", "matplotlib", "mujoco"]),
        (["train", "navigatoin"], ["torch", "numpy", "gymnasium", "matplotlib", "mujoco"]),
        (["train", "navigation", "--help"], ["torch", "numpy", "gymnasium", "matplotlib", "mujoco"]),
        (["train", "sinusoid", "--meta.inner-lrr=1"], ["torch", "numpy", "gymnasium", "matplotlib", "mujoco"]),
    ],
    ids=" ".join,
)
def test_listing_options_imports_no_numerical_library(tmp_path, arguments, unused):
    code = (
        "import sys\nfrom maml_rl.experiments.__main__ import main\n"
        f"sys.argv = ['maml-rl', *{arguments}]\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {unused} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


PICTURES = (
    "env_id='space_environments:OfPictures-v0', max_episode_steps=None, "
    "network=PolicyConfig(hidden_sizes=(4,), filters=(2,))"
)


@pytest.mark.parametrize("settings", ["env_id=config.env_id", PICTURES], ids=["perceptron", "pictures"])
def test_commands_import_neither_pytorchs_compiler_nor_what_only_the_log_of_a_training_needs(tmp_path, settings):
    """These imports would add up to three seconds to every command of reinforcement learning."""
    code = (
        "import sys\nfrom maml_rl.experiments.presets.rl_presets import RL_PRESETS\n"
        "from maml_rl.config import PolicyConfig\nfrom maml_rl.machine import Machine\n"
        "from maml_rl.reinforcement import open_rl\nfrom dataclasses import replace\n"
        "config = RL_PRESETS['navigation'].config\n"
        "config = replace(config, meta=replace(config.meta, meta_batch_size=1, episodes=2))\n"
        f"config = replace(config, {settings})\n"
        "learner = open_rl(config, Machine(threads=1, processes=1, start_method='fork'))\n"
        "learner.iterate(learner.initial())\n"
        "import maml_rl.experiments.runs.evaluating, maml_rl.experiments.media.plots\n"
        "slow = ('torch._dynamo', 'sympy', 'scipy', 'stable_baselines3', 'tensorboard')\n"
        "print([name for name in slow if name in sys.modules])\n"
    )
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "environments")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_before_anything_is_saved_promises_nothing(run_command, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "new_run", interrupted)
    result = run_command("train", "navigation", *SHRUNK, "--out=run")
    assert result.code == 130
    assert "Traceback" not in result.err
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert "saved" not in result.err
    assert "--resume" not in result.err


def test_the_default_directory_names_the_seed_that_is_given(run_command, tmp_path):
    for arguments in ([], ["--seed", "0"], ["--seed=1"]):
        result = run_command("train", "navigation", *SHRUNK, "--iterations=0", *arguments)
        assert result.code == 0, result.err
    run_command("train", "sinusoid", "--iterations=0", "--seed=2", "--threads=1")
    custom = ("train", "--env-id=maml_rl.envs:duan2016/BernoulliBandit-v0", *SHRUNK, "--iterations=0")
    for arguments in ([], ["--seed=1"]):
        assert run_command(*custom, *arguments).code == 0
    names = {
        **{"navigation": 0, "navigation-seed0": 0, "navigation-seed1": 1},
        **{"BernoulliBandit-v0": 0, "BernoulliBandit-v0-seed1": 1},
    }
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {*names, "sinusoid-seed2"}
    for name, seed in names.items():
        assert load_run(tmp_path / "runs" / name).config.seed == seed


# One command that starts and resumes


@pytest.mark.parametrize("preset", ["navigation", "sinusoid"])
def test_one_command_starts_resumes_and_extends_a_run(run_command, tmp_path, preset):
    small = SHRUNK if preset == "navigation" else ("--network.hidden-sizes", "4", "--threads=1")
    command = ("train", preset, *small, "--out=run", "--resume-if-exists")
    for iterations, is_new in ((1, True), (2, True), (2, False)):
        result = run_command(*command, f"--iterations={iterations}")
        assert result.code == 0, result.err
        trained = load_run(tmp_path / "run")
        assert trained.state.iteration == iterations
        sampled = f", {trained.progress.env_steps:,} env steps" if preset == "navigation" else ""
        expected = (
            f"{iterations} iteration{'s' * (iterations > 1)}{sampled} in " if is_new else "run is finished, with 2 "
        )
        assert result.out.startswith(expected)
    before = content(tmp_path / "run")
    check_refused(run_command(*command, "--iterations=1"), "finished 2 iterations")
    expected = ("run is another run: --seed is 0 there and 1 here;", "another --out")
    check_refused(run_command(*command, "--iterations=2", "--seed=1"), *expected)
    check_refused(run_command(*command[:-1], "--iterations=2"), "run exists", "--resume-if-exists")
    assert {name: kept for name, (_, kept) in content(tmp_path / "run").items()} == {
        name: kept for name, (_, kept) in before.items()
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["navigation", *SHRUNK, "--meta.inner-lr=0.1", "--network.activation=tanh"],
            ["--meta.inner-lr is 0.5 there and 0.1 here", "--network.activation is relu there and tanh here"],
        ),
        (["sinusoid"], ["not a run of supervised learning"]),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(run_command, run, arguments, expected):
    before = content(run)
    check_refused(run_command("train", *arguments, "--out=run", "--iterations=3", "--resume-if-exists"), *expected)
    assert content(run) == before


def test_a_path_that_exists_and_is_not_a_run_is_not_resumed(run_command, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    command = ("train", "navigation", *SHRUNK, "--iterations=0", "--resume-if-exists", "--out")
    check_refused(run_command(*command, tmp_path), "exists")
    check_refused(run_command(*command, "notes.txt"), "notes.txt exists")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# evaluate


def test_evaluation_prints_the_table_and_where_the_picture_is(run_command, run):
    before = content(run)
    result = run_command("evaluate", run, *SHRUNK_EVALUATION)
    assert result.code == 0, result.err
    assert "3 held-out tasks, 5 episodes each" in result.out
    assert "paper: on the paper's own 40 tasks, not these; --tasks paper evaluates on those" in result.out
    for text in ("gradient steps", "this run", "95 % interval", "random policy", "-40.4", "-11.7", "-3.3"):
        assert text in result.out
    assert result.out.splitlines()[-1] == f"picture: {run / 'adaptation.png'}"
    assert (run / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    after = content(run)
    assert after.keys() - before.keys() == {"adaptation.png", "evaluation.json"}
    assert {name: after[name] for name in before} == before
    record = json.loads((run / "evaluation.json").read_text())
    printed = run_command("evaluate", run, *SHRUNK_EVALUATION, "--json")
    assert json.loads(printed.out) == record


def test_an_evaluation_on_tasks_from_a_file_has_its_own_files(run_command, run, tmp_path):
    tasks = tmp_path / "goals.json"
    tasks.write_text("[[0.1, 0.2], [0.9, -0.9]]")
    options = (f"--tasks={tasks}", "--episodes=2", "--gradient-steps=1", "--threads=1")
    result = run_command("evaluate", run, *options, "--episodes-used", "1", "2")
    assert result.code == 0, result.err
    assert "mean return over 2 given tasks, 2 episodes each" in result.out
    assert "episodes used" in result.out
    assert result.out.endswith("adaptation-given.png\n")
    stored = json.loads((run / "evaluation-given.json").read_text())
    assert [curve["condition"] for curve in stored["curves"]] == ["1 episode", "2 episodes"]
    assert stored["settings"]["episodes_used"] == [1, 2]
    assert (run / "adaptation-given.png").exists()
    refused = run_command("evaluate", run, *options, "--record")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_an_evaluation_on_the_papers_tasks_has_its_own_files(run_command, run):
    checkpoint = load_checkpoint(run / CHECKPOINT)
    checkpoint.record["config"]["evaluation"] |= {"tasks": 3, "episodes": 2, "gradient_steps": 1}
    save_checkpoint(run / CHECKPOINT, checkpoint)
    (run / "evaluation.json").write_text('{"kept": true}')
    result = run_command("evaluate", run, "--tasks=paper", "--threads=1")
    assert result.code == 0, result.err
    assert "the paper's own 40 tasks, 2 episodes each" in result.out
    assert "not of other seeds" in result.out
    assert "paper: on the paper's own 40 tasks" not in result.out
    assert result.out.endswith("adaptation-paper.png\n")
    assert json.loads((run / "evaluation-paper.json").read_text())["task_set"] == "paper"
    assert (run / "adaptation-paper.png").exists()
    assert (run / "evaluation.json").read_text() == '{"kept": true}'
    again = run_command("evaluate", run, "--tasks=paper", "--episodes=1", "--threads=1")
    assert again.out.startswith("mean return over the paper's own 40 tasks, 1 episode each")
    assert "evaluation-paper.json has the run's own settings" in again.out
    check_refused(
        run_command("evaluate", run, "--tasks=paper", "--record"), "recording.npz holds held-out tasks", "--out"
    )


def test_an_evaluation_is_written_to_out(run_command, run, tmp_path):
    before = content(run)
    result = run_command("evaluate", run, *SHRUNK_EVALUATION, "--out=elsewhere/deep")
    assert result.code == 0, result.err
    assert {path.name for path in (tmp_path / "elsewhere" / "deep").iterdir()} == {"adaptation.png", "evaluation.json"}
    assert content(run) == before


def test_a_checkpoint_file_stands_for_its_run(run_command, run):
    result = run_command("evaluate", run / CHECKPOINT, *SHRUNK_EVALUATION)
    assert result.code == 0, result.err
    assert (run / "adaptation.png").exists()


def test_a_run_that_was_interrupted_in_its_first_iteration_is_evaluated(run_command, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(reinforcement, "meta_iteration", interrupted)
        result = run_command("train", "navigation", *SHRUNK, "--out=run")
    assert result.code == 130
    assert "--resume run" in result.err
    result = run_command("evaluate", "run", *SHRUNK_EVALUATION)
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "adaptation.png").exists()


def test_ctrl_c_in_an_evaluation_ends_it_without_traceback(run_command, monkeypatch, run):
    before = content(run)
    monkeypatch.setattr(reinforcement, "adaptation", interrupted)
    assert run_command("evaluate", run, *SHRUNK_EVALUATION).code == 130
    assert content(run) == before


# Help


def words(text: str) -> str:
    """Text without the frames and line breaks of the help."""
    return " ".join("".join(" " if character in "│─╭╮╰╯" else character for character in text).split())


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "presets"])
def test_each_example_in_a_help_text_is_on_its_own_line(run_command, command):
    _, _, examples = run_command(command, "--help").out.partition("\nexamples:\n")
    lines = examples.partition("\n\n")[0].splitlines()
    assert lines
    assert all(line.startswith("  maml-rl ") and line.count("maml-rl ") == 1 for line in lines)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_the_commands(run_command, arguments):
    result = run_command(*arguments)
    assert result.code == 0
    assert result.err == ""
    for command in COMMANDS:
        assert f"\n  {command}" in result.out


def test_help_of_train_lists_its_presets_and_shows_examples(run_command, tmp_path):
    (tmp_path / "run.toml").write_text('preset = "navigation"')
    result = run_command("train", "--help")
    assert result.code == 0
    assert all(name in result.out for name in PRESETS)
    assert "--resume" in result.out
    for example in re.findall(r"^  maml-rl (train .*?)(?:   .*)?$", result.out, re.M):
        if "--resume" not in example:  # their options exist
            assert run_command(*example.split(), "--help").code == 0


@pytest.mark.parametrize("name", ["navigation", "ant-dir-oracle", "metaworld-ml10", "custom"])
def test_help_of_a_preset_shows_units_sources_and_defaults(run_command, name):
    result = run_command("train", name, "--help")
    assert result.code == 0
    text = words(result.out)
    for shown in ("in nats", "(paper", "(rllab", "in units of the action"):
        assert shown in text
    config = PRESETS[name].config
    assert PRESETS[name].task in text
    assert words(PRESETS[name].source) in text
    assert f"(default: {config.meta.inner_lr})" in text
    assert f"(default: {config.env_id})" in text


def test_help_of_a_preset_names_settings_of_its_kind_only(run_command):
    maml, sinusoid = (words(run_command("train", name, "--help").out) for name in ("navigation", "sinusoid"))
    for option in ("--env-id", "--meta.episodes", "--render-every", "--processes", "--start-method"):
        assert option in maml
        assert option not in sinusoid
    for option in ("--data", "--tasks.family", "--meta.algorithm", "--evaluation.shots"):
        assert option in sinusoid
        assert option not in maml


@pytest.mark.parametrize(
    ("arguments", "present", "absent"),
    [
        (["navigation"], "--meta.step.max-kl", "--meta.step.lr"),
        (["navigation", "--meta.step", "adam"], "--meta.step.lr", "--meta.step.max-kl"),
        (["sinusoid", "--meta.step=sgd"], "--meta.step {adam,sgd}", "trust-region"),
    ],
)
def test_help_of_a_preset_shows_the_options_of_the_rule_that_is_chosen(run_command, arguments, present, absent):
    text = words(run_command("train", *arguments, "--help").out)
    assert present in text
    assert absent not in text


def test_help_of_resume_lists_its_options(run_command):
    for arguments in (["train", "--resume", "--help"], ["train", "--resume", "RUN", "--help"]):
        result = run_command(*arguments)
        assert result.code == 0, result.err
        assert "--iterations" in result.out


def test_help_of_evaluate_lists_its_options(run_command):
    result = run_command("evaluate", "--help")
    assert result.code == 0
    text = words(result.out)
    assert "paper" in text
    for option in ("--tasks", "--gradient-steps", "--episodes", "--later-lr-factor", "--seed", "--json", "--out"):
        assert option in text


def test_help_of_presets_says_that_it_lists_sources(run_command):
    result = run_command("presets", "--help")
    assert result.code == 0, result.err
    assert "source" in result.out


def test_no_help_shows_none_as_a_type(run_command):
    for command in [
        ["train", "navigation"],
        ["train", "sinusoid"],
        ["train", "--resume"],
        *([name] for name in COMMANDS),
    ]:
        text = words(run_command(*command, "--help").out)
        assert text
        for unwanted in ("{None}", "(default: None)", "(default: )"):
            assert unwanted not in text
    text = words(run_command("train", "metaworld-ml1-reach", "--help").out)
    assert "--network.observation-clip FLOAT Bound on" in text
    assert "--num-envs INT Sub-environments" in text


def test_an_optional_setting_accepts_none(run_command, tmp_path):
    clip = ("--network.observation-clip", "None", "--num-envs", "None")
    assert run_command("train", "navigation", *SHRUNK, "--iterations=0", *clip, "--out=run").code == 0
    config = load_run(tmp_path / "run").config
    assert (config.network.observation_clip, config.num_envs) == (None, None)
    assert run_command("evaluate", "run", *SHRUNK_EVALUATION, "--shots", "None").code == 0
    check_refused(run_command("evaluate", "run", "--shots", "1", "2"), "--shots")


# Closed pipes


@pytest.mark.parametrize("arguments", [["presets"], ["--version"]])
def test_a_closed_pipe_ends_a_command_quietly(tmp_path, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([COMMAND, *arguments], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


# What goes wrong


def truncated(run: Path) -> None:
    path = run / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-20])


def foreign(run: Path) -> None:
    save_file({"weight": torch.ones(3)}, run / CHECKPOINT, {"format": "pt"})


def newer(run: Path) -> None:
    metadata = {"format": CHECKPOINT_FORMAT, "version": str(CHECKPOINT_VERSION + 1), "record": "{}"}
    save_file({"weight": torch.ones(3)}, run / CHECKPOINT, metadata)


def text_file(run: Path) -> None:
    (run / CHECKPOINT).write_text("hello\n")


def missing(run: Path) -> None:
    (run / CHECKPOINT).unlink()


def of_environment(env_id: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        checkpoint = load_checkpoint(run / CHECKPOINT)
        checkpoint.record["config"]["env_id"] = env_id
        save_checkpoint(run / CHECKPOINT, checkpoint)

    return change


def unknown_setting(run: Path) -> None:
    checkpoint = load_checkpoint(run / CHECKPOINT)
    checkpoint.record["config"]["meta"]["from_the_future"] = 1
    save_checkpoint(run / CHECKPOINT, checkpoint)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing"], ["'nothing'", *COMMANDS]),
        (["trian"], ["perhaps you meant train"]),
        (["--version-of-what"], ["'--version-of-what'"]),
        (["train"], ["--resume RUN", "see maml-rl presets"]),
        (["train", "navigatoin"], ["'navigatoin'", "navigation"]),
        (["train", "half-cheeta-dir"], ["half-cheetah-dir"]),
        (["train", "navigation", "--env-id=CartPole-v1"], ["CartPole-v1", "task_space"]),
        (
            ["train", "navigation", "--env-id=maml_rl.envs:finn2017/HalfCheetaVel-v0"],
            ["HalfCheetaVel", "maml_rl.envs:finn2017/HalfCheetahVel-v0"],
        ),
        (["train", "navigation", "--env-id=no_such_module:X-v0"], ["no_such_module"]),
        (["train", "navigation", "--meta.inner-lr", "-1"], ["--meta.inner-lr", "above 0", "-1"]),
        (["train", "navigation", "--meta.inner-lr=-1"], ["--meta.inner-lr", "above 0", "-1"]),
        (["train", "navigation", "--meta.inner-lr", "much"], ["--meta.inner-lr", "'much'"]),
        (["train", "navigation", "--meta.inner-lr", "nan"], ["--meta.inner-lr", "nan"]),
        (["train", "navigation", "--meta.inner-lr"], ["--meta.inner-lr"]),
        (["train", "navigation", "--meta.step.max-kl", "0"], ["--meta.step.max-kl must be above 0"]),
        (["train", "navigation", "--meta.inner-objective", "foo"], ["--meta.inner-objective must be", "'foo'"]),
        (["train", "navigation", "--meta.inner-objective", "math:floor"], ["loss(policy, params, batch)"]),
        (["train", "navigation", "--meta.step.lr", "1"], ["--meta.step.lr needs --meta.step adam, sgd or promp"]),
        (
            ["train", "navigation", "--meta.step", "promp", "--meta.inner-objective", "reinforce"],
            ["set inner_objective to lvc, or step.epochs to 1"],
        ),
        (["train", "navigation", "--meta.first-order"], ["step.hessian_fraction 0.25", "set it to 1"]),
        (["train", "sinusoid", "--meta.step.max-kl", "1"], ["has no --meta.step.max-kl"]),
        (["train", "navigation", "--meta.step", "rmsprop"], ["--meta.step", "rmsprop", "adam", "trust-region"]),
        (
            ["train", "navigation", "--meta.step", "adam", "--meta.step.max-kl", "0.1"],
            ["--meta.step trust-region"],
        ),
        (["train", "sinusoid", "--meta.step", "trust-region"], ["--meta.step", "trust-region", "adam", "sgd"]),
        (["train", "sinusoid", "--meta.episodes", "3"], ["--meta.episodes", "preset of supervised learning"]),
        (["train", "navigation", "--data", "images"], ["--data", "preset of reinforcement learning"]),
        (["train", "navigation", "--iterations", "-1"], ["iterations", "at least 0"]),
        (["train", "navigation", "--iterations", "1.5"], ["--iterations", "1.5"]),
        (["train", "navigation", "--seed", "-1"], ["seed", "at least 0"]),
        (["train", "navigation", "--threads", "0"], ["threads"]),
        (["train", "navigation", "--network.activation", "gelu"], ["gelu", "relu"]),
        (["train", "navigation", "--meta.inner-lrr", "0.1"], ["--meta.inner-lrr", "meant --meta.inner-lr "]),
        (["train", "navigation", "--itertions=3"], ["--itertions", "meant --iterations "]),
        (["train", "navigation", "more"], ["more"]),
        (["train", "navigation", "--device", "cuda:99"], ["'cuda:99'", "set device to cpu"]),
        (["train", "navigation", "--device", "nonsense"], ["'nonsense'", "set device to cpu"]),
        (["train", "navigation", "--out", "run"], ["run exists", "--resume run"]),
        (["train", "navigation", "--out", f"run/{CONFIG}"], [f"run/{CONFIG}"]),
        (["train", "navigation", "--out", f"run/{CONFIG}/below"], [f"run/{CONFIG}"]),
        (["train", "--resume"], ["--resume"]),
        (["train", "--resume", "absent"], ["absent"]),
        (["train", "--resume", "run", "--iterations", "0"], ["iterations"]),
        (["compare"], ["at least one run"]),
        (["compare", "nothing"], ["nothing"]),
        (["compare", "run", "run"], ["same seed"]),
        (["compare", "run", "--gradient-steps", "9"], ["at most 3 gradient steps, 9"]),
        (["compare", "run", "--tasks", "40"], ["paper"]),
        (["evaluate", "run", "--tasks", "papers"], ["expected a number, paper or a file .json, got 'papers'"]),
        (["compare", "run", "--out", "run/config.json"], ["is a file"]),
        (["train", "--resume", "run", "--iterations", "1"], ["finished 2 iterations"]),
        (["train", "--resume", "run", "--device", "cuda:99"], ["'cuda:99'"]),
        (["train", "--resume", "run", "navigation"], ["navigation"]),
        (
            ["train", "--resume", "run", "--meta.inner-lr", "0.2"],
            ["keeps its settings", "takes only --iterations, --data, --render-every, --trust-module"],
        ),
        (["train", "--resume", "run", "--iteratoins", "3"], ["meant --iterations;", "keeps its settings"]),
        (["train", "--resume", "run", "--data", "d"], ["a run of reinforcement learning, which has no --data"]),
        (["evaluate", "run", "--shots", "5"], ["a run of reinforcement learning, which has no --shots"]),
        (["visualize", "run", "--data", "d"], ["a run of reinforcement learning, which has no --data"]),
        (["evaluate"], ["evaluate needs a RUN"]),
        (["evaluate", "absent"], ["absent"]),
        (["evaluate", "run", "more"], ["more"]),
        (["evaluate", "run", "--tasks", "1"], ["tasks must be at least 2, got 1"]),
        (["evaluate", "run", "--episodes", "0"], ["episodes"]),
        (["evaluate", "run", "--gradient-steps", "-1"], ["gradient_steps"]),
        (["evaluate", "run", "--later-lr-factor", "0"], ["later_lr_factor"]),
        (["evaluate", "run", "--tasks", "few"], ["--tasks", "few"]),
        (["evaluate", "run", "--inner-lr", "1"], ["--inner-lr"]),
        (["compare", "run", "--tasks", "4"], ["--tasks: expected paper or a file .json, got '4'"]),
        (["evaluate", "run", "--gradient-step", "1"], ["meant --gradient-steps "]),
        (["evaluate", "run", "--device", "cuda:99", "--json"], ["'cuda:99'"]),
        (["evaluate", "run", "--out", f"run/{CONFIG}", "--tasks=2", "--episodes=1", "--threads=1"], [CONFIG]),
        (["presets", "navigation"], ["navigation"]),
    ],
    ids=" ".join,
)
def test_a_bad_input_is_refused_in_one_line_and_nothing_is_written(run_command, run, tmp_path, arguments, expected):
    before = content(tmp_path)
    small = ("--iterations=1", *SHRUNK) if arguments[:2] == ["train", "navigation"] else ()  # should it be accepted
    result = run_command(*arguments[:2], *small, *arguments[2:])
    check_refused(result, *expected)
    assert content(tmp_path) == before
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.parametrize("command", [["evaluate", "run"], ["evaluate", "run", "--json"], ["train", "--resume", "run"]])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (truncated, "truncated or damaged"),
        (foreign, "not a maml-rl checkpoint"),
        (newer, "newer"),
        (text_file, "truncated or damaged"),
        (missing, "no checkpoint"),
        (of_environment("maml_rl.envs:finn2017/HalfCheetahDir-v0"), "another environment"),
        (of_environment("maml_rl.envs:finn2017/Navigation-v0"), "maml_rl.envs:finn2017/Navigation2D-v0"),
        (of_environment("CartPole-v1"), "task_space"),
        (unknown_setting, "from_the_future"),
    ],
    ids=[
        "truncated",
        "foreign",
        "newer",
        "text",
        "missing",
        "another environment",
        "unknown environment",
        "no task space",
        "unknown setting",
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_in_one_line(run_command, run, tmp_path, command, damage, expected):
    damage(run)
    before = content(tmp_path)
    check_refused(run_command(*command), expected)
    assert content(tmp_path) == before


def test_an_evaluation_that_diverges_is_reported_in_one_line(run_command, run):
    before = content(run)
    check_refused(run_command("evaluate", run, "--later-lr-factor=1e38", *SHRUNK_EVALUATION), "gradient steps")
    assert content(run) == before


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (NonFiniteError, "intact; train again with standardised observations"),
        (NonFiniteEnvironmentError, "maml-rl check"),
    ],
)
def test_a_divergence_while_training_keeps_the_run(run_command, monkeypatch, run, error, advice):
    def diverge(*_: object) -> None:
        raise error("iteration 2: meta-gradient is not finite")

    before = (run / CHECKPOINT).read_bytes()
    monkeypatch.setattr(reinforcement, "meta_iteration", diverge)
    check_refused(run_command("train", "--resume", "run", "--iterations=3", "--threads=1"), "iteration 2", advice)
    assert (run / CHECKPOINT).read_bytes() == before
