"""The inner update by hand."""

import pytest
import torch
from torch import Tensor

from maml_rl.inner import inner_path, inner_step, inner_update
from maml_rl.rates import InnerUpdate
from maml_rl.types import Params


def parabola(params: Params) -> Tensor:
    """(theta - 3)^2: gradient 2 (theta - 3), Hessian 2."""
    return (params["theta"] - 3) ** 2


def theta(value: float) -> Params:
    return {"theta": torch.tensor(value, dtype=torch.float64)}


def test_one_inner_update_by_hand() -> None:
    # 1 - 0.1 * 2 (1 - 3) = 1.4
    assert inner_update(parabola, theta(1.0), InnerUpdate({"theta": 0.1}))["theta"].item() == pytest.approx(1.4)


def test_the_step_size_is_the_one_that_is_given() -> None:
    # 1 + 4 a
    assert inner_update(parabola, theta(1.0), InnerUpdate({"theta": 0.25}))["theta"].item() == pytest.approx(2.0)
    assert inner_update(parabola, theta(1.0), InnerUpdate({"theta": torch.tensor(0.5)}))[
        "theta"
    ].item() == pytest.approx(3.0)


def test_each_element_has_its_own_step_size_and_a_parameter_without_one_stays() -> None:
    # The gradient of w.w + b^2 is (2 w, 2 b): w - (0.1, 0.25) 2 w = (0.8, 1), b stays.
    params = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0])}
    adapted = inner_update(
        lambda p: p["w"].square().sum() + p["b"].square().sum(),
        params,
        InnerUpdate({"w": torch.tensor([0.1, 0.25])}),
    )
    torch.testing.assert_close(adapted, {"w": torch.tensor([0.8, 1.0]), "b": torch.tensor([5.0])})
    assert list(adapted) == ["w", "b"]


def test_a_normalised_step_has_the_length_of_the_step_size() -> None:
    # The gradient (3, 4) has the length 5: 1 - 0.5 (0.6, 0.8) = (0.7, 0.6).
    params = {"w": torch.ones(1, dtype=torch.float64), "b": torch.ones(1, dtype=torch.float64)}
    update = InnerUpdate(dict.fromkeys(params, 0.5), normalised=True)
    adapted = inner_update(lambda p: 3 * p["w"].sum() + 4 * p["b"].sum(), params, update)
    torch.testing.assert_close([value.item() for value in adapted.values()], [0.7, 0.6])


def test_a_normalised_step_stays_where_the_gradient_is_zero() -> None:
    def step(params: Params) -> Params:
        return inner_update(parabola, params, InnerUpdate({"theta": 0.5}, normalised=True))

    assert step(theta(3.0))["theta"] == 3
    assert torch.func.jacrev(step)(theta(3.0))["theta"]["theta"].isfinite()


def test_a_shift_is_added_after_the_step_with_or_without_a_step_size() -> None:
    # theta: 1 - 0.1 * 2 (1 - 3) - 0.5 = 0.9; other: 2 + 0.25, which has no step size.
    params = theta(1.0) | {"other": torch.tensor(2.0)}
    shift = {"theta": torch.tensor(-0.5, dtype=torch.float64), "other": torch.tensor(0.25)}
    adapted = inner_update(parabola, params, InnerUpdate({"theta": 0.1}, shift))
    assert adapted["theta"].item() == pytest.approx(0.9)
    assert adapted["other"].item() == pytest.approx(2.25)


def test_an_inner_step_returns_loss_and_auxiliary_output_from_before_it() -> None:
    step = inner_step(lambda p: (parabola(p), p["theta"] + 7), theta(1.0), InnerUpdate({"theta": 0.1}))
    assert (step.loss.item(), step.value.item()) == (4, 8)
    assert step.params["theta"].item() == pytest.approx(1.4)


def test_two_inner_updates_by_hand() -> None:
    # 1.4, then 1.4 - 0.1 * 2 (1.4 - 3) = 1.72; with 0.25 at the second step 1.4 - 0.25 * 2 (1.4 - 3) = 2.2
    tenth, quarter = InnerUpdate({"theta": 0.1}), InnerUpdate({"theta": 0.25})
    assert inner_path([parabola] * 2, theta(1.0), [tenth, tenth])[-1]["theta"].item() == pytest.approx(1.72)
    assert inner_path([parabola] * 2, theta(1.0), [tenth, quarter])[-1]["theta"].item() == pytest.approx(2.2)


def test_each_inner_update_has_its_own_loss_in_order() -> None:
    def line(params: Params) -> Tensor:
        return 5 * params["theta"]

    # parabola then line: 1.4 - 0.5 = 0.9; line then parabola: 0.5, then 0.5 + 0.1 * 5 = 1.0
    rates = [InnerUpdate({"theta": 0.1})] * 2
    assert inner_path([parabola, line], theta(1.0), rates)[-1]["theta"].item() == pytest.approx(0.9)
    assert inner_path([line, parabola], theta(1.0), rates)[-1]["theta"].item() == pytest.approx(1.0)


def test_no_loss_leaves_the_parameters() -> None:
    assert torch.equal(inner_path([], theta(1.0), [])[-1]["theta"], theta(1.0)["theta"])


def test_an_inner_update_changes_nothing_in_place() -> None:
    params = theta(1.0)
    inner_update(parabola, params, InnerUpdate({"theta": 0.1}))
    assert params["theta"] == 1


@pytest.mark.parametrize(("first_order", "expected"), [(False, 0.8), (True, 1.0)])
def test_derivative_of_an_inner_update_by_hand(first_order: bool, expected: float) -> None:
    # d theta' / d theta = 1 - 0.1 * 2 = 0.8, or 1 where the gradient counts as a constant.
    def adapted(params: Params) -> Tensor:
        return inner_update(parabola, params, InnerUpdate({"theta": 0.1}), first_order)["theta"]

    assert torch.func.grad(adapted)(theta(1.0))["theta"].item() == pytest.approx(expected)
