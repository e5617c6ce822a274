"""First and second derivatives of a task's loss: recorded by PyTorch, or the loss's own.

Recording works for any loss. A loss that computes its own derivatives (`OwnDerivatives`), such as those of a multilayer
perceptron (`maml_rl.linear_policy`), is used directly. Recording uses neither `torch.func` nor `grad_outputs`, whose
first uses import PyTorch's compiler and SymPy, which takes a second or two.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from maml_rl.types import Params

TaskLoss = Callable[[Params], Tensor]
Product = Callable[[Params], Params]


class LinearGradient(NamedTuple):
    """The gradient of a loss near a point, to first order."""

    gradient: Params
    hessian: Product


class Derivatives(Protocol):
    """Derivatives of a loss at one point."""

    def gradient(self, names: Collection[str]) -> Params:
        """Gradient with respect to these parameters."""
        ...

    def linear_gradient(self, rows: Collection[str], columns: Collection[str]) -> LinearGradient:
        """Gradient with respect to the parameters `columns`, and the map v -> H v from `columns` to `rows`."""
        ...


@runtime_checkable
class OwnDerivatives(Protocol):
    """A loss that computes its derivatives itself, as values without a graph."""

    def __call__(self, params: Params) -> Tensor:
        """The loss, `[]`."""
        ...

    def near(self, params: Params) -> Derivatives:
        """Its derivatives at `params`."""
        ...


class _Seed(torch.autograd.Function):
    """A scalar whose gradient with respect to each output is its vector, for a backward pass from all of them at once.

    It is one node of the graph: with more, the order of their sums would depend on the threads in which they are made.
    """

    @staticmethod
    def forward(ctx: Any, *outputs_and_vectors: Tensor) -> Tensor:
        ctx.save_for_backward(*outputs_and_vectors[len(outputs_and_vectors) // 2 :])
        return outputs_and_vectors[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        vectors = ctx.saved_tensors
        return (*(gradients[0] * vector for vector in vectors), *(None for _ in vectors))


def vector_jacobian_product(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Derivative of sum(output * vector) with respect to the inputs; the outputs keep their graph.

    Args:
        outputs: What was computed from the inputs.
        inputs: Tensors that require gradients.
        vectors: One for each output, of its shape.
        create_graph: Whether the result has a graph of its own, also to the vectors.

    Returns:
        A tensor of the shape of each input; 0 for inputs that no output depends on.

    Raises:
        ValueError: If the vectors do not have the shapes of the outputs.
    """
    if [output.shape for output in outputs] != [vector.shape for vector in vectors]:
        raise ValueError("expected a vector for each output, of its shape")
    with torch.enable_grad():
        seed = _Seed.apply(*outputs, *vectors)  # type: ignore[no-untyped-call]
    return torch.autograd.grad(seed, inputs, retain_graph=True, create_graph=create_graph, materialize_grads=True)


class RecordedGradient(NamedTuple):
    """The gradient of a scalar with respect to some tensors, and its graph, if it is kept."""

    at: Sequence[Tensor]  # what the scalar was computed from
    parts: Sequence[Tensor]  # the gradient with respect to the first of them
    value: Tensor  # []

    def product(self, vectors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Derivative of sum(part * vector) with respect to all that the scalar was computed from: columns of H v."""
        pairs = [(part, vector) for part, vector in zip(self.parts, vectors, strict=True) if part.requires_grad]
        if not pairs:
            return tuple(torch.zeros_like(value) for value in self.at)
        parts, chosen = zip(*pairs, strict=True)
        return vector_jacobian_product(parts, self.at, chosen)


def recorded_gradient(
    function: Callable[..., Tensor], at: Sequence[Tensor], count: int | None = None, twice: bool = False
) -> RecordedGradient:
    """Gradient of a scalar function of tensors; 0 for those that it does not depend on.

    Args:
        function: Takes the tensors.
        at: Their values.
        count: How many of the first tensors to differentiate by; all if None.
        twice: Whether the graph is kept, for `product`.
    """
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in at]
        value = function(*leaves)
        chosen = leaves[:count]
        if value.requires_grad:
            parts = torch.autograd.grad(value, chosen, create_graph=twice, materialize_grads=True)
        else:
            parts = tuple(torch.zeros_like(leaf) for leaf in chosen)
    return RecordedGradient(leaves, parts, value.detach())


def gradient_and_value(loss: TaskLoss, params: Params) -> tuple[Params, Tensor]:
    """Gradient of any loss with respect to all of its parameters, and its value `[]`, from one recording."""
    found = recorded_gradient(lambda *values: loss(dict(zip(params, values, strict=True))), list(params.values()))
    return dict(zip(params, found.parts, strict=True)), found.value


class _RecordedLoss(NamedTuple):
    """Derivatives of any loss."""

    loss: TaskLoss
    params: Params

    def gradient(self, names: Collection[str]) -> Params:
        return self.recorded(names).gradient

    def linear_gradient(self, rows: Collection[str], columns: Collection[str]) -> LinearGradient:
        """The graph of the gradient is built once and kept, so each product costs one backward pass.

        H is symmetric, so the derivative of the gradient's product with v is H v.
        """
        return self.recorded(columns, rows)

    def recorded(self, columns: Collection[str], rows: Collection[str] | None = None) -> LinearGradient:
        by = [name for name in self.params if name in columns]
        names = by + [name for name in rows or () if name not in columns]

        def loss(*values: Tensor) -> Tensor:
            return self.loss(self.params | dict(zip(names, values, strict=True)))

        found = recorded_gradient(loss, [self.params[name] for name in names], len(by), twice=rows is not None)

        def product(vector: Params) -> Params:
            result = dict(zip(names, found.product([vector[name] for name in by]), strict=True))
            return {name: result[name] for name in rows or ()}

        return LinearGradient({name: part.detach() for name, part in zip(by, found.parts, strict=True)}, product)


def derivatives(loss: TaskLoss, params: Params) -> Derivatives:
    """Derivatives of a loss at `params`."""
    return loss.near(params) if isinstance(loss, OwnDerivatives) else _RecordedLoss(loss, params)
