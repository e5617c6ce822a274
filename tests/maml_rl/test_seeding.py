import numpy as np
import pytest

from maml_rl.seeding import Draw, Phase, Purpose

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


def test_purposes_and_indices_draw_apart() -> None:
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


def test_more_integers_begin_with_the_fewer() -> None:
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
    assert {p.name: p.value for p in Purpose if p <= 4} == {
        "TASKS": 0,
        "RESETS": 1,
        "ACTIONS": 2,
        "PARAMS": 3,
        "INTERVALS": 4,
    }
