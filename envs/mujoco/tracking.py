"""Pictures of MuJoCo robots, with a camera that follows them.

Gymnasium's own camera stands still, so a running robot leaves the picture. The floor is plain, with a stripe at every
metre to show the speed: a clip is a fifth of the size of one with a checkerboard.
"""

from contextlib import suppress
from copy import copy
from importlib import import_module
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

_FLOOR, _STRIPE, _SKY = (0.80, 0.83, 0.87, 1.0), (0.62, 0.66, 0.72, 1.0), (222, 230, 240)
_STRIPE_WIDTH = 0.04  # m
_REACH = 12  # m; how far from the robot stripes are drawn


class Camera(NamedTuple):
    """Place of the camera, relative to the robot."""

    distance: float = 2.8  # m
    azimuth: float = 90.0  # degrees; at 90 x goes to the right
    elevation: float = -10.0  # degrees


SIDE_VIEW = Camera()


class TrackingRenderer:
    """Draws positions of one model.

    Without shadows, reflections and multisampling a software renderer draws ten times as many pictures a second. Edges
    are smooth because a picture is drawn at twice its size, which takes half the time of multisampling.

    Args:
        model: The model; it is not changed.
        body: The body that the camera follows, by name or number.
        width, height: Size of the picture in pixels.
        camera: Place of the camera.

    Raises:
        RuntimeError: If this machine has no OpenGL, with the packages to install.
    """

    def __init__(
        self, model: mujoco.MjModel, body: str | int, width: int = 480, height: int = 320, camera: Camera = SIDE_VIEW
    ) -> None:
        self._model = model = _plain(model)
        model.vis.global_.offwidth, model.vis.global_.offheight = 2 * width, 2 * height
        load_triton()
        try:
            self._renderer = mujoco.Renderer(model, 2 * height, 2 * width)
        except Exception as error:  # each OpenGL backend raises another type, from import errors to attribute errors
            raise RuntimeError(
                "rendering needs OpenGL, which is missing on this machine; on Debian or Ubuntu without a screen: "
                "apt install libegl1 libgl1-mesa-dri libopengl0; "
                "and import maml_rl.envs before mujoco, or set MUJOCO_GL=egl"
            ) from error
        self._data = mujoco.MjData(model)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE.value
        self._body = model.body(body).id
        self._camera.distance, self._camera.azimuth, self._camera.elevation = camera
        mujoco.mj_forward(model, self._data)
        self._height = self._data.subtree_com[self._body, 2]  # the camera does not follow the robot up and down
        flags = self._renderer.scene.flags
        for flag in ("SHADOW", "REFLECTION", "HAZE"):
            flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}").value] = 0

    def close(self) -> None:
        """Frees the OpenGL context."""
        self._renderer.close()

    def render(self, qpos: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Picture `[height, width, 3]` of positions `[nq]`."""
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        # MuJoCo's tracking camera lags behind before 4.0.
        self._camera.lookat[:2] = self._data.subtree_com[self._body, :2]
        self._camera.lookat[2] = self._height
        self._renderer.update_scene(self._data, self._camera)
        self._add_stripes()
        return _halved(self._renderer.render())

    def _add_stripes(self) -> None:
        scene, x = self._renderer.scene, round(self._camera.lookat[0])
        size, flat, colour = (
            np.array([_STRIPE_WIDTH / 2, _REACH, 0.1]),
            np.eye(3).reshape(-1),
            np.array(_STRIPE, np.float32),
        )
        for metre in range(x - _REACH, x + _REACH + 1):
            if scene.ngeom == scene.maxgeom:
                return
            place = np.array([metre, self._camera.lookat[1], 0.002])  # above the floor, which would flicker otherwise
            mujoco.mjv_initGeom(scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_PLANE, size, place, flat, colour)
            scene.ngeom += 1


def load_triton() -> None:
    """Loads Triton if it is installed (PyTorch for CUDA brings it); call this before anything is drawn.

    Triton and the software renderer of OpenGL (Mesa) both bring LLVM. If Triton is loaded second, the process crashes.
    PyTorch loads it when the first optimiser or compiled function is made.
    """
    with suppress(ImportError):
        import_module("triton")


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of half the size: the means of two by two pixels."""
    # In 16 bits four pixels add up without overflow; adding 2 before the shift rounds to the nearest.
    rows = pixels[::2].astype(np.uint16)
    rows += pixels[1::2]
    sums = rows[:, ::2] + rows[:, 1::2]
    sums += 2
    sums >>= 2
    return sums.astype(np.uint8)


def _plain(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy with an endless floor of one colour below an even sky."""
    model = copy(model)
    model.vis.quality.offsamples = 0
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE.value):
        model.geom_matid[geom], model.geom_rgba[geom], model.geom_size[geom, :2] = -1, _FLOOR, 0.0
    for texture in np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX.value):
        start, channels = model.tex_adr[texture], int(model.tex_nchannel[texture])
        pixels = model.tex_height[texture] * model.tex_width[texture]
        model.tex_data[start : start + channels * pixels] = np.tile(_SKY[:channels], pixels)
    return model
