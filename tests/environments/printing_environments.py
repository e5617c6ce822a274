"""An environment and a task function that print at every opportunity and in every way."""

import atexit
import ctypes
import os
import sys

import gymnasium
import numpy as np
from gymnasium.spaces import Box

OUTPUT = sys.stdout  # as a logging handler does


def shout(where: str) -> None:
    print(f"print {where}")
    if not OUTPUT.closed:
        OUTPUT.write(f"kept {where}\n")
    sys.__stdout__.write(f"first {where}\n")
    os.write(1, f"descriptor {where}\n".encode())
    ctypes.CDLL(None).puts(f"C {where}".encode())
    sys.stdout.flush()


shout("import")
atexit.register(shout, "exit")


class Loud(gymnasium.Env):
    observation_space, action_space = Box(-9, 9, (1,), np.float32), Box(-1, 1, (1,), np.float32)
    task_space, task = Box(-1, 1, (1,), np.float32), np.zeros(1, np.float32)

    def __init__(self):
        shout("init")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        shout("reset")
        self.goal, self.x = self.task, self.np_random.normal(0, 0.1, 1).astype(np.float32)
        return self.x, {}

    def step(self, action):
        shout("step")
        self.x = (self.x + 0.1 * np.clip(action, -1, 1)).astype(np.float32)
        return self.x, -abs(float(action[0] - self.goal[0])), False, False, {}

    def close(self):
        shout("close")


gymnasium.register("Loud-v0", entry_point=f"{__name__}:Loud", max_episode_steps=3)


def tasks(seed, index):
    shout("tasks")
    generator = np.random.default_rng([seed, index])
    inputs = generator.normal(size=(2, 3, 1)).astype(np.float32)
    return inputs[0], inputs[0], inputs[1], inputs[1]
