"""Traced functions: the same numbers as the function itself, or an error in one line."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maml_rl.errors import InputError
from maml_rl.parallel import TaskThreads
from maml_rl.supervised.meta_learning import initial_state, meta_gradient
from maml_rl.supervised.networks import Network
from maml_rl.supervised.settings import SupervisedMeta
from maml_rl.supervised.task_batches import TaskBatch
from maml_rl.supervised.tracing import traced
from maml_rl.types import flatten

UNTRACED = r": use Network\(module, trace=False\)$"


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_constant_made_in_the_function_is_the_same_at_every_call() -> None:
    rate = 0.5
    function = traced(lambda x: x - torch.tensor(rate) * x.square())
    for seed in range(4):
        x = values(3, seed=seed)
        assert torch.equal(function(x), x - torch.tensor(rate) * x.square())


def test_a_second_order_gradient_is_replayed_bit_for_bit() -> None:
    def adapted_loss(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
        def loss(w: Tensor) -> Tensor:
            return (torch.relu(x @ w).sum(-1) - y).square().mean()

        return loss(weight - 0.1 * torch.func.grad(loss)(weight))

    def gradient(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.func.grad(lambda w: torch.func.vmap(adapted_loss, (None, 0, 0))(w, x, y).sum())(weight)

    replayed = traced(gradient)
    for seed in range(4):
        weight, x, y = values(4, 6, seed=seed), values(5, 7, 4, seed=seed + 10), values(5, 7, seed=seed + 20)
        assert torch.equal(replayed(weight, x, y), gradient(weight, x, y))


def test_arguments_of_other_names_or_layout_are_traced_again() -> None:
    def function(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return (params["a"] * x - params["b"]).view(12)

    replayed = traced(function)
    a, b, x = values(3, 4), values(3, 4, seed=1), values(3, 4, seed=2)
    for params in ({"a": a, "b": b}, {"b": b, "a": a}):
        for _ in range(3):
            assert torch.equal(replayed(params, x), function(params, x))
    summed = traced(lambda x: x.reshape(12).cumsum(0))
    for layout in (x, values(4, 3, seed=3).t(), x):
        for _ in range(3):
            assert torch.equal(summed(layout), layout.reshape(12).cumsum(0))


# What could make a trace wrong. Some of it is harmless, and the replay must then be right; the rest is refused.


def test_another_shape_type_or_default_type_is_traced_again() -> None:
    function = lambda x: x * len(x) + torch.ones(()) / 3 + (1 if x.dtype == torch.float64 else 2)  # noqa: E731
    replayed = traced(function)
    for x in (values(3), values(4), values(3).double(), values(3)):
        assert torch.equal(replayed(x), function(x))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(replayed(values(3)), function(values(3)))
        assert replayed(values(3).double())[0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_arguments_that_share_memory_at_first_may_differ_later() -> None:
    replayed = traced(lambda x, y: x - 2 * y)
    same = values(3)
    assert torch.equal(replayed(same, same), -same)
    assert torch.equal(replayed(values(3, seed=1), same), values(3, seed=1) - 2 * same)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.abs().max().item(),
        lambda x: x + torch.tensor(x.tolist()),
        lambda x: x * float(x.detach().numpy().sum()),  # PyTorch does not see that one
    ],
    ids=["branch", "item", "list", "numpy"],
)
def test_a_function_that_depends_on_values_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match=UNTRACED) as caught:
        traced(function)(values(3))
    assert "\n" not in str(caught.value)


def test_an_error_raised_by_the_function_is_passed_on() -> None:
    def function(_: Tensor) -> Tensor:
        raise InputError("outputs do not fit")

    with pytest.raises(InputError, match=r"^outputs do not fit$"):
        traced(function)(values(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * random.random(),
        lambda x: x + torch.from_numpy(np.random.default_rng().random(3)).float(),
        lambda x, calls=[]: calls.append(None) or x * len(calls),
    ],
    ids=["random", "numpy", "counter"],
)
def test_a_value_that_python_recomputes_is_found_at_the_first_replay(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match=f"computes something else since it was traced.*{UNTRACED}"):
        traced(function)(values(3))


def test_a_global_that_changes_is_found_at_the_next_comparison() -> None:
    scale = 1.0
    replayed = traced(lambda x: x * scale)
    for _ in range(7):
        replayed(values(3))
    scale = 2.0
    with pytest.raises(InputError, match="a global variable"):
        replayed(values(3))


def test_a_difference_is_accepted_as_rounding_and_refused_if_larger() -> None:
    factor = 1.0
    replayed = traced(lambda x: x * factor)
    replayed(values(3))
    factor = 1 + 1e-6
    replayed(values(3))
    replayed(values(3))
    factor = 1.01
    with pytest.raises(InputError, match="computes something else"):
        replayed(values(3))


def test_values_that_are_not_finite_are_replayed_unchanged() -> None:
    replayed = traced(lambda x: torch.stack([x.log(), 1 / x]))
    x = torch.tensor([-1.0, 0.0, 2.0])
    for _ in range(4):
        torch.testing.assert_close(replayed(x), torch.stack([x.log(), 1 / x]), equal_nan=True)


def test_a_function_that_writes_into_its_argument_does_so_in_a_replay() -> None:
    replayed = traced(lambda x: x.relu_() * 2)
    for seed in range(5):
        x = values(3, seed=seed)
        assert torch.equal(replayed(x), values(3, seed=seed).relu() * 2)
        assert torch.equal(x, values(3, seed=seed).relu())


def test_a_constant_that_is_changed_in_place_is_seen_even_where_python_reads_it() -> None:
    constant = torch.tensor(2.0)
    function = lambda x: x * constant + constant.item()  # noqa: E731
    replayed = traced(function, [constant])
    for value in (2.0, 2.0, 3.0, 3.0, 4.0):
        constant.fill_(value)
        assert torch.equal(replayed(values(3)), function(values(3)))


@pytest.mark.parametrize("read", [lambda steps: steps, lambda steps: steps.item()])
def test_a_constant_that_the_function_changes_is_refused(read: Callable[[Tensor], Any]) -> None:
    steps = torch.zeros(())
    with pytest.raises(InputError, match=f"cannot be traced.*{UNTRACED}"):
        traced(lambda x: x * read(steps.add_(1)), [steps])(values(3))


def test_functions_are_traced_one_at_a_time_in_any_number_of_threads() -> None:
    functions = [lambda x, n=n: torch.func.grad(lambda y: (n * y**3).sum())(x) for n in range(1, 9)]
    found = TaskThreads(4).map(lambda function: traced(function)(values(3)), functions)
    for n, result in enumerate(found, 1):
        torch.testing.assert_close(result, 3 * n * values(3) ** 2)


def test_a_replay_carries_no_graph() -> None:
    replayed = traced(lambda x: (x.detach() * x).sum())
    for _ in range(3):
        assert not replayed(values(3).requires_grad_()).requires_grad


# Networks: each of the modules below is right untraced, and right or refused if traced.


class Scaled(nn.Module):
    """A perceptron whose output is scaled by an attribute, a buffer and a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 1))
        self.factor = 1.0
        self.register_buffer("scale", torch.tensor(2.0))
        self.other = torch.tensor(3.0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.scale * self.other * self.layers(x)  # type: ignore[no-any-return,operator]


TASKS = TaskBatch(*(values(3, n, size, seed=n + size) for n, size in ((5, 2), (5, 1), (4, 2), (4, 1))))
CONFIG = SupervisedMeta(inner_lr=0.1)


def gradients(network: Network, chunk_size: int | None = None) -> Callable[[], Tensor]:
    """Its meta-gradient, as often as it is called, with chunks in two threads."""
    config = replace(CONFIG, chunk_size=chunk_size)
    gradient, state, threads = meta_gradient(network, config), initial_state(network, config), TaskThreads(2)
    return lambda: flatten(gradient(state, TASKS, threads)[0])


@pytest.mark.parametrize("trace", [False, True])
def test_a_network_keeps_its_module_as_it_was_except_for_buffers(trace: bool) -> None:
    module = Scaled()
    gradient, expected = gradients(Network(module, trace), 1), gradients(Network(Scaled()), 1)()
    module.factor = 5.0
    module.train()
    assert torch.equal(gradient(), expected)
    module.other = torch.tensor(7.0)
    assert torch.equal(gradient(), expected)
    for value in (0.5, 1.5):
        module.scale.fill_(value)  # type: ignore[operator]
        changed = Scaled()
        changed.scale.fill_(value)  # type: ignore[operator]
        assert torch.equal(gradient(), gradients(Network(changed), 1)())


class Counting(Scaled):
    """A module with a state: it scales by the number of its passes."""

    def forward(self, x: Tensor) -> Tensor:
        self.scale = self.scale + 1
        return super().forward(x)


class Drawing(Scaled):
    """A module that scales by a number drawn at random."""

    def forward(self, x: Tensor) -> Tensor:
        return random.random() * super().forward(x)


@pytest.mark.parametrize("build", [Counting, Drawing])
def test_a_module_that_is_not_a_function_of_its_inputs_is_not_traced(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(InputError, match=UNTRACED):
        gradients(Network(build(), trace=True))()
    assert gradients(Network(build()))().isfinite().all()


class CountingInPlace(Scaled):
    """A module that changes its buffer in place."""

    def forward(self, x: Tensor) -> Tensor:
        self.scale += 1
        return super().forward(x)


class Rectifying(Scaled):
    """A module that writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.relu_(x))


@pytest.mark.parametrize("build", [CountingInPlace, Rectifying])
@pytest.mark.parametrize("trace", [False, True])
def test_pytorch_refuses_what_writes_into_buffers_or_inputs(build: Callable[[], nn.Module], trace: bool) -> None:
    before = [examples.clone() for examples in TASKS]
    with pytest.raises(RuntimeError, match="would mutate a captured Tensor"):
        gradients(Network(build(), trace))()
    assert all(map(torch.equal, TASKS, before))
