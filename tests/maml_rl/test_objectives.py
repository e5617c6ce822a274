import math

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_rl.objectives import inner_loss, likelihood_ratio_loss, reinforce_loss, surrogate_and_kl
from maml_rl.policies import CategoricalMLP, GaussianMLP
from maml_rl.types import Batch, Params, flatten, unflatten

STEPS = 9


def gaussian_case() -> tuple[GaussianMLP, Params, Batch]:
    policy = GaussianMLP(3, 2, hidden_sizes=(4,), activation="tanh", generator=np.random.default_rng(0)).double()
    return policy, *sampled(policy, torch.float64)


def categorical_case() -> tuple[CategoricalMLP, Params, Batch]:
    policy = CategoricalMLP(3, 4, hidden_sizes=(4,), activation="tanh", generator=np.random.default_rng(0)).double()
    return policy, *sampled(policy, torch.float64)


def sampled(policy, dtype: torch.dtype) -> tuple[Params, Batch]:
    """Parameters and a batch of steps that the policy sampled under them."""
    generator = np.random.default_rng(1)
    params = {name: value.detach() for name, value in policy.named_parameters()}
    observations = torch.tensor(generator.standard_normal((STEPS, 3)), dtype=dtype)
    distribution = policy(params, observations)
    actions = distribution.sample(
        torch.tensor(policy.distribution.noise(generator, (STEPS,), policy.noise_size), dtype=dtype)
    )
    advantages = torch.tensor(generator.standard_normal(STEPS), dtype=dtype)
    return params, Batch(observations, actions, distribution.log_prob(actions), advantages)


CASES = pytest.mark.parametrize("case", [gaussian_case, categorical_case])


def of_vector(loss, policy, params: Params, batch: Batch):
    return lambda vector: loss(policy, unflatten(vector, params), batch)


def two_fair_choices() -> tuple[CategoricalMLP, Params, Batch]:
    """Both actions have probability 1/2; they were sampled with probability 1/4, and have advantages 1 and 3."""
    policy = CategoricalMLP(3, 2, hidden_sizes=(), activation="tanh", generator=np.random.default_rng(0))
    params = {name: torch.zeros_like(value) for name, value in policy.named_parameters()}
    log_probs = torch.full((2,), math.log(1 / 4))
    return policy, params, Batch(torch.ones(2, 3), torch.tensor([0, 1]), log_probs, torch.tensor([1.0, 3.0]))


def test_reinforce_loss_by_hand() -> None:
    # -(1 log 1/2 + 3 log 1/2) / 2 = 2 log 2
    assert reinforce_loss(*two_fair_choices()).item() == pytest.approx(2 * math.log(2))


def test_likelihood_ratio_loss_by_hand() -> None:
    # Ratios (1/2) / (1/4) = 2: -(2 * 1 + 2 * 3) / 2 = -4
    assert likelihood_ratio_loss(*two_fair_choices()).item() == pytest.approx(-4)


@CASES
def test_the_ratio_is_one_at_the_sampling_parameters(case) -> None:
    policy, params, batch = case()
    torch.testing.assert_close(likelihood_ratio_loss(policy, params, batch), -batch.advantages.mean())


@CASES
def test_inner_losses_have_the_same_gradient_at_the_sampling_parameters(case) -> None:
    policy, params, batch = case()
    reinforce, lvc = (
        torch.func.grad(lambda p, name=name: inner_loss(policy, name)(p, batch))(params)
        for name in ("reinforce", "lvc")
    )
    assert flatten(reinforce).norm() > 0.01
    torch.testing.assert_close(reinforce, lvc)


@CASES
def test_inner_losses_have_different_gradients_elsewhere(case) -> None:
    policy, params, batch = case()
    elsewhere = {name: value + 0.3 for name, value in params.items()}
    reinforce, lvc = (
        flatten(torch.func.grad(lambda p, name=name: inner_loss(policy, name)(p, batch))(elsewhere))
        for name in ("reinforce", "lvc")
    )
    assert not torch.allclose(reinforce, lvc, rtol=1e-2)


@CASES
def test_hessians_of_the_inner_losses_differ_by_the_weighted_outer_product_of_scores(case) -> None:
    policy, params, batch = case()
    vector = flatten(params)

    def hessian(loss) -> Tensor:
        return torch.autograd.functional.hessian(of_vector(loss, policy, params, batch), vector)

    def log_probs(vector: Tensor) -> Tensor:
        return policy(unflatten(vector, params), batch.observations).log_prob(batch.actions)

    # d2 ratio = ratio (d2 log pi + s s^T) with s = d log pi and ratio 1, so that
    # H_lvc - H_reinforce = -mean(A s s^T).
    scores = torch.func.jacrev(log_probs)(vector)
    expected = -(scores.T * batch.advantages) @ scores / STEPS
    assert expected.norm() > 0.01
    torch.testing.assert_close(hessian(likelihood_ratio_loss) - hessian(reinforce_loss), expected)


def test_an_unknown_inner_objective_is_refused() -> None:
    with pytest.raises(KeyError):
        inner_loss(gaussian_case()[0], "dice")


@CASES
def test_surrogate_and_kl_are_minus_the_mean_advantage_and_zero_at_the_old_parameters(case) -> None:
    policy, params, batch = case()
    surrogate = surrogate_and_kl(policy, params, batch, policy(params, batch.observations))
    torch.testing.assert_close(surrogate.loss, -batch.advantages.mean())
    torch.testing.assert_close(surrogate.kl, torch.zeros_like(surrogate.kl))


@CASES
def test_surrogate_is_the_likelihood_ratio_loss_and_kl_that_of_old_from_new(case) -> None:
    policy, params, batch = case()
    new = {name: value + 0.2 for name, value in params.items()}
    old = policy(params, batch.observations)
    surrogate = surrogate_and_kl(policy, new, batch, old)
    torch.testing.assert_close(surrogate.loss, likelihood_ratio_loss(policy, new, batch))
    torch.testing.assert_close(surrogate.kl, old.kl(policy(new, batch.observations)).mean())
    assert surrogate.kl > 0


@pytest.mark.parametrize("name", ["reinforce", "lvc"])
def test_a_loss_is_a_mean_over_steps(name: str) -> None:
    policy, params, batch = gaussian_case()
    twice = Batch(*(torch.cat([field, field]) for field in batch))
    torch.testing.assert_close(inner_loss(policy, name)(params, twice), inner_loss(policy, name)(params, batch))
