"""A model that shows several copies of any MuJoCo environment side by side, moved body by body.

Unlike `lanes.py` it needs no joints: where each body is comes from the environment itself. So it shows what a task
changes in the lengths of limbs, and objects that an environment moves by its own means.
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.mujoco.lanes import (
    GAP,
    Colour,
    add_geom,
    add_ground,
    add_meshes,
    daylight,
    half_width,
    horizontal_positions,
    origins_in_line,
)

_PLANE = mujoco.mjtGeom.mjGEOM_PLANE.value


class Bodies:
    """Copies of all that a model shows. They are only shown: poses are given, and nothing is simulated.

    A robot that moves over the ground stays in place, and its surroundings move instead.

    Args:
        model: The environment's model; its horizontal planes become lanes of ground.
        colours: Colour of what actuators move, in each copy. The first copy is at the back, seen from negative y.

    Attributes:
        model: The model of all copies.
        spacing: Distance in y between neighbours, in m.
        scale: Size of what is shown, compared with a robot of about a metre.
        measure_name: "x" of a robot that moves over the ground, else empty: then there is nothing to measure.
    """

    elevation = -30.0  # degrees, of the camera

    def __init__(self, model: mujoco.MjModel, colours: Sequence[Colour]) -> None:
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self._travels, acting = _travelling(model), _acting(model)
        self.measure_name = "x" if 0 in self._travels else ""
        width = half_width(model, data)
        self.scale = float(np.clip(width, 0.2, 1.0)) if not self._travels else 1.0
        self.spacing = 2 * width + self.scale * GAP
        self._origins = origins_in_line(len(colours), self.spacing)
        planes = np.flatnonzero((model.geom_bodyid == 0) & (model.geom_type == _PLANE))
        self._ground = float(data.geom_xpos[planes, 2].max()) if planes.size else None
        spec = daylight()
        add_meshes(spec, model)
        shown = np.flatnonzero((model.geom_group < 3) & ~np.isin(np.arange(model.ngeom), planes))
        for i, (origin, colour) in enumerate(zip(self._origins, colours, strict=True)):
            if self._ground is not None:
                add_ground(spec, f"ground_{i}", origin, self.spacing, moves_sideways=1 in self._travels)
            for body in range(model.nbody):
                copy = spec.worldbody.add_body(name=f"copy_{i}_{body}", mocap=True)
                for geom in shown[model.geom_bodyid[shown] == body]:
                    add_geom(copy, model, geom, colour if body in acting else None)
                for site in np.flatnonzero((model.site_bodyid == body) & (model.site_group < 3)):
                    if body not in acting:  # on a robot they mark sensors, elsewhere what it should reach
                        _add_site(copy, model, int(site))
        self.model = spec.compile()

    def show(self, data: mujoco.MjData, poses: NDArray[np.floating], task: Any) -> None:
        """Puts the copies to places and orientations `[n, 7 (nbody - 1)]` of their bodies, see `body_poses`."""
        bodies = np.asarray(poses, np.float64).reshape(len(poses), -1, 7)
        moved = self._moved(bodies)[:, None]
        world = np.broadcast_to([0.0, 0, 0, 1, 0, 0, 0], (len(poses), 1, 7))
        places = np.concatenate([world, bodies], axis=1)
        places[:, :, :3] += self._origins[:, None] - moved
        if self._ground is not None:
            ground = world.copy()
            ground[:, :, :3] = self._origins[:, None] - moved % 1.0 + [0, 0, self._ground]  # a stripe at every metre
            places = np.concatenate([ground, places], axis=1)
        data.mocap_pos[:], data.mocap_quat[:] = np.split(places.reshape(-1, 7), [3], axis=1)

    def measure(self, poses: NDArray[np.floating], task: Any) -> NDArray[np.float64]:
        """Place in x of each robot, in m, `[n]`; 0 if it cannot move over the ground in x."""
        distances: NDArray[np.float64] = self._moved(np.asarray(poses, np.float64).reshape(len(poses), -1, 7))[:, 0]
        return distances

    def _moved(self, bodies: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each robot has moved over the ground, `[n, 3]`."""
        moved = np.zeros((len(bodies), 3))
        for axis, body in self._travels.items():
            moved[:, axis] = bodies[:, body - 1, axis]
        return moved


def _acting(model: mujoco.MjModel) -> set[int]:
    """Bodies of the trees in which an actuator moves a joint; all that can move if there are none."""
    actuators = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT.value
    roots = model.body_rootid[model.jnt_bodyid[model.actuator_trnid[actuators, 0]]]
    if not roots.size:
        return set(np.flatnonzero(model.body_weldid > 0).tolist())
    return set(np.flatnonzero(np.isin(model.body_rootid, roots) & (model.body_weldid > 0)).tolist())


def _travelling(model: mujoco.MjModel) -> dict[int, int]:
    """Axes along which what actuators move can move over the ground, 0 for x and 1 for y, with the body that does."""
    bodies = dict(zip(model.jnt_qposadr.tolist(), model.jnt_bodyid.tolist(), strict=True))
    acting, found = _acting(model), dict[int, int]()
    for address, axis in horizontal_positions(model).items():
        body = bodies.get(address, bodies.get(address - 1))  # the y of a free joint is its second number
        if body in acting:
            found.setdefault(axis, body)
    return found


def _add_site(body: mujoco.MjsBody, model: mujoco.MjModel, site: int) -> None:
    body.add_site(
        type=mujoco.mjtGeom(int(model.site_type[site])),
        size=model.site_size[site],
        pos=model.site_pos[site],
        quat=model.site_quat[site],
        rgba=model.site_rgba[site],
    )
