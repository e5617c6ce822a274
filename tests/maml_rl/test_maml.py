from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maml_rl.maml import (
    AdaptationJacobian,
    adapt,
    adaptation_jacobian,
    hessian_product,
    inner_update,
    largest_curvature,
)
from maml_rl.types import Params, flatten, unflatten

INNER_LR = 0.1


def parabola(params: Params) -> Tensor:
    """(theta - 3)^2: gradient 2 (theta - 3), Hessian 2."""
    return (params["theta"] - 3) ** 2


def theta(value: float) -> Params:
    return {"theta": torch.tensor(value, dtype=torch.float64)}


def network_loss(seed: int) -> Callable[[Params], Tensor]:
    """Squared error of a 3-4-1 network on data of its own: a loss whose Hessian is neither constant nor definite."""
    inputs, targets = random(6, 3, seed=seed), random(6, seed=seed + 100)

    def loss(params: Params) -> Tensor:
        hidden = torch.tanh(inputs @ params["first"] + params["bias"])
        return ((hidden @ params["last"] - targets) ** 2).mean()

    return loss


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network_params(seed: int = 0) -> Params:
    return {"first": random(3, 4, seed=seed), "bias": random(4, seed=seed + 1), "last": random(4, seed=seed + 2)}


def path(losses, params: Params, inner_lr: float) -> list[Params]:
    return [adapt(losses[:k], params, inner_lr) for k in range(len(losses) + 1)]


def test_one_inner_update_by_hand() -> None:
    # 1 - 0.1 * 2 (1 - 3) = 1.4
    assert inner_update(parabola, theta(1.0), 0.1)["theta"].item() == pytest.approx(1.4)


def test_the_inner_lr_is_the_one_that_is_given() -> None:
    # 1 + 4 inner_lr
    assert inner_update(parabola, theta(1.0), 0.25)["theta"].item() == pytest.approx(2.0)
    assert inner_update(parabola, theta(1.0), 0.5)["theta"].item() == pytest.approx(3.0)


def test_two_inner_updates_by_hand() -> None:
    # 1.4, then 1.4 - 0.1 * 2 (1.4 - 3) = 1.72
    assert adapt([parabola, parabola], theta(1.0), 0.1)["theta"].item() == pytest.approx(1.72)


def test_each_inner_update_has_its_own_loss_in_order() -> None:
    def line(params: Params) -> Tensor:
        return 5 * params["theta"]

    # parabola then line: 1.4 - 0.5 = 0.9; line then parabola: 0.5, then 0.5 + 0.1 * 5 = 1.0
    assert adapt([parabola, line], theta(1.0), 0.1)["theta"].item() == pytest.approx(0.9)
    assert adapt([line, parabola], theta(1.0), 0.1)["theta"].item() == pytest.approx(1.0)


def test_no_loss_leaves_the_parameters() -> None:
    assert torch.equal(adapt([], theta(1.0), 0.1)["theta"], theta(1.0)["theta"])


def test_an_inner_update_changes_nothing_in_place() -> None:
    params = theta(1.0)
    inner_update(parabola, params, 0.1)
    assert params["theta"] == 1


def test_derivative_of_adaptation_by_hand() -> None:
    # d theta' / d theta = 1 - 0.1 * 2 = 0.8 at every step, so 0.8 for one and 0.64 for two.
    for steps, expected in [(1, 0.8), (2, 0.64)]:
        losses = [parabola] * steps
        derivative = torch.func.grad(lambda p, losses=losses: adapt(losses, p, 0.1)["theta"])(theta(1.0))
        assert derivative["theta"].item() == pytest.approx(expected)
        jacobian = adaptation_jacobian(losses, path(losses, theta(1.0), 0.1), 0.1)
        assert jacobian.product(theta(1.0))["theta"].item() == pytest.approx(expected)


def test_hessian_product_is_that_of_the_explicit_hessian() -> None:
    loss, params, vector = network_loss(0), network_params(), network_params(seed=10)
    hessian = torch.autograd.functional.hessian(lambda v: loss(unflatten(v, params)), flatten(params))
    product = hessian_product(loss, params)
    for v in (vector, params):  # the graph serves more than one product
        result = product(v)
        assert flatten(result).isfinite().all()
        torch.testing.assert_close(flatten(result), hessian @ flatten(v))
        assert list(result) == list(params)


def test_hessian_products_carry_no_graph() -> None:
    params = {name: value.requires_grad_() for name, value in network_params().items()}
    result = hessian_product(network_loss(0), params)(network_params(seed=10))
    assert not any(value.requires_grad for value in result.values())


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_jacobian_products_are_those_of_the_explicit_jacobian(steps: int) -> None:
    losses, params, vector = [network_loss(k) for k in range(steps)], network_params(), network_params(seed=10)
    explicit = torch.func.jacrev(lambda v: flatten(adapt(losses, unflatten(v, params), INNER_LR)))(flatten(params))
    jacobian = adaptation_jacobian(losses, path(losses, params, INNER_LR), INNER_LR)
    torch.testing.assert_close(flatten(jacobian.product(vector)), explicit @ flatten(vector))
    torch.testing.assert_close(flatten(jacobian.transposed_product(vector)), explicit.T @ flatten(vector))
    if steps > 1:  # the factors do not commute, so that the order of the steps matters
        assert not torch.allclose(explicit, explicit.T)


def test_the_path_may_hold_the_adapted_parameters_or_not() -> None:
    losses, params, vector = [network_loss(0)], network_params(), network_params(seed=10)
    with_last = adaptation_jacobian(losses, path(losses, params, INNER_LR), INNER_LR)
    without = adaptation_jacobian(losses, [params], INNER_LR)
    torch.testing.assert_close(with_last.product(vector), without.product(vector))


def test_the_jacobian_of_no_steps_is_the_identity() -> None:
    vector = network_params()
    identity = AdaptationJacobian([], INNER_LR)
    torch.testing.assert_close(identity.product(vector), vector)
    torch.testing.assert_close(identity.transposed_product(vector), vector)


def test_largest_curvature_is_the_largest_absolute_eigenvalue_times_the_inner_lr() -> None:
    loss, params = network_loss(0), network_params()
    hessian = torch.autograd.functional.hessian(lambda v: loss(unflatten(v, params)), flatten(params))
    expected = INNER_LR * torch.linalg.eigvalsh(hessian).abs().max()
    jacobian = adaptation_jacobian([loss], [params], INNER_LR)
    torch.testing.assert_close(largest_curvature(jacobian, network_params(seed=10), iterations=200), expected)
    # Five iterations, as in the log, bound it from below and are near it.
    few = largest_curvature(jacobian, network_params(seed=10))
    assert 0.7 * expected < few <= expected * (1 + 1e-9)


def test_largest_curvature_counts_negative_eigenvalues() -> None:
    # -(theta - 3)^2 has the Hessian -2, so 0.1 * 2 = 0.2.
    jacobian = adaptation_jacobian([lambda p: -parabola(p)], [theta(1.0)], 0.1)
    assert largest_curvature(jacobian, theta(7.0)).item() == pytest.approx(0.2)


def test_largest_curvature_is_that_of_the_first_step() -> None:
    def steep(params: Params) -> Tensor:
        return 10 * parabola(params)

    losses = [parabola, steep]
    jacobian = adaptation_jacobian(losses, path(losses, theta(1.0), 0.1), 0.1)
    assert largest_curvature(jacobian, theta(1.0)).item() == pytest.approx(0.2)


def test_largest_curvature_of_a_linear_loss_is_zero() -> None:
    # For example where all rewards of a task are equal: its advantages, loss and gradient are then 0 as well.
    jacobian = adaptation_jacobian([lambda p: 0 * parabola(p)], [theta(1.0)], 0.1)
    assert largest_curvature(jacobian, theta(1.0)).item() == 0
    assert largest_curvature(jacobian, theta(0.0)).item() == 0
