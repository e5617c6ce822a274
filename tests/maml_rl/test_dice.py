"""Loaded DiCE on single steps, whose probabilities are the parameters themselves, and on episodes of unequal length."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_rl.config import RLMeta
from maml_rl.dice import loaded_dice
from maml_rl.objectives import PolicyLoss, inner_loss, likelihood_ratio
from maml_rl.policies import GaussianMLP
from maml_rl.types import Batch, flatten, unflatten

LAMBDAS = pytest.mark.parametrize("dice_lambda", [0.0, 0.3, 1.0])
EPISODES = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2, 2])  # of 4, 1 and 5 steps
TIMES = torch.tensor([0, 1, 2, 3, 0, 0, 1, 2, 3, 4])


class Known(NamedTuple):
    """A distribution whose log-probabilities are given."""

    log_probs: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.log_probs[actions]


def known_batch(advantages: Tensor) -> Batch:
    actions = torch.arange(len(EPISODES))
    return Batch(actions[:, None], actions, torch.linspace(-2, -1, len(actions)).double(), advantages, EPISODES, TIMES)


@LAMBDAS
def test_the_hessian_by_log_probabilities_by_hand(dice_lambda: float) -> None:
    # With log pi_t itself as parameter t, g_t is the unit vector e_t and h_t = 0, so that the Hessian of -N times the
    # loss is A_t in place (t, t), and lambda^(t-k) A_t in places (t, k) and (k, t) of one episode with k < t.
    advantages = torch.arange(1.0, 11.0).double()
    batch = known_batch(advantages)
    expected = torch.zeros(10, 10).double()
    for t in range(10):
        for k in range(10):
            if EPISODES[t] == EPISODES[k] and TIMES[k] <= TIMES[t]:
                expected[t, k] = expected[k, t] = dice_lambda ** (TIMES[t] - TIMES[k]).item() * advantages[t]
    hessian = torch.autograd.functional.hessian(
        lambda log_probs: -10 * loaded_dice(Known(log_probs), batch, dice_lambda), batch.log_probs
    )
    torch.testing.assert_close(hessian, expected)


@LAMBDAS
def test_value_and_gradient_where_the_steps_were_sampled_are_those_of_every_inner_loss(dice_lambda: float) -> None:
    batch = known_batch(torch.linspace(-1, 3, 10).double())
    gradient, value = torch.func.grad_and_value(lambda p: loaded_dice(Known(p), batch, dice_lambda))(batch.log_probs)
    assert value.item() == pytest.approx(-1)  # the mean of -1, ..., 3
    torch.testing.assert_close(gradient, -batch.advantages / 10)


def network_case() -> tuple[GaussianMLP, Tensor, Batch]:
    policy = GaussianMLP(3, 2, hidden_sizes=(4,), activation="tanh", generator=np.random.default_rng(0)).double()
    generator = np.random.default_rng(1)
    observations, actions = (torch.tensor(generator.standard_normal((10, size))) for size in (3, 2))
    params = {name: value.detach() for name, value in policy.named_parameters()}
    log_probs, advantages = policy(params, observations).log_prob(actions), torch.tensor(generator.standard_normal(10))
    return policy, flatten(params), Batch(observations, actions, log_probs, advantages, EPISODES, TIMES)


def loss_and_hessian(dice_lambda: float, batch: Batch) -> tuple[Tensor, Tensor]:
    policy, vector, _ = network_case()
    params = dict(policy.named_parameters())
    loss = PolicyLoss(policy, partial(loaded_dice, dice_lambda=dice_lambda))

    def of_vector(vector: Tensor) -> Tensor:
        return loss(unflatten(vector, params), batch)

    return of_vector(vector), torch.autograd.functional.hessian(of_vector, vector)


@LAMBDAS
def test_the_hessian_by_parameters_is_that_of_the_formula(dice_lambda: float) -> None:
    policy, vector, batch = network_case()
    params = dict(policy.named_parameters())

    def log_probs(v: Tensor) -> Tensor:
        return policy(unflatten(v, params), batch.observations).log_prob(batch.actions)

    scores, second = torch.func.jacrev(log_probs)(vector), torch.func.jacrev(torch.func.jacrev(log_probs))(vector)
    expected = torch.zeros_like(second[0])
    for t in range(10):
        earlier = torch.zeros_like(vector)
        for k in range(t):
            if EPISODES[k] == EPISODES[t]:
                earlier = earlier + dice_lambda ** (TIMES[t] - TIMES[k]).item() * scores[k]
        cross = torch.outer(scores[t], earlier)
        curvature = second[t] + torch.outer(scores[t], scores[t]) + cross + cross.T
        expected = expected - batch.advantages[t] * curvature / 10
    torch.testing.assert_close(loss_and_hessian(dice_lambda, batch)[1], expected)


@LAMBDAS
def test_the_order_of_steps_and_the_numbers_of_episodes_do_not_matter(dice_lambda: float) -> None:
    batch = network_case()[2]
    order = torch.from_numpy(np.random.default_rng(2).permutation(10))
    mixed = Batch(*(field[order] for field in batch))
    renamed = mixed._replace(episodes=torch.tensor([7, 2, 4])[mixed.episodes])
    for one, other in zip(loss_and_hessian(dice_lambda, batch), loss_and_hessian(dice_lambda, renamed), strict=True):
        torch.testing.assert_close(one, other)


def test_with_lambda_0_it_equals_the_likelihood_ratio_everywhere_bit_for_bit() -> None:
    policy, vector, batch = network_case()
    params = unflatten(vector + 0.3, dict(policy.named_parameters()))
    distribution = policy(params, batch.observations)
    assert torch.equal(loaded_dice(distribution, batch, 0.0), likelihood_ratio(distribution, batch))
    assert not torch.equal(loaded_dice(distribution, batch, 0.1), likelihood_ratio(distribution, batch))


def test_long_episodes_do_not_overflow_in_single_precision() -> None:
    # 1000 steps in one episode: with lambda = 1 the last one looks back on 999 others, whose log-probabilities are all
    # higher by 1. rho + d V is e + 999 there, and e + t at time t, so that the mean over 1000 steps is e + 499.5.
    times = torch.arange(1000)
    batch = Batch(times[:, None], times, torch.zeros(1000), torch.ones(1000), 0 * times, times)
    loss = loaded_dice(Known(torch.ones(1000)), batch, 1.0)
    assert loss.item() == pytest.approx(-(np.e + 499.5), rel=1e-5)


def test_away_from_the_sampling_parameters_reinforce_weights_no_step_and_dice_weights_each_by_its_past() -> None:
    policy, vector, batch = network_case()
    moved = unflatten(vector + 0.3, dict(policy.named_parameters()))
    scores = torch.func.jacrev(lambda p: policy(p, batch.observations).log_prob(batch.actions))(moved)
    gradients = {
        config.inner_objective: torch.func.grad(inner_loss(policy, config))(moved, batch)
        for config in (RLMeta(), RLMeta(inner_objective="lvc"), RLMeta(inner_objective="dice", dice_lambda=1.0))
    }
    # The gradient of REINFORCE is the mean of scores times advantages, as where the steps were sampled.
    for name, value in scores.items():
        expected = -torch.einsum("n,n...->...", batch.advantages, value) / 10
        torch.testing.assert_close(gradients["reinforce"][name], expected)
    # To that of lvc, d_t V_t adds the score of each step times the change of those before it in the episode, and the
    # other way round.
    change = policy(moved, batch.observations).log_prob(batch.actions) - batch.log_probs
    same = batch.episodes[:, None] == batch.episodes
    earlier = (same & (batch.times[:, None] > batch.times)).to(change)  # [t, k]
    weights = batch.advantages * (earlier @ change) + earlier.T @ (batch.advantages * change)
    for name, value in scores.items():
        expected = gradients["lvc"][name] - torch.einsum("n,n...->...", weights, value) / 10
        torch.testing.assert_close(gradients["dice"][name], expected)
