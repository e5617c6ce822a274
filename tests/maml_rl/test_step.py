"""Meta-steps on a quadratic whose every number is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maml_rl.config import SGD, Adam, TrustRegion
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.step import MetaGradient, initial_optimizer, meta_step
from maml_rl.types import Params, State, flatten

META: Params = {"a": torch.tensor([1.0, 2.0]), "fixed": torch.tensor([9.0]), "b": torch.tensor(3.0)}
"""The loss is half the squared norm of a and b: its gradient is what they are."""
LEARNED = {"a": META["a"], "b": META["b"]}


def quadratic(**changes: object) -> MetaGradient:
    return MetaGradient(**({"gradient": LEARNED, "loss": torch.tensor(7.0)} | changes))


def in_a_region(gradient: MetaGradient) -> MetaGradient:
    """The same where the KL is nearly half the squared distance: a little less, so that rounding rejects no step."""

    def evaluate(vector: Tensor) -> tuple[Tensor, Tensor]:
        return vector.square().sum() / 2, (vector - flatten(LEARNED)).square().sum() / 2.001

    return gradient._replace(curvature=lambda vector: vector, evaluate=evaluate)


def start(rule: TrustRegion | Adam | SGD) -> State:
    return State(META, initial_optimizer(rule, LEARNED), 0)


def test_gradient_descent_by_hand() -> None:
    state, metrics = meta_step(SGD(lr=0.5), start(SGD()), quadratic(metrics={"loss/before": 7.0}))
    assert state.meta["a"].tolist() == [0.5, 1.0]
    assert (state.meta["b"], state.meta["fixed"]) == (1.5, 9)
    assert (state.optimizer, state.iteration) == ({}, 1)
    root = 14**0.5  # of 1 + 4 + 9
    assert metrics == pytest.approx({"loss/before": 7, "meta/gradient_norm": root, "meta/step_norm": root / 2})


def test_the_gradient_is_bounded_number_by_number() -> None:
    state, _ = meta_step(SGD(lr=1.0, gradient_clip=1.5), start(SGD()), quadratic())
    assert flatten(state.meta).tolist() == [0.0, 0.5, 9.0, 1.5]


def test_adam_keeps_its_moments_in_the_state_and_leaves_what_has_no_gradient() -> None:
    rule = Adam(lr=0.1)
    first, _ = meta_step(rule, start(rule), quadratic())
    assert flatten(first.meta).tolist() == pytest.approx([0.9, 1.9, 9.0, 2.9])  # the first step is the step size
    forms = {name: value.shape for name, value in first.optimizer.items()}
    assert forms == {
        f"adam.{moment}.{name}": first.meta[name].shape for moment in ("first", "second") for name in LEARNED
    }
    parameter = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    optimizer, state = torch.optim.Adam([parameter], lr=0.1), start(rule)
    for _ in range(3):
        learned = {name: state.meta[name] for name in LEARNED}
        state, _ = meta_step(rule, state, quadratic(gradient=learned))
        parameter.grad = parameter.detach().clone()
        optimizer.step()
    torch.testing.assert_close(torch.cat([state.meta["a"], state.meta["b"][None]]), parameter.detach())


def test_the_step_size_follows_the_schedule() -> None:
    rule = SGD(lr=1.0, cosine_iterations=10)
    state, _ = meta_step(rule, start(rule)._replace(iteration=5), quadratic())
    assert state.meta["b"].item() == pytest.approx(3 * (1 - 0.505))  # (1 + 0.01) / 2 half way


def test_a_trust_region_goes_as_far_as_the_kl_allows() -> None:
    # F = 1: the step is -sqrt(2 max_kl) g / |g|, and its KL is max_kl.
    rule = TrustRegion(max_kl=0.02, cg_damping=0.0)
    state, metrics = meta_step(rule, start(rule), in_a_region(quadratic()))
    assert metrics["meta/kl"] == pytest.approx(0.02, rel=1e-3)
    assert metrics["meta/step_norm"] == pytest.approx(0.2, rel=1e-3)
    expected = [1.0, 2.0, 9.0, 3.0]
    factor = 1 - 0.2 / 14**0.5
    assert flatten(state.meta).tolist() == pytest.approx([x if x == 9 else factor * x for x in expected], rel=1e-3)
    assert (metrics["meta/accepted"], state.optimizer) == (1, {})


def test_a_trust_region_needs_a_policy() -> None:
    with pytest.raises(InputError, match="trust-region needs a policy"):
        meta_step(TrustRegion(), start(TrustRegion()), quadratic())


def test_the_order_of_the_gradients_names_does_not_matter() -> None:
    backwards = quadratic(gradient=dict(reversed(LEARNED.items())))
    assert flatten(meta_step(SGD(lr=0.5), start(SGD()), backwards)[0].meta).tolist() == [0.5, 1.0, 9.0, 1.5]


NAN = torch.tensor(torch.nan)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda g: g._replace(loss=NAN), "outer loss"),
        (lambda g: g._replace(gradient=LEARNED | {"b": NAN}), "meta-gradient"),
        (lambda g: g._replace(curvature=lambda vector: NAN * vector), "meta-step"),
    ],
)
def test_a_quantity_that_is_not_finite_is_named(change: Callable[[MetaGradient], MetaGradient], named: str) -> None:
    with pytest.raises(NonFiniteError, match=f"^{named} is not finite$"):
        meta_step(TrustRegion(), start(TrustRegion()), change(in_a_region(quadratic())))


def test_moments_belong_to_their_parameters_in_whatever_order_they_come() -> None:
    rule = Adam(lr=0.1)
    state, _ = meta_step(rule, start(rule), quadratic())
    mixed = state._replace(
        meta=dict(reversed(state.meta.items())), optimizer=dict(sorted(state.optimizer.items(), reverse=True))
    )
    expected, found = (meta_step(rule, one, quadratic())[0] for one in (state, mixed))
    assert {name: value.tolist() for name, value in found.meta.items()} == {
        name: value.tolist() for name, value in expected.meta.items()
    }


MOMENTUM = TrustRegion(momentum=0.5)


@pytest.mark.parametrize(
    ("rule", "other", "absent"),
    [
        (Adam(), SGD(), "adam.first.a"),
        (Adam(), MOMENTUM, "adam.first.a"),
        (MOMENTUM, TrustRegion(), "mean_gradient.a"),
        (MOMENTUM, Adam(), "mean_gradient.a"),
    ],
)
def test_a_state_of_another_rule_is_refused_by_one_that_keeps_statistics(rule, other, absent: str) -> None:
    with pytest.raises(InputError, match=f"^the state has no {absent}: start from [^\n]*$"):
        meta_step(rule, start(other), in_a_region(quadratic()))


@pytest.mark.parametrize("rule", [SGD(lr=1e38), Adam(lr=3e37)])
def test_a_step_that_overflows_is_reported(rule) -> None:
    far = start(rule)
    far = far._replace(meta=far.meta | {"b": torch.tensor(-3.3e38)})
    with pytest.raises(NonFiniteError, match="meta-step is not finite"):
        meta_step(rule, far, quadratic(gradient={name: torch.full_like(far.meta[name], 1e3) for name in LEARNED}))


def test_momentum_averages_the_gradients_of_iterations() -> None:
    # F = 1, so a step has the length sqrt(2 * max_kl) = 2 along the mean gradient. The first mean, without its bias, is
    # the gradient (1, 2, 3) itself; the second, of (1, 2, 3) and (-1, -2, 3) with weights 0.25 and 0.5 over 0.75, is
    # (-1/3, -2/3, 3).
    rule = TrustRegion(max_kl=2.0, cg_damping=0.0, momentum=0.5)
    first, _ = meta_step(rule, start(rule), in_a_region(quadratic()))
    moved = flatten(first.meta) - flatten(META)
    torch.testing.assert_close(moved, -2 / 14**0.5 * torch.tensor([1.0, 2.0, 0.0, 3.0]))
    other = {"a": torch.tensor([-1.0, -2.0]), "b": torch.tensor(3.0)}
    second = meta_step(rule, first._replace(meta=META), in_a_region(quadratic(gradient=other)))[0]
    moved = flatten(second.meta) - flatten(META)
    mean = torch.tensor([-1 / 3, -2 / 3, 0.0, 3.0])
    torch.testing.assert_close(moved, -2 / mean.norm() * mean)
    assert set(second.optimizer) == {"mean_gradient.a", "mean_gradient.b"}


def test_units_change_what_damping_weighs() -> None:
    # Curvature 1, damping 3, units 1 of a and 2 of b: D F D + 3 is 4 of a and 7 of b, so y = -(1, 2) / 4 of a and
    # -2 * 3 / 7 of b, and the step D y is along (1/4, 1/2, 2 * 6/7).
    rule = TrustRegion(max_kl=0.5, cg_damping=3.0)
    gradient = in_a_region(quadratic(units={"b": torch.tensor(2.0)}))
    state, _ = meta_step(rule, start(rule), gradient)
    moved = flatten(state.meta) - flatten(META)
    direction = -torch.tensor([1 / 4, 1 / 2, 0.0, 12 / 7])
    torch.testing.assert_close(moved / moved.norm(), direction / direction.norm())
