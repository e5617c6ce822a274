"""To and from Stable-Baselines3, with its own PPO, its own vector environments and its own checks."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, flatdim, flatten
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize, VecTransposeImage

from maml_rl.errors import InputError
from maml_rl.policies import CategoricalMLP, GaussianMLP, MLPPolicy, Standardisation
from maml_rl.processes import Processes
from maml_rl.sb3 import BatchVecEnv, fit_critic, from_ppo, sb3_vec_env, to_ppo
from maml_rl.tasks import TaskVectorEnv, vectorize
from maml_rl.types import Params, Trajectories

NAVIGATION, CHEETAH = "maml_rl.envs:finn2017/Navigation2D-v0", "maml_rl.envs:finn2017/HalfCheetahDir-v0"
BANDIT = "maml_rl.envs:duan2016/BernoulliBandit-v0"
SIZE, ACTIONS = 4, 3
# Single precision: the first layer's terms are |mean / std|, here 40, times as large as those of our policy, and the
# weights of three layers are of the order of 1: 6e-8 * 40 * (a few).
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


class Still(gymnasium.Env):
    """An environment with any spaces, in which nothing happens."""

    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}

    def step(self, action: object) -> tuple:
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), 0.0, False, False, {}


OBSERVATIONS = Box(-np.inf, np.inf, (SIZE,), np.float64)
CONTINUOUS = Still(OBSERVATIONS, Box(-1.0, 1.0, (ACTIONS,), np.float32))
DISCRETE = Still(OBSERVATIONS, Discrete(ACTIONS))


def gaussian(**settings: object) -> MLPPolicy:
    return GaussianMLP(SIZE, ACTIONS, **network({"activation": "relu"} | settings))


def categorical(**settings: object) -> MLPPolicy:
    return CategoricalMLP(SIZE, ACTIONS, **network({"activation": "tanh"} | settings))


def network(settings: dict[str, object]) -> dict[str, object]:
    """Settings of a small network, with `mean`, `std` and `clip` of its observations among them."""
    standardisation = Standardisation(**{name: settings.pop(name, None) for name in Standardisation._fields})
    generator = np.random.default_rng(0)
    return {"hidden_sizes": (8, 6), "generator": generator, "standardisation": standardisation} | settings


def statistics() -> dict[str, torch.Tensor]:
    return {"mean": torch.tensor([0.0, 5.0, -2.0, 0.1]), "std": torch.tensor([1.0, 2.0, 0.05, 10.0])}


def random_params(policy: MLPPolicy, seed: int = 1) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in policy.named_parameters()}


def observations(count: int = 50) -> torch.Tensor:
    standard = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(2))
    return statistics()["mean"] + standard * statistics()["std"]


# Policies to PPO


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"activation": "tanh"},
        {"hidden_sizes": ()},
        {"hidden_sizes": (5, 6, 7)},
        {"clip": 1.0},
        {"clip": 0.5, "hidden_sizes": ()},
        {"context_size": 3},
        {"context_size": 3, "clip": 1.0},
        {"context_size": 3, "hidden_sizes": ()},
    ],
)
def test_an_exported_gaussian_policy_is_the_same_distribution_with_the_standardisation_inside(settings):
    policy = gaussian(**statistics(), **settings)
    params = random_params(policy)
    model = to_ppo(policy, params, CONTINUOUS)
    obs = observations()
    ours, theirs = policy(params, obs), model.policy.get_distribution(obs)
    torch.testing.assert_close(theirs.distribution.mean, ours.mean, **TOLERANCE)
    torch.testing.assert_close(theirs.distribution.stddev, ours.log_std.exp(), **TOLERANCE)
    actions = ours.sample(torch.randn(len(obs), ACTIONS))
    torch.testing.assert_close(theirs.log_prob(actions), ours.log_prob(actions), rtol=1e-4, atol=1e-4)


def test_an_exported_policy_clips_observations_however_far_they_are():
    policy = gaussian(**statistics(), clip=10.0)
    params = random_params(policy)
    model = to_ppo(policy, params, CONTINUOUS)
    obs = statistics()["mean"] + torch.tensor([[1e5, -1e7, 0.0, 1.0], [3.0, 9.0, -11.0, 1e12]]) * statistics()["std"]
    means = model.policy.get_distribution(obs).distribution.mean
    torch.testing.assert_close(means, policy(params, obs).mean, **TOLERANCE)


def test_an_exported_categorical_policy_is_the_same_distribution():
    policy = categorical(**statistics())
    params = random_params(policy)
    obs = observations()
    theirs = to_ppo(policy, params, DISCRETE).policy.get_distribution(obs)
    choices = torch.arange(len(obs)) % ACTIONS
    torch.testing.assert_close(theirs.log_prob(choices), policy(params, obs).log_prob(choices), rtol=1e-4, atol=1e-4)


def test_deterministic_actions_are_the_means_clipped_to_the_action_space():
    policy = gaussian(**statistics())
    params = random_params(policy)
    obs = observations()
    means = policy(params, obs).mean
    assert means.abs().max() > 1.5
    actions, _ = to_ppo(policy, params, CONTINUOUS).predict(obs.double().numpy(), deterministic=True)
    np.testing.assert_allclose(actions, means.clamp(-1, 1).detach(), **TOLERANCE)


def test_the_parameters_given_are_exported_and_neither_they_nor_the_policy_change():
    policy = gaussian(**statistics())
    params = random_params(policy)
    before = {name: value.clone() for name, value in (params | policy.state_dict()).items()}
    model = to_ppo(policy, params, CONTINUOUS, n_steps=64, gamma=0.9, seed=3)
    model.learn(64)
    assert (model.gamma, model.seed, model.n_steps) == (0.9, 3, 64)
    for name, value in (params | policy.state_dict()).items():
        assert torch.equal(value, before[name])


ALONE = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "maml_rl":
            raise ModuleNotFoundError(f"no module {name}")

sys.meta_path.insert(0, Nothing())
import gymnasium
import numpy as np
from stable_baselines3 import PPO

class Still(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=4), {}

    def step(self, action):
        return self.np_random.normal(size=4), float(action[0]), self.np_random.random() < 0.1, False, {}

actions, _ = PPO.load("policy.zip").predict(np.load("observations.npy"), deterministic=True)
np.save("actions.npy", actions)
model = PPO.load("policy.zip", Still(), n_steps=128)
model.learn(256)
assert model.num_timesteps == 256
assert np.abs(model.predict(np.load("observations.npy"), deterministic=True)[0] - actions).max() > 0
print("done")
"""


def test_a_saved_policy_is_used_and_trained_with_stable_baselines3_alone(tmp_path):
    policy = gaussian(**statistics(), clip=1.5)
    params = random_params(policy)
    model = to_ppo(policy, params, CONTINUOUS)
    model.save(tmp_path / "policy.zip")
    np.save(tmp_path / "observations.npy", observations().double().numpy())
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr
    expected = policy(params, observations()).mean.clamp(-1, 1).detach()
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("policy", "env", "message"),
    [
        (gaussian(clip=10.0, activation="tanh"), CONTINUOUS, r"clips standardised observations to \+-10"),
        (gaussian(), DISCRETE, "bounded Box of 3 numbers"),
        (gaussian(), Still(OBSERVATIONS, Box(-np.inf, 1.0, (3,), np.float32)), "bounded Box"),
        (gaussian(), Still(OBSERVATIONS, Box(-1.0, 1.0, (2,), np.float32)), "bounded Box of 3 numbers"),
        (categorical(), CONTINUOUS, r"Discrete\(3\)"),
        (categorical(), Still(OBSERVATIONS, Discrete(4)), r"Discrete\(3\)"),
        (categorical(), Still(OBSERVATIONS, Discrete(3, start=1)), "to begin at 0"),
        (gaussian(), Still(Box(-1.0, 1.0, (5,)), CONTINUOUS.action_space), "observes 4 numbers"),
        (gaussian(), Still(Box(0, 255, (36, 36, 3), np.uint8), CONTINUOUS.action_space), "observes 4 numbers"),
        (gaussian(), Still(Discrete(4, start=1), CONTINUOUS.action_space), "needs observations in a Box"),
        (gaussian(), Still(Dict(a=OBSERVATIONS), CONTINUOUS.action_space), "needs observations in a Box"),
        (gaussian(), VecNormalize(DummyVecEnv([lambda: CONTINUOUS])), "VecNormalize that normalises observations"),
        (gaussian(), Still(Box(-1.0, 1.0, ()), CONTINUOUS.action_space), "of one axis or more"),
        (gaussian(), Still(OBSERVATIONS, Box(-1, 1, (3,), np.int64)), "real numbers"),
    ],
)
def test_a_policy_that_does_not_fit_the_environment_is_not_exported(policy, env, message):
    with pytest.raises(InputError, match=message) as refusal:
        to_ppo(policy, random_params(policy), env)
    assert "\n" not in str(refusal.value)


# Observations of every kind

KINDS = {
    "numbers": OBSERVATIONS,
    "a matrix": Box(-2.0, 2.0, (2, 3), np.float32),
    "bytes": Box(0, 255, (7,), np.uint8),
    "a picture": Box(0, 255, (1, 8, 8), np.uint8),
    "colours first": Box(0, 255, (3, 8, 6), np.uint8),
    "colours last": Box(0, 255, (8, 6, 3), np.uint8),
    "bytes from 1": Box(1, 255, (3, 8, 6), np.uint8),
    "a picture of floats": Box(0.0, 255.0, (3, 8, 6), np.float32),
    "a choice": Discrete(5),
    "choices": MultiDiscrete([2, 3, 4]),
    "switches": MultiBinary(6),
    "switches in rows": MultiBinary((2, 3)),
}
KIND = pytest.mark.parametrize("space", KINDS.values(), ids=KINDS)


def drawn(space: Space, count: int = 30, seed: int = 0) -> np.ndarray:
    space.seed(seed)
    return np.stack([space.sample() for _ in range(count)])


def flattened(space: Space, obs: np.ndarray) -> torch.Tensor:
    """Observations as a policy of ours has them."""
    return torch.as_tensor(np.stack([flatten(space, one) for one in obs]), dtype=torch.float32)


def moments(model: PPO, obs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the actions of a model, as it makes them of observations of its environment."""
    distribution = model.policy.get_distribution(model.policy.obs_to_tensor(obs)[0]).distribution
    return distribution.mean.detach(), distribution.stddev.detach()


def assert_same_actions(policy: MLPPolicy, params: Params, model: PPO, space: Space, obs: np.ndarray) -> None:
    """Our actions in observations of an environment are those of the model, and vary."""
    ours, (mean, std) = policy(params, flattened(space, obs)), moments(model, obs)
    torch.testing.assert_close(ours.mean.detach(), mean, **TOLERANCE)
    torch.testing.assert_close(ours.log_std.exp().detach(), std, **TOLERANCE)
    assert mean.std(0).min() > 100 * TOLERANCE["atol"]


def standardised(space: Space) -> MLPPolicy:
    """A policy for observations of a space, each with its own mean and standard deviation."""
    size = flatdim(space)
    width = 255.0 if space.dtype == np.uint8 else 1.0
    generator = torch.Generator().manual_seed(7)
    std = width * (0.5 + torch.rand(size, generator=generator))
    mean = width * torch.rand(size, generator=generator)
    settings = network({"hidden_sizes": (8,), "activation": "tanh", "mean": mean, "std": std})
    return GaussianMLP(size, ACTIONS, **settings)


def varied(model: PPO, factor: float = 100) -> PPO:
    """The same model with a last layer that does not make all actions nearly 0, as a new one does."""
    with torch.no_grad():
        model.policy.action_net.weight.mul_(factor)
    return model


@KIND
def test_observations_of_every_kind_are_exported(space):
    policy = standardised(space)
    params = {name: value.detach() for name, value in policy.named_parameters()}
    for settings in ({}, {"policy_kwargs": {"normalize_images": False}}):
        model = to_ppo(policy, params, Still(space, CONTINUOUS.action_space), **settings)
        assert_same_actions(policy, params, model, space, drawn(space))


@KIND
def test_models_of_every_kind_of_observation_become_policies(space):
    for settings in ({}, {"policy_kwargs": {"normalize_images": False}}):
        model = varied(PPO("MlpPolicy", Still(space, CONTINUOUS.action_space), seed=1, **settings))
        assert_same_actions(*from_ppo(model), model, space, drawn(space))


@pytest.mark.parametrize("case", ["normalised", "normalised after their colours moved", "left alone", "of an old file"])
@pytest.mark.parametrize("name", ["colours first", "colours last"])
def test_pictures_and_the_statistics_of_vec_normalize_are_combined(name, case):
    """Normalised pictures are plain numbers to the model; in old files they are pictures, divided by 255 too."""
    space = KINDS[name]
    envs = DummyVecEnv([lambda: Still(space, CONTINUOUS.action_space)])
    moved = VecTransposeImage(envs) if name == "colours last" else None
    envs = moved if moved and case == "normalised after their colours moved" else envs
    normalised = VecNormalize(envs, norm_obs=case != "left alone", clip_obs=1.2)
    seen = drawn(space)
    if envs is moved:
        seen = moved.transpose_observations(seen)
    if normalised.norm_obs:
        normalised.obs_rms.update(seen[:20])
    if case == "of an old file":
        normalised.observation_space = space
    model = varied(PPO("MlpPolicy", normalised, seed=1), 25_500 if case == "of an old file" else 100)
    policy, params = from_ppo(model)
    mean, _ = moments(model, normalised.normalize_obs(seen))
    torch.testing.assert_close(policy(params, flattened(space, drawn(space))).mean.detach(), mean, **TOLERANCE)
    assert mean.std(0).min() > 100 * TOLERANCE["atol"]


def test_the_critic_learns_values_of_pictures():
    space = KINDS["colours last"]
    policy = standardised(space)
    model = to_ppo(policy, dict(policy.named_parameters()), Still(space, CONTINUOUS.action_space), seed=0)
    obs = drawn(space, 300)
    sampled = episodes(torch.zeros(300, 1), [1] * 300, [True] * 300)._replace(
        observations=flattened(space, obs)[:, None]
    )
    sampled = sampled._replace(rewards=sampled.observations[..., :3].mean(-1))  # the colours of the first point
    assert fit_critic(model, sampled, steps=1500) > 0.9
    fitted = model.policy.predict_values(model.policy.obs_to_tensor(obs)[0])[:, 0].detach()
    assert float(1 - (fitted - sampled.rewards[:, 0]).var() / sampled.rewards.var()) > 0.9


def test_a_picture_of_unknown_order_is_refused(tmp_path):
    """A model that is loaded without its environment does not know whether it had the colours last."""
    for name, can_be_known in (("a picture", True), ("colours last", False), ("colours first", False)):
        env = Still(KINDS[name], CONTINUOUS.action_space)
        PPO("MlpPolicy", env).save(tmp_path / "model.zip")
        from_ppo(PPO.load(tmp_path / "model.zip", env))
        if can_be_known:
            from_ppo(PPO.load(tmp_path / "model.zip"))
            continue
        with pytest.raises(InputError, match=r"PPO.load\(path, env\)"):
            from_ppo(PPO.load(tmp_path / "model.zip"))


def test_frames_that_are_stacked_after_their_colours_moved_are_refused():
    envs = VecTransposeImage(DummyVecEnv([lambda: Still(KINDS["colours last"], CONTINUOUS.action_space)]))
    with pytest.raises(InputError, match="stack frames first"):
        from_ppo(PPO("MlpPolicy", VecFrameStack(envs, 2)))


# The critic


def episodes(rewards: torch.Tensor, lengths: list[int], terminated: list[bool]) -> Trajectories:
    """Episodes of one task with these rewards [K, T]; observations are random."""
    mask = (torch.arange(rewards.shape[1]) < torch.tensor(lengths)[:, None]).float()
    obs = torch.randn(*rewards.shape, SIZE, generator=torch.Generator().manual_seed(3)) * statistics()["std"]
    actions = torch.zeros(*rewards.shape, ACTIONS)
    return Trajectories(obs, actions, torch.zeros(rewards.shape), rewards, mask, torch.tensor(terminated))


def values(model: PPO, trajectories: Trajectories) -> torch.Tensor:
    """Values of the steps that are not padding, [N]."""
    with torch.no_grad():
        return model.policy.predict_values(trajectories.observations[trajectories.mask.bool()])[:, 0]


def test_the_critic_does_not_treat_a_time_limit_as_an_end():
    # A reward of 1 for ever: V = 1 / (1 - 0.9) = 10, wherever the time limit cuts.
    model = to_ppo(gaussian(), random_params(gaussian()), CONTINUOUS, gamma=0.9)
    sampled = episodes(torch.ones(20, 30), [30] * 20, [False] * 20)
    fit_critic(model, sampled, steps=1000)
    assert values(model, sampled).mean().item() == pytest.approx(10, abs=0.2)
    assert values(model, sampled).std() < 0.5


def test_nothing_comes_after_a_termination_and_padding_does_not_count():
    # Episodes of one step with reward 5: V = 5. The padding has another reward.
    rewards = torch.full((200, 4), 1000.0)
    rewards[:, 0] = 5.0
    sampled = episodes(rewards, [1] * 200, [True] * 200)
    model = to_ppo(gaussian(), random_params(gaussian()), CONTINUOUS, gamma=0.9)
    fit_critic(model, sampled)
    torch.testing.assert_close(values(model, sampled), torch.full((200,), 5.0), rtol=0, atol=0.01)


@pytest.mark.parametrize("hidden_sizes", [(), (32, 32)])
def test_the_critic_learns_values_of_any_size_from_observations_of_any_scale(hidden_sizes):
    # One step each, with a reward that is linear in the observation.
    sampled = episodes(torch.zeros(500, 1), [1] * 500, [True] * 500)
    standard = sampled.observations / statistics()["std"]
    sampled = sampled._replace(rewards=3000 + 100 * standard[..., 2] - 200 * standard[..., 3])
    policy = gaussian(hidden_sizes=hidden_sizes)
    model = to_ppo(policy, random_params(policy), CONTINUOUS, seed=0)
    explained = fit_critic(model, sampled, steps=2500)
    assert explained > 0.97
    torch.testing.assert_close(values(model, sampled), sampled.rewards[:, 0], rtol=0, atol=200)


def test_one_step_is_enough_to_fit_a_critic():
    model = to_ppo(gaussian(), random_params(gaussian()), CONTINUOUS)
    sampled = episodes(torch.tensor([[3.0]]), [1], [True])
    fit_critic(model, sampled)
    assert values(model, sampled).item() == pytest.approx(3, abs=0.01)


def test_fitting_the_critic_leaves_the_policy_alone_and_follows_its_seed():
    policy = gaussian(**statistics())
    sampled = episodes(torch.rand(5, 8), [8, 3, 8, 1, 8], [False, True, False, True, False])
    fitted = []
    for _ in range(2):
        model = to_ppo(policy, random_params(policy), CONTINUOUS, seed=0)
        actor = [value.clone() for value in (*model.policy.mlp_extractor.policy_net.parameters(), model.policy.log_std)]
        fit_critic(model, sampled, seed=4)
        after = [*model.policy.mlp_extractor.policy_net.parameters(), model.policy.log_std]
        assert all(map(torch.equal, actor, after))
        fitted.append(values(model, sampled))
    assert torch.equal(*fitted)


# PPO to policies


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_a_policy_survives_the_way_to_ppo_and_back(make):
    policy = make(**statistics())
    params = random_params(policy)
    back, back_params = from_ppo(to_ppo(policy, params, CONTINUOUS if make is gaussian else DISCRETE))
    obs = observations()
    for ours, theirs in zip(policy(params, obs).parameters(), back(back_params, obs).parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, **TOLERANCE)
    assert back.activation == policy.activation
    for name, value in back.named_parameters():
        assert torch.equal(value, back_params[name])


def test_the_statistics_of_vec_normalize_become_those_of_the_policy():
    envs = VecNormalize(sb3_vec_env(vectorize(NAVIGATION, 4)), clip_obs=1.5)
    model = PPO("MlpPolicy", envs, n_steps=64, seed=0).learn(256)
    policy, params = from_ppo(model)
    obs = np.linspace(-3, 3, 40).reshape(20, 2)
    normalised = envs.normalize_obs(obs)
    assert np.abs(normalised).max() == 1.5
    expected = model.policy.get_distribution(torch.as_tensor(normalised, dtype=torch.float32)).distribution
    ours = policy(params, torch.as_tensor(obs, dtype=torch.float32))
    torch.testing.assert_close(ours.mean, expected.mean, **TOLERANCE)
    torch.testing.assert_close(ours.log_std.exp(), expected.stddev, **TOLERANCE)


def test_observations_that_vec_normalize_leaves_alone_are_left_alone():
    envs = VecNormalize(sb3_vec_env(vectorize(NAVIGATION, 4)), norm_obs=False)
    policy, _ = from_ppo(PPO("MlpPolicy", envs, n_steps=64))
    assert policy.clip is None
    assert torch.equal(policy.observation_mean, torch.zeros(2))


class Squared(ActorCriticPolicy):
    """A custom policy with the layers of an `MlpPolicy`."""

    def extract_features(self, obs: torch.Tensor, features_extractor: object = None) -> torch.Tensor:
        return super().extract_features(obs, features_extractor).square()


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        ("MlpPolicy", {"use_sde": True}),
        ("MlpPolicy", {"policy_kwargs": {"activation_fn": torch.nn.ELU}}),
        (Squared, {}),
    ],
    ids=["sde", "elu", "own class"],
)
def test_a_model_with_an_unsupported_policy_is_refused(policy, settings):
    with pytest.raises(InputError, match="expected a PPO model"):
        from_ppo(PPO(policy, CONTINUOUS, **settings))


def test_choices_that_do_not_start_at_0_are_refused():
    with pytest.raises(InputError, match="choices that begins at 0"):
        from_ppo(PPO("MlpPolicy", Still(OBSERVATIONS, Discrete(3, start=1))))


# Vector environments


def compared(ours: BatchVecEnv, theirs: DummyVecEnv, steps: int) -> int:
    """Steps both with the same actions, finds no difference, and returns how many episodes ended."""
    for envs in (ours, theirs):
        envs.seed(7)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ours.action_space.seed(0)
    ended = 0
    for _ in range(steps):
        actions = np.stack([ours.action_space.sample() for _ in range(ours.num_envs)])
        (obs, rewards, dones, infos), expected = ours.step(actions), theirs.step(actions)
        np.testing.assert_array_equal(obs, expected[0])
        np.testing.assert_array_equal(rewards, expected[1])
        assert rewards.dtype == expected[1].dtype
        np.testing.assert_array_equal(dones, expected[2])
        for info, expected_info in zip(infos, expected[3], strict=True):
            assert info.keys() == expected_info.keys()
            for name, value in info.items():
                np.testing.assert_array_equal(value, expected_info[name])
        ended += dones.sum()
    return ended


def dummy(env_id: str, tasks: list) -> DummyVecEnv:
    """Stable-Baselines3's own vector environment of single environments."""

    def make(task: object) -> Callable[[], gymnasium.Env]:
        def build() -> gymnasium.Env:
            env = gymnasium.make(env_id)
            env.unwrapped.task = task
            return env

        return build

    return DummyVecEnv([make(task) for task in tasks])


@pytest.mark.parametrize(
    ("env_id", "tasks", "steps"),
    [
        # The first goal is reached at once: an end that is not the time limit.
        (NAVIGATION, [np.zeros(2, np.float32), np.array([0.1, -0.2], np.float32), np.full(2, 0.5, np.float32)], 210),
        (CHEETAH, [np.int64(0), np.int64(1)], 205),
        (BANDIT, [np.full(5, 0.5, np.float32), np.linspace(0, 1, 5, dtype=np.float32)], 25),
    ],
)
def test_a_batch_behaves_like_stable_baselines3s_own_vector_environment(env_id, tasks, steps):
    envs = vectorize(env_id, len(tasks))
    envs.unwrapped.set_attr("task", tasks)
    assert compared(BatchVecEnv(envs), dummy(env_id, tasks), steps) >= len(tasks)


def test_both_ways_to_end_an_episode_are_reported():
    envs = BatchVecEnv(vectorize(NAVIGATION, 2))
    envs.set_attr("task", np.array([0.5, 0.5], np.float32))
    envs.set_attr("task", np.array([0.1, 0.1], np.float32), indices=0)
    envs.reset()
    actions = np.array([[1.0, 1.0], [-1.0, -1.0]])
    obs, rewards, dones, infos = envs.step(actions)
    assert dones.tolist() == [True, False]
    np.testing.assert_array_equal(infos[0]["terminal_observation"], [0.1, 0.1])
    assert infos[0]["TimeLimit.truncated"] is False
    np.testing.assert_array_equal(obs, [[0, 0], [-0.1, -0.1]])  # the first begins again
    assert rewards[1] == pytest.approx(infos[1]["reward_distance"])
    assert "terminal_observation" not in infos[1]
    for _ in range(99):
        _, _, dones, infos = envs.step(actions * 0)
    assert dones.tolist() == [False, True]
    assert infos[1]["TimeLimit.truncated"] is True


def test_an_environment_in_processes_is_stepped_too(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "environments")
    envs = sb3_vec_env(vectorize("plain_environments:WalkForTests-v0", 2, Processes(2, "spawn")))
    try:
        envs.set_attr("task", np.ones(1, np.float32), indices=[1])
        assert [float(task[0]) for task in envs.get_attr("task")] == [0.0, 1.0]
        envs.seed(0)
        envs.reset()
        ends = 0
        for _ in range(25):
            _, _, dones, infos = envs.step(np.ones((2, 1), np.float32))
            ends += dones.sum()
            assert all("episode" in info for info, done in zip(infos, dones, strict=True) if done)
        assert ends >= 4
    finally:
        envs.close()


def test_the_monitor_adds_up_whole_episodes():
    envs = sb3_vec_env(vectorize(BANDIT, 3))
    envs.seed(0)
    envs.reset()
    total = np.zeros(3)
    for _ in range(10):
        _, rewards, dones, infos = envs.step(np.zeros(3, np.int64))
        total += rewards
    assert dones.all()
    assert [info["episode"]["l"] for info in infos] == [10, 10, 10]
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], total)


def drawn_tasks(seed: int) -> tuple[list, list]:
    """Tasks of three environments in each of four rounds of ten-step episodes, as assigned and as observed."""
    envs = BatchVecEnv(vectorize(BANDIT, 3, observe_task=True), new_tasks=True)
    envs.seed(seed)
    obs = envs.reset()
    tasks, observed = [envs.get_attr("task")], [obs[:, 1:]]
    for _ in range(30):
        obs, _, dones, _ = envs.step(np.zeros(3, np.int64))
        if dones.any():
            tasks.append(envs.get_attr("task"))
            observed.append(obs[:, 1:])
    return tasks, observed


def test_every_episode_has_a_new_task_if_requested_and_the_observation_may_contain_it():
    tasks, observed = drawn_tasks(0)
    assert len(tasks) == 4
    space = vectorize(BANDIT, 1).unwrapped.task_space
    flat = np.array([[flatten(space, task) for task in of_round] for of_round in tasks])
    np.testing.assert_array_equal(flat, np.array(observed))
    assert len(np.unique(flat.reshape(12, -1), axis=0)) == 12
    assert all(space.contains(task) for of_round in tasks for task in of_round)
    np.testing.assert_array_equal(np.array(drawn_tasks(0)[1]), np.array(observed))
    assert not np.array_equal(np.array(drawn_tasks(1)[1]), np.array(observed))


def test_tasks_stay_unless_new_ones_are_requested():
    envs = BatchVecEnv(vectorize(BANDIT, 2))
    before = envs.get_attr("task")
    envs.reset()
    for _ in range(30):
        envs.step(np.zeros(2, np.int64))
    np.testing.assert_array_equal(envs.get_attr("task"), before)
    np.testing.assert_array_equal(envs.get_attr("task", indices=1), before[1:])


def test_environments_that_reset_themselves_are_refused(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "environments")
    with pytest.raises(InputError, match="resets itself"):
        BatchVecEnv(vectorize("plain_environments:WalkForTests-v0", 2))


def test_pictures_are_those_of_the_batch():
    envs = BatchVecEnv(vectorize(NAVIGATION, 2, render_mode="rgb_array"))
    envs.reset()
    assert envs.render_mode == "rgb_array"
    first, second = envs.get_images()
    np.testing.assert_array_equal(envs.render(), np.concatenate([first, second]))
    assert list(BatchVecEnv(vectorize(NAVIGATION, 2)).get_images()) == [None, None]


@pytest.mark.parametrize(
    "env_id",
    [NAVIGATION, CHEETAH, BANDIT, "maml_rl.envs:finn2017/AntVel-v0"],
)
def test_stable_baselines3s_checker_accepts_a_single_environment(env_id):
    check_env(gymnasium.make(env_id))  # its warnings are errors here


def envs_of(env_id: str) -> TaskVectorEnv:
    return vectorize(env_id, 4, observe_task=True)


@pytest.mark.parametrize(
    ("algorithm", "env_id", "settings"),
    [
        (PPO, NAVIGATION, {"n_steps": 64}),
        (PPO, BANDIT, {"n_steps": 64}),
        (SAC, NAVIGATION, {"learning_starts": 100, "policy_kwargs": {"net_arch": [8]}}),
        (DQN, BANDIT, {"learning_starts": 100}),
    ],
)
def test_algorithms_train_and_are_evaluated_on_a_batch(algorithm, env_id, settings):
    model = algorithm("MlpPolicy", sb3_vec_env(envs_of(env_id), new_tasks=True), seed=0, device="cpu", **settings)
    model.learn(512)
    assert len(model.ep_info_buffer) > 0
    returns, lengths = evaluate_policy(
        model, sb3_vec_env(envs_of(env_id)), n_eval_episodes=6, return_episode_rewards=True
    )
    assert len(returns) == 6
    assert set(lengths) <= set(range(1, 101))
