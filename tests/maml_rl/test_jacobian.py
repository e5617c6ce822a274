"""J, J^T and the block of learned step sizes, against explicit Jacobians in float64."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from maml_rl.derivatives import Product, TaskLoss, derivatives
from maml_rl.gradient_filter import is_statistic
from maml_rl.inner import direction, inner_path
from maml_rl.jacobian import AdaptationJacobian, adaptation_jacobian, largest_curvature
from maml_rl.rates import InnerRates
from maml_rl.types import Params, flatten, split, unflatten

INNER_LR = 0.1
ALL = ("first", "bias", "last")


def parabola(params: Params) -> Tensor:
    """(theta - 3)^2: gradient 2 (theta - 3), Hessian 2."""
    return (params["theta"] - 3) ** 2


def theta(value: float) -> Params:
    return {"theta": torch.tensor(value, dtype=torch.float64)}


def network_loss(seed: int) -> Callable[[Params], Tensor]:
    """Squared error of a 3-4-1 network on its own data: a loss whose Hessian is neither constant nor definite."""
    inputs, targets = random(6, 3, seed=seed), random(6, seed=seed + 100)

    def loss(params: Params) -> Tensor:
        hidden = torch.tanh(inputs @ params["first"] + params["bias"])
        return ((hidden @ params["last"] - targets) ** 2).mean()

    return loss


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network_params(seed: int = 0) -> Params:
    return {"first": random(3, 4, seed=seed), "bias": random(4, seed=seed + 1), "last": random(4, seed=seed + 2)}


def fixed(names: Sequence[str] = ALL) -> InnerRates:
    """One step size for all of these parameters."""
    return InnerRates(tuple(names), INNER_LR, "no", 1)


def meta_params(rates: InnerRates) -> Params:
    """Parameters of the network, with learned step sizes and shifts that differ from each other.

    What a filter has measured is a signal and a larger power of each number.
    """
    params = network_params()
    found = {name: value * (1 + k) for k, (name, value) in enumerate(rates.initial(params).items())}
    found = {n: v * (1 + 0.3 * random(*v.shape, seed=k)) for k, (n, v) in enumerate(found.items())}
    for name in (n for n in found if n.startswith("inner_signal.")):
        found[name] = random(*found[name].shape, seed=1).abs()
        found[name.replace("signal", "power")] = found[name] + random(*found[name].shape, seed=2).abs()
    return params | found


def learned_params(meta: Params) -> Params:
    """The parameters that a meta-step changes."""
    return {name: value for name, value in meta.items() if not is_statistic(name)}


def path(losses: Sequence[TaskLoss], meta: Params, rates: InnerRates) -> list[Params]:
    params = split(meta, ALL)[0]
    sizes = [rates.at(meta, k) for k in range(len(losses))]
    return [inner_path(losses[:k], params, sizes[:k])[-1] for k in range(len(losses) + 1)]


def explicit_jacobian(losses: Sequence[TaskLoss], meta: Params, rates: InnerRates) -> Tensor:
    """d theta' / d meta by PyTorch's derivatives through all inner updates, `[P', P]`."""

    learned = learned_params(meta)

    def adapted(vector: Tensor) -> Tensor:
        return flatten(path(losses, meta | unflatten(vector, learned), rates)[-1])

    jacobian: Tensor = torch.func.jacrev(adapted)(flatten(learned))
    return jacobian


@pytest.mark.parametrize(("steps", "expected"), [(1, 0.8), (2, 0.64)])
def test_derivative_of_adaptation_by_hand(steps: int, expected: float) -> None:
    # d theta' / d theta = 1 - 0.1 * 2 = 0.8 at every step, so 0.8 for one and 0.64 for two.
    jacobian = adaptation_jacobian([parabola] * steps, [theta(1.0)] * steps, fixed(["theta"]), theta(1.0))
    assert jacobian.product(theta(1.0))["theta"].item() == pytest.approx(expected)
    assert jacobian.transposed_product(theta(1.0))["theta"].item() == pytest.approx(expected)


def test_derivative_by_a_learned_step_size_by_hand() -> None:
    # theta_1 = 1 + 4 a = 1.4, d theta_1 / d a = -g(1) = 4. theta_2 = theta_1 - a 2 (theta_1 - 3), so
    # d theta_2 / d a = 0.8 * 4 + 3.2 = 6.4, and with a step size for each step 3.2 and 3.2.
    losses, points = [parabola, parabola], [theta(1.0), theta(1.4)]
    one = torch.ones((), dtype=torch.float64)
    rates = InnerRates(("theta",), 0.1, "parameter", 2)
    jacobian = adaptation_jacobian(losses, points, rates, theta(1.0) | rates.initial(theta(1.0)))
    assert jacobian.transposed_product({"theta": one})["inner_lr.theta"].item() == pytest.approx(6.4)
    change = jacobian.product({"theta": 0 * one, "inner_lr.theta": one})
    assert change["theta"].item() == pytest.approx(6.4)
    rates = InnerRates(("theta",), 0.1, "tensor-and-step", 2)
    jacobian = adaptation_jacobian(losses, points, rates, theta(1.0) | rates.initial(theta(1.0)))
    assert jacobian.transposed_product({"theta": one})["inner_lr.theta"].tolist() == pytest.approx([3.2, 3.2])


def hessian_product(loss: TaskLoss, params: Params, rows: Sequence[str] = ALL, columns: Sequence[str] = ALL) -> Product:
    return derivatives(loss, params).linear_gradient(rows, columns).hessian


def test_hessian_product_is_that_of_the_explicit_hessian() -> None:
    loss, params, vector = network_loss(0), network_params(), network_params(seed=10)
    hessian = torch.autograd.functional.hessian(lambda v: loss(unflatten(v, params)), flatten(params))
    product = hessian_product(loss, params)
    for v in (vector, params):  # the graph serves more than one product
        result = product(v)
        assert flatten(result).isfinite().all()
        torch.testing.assert_close(flatten(result), hessian @ flatten(v))
        assert list(result) == list(params)


def test_a_block_of_the_hessian_is_that_of_its_rows_and_columns() -> None:
    loss, params, vector = network_loss(0), network_params(), network_params(seed=10)
    columns = split(vector, ["bias", "last"])[0]
    whole = hessian_product(loss, params)(columns | {"first": torch.zeros(3, 4, dtype=torch.float64)})
    block = hessian_product(loss, params, rows=["first", "last"], columns=columns)(columns)
    torch.testing.assert_close(block, split(whole, ["first", "last"])[0])


def test_hessian_products_carry_no_graph() -> None:
    params = {name: value.requires_grad_() for name, value in network_params().items()}
    result = hessian_product(network_loss(0), params)(network_params(seed=10))
    assert not any(value.requires_grad for value in result.values())


RATES = {
    "all": fixed(),
    "last layer": fixed(["last"]),
    "Meta-SGD": InnerRates(ALL, INNER_LR, "parameter", 2),
    "Meta-SGD, last layer": InnerRates(("last",), INNER_LR, "parameter", 2),
    "shift": InnerRates(ALL, INNER_LR, "no", 2, shift={"bias": -0.5}),
    "Meta-SGD, filter, shift": InnerRates(ALL, INNER_LR, "parameter", 2, filtered=True, shift={"bias": -0.5}),
    "normalised": InnerRates(ALL, INNER_LR, "no", 2, normalised=True),
    "normalised, last layer, Meta-SGD": InnerRates(("last",), INNER_LR, "parameter", 2, normalised=True),
    "filter": InnerRates(ALL, INNER_LR, "no", 2, filtered=True),
    "tensor and step": InnerRates(ALL, INNER_LR, "tensor-and-step", 2),
    "tensor and step, two tensors": InnerRates(("first", "last"), INNER_LR, "tensor-and-step", 2),
}


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_jacobian_products_are_those_of_the_explicit_jacobian(rates: InnerRates, steps: int) -> None:
    losses, meta = [network_loss(k) for k in range(steps)], meta_params(rates)
    explicit = explicit_jacobian(losses, meta, rates)
    jacobian = adaptation_jacobian(losses, path(losses, meta, rates), rates, meta)
    adapted = network_params(seed=10)
    learned = learned_params(meta)
    change = unflatten(random(len(flatten(learned)), seed=11), learned)
    torch.testing.assert_close(flatten(jacobian.product(change)), explicit @ flatten(change))
    transposed = jacobian.transposed_product(adapted)
    assert set(transposed) == set(learned)
    torch.testing.assert_close(flatten({name: transposed[name] for name in learned}), explicit.T @ flatten(adapted))
    if steps > 1:  # the factors do not commute, so that the order of the steps matters
        square = explicit[:, : len(explicit)]
        assert not torch.allclose(square, square.T)


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_the_transposed_product_is_the_gradient_through_the_whole_adaptation(rates: InnerRates) -> None:
    losses, meta, outer = [network_loss(0), network_loss(1)], meta_params(rates), network_loss(2)
    points = path(losses, meta, rates)
    expected = torch.func.grad(lambda m: outer(path(losses, meta | m, rates)[-1]))(learned_params(meta))
    jacobian = adaptation_jacobian(losses, points, rates, meta)
    torch.testing.assert_close(jacobian.transposed_product(torch.func.grad(outer)(points[-1])), expected)


@pytest.mark.parametrize("learned", ["parameter", "tensor-and-step"])
def test_first_order_leaves_out_the_hessians_and_keeps_the_block_of_the_step_sizes(learned: str) -> None:
    rates = InnerRates(ALL, INNER_LR, learned, 2)
    losses, meta = [network_loss(0), network_loss(1)], meta_params(rates)
    points, vector = path(losses, meta, rates), network_params(seed=10)
    jacobian = adaptation_jacobian(losses, points, rates, meta, first_order=True)
    product = jacobian.transposed_product(vector)
    torch.testing.assert_close(split(product, ALL)[0], vector)
    gradients = [torch.func.grad(loss)(point) for loss, point in zip(losses, points, strict=False)]
    for name in ALL:
        terms = [-vector[name] * gradient[name] for gradient in gradients]
        expected = sum(terms) if learned == "parameter" else torch.stack([term.sum() for term in terms])
        torch.testing.assert_close(product[f"inner_lr.{name}"], expected)
    change = unflatten(random(len(flatten(meta)), seed=11), meta)
    left, right = flatten(jacobian.product(change)) @ flatten(vector), flatten(change) @ flatten(product)
    torch.testing.assert_close(left, right)


def test_gradients_of_more_data_replace_those_of_less() -> None:
    rates = InnerRates(ALL, INNER_LR, "parameter", 1)
    meta = meta_params(rates)
    few, many = (adaptation_jacobian([network_loss(k)], [network_params()], rates, meta) for k in (0, 1))
    vector = network_params(seed=10)
    mixed = few.with_gradients_of(many).transposed_product(vector)
    torch.testing.assert_close(split(mixed, ALL)[0], split(few.transposed_product(vector), ALL)[0])
    torch.testing.assert_close(split(mixed, ALL)[1], split(many.transposed_product(vector), ALL)[1])


def test_the_path_may_hold_the_adapted_parameters_or_not() -> None:
    losses, params, vector = [network_loss(0)], network_params(), network_params(seed=10)
    with_last = adaptation_jacobian(losses, path(losses, params, fixed()), fixed(), params)
    without = adaptation_jacobian(losses, [params], fixed(), params)
    torch.testing.assert_close(with_last.product(vector), without.product(vector))


def test_the_jacobian_of_no_steps_is_the_identity() -> None:
    vector = network_params()
    for identity in (
        adaptation_jacobian([], [vector], fixed(), vector),
        adaptation_jacobian([network_loss(0)], [vector], fixed(), vector, first_order=True),
    ):
        torch.testing.assert_close(identity.product(vector), vector)
        torch.testing.assert_close(identity.transposed_product(vector), vector)


def first_step(loss: TaskLoss, params: Params, rates: InnerRates, meta: Params | None = None) -> AdaptationJacobian:
    return adaptation_jacobian([loss], [params], rates, meta or params)


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_largest_curvature_is_the_largest_absolute_eigenvalue_of_step_sizes_times_hessian(rates: InnerRates) -> None:
    loss, meta = network_loss(0), meta_params(rates)
    params = split(meta, ALL)[0]
    chosen, rest = split(params, rates.names)

    def step_direction(vector: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda p: loss(rest | p))(unflatten(vector, chosen))
        return flatten(direction(gradient, rates.normalised))

    derivative = torch.func.jacrev(step_direction)(flatten(chosen))
    sizes = rates.at(meta, 0).rates
    diagonal = flatten({name: sizes[name] * torch.ones_like(value) for name, value in chosen.items()})
    assert (diagonal > 0).all()
    expected = torch.linalg.eigvals(diagonal[:, None] * derivative).abs().max()
    jacobian = first_step(loss, params, rates, meta)
    torch.testing.assert_close(largest_curvature(jacobian, network_params(seed=10), iterations=400), expected)
    # Five iterations, as in the log, are near it, and bound a symmetric Hessian's from below.
    few = largest_curvature(jacobian, network_params(seed=10))
    assert 0.7 * expected < few <= expected * (1.3 if rates.normalised else 1 + 1e-9)


def test_largest_curvature_counts_negative_eigenvalues() -> None:
    # -(theta - 3)^2 has the Hessian -2, so 0.1 * 2 = 0.2.
    jacobian = first_step(lambda p: -parabola(p), theta(1.0), fixed(["theta"]))
    assert largest_curvature(jacobian, theta(7.0)).item() == pytest.approx(0.2)


def test_largest_curvature_is_that_of_the_first_step() -> None:
    def steep(params: Params) -> Tensor:
        return 10 * parabola(params)

    jacobian = adaptation_jacobian([parabola, steep], [theta(1.0)] * 2, fixed(["theta"]), theta(1.0))
    assert largest_curvature(jacobian, theta(1.0)).item() == pytest.approx(0.2)


def test_largest_curvature_of_a_linear_loss_is_zero() -> None:
    # For example where all rewards of a task are equal: its advantages, loss and gradient are then 0 as well.
    jacobian = first_step(lambda p: 0 * parabola(p), theta(1.0), fixed(["theta"]))
    assert largest_curvature(jacobian, theta(1.0)).item() == 0
    assert largest_curvature(jacobian, theta(0.0)).item() == 0
