"""The half-cheetah with a disabled joint and the ant with a crippled leg, against MuJoCo and the finn2017 robots."""

import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from maml_rl.envs.ant import ANT_DEFINITIONS, Ant
from maml_rl.envs.crippled import CRIPPLED, Crippled
from maml_rl.envs.half_cheetah import HalfCheetah
from maml_rl.envs.mujoco.batch import NOT_NEEDED
from maml_rl.envs.mujoco.model import gymnasium_xml

every_robot = pytest.mark.parametrize("robot", CRIPPLED)
STEPS = 30
# Actuators and geometries of each leg, from Gymnasium's file: motors of leg 4 come first.
ANT_MOTORS = {0: (2, 3), 1: (4, 5), 2: (6, 7), 3: (0, 1)}
ANT_GEOMS = {
    0: ("left_leg_geom", "left_ankle_geom"),
    1: ("right_leg_geom", "right_ankle_geom"),
    2: ("back_leg_geom", "third_ankle_geom"),
    3: ("rightback_leg_geom", "fourth_ankle_geom"),
}


def every_task(robot: str) -> NDArray[np.int64]:
    return np.arange(6 if robot == "half-cheetah" else 4)


def crippled_ant(leg: int) -> mujoco.MjModel:
    """The ant compiled with a short leg: smaller capsules, and the masses and moments of inertia of the whole leg."""
    definition = ANT_DEFINITIONS["finn2017"]

    def spec_of() -> mujoco.MjSpec:
        spec = mujoco.MjSpec.from_string(gymnasium_xml("ant.xml"))
        spec.option.timestep = definition.time_step
        for geom in spec.geoms:
            geom.solimp[:3] = definition.impedance
        return spec

    whole, spec = spec_of().compile(), spec_of()
    upper, foot = ANT_GEOMS[leg]
    place = whole.geom_pos[whole.geom(upper).id]
    for name in (upper, foot):
        i, geom = whole.geom(name).id, spec.geom(name)
        geom.fromto[:] = np.nan
        geom.pos, geom.quat, geom.size = place, whole.geom_quat[i], whole.geom_size[i] / 2
    model = spec.compile()
    for field in ("body_mass", "body_inertia", "body_ipos", "body_iquat", "body_sameframe"):
        getattr(model, field)[:] = getattr(whole, field)
    for name in (upper, foot):  # else MuJoCo takes the frame of these moments, which have just changed, for theirs
        model.geom_sameframe[model.geom(name).id] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE.value
    mujoco.mj_setConst(model, mujoco.MjData(model))
    model.opt.disableflags |= NOT_NEEDED
    return model


def by_hand(model: mujoco.MjModel, mdp: Crippled, state: NDArray, controls: NDArray) -> NDArray:
    """Positions and velocities by `mj_step`, `[STEPS, nq + nv]`."""
    data, found = mujoco.MjData(model), []
    data.qpos[:], data.qvel[:] = mdp.qpos(state[None])[0], mdp.qvel(state[None])[0]
    for control in controls:
        data.ctrl[:] = control
        mujoco.mj_step(model, data)
        found.append(np.concatenate([data.qpos, data.qvel]))
    return np.array(found)


@every_robot
def test_each_row_moves_as_plain_mujoco_does_without_these_torques(robot):
    mdp, tasks = Crippled(robot, threads=1), every_task(robot)
    states = mdp.initial_for([np.random.default_rng(int(task)) for task in tasks], tasks)
    starts, controls = states.copy(), np.random.default_rng(1).uniform(-1, 1, (STEPS, mdp.model.nu))
    together = []
    for control in controls:
        states = mdp.transition(states, np.repeat(control[None], len(tasks), axis=0), tasks)
        together.append(np.concatenate([mdp.qpos(states), mdp.qvel(states)], axis=1))
    for task in tasks.tolist():
        left = controls.copy()
        left[:, ANT_MOTORS[task] if robot == "ant" else task] = 0.0
        model = crippled_ant(task) if robot == "ant" else Crippled(robot, threads=1).model
        expected = by_hand(model, mdp, starts[task], left)
        np.testing.assert_array_equal(np.array(together)[:, task], expected)
    assert np.ptp(np.array(together)[-1], axis=0).max() > 0.1


@pytest.mark.parametrize("leg", range(4))
def test_a_crippled_leg_hardly_reaches_the_ground(leg):
    mdp = Crippled("ant", threads=1)
    (model,) = mdp.models(np.array([leg]))

    def lowest(of: mujoco.MjModel, name: str) -> float:
        data, geom = mujoco.MjData(of), of.geom(name).id
        data.qpos[:] = ANT_DEFINITIONS["finn2017"].pose
        mujoco.mj_forward(of, data)
        return float(
            data.geom_xpos[geom, 2] - abs(data.geom_xmat[geom, 8]) * of.geom_size[geom, 1] - of.geom_size[geom, 0]
        )

    for name in ANT_GEOMS[leg]:
        assert lowest(model, name) > lowest(mdp.model, name) + 0.03
    assert lowest(model, ANT_GEOMS[leg][1]) > 0.25
    for other in set(range(4)) - {leg}:
        assert lowest(model, ANT_GEOMS[other][1]) == lowest(mdp.model, ANT_GEOMS[other][1]) < 0.1
    np.testing.assert_array_equal(model.body_mass, mdp.model.body_mass)


def test_robot_start_and_observation_of_the_half_cheetah_are_those_of_finn2017():
    mdp, finn = Crippled("half-cheetah", threads=1), HalfCheetah("direction", threads=1)
    states, expected = mdp.initial_for([np.random.default_rng(0)], np.ones(1)), finn.initial([np.random.default_rng(0)])
    np.testing.assert_allclose(mdp.observation(states), finn.observation(expected), rtol=0, atol=1e-14)
    action = np.array([[0.5, 0.0, -2.0, 0.25, 1.0, 0.0]])  # joint 1, which is disabled, has no torque anyway
    following, finn_following = (
        mdp.transition(states, action, np.ones(1)),
        finn.transition(expected, action, np.ones(1)),
    )
    np.testing.assert_allclose(mdp.observation(following), finn.observation(finn_following), rtol=0, atol=1e-13)
    terms = mdp.reward_terms(states, action, following, np.ones(1))
    expected_terms = finn.reward_terms(expected, action, finn_following, np.ones(1))
    assert terms["reward_forward"] == pytest.approx(expected_terms["reward_direction"], abs=1e-12)
    assert terms["reward_control"] == pytest.approx(expected_terms["reward_control"])
    assert terms["reward_alive"].tolist() == [0.0]


@pytest.mark.skipif(not hasattr(mujoco.mjtSensor, "mjSENS_CONTACT"), reason="the ant of finn2017 needs MuJoCo 3.3.5")
def test_robot_start_and_observation_of_the_ant_are_those_of_finn2017_without_contact_forces():
    mdp, finn = Crippled("ant", threads=1), Ant("direction", threads=1)
    generators = [np.random.default_rng(0)]
    states, expected = mdp.initial_for(generators, np.zeros(1)), finn.initial([np.random.default_rng(0)])
    seen, of_finn = mdp.observation(states)[0], finn.observation(expected)[0]
    assert seen.shape == (41,)
    np.testing.assert_allclose(seen, np.concatenate([of_finn[:29], of_finn[113:]]), rtol=0, atol=1e-14)
    assert mdp.dt == finn.dt == 0.02


@every_robot
def test_a_disabled_joint_costs_nothing(robot):
    mdp, tasks = Crippled(robot, threads=1), every_task(robot)
    states = mdp.initial_for([np.random.default_rng(0)] * len(tasks), tasks)
    actions = np.full((len(tasks), mdp.model.nu), -3.0)  # clipped to -1
    terms = mdp.reward_terms(states, actions, states, tasks)
    # Five joints of the half-cheetah at 0.05 each; the ant's torques are free, and a step earns 0.05.
    costs, alive = (-0.25, 0.0) if robot == "half-cheetah" else (0.0, 0.05)
    assert terms["reward_control"].tolist() == pytest.approx([costs] * len(tasks))
    assert terms["reward_alive"].tolist() == [alive] * len(tasks)


@every_robot
def test_an_episode_ends_early_only_where_a_number_is_not_finite(robot):
    mdp = Crippled(robot, threads=1)
    state = mdp.initial_for([np.random.default_rng(0)], np.ones(1))
    state[0, 3] = 50.0
    assert mdp.terminated(state, np.ones(1)).tolist() == [False]
    state[0, 3] = np.nan
    assert mdp.terminated(state, np.ones(1)).tolist() == [True]


def test_training_and_test_have_different_joints_and_legs():
    assert Crippled("half-cheetah", threads=1).task_space == Discrete(5, start=1)
    assert Crippled("half-cheetah", "test", threads=1).task_space == Discrete(1)
    assert Crippled("ant", threads=1).task_space == Discrete(3)
    assert Crippled("ant", "test", threads=1).task_space == Discrete(1, start=3)


@every_robot
def test_a_task_is_named(robot):
    names = [Crippled(robot, threads=1).task_name(task) for task in every_task(robot)]
    expected = {
        "half-cheetah": [f"{joint} disabled" for joint in ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")],
        "ant": [f"{leg} leg crippled" for leg in ("front left", "front right", "back left", "back right")],
    }
    assert names == expected[robot]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("walker",), "robot must be one of half-cheetah, ant, got 'walker'"),
        (("ant", "validation"), "split must be one of train, test, got 'validation'"),
    ],
)
def test_an_unknown_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Crippled(*settings)
