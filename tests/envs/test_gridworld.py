"""The gridworld's moves, and its values against counts of steps and Bellman's equation."""

import gymnasium
import numpy as np
import pytest

from maml_rl.envs.gridworld import GridWorld, optimal_values

SOURCES = "maml_rl.envs:parisotto2016/GridWorldSources-v0"
UP, DOWN, LEFT, RIGHT = range(4)


def at(world: GridWorld, row: int, column: int, draw: float, task: int = 0) -> np.ndarray:
    """A state before its first step, whose random numbers are all `draw`."""
    return np.array([[row, column, *world.goals[task], 0, *[draw] * world.steps]])


def test_sources_and_targets_share_no_goal_and_all_rows_and_columns():
    sources, targets = (GridWorld(goals).goals for goals in ("sources", "targets"))
    cells = {tuple(goal) for goal in np.concatenate([sources, targets])}
    assert (len(sources), len(targets), len(cells)) == (13, 12, 25)
    for goals in (sources, targets):
        for axis in (0, 1):
            assert set(goals[:, axis]) == set(range(5))


@pytest.mark.parametrize(
    ("action", "draw", "expected"),
    [
        (UP, 0.5, (1, 3)),
        (DOWN, 0.5, (3, 3)),
        (LEFT, 0.5, (2, 2)),
        (RIGHT, 0.5, (2, 4)),
        (UP, 0.0, (1, 3)),  # draws below 0.1 slip: their quarters are the four moves
        (UP, 0.03, (3, 3)),
        (UP, 0.06, (2, 2)),
        (UP, 0.09, (2, 4)),
        (UP, 0.1, (1, 3)),
    ],
)
def test_a_move_is_the_one_that_was_chosen_unless_it_slips(action, draw, expected):
    world = GridWorld()
    state = world.transition(at(world, 2, 3, draw), np.array([action]), np.zeros(1))
    assert tuple(state[0, :2]) == expected
    assert state[0, 4] == 1


def test_a_wall_stops_the_walker_and_a_step_too_many_is_refused():
    world = GridWorld(steps=1)
    state = world.transition(at(world, 0, 4, 0.5), np.array([UP]), np.zeros(1))
    assert tuple(state[0, :2]) == (0, 4)
    with pytest.raises(ValueError, match="an episode has 1 steps"):
        world.transition(state, np.array([UP]), np.zeros(1))


def test_an_observation_says_where_the_walker_and_the_goal_are():
    world = GridWorld()
    seen = world.observation(at(world, 1, 2, 0.5, task=3)).reshape(4, 5)  # goals (0, 0), (0, 2), (0, 4), (1, 1), ...
    np.testing.assert_array_equal(seen.argmax(1), [1, 2, 1, 1])
    assert seen.sum() == 4
    np.testing.assert_array_equal(world.cells(3)[1 * 5 + 2], seen.ravel())


def test_an_episode_starts_anywhere_but_at_its_goal_and_ends_there():
    envs = gymnasium.make_vec(SOURCES, 2000)
    envs.set_attr("task", [3] * 2000)
    seen = envs.reset(seed=0)[0].reshape(2000, 4, 5).argmax(2)
    cells, counts = np.unique(seen[:, 0] * 5 + seen[:, 1], return_counts=True)
    np.testing.assert_array_equal(cells, [c for c in range(25) if c != 6])
    assert abs(counts - 2000 / 24).max() < 5 * np.sqrt(2000 / 24)
    world = GridWorld()
    assert world.terminated(at(world, 1, 1, 0.5, task=3), np.full(1, 3)).tolist() == [True]
    assert world.terminated(at(world, 1, 2, 0.5, task=3), np.full(1, 3)).tolist() == [False]


def test_without_slips_a_value_counts_the_steps_to_the_goal():
    world = GridWorld()
    world.slip = 0.0
    # From d steps away, -1 for each: V = -(1 - 0.9^d) / 0.1, and Q(s, a) = -1 + 0.9 V(s').
    values = optimal_values(world, 0, discount=0.9).max(axis=1).reshape(5, 5)
    distance = np.add.outer(np.arange(5), np.arange(5))  # from the goal, (0, 0)
    np.testing.assert_allclose(values, -(1 - 0.9**distance) / 0.1, atol=1e-8)


def test_values_satisfy_bellmans_equation_on_the_moves_of_the_environment():
    world, task, discount = GridWorld("targets"), 4, 0.95
    q = optimal_values(world, task, discount)
    draws = (np.arange(400) + 0.5) / 400  # 40 of them slip, ten into each move
    for cell in range(25):
        if tuple(divmod(cell, 5)) == tuple(world.goals[task]):
            assert (q[cell] == 0).all()
            continue
        states = np.concatenate([at(world, *divmod(cell, 5), draw, task) for draw in draws])
        for action in range(4):
            reached = world.transition(states, np.full(400, action), np.full(400, task))[:, :2] @ [5, 1]
            assert q[cell, action] == pytest.approx(-1 + discount * q[reached.astype(int)].max(1).mean(), abs=1e-8)


def test_the_picture_has_the_goal_and_the_walker():
    world = GridWorld()
    picture = world.render(np.array([4.0, 0.0]), 2)
    assert picture.shape == (240, 240, 3)
    assert tuple(picture[10, 230]) == (44, 160, 44)  # row 0, column 4
    assert tuple(picture[230, 10]) == (31, 119, 180)
    assert world.task_name(2) == "goal in row 0, column 4"
