"""Third-party environments that render themselves, or fail to."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Dot(gymnasium.Env):
    """A red dot that moves a tenth of the picture to the right in each step, and a task that ends the episode early."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (as Gymnasium declares it)
    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    task_space = Box(0.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode: str | None = None, broken: bool = False) -> None:
        self.task = np.zeros(1, np.float32)
        self.render_mode, self.broken = render_mode, broken

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.steps = 0
        return np.array([0.0, self.np_random.random()]), {}

    def step(self, action: np.ndarray) -> tuple:
        self.steps += 1
        ends = self.steps == 5 and self.task[0] > 0.5
        return np.array([self.steps, 0.0]), float(self.steps), bool(ends), False, {}

    def render(self) -> np.ndarray:
        if self.broken:
            raise OSError("the display is on fire\nand there is more")
        picture = np.full((200, 400, 3), 255, np.uint8)
        picture[80:120, 40 * self.steps : 40 * self.steps + 40] = (255, 0, 0)
        return picture


for _name, _settings in {"Dot": {}, "BrokenDot": {"broken": True}}.items():
    gymnasium.register(f"{_name}ForTests-v0", "drawing_environments:Dot", max_episode_steps=9, kwargs=_settings)
