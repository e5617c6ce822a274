import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from maml_rl.advantages import (
    advantage_batch,
    baseline_features,
    discounted_sum,
    enough_episodes,
    explained_variance,
    generalised_advantages,
    left_out_explained_variance,
    linear_baseline,
    normalised,
    relative_spread,
)
from maml_rl.types import Trajectories

M, K, T, OBSERVATION, ACTION = 3, 4, 6, 2, 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(lengths: list[int], steps: int = T) -> Tensor:
    return (torch.arange(steps) < torch.tensor(lengths)[:, None]).double()


def test_discounted_sum_by_hand() -> None:
    # 3; 2 + 0.5 * 3 = 3.5; 1 + 0.5 * 3.5 = 2.75
    sums = discounted_sum(torch.tensor([1.0, 2.0, 3.0]), 0.5)
    assert torch.equal(sums, torch.tensor([2.75, 3.5, 3.0]))


@pytest.mark.parametrize("factor", [0.0, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("steps", [1, 127, 128, 129, 1000])
def test_discounted_sum_of_any_length_is_that_of_a_loop(steps: int, factor: float) -> None:
    values = torch.randn(2, steps, generator=torch.Generator().manual_seed(0))
    expected, running = [], torch.zeros(2, dtype=torch.float64)
    for t in reversed(range(steps)):
        running = values[:, t].double() + factor * running
        expected.append(running)
    sums = discounted_sum(values, factor)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), torch.stack(expected[::-1], 1), rtol=1e-5, atol=1e-4)


def test_discounted_sum_treats_every_row_separately() -> None:
    values = random(M, K, T)
    sums = discounted_sum(values, 0.9)
    assert sums.shape == values.shape
    assert torch.equal(sums[1, 2], discounted_sum(values[1, 2], 0.9))


@pytest.mark.parametrize(
    ("gae_lambda", "expected"),
    [
        # discount 1/2, V = 0.5, 1, 2: delta = 1 + 0.5 * 1 - 0.5 = 1, 2 + 0.5 * 2 - 1 = 2, 3 + 0 - 2 = 1
        (0.0, [1.0, 2.0, 1.0]),
        (0.5, [1.5625, 2.25, 1.0]),  # factor 1/4: 1; 2 + 1 / 4 = 2.25; 1 + 2.25 / 4 = 1.5625
        (1.0, [2.25, 2.5, 1.0]),  # discounted returns 2.75, 3.5, 3 minus V
    ],
)
def test_generalised_advantages_by_hand(gae_lambda: float, expected: list[float]) -> None:
    rewards, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    advantages = generalised_advantages(rewards, values, torch.ones(3), 0.5, gae_lambda)
    assert torch.equal(advantages, torch.tensor(expected))


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_the_value_after_the_end_is_zero_however_the_episode_ended(gae_lambda: float) -> None:
    # An episode of two steps: the last delta is r - V = 2 - 1, whatever stands in the padding after it.
    mask = torch.tensor([1.0, 1.0, 0.0])
    padded = generalised_advantages(
        torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.5, 1.0, 50.0]), mask, 0.5, gae_lambda
    )
    short = generalised_advantages(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0]), torch.ones(2), 0.5, gae_lambda)
    assert padded[1] == 1
    assert torch.equal(padded, torch.cat([short, torch.zeros(1)]))


def test_lambda_one_gives_discounted_returns_minus_values() -> None:
    rewards, values = random(K, T), random(K, T, seed=1)
    advantages = generalised_advantages(rewards, values, torch.ones(K, T), 0.97, 1.0)
    torch.testing.assert_close(advantages, discounted_sum(rewards, 0.97) - values)


def test_normalised_advantages_have_mean_zero_and_standard_deviation_one() -> None:
    mask = mask_of([6, 1, 4, 2])
    # With a spread of 7, dividing by the variance instead of the standard deviation would fail.
    result = normalised(7 * random(K, T) + 30, mask)[mask.bool()]
    torch.testing.assert_close(result.mean(), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(result.std(correction=0), torch.ones((), dtype=torch.float64))


def test_equal_advantages_are_normalised_to_zero() -> None:
    assert torch.equal(normalised(torch.full((K, T), 5.0), torch.ones(K, T)), torch.zeros(K, T))


def numpy_features(observations: np.ndarray) -> np.ndarray:
    """Features of one episode, written out."""
    time = np.arange(len(observations)) / 100
    clipped = np.clip(observations, -10, 10)
    return np.column_stack([clipped, clipped**2, time, time**2, time**3, np.ones(len(observations))])


def test_features_are_observations_squares_powers_of_time_and_one() -> None:
    observations = 8 * random(K, T, OBSERVATION)
    observations[0, 0] = torch.tensor([25.0, -25.0])
    features = baseline_features(observations)
    assert features.dtype == torch.float64
    np.testing.assert_allclose(features.numpy(), [numpy_features(episode) for episode in observations.numpy()])


def test_features_of_two_equal_episodes_are_equal() -> None:
    episode = random(T, OBSERVATION)
    first, second = baseline_features(torch.stack([episode, episode]))
    assert torch.equal(first, second)


@pytest.mark.parametrize("ridge", [1e-5, 1e-1, 10.0])
def test_the_baseline_is_the_ridge_solution_of_every_task(ridge: float) -> None:
    observations, returns = random(M, K, T, OBSERVATION), random(M, K, T, seed=1)
    mask = torch.stack([mask_of([6, 1, 4, 2]), mask_of([6, 6, 6, 6]), mask_of([3, 3, 5, 1])])
    values = linear_baseline(observations, returns, mask, ridge).values
    for m in range(M):
        steps = mask[m].bool().numpy()
        features = np.stack([numpy_features(episode) for episode in observations[m].numpy()])[steps]
        # min |X w - y|^2 + ridge |w|^2 is the least-squares solution of X stacked on sqrt(ridge) I.
        size = features.shape[1]
        augmented = np.vstack([features, ridge**0.5 * np.eye(size)])
        targets = np.concatenate([returns[m].numpy()[steps], np.zeros(size)])
        weights = np.linalg.lstsq(augmented, targets)[0]
        np.testing.assert_allclose(values[m].numpy()[steps], features @ weights, rtol=1e-6, atol=1e-8)
        assert (values[m].numpy()[~steps] == 0).all()


def test_the_ridge_coefficient_has_the_stated_effect() -> None:
    # Observations 0 and one step: the only feature that is not 0 is the constant, so V = sum y / (K + ridge).
    observations, returns = torch.zeros(4, 1, OBSERVATION), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    values = linear_baseline(observations, returns, torch.ones(4, 1), ridge=1.0).values
    torch.testing.assert_close(values, torch.full((4, 1), 10 / (4 + 1)))


def test_the_ridge_coefficient_is_small_unless_given() -> None:
    observations, returns, mask = random(M, K, T, 9), random(M, K, T, seed=1), torch.ones(M, K, T)
    expected = linear_baseline(observations, returns, mask, ridge=1e-5).values
    assert torch.equal(linear_baseline(observations, returns, mask).values, expected)
    assert not torch.equal(linear_baseline(observations, returns, mask, ridge=9.0).values, expected)


def test_baselines_of_tasks_are_fitted_separately() -> None:
    observations, returns, mask = random(M, K, T, OBSERVATION), random(M, K, T, seed=1), torch.ones(M, K, T)
    together = linear_baseline(observations, returns, mask).values
    for m in range(M):
        torch.testing.assert_close(together[m], linear_baseline(observations[m], returns[m], mask[m]).values)


def test_the_baseline_keeps_the_precision_of_the_returns() -> None:
    values = linear_baseline(random(K, T, OBSERVATION).float(), random(K, T).float(), torch.ones(K, T)).values
    assert values.dtype == torch.float32


def test_a_return_that_is_linear_in_the_features_is_fitted() -> None:
    observations = random(K, T, OBSERVATION)
    returns = baseline_features(observations) @ random(2 * OBSERVATION + 4, seed=1)
    mask = mask_of([6, 5, 6, 3])
    values = linear_baseline(observations, returns, mask, ridge=1e-10).values
    torch.testing.assert_close(values, returns * mask, rtol=1e-5, atol=1e-5)
    assert explained_variance(values, returns, mask).item() == pytest.approx(1, abs=1e-6)


def test_explained_variance_is_one_for_a_perfect_and_zero_for_a_constant_baseline() -> None:
    returns, mask = 3 + random(M, K, T), mask_of([6, 1, 4, 2]).expand(M, K, T)
    ones = torch.ones(M, dtype=torch.float64)
    torch.testing.assert_close(explained_variance(returns, returns, mask), ones)
    torch.testing.assert_close(explained_variance(torch.zeros(M, K, T), returns, mask), 0 * ones)
    torch.testing.assert_close(explained_variance(torch.full((M, K, T), 5.0), returns, mask), 0 * ones)


def test_explained_variance_by_hand() -> None:
    # Returns 0, 2, 4 have variance 8/3; residuals 0, 1, 0 have variance 1/3 - 1/9 = 2/9; 1 - (2/9) / (8/3) = 11/12.
    result = explained_variance(torch.tensor([[0.0, 1.0, 4.0]]), torch.tensor([[0.0, 2.0, 4.0]]), torch.ones(1, 3))
    assert result.item() == pytest.approx(11 / 12)


def test_explained_variance_rises_after_a_fit() -> None:
    observations, mask = random(M, 20, T, OBSERVATION), torch.ones(M, 20, T)
    returns = observations[..., 0] + 0.1 * random(M, 20, T, seed=1)
    fitted = explained_variance(linear_baseline(observations, returns, mask).values, returns, mask)
    before = explained_variance(torch.zeros_like(returns), returns, mask)
    assert (before < 1e-9).all()
    assert (fitted > 0.9).all()


@pytest.mark.parametrize("episodes", [2, 5, 6, 20])
def test_left_out_values_are_those_of_a_fit_to_the_other_episodes(episodes: int) -> None:
    observations, returns = random(episodes, T, OBSERVATION), random(episodes, T, seed=1)
    mask = mask_of([T, 3, 5, 2][:2] * (episodes // 2) + [T] * (episodes % 2))
    left_out = linear_baseline(observations, returns, mask, ridge=1e-3).left_out
    count = {2: 1, 5: 1, 6: 2, 20: 4}[episodes]  # a fifth, rounded up
    others = slice(0, episodes - count)
    padded = [torch.cat([values[others], torch.zeros_like(values[-count:])]) for values in (returns, mask)]
    # With no targets and mask 0, the last episodes do not enter the fit; in a second task their values are asked for.
    features = baseline_features(observations)
    rows = (features * padded[1][..., None]).flatten(0, 1)
    gram = rows.mT @ rows + 1e-3 * torch.eye(rows.shape[-1], dtype=rows.dtype)
    weights = torch.linalg.solve(gram, rows.mT @ (padded[0] * padded[1]).flatten())
    expected = (features[-count:] @ weights) * mask[-count:]
    assert left_out is not None
    torch.testing.assert_close(left_out, expected, rtol=1e-6, atol=1e-8)


def test_a_batch_keeps_the_episode_and_the_time_of_each_step() -> None:
    # Episodes of 2, 1, 3 and 1 steps, joined.
    batch, _ = advantage_batch(trajectories([2, 1, 3, 1], np.zeros((K, T))), 0.9, 1.0)
    assert batch.episodes.tolist() == [0, 0, 1, 2, 2, 2, 3]
    assert batch.times.tolist() == [0, 1, 0, 0, 1, 2, 0]
    assert batch.episodes.dtype == batch.times.dtype == torch.int64


def test_with_one_episode_nothing_is_left_out() -> None:
    assert linear_baseline(random(1, T, OBSERVATION), random(1, T), torch.ones(1, T)).left_out is None
    one = Trajectories(*(field[:1] for field in trajectories([6, 6, 6, 6], np.zeros((K, T)))))
    batch, measured = advantage_batch(one, 0.9, 1.0)
    assert set(measured) == {"baseline/explained_variance", "advantage/deviation"}
    assert batch.advantages.std(correction=0).item() == pytest.approx(1, rel=1e-3)
    batch, _ = advantage_batch(one._replace(rewards=torch.full((1, T), -1.0).double()), 0.9, 1.0)
    assert not batch.advantages.any()  # a cubic in time is not the return of equal rewards, but no action is better


def test_left_out_explained_variance_by_hand() -> None:
    # Returns 0, 4 and 2, 2 have variance 8/4 = 2. Values 3, 9 of the last, kept within 0 to 4, miss them by 1 and 2.
    returns = torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    result = left_out_explained_variance(torch.tensor([[3.0, 9.0]]), returns, torch.ones(2, 2))
    assert result.item() == pytest.approx(1 - 2.5 / 2)


def test_a_baseline_that_interpolates_noise_explains_none_of_left_out_returns() -> None:
    # 44 weights: 2 episodes of 20 steps are interpolated, 200 are not. Nothing in the returns can be predicted.
    for episodes, interpolated in ((2, True), (200, False)):
        observations, returns = random(episodes, 20, 20), random(episodes, 20, seed=1)
        mask = torch.ones(episodes, 20)
        values, left_out = linear_baseline(observations, returns, mask)
        assert left_out is not None
        assert (explained_variance(values, returns, mask).item() > 0.999) == interpolated
        assert left_out_explained_variance(left_out, returns, mask).item() < 0.1


@pytest.mark.parametrize(
    ("size", "horizon", "episodes"),
    [(2, 100, 5), (20, 200, 5), (125, 200, 7), (125, 50, 26), (10, 10, 12), (1, 10, 5)],
)
def test_enough_episodes_are_five_and_five_steps_for_each_feature(size: int, horizon: int, episodes: int) -> None:
    assert enough_episodes(size, horizon) == episodes


def test_relative_spread_by_hand() -> None:
    # Step 0: 1, 3, deviations -1, 1. Step 1: 2 alone. Variance (1 + 1) / (2 - 1); mean square (1 + 9 + 4) / 3.
    returns, mask = torch.tensor([[1.0, 2.0], [3.0, 9.0]]), mask_of([2, 1], 2)
    assert relative_spread(returns, mask).item() == pytest.approx((2 / (14 / 3)) ** 0.5)


def test_returns_of_zero_have_no_spread() -> None:
    assert relative_spread(torch.zeros(3, 4), torch.ones(3, 4)) == 0


@pytest.mark.parametrize("gae_lambda", [0.0, 0.97, 1.0])
@pytest.mark.parametrize("steps", [1, 10, 200, 1000])
@pytest.mark.parametrize("discount", [0.9, 0.99, 1.0])
def test_rewards_that_no_action_changes_give_no_advantage(discount: float, steps: int, gae_lambda: float) -> None:
    # A cubic in time misses the discounted return of -1 a step by up to a fifth of its variance. That is no signal.
    rewards = -torch.ones(5, steps) * (1 + torch.arange(steps) % 3)
    episodes = Trajectories(
        observations=random(5, steps, 3).float().cumsum(1),
        actions=random(5, steps, 1).float(),
        log_probs=random(5, steps).float(),
        rewards=rewards,
        mask=torch.ones(5, steps),
        terminated=torch.zeros(5, dtype=torch.bool),
    )
    batch, measured = advantage_batch(episodes, discount, gae_lambda)
    assert not batch.advantages.any()
    assert measured["return/relative_spread"].item() < 1e-6
    changed = rewards.clone()
    changed[2, steps // 2] += 1  # one reward of one episode
    batch, measured = advantage_batch(episodes._replace(rewards=changed), discount, gae_lambda)
    assert batch.advantages.std(correction=0).item() == pytest.approx(1, rel=0.02)
    assert measured["return/relative_spread"].item() > 1e-5


def test_episodes_that_end_at_different_times_differ_although_each_step_costs_the_same() -> None:
    episodes = trajectories([6, 1, 4, 2], np.zeros((K, T)))
    batch, measured = advantage_batch(episodes._replace(rewards=-torch.ones(K, T).double()), 0.99, 1.0)
    assert batch.advantages.std(correction=0).item() == pytest.approx(1)
    assert measured["return/relative_spread"].item() > 0.1


@pytest.mark.parametrize("exponent", [-120, -40, -20, 20, 80, 120])
def test_advantages_do_not_depend_on_the_unit_of_rewards(exponent: int) -> None:
    doubles = trajectories([6, 1, 4, 2], np.zeros((K, T)))
    episodes = Trajectories(*(field.float() if field.is_floating_point() else field for field in doubles))
    expected, expected_measured = advantage_batch(episodes, 0.9, 0.5)
    batch, measured = advantage_batch(episodes._replace(rewards=episodes.rewards * 2.0**exponent), 0.9, 0.5)
    torch.testing.assert_close(batch.advantages, expected.advantages)
    expected_measured["advantage/deviation"] *= 2.0**exponent  # which has the unit of rewards
    for name, value in measured.items():
        torch.testing.assert_close(value, expected_measured[name], rtol=1e-5, atol=0)


def trajectories(lengths: list[int], padding: np.ndarray) -> Trajectories:
    """Episodes of one task whose padding holds `padding` `[K, T]` in every field."""
    mask, filling = mask_of(lengths), torch.tensor(padding)

    def padded(values: Tensor) -> Tensor:
        shape = (K, T, *[1] * (values.dim() - 2))
        return torch.where(mask.bool().view(shape), values, filling.view(shape))

    return Trajectories(
        observations=padded(random(K, T, OBSERVATION)),
        actions=padded(random(K, T, ACTION, seed=1)),
        log_probs=padded(random(K, T, seed=2)),
        rewards=padded(random(K, T, seed=3)),
        mask=mask,
        terminated=torch.zeros(K, dtype=torch.bool),
    )


lengths = st.lists(st.integers(1, T), min_size=K, max_size=K)
garbage = hnp.arrays(np.float64, (K, T), elements=st.floats(-1e30, 1e30))


@settings(max_examples=50, deadline=None)
@given(lengths, garbage, st.sampled_from([0.0, 0.5, 1.0]))
def test_padding_never_changes_batch_or_what_is_logged(lengths, garbage, gae_lambda: float) -> None:
    expected, expected_measured = advantage_batch(trajectories(lengths, np.zeros((K, T))), 0.9, gae_lambda)
    batch, measured = advantage_batch(trajectories(lengths, garbage), 0.9, gae_lambda)
    assert all(torch.equal(ours, other) for ours, other in zip(batch, expected, strict=True))
    assert measured == expected_measured


@settings(max_examples=50, deadline=None)
@given(lengths, garbage, garbage)
def test_padding_never_changes_any_single_function(lengths, garbage, other) -> None:
    mask = mask_of(lengths)
    filled = [torch.where(mask.bool(), random(K, T, seed=s), torch.tensor(g)) for s, g in ((0, garbage), (1, other))]
    zeroed = [values * mask for values in filled]
    observations = torch.where(mask.bool()[..., None], random(K, T, OBSERVATION), torch.tensor(garbage)[..., None])
    for function, ours, clean in [
        (generalised_advantages, (*filled, mask, 0.9, 0.5), (*zeroed, mask, 0.9, 0.5)),
        (normalised, (filled[0], mask), (zeroed[0], mask)),
        (explained_variance, (*filled, mask), (*zeroed, mask)),
        (left_out_explained_variance, (filled[0][-1:], filled[1], mask), (zeroed[0][-1:], zeroed[1], mask)),
        (relative_spread, (filled[0], mask), (zeroed[0], mask)),
    ]:
        assert torch.equal(function(*ours), function(*clean)), function.__name__
    clean = linear_baseline(observations * mask[..., None], zeroed[0], mask)
    for ours, others in zip(linear_baseline(observations, filled[0], mask), clean, strict=True):
        assert torch.equal(ours, others)


def test_a_batch_holds_the_steps_of_all_episodes_in_order_and_no_padding() -> None:
    episodes = trajectories([6, 1, 4, 2], np.full((K, T), 99.0))
    batch, _ = advantage_batch(episodes, 0.9, 1.0)
    assert len(batch.advantages) == 6 + 1 + 4 + 2
    assert torch.equal(batch.log_probs[6:7], episodes.log_probs[1, :1])
    assert torch.equal(batch.observations[7:11], episodes.observations[2, :4])
    assert torch.equal(batch.actions[11:], episodes.actions[3, :2])


def test_advantages_of_a_batch_are_those_of_returns_minus_baseline_normalised() -> None:
    episodes = trajectories([6, 1, 4, 2], np.zeros((K, T)))
    mask, rewards = episodes.mask, episodes.rewards
    returns = discounted_sum(rewards, 0.9)
    residuals = (returns - linear_baseline(episodes.observations, returns, mask).values)[mask.bool()]
    batch, measured = advantage_batch(episodes, 0.9, 1.0)
    torch.testing.assert_close(batch.advantages, (residuals - residuals.mean()) / residuals.std(correction=0))
    torch.testing.assert_close(measured["advantage/deviation"], residuals.std(correction=0))
    assert batch.advantages.std(correction=0).item() == pytest.approx(1)


def test_discrete_actions_keep_their_shape_and_type() -> None:
    episodes = trajectories([6, 1, 4, 2], np.zeros((K, T)))._replace(actions=torch.ones(K, T, dtype=torch.int64))
    batch, _ = advantage_batch(episodes, 0.9, 1.0)
    assert batch.actions.shape == (13,)
    assert batch.actions.dtype == torch.int64
