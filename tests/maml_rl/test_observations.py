"""Parts of observations: their order, their names, and which of them are pictures."""

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from maml_rl.observations import LEAST_SIDE, Part, RowObservation, Rows, in_rows, observation_parts, row, row_space

NUMBERS = spaces.Box(-1.0, 1.0, (2,), np.float32)
PICTURE = spaces.Box(0, 255, (9, 8, 3), np.uint8)


def test_parts_are_named_in_the_order_of_their_row() -> None:
    space = spaces.Dict(
        view=PICTURE, arm=spaces.Dict(joints=NUMBERS, closed=spaces.Discrete(2)), pair=spaces.Tuple([NUMBERS])
    )
    parts = observation_parts(space)
    assert [(part.name, part.shape, part.is_picture) for part in parts] == [
        ("view", (9, 8, 3), True),
        ("arm.joints", (2,), False),
        ("arm.closed", (2,), False),
        ("pair.0", (2,), False),
    ]
    space.seed(0)
    drawn = space.sample()
    flat = row(space, drawn)
    view, joints, closed, pair = np.split(flat, np.cumsum([part.size for part in parts])[:-1])
    np.testing.assert_array_equal(view.reshape(9, 8, 3), drawn["view"])
    np.testing.assert_array_equal(joints, drawn["arm"]["joints"])
    assert closed.tolist() == [float(i == drawn["arm"]["closed"]) for i in range(2)]
    np.testing.assert_array_equal(pair, drawn["pair"][0])


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((8, 9), (1, 8, 9)),
        ((8, 9, 1), (1, 8, 9)),
        ((8, 9, 3), (3, 8, 9)),
        ((3, 8, 9), (3, 8, 9)),
        ((12, 84, 84), (12, 84, 84)),
        ((8, 8, 8), (8, 8, 8)),
    ],
)
def test_a_picture_is_seen_with_its_channels_first(shape, seen) -> None:
    (part,) = observation_parts(spaces.Box(0, 255, shape, np.uint8))
    assert part.is_picture
    assert part.seen == seen


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (16, 16, 3), np.float32),
        spaces.Box(0, 200, (16, 16, 3), np.uint8),
        spaces.Box(0, 255, (16,), np.uint8),
        spaces.Box(0, 255, (LEAST_SIDE - 1, 16, 3), np.uint8),
        spaces.Box(0, 255, (2, 16, 16, 3), np.uint8),
    ],
    ids=str,
)
def test_a_box_that_is_not_a_picture_is_a_row_of_numbers(space) -> None:
    assert observation_parts(space) == (Part("", space.shape),)


def test_rows_know_their_parts_even_in_another_process() -> None:
    rows = row_space(spaces.Dict(view=PICTURE, speed=NUMBERS))
    assert isinstance(rows, Rows)
    assert rows.shape == (9 * 8 * 3 + 2,)
    assert observation_parts(pickle.loads(pickle.dumps(rows))) == observation_parts(
        spaces.Dict(view=PICTURE, speed=NUMBERS)
    )


@pytest.mark.parametrize("space", [spaces.Graph(NUMBERS, None), spaces.Dict(a=spaces.Sequence(NUMBERS))])
def test_spaces_without_a_fixed_number_of_numbers_have_no_rows(space) -> None:
    assert row_space(space) is None


class Seen(gymnasium.Env):
    """Observes a Dict."""

    observation_space = spaces.Dict(speed=NUMBERS, gear=spaces.Discrete(3))
    action_space = NUMBERS

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return {"speed": np.array([0.5, -0.5], np.float32), "gear": np.int64(1)}, {}


def test_an_environment_observes_rows_and_one_with_a_box_is_unchanged() -> None:
    env = in_rows(Seen())
    assert isinstance(env, RowObservation)
    observation, _ = env.reset()
    # A Dict of keyword arguments keeps their order: speed first, then gear 1 of 3.
    assert observation.tolist() == [0.5, -0.5, 0.0, 1.0, 0.0]
    assert env.observation_space.contains(observation.astype(env.observation_space.dtype))
    env.observation_space = NUMBERS
    assert in_rows(env) is env
