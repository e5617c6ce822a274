"""Task-distributed environments, registered with Gymnasium as `maml_rl.envs:<source>/<name>-v<version>`.

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

# id: (MDP in this package, its settings, time limit in steps)
DEFINITIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "finn2017/Navigation2D-v0": ("navigation:Navigation2D", {}, 100),
    "finn2017/HalfCheetahVel-v0": ("half_cheetah:HalfCheetah", {"goal": "velocity"}, 200),
    "finn2017/HalfCheetahDir-v0": ("half_cheetah:HalfCheetah", {"goal": "direction"}, 200),
    "finn2017/AntVel-v0": ("ant:Ant", {"goal": "velocity"}, 200),
    "finn2017/AntDir-v0": ("ant:Ant", {"goal": "direction"}, 200),
    "finn2017/AntGoal-v0": ("ant:Ant", {"goal": "position"}, 200),
    "rothfuss2019/HalfCheetahVel-v0": ("half_cheetah:HalfCheetah", {"goal": "velocity", **_ROTHFUSS}, 100),
    "rothfuss2019/HalfCheetahDir-v0": ("half_cheetah:HalfCheetah", {"goal": "direction", **_ROTHFUSS}, 100),
    "rothfuss2019/AntDir-v0": ("ant:Ant", {"goal": "direction", **_ROTHFUSS}, 100),
    "rothfuss2019/WalkerDir-v0": ("walker:Walker", {"robot": "walker", "goal": "direction"}, 200),
    "rothfuss2019/WalkerRandomParameters-v0": ("walker:Walker", {"robot": "walker", "goal": "dynamics"}, 200),
    "rothfuss2019/HopperRandomParameters-v0": ("walker:Walker", {"robot": "hopper", "goal": "dynamics"}, 200),
    "zintgraf2019/HalfCheetahVel-v0": ("half_cheetah:HalfCheetah", {"goal": "velocity", **_ZINTGRAF}, 200),
    "zintgraf2019/HalfCheetahDir-v0": ("half_cheetah:HalfCheetah", {"goal": "direction", **_ZINTGRAF}, 200),
    "nagabandi2019/HalfCheetahDisabledJoint-v0": ("crippled:Crippled", {"robot": "half-cheetah"}, 1000),
    "nagabandi2019/AntCrippledLeg-v0": ("crippled:Crippled", {"robot": "ant"}, 1000),
    "duan2016/BernoulliBandit-v0": ("bandits:Bandit", {"rewards": "bernoulli"}, 10),
    "duan2016/GaussianBandit-v0": ("bandits:Bandit", {"rewards": "gaussian"}, 10),
    "duan2016/TabularMDP-v0": ("tabular:TabularMDP", {}, 10),
    "parisotto2016/GridWorldSources-v0": ("gridworld:GridWorld", {"goals": "sources"}, 50),
    "parisotto2016/GridWorldTargets-v0": ("gridworld:GridWorld", {"goals": "targets"}, 50),
}

# Dynamics as tasks, which no paper defines: every family for every robot of `maml_rl.envs.runners`.
_ROBOTS = {"HalfCheetah": "half-cheetah", "Ant": "ant", "Walker": "walker", "Hopper": "hopper"}
_FAMILIES = {
    "Payload": "payload",
    "Friction": "friction",
    "Slope": "slope",
    "MotorStrength": "motor strength",
    "MotorGain": "motor gain",
    "DisabledJoint": "disabled joint",
    "ReversedMotor": "reversed motor",
    "WeakJoint": "weak joint",
    "ActionDelay": "action delay",
    "SensorOffset": "sensor offset",
    "Mixture": "mixture",
}
DYNAMICS: dict[str, tuple[str, dict[str, Any], int]] = {
    f"maml_rl/{_name}{_tasks}-v0": ("runners:Runner", {"robot": _robot, "family": _family}, 200)
    for _name, _robot in _ROBOTS.items()
    for _tasks, _family in _FAMILIES.items()
    # Walker and hopper begin in one pose: their first observation would give an offset away.
    if (_tasks, _name) not in {("SensorOffset", "Walker"), ("SensorOffset", "Hopper")}
}

for _id, (_mdp, _settings, _max_episode_steps) in {**DEFINITIONS, **DYNAMICS}.items():
    gymnasium.register(
        id=_id,
        entry_point="maml_rl.envs.batched:TaskEnv",
        vector_entry_point="maml_rl.envs.batched:BatchedTaskEnv",
        max_episode_steps=_max_episode_steps,
        kwargs={"mdp": f"{__name__}.{_mdp}", **_settings},
    )

# Meta-World as McLean et al. 2025 released it: each manipulation alone (ML1), and the benchmarks of several.
MANIPULATIONS = """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side handle-press
    handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side
    plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push push-wall
    push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
""".split()  # noqa: SIM905 (a list would take a line for each)

for _name, _benchmark in [(f"ML1-{m}", f"{m}-v3") for m in MANIPULATIONS] + [(b, b) for b in ("ML10", "ML25", "ML45")]:
    gymnasium.register(
        id=f"mclean2025/{_name}-v3",
        entry_point="maml_rl.envs.metaworld:MetaWorld",
        max_episode_steps=500,
        disable_env_checker=True,  # it warns of the zeros that stand for the hidden goal
        kwargs={"benchmark": _benchmark},
    )
