"""Robots under dynamics that a task decides, against plain MuJoCo with the same change made by hand."""

import warnings
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from maml_rl.envs.batched import stacked_tasks
from maml_rl.envs.mujoco.batch import NOT_NEEDED
from maml_rl.envs.mujoco.model import gymnasium_xml
from maml_rl.envs.runners import RUNNERS, Runner, families

STEPS = 8
FAMILIES = list(families(RUNNERS["ant"]))
GYMNASIUM = {"half-cheetah": "HalfCheetah-v5", "ant": "Ant-v5", "walker": "Walker2d-v5", "hopper": "Hopper-v5"}
every_robot = pytest.mark.parametrize("robot", RUNNERS)


def number(value: float) -> NDArray[np.float32]:
    return np.array([value], np.float32)


def plain_model(robot: str) -> mujoco.MjModel:
    """Gymnasium's model as its file has it, with the settings of a batch of states."""
    xml = gymnasium_xml(RUNNERS[robot].xml)
    model = mujoco.MjModel.from_xml_string(xml.replace('settotalmass="14"', ""))
    if robot == "half-cheetah":
        mujoco.mj_setTotalmass(model, 14.0)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    model.opt.disableflags |= NOT_NEEDED
    return model


def controls_of(mdp: Runner, seed: int = 1) -> NDArray[Any]:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (STEPS, mdp.model.nu))


def starts_of(mdp: Runner, tasks: list[Any]) -> NDArray[Any]:
    """A start for each task, low enough that the feet push the ground."""
    generators = [np.random.default_rng(i) for i in range(len(tasks))]
    return mdp.initial_for(generators, stacked_tasks(mdp.task_space, tasks))


def in_batch(mdp: Runner, tasks: list[Any], controls: NDArray[Any]) -> NDArray[Any]:
    """Positions and velocities of all tasks side by side, `[tasks, STEPS, nq + nv]`."""
    stacked, states, found = stacked_tasks(mdp.task_space, tasks), starts_of(mdp, tasks), []
    for control in controls:
        states = mdp.transition(states, np.repeat(control[None], len(tasks), axis=0), stacked)
        found.append(np.concatenate([mdp.qpos(states), mdp.qvel(states)], axis=1))
    return np.array(found).transpose(1, 0, 2)


def by_hand(model: mujoco.MjModel, mdp: Runner, state: NDArray[Any], controls: NDArray[Any]) -> NDArray[Any]:
    """The same for one robot by `mj_step`, each control step from a cold start, `[STEPS, nq + nv]`."""
    data, found = mujoco.MjData(model), []
    data.qpos[:], data.qvel[:] = mdp.qpos(state[None])[0], mdp.qvel(state[None])[0]
    for control in controls:
        data.ctrl[:] = control
        for _ in range(mdp.frame_skip):
            mujoco.mj_step(model, data)
        found.append(np.concatenate([data.qpos, data.qvel]))
    return np.array(found)


def check_rows(mdp: Runner, tasks: list[Any], models: list[mujoco.MjModel], controls: list[NDArray[Any]]) -> None:
    """Each row of a batch moves, bit for bit, as plain MuJoCo moves the model with these controls."""
    together = in_batch(mdp, tasks, controls_of(mdp))
    starts = starts_of(mdp, tasks)
    for row, start, model, inputs in zip(together, starts, models, controls, strict=True):
        np.testing.assert_array_equal(row, by_hand(model, mdp, start, inputs))
    assert np.abs(together[0] - together[-1]).max() > 1e-4  # tasks differ


@every_robot
@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("payload", {"payload": number(0.0), "place": number(0.1)}),
        ("friction", number(1.0)),
        ("slope", number(0.0)),
        ("motor gain", number(1.0)),
        ("motor strength", None),
        ("action delay", np.int64(0)),
        ("sensor offset", None),
        ("weak joint", {"actuator": np.int64(1), "factor": number(1.0)}),
    ],
)
def test_a_neutral_task_leaves_gymnasiums_robot_unchanged(robot, family, task):
    mdp = Runner(robot, family, threads=1)
    if task is None:
        task = np.full(mdp.model.nu, float(family == "motor strength"), np.float32)
    controls, start = controls_of(mdp), starts_of(mdp, [task])
    np.testing.assert_array_equal(
        in_batch(mdp, [task], controls)[0], by_hand(plain_model(robot), mdp, start[0], controls)
    )
    hidden = RUNNERS[robot].hidden
    np.testing.assert_array_equal(mdp.observation(start)[:, : mdp.model.nq - hidden], mdp.qpos(start)[:, hidden:])


def with_payload(robot: str, mass: float, place: float) -> mujoco.MjModel:
    """The plain model with a payload that is part of the torso: one rigid body, by the parallel axis theorem."""
    model, definition = plain_model(robot), RUNNERS[robot]
    torso = model.body("torso").id
    at = np.array([place, 0, definition.above] if definition.place[0] == "x" else [0, 0, place])
    old, centre = model.body_mass[torso], model.body_ipos[torso].copy()
    new_centre = (old * centre + mass * at) / (old + mass)
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.body_iquat[torso])
    turn = turn.reshape(3, 3)
    inertia = turn @ np.diag(model.body_inertia[torso]) @ turn.T
    for m, r in ((old, centre - new_centre), (mass, at - new_centre)):
        inertia = inertia + m * (r @ r * np.eye(3) - np.outer(r, r))
    moments, axes = np.linalg.eigh(inertia)
    axes[:, 0] *= np.linalg.det(axes)  # a rotation, not a reflection
    model.body_mass[torso], model.body_ipos[torso], model.body_inertia[torso] = old + mass, new_centre, moments
    mujoco.mju_mat2Quat(model.body_iquat[torso], np.ascontiguousarray(axes).reshape(-1))
    model.body_sameframe[torso] = 0  # else MuJoCo takes the frame of the inertia for that of the body
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@every_robot
def test_a_payload_is_a_point_mass_on_the_torso(robot):
    mdp = Runner(robot, "payload", threads=1)
    heaviest, reach = RUNNERS[robot].payload, RUNNERS[robot].place[1]
    numbers = [(0.0, 0.0), (heaviest / 2, -reach), (heaviest, reach / 2)]
    tasks = [{"payload": number(mass), "place": number(place)} for mass, place in numbers]
    controls, starts = controls_of(mdp), starts_of(mdp, tasks)
    together = in_batch(mdp, tasks, controls)
    for row, start, task in zip(together, starts, tasks, strict=True):
        model = with_payload(robot, float(task["payload"][0]), float(task["place"][0]))
        # A welded body and the torso itself with another inertia are the same up to rounding, which contacts amplify.
        np.testing.assert_allclose(row[:3], by_hand(model, mdp, start, controls)[:3], rtol=0, atol=1e-8)
    assert np.abs(together[0] - together[2]).max() > 1e-3


@every_robot
def test_what_mujoco_derives_from_masses_is_computed_for_each_payload(robot):
    mdp = Runner(robot, "payload", threads=1)
    task = {"payload": number(RUNNERS[robot].payload), "place": number(0.1)}
    (model,) = mdp.models(stacked_tasks(mdp.task_space, [task]))
    expected = with_payload(robot, float(task["payload"][0]), float(task["place"][0]))
    np.testing.assert_allclose(model.dof_invweight0, expected.dof_invweight0, rtol=1e-9)
    assert not np.allclose(model.dof_invweight0, mdp.model.dof_invweight0, rtol=1e-3)
    for i in range(2, expected.nbody):  # the torso's own is at its centre of mass, which is not that of both together
        found = next(j for j in range(model.nbody) if model.body(j).name == expected.body(i).name and j >= i)
        np.testing.assert_allclose(model.body_invweight0[found], expected.body_invweight0[i], rtol=1e-9)
    assert model.body_subtreemass[1] == pytest.approx(expected.body_subtreemass[1], rel=1e-12)


@every_robot
def test_friction_is_a_factor_on_all_contacts(robot):
    mdp = Runner(robot, "friction", threads=1)
    tasks, models = [number(f) for f in (0.25, 1.5, 0.5)], []
    for task in tasks:
        model = plain_model(robot)
        for i in range(model.ngeom):
            model.geom_friction[i][0] *= float(task[0])
        models.append(model)
    check_rows(mdp, tasks, models, [controls_of(mdp)] * 3)
    first, second, _ = (mdp.models(stacked_tasks(mdp.task_space, [task]))[0] for task in tasks)
    assert (first.geom_friction[:, 1:] == second.geom_friction[:, 1:]).all()  # of sliding only


@pytest.mark.parametrize("slope", [-0.2, 0.15])
def test_a_slope_is_ground_that_rises_in_x(slope):
    """The ant on a tilted plane, its pose turned with it, moves as it does here in the frame of the plane."""
    mdp = Runner("ant", "slope", threads=1)
    task, controls, model = number(slope), controls_of(mdp), plain_model("ant")
    angle = float(task[0])
    about_y, back = np.array([np.cos(angle / 2), 0, -np.sin(angle / 2), 0]), np.zeros(4)
    mujoco.mju_negQuat(back, about_y)
    model.geom_quat[model.geom("floor").id] = about_y
    model.geom_sameframe[model.geom("floor").id] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE.value
    mujoco.mj_setConst(model, mujoco.MjData(model))

    def turned(vectors: NDArray[Any], rotation: NDArray[Any]) -> NDArray[Any]:
        result = np.zeros(3)
        mujoco.mju_rotVecQuat(result, vectors, rotation)
        return result

    (start,) = starts_of(mdp, [task])
    qpos, qvel = mdp.qpos(start[None])[0].copy(), mdp.qvel(start[None])[0].copy()
    orientation = np.zeros(4)
    mujoco.mju_mulQuat(orientation, about_y, qpos[3:7])
    qpos[:3], qpos[3:7], qvel[:3] = turned(qpos[:3], about_y), orientation, turned(qvel[:3], about_y)
    uphill = turned(np.array([1.0, 0, 0]), about_y)
    assert uphill[2] == pytest.approx(np.sin(slope), abs=1e-7)  # ground in front is higher where the slope is positive
    (tilted,) = mdp.states(qpos[None], qvel[None])
    found = by_hand(model, mdp, tilted, controls)
    (expected,) = in_batch(mdp, [task], controls)
    for there, here in zip(found, expected, strict=True):
        np.testing.assert_allclose(turned(there[:3], back), here[:3], rtol=0, atol=1e-6)
        np.testing.assert_allclose(turned(there[15:18], back), here[15:18], rtol=0, atol=1e-5)  # m/s
        np.testing.assert_allclose(there[7:15], here[7:15], rtol=0, atol=1e-6)  # joints


@every_robot
def test_a_slope_tilts_gravity(robot):
    mdp = Runner(robot, "slope", threads=1)
    tasks, models = [number(-0.2), number(0.1)], []
    for task in tasks:
        model, angle = plain_model(robot), float(task[0])
        model.opt.gravity[:] = [-9.81 * np.sin(angle), 0.0, -9.81 * np.cos(angle)]
        models.append(model)
    check_rows(mdp, tasks, models, [controls_of(mdp)] * 2)


@every_robot
def test_motors_are_as_strong_as_the_task_says(robot):
    mdp = Runner(robot, "motor strength", threads=1)
    tasks, models = list(np.random.default_rng(5).uniform(0.4, 1.2, (3, mdp.model.nu)).astype(np.float32)), []
    for task in tasks:
        model = plain_model(robot)
        for i, factor in enumerate(task):
            model.actuator_gear[i, 0] *= float(factor)
        models.append(model)
    check_rows(mdp, tasks, models, [controls_of(mdp)] * 3)


@every_robot
def test_a_negative_gain_turns_all_motors_the_other_way(robot):
    mdp = Runner(robot, "motor gain", threads=1)
    gains = (-1.0, -0.25, 0.0, 0.5)  # powers of 2, so that products are exact
    controls = [controls_of(mdp) * gain for gain in gains]
    check_rows(mdp, [number(gain) for gain in gains], [plain_model(robot)] * len(gains), controls)


@every_robot
def test_a_disabled_joint_gets_no_torque(robot):
    mdp = Runner(robot, "disabled joint", threads=1)
    tasks = [np.int64(i) for i in range(mdp.model.nu)]
    controls = [controls_of(mdp) * (np.arange(mdp.model.nu) != i) for i in range(mdp.model.nu)]
    check_rows(mdp, tasks, [plain_model(robot)] * mdp.model.nu, controls)


@every_robot
def test_a_reversed_motor_turns_the_other_way(robot):
    mdp = Runner(robot, "reversed motor", threads=1)
    tasks = [np.int64(i) for i in range(mdp.model.nu)]
    controls = [controls_of(mdp) * np.where(np.arange(mdp.model.nu) == i, -1, 1) for i in range(mdp.model.nu)]
    check_rows(mdp, tasks, [plain_model(robot)] * mdp.model.nu, controls)


@every_robot
def test_a_weak_joint_gets_a_part_of_its_torque(robot):
    mdp = Runner(robot, "weak joint", threads=1)
    tasks = [{"actuator": np.int64(i), "factor": number(f)} for i, f in ((0, 0.0), (2, 0.25), (1, 0.5))]
    controls = []
    for task in tasks:  # a quarter or half of a control: powers of 2, so that products are exact
        factors = np.where(np.arange(mdp.model.nu) == task["actuator"], task["factor"][0], 1.0)
        controls.append(controls_of(mdp) * factors)
    check_rows(mdp, tasks, [plain_model(robot)] * 3, controls)


@every_robot
def test_a_delay_makes_controls_late_by_whole_control_steps(robot):
    mdp = Runner(robot, "action delay", threads=1)
    controls, none = controls_of(mdp), np.zeros((STEPS, mdp.model.nu))
    late = [np.concatenate([none[:delay], controls[: STEPS - delay]]) for delay in range(4)]
    check_rows(mdp, [np.int64(d) for d in range(4)], [plain_model(robot)] * 4, late)


@every_robot
def test_a_sensor_offset_is_in_the_observation_of_its_joint_alone(robot):
    mdp, exact = Runner(robot, "sensor offset", threads=1), Runner(robot, "friction", threads=1)
    offsets = np.random.default_rng(2).uniform(-0.2, 0.2, (2, mdp.model.nu)).astype(np.float32)
    states, plain = starts_of(mdp, list(offsets)), starts_of(exact, [number(1.0)] * 2)
    for control in controls_of(mdp):
        hidden, nq = RUNNERS[robot].hidden, mdp.model.nq
        expected = exact.observation(plain)
        first = nq - mdp.model.nu  # in all four robots the joints that have motors are the last ones
        expected[:, first - hidden : nq - hidden] += offsets
        np.testing.assert_array_equal(mdp.observation(states), expected)
        actions = np.repeat(control[None], 2, axis=0)
        states = mdp.transition(states, actions, offsets)
        plain = exact.transition(plain, actions, np.ones((2, 1), np.float32))


@every_robot
def test_a_mixture_changes_everything_at_once(robot):
    mdp = Runner(robot, "mixture", threads=1)
    rows = [(0.0, 0.5, 0.1, 1.0, 2), (0.0, 1.25, -0.2, 0.5, 0), (0.0, 1.0, 0.0, 0.75, 3)]
    keys = ("payload", "friction", "slope", "motor strength")
    tasks = [
        {key: number(value) for key, value in zip(keys, numbers, strict=True)} | {"action delay": np.int64(delay)}
        for *numbers, delay in rows
    ]
    models, controls, none = [], [], np.zeros((STEPS, mdp.model.nu))
    for task in tasks:
        model, angle, delay = plain_model(robot), float(task["slope"][0]), int(task["action delay"])
        model.geom_friction[:, 0] *= float(task["friction"][0])
        model.actuator_gear[:, 0] *= float(task["motor strength"][0])
        model.opt.gravity[:] = [-9.81 * np.sin(angle), 0.0, -9.81 * np.cos(angle)]
        models.append(model)
        controls.append(np.concatenate([none[:delay], controls_of(mdp)[: STEPS - delay]]))
    check_rows(mdp, tasks, models, controls)


@every_robot
def test_the_payload_of_a_mixture_is_that_of_the_payload_tasks(robot):
    mixed, alone = Runner(robot, "mixture", threads=1), Runner(robot, "payload", threads=1)
    mass, neutral = number(RUNNERS[robot].payload), {"friction": number(1), "motor strength": number(1)}
    task = {"payload": mass, "slope": number(0), "action delay": np.int64(0), **neutral}
    (model,) = mixed.models(stacked_tasks(mixed.task_space, [task]))
    (other,) = alone.models(stacked_tasks(alone.task_space, [{"payload": mass, "place": number(0)}]))
    for field in ("body_mass", "body_pos", "body_inertia", "body_invweight0", "dof_invweight0", "actuator_gear"):
        np.testing.assert_array_equal(getattr(model, field), getattr(other, field))


@every_robot
def test_observation_reward_and_end_are_gymnasiums(robot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MuJoCo may write its log
    settings = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0} if robot == "ant" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MuJoCo 4 deprecates an attribute of the half-cheetah's file
        env = gymnasium.make(GYMNASIUM[robot], **settings).unwrapped
    mdp, task = Runner(robot, "motor strength", threads=1), np.full((1, env.model.nu), 0.5, np.float32)
    env.model.actuator_gear[:, 0] *= 0.5
    assert (env.frame_skip, env.observation_space.shape) == (mdp.frame_skip, mdp.observation_space.shape)
    assert env.dt == pytest.approx(mdp.dt)
    state = mdp.initial_for([np.random.default_rng(0)], task)
    env.reset(seed=0)
    ended = False
    for action in np.random.default_rng(1).uniform(-1, 1, (60, mdp.model.nu)):
        env.set_state(mdp.qpos(state)[0], mdp.qvel(state)[0])
        following = mdp.transition(state, action[None], task)
        observation, reward, terminated, _, info = env.step(action)
        terms = mdp.reward_terms(state, action[None], following, task)
        np.testing.assert_allclose(mdp.observation(following)[0], observation, rtol=0, atol=1e-6)
        # Gymnasium's ant reads the torso's place from the last stage of the integrator, just before the new state.
        rounding = 2e-2 if robot == "ant" else 1e-6
        assert sum(term[0] for term in terms.values()) == pytest.approx(reward, abs=rounding)
        assert terms["reward_forward"][0] == pytest.approx(info["reward_forward"], abs=rounding)
        assert terms["reward_control"][0] == pytest.approx(info["reward_ctrl"], abs=1e-12)
        assert mdp.terminated(following, task).tolist() == [terminated]
        ended, state = ended or terminated, following
        if ended:
            break
    assert ended == (robot in ("walker", "hopper"))  # without a policy they fall within 60 steps
    env.close()


@pytest.mark.parametrize(
    ("robot", "index", "value", "ends"),
    [
        ("half-cheetah", 1, 5.0, False),
        ("half-cheetah", 2, 9.0, False),
        ("ant", 2, 0.19, True),
        ("ant", 2, 0.21, False),
        ("ant", 2, 1.01, True),
        ("walker", 1, 0.79, True),
        ("walker", 1, 2.01, True),
        ("walker", 2, -1.01, True),
        ("walker", 2, 0.99, False),
        ("hopper", 1, 0.69, True),
        ("hopper", 1, 3.0, False),
        ("hopper", 2, 0.21, True),
        ("hopper", 4, 101.0, True),
        ("hopper", 0, 101.0, False),
        ("half-cheetah", 3, np.nan, True),
        ("walker", 3, np.inf, True),
    ],
)
def test_a_fall_ends_the_episode(robot, index, value, ends):
    mdp = Runner(robot, "friction", threads=1)
    state = mdp.states(mdp.model.qpos0[None], np.zeros((1, mdp.model.nv)))
    assert mdp.terminated(state, np.ones((1, 1))).tolist() == [False]
    state[0, 1 + index] = value
    assert mdp.terminated(state, np.ones((1, 1))).tolist() == [ends]
    alive = mdp.reward_terms(state, np.zeros((1, mdp.model.nu)), state, np.ones((1, 1)))["reward_alive"]
    assert alive.tolist() == [0.0 if ends else RUNNERS[robot].alive]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("spider", "payload"), r"robot must be one of half-cheetah, ant, walker, hopper, got 'spider'"),
        (("ant", "wind"), r"family must be one of payload, friction, .*, got 'wind'"),
    ],
)
def test_an_unknown_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Runner(*settings)


@pytest.mark.parametrize(
    ("family", "task", "name"),
    [
        ("payload", {"payload": number(2.5), "place": number(-0.2)}, "payload 2.50 kg, place -0.20 m"),
        ("friction", number(0.5), "friction x 0.50"),
        ("slope", number(0.1), "slope 0.10 rad"),
        ("disabled joint", np.int64(2), "disabled joint bfoot"),
        ("reversed motor", np.int64(3), "reversed motor fthigh"),
        ("weak joint", {"actuator": np.int64(0), "factor": number(0.25)}, "weak joint bthigh x 0.25"),
        ("action delay", np.int64(1), "action delay 1 control step"),
    ],
)
def test_a_task_is_named_with_its_unit(family, task, name):
    assert Runner("half-cheetah", family, threads=1).task_name(task) == name


def test_threads_change_no_result():
    tasks = [{"payload": number(m), "place": number(0.0)} for m in np.linspace(0, 7, 20)]
    alone, together = (Runner("half-cheetah", "payload", threads=threads) for threads in (1, 3))
    results = [in_batch(mdp, tasks, controls_of(alone)) for mdp in (alone, together)]
    np.testing.assert_array_equal(*results)
    for group in together.groups():
        np.testing.assert_array_equal(in_batch(group, tasks, controls_of(alone)), results[0])
