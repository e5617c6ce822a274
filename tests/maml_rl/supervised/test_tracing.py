from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from maml_rl.supervised.tracing import recorded, simplify


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def recorded_graph(function: Callable[..., Any], *arguments: Tensor) -> torch.fx.GraphModule:
    module = make_fx(function)(*arguments)
    simplify(module.graph)
    module.recompile()
    return module


def operations(module: torch.fx.GraphModule) -> int:
    return sum(node.op == "call_function" for node in module.graph.nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(3, 4),
        lambda x: x.expand(3, 4),
        lambda x: x * 1,
        lambda x: x**1.0,
        lambda x: x.detach(),
        lambda x: x.t().t(),
        lambda x: x.transpose(0, 1).transpose(-1, 0),
        lambda x: x.t().transpose(1, 0),
    ],
)
def test_operations_that_change_nothing_are_left_out(function: Callable[[Tensor], Tensor]) -> None:
    x = values(3, 4)
    module = recorded_graph(lambda x: function(x) + 1, x)
    assert operations(module) == 1
    assert torch.equal(module(x), x + 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(4, 3),
        lambda x: x[None].expand(2, 3, 4),
        lambda x: x * 2,
        lambda x: x**2,
        lambda x: x.long() * 1.0,
        lambda x: x[None].transpose(0, 1).transpose(1, 2),
        lambda x: x.t().contiguous().view(4, 3),
    ],
)
def test_operations_that_change_something_stay(function: Callable[[Tensor], Tensor]) -> None:
    x = values(3, 4)
    result = recorded_graph(lambda x: function(x) + 1, x)(x)
    assert torch.equal(result, function(x) + 1)
    assert result.dtype == (function(x) + 1).dtype


def test_a_graph_that_writes_into_a_tensor_keeps_its_copies() -> None:
    def function(x: Tensor) -> Tensor:
        copied = x * 1
        copied.add_(1)
        return copied + x

    x = values(3, 4)
    module = recorded_graph(function, x)
    torch.testing.assert_close(module(x), 2 * x + 1)
    assert torch.equal(x, values(3, 4))


def test_random_operations_stay_apart() -> None:
    module = recorded_graph(lambda x: (torch.rand_like(x), torch.rand_like(x)), values(5))
    first, second = module(values(5))
    assert not torch.equal(first, second)


def test_a_constant_that_is_recorded_is_the_same_at_every_call() -> None:
    rate = 0.5
    function = recorded(lambda x: x - torch.tensor(rate) * x.square())
    for seed in range(4):
        x = values(3, seed=seed)
        assert torch.equal(function(x), x - torch.tensor(rate) * x.square())


def test_a_second_order_gradient_is_replayed_to_the_same_bits() -> None:
    def adapted_loss(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
        def loss(w: Tensor) -> Tensor:
            return (torch.relu(x @ w).sum(-1) - y).square().mean()

        return loss(weight - 0.1 * torch.func.grad(loss)(weight))

    def gradient(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.func.grad(lambda w: torch.func.vmap(adapted_loss, (None, 0, 0))(w, x, y).sum())(weight)

    replayed = recorded(gradient)
    for seed in range(4):
        weight, x, y = values(4, 6, seed=seed), values(5, 7, 4, seed=seed + 10), values(5, 7, seed=seed + 20)
        assert torch.equal(replayed(weight, x, y), gradient(weight, x, y))


def test_arguments_of_other_names_or_layout_are_recorded_anew() -> None:
    def function(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return (params["a"] * x - params["b"]).view(12)

    replayed = recorded(function)
    a, b, x = values(3, 4), values(3, 4, seed=1), values(3, 4, seed=2)
    for params in ({"a": a, "b": b}, {"b": b, "a": a}):
        for _ in range(3):
            assert torch.equal(replayed(params, x), function(params, x))
    summed = recorded(lambda x: x.reshape(12).cumsum(0))
    for layout in (x, values(4, 3, seed=3).t(), x):
        for _ in range(3):
            assert torch.equal(summed(layout), layout.reshape(12).cumsum(0))
