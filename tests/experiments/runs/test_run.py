"""Run directories: what is saved is loaded, and what does not fit is refused in one line."""

import json
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.config import MetaConfig, PolicyConfig, TrustRegion
from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.presets.rl_presets import PRESETS
from maml_rl.experiments.runs.records import from_record
from maml_rl.experiments.runs.run import (
    CHECKPOINT,
    CONFIG,
    Progress,
    Run,
    RunConfig,
    env_steps_text,
    load_config,
    load_run,
    new_run,
    save_run,
)
from maml_rl.initial import initial_policy, parameters
from maml_rl.tasks import vectorize

NAVIGATION, DIRECTION = "maml_rl.envs:finn2017/Navigation2D-v0", "maml_rl.envs:finn2017/HalfCheetahDir-v0"
EVERYTHING = RunConfig(
    env_id=NAVIGATION,
    iterations=7,
    seed=3,
    num_envs=5,
    checkpoint_every=2,
    meta=MetaConfig(
        meta_batch_size=3,
        episodes=4,
        inner_steps=2,
        inner_lr=0.3,
        inner_objective="lvc",
        first_order=True,
        discount=0.9,
        gae_lambda=0.8,
        trust_region=TrustRegion(0.02, 5, 1e-3, 0.5, 0.7, 9),
    ),
    policy=PolicyConfig((8, 8), "tanh", initial_std=0.5, statistics_of="noise", observation_clip=4.0),
    evaluation=EvaluationConfig(3, 2, 5, 0.25, 9),
)
PROGRESS = Progress(iteration=5, env_steps=12345, seconds=1.5)


@pytest.fixture
def envs():
    with closing(vectorize(NAVIGATION, 5)) as envs:
        yield envs


@pytest.fixture
def run(envs) -> Run:
    policy = initial_policy(envs, EVERYTHING.policy, EVERYTHING.meta, EVERYTHING.seed)
    theta = {name: value + 1 for name, value in parameters(policy).items()}  # not those of the seed
    return Run(EVERYTHING, policy, theta, PROGRESS)


def rewrite(directory: Path, change) -> None:
    """Changes the record of a run's checkpoint."""
    path = directory / CHECKPOINT
    checkpoint = load_checkpoint(path)
    change(checkpoint.record)
    save_checkpoint(path, checkpoint)


def refused(load) -> str:
    with pytest.raises(InputError) as raised:
        load()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_settings_come_back_from_json(name):
    config = PRESETS[name].config
    assert from_record(RunConfig, json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("config", [EVERYTHING, RunConfig(NAVIGATION)])
def test_settings_come_back_from_json_with_their_types(config):
    read = from_record(RunConfig, json.loads(json.dumps(asdict(config))))
    assert read == config
    assert type(read.meta.trust_region) is TrustRegion
    assert type(read.policy.hidden_sizes) is tuple


def test_settings_that_a_record_lacks_have_their_defaults():
    assert from_record(RunConfig, {"env_id": "x", "meta": {"inner_lr": 0.3}}) == RunConfig(
        "x", meta=MetaConfig(inner_lr=0.3)
    )


@pytest.mark.parametrize("record", [{"env_id": "x", "unknown": 1}, {"env_id": "x", "meta": {"unknown": 1}}, {}])
def test_an_unknown_or_missing_setting_is_an_error(record):
    with pytest.raises(TypeError):
        from_record(RunConfig, record)


@pytest.mark.parametrize("name", ["iterations", "seed", "num_envs", "checkpoint_every"])
def test_a_setting_outside_its_range_is_refused_and_named(name):
    assert refused(lambda: replace(EVERYTHING, **{name: -1})).startswith(f"{name} must be")


def test_a_run_comes_back_bit_for_bit(tmp_path, envs, run):
    save_run(tmp_path / "runs" / "a", run)  # directories are made
    loaded = load_run(tmp_path / "runs" / "a", envs)
    assert loaded.config == run.config
    assert loaded.progress == run.progress
    assert loaded.theta.keys() == run.theta.keys()
    assert all(torch.equal(value, run.theta[name]) for name, value in loaded.theta.items())
    for name in ("observation_mean", "observation_std"):
        assert torch.equal(getattr(loaded.policy, name), getattr(run.policy, name))
    observations = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.policy(loaded.theta, observations).mean, run.policy(run.theta, observations).mean)


def test_the_settings_are_written_for_people_too(tmp_path, run):
    save_run(tmp_path, run)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, CHECKPOINT}
    assert from_record(RunConfig, json.loads((tmp_path / CONFIG).read_text())) == run.config


def test_the_checkpoint_alone_is_enough(tmp_path, envs, run):
    save_run(tmp_path, run)
    (tmp_path / CONFIG).unlink()
    alone = tmp_path / "renamed"
    (tmp_path / CHECKPOINT).rename(alone)
    assert load_config(alone)[:2] == (run.config, run.progress)
    loaded = load_run(alone, envs)
    assert all(torch.equal(value, run.theta[name]) for name, value in loaded.theta.items())


def test_saving_does_not_change_the_run(tmp_path, run):
    before = {name: value.clone() for name, value in run.theta.items()}
    save_run(tmp_path, run)
    assert all(torch.equal(value, before[name]) for name, value in run.theta.items())


def test_a_checkpoint_of_another_environment_is_refused(tmp_path, run):
    save_run(tmp_path, run)
    rewrite(tmp_path, lambda record: record["config"].update(env_id=DIRECTION))
    with closing(vectorize(load_config(tmp_path)[0].env_id, 2)) as others:
        message = refused(lambda: load_run(tmp_path, others))
    assert str(tmp_path) in message
    assert "another environment" in message


def test_a_checkpoint_of_another_network_is_refused(tmp_path, envs, run):
    save_run(tmp_path, run)
    rewrite(tmp_path, lambda record: record["config"]["policy"].update(hidden_sizes=[8, 9]))
    message = refused(lambda: load_run(tmp_path, envs))
    assert "should be (9,) float32, is (8,) float32" in message


@pytest.mark.parametrize("name", ["weight_1", "log_std", "observation_mean", "observation_std"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path, envs, run, name):
    save_run(tmp_path, run)
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT)
    del checkpoint.tensors[name]
    save_checkpoint(tmp_path / CHECKPOINT, checkpoint)
    assert name in refused(lambda: load_run(tmp_path, envs))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["config"].update(from_the_future=1),
        lambda record: record["config"]["meta"].update(from_the_future=1),
        lambda record: record["config"]["meta"]["trust_region"].update(from_the_future=1),
        lambda record: record["progress"].update(from_the_future=1),
        lambda record: record["config"].pop("env_id"),
        lambda record: record["progress"].pop("iteration"),
        lambda record: record.pop("config"),
        lambda record: record.pop("progress"),
    ],
)
def test_settings_that_are_unknown_or_missing_are_refused(tmp_path, run, change):
    save_run(tmp_path, run)
    rewrite(tmp_path, change)
    message = refused(lambda: load_config(tmp_path))
    assert str(tmp_path / CHECKPOINT) in message
    assert "does not know" in message


def test_a_setting_of_the_checkpoint_outside_its_range_is_refused(tmp_path, run):
    save_run(tmp_path, run)
    rewrite(tmp_path, lambda record: record["config"]["meta"].update(inner_lr=-0.1))
    assert "inner_lr must be above 0" in refused(lambda: load_config(tmp_path))


def test_a_directory_without_a_checkpoint_is_refused(tmp_path):
    assert str(tmp_path) in refused(lambda: load_config(tmp_path))
    assert "absent" in refused(lambda: load_config(tmp_path / "absent"))


def test_a_run_begins_with_random_weights_of_its_seed(envs):
    first, again, other = (new_run(replace(EVERYTHING, seed=seed), envs) for seed in (3, 3, 4))
    assert first.progress == Progress(0, 0, 0.0)
    assert all(torch.equal(value, again.theta[name]) for name, value in first.theta.items())
    name = max(first.theta, key=lambda name: first.theta[name].numel())  # a matrix of weights; biases begin with 0
    assert not torch.equal(first.theta[name], other.theta[name])


def test_a_run_begins_with_the_policy_of_another(tmp_path, envs, run):
    save_run(tmp_path, run)
    settings = MetaConfig(meta_batch_size=2, inner_lr=0.1)
    started = new_run(replace(EVERYTHING, seed=8, meta=settings, start_from=str(tmp_path)), envs)
    assert started.progress == Progress(0, 0, 0.0)
    assert started.config.meta == settings
    assert all(torch.equal(value, run.theta[name]) for name, value in started.theta.items())
    assert torch.equal(started.policy.observation_std, run.policy.observation_std)


def test_a_run_of_another_network_is_nothing_to_start_from(tmp_path, envs, run):
    save_run(tmp_path, run)
    config = replace(EVERYTHING, policy=PolicyConfig((9, 9)), start_from=str(tmp_path))
    assert str(tmp_path) in refused(lambda: new_run(config, envs))
    assert "absent" in refused(lambda: new_run(replace(config, start_from=str(tmp_path / "absent")), envs))


@pytest.mark.parametrize(
    ("env_steps", "text"),
    [(560, "560"), (13_440, "13,440"), (99_999, "99,999"), (100_000, "0.1 M"), (6_400_000, "6.4 M")],
)
def test_few_env_steps_are_not_shown_as_none(env_steps, text):
    assert env_steps_text(env_steps) == text
