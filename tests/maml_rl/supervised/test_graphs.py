"""Graphs of traced functions: what is left out of them, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from maml_rl.errors import InputError
from maml_rl.supervised.graphs import check_traceable, simplify


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def simplified(function: Callable[..., Any], *arguments: Tensor) -> torch.fx.GraphModule:
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
    module = simplified(lambda x: function(x) + 1, x)
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
    result = simplified(lambda x: function(x) + 1, x)(x)
    assert torch.equal(result, function(x) + 1)
    assert result.dtype == (function(x) + 1).dtype


def test_a_graph_that_writes_into_a_tensor_keeps_its_copies() -> None:
    def function(x: Tensor) -> Tensor:
        copied = x * 1
        copied.add_(1)
        return copied + x

    x = values(3, 4)
    module = simplified(function, x)
    torch.testing.assert_close(module(x), 2 * x + 1)
    assert torch.equal(x, values(3, 4))


def test_random_operations_are_not_merged() -> None:
    module = simplified(lambda x: (torch.rand_like(x), torch.rand_like(x)), values(5))
    first, second = module(values(5))
    assert not torch.equal(first, second)


OWN = torch.zeros(3)


def added_to(tensor: Tensor, x: Tensor) -> Tensor:
    """Writes into a tensor through a view of it."""
    tensor.view(-1)[:1].add_(1)
    return x + tensor


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x + torch.rand_like(x), "draws at random"),
        (lambda x: torch.nn.functional.dropout(x), "draws at random"),
        (lambda x: x[x > 0].sum(), "shape that depends on a tensor's values"),
        (lambda x: x.nonzero(), "shape that depends on a tensor's values"),
        (lambda x: added_to(OWN, x), "changes a tensor of its own in every pass"),
    ],
)
def test_a_function_that_cannot_be_replayed_is_refused(function: Callable[[Tensor], Tensor], message: str) -> None:
    graph = make_fx(function)(values(3)).graph
    with pytest.raises(InputError, match=rf"cannot be traced.*{message}.*: use Network\(module, trace=False\)$"):
        check_traceable(graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[torch.tensor([2, 0])],
        lambda x: added_to(torch.tensor([1.0, 2.0, 3.0]), x),  # a copy of the constant
        lambda x: x.clone().relu_(),
        lambda x: x.relu_() + 1,  # an argument, as nn.ReLU(inplace=True) does
    ],
)
def test_a_function_that_can_be_replayed_is_accepted(function: Callable[[Tensor], Tensor]) -> None:
    module = make_fx(function)(values(3))
    check_traceable(module.graph)
    for seed in (1, 2):
        assert torch.equal(module(values(3, seed=seed)), function(values(3, seed=seed)))
