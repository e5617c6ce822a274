"""Trust-region policy optimisation (Schulman et al. 2015) as functions of a vector, independent of policies and tasks.

A step minimises the linearised loss under 1/2 s^T F s <= max_kl, then backtracks until the real loss has improved and
the real KL is within max_kl.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

MatrixProduct = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """Approximate solution x of A x = b, and its residual."""

    vector: Tensor  # [P]   x
    residual: Tensor  # [P]   b - A x


def conjugate_gradient(product: MatrixProduct, target: Tensor, iterations: int, tolerance: float = 1e-10) -> Solution:
    """Solves A x = `target` for a symmetric positive-definite A given by its product.

    Args:
        product: v -> A v.
        target: `[P]`.
        iterations: Maximum number of products.
        tolerance: The iterations end when the squared norm of the residual falls below it.
    """
    solution = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    squared = residual @ residual
    for _ in range(iterations):
        if squared < tolerance:
            break
        image = product(direction)
        length = squared / (direction @ image)
        solution = solution + length * direction
        residual = residual - length * image
        previous, squared = squared, residual @ residual
        direction = residual + (squared / previous) * direction
    return Solution(solution, residual)


def trust_region_step(gradient: Tensor, product: MatrixProduct, max_kl: float, iterations: int) -> Tensor:
    """Step `[P]` that minimises gradient^T s under 1/2 s^T F s = max_kl.

    It is -sqrt(2 max_kl / x^T F x) x with x = F^-1 gradient.

    Args:
        gradient: Gradient `[P]` of the loss.
        product: v -> F v, with its damping.
        max_kl: Bound on the KL, nats.
        iterations: Conjugate gradient iterations.
    """
    direction, residual = conjugate_gradient(product, gradient, iterations)
    curvature = direction @ (gradient - residual)  # x^T F x, without one more product
    return -torch.sqrt(2 * max_kl / (curvature + 1e-8)) * direction


class LineSearch(NamedTuple):
    """Where the line search ended: the vector, its loss and KL, and whether a step was accepted at all."""

    vector: Tensor  # [P]
    loss: Tensor
    kl: Tensor
    accepted: bool
    backtracks: int


def backtracking(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    start_loss: Tensor,
    step: Tensor,
    max_kl: float,
    ratio: float,
    max_backtracks: int,
) -> LineSearch:
    """First of start + ratio^j step, j = 0, 1, ..., whose loss is below the start's and whose KL is at most `max_kl`.

    A candidate whose loss or KL is not finite is passed over like any other that does not improve. If none is accepted
    the start is returned, with `accepted` false.

    Args:
        evaluate: Vector -> (loss, KL from the start); one fixed function during the search.
        start: `[P]`.
        start_loss: Loss at `start`, where the KL is 0.
        step: `[P]`.
        max_kl: Bound on the KL, nats.
        ratio: Factor below 1.
        max_backtracks: Maximum number of candidates.
    """
    for j in range(max_backtracks):
        candidate = start + ratio**j * step
        loss, kl = evaluate(candidate)
        if loss.isfinite() and kl.isfinite() and loss < start_loss and kl <= max_kl:
            return LineSearch(candidate, loss, kl, True, j)
    return LineSearch(start, start_loss, torch.zeros_like(start_loss), False, max_backtracks)
