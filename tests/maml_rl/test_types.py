import pytest
import torch

from maml_rl.types import Params, Trajectories, aligned, flatten, laid_out, repeat, select, stack, unflatten


def example_params() -> Params:
    return {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([7.0, 8.0]), "scalar": torch.tensor(9.0)}


def test_flatten_keeps_the_order_of_the_mapping() -> None:
    expected = torch.tensor([0.0, 1, 2, 3, 4, 5, 7, 8, 9])
    assert torch.equal(flatten(example_params()), expected)


def test_unflatten_inverts_flatten() -> None:
    params = example_params()
    back = unflatten(flatten(params), params)
    assert list(back) == list(params)
    assert all(torch.equal(back[name], params[name]) for name in params)


def test_unflatten_takes_shapes_and_not_values_from_like() -> None:
    back = unflatten(torch.arange(9.0) * 10, example_params())
    assert torch.equal(back["b"], torch.tensor([[0.0, 10, 20], [30, 40, 50]]))
    assert back["scalar"] == 80


def test_repeat_gives_every_task_the_same_parameters_without_copying() -> None:
    params = example_params()
    repeated = repeat(params, 4)
    assert repeated["b"].shape == (4, 2, 3)
    assert all(torch.equal(select(repeated, m)["b"], params["b"]) for m in range(4))
    assert repeated["b"].data_ptr() == params["b"].data_ptr()


def test_select_inverts_stack() -> None:
    sets = [{name: value + m for name, value in example_params().items()} for m in range(3)]
    stacked = stack(sets)
    assert stacked["b"].shape == (3, 2, 3)
    for m, params in enumerate(sets):
        assert all(torch.equal(select(stacked, m)[name], params[name]) for name in params)


def test_returns_sum_rewards_until_the_end_of_the_episode() -> None:
    # First episode: 1 + 2 + 4 = 7. Second: ends after one step, 8; what follows is padding.
    rewards = torch.tensor([[[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]])
    mask = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]])
    empty = torch.zeros(1, 2, 3, 1)
    trajectories = Trajectories(empty, empty, torch.zeros(1, 2, 3), rewards, mask, torch.zeros(1, 2, dtype=torch.bool))
    assert torch.equal(trajectories.returns, torch.tensor([[7.0, 8.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (4, 1, 1)])
def test_aligned_tensors_begin_at_64_bytes_with_the_strides_of_a_new_tensor(displaced, shape, dtype) -> None:
    value = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    for given in (value, displaced(value), displaced(value.t().contiguous()).t() if len(shape) == 2 else value):
        result = aligned(given)
        assert torch.equal(result, value)
        assert result.data_ptr() % 64 == 0
        assert result.stride() == torch.empty(shape).stride()
    assert aligned(value).data_ptr() == value.data_ptr()  # without a copy


def test_a_kernel_of_one_pixel_has_one_layout() -> None:
    # Contiguous by either order of its dimensions, which PyTorch takes different convolutions for.
    kernel = torch.randn(4, 3, 1, 1).to(memory_format=torch.channels_last)
    assert kernel.stride() != (3, 1, 1, 1)
    assert aligned(kernel).stride() == (3, 1, 1, 1)


def test_parameters_are_laid_out_alike_wherever_they_come_from(displaced) -> None:
    params = {name: value.requires_grad_() for name, value in example_params().items()}
    for given in (params, unflatten(flatten(params), params), {n: displaced(v.detach()) for n, v in params.items()}):
        result = laid_out(given)
        assert list(result) == list(params)
        for name, value in result.items():
            assert torch.equal(value, params[name])
            assert (value.data_ptr() % 64, value.requires_grad) == (0, False)
