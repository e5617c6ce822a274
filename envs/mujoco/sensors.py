"""Quantities of a robot that are not part of MuJoCo's state, for a batch of states, read by MuJoCo's sensors.

A batched rollout returns states and sensor readings only. The contact sensors need MuJoCo 3.3.5 or newer.
"""

from copy import copy
from typing import NamedTuple

import mujoco
import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from maml_rl.envs.mujoco.batch import NOT_NEEDED, BatchStepper

_SENSOR, _OBJECT = mujoco.mjtSensor, mujoco.mjtObj
_AXES = (_SENSOR.mjSENS_FRAMEXAXIS, _SENSOR.mjSENS_FRAMEYAXIS, _SENSOR.mjSENS_FRAMEZAXIS)
_OF_ROOT = 15  # readings of centre of mass, its velocity and the root body's axes
_CONTACT_DATA = ("FORCE", "TORQUE", "POS")  # read of each body's contacts, three numbers each, in this order
_NET_FORCE, _ONE = 3, 1  # all contacts of a body reduced to one force and torque, and one reading of them


class BodyReadings(NamedTuple):
    """Quantities of n states, in the world's frame."""

    centre_of_mass: NDArray[np.float64]  # [n, 3]   of the whole body, m
    velocity: NDArray[np.float64]  # [n, 3]   of the centre of mass, m/s
    rotation: NDArray[np.float64]  # [n, 3, 3]   of the root body: columns are its axes
    contact_forces: NDArray[np.float64]  # [n, 1 + bodies, 6]   torque about it in N m, force in N; 0 of the world


class BodySensors:
    """Reads centre of mass, rotation and contact forces of a tree of bodies.

    `contact_forces` is MuJoCo's `cfrc_ext` after `mj_forward` and `mj_rnePostConstraint`, to rounding. One reading
    costs one forward evaluation.

    Args:
        spec: The robot, whose only bodies are the root body and its descendants. It is not changed.
        root: Name of the root body.
        threads: Number of threads; all cores if None.

    Raises:
        gymnasium.error.DependencyNotInstalled: If MuJoCo is older than 3.3.5, which brought contact sensors.
    """

    def __init__(self, spec: mujoco.MjSpec, root: str, threads: int | None = None) -> None:
        if not hasattr(_SENSOR, "mjSENS_CONTACT"):
            raise DependencyNotInstalled(
                f"contact forces need MuJoCo 3.3.5 or newer, this is {mujoco.__version__}: "
                "pip install --upgrade mujoco (Meta-World needs 3.3.0: keep it in a separate environment)"
            )
        spec = spec.copy()
        for kind in (_SENSOR.mjSENS_SUBTREECOM, _SENSOR.mjSENS_SUBTREELINVEL):
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_BODY, objname=root)
        for kind in _AXES:
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_XBODY, objname=root)
        _add_contact_sensors(spec)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER  # one evaluation; the state it leads to is not used
        model = spec.compile()
        model.opt.disableflags |= NOT_NEEDED | mujoco.mjtDisableBit.mjDSBL_EULERDAMP.value
        self._stepper = BatchStepper(model, 1, threads)

    def halves(self) -> "list[BodySensors]":
        """Two readers with half of the threads each, for two batches at once; this one alone if it has one thread."""
        halves = []
        for stepper in self._stepper.halves():
            halves.append(copy(self))
            halves[-1]._stepper = stepper
        return halves

    def read(self, physics: NDArray[np.float64], controls: NDArray[np.float64]) -> BodyReadings:
        """Readings in MuJoCo's states `[n, S]` under controls `[n, nu]`."""
        readings = self._stepper.sensors(physics, controls)
        centre, velocity, *axes = readings[:, :_OF_ROOT].reshape(len(physics), 5, 3).transpose(1, 0, 2)
        contact = _contact_forces(readings[:, _OF_ROOT:], centre)
        with_world = np.concatenate([np.zeros((len(physics), 1, 6)), contact], axis=1)
        return BodyReadings(centre, velocity, np.stack(axes, axis=2), with_world)


def _add_contact_sensors(spec: mujoco.MjSpec) -> None:
    """Adds a contact sensor for each body but the world, in the order of the model."""
    data = sum(1 << getattr(mujoco.mjtConDataField, f"mjCONDATA_{name}").value for name in _CONTACT_DATA)
    for i, body in enumerate(spec.bodies[1:]):
        body.name = body.name or f"body {i}"  # a sensor finds its body by name
        spec.add_sensor(
            type=_SENSOR.mjSENS_CONTACT,
            objtype=_OBJECT.mjOBJ_BODY,
            objname=body.name,
            intprm=[data, _NET_FORCE, _ONE],
        )


def _contact_forces(readings: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Torque about the centre of mass and force on each body, `[n, bodies, 6]`.

    Args:
        readings: Readings of the contact sensors, `[n, 9 bodies]`.
        centres: Centre of mass of the whole robot, `[n, 3]`.
    """
    of_bodies = readings.reshape(len(readings), -1, 3 * len(_CONTACT_DATA))
    result = np.zeros((*of_bodies.shape[:2], 6))
    # Few bodies touch anything at a time, so only those are computed: k of them, `[k, 3]` each.
    rows, touched = np.nonzero(of_bodies[:, :, :3].any(axis=2))
    force, torque, place = of_bodies[rows, touched].reshape(-1, 3, 3).transpose(1, 0, 2)
    # What is read is what the body does to the others, with its torque about the place of the contacts. The opposite
    # acts on the body, and moving a force from there to the centre adds the torque (place - centre) x force.
    result[rows, touched, :3] = -torque - _cross(place - centres[rows], force)
    result[rows, touched, 3:] = -force
    return result


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross products `[n, 3]`; NumPy's function takes four times as long for so few rows."""
    after, before = [1, 2, 0], [2, 0, 1]
    product: NDArray[np.float64] = a[:, after] * b[:, before] - a[:, before] * b[:, after]
    return product
