"""The Wiener filter of the inner gradient, on gradients whose signal and noise are known."""

import pytest
import torch
from torch import Tensor

from maml_rl.gradient_filter import filter_metrics, gains, initial_statistics, is_statistic, with_measured
from maml_rl.parallel import TaskThreads
from maml_rl.types import Batch, Params

THETA = {"w": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}


def measured_as(signal: list[float], power: list[float]) -> Params:
    """Running means of two numbers of w and one of b."""
    values = {"inner_signal.": torch.tensor(signal), "inner_power.": torch.tensor(power)}
    parts = {kind: {"w": value[:2], "b": value[2:]} for kind, value in values.items()}
    return {kind + name: value.double() for kind, named in parts.items() for name, value in named.items()}


def found(meta: Params) -> list[float]:
    named = gains(meta, ["w", "b"])
    assert list(named) == ["w", "b"]
    return torch.cat([named["w"], named["b"]]).tolist()


def test_it_does_nothing_before_anything_is_measured() -> None:
    assert found(initial_statistics(THETA)) == [1, 1, 1]


def test_it_does_nothing_where_all_numbers_have_the_same_share_of_noise() -> None:
    # w = s^2 / (s^2 + n^2) = 1/4 of all, and <s, s> / <w s, s> = 4
    assert found(measured_as([1.0, 2.0, 0.5], [4.0, 8.0, 2.0])) == pytest.approx([1, 1, 1])


def test_gains_by_hand() -> None:
    # w = 1, 1/4 and 0.05, the least, of a number whose signal is measured as negative. The length of the step along the
    # signal is kept: (3 + 1) / (3 * 1 + 1 * 0.25) = 16/13
    scale = 16 / 13
    assert found(measured_as([3.0, 1.0, -0.5], [3.0, 4.0, 2.0])) == pytest.approx([scale, scale / 4, scale * 0.05])


def test_it_does_nothing_to_gradients_of_noise_alone() -> None:
    gain = found(measured_as([-1.0, -2.0, -0.5], [4.0, 8.0, 2.0]))
    assert gain[0] == gain[1] == gain[2]


def test_metrics_by_hand() -> None:
    # Ratios 1, 1/4 and below 0, so one of three at the least; signal 3 + 1 - 0.5 of power 3 + 4 + 2. Of noise alone,
    # all three, and a signal of -3.5 of 14.
    some, noise = filter_metrics(measured_as([3.0, 1.0, -0.5], [3.0, 4.0, 2.0])), measured_as([-1, -2, -0.5], [4, 8, 2])
    assert some == pytest.approx({"inner/filter_floor": 1 / 3, "inner/signal_share": 3.5 / 9})
    assert filter_metrics(noise) == pytest.approx({"inner/filter_floor": 1, "inner/signal_share": -0.25})
    assert filter_metrics(THETA) == {}


def batch(even: list[float], odd: list[float]) -> Batch:
    """Two episodes of one step each, whose gradients are these."""
    observations = torch.tensor([even, odd], dtype=torch.float64)
    nothing, index = torch.zeros(2, dtype=torch.float64), torch.arange(2)
    return Batch(observations, nothing, nothing, nothing, episodes=index, times=0 * index)


def gradient(steps: Batch) -> Params:
    mean: Tensor = steps.observations.mean(0)
    return {"w": mean[:2], "b": mean[2:]}


def test_signal_is_the_product_of_the_halves_and_power_the_square_of_their_mean() -> None:
    # Products of the halves: task 1 (1 * 3, 2 * -2, 4 * 4), task 2 (0, 0, 0); their means 1.5, -2, 8.
    # Squares of the gradients: task 1 (2^2, 0, 4^2), task 2 (1^2, 0, 0); their means 2.5, 0, 8.
    tasks = [batch([1.0, 2.0, 4.0], [3.0, -2.0, 4.0]), batch([2.0, 0.0, 0.0], [0.0, 0.0, 0.0])]
    before = measured_as([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]) | {"other": torch.ones(3)}
    after = with_measured(before, gradient, tasks, TaskThreads(2))
    expected = measured_as([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])
    new = measured_as([1.5, -2.0, 8.0], [2.5, 0.0, 8.0])
    expected = {name: 0.95 * value + 0.05 * new[name] for name, value in expected.items()}
    torch.testing.assert_close({name: value for name, value in after.items() if is_statistic(name)}, expected)
    assert torch.equal(after["other"], before["other"])


def test_the_first_measurement_counts_as_if_all_before_had_been_without_noise() -> None:
    # Power 4 and signal 0.95 * 4 + 0.05 * 3 = 3.95
    after = with_measured(initial_statistics(THETA), gradient, [batch([1.0, 0, 0], [3.0, 0, 0])], TaskThreads(1))
    assert after["inner_signal.w"].tolist() == pytest.approx([3.95, 0])
    assert after["inner_power.w"].tolist() == pytest.approx([4, 0])


def test_it_separates_signal_from_noise() -> None:
    # Gradients of 400 tasks: the first number is all signal (+-1 by task), the second all noise of variance 1 in each
    # episode, the third both: signal 1, noise 1/2 after two episodes, so w = 2/3.
    generator = torch.Generator().manual_seed(0)
    meta = initial_statistics(THETA)
    for _ in range(100):
        noise = torch.randn(40, 2, 2, generator=generator, dtype=torch.float64)
        sign = 1.0 - 2.0 * (torch.arange(40) % 2)
        tasks = [
            batch(*[[float(s), float(n[0]), float(s + n[1])] for n in of_task])
            for s, of_task in zip(sign, noise, strict=True)
        ]
        meta = with_measured(meta, gradient, tasks, TaskThreads(1))
    ratio = {name: meta[f"inner_signal.{name}"] / meta[f"inner_power.{name}"] for name in THETA}
    assert ratio["w"][0] == pytest.approx(1)
    assert ratio["w"][1] == pytest.approx(0, abs=0.1)
    assert ratio["b"].item() == pytest.approx(2 / 3, abs=0.05)
