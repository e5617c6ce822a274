"""A model that shows several copies of one robot side by side, each on its own lane, to compare how they move.

The copies share one picture, so each robot stays where it is and the ground of its lane moves instead: a robot that
runs 50 m does not leave the picture, and its speed shows in the stripes that pass beneath it.
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.mujoco.batch import NOT_NEEDED

Colour = tuple[float, float, float]  # red, green, blue, from 0 to 1

GROUND, _STRIPE = (0.84, 0.86, 0.89, 1.0), (0.66, 0.70, 0.76, 1.0)
_SKY, _HORIZON = (0.72, 0.80, 0.90), (0.93, 0.95, 0.97)
_HALF_LENGTH = 12  # m, of a lane
GAP = 0.9  # m, between the widest parts of two robots
_STRIPE_WIDTH = 0.05  # m
_THICKNESS = 0.02  # m, of the ground


class Lanes:
    """Copies of one robot, for display only: nothing is simulated.

    Args:
        robot: Model of the robot; what belongs to the world, such as its floor, is left out.
        colours: Colour of each copy. The first is at the back, seen from negative y.

    Attributes:
        model: The model of all copies, whose positions are those of one robot after the other.
        spacing: Distance in y between neighbours, in m.
    """

    measure_name = "x"
    elevation = -30.0  # degrees, of the camera
    scale = 1.0

    def __init__(self, robot: mujoco.MjModel, colours: Sequence[Colour]) -> None:
        self._robot, self._horizontal = robot, horizontal_positions(robot)
        data = mujoco.MjData(robot)
        mujoco.mj_forward(robot, data)
        self.spacing = float(2 * half_width(robot, data) + GAP)
        self._origins = origins_in_line(len(colours), self.spacing)
        spec = daylight()
        add_meshes(spec, robot)
        for i, (origin, colour) in enumerate(zip(self._origins, colours, strict=True)):
            add_ground(spec, f"ground_{i}", origin, self.spacing, moves_sideways=1 in self._horizontal.values())
            _add_robot(spec, robot, f"robot_{i}", origin, colour)
        self.model = spec.compile()

    def show(self, data: mujoco.MjData, poses: NDArray[np.floating], task: Any) -> None:
        """Moves the copies to poses `[n, nq]` of the robot, and the ground beneath them."""
        # What would move a robot over the ground moves its lane the other way instead, modulo the distance of two
        # stripes. A free joint's position is in the world's frame, so it gets the origin of its lane; other robots have
        # the origin in their model.
        shown, ground = np.array(poses, np.float64), self._origins.copy()
        for address, axis in self._horizontal.items():
            ground[:, axis] -= shown[:, address] % 1.0  # a stripe at every metre
            shown[:, address] = 0.0
        for joint in _free_joints(self._robot):
            address = self._robot.jnt_qposadr[joint]
            shown[:, address : address + 2] += self._origins[:, :2]
        data.qpos[:], data.mocap_pos[:] = shown.reshape(-1), ground

    def measure(self, poses: NDArray[np.floating], task: Any) -> NDArray[np.float64]:
        """Distance in x that each robot has covered, in m, `[n]`; 0 if it cannot move over the ground."""
        distances = np.zeros(len(poses))
        for address, axis in self._horizontal.items():
            if axis == 0:
                distances += poses[:, address]
        return distances


def origins_in_line(count: int, spacing: float) -> NDArray[np.float64]:
    """Origins `[count, 3]` in a line along y about 0, the first at the back."""
    places = (np.arange(count)[::-1] - (count - 1) / 2) * spacing
    return np.stack([np.zeros(count), places, np.zeros(count)], axis=1)


def daylight() -> mujoco.MjSpec:
    """An empty scene with light and sky."""
    spec = mujoco.MjSpec()
    spec.option.disableflags |= NOT_NEEDED
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.45] * 3, [0.35] * 3
    spec.worldbody.add_light(pos=[-4, -6, 10], dir=[4, 6, -10], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    spec.add_texture(
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=_SKY,
        rgb2=_HORIZON,
        width=64,
        height=64,
    )
    return spec


def _free_joints(model: mujoco.MjModel) -> NDArray[np.int64]:
    return np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE.value)


def horizontal_positions(model: mujoco.MjModel) -> dict[int, int]:
    """Which elements of qpos move the whole robot over the ground, and along which axis: 0 for x, 1 for y."""
    found: dict[int, int] = {}
    for joint in range(model.njnt):
        address, axis = int(model.jnt_qposadr[joint]), model.jnt_axis[joint]
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE.value:
            found |= {address: 0, address + 1: 1}
        elif (
            model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE.value
            and model.body_parentid[model.jnt_bodyid[joint]] == 0
            and axis.max() == 1.0
            and axis[2] == 0
        ):
            found[address] = int(axis.argmax())
    return found


def half_width(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Largest distance in y, in m, of a part of the robot from its origin."""
    widths = [0.1]
    for geom in np.flatnonzero((model.geom_bodyid > 0) & (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE.value)):
        rotation = data.geom_xmat[geom].reshape(3, 3)
        centre = data.geom_xpos[geom] + rotation @ model.geom_aabb[geom, :3]
        widths.append(abs(centre[1]) + abs(rotation[1]) @ model.geom_aabb[geom, 3:])
    return max(widths)


def add_meshes(spec: mujoco.MjSpec, robot: mujoco.MjModel) -> None:
    """Gives a scene the meshes of a compiled model, by their numbers in it."""
    for mesh in range(robot.nmesh):
        vertices, faces = robot.mesh_vertadr[mesh], robot.mesh_faceadr[mesh]
        spec.add_mesh(
            name=f"mesh_{mesh}",
            uservert=robot.mesh_vert[vertices : vertices + robot.mesh_vertnum[mesh]].reshape(-1),
            userface=robot.mesh_face[faces : faces + robot.mesh_facenum[mesh]].reshape(-1),
        )


def add_ground(spec: mujoco.MjSpec, name: str, origin: NDArray[np.float64], width: float, moves_sideways: bool) -> None:
    """A lane with a stripe at every metre, across, and along too if the robot can move in y."""
    box = mujoco.mjtGeom.mjGEOM_BOX
    body = spec.worldbody.add_body(name=name, pos=origin, mocap=True)
    half_width = (width - 0.04) / 2 if not moves_sideways else width / 2
    body.add_geom(type=box, size=[_HALF_LENGTH, half_width, _THICKNESS], pos=[0, 0, -_THICKNESS], rgba=GROUND)
    for x in range(-_HALF_LENGTH + 1, _HALF_LENGTH):
        size = [_STRIPE_WIDTH / 2, half_width, _THICKNESS]
        body.add_geom(type=box, size=size, pos=[x, 0, 0.002 - _THICKNESS], rgba=_STRIPE)
    if moves_sideways:
        reach = int(half_width)
        for y in range(-reach, reach + 1):
            size = [_HALF_LENGTH, _STRIPE_WIDTH / 2, _THICKNESS]
            body.add_geom(type=box, size=size, pos=[0, y, 0.002 - _THICKNESS], rgba=_STRIPE)


def _add_robot(
    spec: mujoco.MjSpec, robot: mujoco.MjModel, name: str, origin: NDArray[np.float64], colour: Colour
) -> None:
    """The robot's bodies, joints and visible shapes, as the compiled model has them, and so its positions."""
    bodies = [spec.worldbody]
    free = robot.jnt_bodyid[_free_joints(robot)]
    for i in range(1, robot.nbody):
        parent = robot.body_parentid[i]
        position = robot.body_pos[i] + (origin if parent == 0 and i not in free else 0)
        body = bodies[parent].add_body(name=f"{name}_{i}", pos=position, quat=robot.body_quat[i])
        # MuJoCo refuses a moving body without mass, as one without shapes has. Nothing is simulated: any mass will do.
        body.explicitinertial, body.mass, body.inertia = True, 1.0, [1.0] * 3
        bodies.append(body)
    for joint in range(robot.njnt):
        kind = mujoco.mjtJoint(int(robot.jnt_type[joint]))
        settings = {"pos": robot.jnt_pos[joint], "axis": robot.jnt_axis[joint]}
        if kind in (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE):
            settings["ref"] = robot.qpos0[robot.jnt_qposadr[joint]]
        bodies[robot.jnt_bodyid[joint]].add_joint(type=kind, **settings)
    for geom in np.flatnonzero((robot.geom_bodyid > 0) & (robot.geom_group < 3)):
        add_geom(bodies[robot.geom_bodyid[geom]], robot, int(geom), colour)


def add_geom(body: mujoco.MjsBody, robot: mujoco.MjModel, geom: int, colour: Colour | None = None) -> None:
    """Gives a body a shape of a compiled model, in a colour, or in its own if None.

    Shapes of terrain and of signed distance functions are left out.
    """
    kind = mujoco.mjtGeom(int(robot.geom_type[geom]))
    if kind in (mujoco.mjtGeom.mjGEOM_HFIELD, mujoco.mjtGeom.mjGEOM_SDF):
        return
    own = robot.geom_rgba[geom] if robot.geom_matid[geom] < 0 else robot.mat_rgba[robot.geom_matid[geom]]
    mesh = {"meshname": f"mesh_{robot.geom_dataid[geom]}"} if kind == mujoco.mjtGeom.mjGEOM_MESH else {}
    body.add_geom(
        type=kind,
        size=robot.geom_size[geom],
        pos=robot.geom_pos[geom],
        quat=robot.geom_quat[geom],
        rgba=own if colour is None else [*colour, robot.geom_rgba[geom, 3]],
        **mesh,
    )
