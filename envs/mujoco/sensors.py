"""Quantities of a robot that are no part of MuJoCo's state, for a batch of states: from sensors and the laws of motion.

A batched rollout returns states and sensor readings only. MuJoCo has sensors for the centre of mass and its velocity,
and since 3.3.5 for what presses on a body; before, a body's contact force follows from Newton and Euler.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.mujoco.batch import NOT_NEEDED, BatchStepper

_SENSOR, _OBJECT = mujoco.mjtSensor, mujoco.mjtObj
_AXES = (_SENSOR.mjSENS_FRAMEXAXIS, _SENSOR.mjSENS_FRAMEYAXIS, _SENSOR.mjSENS_FRAMEZAXIS)
_OF_ROOT = 15  # readings of centre of mass, its velocity and the root body's axes


class BodyReadings(NamedTuple):
    """Quantities of n states, in the world's frame."""

    centre_of_mass: NDArray[np.float64]  # [n, 3]   of the whole body, m
    velocity: NDArray[np.float64]  # [n, 3]   of the centre of mass, m/s
    rotation: NDArray[np.float64]  # [n, 3, 3]   of the root body: columns are its axes
    contact_forces: NDArray[np.float64]  # [n, 1 + bodies, 6]   torque about it in N m, force in N; 0 of the world


class ContactForces(Protocol):
    """Sensors that tell what contacts do to each body of a robot, and how they are read."""

    def __init__(self, spec: mujoco.MjSpec) -> None:
        """Adds the sensors to the robot."""

    def read(self, readings: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
        """Torque about the centre of mass and force, `[n, bodies, 6]`.

        Args:
            readings: What the sensors read, `[n, sensors]`.
            centres: Centre of mass of the whole robot, `[n, 3]`.
        """
        ...


class ContactSensors:
    """Contact forces as MuJoCo's contact sensors have them: one force and torque for all contacts of a body."""

    _DATA = ("FORCE", "TORQUE", "POS")  # three numbers each, in this order
    _NET_FORCE, _ONE = 3, 1

    def __init__(self, spec: mujoco.MjSpec) -> None:
        data = sum(1 << getattr(mujoco.mjtConDataField, f"mjCONDATA_{name}").value for name in self._DATA)
        for body in _bodies(spec):
            spec.add_sensor(
                type=_SENSOR.mjSENS_CONTACT,
                objtype=_OBJECT.mjOBJ_BODY,
                objname=body.name,
                intprm=[data, self._NET_FORCE, self._ONE],
            )

    def read(self, readings: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
        """Torque about the centre of mass and force, `[n, bodies, 6]`."""
        of_bodies = readings.reshape(len(readings), -1, 3 * len(self._DATA))
        result = np.zeros((*of_bodies.shape[:2], 6))
        rows, touched = np.nonzero(of_bodies[:, :, :3].any(axis=2))
        force, torque, place = of_bodies[rows, touched].reshape(-1, 3, 3).transpose(1, 0, 2)
        # What is read is what the body does to the others, with its torque about the place of the contacts.
        result[rows, touched, :3] = -torque - _cross(place - centres[rows], force)
        result[rows, touched, 3:] = -force
        return result


class LawsOfMotion:
    """Contact forces from Newton and Euler: what a body's motion needs, less what its joints carry."""

    # Readings of one body, three numbers each, at its centre of mass. Force, torque, acceleration and angular velocity
    # come in the frame of its principal axes; angular acceleration, position and the axes themselves in the world's.
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

    def __init__(self, spec: mujoco.MjSpec) -> None:
        model = spec.compile()
        self._inertia, self._mass = model.body_inertia[1:], model.body_mass[1:, None]
        sites = [f"centre of mass {i}" for i in range(1, model.nbody)]
        for i, (body, site) in enumerate(zip(_bodies(spec), sites, strict=True), start=1):
            body.add_site(name=site, pos=model.body_ipos[i], quat=model.body_iquat[i], size=[self._EVERYWHERE] * 3)
            for kind in self._OF_BODY:
                spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_SITE, objname=site)
        for site in sites:
            spec.add_sensor(type=_SENSOR.mjSENS_TOUCH, objtype=_OBJECT.mjOBJ_SITE, objname=site)
        parents = model.body_parentid[1:] - 1
        # Row k has each body's k-th child, or -1.
        self._children = np.full((np.bincount(parents[1:]).max(), len(parents)), -1)
        for body, parent in enumerate(parents[1:], start=1):
            self._children[np.flatnonzero(self._children[:, parent] < 0)[0], parent] = body

    def read(self, readings: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
        """Torque about the centre of mass and force, `[n, bodies, 6]`."""
        n, bodies = len(readings), len(self._mass)
        of_bodies = readings[:, :-bodies].reshape(n, bodies, len(self._OF_BODY), 3)
        result = np.zeros((n, bodies, 6))
        rows, touched = np.nonzero(readings[:, -bodies:])
        result[rows, touched] = self._contact(of_bodies, centres, rows, touched)
        return result

    def _contact(
        self,
        of_bodies: NDArray[np.float64],
        centres: NDArray[np.float64],
        rows: NDArray[np.int64],
        bodies: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Torque about the centre of mass and force `[k, 6]` on one body of each of k rows.

        What the motion needs, less what its parent carries, plus what it carries of its children.
        """

        def about_centre(of_body: NDArray[np.float64], torque: Any, force: Any, centre: Any) -> NDArray[np.float64]:
            place, axes = of_body[:, 5], of_body[:, 6:]
            torque, force = _combined(torque, axes), _combined(force, axes)
            return np.concatenate([torque + _cross(place - centre, force), force], axis=1)

        own, centre = of_bodies[rows, bodies], centres[rows]
        force, torque, acceleration, spin, spin_rate = own[:, :5].transpose(1, 0, 2)
        inertia = self._inertia[bodies]
        spin_rate = (spin_rate[:, None] * own[:, 6:]).sum(axis=2)  # its components along the axes
        needed_torque = inertia * spin_rate + _cross(spin, inertia * spin)
        contact = about_centre(own, needed_torque - torque, self._mass[bodies] * acceleration - force, centre)
        for children in self._children:
            parents = np.flatnonzero(children[bodies] >= 0)
            carried = of_bodies[rows[parents], children[bodies[parents]]]
            contact[parents] += about_centre(carried, carried[:, 1], carried[:, 0], centre[parents])
        return contact


FASTEST: type[ContactForces] = ContactSensors if hasattr(_SENSOR, "mjSENS_CONTACT") else LawsOfMotion


class BodySensors:
    """Reads centre of mass, rotation and contact forces of a tree of bodies.

    `contact_forces` is MuJoCo's `cfrc_ext` after `mj_forward` and `mj_rnePostConstraint`, to rounding. One reading
    costs one forward evaluation.

    Args:
        spec: The robot, whose only bodies are the root body and its descendants. It is not changed.
        root: Name of the root body.
        threads: Number of threads; all cores if None.
        contact_forces: How contact forces are had. Both ways give the same; MuJoCo's own sensors take a fifth less
            time for all readings, where there are any.
    """

    def __init__(
        self,
        spec: mujoco.MjSpec,
        root: str,
        threads: int | None = None,
        contact_forces: type[ContactForces] = FASTEST,
    ) -> None:
        spec = spec.copy()
        for kind in (_SENSOR.mjSENS_SUBTREECOM, _SENSOR.mjSENS_SUBTREELINVEL):
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_BODY, objname=root)
        for kind in _AXES:
            spec.add_sensor(type=kind, objtype=_OBJECT.mjOBJ_XBODY, objname=root)
        self._contact_forces = contact_forces(spec)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER  # one evaluation; the state it leads to is not used
        model = spec.compile()
        model.opt.disableflags |= NOT_NEEDED | mujoco.mjtDisableBit.mjDSBL_EULERDAMP.value
        self._stepper = BatchStepper(model, 1, threads)

    def halves(self) -> "list[BodySensors]":
        """Two readers with half of the threads each, for two batches side by side; itself if it has one thread."""
        halves = []
        for stepper in self._stepper.halves():
            halves.append(copy(self))
            halves[-1]._stepper = stepper
        return halves

    def read(self, physics: NDArray[np.float64], controls: NDArray[np.float64]) -> BodyReadings:
        """Readings in MuJoCo's states `[n, S]` under controls `[n, nu]`."""
        readings = self._stepper.sensors(physics, controls)
        centre, velocity, *axes = readings[:, :_OF_ROOT].reshape(len(physics), 5, 3).transpose(1, 0, 2)
        contact = self._contact_forces.read(readings[:, _OF_ROOT:], centre)
        with_world = np.concatenate([np.zeros((len(physics), 1, 6)), contact], axis=1)
        return BodyReadings(centre, velocity, np.stack(axes, axis=2), with_world)


def _bodies(spec: mujoco.MjSpec) -> Sequence[Any]:
    """A robot's bodies without the world, all named, in the order of the model (before MuJoCo 3.3.4 not the spec's)."""
    bodies = spec.bodies[1:]
    for i, body in enumerate(bodies):
        body.name = body.name or f"body {i}"
    model = spec.compile()
    return sorted(bodies, key=lambda body: model.body(body.name).id)


def _combined(components: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors `[n, 3]` in the world, from components `[n, 3]` along axes `[n, 3, 3]`."""
    first, second, third = (components[:, axis, None] * axes[:, axis] for axis in range(3))
    return first + second + third


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross products `[n, 3]`; NumPy's takes four times as long on as few rows."""
    after, before = [1, 2, 0], [2, 0, 1]
    product: NDArray[np.float64] = a[:, after] * b[:, before] - a[:, before] * b[:, after]
    return product
