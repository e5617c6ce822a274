"""A half-cheetah with a disabled joint and an ant with a crippled leg (Nagabandi et al. 2019, section 6)."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Literal, NamedTuple

import mujoco
import numpy as np
from gymnasium.spaces import Box, Discrete

from maml_rl.envs.ant import ANT_DEFINITIONS, define_ant
from maml_rl.envs.batched import Array
from maml_rl.envs.mujoco.mdp import MujocoMDP, normal_noise
from maml_rl.envs.mujoco.model import gymnasium_model
from maml_rl.envs.mujoco.tracking import SIDE_VIEW, Camera

_ANT = ANT_DEFINITIONS["finn2017"]
_SENSOR, _OBJECT = mujoco.mjtSensor, mujoco.mjtObj
_AXES = (_SENSOR.mjSENS_FRAMEXAXIS, _SENSOR.mjSENS_FRAMEYAXIS, _SENSOR.mjSENS_FRAMEZAXIS)
_LEGS = {  # as the model's file names them: leg and foot of each
    "front left": ("left_leg_geom", "left_ankle_geom"),
    "front right": ("right_leg_geom", "right_ankle_geom"),
    "back left": ("back_leg_geom", "third_ankle_geom"),
    "back right": ("rightback_leg_geom", "fourth_ankle_geom"),
}


class CrippledDefinition(NamedTuple):
    """One of the two robots."""

    tasks: dict[str, Discrete]  # by split
    control_cost: float
    alive: float  # reward of a step
    first: int  # position that is observed first: x of the half-cheetah is not
    camera: Camera = SIDE_VIEW


CRIPPLED = {
    "half-cheetah": CrippledDefinition({"train": Discrete(5, start=1), "test": Discrete(1)}, 0.05, 0.0, 1),
    "ant": CrippledDefinition(
        {"train": Discrete(3), "test": Discrete(1, start=3)}, 0.0, 0.05, 0, Camera(distance=3.6, elevation=-20.0)
    ),
}


class Crippled(MujocoMDP):
    """A robot that runs forward with a disabled joint or a crippled leg.

    ## Description

    The tasks of Nagabandi, Clavera, Liu, Fearing, Abbeel, Levine, Finn 2019, *Learning to Adapt in Dynamic, Real-World
    Environments through Meta-Reinforcement Learning*, as in the authors' code (`half_cheetah_env.py` and `ant_env.py`
    of github.com/iclavera/learning_to_adapt). Their agents learn a model of the dynamics and adapt it at each step;
    here an episode has one task, as in their training.

    The code loads `half_cheetah.xml` and `ant.xml`, which its repository does not contain. Its base class, its other
    half-cheetah, and the names and numbers of the ant's parts are rllab's, so the robots here are those of `finn2017`:
    a control step is one physics step, of 0.01 s for the half-cheetah and 0.02 s for the ant.

    A disabled joint gets no torque. A crippled leg gets none at hip and ankle; the capsules of leg and foot have half
    their radius and half their length, and the foot's is where the leg's was, so that it hardly reaches the ground.
    Masses and moments of inertia stay as they were.

    ## Action space

    `Box(-1, 1, (6,), float32)`, for the ant `(8,)`, clipped: torques as in `HalfCheetah` and `Ant`.

    ## Observation space

    `Box(-inf, inf, (20,), float64)`: positions without x (8), velocities (9), centre of mass of the whole body (3), as
    in `finn2017`. For the ant `(41,)`: positions (15), velocities (14), rotation matrix of the torso, row by row (9),
    centre of mass of the whole body (3). Units are m, rad, m/s and rad/s.

    ## Task

    - half-cheetah: which joint is disabled. `Discrete(5, start=1)`, 1 to 5 for bshin, bfoot, fthigh, fshin, ffoot; for
      the split `"test"` `Discrete(1)`, 0 for bthigh.
    - ant: which leg is crippled. `Discrete(3)`, 0 to 2 for front left, front right, back left; for the split `"test"`
      `Discrete(1, start=3)`, 3 for back right.

    ## Rewards

    With v the velocity in x of the centre of mass of the whole body after the step, and a the clipped action, 0 where a
    joint is disabled:

    - `reward_forward` = v;
    - `reward_alive` = 0.05 for the ant, 0 for the half-cheetah;
    - `reward_control` = -0.05 |a|^2 for the half-cheetah, 0 for the ant.

    `info` holds all terms.

    ## Starting state

    As in `finn2017`: noise 0.01 N(0, 1) on each position and 0.1 N(0, 1) on velocities; the ant at a height of 0.55 m
    with its ankles at 1, -1, -1, 1 rad.

    ## Episode end

    Terminates only when a number is not finite. Truncated after 1000 steps, as in `run_grbal.py`; its sweep
    (`grbal_run_sweep.py`) has 100.

    ## Arguments

    - `robot`: `"half-cheetah"` or `"ant"`.
    - `split`: `"train"`, or `"test"` for the joint or leg that training leaves out.
    - `threads`: number of threads that step a batch; all cores if None. It does not change any result.

    ## Version history

    - v0: as in the authors' code, as far as it was published.
    """

    def __init__(
        self,
        robot: Literal["half-cheetah", "ant"],
        split: Literal["train", "test"] = "train",
        threads: int | None = None,
    ) -> None:
        if robot not in CRIPPLED:
            raise ValueError(f"robot must be one of {', '.join(CRIPPLED)}, got {robot!r}")
        self.robot, self._is_ant = CRIPPLED[robot], robot == "ant"
        if split not in self.robot.tasks:
            raise ValueError(f"split must be one of {', '.join(self.robot.tasks)}, got {split!r}")
        self.task_space = self.robot.tasks[split]
        self.task_quantity = "crippled leg" if self._is_ant else "disabled joint"
        self.camera = self.robot.camera
        model = gymnasium_model("ant.xml" if self._is_ant else "half_cheetah.xml", self._prepare)
        super().__init__(model, np.array(_ANT.pose) if self._is_ant else None, normal_noise, threads=threads)
        self._crippled = {task: self._model(task) for task in range(len(_LEGS) if self._is_ant else model.nu)}
        size = model.nq - self.robot.first + model.nv + 3 + (9 if self._is_ant else 0)
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)

    def _prepare(self, spec: mujoco.MjSpec) -> None:
        """Time step and contacts, and the sensors of centre of mass, its velocity and the torso's axes."""
        if self._is_ant:
            define_ant(spec, _ANT)
        for kind in (_SENSOR.mjSENS_SUBTREECOM, _SENSOR.mjSENS_SUBTREELINVEL):
            spec.add_sensor(name=kind.name, type=kind, objtype=_OBJECT.mjOBJ_BODY, objname="torso")
        for kind in _AXES:
            spec.add_sensor(name=kind.name, type=kind, objtype=_OBJECT.mjOBJ_XBODY, objname="torso")

    def disabled(self, tasks: Array) -> Array:
        """Which actuators give no torque, `[n, nu]`."""
        moves = np.arange(self.model.nu)
        if self._is_ant:  # of leg k numbers 2k + 2 and 2k + 3 move hip and ankle; those of the last leg come first
            moves = (moves // 2 - 1) % len(_LEGS)
        disabled: Array = moves == np.asarray(tasks)[:, None]
        return disabled

    def _model(self, task: int) -> mujoco.MjModel:
        model = copy(self.model)
        model.actuator_gear[self.disabled(np.array([task]))[0]] = 0.0
        if self._is_ant:
            leg, foot = (model.geom(name).id for name in list(_LEGS.values())[task])
            model.geom_size[[leg, foot], :2] /= 2
            model.geom_pos[foot] = model.geom_pos[leg]
            model.geom_sameframe[foot] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE.value  # it was at the centre of its body
        return model

    def models(self, tasks: Array) -> list[mujoco.MjModel]:
        """The model with each task's joint or leg."""
        return [self._crippled[int(task)] for task in tasks]

    def observation(self, states: Array) -> Array:
        """Positions, velocities, for the ant the torso's rotation, and the centre of mass."""
        parts = [self.qpos(states)[:, self.robot.first :], self.qvel(states)]
        if self._is_ant:
            axes = self.reading(states, *(kind.name for kind in _AXES)).reshape(-1, 3, 3)
            parts.append(axes.transpose(0, 2, 1).reshape(-1, 9))  # an axis is a column, and the matrix goes row by row
        return np.concatenate([*parts, self.reading(states, _SENSOR.mjSENS_SUBTREECOM.name)], axis=1)

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Speed forward, the reward of a step, and the cost of control."""
        controls = np.where(self.disabled(tasks), 0.0, self.controls(actions))
        return {
            "reward_forward": self.reading(next_states, _SENSOR.mjSENS_SUBTREELINVEL.name)[:, 0],
            "reward_alive": np.full(len(states), self.robot.alive),
            "reward_control": -self.robot.control_cost * np.square(controls).sum(axis=1),
        }

    def terminated(self, states: Array, tasks: Array) -> Array:
        """Whether a number is not finite."""
        lost: Array = np.any(~np.isfinite(states), axis=1)
        return lost

    def task_name(self, task: Any) -> str:
        """The joint or the leg."""
        return (
            f"{list(_LEGS)[int(task)]} leg crippled"
            if self._is_ant
            else f"{self.model.actuator(int(task)).name} disabled"
        )
