"""Meta-training of both kinds: what a run leaves behind, and that no interruption changes it."""

import csv
import errno
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from filelock import FileLock
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import maml_rl.meta_rl
from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.config import Adam, PolicyConfig, RLConfig, RunConfig, TrustRegion
from maml_rl.errors import InputError, NonFiniteError, WorkerError
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs import loop, training
from maml_rl.experiments.runs.provenance import MACHINES
from maml_rl.experiments.runs.training import resume, train
from maml_rl.learner import AnyLearner
from maml_rl.machine import Machine
from maml_rl.reinforcement import RLLearner
from maml_rl.run import CHECKPOINT, CONFIG, METRICS, Run, load_run, with_data
from maml_rl.supervised import supervised_learner
from maml_rl.supervised.networks import Network, build_network
from maml_rl.supervised.settings import NetworkConfig, SupervisedConfig, SupervisedMeta, TasksConfig
from maml_rl.supervised.supervised_learner import SupervisedLearner

DOCS = Path(__file__).parents[3] / "docs"
ONE = Machine(threads=1)
_NAVIGATION = PRESETS["navigation"].config
POLICY = replace(
    _NAVIGATION,
    iterations=4,
    max_episode_steps=10,
    meta=replace(_NAVIGATION.meta, meta_batch_size=2, episodes=4, step=TrustRegion(cg_iterations=2)),
    network=PolicyConfig(hidden_sizes=(4,)),
)
SINUSOID = SupervisedConfig(
    tasks=TasksConfig("sinusoid", shots=4, queries=4),
    iterations=4,
    log_every=2,
    checkpoint_every=10,
    meta=SupervisedMeta(
        meta_batch_size=3,
        inner_steps=2,
        learned_lr="tensor-and-step",
        multi_step_iterations=3,
        step=Adam(cosine_iterations=4),
    ),
    network=NetworkConfig("mlp", hidden_sizes=(6, 6)),
)
EACH_LOGGED = replace(SINUSOID, log_every=1)


class Kind(NamedTuple):
    """A kind of learning, with a short run."""

    config: RLConfig | SupervisedConfig
    learner: type[AnyLearner]
    columns: set[str]
    diverging: str  # what is not finite with an inner step size that is far too large
    summary: str  # in a line of progress


KINDS = {
    "reinforcement": Kind(
        POLICY,
        RLLearner,
        {
            "iteration",
            "return/after_0_steps",
            "return/after_1_steps",
            "advantage/deviation_0",
            "advantage/deviation_1",
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
            "time/iteration_seconds",
            "time/env_steps_per_second",
            "time/seconds",
        },
        "iteration 1: ",
        r"iteration 4/4: return .* before, .* env steps/s",
    ),
    "supervised": Kind(
        SINUSOID,
        SupervisedLearner,
        {
            "iteration",
            "inner/lr_lowest",
            "inner/lr_mean",
            "inner/lr_negative",
            "loss/before",
            "loss/after",
            "meta/gradient_norm",
            "meta/step_norm",
            "time/iteration_seconds",
            "time/seconds",
        },
        "iteration 1: loss/after is not finite",
        r"iteration 4/4: loss .* before, .* after adaptation",
    ),
}


def rows(out: Path) -> list[dict[str, str]]:
    with (out / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(out: Path) -> list[dict[str, str]]:
    """Rows as they are written, to the last digit, without what a clock measured."""
    return [{name: text for name, text in row.items() if not name.startswith("time/")} for row in rows(out)]


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return {**run.state.meta, **run.state.optimizer, **run.constants}


def same_tensors(left: Run, right: Run) -> bool:
    (a, b) = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def timeless_progress(run: Run) -> tuple[int, int, dict[str, float]]:
    pending = {name: value for name, value in run.progress.pending.items() if not name.startswith("time/")}
    return run.state.iteration, run.progress.env_steps, pending


def assert_same_run(out: Path, expected: Path) -> None:
    """Checks that two runs have the same tensors, progress and log, except for times."""
    run, other = load_run(out), load_run(expected)
    assert same_tensors(run, other)
    assert timeless_progress(run) == timeless_progress(other)
    assert timeless(out) == timeless(expected)


def at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, action: Callable[[], object]) -> None:
    """Does something at the n-th call of a function, before its work."""
    original, calls = getattr(owner, name), []

    def counting(*arguments: Any, **settings: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            action()
        return original(*arguments, **settings)

    monkeypatch.setattr(owner, name, counting)


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def train_until(kind: Kind, number: int, action: Callable[[], object], out: Path, **changes: Any) -> None:
    """Trains a run in which something happens before its n-th iteration."""
    with pytest.MonkeyPatch.context() as patched:
        at_call(patched, kind.learner, "iterate", number, action)
        train(replace(kind.config, **changes), out, ONE)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message
    return message


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def untraced() -> Iterator[None]:
    """Leaves meta-gradients of supervised learning untraced: tracing one takes longer than these runs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(supervised_learner, "build_network", lambda *about: Network(build_network(*about).module))
        yield


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def uninterrupted(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run of four iterations. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return out, train(kind.config, out, ONE)


@pytest.fixture(scope="module")
def three_iterations(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three of them. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "three"
    train(replace(kind.config, iterations=3), out, ONE)
    return out


# What a run leaves behind


def test_a_run_directory_holds_settings_checkpoint_and_logs(kind, uninterrupted):
    out, run = uninterrupted
    assert {path.name for path in out.iterdir()} == {CONFIG, CHECKPOINT, METRICS, MACHINES, "tensorboard", ".lock"}
    assert json.loads((out / CONFIG).read_text()) == json.loads(json.dumps(asdict(kind.config)))
    loaded = load_run(out)
    assert loaded.config == run.config == kind.config
    assert loaded.progress == run.progress
    assert loaded.state.iteration == 4
    assert same_tensors(loaded, run)


def test_metrics_have_rows_of_documented_finite_columns_in_the_order_of_their_names(kind, uninterrupted):
    written = rows(uninterrupted[0])
    every = kind.config.log_every
    assert [int(row["iteration"]) for row in written] == list(range(every, 5, every))
    assert list(written[0]) == sorted(kind.columns)
    assert all(math.isfinite(float(text)) for row in written for text in row.values())


@pytest.mark.parametrize("further", [(), ("accuracy/before", "accuracy/after")])
def test_every_metric_is_explained(uninterrupted, further):
    text = (DOCS / "metrics.md").read_text()
    for name in [*rows(uninterrupted[0])[0], *further]:
        stem, _, step = name.rpartition("_")
        explained = {f"`{name}`", f"`{name.replace('_1_', '_k_')}`", f"`{stem}_k`" if step.isdigit() else f"`{name}`"}
        assert any(form in text for form in explained), name


def test_metrics_agree_with_the_progress(uninterrupted):
    out, run = uninterrupted
    last = rows(out)[-1]
    assert float(last["time/seconds"]) == run.progress.seconds > 0
    assert int(last.get("sampling/env_steps", 0)) == run.progress.env_steps
    assert all(float(row["meta/step_norm"]) > 0 for row in rows(out))


def test_a_row_is_the_mean_of_its_iterations(uninterrupted, kind, tmp_path):
    every = kind.config.log_every
    train(replace(kind.config, log_every=3 - every), tmp_path / "run", ONE)
    single, means = (rows(out) for out in (uninterrupted[0], tmp_path / "run")[:: 1 if every == 1 else -1])
    for name in kind.columns - {"iteration", "sampling/env_steps"}:
        if not name.startswith("time/"):
            values = [float(row[name]) for row in single]
            expected = [sum(values[:2]) / 2, sum(values[2:]) / 2]
            assert [float(row[name]) for row in means] == pytest.approx(expected, abs=1e-12)


def test_tensorboard_shows_the_same_numbers(kind, uninterrupted):
    out, _ = uninterrupted
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == kind.columns
    for name in kind.columns:
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [int(row["iteration"]) for row in rows(out)]
        expected = [float(row[name]) for row in rows(out)]
        assert [scalar.value for scalar in scalars] == pytest.approx(expected, rel=1e-6)


# The same run, however it was computed


def test_the_same_seed_gives_the_same_run_with_any_threads_and_another_seed_another(
    kind, uninterrupted, tmp_path, capsys
):
    torch.manual_seed(7)
    train(kind.config, tmp_path / "same", Machine(threads=2))
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(kind.summary, said.err)  # of the progress, where there is no terminal
    assert_same_run(tmp_path / "same", uninterrupted[0])
    other = train(replace(kind.config, iterations=0, seed=1), tmp_path / "other", ONE)
    assert not same_tensors(other, train(replace(kind.config, iterations=0), tmp_path / "first", ONE))


@pytest.mark.parametrize("num_envs", [1, 5, 40])
def test_the_number_of_sub_environments_does_not_change_the_result(tmp_path, num_envs):
    runs = [replace(POLICY, iterations=2, num_envs=n) for n in (None, num_envs)]
    default, other = (train(config, tmp_path / str(config.num_envs), ONE) for config in runs)
    assert same_tensors(default, other)
    assert timeless(tmp_path / "None") == timeless(tmp_path / str(num_envs))


def test_each_iteration_draws_its_own_tasks_and_noise(tmp_path, monkeypatch):
    drawn = []
    training_tasks = maml_rl.meta_rl.training_tasks

    def recording(space: Any, count: int, draw: Any) -> Any:
        drawn.append((draw.seed, draw.iteration))
        return training_tasks(space, count, draw)

    monkeypatch.setattr(maml_rl.meta_rl, "training_tasks", recording)
    train(replace(POLICY, iterations=2, seed=5), tmp_path / "run", ONE)
    resume(tmp_path / "run", iterations=3, machine=ONE)
    assert drawn == [(5, 0), (5, 1), (5, 2)]


def test_the_pretrained_baseline_trains_without_inner_steps(tmp_path):
    run = train(replace(POLICY, iterations=1, meta=replace(POLICY.meta, inner_steps=0)), tmp_path / "run", ONE)
    assert run.progress.env_steps <= 2 * 4 * 10
    assert "return/after_0_steps" in rows(tmp_path / "run")[0]
    assert "return/after_1_steps" not in rows(tmp_path / "run")[0]


# Interruption and resumption


def test_three_iterations_and_one_more_are_four(uninterrupted, three_iterations, tmp_path):
    """Also where the last row of the log is of iterations before and after."""
    out = tmp_path / "run"
    shutil.copytree(three_iterations, out)
    before = load_run(out)
    assert before.state.iteration == 3
    run = resume(out, iterations=4, machine=ONE)
    assert run.progress.seconds > before.progress.seconds
    assert_same_run(out, uninterrupted[0])
    assert load_run(out).config == uninterrupted[1].config
    assert json.loads((out / CONFIG).read_text())["iterations"] == 4


@pytest.mark.parametrize(
    ("error", "number"),
    [(KeyboardInterrupt(), 1), (KeyboardInterrupt(), 3), (KeyboardInterrupt(), 4), (WorkerError("process 0 ended"), 3)],
)
def test_ctrl_c_and_the_end_of_a_worker_save_the_finished_iterations(kind, uninterrupted, tmp_path, error, number):
    out = tmp_path / "run"
    with pytest.raises(type(error)):
        train_until(kind, number, raising(error), out)
    assert load_run(out).state.iteration == number - 1
    resume(out, machine=ONE)
    assert_same_run(out, uninterrupted[0])


@pytest.mark.parametrize("kind", ["reinforcement"], indirect=True)
@pytest.mark.parametrize(("name", "finished"), [("collect", 1), ("training_tasks", 2)])
def test_ctrl_c_within_an_iteration_leaves_it_out(uninterrupted, tmp_path, name, finished):
    """The third sampling is the first of the second iteration."""
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        at_call(patched, maml_rl.meta_rl, name, 3, raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(POLICY, out, ONE)
    assert load_run(out).state.iteration == finished
    resume(out, machine=ONE)
    assert_same_run(out, uninterrupted[0])


def test_ctrl_c_while_a_row_is_logged_loses_no_row(kind, uninterrupted, tmp_path):
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        at_call(patched, Logger, "dump", 2, raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(kind.config, out, ONE)
    resume(out, machine=ONE)
    assert_same_run(out, uninterrupted[0])


class KilledError(BaseException):
    """An exception that nothing catches."""


@pytest.mark.parametrize(("checkpoint_every", "saved"), [(10, 0), (2, 2), (1, 3)])
def test_a_killed_run_resumes_from_its_last_checkpoint_and_is_logged_once(
    kind, uninterrupted, tmp_path, checkpoint_every, saved
):
    out, killed = tmp_path / "run", tmp_path / "killed"

    def kill() -> None:
        shutil.copytree(out, killed)
        raise KilledError

    with pytest.raises(KilledError):
        train_until(kind, 4, kill, out, checkpoint_every=checkpoint_every)
    assert len(rows(killed)) == 3 // kind.config.log_every
    assert load_run(killed).state.iteration == saved
    # The names of event files order them by the second of their start.
    for file in (killed / "tensorboard").iterdir():
        file.rename(file.with_name("events.out.tfevents.0000000001.before.1.0"))
    resume(killed, machine=ONE)
    assert_same_run(killed, uninterrupted[0])
    events = EventAccumulator(str(killed / "tensorboard"), {"histograms": 0, "scalars": 0})
    events.Reload()
    steps = [int(row["iteration"]) for row in rows(killed)]
    assert [scalar.step for scalar in events.Scalars("meta/step_norm")] == steps
    for name in events.Tags()["histograms"]:
        assert [histogram.step for histogram in events.Histograms(name)] == steps
    assert bool(events.Tags()["histograms"]) == (kind.learner is RLLearner)


def test_tracing_meta_gradients_does_not_change_a_run(tmp_path):
    config = replace(EACH_LOGGED, iterations=2, meta=SupervisedMeta(meta_batch_size=2))
    expected = train(config, tmp_path / "untraced", ONE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(supervised_learner, "build_network", build_network)
        train(replace(config, iterations=1), tmp_path / "run", ONE)
        assert same_tensors(resume(tmp_path / "run", 2, machine=ONE), expected)


def test_a_resumption_of_a_finished_run_changes_nothing(uninterrupted, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted[0], out)
    before = content(out)
    resume(out, machine=ONE)
    assert_same_run(out, uninterrupted[0])
    assert load_run(out).progress == uninterrupted[1].progress
    assert {name for name, kept in content(out).items() if kept != before[name]} <= {CHECKPOINT}  # in another order


def test_a_run_resumes_without_its_logs(uninterrupted, three_iterations, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(three_iterations, out)
    (out / METRICS).unlink()
    shutil.rmtree(out / "tensorboard")
    assert same_tensors(resume(out, iterations=4, machine=ONE), uninterrupted[1])
    assert timeless(out) == timeless(uninterrupted[0])[-1:]


@pytest.mark.parametrize("kind", ["reinforcement"], indirect=True)
def test_training_can_start_from_another_runs_policy(three_iterations, tmp_path):
    first = load_run(three_iterations)
    run = train(replace(POLICY, iterations=1, seed=5, start_from=str(three_iterations)), tmp_path / "run", ONE)
    assert run.state.iteration == 1
    assert load_run(tmp_path / "run").rl_config.start_from == str(three_iterations)
    moved = sum(float((run.state.meta[name] - value).square().sum()) for name, value in first.state.meta.items())
    assert moved**0.5 == pytest.approx(float(rows(tmp_path / "run")[0]["meta/step_norm"]), rel=1e-4)


# What goes wrong


@pytest.mark.parametrize(("checkpoint_every", "saved"), [(10, 0), (1, 2)])
def test_divergence_leaves_the_last_checkpoint(kind, uninterrupted, tmp_path, checkpoint_every, saved):
    error = NonFiniteError("iteration 3: meta-gradient is not finite")
    with pytest.raises(NonFiniteError, match="iteration 3"):
        train_until(kind, 3, raising(error), tmp_path / "run", checkpoint_every=checkpoint_every)
    assert load_run(tmp_path / "run").state.iteration == saved
    assert timeless(tmp_path / "run") == timeless(uninterrupted[0])[: 2 // kind.config.log_every]


def test_a_step_size_that_diverges_is_reported_and_saves_nothing_that_is_not_finite(kind, tmp_path):
    out = tmp_path / "run"
    config = replace(kind.config, meta=replace(kind.config.meta, inner_lr=1e30))
    with pytest.raises(NonFiniteError, match=kind.diverging):
        train(config, out, ONE)
    run = load_run(out)
    assert run.state.iteration == 0
    assert all(value.isfinite().all() for value in tensors(run).values())


def test_a_non_empty_directory_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        assert f"--resume {out}" in refused(lambda out=out: train(SINUSOID, out, ONE))
    assert content(tmp_path) == {"notes.txt": b"mine"}


def test_an_empty_directory_is_used(kind, tmp_path):
    assert train(replace(kind.config, iterations=0), tmp_path, ONE).state.iteration == 0
    assert (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", ""])
def test_an_unavailable_device_is_refused_before_anything_is_written(kind, uninterrupted, tmp_path, name):
    before = content(uninterrupted[0])
    for call in (
        lambda: train(kind.config, tmp_path / "run", Machine(name)),
        lambda: resume(uninterrupted[0], machine=Machine(name)),
    ):
        assert f"device {name!r} cannot be used" in refused(call)
    assert not (tmp_path / "run").exists()
    assert content(uninterrupted[0]) == before


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RLConfig(env_id="CartPole-v1"), "task_space"),
        (RLConfig(env_id="maml_rl.envs:finn2017/Navigation-v0"), "Navigation2D-v0"),
        (replace(SINUSOID, tasks=TasksConfig("omniglot"), data="absent"), "there is no Omniglot in absent"),
        (
            RunConfig(meta=POLICY.meta, evaluation=POLICY.evaluation),
            "settings of a run are an RLConfig or a SupervisedConfig, got RunConfig",
        ),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_before_anything_is_written(tmp_path, config, expected):
    assert expected in refused(lambda: train(config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_only_a_run_can_be_resumed(tmp_path):
    train(replace(SINUSOID, iterations=0), tmp_path / "run", ONE)
    for path in (tmp_path, tmp_path / "absent", tmp_path / "run" / "absent"):
        assert f"there is no checkpoint at {path}" in refused(lambda path=path: resume(path))
    assert not (tmp_path / "absent").exists()
    assert resume(tmp_path / "run" / CHECKPOINT, 1, machine=ONE).state.iteration == 1  # the file stands for the run


def test_a_run_is_not_resumed_with_fewer_iterations_or_without_its_optimizer(uninterrupted, kind, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted[0], out)
    assert "has finished 4 iterations already, more than 3" in refused(lambda: resume(out, 3, machine=ONE))
    checkpoint = load_checkpoint(out / CHECKPOINT)
    kept = {name: value for name, value in checkpoint.tensors.items() if not name.startswith("optimizer.")}
    assert (len(kept) < len(checkpoint.tensors)) == isinstance(kind.config.meta.step, Adam)
    if len(kept) < len(checkpoint.tensors):
        save_checkpoint(out / CHECKPOINT, checkpoint._replace(tensors=kept))
        assert "has no optimizer state: it can be evaluated but not resumed" in refused(lambda: resume(out, 5))


def test_only_supervised_runs_have_images(uninterrupted, kind):
    if kind.learner is RLLearner:
        assert "which has no --data: leave it out" in refused(lambda: resume(uninterrupted[0], data="images"))
    else:
        assert with_data(kind.config, "there", uninterrupted[0]) == replace(kind.config, data="there")


def test_two_processes_never_train_in_one_directory(three_iterations, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(three_iterations, out)
    before = content(out)
    with FileLock(out / ".lock"):
        assert "another process is training in" in refused(lambda: resume(out, iterations=6, machine=ONE))
    assert content(out) == before


def test_a_run_that_began_in_the_same_directory_meanwhile_is_kept(kind, tmp_path):
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        first = replace(kind.config, iterations=0)
        at_call(patched, training, "new_run", 1, lambda: train(first, out, ONE))
        assert f"--resume {out}" in refused(lambda: train(kind.config, out, ONE))
    assert load_run(out).config == first


def test_a_run_that_was_trained_meanwhile_is_resumed_from_there(three_iterations, uninterrupted, kind, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(three_iterations, out)
    with pytest.MonkeyPatch.context() as patched:
        at_call(patched, training, "alone_in", 1, lambda: resume(out, iterations=4, machine=ONE))
        at_call(patched, kind.learner, "iterate", 2, raising(AssertionError("iterated again")))
        assert same_tensors(resume(out, iterations=4, machine=ONE), uninterrupted[1])


def test_a_run_never_begins_where_another_process_begins_one(tmp_path):
    with FileLock(tmp_path / ".lock"):
        assert "another process is training in" in refused(lambda: train(SINUSOID, tmp_path, ONE))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    run = train(replace(SINUSOID, iterations=0), tmp_path, ONE)
    assert run.state.iteration == 0  # a lock alone is not a run


# Files that cannot be written: the same loop for both kinds


@pytest.mark.parametrize("name", [METRICS, "tensorboard", CHECKPOINT])
def test_a_file_that_cannot_be_written_is_named_and_the_finished_iterations_are_kept(
    tmp_path, capfd, file_size_limit, name
):
    out, config = tmp_path / "run", replace(EACH_LOGGED, checkpoint_every=1)

    def fill() -> None:
        file = next((out / name).iterdir()) if name == "tensorboard" else out / name
        margin = 64 if name == CHECKPOINT else 0  # one is a few bytes shorter than another by the digits of its seconds
        file_size_limit(file.stat().st_size - margin)

    owner, call = (loop, "save_run") if name == CHECKPOINT else (SupervisedLearner, "iterate")
    with pytest.MonkeyPatch.context() as patched:
        at_call(patched, owner, call, 3, fill)
        with pytest.raises(OSError, match=re.escape(f"[Errno {errno.EFBIG}]")) as raised:
            train(config, out, ONE)
    file_size_limit(10**9)
    assert raised.value.filename == str(out / name)
    assert "Traceback" not in capfd.readouterr().err  # of a thread of TensorBoard's
    assert not list(out.glob(".*.partial"))
    assert load_run(out).state.iteration == 2
    resume(out, machine=ONE)
    train(config, tmp_path / "whole", ONE)
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.parametrize("number", [2, 4])
def test_a_directory_that_is_removed_while_it_trains_is_named_and_not_made_again(tmp_path, number):
    out = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="was removed") as raised:
        train_until(KINDS["supervised"], number, lambda: shutil.rmtree(out), out)
    assert str(out) in str(raised.value)
    assert not out.exists()


def test_a_run_that_took_the_place_of_a_removed_one_is_left_alone(tmp_path):
    out = tmp_path / "run"

    def replace_run() -> None:
        out.rename(tmp_path / "removed")
        out.mkdir()

    with pytest.raises(FileNotFoundError, match="was removed"):
        train_until(KINDS["supervised"], 2, replace_run, out, checkpoint_every=1)
    assert not list(out.iterdir())
