"""A model that shows 2D navigation: several squares side by side, each with a point on its way to the goal."""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.mujoco.lanes import GROUND, Colour, daylight, origins_in_line

_HALF = 0.6  # m, of a square; goals are within 0.5
_POINT, _GOAL = 0.05, 0.07  # m, radii
_GOAL_COLOUR = (0.2, 0.2, 0.2, 1.0)


class Arenas:
    """Squares with a point and a goal, for display only: nothing is simulated.

    Args:
        colours: Colour of each point. The first square is at the back, seen from negative y.

    Attributes:
        model: The model of all squares.
        spacing: Distance in y between neighbours, in m.
    """

    measure_name = "to the goal"
    elevation = -55.0  # degrees, of the camera
    scale = 1.0
    spacing = 2 * _HALF + 0.1

    def __init__(self, colours: Sequence[Colour]) -> None:
        geom = mujoco.mjtGeom
        self._origins = origins_in_line(len(colours), self.spacing)
        spec = daylight()
        for origin, colour in zip(self._origins, colours, strict=True):
            ground = {"type": geom.mjGEOM_BOX, "size": [_HALF, _HALF, 0.01], "pos": origin - [0, 0, 0.01]}
            spec.worldbody.add_geom(**ground, rgba=GROUND)
            goal = spec.worldbody.add_body(mocap=True)
            goal.add_geom(type=geom.mjGEOM_CYLINDER, size=[_GOAL, 0.003, 0], rgba=_GOAL_COLOUR)
            point = spec.worldbody.add_body(mocap=True)
            point.add_geom(type=geom.mjGEOM_SPHERE, size=[_POINT, 0, 0], pos=[0, 0, _POINT], rgba=[*colour, 1.0])
        self.model = spec.compile()

    def show(self, data: mujoco.MjData, poses: NDArray[np.floating], task: Any) -> None:
        """Moves the points to positions `[n, 2]`, and the goal of each square to the task `[2]`."""
        goals, points = self._origins.copy(), self._origins.copy()
        goals[:, :2] += np.asarray(task)
        points[:, :2] += poses
        data.mocap_pos[:] = np.stack([goals, points], axis=1).reshape(-1, 3)

    def measure(self, poses: NDArray[np.floating], task: Any) -> NDArray[np.float64]:
        """Distance of each point from the goal, in m, `[n]`."""
        distances: NDArray[np.float64] = np.linalg.norm(poses - np.asarray(task), axis=1)
        return distances
