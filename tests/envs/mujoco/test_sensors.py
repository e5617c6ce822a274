"""Readings of bodies, against MuJoCo's own quantities."""

import mujoco
import numpy as np
import pytest

from maml_rl.envs.mujoco import sensors
from maml_rl.envs.mujoco.model import gymnasium_xml
from maml_rl.envs.mujoco.sensors import BodySensors
from maml_rl.errors import InputError
from maml_rl.tasks import vectorize

NQ, NV, NU, BODIES = 15, 14, 8, 13
QPOS, QVEL = slice(1, 1 + NQ), slice(1 + NQ, 1 + NQ + NV)  # places in a state
with_contact_sensors = pytest.mark.skipif(
    not hasattr(mujoco.mjtSensor, "mjSENS_CONTACT"), reason="contact forces need MuJoCo 3.3.5"
)


@pytest.fixture(scope="module")
def spec() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_string(gymnasium_xml("ant.xml"))


def states(count: int, seed: int) -> np.ndarray:
    """Ants near the floor, some of them in it, in any pose and motion: time, qpos, qvel."""
    rng = np.random.default_rng(seed)
    qpos = rng.normal(0, 0.5, (count, NQ))
    qpos[:, 2] = rng.uniform(0.1, 0.8, count)
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return np.concatenate([np.zeros((count, 1)), qpos, rng.normal(0, 2, (count, NV))], axis=1)


@with_contact_sensors
def test_readings_are_mujocos_quantities(spec):
    model = spec.compile()
    batch = states(60, seed=0)
    controls = np.random.default_rng(1).uniform(-1, 1, (60, NU))
    readings = BodySensors(spec, "torso", threads=1).read(batch, controls)
    data, largest, loaded = mujoco.MjData(model), 0.0, 0
    for i in range(60):
        data.qpos[:], data.qvel[:], data.ctrl[:] = batch[i, QPOS], batch[i, QVEL], controls[i]
        data.qacc_warmstart[:] = 0
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        scale = 1 + np.abs(data.cfrc_ext).max()  # up to 1e5 N where a leg is deep in the floor
        np.testing.assert_allclose(readings.contact_forces[i], data.cfrc_ext, rtol=0, atol=1e-9 * scale)
        np.testing.assert_allclose(readings.centre_of_mass[i], data.subtree_com[1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(readings.velocity[i], data.subtree_linvel[1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(readings.rotation[i], data.xmat[1].reshape(3, 3), rtol=0, atol=1e-12)
        largest, loaded = max(largest, scale), loaded + np.count_nonzero(np.abs(data.cfrc_ext).max(axis=1) > 1e-6)
    assert largest > 100  # there were forces
    assert loaded > 60  # on many bodies


@with_contact_sensors
def test_without_contact_the_forces_are_0(spec):
    batch = states(5, seed=2)
    batch[:, 3] = 5.0  # m above the floor
    forces = BodySensors(spec, "torso", threads=1).read(batch, np.zeros((5, NU))).contact_forces
    assert forces.shape == (5, 1 + BODIES, 6)
    np.testing.assert_allclose(forces, 0, atol=1e-9)


@with_contact_sensors
def test_a_row_depends_neither_on_the_others_nor_on_the_threads(spec):
    batch, controls = states(30, seed=3), np.zeros((30, NU))
    whole = BodySensors(spec, "torso", threads=2).read(batch, controls)
    for rows in (slice(4, 5), slice(7, 30)):
        part = BodySensors(spec, "torso", threads=1).read(batch[rows], controls[rows])
        for one, other in zip(part, whole, strict=True):
            np.testing.assert_array_equal(one, other[rows])


@with_contact_sensors
def test_the_robot_given_is_not_changed(spec):
    before = spec.to_xml()
    BodySensors(spec, "torso", threads=1)
    assert spec.to_xml() == before


def test_an_older_mujoco_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(sensors, "_SENSOR", object())  # which has no contact sensors
    with pytest.raises(InputError, match=r"AntVel.*contact forces need MuJoCo 3\.3\.5 or newer, this is") as raised:
        vectorize("maml_rl.envs:finn2017/AntVel-v0", 2)
    assert "\n" not in str(raised.value)
    assert "pip install --upgrade mujoco" in str(raised.value)
