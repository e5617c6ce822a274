"""Helpers that read, check and copy MuJoCo models for the robots' environments; errors have one line."""

import re
from collections.abc import Callable, Sequence
from copy import copy
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.mujoco.batch import NOT_NEEDED

_DISABLE = mujoco.mjtDisableBit
_FORCES = _DISABLE.mjDSBL_CONTACT.value | _DISABLE.mjDSBL_CONSTRAINT.value | _DISABLE.mjDSBL_ACTUATION.value


def gymnasium_xml(name: str) -> str:
    """Text of one of Gymnasium's MuJoCo models."""
    return (files("gymnasium") / "envs/mujoco/assets" / name).read_text()


def gymnasium_model(name: str, change: Callable[[mujoco.MjSpec], object] = lambda _: None) -> mujoco.MjModel:
    """One of Gymnasium's MuJoCo models.

    Args:
        name: Name of its file.
        change: Changes it before it is compiled.
    """
    xml = gymnasium_xml(name)
    # MuJoCo 4 warns of the attribute that sets the mass of the whole robot, which can be set in the compiled model.
    total_mass = re.search(r'settotalmass="([\d.]+)"', xml)
    spec = mujoco.MjSpec.from_string(xml.replace(total_mass[0], "") if total_mass else xml)
    change(spec)
    model = spec.compile()
    if total_mass:
        mujoco.mj_setTotalmass(model, float(total_mass[1]))
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def load_model(path: str | Path) -> mujoco.MjModel:
    """Compiles the MJCF file at a path.

    Raises:
        ValueError: If there is no such file, or MuJoCo refuses it.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: expected the path of an MJCF file")
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ValueError(f"MuJoCo cannot load {path}: {' '.join(str(error).split())}") from error


def control_ranges(model: mujoco.MjModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and half width of the range of each control, `[nu]` each.

    Raises:
        ValueError: If there are no actuators, or one has no `ctrlrange`.
    """
    if not model.nu:
        raise ValueError("the model has no actuators, so a policy could not move it: add an <actuator> for each motor")
    without = [
        model.actuator(i).name or f"number {i}" for i in np.flatnonzero(~model.actuator_ctrllimited.astype(bool))
    ]
    if without:
        raise ValueError(f"actuators need a ctrlrange, which actions from -1 to 1 are scaled to: {', '.join(without)}")
    low, high = model.actuator_ctrlrange.T
    return (high + low) / 2, (high - low) / 2


def sensing_model(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy whose steps cost one evaluation, used only to read the sensors.

    Where no sensor needs accelerations or forces, positions and velocities are all that is computed.
    """
    model = copy(model)
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER.value
    model.opt.disableflags |= NOT_NEEDED | _DISABLE.mjDSBL_EULERDAMP.value
    if (model.sensor_needstage < mujoco.mjtStage.mjSTAGE_ACC.value).all():
        model.opt.disableflags |= _FORCES
    return model


def sensor_columns(model: mujoco.MjModel, names: Sequence[str]) -> NDArray[np.int64]:
    """Positions of these sensors' readings among the readings of all sensors, one sensor after the other.

    Raises:
        ValueError: If the model has no such sensor.
    """
    known = {model.sensor(i).name: i for i in range(model.nsensor)}
    for name in names:
        if name not in known:
            expected = f"expected one of {', '.join(known)}" if known else "it has none"
            raise ValueError(f"the model has no sensor {name!r}: {expected}")
    ranges = [model.sensor_adr[i] + np.arange(model.sensor_dim[i]) for i in map(known.__getitem__, names)]
    return np.concatenate([np.zeros(0, np.int64), *ranges])
