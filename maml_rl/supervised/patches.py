"""Convolution of stride 2 as a matrix product, since that is the fast form where every task has weights of its own.

A batched convolution with weights for each task is a grouped one, which is slow on a processor; a batched matrix
product is not. `patches` lays the 3 x 3 surroundings of every other pixel side by side. It is linear, so it and its
transpose, `_Overlaid`, are each other's derivative, of every order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_TAPS = [(i, j) for i in range(3) for j in range(3)]


def patches(x: Tensor) -> Tensor:
    """3 x 3 surroundings of every other pixel of `[B, height, width, channels]`, with zeros around the image.

    Returns:
        `[B, ceil(height / 2), ceil(width / 2), 9 channels]`: times weights `[9 channels, out]`, a convolution of stride
        2 and padding 1.
    """
    result: Tensor = _Patches.apply(x)  # type: ignore[no-untyped-call]
    return result


class _Patches(torch.autograd.Function):
    """Pixels by their place in each patch."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2
        padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
        b, h, w, c = padded.stride()
        view = padded.as_strided((batch, rows, columns, 3, 3, channels), (b, 2 * h, 2 * w, h, w, c))
        return view.reshape(batch, rows, columns, 9 * channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, _output: Any) -> None:
        ctx.size = inputs[0].shape[-3:-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Overlaid.apply(gradients[0], ctx.size)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(_info: Any, in_dims: Any, x: Tensor) -> Any:
        x = x.movedim(in_dims[0], 0)
        return _Patches.apply(x.flatten(0, 1)).unflatten(0, x.shape[:2]), 0  # type: ignore[no-untyped-call]


class _Overlaid(torch.autograd.Function):
    """The transpose: patches added up where they overlap, as an image of the given size."""

    @staticmethod
    def forward(p: Tensor, size: tuple[int, int]) -> Tensor:
        batch, rows, columns, width = p.shape
        image = p.new_zeros(batch, 2 * rows + 1, 2 * columns + 1, width // 9)
        parts = p.reshape(batch, rows, columns, 9, width // 9).unbind(-2)
        for (i, j), part in zip(_TAPS, parts, strict=True):
            image[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] += part
        return image[:, 1 : 1 + size[0], 1 : 1 + size[1]]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_ctx: Any, *gradients: Any) -> Any:
        return patches(gradients[0]), None

    @staticmethod
    def vmap(_info: Any, in_dims: Any, p: Tensor, size: tuple[int, int]) -> Any:
        p = p.movedim(in_dims[0], 0)
        return _Overlaid.apply(p.flatten(0, 1), size).unflatten(0, p.shape[:2]), 0  # type: ignore[no-untyped-call]
