import math

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_rl.config import RLMeta
from maml_rl.errors import InputError
from maml_rl.objectives import (
    Loss,
    PolicyLoss,
    check_own_loss,
    inner_loss,
    likelihood_ratio,
    reinforce,
    surrogate_and_kl,
)
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
    return params, one_episode(observations, actions, distribution.log_prob(actions), advantages)


def one_episode(observations: Tensor, actions: Tensor, log_probs: Tensor, advantages: Tensor) -> Batch:
    steps = torch.arange(len(observations))
    return Batch(observations, actions, log_probs, advantages, episodes=0 * steps, times=steps)


def settings(objective: str, dice_lambda: float = 0.5) -> RLMeta:
    return RLMeta(episodes=3, inner_objective=objective, dice_lambda=dice_lambda)


def sampled_loss(policy, objective: str) -> Loss:
    """The inner loss where its steps were sampled."""
    return inner_loss(policy, settings(objective))


CASES = pytest.mark.parametrize("case", [gaussian_case, categorical_case])


def two_fair_choices() -> tuple[CategoricalMLP, Params, Batch]:
    """Both actions have probability 1/2; they were sampled with probability 1/4, and have advantages 1 and 3."""
    policy = CategoricalMLP(3, 2, hidden_sizes=(), activation="tanh", generator=np.random.default_rng(0))
    params = {name: torch.zeros_like(value) for name, value in policy.named_parameters()}
    log_probs = torch.full((2,), math.log(1 / 4))
    steps = one_episode(torch.ones(2, 3), torch.tensor([0, 1]), log_probs, torch.tensor([1.0, 3.0]))
    return policy, params, steps


def test_reinforce_loss_by_hand() -> None:
    # -(1 log 1/2 + 3 log 1/2) / 2 = 2 log 2
    policy, params, batch = two_fair_choices()
    assert PolicyLoss(policy, reinforce)(params, batch).item() == pytest.approx(2 * math.log(2))


def test_likelihood_ratio_loss_by_hand() -> None:
    # Ratios (1/2) / (1/4) = 2: -(2 * 1 + 2 * 3) / 2 = -4
    policy, params, batch = two_fair_choices()
    assert PolicyLoss(policy, likelihood_ratio)(params, batch).item() == pytest.approx(-4)


@CASES
def test_the_ratio_is_one_at_the_sampling_parameters(case) -> None:
    policy, params, batch = case()
    torch.testing.assert_close(PolicyLoss(policy, likelihood_ratio)(params, batch), -batch.advantages.mean())


@CASES
def test_inner_losses_have_the_same_gradient_at_the_sampling_parameters(case) -> None:
    policy, params, batch = case()
    reinforce, lvc = (
        torch.func.grad(lambda p, name=name: sampled_loss(policy, name)(p, batch))(params)
        for name in ("reinforce", "lvc")
    )
    assert flatten(reinforce).norm() > 0.01
    torch.testing.assert_close(reinforce, lvc)


@CASES
def test_inner_losses_have_different_gradients_elsewhere(case) -> None:
    policy, params, batch = case()
    elsewhere = {name: value + 0.3 for name, value in params.items()}
    reinforce, lvc = (
        flatten(torch.func.grad(lambda p, name=name: sampled_loss(policy, name)(p, batch))(elsewhere))
        for name in ("reinforce", "lvc")
    )
    assert not torch.allclose(reinforce, lvc, rtol=1e-2)


@CASES
def test_hessians_of_the_inner_losses_differ_by_the_weighted_outer_product_of_scores(case) -> None:
    policy, params, batch = case()
    vector = flatten(params)

    def hessian(of_distribution) -> Tensor:
        loss = PolicyLoss(policy, of_distribution)
        return torch.autograd.functional.hessian(lambda v: loss(unflatten(v, params), batch), vector)

    def log_probs(vector: Tensor) -> Tensor:
        return policy(unflatten(vector, params), batch.observations).log_prob(batch.actions)

    # d2 ratio = ratio (d2 log pi + s s^T) with s = d log pi and ratio 1, so that
    # H_lvc - H_reinforce = -mean(A s s^T).
    scores = torch.func.jacrev(log_probs)(vector)
    expected = -(scores.T * batch.advantages) @ scores / STEPS
    assert expected.norm() > 0.01
    torch.testing.assert_close(hessian(likelihood_ratio) - hessian(reinforce), expected)


def test_an_unknown_inner_objective_is_refused() -> None:
    message = r"^inner_objective must be reinforce, lvc, dice or module:function, got 'foo'$"
    with pytest.raises(InputError, match=message):
        settings("foo")


@pytest.fixture
def own_losses(tmp_path, monkeypatch) -> str:
    """Name of a module with custom losses."""
    (tmp_path / "own_losses_for_tests.py").write_text(
        """
import torch
constant = 3
def advantage_weighted(policy, params, batch):
    weights = batch.advantages * 0.9 ** batch.times
    return -(policy(params, batch.observations).log_prob(batch.actions) * weights).mean()
def of_each_step(policy, params, batch):
    return policy(params, batch.observations).log_prob(batch.actions)
def number(policy, params, batch):
    return 1.0
def count(policy, params, batch):
    return torch.tensor(len(batch.times))
def takes_nothing():
    return None
def fails(policy, params, batch):
    return batch.rewards.mean()
def of_advantages(policy, params, batch):
    return batch.advantages.mean()
def logarithm_of_zero(policy, params, batch):
    return policy(params, batch.observations).log_prob(batch.actions).mean() + torch.log(torch.zeros(()))
def root_of_zero(policy, params, batch):
    return (0 * policy(params, batch.observations).log_prob(batch.actions)).mean().sqrt()
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_losses_for_tests"


@CASES
def test_a_custom_loss_is_imported_by_name_and_sees_the_time_of_each_step(case, own_losses: str) -> None:
    policy, params, batch = case()
    value = sampled_loss(policy, f"{own_losses}:advantage_weighted")(params, batch)
    discounted = batch.advantages * 0.9 ** torch.arange(STEPS)
    torch.testing.assert_close(value, PolicyLoss(policy, reinforce)(params, batch._replace(advantages=discounted)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("missing", r": own_losses_for_tests.py has no function missing: give module:function$"),
        ("constant", " is not a function but 3: give module:function$"),
    ],
)
def test_a_loss_that_cannot_be_imported_is_refused_in_one_line(own_losses: str, function: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^inner_objective '{own_losses}:{function}'{message}"):
        sampled_loss(gaussian_case()[0], f"{own_losses}:{function}")


def test_a_missing_module_is_refused_in_one_line() -> None:
    remedy = "run in the directory that holds no_such.py, or put that directory on PYTHONPATH"
    message = rf"^inner_objective 'no_such:loss' cannot be imported \(no module no_such\): {remedy}$"
    with pytest.raises(InputError, match=message):
        sampled_loss(gaussian_case()[0], "no_such:loss")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("of_each_step", r"must return a floating-point tensor of shape \[\], .*, got torch.float64 of shape \[9\]$"),
        ("number", "must return a floating-point tensor .*, got 1.0$"),
        ("count", r"must return a floating-point tensor .*, got torch.int64 of shape \[\]$"),
        ("takes_nothing", r"failed \(TypeError: [^;]* were given\): it is called as loss\(policy, params, batch\)$"),
        ("fails", r"failed \(AttributeError: .*rewards.*own_losses_for_tests.py, line 16\): it is called"),
    ],
)
def test_a_loss_that_fails_or_returns_no_scalar_is_refused_in_one_line(
    own_losses: str, function: str, message: str
) -> None:
    policy, params, batch = gaussian_case()
    loss = sampled_loss(policy, f"{own_losses}:{function}")
    with pytest.raises(InputError, match=f"^inner_objective '{own_losses}:{function}' {message}"):
        torch.func.grad(loss)(params, batch)


@CASES
def test_a_loss_that_depends_on_the_parameters_passes_its_trial(case, own_losses: str) -> None:
    policy, params, batch = case()
    for objective in ("lvc", f"{own_losses}:advantage_weighted"):
        check_own_loss(policy, params, settings(objective), batch.observations.shape[-1])
    assert not any(value.requires_grad for value in params.values())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "of_advantages",
            "does not depend on params, so the inner update would have no effect: compute it",
        ),
        ("fails", "failed .*rewards"),
        ("logarithm_of_zero", "or its gradient is not finite on artificial episodes: look for"),
        ("root_of_zero", "or its gradient is not finite on artificial episodes: look for"),  # 0, with gradient 0 * inf
    ],
)
def test_a_loss_that_cannot_adapt_a_policy_is_refused_on_trial(own_losses: str, function: str, message: str) -> None:
    policy, params, batch = gaussian_case()
    with pytest.raises(InputError, match=message):
        check_own_loss(policy, params, settings(f"{own_losses}:{function}"), batch.observations.shape[-1])


@CASES
def test_surrogate_and_kl_are_minus_the_mean_advantage_and_zero_at_the_old_parameters(case) -> None:
    policy, params, batch = case()
    surrogate = surrogate_and_kl(policy(params, batch.observations), batch, policy(params, batch.observations))
    torch.testing.assert_close(surrogate.loss, -batch.advantages.mean())
    torch.testing.assert_close(surrogate.kl, torch.zeros_like(surrogate.kl))


@CASES
def test_surrogate_is_the_likelihood_ratio_loss_and_kl_that_of_old_from_new(case) -> None:
    policy, params, batch = case()
    new = {name: value + 0.2 for name, value in params.items()}
    old = policy(params, batch.observations)
    surrogate = surrogate_and_kl(policy(new, batch.observations), batch, old)
    torch.testing.assert_close(surrogate.loss, PolicyLoss(policy, likelihood_ratio)(new, batch))
    torch.testing.assert_close(surrogate.kl, old.kl(policy(new, batch.observations)).mean())
    assert surrogate.kl > 0


@pytest.mark.parametrize("name", ["reinforce", "lvc", "dice"])
def test_a_loss_is_a_mean_over_steps(name: str) -> None:
    policy, params, batch = gaussian_case()
    again = batch._replace(episodes=batch.episodes + 1)
    twice = Batch(*(torch.cat(fields) for fields in zip(batch, again, strict=True)))
    elsewhere = {name: value + 0.1 for name, value in params.items()}
    loss = sampled_loss(policy, name)
    torch.testing.assert_close(loss(elsewhere, twice), loss(elsewhere, batch))
