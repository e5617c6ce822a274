import numpy as np
import pytest
import torch

from maml_rl.errors import InputError
from maml_rl.seeding import Phase
from maml_rl.supervised.task_batches import FunctionTasks, Sinusoid


def test_sinusoids_are_amplitude_times_the_shifted_sine() -> None:
    source = Sinusoid(shots=3, queries=4)
    batch = source.batch(5, Phase.TRAINING, range(6))
    amplitude, shift = source.parameters(5, Phase.TRAINING, range(6))
    for x, y, size in ((batch.support_x, batch.support_y, 3), (batch.query_x, batch.query_y, 4)):
        assert x.shape == y.shape == (6, size, 1)
        assert x.dtype == y.dtype == torch.float32
        expected = amplitude[:, None, None] * np.sin(x.double().numpy() - shift[:, None, None])
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)  # x was rounded to float32


def test_sinusoids_are_distributed_as_in_the_paper() -> None:
    source = Sinusoid()
    amplitude, shift = source.parameters(0, Phase.TRAINING, range(20_000))
    x = source.batch(0, Phase.TRAINING, range(2000)).query_x.numpy()
    for values, low, high in ((amplitude, 0.1, 5.0), (shift, 0.0, np.pi), (x, -5.0, 5.0)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        # A uniform mean has standard error (high - low) / sqrt(12 n) = 0.002 (high - low) for n = 20,000.
        assert abs(values.mean() - (low + high) / 2) < 0.01 * (high - low)
    assert abs(np.corrcoef(amplitude, shift)[0, 1]) < 0.035  # five standard errors of 1 / sqrt(n)


def test_a_task_does_not_depend_on_the_tasks_it_is_drawn_with() -> None:
    together = Sinusoid().batch(1, Phase.EVALUATION, range(50))
    alone = Sinusoid().batch(1, Phase.EVALUATION, [49, 3, 4])
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other[[49, 3, 4]])


def test_the_number_of_examples_does_not_change_amplitude_and_shift() -> None:
    few, many = (Sinusoid(shots=k).parameters(0, Phase.EVALUATION, range(5)) for k in (5, 20))
    np.testing.assert_array_equal(few, many)


def test_each_seed_and_phase_has_its_own_tasks() -> None:
    drawn = [
        Sinusoid().parameters(seed, phase, range(1000))[0]
        for seed in (0, 1)
        for phase in (Phase.TRAINING, Phase.VALIDATION, Phase.EVALUATION)
    ]
    assert len(np.unique(drawn)) == 6000


def test_support_and_query_examples_differ() -> None:
    batch = Sinusoid(10, 10).batch(0, Phase.TRAINING, range(100))
    assert len(torch.unique(torch.cat([batch.support_x, batch.query_x], 1))) > 1990  # float32 rounds some together


def test_sinusoids_are_the_same_on_every_platform() -> None:
    batch = Sinusoid(2, 1).batch(0, Phase.TRAINING, [0, 7])
    assert batch.support_x.flatten().tolist() == [
        2.5312180519104004,
        -0.7957414388656616,
        -0.6617862582206726,
        3.1119494438171387,
    ]
    assert batch.query_x.flatten().tolist() == [-4.320673942565918, 3.680145263671875]
    # NumPy's sine may differ in its last bit, which float32 hides except for an occasional rounding.
    expected = torch.tensor([2.963413715362549, -2.398411512374878, -2.122755765914917, 3.707043409347534])
    torch.testing.assert_close(batch.support_y.flatten(), expected, atol=1e-6, rtol=0)


def test_the_oracle_sees_amplitude_and_shift() -> None:
    plain, oracle = (Sinusoid(3, 2, observe_task=seen).batch(0, Phase.TRAINING, [4, 9]) for seen in (False, True))
    amplitude, shift = Sinusoid().parameters(0, Phase.TRAINING, [4, 9])
    assert torch.equal(oracle.support_x[..., :1], plain.support_x)
    assert torch.equal(oracle.query_y, plain.query_y)
    for value, column in ((amplitude, 1), (shift, 2)):
        assert torch.equal(oracle.query_x[..., column], torch.tensor(value).float()[:, None].expand(2, 2))


def line(seed: int, index: int) -> tuple[np.ndarray, ...]:
    """y = slope x, one column of numbers as a plain array."""
    rng = np.random.default_rng([seed, index])
    slope, x = rng.normal(), rng.normal(size=5)
    return x[:3], slope * x[:3], x[3:], slope * x[3:]


def test_any_function_of_seed_and_index_is_a_source() -> None:
    batch = FunctionTasks(line).batch(0, Phase.TRAINING, [2, 0])
    assert [tuple(part.shape) for part in batch] == [(2, 3, 1), (2, 3, 1), (2, 2, 1), (2, 2, 1)]
    slopes = batch.support_y / batch.support_x
    torch.testing.assert_close(batch.query_y, slopes[:, :2] * batch.query_x)
    again = FunctionTasks(line).batch(0, Phase.TRAINING, [0])
    assert all(torch.equal(one[0], other[1]) for one, other in zip(again, batch, strict=True))


def test_a_function_is_given_other_seeds_for_other_runs_and_phases() -> None:
    seeds = []

    def spy(seed: int, index: int) -> tuple[np.ndarray, ...]:
        seeds.append(seed)
        return line(seed, index)

    for seed in (0, 1):
        for phase in (Phase.TRAINING, Phase.VALIDATION, Phase.EVALUATION):
            FunctionTasks(spy).batch(seed, phase, [0, 1])
    assert seeds[::2] == seeds[1::2]
    assert len(set(seeds)) == 6


ONES = np.ones((3, 2))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([ONES] * 3, "must return support_x, support_y, query_x and query_y with one row an example, got 3 arrays"),
        ([ONES, ONES, ONES, 1.0], "one row an example, got 4 arrays of shapes"),
        (["one", ONES, ONES, ONES], "cannot be read as numbers"),
        (7, "cannot be read as numbers"),
        ([ONES, ONES[:2], ONES, ONES], "x and y need as many rows"),
        ([ONES, ONES, np.ones((3, 1)), ONES], "support and query as many columns"),
        ([ONES, ONES, ONES, ONES * np.nan], "query_y has a number that is not finite"),
    ],
)
def test_a_wrong_return_value_is_named_with_its_task(returned: object, message: str) -> None:
    with pytest.raises(InputError, match=f"task 4: .*{message}"):
        FunctionTasks(lambda _seed, _index: returned).batch(0, Phase.TRAINING, [4])  # type: ignore[arg-type,return-value]


def test_tasks_of_different_sizes_cannot_be_a_batch() -> None:
    with pytest.raises(InputError, match=r"task 0 has \[1, 1\].*task 2 has \[3, 1\]"):
        FunctionTasks(lambda _seed, i: [np.ones((i + 1, 1))] * 4).batch(0, Phase.TRAINING, [0, 2])


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0)])
def test_a_task_needs_examples(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="at least 1 shot and 1 query"):
        Sinusoid(*sizes)
