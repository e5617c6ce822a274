"""Products of matrices, against NumPy in float64."""

import numpy as np
import pytest
import torch

from maml_rl import matmul
from maml_rl.matmul import affine, plus_times, times

SHAPES = [(100, 100, 333), (6, 100, 17), (100, 20, 1), (1, 1, 1), (3, 4000, 5)]
LIBRARIES = ["the faster one", "PyTorch's own"]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "PyTorch's own":
        monkeypatch.setattr(matmul, "_onednn", lambda: None)


@pytest.fixture(params=SHAPES, ids=str)
def matrices(request: pytest.FixtureRequest) -> list[torch.Tensor]:
    m, k, n = request.param
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((m, n), (m, k), (k, n))]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("is_transposed", [False, True])
def test_the_product_is_that_of_the_matrices(matrices: list[torch.Tensor], is_transposed: bool) -> None:
    _, a, b = matrices
    right = a.double().numpy() @ b.double().numpy()
    if is_transposed:  # as a view with its columns one after the other
        a, b = (value.T.contiguous().T for value in (a, b))
    np.testing.assert_allclose(times(a, b), right, rtol=1e-5, atol=2e-6 * a.shape[1] ** 0.5)


@pytest.mark.usefixtures("library")
def test_the_product_is_added_to_a_matrix_or_a_bias_to_each_of_its_columns(matrices: list[torch.Tensor]) -> None:
    c, a, b = matrices
    product, tolerance = a.double().numpy() @ b.double().numpy(), 2e-6 * a.shape[1] ** 0.5
    bias, before = c[:, 0].clone(), c.double().numpy().copy()
    np.testing.assert_allclose(affine(a, b, bias), before[:, :1] + product, rtol=1e-5, atol=tolerance)
    np.testing.assert_array_equal(bias, c[:, 0])
    np.testing.assert_allclose(plus_times(c, a, b), before + product, rtol=1e-5, atol=tolerance)


@pytest.mark.usefixtures("library")
def test_products_in_double_precision_keep_it(matrices: list[torch.Tensor]) -> None:
    c, a, b = (value.double() for value in matrices)
    right = a.numpy() @ b.numpy()
    np.testing.assert_allclose(times(a, b), right, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(plus_times(c.clone(), a, b), c.numpy() + right, rtol=1e-12, atol=1e-12)


def test_the_private_operator_exists_in_the_pinned_pytorch() -> None:
    """It saves half of the update's time, so this test notices a PyTorch without it."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch is built without oneDNN")
    assert matmul._onednn() is not None
