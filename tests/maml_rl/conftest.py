"""Where operands lie in memory, on which the rounding of products and sums depends on some processors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_MOVES = ("clone", "view", "detach", "split", "slice", "_to_copy", "alias", "copy_", "_reshape_alias", "lift_fresh")


class Operands(TorchDispatchMode):
    """Records operations except copies and views, with bytes after a boundary of 64 and strides of their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ not in _MOVES:
            tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            if tensors:
                self.seen.append((str(func), *((t.data_ptr() % 64, t.stride()) for t in tensors if t.numel())))
        return func(*args, **kwargs or {})


def _displaced(value: Tensor) -> Tensor:
    """The same values, 16 bytes after a boundary of 64, as NumPy's memory may begin."""
    elements = 16 // value.element_size()
    memory = torch.empty(value.numel() + 5 * elements, dtype=value.dtype)
    first = (-memory.data_ptr() % 64) // value.element_size() + elements
    result = memory[first : first + value.numel()].view(value.shape).copy_(value)
    assert result.data_ptr() % 64 == 16
    return result


@pytest.fixture
def operands() -> type[Operands]:
    return Operands


@pytest.fixture
def displaced() -> Callable[[Tensor], Tensor]:
    return _displaced
