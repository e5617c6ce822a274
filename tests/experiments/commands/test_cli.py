"""The command maml-rl: a few whole processes, and every other case in this one."""

import csv
import json
import os
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

from maml_rl.checkpoint import FORMAT, VERSION, load_checkpoint, save_checkpoint
from maml_rl.errors import NonFiniteEnvironmentError, NonFiniteError
from maml_rl.experiments.commands import cli
from maml_rl.experiments.presets.rl_presets import PRESETS
from maml_rl.experiments.runs import evaluations, training
from maml_rl.experiments.runs.run import CHECKPOINT, CONFIG, METRICS, load_config

COMMAND = Path(sys.executable).with_name("maml-rl")
SHRUNK = ("--meta.meta-batch-size=3", "--meta.episodes=5", "--policy.hidden-sizes", "8", "8", "--threads=1")
SHRUNK_EVALUATION = ("--tasks=3", "--episodes=5", "--gradient-steps=2", "--threads=1")


def process(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> SimpleNamespace:
    """Runs the installed command in a process of its own."""
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


def check_refused(result: Any, *told: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that tells what is needed."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("maml-rl: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1
    assert len(result.err.removeprefix("maml-rl: ").strip()) > 10
    assert not any(frame in result.err for frame in ("│", "──", "---"))  # of the parser's boxes
    for text in told:
        assert text in result.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run by the command itself. No test changes its directory."""
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


def test_a_trained_run_is_evaluated_as_one_json_object_and_nothing_is_written(trained):
    before = content(trained)
    result = process("evaluate", trained, *SHRUNK_EVALUATION, "--json", cwd=trained.parent)
    assert result.code == 0, result.err
    assert result.err == ""
    assert result.out.count("\n") == 1
    record = json.loads(result.out)
    assert record["env_id"] == PRESETS["navigation"].config.env_id
    assert record["gradient_steps"] == [0, 1, 2]
    assert len(record["mean_return"]) == len(record["standard_error"]) == 3
    assert record["num_tasks"] == 3
    assert content(trained) == before
    assert list(trained.parent.iterdir()) == [trained]


def test_a_baseline_is_trained_and_its_step_size_chosen(maml_rl):
    trained = maml_rl("train", "navigation-pretrained", "--iterations=1", *SHRUNK)
    assert trained.code == 0, trained.err
    sizes = ("--tasks=2", "--episodes=2", "--gradient-steps=1", "--threads=1")
    result = maml_rl("evaluate", "runs/navigation-pretrained", *sizes)
    assert result.code == 0, result.err
    assert "the best on validation tasks" in result.out
    assert "no inner updates" in maml_rl("presets").out


def test_runs_are_compared_as_table_files_and_json(maml_rl, run, tmp_path):
    checkpoint = load_checkpoint(run / CHECKPOINT)
    checkpoint.record["config"]["evaluation"] |= {"tasks": 3, "episodes": 3, "gradient_steps": 2}
    save_checkpoint(run / CHECKPOINT, checkpoint)
    result = maml_rl("compare", run, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["task"] == "navigation"
    assert not (tmp_path / "results").exists()
    result = maml_rl("compare", run)
    assert result.code == 0, result.err
    assert "paper" in result.out
    written = {path.name for path in (tmp_path / "results" / "navigation").iterdir()}
    assert written == {"comparison.json", "comparison.csv", "comparison.png"}
    assert maml_rl("compare", run).out.endswith("comparison.csv, comparison.png\n")  # of the same runs: replaced
    kept = tmp_path / "results" / "navigation" / "comparison.json"
    record = json.loads(kept.read_text())
    record["methods"][0]["runs"].append(record["methods"][0]["runs"][0] | {"directory": "another"})
    kept.write_text(json.dumps(record))
    assert "is of other runs too and stays as it is" in maml_rl("compare", run).out
    assert json.loads(kept.read_text()) == record
    assert maml_rl("compare", run, "--out", "there", "--gradient-steps", "1").code == 0
    assert json.loads((tmp_path / "there" / "comparison.json").read_text())["gradient_steps"] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # the parser draws other boxes in each
def test_a_bad_input_is_one_line_without_traceback(tmp_path, encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = process("train", "navigation", "--meta.inner-lr", "much", cwd=tmp_path, env=environment)
    check_refused(result, "--meta.inner-lr", "'much'")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def interruptible():
    """Lets a child be interrupted also where this process was started with SIGINT ignored, as in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_saves_says_how_to_go_on_and_the_run_goes_on(tmp_path, maml_rl):
    command = [COMMAND, "train", "navigation", "--iterations=100000", "--out=run", *SHRUNK]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 90
        while not rows(tmp_path / "run") and child.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "interrupted; saved. Resume with: maml-rl train --resume run\n" in err
    finished = load_config(tmp_path / "run")[1].iteration
    assert finished >= 1
    assert [int(row["iteration"]) for row in rows(tmp_path / "run")] == list(range(1, finished + 1))

    result = maml_rl("train", "--resume", "run", f"--iterations={finished + 1}", "--threads=1")
    assert result.code == 0, result.err
    assert load_config(tmp_path / "run")[1].iteration == finished + 1
    assert [int(row["iteration"]) for row in rows(tmp_path / "run")] == list(range(1, finished + 2))


# presets


def test_presets_lists_every_preset_with_its_source(maml_rl):
    result = maml_rl("presets")
    assert result.code == 0
    assert result.err == ""
    for name, preset in PRESETS.items():
        assert f"\n{name}\n" in f"\n{result.out}"
        for text in (preset.source, preset.task, preset.expected):
            assert text in result.out


# train


def test_options_reach_the_run_and_presets_are_the_defaults(maml_rl, tmp_path):
    result = maml_rl(
        "train", "navigation", *SHRUNK, "--iterations=1", "--meta.inner-lr", "0.25", "--seed", "3", "--out", "my run"
    )
    assert result.code == 0, result.err
    config = load_config(tmp_path / "my run")[0]
    preset = PRESETS["navigation"].config
    assert (config.meta.inner_lr, config.seed, config.iterations) == (0.25, 3, 1)
    assert config.policy.hidden_sizes == (8, 8)
    assert config.meta.trust_region == preset.meta.trust_region
    assert config.evaluation == preset.evaluation
    assert [path.name for path in tmp_path.iterdir()] == ["my run"]


@pytest.mark.parametrize("form", [["--resume", "run"], ["--resume=run"], ["--iterations=3", "--resume", "run"]])
def test_a_run_is_resumed(maml_rl, run, form):
    result = maml_rl("train", *form, *([] if "--iterations=3" in form else ["--iterations", "3"]), "--threads=1")
    assert result.code == 0, result.err
    assert load_config(run)[1].iteration == 3
    assert result.out.startswith("3 iterations")
    assert "maml-rl evaluate run" in result.out


def test_divergence_is_one_line_that_says_what_to_do(maml_rl, tmp_path):
    result = maml_rl("train", "navigation", *SHRUNK, "--meta.inner-lr=1e30", "--policy.standardise", "--out=run")
    assert result.code == 2
    assert result.err.startswith("maml-rl: ")
    assert result.err.count("\n") == 1
    assert "iteration 1:" in result.err
    assert "--meta.inner-lr" in result.err
    assert "--policy.standardise" not in result.err
    assert "maml-rl check maml_rl.envs:finn2017/Navigation2D-v0" in result.err
    assert load_config(tmp_path / "run")[1].iteration == 0


def test_divergence_on_raw_observations_names_standardisation(maml_rl):
    result = maml_rl("train", "navigation", *SHRUNK, "--meta.inner-lr=1e30", "--out=run")
    assert result.code == 2
    assert "--policy.standardise --policy.observation-clip 10" in result.err
    assert "at the network's input" in result.err


def test_an_environment_without_a_preset_gets_the_one_for_custom_environments(maml_rl, tmp_path):
    env_id = "maml_rl.envs:finn2017/HalfCheetahDir-v0"
    result = maml_rl("train", "--env-id", env_id, "--iterations=0", *SHRUNK, "--out=run")
    assert result.code == 0, result.err
    config, _, _ = load_config(tmp_path / "run")
    preset = PRESETS["custom"].config
    assert config.env_id == env_id
    assert config.meta == replace(preset.meta, meta_batch_size=3, episodes=5)
    assert config.policy == replace(preset.policy, hidden_sizes=(8, 8))


@pytest.mark.parametrize(("episodes", "told"), [(1, "1 episode of"), (4, "4 episodes of"), (5, None)])
def test_too_few_episodes_for_the_baseline_are_told_once(maml_rl, run, episodes, told):
    small = ("--meta.meta-batch-size=2", "--policy.hidden-sizes", "8", "--threads=1", "--iterations=1")
    commands = [
        ["train", "navigation", *small, f"--meta.episodes={episodes}", "--out=few"],
        ["evaluate", run, "--tasks=2", "--gradient-steps=1", f"--episodes={episodes}", "--json"],
        ["adapt", run, "--gradient-steps=1", f"--episodes={episodes}", "--out=p.zip", "--json"],
    ]
    for command in commands:
        result = maml_rl(*command)
        assert result.code == 0, result.err
        warnings = [line for line in result.err.splitlines() if line.startswith("warning")]
        assert len(warnings) == (told is not None), command
        for line in warnings:
            assert f"{told} at most 100 steps for the 8 weights of the baseline" in line
            assert "take 5 episodes or more" in line
        assert result.out.count("\n") <= 2


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_before_anything_is_saved_promises_nothing(maml_rl, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "new_run", interrupted)
    result = maml_rl("train", "navigation", *SHRUNK, "--out=run")
    assert result.code == 130
    assert "Traceback" not in result.err
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert "interrupted; saved" not in result.err
    assert "--resume" not in result.err


def test_the_default_directory_names_the_seed_that_is_given(maml_rl, tmp_path):
    for arguments in ([], ["--seed", "0"], ["--seed=1"]):
        result = maml_rl("train", "navigation", *SHRUNK, "--iterations=0", *arguments)
        assert result.code == 0, result.err
    maml_rl("train", "sinusoid", "--iterations=0", "--seed=2", "--threads=1")
    custom = ("train", "--env-id=maml_rl.envs:duan2016/BernoulliBandit-v0", *SHRUNK, "--iterations=0")
    for arguments in ([], ["--seed=1"]):
        assert maml_rl(*custom, *arguments).code == 0
    names = {
        **{"navigation": 0, "navigation-seed0": 0, "navigation-seed1": 1},
        **{"BernoulliBandit-v0": 0, "BernoulliBandit-v0-seed1": 1},
    }
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {*names, "sinusoid-seed2"}
    for name, seed in names.items():
        assert load_config(tmp_path / "runs" / name)[0].seed == seed


# One command that starts and resumes


@pytest.mark.parametrize("preset", ["navigation", "sinusoid"])
def test_one_command_starts_resumes_and_extends_a_run(maml_rl, tmp_path, preset):
    small = SHRUNK if preset == "navigation" else ("--model.hidden-sizes", "4", "--threads=1")
    command = ("train", preset, *small, "--out=run", "--resume-if-exists")
    for iterations in (1, 2, 2):
        result = maml_rl(*command, f"--iterations={iterations}")
        assert result.code == 0, result.err
        progress = load_checkpoint(tmp_path / "run" / CHECKPOINT).record["progress"]
        assert progress["iteration"] == iterations
        sampled = f", {progress['env_steps']:,} env steps" if preset == "navigation" else ""
        assert result.out.startswith(f"{iterations} iteration{'s' * (iterations > 1)}{sampled} in ")
    before = content(tmp_path / "run")
    check_refused(maml_rl(*command, "--iterations=1"), "finished 2 iterations")
    told = ("run is another run: --seed is 0 there and 1 here;", "another --out")
    check_refused(maml_rl(*command, "--iterations=2", "--seed=1"), *told)
    check_refused(maml_rl(*command[:-1], "--iterations=2"), "run exists", "--resume-if-exists")
    assert {name: kept for name, (_, kept) in content(tmp_path / "run").items()} == {
        name: kept for name, (_, kept) in before.items()
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["navigation", *SHRUNK, "--meta.inner-lr=0.1", "--policy.activation=tanh"],
            ["--meta.inner-lr is 0.5 there and 0.1 here", "--policy.activation is relu there and tanh here"],
        ),
        (["sinusoid"], ["no run of supervised learning"]),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(maml_rl, run, arguments, told):
    before = content(run)
    check_refused(maml_rl("train", *arguments, "--out=run", "--iterations=3", "--resume-if-exists"), *told)
    assert content(run) == before


def test_what_is_there_and_no_run_is_not_resumed(maml_rl, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    command = ("train", "navigation", *SHRUNK, "--iterations=0", "--resume-if-exists", "--out")
    check_refused(maml_rl(*command, tmp_path), "exists")
    check_refused(maml_rl(*command, "notes.txt"), "notes.txt exists")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# evaluate


def test_evaluation_prints_the_table_and_where_the_picture_is(maml_rl, run):
    before = content(run)
    result = maml_rl("evaluate", run, *SHRUNK_EVALUATION)
    assert result.code == 0, result.err
    assert "3 held-out tasks, 5 episodes each" in result.out
    assert "paper: on its own 40 tasks, which are others; --tasks paper evaluates on those" in result.out
    for text in ("gradient steps", "this run", "95 % interval", "random policy", "-40.4", "-11.7", "-3.3"):
        assert text in result.out
    assert result.out.splitlines()[-1] == f"picture: {run / 'adaptation.png'}"
    assert (run / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    after = content(run)
    assert after.keys() - before.keys() == {"adaptation.png", "evaluation.json"}
    assert {name: after[name] for name in before} == before
    record = json.loads((run / "evaluation.json").read_text())
    printed = maml_rl("evaluate", run, *SHRUNK_EVALUATION, "--json")
    assert json.loads(printed.out) == record


def test_an_evaluation_on_the_papers_tasks_has_files_of_its_own(maml_rl, run):
    checkpoint = load_checkpoint(run / CHECKPOINT)
    checkpoint.record["config"]["evaluation"] |= {"tasks": 3, "episodes": 2, "gradient_steps": 1}
    save_checkpoint(run / CHECKPOINT, checkpoint)
    (run / "evaluation.json").write_text('{"kept": true}')
    result = maml_rl("evaluate", run, "--tasks=paper", "--threads=1")
    assert result.code == 0, result.err
    assert "the paper's own 40 tasks, 2 episodes each" in result.out
    assert "not of other seeds" in result.out
    assert "paper: on its own 40 tasks" not in result.out
    assert result.out.endswith("adaptation-paper.png\n")
    assert json.loads((run / "evaluation-paper.json").read_text())["task_set"] == "paper"
    assert (run / "adaptation-paper.png").exists()
    assert (run / "evaluation.json").read_text() == '{"kept": true}'
    again = maml_rl("evaluate", run, "--tasks=paper", "--episodes=1", "--threads=1")
    assert "evaluation-paper.json stays as it is" in again.out
    check_refused(maml_rl("evaluate", run, "--tasks=paper", "--record"), "recording.npz is of held-out tasks", "--out")


def test_an_evaluation_goes_elsewhere_if_asked(maml_rl, run, tmp_path):
    before = content(run)
    result = maml_rl("evaluate", run, *SHRUNK_EVALUATION, "--out=elsewhere/deep")
    assert result.code == 0, result.err
    assert {path.name for path in (tmp_path / "elsewhere" / "deep").iterdir()} == {"adaptation.png", "evaluation.json"}
    assert content(run) == before


def test_a_checkpoint_file_stands_for_its_run(maml_rl, run):
    result = maml_rl("evaluate", run / CHECKPOINT, *SHRUNK_EVALUATION)
    assert result.code == 0, result.err
    assert (run / "adaptation.png").exists()


def test_a_run_that_was_interrupted_in_its_first_iteration_is_evaluated(maml_rl, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(training, "meta_iteration", interrupted)
        result = maml_rl("train", "navigation", *SHRUNK, "--out=run")
    assert result.code == 130
    assert "--resume run" in result.err
    result = maml_rl("evaluate", "run", *SHRUNK_EVALUATION)
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "adaptation.png").exists()


def test_ctrl_c_in_an_evaluation_ends_it_without_traceback(maml_rl, monkeypatch, run):
    before = content(run)
    monkeypatch.setattr(evaluations, "adaptation", interrupted)
    assert maml_rl("evaluate", run, *SHRUNK_EVALUATION).code == 130
    assert content(run) == before


# Help


def words(text: str) -> str:
    """Text without the frames and line breaks of the help."""
    return " ".join("".join(" " if character in "│─╭╮╰╯" else character for character in text).split())


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_tells_the_commands(maml_rl, arguments):
    result = maml_rl(*arguments)
    assert result.code == 0
    assert result.err == ""
    for command in cli.COMMANDS:
        assert f"\n  {command}" in result.out


def test_help_of_train_tells_its_presets(maml_rl):
    result = maml_rl("train", "--help")
    assert result.code == 0
    assert all(name in result.out for name in PRESETS)
    assert "--resume" in result.out


@pytest.mark.parametrize("name", PRESETS)
def test_help_of_a_preset_tells_units_sources_and_defaults(maml_rl, name):
    result = maml_rl("train", name, "--help")
    assert result.code == 0
    text = words(result.out)
    for told in ("in nats", "(paper", "(rllab", "Finn, Abbeel, Levine 2017", "in units of the action"):
        assert told in text
    config = PRESETS[name].config
    assert f"(default: {config.meta.inner_lr})" in text
    assert f"(default: {config.env_id})" in text


def test_help_of_resume_tells_its_options(maml_rl):
    for arguments in (["train", "--resume", "--help"], ["train", "--resume", "RUN", "--help"]):
        result = maml_rl(*arguments)
        assert result.code == 0, result.err
        assert "--iterations" in result.out


def test_help_of_evaluate_tells_units_and_sources(maml_rl):
    result = maml_rl("evaluate", "--help")
    assert result.code == 0
    text = words(result.out)
    assert "paper" in text
    for option in ("--tasks", "--gradient-steps", "--episodes", "--later-lr-factor", "--seed", "--json", "--out"):
        assert option in text


def test_help_of_presets(maml_rl):
    result = maml_rl("presets", "--help")
    assert result.code == 0, result.err
    assert "source" in result.out


def test_no_help_shows_none_as_a_type(maml_rl):
    for command in [
        ["train", "navigation"],
        ["train", "sinusoid"],
        ["train", "--resume"],
        *([name] for name in cli.COMMANDS),
    ]:
        text = maml_rl(*command, "--help").out
        assert text
        assert "{None}" not in text
    text = words(maml_rl("train", "metaworld-ml1-reach", "--help").out)
    assert "--policy.observation-clip FLOAT Bound on" in text
    assert "--num-envs INT Sub-environments" in text


def test_none_is_a_value_of_an_option_that_may_be_none(maml_rl, tmp_path):
    clip = ("--policy.observation-clip", "None", "--num-envs", "None")
    assert maml_rl("train", "navigation", *SHRUNK, "--iterations=0", *clip, "--out=run").code == 0
    config = load_config(tmp_path / "run")[0]
    assert (config.policy.observation_clip, config.num_envs) == (None, None)
    assert maml_rl("evaluate", "run", *SHRUNK_EVALUATION, "--shots", "None").code == 0
    check_refused(maml_rl("evaluate", "run", "--shots", "1", "2"), "--shots")


# Output that nobody reads


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
    metadata = {"format": FORMAT, "version": str(VERSION + 1), "record": "{}"}
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
    ("arguments", "told"),
    [
        (["nothing"], ["'nothing'", *cli.COMMANDS]),
        (["--version-of-what"], ["'--version-of-what'"]),
        (["train"], ["--resume RUN", *PRESETS]),
        (["train", "navigatoin"], ["'navigatoin'", "navigation"]),
        (["train", "half-cheeta-dir"], ["half-cheetah-dir"]),
        (["train", "navigation", "--env-id=CartPole-v1"], ["CartPole-v1", "task_space"]),
        (
            ["train", "navigation", "--env-id=maml_rl.envs:finn2017/HalfCheetaVel-v0"],
            ["HalfCheetaVel", "maml_rl.envs:finn2017/HalfCheetahVel-v0"],
        ),
        (["train", "navigation", "--env-id=no_such_module:X-v0"], ["no_such_module"]),
        (["train", "navigation", "--meta.inner-lr", "-1"], ["inner_lr", "above 0", "-1"]),
        (["train", "navigation", "--meta.inner-lr=-1"], ["inner_lr", "above 0", "-1"]),
        (["train", "navigation", "--meta.inner-lr", "much"], ["--meta.inner-lr", "'much'"]),
        (["train", "navigation", "--meta.inner-lr", "nan"], ["inner_lr", "nan"]),
        (["train", "navigation", "--meta.inner-lr"], ["--meta.inner-lr"]),
        (["train", "navigation", "--meta.trust-region.max-kl", "0"], ["max_kl", "above 0"]),
        (["train", "navigation", "--iterations", "-1"], ["iterations", "at least 0"]),
        (["train", "navigation", "--iterations", "1.5"], ["--iterations", "1.5"]),
        (["train", "navigation", "--seed", "-1"], ["seed", "at least 0"]),
        (["train", "navigation", "--threads", "0"], ["threads"]),
        (["train", "navigation", "--policy.activation", "gelu"], ["gelu", "relu"]),
        (["train", "navigation", "--meta.inner-lrr", "0.1"], ["--meta.inner-lrr", "meant --meta.inner-lr "]),
        (["train", "navigation", "--itertions=3"], ["--itertions", "meant --iterations "]),
        (["train", "navigation", "more"], ["more"]),
        (["train", "navigation", "--device", "cuda:99"], ["'cuda:99'", "--device cpu"]),
        (["train", "navigation", "--device", "nonsense"], ["'nonsense'", "--device cpu"]),
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
        (["evaluate", "run", "--tasks", "papers"], ["expected a number, or paper, got 'papers'"]),
        (["compare", "run", "--out", "run/config.json"], ["is a file"]),
        (["train", "--resume", "run", "--iterations", "1"], ["finished 2 iterations"]),
        (["train", "--resume", "run", "--device", "cuda:99"], ["'cuda:99'"]),
        (["train", "--resume", "run", "navigation"], ["navigation"]),
        (
            ["train", "--resume", "run", "--meta.inner-lr", "0.2"],
            ["keeps its settings", "takes only --iterations, --data, --render-every, --trust-module, --device, "],
        ),
        (["train", "--resume", "run", "--iteratoins", "3"], ["meant --iterations;", "keeps its settings"]),
        (["evaluate"], ["run"]),
        (["evaluate", "absent"], ["absent"]),
        (["evaluate", "run", "more"], ["more"]),
        (["evaluate", "run", "--tasks", "1"], ["tasks must be at least 2, got 1"]),
        (["evaluate", "run", "--episodes", "0"], ["episodes"]),
        (["evaluate", "run", "--gradient-steps", "-1"], ["gradient_steps"]),
        (["evaluate", "run", "--later-lr-factor", "0"], ["later_lr_factor"]),
        (["evaluate", "run", "--tasks", "few"], ["--tasks", "few"]),
        (["evaluate", "run", "--inner-lr", "1"], ["--inner-lr"]),
        (["evaluate", "run", "--gradient-step", "1"], ["meant --gradient-steps "]),
        (["evaluate", "run", "--device", "cuda:99", "--json"], ["'cuda:99'"]),
        (["evaluate", "run", "--out", f"run/{CONFIG}", "--tasks=2", "--episodes=1", "--threads=1"], [CONFIG]),
        (["presets", "navigation"], ["navigation"]),
    ],
    ids=" ".join,
)
def test_a_bad_input_is_refused_in_one_line_and_nothing_is_written(maml_rl, run, tmp_path, arguments, told):
    before = content(tmp_path)
    small = ("--iterations=1", *SHRUNK) if arguments[:2] == ["train", "navigation"] else ()  # should it be accepted
    result = maml_rl(*arguments[:2], *small, *arguments[2:])
    check_refused(result, *told)
    assert content(tmp_path) == before
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.parametrize("command", [["evaluate", "run"], ["evaluate", "run", "--json"], ["train", "--resume", "run"]])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncated, "truncated or damaged"),
        (foreign, "not a checkpoint of maml-rl"),
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
def test_a_checkpoint_that_cannot_be_used_is_refused_in_one_line(maml_rl, run, tmp_path, command, damage, told):
    damage(run)
    before = content(tmp_path)
    check_refused(maml_rl(*command), told)
    assert content(tmp_path) == before


def test_an_evaluation_that_diverges_is_one_line(maml_rl, run):
    before = content(run)
    check_refused(maml_rl("evaluate", run, "--later-lr-factor=1e38", *SHRUNK_EVALUATION), "gradient steps")
    assert content(run) == before


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (NonFiniteError, "intact; train again with standardised observations"),
        (NonFiniteEnvironmentError, "maml-rl check"),
    ],
)
def test_a_divergence_while_training_keeps_the_run(maml_rl, monkeypatch, run, error, advice):
    def diverge(*_: object) -> None:
        raise error("iteration 2: meta-gradient is not finite")

    before = (run / CHECKPOINT).read_bytes()
    monkeypatch.setattr(training, "meta_iteration", diverge)
    check_refused(maml_rl("train", "--resume", "run", "--iterations=3", "--threads=1"), "iteration 2", advice)
    assert (run / CHECKPOINT).read_bytes() == before
