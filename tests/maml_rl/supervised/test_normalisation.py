from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from maml_rl.supervised.normalisation import TaskBatchNorm, is_batch_norm, with_task_statistics

Generator = torch.Generator


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values)


def shift(channels: int) -> TaskBatchNorm:
    return TaskBatchNorm(None, parameter(0.3 * random(channels, seed=7)))


def test_normalised_values_by_hand() -> None:
    # Mean 2, variance ((1 - 2)^2 + (3 - 2)^2) / 2 = 1; with eps 3, (x - 2) / sqrt(4) = -0.5 and 0.5, times 2 plus 10.
    norm = TaskBatchNorm(parameter(torch.tensor([2.0])), parameter(torch.tensor([10.0])), eps=3.0)
    assert norm(torch.tensor([[1.0], [3.0]])).tolist() == [[9.0], [11.0]]


def test_support_statistics_by_hand() -> None:
    # Those of 1 and 3 alone, so 6 becomes (6 - 2) / 2 = 2, and does not change what 1 and 3 become.
    norm = TaskBatchNorm(None, None, eps=3.0, support_size=2)
    assert norm(torch.tensor([[1.0], [3.0], [6.0]])).tolist() == [[-0.5], [0.5], [2.0]]


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 5)])
def test_it_equals_pytorchs_in_training_mode(shape: tuple[int, ...]) -> None:
    weight, bias = parameter(random(3, seed=1)), parameter(random(3, seed=2))
    expected = torch.nn.functional.batch_norm(random(*shape), None, None, weight, bias, training=True, eps=1e-3)
    torch.testing.assert_close(TaskBatchNorm(weight, bias)(random(*shape)), expected)


def test_the_fused_form_equals_the_plain_one() -> None:
    norm, rows = shift(3), random(8, 3)
    torch.testing.assert_close(norm.rectified(rows), torch.relu(norm(rows)))
    bias = parameter(random(3))
    for other in (TaskBatchNorm(bias, bias), TaskBatchNorm(None, bias, support_size=4)):
        torch.testing.assert_close(other.rectified(rows), torch.relu(other(rows)))


def test_normalising_a_product_by_the_weights_equals_the_plain_form() -> None:
    rows, weight, bias = 5 + random(12, 4), random(4, 3, seed=1), parameter(random(3, seed=2))
    for norm in (
        TaskBatchNorm(None, bias),
        TaskBatchNorm(bias, bias, support_size=5),
        TaskBatchNorm(None, None, eps=0.5),
    ):
        torch.testing.assert_close(norm.rectified_product(rows, weight), torch.relu(norm(rows @ weight)))
    # In float32 too, where rows far from 0 would lose digits if their covariance were not centred.
    norm, far = TaskBatchNorm(None, None), (100 + random(12, 4)).float()
    expected = torch.relu(norm((far.double() - 100) @ weight))
    torch.testing.assert_close(norm.rectified_product(far, weight.float()).double(), expected, rtol=1e-3, atol=1e-4)


def fused(y: Tensor, bias: Tensor) -> Tensor:
    norm = TaskBatchNorm(None, parameter(torch.zeros(bias.shape)))
    return torch.func.functional_call(_Rectified(norm), {"norm.bias": bias}, (y,))  # type: ignore[no-any-return]


class _Rectified(nn.Module):
    def __init__(self, norm: TaskBatchNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, rows: Tensor) -> Tensor:
        return self.norm.rectified(rows)


def plain(y: Tensor, bias: Tensor) -> Tensor:
    centred = y - y.mean(0)
    return torch.relu(centred / (centred.square().mean(0) + 1e-3).sqrt() + bias)


def test_the_fused_form_has_the_right_first_and_second_derivative() -> None:
    arguments = (random(7, 4).requires_grad_(), (0.3 * random(4, seed=7)).requires_grad_())
    assert plain(*arguments).eq(0).sum() in range(5, 24)  # some are cut off, some are not
    assert torch.autograd.gradcheck(fused, arguments)
    assert torch.autograd.gradgradcheck(fused, arguments)


def test_a_third_derivative_is_refused() -> None:
    y = random(5, 2).requires_grad_()
    first = torch.autograd.grad(fused(y, random(2)).square().sum(), y, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), y, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no third derivative"):
        torch.autograd.grad(second.sum(), y)


def meta_gradient(layer: Callable[[Tensor, Tensor], Tensor], y: Tensor, bias: Tensor) -> Tensor:
    """A gradient through a gradient, of one task: what MAML takes."""

    def outer(start: Tensor) -> Tensor:
        inner = torch.func.grad(lambda v: layer(y * v, bias).square().sum())(start)
        return layer(y * (start - 0.1 * inner), bias + inner.mean()).sin().sum()

    return torch.func.grad(outer)(y.new_ones(y.shape[-1]))


@pytest.mark.parametrize("layer", [fused, plain])
def test_second_derivatives_are_the_same_mapped_over_tasks_and_alone(
    layer: Callable[[Tensor, Tensor], Tensor],
) -> None:
    y, bias = random(5, 6, 3), random(5, 3, seed=1)
    expected = torch.stack([meta_gradient(plain, *one) for one in zip(y, bias, strict=True)])
    mapped = torch.func.vmap(lambda y, bias: meta_gradient(layer, y, bias))(y, bias)
    torch.testing.assert_close(mapped, expected)
    shared = torch.func.vmap(lambda y: meta_gradient(layer, y, bias[0]))(y)
    torch.testing.assert_close(shared, torch.stack([meta_gradient(plain, one, bias[0]) for one in y]))


def test_every_batch_normalisation_of_a_module_is_replaced_with_its_parameters() -> None:
    block = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2, eps=0.5))
    module = nn.ModuleDict({"first": nn.BatchNorm2d(3, affine=False), "rest": nn.Sequential(block, nn.LayerNorm(2))})
    weight = block[1].weight
    norms = {name: part for name, part in with_task_statistics(module, 4).named_modules() if is_batch_norm(part)}
    assert {name: type(m) for name, m in norms.items()} == {"first": TaskBatchNorm, "rest.0.1": TaskBatchNorm}
    assert norms["rest.0.1"].weight is weight
    assert (norms["first"].weight, norms["first"].bias, norms["first"].support_size) == (None, None, 4)
    assert norms["rest.0.1"].eps == 0.5
    assert isinstance(with_task_statistics(nn.BatchNorm1d(2)), TaskBatchNorm)
    assert isinstance(block[1], nn.BatchNorm1d)  # the module given stays as it was
