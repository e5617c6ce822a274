"""Functions of tensors recorded once as graphs of primitive operations, and replayed.

A meta-gradient of small networks is a few hundred operations of microseconds each, and the layers of `torch.func` that
decide which operations these are cost more than the operations themselves. Recorded, they are decided once: twice as
fast for the sinusoid, to the same bits, and without the compiler for C++ that `torch.compile` needs.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

Function = Callable[..., Any]


def recorded(function: Function) -> Function:
    """The same function, recorded at its second call with arguments of some shapes, and replayed from then on.

    Args:
        function: Of tensors, in any nesting of tuples and dictionaries, to the same; what else it depends on must not
            change, and it must not decide by a tensor's values.
    """
    graphs: dict[Any, _Graph | None] = {}
    one_at_a_time = Lock()  # recording changes what PyTorch's modules do, for all threads

    def replay(*arguments: Any) -> Any:
        leaves, structure = pytree.tree_flatten(arguments)
        form = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        with one_at_a_time:
            if form not in graphs:
                graphs[form] = None
                return function(*arguments)
            graph = graphs[form] or _record(function, leaves, structure)
            graphs[form] = graph
        return pytree.tree_unflatten(graph.function(*leaves), graph.result)

    return replay


class _Graph(NamedTuple):
    function: Callable[..., list[Tensor]]  # of flat arguments
    result: Any  # nesting of what it returns


def _record(function: Function, leaves: list[Tensor], structure: Any) -> _Graph:
    nesting: list[Any] = []

    def flat(*values: Tensor) -> list[Tensor]:
        result, form = pytree.tree_flatten(function(*pytree.tree_unflatten(list(values), structure)))
        nesting.append(form)
        return result

    module: GraphModule = make_fx(flat)(*leaves)
    module.graph.eliminate_dead_code()
    module.recompile()
    return _Graph(module.forward, nesting[-1])
