"""Graphs of traced functions: those that must not be replayed are refused, and the others are shortened.

Used by `maml_rl.supervised.tracing`. A graph is a list of PyTorch's primitive operations (`torch.fx`), each with the
shape, strides and type that its result had when the function was traced.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node

from maml_rl.errors import InputError

UNTRACED = "use Network(module, trace=False)"

_ATEN = torch.ops.aten
_RESHAPES = (_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.expand.default)
_COPIES = (_ATEN.detach.default, _ATEN.lift_fresh_copy.default)
_FACTORS = (_ATEN.mul.Scalar, _ATEN.mul.Tensor, _ATEN.pow.Tensor_Scalar)
_TRANSPOSES = (_ATEN.t.default, _ATEN.transpose.int)
_VIEWS = (*_RESHAPES, *_TRANSPOSES, _ATEN.permute.default, _ATEN.unsqueeze.default, _ATEN.select.int)
# PyTorch's own functions for operations whose arguments are the same; they take a third of the time to call.
_DIRECT: dict[str, Callable[..., Any]] = {
    **{f"aten::{name}": getattr(Tensor, name) for name in ("view", "expand", "new_zeros")},
    "aten::_unsafe_view": Tensor.view,
    **{f"aten::{name}": getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "pow", "relu", "cat")},
    **{f"aten::{name}": getattr(torch, name) for name in ("mm", "bmm", "sum", "mean", "zeros_like", "ones_like")},
    **{f"aten::{name}": getattr(torch, name) for name in ("t", "transpose", "permute", "unsqueeze", "select", "stack")},
}


def check_traceable(graph: Graph) -> None:
    """Checks that a graph has no operation that goes wrong in a replay.

    Raises:
        InputError: If it draws at random, has a shape that depends on a tensor's values, or writes into a tensor that
            is neither an argument nor computed from the arguments.
    """
    for node in graph.nodes:
        if not isinstance(node.target, OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise _untraceable(f"it draws at random ({node.target})")
        if _has_shape_of_values(node):
            raise _untraceable(f"it has a shape that depends on a tensor's values ({node.target})")
        if any(_original(written).op == "get_attr" for written in _written(node)):
            raise _untraceable(f"it changes a tensor of its own in every pass ({node.target})")


def _untraceable(why: str) -> InputError:
    return InputError(f"the network cannot be traced, as {why}: {UNTRACED}")


def _has_shape_of_values(node: Node) -> bool:
    assert isinstance(node.target, OpOverload)
    if torch.Tag.dynamic_output_shape not in node.target.tags:
        return False
    if node.target is not _ATEN.index.Tensor:
        return True
    indices: Any = node.args[1]  # a mask among them selects as many elements as it has ones
    return any(isinstance(i, Node) and i.meta["val"].dtype in (torch.bool, torch.uint8) for i in indices)


def _written(node: Node) -> list[Node]:
    """The nodes whose values an operation writes into."""
    assert isinstance(node.target, OpOverload)
    arguments = node.target._schema.arguments
    given = dict(zip((argument.name for argument in arguments), node.args, strict=False)) | node.kwargs
    written = [given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return [value for value in written if isinstance(value, Node)]


def _original(node: Node) -> Node:
    """The node whose memory a value lies in, through any number of views."""
    while isinstance(node.target, OpOverload) and node.target.is_view and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def simplify(graph: Graph) -> None:
    """Removes operations that change nothing from a graph, and calls the others directly.

    `torch.func` works in layers, one for each derivative and one for the tasks, and each adds its own views, copies and
    factors of 1. An operation is left out only if its result has the values, shape, strides and type of its operand, so
    that every other operation sees the same numbers in the same order, and rounds as before. A graph that writes into a
    tensor is left as it is: there a copy is more than its value.
    """
    operations = [node for node in graph.nodes if isinstance(node.target, OpOverload)]
    if any(node.target._schema.is_mutable for node in operations):
        return
    views: dict[Any, Node] = {}
    for node in operations:
        same = _unchanged(node)
        if same is None and node.target in _VIEWS:
            same = views.setdefault((node.target, str(node.args)), node)  # a node's name stands for it
        if same not in (None, node):
            node.replace_all_uses_with(same)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if isinstance(node.target, OpOverload):
            node.target = _DIRECT.get(node.target._schema.name, node.target)


def _unchanged(node: Node) -> Node | None:
    """The node whose value this one only repeats, if it does."""
    source = node.args[0] if node.args else None
    if not isinstance(source, Node):
        return None
    repeats = node.target in _COPIES
    repeats |= node.target in _FACTORS and isinstance(node.args[1], int | float) and node.args[1] == 1
    repeats |= node.target in _RESHAPES
    if repeats and _same_layout(node, source):
        return source
    if node.target in _TRANSPOSES and source.target in _TRANSPOSES and _swapped(node) == _swapped(source):
        return source.args[0]  # type: ignore[return-value]  # a transposition's first argument is a node
    return None


def _same_layout(node: Node, source: Node) -> bool:
    value, original = node.meta.get("val"), source.meta.get("val")
    if value is None or original is None:
        return False
    return (value.shape, value.stride(), value.dtype) == (original.shape, original.stride(), original.dtype)


def _swapped(node: Node) -> set[Any]:
    if node.target is _ATEN.t.default:
        return {0, 1}
    dimensions = node.meta["val"].dim()
    return {dimension % dimensions for dimension in node.args[1:3]}
