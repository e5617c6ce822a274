"""Convolution as a matrix product, the fast form if every task has its own weights.

A batched convolution with weights for each task is a grouped convolution, which is slow on a CPU; a batched matrix
product is fast. `patches` lays out the 3 x 3 surroundings of pixels as rows. It is linear, so it and its transpose,
`_Overlaid`, are each other's derivative, of every order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def patches(x: Tensor, stride: int) -> Tensor:
    """3 x 3 surroundings of every `stride`-th pixel of `[B, height, width, channels]`, with zeros around the image.

    Returns:
        `[B, ceil(height / stride), ceil(width / stride), 9 channels]`: times weights `[9 channels, out]`, a convolution
        with padding 1.
    """
    result: Tensor = _Patches.apply(x, stride)  # type: ignore[no-untyped-call]
    return result


class _Patches(torch.autograd.Function):
    """Pixels by their place in each patch."""

    @staticmethod
    def forward(x: Tensor, stride: int) -> Tensor:
        batch, height, width, channels = x.shape
        rows, columns = -(-height // stride), -(-width // stride)
        padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
        b, h, w, c = padded.stride()
        view = padded.as_strided((batch, rows, columns, 3, 3, channels), (b, stride * h, stride * w, h, w, c))
        return view.reshape(batch, rows, columns, 9 * channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, _output: Any) -> None:
        ctx.size, ctx.stride = inputs[0].shape[-3:-1], inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Overlaid.apply(gradients[0], ctx.size, ctx.stride), None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(_info: Any, in_dims: Any, x: Tensor, stride: int) -> Any:
        x = x.movedim(in_dims[0], 0)
        return _Patches.apply(x.flatten(0, 1), stride).unflatten(0, x.shape[:2]), 0  # type: ignore[no-untyped-call]


class _Overlaid(torch.autograd.Function):
    """The transpose: patches added up where they overlap, as an image of the given size."""

    @staticmethod
    def forward(p: Tensor, size: tuple[int, int], stride: int) -> Tensor:
        batch, rows, columns, width = p.shape
        image = p.new_zeros(batch, stride * (rows - 1) + 3, stride * (columns - 1) + 3, width // 9)
        parts = p.reshape(batch, rows, columns, 3, 3, width // 9)
        for i in range(3):
            for j in range(3):
                image[:, i : i + stride * rows : stride, j : j + stride * columns : stride] += parts[:, :, :, i, j]
        return image[:, 1 : 1 + size[0], 1 : 1 + size[1]]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, _output: Any) -> None:
        ctx.stride = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return patches(gradients[0], ctx.stride), None, None

    @staticmethod
    def vmap(_info: Any, in_dims: Any, p: Tensor, size: tuple[int, int], stride: int) -> Any:
        p = p.movedim(in_dims[0], 0)
        return _Overlaid.apply(p.flatten(0, 1), size, stride).unflatten(0, p.shape[:2]), 0  # type: ignore[no-untyped-call]
