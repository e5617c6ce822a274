"""The ant, against MuJoCo and arithmetic done by hand."""

import gymnasium
import mujoco
import numpy as np
import pytest

from maml_rl.envs.ant import Ant

pytestmark = pytest.mark.skipif(
    not hasattr(mujoco.mjtSensor, "mjSENS_CONTACT"), reason="the ant's contact forces need MuJoCo 3.3.5"
)

NQ, NV = 15, 14
POSE = [0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1]
GOALS = ("velocity", "direction", "position")


@pytest.fixture(scope="module")
def ants() -> dict[str, Ant]:
    return {goal: Ant(goal, threads=1) for goal in GOALS}


@pytest.fixture(scope="module")
def rothfuss() -> Ant:
    return Ant("direction", "rothfuss2019", threads=1)


def moving(mdp: Ant, velocity: float, place: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """One state in the air in which the whole robot slides in x at this velocity, with its torso at this place."""
    qpos, qvel = np.array([POSE], float), np.zeros((1, NV))
    qpos[0, :2], qpos[0, 2], qvel[0, 0] = place, 0.95, velocity
    return mdp.states(qpos, qvel)


def test_the_physics_is_mujocos_at_the_published_time_step(ants):
    mdp = ants["velocity"]
    assert (mdp.model.opt.timestep, mdp.frame_skip, mdp.dt) == (0.02, 1, 0.02)
    assert mdp.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    state = mdp.initial([np.random.default_rng(0)])
    data = mujoco.MjData(mdp.model)
    data.qpos[:], data.qvel[:] = mdp.qpos(state)[0], mdp.qvel(state)[0]
    for action in np.random.default_rng(1).normal(size=(40, 8)):
        state = mdp.transition(state, action[None], np.ones((1, 1)))
        data.ctrl[:] = np.clip(action, -1, 1)
        mujoco.mj_step(mdp.model, data)
        # Not bitwise: mj_step starts its solver from the forces of the step before, the batch from none.
        np.testing.assert_allclose(mdp.qpos(state)[0], data.qpos, rtol=0, atol=1e-5)
        np.testing.assert_allclose(mdp.qvel(state)[0], data.qvel, rtol=0, atol=1e-3)
    assert np.abs(data.qpos[7:]).max() > 0.3  # something moved


def test_contacts_are_as_soft_as_published(ants, rothfuss):
    for mdp, impedance in ((ants["velocity"], [0.8, 0.8, 0.01]), (rothfuss, [0.9, 0.95, 0.001])):
        assert np.array_equal(mdp.model.geom_solimp[:, :3], np.tile(impedance, (mdp.model.ngeom, 1)))
        assert np.array_equal(mdp.model.geom_solref, np.tile([0.02, 1.0], (mdp.model.ngeom, 1)))


def test_five_steps_of_a_hundredth_second_under_a_tenth_of_the_action(rothfuss):
    assert (rothfuss.model.opt.timestep, rothfuss.frame_skip, rothfuss.dt) == (0.01, 5, 0.05)
    state = rothfuss.initial([np.random.default_rng(0)])
    data = mujoco.MjData(rothfuss.model)
    data.qpos[:], data.qvel[:] = rothfuss.qpos(state)[0], rothfuss.qvel(state)[0]
    action = np.array([5.0, -5, 20, -20, 1, -1, 0, 0])
    data.ctrl[:] = [0.5, -0.5, 1, -1, 0.1, -0.1, 0, 0]
    for _ in range(5):
        mujoco.mj_step(rothfuss.model, data)
    state = rothfuss.transition(state, action[None], np.ones(1))
    np.testing.assert_allclose(rothfuss.qpos(state)[0], data.qpos, rtol=0, atol=1e-6)


def test_the_observation_has_125_quantities_in_their_published_order(ants):
    mdp = ants["direction"]
    state = mdp.initial([np.random.default_rng(3)])
    action = np.random.default_rng(4).normal(size=(1, 8))
    for _ in range(25):  # until a foot has touched the floor
        state = mdp.transition(state, action, np.ones(1))
    (observation,) = mdp.observation(state)
    assert observation.shape == mdp.observation_space.shape == (125,)
    data = mujoco.MjData(mdp.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = mdp.qpos(state)[0], mdp.qvel(state)[0], np.clip(action[0], -1, 1)
    mujoco.mj_forward(mdp.model, data)
    mujoco.mj_rnePostConstraint(mdp.model, data)
    np.testing.assert_array_equal(observation[:15], data.qpos)
    np.testing.assert_array_equal(observation[15:29], data.qvel)
    np.testing.assert_allclose(observation[29:113], np.clip(data.cfrc_ext, -1, 1).ravel(), rtol=0, atol=1e-8)
    np.testing.assert_allclose(observation[113:122], data.xmat[1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(observation[122:], data.subtree_com[1], rtol=0, atol=1e-12)
    assert np.abs(observation[29:113]).max() == 1.0  # a contact force, clipped


def test_the_observation_of_rothfuss2019_leaves_out_place_rotation_and_centre_of_mass(rothfuss):
    state = rothfuss.initial([np.random.default_rng(0)])
    (observation,) = rothfuss.observation(state)
    assert observation.shape == rothfuss.observation_space.shape == (111,)
    np.testing.assert_array_equal(observation[:13], rothfuss.qpos(state)[0, 2:])
    np.testing.assert_array_equal(observation[13:27], rothfuss.qvel(state)[0])
    assert np.abs(observation[27:]).max() <= 1


# Clipped: (0.5, -0.5, 1, -1, 0, 0, 0, 0), squares 0.25 + 0.25 + 1 + 1 = 2.5; in the air there is no contact.
ACTION = np.array([[0.5, -0.5, 3.0, -9.0, 0.0, 0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("goal", "task", "expected"),
    [
        ("velocity", np.array([[0.7]]), 1 - 0.8),  # 1 - |1.5 - 0.7|
        ("velocity", np.array([[3.0]]), 1 - 1.5),
        ("direction", np.array([1]), 1.5),
        ("direction", np.array([0]), -1.5),
    ],
)
def test_the_task_decides_the_reward_of_a_velocity(ants, goal, task, expected):
    mdp = ants[goal]
    terms = mdp.reward_terms(moving(mdp, 0.0), ACTION, moving(mdp, 1.5), task)
    assert terms[f"reward_{goal}"] == pytest.approx([expected], abs=1e-9)
    assert terms["reward_alive"] == pytest.approx([0.05])
    assert terms["reward_control"] == pytest.approx([-0.0125])  # 0.005 * 2.5
    assert terms["reward_contact"] == pytest.approx([0.0], abs=1e-12)
    assert len(terms) == 4


def test_a_goal_position_rewards_the_distance_along_the_axes(ants):
    mdp = ants["position"]
    state = moving(mdp, 0.0, place=(1.0, -2.0))
    centre = mdp.observation(state)[0, 122:124]  # the pose is not quite symmetric
    np.testing.assert_allclose(centre, [1.0, -2.0], atol=0.2)
    terms = mdp.reward_terms(state, ACTION, state, np.array([[3.0, 0.5]]))
    assert terms["reward_position"] == pytest.approx([4 - (3.0 - centre[0]) - (0.5 - centre[1])])


def test_contact_costs_the_square_of_the_clipped_forces(ants):
    mdp = ants["direction"]
    state = mdp.states(np.array([POSE]) - 0.3 * np.eye(NQ)[2], np.zeros((1, NV)))  # the feet are in the floor
    forces = mdp.observation(state)[0, 29:113]
    assert np.count_nonzero(np.abs(forces) == 1) > 4
    terms = mdp.reward_terms(state, ACTION, state, np.array([1]))
    assert terms["reward_contact"] == pytest.approx([-0.0005 * np.square(forces).sum()])


def test_the_reward_terms_of_rothfuss2019(rothfuss):
    before, after = moving(rothfuss, 9.0, (0.2, 0)), moving(rothfuss, 9.0, (0.5, 0))
    terms = rothfuss.reward_terms(before, 10 * ACTION, after, np.array([0]))
    assert terms["reward_direction"] == pytest.approx([-(0.5 - 0.2) / 0.05])  # of the torso, not its velocity
    assert terms["reward_alive"] == pytest.approx([1.0])
    assert terms["reward_control"] == pytest.approx([-0.5 * 2.5])


@pytest.mark.parametrize(
    ("definition", "height", "ends"),
    [
        ("finn2017", 0.19, True),
        ("finn2017", 0.21, False),
        ("finn2017", 0.99, False),
        ("finn2017", 1.01, True),
        ("rothfuss2019", 0.01, False),
        ("rothfuss2019", -0.01, True),
        ("rothfuss2019", 1.01, True),
    ],
)
def test_an_episode_ends_when_the_torso_is_too_low_or_too_high(definition, height, ends):
    mdp = Ant("direction", definition, threads=1)
    qpos = np.array([POSE], float)
    qpos[0, 2] = height
    assert mdp.terminated(mdp.states(qpos, np.zeros((1, NV))), np.ones(1)).tolist() == [ends]


def test_a_state_that_is_not_finite_ends_the_episode(ants):
    state = moving(ants["direction"], 0.0)
    state[0, 20] = np.nan
    assert ants["direction"].terminated(state, np.ones(1)).tolist() == [True]


def test_the_step_in_which_a_state_diverges_earns_nothing():
    envs = gymnasium.make_vec("maml_rl.envs:finn2017/AntVel-v0", num_envs=2)
    envs.reset(seed=0)
    envs.unwrapped._states[1, -1] = np.nan  # part of what is derived from the state, which the transition replaces
    envs.unwrapped._states[1, 20] = np.nan  # a velocity
    _, rewards, terminated, _, infos = envs.step(np.zeros((2, 8), np.float32))
    assert terminated.tolist() == [False, True]
    assert np.isfinite(rewards).all()
    assert rewards[1] == 0.0
    assert rewards[0] != 0.0
    assert all(values[1] == 0.0 for name, values in infos.items() if name.startswith("reward"))


def test_episodes_begin_in_the_published_pose_with_noise(ants):
    # A standard deviation of n numbers has a relative standard error of 1 / sqrt(2 n): 0.8 % for 500 * 15.
    states = ants["velocity"].initial([np.random.default_rng(seed) for seed in range(500)])
    noise, qvel = ants["velocity"].qpos(states) - POSE, ants["velocity"].qvel(states)
    assert noise.std() == pytest.approx(0.01, rel=0.03)
    assert abs(noise.mean()) < 4 * 0.01 / 7500**0.5
    assert qvel.std() == pytest.approx(0.1, rel=0.03)


def test_a_fallen_ant_costs_nothing_until_reset():
    batch = gymnasium.make_vec("maml_rl.envs:finn2017/AntDir-v0", 60)
    stepped = []
    transition = batch.mdp.transition
    batch.mdp.transition = lambda states, *rest: stepped.append(len(states)) or transition(states, *rest)
    batch.reset(seed=0)
    rng, lengths = np.random.default_rng(0), np.zeros(60)
    for _ in range(200):
        _, rewards, terminated, truncated, infos = batch.step(rng.normal(size=(60, 8)))
        lengths += infos["_reward_alive"]
        assert (rewards[~infos["_reward_alive"]] == 0).all()
    assert terminated.any() and not terminated.all()  # noqa: PT018 (one finding: some fall, some do not)
    assert (terminated | truncated).all()
    assert sum(stepped) == lengths.sum() < 60 * 200


@pytest.mark.parametrize(
    ("env_id", "paper", "error"), [("AntVel", -78.6, 17.8), ("AntDir", 3.1, 2.1)], ids=["velocity", "direction"]
)
def test_a_random_policy_has_the_published_return(env_id, paper, error):
    # The paper's random row, its mean over 40 tasks and the standard error of that (paper_returns.csv).
    count = 60
    batch = gymnasium.make_vec(f"maml_rl.envs:finn2017/{env_id}-v0", count)
    space = batch.task_space
    space.seed(0)
    batch.set_attr("task", [space.sample() for _ in range(count)])
    batch.reset(seed=0)
    rng, returns = np.random.default_rng(0), np.zeros(count)
    for _ in range(200):
        returns += batch.step(rng.normal(size=(count, 8)))[1]
    assert abs(returns.mean() - paper) < 3 * (error**2 + returns.var() / count) ** 0.5


@pytest.mark.parametrize("settings", [("speed",), ("velocity", "finn2018")])
def test_an_unknown_setting_is_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        Ant(*settings)
