"""Step sizes of the inner update: which parameters change, and by what step."""

import pytest
import torch

from maml_rl.config import RLMeta
from maml_rl.rates import InnerRates, InnerUpdate, inner_rates, theta

NAMES = ("w", "b")
THETA = {"w": torch.zeros(2, 3), "b": torch.zeros(2), "fixed": torch.zeros(4)}


def rates_of(**settings: object) -> InnerRates:
    return inner_rates(RLMeta(**({"inner_lr": 0.5, "inner_steps": 2} | settings)), NAMES)


def test_a_single_step_size_applies_to_all_and_is_not_a_meta_parameter() -> None:
    rates = rates_of()
    assert rates.initial(THETA) == {}
    assert not rates.has_learned
    assert rates.at(THETA, 0) == rates.at(THETA, 5) == InnerUpdate({"w": 0.5, "b": 0.5}, {})
    assert rates.at(THETA, 1, factor=0.5).rates == {"w": 0.25, "b": 0.25}


def test_learned_step_sizes_begin_with_inner_lr() -> None:
    of_each = rates_of(learned_lr="parameter").initial(THETA)
    torch.testing.assert_close(of_each, {"inner_lr.w": torch.full((2, 3), 0.5), "inner_lr.b": torch.full((2,), 0.5)})
    of_tensor = rates_of(learned_lr="tensor-and-step").initial(THETA)
    torch.testing.assert_close(of_tensor, {"inner_lr.w": torch.full((2,), 0.5), "inner_lr.b": torch.full((2,), 0.5)})


def test_theta_excludes_step_sizes() -> None:
    meta = THETA | rates_of(learned_lr="parameter").initial(THETA)
    assert list(meta) == ["w", "b", "fixed", "inner_lr.w", "inner_lr.b"]
    assert list(theta(meta)) == ["w", "b", "fixed"]


def test_steps_after_the_last_trained_one_keep_its_step_size() -> None:
    rates = rates_of(learned_lr="tensor-and-step")
    meta = {"inner_lr.w": torch.tensor([0.1, 0.2]), "inner_lr.b": torch.tensor([0.3, 0.4])}
    for step, expected in enumerate([(0.1, 0.3), (0.2, 0.4), (0.2, 0.4)]):
        assert [rate.item() for rate in rates.at(meta, step).rates.values()] == pytest.approx(expected)
    assert rates.at(meta, 1, factor=0.5).rates["w"].item() == pytest.approx(0.1)


@pytest.mark.parametrize("learned", ["parameter", "tensor-and-step"])
@pytest.mark.parametrize("step", [0, 1, 4])
def test_transposed_is_the_transpose(learned: str, step: int) -> None:
    # <learned_lr(x), y> = <x, transposed_lr(y)> for any x of the learned step sizes and y of the parameters
    rates = rates_of(learned_lr=learned)
    generator = torch.Generator().manual_seed(0)
    x = {n: torch.randn(v.shape, generator=generator) for n, v in rates.initial(THETA).items()}
    y = {n: torch.randn(THETA[n].shape, generator=generator) for n in NAMES}
    left = sum((rate * y[name]).sum() for name, rate in rates.learned_lr(x, step).items())
    right = sum((x[name] * value).sum() for name, value in rates.transposed_lr(y, step).items())
    torch.testing.assert_close(left, right)
