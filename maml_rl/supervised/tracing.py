"""Functions of tensors traced once as graphs of primitive operations, and replayed.

A meta-gradient of small networks is a few hundred operations of microseconds each, and the layers of `torch.func` that
decide which operations these are cost more than the operations themselves. A traced function decides once, leaves out
what changes nothing and calls the rest directly: three times as fast for the sinusoid, with the same bits, and without
the C++ compiler that `torch.compile` needs.

A trace holds what Python decided and every value that Python took out of a tensor, and it is made by private functions
of PyTorch. There are three precautions: it is made at other values than those of its first replay, what is known to go
wrong is refused, and replays number 1, 2, 4, 8, ... are compared with the function itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from maml_rl.errors import InputError, reason
from maml_rl.supervised.graphs import UNTRACED, check_traceable, simplify

_Function = Callable[..., Any]
_ONE_AT_A_TIME = RLock()  # tracing changes what PyTorch's modules do, for all threads


def traced(function: _Function, constants: Sequence[Tensor] = ()) -> _Function:
    """The same function, traced at its first call with arguments of a given form, then replayed; in any thread.

    The first call is a replay too, so a resumed run computes every iteration as an uninterrupted run does. Results
    carry no graph for automatic differentiation.

    Args:
        function: From tensors, in any nesting of tuples and dictionaries, to the same. Whatever else it depends on must
            not change, and its decisions must not depend on a tensor's values.
        constants: Tensors other than its arguments that it reads. When one is changed in place, it is traced again.

    Raises:
        InputError: By the replayed function, if the function cannot be traced, or a replay turns out to differ from it.
    """
    traces: dict[Any, _Trace] = {}

    def replay(*arguments: Any) -> Any:
        leaves: list[Tensor] = []
        form = _form(arguments, leaves), *_global_state()
        versions = [constant._version for constant in constants]
        with _ONE_AT_A_TIME:
            trace = traces.get(form)
            if trace is None or trace.versions != versions:
                traces[form] = trace = _trace(function, arguments, versions)
            trace.replays += 1
            if trace.replays & (trace.replays - 1) == 0:
                result = _checked_replay(trace, function, arguments)
                if versions != [constant._version for constant in constants]:
                    raise InputError(f"the network cannot be traced, as it changes a buffer in every pass: {UNTRACED}")
                return result
        return trace.replay(leaves)

    return replay


@dataclass
class _Trace:
    """The graph of a function for arguments of one form."""

    graph: Callable[..., list[Tensor]]  # of flat arguments
    nesting: Any  # of what the function returns
    versions: list[int]  # of the constants: how often each had been changed
    replays: int = 0

    def replay(self, leaves: Sequence[Tensor]) -> Any:
        with torch.no_grad():  # a graph without its copies has other gradients
            return pytree.tree_unflatten(self.graph(*leaves), self.nesting)


def _form(nested: Any, leaves: list[Tensor]) -> tuple[Any, ...]:
    """What a trace depends on in its arguments, whose tensors are added in the order of `pytree`, in less time."""
    if isinstance(nested, Tensor):
        leaves.append(nested)
        return nested.shape, nested.stride(), nested.dtype, nested.device
    if isinstance(nested, dict):
        return (*nested, *[_form(value, leaves) for value in nested.values()])
    return tuple([_form(value, leaves) for value in nested])


def _global_state() -> tuple[Any, ...]:
    """The global settings by which PyTorch decides types."""
    return torch.get_default_dtype(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


def _trace(function: _Function, arguments: Any, versions: list[int]) -> _Trace:
    leaves, structure = pytree.tree_flatten(_altered(arguments))
    nesting: list[Any] = []

    def flat(*values: Tensor) -> list[Tensor]:
        result, form = pytree.tree_flatten(function(*pytree.tree_unflatten(list(values), structure)))
        nesting.append(form)
        return result

    one_mode = TracingContext(FakeTensorMode(allow_fallback_kernels=True))  # else each value gets a mode of its own
    try:
        with tracing(one_mode):
            module: GraphModule = make_fx(flat)(*leaves)
    except Exception as error:
        function(*_altered(arguments))  # if it fails as well, the error is its own
        raise InputError(f"the network cannot be traced ({shorten(reason(error), 200)}): {UNTRACED}") from error
    check_traceable(module.graph)
    simplify(module.graph)
    module.recompile()
    return _Trace(module.forward, nesting[-1], versions)


def _altered(arguments: Any) -> Any:
    """The arguments with other numbers, in tensors that share no memory, laid out alike; integers (labels) stay."""

    def altered(value: Tensor) -> Tensor:
        other = value.detach() * 0.9 + 0.01 if value.is_floating_point() else value.clone()
        return other if other.stride() == value.stride() else value

    return pytree.tree_map(altered, arguments)


def _checked_replay(trace: _Trace, function: _Function, arguments: Any) -> Any:
    """What a replay returns, after the comparison with the function itself.

    An accelerator may round differently from call to call, and where that turns a ReLU on or off, a few numbers differ
    by more than rounding. So a difference counts only if it is there for other arguments as well, which are not those
    of the trace either.

    Raises:
        InputError: If the two differ.
    """
    kept = pytree.tree_map(torch.clone, arguments)  # as a network may write into its input
    result = trace.replay(pytree.tree_leaves(arguments))
    if not _agree(result, function(*kept)):
        others = _altered(_altered(kept))
        if not _agree(trace.replay(pytree.tree_leaves(pytree.tree_map(torch.clone, others))), function(*others)):
            raise InputError(
                "the network computes something else since it was traced: it depends on more than parameters, buffers "
                f"and inputs, such as an attribute, a global variable or a random number: {UNTRACED}"
            )
    return result


def _agree(found: Any, expected: Any) -> bool:
    """Whether all numbers are equal but for rounding, by half the digits of their type."""
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    return all(torch.equal(a, b) or _close(a, b) for a, b in pairs)


def _close(a: Tensor, b: Tensor) -> bool:
    finite = b.isfinite()
    if a.dtype != b.dtype or not b.is_floating_point() or not torch.equal(a.isfinite(), finite):
        return False
    a, b = a[finite], b[finite]
    bound = torch.finfo(b.dtype).eps ** 0.5 * (b.abs() + b.abs().mean())
    return bool(((a - b).abs() <= bound).all())
