"""Task-distributed environments, registered with Gymnasium as `envs:<source>/<name>-v<version>`.

An id's namespace names the paper whose definition it follows, because results do not transfer between definitions.
"""

import os
import sys
from ctypes.util import find_library
from typing import Any

import gymnasium

if sys.platform == "linux" and "DISPLAY" not in os.environ and find_library("EGL") and find_library("OpenGL"):
    os.environ.setdefault("MUJOCO_GL", "egl")  # for drawing without a screen; MuJoCo reads it when it is imported

_ROTHFUSS, _ZINTGRAF = {"definition": "rothfuss2019"}, {"definition": "zintgraf2019"}

# id: (MDP, its settings, time limit in steps)
DEFINITIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "finn2017/Navigation2D-v0": ("envs.navigation:Navigation2D", {}, 100),
    "finn2017/HalfCheetahVel-v0": ("envs.half_cheetah:HalfCheetah", {"goal": "velocity"}, 200),
    "finn2017/HalfCheetahDir-v0": ("envs.half_cheetah:HalfCheetah", {"goal": "direction"}, 200),
    "finn2017/AntVel-v0": ("envs.ant:Ant", {"goal": "velocity"}, 200),
    "finn2017/AntDir-v0": ("envs.ant:Ant", {"goal": "direction"}, 200),
    "finn2017/AntGoal-v0": ("envs.ant:Ant", {"goal": "position"}, 200),
    "rothfuss2019/HalfCheetahVel-v0": ("envs.half_cheetah:HalfCheetah", {"goal": "velocity", **_ROTHFUSS}, 100),
    "rothfuss2019/HalfCheetahDir-v0": ("envs.half_cheetah:HalfCheetah", {"goal": "direction", **_ROTHFUSS}, 100),
    "rothfuss2019/AntDir-v0": ("envs.ant:Ant", {"goal": "direction", **_ROTHFUSS}, 100),
    "rothfuss2019/WalkerDir-v0": ("envs.walker:Walker", {"robot": "walker", "goal": "direction"}, 100),
    "rothfuss2019/WalkerRandomParameters-v0": ("envs.walker:Walker", {"robot": "walker", "goal": "dynamics"}, 100),
    "rothfuss2019/HopperRandomParameters-v0": ("envs.walker:Walker", {"robot": "hopper", "goal": "dynamics"}, 100),
    "zintgraf2019/HalfCheetahVel-v0": ("envs.half_cheetah:HalfCheetah", {"goal": "velocity", **_ZINTGRAF}, 200),
    "zintgraf2019/HalfCheetahDir-v0": ("envs.half_cheetah:HalfCheetah", {"goal": "direction", **_ZINTGRAF}, 200),
}

for _id, (_mdp, _settings, _max_episode_steps) in DEFINITIONS.items():
    gymnasium.register(
        id=_id,
        entry_point="envs.batched:TaskEnv",
        vector_entry_point="envs.batched:BatchedTaskEnv",
        max_episode_steps=_max_episode_steps,
        kwargs={"mdp": _mdp, **_settings},
    )
