"""A robot as others write it: Gymnasium's own MujocoEnv, without any code of this package."""

from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import Box, Dict, Discrete


class Crawler(MujocoEnv):
    """An arm that drags a torso. A task sets the length of the arm, where a flag stands, and which way to crawl."""

    metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 20}  # noqa: RUF012
    task_space = Dict(arm=Box(0.1, 0.5, (1,), np.float32), flag=Box(-2.0, 2.0, (2,), np.float32), way=Discrete(2))

    def __init__(self, **settings: object) -> None:
        self.task = {"arm": np.full(1, 0.25, np.float32), "flag": np.zeros(2, np.float32), "way": 1}
        space = Box(-np.inf, np.inf, (9,), np.float64)
        super().__init__(str(Path(__file__).with_name("crawler.xml")), 5, observation_space=space, **settings)

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.data.qpos[3:], self.data.qvel[:3], self.data.qvel[-1:]])

    def reset_model(self) -> np.ndarray:
        self.way = 2 * int(self.task["way"]) - 1
        self.model.body_pos[self.model.body("hand").id, 0] = self.task["arm"][0]
        self.data.mocap_pos[0, :2] = self.task["flag"]
        self.set_state(self.init_qpos, self.init_qvel + self.np_random.normal(0.0, 0.01, self.model.nv))
        return self._observation()

    def step(self, action: np.ndarray) -> tuple:
        before = self.data.qpos[0]
        self.do_simulation(action, self.frame_skip)
        distance = np.linalg.norm(self.data.qpos[:2] - self.data.mocap_pos[0, :2])
        reward = self.way * float(self.data.qpos[0] - before) / self.dt - 0.01 * float(distance)
        return self._observation(), reward, False, False, {}


gymnasium.register("Crawler-v0", entry_point=Crawler, max_episode_steps=20)
