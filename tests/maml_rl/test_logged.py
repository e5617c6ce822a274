"""Adaptation to logged episodes: the same result as with sampled ones, and warnings about unsuitable logs."""

from dataclasses import replace
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer

import maml_rl
from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.episode_log import EpisodeLog, LoggedSteps, load_minari, load_steps, logged_steps
from maml_rl.errors import InputError
from maml_rl.logged import adapt, explorer
from maml_rl.machine import Machine
from maml_rl.numpy_policy import load_policy
from maml_rl.run import Run, train
from maml_rl.types import Trajectories, select

ONE_THREAD = Machine(threads=1)
TRAINED = Path(__file__).parents[2] / "trained"
EVALUATION = RLEvaluation(gradient_steps=2, episodes=20)


def logged(episodes: Trajectories) -> LoggedSteps:
    """The episodes of one task, as a robot would log them."""
    mask, lengths = episodes.mask[0].bool(), episodes.lengths[0]
    ends = torch.zeros_like(mask).scatter_(1, lengths[:, None] - 1, value=True)
    fields = {"observations": episodes.observations, "actions": episodes.actions, "rewards": episodes.rewards}
    arrays = {name: field[0][mask].numpy() for name, field in fields.items()}
    return logged_steps(arrays | {"truncated": ends[mask].numpy()}, "the log")


@pytest.fixture(scope="module")
def run() -> Run:
    return maml_rl.load_run(TRAINED / "half-cheetah-dir")


@pytest.fixture(scope="module")
def sampled(run) -> list[tuple[dict[str, torch.Tensor], Trajectories]]:
    """Parameters and episodes of the run, adapted in its simulator."""
    with run.open(ONE_THREAD) as learner:
        return list(learner.adaptation(run.state, [np.int64(1)], EVALUATION))


@pytest.fixture(scope="module")
def log(sampled) -> LoggedSteps:
    """Episodes before the first gradient step."""
    return logged(sampled[0][1])


def test_logged_episodes_adapt_as_sampled_ones_do(run, sampled):
    found = adapt(run, [logged(episodes) for _, episodes in sampled[:2]], ONE_THREAD)
    for name, value in select(sampled[2][0], 0).items():
        assert torch.equal(found.params[name], value)
    assert found.inner_lrs == pytest.approx([0.1, 0.05])
    assert found.warnings == []
    assert found.likelihood == pytest.approx([0, 0], abs=0.1)


@pytest.mark.parametrize("env_id", ["maml_rl.envs:finn2017/Navigation2D-v0", "maml_rl.envs:duan2016/TabularMDP-v0"])
def test_episodes_of_unequal_length_and_choices_are_adapted_to(env_id):
    config = RLConfig(
        env_id=env_id,
        iterations=0,
        meta=RLMeta(meta_batch_size=2, episodes=5, inner_lr=0.5),
        network=PolicyConfig(hidden_sizes=(8,)),
        max_episode_steps=10,
    )
    fresh = train(config, machine=ONE_THREAD)
    with fresh.open(ONE_THREAD) as learner:
        task = learner.task_space.sample()
        steps = list(learner.adaptation(fresh.state, [task], RLEvaluation(gradient_steps=1, episodes=5)))
    episodes = steps[0][1]
    lengths = torch.tensor([10, 3, 7, 10, 1])
    kept = torch.arange(episodes.mask.shape[-1]) < lengths[:, None]
    cut = episodes._replace(mask=kept[None].float())
    assert logged(cut).returns == pytest.approx(cut.returns[0].tolist(), abs=1e-5)
    found = adapt(fresh, [logged(cut)], ONE_THREAD)
    assert [steps.stop - steps.start for steps in logged(cut).episodes] == lengths.tolist()
    assert any(not value.equal(fresh.state.meta[name]) for name, value in found.params.items())
    assert found.likelihood[0] == pytest.approx(0, abs=1.0)


def test_a_policy_in_numpy_equals_the_policy(run, tmp_path):
    policy, file = explorer(run), tmp_path / "policy.npz"
    file.write_bytes(policy.to_bytes())
    observations = 3 * np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    with run.open(ONE_THREAD) as learner:
        ours = learner.policy(run.state.meta, torch.from_numpy(observations))
    for one in (policy, load_policy(file)):
        np.testing.assert_allclose(one.output(observations), ours.mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.log_std, run.state.meta["log_std"])
    acted = np.stack([policy.act(observation) for observation in observations])
    np.testing.assert_allclose(acted, ours.mean.clamp(-1, 1), rtol=1e-5, atol=1e-5)
    samples = np.stack([policy.sample(observations[0], np.random.default_rng(i)) for i in range(4000)])
    np.testing.assert_allclose(samples.mean(0), policy.output(observations[0]), atol=0.1)
    np.testing.assert_allclose(samples.std(0), np.exp(policy.log_std), rtol=0.1)


def test_choices_in_numpy_are_those_of_the_policy():
    config = RLConfig(env_id="maml_rl.envs:duan2016/TabularMDP-v0", network=PolicyConfig(hidden_sizes=(8,)))
    fresh = train(replace(config, iterations=0), machine=ONE_THREAD)
    policy = explorer(fresh)
    with fresh.open(ONE_THREAD) as learner:
        observation = np.eye(len(learner.policy.observation_mean), dtype=np.float32)[3]
        logits = learner.policy(fresh.state.meta, torch.from_numpy(observation)).logits
    assert policy.act(observation) == int(logits.argmax())
    generator = np.random.default_rng(0)
    counts = np.bincount([policy.sample(observation, generator) for _ in range(4000)], minlength=len(logits))
    np.testing.assert_allclose(counts / 4000, logits.softmax(-1), atol=0.03)


def test_a_log_that_is_collected_step_by_step_is_saved_and_read(tmp_path):
    log = EpisodeLog()
    for step in range(5):
        log.add(np.full((1, 2), step), [0.5, 2.0], -step, step == 1, step == 4)
    log.steps().save(tmp_path / "log.npz")
    read = load_steps(tmp_path / "log.npz")
    assert read.episodes == [slice(0, 2), slice(2, 5)]
    assert read.returns.tolist() == [-1.0, -9.0]
    assert read.observations.tolist() == [[step, step] for step in range(5)]
    assert read.terminated.tolist() == [False, True, False, False, False]


@pytest.mark.filterwarnings("ignore::UserWarning:minari")  # who made the data set, and where its code is
def test_a_minari_data_set_is_a_log(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env, rewards, buffers = gymnasium.make("Pendulum-v1", max_episode_steps=7), [], []
    for episode in range(3):
        observations, actions, brought = [env.reset(seed=episode)[0]], [], []
        for _ in range(7):
            actions.append(env.action_space.sample())
            after, reward, *ends, _ = env.step(actions[-1])
            observations.append(after)
            brought.append(float(reward))
        ended = {"terminations": [False] * 7, "truncations": [*[False] * 6, ends[1]]}
        buffers.append(EpisodeBuffer(episode, observations=observations, actions=actions, rewards=brought, **ended))
        rewards += brought
    minari.create_dataset_from_buffers("test/pendulum-v0", buffers, env, data_format="hdf5")
    steps = load_minari("test/pendulum-v0")
    assert len(steps.episodes) == 3
    assert steps.observations.shape == (21, 3)
    np.testing.assert_allclose(steps.rewards, rewards, rtol=1e-6)


def warning(run: Run, log: LoggedSteps) -> str:
    """The one warning about a log."""
    (line,) = adapt(run, [log], ONE_THREAD).warnings
    return line


def test_a_log_of_other_actions_causes_a_warning(run, log):
    noise = np.random.default_rng(0).standard_normal(log.actions.shape).astype(np.float32)
    policy = explorer(run)
    means = policy.output(log.observations)
    assert "without noise" in warning(run, log._replace(actions=means))
    assert "another policy" in warning(run, log._replace(actions=means + 2 * np.exp(policy.log_std) * noise))
    clipped = log.actions.clip(policy.low, policy.high)
    assert (clipped != log.actions).any()
    assert "clipped before they were logged" in warning(run, log._replace(actions=clipped))


def test_a_log_that_is_short_long_or_in_other_units_causes_a_warning(run, log):
    few = log.episodes[2].stop
    assert "3 episodes" in warning(run, LoggedSteps(*(field[:few] for field in log)))
    joined = log.truncated.copy()
    joined[199] = False
    assert "the longest episode has 400 steps and training had at most 200" in warning(
        run, log._replace(truncated=joined)
    )
    (same,) = adapt(run, [log._replace(rewards=np.zeros_like(log.rewards))], ONE_THREAD).warnings
    assert same.startswith("all rewards are 0, which reveals nothing about the task")
    far = adapt(run, [log._replace(observations=1000 * log.observations)], ONE_THREAD).warnings
    assert any("check their units" in line for line in far)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: log._replace(observations=log.observations[:, :17]), "have 17 numbers, but those of .* have 20"),
        (lambda log: log._replace(actions=log.actions[:, :5]), "actions have 5 numbers, but those of .* have 6"),
    ],
)
def test_a_log_of_another_robot_is_refused(run, log, change, message):
    with pytest.raises(InputError, match=message):
        adapt(run, [change(log)], ONE_THREAD)


def test_an_empty_list_of_logs_is_refused(run):
    with pytest.raises(InputError, match="give at least one"):
        adapt(run, [], ONE_THREAD)


GIVEN = {
    "observations": np.zeros((4, 2)),
    "actions": np.zeros((4, 2)),
    "rewards": np.zeros(4),
    "truncated": np.array([0, 1, 0, 1], bool),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": None}, "the log has no rewards"),
        ({"truncated": None}, "the log has no terminated and no truncated"),
        ({"rewards": np.array([0, np.nan, 0, 0])}, "rewards that are not finite"),
        ({"observations": np.full((4, 2), np.inf)}, "observations that are not finite"),
        ({"actions": np.zeros((3, 2))}, r"actions of shape \(3, 2\)"),
        ({"actions": np.array(["a"] * 4)}, "expected numbers"),
        ({"truncated": np.array([0, 1, 0, 0], bool)}, "ends within an episode"),
        ({name: value[:0] for name, value in GIVEN.items()}, "has no steps"),
        ({"rewards": np.zeros((4, 2))}, "expected one number for each step"),
    ],
)
def test_arrays_that_are_not_a_log_are_refused(change, message):
    arrays = {name: value for name, value in (GIVEN | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        logged_steps(arrays, "the log")


@pytest.mark.parametrize("read", [load_steps, load_policy])
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"text", np.zeros(3)])
def test_files_that_are_not_archives_are_refused_in_one_line(tmp_path, read, content):
    path = tmp_path / "file.npz"
    if isinstance(content, np.ndarray):
        np.savez(path, x=content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.npz") as refused:
        read(path)
    assert "\n" not in str(refused.value)
    assert "pickle" not in str(refused.value)


def test_an_archive_that_would_execute_code_is_refused(tmp_path):
    np.savez(tmp_path / "file.npz", rewards=np.array([{}], object))
    with pytest.raises(InputError, match=r"plain arrays \(it contains Python objects\)"):
        load_steps(tmp_path / "file.npz")


def test_an_unknown_data_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(InputError, match="nobody/nothing-v0"):
        load_minari("nobody/nothing-v0")
