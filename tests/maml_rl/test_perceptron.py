"""Derivatives of the package's policies, written out, against those that PyTorch records, in float64."""

from functools import partial
from itertools import product as pairs

import numpy as np
import pytest
import torch
from torch import Tensor

import maml_rl.perceptron
from maml_rl.config import RLMeta, TrustRegion
from maml_rl.derivatives import Derivatives, derivatives
from maml_rl.linear_policy import fisher_product, linear_policy, task_loss
from maml_rl.objectives import inner_loss
from maml_rl.perceptron import PerceptronLoss, PerceptronPoint, perceptron
from maml_rl.policies import (
    BernoulliMLP,
    CategoricalMLP,
    CompletedPolicy,
    GaussianMLP,
    MultiCategoricalMLP,
    Standardisation,
)
from maml_rl.types import Batch, Params, flatten, split

OBSERVATION, CHOICES, LENGTHS = 3, 2, (5, 1, 7)
KINDS = pytest.mark.parametrize("kind", [GaussianMLP, CategoricalMLP, MultiCategoricalMLP, BernoulliMLP])
ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "tanh"])
HIDDEN = pytest.mark.parametrize("hidden_sizes", [(), (4,), (4, 5), (4, 5, 3)], ids=str)


class OwnMLP(GaussianMLP):
    """A subclass that computes what its parent does, and whose derivatives are therefore recorded."""


@pytest.fixture(autouse=True)
def _several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maml_rl.perceptron, "_ROWS", 5)  # 13 steps are 3 blocks


def policy_of(kind: type, hidden_sizes=(4, 5), activation="tanh", context_size: int = 0):
    generator = np.random.default_rng(0)
    seen = Standardisation(torch.full((OBSERVATION,), 0.2), torch.full((OBSERVATION,), 2.0), 0.5)
    return kind(
        OBSERVATION,
        (CHOICES, CHOICES + 1) if kind is MultiCategoricalMLP else CHOICES,
        hidden_sizes=hidden_sizes,
        activation=activation,
        generator=generator,
        standardisation=seen,
        context_size=context_size,
    ).double()


def random_like(params: Params, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in params.items()}


def point(policy) -> Params:
    """Parameters without zeros, which biases are at the start."""
    return {name: 0.8 * value for name, value in random_like(dict(policy.named_parameters()), seed=1).items()}


def batch_of(policy, params: Params, lengths=LENGTHS, seed: int = 3) -> Batch:
    """Episodes of unequal lengths, sampled by other parameters."""
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    observations = torch.from_numpy(generator.standard_normal((count, OBSERVATION)))
    acting = policy({name: 0.9 * value for name, value in params.items()}, observations)
    noise = policy.distribution.noise(generator, (count,), policy.noise_size).astype(np.float64)
    actions = acting.sample(torch.from_numpy(noise)).detach()
    episodes = torch.cat([torch.full((length,), k) for k, length in enumerate(lengths)])
    times = torch.cat([torch.arange(length) for length in lengths])
    advantages = torch.from_numpy(generator.standard_normal(count))
    return Batch(observations, actions, acting.log_prob(actions).detach(), advantages, episodes, times)


def both(policy, objective: str) -> tuple[Derivatives, Derivatives, Params]:
    """Derivatives of an inner loss, written out and recorded, and the parameters there."""
    params = point(policy)
    batch = batch_of(policy, params)
    loss = inner_loss(policy, RLMeta(inner_objective=objective, step=TrustRegion(curvature_fraction=1.0)))
    own = task_loss(loss, batch)
    assert isinstance(own, PerceptronLoss)
    return own.near(params), derivatives(lambda p: loss(p, batch), params), params


RESTRICTIONS = {
    "all": lambda names: names,
    "last layer": lambda names: names[-3:],
    "biases": lambda names: [name for name in names if name.startswith("bias")],
    "first weight": lambda names: [name for name in names if name == "weight_0"],
    "first of the last": lambda names: [names[-2]],
}
OF_CONTEXT = {
    "context": lambda names: [name for name in names if name == "context"],
    "context and first weight": lambda names: [name for name in names if name in ("context", "weight_0")],
    "all but the context": lambda names: [name for name in names if name != "context"],
}


@KINDS
@ACTIVATIONS
@pytest.mark.parametrize(
    ("hidden_sizes", "objective"),
    [((), "dice"), ((4,), "dice"), ((4, 5, 3), "dice"), *(((4, 5), name) for name in ("reinforce", "lvc", "dice"))],
)
def test_gradient_and_hessian_products_are_the_recorded_ones(kind, activation, hidden_sizes, objective: str) -> None:
    own, recorded, params = both(policy_of(kind, hidden_sizes, activation), objective)
    rows_and_columns = [*((name, "all") for name in RESTRICTIONS), *(("all", name) for name in RESTRICTIONS)]
    for rows, columns in (*rows_and_columns, ("biases", "first weight"), ("first weight", "last layer")):
        of_rows, of_columns = (list(RESTRICTIONS[which](list(params))) for which in (rows, columns))
        vector = random_like(split(params, of_columns)[0], seed=2)
        ours, theirs = (at.linear_gradient(of_rows, of_columns) for at in (own, recorded))
        torch.testing.assert_close(ours.gradient, theirs.gradient)
        torch.testing.assert_close(own.gradient(of_columns), theirs.gradient)
        product, expected = ours.hessian(vector), theirs.hessian(vector)
        assert list(product) == of_rows
        torch.testing.assert_close(product, expected)
        assert not any(value.requires_grad for value in (product | ours.gradient).values())


@pytest.mark.parametrize("kind", [GaussianMLP, CategoricalMLP])
@ACTIVATIONS
@pytest.mark.parametrize("hidden_sizes", [(), (4,), (4, 5)], ids=str)
def test_products_with_a_context_are_the_recorded_ones(kind, activation, hidden_sizes) -> None:
    own, recorded, params = both(policy_of(kind, hidden_sizes, activation, context_size=3), "dice")
    restrictions = RESTRICTIONS | OF_CONTEXT
    for rows, columns in pairs(restrictions, restrictions):
        of_rows, of_columns = (list(restrictions[which](list(params))) for which in (rows, columns))
        vector = random_like(split(params, of_columns)[0], seed=2)
        ours, theirs = (at.linear_gradient(of_rows, of_columns) for at in (own, recorded))
        torch.testing.assert_close(own.gradient(of_columns), theirs.gradient)
        torch.testing.assert_close(ours.gradient, theirs.gradient)
        torch.testing.assert_close(ours.hessian(vector), theirs.hessian(vector))


@KINDS
@ACTIVATIONS
@HIDDEN
@pytest.mark.parametrize("context_size", [0, 2])
def test_the_distribution_and_its_derivative_are_the_recorded_ones(
    kind, activation, hidden_sizes, context_size
) -> None:
    policy = policy_of(kind, hidden_sizes, activation, context_size)
    params = point(policy)
    observations = batch_of(policy, params).observations
    own = linear_policy(policy, params, observations)
    assert isinstance(own, PerceptronPoint)
    names, values = list(params), tuple(params.values())

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        return policy(dict(zip(names, values, strict=True)), observations).parameters()

    vector = random_like(params, seed=2)
    torch.testing.assert_close(own.distribution, policy(params, observations))
    expected = torch.autograd.functional.jvp(outputs, values, tuple(vector.values()))[1]
    torch.testing.assert_close(own.product(vector), expected)
    cotangents = tuple(torch.randn(value.shape, dtype=value.dtype) for value in expected)
    transposed = torch.func.vjp(outputs, *values)[1](cotangents)
    torch.testing.assert_close(own.transposed(cotangents), dict(zip(names, transposed, strict=True)))
    for name in names:  # v of one parameter alone is v with zeros elsewhere
        alone = {other: value * (other == name) for other, value in vector.items()}
        torch.testing.assert_close(own.product({name: vector[name]}), own.product(alone))


@KINDS
@ACTIVATIONS
@pytest.mark.parametrize("objective", ["reinforce", "lvc", "dice"])
def test_products_are_symmetric_to_rounding(kind, activation, objective: str) -> None:
    policy = policy_of(kind, activation=activation)
    own, _, params = both(policy, objective)
    hessian = own.linear_gradient(params, params).hessian
    fisher = fisher_product(linear_policy(policy, params, batch_of(policy, params).observations))
    for product in (hessian, fisher):
        left, right = random_like(params, seed=4), random_like(params, seed=5)
        one, other = flatten(left) @ flatten(product(right)), flatten(product(left)) @ flatten(right)
        size = flatten(left).norm() * flatten(product(right)).norm()
        assert abs(one - other) < 1e-14 * size
        assert size > 0.01


def in_dtype(values, dtype: torch.dtype):
    return [value.to(dtype) if value.is_floating_point() else value for value in values]


@KINDS
@ACTIVATIONS
def test_rounding_in_float32_is_no_worse_than_that_of_the_recorded_products(kind, activation, monkeypatch) -> None:
    monkeypatch.setattr(maml_rl.perceptron, "_ROWS", 50)
    errors = []
    for seed in range(10):
        policy = policy_of(kind, (20, 20), activation)
        params = {name: value.detach() for name, value in policy.named_parameters()}
        vector, batch = random_like(params, seed), batch_of(policy, params, (50, 20, 70), seed)
        products = []
        for dtype in (torch.float64, torch.float32):
            policy.to(dtype)
            chosen = {name: value.detach() for name, value in policy.named_parameters()}
            loss, steps = inner_loss(policy, RLMeta(inner_objective="lvc")), Batch(*in_dtype(batch, dtype))
            for at in (task_loss(loss, steps).near(chosen), derivatives(partial(loss, batch=steps), chosen)):
                hessian = at.linear_gradient(chosen, chosen).hessian
                products.append(flatten(hessian(dict(zip(vector, in_dtype(vector.values(), dtype), strict=True)))))
        exact, _, *single = products
        errors.append([float((product - exact).norm() / exact.norm()) for product in single])
    ours, recorded = np.median(errors, axis=0)
    assert ours < 1.3 * recorded
    assert ours < 1e-6


def test_frozen_parameters_take_no_part() -> None:
    policy = policy_of(GaussianMLP)
    params = point(policy)
    frozen, learned = split(params, ["weight_0", "log_std"])
    batch = batch_of(policy, params)
    config = RLMeta()
    whole = task_loss(inner_loss(policy, config), batch).near(params)
    part = task_loss(inner_loss(CompletedPolicy(policy, frozen), config), batch).near(learned)
    vector = random_like(learned, seed=2)
    expected = whole.linear_gradient(list(learned), list(learned))
    result = part.linear_gradient(list(learned), list(learned))
    torch.testing.assert_close(result.gradient, expected.gradient)
    torch.testing.assert_close(result.hessian(vector), expected.hessian(vector))
    linear = linear_policy(CompletedPolicy(policy, frozen), learned, batch.observations)
    assert list(linear.transposed(linear.product(vector))) == list(learned)


def test_another_policy_and_another_loss_are_recorded() -> None:
    ours, own = policy_of(GaussianMLP), policy_of(OwnMLP)
    assert perceptron(ours) is not None
    assert perceptron(own) is None
    params = point(own)
    batch = batch_of(own, params)
    losses = [inner_loss(policy, RLMeta()) for policy in (own, ours)]
    assert [isinstance(task_loss(loss, batch), PerceptronLoss) for loss in losses] == [False, True]
    assert not isinstance(task_loss(partial(losses[1]), batch), PerceptronLoss)
    vector = random_like(params, seed=2)
    products = [fisher_product(linear_policy(policy, params, batch.observations))(vector) for policy in (own, ours)]
    torch.testing.assert_close(*products)
