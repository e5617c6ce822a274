import numpy as np
import pytest

from maml_rl.seeding import Draw, Phase, Purpose, uniforms

DRAW = Draw(seed=3, phase=Phase.TRAINING, iteration=5, step=1)


def numbers(draw: Draw, purpose: Purpose = Purpose.ACTIONS, index: int = 0) -> list[float]:
    return draw.generator(purpose, index).standard_normal(4).tolist()


def test_the_same_place_draws_the_same_numbers() -> None:
    assert numbers(DRAW) == numbers(Draw(3, Phase.TRAINING, 5, 1))


def test_a_draw_depends_on_no_earlier_draw_and_no_global_state() -> None:
    first = numbers(DRAW)
    numbers(DRAW, Purpose.RESETS)
    np.random.default_rng().random(7)
    assert numbers(DRAW) == first


@pytest.mark.parametrize(
    "other",
    [
        DRAW._replace(seed=4),
        DRAW._replace(phase=Phase.EVALUATION),
        DRAW._replace(iteration=6),
        DRAW._replace(step=0),
        DRAW._replace(seed=5, iteration=3),  # the same numbers in other places
        DRAW._replace(seed=3 + 2**32),
    ],
)
def test_every_coordinate_of_the_place_changes_what_is_drawn(other: Draw) -> None:
    assert numbers(other) != numbers(DRAW)
    assert other.integers(Purpose.RESETS, 4) != DRAW.integers(Purpose.RESETS, 4)


def test_purposes_and_indices_draw_different_numbers() -> None:
    draws = [tuple(numbers(DRAW, purpose, index)) for purpose in Purpose for index in range(20)]
    assert len(set(draws)) == len(draws)


def test_all_small_places_have_different_sequences() -> None:
    states = {
        tuple(Draw(seed, phase, iteration, step).sequence(purpose, index).generate_state(4))
        for seed in range(3)
        for phase in Phase
        for iteration in range(3)
        for step in range(3)
        for purpose in Purpose
        for index in range(3)
    }
    assert len(states) == 3 * len(Phase) * 3 * 3 * len(Purpose) * 3


def test_integers_are_python_ints_that_gymnasium_accepts_as_seeds() -> None:
    seeds = DRAW.integers(Purpose.RESETS, 1000)
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_fewer_integers_are_the_first_of_more() -> None:
    assert DRAW.integers(Purpose.RESETS, 10, index=2)[:4] == DRAW.integers(Purpose.RESETS, 4, index=2)


def test_values_of_phases_and_purposes_are_those_of_published_results() -> None:
    assert {phase.name: phase.value for phase in Phase} == {
        "TRAINING": 0,
        "EVALUATION": 1,
        "STANDARDISATION": 2,
        "INITIALISATION": 3,
        "VALIDATION": 4,
        "RECORDING": 5,
    }
    assert {p.name: p.value for p in Purpose if p <= 3} == {
        "TASKS": 0,
        "RESETS": 1,
        "ACTIONS": 2,
        "PARAMS": 3,
    }


def test_uniform_numbers_of_an_index_do_not_depend_on_the_others() -> None:
    together = uniforms(Draw(3, Phase.TRAINING), range(100), 7)
    some = [7, 8, 9, 3, 99, 3]
    np.testing.assert_array_equal(uniforms(Draw(3, Phase.TRAINING), some, 7), together[some])
    assert uniforms(Draw(3, Phase.TRAINING), [], 7).shape == (0, 7)


def test_uniform_numbers_are_those_of_published_results() -> None:
    found = uniforms(Draw(3, Phase.TRAINING), [0, 5], 5)
    # The first and last number of either row, exactly.
    assert found[:, [0, 4]].tolist() == [
        [0.17894441345534473, 0.7682952706706284],
        [0.08190649879185985, 0.8752358335275864],
    ]


def test_uniform_numbers_fill_the_unit_interval_and_do_not_repeat() -> None:
    draws = [Draw(0, Phase.TRAINING), Draw(1, Phase.TRAINING), Draw(0, Phase.EVALUATION), Draw(0, Phase.VALIDATION)]
    numbers = np.stack([uniforms(draw, range(5000), 5, stream) for draw in draws for stream in (0, 1)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert len(np.unique(numbers)) == numbers.size  # 200,000 of 2^53: two alike have probability 2e-6
    # Mean 1/2 and variance 1/12 within five standard errors, and no correlation between neighbours.
    assert abs(numbers.mean() - 0.5) < 5 * (1 / 12 / numbers.size) ** 0.5
    assert abs(numbers.var() - 1 / 12) < 5 * (1 / 180 / numbers.size) ** 0.5
    assert abs(np.corrcoef(numbers[0, :-1, 4], numbers[0, 1:, 0])[0, 1]) < 5 / 5000**0.5
