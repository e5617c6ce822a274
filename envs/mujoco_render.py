"""Pictures of MuJoCo robots, with a camera that follows them.

Gymnasium's own camera stands still, so a running robot leaves the picture.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray


class TrackingRenderer:
    """Draws positions of one model.

    Args:
        model: The model.
        body: Name of the body that the camera follows.
        width, height: Size of the picture in pixels.

    Raises:
        RuntimeError: If this machine has no OpenGL, with the packages to install.
    """

    def __init__(self, model: mujoco.MjModel, body: str, width: int = 480, height: int = 320) -> None:
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # each OpenGL backend raises another type, from import errors to attribute errors
            raise RuntimeError(
                "rendering needs OpenGL, which this machine lacks; on Debian or Ubuntu without a screen: "
                "apt install libegl1 libgl1-mesa-dri libopengl0; and import envs before mujoco, or set MUJOCO_GL=egl"
            ) from error
        self._model = model
        self._data = mujoco.MjData(model)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE.value
        self._body = model.body(body).id
        self._camera.distance, self._camera.azimuth, self._camera.elevation = 3.5, 90.0, -12.0
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW.value] = 0
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION.value] = 0

    def close(self) -> None:
        """Frees the OpenGL context."""
        self._renderer.close()

    def render(self, qpos: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Picture `[height, width, 3]` of positions `[nq]`."""
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        self._camera.lookat[:] = self._data.subtree_com[self._body]  # MuJoCo's tracking camera lags behind before 4.0
        self._renderer.update_scene(self._data, self._camera)
        pixels: NDArray[np.uint8] = self._renderer.render()
        return pixels
