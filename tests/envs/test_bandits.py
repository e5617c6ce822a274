"""Multi-armed bandits, against the means of their distributions."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import VectorEnv
from scipy import stats

from maml_rl.envs.bandits import Bandit

BERNOULLI, GAUSSIAN = "maml_rl.envs:duan2016/BernoulliBandit-v0", "maml_rl.envs:duan2016/GaussianBandit-v0"
PULLS = 10
MEANS = np.array([0.0, 0.1, 0.5, 0.75, 1.0], np.float32)
every_bandit = pytest.mark.parametrize("env_id", [BERNOULLI, GAUSSIAN])


def bandits(env_id: str, count: int, means: np.ndarray = MEANS, seed: int = 0) -> VectorEnv:
    """Bandits with these arms at the start of an episode."""
    batch = gymnasium.make_vec(env_id, count)
    batch.set_attr("task", means)
    batch.reset(seed=seed)
    return batch


def rewards_of(batch: VectorEnv, arms: np.ndarray) -> np.ndarray:
    """Rewards `[num_envs, pulls]` of an episode in which each bandit's arms `[num_envs, pulls]` are pulled."""
    return np.stack([batch.step(pulled)[1] for pulled in arms.T], axis=1)


@every_bandit
def test_spaces_are_those_of_the_definition(env_id):
    env = gymnasium.make(env_id).unwrapped
    assert env.observation_space == Box(0.0, 1.0, (1,), np.float64)
    assert env.action_space == Discrete(5)
    assert env.task_space == Box(0.0, 1.0, (5,), np.float32)


@every_bandit
def test_the_observation_is_one_whatever_happens(env_id):
    batch = gymnasium.make_vec(env_id, 3)
    observations, _ = batch.reset(seed=0)
    np.testing.assert_array_equal(observations, 1.0)
    for arm in range(5):
        np.testing.assert_array_equal(batch.step(np.full(3, arm))[0], 1.0)


each_arm = pytest.mark.parametrize(("arm", "mean"), list(enumerate(MEANS.tolist())))


@each_arm
def test_a_bernoulli_arm_pays_one_with_its_probability(arm, mean):
    # 4000 episodes of 10 pulls: the mean has a standard error of sqrt(p (1 - p) / 40000), at most 0.0025 and 0 for the
    # arms that never and always pay.
    rewards = rewards_of(bandits(BERNOULLI, 4000), np.full((4000, PULLS), arm))
    assert set(np.unique(rewards)) <= {0.0, 1.0}
    assert rewards.mean() == pytest.approx(mean, abs=4 * (mean * (1 - mean) / rewards.size) ** 0.5)


@each_arm
def test_a_gaussian_arm_pays_its_mean_with_unit_variance(arm, mean):
    rewards = rewards_of(bandits(GAUSSIAN, 1000), np.full((1000, PULLS), arm))
    assert stats.kstest(rewards.ravel(), stats.norm(mean, 1).cdf).pvalue > 1e-3


@every_bandit
def test_pulls_of_an_episode_are_independent(env_id):
    rewards = rewards_of(bandits(env_id, 4000), np.full((4000, PULLS), 2))
    correlations = np.corrcoef(rewards.T)[np.triu_indices(PULLS, 1)]
    # 45 correlations of 4000 pairs, each with a standard error of 1 / sqrt(4000) = 0.016.
    assert np.abs(correlations).max() < 4 / 4000**0.5


@every_bandit
def test_a_policy_returns_the_mean_of_the_arms_that_it_pulls(env_id):
    policy = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    arms = np.random.default_rng(0).choice(5, (4000, PULLS), p=policy)
    returns = rewards_of(bandits(env_id, 4000), arms).sum(1)
    # 10 (0.2 * 0.1 + 0.3 * 0.5 + 0.3 * 0.75 + 0.1 * 1) = 4.95
    assert policy @ MEANS * PULLS == pytest.approx(4.95)
    assert returns.mean() == pytest.approx(4.95, abs=4 * returns.std() / 4000**0.5)


@every_bandit
def test_random_arms_return_half_the_pulls_and_the_best_arm_five_sixths(env_id):
    # Over tasks. The largest of k uniform numbers has mean k / (k + 1).
    count = 4000
    batch = gymnasium.make_vec(env_id, count)
    batch.task_space.seed(1)
    tasks = [batch.task_space.sample() for _ in range(count)]
    batch.set_attr("task", tasks)
    random_arms = np.random.default_rng(0).integers(5, size=(count, PULLS))
    best_arms = np.repeat(np.argmax(tasks, axis=1)[:, None], PULLS, axis=1)
    for arms, mean in ((random_arms, PULLS / 2), (best_arms, PULLS * 5 / 6)):
        batch.reset(seed=0)
        returns = rewards_of(batch, arms).sum(1)
        assert returns.mean() == pytest.approx(mean, abs=4 * returns.std() / count**0.5)


@every_bandit
def test_an_episode_is_a_function_of_its_seed(env_id):
    arms = np.full((3, PULLS), 2)
    first = rewards_of(bandits(env_id, 3, seed=5), arms)
    np.testing.assert_array_equal(rewards_of(bandits(env_id, 3, seed=5), arms), first)
    assert not np.array_equal(rewards_of(bandits(env_id, 3, seed=8), arms), first)
    batch = bandits(env_id, 3, seed=5)
    batch.reset()  # continues its generators
    assert not np.array_equal(rewards_of(batch, arms), first)


@every_bandit
def test_a_time_limit_beyond_the_pulls_that_were_drawn_is_refused(env_id):
    longer = gymnasium.make(env_id, max_episode_steps=12)
    longer.reset(seed=0)
    for _ in range(PULLS):
        longer.step(0)
    with pytest.raises(ValueError, match=r"10 pulls.*pulls="):
        longer.step(0)
    longer = gymnasium.make(env_id, max_episode_steps=12, pulls=12)
    longer.reset(seed=0)
    assert [longer.step(0)[3] for _ in range(12)] == [False] * 11 + [True]


def test_the_number_of_arms_can_be_chosen():
    env = gymnasium.make(BERNOULLI, arms=50).unwrapped
    assert env.action_space == Discrete(50)
    assert env.task_space.shape == (50,)
    env.reset(seed=0)
    assert env.step(49)[1] in (0.0, 1.0)


def test_unknown_rewards_are_refused():
    with pytest.raises(ValueError, match="'bernoulli' or 'gaussian', got 'poisson'"):
        Bandit("poisson")


def test_the_picture_shows_a_bar_as_high_as_each_mean():
    mdp = Bandit("bernoulli", arms=5)
    picture = mdp.render(mdp.initial([np.random.default_rng(0)])[0], MEANS)
    height, width = picture.shape[0], picture.shape[1] // 5
    blue = (picture == (0x1F, 0x77, 0xB4)).all(-1)
    for arm, mean in enumerate(MEANS):
        column = blue[:, arm * width + width // 2]
        assert column.sum() == pytest.approx(mean * height, abs=1)
        assert not column[: height - column.sum()].any()  # it stands on the ground
