"""Quantities of a robot that are no part of MuJoCo's state, for a batch of states: from sensors and the laws of motion.

A batched rollout returns states and sensor readings only. MuJoCo has sensors for the centre of mass and its velocity,
but none for a body's contact force (`cfrc_ext`). That follows from Newton and Euler for each body: what its motion
needs, less what its joints carry, is what the contacts give.
"""

from copy import copy
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.mujoco_batch import BatchStepper

_SENSOR, _OBJECT = mujoco.mjtSensor, mujoco.mjtObj
# Readings of one body, three numbers each, at its centre of mass. Force, torque, acceleration and angular velocity come
# in the frame of its principal axes; angular acceleration, position and the axes themselves in that of the world.
_AXES = (_SENSOR.mjSENS_FRAMEXAXIS, _SENSOR.mjSENS_FRAMEYAXIS, _SENSOR.mjSENS_FRAMEZAXIS)
_OF_BODY = (
    _SENSOR.mjSENS_FORCE,
    _SENSOR.mjSENS_TORQUE,
    _SENSOR.mjSENS_ACCELEROMETER,
    _SENSOR.mjSENS_GYRO,
    _SENSOR.mjSENS_FRAMEANGACC,
    _SENSOR.mjSENS_FRAMEPOS,
    *_AXES,
)
_OF_ROOT = (_SENSOR.mjSENS_SUBTREECOM, _SENSOR.mjSENS_SUBTREELINVEL)


class BodyReadings(NamedTuple):
    """Quantities of n states, in the world's frame."""

    centre_of_mass: NDArray[np.float64]  # [n, 3]   of the whole body, m
    velocity: NDArray[np.float64]  # [n, 3]   of the centre of mass, m/s
    rotation: NDArray[np.float64]  # [n, 3, 3]   of the root body: columns are its axes
    contact_forces: NDArray[np.float64]  # [n, 1 + bodies, 6]   torque about it in N m, force in N; 0 of the world


class BodySensors:
    """Reads centre of mass, rotation and contact forces of a tree of bodies.

    `contact_forces` is MuJoCo's `cfrc_ext` after `mj_forward` and `mj_rnePostConstraint`; on the ant they differ by
    less than 1e-11 where the forces reach 100 N. One reading costs one forward evaluation.

    Args:
        spec: The robot, whose only bodies are the root body and its descendants. It is not changed.
        root: Name of the root body.
        threads: Number of threads; all cores if None.
    """

    def __init__(self, spec: mujoco.MjSpec, root: str, threads: int | None = None) -> None:
        spec = spec.copy()
        model = spec.compile()
        for i, body in enumerate(spec.bodies[1:], start=1):
            body.add_site(name=f"centre of mass {i}", pos=model.body_ipos[i], quat=model.body_iquat[i])
            for kind in _OF_BODY:
                spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_SITE, objname=f"centre of mass {i}")
        for kind in _OF_ROOT:
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_BODY, objname=root)
        for kind in _AXES:
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_XBODY, objname=root)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER  # one evaluation; the state it leads to is not used
        self._model = spec.compile()
        self._model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET.value
        self._stepper = BatchStepper(self._model, 1, threads)

    def halves(self) -> "list[BodySensors]":
        """Two readers with half of the threads each, for two batches side by side; itself if it has one thread."""
        halves = []
        for stepper in self._stepper.halves():
            halves.append(copy(self))
            halves[-1]._stepper = stepper
        return halves

    def read(self, physics: NDArray[np.float64], controls: NDArray[np.float64]) -> BodyReadings:
        """Readings in MuJoCo's states `[n, S]` under controls `[n, nu]`."""
        n, bodies = len(physics), self._model.nbody - 1
        readings = self._stepper.sensors(physics, controls).reshape(n, -1, 3)
        centre, velocity, *root_axes = np.moveaxis(readings[:, bodies * len(_OF_BODY) :], 1, 0)
        of_bodies = readings[:, : bodies * len(_OF_BODY)].reshape(n, bodies, len(_OF_BODY), 3)
        axes = of_bodies[:, :, -3:]  # [n, bodies, axis, 3]
        force, torque, acceleration, spin, spin_rate, place = np.moveaxis(of_bodies[:, :, :-3], 2, 0)

        # Newton and Euler: contact = needed + sum over children of carried - carried, all about the centre of mass.
        inertia = self._model.body_inertia[1:]
        needed_force = self._model.body_mass[1:, None] * acceleration
        needed_torque = inertia * np.einsum("nbj,nbaj->nba", spin_rate, axes) + np.cross(spin, inertia * spin)
        arm = place - centre[:, None]

        def at_centre(torque: NDArray[np.float64], force: NDArray[np.float64]) -> NDArray[np.float64]:
            torque, force = np.einsum("nba,nbaj->nbj", torque, axes), np.einsum("nba,nbaj->nbj", force, axes)
            return np.concatenate([torque + np.cross(arm, force), force], axis=2)

        carried = at_centre(torque, force)
        contact = np.zeros((n, bodies + 1, 6))
        contact[:, 1:] = at_centre(needed_torque - torque, needed_force - force)
        for body in range(2, bodies + 1):
            contact[:, self._model.body_parentid[body]] += carried[:, body - 1]
        return BodyReadings(centre, velocity, np.stack(root_axes, axis=2), contact)
