"""Robots from an MJCF file: sensors, controls, tasks and refusals, against plain MuJoCo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box
from numpy.typing import NDArray

from maml_rl.envs.batched import stacked_tasks
from maml_rl.envs.mujoco.batch import NOT_NEEDED
from maml_rl.envs.mujoco.mdp import MujocoMDP
from maml_rl.envs.mujoco.variations import Variation

ARM = """
<mujoco>
  <option timestep="0.004" integrator="{integrator}"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 1"/>
    <body name="upper" pos="0 0 0.6">
      <joint name="shoulder" axis="0 1 0" damping="0.5"/>
      <geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.04" mass="2"/>
      <body name="lower" pos="0 0 -0.3">
        <joint name="elbow" axis="0 1 0" damping="0.2" range="-2 2" limited="true"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.25" size="0.03" mass="1"/>
        <body name="load" pos="0 0 -0.25"><geom type="sphere" size="0.06" mass="0.5"/><site name="tip"/></body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="swing" joint="shoulder" gear="5" ctrlrange="-1 3"/>
    <motor name="bend" joint="elbow" gear="2" ctrlrange="0 4"/>
  </actuator>
  <sensor>
    <framepos name="hand" objtype="site" objname="tip"/>
    <jointpos name="angle" joint="elbow"/>
    <subtreelinvel name="motion" body="upper"/>
    {forces}
  </sensor>
</mujoco>
"""
FORCES = '<touch name="touch" site="tip"/><accelerometer name="shock" site="tip"/>'
VARIED = {
    "load": Variation("mass", 0.1, 3.0, of="load"),
    "reach": Variation("position z", -0.5, -0.1, of="load"),
    "late": Variation("delay", 0, 2),
    "hand": Variation("sensor offset", -1.0, 1.0, of="hand"),
    "joints": Variation("joint offset", -1.0, 1.0, numbers="each"),
}


class Arm(MujocoMDP):
    """Swings its hand to the right."""

    def __init__(self, file: Path, varied: Mapping[str, Variation] | None = None, **settings: Any) -> None:
        super().__init__(file, frame_skip=5, varied=varied, **settings)
        self.observation_space = Box(-np.inf, np.inf, (6,), np.float64)

    def observation(self, states: NDArray) -> NDArray:
        return np.concatenate([self.measured(states, "angle", "hand"), self.measured_qpos(states)], axis=1)

    def reward_terms(self, states: NDArray, actions: NDArray, next_states: NDArray, tasks: NDArray) -> dict:
        return {"reward_hand": self.reading(next_states, "hand")[:, 0]}


@pytest.fixture(params=["Euler forces", "Euler", "RK4", "implicitfast forces"])
def file(request, tmp_path) -> Path:
    integrator, *forces = request.param.split()
    path = tmp_path / "arm.xml"
    path.write_text(ARM.format(integrator=integrator, forces=FORCES if forces else ""))
    return path


def task(load: float, reach: float, late: int = 0, hand: float = 0.0, joints: tuple[float, float] = (0.0, 0.0)) -> dict:
    parts = {"load": [load], "reach": [reach], "hand": [hand], "joints": joints}
    return {name: np.array(values, np.float32) for name, values in parts.items()} | {"late": np.int64(late)}


TASKS = [task(0.5, -0.25), task(3.0, -0.5, 1, 0.25, (0.5, -0.25)), task(0.125, -0.125, 2, -0.5)]


def hand_made(file: Path, of: Mapping[str, Any]) -> mujoco.MjModel:
    """The model of a task, compiled from the file with other numbers in it."""
    mass, reach = float(of["load"][0]), float(of["reach"][0])
    xml = file.read_text().replace('pos="0 0 -0.25"', f'pos="0 0 {reach!r}"').replace('mass="0.5"', f'mass="{mass!r}"')
    model = mujoco.MjModel.from_xml_string(xml)
    model.opt.disableflags |= NOT_NEEDED
    return model


def test_states_and_sensors_match_plain_mujoco_for_each_task(file):
    mdp = Arm(file, VARIED, threads=1)
    rows, generators = stacked_tasks(mdp.task_space, TASKS), [np.random.default_rng(i) for i in range(len(TASKS))]
    states = mdp.initial_for(generators, rows)
    models = [hand_made(file, of) for of in TASKS]
    data = [mujoco.MjData(model) for model in models]
    for i in range(len(TASKS)):
        data[i].qpos[:], data[i].qvel[:] = mdp.qpos(states)[i], mdp.qvel(states)[i]
    given = [np.zeros(2), np.zeros(2)]
    for action in np.random.default_rng(3).uniform(-1.5, 1.5, (60, 2)):
        given.append(np.clip(action, -1, 1))
        states = mdp.transition(states, np.repeat(action[None], len(TASKS), axis=0), rows)
        for i, of in enumerate(TASKS):
            control = given[-1 - int(of["late"])]
            data[i].ctrl[:] = [1 + 2 * control[0], 2 + 2 * control[1]]  # -1 and 1 are the ends of [-1, 3] and [0, 4]
            data[i].qacc_warmstart[:] = 0.0
            for _ in range(5):
                mujoco.mj_step(models[i], data[i])
            np.testing.assert_allclose(mdp.qpos(states)[i], data[i].qpos, rtol=0, atol=1e-9)
            now = mujoco.MjData(models[i])
            now.qpos[:], now.qvel[:], now.ctrl[:] = mdp.qpos(states)[i], mdp.qvel(states)[i], data[i].ctrl
            mujoco.mj_forward(models[i], now)
            names = [models[i].sensor(j).name for j in range(models[i].nsensor)]
            found = mdp.reading(states, *names)[i]
            np.testing.assert_allclose(found, now.sensordata, rtol=1e-9, atol=1e-9)
    assert "touch" not in names or np.ptp(mdp.reading(states, "shock"), axis=0).max() > 0.1


def test_observations_have_the_offsets_of_the_task_and_rewards_do_not(file):
    mdp = Arm(file, VARIED, threads=1)
    rows = stacked_tasks(mdp.task_space, TASKS)
    states = mdp.initial_for([np.random.default_rng(0)] * 3, rows)
    for _ in range(3):
        states = mdp.transition(states, np.zeros((3, 2)), rows)
    seen, hand = mdp.observation(states), mdp.reading(states, "hand")
    np.testing.assert_array_equal(seen[:, 0], mdp.reading(states, "angle")[:, 0])  # a sensor without an offset
    offsets = np.repeat([[0.0], [0.25], [-0.5]], 3, axis=1)
    np.testing.assert_allclose(seen[:, 1:4] - hand, offsets, rtol=0, atol=1e-12)
    np.testing.assert_allclose(seen[:, 4:] - mdp.qpos(states), [[0, 0], [0.5, -0.25], [0, 0]], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(mdp.reward_terms(states, np.zeros((3, 2)), states, rows)["reward_hand"], hand[:, 0])


def test_the_first_state_has_the_geometry_of_the_task(file):
    mdp = Arm(file, VARIED, threads=1, noise=lambda _, nq, nv: np.zeros(nq + nv))
    states = mdp.initial_for([np.random.default_rng(0)] * 3, stacked_tasks(mdp.task_space, TASKS))
    # The arm hangs: the shoulder at 0.6 m, 0.3 m of upper arm, and the load as far below as the task says.
    np.testing.assert_allclose(mdp.reading(states, "hand")[:, 2], [0.05, -0.2, 0.175], rtol=0, atol=1e-7)
    np.testing.assert_allclose(mdp.reading(mdp.initial([np.random.default_rng(0)]), "hand")[:, 2], [0.05])


def test_rows_and_groups_change_no_result(file):
    tasks = [task(m, -0.25, int(late)) for m, late in zip(np.linspace(0.5, 2.5, 20), np.arange(20) % 3, strict=True)]
    alone, together = Arm(file, VARIED, threads=1), Arm(file, VARIED, threads=3)
    rows, generators = stacked_tasks(alone.task_space, tasks), [np.random.default_rng(i) for i in range(20)]
    states, actions = alone.initial_for(generators, rows), np.random.default_rng(0).uniform(-1, 1, (20, 2))
    expected = alone.transition(states, actions, rows)
    for mdp in (together, *together.groups()):
        np.testing.assert_array_equal(mdp.transition(states, actions, rows), expected)
    np.testing.assert_array_equal(alone.transition(states[7:8], actions[7:8], rows[7:8]), expected[7:8])
    assert len(together.groups()) == 2


def test_an_arm_without_variations_has_one_model_and_no_task_names(file):
    mdp = Arm(file, threads=1)
    assert not hasattr(mdp, "task_space")
    assert mdp.models(np.zeros(3)) is mdp.model
    assert mdp.task_name(0) is None


def broken(tmp_path: Path, old: str, new: str) -> Path:
    path, xml = tmp_path / "broken.xml", ARM.format(integrator="Euler", forces="")
    assert old in xml
    path.write_text(xml.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<worldbody>", "<worlbody>", r"MuJoCo cannot load .*broken.xml: .*worlbody"),
        ('ctrlrange="0 4"', "", r"actuators need a ctrlrange, which actions from -1 to 1 are scaled to: bend$"),
        ('joint="elbow" gear', 'joint="elbw" gear', r"MuJoCo cannot load .*broken.xml: .*elbw"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message) as raised:
        Arm(broken(tmp_path, old, new))
    assert "\n" not in str(raised.value)


def test_a_robot_without_motors_is_refused(tmp_path):
    path = tmp_path / "stone.xml"
    path.write_text("<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>")
    with pytest.raises(ValueError, match="the model has no actuators, so a policy could not move it"):
        Arm(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*/arm\.xml: expected the path of an MJCF file"):
        Arm(tmp_path / "arm.xml")


def test_a_start_of_another_shape_and_an_unknown_sensor_are_refused(file):
    with pytest.raises(ValueError, match=r"expected qpos of shape \(2,\), the model's positions, got \(3,\)"):
        Arm(file, qpos=np.zeros(3))
    mdp = Arm(file, threads=1)
    with pytest.raises(ValueError, match="the model has no sensor 'hnad': expected one of hand, angle, motion"):
        mdp.reading(mdp.initial([np.random.default_rng(0)]), "hnad")
    with pytest.raises(ValueError, match="load: there is no body 'lod' to vary mass of, expected one of upper"):
        Arm(file, {"load": Variation("mass", 0, 1, of="lod")})
