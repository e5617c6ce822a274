import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maml_rl.trpo import LineSearch, backtracking, conjugate_gradient, trust_region_step


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def positive_definite(size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    factor = random(size, 2 * size, seed=seed, dtype=dtype)
    return factor @ factor.T / (2 * size) + 0.5 * torch.eye(size, dtype=dtype)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 2, 12])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_conjugate_gradient_finds_the_direct_solution(
    seed: int, size: int, dtype: torch.dtype, tolerance: float
) -> None:
    matrix, target = positive_definite(size, seed, dtype), random(size, seed=seed + 50, dtype=dtype)
    solution = conjugate_gradient(lambda v: matrix @ v, target, iterations=2 * size, tolerance=1e-24).vector
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target), rtol=tolerance, atol=tolerance)


def test_conjugate_gradient_takes_at_most_the_given_number_of_products() -> None:
    matrix, products = positive_definite(12, 0), []
    conjugate_gradient(lambda v: products.append(v) or matrix @ v, random(12, seed=1), iterations=4)
    assert len(products) == 4


def test_conjugate_gradient_ends_when_the_residual_is_below_the_tolerance() -> None:
    matrix, target, products = positive_definite(12, 0), random(12, seed=1), []
    solution = conjugate_gradient(lambda v: products.append(v) or matrix @ v, target, iterations=100, tolerance=1e-4)
    assert len(products) < 12
    assert (matrix @ solution.vector - target).square().sum() < 1e-4


def test_conjugate_gradient_returns_its_residual() -> None:
    matrix, target = positive_definite(12, 0), random(12, seed=1)
    solution = conjugate_gradient(lambda v: matrix @ v, target, iterations=4)
    torch.testing.assert_close(solution.residual, target - matrix @ solution.vector)
    assert solution.residual.norm() > 1e-4


def test_the_step_takes_no_product_beyond_those_of_conjugate_gradient() -> None:
    fisher, products = positive_definite(12, 0), []
    step = trust_region_step(random(12, seed=1), lambda v: products.append(v) or fisher @ v, 0.01, iterations=4)
    assert len(products) == 4
    assert (0.5 * step @ fisher @ step).item() == pytest.approx(0.01, rel=1e-5)


def test_conjugate_gradient_of_zero_is_zero() -> None:
    assert torch.equal(conjugate_gradient(lambda v: v, torch.zeros(3), iterations=5).vector, torch.zeros(3))


def test_one_conjugate_gradient_iteration_by_hand() -> None:
    # A = diag(1, 3), b = (1, 1): length b.b / b.A b = 2 / 4, so x = (1/2, 1/2).
    diagonal = torch.tensor([1.0, 3.0])
    solution = conjugate_gradient(lambda v: diagonal * v, torch.ones(2), iterations=1)
    torch.testing.assert_close(solution.vector, torch.full((2,), 0.5))


@pytest.mark.parametrize("max_kl", [1e-4, 0.01, 1.0])
def test_the_step_uses_up_the_trust_region(max_kl: float) -> None:
    fisher, gradient = positive_definite(12, 0), random(12, seed=1)
    step = trust_region_step(gradient, lambda v: fisher @ v, max_kl, iterations=24)
    assert (0.5 * step @ fisher @ step).item() == pytest.approx(max_kl, rel=1e-5)


def test_the_step_is_along_minus_the_natural_gradient() -> None:
    fisher, gradient = positive_definite(12, 0), random(12, seed=1)
    step = trust_region_step(gradient, lambda v: fisher @ v, 0.01, iterations=24)
    natural = torch.linalg.solve(fisher, gradient)
    torch.testing.assert_close(step / step.norm(), -natural / natural.norm(), rtol=1e-5, atol=1e-5)


def test_the_step_by_hand() -> None:
    # F = diag(4, 1), g = (4, 2): x = F^-1 g = (1, 2), x.F x = 8, so s = -sqrt(2 * 0.04 / 8) x = -0.1 (1, 2).
    diagonal = torch.tensor([4.0, 1.0])
    step = trust_region_step(torch.tensor([4.0, 2.0]), lambda v: diagonal * v, 0.04, iterations=10)
    torch.testing.assert_close(step, torch.tensor([-0.1, -0.2]))


def test_no_step_of_the_same_kl_lowers_the_linearised_loss_more() -> None:
    fisher, gradient = positive_definite(12, 0), random(12, seed=1)
    step = trust_region_step(gradient, lambda v: fisher @ v, 0.01, iterations=24)
    for seed in range(20):
        other = random(12, seed=seed + 10)
        other = other * (0.02 / (other @ fisher @ other)).sqrt()
        assert gradient @ step <= gradient @ other


def test_the_step_along_a_zero_gradient_is_zero() -> None:
    assert torch.equal(trust_region_step(torch.zeros(3), lambda v: v, 0.01, 10), torch.zeros(3))


def search(
    loss: Callable[[float], float],
    kl: Callable[[float], float],
    max_kl: float,
    max_backtracks: int = 10,
    start: float = 0.0,
    step: float = 1.0,
) -> tuple[LineSearch, list[float]]:
    """The result of halving steps on the line, and the points it tried."""
    tried: list[float] = []

    def evaluate(vector: Tensor) -> tuple[Tensor, Tensor]:
        assert vector.shape == (1,)
        tried.append(vector.item())
        return torch.tensor(loss(vector.item())), torch.tensor(kl(vector.item()))

    found = backtracking(
        evaluate, torch.tensor([start]), torch.tensor(loss(start)), torch.tensor([step]), max_kl, 0.5, max_backtracks
    )
    return found, tried


def test_backtracking_takes_the_full_step_where_it_is_acceptable() -> None:
    found, tried = search(loss=lambda x: -x, kl=lambda x: x**2, max_kl=1.0)
    assert tried == [1.0]
    assert (found.vector.item(), found.loss.item(), found.kl.item()) == (1.0, -1.0, 1.0)
    assert found.accepted
    assert found.backtracks == 0


def test_backtracking_takes_the_first_candidate_within_max_kl() -> None:
    # KL of 1, 1/2, 1/4: 1, 0.25, 0.0625; the last is the first within 0.1.
    found, tried = search(loss=lambda x: -x, kl=lambda x: x**2, max_kl=0.1)
    assert tried == [1.0, 0.5, 0.25]
    assert (found.vector.item(), found.loss.item(), found.kl.item()) == (0.25, -0.25, 0.0625)
    assert found.accepted
    assert found.backtracks == 2


def test_backtracking_takes_the_first_candidate_that_improves() -> None:
    # (x - 0.1)^2 is below its 0.01 at the start for 0 < x < 0.2; of 1, 1/2, 1/4, 1/8 that is 1/8.
    found, tried = search(loss=lambda x: (x - 0.1) ** 2, kl=lambda _: 0.0, max_kl=0.1)
    assert tried == [1.0, 0.5, 0.25, 0.125]
    assert found.vector.item() == 0.125
    assert found.accepted


def test_backtracking_starts_at_the_start() -> None:
    found, tried = search(loss=lambda x: -x, kl=lambda x: (x - 5) ** 2, max_kl=0.3, start=5.0, step=-1.0)
    assert tried[:3] == [4.0, 4.5, 4.75]
    assert not found.accepted  # the loss rises in this direction


def test_an_equal_loss_is_no_improvement() -> None:
    assert not search(loss=lambda _: 0.0, kl=lambda _: 0.0, max_kl=0.1)[0].accepted


def test_backtracking_returns_the_start_where_no_candidate_is_acceptable() -> None:
    found, tried = search(loss=lambda x: -x, kl=lambda _: 1.0, max_kl=0.1, max_backtracks=3)
    assert tried == [1.0, 0.5, 0.25]
    assert (found.vector.item(), found.loss.item(), found.kl.item()) == (0.0, 0.0, 0.0)
    assert not found.accepted
    assert found.backtracks == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("quantity", ["loss", "kl"])
def test_backtracking_passes_over_candidates_that_are_not_finite(quantity: str, value: float) -> None:
    def broken(x: float) -> float:
        return value if x > 0.3 else -x

    functions = {"loss": lambda x: -x, "kl": lambda _: 0.0} | {quantity: broken}
    found, tried = search(**functions, max_kl=0.1)
    assert tried == [1.0, 0.5, 0.25]
    assert found.vector.item() == 0.25
    assert found.accepted


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1.0))
def test_an_accepted_candidate_improves_within_max_kl(seed: int, max_kl: float) -> None:
    phase, frequency = random(2, seed=seed).tolist()
    rate = abs(random(1, seed=seed + 1).item())
    found, _ = search(
        loss=lambda x: math.sin(frequency * x + phase) - math.sin(phase),
        kl=lambda x: rate * x**2,
        max_kl=max_kl,
    )
    assert found.kl <= max_kl
    assert found.loss < 0 if found.accepted else found.vector == 0


def test_the_search_evaluates_nothing_but_its_candidates() -> None:
    # One fixed function of a vector: asking again at a point that was tried gives what the search saw.
    evaluations: dict[float, float] = {}

    def loss(x: float) -> float:
        evaluations[x] = evaluations.get(x, 0) + 1
        return (x - 0.1) ** 2

    found, tried = search(loss=loss, kl=lambda x: x**2, max_kl=0.1)
    assert evaluations == {0.0: 1, **dict.fromkeys(tried, 1)}
    assert found.loss.item() == pytest.approx((found.vector.item() - 0.1) ** 2)
