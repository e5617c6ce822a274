"""Functions of tensors recorded once as graphs of primitive operations, and replayed.

A meta-gradient of small networks is a few hundred operations of microseconds each, and the layers of `torch.func` that
decide which operations these are cost more than the operations themselves. Recorded, they are decided once, operations
that change nothing are left out, and the rest is called directly: three times as fast for the sinusoid, to the same
bits, and without the compiler for C++ that `torch.compile` needs.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

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
    **{f"aten::{name}": getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "pow", "relu")},
    **{f"aten::{name}": getattr(torch, name) for name in ("mm", "bmm", "sum", "mean", "zeros_like", "ones_like")},
    **{f"aten::{name}": getattr(torch, name) for name in ("t", "transpose", "permute", "unsqueeze", "select", "stack")},
}

Function = Callable[..., Any]


def recorded(function: Function) -> Function:
    """The same function, recorded at its first call with arguments of some form, and replayed.

    That call is replayed too, so a resumed run computes every iteration as the run that never stopped.

    Args:
        function: Of tensors, in any nesting of tuples and dictionaries, to the same; what else it depends on must not
            change, and it must not decide by a tensor's values.
    """
    graphs: dict[Any, _Graph] = {}
    one_at_a_time = Lock()  # recording changes what PyTorch's modules do, for all threads

    def replay(*arguments: Any) -> Any:
        leaves: list[Tensor] = []
        form = _form(arguments, leaves)
        with one_at_a_time:
            if form not in graphs:
                graphs[form] = _record(function, arguments)
            graph = graphs[form]
        return pytree.tree_unflatten(graph.function(*leaves), graph.result)

    return replay


class _Graph(NamedTuple):
    function: Callable[..., list[Tensor]]  # of flat arguments
    result: Any  # nesting of what it returns


def _form(nested: Any, leaves: list[Tensor]) -> tuple[Any, ...]:
    """What a recording depends on of arguments, whose tensors are added in the order of `pytree`, in less time."""
    if isinstance(nested, Tensor):
        leaves.append(nested)
        return nested.shape, nested.stride(), nested.dtype, nested.device
    if isinstance(nested, dict):
        return (*nested, *[_form(value, leaves) for value in nested.values()])
    return tuple([_form(value, leaves) for value in nested])


def _record(function: Function, arguments: Any) -> _Graph:
    leaves, structure = pytree.tree_flatten(arguments)
    nesting: list[Any] = []

    def flat(*values: Tensor) -> list[Tensor]:
        result, form = pytree.tree_flatten(function(*pytree.tree_unflatten(list(values), structure)))
        nesting.append(form)
        return result

    module: GraphModule = make_fx(flat)(*leaves)
    simplify(module.graph)
    module.recompile()
    return _Graph(module.forward, nesting[-1])


def simplify(graph: Graph) -> None:
    """Leaves out the operations of a recorded graph that change nothing, and calls the rest directly.

    A graph that writes into a tensor is left as it is: there a copy is more than its value.
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
    if repeats and _alike(node, source):
        return source
    if node.target in _TRANSPOSES and source.target in _TRANSPOSES and _swapped(node) == _swapped(source):
        return source.args[0]  # type: ignore[return-value]  # a transposition's first argument is a node
    return None


def _alike(node: Node, source: Node) -> bool:
    value, original = node.meta.get("val"), source.meta.get("val")
    if value is None or original is None:
        return False
    return (value.shape, value.stride(), value.dtype) == (original.shape, original.stride(), original.dtype)


def _swapped(node: Node) -> set[Any]:
    if node.target is _ATEN.t.default:
        return {0, 1}
    dimensions = node.meta["val"].dim()
    return {dimension % dimensions for dimension in node.args[1:3]}
