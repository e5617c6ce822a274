"""Products with the Jacobian of recorded outputs, against PyTorch's own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from maml_rl.derivatives import vector_jacobian_product


@pytest.fixture
def recorded() -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Outputs of which one feeds the other, their inputs, and a vector for each output."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 4, generator=generator).requires_grad_(), torch.randn(4, generator=generator)]
    inputs[1].requires_grad_()
    first = torch.tanh(inputs[0] @ inputs[1])
    outputs = [first, (first.square() * inputs[0].sum(1)).sum()]
    return outputs, inputs, [torch.randn(3, generator=generator), torch.randn((), generator=generator)]


def test_the_product_is_that_of_pytorch_bit_for_bit_and_can_be_taken_again(recorded):
    outputs, inputs, vectors = recorded
    expected = torch.autograd.grad(outputs, inputs, vectors, retain_graph=True)
    for _ in range(2):
        for found, value in zip(vector_jacobian_product(outputs, inputs, vectors), expected, strict=True):
            assert torch.equal(found, value)


def test_no_bit_depends_on_the_thread_that_recorded_the_outputs_or_takes_the_product(recorded):
    """PyTorch runs nodes that are ready by a number that each thread counts for itself."""
    outputs, inputs, vectors = recorded
    expected = torch.autograd.grad(outputs, inputs, vectors, create_graph=True)
    for count in (0, 1, 50):  # nodes of that thread before

        def product(count: int = count) -> tuple[Tensor, ...]:
            value = inputs[1]
            for _ in range(count):
                value = value + 1
            return vector_jacobian_product(outputs, inputs, vectors, create_graph=True)

        with ThreadPoolExecutor(1) as pool:
            for found, value in zip(pool.submit(product).result(), expected, strict=True):
                assert torch.equal(found, value)


@pytest.mark.parametrize("vectors", [[torch.zeros(3)], [torch.zeros(5, 3), torch.zeros(())]])
def test_a_vector_of_another_shape_or_too_few_are_refused(recorded, vectors):
    outputs, inputs, _ = recorded
    with pytest.raises(ValueError, match="a vector for each output, of its shape"):
        vector_jacobian_product(outputs, inputs, vectors)


def test_it_is_recorded_even_where_gradients_are_off_and_inputs_that_do_not_matter_have_0(recorded):
    outputs, inputs, vectors = recorded
    unused = torch.zeros(2, requires_grad=True)
    with torch.no_grad():
        *found, of_unused = vector_jacobian_product(outputs, [*inputs, unused], vectors)
    assert torch.equal(of_unused, torch.zeros(2))
    assert not any(value.requires_grad for value in found)


def test_its_derivative_by_the_vectors_is_the_product_with_the_jacobian(recorded):
    """J^T u is linear in u, so the derivative of its product with v is J v."""
    outputs, inputs, _ = recorded
    zeros = [torch.zeros_like(output, requires_grad=True) for output in outputs]
    transposed = vector_jacobian_product(outputs, inputs, zeros, create_graph=True)
    change = [torch.full_like(value, 0.5) for value in inputs]
    jacobian = vector_jacobian_product(transposed, zeros, change)
    for output, found in zip(outputs, jacobian, strict=True):
        rows = [torch.autograd.grad(part, inputs, retain_graph=True) for part in output.reshape(-1)]
        expected = [sum((d * v).sum() for d, v in zip(row, change, strict=True)) for row in rows]
        torch.testing.assert_close(found.reshape(-1), torch.stack(expected))
