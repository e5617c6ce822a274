"""Environments as robotics engineers write them, whose tasks have names and are of several kinds."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

MATERIALS = ("ice", "wood", "rubber")


class Cart(gymnasium.Env):
    """A cart that should stop at 1, with a payload, a floor, two motors of some strength and a broken sensor."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (as Gymnasium declares it)
    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    task_space = Dict(
        payload=Box(0.5, 5.0, (), np.float32),
        friction=Discrete(len(MATERIALS)),
        motors=Box(0.5, 1.5, (2,), np.float32),
        broken=MultiBinary(1),
    )

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.task = {
            "payload": np.float32(1.0), "friction": np.int64(0), "motors": np.ones(2, np.float32),
            "broken": np.zeros(1, np.int8),
        }  # fmt: skip

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.now = self.task
        self.state = np.array([self.np_random.normal(0.0, 0.05), 0.0])
        return self._observation(), {}

    def _observation(self) -> np.ndarray:
        return self.state * (1.0 - np.asarray(self.now["broken"])[0] * np.array([0.0, 1.0]))

    def step(self, action: np.ndarray) -> tuple:
        force = 4.0 * float(np.mean(self.now["motors"])) * float(np.clip(action, -1.0, 1.0)[0])
        drag = (0.05, 0.5, 2.0)[int(self.now["friction"])] * self.state[1]
        velocity = self.state[1] + 0.1 * (force - drag) / float(self.now["payload"])
        self.state = np.array([self.state[0] + 0.1 * velocity, velocity])
        return self._observation(), -abs(float(self.state[0]) - 1.0), False, False, {}

    def render(self) -> np.ndarray:
        picture = np.full((120, 240, 3), 255, np.uint8)
        picture[90:] = (200, 200, 200)
        left = int(np.clip(60 + 60 * self.state[0], 0, 210))
        picture[60:90, left : left + 30] = (22, 104, 184)
        return picture


gymnasium.register("CartForTests-v0", "dict_environments:Cart", max_episode_steps=20)
