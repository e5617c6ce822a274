import threading
from collections.abc import Iterator

import pytest
import torch

from maml_rl.parallel import TaskThreads, mean_over_tasks


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_results_come_in_the_order_of_the_tasks(threads: int | None) -> None:
    first_may_end = threading.Event()

    def square(x: int) -> int:
        if threads in (2, 5):  # the first task ends last
            if x == 0:
                assert first_may_end.wait(10)
            elif x == 5:
                first_may_end.set()
        return x * x

    assert TaskThreads(threads).map(square, range(6)) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("threads", [1, 3])
def test_arguments_are_paired(threads: int) -> None:
    assert TaskThreads(threads).map(lambda a, b: a - b, [5, 6, 7], [1, 2, 3]) == [4, 4, 4]


@pytest.mark.parametrize("threads", [1, 3])
def test_no_tasks_give_no_results(threads: int) -> None:
    assert TaskThreads(threads).map(abs, []) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_a_task_is_raised_and_the_pool_keeps_working(threads: int) -> None:
    pool = TaskThreads(threads)
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda x: 1 / x, [1, 0, 2])
    assert pool.map(abs, [-1]) == [1]


@pytest.fixture
def _two_torch_threads() -> Iterator[None]:
    """The caller's setting on most machines; the suite itself runs with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_torch_threads")
@pytest.mark.parametrize("threads", [1, 3])
def test_each_thread_has_one_torch_thread_and_the_caller_keeps_its_own(threads: int) -> None:
    assert set(TaskThreads(threads).map(lambda _: torch.get_num_threads(), range(12))) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_torch_threads")
def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    # Long enough for PyTorch to share one sum among its threads, which changes the order of the terms.
    values = torch.randn(6, 300_000, generator=torch.Generator().manual_seed(0))
    alone = TaskThreads(1).map(torch.sum, values)
    for threads in (2, 3):
        assert TaskThreads(threads).map(torch.sum, values) == alone


def test_two_pools_work_in_one_process_and_within_each_other() -> None:
    outer, inner = TaskThreads(2), TaskThreads(2)
    assert outer.map(lambda m: sum(inner.map(lambda x: x * m, range(4))), range(4)) == [0, 6, 12, 18]


def test_a_gradient_in_threads_is_that_of_one_thread() -> None:
    inputs = torch.randn(8, 50, 20, generator=torch.Generator().manual_seed(0))

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda v: torch.tanh(x @ v).square().mean())(torch.ones(20))

    alone, together = TaskThreads(1).map(gradient, inputs), TaskThreads(4).map(gradient, inputs)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_mean_over_tasks_by_hand() -> None:
    mean = mean_over_tasks([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])])
    assert torch.equal(mean, torch.tensor([2.0, 4.0]))
    assert mean_over_tasks([torch.tensor(1.0), torch.tensor(4.0)]) == 2.5


def test_the_mean_over_tasks_of_sums_over_some_of_them_by_hand() -> None:
    # Sums over 2, 2 and 1 of 5 tasks, which are added as they arrive.
    sums = iter([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0]), torch.tensor([6.0, 2.0])])
    assert torch.equal(mean_over_tasks(sums, 5), torch.tensor([2.0, 2.0]))
