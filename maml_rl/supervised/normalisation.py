"""Batch normalisation of a task's own examples, which `torch.func` can differentiate twice and map over tasks.

The statistics are always those of the examples given, never running ones: of the whole batch, or of its first examples
alone, those of the support set (`support_size`), so that query examples do not affect each other.

Written in plain arithmetic, since PyTorch's own `batch_norm` has a wrong second derivative under `torch.func.vmap`: the
meta-gradient of a four-layer network came out 1 to 2 % wrong, also after `replace_all_batch_norm_modules_`. The other
layers that need plain arithmetic are in `layers.py`.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class TaskBatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps), then scaled and shifted, over all dimensions but the second.

    Args:
        weight: Scale `[channels]`; none if None.
        bias: Shift `[channels]`; none if None.
        eps: Added to the variance. That of the paper's code is 0.001.
        support_size: How many of the first examples the statistics are taken from; all if None.
    """

    def __init__(
        self, weight: nn.Parameter | None, bias: nn.Parameter | None, eps: float = 1e-3, support_size: int | None = None
    ) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.eps = eps
        self.support_size = support_size

    def forward(self, x: Tensor) -> Tensor:
        """The batch `[B, channels, ...]`, normalised."""
        dims = [0, *range(2, x.dim())]
        known = x[: self.support_size]
        mean = known.mean(dims, keepdim=True)
        scale = torch.rsqrt((known - mean).square().mean(dims, keepdim=True) + self.eps)
        shape = [1, -1] + [1] * (x.dim() - 2)
        if self.weight is not None:
            scale = scale * self.weight.reshape(shape)
        x = (x - mean) * scale
        return x if self.bias is None else x + self.bias.reshape(shape)

    def rectified(self, x: Tensor) -> Tensor:
        """max(0, normalised) of `[B, ..., channels]`: `relu` of `forward`, channels last, in half the time."""
        if self.weight is None and self.bias is not None and self.support_size is None:
            rows = x.flatten(0, -2)
            result: Tensor = _RectifiedNorm.apply(rows, self.bias, self.eps)[0]  # type: ignore[no-untyped-call]
            return result.view(x.shape)
        return torch.relu(self(x.movedim(-1, 1))).movedim(1, -1)

    def rectified_product(self, x: Tensor, weight: Tensor) -> Tensor:
        """max(0, normalised) of `x @ weight`, faster the fewer columns `x` `[B, ..., inputs]` has.

        Mean and variance of the product follow from those of the rows: its variance is w^T C w, C the covariance of the
        rows. So the weights are normalised instead, and only the product itself has the size of the product.
        """
        known = x[: self.support_size].flatten(0, -2)
        mean = known.mean(0)
        centred = x.flatten(0, -2) - mean
        spread = known - mean
        variance = (weight * (spread.T @ spread @ weight)).sum(0) / len(spread)
        scaled = weight * torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scaled = scaled * self.weight
        product = centred @ scaled if self.bias is None else torch.addmm(self.bias, centred, scaled)
        return torch.relu(product).view(*x.shape[:-1], -1)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is batch normalisation: PyTorch's of any dimension, or `TaskBatchNorm`."""
    return isinstance(module, (TaskBatchNorm, nn.modules.batchnorm._BatchNorm))


def own_tensors(module: nn.Module) -> list[Tensor]:
    """Tensors that are plain attributes of a module or its parts, neither parameters nor buffers."""
    return [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]


def with_task_statistics(module: nn.Module, support_size: int | None = None) -> nn.Module:
    """A copy of a module with `TaskBatchNorm` wherever it has, or refers to, batch normalisation.

    It shares the module's tensors: none is copied, so it may be made inside a `torch.func` transform.
    """
    tensors = [*own_tensors(module), *module.parameters(), *module.buffers()]
    copies: dict[int, Any] = {id(value): value for value in tensors}  # deepcopy takes these for copied already
    for part in module.modules():
        if is_batch_norm(part):
            copies[id(part)] = TaskBatchNorm(part.weight, part.bias, part.eps, support_size)  # type: ignore[arg-type]
    return copy.deepcopy(module, copies)


# The fused form, with both derivatives written out. It makes a third of the passes over memory that automatic
# differentiation makes for the plain form, since z and r are computed once and serve all of them. They are outputs,
# marked as not differentiable, because `torch.func` lets a function keep nothing but its inputs and outputs.
#
# With z = (y - mean) / sqrt(variance + eps) and r = 1 / sqrt(variance + eps), the derivative of z is r P, where
# P(v) = v - mean(v) - z mean(v z), a symmetric map. So for the gradient g of the output and h = g [out > 0]:
#   first derivative    d bias = sum h,   dy = r P(h)
#   second derivative   of <u, dy> + <w, d bias>:  dh = r P(u) + w,   dg = dh [out > 0],
#                       dy = -r^2 / n (sum(u z) P(h) + sum(h z) P(u) + sum(u P(h)) z)


def _projected(v: Tensor, z: Tensor, along: Tensor) -> Tensor:
    """P(v) over the rows `[..., B, channels]`; `along` is sum(v z)."""
    return (v - v.mean(-2, keepdim=True)).addcmul_(z, along, value=-1.0 / v.shape[-2])


def _mapped(info: Any, in_dims: Any, tensors: Any) -> list[Tensor]:
    """Arguments of a mapped function, each with the mapped dimension in front."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=False)
    ]


class _RectifiedNorm(torch.autograd.Function):
    """max(0, z + bias), and z and r, which carry no derivative."""

    @staticmethod
    def forward(y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        z = y - y.mean(-2, keepdim=True)
        r = torch.rsqrt(z.square().mean(-2, keepdim=True) + eps)
        z *= r
        return (z + bias.unsqueeze(-2)).relu_(), z, r

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        out, z, r = output
        ctx.mark_non_differentiable(z, r)
        ctx.save_for_backward(inputs[0], out, z, r)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        y, out, z, r = ctx.saved_tensors
        dy, dbias, *_ = _RectifiedNormGradient.apply(gradients[0], y, out.detach(), z, r)  # type: ignore[no-untyped-call]
        return dy, dbias, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, y: Tensor, bias: Tensor, eps: float) -> Any:
        return _RectifiedNorm.apply(*_mapped(info, in_dims, (y, bias)), eps), (0, 0, 0)  # type: ignore[no-untyped-call]


class _RectifiedNormGradient(torch.autograd.Function):
    """r P(h) and sum h, then h, P(h) and sum(h z), which carry no derivative."""

    @staticmethod
    def forward(g: Tensor, _y: Tensor, out: Tensor, z: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        # y is an argument only for its derivative: z, r and out, which depend on it, are constants here.
        h = torch.ops.aten.threshold_backward(g, out, 0)
        along = (h * z).sum(-2, keepdim=True)
        projected = _projected(h, z, along)
        return projected * r, h.sum(-2), projected, along

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, _, out, z, r = inputs
        _, _, projected, along = output
        ctx.mark_non_differentiable(projected, along)
        ctx.save_for_backward(out, z, r, projected, along)

    @staticmethod
    def backward(ctx: Any, u: Any, w: Any, *_: Any) -> Any:
        dg, dy = _RectifiedNormCurvature.apply(u, w, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return dg, dy, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _RectifiedNormGradient.apply(*_mapped(info, in_dims, args)), (0, 0, 0, 0)  # type: ignore[no-untyped-call]


class _RectifiedNormCurvature(torch.autograd.Function):
    """The second derivative: gradients of g and y. MAML needs no third, and this has none."""

    @staticmethod
    def forward(
        u: Tensor, w: Tensor, out: Tensor, z: Tensor, r: Tensor, projected: Tensor, along: Tensor
    ) -> tuple[Tensor, Tensor]:
        along_u = (u * z).sum(-2, keepdim=True)
        projected_u = _projected(u, z, along_u)
        dg = torch.ops.aten.threshold_backward(torch.addcmul(w.unsqueeze(-2), projected_u, r), out, 0)
        factor = -r.square() / out.shape[-2]
        dy = projected * (factor * along_u)
        dy.addcmul_(projected_u, factor * along)
        dy.addcmul_(z, factor * (u * projected).sum(-2, keepdim=True))
        return dg, dy

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("rectified batch normalisation has no third derivative")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _RectifiedNormCurvature.apply(*_mapped(info, in_dims, args)), (0, 0)  # type: ignore[no-untyped-call]
