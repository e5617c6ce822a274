"""Adam and the step-size schedule against PyTorch's."""

import pytest
import torch

from maml_rl.optimizers import Moments, adam, cosine


def test_adam_takes_the_steps_of_pytorchs():
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(7, generator=generator, dtype=torch.float64)
    parameter = vector.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    moments = Moments(torch.zeros_like(vector), torch.zeros_like(vector))
    for count in range(1, 20):
        gradient = torch.randn(7, generator=generator, dtype=torch.float64)
        parameter.grad = gradient.clone()
        optimizer.step()
        vector, moments = adam(vector, gradient, moments, 0.1, count)
        torch.testing.assert_close(vector, parameter.detach(), rtol=1e-12, atol=0)


def test_the_first_step_of_adam_is_the_step_size_whatever_the_gradient():
    vector, _ = adam(torch.zeros(2), torch.tensor([1e3, -1e-3]), Moments(torch.zeros(2), torch.zeros(2)), 0.1, 1)
    assert vector.tolist() == pytest.approx([-0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize(("iteration", "expected"), [(0, 1.0), (5_000, 0.505), (9_999, 0.01)])
def test_the_step_size_falls_along_a_half_cosine_to_a_hundredth_and_restarts(iteration, expected):
    assert cosine(2.0, 10_000, iteration) == pytest.approx(2.0 * expected, rel=1e-4)
    assert cosine(2.0, 10_000, 30_000 + iteration) == cosine(2.0, 10_000, iteration)


def test_without_a_schedule_the_step_size_stays():
    assert cosine(0.3, None, 10**6) == 0.3
