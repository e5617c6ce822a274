"""Meta-training: what a run leaves behind, and that no interruption changes it."""

import csv
import errno
import json
import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import maml_rl.experiments.runs.training
import maml_rl.meta_rl
from maml_rl.checkpoint import load_checkpoint
from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.experiments.presets.rl_presets import PRESETS
from maml_rl.experiments.runs.provenance import MACHINES
from maml_rl.experiments.runs.run import CHECKPOINT, CONFIG, METRICS, Run, RunConfig, load_config
from maml_rl.experiments.runs.run_log import Clip, log, run_logger
from maml_rl.experiments.runs.training import resume, train
from maml_rl.parallel import usable_device

_NAVIGATION = PRESETS["navigation"].config
SHRUNK = replace(
    _NAVIGATION,
    iterations=4,
    meta=replace(_NAVIGATION.meta, meta_batch_size=3, episodes=4),
    policy=PolicyConfig(hidden_sizes=(8, 8)),
)
COLUMNS = {
    "iteration",
    "return/after_0_steps",
    "return/after_1_steps",
    "return/relative_spread_0",
    "return/relative_spread_1",
    "baseline/explained_variance_0",
    "baseline/explained_variance_1",
    "baseline/explained_variance_left_out_0",
    "baseline/explained_variance_left_out_1",
    "policy/entropy",
    "inner/kl",
    "inner/curvature",
    "meta/loss_before",
    "meta/loss_after",
    "meta/kl",
    "meta/gradient_norm",
    "meta/step_norm",
    "meta/backtracks",
    "meta/accepted",
    "sampling/env_steps",
    "time/sampling_seconds",
    "time/update_seconds",
    "time/env_steps_per_second",
    "time/seconds",
}


def shrunk_train(out: Path, threads: int | None = 1, **changes: object) -> Run:
    return train(replace(SHRUNK, **changes), out, threads=threads)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(out: Path) -> list[dict[str, str]]:
    """Rows as they are written, to the last digit, without what a clock measured."""
    return [{name: text for name, text in row.items() if not name.startswith("time/")} for row in rows(out)]


def same_theta(left: Run, right: Run) -> bool:
    return left.theta.keys() == right.theta.keys() and all(
        torch.equal(value, right.theta[name]) for name, value in left.theta.items()
    )


def same_checkpoint(left: Path, right: Path) -> bool:
    """Whether two runs saved the same tensors, settings and progress, but for the seconds it took."""
    (config, progress, tensors), (others_config, others_progress, others) = load_config(left), load_config(right)
    return (
        (config, progress[:2]) == (others_config, others_progress[:2])
        and tensors.keys() == others.keys()
        and all(torch.equal(value, others[name]) for name, value in tensors.items())
    )


def at_call(monkeypatch, module, name: str, number: int, action) -> None:
    """Does something at the n-th call of a function, before its work."""
    original, calls = getattr(module, name), []

    def counting(*arguments, **settings):
        calls.append(None)
        if len(calls) == number:
            action()
        return original(*arguments, **settings)

    monkeypatch.setattr(module, name, counting)


def interrupt() -> None:
    raise KeyboardInterrupt


def diverge() -> None:
    raise NonFiniteError("iteration 2: meta-gradient is not finite")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[Path, Run]:
    """A run of four iterations. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return out, shrunk_train(out)


# What a run leaves behind


def test_a_run_directory_holds_settings_checkpoint_and_logs(uninterrupted):
    out, run = uninterrupted
    assert {path.name for path in out.iterdir()} == {CONFIG, CHECKPOINT, METRICS, MACHINES, "tensorboard", ".lock"}
    assert json.loads((out / CONFIG).read_text()) == json.loads(json.dumps(asdict(SHRUNK)))
    config, progress, tensors = load_config(out)
    assert config == run.config == SHRUNK
    assert progress == run.progress
    assert progress.iteration == 4
    assert all(torch.equal(tensors[name], value) for name, value in run.theta.items())


def test_metrics_have_one_row_an_iteration_of_documented_finite_columns(uninterrupted):
    written = rows(uninterrupted[0])
    assert [int(row["iteration"]) for row in written] == [1, 2, 3, 4]
    for row in written:
        assert row.keys() == COLUMNS
        assert all(math.isfinite(float(text)) for text in row.values())


def test_every_metric_is_explained(uninterrupted):
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    for name in rows(uninterrupted[0])[0]:
        stem, _, step = name.rpartition("_")
        explained = {f"`{name}`", f"`{name.replace('_1_', '_k_')}`", f"`{stem}_k`" if step.isdigit() else name}
        assert any(form in text for form in explained), name


def test_columns_are_in_the_order_of_their_names(uninterrupted):
    assert list(rows(uninterrupted[0])[0]) == sorted(COLUMNS)


def test_metrics_agree_with_the_progress(uninterrupted):
    out, run = uninterrupted
    written = rows(out)
    env_steps = [int(row["sampling/env_steps"]) for row in written]
    most = 3 * 4 * 100 * 2  # tasks x episodes x time limit, before and after adaptation
    for before, after in zip([0, *env_steps[:-1]], env_steps, strict=True):
        assert most * 0.9 < after - before <= most
    assert env_steps[-1] == run.progress.env_steps
    assert float(written[-1]["time/seconds"]) == run.progress.seconds
    for row in written:
        assert 0 <= float(row["meta/kl"]) <= SHRUNK.meta.trust_region.max_kl * 1.0001


def test_parameters_have_moved_in_every_accepted_iteration(uninterrupted, tmp_path):
    run = shrunk_train(tmp_path / "one", iterations=1)
    assert not same_theta(run, uninterrupted[1])
    assert float(rows(tmp_path / "one")[0]["meta/step_norm"]) > 0


def test_tensorboard_shows_the_same_numbers(uninterrupted):
    out, _ = uninterrupted
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == COLUMNS
    for name in COLUMNS:
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3, 4]
        expected = [float(row[name]) for row in rows(out)]
        assert [scalar.value for scalar in scalars] == pytest.approx(expected, rel=1e-6)


def test_progress_is_told_where_there_is_no_terminal(tmp_path, capsys):
    shrunk_train(tmp_path / "run", iterations=1)
    output = capsys.readouterr()
    assert output.out == ""
    assert "iteration 1/1: return" in output.err
    assert "env steps/s" in output.err


def test_the_pretrained_baseline_trains_without_inner_steps(tmp_path):
    run = shrunk_train(tmp_path / "run", iterations=1, meta=replace(SHRUNK.meta, inner_steps=0))
    assert run.progress.env_steps <= 3 * 4 * 100
    assert "return/after_0_steps" in rows(tmp_path / "run")[0]
    assert "return/after_1_steps" not in rows(tmp_path / "run")[0]


# The same run, however it was computed


def test_the_same_seed_gives_the_same_run_and_another_seed_another(uninterrupted, tmp_path):
    out, run = uninterrupted
    torch.manual_seed(7)
    assert same_theta(shrunk_train(tmp_path / "same", iterations=4), run)
    assert timeless(tmp_path / "same") == timeless(out)
    other = shrunk_train(tmp_path / "other", iterations=1, seed=1)
    assert not same_theta(other, shrunk_train(tmp_path / "first", iterations=1))


def test_each_iteration_draws_tasks_and_noise_of_its_own(tmp_path, monkeypatch):
    drawn = []
    training_tasks = maml_rl.meta_rl.training_tasks

    def recording(space, count, draw):
        drawn.append((draw.seed, draw.iteration))
        return training_tasks(space, count, draw)

    monkeypatch.setattr(maml_rl.meta_rl, "training_tasks", recording)
    shrunk_train(tmp_path / "run", iterations=2, seed=5)
    resume(tmp_path / "run", iterations=3, threads=1)
    assert drawn == [(5, 0), (5, 1), (5, 2)]


@pytest.mark.parametrize("threads", [2, None])
def test_the_number_of_threads_does_not_change_a_bit(uninterrupted, tmp_path, threads):
    out, run = uninterrupted
    assert same_theta(shrunk_train(tmp_path / "run", threads), run)
    assert timeless(tmp_path / "run") == timeless(out)


@pytest.fixture(scope="module")
def two_iterations(tmp_path_factory) -> tuple[Path, Run]:
    """The first half of the uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "two"
    return out, shrunk_train(out, iterations=2)


@pytest.mark.parametrize("num_envs", [1, 5, 40])
def test_the_number_of_sub_environments_does_not_change_the_result(two_iterations, tmp_path, num_envs):
    out, expected = two_iterations
    run = shrunk_train(tmp_path / "run", num_envs=num_envs, iterations=2)
    assert same_theta(run, expected)
    assert timeless(tmp_path / "run") == timeless(out)


# Interruption and resumption


def test_two_iterations_and_two_more_are_four(uninterrupted, two_iterations, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(two_iterations[0], out)
    assert load_config(out)[1].iteration == 2
    run = resume(out, iterations=4, threads=1)
    assert same_theta(run, uninterrupted[1])
    assert same_checkpoint(out, uninterrupted[0])
    assert timeless(out) == timeless(uninterrupted[0])
    assert json.loads((out / CONFIG).read_text())["iterations"] == 4


def test_seconds_go_on_after_a_resumption(tmp_path):
    out = tmp_path / "run"
    before = shrunk_train(out, iterations=1).progress.seconds
    after = resume(out, iterations=2, threads=1).progress.seconds
    assert after > before
    assert [float(row["time/seconds"]) for row in rows(out)] == [before, after]


@pytest.mark.parametrize(
    ("module", "name", "finished"),
    [
        (maml_rl.experiments.runs.training, "meta_iteration", 2),  # before the third iteration
        (maml_rl.meta_rl, "meta_update", 2),  # after its sampling
        (maml_rl.meta_rl, "collect", 1),  # the third sampling is the first of the second iteration
    ],
)
def test_ctrl_c_in_an_iteration_saves_the_finished_ones(uninterrupted, tmp_path, monkeypatch, module, name, finished):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_call(patched, module, name, 3, interrupt)
        with pytest.raises(KeyboardInterrupt):
            shrunk_train(out)
    assert load_config(out)[1].iteration == finished
    assert timeless(out) == timeless(uninterrupted[0])[:finished]
    run = resume(out, threads=1)
    assert same_theta(run, uninterrupted[1])
    assert same_checkpoint(out, uninterrupted[0])
    assert timeless(out) == timeless(uninterrupted[0])


def test_ctrl_c_while_a_row_is_logged_loses_no_row(uninterrupted, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_call(patched, Logger, "dump", 3, interrupt)
        with pytest.raises(KeyboardInterrupt):
            shrunk_train(out)
    assert same_theta(resume(out, threads=1), uninterrupted[1])
    assert timeless(out) == timeless(uninterrupted[0])


@pytest.mark.parametrize(("checkpoint_every", "saved"), [(10, 0), (2, 2), (1, 3)])
def test_a_killed_run_goes_on_from_its_last_checkpoint(uninterrupted, tmp_path, monkeypatch, checkpoint_every, saved):
    alive, killed = tmp_path / "alive", tmp_path / "killed"
    with monkeypatch.context() as patched:
        at_call(patched, maml_rl.experiments.runs.training, "meta_iteration", 4, lambda: shutil.copytree(alive, killed))
        shrunk_train(alive, checkpoint_every=checkpoint_every)
    assert len(rows(killed)) == 3
    assert load_config(killed)[1].iteration == saved
    assert same_theta(resume(killed, threads=1), uninterrupted[1])
    assert same_checkpoint(killed, alive)
    assert timeless(killed) == timeless(uninterrupted[0])


def test_tensorboard_shows_an_iteration_once_after_a_kill_and_a_resumption(tmp_path, monkeypatch):
    alive, killed = tmp_path / "alive", tmp_path / "killed"
    with monkeypatch.context() as patched:
        at_call(patched, maml_rl.experiments.runs.training, "meta_iteration", 4, lambda: shutil.copytree(alive, killed))
        shrunk_train(alive, checkpoint_every=2)
    # The names of event files order them by the second of their start.
    for file in (killed / "tensorboard").iterdir():
        file.rename(file.with_name("events.out.tfevents.0000000001.before.1.0"))
    resume(killed, threads=1)
    events = EventAccumulator(str(killed / "tensorboard"), {"histograms": 0, "scalars": 0})
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("meta/kl")] == [1, 2, 3, 4]
    assert [histogram.step for histogram in events.Histograms("tasks/inner/kl")] == [1, 2, 3, 4]


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_a_row_that_was_cut_off_is_computed_again(uninterrupted, tmp_path, monkeypatch, kept):
    alive, killed = tmp_path / "alive", tmp_path / "killed"
    with monkeypatch.context() as patched:
        at_call(patched, maml_rl.experiments.runs.training, "meta_iteration", 3, lambda: shutil.copytree(alive, killed))
        shrunk_train(alive, iterations=3, checkpoint_every=1)
    head, _, last = (alive / METRICS).read_text().rstrip("\n").rpartition("\n")
    (killed / METRICS).write_text(f"{head}\n{last[: int(kept * len(last))]}")
    assert same_theta(resume(killed, iterations=4, threads=1), uninterrupted[1])
    assert timeless(killed) == timeless(uninterrupted[0])


def test_a_resumption_of_a_finished_run_changes_nothing(uninterrupted, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted[0], out)
    assert same_theta(resume(out, threads=1), uninterrupted[1])
    assert same_checkpoint(out, uninterrupted[0])
    assert rows(out) == rows(uninterrupted[0])


def test_a_run_goes_on_without_its_logs(uninterrupted, tmp_path):
    out = tmp_path / "run"
    shrunk_train(out, iterations=3)
    (out / METRICS).unlink()
    shutil.rmtree(out / "tensorboard")
    assert same_theta(resume(out, iterations=4, threads=1), uninterrupted[1])
    assert timeless(out) == timeless(uninterrupted[0])[3:]


# What goes wrong


@pytest.mark.parametrize(("checkpoint_every", "saved"), [(10, 0), (1, 2)])
def test_divergence_leaves_the_last_checkpoint(uninterrupted, tmp_path, monkeypatch, checkpoint_every, saved):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_call(patched, maml_rl.experiments.runs.training, "meta_iteration", 3, diverge)
        with pytest.raises(NonFiniteError, match="iteration 2"):
            shrunk_train(out, checkpoint_every=checkpoint_every)
    _, progress, tensors = load_config(out)
    assert progress.iteration == saved
    assert all(value.isfinite().all() for value in tensors.values())
    assert timeless(out) == timeless(uninterrupted[0])[:2]
    assert same_theta(resume(out, threads=1), uninterrupted[1])  # the cause was ours, so it goes on


def test_a_step_size_that_diverges_is_reported_and_saves_nothing_that_is_not_finite(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(NonFiniteError, match="iteration 1:"):
        shrunk_train(out, meta=replace(SHRUNK.meta, inner_lr=1e30))
    checkpoint = load_checkpoint(out / CHECKPOINT)
    assert checkpoint.record["progress"]["iteration"] == 0
    assert all(value.isfinite().all() for value in checkpoint.tensors.values())


def refused(call) -> str:
    with pytest.raises(InputError) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_training_goes_on_from_another_runs_policy(two_iterations, tmp_path):
    out, first = two_iterations
    run = shrunk_train(tmp_path / "a", iterations=1, seed=5, start_from=str(out))
    assert run.progress.iteration == 1
    assert load_config(tmp_path / "a")[0].start_from == str(out)
    moved = sum(float((run.theta[name] - first.theta[name]).square().sum()) for name in run.theta) ** 0.5
    with (tmp_path / "a" / METRICS).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert moved == pytest.approx(float(row["meta/step_norm"]), rel=1e-4)


def test_a_directory_that_holds_something_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        assert f"--resume {out}" in refused(lambda out=out: shrunk_train(out))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_directory_is_used(tmp_path):
    assert shrunk_train(tmp_path, iterations=1).progress.iteration == 1
    assert (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", ""])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(uninterrupted, tmp_path, name):
    for call in (
        lambda: usable_device(name),
        lambda: train(SHRUNK, tmp_path / "run", device=name),
        lambda: resume(uninterrupted[0], device=name),
    ):
        message = refused(call)
        assert repr(name) in message
        assert "--device cpu" in message
    assert not (tmp_path / "run").exists()


def test_the_cpu_is_usable():
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("env_id", ["CartPole-v1", "maml_rl.envs:finn2017/Navigation-v0"])
def test_an_environment_that_cannot_be_used_is_refused_before_anything_is_written(tmp_path, env_id):
    refused(lambda: train(RunConfig(env_id), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_only_a_run_can_be_resumed(tmp_path):
    assert str(tmp_path) in refused(lambda: resume(tmp_path))
    assert "absent" in refused(lambda: resume(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_two_processes_never_train_in_one_directory(tmp_path):
    out = tmp_path / "run"
    shrunk_train(out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with FileLock(out / ".lock"), pytest.raises(InputError, match="another process is training in"):
        resume(out, iterations=6)
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert after == before


def test_a_run_that_began_in_the_same_directory_meanwhile_is_kept(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_call(patched, maml_rl.experiments.runs.training, "new_run", 1, lambda: shrunk_train(out, iterations=0))
        assert f"--resume {out}" in refused(lambda: shrunk_train(out))
    assert load_config(out)[0].iterations == 0


def test_a_run_never_begins_where_another_process_begins_one(tmp_path):
    with FileLock(tmp_path / ".lock"):
        assert "another process is training in" in refused(lambda: shrunk_train(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert shrunk_train(tmp_path, iterations=0).progress.iteration == 0  # a lock alone is no run


# Files that cannot be written


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Sets the size in bytes beyond which no file can be written, as no file can on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", [METRICS, "tensorboard", CHECKPOINT])
def test_a_file_that_cannot_be_written_is_named_and_the_finished_iterations_are_kept(
    uninterrupted, tmp_path, monkeypatch, capfd, file_size_limit, name
):
    out = tmp_path / "run"

    def fill() -> None:
        file = next((out / name).iterdir()) if name == "tensorboard" else out / name
        file_size_limit(file.stat().st_size - (name == CHECKPOINT))

    with monkeypatch.context() as patched:
        call = "save_run" if name == CHECKPOINT else "meta_iteration"
        at_call(patched, maml_rl.experiments.runs.training, call, 3, fill)
        with pytest.raises(OSError, match=re.escape(f"[Errno {errno.EFBIG}]")) as raised:
            shrunk_train(out, checkpoint_every=1)
    file_size_limit(10**9)
    assert raised.value.filename == str(out / name)
    assert "Traceback" not in capfd.readouterr().err  # of a thread of TensorBoard's
    assert not list(out.glob(".*.partial"))
    assert load_config(out)[1].iteration == (1 if name == CHECKPOINT else 2)
    assert same_theta(resume(out, threads=1), uninterrupted[1])
    assert timeless(out) == timeless(uninterrupted[0])


def test_what_the_thread_of_tensorboard_cannot_write_is_raised_where_it_is_logged(tmp_path, capfd, file_size_limit):
    logger, before = run_logger(tmp_path, 0), threading.excepthook
    file_size_limit(1000)
    with pytest.raises(OSError, match="tensorboard"):
        log(logger, 1, {}, {"clip": Clip(bytes(100_000), 2, 2)})
    file_size_limit(10**9)
    logger.close()
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is not before  # it was set while the log was open


@pytest.mark.parametrize("number", [2, 4])
def test_a_directory_that_is_removed_while_it_trains_is_named_and_not_made_again(tmp_path, monkeypatch, number):
    out = tmp_path / "run"
    at_call(monkeypatch, maml_rl.experiments.runs.training, "meta_iteration", number, lambda: shutil.rmtree(out))
    with pytest.raises(FileNotFoundError, match="was removed") as raised:
        shrunk_train(out)
    assert str(out) in str(raised.value)
    assert not out.exists()


def test_a_run_that_took_the_place_of_a_removed_one_is_left_alone(tmp_path, monkeypatch):
    out = tmp_path / "run"

    def replace_run() -> None:
        out.rename(tmp_path / "removed")
        out.mkdir()

    at_call(monkeypatch, maml_rl.experiments.runs.training, "meta_iteration", 2, replace_run)
    with pytest.raises(FileNotFoundError, match="was removed"):
        shrunk_train(out, checkpoint_every=1)
    assert not list(out.iterdir())
