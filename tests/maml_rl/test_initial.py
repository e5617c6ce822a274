"""The policy before training: its weights, and the statistics of observations that it starts with."""

from contextlib import closing
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from maml_rl.config import PolicyConfig, RLMeta
from maml_rl.initial import build_policy, initial_policy, parameters
from maml_rl.policies import CategoricalMLP, GaussianMLP
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import task_space, training_tasks, vectorize
from maml_rl.types import repeat

CHOICES, MATRIX = "InitialChoicesForTests-v0", "InitialMatrixForTests-v0"
NAVIGATION, DIRECTION = "maml_rl.envs:finn2017/Navigation2D-v0", "maml_rl.envs:finn2017/HalfCheetahDir-v0"
CONFIG = PolicyConfig(hidden_sizes=(8, 8))
META = RLMeta(meta_batch_size=3, episodes=4)


class Short(gymnasium.Env):
    """Ends after `task` + 1 steps. Observations: the constant 5, a random number around 3, and the step."""

    def __init__(self, action_space: spaces.Space, shape: tuple[int, ...] = (3,)) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.action_space = action_space
        self.task_space = spaces.Discrete(4)
        self.task = 0

    def _observation(self) -> np.ndarray:
        three = [5.0, self.np_random.normal(3.0, 2.0), float(self._step)]
        return np.resize(np.array(three, np.float32), self.observation_space.shape)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self._step = 0
        return self._observation(), {}

    def step(self, action: object) -> tuple:
        self._step += 1
        return self._observation(), 1.0, self._step > self.task, False, {}


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Registers the small environments of this module while it runs."""
    gymnasium.register(CHOICES, Short, max_episode_steps=6, kwargs={"action_space": spaces.Discrete(3)})
    box = spaces.Box(-1.0, 1.0, (2, 2), np.float32)
    gymnasium.register(MATRIX, Short, max_episode_steps=6, kwargs={"action_space": box, "shape": (2, 3)})
    yield
    for name in (CHOICES, MATRIX):
        del gymnasium.registry[name]


def make(env_id: str, num_envs: int = 12, **settings: object):
    return closing(vectorize(env_id, num_envs, **settings))


def own_observations(envs, seed: int, meta: RLMeta = META, config: PolicyConfig = CONFIG) -> np.ndarray:
    """Observations `[steps, obs]` of the policy with random weights, without padding."""
    policy = build_policy(envs, config, seed)
    draw = Draw(seed, Phase.STANDARDISATION)
    tasks = training_tasks(task_space(envs), meta.meta_batch_size, draw)
    sampled = collect(envs, policy, repeat(parameters(policy), len(tasks)), tasks, meta.episodes, draw)
    return sampled.observations.numpy()[sampled.mask.numpy() == 1].astype(np.float64)


def test_statistics_are_those_of_the_initial_policys_episodes():
    with make(NAVIGATION) as envs:
        policy = initial_policy(envs, CONFIG, META, seed=4)
        observations = own_observations(envs, 4)
        assert observations.shape == (3 * 4 * 100, 2)
    np.testing.assert_allclose(policy.observation_mean, observations.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(policy.observation_std, observations.std(0, ddof=1), rtol=1e-4)


def test_padding_is_left_out_and_a_dimension_that_does_not_vary_keeps_scale_one():
    with make(CHOICES) as envs:
        policy = initial_policy(envs, CONFIG, META, seed=0)
        observations = own_observations(envs, 0)
    assert len(observations) < 3 * 4 * 6  # there is padding
    mean, std = policy.observation_mean.numpy(), policy.observation_std.numpy()
    assert mean[0] == 5.0  # padding would draw it towards zero
    assert std[0] == 1.0
    np.testing.assert_allclose(mean, observations.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std[1:], observations.std(0, ddof=1)[1:], rtol=1e-5)


def test_a_standardised_observation_has_mean_0_and_standard_deviation_1():
    with make(DIRECTION, max_episode_steps=30) as envs:
        policy = initial_policy(envs, CONFIG, META, seed=0)
        standardised = (own_observations(envs, 0) - policy.observation_mean.numpy()) / policy.observation_std.numpy()
    np.testing.assert_allclose(standardised.mean(0), 0, atol=1e-3)
    sideways = 18  # of the centre of mass, which a half-cheetah cannot move sideways
    assert policy.observation_std[sideways] == 1.0
    np.testing.assert_allclose(np.delete(standardised.std(0), sideways), 1, atol=2e-3)


def test_the_policy_uses_the_statistics():
    with make(NAVIGATION) as envs:
        plain, standardising = build_policy(envs, CONFIG, 0), initial_policy(envs, CONFIG, META, 0)
    observations = torch.tensor([[0.3, -0.2], [1.0, 2.0]])
    inside = (observations - standardising.observation_mean) / standardising.observation_std
    theta = parameters(plain)
    torch.testing.assert_close(standardising(theta, observations).mean, plain(theta, inside).mean)
    assert not torch.allclose(standardising(theta, observations).mean, plain(theta, observations).mean)


def test_statistics_of_noise_are_of_actions_that_ignore_the_observation():
    noise = replace(CONFIG, statistics_of="noise")
    with make(NAVIGATION) as envs:
        policy = initial_policy(envs, noise, META, seed=4)
        plain = build_policy(envs, CONFIG, 4)
        zero = parameters(plain) | {"weight_2": torch.zeros(2, 8)}  # the mean action is 0 everywhere
        draw = Draw(4, Phase.STANDARDISATION)
        tasks = training_tasks(task_space(envs), META.meta_batch_size, draw)
        sampled = collect(envs, plain, repeat(zero, len(tasks)), tasks, META.episodes, draw)
    observations = sampled.observations[sampled.mask.bool()].double()
    torch.testing.assert_close(policy.observation_mean.double(), observations.mean(0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(policy.observation_std.double(), observations.std(0), rtol=1e-6, atol=0)
    assert all(torch.equal(value, parameters(plain)[name]) for name, value in parameters(policy).items())


def test_without_standardisation_shift_is_0_and_scale_1():
    with make(NAVIGATION) as envs:
        policy = initial_policy(envs, replace(CONFIG, standardise=False), META, seed=0)
    assert torch.equal(policy.observation_mean, torch.zeros(2))
    assert torch.equal(policy.observation_std, torch.ones(2))


@pytest.mark.parametrize("env_id", [NAVIGATION, CHOICES])
def test_the_policy_is_a_function_of_the_seed(env_id):
    with make(env_id) as envs, make(env_id, 5) as others:
        first = initial_policy(envs, CONFIG, META, seed=1).state_dict()
        torch.manual_seed(0)
        again = initial_policy(others, CONFIG, META, seed=1).state_dict()
        different = initial_policy(envs, CONFIG, META, seed=2).state_dict()
    assert first.keys() == again.keys() == different.keys()
    for name, value in first.items():
        torch.testing.assert_close(again[name], value, rtol=1e-5, atol=1e-6)
        if "weight" in name:
            assert torch.equal(again[name], value)
            assert not torch.isclose(different[name], value).any()


def test_standardisation_leaves_the_weights_alone():
    with make(NAVIGATION) as envs:
        plain, standardising = build_policy(envs, CONFIG, 3), initial_policy(envs, CONFIG, META, 3)
    expected = parameters(plain)
    assert expected.keys() == parameters(standardising).keys()
    assert all(torch.equal(value, expected[name]) for name, value in parameters(standardising).items())


def test_weights_are_glorot_uniform_and_biases_zero():
    with make(NAVIGATION) as envs:
        theta = parameters(build_policy(envs, PolicyConfig(hidden_sizes=(300, 200)), seed=0))
    bound = (6 / 500) ** 0.5
    assert theta["weight_1"].shape == (200, 300)
    assert theta["weight_1"].abs().max() <= bound
    assert theta["weight_1"].std() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert all(not value.any() for name, value in theta.items() if "bias" in name)


@pytest.mark.parametrize(
    ("env_id", "kind", "first", "last", "noise_size"),
    [
        (NAVIGATION, GaussianMLP, (8, 2), (2, 8), 2),
        (DIRECTION, GaussianMLP, (8, 20), (6, 8), 6),
        (MATRIX, GaussianMLP, (8, 6), (4, 8), 4),  # a matrix of observations and of actions, flattened
        (CHOICES, CategoricalMLP, (8, 3), (3, 8), 3),
    ],
)
def test_kind_and_sizes_of_the_policy_follow_the_spaces(env_id, kind, first, last, noise_size):
    with make(env_id) as envs:
        policy = build_policy(envs, CONFIG, seed=0)
    assert type(policy) is kind
    theta = parameters(policy)
    assert theta["weight_0"].shape == first
    assert theta["weight_2"].shape == last
    assert policy.noise_size == noise_size
    assert ("log_std" in theta) == (kind is GaussianMLP)


def test_settings_reach_the_policy():
    config = PolicyConfig(hidden_sizes=(5,), activation="tanh", initial_std=0.5, observation_clip=2.0)
    with make(NAVIGATION) as envs:
        policy = initial_policy(envs, config, META, seed=0)
    assert policy.activation == "tanh"
    assert policy.clip == 2.0
    torch.testing.assert_close(parameters(policy)["log_std"].exp(), torch.full((2,), 0.5))
    assert set(parameters(policy)) == {"weight_0", "bias_0", "weight_1", "bias_1", "log_std"}


def test_parameters_are_copies():
    with make(NAVIGATION) as envs:
        policy = build_policy(envs, CONFIG, seed=0)
    theta = parameters(policy)
    assert not any(value.requires_grad for value in theta.values())
    theta["weight_0"].zero_()
    assert policy.weight_0.any()
