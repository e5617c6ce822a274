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
    explained_variance,
    generalised_advantages,
    linear_baseline,
    normalised,
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


def test_discounted_sum_takes_every_row_for_itself() -> None:
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
    # A spread of 7 tells division by the standard deviation from division by the variance.
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
    values = linear_baseline(observations, returns, mask, ridge)
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


def test_the_ridge_coefficient_is_what_it_says() -> None:
    # Observations 0 and one step: the only feature that is not 0 is the constant, so V = sum y / (K + ridge).
    observations, returns = torch.zeros(4, 1, OBSERVATION), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    values = linear_baseline(observations, returns, torch.ones(4, 1), ridge=1.0)
    torch.testing.assert_close(values, torch.full((4, 1), 10 / (4 + 1)))


def test_the_ridge_coefficient_is_small_unless_given() -> None:
    observations, returns, mask = random(M, K, T, 9), random(M, K, T, seed=1), torch.ones(M, K, T)
    expected = linear_baseline(observations, returns, mask, ridge=1e-5)
    assert torch.equal(linear_baseline(observations, returns, mask), expected)
    assert not torch.equal(linear_baseline(observations, returns, mask, ridge=9.0), expected)


def test_baselines_of_tasks_are_fitted_apart() -> None:
    observations, returns, mask = random(M, K, T, OBSERVATION), random(M, K, T, seed=1), torch.ones(M, K, T)
    together = linear_baseline(observations, returns, mask)
    for m in range(M):
        torch.testing.assert_close(together[m], linear_baseline(observations[m], returns[m], mask[m]))


def test_the_baseline_keeps_the_precision_of_the_returns() -> None:
    values = linear_baseline(random(K, T, OBSERVATION).float(), random(K, T).float(), torch.ones(K, T))
    assert values.dtype == torch.float32


def test_a_return_that_is_linear_in_the_features_is_fitted() -> None:
    observations = random(K, T, OBSERVATION)
    returns = baseline_features(observations) @ random(2 * OBSERVATION + 4, seed=1)
    mask = mask_of([6, 5, 6, 3])
    values = linear_baseline(observations, returns, mask, ridge=1e-10)
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
    fitted = explained_variance(linear_baseline(observations, returns, mask), returns, mask)
    before = explained_variance(torch.zeros_like(returns), returns, mask)
    assert (before < 1e-9).all()
    assert (fitted > 0.9).all()


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
def test_padding_never_changes_batch_or_explained_variance(lengths, garbage, gae_lambda: float) -> None:
    expected, expected_variance = advantage_batch(trajectories(lengths, np.zeros((K, T))), 0.9, gae_lambda)
    batch, variance = advantage_batch(trajectories(lengths, garbage), 0.9, gae_lambda)
    assert all(torch.equal(ours, other) for ours, other in zip(batch, expected, strict=True))
    assert torch.equal(variance, expected_variance)


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
        (linear_baseline, (observations, filled[0], mask), (observations * mask[..., None], zeroed[0], mask)),
    ]:
        assert torch.equal(function(*ours), function(*clean)), function.__name__


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
    residuals = (returns - linear_baseline(episodes.observations, returns, mask))[mask.bool()]
    batch, _ = advantage_batch(episodes, 0.9, 1.0)
    torch.testing.assert_close(batch.advantages, (residuals - residuals.mean()) / residuals.std(correction=0))
    assert batch.advantages.std(correction=0).item() == pytest.approx(1)


def test_discrete_actions_keep_their_shape_and_type() -> None:
    episodes = trajectories([6, 1, 4, 2], np.zeros((K, T)))._replace(actions=torch.ones(K, T, dtype=torch.int64))
    batch, _ = advantage_batch(episodes, 0.9, 1.0)
    assert batch.actions.shape == (13,)
    assert batch.actions.dtype == torch.int64
