"""2D navigation, against arithmetic done by hand."""

import gymnasium
import numpy as np
import pytest

from maml_rl.envs.navigation import Navigation2D

ID = "maml_rl.envs:finn2017/Navigation2D-v0"


def goal(x: float, y: float) -> np.ndarray:
    return np.array([x, y], np.float32)


def navigation(x: float, y: float) -> gymnasium.Env:
    """An environment at the start of an episode with goal (x, y)."""
    env = gymnasium.make(ID)
    env.unwrapped.task = goal(x, y)
    env.reset(seed=0)
    return env


def test_an_episode_starts_at_the_origin_whatever_the_seed():
    env = gymnasium.make(ID)
    for seed in range(3):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], [0.0, 0.0])


def test_a_step_moves_by_a_tenth_of_the_action():
    env = navigation(0.3, 0.4)
    # (0, 0) + 0.1 (0.5, -1) = (0.05, -0.1)
    np.testing.assert_allclose(env.step(goal(0.5, -1.0))[0], [0.05, -0.1], atol=1e-12)
    # (0.05, -0.1) + 0.1 (1, 1) = (0.15, 0)
    np.testing.assert_allclose(env.step(goal(1.0, 1.0))[0], [0.15, 0.0], atol=1e-12)


def test_actions_beyond_one_are_clipped_by_component():
    env = navigation(0.3, 0.4)
    # (3, -0.2) is clipped to (1, -0.2), not scaled
    np.testing.assert_allclose(env.step(goal(3.0, -0.2))[0], [0.1, -0.02], atol=1e-9)
    np.testing.assert_allclose(env.step(goal(-7.0, 0.0))[0], [0.0, -0.02], atol=1e-9)


def test_the_reward_is_minus_the_plain_distance_after_the_move():
    env = navigation(0.4, 0.3)
    # After the move the point is at (0.1, -0.1): distance sqrt(0.3^2 + 0.4^2) = 0.5.
    # Its square would be 0.25, and the distance before the move is also 0.5: so take another step as well.
    _, reward, _, _, info = env.step(goal(1.0, -1.0))
    assert reward == pytest.approx(-0.5, abs=1e-7)
    assert info == {"reward_distance": reward}
    # (0.1, -0.1) -> (0.2, -0.1) -> (0.3, -0.1): distances sqrt(0.04 + 0.16) and sqrt(0.01 + 0.16)
    assert env.step(goal(1.0, 0.0))[1] == pytest.approx(-(0.20**0.5), abs=1e-7)
    assert env.step(goal(1.0, 0.0))[1] == pytest.approx(-(0.17**0.5), abs=1e-7)


@pytest.mark.parametrize(
    ("offset", "ends"),
    [
        ((0.0, 0.0), True),
        ((0.009, -0.009), True),  # a distance of 0.0127, but within 0.01 in both coordinates
        ((0.011, 0.0), False),
        ((0.0, -0.011), False),
        ((0.011, 0.011), False),
    ],
)
def test_an_episode_ends_within_a_hundredth_of_the_goal_in_both_coordinates(offset, ends):
    x, y = 0.05 - offset[0], -0.08 - offset[1]
    env = navigation(x, y)
    observation, _, terminated, truncated, _ = env.step(goal(0.5, -0.8))  # to (0.05, -0.08)
    np.testing.assert_allclose(observation - goal(x, y), offset, atol=1e-7)
    assert terminated is ends
    assert truncated is False


def test_an_episode_does_not_end_near_the_start():
    env = navigation(0.3, 0.3)
    for _ in range(3):
        assert not env.step(goal(0.01, 0.01))[2]  # 0.001 from the start


def test_a_goal_at_the_start_is_reached_by_the_first_step_only():
    env = navigation(0.0, 0.0)
    _, reward, terminated, _, _ = env.step(goal(0.0, 0.0))
    assert terminated
    assert reward == 0.0


def test_standing_still_scores_the_mean_distance_of_the_goals():
    # With goals g uniform in the square of side 1 around the start, standing still returns -100 |g|. By symmetry
    #   E|g| = 8 int_0^(pi/4) int_0^(1/(2 cos t)) r^2 dr dt = 1/3 int_0^(pi/4) sec^3 t dt
    #        = (sqrt 2 + ln(1 + sqrt 2)) / 6 = 0.3826,
    # so the mean is -38.26. (The squared distance would give -100/6 = -16.67.) E|g|^2 = 1/6, so a return has a standard
    # deviation of 100 sqrt(1/6 - 0.3826^2) = 14.2. One goal in 2500 is at the start: it ends at once, and moves the
    # mean by less than 0.0004 * 100 * 0.014 = 0.0006.
    count = 2000
    mean, std = -100 * (2**0.5 + np.log(1 + 2**0.5)) / 6, 100 * (1 / 6 - 0.3826**2) ** 0.5
    assert mean == pytest.approx(-38.26, abs=0.005)
    batch = gymnasium.make_vec(ID, count)
    batch.task_space.seed(1)
    batch.set_attr("task", [batch.task_space.sample() for _ in range(count)])
    batch.reset(seed=0)
    actions = np.zeros(batch.action_space.shape, np.float32)
    returns = sum(batch.step(actions)[1] for _ in range(100))
    assert returns.mean() == pytest.approx(mean, abs=3 * std / count**0.5)
    assert returns.std() == pytest.approx(std, rel=0.1)


def test_the_best_return_walks_straight_to_the_goal():
    # Goal (0.45, 0): the point is at 0.1, 0.2, 0.3, 0.4, 0.45, so the return is -(0.35 + 0.25 + 0.15 + 0.05) = -0.8.
    env = navigation(0.45, 0.0)
    steps = [env.step(goal(x, 0.0)) for x in (1.0, 1.0, 1.0, 1.0, 0.5)]
    assert sum(step[1] for step in steps) == pytest.approx(-0.8, abs=1e-6)
    assert [step[2] for step in steps] == [False, False, False, False, True]


def pixel(x: float, y: float, size: int) -> tuple[int, int]:
    """Row and column of a position in a picture of [-0.75, 0.75]^2, y up."""
    return round((0.75 - y) / 1.5 * (size - 1)), round((x + 0.75) / 1.5 * (size - 1))


def test_the_picture_shows_the_start_the_goal_and_the_point():
    mdp = Navigation2D()
    picture = mdp.render(np.array([-0.3, 0.2]), goal(0.4, -0.1))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    size = len(picture)
    np.testing.assert_array_equal(picture[pixel(0.4, -0.1, size)], (0x2C, 0xA0, 0x2C))  # goal: green
    np.testing.assert_array_equal(picture[pixel(-0.3, 0.2, size)], (0x1F, 0x77, 0xB4))  # point: blue
    np.testing.assert_array_equal(picture[pixel(0.0, 0.0, size)], (0x80, 0x80, 0x80))  # start: grey
    assert picture[pixel(0.3, 0.45, size)].min() > 200  # nothing else


def test_the_picture_of_an_environment_is_that_of_its_current_episode():
    batch = gymnasium.make_vec(ID, 2, render_mode="rgb_array")
    batch.set_attr("task", [goal(0.4, 0.0), goal(-0.4, 0.0)])
    batch.reset(seed=0)
    batch.step(np.array([[0.0, 1.0], [0.0, -1.0]], np.float32))
    batch.set_attr("task", [goal(0.0, 0.4)] * 2)  # from the next reset on
    pictures = batch.render()
    assert len(pictures) == 2
    np.testing.assert_array_equal(pictures[0], batch.mdp.render(np.array([0.0, 0.1]), goal(0.4, 0.0)))
    np.testing.assert_array_equal(pictures[1], batch.mdp.render(np.array([0.0, -0.1]), goal(-0.4, 0.0)))
