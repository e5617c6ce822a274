import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from maml_rl.supervised.patches import patches


def convolved(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The reference: PyTorch's convolution, of the same layouts."""
    kernel = weight.unflatten(0, (3, 3, x.shape[-1])).permute(3, 2, 0, 1)
    return conv2d(x.permute(0, 3, 1, 2), kernel, stride=stride, padding=1).permute(0, 2, 3, 1)


def test_patches_of_a_small_image_by_hand() -> None:
    x = torch.arange(1.0, 10.0).view(1, 3, 3, 1)  # 1 2 3 / 4 5 6 / 7 8 9
    assert patches(x, 2)[0].tolist() == [
        [[0, 0, 0, 0, 1, 2, 0, 4, 5], [0, 0, 0, 2, 3, 0, 5, 6, 0]],
        [[0, 4, 5, 0, 7, 8, 0, 0, 0], [5, 6, 0, 8, 9, 0, 0, 0, 0]],
    ]
    assert patches(x, 1)[0, 1].tolist() == [
        [0, 1, 2, 0, 4, 5, 0, 7, 8],
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
        [2, 3, 0, 5, 6, 0, 8, 9, 0],
    ]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(28, 28), (14, 14), (7, 7), (4, 4), (2, 2), (1, 1), (6, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_times_weights_are_the_convolution(size: tuple[int, int], channels: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *size, channels, generator=generator, dtype=torch.float64)
    weight = torch.randn(9 * channels, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(patches(x, stride) @ weight, convolved(x, weight, stride))


@pytest.mark.parametrize("stride", [1, 2])
def test_patches_have_the_derivatives_of_the_convolution(stride: int) -> None:
    x = torch.randn(1, 5, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: patches(x, stride), x)
    assert torch.autograd.gradgradcheck(lambda x: patches(x, stride).square(), x)


@pytest.mark.parametrize("stride", [1, 2])
def test_mapped_patches_are_those_of_each(stride: int) -> None:
    def of(x: Tensor) -> Tensor:
        return patches(x, stride)

    x = torch.randn(4, 3, 6, 6, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.func.vmap(of)(x), torch.stack([of(one) for one in x]))
    moved = torch.func.vmap(of, in_dims=1)(x.movedim(0, 1))
    assert torch.equal(moved, torch.stack([of(one) for one in x]))
    gradient = torch.func.grad(lambda x: of(x).square().sum())
    torch.testing.assert_close(torch.func.vmap(gradient)(x), torch.stack([gradient(one) for one in x]))
