"""Walker and hopper, against MuJoCo, Gymnasium's environments of the same robots and arithmetic done by hand."""

import gymnasium
import mujoco
import numpy as np
import pytest

from maml_rl.envs.walker import RandomParameters, Walker

SIZES = {"walker": (9, 58), "hopper": (6, 34)}  # positions, parameters


def exponents(mdp: Walker, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, mdp.task_space.shape).astype(np.float32)


@pytest.fixture(scope="module")
def mdps() -> dict[tuple[str, str], Walker]:
    names = (("walker", "direction"), ("walker", "dynamics"), ("hopper", "dynamics"))
    return {name: Walker(*name, threads=1) for name in names}


@pytest.mark.parametrize(
    ("robot", "goal", "dt"),
    [("walker", "direction", 0.016), ("walker", "dynamics", 0.01), ("hopper", "dynamics", 0.008)],
)
def test_a_control_step_has_the_published_length(mdps, robot, goal, dt):
    assert mdps[robot, goal].dt == pytest.approx(dt)


def test_the_physics_is_gymnasiums_under_a_tenth_of_the_action(mdps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MuJoCo may write its log
    mdp = mdps["walker", "direction"]
    env = gymnasium.make("Walker2d-v5", frame_skip=8, xml_file="walker2d.xml").unwrapped
    env.reset(seed=0)
    state = mdp.initial([np.random.default_rng(0)])
    env.set_state(mdp.qpos(state)[0], mdp.qvel(state)[0])
    for action in np.random.default_rng(1).normal(0, 3, (10, 6)):
        state = mdp.transition(state, action[None], np.ones(1))
        env.step(action / 10)
        np.testing.assert_allclose(mdp.qpos(state)[0], env.data.qpos, rtol=0, atol=1e-6)
    env.close()


@pytest.mark.parametrize("robot", ["walker", "hopper"])
def test_the_task_decides_the_parameters_of_the_model(mdps, robot):
    mdp = mdps[robot, "dynamics"]
    task = exponents(mdp, 0)
    assert task.shape == (SIZES[robot][1],)
    (model,) = mdp.models(task[None])
    left = task.astype(float)
    for name, base in (("body_mass", 1.5), ("body_inertia", 1.5), ("dof_damping", 1.3), ("geom_friction", 1.5)):
        old, new = getattr(mdp.model, name), getattr(model, name)
        changed = old != 0
        np.testing.assert_allclose(new[changed], old[changed] * base ** left[: changed.sum()], rtol=1e-12)
        assert (new[~changed] == 0).all()
        left = left[changed.sum() :]
    assert len(left) == 0
    np.testing.assert_array_equal(model.body_invweight0, mdp.model.body_invweight0)  # as in the original code


@pytest.mark.parametrize("robot", ["walker", "hopper"])
def test_each_row_moves_by_the_dynamics_of_its_own_task(mdps, robot):
    mdp = mdps[robot, "dynamics"]
    tasks = np.stack([exponents(mdp, seed) for seed in range(3)])
    start = np.repeat(mdp.initial([np.random.default_rng(0)]), 3, axis=0)
    actions = np.full((3, mdp.model.nu), 8.0)
    together = mdp.transition(start, actions, tasks)
    for i in range(3):
        data = mujoco.MjData(mdp.models(tasks[i : i + 1])[0])
        data.qpos[:], data.qvel[:], data.ctrl[:] = mdp.qpos(start)[i], mdp.qvel(start)[i], 0.8
        for _ in range(mdp.frame_skip):
            mujoco.mj_step(mdp.models(tasks[i : i + 1])[0], data)
        np.testing.assert_allclose(mdp.qvel(together)[i], data.qvel, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(together[i], mdp.transition(start[:1], actions[:1], tasks[i : i + 1])[0])
    assert np.ptp(mdp.qvel(together), axis=0).max() > 0.1  # they differ


def test_exponents_of_0_leave_the_model_as_it_is(mdps):
    mdp = mdps["hopper", "dynamics"]
    start = mdp.initial([np.random.default_rng(0)])
    np.testing.assert_array_equal(
        mdp.transition(start, np.ones((1, 3)), np.zeros((1, 34), np.float32)),
        np.asarray(mdp._stepper.step(start, mdp.controls(np.ones((1, 3))))),
    )


def test_a_model_is_built_once_for_a_task():
    parameters = RandomParameters(Walker("hopper", "dynamics", threads=1).model)
    task = np.ones(34, np.float32)
    assert parameters.model(task) is parameters.model(task.copy())
    assert parameters.model(task) is not parameters.model(-task)


@pytest.mark.parametrize(("robot", "goal"), [("walker", "direction"), ("hopper", "dynamics")])
def test_the_observation_is_positions_without_x_and_clipped_velocities(mdps, robot, goal):
    mdp, nq = mdps[robot, goal], SIZES[robot][0]
    rng = np.random.default_rng(0)
    qpos, qvel = rng.normal(size=(2, nq)), rng.normal(0, 20, (2, nq))
    observations = mdp.observation(mdp.states(qpos, qvel))
    np.testing.assert_array_equal(observations, np.concatenate([qpos[:, 1:], np.clip(qvel, -10, 10)], axis=1))
    assert mdp.observation_space.shape == (2 * nq - 1,)


def standing(mdp: Walker, x: float) -> np.ndarray:
    qpos = mdp.model.qpos0[None].copy()
    qpos[0, 0] = x
    return mdp.states(qpos, np.zeros((1, mdp.model.nv)))


@pytest.mark.parametrize(("direction", "sign"), [(0, -1), (1, 1)])
def test_a_direction_rewards_the_torsos_progress(mdps, direction, sign):
    mdp = mdps["walker", "direction"]
    actions = np.array([[10.0, -10, 30, 0, 0, 5]])  # controls 1, -1, 1, 0, 0, 0.5: squares 3.25
    terms = mdp.reward_terms(standing(mdp, 1.0), actions, standing(mdp, 1.04), np.array([direction]))
    assert terms["reward_direction"] == pytest.approx([sign * 0.04 / 0.016])
    assert terms["reward_alive"] == pytest.approx([1.0])
    assert terms["reward_control"] == pytest.approx([-0.00325])
    assert len(terms) == 3


def test_random_dynamics_reward_progress_forward(mdps):
    mdp = mdps["hopper", "dynamics"]
    terms = mdp.reward_terms(standing(mdp, 1.0), np.zeros((1, 3)), standing(mdp, 1.04), exponents(mdp, 0)[None])
    assert set(terms) == {"reward_forward", "reward_alive", "reward_control"}
    assert terms["reward_forward"] == pytest.approx([0.04 / 0.008])


@pytest.mark.parametrize(
    ("robot", "goal", "index", "value", "ends"),
    [
        ("walker", "direction", 1, 0.79, True),
        ("walker", "direction", 1, 0.81, False),
        ("walker", "direction", 1, 2.01, True),
        ("walker", "direction", 2, -1.01, True),
        ("walker", "direction", 2, 0.99, False),
        ("walker", "dynamics", 1, 0.79, True),
        ("hopper", "dynamics", 1, 0.69, True),
        ("hopper", "dynamics", 1, 3.0, False),
        ("hopper", "dynamics", 2, 0.21, True),
        ("hopper", "dynamics", 2, -0.19, False),
        ("hopper", "dynamics", 4, 101.0, True),
        ("hopper", "dynamics", 0, 101.0, False),  # it may run as far as it likes
    ],
)
def test_a_fall_ends_the_episode(mdps, robot, goal, index, value, ends):
    mdp = mdps[robot, goal]
    qpos = mdp.model.qpos0[None].copy()
    qpos[0, index] = value
    assert mdp.terminated(mdp.states(qpos, np.zeros((1, mdp.model.nv))), None).tolist() == [ends]


@pytest.mark.parametrize(
    ("settings", "message"),
    [(("spider", "direction"), "walker, hopper"), (("hopper", "direction"), "dynamics"), (("walker", "x"), "dynamics")],
)
def test_an_unknown_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Walker(*settings)
