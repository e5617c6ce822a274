"""Quantities of a robot that are no part of MuJoCo's state, for a batch of states: from sensors and the laws of motion.

A batched rollout returns states and sensor readings only. MuJoCo has sensors for the centre of mass and its velocity,
but none for a body's contact force (`cfrc_ext`). That follows from Newton and Euler for each body: what its motion
needs, less what its joints carry, is what the contacts give.
"""

from copy import copy
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.mujoco_batch import NOT_NEEDED, BatchStepper

_SENSOR, _OBJECT = mujoco.mjtSensor, mujoco.mjtObj
_AXES = (_SENSOR.mjSENS_FRAMEXAXIS, _SENSOR.mjSENS_FRAMEYAXIS, _SENSOR.mjSENS_FRAMEZAXIS)
# Readings of one body, three numbers each, at its centre of mass. Force, torque, acceleration and angular velocity come
# in the frame of its principal axes; angular acceleration, position and the axes themselves in that of the world.
_OF_BODY = (
    _SENSOR.mjSENS_FORCE,
    _SENSOR.mjSENS_TORQUE,
    _SENSOR.mjSENS_ACCELEROMETER,
    _SENSOR.mjSENS_GYRO,
    _SENSOR.mjSENS_FRAMEANGACC,
    _SENSOR.mjSENS_FRAMEPOS,
    *_AXES,
)
_EVERYWHERE = 1e3  # m; radius of the sphere in which a body feels touch


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
    """

    def __init__(self, spec: mujoco.MjSpec, root: str, threads: int | None = None) -> None:
        spec = spec.copy()
        model = spec.compile()
        for kind in (_SENSOR.mjSENS_SUBTREECOM, _SENSOR.mjSENS_SUBTREELINVEL):
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_BODY, objname=root)
        for kind in _AXES:
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_XBODY, objname=root)
        sites = [f"centre of mass {i}" for i in range(1, model.nbody)]
        for i, (body, site) in enumerate(zip(spec.bodies[1:], sites, strict=True), start=1):
            body.add_site(name=site, pos=model.body_ipos[i], quat=model.body_iquat[i], size=[_EVERYWHERE] * 3)
            for kind in _OF_BODY:
                spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_SITE, objname=site)
        for site in sites:
            spec.add_sensor(type=_SENSOR.mjSENS_TOUCH, objtype=_OBJECT.mjOBJ_SITE, objname=site)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER  # one evaluation; the state it leads to is not used
        self._model = spec.compile()
        self._model.opt.disableflags |= NOT_NEEDED | mujoco.mjtDisableBit.mjDSBL_EULERDAMP.value
        self._stepper = BatchStepper(self._model, 1, threads)
        parents = self._model.body_parentid[1:] - 1
        # Row k has each body's k-th child, or -1.
        self._children = np.full((np.bincount(parents[1:]).max(), len(parents)), -1)
        for body, parent in enumerate(parents[1:], start=1):
            self._children[np.flatnonzero(self._children[:, parent] < 0)[0], parent] = body

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
        readings = self._stepper.sensors(physics, controls)
        of_root = readings[:, :15].reshape(n, 5, 3)
        of_bodies = readings[:, 15:-bodies].reshape(n, bodies, len(_OF_BODY), 3)
        forces = np.zeros((n, 1 + bodies, 6))
        rows, touched = np.nonzero(readings[:, -bodies:])
        if len(rows):
            forces[rows, 1 + touched] = self._contact(of_bodies, of_root[:, 0], rows, touched)
        return BodyReadings(of_root[:, 0], of_root[:, 1], of_root[:, 2:].transpose(0, 2, 1), forces)

    def _contact(
        self,
        of_bodies: NDArray[np.float64],
        centres: NDArray[np.float64],
        rows: NDArray[np.int64],
        bodies: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Torque about the centre of mass and force `[k, 6]` on one body of each of k rows.

        Newton and Euler: what the motion needs, less what its parent carries, plus what it carries of its children.
        """

        def about_centre(of_body: NDArray[np.float64], torque: Any, force: Any, centre: Any) -> NDArray[np.float64]:
            place, axes = of_body[:, 5], of_body[:, 6:]
            torque, force = _combined(torque, axes), _combined(force, axes)
            return np.concatenate([torque + _cross(place - centre, force), force], axis=1)

        own, centre = of_bodies[rows, bodies], centres[rows]
        force, torque, acceleration, spin, spin_rate = own[:, :5].transpose(1, 0, 2)
        inertia, mass = self._model.body_inertia[1 + bodies], self._model.body_mass[1 + bodies, None]
        spin_rate = (spin_rate[:, None] * own[:, 6:]).sum(axis=2)  # its components along the axes
        needed_torque = inertia * spin_rate + _cross(spin, inertia * spin)
        contact = about_centre(own, needed_torque - torque, mass * acceleration - force, centre)
        for children in self._children:
            parents = np.flatnonzero(children[bodies] >= 0)
            if len(parents):
                carried = of_bodies[rows[parents], children[bodies[parents]]]
                contact[parents] += about_centre(carried, carried[:, 1], carried[:, 0], centre[parents])
        return contact


def _combined(components: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors `[n, 3]` in the world, from components `[n, 3]` along axes `[n, 3, 3]`."""
    first, second, third = (components[:, axis, None] * axes[:, axis] for axis in range(3))
    return first + second + third


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross products `[n, 3]`; NumPy's takes four times as long on as few rows."""
    after, before = [1, 2, 0], [2, 0, 1]
    product: NDArray[np.float64] = a[:, after] * b[:, before] - a[:, before] * b[:, after]
    return product
