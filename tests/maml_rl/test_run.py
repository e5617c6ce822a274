"""Runs: saving and loading, resuming bit for bit, and one-line refusals of what does not fit."""

import json
import math
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import maml_rl.run
from maml_rl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maml_rl.config import SGD, Adam, PolicyConfig, ProMP, RLConfig, RLEvaluation, RLMeta, RunConfig, TrustRegion
from maml_rl.errors import InputError
from maml_rl.json_types import from_json
from maml_rl.learner import Metrics
from maml_rl.machine import Machine
from maml_rl.rates import theta
from maml_rl.reinforcement import RLLearner
from maml_rl.run import (
    CHECKPOINT,
    CONFIG,
    Progress,
    Run,
    after_iteration,
    check_fits,
    load_run,
    new_run,
    open_learner,
    save_run,
    train,
)
from maml_rl.supervised.settings import SupervisedConfig, SupervisedEvaluation, TasksConfig
from maml_rl.types import Params, State

ONE_THREAD = Machine(threads=1)
NAVIGATION, DIRECTION = "maml_rl.envs:finn2017/Navigation2D-v0", "maml_rl.envs:finn2017/HalfCheetahDir-v0"
EVERYTHING = RLConfig(
    env_id=NAVIGATION,
    iterations=7,
    seed=3,
    num_envs=5,
    checkpoint_every=2,
    meta=RLMeta(
        meta_batch_size=3,
        episodes=4,
        inner_steps=2,
        inner_lr=0.3,
        inner_objective="lvc",
        first_order=True,
        discount=0.9,
        gae_lambda=0.8,
        step=TrustRegion(max_kl=0.02, cg_iterations=5, cg_damping=1e-3, backtrack_ratio=0.7, max_backtracks=9),
    ),
    network=PolicyConfig(hidden_sizes=(8, 8), activation="tanh", initial_std=0.5, observation_clip=4.0),
    evaluation=RLEvaluation(3, 2, 5, episodes=9, later_lr_factor=0.25),
)
SHORT = replace(
    EVERYTHING,
    max_episode_steps=4,
    iterations=2,
    meta=replace(EVERYTHING.meta, inner_steps=1, inner_objective="lvc", filtered_lr=True, adapted_std_factor=0.7),
)
SUPERVISED = SupervisedConfig(tasks=TasksConfig("sinusoid", shots=5))
RULES = [TrustRegion(max_kl=0.02, momentum=0.5), Adam(lr=1e-2), ProMP(lr=1e-2, epochs=2), SGD(lr=1e-2)]
PROGRESS = Progress(seconds=1.5, env_steps=12345, pending={"return/after_0_steps": -3.5})


@pytest.fixture(scope="module")
def learner() -> Iterator[RLLearner]:
    with open_learner(EVERYTHING, ONE_THREAD) as opened:
        assert isinstance(opened, RLLearner)
        yield opened


def filled(state: State, iteration: int) -> State:
    """Other values than those of the seed."""
    return State({n: v + 1 for n, v in state.meta.items()}, {n: v + 2 for n, v in state.optimizer.items()}, iteration)


@pytest.fixture
def run(learner: RLLearner) -> Run:
    return Run(EVERYTHING, filled(learner.initial(), 5), learner.constants, PROGRESS)


def rewrite(directory: Path, change: Any) -> None:
    """Changes the record of a run's checkpoint."""
    checkpoint = load_checkpoint(directory / CHECKPOINT)
    change(checkpoint.record)
    save_checkpoint(directory / CHECKPOINT, checkpoint)


def refused(load: Any) -> str:
    with pytest.raises(InputError) as raised:
        load()
    message = str(raised.value)
    assert "\n" not in message
    return message


def assert_equal(ours: Params, theirs: Params) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
        assert value.dtype == theirs[name].dtype


def assert_same_state(ours: State, theirs: State) -> None:
    assert_equal(ours.meta, theirs.meta)
    assert_equal(ours.optimizer, theirs.optimizer)
    assert ours.iteration == theirs.iteration


# Settings


@pytest.mark.parametrize(
    "config",
    [EVERYTHING, RLConfig(env_id=NAVIGATION), SUPERVISED]
    + [replace(EVERYTHING, meta=replace(EVERYTHING.meta, step=rule)) for rule in RULES],
)
def test_settings_are_read_back_from_json_with_their_types(config: RunConfig) -> None:
    read = from_json(type(config), json.loads(json.dumps(asdict(config))))
    assert read == config
    assert type(read.meta.step) is type(config.meta.step)


def test_settings_that_are_missing_have_their_defaults() -> None:
    expected = RLConfig(env_id="x", meta=RLMeta(inner_lr=0.3))
    assert from_json(RLConfig, {"env_id": "x", "meta": {"inner_lr": 0.3}}) == expected


@pytest.mark.parametrize("record", [{"env_id": "x", "unknown": 1}, {"env_id": "x", "meta": {"unknown": 1}}, {}])
def test_an_unknown_or_missing_setting_is_an_error(record: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        from_json(RLConfig, record)


@pytest.mark.parametrize("name", ["iterations", "seed", "num_envs", "checkpoint_every"])
def test_a_setting_outside_its_range_is_refused_and_named(name: str) -> None:
    assert refused(lambda: replace(EVERYTHING, **{name: -1})).startswith(f"{name} must be")


# Files


@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_loaded_bit_for_bit(tmp_path: Path, run: Run, rule: Any) -> None:
    config = replace(EVERYTHING, meta=replace(EVERYTHING.meta, step=rule))
    with open_learner(config, ONE_THREAD, run.constants) as learner:
        saved = Run(config, filled(learner.initial(), 5), run.constants, PROGRESS)
    assert bool(saved.state.optimizer) is not isinstance(rule, SGD)
    save_run(tmp_path / "runs" / "a", saved)  # directories are made
    loaded = load_run(str(tmp_path / "runs" / "a"))
    assert (loaded.config, loaded.progress, loaded.directory) == (config, PROGRESS, tmp_path / "runs" / "a")
    assert_same_state(loaded.state, saved.state)
    assert_equal(loaded.constants, saved.constants)
    with loaded.open(ONE_THREAD) as learner:
        assert_equal(learner.constants, saved.constants)


def test_the_settings_are_also_written_as_json(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, CHECKPOINT}
    assert from_json(RLConfig, json.loads((tmp_path / CONFIG).read_text())) == run.config


def test_the_checkpoint_alone_is_enough(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    (tmp_path / CONFIG).unlink()
    (tmp_path / CHECKPOINT).rename(tmp_path / "renamed")
    loaded = load_run(tmp_path / "renamed")
    assert loaded.config == run.config
    assert_same_state(loaded.state, run.state)


def test_saving_does_not_change_the_run(tmp_path: Path, run: Run) -> None:
    before = {name: value.clone() for name, value in run.state.meta.items()}
    save_run(tmp_path, run)
    assert_equal(run.state.meta, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["config"].update(from_the_future=1),
        lambda record: record["config"]["meta"].update(from_the_future=1),
        lambda record: record["config"]["meta"]["step"].update(from_the_future=1),
        lambda record: record["progress"].update(from_the_future=1),
        lambda record: record["config"].pop("env_id"),
        lambda record: record.pop("iteration"),
        lambda record: record.pop("config"),
        lambda record: record.update(kind="unsupervised"),
        lambda record: record.pop("kind"),
    ],
)
def test_settings_that_are_unknown_or_missing_are_refused(tmp_path: Path, run: Run, change: Any) -> None:
    save_run(tmp_path, run)
    rewrite(tmp_path, change)
    message = refused(lambda: load_run(tmp_path))
    assert str(tmp_path / CHECKPOINT) in message
    assert "does not know" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda record: record["config"]["meta"].update(inner_lr=-0.1), "inner_lr must be above 0"),
        (lambda record: record["progress"].update(seconds=-1.0), "seconds in"),
        (lambda record: record.update(iteration=-1), "iteration in"),
    ],
)
def test_a_value_of_the_checkpoint_outside_its_range_is_refused(
    tmp_path: Path, run: Run, change: Any, expected: str
) -> None:
    save_run(tmp_path, run)
    rewrite(tmp_path, change)
    assert expected in refused(lambda: load_run(tmp_path))


@pytest.mark.parametrize("config", [EVERYTHING, SUPERVISED], ids=["reinforcement", "supervised"])
def test_a_checkpoint_with_a_hostile_record_is_refused_in_one_line(
    tmp_path: Path, config: Any, check_reader: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(path: Path) -> None:
        loaded = load_run(path)
        assert json.loads(json.dumps(asdict(loaded.config)))
        assert min(loaded.state.iteration, loaded.progress.seconds, loaded.progress.env_steps) >= 0
        assert loaded.config.problem + loaded.config.method

    save_run(tmp_path, Run(config, State({}, {}, 3), {}, PROGRESS))
    record = load_checkpoint(tmp_path / CHECKPOINT).record
    monkeypatch.setattr(maml_rl.run, "load_checkpoint", lambda path: Checkpoint({}, json.loads(path.read_text())))
    check_reader(tmp_path / "record.json", record, used, whole=False)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("config.env_id", 7, "env_id should be text, is 7"),
        ("config.meta.inner_lr", True, "meta.inner_lr should be a number, is True"),
        ("config.meta.step", [], "meta.step should be an object, is []"),
        ("config.network.hidden_sizes", [8, "8"], "network.hidden_sizes[1] should be an integer, is '8'"),
        ("iteration", 1.5, "iteration should be an integer, is 1.5"),
        ("progress.seconds", None, "progress.seconds should be a number, is None"),
        ("progress.pending", {"a": "b"}, "progress.pending.a should be a number, is 'b'"),
        ("config", "x" * 1000, "config should be an object, is 'xxxx"),
        ("other", 1, "'other' is unknown"),
    ],
)
def test_a_setting_of_another_type_is_named(tmp_path: Path, run: Run, place: str, value: Any, expected: str) -> None:
    def change(record: dict[str, Any]) -> None:
        *outer, name = place.split(".")
        for part in outer:
            record = record[part]
        record[name] = value

    save_run(tmp_path, run)
    rewrite(tmp_path, change)
    message = refused(lambda: load_run(tmp_path))
    assert expected in message
    assert len(message) < 600


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(lambda: load_run(tmp_path))
    assert "absent" in refused(lambda: load_run(tmp_path / "absent"))


# What does not fit


def test_a_checkpoint_of_another_environment_is_refused_and_what_was_opened_is_closed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_run(tmp_path, run)
    rewrite(tmp_path, lambda record: record["config"].update(env_id=DIRECTION, num_envs=2))
    closed: list[RLLearner] = []
    monkeypatch.setattr(RLLearner, "close", lambda learner: closed.append(learner))
    message = refused(lambda: load_run(tmp_path).open(ONE_THREAD))
    assert str(tmp_path) in message
    assert "another environment" in message
    assert len(closed) == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    rewrite(tmp_path, lambda record: record["config"]["network"].update(hidden_sizes=[8, 9]))
    assert "should be (9,) float32, is (8,) float32" in refused(lambda: load_run(tmp_path).open(ONE_THREAD))


@pytest.mark.parametrize("name", ["observation_mean", "observation_std"])
def test_statistics_of_another_size_are_refused(run: Run, name: str) -> None:
    wrong = run._replace(constants={**run.constants, name: torch.ones(5)})
    assert f"{name} should be (2,) float32, is (5,) float32" in refused(lambda: wrong.open(ONE_THREAD))


def test_a_standard_deviation_of_0_is_refused(run: Run) -> None:
    flat = run._replace(constants={**run.constants, "observation_std": torch.tensor([1.0, 0.0])})
    assert "not above 0" in refused(lambda: flat.open(ONE_THREAD))


def test_settings_of_another_kind_of_evaluation_are_refused(run: Run) -> None:
    message = refused(lambda: run.open(ONE_THREAD, SupervisedEvaluation()))
    assert "must be a RLEvaluation for this run, got a SupervisedEvaluation" in message


def test_sums_that_are_not_finite_are_stored(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run._replace(progress=Progress(1.0, 10, {"inner/kl": math.inf, "meta/kl": 0.5})))
    assert load_run(tmp_path).progress.pending == {"inner/kl": None, "meta/kl": 0.5}


@pytest.mark.parametrize("name", ["weight_1", "log_std", "constant.observation_mean", "constant.observation_std"])
def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path, run: Run, name: str) -> None:
    save_run(tmp_path, run)
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT)
    tensors = {other: value for other, value in checkpoint.tensors.items() if other != name}
    save_checkpoint(tmp_path / CHECKPOINT, checkpoint._replace(tensors=tensors))
    assert name.removeprefix("constant.") in refused(lambda: load_run(tmp_path).open(ONE_THREAD))


def test_without_the_optimizers_state_a_run_is_evaluated_but_not_resumed(tmp_path: Path) -> None:
    config = replace(SHORT, meta=replace(SHORT.meta, step=Adam(lr=1e-2)))
    with open_learner(config, ONE_THREAD) as learner:
        save_run(tmp_path, Run(config, learner.initial()._replace(optimizer={}), learner.constants))
        stripped = load_run(tmp_path)
        check_fits(learner, stripped)
        message = refused(lambda: check_fits(learner, stripped, resumes=True))
    assert message == f"{tmp_path} has no optimizer state: it can be evaluated but not resumed"


def test_what_only_one_kind_of_run_can_do_is_refused_for_the_other() -> None:
    supervised = Run(SUPERVISED, State({}, {}, 0), {}, directory=Path("runs/omniglot"))
    for needs_environment in (supervised.open_rl, lambda: supervised.rl_config):
        assert refused(needs_environment).startswith("runs/omniglot is a supervised run")


# Training


def test_a_run_begins_with_random_weights_of_its_seed() -> None:
    runs = []
    for seed in (3, 3, 4):
        config = replace(SHORT, seed=seed)
        with open_learner(config, ONE_THREAD) as learner:
            runs.append(new_run(learner, config))
    first, again, other = runs
    assert (first.state.iteration, first.progress) == (0, Progress())
    assert_same_state(first.state, again.state)
    assert not torch.equal(first.state.meta["weight_1"], other.state.meta["weight_1"])


def test_a_run_begins_with_the_policy_of_another(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    config = replace(SHORT, seed=8, start_from=str(tmp_path))
    with open_learner(config, ONE_THREAD) as learner:
        started = new_run(learner, config)
    assert (started.state.iteration, started.progress, started.config) == (0, Progress(), config)
    assert_equal(theta(started.state.meta), run.state.meta)
    assert_equal(started.constants, run.constants)


def test_a_run_of_another_network_cannot_be_started_from(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    config = replace(SHORT, network=PolicyConfig(hidden_sizes=(9, 9)), start_from=str(tmp_path))
    assert str(tmp_path) in refused(lambda: train(config, machine=ONE_THREAD))
    absent = replace(config, start_from=str(tmp_path / "absent"))
    assert "absent" in refused(lambda: train(absent, machine=ONE_THREAD))
    bent = replace(SHORT, network=replace(SHORT.network, activation="relu"), start_from=str(tmp_path))
    assert SHORT.network.activation == "tanh"
    assert "set network.activation to tanh" in refused(lambda: train(bent, machine=ONE_THREAD))


@pytest.mark.parametrize("rule", RULES[:3])
def test_training_resumes_from_a_saved_run_bit_for_bit(tmp_path: Path, rule: Any) -> None:
    config = replace(SHORT, log_every=2, meta=replace(SHORT.meta, step=rule))
    lines: list[str] = []
    whole = train(config, machine=ONE_THREAD, report=lines.append)
    assert [line.partition(": return")[0] for line in lines] == ["iteration 1", "iteration 2"]
    half = train(config, iterations=1, machine=ONE_THREAD)
    assert half.config == replace(config, iterations=1)
    save_run(tmp_path, half)
    loaded = load_run(tmp_path)
    assert loaded.state.meta["inner_power.weight_0"].any()
    with loaded.open(ONE_THREAD) as learner:
        resumed, values = after_iteration(loaded, *learner.iterate(loaded.state), seconds=1.0)
    assert_same_state(resumed.state, whole.state)
    assert resumed.progress.env_steps == whole.progress.env_steps
    before = half.progress.pending["return/after_0_steps"]
    with whole.open(ONE_THREAD) as learner:
        second = learner.iterate(half.state)[1].values["return/after_0_steps"]
    assert values["return/after_0_steps"] == pytest.approx((before + second) / 2)  # the row of both iterations


def test_a_row_of_the_log_has_means_since_the_last_one_and_totals() -> None:
    run = Run(replace(EVERYTHING, log_every=2), State({}, {}, 0), {})
    rows: list[Mapping[str, float]] = []
    for number in range(1, 5):
        metrics = Metrics({"x": float(number), "sampling/env_steps": 10.0}, {})
        run, values = after_iteration(run, run.state._replace(iteration=number), metrics, seconds=0.5)
        if not run.progress.pending:
            rows.append(values)
    assert run.progress == Progress(2.0, 40)
    assert [(row["iteration"], row["x"], row["sampling/env_steps"]) for row in rows] == [(2, 1.5, 20), (4, 3.5, 40)]
    assert [(row["time/seconds"], row["time/env_steps_per_second"]) for row in rows] == [(1.0, 20), (2.0, 20)]


def test_a_run_that_is_only_in_the_package_is_copied_by_the_command_that_the_error_gives(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no checkpoint at trained/navigation, but the package has a run") as error:
        load_run("trained/navigation")
    subprocess.run(str(error.value).partition(": ")[2], shell=True, check=True)
    assert load_run("trained/navigation").rl_config.env_id == NAVIGATION
    with pytest.raises(InputError, match="no checkpoint at trained/nothing: give the directory of a run"):
        load_run("trained/nothing")
